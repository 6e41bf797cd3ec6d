"""Losses: loss(logits, mask) -> scalar.

All take logits (B, C, H, W) and a class mask (B, H, W) of uint8 in which 255 does not count: such a pixel enters
neither numerator nor denominator, and a batch of nothing else has loss 0 with finite gradients. All compute in float32,
whatever autocast says: a sum over a mask of 512x512 pixels overflows half precision.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seglib.masks import IGNORE, check_values


def _check(logits: Tensor, mask: Tensor) -> None:
    """Raise ValueError where a mask would be broadcast over logits of another shape."""
    if logits.ndim != 4 or mask.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits {tuple(logits.shape)} and mask {tuple(mask.shape)} do not fit: (B, C, H, W), (B, H, W)"
        )


def _check_share(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is a share, 0 to 1, not {alpha}")


def _check_class_weights(weights: Sequence[float] | None) -> None:
    if weights is not None and not all(0 <= weight < float("inf") for weight in weights):
        raise ValueError(f"class weights are numbers from 0 up, not {tuple(weights)}")


def weight_of(loss: object, mask: Tensor) -> float:
    """How much the loss of a batch weighs beside those of others, for their mean to be that of all pixels at once.

    Each pixel that counts weighs one, or as much as its class where the loss has class weights. (For Dice this is a
    choice: no mean of its batches is the Dice of all their pixels.)

    Args:
        mask: (B, H, W) uint8, best on the CPU: the answer is a plain number.
    """
    counts = mask[mask != IGNORE]
    weights = getattr(loss, "class_weights", None)
    if weights is None:
        return float(counts.numel())
    return torch.as_tensor(weights, dtype=torch.float64)[counts.long().cpu()].sum().item()


def weighted_mean(found: list[tuple[float, float]]) -> float:
    """The mean of (batch loss, weight); 0 where no batch weighs anything, NaN where there is none."""
    if not found:
        return float("nan")
    value, weight = torch.tensor(found, dtype=torch.float64).unbind(dim=1)
    return ((value * weight).sum() / weight.sum().clamp(min=1)).item()


@dataclass(frozen=True)
class BCELoss:
    """Binary cross-entropy of one logit a pixel, averaged over the pixels that count.

    Args:
        pos_weight: how much more a pixel of class 1 weighs, against imbalance.
    """

    pos_weight: float | None = None

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, 1, H, W) and mask (B, H, W) of 0, 1 and 255 -> scalar."""
        _check(logits, mask)
        if logits.shape[1] != 1:
            raise ValueError(f"BCE takes one logit a pixel, not {logits.shape[1]}: build the model with classes=1")
        with torch.autocast(logits.device.type, enabled=False):
            counts = mask != IGNORE
            target = (mask == 1).float()
            weight = None if self.pos_weight is None else logits.new_tensor(self.pos_weight, dtype=torch.float32)
            per_pixel = F.binary_cross_entropy_with_logits(
                logits[:, 0].float(), target, pos_weight=weight, reduction="none"
            )
            return per_pixel.where(counts, 0.0).sum() / counts.sum().clamp(min=1)


