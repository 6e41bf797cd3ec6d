"""What the readers share: problems found in the data, tensors handed out, a validation part held out."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from seglib.instances import Instances
from seglib.masks import check_values
from seglib.transforms import Transform

SHOWN = 10  # an error lists this many problems and counts the rest


class SegmentationData(Protocol):
    """What training and measuring take: any map-style dataset with a length, a torch `Subset` of one included.

    A sample is (image uint8 (3, H, W), mask uint8 (H, W)) or (image, mask, file name).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Problem:
    """Something broken in a data set: where it is, what it is, and what was done about it."""

    where: str  # a file, and the annotation's id where there is one
    what: str
    action: str = "skipped"  # or "repaired": a part was dropped, the rest of the object kept

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def settle(problems: list[Problem], on_error: str, what: str) -> None:
    """Raise for problems, or, where the reader was told to skip, say how many there were.

    Raises:
        ValueError: with on_error="raise", listing the first problems.
    """
    if not problems:
        return
    listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
    more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    if on_error == "raise":
        raise ValueError(
            f'{what} has {len(problems)} problem{"s" * (len(problems) > 1)} (on_error="skip" leaves out what is '
            f"broken and lists it in .problems):\n{listed}{more}"
        )
    repaired = sum(problem.action == "repaired" for problem in problems)
    skipped = len(problems) - repaired
    warnings.warn(f"{what}: skipped {skipped}, repaired {repaired} (see .problems):\n{listed}{more}", stacklevel=4)


def as_sample(
    image: np.ndarray, mask: np.ndarray, classes: int, where: str | Path, transform: Transform | None
) -> tuple[Tensor, Tensor]:
    """Transform and check a picture and its mask and hand them out as tensors.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W).
        where: the file that an error names.

    Returns:
        uint8 (3, H, W) and uint8 (H, W).

    Raises:
        ValueError: the mask holds a value that is no class, or is not of the image's size.
    """
    if image.shape[:2] != mask.shape[:2]:
        raise ValueError(
            f"{where}: the mask is {mask.shape[0]}x{mask.shape[1]} (height x width) but its image "
            f"{image.shape[0]}x{image.shape[1]}: export the mask again at the image's size"
        )
    if transform is not None:
        changed = transform(image=image, mask=mask)
        image, mask = changed["image"], changed["mask"]
    check_values(mask, classes, where)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.from_numpy(np.array(mask, np.uint8))


def file_names(data: Dataset) -> list[str] | None:
    """The file name of each sample of a data set, or of a Subset of one, where it keeps them."""
    if isinstance(data, Subset):
        names = file_names(data.dataset)
        return None if names is None else [names[index] for index in data.indices]
    return getattr(data, "filenames", None)


def class_names(data: Dataset) -> list[str] | None:
    """The class names of a data set, or of a Subset of one, where it keeps them."""
    return class_names(data.dataset) if isinstance(data, Subset) else getattr(data, "classes", None)


def unwrapped(data: Dataset) -> tuple[Dataset, list[int]]:
    """The data set that a Subset, or a Subset of one, is of, and the samples of it that it has."""
    if not isinstance(data, Subset):
        return data, list(range(len(data)))
    source, indices = unwrapped(data.dataset)
    return source, [indices[index] for index in data.indices]


def all_instances(data: Dataset) -> list[Instances]:
    """The objects of each sample of a data set with `instances`, or of a Subset of one."""
    source, indices = unwrapped(data)
    return [source.instances(index) for index in indices]


def own_transform(data: Dataset) -> Transform | None:
    """The deterministic transform of a data set, or of what a Subset is one of; None where it has none."""
    return own_transform(data.dataset) if isinstance(data, Subset) else getattr(data, "transform", None)


def hold_out(data: Dataset, fraction: float = 0.25, at_most: int = 1000) -> tuple[Subset, Subset]:
    """Split a training part in two: (training, validation), by file name and nothing else.

    The file names are ordered by their SHA-256 and the first `fraction` of them, at most `at_most`, validate. The same
    files fall on the same side in every lesson, on every machine, whichever reader read them.

    Raises:
        ValueError: fewer than two samples, or a data set without .filenames.
    """
    names = file_names(data)
    if names is None or len(names) < 2:
        raise ValueError("hold_out needs a data set of at least two samples that keeps their names in .filenames")
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(Path(names[index]).stem.encode()).digest())
    count = min(max(1, round(fraction * len(names))), at_most, len(names) - 1)
    return Subset(data, sorted(order[count:])), Subset(data, sorted(order[:count]))
