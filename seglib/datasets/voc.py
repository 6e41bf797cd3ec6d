"""PASCAL VOC's development kit: images, palette PNGs of class indices, and text files that list the images of a set."""

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.base import ON_ERROR, Problem, Transform, as_sample, plain_name, readable, report_problems
from seglib.datasets.folder import read_class_file
from seglib.files import IMAGE_SUFFIXES, check_choice, image_files, read_image, read_text
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
        classes: the class names, background first. None: those of `labelmap.txt` in `root`, as CVAT writes it; without
            such a file, VOC's own.
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
        classes: Sequence[str] | None = None,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ON_ERROR)
        self.root = Path(root)
        labelmap = self.root / "labelmap.txt"
        if classes is None:
            classes = list(read_class_file(labelmap)[2] or ()) if labelmap.is_file() else VOC_CLASSES
        check_classes(classes)
        self.transform = transform
        self.classes = list(classes)
        self.problems: list[Problem] = []
        list_file = self.root / "ImageSets" / "Segmentation" / f"{image_set}.txt"
        listed = _read_names(list_file)
        for folder in ("JPEGImages", "SegmentationClass"):
            if not (self.root / folder).is_dir():
                raise FileNotFoundError(f"no folder {self.root / folder}: VOC's layout has it beside ImageSets/")
        self._files = self._find_files(listed)
        self._names = list(self._files)
        if on_error == "skip":
            self._names = readable(self._names, self._read, self.problems)
        report_problems(self.problems, on_error, str(list_file))
        if not self._names:
            raise ValueError(f"no image left of {len(listed)} in {list_file}")
        self.filenames = [self._files[name][0].name for name in self._names]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name."""
        name = self._names[index]
        pixels, labels = self._read(name)
        image, mask = as_sample(pixels, labels, len(self.classes), self._files[name][1], self.transform)
        return image, mask, self.filenames[index]

    def _find_files(self, names: Sequence[str]) -> dict[str, tuple[Path, Path]]:
        """The image and the mask of each name; a missing one becomes a problem."""
        folders = [self.root / "JPEGImages", self.root / "SegmentationClass"]
        files = [_files_by_stem(folder) for folder in folders]
        found = {}
        for name in dict.fromkeys(names):
            image, mask = (by_stem.get(plain_name(name)) for by_stem in files)
            if image and mask:
                found[name] = (image, mask)
            for folder, path in zip(folders, (image, mask), strict=True):
                if not path:
                    self.problems.append(Problem(name, f"is listed but has no file in {folder}"))
        return found

    def _read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of an image and the classes of its mask."""
        image_path, mask_path = self._files[name]
        mask = read_index_png(mask_path)
        check_values(mask, len(self.classes), mask_path)
        return read_image(image_path, mask.shape), mask


def _files_by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder by plain name without suffix."""
    return {plain_name(path.stem): path for path in image_files(folder)}


def _read_names(list_file: Path) -> list[str]:
    """The names in the list of an image set."""
    if not list_file.is_file():
        raise FileNotFoundError(f"no image set {list_file}{_hint(list_file)}")
    names = [_to_name(line) for line in read_text(list_file).splitlines() if line.strip()]
    for name in names:
        if len(name.split()) > 1 and name.split()[-1] in ("-1", "0", "1"):  # a list of ImageSets/Main
            raise ValueError(f"{list_file}: {name!r} is not a name; give a list with one name in each line")
    return names


def _to_name(line: str) -> str:
    """The name in a line, which may be quoted, have a suffix, or be the paths of an image and its mask."""
    line = line.strip().strip("'\"")
    fields = line.split()
    if len(fields) == 2 and all("/" in field or "\\" in field for field in fields):
        line = fields[0]
    name = PureWindowsPath(line).name  # takes slashes and backslashes
    return Path(name).stem if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def _hint(list_file: Path) -> str:
    """What to give in place of a missing list."""
    root = list_file.parents[2]
    below = sorted(root.glob(f"VOCdevkit/VOC*/ImageSets/Segmentation/{list_file.name}"))
    if below:
        return f": give {below[-1].parents[2]}"
    available = sorted(path.stem for path in list_file.parent.glob("*.txt"))
    return f"; available are {', '.join(available)}" if available else ": give the folder that holds JPEGImages/"
