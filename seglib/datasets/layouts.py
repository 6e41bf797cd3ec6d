"""Recognize how a folder of images and labels is laid out, and which call reads each part of it."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from seglib.datasets.coco import COCOSegmentationDataset
from seglib.datasets.coco_json import find_image, read_annotation_file
from seglib.datasets.folder import MaskFolderDataset
from seglib.datasets.voc import VOCSegmentationDataset
from seglib.datasets.yolo import YOLOSegmentationDataset, yolo_parts
from seglib.files import image_files, is_image_file, read_text, short_path
from seglib.masks import IGNORE, read_mask_values

__all__ = ["Part", "find_parts"]

_MASKS = re.compile("mask|label|annot|gt|seg|truth|instance", re.IGNORECASE)  # in the name of a folder of masks
_SPLIT = re.compile("train|val|test|dev", re.IGNORECASE)  # in the name of a folder of a part
_IMAGES = re.compile("image|img|photo|jpeg|pic|rgb", re.IGNORECASE)
_READERS = {
    "COCO": COCOSegmentationDataset,
    "YOLO": YOLOSegmentationDataset,
    "VOC": VOCSegmentationDataset,
    "masks": MaskFolderDataset,
}


@dataclass(frozen=True)
class Part:
    """A part of a data set, such as its training images.

    Attributes:
        layout: "COCO", "YOLO", "VOC" or "masks".
        name: "train", for example.
        arguments: what its reader is called with.
        settings: settings of the reader that were guessed from the files.
    """

    layout: str
    name: str
    arguments: tuple[Any, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def open(self, **settings: Any) -> Any:
        """The data set. Settings take the place of those that were guessed."""
        return _READERS[self.layout](*self.arguments, **self.merged(settings))

    def merged(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The guessed settings and those given; how values are read is either given or guessed."""
        kinds = {"values", "colors", "threshold", "instance_ids", "object_masks", "classes", "void"}
        guessed = {key: value for key, value in self.settings.items() if not (kinds & settings.keys() and key in kinds)}
        return guessed | settings

    def call(self, **settings: Any) -> str:
        """The call that reads this part, as Python."""
        arguments = [repr(short_path(each) if isinstance(each, Path) else each) for each in self.arguments]
        arguments += [f"{key}={value!r}" for key, value in self.merged(settings).items()]
        return f"{_READERS[self.layout].__name__}({', '.join(arguments)})"


