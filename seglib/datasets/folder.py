"""A folder of images beside a folder of masks: the reader for your own photographs and labels."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.base import Problem, Transform, as_sample, report_problems
from seglib.files import check_choice, image_files, read_image
from seglib.masks import IGNORE, check_classes, read_index_png


class MaskFolderDataset(Dataset):
    """Images and masks of class indices that share their names: `a.jpg` and `a.png`.

    Args:
        images_dir, masks_dir: the two folders.
        classes: names, background first; class i is mask value i, unless `values` says otherwise.
        void: mask values that mean "do not count"; they become 255, which always does.
        transform: called as transform(image=(H, W, 3), mask=(H, W)); deterministic, a resize, say.
        values: the mask value of each class, where that is not 0, 1, 2, ...: black and white masks are [0, 255].
        on_error: "raise", or "skip" to leave out images and masks without a partner and files that do not open.

    Attributes:
        classes: the names. filenames: the images' names. problems: what was skipped.

    Raises:
        ValueError: an image or a mask without its partner; nothing left to read.
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
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        check_classes(classes)
        self.images_dir, self.masks_dir = Path(images_dir), Path(masks_dir)
        self.classes, self.transform, self.on_error = list(classes), transform, on_error
        self._void = tuple(void)
        self._table = _value_table(len(self.classes), void, values)
        self.problems: list[Problem] = []
        self._pairs = self._find_pairs()
        if on_error == "skip":
            self._pairs = [pair for pair in self._pairs if self._opens(*pair)]
        report_problems(self.problems, on_error, str(self.images_dir))
        if not self._pairs:
            raise ValueError(f"no image with a mask in {self.images_dir} and {self.masks_dir}")
        self.filenames = [image.name for image, _ in self._pairs]
        if values is None:
            self._warn_of_black_and_white()

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name."""
        image_path, mask_path = self._pairs[index]
        image, mask = self._read(image_path, mask_path)
        return *as_sample(image, mask, len(self.classes), mask_path, self.transform), image_path.name

    def _warn_of_black_and_white(self) -> None:
        """Say so where the first masks look like black and white ones, all of whose white would not count."""
        seen = {value for _, mask in self._pairs[:20] for value in np.unique(read_index_png(mask)).tolist()}
        if seen == {0, IGNORE} and IGNORE not in self._void:
            warnings.warn(
                f"the first masks of {self.masks_dir} hold 0 and 255 only, and 255 does not count: if white is the "
                "object, give values=[0, 255]; if it is not, give void=(255,)",
                stacklevel=3,
            )

    def _find_pairs(self) -> list[tuple[Path, Path]]:
        images = self._by_stem(self.images_dir, "image")
        masks = self._by_stem(self.masks_dir, "mask")
        for stem, path in images.items():
            if stem not in masks:
                self.problems.append(Problem(str(path), f"has no mask {stem}.png in {self.masks_dir}"))
        for stem, path in masks.items():
            if stem not in images:
                self.problems.append(Problem(str(path), f"has no image of that name in {self.images_dir}"))
        return [(path, masks[stem]) for stem, path in images.items() if stem in masks]

    def _by_stem(self, folder: Path, kind: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in image_files(folder).values():
            if path.stem in found:
                self.problems.append(Problem(str(path), f"is a second {kind} of the name {path.stem}"))
            else:
                found[path.stem] = path
        return found

    def _read(self, image_path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray]:
        mask = read_index_png(mask_path)
        unknown = self._table[mask] < 0
        if unknown.any():
            allowed = np.flatnonzero(self._table >= 0).tolist()
            found = np.unique(mask[unknown])[:8].tolist()
            raise ValueError(
                f"{mask_path}: mask value {found} in {unknown.sum()} pixels; allowed are {allowed} "
                f"(the classes are {self.classes}; name values that do not count in void=)"
            )
        image = read_image(image_path, mask.shape)
        return image, self._table[mask].astype(np.uint8)

    def _opens(self, image_path: Path, mask_path: Path) -> bool:
        try:
            self._read(image_path, mask_path)
        except (OSError, ValueError) as error:
            self.problems.append(Problem(str(image_path), str(error)))
            return False
        return True


def _value_table(classes: int, void: Sequence[int], values: Sequence[int] | None) -> np.ndarray:
    """int (256,): the class of each mask value, 255 for those that do not count, -1 for those that must not occur."""
    values = range(classes) if values is None else values
    if not all(0 <= value <= IGNORE for value in (*values, *void)):
        raise ValueError(f"values {list(values)} and void {list(void)} must lie within 0 to {IGNORE}")
    if len(values) != classes or len({*values, *void}) != classes + len(set(void)):
        raise ValueError(
            f"values {list(values)} and void {list(void)} must hold one value for each of {classes} classes, none twice"
        )
    table = np.full(256, -1)
    table[IGNORE] = IGNORE
    table[list(values)] = range(classes)
    table[list(void)] = IGNORE
    return table
