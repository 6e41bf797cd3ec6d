"""COCO instance annotations, read as class masks.

The rules where annotations meet in a pixel: an object of a category that was asked for gives its class; where two
such objects overlap, `overlap` decides; a crowd region of such a category is 255 ("do not count") where none of these
objects lies on it; everything else, crowds and objects of other categories too, is background.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.common import Problem, as_sample, check_on_error, settle
from seglib.files import read_image, written_aside
from seglib.masks import IGNORE, check_polygon, polygons_to_mask, rle_to_mask, write_index_png
from seglib.transforms import Transform


class COCOSegmentationDataset(Dataset):
    """Photographs with class masks drawn from a COCO annotation file.

    Args:
        images_dir: the folder that `file_name` counts from.
        annotation_file: an `instances_*.json`.
        categories: names or COCO ids, in class order: the first becomes class 1. None: all, in id order.
        mode: "multiclass", one class for each category; "binary", class 1 for all of them.
        overlap: which object wins a pixel: "maximum", the higher class; "smallest", the one with fewer pixels (of two
            alike, the higher class).
        transform: called as transform(image=(H, W, 3), mask=(H, W)); deterministic, a resize, say.
        on_error: "raise", or "skip" to leave out what is broken. Skipping opens every image once, to find those that
            are cut short. Annotations of categories that were not asked for are not looked into.
        keep_empty: False leaves out the images on which no category that was asked for occurs.

    Attributes:
        classes: ["background", ...]. filenames: `file_name` of each sample. problems: what was skipped or repaired.
        images: the file's entry of each sample.

    Raises:
        FileNotFoundError, ValueError: naming file, annotation id and what to do.
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
        *,
        keep_empty: bool = True,
    ) -> None:
        check_on_error(on_error)
        _check_choice("mode", mode, ("multiclass", "binary"))
        _check_choice("overlap", overlap, ("maximum", "smallest"))
        self.images_dir, self.annotation_file = Path(images_dir), Path(annotation_file)
        self.mode, self.overlap, self.transform, self.on_error = mode, overlap, transform, on_error
        self.problems: list[Problem] = []
        content = _read_annotation_file(self.annotation_file)
        wanted = _wanted_categories(content["categories"], categories, self.annotation_file)
        self.categories = [category["name"] for category in wanted]
        self.classes = ["background", *(self.categories if mode == "multiclass" or len(wanted) == 1 else ["object"])]
        self._class_of = {c["id"]: position if mode == "multiclass" else 1 for position, c in enumerate(wanted, 1)}
        known = {category["id"] for category in content["categories"]}
        self.images = self._check_images(content["images"])
        self._annotations = self._check_annotations(content, known)
        if on_error == "skip":
            self.images = [image for image in self.images if self._opens(image)]
        settle(self.problems, on_error, str(self.annotation_file))
        if not keep_empty:
            self.images = [image for image in self.images if self._annotations.get(image["id"])]
        if not self.images:
            raise ValueError(
                f"no image left: {self.annotation_file} lists {len(content['images'])}, {len(self.problems)} problems "
                f"were found, and {'all' if keep_empty else 'only images with'} {self.categories} were asked for"
            )
        self.filenames = [image["file_name"] for image in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name."""
        entry = self.images[index]
        path = self.images_dir / entry["file_name"]
        image = read_image(path, (entry["height"], entry["width"]))
        return *as_sample(image, self.mask(index), len(self.classes), path, self.transform), entry["file_name"]

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """The annotations of sample `index` that count, crowds too, as they stand in the file."""
        return self._annotations.get(self.images[index]["id"], [])

    def mask(self, index: int) -> np.ndarray:
        """The class mask of sample `index`, uint8 (H, W), at the size the annotations were made at."""
        entry = self.images[index]
        shape = entry["height"], entry["width"]
        objects, crowds = [], []
        for annotation in self.annotations(index):
            bitmap = annotation_bitmap(annotation, *shape)
            if annotation.get("iscrowd", 0):
                crowds.append(bitmap)
            else:
                objects.append((self._class_of[annotation["category_id"]], bitmap))
        return paint(objects, crowds, *shape, overlap=self.overlap)

    def _check_images(self, entries: list[dict]) -> list[dict]:
        """The image entries that are whole, each id and file once, and whose file is there."""
        files_of = defaultdict(set)
        for entry in entries:
            files_of[entry.get("id")].add(entry.get("file_name"))
        kept: list[dict] = []
        ids, names = set(), set()
        for entry in entries:
            lacks = [key for key in ("id", "file_name", "height", "width") if key not in entry]
            where = f"image {entry.get('id', '?')} ({entry.get('file_name', '?')})"
            if lacks:
                self.problems.append(Problem(where, f"its entry lacks {', '.join(lacks)}"))
            elif len(files_of[entry["id"]]) > 1:
                files = ", ".join(sorted(map(str, files_of[entry["id"]])))
                self.problems.append(Problem(where, f"{files} share that id: whose annotations are whose?"))
            elif entry["id"] in ids:
                self.problems.append(Problem(where, "is listed twice"))
            elif str(Path(entry["file_name"]).with_suffix("")) in names:
                what = "another image has that name (masks are named after images, less the ending)"
                self.problems.append(Problem(where, what))
            elif not (self.images_dir / entry["file_name"]).is_file():
                self.problems.append(Problem(where, f"no such file in {self.images_dir}"))
            else:
                kept.append(entry)
                ids.add(entry["id"])
                names.add(str(Path(entry["file_name"]).with_suffix("")))
        return kept

    def _check_annotations(self, content: dict, known: set) -> dict[Any, list[dict]]:
        """The annotations that count and can be drawn, by image id."""
        listed = {entry.get("id") for entry in content["images"]}
        sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in self.images}
        kept: dict[Any, list[dict]] = defaultdict(list)
        seen = set()
        for annotation in content["annotations"]:
            where = f"annotation {annotation.get('id', '?')}"
            lacks = [key for key in ("id", "image_id", "category_id") if key not in annotation]
            if lacks:
                self.problems.append(Problem(where, f"lacks {', '.join(lacks)}"))
            elif annotation["id"] in seen:
                self.problems.append(Problem(where, "another annotation has that id"))
            elif annotation["category_id"] not in known:
                self.problems.append(Problem(where, f"its category {annotation['category_id']} is not in the file"))
            elif annotation["image_id"] not in listed:
                self.problems.append(Problem(where, f"its image {annotation['image_id']} is not in the file"))
            elif annotation["category_id"] in self._class_of and annotation["image_id"] in sizes:
                drawable = self._drawable(annotation, where, *sizes[annotation["image_id"]])
                if drawable is not None:
                    kept[annotation["image_id"]].append(drawable)
            seen.add(annotation.get("id"))
        return dict(kept)

    def _drawable(self, annotation: dict, where: str, height: int, width: int) -> dict | None:
        """The annotation, less the parts that cannot be drawn, which are reported; None where nothing is left."""
        where = f"{where} (image {annotation['image_id']})"
        shape = annotation.get("segmentation")
        if not shape:
            self.problems.append(Problem(where, "has no segmentation (a box alone is no mask)"))
            return None
        if isinstance(shape, dict):
            try:
                _check_rle(shape, height, width)
            except ValueError as error:
                self.problems.append(Problem(where, str(error)))
                return None
            return annotation
        good, errors = [], []
        for part in shape:
            try:
                check_polygon(part, height, width)
                good.append(part)
            except ValueError as error:
                errors.append(str(error))
        action = "repaired" if good else "skipped"
        self.problems += [Problem(where, error, action) for error in errors]
        return {**annotation, "segmentation": good} if good else None

    def _opens(self, entry: dict) -> bool:
        try:
            read_image(self.images_dir / entry["file_name"], (entry["height"], entry["width"]))
        except (OSError, ValueError) as error:
            self.problems.append(Problem(f"image {entry['id']} ({entry['file_name']})", str(error)))
            return False
        return True


def annotation_bitmap(annotation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Draw one COCO annotation, polygons or RLE: bool (height, width)."""
    shape = annotation["segmentation"]
    return rle_to_mask(shape) if isinstance(shape, dict) else polygons_to_mask(shape, height, width)


def paint(
    objects: Iterable[tuple[int, np.ndarray]],
    crowds: Iterable[np.ndarray],
    height: int,
    width: int,
    overlap: str = "maximum",
) -> np.ndarray:
    """Paint objects over crowds into one class mask, the winner of each overlap last.

    Args:
        objects: pairs of class and bool (height, width). crowds: bool (height, width).

    Returns:
        uint8 (height, width).
    """
    if overlap == "smallest":
        order = sorted(objects, key=lambda pair: (-int(pair[1].sum()), pair[0]))
    else:
        order = sorted(objects, key=lambda pair: pair[0])
    mask = np.zeros((height, width), dtype=np.uint8)
    for bitmap in crowds:
        mask[bitmap] = IGNORE
    for index, bitmap in order:
        mask[bitmap] = index
    return mask


@dataclass(frozen=True)
class Written:
    """What `write_masks` did: masks written, annotations and images skipped and repaired, where the masks are."""

    written: int
    skipped: int
    repaired: int
    folder: str


def write_masks(data: COCOSegmentationDataset, folder: str | Path) -> Written:
    """Write every sample's mask as an index PNG named after its image; a second call finds them and writes nothing.

    What the masks were made from is kept in `masks.json` beside them: where that has changed, they are written anew.
    """
    folder = Path(folder)
    source = data.annotation_file.stat()
    made_from = {
        "annotation_file": data.annotation_file.name,
        "bytes": source.st_size,
        "changed": source.st_mtime_ns,
        "categories": data.categories,
        "classes": data.classes,
        "overlap": data.overlap,
        "images": len(data),
    }
    targets = [folder / Path(name).with_suffix(".png") for name in data.filenames]
    stamp = folder / "masks.json"
    if stamp.is_file() and all(target.is_file() for target in targets):
        before = json.loads(stamp.read_text())
        if before["made_from"] == made_from:
            return Written(**before["report"])
    for index, target in enumerate(targets):
        write_index_png(target, data.mask(index), data.classes)
    actions = Counter(problem.action for problem in data.problems)
    report = Written(len(targets), actions["skipped"], actions["repaired"], str(folder))
    with written_aside(stamp) as aside:
        aside.write_text(json.dumps({"made_from": made_from, "report": asdict(report)}, indent=1))
    return report


def _read_annotation_file(path: Path) -> dict:
    """Read an annotation file's JSON and check that it is COCO's."""
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}: COCO's are called annotations/instances_*.json")
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError(f"{path} is empty: copy or download it again")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON ({error}): it may have been cut short; copy or download it again"
        ) from None
    lacks = [key for key in ("images", "annotations", "categories") if not isinstance(_get(content, key), list)]
    if lacks:
        raise ValueError(
            f"{path} has no list of {' or '.join(lacks)}: an instance annotation file in COCO's format has images, "
            "annotations and categories"
        )
    return content


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, dict) else None


