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

from seglib.datasets.base import Problem, Transform, as_sample, report_problems
from seglib.files import atomic_path, check_choice, read_image
from seglib.instances import Instances
from seglib.masks import IGNORE, check_classes, check_polygon, polygons_to_mask, rle_to_mask, write_index_png


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
        images: the file's entry of each sample. class_of: the class of each category, by COCO's id.

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
        check_choice("on_error", on_error, ("raise", "skip"))
        check_choice("mode", mode, ("multiclass", "binary"))
        check_choice("overlap", overlap, ("maximum", "smallest"))
        self.images_dir, self.annotation_file = Path(images_dir), Path(annotation_file)
        self.mode, self.overlap, self.transform, self.on_error = mode, overlap, transform, on_error
        self.problems: list[Problem] = []
        content = _read_annotation_file(self.annotation_file)
        if not self.images_dir.is_dir():
            raise FileNotFoundError(f"no folder {self.images_dir}: give the one that the file names count from")
        wanted = _wanted_categories(content["categories"], categories, self.annotation_file)
        self.categories = [category["name"] for category in wanted]
        self.classes = ["background", *(self.categories if mode == "multiclass" or len(wanted) == 1 else ["object"])]
        check_classes(self.classes)
        self.class_of = {c["id"]: position if mode == "multiclass" else 1 for position, c in enumerate(wanted, 1)}
        known = {category["id"] for category in content["categories"]}
        self.images = self._check_images(content["images"])
        self._annotations = self._check_annotations(content, known)
        if on_error == "skip":
            self.images = [image for image in self.images if self._opens(image)]
        report_problems(self.problems, on_error, str(self.annotation_file))
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

    def bitmaps(self, index: int) -> list[np.ndarray]:
        """Each of `annotations(index)`, drawn: bool (H, W), at the size the annotations were made at."""
        entry = self.images[index]
        return [annotation_bitmap(item, entry["height"], entry["width"]) for item in self.annotations(index)]

    def instances(self, index: int) -> Instances:
        """The objects and crowds of sample `index`, at the size the annotations were made at."""
        entry, found = self.images[index], self.annotations(index)
        labels = [self.class_of[item["category_id"]] for item in found]
        crowd = [bool(item.get("iscrowd", 0)) for item in found]
        shapes = [item["segmentation"] for item in found]
        return Instances.of(shapes, labels, crowd=crowd, size=(entry["height"], entry["width"]))

    def mask(self, index: int, bitmaps: list[np.ndarray] | None = None) -> np.ndarray:
        """The class mask of sample `index`, uint8 (H, W), at the size the annotations were made at.

        Args:
            bitmaps: what `bitmaps(index)` gave, where it is at hand.
        """
        entry, objects, crowds = self.images[index], [], []
        drawn = self.bitmaps(index) if bitmaps is None else bitmaps
        for annotation, bitmap in zip(self.annotations(index), drawn, strict=True):
            if annotation.get("iscrowd", 0):
                crowds.append(bitmap)
            else:
                objects.append((self.class_of[annotation["category_id"]], bitmap))
        return paint(objects, crowds, entry["height"], entry["width"], overlap=self.overlap)

    def _check_images(self, entries: list[dict]) -> list[dict]:
        """The image entries that are whole, each id and file once, and whose file is there."""
        files_of = defaultdict(set)
        for entry in entries:
            if not _wrong_fields(entry, IMAGE_FIELDS):
                files_of[entry["id"]].add(entry["file_name"])
        kept: list[dict] = []
        ids, names = set(), set()
        for entry in entries:
            where = f"image {_get(entry, 'id')} ({_get(entry, 'file_name')})"
            if wrong := _wrong_fields(entry, IMAGE_FIELDS):
                self.problems.append(Problem(where, f"its entry has {wrong}"))
            elif Path(entry["file_name"]).is_absolute() or ".." in Path(entry["file_name"]).parts:
                self.problems.append(Problem(where, f"file_name must stay inside {self.images_dir}"))
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
                kept.append({**entry, "height": int(entry["height"]), "width": int(entry["width"])})
                ids.add(entry["id"])
                names.add(str(Path(entry["file_name"]).with_suffix("")))
        return kept

    def _check_annotations(self, content: dict, known: set) -> dict[Any, list[dict]]:
        """The annotations that count and can be drawn, by image id."""
        listed = {entry["id"] for entry in content["images"] if not _wrong_fields(entry, {"id": int | str})}
        sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in self.images}
        kept: dict[Any, list[dict]] = defaultdict(list)
        seen = set()
        for annotation in content["annotations"]:
            where = f"annotation {_get(annotation, 'id')}"
            if wrong := _wrong_fields(annotation, ANNOTATION_FIELDS):
                self.problems.append(Problem(where, f"has {wrong}"))
                continue
            if annotation["id"] in seen:
                self.problems.append(Problem(where, "another annotation has that id"))
            elif annotation["category_id"] not in known:
                self.problems.append(Problem(where, f"its category {annotation['category_id']} is not in the file"))
            elif annotation["image_id"] not in listed:
                self.problems.append(Problem(where, f"its image {annotation['image_id']} is not in the file"))
            elif annotation["category_id"] in self.class_of and annotation["image_id"] in sizes:
                drawable = self._drawable(annotation, where, *sizes[annotation["image_id"]])
                if drawable is not None:
                    kept[annotation["image_id"]].append(drawable)
            seen.add(annotation["id"])
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
        if not isinstance(shape, list):
            self.problems.append(Problem(where, f"its segmentation is neither polygons nor RLE: {shape!r}"))
            return None
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
    """What `write_masks` did.

    Attributes:
        written: masks. skipped, repaired: problems of the data set. empty: objects too small or thin to cover a pixel.
    """

    written: int
    skipped: int
    repaired: int
    empty: int


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
    before = json.loads(stamp.read_text()) if stamp.is_file() else {}
    if before.get("made_from") == made_from and all(target.is_file() for target in targets):
        return Written(**before["report"])
    stamp.unlink(missing_ok=True)  # interrupted from here on, the masks are written anew next time
    for name in before.get("files", ()):
        (folder / name).unlink(missing_ok=True)  # of images that are no longer in the set
    empty = 0
    for index, target in enumerate(targets):
        bitmaps = data.bitmaps(index)
        empty += sum(not bitmap.any() for bitmap in bitmaps)
        write_index_png(target, data.mask(index, bitmaps), data.classes)
    actions = Counter(problem.action for problem in data.problems)
    report = Written(len(targets), actions["skipped"], actions["repaired"], empty)
    files = [target.relative_to(folder).as_posix() for target in targets]
    with atomic_path(stamp) as aside:
        aside.write_text(json.dumps({"made_from": made_from, "report": asdict(report), "files": files}, indent=1))
    return report