def find_parts(folder: str | Path, reasons: list[str] | None = None) -> list[Part]:
    """The parts of the data set in a folder; [] if its layout is not known.

    Args:
        folder: the folder of the data set.
        reasons: takes what is wrong with files that nearly fit a layout.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    reasons = [] if reasons is None else reasons
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    for find in (_yolo, _voc, _coco, _mask_folders):
        try:
            if parts := list(find(folder, reasons)):
                return parts
        except FileNotFoundError as error:
            reasons += [str(error)] if (folder / "labels").is_dir() else []
        except (OSError, ValueError) as error:
            reasons.append(str(error))
    return []


def _yolo(folder: Path, reasons: list[str]) -> Iterator[Part]:
    for part in yolo_parts(folder):
        yield Part("YOLO", part, (folder, part))


def _voc(folder: Path, reasons: list[str]) -> Iterator[Part]:
    if (folder / "JPEGImages").is_dir() and (folder / "SegmentationClass").is_dir():
        files = sorted((folder / "ImageSets/Segmentation").glob("*.txt"))
        names = {file: set(read_text(file).split("\n")) - {""} for file in files}
        for file in files:
            within = [names[other] for other in files if names[other] < names[file]]
            if len(within) < 2 or set().union(*within) != names[file]:  # trainval is train and val once more
                yield Part("VOC", file.stem, (folder, file.stem))


def _coco(folder: Path, reasons: list[str]) -> Iterator[Part]:
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("*/*/*.json")]):
        try:
            names = [str(entry["file_name"]) for entry in read_annotation_file(file)["images"][:3]]
            part = file.stem.removeprefix("instances_") if "instances_" in file.stem else file.parent.name
            places = [file.parent, file.parent / "images", *_images_beside(file.parent.parent, part)]
            if images := next((place for place in places if place.is_dir() and _holds(place, names)), None):
                yield Part("COCO", part, (images, file))
            else:
                reasons.append(f"{file}: no folder of its images was found, such as {names[:1]}")
        except (OSError, ValueError, KeyError) as error:
            reasons.append(str(error))


def _holds(folder: Path, names: list[str]) -> bool:
    """Whether one of some images lies in a folder."""
    index: dict[str, list[Path]] = {}
    return any(find_image(folder, name, index) for name in names)


def _images_beside(folder: Path, part: str) -> list[Path]:
    return [folder / "images" / part, folder / part, folder / part / "images", folder / "images", folder]


# --------------------------------------------------------------------------------------------------- mask folders


def _mask_folders(folder: Path, reasons: list[str]) -> Iterator[Part]:
    """Pairs of folders in one folder, one of masks by its name; or a folder with images and masks side by side."""
    pairs = [pair for above in [folder, *_folders_in(folder)] for pair in _pairs_in(above)]
    if len(pairs) > 1 and all(len(_first_images(images, 2)) == 1 for images, _ in pairs):  # a folder for each image
        has_many = any(len(_first_images(masks, 2)) > 1 for _, masks in pairs)
        guessed = {"classes": ["background", "object"], "object_masks": True} if has_many else {}
        yield Part("masks", "all", (folder, folder), guessed or _guess_values([masks for _, masks in pairs]))
        return
    for images, masks in [split for pair in pairs for split in _splits(*pair)]:
        name = images.name if not _IMAGES.search(images.name) else images.parent.name if images.parent != folder else ""
        yield Part("masks", name or "all", (images, masks), _guess(folder, _first_images(images), masks))
    for above in [] if pairs else [folder, *_folders_in(folder)]:
        found = image_files(above)
        suffixes = _twins(found)
        if suffix := _common_suffix([path.stem for path in found], [path.stem for path in found]):
            suffixes = {"mask_suffix": suffix}
        if suffixes:
            guessed = _named_classes(folder) or _guess_values([above], suffixes["mask_suffix"])
            yield Part("masks", above.name, (above, above), suffixes | guessed)


def _guess(folder: Path, images: list[Path], masks: Path) -> dict[str, Any]:
    """The settings that read the masks of some images."""
    stems = [path.stem for path in images]
    found = _first_images(masks)
    if _are_of_objects(stems, found):
        return {"classes": ["background", "object"], "object_masks": True}
    suffixes = _suffixes(stems, [path.stem for path in found])
    return suffixes | (_named_classes(folder) or _guess_values([masks], suffixes.get("mask_suffix", "")))


def _splits(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """The folders train, val, ... that both hold; the folders themselves without these."""
    of_masks = {path.name.lower(): path for path in _folders_in(masks)}
    splits = [path for path in _folders_in(images) if _SPLIT.match(path.name) and path.name.lower() in of_masks]
    return [(path, of_masks[path.name.lower()]) for path in splits] or [(images, masks)]


def _folders_in(folder: Path) -> list[Path]:
    with suppress(OSError):
        return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return []


def _pairs_in(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Folders of images with the folders of their masks, such as image and label, train and trainannot."""
    folders = [path for path in _folders_in(folder) if _first_images(path)]
    images = [path for path in folders if not _MASKS.search(path.name)]
    for masks in (path for path in folders if _MASKS.search(path.name)):
        rest = _MASKS.sub("", masks.name).strip("_-s ").lower()
        named = [path for path in images if rest and path.name.lower() == rest]
        named += [path for path in images if _IMAGES.search(path.name)]
        if named or len(images) == 1:
            yield (named or images)[0], masks


def _first_images(folder: Path, count: int = 200) -> list[Path]:
    """Some images below a folder."""
    found = image_files(folder) or [path for path in sorted(folder.rglob("*")) if is_image_file(path)]
    return found[:count]


def _common_suffix(images: list[str], masks: list[str]) -> str:
    """What the names of most masks have after the name of an image; "" if they are the same."""
    known = set(images)
    if images != masks and known & set(masks):
        return ""
    ends = [mask[end:] for mask in masks for end in range(len(mask) - 1, 0, -1) if mask[:end] in known]
    best = max(Counter(ends).items(), key=lambda item: (item[1], "label" in item[0].lower()), default=("", 0))
    suffix, count = best  # of the label and the color of the same masks, the label
    return suffix if not suffix[:1].isdigit() and count > min(len(images), len(masks)) * 0.4 else ""


def _suffixes(images: list[str], masks: list[str]) -> dict[str, Any]:
    """The settings that pair most images and masks by their names; {} if names are the same."""
    if suffix := _common_suffix(images, masks):
        return {"mask_suffix": suffix}
    if set(images) & set(masks):
        return {}
    for form in (_affixes(images), ("", _affixes(images)[1])):  # masks may begin as the images do
        bare = _cut(images, *form)
        if form[0] + form[1] and (suffix := _common_suffix(bare, masks)):
            return {"image_suffix": _pattern(*form), "mask_suffix": suffix}
        of_masks = _affixes(masks)
        if set(bare) & set(_cut(masks, *of_masks)):
            return {"image_suffix": _pattern(*form), "mask_suffix": _pattern(*of_masks)}
    return {}


def _cut(names: list[str], start: str, end: str) -> list[str]:
    return [name.removeprefix(start).removesuffix(end) for name in names]


def _pattern(start: str, end: str) -> str:
    return f"{start}*{end}" if start else end


def _affixes(names: list[str]) -> tuple[str, str]:
    """What all names begin with, up to a separator, and what they end in, from a separator on."""
    start = os.path.commonprefix(names) if len(names) > 1 else ""
    end = os.path.commonprefix([name[::-1] for name in names])[::-1] if len(names) > 1 else ""
    return re.sub("[^_-]*$", "", start), re.sub("^[^_-]*", "", end)


