"""Losses: loss(logits, mask) -> scalar.

They take logits (B, C, H, W) and a class mask uint8 (B, H, W), in which 255 means "do not count": such a pixel enters
neither numerator nor denominator, and a batch of only such pixels has loss 0 and finite gradients. They are computed in
float32, even under autocast, because sums over a mask of 512x512 pixels overflow half precision.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seglib.masks import IGNORE

__all__ = [
    "BCEDiceLoss",
    "BCELoss",
    "CEDiceLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "median_frequency_weights",
    "pixel_count",
    "weighted_mean",
]


@dataclass(frozen=True)
class BCELoss:
    """Binary cross-entropy, averaged over the pixels that count.

    Args:
        pos_weight: weight of the pixels of class 1, against class imbalance.
    """

    pos_weight: float | None = None

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits (B, 1, H, W) for a mask (B, H, W) of 0, 1 and 255."""
        _check_shapes(logits, mask)
        if logits.shape[1] != 1:
            raise ValueError(f"BCE takes one logit a pixel, not {logits.shape[1]}: build the model with classes=1")
        counted = mask != IGNORE
        weight = None if self.pos_weight is None else torch.tensor(float(self.pos_weight)).to(logits.device)
        losses = F.binary_cross_entropy_with_logits(
            logits[:, 0].float(), (mask == 1).float(), pos_weight=weight, reduction="none"
        )
        return losses.where(counted, 0.0).sum() / counted.sum().clamp(min=1)


@dataclass(frozen=True)
class CrossEntropyLoss:
    """Cross-entropy over classes, averaged over the pixels that count.

    Args:
        class_weights: weight of the pixels of each class, background first; the mean is then a weighted one.
    """

    class_weights: Sequence[float] | None = None

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits (B, C, H, W) for a mask (B, H, W) of 0 ... C-1 and 255."""
        _check_shapes(logits, mask)
        channels = logits.shape[1]
        if channels < 2:
            raise ValueError("cross-entropy takes a logit a class, background too: build the model with classes=2")
        weights = torch.ones(channels) if self.class_weights is None else torch.tensor(self.class_weights).float()
        if len(weights) != channels:
            raise ValueError(f"{len(weights)} class weights for {channels} classes, background being one")
        if weights.min() < 0:
            raise ValueError(f"class weights must be 0 or more, not {self.class_weights}")
        weights = weights.to(logits.device)
        target = mask.long()
        total = F.cross_entropy(logits.float(), target, weight=weights, ignore_index=IGNORE, reduction="sum")
        counted = target != IGNORE
        weight = weights[target.where(counted, 0)].where(counted, 0.0).sum()
        return total / weight.where(weight > 0, 1.0)


@dataclass(frozen=True)
class DiceLoss:
    """1 - soft Dice (Milletari et al., 2016, arXiv:1606.04797) over all counted pixels of the batch.

    With one logit a pixel this is the Dice of class 1; with several, the mean over the classes that occur in the masks.
    The sums run over the whole batch, so that an image without an object does not outweigh the others.

    Args:
        smooth: pixels that are added to numerator and denominator, against noise where there is almost no object.
    """

    smooth: float = 1.0

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits (B, C, H, W) for a mask (B, H, W)."""
        _check_shapes(logits, mask)
        logits = logits.float()
        channels = logits.shape[1]
        is_binary = channels == 1
        probability = logits.sigmoid() if is_binary else logits.softmax(dim=1)
        probability = probability.where((mask != IGNORE)[:, None], 0.0)
        classes = torch.arange(channels, device=mask.device) + int(is_binary)
        truth = (mask[:, None] == classes[:, None, None]).float()
        overlap = (probability * truth).sum(dim=(0, 2, 3))
        size = truth.sum(dim=(0, 2, 3))
        dice = (2 * overlap + self.smooth) / (probability.sum(dim=(0, 2, 3)) + size + self.smooth)
        judged = (size > 0) | is_binary
        return (1 - dice).where(judged, 0.0).sum() / judged.sum().clamp(min=1)


