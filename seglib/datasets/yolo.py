"""YOLO-seg folders: read as objects and class masks, written from COCO annotations, and written back to COCO.

    data.yaml                  class names and the images folder of each part
    train/images/a.jpg         train/labels/a.txt holds one line for each object:
                               class x1 y1 x2 y2 ..., as fractions of width and height
    valid/images/b.jpg         no label file, or an empty one: no object on this image

A line holds one polygon, so it can express neither holes nor several parts: see `coco_to_yolo`.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.base import Problem, Transform, as_sample, is_readable, report_problems
from seglib.datasets.coco import COCOSegmentationDataset, Segmentation, annotation_bitmap
from seglib.files import IMAGE_SUFFIXES, atomic_path, check_choice, image_size, link_or_copy, read_image, write_lines
from seglib.instances import Instances
from seglib.masks import (
    Polygon,
    check_classes,
    join_polygons,
    mask_to_outlines,
    polygons_to_mask,
    polygons_to_yolo,
    rle_to_mask,
    yolo_to_polygons,
)

__all__ = [
    "YOLO_PARTS",
    "ConversionReport",
    "YOLOSegmentationDataset",
    "coco_to_yolo",
    "round_trip_iou",
    "segmentation_to_yolo",
    "write_data_yaml",
    "yolo_parts",
    "yolo_to_coco",
]

YOLO_PARTS = {"train": "train", "val": "valid", "test": "test"}  # each part's folder, named as Roboflow does

_Outline = tuple[Polygon, list[Polygon]]  # the outer polygon of a part and the polygons of its holes


class YOLOSegmentationDataset(Dataset[tuple[Tensor, Tensor, str]]):
    """Images with the outlines of their objects, in Ultralytics' YOLO-seg layout.

    Args:
        root: the folder that holds data.yaml.
        part: "train", "val" or "test".
        transform: a deterministic change of image and mask, such as `transforms.resize`. It does not change
            `instances`.
        on_error: "raise", or "skip" to leave out broken lines and images that cannot be read.

    Attributes:
        classes: ["background", ...]. YOLO's class 0 is class 1 here.
        filenames: the sorted paths of the images, relative to `images_dir`.
        images_dir: the images folder of the part.
        problems: what was skipped, by file and line.

    Raises:
        FileNotFoundError: data.yaml, the part or its labels are missing.
        ValueError: broken lines, by file and line number; no images.
    """

    def __init__(
        self, root: str | Path, part: str = "train", transform: Transform | None = None, *, on_error: str = "raise"
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        self.root = Path(root)
        self.part = part
        self.transform = transform
        self.problems: list[Problem] = []
        names, folders = _read_data_yaml(self.root)
        self.classes = ["background", *names]
        check_classes(self.classes)
        self.images_dir = _folder_of_part(folders, part, self.root)
        _check_labels_dir(self.images_dir)
        self._broken_lines: dict[str, set[int]] = defaultdict(set)  # line numbers by file name
        self.filenames = _find_images(self.images_dir)
        if not self.filenames:
            raise ValueError(f"no image in {self.images_dir}")
        for name in self.filenames:
            self._check_lines(name)
        self.problems += _unused_label_files(self.images_dir, self.filenames)
        if on_error == "skip":
            self.filenames = [name for name in self.filenames if self._is_readable(name)]
        report_problems(self.problems, on_error, str(self.images_dir.parent))

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name. Where two objects overlap, the smaller one is seen."""
        pixels = read_image(self.image_path(index))
        labels = self.instances(index).semantic()
        image, mask = as_sample(pixels, labels, len(self.classes), self.label_path(index), self.transform)
        return image, mask, self.filenames[index]

    def image_path(self, index: int) -> Path:
        """The file of an image."""
        return self.images_dir / self.filenames[index]

    def label_path(self, index: int) -> Path:
        """The label file of an image, which may not exist."""
        return _label_path(self.images_dir, self.filenames[index])

    def lines(self, index: int) -> list[str]:
        """The valid label lines of an image."""
        broken = self._broken_lines.get(self.filenames[index], set())
        return [line for number, line in _read_lines(self.label_path(index)) if number not in broken]

    def polygons(self, index: int) -> list[tuple[int, list[Polygon]]]:
        """YOLO's class and the polygon, in pixels, of each object of an image."""
        height, width = image_size(self.image_path(index))
        return [yolo_to_polygons(line, height, width) for line in self.lines(index)]

    def instances(self, index: int) -> Instances:
        """The objects of an image at its own size: one for each line, in the order of the file."""
        objects = self.polygons(index)
        labels = [number + 1 for number, _ in objects]
        return Instances.of([polygons for _, polygons in objects], labels, size=image_size(self.image_path(index)))

    def _check_lines(self, name: str) -> None:
        path = _label_path(self.images_dir, name)
        for number, line in _read_lines(path):
            try:
                index, _ = yolo_to_polygons(line, 1, 1)
                if index >= len(self.classes) - 1:
                    raise ValueError(f"class {index} is unknown: data.yaml has {len(self.classes) - 1}, counted from 0")
            except ValueError as error:
                self.problems.append(Problem(f"{path}:{number}", str(error)))
                self._broken_lines[name].add(number)

    def _is_readable(self, name: str) -> bool:
        return is_readable(read_image, self.images_dir / name, where=name, problems=self.problems)


