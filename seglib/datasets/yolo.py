"""Ultralytics' YOLO-seg folders: read as objects and as class masks, written from COCO's annotations, and back.

    data.yaml                  names of the classes, folders of the parts
    train/images/a.jpg         train/labels/a.txt: a line an object, "class x1 y1 x2 y2 ...", fractions of the sides
    valid/images/b.jpg         no label file, or an empty one: nothing to be found on this picture

A line holds one polygon: neither a hole nor a second part. What is done about those is a choice, see `coco_to_yolo`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.base import Problem, Transform, as_sample, report_problems
from seglib.datasets.coco import COCOSegmentationDataset, annotation_bitmap
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

YOLO_PARTS = {"train": "train", "val": "valid", "test": "test"}  # of a part, as Roboflow names them
SEVERAL, HOLES = ("split", "join"), ("fill", "cut")


class YOLOSegmentationDataset(Dataset):
    """Photographs with objects outlined in the layout of Ultralytics' YOLO-seg.

    Args:
        root: the folder that holds data.yaml.
        part: "train", "val" or "test", as data.yaml has them.
        transform: called as transform(image=(H, W, 3), mask=(H, W)); deterministic, a resize, say. It changes what
            data[i] gives, not `instances`.
        on_error: "raise", or "skip" to leave out lines that are broken, and images that do not open.

    Attributes:
        classes: ["background", ...]: YOLO's class 0 is class 1 here. filenames: of the photographs, sorted, from their
            folder on. problems: what was skipped, by file and line.

    Raises:
        FileNotFoundError: no such folder, data.yaml or part; says which there are.
        ValueError: broken lines, naming file, line number and what is wrong; no photographs.
    """

    def __init__(
        self, root: str | Path, part: str = "train", transform: Transform | None = None, *, on_error: str = "raise"
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        self.root, self.part, self.transform = Path(root), part, transform
        names, parts = read_data_yaml(self.root)
        if part not in parts:
            raise FileNotFoundError(f"{self.root / 'data.yaml'} has no part {part!r}; there are {', '.join(parts)}")
        if parts[part] is None:
            raise FileNotFoundError(f"there is no folder of images where {self.root / 'data.yaml'} says {part!r} lies")
        self.classes = ["background", *names]
        check_classes(self.classes)
        self.images_dir = parts[part]
        check_labels(self.images_dir)
        self.problems: list[Problem] = []
        self._skipped: dict[str, set[int]] = {}  # line numbers that are broken, by file name
        self.filenames = find_images(self.images_dir)
        if not self.filenames:
            raise ValueError(f"no image in {self.images_dir}")
        for name in self.filenames:
            self._check_lines(name)
        self.problems += label_files_of_nothing(self.images_dir, self.filenames)
        if on_error == "skip":
            self.filenames = [name for name in self.filenames if self._opens(name)]
        report_problems(self.problems, on_error, str(self.images_dir.parent))

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name. Of two objects on one pixel the smaller is seen."""
        image, mask = read_image(self.image_path(index)), self.instances(index).semantic()
        where = self.label_path(self.filenames[index])
        return *as_sample(image, mask, len(self.classes), where, self.transform), self.filenames[index]

    def image_path(self, index: int) -> Path:
        """The photograph's file."""
        return self.images_dir / self.filenames[index]

    def label_path(self, name: str) -> Path:
        """The label file of a photograph, whether there is one or not."""
        return labels_folder(self.images_dir) / Path(name).with_suffix(".txt")

    def lines(self, index: int) -> list[str]:
        """The label lines of a photograph that are whole."""
        name = self.filenames[index]
        broken = self._skipped.get(name, set())
        return [line for number, line in read_lines(self.label_path(name)) if number not in broken]

    def outlines(self, index: int) -> tuple[list[tuple[int, list[Polygon]]], tuple[int, int]]:
        """YOLO's class and the outline, in pixels, of each object of a photograph; and its (height, width)."""
        height, width = image_size(self.image_path(index))
        return [yolo_to_polygons(line, height, width) for line in self.lines(index)], (height, width)

    def instances(self, index: int) -> Instances:
        """The objects of a photograph, at its own size; a line is an object, in the order of the file."""
        objects, size = self.outlines(index)
        labels = [number + 1 for number, _ in objects]
        return Instances.of([polygons for _, polygons in objects], labels, size=size)

    def _check_lines(self, name: str) -> None:
        path = self.label_path(name)
        for number, line in read_lines(path):
            try:
                check_line(line, len(self.classes) - 1)
            except ValueError as error:
                self.problems.append(Problem(f"{path}:{number}", str(error)))
                self._skipped.setdefault(name, set()).add(number)

    def _opens(self, name: str) -> bool:
        try:
            read_image(self.images_dir / name)
        except (OSError, ValueError) as error:
            self.problems.append(Problem(name, str(error)))
            return False
        return True


