"""Metrics: one confusion matrix over the whole data set, and what follows from it.

Never a mean over batches or images: one matrix gives the same number whatever the batch size.
"""

import torch
from torch import Tensor

from seglib.masks import IGNORE


def confusion(prediction: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Count pixels by (truth, prediction): int64 (C, C); rows are the truth, columns the prediction.

    Args:
        prediction: class indices, any shape. mask: class indices of the same shape, 255 where a pixel does not count.

    Raises:
        ValueError: logits in place of indices, other shapes, an index that is no class.
    """
    if prediction.is_floating_point() or mask.is_floating_point():
        raise ValueError("metrics take class indices, not logits: use seglib.models.logits_to_mask(logits)")
    if prediction.shape != mask.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and mask {tuple(mask.shape)} differ in shape")
    counts = mask != IGNORE
    truth, guess = mask[counts].long(), prediction[counts].long()
    for name, values in (("mask", truth), ("prediction", guess)):
        if values.numel() and (values.min() < 0 or values.max() >= num_classes):
            worst = values.min() if values.min() < 0 else values.max()
            raise ValueError(f"{name} holds class {worst.item()}; allowed are 0 to {num_classes - 1}")
    return torch.bincount(truth * num_classes + guess, minlength=num_classes**2).view(num_classes, num_classes)


def iou(matrix: Tensor) -> Tensor:
    """Intersection over union of each class of a (C, C) matrix: float64 (C,).

    NaN for a class that neither occurs nor is predicted, 0 for one that is predicted but never occurs.
    """
    matrix = matrix.double()
    hits = matrix.diag()
    return hits / (matrix.sum(0) + matrix.sum(1) - hits)


def dice(matrix: Tensor) -> Tensor:
    """Dice (F1) of each class of a (C, C) matrix: float64 (C,); NaN as in `iou`."""
    matrix = matrix.double()
    return 2 * matrix.diag() / (matrix.sum(0) + matrix.sum(1))


class ConfusionMatrix:
    """The confusion matrix of a data set, filled batch by batch. Binary masks have two classes.

    Attributes:
        matrix: int64 (C, C) counts, rows are the truth, columns the prediction.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 2:
            raise ValueError("a confusion matrix has two classes or more: binary is ConfusionMatrix(2)")
        self.num_classes = num_classes
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, mask: Tensor) -> "ConfusionMatrix":
        """Add the pixels of class indices of one shape, say (B, H, W); 255 in the mask does not count."""
        prediction, mask = torch.as_tensor(prediction), torch.as_tensor(mask)
        self.matrix += confusion(prediction, mask.to(prediction.device), self.num_classes).cpu()
        return self

    def iou(self) -> Tensor:
        """IoU of each class: float64 (C,), NaN for a class that neither occurs nor is predicted."""
        return iou(self.matrix)

    def dice(self) -> Tensor:
        """Dice of each class: float64 (C,), NaN for a class that neither occurs nor is predicted."""
        return dice(self.matrix)

    def miou(self, background: bool = True) -> float:
        """Mean IoU over the classes that occur or are predicted (Everingham et al., 2010), with or without class 0."""
        return self.iou()[0 if background else 1 :].nanmean().item()

    def pixel_accuracy(self) -> float:
        """The share of pixels that are right; NaN where none counted."""
        return (self.matrix.diag().sum() / self.matrix.sum()).item()

    def __repr__(self) -> str:
        values = ", ".join(f"{value:.3f}" for value in self.iou().tolist())
        return f"ConfusionMatrix({self.num_classes} classes, {int(self.matrix.sum()):,} pixels, IoU {values})"
