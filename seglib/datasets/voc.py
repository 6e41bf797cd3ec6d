"""PASCAL VOC's devkit, read as it lies on disk: palette masks, lists of names, 255 between the objects."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.base import Problem, Transform, as_sample, report_problems
from seglib.files import check_choice, read_image
from seglib.masks import check_classes, check_values, read_index_png

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class VOCSegmentationDataset(Dataset):
    """Photographs with class masks in the layout of VOC's devkit (Everingham et al., 2015).

    Args:
        root: the folder of one year, which holds JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/.
        image_set: which list of names to read: "train", "val", or any other that lies in ImageSets/Segmentation/.
        transform: called as transform(image=(H, W, 3), mask=(H, W)); deterministic, a resize, say.
        classes: names, background first, for data of your own in this layout.
        on_error: "raise", or "skip" to leave out names without a photograph or mask, and files that do not open.

    A mask is a palette PNG whose values, not colours, are the classes; 255, the border round each object and what was
    too hard to tell, does not count.

    Attributes:
        classes: the names. filenames: of the photographs, in the list's order. problems: what was skipped.

    Raises:
        FileNotFoundError: no such folder or list; says which there are.
        ValueError: a name without photograph or mask; a list that is empty, or no list of names.
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
        self.root, self.image_set, self.transform = Path(root), image_set, transform
        self.classes = list(classes)
        self.problems: list[Problem] = []
        names = read_names(self.root, image_set)
        for folder in ("JPEGImages", "SegmentationClass"):
            if not (self.root / folder).is_dir():
                raise FileNotFoundError(f"no folder {self.root / folder}: VOC's layout has one beside ImageSets/")
        self._names = [name for name in dict.fromkeys(names) if self._is_whole(name, opened=on_error == "skip")]
        report_problems(self.problems, on_error, str(list_file(self.root, image_set)))
        if not self._names:
            raise ValueError(f"no image is left of {len(names)} in {list_file(self.root, image_set)}")
        self.filenames = [self._image(name).name for name in self._names]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name."""
        name = self._names[index]
        mask = read_index_png(self._mask(name))
        image = read_image(self._image(name), mask.shape)
        return *as_sample(image, mask, len(self.classes), self._mask(name), self.transform), self.filenames[index]

    def _image(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def _mask(self, name: str) -> Path:
        return self.root / "SegmentationClass" / f"{name}.png"

    def _is_whole(self, name: str, opened: bool) -> bool:
        """Whether a name has both its files, and, if they are to be opened, both open; notes what is wrong."""
        missing = [path for path in (self._image(name), self._mask(name)) if not path.is_file()]
        self.problems += [Problem(name, f"is listed in {self.image_set}.txt but has no {path}") for path in missing]
        if missing or not opened:
            return not missing
        try:
            mask = read_index_png(self._mask(name))
            check_values(mask, len(self.classes), self._mask(name))
            read_image(self._image(name), mask.shape)
        except (OSError, ValueError) as error:
            self.problems.append(Problem(name, str(error)))
            return False
        return True


def list_file(root: Path, image_set: str) -> Path:
    """Where the names of an image set stand."""
    return root / "ImageSets" / "Segmentation" / f"{image_set}.txt"


def read_names(root: Path, image_set: str) -> list[str]:
    """The image names of an image set, as they are listed.

    Raises:
        FileNotFoundError: no such list; says which there are, or in which folder below there are some.
        ValueError: a line that is no name.
    """
    path = list_file(root, image_set)
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob("*.txt"))
        below = [folder for folder in sorted(root.glob("VOCdevkit/VOC*")) if list_file(folder, image_set).is_file()]
        hint = f"; there are {', '.join(there)}" if there else ": give the folder that holds JPEGImages/ and ImageSets/"
        raise FileNotFoundError(f"no image set {path}{f': give {below[-1]}' if below else hint}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8: save it as such") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [
        name for name in names if len(name.split()) > 1 or set(name) & set("/\\") or name.endswith((".jpg", ".png"))
    ]
    if wrong:
        raise ValueError(
            f"{path}: {wrong[0]!r} is no name of an image: a line holds one name, without folder or ending"
        )
    return names
