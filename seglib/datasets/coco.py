"""COCO instance annotations, read as class masks.

An object of a wanted category gives its pixels its class. Where two such objects overlap, `overlap` decides. A crowd
region of a wanted category is 255 ("do not count") except where one of these objects lies. All else is background.
"""

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PureWindowsPath
from types import UnionType
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.base import ON_ERROR, Problem, Transform, as_sample, readable, report_problems
from seglib.datasets.coco_json import Entry, find_image, read_annotation_file, whole_number
from seglib.files import check_choice, image_size, read_image, write_json, write_lines
from seglib.instances import Instances
from seglib.masks import (
    RLE,
    Polygon,
    check_classes,
    check_polygon,
    rle_to_mask,
    write_index_png,
)

__all__ = ["COCOSegmentationDataset", "MaskReport", "Segmentation", "write_coco", "write_masks"]

Segmentation = list[Polygon] | RLE  # a polygon is [x1, y1, x2, y2, ...] in pixels

_Id = int | str
_IMAGE_FIELDS = {"id": int | str, "file_name": str}
_ANNOTATION_FIELDS = {"id": int | str, "image_id": int | str, "category_id": int | str}


class COCOSegmentationDataset(Dataset[tuple[Tensor, Tensor, str]]):
    """Images with class masks drawn from a COCO annotation file (Lin et al., 2014).

    Args:
        images_dir: the folder that each `file_name` is relative to.
        annotation_file: an `instances_*.json`.
        categories: names or COCO ids in class order: the first becomes class 1. None: all, in id order.
        mode: "multiclass": one class for each category; "binary": class 1 for all of them.
        overlap: the object that wins a pixel: "maximum": the one of the higher class; "smallest": the one with fewer
            pixels, and of two equally large the one of the higher class.
        transform: a deterministic change of image and mask, such as `transforms.resize`.
        on_error: "raise", or "skip" to leave out what is broken. "skip" opens every image once to find the damaged
            ones. The shapes of unwanted categories are never checked.
        crowds: "ignore": a crowd is 255; "objects": it is an object like the others, as in files of tools that mark
            every brush mask as a crowd.

    Attributes:
        classes: the class names, ["background", ...].
        categories: the names of the wanted categories in class order.
        class_of: the class of each wanted category by its COCO id.
        filenames: the `file_name` of each sample.
        images: the image entry of each sample.
        problems: what was skipped or repaired.

    Raises:
        FileNotFoundError: no annotation file or no image folder.
        ValueError: the annotation file is broken; the message names the file and the ids.
    """

    def __init__(
        self,
        images_dir: str | Path,
        annotation_file: str | Path,
        categories: Sequence[str | int] | None = None,
        mode: str = "multiclass",
        overlap: str = "maximum",
        transform: Transform | None = None,
        on_error: str = "raise",
        crowds: str = "ignore",
    ) -> None:
        check_choice("on_error", on_error, ON_ERROR)
        check_choice("crowds", crowds, ("ignore", "objects"))
        check_choice("mode", mode, ("multiclass", "binary"))
        check_choice("overlap", overlap, ("maximum", "smallest"))
        self.images_dir = Path(images_dir)
        self.annotation_file = Path(annotation_file)
        self.overlap = overlap
        self.transform = transform
        self.problems: list[Problem] = []
        content = read_annotation_file(self.annotation_file, crowds)
        if not self.images_dir.is_dir():
            raise FileNotFoundError(f"no folder {self.images_dir}: give the folder that the file names are relative to")
        wanted = _select_categories(content["categories"], categories, self.annotation_file)
        self.categories = [category["name"] for category in wanted]
        one_class = mode == "binary" and len(wanted) > 1
        self.classes = ["background", *(["object"] if one_class else self.categories)]
        check_classes(self.classes)
        self.class_of = {category["id"]: 1 if one_class else index for index, category in enumerate(wanted, 1)}
        self.images = self._check_images(content["images"])
        self._annotations = self._check_annotations(content)
        if on_error == "skip":
            self.images = readable(self.images, self._read_image, self.problems, _describe)
        report_problems(self.problems, on_error, str(self.annotation_file))
        self._warn_of_classes_of_crowds()
        if not self.images:
            raise ValueError(f"no image left of {len(content['images'])} in {self.annotation_file}")
        self.filenames = [entry["file_name"] for entry in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name."""
        entry = self.images[index]
        path = self.images_dir / entry["file_name"]
        image, mask = as_sample(self._read_image(entry), self.mask(index), len(self.classes), path, self.transform)
        return image, mask, entry["file_name"]

    def annotations(self, index: int) -> list[Entry]:
        """The annotations of the wanted categories on sample `index`, crowds included, as in the file."""
        return self._annotations.get(self.images[index]["id"], [])

    def instances(self, index: int) -> Instances:
        """The objects and crowds of sample `index`, at the size in the annotation file."""
        entry = self.images[index]
        annotations = self.annotations(index)
        return Instances.of(
            [item["segmentation"] for item in annotations],
            [self.class_of[item["category_id"]] for item in annotations],
            crowd=[bool(item.get("iscrowd", 0)) for item in annotations],
            size=(entry["height"], entry["width"]),
        )

    def mask(self, index: int) -> np.ndarray:
        """The class mask of sample `index`: uint8 (H, W), at the size in the annotation file."""
        return self.instances(index).semantic(self.overlap)

    def _read_image(self, entry: Entry) -> np.ndarray:
        return read_image(self.images_dir / entry["file_name"], (entry["height"], entry["width"]))

    def _warn_of_classes_of_crowds(self) -> None:
        """Warn of classes whose objects are all crowds."""
        kept = [annotation for annotations in self._annotations.values() for annotation in annotations]
        learned = {self.class_of[annotation["category_id"]] for annotation in kept if not annotation["iscrowd"]}
        crowds = [self.class_of[annotation["category_id"]] for annotation in kept if annotation["iscrowd"]]
        without = {number: count for number, count in sorted(Counter(crowds).items()) if number not in learned}
        if without:
            of = " of " + ", ".join(repr(self.classes[number]) for number in without) if learned else ""
            warnings.warn(
                f"{self.annotation_file}: all {sum(without.values())} objects{of} are crowds (iscrowd 1), which do "
                'not count, so there is nothing to learn. Pass crowds="objects" if each is an object',
                stacklevel=3,
            )

    def _check_images(self, entries: list[Entry]) -> list[Entry]:
        """The entries that are complete and unique and whose file exists; the others become problems."""
        names = defaultdict(set)  # the file names of each id
        for entry in entries:
            if not _field_error(entry, _IMAGE_FIELDS):
                names[entry["id"]].add(entry["file_name"])
        kept: dict[str, Entry] = {}  # by file name without suffix
        files: dict[str, list[Path]] = {}
        moved = []
        for entry in entries:
            found = entry
            error = _field_error(entry, _IMAGE_FIELDS)
            if not error:
                found = {**entry, "file_name": find_image(self.images_dir, entry["file_name"], files)}
                error = self._image_error(found, names[entry["id"]], kept)
            if error:
                self.problems.append(Problem(_describe(entry), error))
                continue
            kept[_stem(found)] = found
            if PureWindowsPath(entry["file_name"]).as_posix() != found["file_name"]:
                moved.append(f"{entry['file_name']!r} as {found['file_name']!r}")
        if moved:
            warnings.warn(
                f"{self.annotation_file}: {len(moved)} file names are not as in {self.images_dir} and were found by "
                f"their last part, such as {moved[0]}",
                stacklevel=4,
            )
        return list(kept.values())

    def _image_error(self, entry: Entry, names: set[str], kept: Mapping[str, Entry]) -> str:
        """What is wrong with an image entry, given the file names of its id and the images before it; else ""."""
        if len(names) > 1:
            return f"{', '.join(sorted(names))} share that id, so their annotations cannot be told apart"
        if not entry["file_name"]:
            return f"no such file in {self.images_dir}, or more than one"
        if _stem(entry) in kept:
            return "another entry has that name (a mask is named after its image, without the suffix)"
        if entry.get("height") is None or entry.get("width") is None:
            try:
                entry["height"], entry["width"] = image_size(self.images_dir / entry["file_name"])
            except ValueError as error:
                return str(error)
        sides = [entry["height"], entry["width"]]
        if not all(type(side) is int and 1 <= side < 1e6 for side in sides):
            return f"height {sides[0]!r} and width {sides[1]!r} must be whole numbers of pixels"
        return ""

    def _check_annotations(self, content: dict[str, list[Entry]]) -> dict[_Id, list[Entry]]:
        """The drawable annotations of the wanted categories by image id; broken ones become problems."""
        images = {entry["id"] for entry in content["images"] if not _field_error(entry, {"id": int | str})}
        categories = {category["id"] for category in content["categories"]}
        sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in self.images}
        kept: dict[_Id, list[Entry]] = defaultdict(list)
        ids: set[_Id] = set()
        for annotation in content["annotations"]:
            error = _field_error(annotation, _ANNOTATION_FIELDS) or _id_error(annotation, ids, images, categories)
            if not error and annotation["iscrowd"] not in (0, 1):
                error = f"iscrowd is {annotation['iscrowd']!r}, not 0 or 1"
            if error:
                self.problems.append(Problem(f"annotation {annotation.get('id')}", error))
                continue
            ids.add(annotation["id"])
            if annotation["category_id"] in self.class_of and annotation["image_id"] in sizes:
                kept[annotation["image_id"]] += self._drawable(annotation, *sizes[annotation["image_id"]])
        return kept

    def _drawable(self, annotation: Entry, height: int, width: int) -> list[Entry]:
        """The annotation without the parts that cannot be drawn, which become problems; [] if nothing is left."""
        segmentation: Any = annotation.get("segmentation")
        has_polygons = isinstance(segmentation, list) and any(isinstance(part, list) for part in segmentation)
        check: Callable[[Any, int, int], None] = check_polygon if has_polygons else _check_rle
        where = f"annotation {annotation['id']} (image {annotation['image_id']})"
        parts = segmentation if has_polygons else [segmentation]
        broken: list[Problem] = []
        drawable = readable(parts, lambda part: check(part, height, width), broken, lambda _: where)
        action = "repaired" if drawable else "skipped"
        self.problems += [replace(problem, action=action) for problem in broken]
        if not drawable:
            return []
        return [{**annotation, "segmentation": drawable if has_polygons else segmentation}]


@dataclass(frozen=True)
class MaskReport:
    """The result of `write_masks`: numbers of masks, of problems in the data set, and of objects without a pixel."""

    written: int
    skipped: int
    repaired: int
    empty: int


def write_masks(data: COCOSegmentationDataset, folder: str | Path) -> MaskReport:
    """Write the mask of every sample as an index PNG named after its image.

    A record of the source is kept in `masks.json`. If it has not changed, a second call writes nothing.
    """
    folder = Path(folder)
    status = data.annotation_file.stat()
    changed = [data.annotation_file.name, status.st_size, status.st_mtime_ns]
    source = [*changed, data.categories, data.classes, data.overlap]
    files = [Path(name).with_suffix(".png").as_posix() for name in data.filenames]
    record_file = folder / "masks.json"
    record = json.loads(record_file.read_text(encoding="utf-8")) if record_file.is_file() else {"files": []}
    is_current = record.get("made_from") == source and record["files"] == files
    if is_current and all((folder / name).is_file() for name in files):
        return MaskReport(**record["report"])
    record_file.unlink(missing_ok=True)  # if interrupted from here on, the next call writes all masks again
    for name in record["files"]:
        (folder / name).unlink(missing_ok=True)  # it may belong to an image that is no longer in the data set
    empty = 0
    for index, name in enumerate(files):
        instances = data.instances(index)
        empty += int((instances.areas == 0).sum())
        write_index_png(folder / name, instances.semantic(data.overlap), data.classes)
    actions = Counter(problem.action for problem in data.problems)
    report = MaskReport(len(files), actions["skipped"], actions["repaired"], empty)
    write_json(record_file, {"made_from": source, "report": asdict(report), "files": files})
    return report


def _sorted_ids(ids: Iterable[_Id]) -> list[_Id]:
    """Numbers first, then texts."""
    return sorted(ids, key=lambda key: (isinstance(key, str), key))


def write_coco(
    annotation_file: str | Path,
    classes: Sequence[str],
    samples: Iterable[tuple[str, tuple[int, int], Iterable[tuple[int, Segmentation, bool]]]],
) -> None:
    """Write a COCO annotation file. Category ids are the classes.

    Args:
        classes: names of the classes, background first.
        samples: for each image its file name, its (height, width), and its objects: class, mask, whether it is a crowd.
    """
    images: list[Entry] = []
    annotations: list[Entry] = []
    for name, (height, width), objects in samples:
        images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width})
        for label, segmentation, is_crowd in objects:
            shape = Instances.of([segmentation], size=(height, width))
            left, top, right, bottom = shape.boxes[0].tolist()
            annotation: Entry = {"id": len(annotations) + 1, "image_id": len(images), "category_id": label}
            annotation |= {"iscrowd": int(is_crowd), "segmentation": segmentation, "area": int(shape.areas[0])}
            annotations.append(annotation | {"bbox": [left, top, right - left, bottom - top]})
    categories = [{"id": index, "name": name} for index, name in enumerate(classes) if index > 0]
    content = {"images": images, "categories": categories, "annotations": annotations}
    write_lines(Path(annotation_file), [json.dumps(content)])


def _describe(entry: Entry) -> str:
    return f"image {entry.get('id')} ({entry.get('file_name')})"


def _stem(entry: Entry) -> str:
    return str(Path(entry["file_name"]).with_suffix(""))


def _field_error(entry: Entry, fields: Mapping[str, type | UnionType]) -> str:
    """What is missing or of the wrong type in an entry of an annotation file; "" if nothing is."""
    valid = {key: isinstance(entry.get(key), kind) and not isinstance(entry[key], bool) for key, kind in fields.items()}
    wrong = [f"{key}: {entry.get(key)!r}" for key, is_valid in valid.items() if not is_valid]
    return f"has no valid {', '.join(wrong)}" if wrong else ""


def _id_error(annotation: Entry, ids: set[_Id], images: set[_Id], categories: set[_Id]) -> str:
    """What is wrong with the ids of an annotation, given those before it and those it may refer to; else ""."""
    if annotation["id"] in ids:
        return "another annotation has that id"
    for key, known in (("category_id", categories), ("image_id", images)):
        if annotation[key] not in known:
            return f"its {key} {annotation[key]} is not in the file"
    return ""


def _check_rle(rle: Any, height: int, width: int) -> None:
    """Raise ValueError if an RLE cannot be drawn in a (height, width) image."""
    if not rle or not isinstance(rle, dict):
        raise ValueError(
            f"its segmentation must be a list of polygons or an RLE (a box alone gives no mask), not {str(rle)[:60]}"
        )
    if rle.get("size") != [height, width]:
        raise ValueError(f"RLE of size {rle.get('size')} but its image is {[height, width]} (height, width)")
    rle_to_mask(rle)


def _select_categories(known: list[Entry], wanted: Sequence[str | int] | None, path: Path) -> list[Entry]:
    """The wanted categories in the order given; all, in id order, if `wanted` is None."""
    for category in known:
        if error := _field_error(category, {"id": int | str, "name": str}):
            raise ValueError(f"{path}: category {category} {error}")
    by_id = {category["id"]: category for category in known}
    by_name = {category["name"]: category for category in known}
    if len(by_id) < len(known) or len(by_name) < len(known):
        raise ValueError(f"{path} lists a category id or name twice: remove one")
    if wanted is None:
        return [by_id[key] for key in _sorted_ids(by_id)]
    if isinstance(wanted, str | int):
        raise ValueError(f"categories must be a list, such as [{wanted!r}]")
    items = [item if item in by_name else whole_number(item) for item in wanted]
    missing = [item for item in items if item not in by_name and item not in by_id]
    if missing or not wanted:
        available = ", ".join(f"{category['name']} ({key})" for key, category in by_id.items())
        raise ValueError(f"{path} has no category {missing}; it has {available}")
    selected = [by_name[item] if item in by_name else by_id[item] for item in items]
    if len({category["id"] for category in selected}) < len(selected):
        raise ValueError(f"categories {list(wanted)} name a category twice")
    return selected