# ------------------------------------------------------------------------------------------------ reading the folder


def read_data_yaml(root: str | Path) -> tuple[list[str], dict[str, Path | None]]:
    """The class names, and the images folder of each part, that a data.yaml speaks of; None where there is none.

    Raises:
        FileNotFoundError: no data.yaml.
        ValueError: it is not YOLO's.
    """
    path = Path(root) / "data.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}: give the folder that holds data.yaml, which says what the classes are called and where the "
            "images lie"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        names = check_names(content["names"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} has no list of class names ({what}): write, say, names: [building]") from error
    if content.get("nc", len(names)) != len(names):
        raise ValueError(f"{path} says nc: {content['nc']} but names {len(names)} classes")
    folders = {"train": content.get("train"), "val": content.get("val", content.get("valid"))}
    folders["test"] = content.get("test")
    home = Path(root) / str(content.get("path") or "")
    parts = {part: find_part(home, Path(root), value, path) for part, value in folders.items() if value}
    if not parts:
        raise ValueError(f"{path} names no folder of images: write, say, train: train/images")
    return names, parts


def check_names(names: Any) -> list[str]:
    """The class names of a data.yaml, in order.

    Raises:
        TypeError: no list, and no numbers from 0 on without a gap; a name twice.
    """
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise TypeError(f"its numbers are {list(names)}, where they count from 0 without a gap")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):  # of a word, the letters would be the classes
        raise TypeError(f"names is {names!r}")
    names = [str(name) for name in names]
    if len({"background", *names}) <= len(names):
        raise TypeError(f"a name is there twice, or is background, which YOLO has no class for: {names}")
    return names


def yolo_parts(root: str | Path) -> dict[str, Path]:
    """The images folder of each part that a YOLO-seg folder has: of "train", "val" and "test", those that there are."""
    return {part: folder for part, folder in read_data_yaml(root)[1].items() if folder}


def find_part(home: Path, root: Path, value: Any, where: Path) -> Path | None:
    """The folder of a part: from data.yaml's `path`, or else from its own folder; None where there is none.

    Roboflow writes ../train/images for a folder that lies beside data.yaml; Ultralytics reads it so, too.
    """
    if not isinstance(value, str) or value.endswith(".txt"):
        raise ValueError(f"{where}: {value!r} is no folder: seglib reads parts that are one folder of images each")
    beside = Path(*[name for name in Path(value).parts if name != ".."])
    found = next((folder for folder in (home / value, root / value, root / beside) if folder.is_dir()), None)
    return found / "images" if found and (found / "images").is_dir() else found


def labels_folder(images_dir: Path) -> Path:
    """Where the label files of a folder of images lie: the last "images" of its path becomes "labels"."""
    parts = list(images_dir.parts)
    if "images" not in parts:
        raise ValueError(f"{images_dir}: images must lie in a folder called images, their labels in labels beside it")
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def check_labels(images_dir: Path) -> None:
    """Raise FileNotFoundError where a part has no labels at all: every photograph would be taken for one of nothing."""
    folder = labels_folder(images_dir)
    if not folder.is_dir():
        beside = ", ".join(sorted(path.name for path in folder.parent.iterdir())) if folder.parent.is_dir() else ""
        raise FileNotFoundError(
            f"no folder {folder}, where YOLO looks for the labels of {images_dir}; there is {beside}"
        )


