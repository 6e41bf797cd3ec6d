"""The contract of all models, and the steps that they share: normalization, padding, and the decision from logits.

Semantic segmentation: forward(images) -> logits. Images are (B, 3, H, W), uint8 or float from 0 to 255, RGB, of any
height and width; logits are (B, C, H, W) at the size of the images, where C is 1 for a binary mask. A model normalizes
its images, pads them to its stride and crops the logits, so that training and prediction cannot disagree about it.

Objects (`seglib.models.INSTANCE_MODELS`), in eval mode: forward(images, score=...) -> the `Instances` of each image.

`settings` holds a model's name and arguments, enough for `build_model`; `stride` divides the sides of its input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from seglib.files import check_choice

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "YOLO_MODELS", "autocast", "logits_to_mask", "normalize", "pad_to_stride"]

# Of red, green and blue over ImageNet's training images, on the scale from 0 to 1: what nearly all published weights
# were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Listed here rather than in models/yolo.py, so that the names can be known without importing pycocotools.
YOLO_MODELS = ("yolov8n-seg", "yolov8s-seg", "yolov8m-seg", "yolov8l-seg", "yolov8x-seg")


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalize images to zero mean and unit variance: float (B, C, H, W).

    Args:
        images: (B, C, H, W), uint8 or float from 0 to 255.
        mean, std: (C,), mean and standard deviation of each channel on the scale from 0 to 1.

    Raises:
        ValueError: the images have another shape.
    """
    if images.ndim != 4 or images.shape[1] != len(mean):
        raise ValueError(
            f"a model takes images of shape (batch, {len(mean)}, height, width), not {tuple(images.shape)}; "
            "pass a single image as image[None]"
        )
    return (images.to(mean.dtype) / 255 - mean[:, None, None]) / std[:, None, None]


def pad_to_stride(images: Tensor, stride: int) -> Tensor:
    """Pad (B, C, H, W) at the bottom and right, by repeating the border, to multiples of `stride` pixels."""
    bottom = -images.shape[2] % stride
    right = -images.shape[3] % stride
    return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


@torch.no_grad()
def logits_to_mask(logits: Tensor) -> Tensor:
    """Return the most likely class of each pixel: uint8 (B, H, W).

    Args:
        logits: (B, C, H, W). With one channel, a pixel is 1 where its logit is above 0 (its probability above 0.5).
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).to(torch.uint8)
    return logits.max(dim=1).indices.to(torch.uint8)  # the same as argmax(dim=1), which is many times slower on a CPU


def autocast(device: torch.device, precision: str | None) -> torch.autocast:
    """The context in which a model computes in "fp16", "bf16" or, for None, in float32."""
    check_choice("precision", precision, (None, "fp16", "bf16"))
    dtype = {None: None, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
