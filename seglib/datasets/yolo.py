"""YOLO-seg folders: read as objects and class masks, and converted from and to COCO annotations.

    data.yaml                  class names and the images folder of each part
    train/images/a.jpg         train/labels/a.txt holds one line for each object:
                               class x1 y1 x2 y2 ..., as fractions of width and height
    valid/images/b.jpg         no label file, or an empty one: no object on this image

A line holds one polygon, so it can express neither holes nor several parts: see `coco_to_yolo`.
"""

import json
from collections import Counter
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

from seglib.datasets.base import Problem, Transform, as_sample, readable, report_problems
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
        self.transform = transform
        self.problems: list[Problem] = []
        self._broken_lines: set[tuple[str, int]] = set()  # file name of the image, line number
        names, folders = _read_data_yaml(Path(root))
        self.classes = ["background", *names]
        check_classes(self.classes)
        if part not in folders:
            raise FileNotFoundError(
                f"{Path(root) / 'data.yaml'} names no folder for {part!r} that exists; it has "
                f"{', '.join(folders) or 'none'}. A part is written as, for example, train: train/images"
            )
        folder = folders[part]
        self.images_dir = folder
        self._labels_dir = _find_labels_dir(folder)
        self.filenames = _find_images(folder)
        for index in range(len(self)):
            self._check_lines(index)
        self._check_label_files()
        if on_error == "skip":
            self.filenames = readable(self.filenames, lambda name: read_image(folder / name), self.problems)
        report_problems(self.problems, on_error, str(folder.parent))

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
        return self._labels_dir / Path(self.filenames[index]).with_suffix(".txt")

    def lines(self, index: int) -> list[str]:
        """The valid label lines of an image."""
        name = self.filenames[index]
        lines = _read_lines(self.label_path(index))
        return [line for number, line in lines if (name, number) not in self._broken_lines]

    def polygons(self, index: int) -> list[tuple[int, list[Polygon]]]:
        """YOLO's class and the polygon, in pixels, of each object of an image."""
        height, width = image_size(self.image_path(index))
        return [yolo_to_polygons(line, height, width) for line in self.lines(index)]

    def instances(self, index: int) -> Instances:
        """The objects of an image at its own size: one for each line, in the order of the file."""
        objects = self.polygons(index)
        shapes = [polygons for _, polygons in objects]
        labels = [number + 1 for number, _ in objects]
        return Instances.of(shapes, labels, size=image_size(self.image_path(index)))

    def _check_lines(self, index: int) -> None:
        """Turn the broken label lines of an image into problems."""
        path = self.label_path(index)
        known = len(self.classes) - 1
        for number, line in _read_lines(path):
            try:
                class_number, _ = yolo_to_polygons(line, 1, 1)
                if class_number >= known:
                    raise ValueError(f"class {class_number} is unknown: data.yaml has {known}, counted from 0")
            except ValueError as error:
                self.problems.append(Problem(f"{path}:{number}", str(error)))
                self._broken_lines.add((self.filenames[index], number))

    def _check_label_files(self) -> None:
        """Turn the label files that belong to no image into problems."""
        used = {self.label_path(index) for index in range(len(self))}
        for path in sorted(self._labels_dir.rglob("*")):
            if path.suffix.lower() == ".txt" and path.name != "classes.txt" and path not in used:
                self.problems.append(Problem(str(path), "no image has that name, or .txt is not in lower case"))


# ---------------------------------------------------------------------------------------------------------- data.yaml


def yolo_parts(root: str | Path) -> dict[str, Path]:
    """The images folder of each part ("train", "val", "test") that a YOLO-seg folder has.

    Raises:
        FileNotFoundError: there is no data.yaml.
        ValueError: data.yaml is broken or names no part.
    """
    return _read_data_yaml(Path(root))[1]