def label_files_of_nothing(images_dir: Path, names: Sequence[str]) -> list[Problem]:
    """Label files that no photograph goes with."""
    folder, wanted = labels_folder(images_dir), {Path(name).with_suffix("").as_posix() for name in names}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() == ".txt" and path.name != "classes.txt"]
    return [
        Problem(
            str(path), "no photograph has that name" if path.suffix == ".txt" else "must end in .txt, in small letters"
        )
        for path in files
        if path.suffix != ".txt" or path.relative_to(folder).with_suffix("").as_posix() not in wanted
    ]


def find_images(images_dir: Path) -> list[str]:
    """The photographs of a folder and those below it, sorted, by their path from there.

    Raises:
        ValueError: two photographs that would share a label file.
    """
    names = sorted(
        path.relative_to(images_dir).as_posix()
        for path in images_dir.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.is_dir()
        and not any(name.startswith(".") for name in path.relative_to(images_dir).parts)
    )
    labels = Counter(Path(name).with_suffix("") for name in names)
    shared = [name for name in names if labels[Path(name).with_suffix("")] > 1]
    if shared:
        raise ValueError(
            f"{', '.join(shared[:4])} in {images_dir} share a label file: rename them, or remove all but one"
        )
    return names


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a label file that are not blank, with their numbers; none where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def check_line(line: str, classes: int) -> None:
    """Raise ValueError, saying what is wrong, for a label line that cannot be read."""
    index, _ = yolo_to_polygons(line, 1, 1)
    if index >= classes:
        raise ValueError(f"class {index} is unknown: data.yaml has {classes}, which count from 0")


# ------------------------------------------------------------------------------------------------ writing lines


@dataclass
class Converted:
    """What a conversion to YOLO's lines has changed.

    Attributes:
        images: written. background: those among them without an object. objects: annotations that were written, in so
            many lines. classes: YOLO's number of each category, by COCO's id.
        several: objects of several parts, split or joined. holes: holes, filled or cut, in so many objects.
        retraced: objects drawn and traced anew, as their parts overlap or they are stored as a run-length code.
        clipped: objects that reached over the border. crowds: left out. lost: objects of which nothing was written.
        problems: what the annotation file has that is broken. turned: images stored on their side, written upright.
    """

    images: int = 0
    background: int = 0
    objects: int = 0
    lines: int = 0
    several: int = 0
    holes: int = 0
    with_holes: int = 0
    retraced: int = 0
    clipped: int = 0
    crowds: int = 0
    lost: int = 0
    turned: int = 0
    problems: int = 0
    classes: dict[Any, int] = field(default_factory=dict)
    choices: tuple[str, str] = (SEVERAL[0], HOLES[0])

    def __str__(self) -> str:
        several, holes = self.choices
        ids = ", ".join([f"{old} -> {new}" for old, new in self.classes.items()][:6])
        ids += f" ... ({len(self.classes)} in all)" if len(self.classes) > 6 else ""
        told = [
            f"{self.images} images, {self.background} of them without an object",
            f"{self.objects} objects in {self.lines} lines",
            f"category ids renumbered: {ids}" if any(old != new for old, new in self.classes.items()) else "",
            f"{self.several} objects of several parts: {'split, a line a part' if several == 'split' else 'joined'}",
            f"{self.holes} holes in {self.with_holes} objects: {'filled' if holes == 'fill' else 'cut by a slit'}",
            f"{self.retraced} objects drawn and outlined anew, pixel by pixel" if self.retraced else "",
            f"{self.clipped} objects cut off at the border" if self.clipped else "",
            f"{self.crowds} crowds left out" if self.crowds else "",
            f"{self.lost} objects too small or thin to be written" if self.lost else "",
            f"{self.turned} images stored on their side were written upright" if self.turned else "",
            f"{self.problems} broken entries skipped" if self.problems else "",
        ]
        return "\n".join(line for line in told if line)


