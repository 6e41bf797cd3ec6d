"""Metrics of semantic segmentation, computed from one confusion matrix of the whole data set.

They are never averaged over batches or images, so the batch size does not change them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seglib.masks import IGNORE

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ConfusionMatrix"]


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
