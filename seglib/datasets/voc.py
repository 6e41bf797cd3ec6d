"""PASCAL VOC's development kit: images, palette PNGs of class indices, and text files that list the images of a set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.base import Problem, Transform, as_sample, readable, report_problems
from seglib.files import check_choice, read_image
from seglib.masks import check_classes, check_values, read_index_png

__all__ = ["VOC_CLASSES", "VOCSegmentationDataset"]

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class VOCSegmentationDataset(Dataset[tuple[Tensor, Tensor, str]]):
    """Images with class masks in the layout of PASCAL VOC (Everingham et al., 2015).

    A mask is a palette PNG whose values, not colors, are the classes. 255 marks the border around each object and
    pixels that are hard to tell; it does not count.

    Args:
        root: the folder of one year. It holds JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/.
        image_set: the list of names to read: "train", "val" or another file of ImageSets/Segmentation/.
        transform: a deterministic change of image and mask, such as `transforms.resize`.
        classes: the class names, background first, if the data are not VOC's own.
        on_error: "raise", or "skip" to leave out names without image or mask and files that cannot be read.

    Attributes:
        classes: the class names.
        filenames: the image files in the order of the list.
        problems: what was skipped.

    Raises:
        FileNotFoundError: a folder or the list is missing; the message says which lists exist.
        ValueError: a name without image or mask; a list without names.
    """

    def __init__(
        self,
        root: str | Path,
        image_set: str = "train",
        transform: Transform | None = None,
        *,
        classes: Sequence[str] = VOC_CLASSES,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        check_classes(classes)
        self.root = Path(root)
        self.transform = transform
        self.classes = list(classes)
        self.problems: list[Problem] = []
        list_file = self.root / "ImageSets" / "Segmentation" / f"{image_set}.txt"
        listed = _read_names(list_file)
        for folder in ("JPEGImages", "SegmentationClass"):
            if not (self.root / folder).is_dir():
                raise FileNotFoundError(f"no folder {self.root / folder}: VOC's layout has it beside ImageSets/")
        self._names = [name for name in dict.fromkeys(listed) if self._has_files(name)]
        if on_error == "skip":
            self._names = readable(self._names, self._read, self.problems)
        report_problems(self.problems, on_error, str(list_file))
        if not self._names:
            raise ValueError(f"no image left of {len(listed)} in {list_file}")
        self.filenames = [f"{name}.jpg" for name in self._names]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name."""
        name = self._names[index]
        pixels, labels = self._read(name)
        image, mask = as_sample(pixels, labels, len(self.classes), self._mask_path(name), self.transform)
        return image, mask, self.filenames[index]

    def _image_path(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def _mask_path(self, name: str) -> Path:
        return self.root / "SegmentationClass" / f"{name}.png"

    def _has_files(self, name: str) -> bool:
        """Whether image and mask exist; a missing one becomes a problem."""
        missing = [path for path in (self._image_path(name), self._mask_path(name)) if not path.is_file()]
        self.problems += [Problem(name, f"is listed but has no {path}") for path in missing]
        return not missing

    def _read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of an image and the classes of its mask."""
        mask = read_index_png(self._mask_path(name))
        check_values(mask, len(self.classes), self._mask_path(name))
        return read_image(self._image_path(name), mask.shape), mask


def _read_names(list_file: Path) -> list[str]:
    """The names in the list of an image set."""
    if not list_file.is_file():
        raise FileNotFoundError(f"no image set {list_file}{_hint(list_file)}")
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{list_file} is not UTF-8 text: save it as such") from None
    names = [line.strip() for line in lines if line.strip()]
    for name in names:
        if len(name.split()) > 1 and name.split()[-1] in ("-1", "0", "1"):  # a list of ImageSets/Main
            raise ValueError(f"{list_file}: {name!r} is not a name; give a list with one name in each line")
    return names


def _hint(list_file: Path) -> str:
    """What to give in place of a missing list."""
    root = list_file.parents[2]
    below = sorted(root.glob(f"VOCdevkit/VOC*/ImageSets/Segmentation/{list_file.name}"))
    if below:
        return f": give {below[-1].parents[2]}"
    available = sorted(path.stem for path in list_file.parent.glob("*.txt"))
    return f"; available are {', '.join(available)}" if available else ": give the folder that holds JPEGImages/"
