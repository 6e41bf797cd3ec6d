"""What all readers share: problems found in the data, samples as tensors, Subsets, splits."""

import csv
import hashlib
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from seglib.files import is_image_file
from seglib.instances import Instances
from seglib.masks import check_values

__all__ = [
    "ON_ERROR",
    "Problem",
    "SegmentationData",
    "Transform",
    "all_instances",
    "as_sample",
    "files_by_name",
    "get_class_names",
    "get_filenames",
    "get_transform",
    "hold_out",
    "plain_name",
    "read_groups",
    "readable",
    "report_problems",
    "split_by_group",
    "unwrap_subset",
]

_T = TypeVar("_T")
ON_ERROR = ("raise", "skip", "list")  # what readers do about problems; "list": only add them to `problems`, for `check`
_NUCLEI_GROUPS = Path(__file__).with_name("nuclei_groups.csv")  # how it was made: data/README.md


class Transform(Protocol):
    """A function that changes an image uint8 (H, W, 3) and its mask uint8 (H, W): `transforms.resize`, for example."""

    def __call__(self, *, image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]: ...


class SegmentationData(Protocol):
    """A data set or Subset of pairs (image uint8 (3, H, W), mask uint8 (H, W)) or triples with the file name."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Problem:
    """A broken entry of a data set: where it is, what is wrong, and what was done.

    It was "skipped", or "repaired" by leaving out a part, or "corrected" without doubt about what was meant.
    """

    where: str
    what: str
    action: str = "skipped"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def plain_name(name: str) -> str:
    """A name without differences in the case of letters and in the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def files_by_name(folder: Path) -> dict[str, list[Path]]:
    """The image files below a folder by their plain path relative to it, and by their plain name."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if is_image_file(path) and "/." not in f"/{name}":
            for key in {plain_name(name), plain_name(path.name)}:
                files[key].append(path)
    return files


def report_problems(problems: list[Problem], on_error: str, source: str) -> None:
    """Raise a ValueError that lists the first problems of `source`, or warn of them if `on_error` is "skip".

    Of entries that were only "corrected", it warns in either case.
    """
    if not problems or on_error == "list":
        return
    broken = [problem for problem in problems if problem.action != "corrected"]
    if broken and on_error == "raise":
        count = len(broken)
        raise ValueError(
            f"{source} has {count} problem{'s' if count > 1 else ''}. Repair the data, or pass "
            f'on_error="skip" to leave out what is broken (.problems then lists it):\n{_listed(broken)}'
        )
    counts = Counter(problem.action for problem in problems)
    corrected = f", corrected {counts['corrected']}" if counts["corrected"] else ""
    done = f"skipped {counts['skipped']}, repaired {counts['repaired']}{corrected}"
    warnings.warn(f"{source}: {done} (listed in .problems):\n{_listed(problems)}", stacklevel=3)


def _listed(problems: list[Problem]) -> str:
    more = [f"... and {len(problems) - 10} more"] if len(problems) > 10 else []
    return "\n".join(f"  {line}" for line in [*problems[:10], *more])


def readable(
    items: Iterable[_T], read: Callable[[_T], object], problems: list[Problem], where: Callable[[_T], str] = str
) -> list[_T]:
    """The items that `read` accepts; an OSError or ValueError becomes a problem at `where(item)`."""
    kept = []
    for item in items:
        try:
            read(item)
            kept.append(item)
        except (OSError, ValueError) as error:
            problems.append(Problem(where(item), str(error)))
    return kept


def as_sample(
    image: np.ndarray, mask: np.ndarray, classes: int, where: str | Path, transform: Transform | None
) -> tuple[Tensor, Tensor]:
    """Transform an image and its mask, check the mask, and return both as tensors: uint8 (3, H, W) and uint8 (H, W).

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W), whose values are below `classes`, or 255.
        classes: the number of classes, background included.
        where: the file that an error message names.
    """
    if transform is not None:
        transformed = transform(image=image, mask=mask)
        image = transformed["image"]
        mask = transformed["mask"]
    check_values(mask, classes, where)
    channels_first = np.ascontiguousarray(image.transpose(2, 0, 1))
    return torch.from_numpy(channels_first), torch.from_numpy(np.array(mask, np.uint8))


def unwrap_subset(data: SegmentationData) -> tuple[SegmentationData, list[int]]:
    """The data set behind a Subset, however deeply nested, and the indices of its samples that the Subset holds."""
    if not isinstance(data, Subset):
        return data, list(range(len(data)))
    source, indices = unwrap_subset(data.dataset)  # type: ignore[arg-type]  # torch's Dataset declares no __len__
    return source, [indices[index] for index in data.indices]


def get_filenames(data: SegmentationData) -> list[str] | None:
    """The file name of each sample of a data set or Subset; None if the data set has no `filenames`."""
    source, indices = unwrap_subset(data)
    names = getattr(source, "filenames", None)
    return None if names is None else [names[index] for index in indices]


def get_class_names(data: SegmentationData) -> list[str] | None:
    """The class names of a data set or Subset; None if the data set has no `classes`."""
    return getattr(unwrap_subset(data)[0], "classes", None)


def get_transform(data: SegmentationData) -> Transform | None:
    """The transform of a data set or Subset; None if it has none."""
    return getattr(unwrap_subset(data)[0], "transform", None)


def all_instances(data: SegmentationData) -> list[Instances]:
    """The objects of each sample of a data set or Subset that has a method `instances(index)`."""
    source, indices = unwrap_subset(data)
    if not hasattr(source, "instances"):
        raise TypeError(f"{type(source).__name__} has no method instances; those of COCO, YOLO and mask folders do")
    return [source.instances(index) for index in indices]


def hold_out(data: SegmentationData, fraction: float = 0.25, at_most: int = 1000) -> tuple[Subset, Subset]:
    """Split a data set into a training and a validation Subset by the hash of each file name.

    A file falls on the same side on every machine, whichever reader is used.

    Args:
        fraction: the share of samples for validation, above 0 and below 1.
        at_most: the largest number of samples for validation.

    Raises:
        ValueError: another fraction, fewer than two samples, or a data set without `filenames`.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is the share for validation, above 0 and below 1, not {fraction}")
    names = get_filenames(data)
    if names is None or len(names) < 2:
        raise ValueError("hold_out needs a data set with at least two samples and their names in .filenames")
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(Path(names[index]).stem.encode()).digest())
    count = min(max(1, round(fraction * len(names))), at_most, len(names) - 1)
    dataset = cast("Dataset[Any]", data)  # Subset asks for torch's class, but takes whatever has an index
    return Subset(dataset, sorted(order[count:])), Subset(dataset, sorted(order[:count]))