def _read_annotation_file(path: Path) -> dict:
    """Read an annotation file's JSON and check that it is COCO's."""
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}: COCO's are called annotations/instances_*.json")
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path} is empty: copy or download it again")
    try:
        content = json.loads(data.decode("utf-8-sig"))  # Windows editors put a byte order mark first
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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


IMAGE_FIELDS = {"id": int | str, "file_name": str, "height": int | float, "width": int | float}
ANNOTATION_FIELDS = {"id": int | str, "image_id": int | str, "category_id": int | str}


def _wrong_fields(entry: Any, fields: dict[str, Any]) -> str:
    """What is missing or of the wrong kind in an entry of an annotation file; empty where all is well."""
    if not isinstance(entry, dict):
        return f"no fields: it is {entry!r}"
    lacks = [key for key in fields if key not in entry]
    if lacks:
        return f"no {', '.join(lacks)}"
    wrong = [key for key, kind in fields.items() if not isinstance(entry[key], kind)]
    wrong += [key for key in ("height", "width") if key in fields and key not in wrong and not _is_side(entry[key])]
    return ", ".join(f"{key} {entry[key]!r}" for key in wrong)


def _is_side(value: float) -> bool:
    return 1 <= value < 1e6 and value == int(value)


def _wanted_categories(known: list[dict], wanted: Sequence[str | int] | None, path: Path) -> list[dict]:
    """The categories that were asked for, in that order; all, in id order, for None."""
    for category in known:
        if wrong := _wrong_fields(category, {"id": int | str, "name": str}):
            raise ValueError(f"{path}: category {category} has {wrong}")
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
    if not isinstance(rle.get("size"), list) or rle["size"] != [height, width]:
        raise ValueError(f"RLE of size {rle.get('size')} but its image is {[height, width]} (height, width)")
    rle_to_mask(rle)
