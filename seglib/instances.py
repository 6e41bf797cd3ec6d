"""The objects of one image: a mask and a class for each, and a score if a model has detected it.

Masks are kept as COCO's run lengths, because a bitmap for each object of a few hundred aerial images would fill the
memory. Ground truth and predictions have the same form, whichever data set or model they come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike
from pycocotools import mask as coco_mask

from seglib.files import check_choice
from seglib.masks import IGNORE, RLE, mask_to_rle, polygons_to_rle, rle_to_mask, rle_to_runs

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Instances", "as_instances"]

_Mask = ArrayLike | Mapping[str, Any]  # a bitmap, an RLE, or a list of polygons


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects of one image.

    Attributes:
        size: (height, width) of the image in pixels.
        rles: the mask of each object, as COCO's compressed RLE.
        labels: int (N,), the class of each object; 0 is background, so the first class is 1.
        scores: float (N,), the confidence of a model in each object; None for ground truth.
        crowd: bool (N,), True for a group of objects, which counts neither for nor against a prediction.

    Raises:
        ValueError: there is not one label, score and crowd for each mask of the size of the image, or a label is below
            1, or a score is not finite.
    """

    size: tuple[int, int]
    rles: list[RLE]
    labels: np.ndarray
    scores: np.ndarray | None = None
    crowd: np.ndarray = cast(np.ndarray, None)  # an array in every instance, see __post_init__

    def __post_init__(self) -> None:
        if self.crowd is None:
            object.__setattr__(self, "crowd", np.zeros(len(self)))
        for name, kind in (("labels", int), ("scores", float), ("crowd", bool)):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _to_numbers(values, len(self), name, kind))
        if (self.labels < 1).any():
            raise ValueError(f"label {self.labels.min()}: classes count from 1, as 0 is background")
        if self.scores is not None and not np.isfinite(self.scores).all():
            raise ValueError("a score is not a finite number")
        for rle in self.rles:
            if tuple(rle["size"]) != tuple(self.size):
                raise ValueError(f"a mask of {tuple(rle['size'])} in an image of {tuple(self.size)} (height, width)")

    @classmethod
    def of(
        cls,
        masks: Tensor | np.ndarray | Sequence[_Mask],
        labels: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        crowd: ArrayLike | None = None,
        size: tuple[int, int] | None = None,
    ) -> Instances:
        """Make the instances of an image from masks of any kind.

        Args:
            masks: (N, H, W) array or tensor of True and False (or 1 and 0); or a list in which each object is such an
                (H, W) array, COCO's RLE, or a list of polygons [x1, y1, x2, y2, ...] in pixels.
            labels: int (N,), from 1 on; None: all are 1.
            scores: float (N,); None for ground truth.
            crowd: bool (N,); None: no object is a crowd.
            size: (height, width) in pixels; needed if there are no masks, or only polygons.

        Raises:
            ValueError: see `Instances`; or `masks` is not of these kinds.
        """
        size = size or _size_of(masks)
        if size is None:
            raise ValueError("masks are (N, H, W); if there are none, or only polygons, give size=(height, width)")
        height, width = int(size[0]), int(size[1])
        rles = [_to_rle(mask, height, width) for mask in masks]
        numbers: Any = [1] * len(rles) if labels is None else labels
        return cls((height, width), rles, numbers, cast(Any, scores), cast(Any, crowd))

    def __len__(self) -> int:
        return len(self.rles)

    def __repr__(self) -> str:
        scores = "no scores" if self.scores is None else f"scores to {self.scores.max(initial=0):.2f}"
        return f"Instances({len(self)} objects of {self.size[0]}x{self.size[1]} (height x width), {scores})"

    @property
    def masks(self) -> np.ndarray:
        """The bitmaps, bool (N, H, W)."""
        return np.array([rle_to_mask(rle) for rle in self.rles], dtype=bool).reshape(len(self), *self.size)

    @property
    def areas(self) -> np.ndarray:
        """The number of pixels of each mask, int (N,)."""
        return np.array([coco_mask.area(rle) for rle in self.rles], dtype=int)  # it fails for a list of more than 255

    @property
    def boxes(self) -> np.ndarray:
        """The box of each mask in pixels, float (N, 4): left, top, right, bottom; right and bottom are exclusive."""
        boxes = np.array(coco_mask.toBbox(self.rles) if self.rles else [], dtype=float).reshape(-1, 4)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    def pick(self, index: Tensor | np.ndarray | Sequence[int] | slice) -> Instances:
        """The objects that an index selects: whole numbers, bool (N,), or a slice."""
        order = np.atleast_1d(np.arange(len(self))[cast(Any, index)])  # a tensor of one element counts as a scalar
        scores = None if self.scores is None else self.scores[order]
        return Instances(self.size, [self.rles[i] for i in order], self.labels[order], scores, self.crowd[order])

    def above(self, score: float) -> Instances:
        """The predicted objects that have at least this score."""
        if self.scores is None:
            raise ValueError("these objects have no scores: they are ground truth, not predictions")
        return self.pick(self.scores >= score)

    def numbered(self) -> np.ndarray:
        """A map of the objects, int (H, W): 0 is background, 1 the first object; where two overlap, the smaller."""
        return self._paint(np.argsort(-self.areas, kind="stable"), np.arange(1, len(self) + 1, dtype=np.int32))

    def semantic(self, overlap: str = "smallest") -> np.ndarray:
        """The class mask: uint8 (H, W). The object that is painted last is the one that is seen.

        Args:
            overlap: "smallest": the smaller of two objects covers the larger, and of two equally large ones that of the
                higher class; "maximum": the object of the higher class covers the other. A crowd, 255, is below all.

        Raises:
            ValueError: another `overlap`, or a label above 254.
        """
        check_choice("overlap", overlap, ("smallest", "maximum"))
        if self.labels.max(initial=0) >= IGNORE:
            raise ValueError(f"label {self.labels.max()}: a class mask holds classes up to {IGNORE - 1}")
        area = self.areas if overlap == "smallest" else np.zeros(len(self))
        order = np.lexsort((self.labels, -area, ~self.crowd))
        return self._paint(order, np.where(self.crowd, IGNORE, self.labels).astype(np.uint8))

    def _paint(self, order: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Paint one object after the other, each in its value: (H, W), of the type of `values`."""
        height, width = self.size
        canvas = np.zeros((width, height), dtype=values.dtype)  # column by column, as run lengths count
        pixels = canvas.reshape(-1)
        for index in order:
            ends = rle_to_runs(self.rles[index]).cumsum().tolist()
            for start, end in zip(ends[0::2], ends[1::2], strict=False):
                pixels[start:end] = values[index]
        return np.ascontiguousarray(canvas.T)


def as_instances(objects: Instances | Mapping[str, Any], size: tuple[int, int] | None = None) -> Instances:
    """Convert the objects of an image, as other libraries describe them, to `Instances`.

    Args:
        objects: a mapping with "masks" and optionally "labels", "scores", "crowd" (or "iscrowd") and "size".
        size: (height, width) of the image, if neither the masks nor the mapping have it.

    Raises:
        TypeError: `objects` is of another type.
        ValueError: the mapping has a key that is not known.
    """
    if isinstance(objects, Instances):
        return objects
    if not isinstance(objects, Mapping) or "masks" not in objects:
        raise TypeError(f'the objects of an image are Instances, or a mapping with "masks", not {type(objects)}')
    unknown = set(objects) - {"masks", "labels", "scores", "crowd", "iscrowd", "size", "boxes", "area", "image_id"}
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}: labels, scores, crowd (or iscrowd) and size are read")
    size = objects.get("size") or _size_of(objects["masks"]) or size
    crowd = objects.get("crowd", objects.get("iscrowd"))
    return Instances.of(objects["masks"], objects.get("labels"), objects.get("scores"), crowd, size)


def _to_rle(mask: Any, height: int, width: int) -> RLE:
    """The compressed RLE of a mask: a bitmap (H, W), an RLE, compressed or not, or a list of polygons."""
    if isinstance(mask, Mapping):
        return mask_to_rle(rle_to_mask(dict(mask)))  # decoded, which checks it
    if isinstance(mask, Sequence) and (not len(mask) or isinstance(mask[0], Sequence) or np.ndim(mask[0]) == 1):
        return polygons_to_rle(mask, height, width)
    bitmap = _to_numpy(mask)
    if bitmap.shape != (height, width):
        raise ValueError(f"a mask of shape {bitmap.shape} in an image of {(height, width)} (height, width)")
    if bitmap.dtype != bool and not np.isin(bitmap, (0, 1)).all():
        raise ValueError("a mask holds True and False (or 1 and 0): compare probabilities with a threshold first")
    return mask_to_rle(bitmap)


def _to_numbers(values: Any, count: int, name: str, kind: type) -> np.ndarray:
    """An array (N,) with one value for each object."""
    array = _to_numpy(values).reshape(-1)
    if len(array) != count:
        raise ValueError(f"{len(array)} {name} for {count} masks")
    if kind is int and not (np.isfinite(array).all() and np.array_equal(array, array.astype(int))):
        raise ValueError(f"{name} must be whole numbers, not {array[:8].tolist()}")
    return array.astype(kind)


def _to_numpy(values: Any) -> np.ndarray:
    """A list, array or tensor, on any device, as an array."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _size_of(masks: Any) -> tuple[int, int] | None:
    """The (height, width) of masks; None if there are no masks, or only polygons."""
    if len(getattr(masks, "shape", ())) == 3:
        return tuple(masks.shape[1:])
    for mask in masks:
        if isinstance(mask, Mapping):
            return tuple(mask["size"])
        if hasattr(mask, "shape") and len(mask.shape) == 2:
            return tuple(mask.shape)
    return None
