"""YOLO-seg folders: read as objects and class masks, and converted from and to COCO annotations.

    data.yaml                  class names and the images folder of each part
    train/images/a.jpg         train/labels/a.txt holds one line for each object:
                               class x1 y1 x2 y2 ..., as fractions of width and height
    valid/images/b.jpg         no label file, or an empty one: no object on this image

A line holds one polygon, so it can express neither holes nor several parts: see `coco_to_yolo`.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from seglib import masks
from seglib.datasets.base import ON_ERROR, Problem, Transform, as_sample, plain_name, readable, report_problems
from seglib.datasets.coco import COCOSegmentationDataset, Segmentation, write_coco
from seglib.files import check_choice, image_size, is_image_file, link_or_copy, read_image, read_text, write_lines
from seglib.instances import Instances

__all__ = [
    "YOLO_PARTS",
    "ConversionReport",
    "YOLOSegmentationDataset",
    "coco_to_yolo",
    "place_image",
    "segmentation_to_yolo",
    "write_data_yaml",
    "yolo_parts",
    "yolo_to_coco",
]

YOLO_PARTS = {"train": "train", "val": "valid", "test": "test"}  # each part's folder, named as Roboflow does


class YOLOSegmentationDataset(Dataset[tuple[Tensor, Tensor, str]]):
    """Images with the outlines of their objects, in Ultralytics' YOLO-seg layout.

    Args:
        root: the folder that holds data.yaml, or such a file of another name.
        part: "train", "val" or "test".
        transform: a deterministic change of image and mask, such as `transforms.resize`.
        on_error: "raise", or "skip" to leave out broken lines and images that cannot be read.

    Attributes:
        classes: ["background", ...]. YOLO's class 0 is class 1 here.
        filenames: the sorted paths of the images, relative to `images_dir`.
        images_dir: the images folder of the part, or the folder above several.
        problems: what was skipped or corrected, by file and line.

    Raises:
        FileNotFoundError: data.yaml, the part or its labels are missing.
        ValueError: broken lines, by file and line number; no images.
    """

    def __init__(
        self, root: str | Path, part: str = "train", transform: Transform | None = None, *, on_error: str = "raise"
    ) -> None:
        check_choice("on_error", on_error, ON_ERROR)
        source, names, parts, values = _read_data_yaml(Path(root))
        if part not in parts:
            given = f", and {values[part]!r} was not found" if values.get(part) else ""
            raise FileNotFoundError(
                f"{source} names no folder for {part!r} that exists; it has {', '.join(parts) or 'none'}{given}. A "
                "part is written as, for example, train: train/images"
            )
        if parts[part].moved:
            warnings.warn(f"{source}: {parts[part].moved}", stacklevel=2)
        self.transform = transform
        self.classes = ["background", *names]
        masks.check_classes(self.classes)
        self.problems: list[Problem] = []
        paths = _find_images(parts[part])
        self.images_dir = parts[part].folder
        self.filenames = [Path(os.path.relpath(path, self.images_dir)).as_posix() for path in paths]
        self._labels = dict(zip(self.filenames, _find_labels(paths), strict=True))
        self._lines = {name: self._read_lines(path) for name, path in self._labels.items()}
        self._check_label_files(paths, has_all_images=parts[part].files is None)
        if on_error == "skip":
            self.filenames = readable(self.filenames, lambda name: read_image(self.images_dir / name), self.problems)
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
        return self._labels[self.filenames[index]]

    def lines(self, index: int) -> list[str]:
        """The valid label lines of an image."""
        return self._lines[self.filenames[index]]

    def instances(self, index: int) -> Instances:
        """The objects of an image at its own size: one for each line, in the order of the file."""
        size = image_size(self.image_path(index))
        objects = [masks.yolo_to_polygons(line, *size) for line in self.lines(index)]
        labels = [number + 1 for number, _ in objects]
        return Instances.of([polygons for _, polygons in objects], labels, size=size)

    def _read_lines(self, path: Path) -> list[str]:
        """The lines of a label file; those that are broken or corrected become problems."""
        text = read_text(path, errors="replace") if path.is_file() else ""
        known = len(self.classes) - 1
        lines: dict[tuple[float, ...], str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                class_number, _ = masks.yolo_to_polygons(line, 1, 1)
                if class_number >= known:
                    raise ValueError(f"class {class_number} is unknown: data.yaml has {known}, counted from 0")
            except ValueError as error:
                self.problems.append(Problem(f"{path}:{number}", str(error)))
                continue
            name, *values = line.split()
            key = (class_number, *map(float, values))
            outside = [value for value in values if not -1e-6 <= float(value) <= 1 + 1e-6]  # more than rounding
            if outside or key in lines:
                what = f"reaches to {outside[0]}, and was clipped to 0 to 1" if outside else "repeats a line"
                self.problems.append(Problem(f"{path}:{number}", what, "corrected"))
            if outside or name != str(class_number):
                inside = (f"{min(max(float(value), 0), 1):g}" if value in outside else value for value in values)
                line = " ".join([str(class_number), *inside])
            lines.setdefault(key, line)
        return list(lines.values())

    def _check_label_files(self, images: Sequence[Path], has_all_images: bool) -> None:
        """Raise FileNotFoundError if there are no labels; turn label files that belong to no image into problems."""
        used = set(self._labels.values())
        folders = {path.parent for path in used}
        beside = folders & {image.parent for image in images}
        if not any(path.is_file() for path in used) and not any(folder.is_dir() for folder in folders - beside):
            missing = min(folders - beside, default=None)
            what = f"no folder {missing}" if missing else "its images must be in a folder images, with labels beside it"
            raise FileNotFoundError(f"{self.images_dir} has no labels: {what}")  # all would count as without objects
        for path in sorted(path for folder in folders for path in folder.rglob("*")) if has_all_images else []:
            if path.suffix.lower() == ".txt" and path.name != "classes.txt" and path not in used:
                self.problems.append(Problem(str(path), "no image has that name, or it has another label file"))


# ---------------------------------------------------------------------------------------------------------- data.yaml


def yolo_parts(root: str | Path) -> dict[str, Path]:
    """The images folder of each part ("train", "val", "test") that a YOLO-seg folder has."""
    return {part: images.folder for part, images in _read_data_yaml(Path(root))[2].items()}


def write_data_yaml(root: Path, names: Sequence[str], part: str) -> None:
    """Write data.yaml, or add a part to an existing one, which must have the same classes.

    Its `path` is dropped, because the parts are beside the file.
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


