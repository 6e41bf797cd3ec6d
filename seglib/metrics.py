"""Metrics of semantic segmentation, computed from the counts of the whole data set.

They are never averaged over batches or images, so the batch size does not change them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from seglib.masks import IGNORE

if TYPE_CHECKING:
    from seglib.instances import Instances

__all__ = ["ConfusionMatrix", "boundary_iou", "small_object_iou"]

_Masks = Iterable[Tensor | np.ndarray]  # one (H, W) for each image: a list, a batch (B, H, W), a generator


class ConfusionMatrix:
    """The confusion matrix of a data set, filled batch by batch.

    Args:
        num_classes: number of classes, background included; 2 for binary masks.

    Attributes:
        matrix: int64 (C, C) pixel counts; rows are the truth, columns the prediction.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor | np.ndarray, mask: Tensor | np.ndarray) -> ConfusionMatrix:
        """Add the pixels of a batch, and return the matrix itself.

        Args:
            prediction: class indices of any shape, such as (B, H, W).
            mask: class indices of the same shape; 255 does not count.

        Raises:
            ValueError: logits instead of indices, different shapes, or an index that is not a class.
        """
        prediction = torch.as_tensor(prediction)
        mask = torch.as_tensor(mask).to(prediction.device)
        if prediction.is_floating_point() or mask.is_floating_point():
            raise ValueError("metrics take class indices, not logits: use seglib.models.logits_to_mask(logits)")
        if prediction.shape != mask.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and mask {tuple(mask.shape)} differ in shape")
        counted = mask != IGNORE
        truth = mask[counted].long()
        predicted = prediction[counted].long()
        for name, values in (("mask", truth), ("prediction", predicted)):
            wrong = values[(values < 0) | (values >= self.num_classes)]
            if len(wrong):
                raise ValueError(f"{name} holds class {wrong[0]}; allowed are 0 to {self.num_classes - 1}")
        pixels = torch.bincount(truth * self.num_classes + predicted, minlength=self.num_classes**2)
        self.matrix += pixels.view_as(self.matrix).cpu()
        return self

    def iou(self) -> Tensor:
        """The intersection over union of each class, float64 (C,).

        NaN for a class that neither occurs nor is predicted, 0 for one that is predicted but never occurs.
        """
        matrix = self.matrix.double()
        hits = matrix.diag()
        return hits / (matrix.sum(0) + matrix.sum(1) - hits)

    def dice(self) -> Tensor:
        """The Dice coefficient (F1 score) of each class, float64 (C,); NaN and 0 as in `iou`."""
        matrix = self.matrix.double()
        return 2 * matrix.diag() / (matrix.sum(0) + matrix.sum(1))

    def miou(self, background: bool = True) -> float:
        """The mean IoU over the classes that occur or are predicted (Everingham et al., 2010).

        Args:
            background: whether class 0 is one of them.
        """
        return self.iou()[0 if background else 1 :].nanmean().item()

    def pixel_accuracy(self) -> float:
        """The fraction of pixels that are classified correctly; NaN if no pixel counts."""
        return (self.matrix.diag().sum() / self.matrix.sum()).item()

    def __repr__(self) -> str:
        values = ", ".join(f"{value:.3f}" for value in self.iou().tolist())
        return f"ConfusionMatrix({self.num_classes} classes, {int(self.matrix.sum()):,} pixels, IoU {values})"


def boundary_iou(predictions: _Masks, masks: _Masks, num_classes: int = 2, ratio: float = 0.02) -> Tensor:
    """The boundary IoU of each class, float64 (C,): the IoU of the pixels near the edges of the masks.

    Cheng et al., 2021, arXiv:2103.16562; as in the authors' code, a mask has an edge where the image cuts it off. An
    edge against pixels of 255 is none, as nobody knows where the object ends there. Pixels are counted over all images;
    a class without boundary in prediction and truth is NaN.

    Args:
        predictions, masks: class indices (H, W) of each image, at its own size; 255 in a mask does not count.
        num_classes: number of classes, background included.
        ratio: how far a pixel of a boundary may be from the edge, as a fraction of the image's diagonal; at least one
            pixel. Distances are counted in steps, straight or diagonal.

    Raises:
        ValueError: see `ConfusionMatrix.update`; or the numbers of images differ; or a mask is not (H, W).
    """
    hits = torch.zeros(num_classes, dtype=torch.float64)
    union = torch.zeros_like(hits)
    for prediction, mask in zip(predictions, masks, strict=True):
        ConfusionMatrix(num_classes).update(prediction, mask)  # raises if these are not class indices of one shape
        pair = [torch.as_tensor(classes).cpu() for classes in (prediction, mask)]
        ignored = pair[1] == IGNORE
        if ignored.ndim != 2:
            raise ValueError(f"a mask of an image is (H, W), not {tuple(ignored.shape)}: one image goes into a list")
        reach = max(1, round(ratio * float(np.hypot(*ignored.shape))))
        for index in range(num_classes):
            predicted, true = (_boundary(classes == index, ignored, reach) for classes in pair)
            hits[index] += (predicted & true).sum()
            union[index] += (predicted | true).sum()
    return hits / union


def _boundary(mask: Tensor, ignored: Tensor, reach: int) -> Tensor:
    """The counted pixels of a mask, bool (H, W), at most `reach` steps from a pixel outside of it."""
    outside = functional.pad((~(mask | ignored)).float()[None], 4 * [reach], value=1.0)
    for window in ((2 * reach + 1, 1), (1, 2 * reach + 1)):  # a square, in two steps
        outside = functional.max_pool2d(outside, window, stride=1)
    return mask & ~ignored & (outside[0] > 0)


def small_object_iou(
    predictions: _Masks, objects: Iterable[Instances], num_classes: int = 2, max_area: float = 32**2
) -> Tensor:
    """The IoU of each class around small objects, float64 (C,); NaN as in `ConfusionMatrix.iou`.

    The surroundings of an object are its box, grown on each side by half its width and height. No other pixels count,
    nor do those of larger objects and crowds. Pixels are counted over all images.

    Args:
        predictions: class indices (H, W) of each image, at its own size.
        objects: the true objects of each image.
        num_classes: number of classes, background included.
        max_area: the largest area of a small object in pixels; 32 * 32 is that of COCO (Lin et al., 2014).

    Raises:
        ValueError: see `ConfusionMatrix.update`; or the numbers of images differ.
    """
    matrix = ConfusionMatrix(num_classes)
    for prediction, truth in zip(predictions, objects, strict=True):
        is_small = (truth.areas <= max_area) & ~truth.crowd
        small = truth.pick(is_small)
        counted = np.zeros(truth.size, dtype=bool)
        margin = np.tile((small.boxes[:, 2:] - small.boxes[:, :2]) / 2, 2) * (-1, -1, 1, 1)
        for left, top, right, bottom in (small.boxes + margin).round().clip(0).astype(int).tolist():
            counted[top:bottom, left:right] = True
        mask = small.semantic()
        counted &= (mask > 0) | (truth.pick(~is_small).semantic() == 0)
        matrix.update(prediction, np.where(counted, mask, IGNORE))
    return matrix.iou()