@dataclass(frozen=True)
class CrossEntropyLoss:
    """Cross-entropy over classes, averaged over the pixels that count.

    Args:
        class_weights: how much a pixel of each class weighs; the mean is then the weighted one.
    """

    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check_class_weights(self.class_weights)

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, C, H, W) and mask (B, H, W) of 0..C-1 and 255 -> scalar."""
        _check(logits, mask)
        if logits.shape[1] < 2:
            raise ValueError(
                "cross-entropy takes a logit for each class, background too: build the model with classes=2"
            )
        with torch.autocast(logits.device.type, enabled=False):
            logits, target = logits.float(), mask.long()
            weights = logits.new_ones(logits.shape[1])
            if self.class_weights is not None:
                weights = logits.new_tensor(self.class_weights)
            if len(weights) != logits.shape[1]:
                raise ValueError(f"{len(weights)} class weights for {logits.shape[1]} classes, background being one")
            total = F.cross_entropy(logits, target, weight=weights, ignore_index=IGNORE, reduction="sum")
            counts = target != IGNORE
            weight = weights[target.where(counts, 0)].where(counts, 0.0).sum()
            return total / weight.where(weight > 0, 1.0)


@dataclass(frozen=True)
class DiceLoss:
    """1 - soft Dice (Milletari et al., 2016, arXiv:1606.04797), over all pixels of the batch that count.

    One logit a pixel: the Dice of class 1. Several: the mean over the classes that occur in the batch's masks. The sums
    run over the whole batch, so that an image without an object does not outweigh the others.

    Args:
        smooth: added above and below, in pixels; keeps the loss finite and gentle where there is nearly no object.
    """

    smooth: float = 1.0

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, C, H, W) and mask (B, H, W) -> scalar."""
        _check(logits, mask)
        with torch.autocast(logits.device.type, enabled=False):
            logits, counts = logits.float(), (mask != IGNORE)[:, None]
            if logits.shape[1] == 1:
                probability, truth = logits.sigmoid(), (mask == 1)[:, None].float()
            else:
                probability = logits.softmax(dim=1)
                classes = torch.arange(logits.shape[1], device=mask.device)[:, None, None]
                truth = (mask[:, None] == classes).float()
            probability = probability.where(counts, 0.0)
            overlap, size = (probability * truth).sum(dim=(0, 2, 3)), truth.sum(dim=(0, 2, 3))
            dice = (2 * overlap + self.smooth) / (probability.sum(dim=(0, 2, 3)) + size + self.smooth)
            if logits.shape[1] == 1:
                return (1 - dice).sum()
            present = size > 0
            return (1 - dice).where(present, 0.0).sum() / present.sum().clamp(min=1)


@dataclass(frozen=True)
class BCEDiceLoss:
    """alpha * BCE + (1 - alpha) * Dice: BCE judges each pixel, Dice the object as a whole.

    Args:
        alpha: the share of BCE, 0 to 1. pos_weight: see BCELoss. smooth: see DiceLoss.
    """

    alpha: float = 0.5
    pos_weight: float | None = None
    smooth: float = 1.0

    def __post_init__(self) -> None:
        _check_share(self.alpha)

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, 1, H, W) and mask (B, H, W) -> scalar."""
        bce, dice = BCELoss(self.pos_weight)(logits, mask), DiceLoss(self.smooth)(logits, mask)
        return self.alpha * bce + (1 - self.alpha) * dice


@dataclass(frozen=True)
class CEDiceLoss:
    """alpha * cross-entropy + (1 - alpha) * Dice.

    Args:
        alpha: the share of cross-entropy, 0 to 1. class_weights: see CrossEntropyLoss. smooth: see DiceLoss.
    """

    alpha: float = 0.5
    class_weights: Sequence[float] | None = None
    smooth: float = 1.0

    def __post_init__(self) -> None:
        _check_share(self.alpha)
        _check_class_weights(self.class_weights)

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, C, H, W) and mask (B, H, W) -> scalar."""
        entropy, dice = CrossEntropyLoss(self.class_weights)(logits, mask), DiceLoss(self.smooth)(logits, mask)
        return self.alpha * entropy + (1 - self.alpha) * dice


def median_frequency_weights(masks: Iterable[Tensor], num_classes: int) -> tuple[float, ...]:
    """Class weights against imbalance: median frequency over frequency (Eigen and Fergus, 2015, arXiv:1411.4734).

    Args:
        masks: class masks (H, W), of the training images; 255 does not count.

    Raises:
        ValueError: a value that is no class; no pixel that counts.

    Returns:
        A weight for each class. Its frequency is its share of the pixels of those images on which it occurs; a class
        that never does has weight 1.
    """
    pixels, of_images = torch.zeros(2, num_classes, dtype=torch.float64)
    for number, mask in enumerate(masks):
        check_values(mask.numpy(), num_classes, f"mask {number}")
        counts = torch.bincount(mask[mask != IGNORE].long().flatten(), minlength=num_classes)
        pixels += counts
        of_images += counts.sum() * (counts > 0)
    occurs = pixels > 0
    if not occurs.any():
        raise ValueError("no pixel counts in any of the masks: class weights cannot be had from them")
    frequency = pixels / of_images.clamp(min=1)
    weights = frequency[occurs].quantile(0.5) / frequency.where(occurs, 1.0)
    return tuple(weights.where(occurs, 1.0).tolist())