def segmentation_to_yolo(
    index: int, shape: Any, size: tuple[int, int], several: str, holes: str, report: Converted | None = None
) -> list[str]:
    """The YOLO-seg lines of one object.

    Args:
        index: YOLO's class. shape: COCO's segmentation: polygons in pixels, or RLE. size: (height, width).
        several: "split" writes a line a part, which then reads as an object of its own; "join" makes one outline of
            them, with slits of no width between. holes: "fill" writes the outer outline alone; "cut" leads a slit to
            each hole. report: counts what was done.
    """
    report = report or Converted()
    height, width = size
    parts = outlines(shape, size, report)
    if holes == "fill":
        parts = outermost(parts, size)
    with_holes = [inner for _, inner in parts if inner]
    report.several += len(parts) > 1
    report.holes += sum(map(len, with_holes))
    report.with_holes += bool(with_holes)
    polygons = [join_polygons([outer, *inner]) if holes == "cut" else outer for outer, inner in parts]
    if several == "join" and len(polygons) > 1:
        polygons = [join_polygons(polygons)]
    lines = []
    for polygon in polygons:
        try:
            lines += polygons_to_yolo(index, [polygon], height, width)
        except ValueError:  # a part that lies outside, or has lost what lay inside
            continue
    xy = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons]) if polygons else np.zeros((0, 2))
    report.clipped += bool((xy < 0).any() or (xy > (width, height)).any())
    report.objects += bool(lines)
    report.lost += not lines
    report.lines += len(lines)
    return lines


def outlines(shape: Any, size: tuple[int, int], report: Converted) -> list[tuple[Polygon, list[Polygon]]]:
    """The outer polygon of each part of an object, and those of its holes."""
    if not isinstance(shape, dict):
        drawn = [polygons_to_mask([polygon], *size) for polygon in shape]
        if len(shape) == 1 or np.sum(drawn, axis=0).max() <= 1:
            return [(list(polygon), []) for polygon in shape]
        mask = np.any(drawn, axis=0)
    else:
        mask = rle_to_mask(shape)
    report.retraced += 1
    return mask_to_outlines(mask)


def outermost(parts: list[tuple[Polygon, list[Polygon]]], size: tuple[int, int]) -> list[tuple[Polygon, list[Polygon]]]:
    """The parts less those that lie in a hole of another: once that is filled, they are in it."""
    filled = [polygons_to_mask(inner, *size) for _, inner in parts if inner]
    if not filled:
        return parts
    return [part for part in parts if not any((polygons_to_mask([part[0]], *size) <= hole).all() for hole in filled)]


# ------------------------------------------------------------------------------------------------ from COCO, and back


def coco_to_yolo(
    images_dir: str | Path,
    annotation_file: str | Path,
    root: str | Path,
    part: str = "train",
    categories: Sequence[str | int] | None = None,
    several: str = "split",
    holes: str = "fill",
    on_error: str = "raise",
) -> Converted:
    """Write a COCO annotation file as a part of a YOLO-seg folder, and tell what that has changed.

    Category ids, which in COCO run to 90 with gaps, become 0, 1, 2 ... Crowds are left out, as the format has none:
    a model is punished for what it finds there. Images without an object get an empty label file. What reaches over the
    border is cut off there.

    Args:
        images_dir, annotation_file, categories, on_error: as of `COCOSegmentationDataset`.
        root: the folder to write; other parts may be in it already. An image gets a second name there (a hard link),
            where the disk can do that: who changes it changes the original.
        part: "train", "val" or "test".
        several: what becomes of objects in several parts: "split", each part an object of its own; "join", one outline
            with slits of no width. Split, one car behind a lamp post becomes two, each with a box of its own; joined,
            it stays one.
        holes: "fill" them, or "cut" them out by a slit from the outline.

    Raises:
        ValueError: the folder has other classes already; problems in the annotation file.
    """
    check_choice("several", several, SEVERAL)
    check_choice("holes", holes, HOLES)
    check_choice("part", part, tuple(YOLO_PARTS))
    data = COCOSegmentationDataset(images_dir, annotation_file, categories, on_error=on_error)
    root, folder = Path(root), Path(root) / YOLO_PARTS[part]
    write_data_yaml(root, data.classes[1:], part)
    class_of = {key: number - 1 for key, number in data.class_of.items()}
    report = Converted(classes=class_of, choices=(several, holes), problems=len(data.problems))
    for index, entry in enumerate(data.images):
        size = (entry["height"], entry["width"])
        lines: list[str] = []
        for annotation in data.annotations(index):
            if annotation.get("iscrowd", 0):
                report.crowds += 1
                continue
            number = class_of[annotation["category_id"]]
            lines += segmentation_to_yolo(number, annotation["segmentation"], size, several, holes, report)
        place_image(data.images_dir / entry["file_name"], folder / "images" / entry["file_name"], size, report)
        write_lines(folder / "labels" / Path(entry["file_name"]).with_suffix(".txt"), lines)
        report.images += 1
        report.background += not lines
    return report


