"""PASCAL VOC's development kit: images, palette PNGs of class indices, and text files that list the images of a set."""

from collections import defaultdict
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
        images_dir: the folder that they are in.
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
        self.images_dir = self.root / "JPEGImages"
        labelmap = self.root / "labelmap.txt"
        if classes is None:
            classes = list(read_class_file(labelmap)[2] or ()) if labelmap.is_file() else VOC_CLASSES
        check_classes(classes)
        self.transform = transform
        self.classes = list(classes)
        self.problems: list[Problem] = []
        list_file = self.root / "ImageSets" / "Segmentation" / f"{image_set}.txt"
        listed = _read_lines(list_file)
        for folder in ("JPEGImages", "SegmentationClass"):
            if not (self.root / folder).is_dir():
                raise FileNotFoundError(f"no folder {self.root / folder}: VOC's layout has it beside ImageSets/")
        self._files = self._find_files(listed, list_file)
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

    def _find_files(self, lines: Sequence[str], list_file: Path) -> dict[str, tuple[Path, Path]]:
        """The image and the mask of each name in the list; a missing one becomes a problem."""
        folders = [self.images_dir, self.root / "SegmentationClass"]
        files = [_files_by_stem(folder) for folder in folders]
        found = {}
        for line in lines:
            names = [line, _to_name(line)]  # what looks like quotes or a suffix may belong to the name
            name = next((name for name in names if plain_name(name) in files[0]), names[-1])
            if plain_name(name) not in files[0] and len(line.split()) > 1 and line.split()[-1] in ("-1", "0", "1"):
                raise ValueError(f"{list_file}: {line!r} is not a name; give a list with one name in each line")
            images = _files_of_name(files[0], name)
            masks = _files_of_name(files[1], name)
            masks = [path for path in masks if path.suffix.lower() == ".png"] or masks
            if len(images) == len(masks) == 1:
                found[name] = (images[0], masks[0])
            for folder, paths in zip(folders, (images, masks), strict=True):
                if len(paths) != 1:
                    what = f"has {' and '.join(path.name for path in paths)}" if paths else "is listed but has no file"
                    self.problems.append(Problem(name, f"{what} in {folder}"))
        return found

    def _read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of an image and the classes of its mask."""
        image_path, mask_path = self._files[name]
        mask = read_index_png(mask_path)
        check_values(mask, len(self.classes), mask_path)
        return read_image(image_path, mask.shape), mask


def _files_by_stem(folder: Path) -> dict[str, list[Path]]:
    """The images of a folder by plain name without suffix."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(folder):
        files[plain_name(path.stem)].append(path)
    return files


def _files_of_name(files: dict[str, list[Path]], name: str) -> list[Path]:
    """The files of exactly this name, else those whose name differs in case or in the form of accents."""
    similar = files.get(plain_name(name), [])
    return [path for path in similar if path.stem == name] or similar


def _read_lines(list_file: Path) -> list[str]:
    """The lines of the list of an image set, each once."""
    if not list_file.is_file():
        raise FileNotFoundError(f"no image set {list_file}{_hint(list_file)}")
    return list(dict.fromkeys(line.strip() for line in read_text(list_file).splitlines() if line.strip()))


def _to_name(line: str) -> str:
    """The name in a line, which may be quoted, have a suffix, or be the paths of an image and its mask."""
    line = line.strip().strip("'\"")
    fields = line.split()
    are_paths = all("/" in field or "\\" in field for field in fields)
    if len(fields) == 2 and (are_paths or all(Path(field).suffix.lower() in IMAGE_SUFFIXES for field in fields)):
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