def write_data_yaml(root: Path, names: Sequence[str], part: str) -> None:
    """Write data.yaml, or add a part to an existing one, whose `path` is dropped: the parts are beside the file.

    Raises:
        ValueError: the existing file has other classes.
    """
    path = root / "data.yaml"
    content: dict[str, Any] = {"names": list(names), "nc": len(names)}
    if path.is_file():
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if content.get("names") != list(names):
            raise ValueError(f"{path} has the classes {content.get('names')}, not {list(names)}: choose another folder")
        content.pop("path", None)
    content[part] = f"{YOLO_PARTS[part]}/images"
    (root / content[part]).mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1e6)
    write_lines(path, text.splitlines())


def _read_data_yaml(root: Path) -> tuple[list[str], dict[str, Path]]:
    """The class names in data.yaml, and the images folder of each part that exists."""
    path = root / "data.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: give the folder that holds data.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        names = _class_names(content["names"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} has no valid list of class names, such as names: [building] ({reason})") from error
    if content.get("nc", len(names)) != len(names):
        raise ValueError(f"{path} says nc: {content['nc']} but names {len(names)} classes")
    base = root / str(content.get("path") or "")
    values = {part: content.get(part, content.get(other_name)) for part, other_name in YOLO_PARTS.items()}
    if not any(values.values()):
        raise ValueError(f"{path} names no folder of images: write, for example, train: train/images")
    folders = {}
    for part, value in values.items():
        folder = _find_images_dir(path, base, value) if value else None
        if folder is not None:
            folders[part] = folder
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


def _find_images_dir(source: Path, base: Path, value: object) -> Path | None:
    """The images folder of a part, relative to data.yaml's `path` or to its own folder; None if there is none.

    Roboflow writes ../train/images for a folder beside data.yaml, and Ultralytics accepts that.
    """
    if not isinstance(value, str) or value.endswith(".txt"):
        raise ValueError(f"{source}: {value!r} is not a folder; seglib reads parts that are one folder of images each")
    for folder in (base / value, source.parent / value, source.parent / value.replace("../", "")):
        if folder.is_dir():
            return folder / "images" if (folder / "images").is_dir() else folder
    return None


# -------------------------------------------------------------------------------------------------- images and labels


