"""What every model does at its two ends: normalise and pad on the way in, crop on the way out."""

import torch
import torch.nn.functional as F
from torch import Tensor


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bring RGB bytes to zero mean and unit variance, as floats.

    Args:
        images: (B, 3, H, W), uint8 or float 0-255.
        mean, std: (3,), of pixel values on the scale 0-1.
    """
    if images.ndim != 4 or images.shape[1] != len(mean):
        raise ValueError(
            f"a model takes images of shape (batch, {len(mean)}, height, width), not {tuple(images.shape)}; "
            "one image goes in as image[None]"
        )
    return (images.to(mean.dtype) / 255 - mean[:, None, None]) / std[:, None, None]


def pad_to_stride(images: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column of (B, C, H, W) until both sides are multiples of `stride`."""
    height, width = images.shape[-2:]
    down, right = -height % stride, -width % stride
    return F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images


@torch.no_grad()
def logits_to_mask(logits: Tensor) -> Tensor:
    """Decide: (B, C, H, W) logits -> uint8 (B, H, W) classes. One channel: logits > 0, which is probability > 0.5."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).to(torch.uint8)
    return logits.argmax(dim=1).to(torch.uint8)
