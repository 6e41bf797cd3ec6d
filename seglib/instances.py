"""The objects of one image: a mask, a class and, where they were found by a model, a score for each.

Masks are kept as COCO's run-length code: with a bitmap for each object, a few hundred aerial images would fill the
memory. Truth and prediction have one and the same form, whichever reader or model they come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from seglib.masks import IGNORE, mask_to_rle, polygons_to_mask, rle_to_mask


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects of one image.

    Attributes:
        size: (height, width) of the image in pixels.
        rles: the mask of each object, as COCO's compressed RLE.
        labels: int (N,), the class of each; 0 is background, so the first class is 1.
        scores: float (N,), how sure a model is of each; None for the truth.
        crowd: bool (N,): a group that nobody took apart, which counts neither for nor against a prediction.
    """

    size: tuple[int, int]
    rles: list[dict]
    labels: np.ndarray
    scores: np.ndarray | None = None
    crowd: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.rles)
        labels = np.ones(count, dtype=int) if self.labels is None else as_numbers(self.labels, count, "labels", int)
        if (labels < 1).any():
            raise ValueError(f"label {labels.min()}: classes count from 1, as 0 is background")
        scores = None if self.scores is None else as_numbers(self.scores, count, "scores", float)
        if scores is not None and not np.isfinite(scores).all():
            raise ValueError("a score is no finite number")
        crowd = np.zeros(count, dtype=bool) if self.crowd is None else as_numbers(self.crowd, count, "crowd", bool)
        for rle in self.rles:
            if tuple(rle["size"]) != tuple(self.size):
                raise ValueError(f"a mask of {tuple(rle['size'])} in an image of {tuple(self.size)} (height, width)")
        for name, value in (("labels", labels), ("scores", scores), ("crowd", crowd)):
            object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls,
        masks: Any,
        labels: Any = None,
        scores: Any = None,
        crowd: Any = None,
        size: tuple[int, int] | None = None,
    ) -> Instances:
        """Make instances of any kind of masks.

        Args:
            masks: (N, H, W) array or tensor of True and False (or 1 and 0), or a list in which each object is such an
                (H, W) array, COCO's RLE, or a list of polygons [x1, y1, x2, y2, ...] in pixels.
            labels: (N,), from 1 on; None: all 1.
            scores: (N,); None for the truth.
            crowd: (N,); None: none is.
            size: (height, width); needed where there are no masks, or nothing but polygons.
        """
        if size is None:
            size = _size_of(masks)
        size = (int(size[0]), int(size[1]))
        return cls(size, [as_rle(mask, size) for mask in masks], labels, scores, crowd)

    def __len__(self) -> int:
        return len(self.rles)

    @property
    def masks(self) -> np.ndarray:
        """Bool (N, H, W)."""
        return np.array([rle_to_mask(rle) for rle in self.rles], dtype=bool).reshape(len(self), *self.size)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each mask, int (N,)."""
        return np.array(coco_mask.area(self.rles) if self.rles else [], dtype=int)

    @property
    def boxes(self) -> np.ndarray:
        """Float (N, 4): left, top, right, bottom of each mask, in pixels; its last pixel ends at right and bottom."""
        boxes = np.array(coco_mask.toBbox(self.rles) if self.rles else [], dtype=float).reshape(-1, 4)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    def pick(self, which: Any) -> Instances:
        """Some of them: an index array, or bool (N,)."""
        order = np.arange(len(self))[which]
        scores = None if self.scores is None else self.scores[order]
        return Instances(self.size, [self.rles[i] for i in order], self.labels[order], scores, self.crowd[order])

    def above(self, score: float) -> Instances:
        """Those of at least that score."""
        return self.pick(self.scores >= score)

    def numbered(self) -> np.ndarray:
        """Int (H, W): 0 where nothing is, else an object's number from 1 on; of two on one pixel, the smaller."""
        numbers = np.zeros(self.size, dtype=np.int32)
        for index in np.argsort(-self.areas, kind="stable"):
            numbers[rle_to_mask(self.rles[index])] = index + 1
        return numbers

    def semantic(self) -> np.ndarray:
        """The class mask, uint8 (H, W): 0 is background; of two that overlap the smaller is seen; a crowd is 255 where
        no other object lies on it."""
        if len(self) and self.labels.max() >= IGNORE:
            raise ValueError(f"label {self.labels.max()}: a mask of bytes holds classes up to {IGNORE - 1}")
        classes = np.zeros(self.size, dtype=np.uint8)
        areas = self.areas
        for index in sorted(range(len(self)), key=lambda i: (not self.crowd[i], -areas[i])):
            classes[rle_to_mask(self.rles[index])] = IGNORE if self.crowd[index] else self.labels[index]
        return classes


def as_instances(objects: Any) -> Instances:
    """Instances out of what other libraries call them: a mapping with "masks" and, where there are, "labels", "scores",
    "crowd" (or "iscrowd") and "size"."""
    if isinstance(objects, Instances):
        return objects
    if not isinstance(objects, Mapping) or "masks" not in objects:
        raise TypeError(f'the objects of an image are Instances, or a mapping with "masks", not {type(objects)}')
    crowd = objects.get("crowd", objects.get("iscrowd"))
    return Instances.of(objects["masks"], objects.get("labels"), objects.get("scores"), crowd, objects.get("size"))


def as_rle(mask: Any, size: tuple[int, int]) -> dict:
    """Any kind of mask as COCO's compressed RLE.

    Args:
        mask: (H, W) of True and False, an RLE, compressed or not, or a list of polygons. size: (height, width).
    """
    if isinstance(mask, Mapping):
        rle = dict(mask)
        if isinstance(rle.get("counts"), bytes):
            rle["counts"] = rle["counts"].decode("ascii")
        return mask_to_rle(rle_to_mask(rle))  # checked, and of one form
    if isinstance(mask, Sequence) and (not len(mask) or isinstance(mask[0], Sequence) or np.ndim(mask[0]) == 1):
        return mask_to_rle(polygons_to_mask(mask, *size))
    bitmap = as_array(mask)
    if bitmap.ndim != 2 or bitmap.shape != tuple(size):
        raise ValueError(f"a mask of shape {bitmap.shape} in an image of {tuple(size)} (height, width)")
    if bitmap.dtype != bool and not np.isin(bitmap, (0, 1)).all():
        raise ValueError("a mask holds True and False (or 1 and 0): compare probabilities with a threshold first")
    return mask_to_rle(bitmap)


def as_numbers(values: Any, count: int, name: str, kind: type) -> np.ndarray:
    """One value an object, as an array (N,)."""
    array = as_array(values).reshape(-1)
    if len(array) != count:
        raise ValueError(f"{len(array)} {name} for {count} masks")
    return array.astype(kind)


def as_array(values: Any) -> np.ndarray:
    """A list, array or tensor, on whatever device, as an array."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _size_of(masks: Any) -> tuple[int, int]:
    """The (height, width) that masks speak of themselves."""
    if np.ndim(masks) == 3 and not isinstance(masks, Sequence):
        return tuple(masks.shape[1:])
    for mask in masks:
        if isinstance(mask, Mapping):
            return tuple(mask["size"])
        if hasattr(mask, "shape") and len(mask.shape) == 2:
            return tuple(mask.shape)
    raise ValueError("no masks, or nothing but polygons: give size=(height, width)")