# ---------------------------------------------------------------------------------------------------------- data.yaml


def yolo_parts(root: str | Path) -> dict[str, Path]:
    """The images folder of each part ("train", "val", "test") that a YOLO-seg folder has."""
    _, folders = _read_data_yaml(Path(root))
    return {part: folder for part, folder in folders.items() if folder}


def write_data_yaml(root: Path, names: Sequence[str], part: str) -> None:
    """Write data.yaml, or add a part to an existing one.

    Raises:
        ValueError: the existing file has other classes.
    """
    path = root / "data.yaml"
    parts = {}
    if path.is_file():
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if content.get("names") != list(names):
            raise ValueError(
                f"{path} has the classes {content.get('names')}, not {list(names)}: write to another folder"
            )
        parts = {key: content[key] for key in YOLO_PARTS if key in content}
    parts[part] = f"{YOLO_PARTS[part]}/images"
    (root / parts[part]).mkdir(parents=True, exist_ok=True)
    content = {"names": list(names), "nc": len(names), **parts}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1e6)
    write_lines(path, text.splitlines())


def _read_data_yaml(root: Path) -> tuple[list[str], dict[str, Path | None]]:
    """The class names and the images folder of each part in data.yaml; None if the folder does not exist."""
    path = root / "data.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}: give the folder that holds data.yaml, the file that lists the class names and image folders"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        names = _class_names(content["names"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} has no valid list of class names ({reason}): write, for example, names: [building]"
        ) from error
    if content.get("nc", len(names)) != len(names):
        raise ValueError(f"{path} says nc: {content['nc']} but names {len(names)} classes")
    values = {"train": content.get("train"), "val": content.get("val", content.get("valid"))}
    values["test"] = content.get("test")
    base = root / str(content.get("path") or "")
    folders = {part: _find_images_dir(base, root, value, path) for part, value in values.items() if value}
    if not folders:
        raise ValueError(f"{path} names no folder of images: write, for example, train: train/images")
    return names, folders


def _class_names(names: Any) -> list[str]:
    """The class names of a data.yaml, which may be a list or a mapping from 0, 1, 2, ...; raises TypeError."""
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise TypeError(f"the classes have the numbers {list(names)} but must count from 0 without gaps")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):  # the characters of a string would become classes
        raise TypeError(f"names is {names!r}")
    names = [str(name) for name in names]
    if len({"background", *names}) <= len(names):
        raise TypeError(f"a name occurs twice, or is background, which is not a class in YOLO: {names}")
    return names


def _find_images_dir(base: Path, root: Path, value: object, source: Path) -> Path | None:
    """The images folder of a part, relative to data.yaml's `path` or to its own folder; None if there is none.

    Roboflow writes ../train/images for a folder beside data.yaml, and Ultralytics accepts that.
    """
    if not isinstance(value, str) or value.endswith(".txt"):
        raise ValueError(f"{source}: {value!r} is not a folder; seglib reads parts that are one folder of images each")
    without_dots = Path(*[name for name in Path(value).parts if name != ".."])
    for folder in (base / value, root / value, root / without_dots):
        if folder.is_dir():
            return folder / "images" if (folder / "images").is_dir() else folder
    return None