def _find_images(images_dir: Path) -> list[str]:
    """The sorted paths of all images in a folder and its subfolders, relative to it; hidden files are left out."""
    names = []
    for path in images_dir.rglob("*"):
        relative = path.relative_to(images_dir)
        hidden = any(name.startswith(".") for name in relative.parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir() and not hidden:
            names.append(relative.as_posix())
    if not names:
        raise ValueError(f"no image in {images_dir}")
    counts = Counter(Path(name).with_suffix("") for name in names)
    shared = [name for name in sorted(names) if counts[Path(name).with_suffix("")] > 1]
    if shared:
        raise ValueError(
            f"{', '.join(shared[:4])} in {images_dir} share a label file: rename them, or remove all but one"
        )
    return sorted(names)


def _find_labels_dir(images_dir: Path) -> Path:
    """The folder of label files: the last "images" in the path of the images folder becomes "labels"."""
    parts = list(images_dir.parts)
    if "images" not in parts:
        raise ValueError(f"{images_dir}: images must be in a folder named images, with a folder labels beside it")
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    folder = Path(*parts)
    if not folder.is_dir():  # every image would count as one without objects
        raise FileNotFoundError(f"no folder {folder}, which must hold the labels of {images_dir}")
    return folder


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a label file that are not blank, with their numbers; [] if there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


# ---------------------------------------------------------------------------------------------------- object to lines


@dataclass
class ConversionReport:
    """What a conversion to YOLO label lines wrote and changed; `str(report)` says it in words.

    Attributes:
        counts: "images", "background" (images without an object), "objects", "lines", "multipart" (objects in several
            parts), "with_holes" (objects), "retraced" (objects that are RLE or whose parts overlap), "clipped" (objects
            across the border), "crowds", "lost" (objects without a line), "turned" (images), "problems".
        classes: YOLO's class of each COCO category id.
        several: what was done with objects in several parts: "split" or "join".
        holes: what was done with holes: "fill" or "cut".
    """

    counts: Counter[str] = field(default_factory=Counter)
    classes: dict[int | str, int] = field(default_factory=dict)
    several: str = "split"
    holes: str = "fill"

    def __str__(self) -> str:
        counts = self.counts
        changed = [f"{old} -> {new}" for old, new in self.classes.items() if old != new]
        more = f" ... ({len(changed)} in all)" if len(changed) > 6 else ""
        several = {"split": "one line for each part", "join": "joined"}[self.several]
        holes = {"fill": "filled", "cut": "cut out by a slit"}[self.holes]
        lines = [
            (counts["images"], f"images: {counts['images']}, {counts['background']} of them without an object"),
            (counts["objects"], f"objects: {counts['objects']}, written as {counts['lines']} lines"),
            (len(changed), f"category ids renumbered: {', '.join(changed[:6])}{more}"),
            (counts["multipart"], f"objects in several parts: {counts['multipart']}, {several}"),
            (counts["with_holes"], f"objects with holes: {counts['with_holes']}, their holes {holes}"),
            (counts["retraced"], f"objects drawn and traced again along their pixels: {counts['retraced']}"),
            (counts["clipped"], f"objects clipped at the image border: {counts['clipped']}"),
            (counts["crowds"], f"crowds left out: {counts['crowds']}"),
            (counts["lost"], f"objects lost because they are too small or thin: {counts['lost']}"),
            (counts["turned"], f"images with an EXIF rotation saved upright: {counts['turned']}"),
            (counts["problems"], f"broken entries skipped: {counts['problems']}"),
        ]
        return "\n".join(line for count, line in lines if count)


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
    counts["with_holes"] += any(inner for _, inner in outlines)
    polygons = [join_polygons([outer, *inner]) if holes == "cut" else outer for outer, inner in outlines]
    if several == "join" and len(polygons) > 1:
        polygons = [join_polygons(polygons)]
    lines = []
    for polygon in polygons:
        with suppress(ValueError):  # a part outside the image
            lines += polygons_to_yolo(index, [polygon], *size)
    height, width = size
    counts["clipped"] += any(min(p) < 0 or max(p[0::2]) > width or max(p[1::2]) > height for p in polygons)
    counts["objects"] += bool(lines)
    counts["lost"] += not lines
    counts["lines"] += len(lines)
    return lines


def round_trip_iou(
    segmentation: Segmentation, size: tuple[int, int], several: str = "split", holes: str = "fill"
) -> float:
    """IoU of an object's mask before it is written as YOLO lines and after it is read again, by its best line.

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
        if np.sum(drawn, axis=0).max() <= 1:
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
    report = ConversionReport(Counter(images=len(data), problems=len(data.problems)), classes, several, holes)
    for index, entry in enumerate(data.images):
        name = entry["file_name"]
        lines = _label_lines(data, index, report)
        size = (entry["height"], entry["width"])
        report.counts["turned"] += _place_image(data.images_dir / name, folder / "images" / name, size)
        write_lines(folder / "labels" / Path(name).with_suffix(".txt"), lines)
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
    turned = image_size(source) != size
    if target.resolve() == source.resolve():
        if turned:
            raise ValueError(
                f"{source} has an EXIF rotation that its annotations ignore and would be overwritten: write to "
                "another folder"
            )
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if turned:
        with atomic_path(target) as temporary:
            Image.fromarray(read_image(source, size)).save(temporary, quality=95)
    else:
        link_or_copy(source, target)
    return turned


def yolo_to_coco(
    data: YOLOSegmentationDataset, annotation_file: str | Path, ids: Mapping[int, int | str] | None = None
) -> None:
    """Write one part of a YOLO-seg folder as a COCO annotation file with one annotation for each line.

    Args:
        ids: the COCO category id of each YOLO class, the inverse of `ConversionReport.classes`. None: 1, 2, 3, ...
    """
    names = data.classes[1:]
    ids = ids or {index: index + 1 for index in range(len(names))}
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
