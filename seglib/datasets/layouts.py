"""Recognize how a folder of images and labels is laid out, and which call reads each part of it."""

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
        for file in sorted((folder / "ImageSets/Segmentation").glob("*.txt")):
            yield Part("VOC", file.stem, (folder, file.stem))


def _coco(folder: Path, reasons: list[str]) -> Iterator[Part]:
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("*/*/*.json")]):
        try:
            names = [entry["file_name"] for entry in read_annotation_file(file)["images"][:3]]
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
    for images, masks in pairs:
        stems = [path.stem for path in _first_images(images)], [path.stem for path in _first_images(masks)]
        suffix = _common_suffix(*stems)
        settings = {"mask_suffix": suffix} if suffix else {}
        name = images.name if not _IMAGES.search(images.name) else images.parent.name if images.parent != folder else ""
        guessed = _named_classes(folder) or _guess_values(masks, suffix)
        yield Part("masks", name or "all", (images, masks), settings | guessed)
    for above in [] if pairs else [folder, *_folders_in(folder)]:
        stems_here = [path.stem for path in image_files(above)]
        if suffix := _common_suffix(stems_here, stems_here):
            guessed = _named_classes(folder) or _guess_values(above, suffix)
            yield Part("masks", above.name, (above, above), {"mask_suffix": suffix} | guessed)


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
    suffix, count = Counter(ends).most_common(1)[0] if ends else ("", 0)
    return suffix if not suffix[:1].isdigit() and count > min(len(images), len(masks)) * 0.4 else ""


def _named_classes(folder: Path) -> dict[str, Any]:
    """The classes that a file in the folder names; {} without one."""
    for name in ("labelmap.txt", "_classes.csv"):
        for path in [folder / name, *folder.glob(f"*/{name}")]:
            if path.is_file():
                return {"colors": str(path)}
    if (folder / "classes.txt").is_file():
        return {"classes": [line.strip() for line in read_text(folder / "classes.txt").splitlines() if line.strip()]}
    return {}


def _guess_values(folder: Path, suffix: str) -> dict[str, Any]:
    """The settings that read some masks of a folder."""
    masks = []
    paths = [path for path in _first_images(folder, 2000) if path.stem.endswith(suffix)]
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
    if values[-1] > IGNORE or "instance" in folder.name.lower() or _are_ids(masks):
        return {"classes": ["background", "object"], "instance_ids": True}
    highest = max(value for value in values if value != IGNORE)
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