class _Part(NamedTuple):
    """The images of a part: all below a folder, or only some files; and what was read in place of what is named."""

    folder: Path
    files: list[Path] | None = None
    moved: str = ""


def _find_data_yaml(root: Path) -> Path:
    """The data.yaml of a folder, or the only file of that kind in it."""
    if root.is_file():
        return root
    found = [path for path in sorted(root.glob("*")) if path.suffix.lower() in (".yaml", ".yml")]
    if (root / "data.yaml") in found or not found:
        found = [root / "data.yaml"]
    if len(found) > 1:
        raise ValueError(f"{root} holds {', '.join(path.name for path in found)}: give the path of one of them")
    if not found[0].is_file():
        raise FileNotFoundError(f"no {found[0]}: give the folder that holds data.yaml")
    return found[0]


def _read_data_yaml(root: Path) -> tuple[Path, list[str], dict[str, _Part], dict[str, Any]]:
    """The path of a data.yaml, the class names in it, the images of each part that exists, and what it says of each."""
    path = _find_data_yaml(root)
    try:
        content = yaml.safe_load(read_text(path))
        names = _class_names(content["names"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has no valid list of classes, such as names: [building] ({error!r})") from error
    if str(content.get("nc", len(names))) not in (f"{len(names)}", f"{len(names)}.0"):
        raise ValueError(f"{path} says nc: {content['nc']}, but names {len(names)} classes: {names}")
    keys = {"train": ["train"], "val": ["val", "valid", "validation"], "test": ["test"]}
    values = {part: next((content[key] for key in keys[part] if content.get(key)), None) for part in keys}
    if not any(values.values()):
        raise ValueError(f"{path} names no folder of images: write, for example, train: train/images")
    above = _resolve(str(content.get("path") or "."), [path.parent]) or path.parent
    parts = {part: _find_part(value, [above, path.parent], path) for part, value in values.items() if value}
    return path, names, {part: images for part, images in parts.items() if images is not None}, values


def _resolve(text: str, folders: Sequence[Path]) -> Path | None:
    """The file or folder that a text names: relative to one of `folders`, else by its last parts."""
    name = PureWindowsPath(text.strip())  # takes slashes and backslashes
    parts = [part for part in name.parts if part not in (name.anchor, "..")]
    plain = text.strip().replace("\\", "/")
    candidates = [Path(plain).expanduser(), *(folder / plain for folder in folders)]
    for start in range(len(parts)):
        if parts[start:] != ["images"] or not start:  # the images of which part?
            candidates += [folder.joinpath(*parts[start:]) for folder in folders]
    return next((path for path in candidates[not Path(plain).expanduser().is_absolute() :] if path.exists()), None)


def _find_part(value: Any, folders: Sequence[Path], source: Path) -> _Part | None:
    """The images of a part: of a folder, of a text file that lists images, or of a list of these; None if missing."""
    if isinstance(value, list) and value:
        listed = {str(item): _find_part(item, folders, source) for item in value}
        found = [part for part in listed.values() if part is not None]
        if 0 < len(found) < len(listed):
            raise ValueError(f"{source}: {[item for item, part in listed.items() if part is None]} do not exist")
        files = [path for part in found for path in _find_images(part)]
        moved = next((part.moved for part in found if part.moved), "")
        return _Part(Path(os.path.commonpath([part.folder for part in found])), files, moved) if found else None
    if not isinstance(value, str):
        raise ValueError(f"{source}: {value!r} is not a folder, a text file that lists images, or a list of these")
    path = _resolve(value, folders)
    if path is None:
        return None
    moved = f"{value!r} does not exist here; {path} is read in its place" if _is_moved(value, path) else ""
    if path.is_dir():
        return _Part(path / "images" if (path / "images").is_dir() else path, moved=moved)
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    images = {line: _resolve(line, [path.parent, *folders]) for line in lines}
    missing = [line for line, image in images.items() if image is None]
    if missing or not images:
        raise ValueError(
            f"{path}: {len(missing)} of {len(lines)} images do not exist, such as {(missing or [''])[0]!r}"
        )
    found_files = sorted({image for image in images.values() if image is not None})
    return _Part(Path(os.path.commonpath([image.parent for image in found_files])), found_files, moved)


def _is_moved(text: str, path: Path) -> bool:
    """Whether only the last parts of a text agree with the path that was found for it."""
    parts = tuple(part for part in PureWindowsPath(text.strip()).parts if part != "..")
    return bool(parts) and path.parts[-len(parts) :] != parts and path != Path(text.strip()).expanduser()


def _class_names(names: Any) -> list[str]:
    """The class names of a data.yaml, which may be a list or a mapping from 0, 1, 2, ..."""
    if isinstance(names, dict):
        names = {int(key) if str(key).isdecimal() else key: name for key, name in names.items()}
        if set(names) != set(range(len(names))):
            raise TypeError(f"the classes have the numbers {list(names)}, which must be 0, 1, 2, ...")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):  # the characters of a string would become classes
        raise TypeError(f"names is {names!r}")
    names = [str(name) for name in names]
    if len({"background", *names}) <= len(names):
        raise TypeError(f"a name occurs twice, or is background, which is not a class in YOLO: {names}")
    return names


def _find_images(part: _Part) -> list[Path]:
    """The sorted images of a part; hidden files are left out."""
    paths = part.files
    if paths is None:
        found = [path for path in sorted(part.folder.rglob("*")) if is_image_file(path)]
        paths = [path for path in found if "/." not in f"/{path.relative_to(part.folder).as_posix()}"]
    if not paths:
        raise ValueError(f"no image in {part.folder}")
    label_of: dict[Path, Path] = {}
    for path in paths:
        other = label_of.setdefault(path.with_suffix(""), path)
        if other != path:
            raise ValueError(
                f"{other.name} and {path.name} in {path.parent} share a label file: rename or remove one of them"
            )
    return paths


def _label_path(image: Path) -> Path:
    """The label file of an image: the last "images" of its path becomes "labels"; without such a folder, beside it."""
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    in_labels = Path(*parts).with_suffix(".txt")
    beside = image.with_suffix(".txt")
    return beside if not in_labels.is_file() and beside.is_file() else in_labels


def _find_labels(images: Sequence[Path]) -> list[Path]:
    """The label file of each image. Its name may differ in case and in the form of accents; it may not exist."""
    expected = [_label_path(image) for image in images]
    missing = [path for path in expected if not path.is_file()]
    taken = set(expected)
    files = {
        path.with_name(plain_name(path.name)): path
        for folder in {path.parent for path in missing if path.parent.is_dir()}
        for path in folder.iterdir()
        if path not in taken
    }
    found = {path: files.get(path.with_name(plain_name(path.name)), path) for path in missing}
    return [found.get(path, path) for path in expected]


def _label_file(labels_dir: Path, name: str) -> Path:
    return labels_dir / Path(name).with_suffix(".txt")


# -------------------------------------------------------------------------------------------------- COCO and back


def segmentation_to_yolo(
    index: int,
    segmentation: Segmentation,
    size: tuple[int, int],
    several: str = "split",
    holes: str = "fill",
    counts: Counter[str] | None = None,
) -> list[str]:
    """The YOLO label lines of one object.

    Args:
        index: YOLO's class, from 0.
        segmentation: polygons [x1, y1, x2, y2, ...] in pixels, or an RLE.
        size: (height, width) of the image.
        several, holes: see `coco_to_yolo`.
        counts: counts what was done, see `ConversionReport`.
    """
    counts = Counter() if counts is None else counts
    height, width = size
    outlines = _trace(segmentation, size, holes, counts)
    polygons = [masks.join_polygons([outer, *inner]) if holes == "cut" else outer for outer, inner in outlines]
    if several == "join" and len(polygons) > 1:
        polygons = [masks.join_polygons(polygons)]
    lines = []
    for polygon in polygons:
        with suppress(ValueError):  # a part outside the image
            lines += masks.polygons_to_yolo(index, [polygon], height, width)
    counts["objects"] += bool(lines)
    counts["lines"] += len(lines)
    counts["objects in several parts"] += len(outlines) > 1
    counts["objects clipped"] += any(min(p) < 0 or max(p[0::2]) > width or max(p[1::2]) > height for p in polygons)
    counts["objects lost, too small or thin"] += not lines
    return lines


def _trace(
    segmentation: Segmentation, size: tuple[int, int], holes: str, counts: Counter[str]
) -> list[tuple[masks.Polygon, list[masks.Polygon]]]:
    """The outer polygon of each part of an object, and the polygons of its holes."""
    from scipy import ndimage  # slow to import, and only needed here

    if isinstance(segmentation, dict):
        mask = masks.rle_to_mask(segmentation)
    else:
        drawn = [masks.polygons_to_mask([polygon], *size) for polygon in segmentation]
        if np.sum(drawn, axis=0).max() <= 1:
            return [(list(polygon), []) for polygon in segmentation]
        mask = np.any(drawn, axis=0)  # the parts overlap
    counts["objects traced along their pixels"] += 1
    filled = ndimage.binary_fill_holes(mask, np.ones((3, 3)))
    counts["objects with holes"] += bool((filled != mask).any())
    return masks.mask_to_outlines(filled if holes == "fill" else mask)


@dataclass
class ConversionReport:
    """What `coco_to_yolo` wrote and changed; `str(report)` lists the counts that are not 0."""

    counts: Counter[str]
    classes: dict[int | str, int]  # YOLO's class of each COCO category id

    def __str__(self) -> str:
        return "\n".join(f"{name}: {count}" for name, count in self.counts.items() if count)


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

    Crowds are left out, because the format has none; a model is then penalized for what it finds there. Images without
    an object get an empty label file. Objects are clipped at the image border.

    Args:
        images_dir, annotation_file, categories, on_error: see `COCOSegmentationDataset`.
        root: the folder to write. It may hold other parts, and this part of the same images, which is then replaced.
            Images become hard links where the disk supports them, so editing one edits the original.
        part: "train", "val" or "test".
        several: "split" writes each part of an object as an object of its own; "join" connects the parts by slits of
            zero width. A car behind a lamp post becomes two objects with "split" and stays one with "join".
        holes: "fill" them, or "cut" them out by a slit from the outer polygon.

    Raises:
        ValueError: the folder has other classes or images, or the annotation file has problems.
    """
    check_choice("several", several, ("split", "join"))
    check_choice("holes", holes, ("fill", "cut"))
    check_choice("part", part, tuple(YOLO_PARTS))
    data = COCOSegmentationDataset(images_dir, annotation_file, categories, on_error=on_error)
    folder = Path(root) / YOLO_PARTS[part]
    _check_part(folder, data)
    write_data_yaml(Path(root), data.classes[1:], part)
    classes = {category: index - 1 for category, index in data.class_of.items()}
    counts = Counter({"images": len(data), "broken entries skipped": len(data.problems)})
    for index, entry in enumerate(data.images):
        name = entry["file_name"]
        size = (entry["height"], entry["width"])
        objects = [annotation for annotation in data.annotations(index) if not annotation.get("iscrowd", 0)]
        lines = []
        for annotation in objects:
            number = classes[annotation["category_id"]]
            lines += segmentation_to_yolo(number, annotation["segmentation"], size, several, holes, counts)
        write_lines(_label_file(folder / "labels", name), lines)
        counts["images without objects"] += not lines
        counts["crowds left out"] += len(data.annotations(index)) - len(objects)
        counts["images saved upright"] += place_image(data.images_dir / name, folder / "images" / name, size)
    return ConversionReport(counts, classes)


def _check_part(folder: Path, data: COCOSegmentationDataset) -> None:
    """Raise ValueError if a part holds the original images, or files that would remain beside the new ones."""
    names = [entry["file_name"] for entry in data.images]
    for name in names:
        if (folder / "images" / name).resolve() == (data.images_dir / name).resolve():
            raise ValueError(f"{folder / 'images' / name} is an original image: write to another folder")
    written = {folder / "images" / name for name in names} | {_label_file(folder / "labels", name) for name in names}
    for path in [*folder.glob("images/**/*"), *folder.glob("labels/**/*")]:
        if path.is_file() and path not in written:
            raise ValueError(f"{path} would remain beside the new files: delete {folder}, or choose another folder")


def place_image(source: Path, target: Path, size: tuple[int, int]) -> bool:
    """Link an image into a YOLO-seg folder; return whether it was saved upright instead."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if image_size(source) == size:
        link_or_copy(source, target)
        return False
    # YOLO applies an EXIF rotation that these annotations ignore: the image is saved without it.
    Image.fromarray(read_image(source, size)).save(target, quality=95)
    return True


def yolo_to_coco(data: YOLOSegmentationDataset, annotation_file: str | Path) -> None:
    """Write one part of a YOLO-seg folder as a COCO annotation file, with one annotation for each line.

    Category ids are 1, 2, 3, ... in the order of the classes.
    """

    def objects(index: int) -> Iterator[tuple[int, Segmentation, bool]]:
        for line in data.lines(index):
            number, polygons = masks.yolo_to_polygons(line, *image_size(data.image_path(index)))
            yield number + 1, polygons, False

    samples = [(name, image_size(data.image_path(index)), objects(index)) for index, name in enumerate(data.filenames)]
    write_coco(annotation_file, data.classes, samples)
