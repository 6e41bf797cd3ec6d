"""What all readers share: problems found in the data, samples as tensors, Subsets, a held-out validation split."""

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from seglib.instances import Instances
from seglib.masks import check_values

__all__ = [
    "Problem",
    "SegmentationData",
    "Transform",
    "all_instances",
    "as_sample",
    "get_class_names",
    "get_filenames",
    "get_transform",
    "hold_out",
    "readable",
    "report_problems",
    "unwrap_subset",
]

_MAX_LISTED = 10  # an error message lists this many problems and counts the rest
_Item = TypeVar("_Item")


class Transform(Protocol):
    """A function that changes an image uint8 (H, W, 3) and its mask uint8 (H, W): `transforms.resize`, for example."""

    def __call__(self, *, image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]: ...


class SegmentationData(Protocol):
    """A map-style dataset with a length; torch's `Subset` is one.

    A sample is (image uint8 (3, H, W), mask uint8 (H, W)) or (image, mask, file name).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Problem:
    """One broken entry of a data set.

    Attributes:
        where: the file, and the id of the annotation or the number of the line.
        what: what is wrong.
        action: "skipped", or "repaired" if only a part of the object was dropped.
    """

    where: str
    what: str
    action: str = "skipped"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def report_problems(problems: list[Problem], on_error: str, source: str) -> None:
    """Raise a ValueError that lists the problems of `source`, or warn of them if `on_error` is "skip"."""
    if not problems:
        return
    listed = "\n".join(f"  {problem}" for problem in problems[:_MAX_LISTED])
    if len(problems) > _MAX_LISTED:
        listed += f"\n  ... and {len(problems) - _MAX_LISTED} more"
    if on_error == "raise":
        raise ValueError(
            f"{source} has {len(problems)} problem{'s' if len(problems) > 1 else ''}. Repair the data, or pass "
            f'on_error="skip" to leave out what is broken (.problems then lists it):\n{listed}'
        )
    repaired = sum(problem.action == "repaired" for problem in problems)
    skipped = len(problems) - repaired
    warnings.warn(f"{source}: skipped {skipped}, repaired {repaired} (listed in .problems):\n{listed}", stacklevel=3)


def readable(
    items: Iterable[_Item],
    read: Callable[[_Item], object],
    problems: list[Problem],
    where: Callable[[_Item], str] = str,
) -> list[_Item]:
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
    """Transform an image and its mask, check the mask and return both as tensors.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W).
        classes: the number of classes, background included.
        where: the file that an error message names.

    Returns:
        Image uint8 (3, H, W) and mask uint8 (H, W).

    Raises:
        ValueError: the mask has a value that is not a class.
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
    """The objects of each sample of a data set or Subset.

    Raises:
        TypeError: the data set has no `instances` method.
    """
    source, indices = unwrap_subset(data)
    instances = getattr(source, "instances", None)
    if instances is None:
        raise TypeError(
            f"{type(source).__name__} has no method instances(index); the readers of COCO and YOLO have one"
        )
    return [instances(index) for index in indices]


def hold_out(data: SegmentationData, fraction: float = 0.25, at_most: int = 1000) -> tuple[Subset, Subset]:
    """Split a data set into a training and a validation Subset by the hash of each file name.

    A file falls on the same side on every machine, whichever reader is used.

    Args:
        fraction: the share of samples for validation.
        at_most: the largest number of samples for validation.

    Raises:
        ValueError: fewer than two samples, or a data set without `filenames`.
    """
    names = get_filenames(data)
    if names is None or len(names) < 2:
        raise ValueError("hold_out needs a data set with at least two samples and their names in .filenames")
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(Path(names[index]).stem.encode()).digest())
    count = min(max(1, round(fraction * len(names))), at_most, len(names) - 1)
    dataset = cast("Dataset[Any]", data)  # Subset asks for torch's class, but takes whatever has an index
    return Subset(dataset, sorted(order[count:])), Subset(dataset, sorted(order[:count]))