@dataclass(frozen=True)
class BCEDiceLoss:
    """alpha * BCE + (1 - alpha) * Dice. BCE judges each pixel, Dice the object as a whole.

    Args:
        alpha: weight of BCE, 0 to 1.
        pos_weight: see `BCELoss`.
    """

    alpha: float = 0.5
    pos_weight: float | None = None

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits (B, 1, H, W) for a mask (B, H, W) of 0, 1 and 255."""
        bce = BCELoss(self.pos_weight)(logits, mask)
        dice = DiceLoss()(logits, mask)
        return self.alpha * bce + (1 - self.alpha) * dice


@dataclass(frozen=True)
class CEDiceLoss:
    """alpha * cross-entropy + (1 - alpha) * Dice.

    Args:
        alpha: weight of cross-entropy, 0 to 1.
        class_weights: see `CrossEntropyLoss`; they do not apply to Dice.
    """

    alpha: float = 0.5
    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits (B, C, H, W) for a mask (B, H, W) of 0 ... C-1 and 255."""
        cross_entropy = CrossEntropyLoss(self.class_weights)(logits, mask)
        dice = DiceLoss()(logits, mask)
        return self.alpha * cross_entropy + (1 - self.alpha) * dice


def pixel_count(loss: object, mask: Tensor) -> float:
    """The number of pixels that count in a mask, uint8 (B, H, W): the weight of a batch in `weighted_mean`.

    If the loss has class weights, each pixel counts as much as its class. (For Dice this is a choice: no mean over
    batches equals the Dice of all their pixels.)
    """
    weights = getattr(loss, "class_weights", None)
    if weights is None:
        return float((mask != IGNORE).sum())
    counts = torch.bincount(mask.flatten(), minlength=256).cpu()
    return float(counts[: len(weights)].double() @ torch.as_tensor(weights, dtype=torch.float64))


def weighted_mean(losses: list[tuple[float, float]]) -> float:
    """The mean of batches, given as (loss, pixel count), as if it were computed over all their pixels at once.

    It is 0 if no pixel counts, and NaN if there is no batch.
    """
    if not losses:
        return float("nan")
    value, weight = torch.tensor(losses, dtype=torch.float64).unbind(dim=1)
    return ((value * weight).sum() / weight.sum().clamp(min=1)).item()


def median_frequency_weights(masks: Iterable[Tensor], num_classes: int) -> tuple[float, ...]:
    """Class weights against class imbalance: median frequency / frequency (Eigen and Fergus, 2015, arXiv:1411.4734).

    The frequency of a class is its share of the pixels of those images on which it occurs. A class that never occurs
    has the weight 1.

    Args:
        masks: class masks uint8 (H, W) of the training images; 255 does not count.
        num_classes: number of classes, background included.
    """
    pixels = torch.zeros(num_classes, dtype=torch.float64)
    image_pixels = torch.zeros(num_classes, dtype=torch.float64)  # of the images on which the class occurs
    for mask in masks:
        counts = torch.bincount(mask[mask != IGNORE].long().flatten(), minlength=num_classes)
        pixels += counts
        image_pixels += counts.sum() * (counts > 0)
    occurs = pixels > 0
    frequency = pixels / image_pixels.clamp(min=1)
    weights = frequency[occurs].quantile(0.5) / frequency.where(occurs, 1.0)
    return tuple(weights.where(occurs, 1.0).tolist())


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is a share from 0 to 1, not {alpha}")


def _check_shapes(logits: Tensor, mask: Tensor) -> None:
    """Raise ValueError if the mask would be broadcast over logits of another shape."""
    if logits.ndim != 4 or mask.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits {tuple(logits.shape)} and mask {tuple(mask.shape)} do not fit: they are (B, C, H, W) and (B, H, W)"
        )