def _twins(files: list[Path]) -> dict[str, Any]:
    """The settings that read a folder in which most names occur twice, as a JPEG photograph and another file."""
    photos = {path.stem: path.suffix for path in files if path.suffix.lower() in (".jpg", ".jpeg")}
    masks = Counter(path.suffix for path in files if path.stem in photos and path.suffix != photos[path.stem])
    suffix, count = masks.most_common(1)[0] if masks else ("", 0)
    of_photos = Counter(photos.values()).most_common(1)
    return {"image_suffix": of_photos[0][0], "mask_suffix": suffix} if count > len(photos) / 2 else {}


def _are_of_objects(images: list[str], masks: list[Path]) -> bool:
    """Whether most masks hold one of several objects: they are numbered, or in a folder named after the image."""
    if any(path.stem in images for path in masks):
        return False
    folders = Counter(path.parent.name for path in masks if path.parent.name in images)
    cuts = [(path.stem[:end], path.stem[end:]) for path in masks for end in range(1, len(path.stem))]
    numbered = Counter(name for name, rest in cuts if re.fullmatch(r"[_.-]\D*\d+", rest) and name in images)
    return any(
        sum(found.values()) > len(masks) / 2 and max(found.values(), default=0) > 1 for found in (folders, numbered)
    )


def _named_classes(folder: Path) -> dict[str, Any]:
    """The classes that a file in the folder names; {} without one."""
    for name in ("labelmap.txt", "_classes.csv"):
        for path in [folder / name, *folder.glob(f"*/{name}")]:
            if path.is_file():
                return {"colors": str(path)}
    if (folder / "classes.txt").is_file():
        return {"classes": [line.strip() for line in read_text(folder / "classes.txt").splitlines() if line.strip()]}
    return {}


def _guess_values(folders: list[Path], suffix: str = "") -> dict[str, Any]:
    """The settings that read some masks of some folders."""
    masks = []
    start, _, end = suffix.rpartition("*")
    paths = [path for folder in folders for path in _first_images(folder, 2000)]
    paths = [
        path for path in paths if path.stem.startswith(start) and (path.name if "." in end else path.stem).endswith(end)
    ]
    for path in paths[:: max(1, len(paths) // 40)]:
        with suppress(OSError, ValueError):
            masks.append(read_mask_values(path, exact=False))
    if not masks:
        return {"classes": ["background", "object"]}
    if any(mask.ndim == 3 for mask in masks):
        return _guess_colors(masks)
    values = sorted(set().union(*(np.unique(mask).tolist() for mask in masks)))
    if set(values) <= {0, IGNORE}:
        return {"classes": ["background", "object"], "values": [0, IGNORE]}
    if any(mask.dtype.kind == "f" for mask in masks) or _is_soft(values, masks):
        return {"classes": ["background", "object"], "threshold": max(values) / 2}
    if values[-1] > IGNORE or "instance" in folders[0].name.lower() or _are_ids(masks):
        return {"classes": ["background", "object"], "instance_ids": True}
    highest = max(value for value in values if value != IGNORE)
    if highest > 2 * len(values):  # grays that are easy to tell apart, such as 0, 128 and 255
        values = sorted({0, *values})
        return {"classes": ["background", *(f"class {k}" for k in range(1, len(values)))], "values": values}
    return {"classes": ["background", *(f"class {value}" for value in range(1, max(highest, 1) + 1))]}


def _guess_colors(masks: list[np.ndarray]) -> dict[str, Any]:
    colors: set[tuple[int, ...]] = set()
    for mask in masks:
        colors |= set(map(tuple, np.unique(mask.reshape(-1, 3), axis=0).tolist())) if mask.ndim == 3 else {(0, 0, 0)}
    found = sorted(colors - {(0, 0, 0)})
    return {"colors": {f"class {number}": color for number, color in enumerate(found, 1)}}


def _is_soft(values: list[int], masks: list[np.ndarray]) -> bool:
    """Whether most pixels are nearly black or white and some are between, as JPEG or resizing leaves them at edges."""
    extreme = np.mean([((mask < 20) | (mask > IGNORE - 20)).mean() for mask in masks])
    return len(values) > 16 and IGNORE - 20 < values[-1] <= IGNORE and bool(extreme > 0.9)


def _are_ids(masks: list[np.ndarray]) -> bool:
    """Whether values number objects: 1 to n without gaps, of another n in each mask, nearly all in one piece."""
    counts, pieces = set(), []
    for mask in masks:
        found = np.unique(mask[mask > 0])
        if len(found) and (len(found) > 50 or not (found == np.arange(1, len(found) + 1)).all()):
            return len(found) > 50
        counts.add(len(found))
        pieces += [ndimage.label(mask == value)[1] for value in found]
    return len(counts - {0}) > 1 and max(counts) > 2 and bool(np.mean(np.array(pieces) <= 2) > 0.9)