def _folder_of_part(folders: dict[str, Path | None], part: str, root: Path) -> Path:
    if part not in folders:
        raise FileNotFoundError(f"{root / 'data.yaml'} has no part {part!r}; it has {', '.join(folders)}")
    folder = folders[part]
    if folder is None:
        raise FileNotFoundError(f"the folder that {root / 'data.yaml'} gives for {part!r} does not exist")
    return folder


# -------------------------------------------------------------------------------------------------- images and labels


def _find_images(images_dir: Path) -> list[str]:
    """The sorted paths of all images in a folder and its subfolders, relative to it; hidden files are left out."""
    names = []
    for path in images_dir.rglob("*"):
        relative = path.relative_to(images_dir)
        hidden = any(name.startswith(".") for name in relative.parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir() and not hidden:
            names.append(relative.as_posix())
    counts = Counter(Path(name).with_suffix("") for name in names)
    shared = [name for name in sorted(names) if counts[Path(name).with_suffix("")] > 1]
    if shared:
        raise ValueError(
            f"{', '.join(shared[:4])} in {images_dir} share a label file: rename them, or remove all but one"
        )
    return sorted(names)


def _labels_dir(images_dir: Path) -> Path:
    """The folder of label files: the last "images" in the path of the images folder becomes "labels"."""
    parts = list(images_dir.parts)
    if "images" not in parts:
        raise ValueError(f"{images_dir}: images must be in a folder named images, with a folder labels beside it")
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _label_path(images_dir: Path, name: str) -> Path:
    return _labels_dir(images_dir) / Path(name).with_suffix(".txt")


def _check_labels_dir(images_dir: Path) -> None:
    """Raise FileNotFoundError if a part has no labels folder, since every image would then count as empty."""
    folder = _labels_dir(images_dir)
    if not folder.is_dir():
        siblings = sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
        raise FileNotFoundError(
            f"no folder {folder}, which must hold the labels of {images_dir}; {folder.parent} has {', '.join(siblings)}"
        )


def _unused_label_files(images_dir: Path, names: Sequence[str]) -> list[Problem]:
    """The label files that belong to no image."""
    folder = _labels_dir(images_dir)
    used = {_label_path(images_dir, name) for name in names}
    problems = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() != ".txt" or path.name == "classes.txt" or path in used:
            continue
        what = "no image has that name" if path.suffix == ".txt" else "the suffix must be .txt in lower case"
        problems.append(Problem(str(path), what))
    return problems


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a label file that are not blank, with their numbers; [] if there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


# ---------------------------------------------------------------------------------------------------- object to lines

_CHOICES = {"split": "one line for each part", "join": "joined", "fill": "filled", "cut": "cut out by a slit"}
_REPORT = {  # a line is printed if its count is not zero
    "images": "images: {images}, {background} of them without an object",
    "objects": "objects: {objects}, written as {lines} lines",
    "renumbered": "category ids renumbered: {ids}",
    "multipart": "objects in several parts: {multipart}, {several_choice}",
    "with_holes": "objects with holes: {with_holes}, their holes {holes_choice}",
    "retraced": "objects drawn and traced again along their pixels: {retraced}",
    "clipped": "objects clipped at the image border: {clipped}",
    "crowds": "crowds left out: {crowds}",
    "lost": "objects lost because they are too small or thin: {lost}",
    "turned": "images with an EXIF rotation saved upright: {turned}",
    "problems": "broken entries skipped: {problems}",
}


@dataclass
class ConversionReport:
    """What a conversion to YOLO label lines wrote and changed; `str(report)` says it in words.

    Attributes:
        counts: "images", "background" (images without an object), "objects", "lines", "multipart" (objects in several
            parts), "holes", "with_holes" (objects), "retraced" (objects that are RLE or whose parts overlap), "clipped"
            (objects across the border), "crowds", "lost" (objects without a line), "turned" (images), "problems".
        classes: YOLO's class of each COCO category id.
        several: what was done with objects in several parts: "split" or "join".
        holes: what was done with holes: "fill" or "cut".
    """

    counts: Counter[str] = field(default_factory=Counter)
    classes: dict[int | str, int] = field(default_factory=dict)
    several: str = "split"
    holes: str = "fill"

    def __str__(self) -> str:
        changed = [f"{old} -> {new}" for old, new in self.classes.items()]
        ids = ", ".join(changed[:6]) + (f" ... ({len(changed)} in all)" if len(changed) > 6 else "")
        values: dict[str, object] = defaultdict(int, self.counts)
        values["renumbered"] = any(old != new for old, new in self.classes.items())
        values |= {"ids": ids, "several_choice": _CHOICES[self.several], "holes_choice": _CHOICES[self.holes]}
        return "\n".join(text.format_map(values) for name, text in _REPORT.items() if values[name])


def segmentation_to_yolo(
    index: int,
    segmentation: Segmentation,
    size: tuple[int, int],
    several: str = "split",
    holes: str = "fill",
    report: ConversionReport | None = None,
) -> list[str]:
    """The YOLO label lines of one object.

    Args:
        index: YOLO's class, from 0.
        segmentation: polygons [x1, y1, x2, y2, ...] in pixels, or an RLE.
        size: (height, width) of the image.
        several: "split" writes each part as an object of its own; "join" connects the parts by slits of zero width.
        holes: "fill" drops them; "cut" connects each hole with the outer polygon by a slit of zero width.
        report: counts what was done.
    """
    counts = Counter[str]() if report is None else report.counts
    outlines = _trace(segmentation, size, counts)
    if holes == "fill":
        outlines = _outside_holes(outlines, size)
    counts["multipart"] += len(outlines) > 1
    counts["holes"] += sum(len(inner) for _, inner in outlines)
    counts["with_holes"] += any(inner for _, inner in outlines)
    polygons = [join_polygons([outer, *inner]) if holes == "cut" else outer for outer, inner in outlines]
    if several == "join" and len(polygons) > 1:
        polygons = [join_polygons(polygons)]
    lines = []
    for polygon in polygons:
        with suppress(ValueError):  # a part outside the image
            lines += polygons_to_yolo(index, [polygon], *size)
    counts["clipped"] += any(_crosses_border(polygon, size) for polygon in polygons)
    counts["objects"] += bool(lines)
    counts["lost"] += not lines
    counts["lines"] += len(lines)
    return lines


def round_trip_iou(
    segmentation: Segmentation, size: tuple[int, int], several: str = "split", holes: str = "fill"
) -> float:
    """IoU of an object's mask before it is written as YOLO lines and after it is read again.

    If the object is split into several lines, this is the IoU of the best line.

    Args:
        segmentation, size, several, holes: see `segmentation_to_yolo`.
    """
    before = annotation_bitmap({"segmentation": segmentation}, *size)
    ious = [0.0]
    for line in segmentation_to_yolo(0, segmentation, size, several, holes):
        _, polygons = yolo_to_polygons(line, *size)
        after = polygons_to_mask(polygons, *size)
        ious.append(float((before & after).sum() / max((before | after).sum(), 1)))
    return max(ious)


def _trace(segmentation: Segmentation, size: tuple[int, int], counts: Counter[str]) -> list[_Outline]:
    """The outline of each part of an object."""
    if isinstance(segmentation, dict):
        mask = rle_to_mask(segmentation)
    else:
        drawn = [polygons_to_mask([polygon], *size) for polygon in segmentation]
        if len(drawn) == 1 or np.sum(drawn, axis=0).max() <= 1:
            return [(list(polygon), []) for polygon in segmentation]
        mask = np.any(drawn, axis=0)  # the parts overlap
    counts["retraced"] += 1
    return mask_to_outlines(mask)


def _outside_holes(outlines: list[_Outline], size: tuple[int, int]) -> list[_Outline]:
    """The outlines that do not lie in a hole of another, since filling that hole covers them."""
    holes = [polygons_to_mask(inner, *size) for _, inner in outlines if inner]
    if not holes:
        return outlines
    return [part for part in outlines if not any((polygons_to_mask([part[0]], *size) <= hole).all() for hole in holes)]


def _crosses_border(polygon: Polygon, size: tuple[int, int]) -> bool:
    points = np.reshape(polygon, (-1, 2))
    return bool((points < 0).any() or (points > (size[1], size[0])).any())


# -------------------------------------------------------------------------------------------------- COCO and back


def coco_to_yolo(
    images_dir: str | Path,
    annotation_file: str | Path,
    root: str | Path,
    part: str = "train",
    categories: Sequence[str | int] | None = None,
    several: str = "split",
    holes: str = "fill",
    on_error: str = "raise",
) -> ConversionReport:
    """Write a COCO annotation file as one part of a YOLO-seg folder and report what this changed.

    Category ids become 0, 1, 2, ... Crowds are left out, because the format has none; a model is then penalized for
    what it finds there. Images without an object get an empty label file. Objects are clipped at the image border.

    Args:
        images_dir, annotation_file, categories, on_error: see `COCOSegmentationDataset`.
        root: the folder to write. It may hold other parts. Images become hard links where the disk supports them, so
            editing one edits the original.
        part: "train", "val" or "test".
        several: "split" writes each part of an object as an object of its own; "join" connects the parts by slits of
            zero width. A car behind a lamp post becomes two objects with "split" and stays one with "join".
        holes: "fill" them, or "cut" them out by a slit from the outer polygon.

    Raises:
        ValueError: the folder has other classes, or the annotation file has problems.
    """
    check_choice("several", several, ("split", "join"))
    check_choice("holes", holes, ("fill", "cut"))
    check_choice("part", part, tuple(YOLO_PARTS))
    data = COCOSegmentationDataset(images_dir, annotation_file, categories, on_error=on_error)
    folder = Path(root) / YOLO_PARTS[part]
    write_data_yaml(Path(root), data.classes[1:], part)
    classes = {category: index - 1 for category, index in data.class_of.items()}
    report = ConversionReport(Counter(problems=len(data.problems)), classes, several, holes)
    for index, entry in enumerate(data.images):
        name = entry["file_name"]
        lines = _label_lines(data, index, report)
        source = data.images_dir / name
        report.counts["turned"] += _place_image(source, folder / "images" / name, (entry["height"], entry["width"]))
        write_lines(folder / "labels" / Path(name).with_suffix(".txt"), lines)
        report.counts["images"] += 1
        report.counts["background"] += not lines
    return report


def _label_lines(data: COCOSegmentationDataset, index: int, report: ConversionReport) -> list[str]:
    """The label lines of all objects of an image."""
    size = (data.images[index]["height"], data.images[index]["width"])
    lines = []
    for annotation in data.annotations(index):
        if annotation.get("iscrowd", 0):
            report.counts["crowds"] += 1
            continue
        number = report.classes[annotation["category_id"]]
        lines += segmentation_to_yolo(number, annotation["segmentation"], size, report.several, report.holes, report)
    return lines


def _place_image(source: Path, target: Path, size: tuple[int, int]) -> bool:
    """Link an image into a YOLO-seg folder; return whether it was saved upright instead.

    YOLO applies the EXIF rotation. An image whose annotations ignore it is saved as annotated, without that tag.
    """
    upright = image_size(source) == tuple(size)
    if target.resolve() == source.resolve():
        if not upright:
            raise ValueError(
                f"{source} has an EXIF rotation that its annotations ignore and would be overwritten: write to "
                "another folder"
            )
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if upright:
        link_or_copy(source, target)
        return False
    with atomic_path(target) as temporary:
        Image.fromarray(read_image(source, size)).save(temporary, quality=95)
    return True


def yolo_to_coco(
    data: YOLOSegmentationDataset, annotation_file: str | Path, ids: Mapping[int, int | str] | None = None
) -> None:
    """Write one part of a YOLO-seg folder as a COCO annotation file with one annotation for each line.

    Args:
        ids: the COCO category id of each YOLO class, the inverse of `ConversionReport.classes`. None: 1, 2, 3, ...
    """
    names = data.classes[1:]
    if ids is None:
        ids = {index: index + 1 for index in range(len(names))}
    images = []
    annotations: list[dict[str, Any]] = []
    for number in range(len(data)):
        instances = data.instances(number)
        height, width = instances.size
        images.append({"id": number + 1, "file_name": data.filenames[number], "height": height, "width": width})
        shapes = zip(data.polygons(number), instances.areas.tolist(), instances.boxes.tolist(), strict=True)
        for (index, polygons), area, (left, top, right, bottom) in shapes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": ids[index],
                    "segmentation": polygons,
                    "area": area,
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": ids[index], "name": name} for index, name in enumerate(names)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    write_lines(Path(annotation_file), [json.dumps(content)])