def read_groups(root: str | Path) -> dict[str, str]:
    """The group of each image of a data set: the images of a group are parts of one picture, video or patient.

    Args:
        root: the folder of the data set. Its file `groups.csv` has the columns "image" (the name without suffix) and
            "group". Without that file, the result is the library's list of the nuclei (`dsb2018`), which has each image
            under its full name and under the first 16 characters of it.
    """
    own = Path(root) / "groups.csv"
    with (own if own.is_file() else _NUCLEI_GROUPS).open(newline="", encoding="utf-8") as file:
        groups = {row["image"]: row["group"] for row in csv.DictReader(file)}
    return groups if own.is_file() else groups | {name[:16]: group for name, group in groups.items()}


def split_by_group(data: SegmentationData, groups: Mapping[str, str]) -> tuple[Subset, Subset, Subset]:
    """Split a data set into 60 % for training, 20 % for validation and 20 % for testing; no group is in two parts.

    The groups are sorted by size, the largest first, then by hash. Of five in a row, the third is for validation, the
    fifth for testing. Absent images take part, so that an image is in the same part whichever others are present.

    Args:
        groups: the group of each image by file name without suffix, see `read_groups`.

    Raises:
        ValueError: an image is not listed, or the data set has no `filenames`.
    """
    stems = [Path(name).stem for name in get_filenames(data) or []]
    unlisted = [stem for stem in stems if stem not in groups]
    if unlisted or not stems:
        raise ValueError(f"{len(unlisted)} of {len(stems)} images have no group: {unlisted[:3]}")
    sizes = Counter(groups.values())
    order = sorted(sizes, key=lambda group: (-sizes[group], hashlib.sha256(group.encode()).digest()))
    part = {group: {2: 1, 4: 2}.get(place % 5, 0) for place, group in enumerate(order)}
    dataset = cast("Dataset[Any]", data)  # as in `hold_out`
    train, val, test = (
        Subset(dataset, [index for index, stem in enumerate(stems) if part[groups[stem]] == number])
        for number in range(3)
    )
    return train, val, test
