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

from seglib.masks import IGNORE, mask_to_rle, polygons_to_rle, rle_to_mask


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

    def __repr__(self) -> str:
        scores = "no scores" if self.scores is None else f"scores to {self.scores.max(initial=0):.2f}"
        return f"Instances({len(self)} objects of {self.size[0]}x{self.size[1]} (height x width), {scores})"

    @property
    def masks(self) -> np.ndarray:
        """Bool (N, H, W)."""
        return np.array([rle_to_mask(rle) for rle in self.rles], dtype=bool).reshape(len(self), *self.size)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each mask, int (N,)."""
        return np.array([coco_mask.area(rle) for rle in self.rles], dtype=int)  # it fails for a list of more than 255

    @property
    def boxes(self) -> np.ndarray:
        """Float (N, 4): left, top, right, bottom of each mask, in pixels; its last pixel ends at right and bottom."""
        boxes = np.array(coco_mask.toBbox(self.rles) if self.rles else [], dtype=float).reshape(-1, 4)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    def pick(self, which: Any) -> Instances:
        """Some of them: an index array, or bool (N,)."""
        order = np.atleast_1d(np.arange(len(self))[which])  # a tensor of one number is taken for that number
        scores = None if self.scores is None else self.scores[order]
        return Instances(self.size, [self.rles[i] for i in order], self.labels[order], scores, self.crowd[order])

    def above(self, score: float) -> Instances:
        """Those of at least that score."""
        if self.scores is None:
            raise ValueError("these objects have no scores: they are the truth")
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


KEYS = {"masks", "labels", "scores", "crowd", "iscrowd", "size", "boxes", "area", "image_id"}  # the last three: unused


def as_instances(objects: Any, size: tuple[int, int] | None = None) -> Instances:
    """Instances out of what other libraries call them.

    Args:
        objects: a mapping with "masks" and, where there are, "labels", "scores", "crowd" (or "iscrowd") and "size".
        size: (height, width) of the image, where neither masks nor mapping tell.

    Raises:
        TypeError: something else. ValueError: a key that would be passed over.
    """
    if isinstance(objects, Instances):
        return objects
    if not isinstance(objects, Mapping) or "masks" not in objects:
        has = f"one with {', '.join(objects)}" if isinstance(objects, Mapping) else type(objects).__name__
        raise TypeError(f'the objects of an image are Instances, or a mapping with "masks", not {has}')
    unknown = [key for key in objects if key not in KEYS]
    if unknown:
        raise ValueError(f"objects have no {', '.join(map(repr, unknown))}; known are {', '.join(sorted(KEYS))}")
    crowd, masks = objects.get("crowd", objects.get("iscrowd")), objects["masks"]
    size = objects.get("size") or (size if not len(masks) else None)
    return Instances.of(masks, objects.get("labels"), objects.get("scores"), crowd, size)


def as_rle(mask: Any, size: tuple[int, int]) -> dict:
    """Any kind of mask as COCO's compressed RLE.

    Args:
        mask: (H, W) of True and False, an RLE, compressed or not, or a list of polygons. size: (height, width).
    """
    if isinstance(mask, Mapping):
        return mask_to_rle(rle_to_mask(dict(mask)))  # checked, and of one form
    if isinstance(mask, Sequence) and (not len(mask) or isinstance(mask[0], Sequence) or np.ndim(mask[0]) == 1):
        return polygons_to_rle(mask, *size)
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
    if kind is int and array.dtype.kind == "f" and not (np.isfinite(array) & (np.trunc(array) == array)).all():
        raise ValueError(f"{name} are whole numbers, not {array.tolist()[:8]}")
    return array.astype(kind)


def as_array(values: Any) -> np.ndarray:
    """A list, array or tensor, on whatever device, as an array."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _size_of(masks: Any) -> tuple[int, int]:
    """The (height, width) that masks speak of themselves."""
    if hasattr(masks, "shape"):
        if len(masks.shape) != 3:
            raise ValueError(f"masks of shape {tuple(masks.shape)}: an array of masks is (N, H, W), one an object")
        return tuple(masks.shape[1:])
    for mask in masks:
        if isinstance(mask, Mapping):
            return tuple(mask["size"])
        if hasattr(mask, "shape") and len(mask.shape) == 2:
            return tuple(mask.shape)
    raise ValueError("no masks, or nothing but polygons: give size=(height, width)")
