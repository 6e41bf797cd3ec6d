"""A folder of images and a folder of masks: the reader for your own data."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.base import Problem, Transform, as_sample, readable, report_problems
from seglib.files import check_choice, image_files, read_image
from seglib.instances import Instances
from seglib.masks import IGNORE, check_classes, mask_to_rle, read_id_png, read_index_png

__all__ = ["MaskFolderDataset"]


class MaskFolderDataset(Dataset[tuple[Tensor, Tensor, str]]):
    """Images and masks of class indices with the same names, such as `a.jpg` and `a.png`.

    Args:
        images_dir: the folder of images.
        masks_dir: the folder of masks.
        classes: the class names, background first. Class i is mask value i unless `values` is given.
        void: mask values that mean "do not count". They become 255, which never counts.
        transform: a deterministic change of image and mask, such as `transforms.resize`.
        values: the mask value of each class: [0, 255] for black and white masks.
        instance_ids: the masks number the objects of one class, in 8 or 16 bits: 0 is background, any other value that
            is not in `void` is an object of class 1. 255 is an object like the others.
        on_error: "raise", or "skip" to leave out images without mask, masks without image and files that cannot be
            read.

    Attributes:
        classes: the class names.
        filenames: the names of the image files.
        problems: what was skipped.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: an image without mask or a mask without image; no image at all; settings that contradict each other.
    """

    def __init__(
        self,
        images_dir: str | Path,
        masks_dir: str | Path,
        classes: Sequence[str],
        void: Sequence[int] = (),
        transform: Transform | None = None,
        *,
        values: Sequence[int] | None = None,
        instance_ids: bool = False,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        check_classes(classes)
        if instance_ids and (len(classes) != 2 or values is not None):
            raise ValueError(f"masks of instance ids have two classes and no values=, not {list(classes)} and {values}")
        self.images_dir = Path(images_dir)
        self.masks_dir = Path(masks_dir)
        self.classes = list(classes)
        self.transform = transform
        self.problems: list[Problem] = []
        self._void_ids = list(void) if instance_ids else None  # None: the masks hold classes
        self._class_of_value = _class_table(len(classes), () if instance_ids else void, values)
        self._pairs = self._find_pairs()
        if on_error == "skip":
            self._pairs = readable(self._pairs, self._read, self.problems, lambda pair: str(pair[0]))
        report_problems(self.problems, on_error, str(self.images_dir))
        if not self._pairs:
            raise ValueError(f"no image with a mask in {self.images_dir} and {self.masks_dir}")
        self.filenames = [image_path.name for image_path, _ in self._pairs]
        if values is None and IGNORE not in void and not instance_ids:
            self._warn_if_black_and_white()

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name."""
        image_path, mask_path = self._pairs[index]
        pixels, labels = self._read(self._pairs[index])
        image, mask = as_sample(pixels, labels, len(self.classes), mask_path, self.transform)
        return image, mask, image_path.name

    def instances(self, index: int) -> Instances:
        """The objects of an image at its own size, by ascending id; TypeError unless the masks hold instance ids."""
        if self._void_ids is None:
            raise TypeError(f"the masks of {self.masks_dir} are read as classes; pass instance_ids=True for objects")
        ids = read_id_png(self._pairs[index][1])
        numbers = np.setdiff1d(ids, [0, *self._void_ids])
        return Instances(ids.shape, [mask_to_rle(ids == number) for number in numbers], np.ones(len(numbers)))

    def _warn_if_black_and_white(self) -> None:
        """Warn if the first masks hold 0 and 255 only, so that none of their white pixels would count."""
        first = [read_index_png(mask_path) for _, mask_path in self._pairs[:20]]
        if {value for mask in first for value in np.unique(mask).tolist()} == {0, IGNORE}:
            warnings.warn(
                f"the first masks of {self.masks_dir} hold only 0 and 255, and 255 does not count. Pass "
                "values=[0, 255] if white is the object, void=(255,) if it is not.",
                stacklevel=3,
            )

    def _find_pairs(self) -> list[tuple[Path, Path]]:
        """The paths of images and masks of the same name; the others become problems."""
        images = self._files_by_stem(self.images_dir, "image")
        masks = self._files_by_stem(self.masks_dir, "mask")
        for files, others, kind in ((images, masks, "mask"), (masks, images, "image")):
            missing = [path for stem, path in files.items() if stem not in others]
            self.problems += [Problem(str(path), f"has no {kind} of the same name") for path in missing]
        return [(path, masks[stem]) for stem, path in images.items() if stem in masks]

    def _files_by_stem(self, folder: Path, kind: str) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for path in image_files(folder):
            if path.stem in files:
                self.problems.append(Problem(str(path), f"is a second {kind} with the name {path.stem}"))
            else:
                files[path.stem] = path
        return files

    def _read(self, pair: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of an image and the classes of its mask."""
        image_path, mask_path = pair
        if self._void_ids is not None:
            ids = read_id_png(mask_path)
            classes = np.where(np.isin(ids, self._void_ids), IGNORE, ids > 0)
            return read_image(image_path, ids.shape), classes.astype(np.uint8)
        values = read_index_png(mask_path)
        mask = self._class_of_value[values]
        unknown = values[mask < 0]
        if unknown.size:
            allowed = np.flatnonzero(self._class_of_value >= 0).tolist()
            raise ValueError(
                f"{mask_path}: mask value {np.unique(unknown)[:8].tolist()} in {unknown.size} pixels; allowed are "
                f"{allowed}. The classes are {self.classes}; list values that do not count in void=. If the values "
                "number the objects, pass instance_ids=True."
            )
        return read_image(image_path, values.shape), mask.astype(np.uint8)


def _class_table(classes: int, void: Sequence[int], values: Sequence[int] | None) -> np.ndarray:
    """int (256,): the class of each mask value; 255 if it does not count, -1 if it is not allowed."""
    values = range(classes) if values is None else values
    is_one_for_each = len(values) == classes and len({*values, *void}) == classes + len(set(void))
    if not is_one_for_each or not all(0 <= value <= IGNORE for value in (*values, *void)):
        raise ValueError(
            f"values must hold one value from 0 to {IGNORE} for each of {classes} classes, without repetition and none "
            f"of void {list(void)}, not {list(values)}"
        )
    table = np.full(256, -1)
    table[IGNORE] = IGNORE
    table[list(values)] = range(classes)
    table[list(void)] = IGNORE
    return table