def _wanted_categories(known: list[dict], wanted: Sequence[str | int] | None, path: Path) -> list[dict]:
    """The categories that were asked for, in that order; all, in id order, for None."""
    by_id = {category["id"]: category for category in known}
    by_name = {category["name"]: category for category in known}
    if len(by_id) < len(known) or len(by_name) < len(known):
        raise ValueError(f"{path} lists a category's id or name twice")
    if wanted is None:
        return [by_id[key] for key in sorted(by_id)]
    if isinstance(wanted, str | int):
        raise ValueError(f"categories must be a list, such as [{wanted!r}]")
    missing = [item for item in wanted if item not in by_name and item not in by_id]
    if missing or not wanted:
        there = ", ".join(f"{category['name']} ({key})" for key, category in sorted(by_id.items()))
        raise ValueError(f"{path} has no category {missing}; it has {there}")
    chosen = [by_name[item] if isinstance(item, str) else by_id[item] for item in wanted]
    if len({category["id"] for category in chosen}) < len(chosen):
        raise ValueError(f"categories {list(wanted)} name one category twice")
    return chosen


def _check_rle(rle: dict, height: int, width: int) -> None:
    """Raise ValueError for a run-length encoding that is not of this image."""
    if list(rle.get("size", ())) != [height, width]:
        raise ValueError(f"RLE of size {rle.get('size')} but its image is {[height, width]} (height, width)")
    rle_to_mask(rle)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