def place_image(source: Path, target: Path, size: tuple[int, int], report: Converted) -> None:
    """Link a photograph to where its label file expects it; one that was annotated lying on its side is written so,
    without the note that makes viewers turn it, as whoever reads YOLO's labels obeys that."""
    upright, in_place = image_size(source) == tuple(size), target.resolve() == source.resolve()
    if in_place and not upright:
        raise ValueError(f"{source} is stored on its side and would be written over: write to another folder")
    if in_place:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if upright:
        link_or_copy(source, target)
        return
    with atomic_path(target) as aside:
        Image.fromarray(read_image(source, size)).save(aside, quality=95)
    report.turned += 1


def write_data_yaml(root: Path, names: Sequence[str], part: str) -> None:
    """Write data.yaml, or add a part to the one that is there.

    Raises:
        ValueError: that one has other classes.
    """
    path, parts = root / "data.yaml", {}
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


def yolo_to_coco(
    data: YOLOSegmentationDataset, annotation_file: str | Path, ids: Mapping[int, Any] | None = None
) -> None:
    """Write a part of a YOLO-seg folder as a COCO annotation file: an annotation a line.

    Args:
        ids: COCO's category id of each of YOLO's classes, to have those back that `coco_to_yolo` renumbered (the other
            way round than `Converted.classes`); None: counted from 1.
    """
    ids = {index: index + 1 for index in range(len(data.classes) - 1)} if ids is None else dict(ids)
    images, annotations = [], []
    for number in range(len(data)):
        outlines, (height, width) = data.outlines(number)
        name = data.filenames[number]
        images.append({"id": number + 1, "file_name": name, "height": height, "width": width})
        drawn = Instances.of([polygons for _, polygons in outlines], size=(height, width))
        areas, boxes = drawn.areas.tolist(), drawn.boxes.tolist()
        for (index, polygons), area, (left, top, right, bottom) in zip(outlines, areas, boxes, strict=True):
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
    categories = [{"id": ids[index], "name": name} for index, name in enumerate(data.classes[1:])]
    content = {"images": images, "categories": categories, "annotations": annotations}
    write_lines(Path(annotation_file), [json.dumps(content)])


def round_trip_iou(shape: Any, size: tuple[int, int], several: str = "split", holes: str = "fill") -> float:
    """IoU of an object's mask before and after it was written as YOLO's lines and read again.

    Of an object that was split it is the best of its parts: as the one object it was, no more of it is left.

    Args:
        shape: COCO's segmentation. size: (height, width). several, holes: as of `coco_to_yolo`.
    """
    before = annotation_bitmap({"segmentation": shape}, *size)
    lines = segmentation_to_yolo(0, shape, size, several, holes)
    after = [polygons_to_mask(yolo_to_polygons(line, *size)[1], *size) for line in lines]
    shares = [(before & mask).sum() / max((before | mask).sum(), 1) for mask in after]
    return float(max(shares, default=0.0))
