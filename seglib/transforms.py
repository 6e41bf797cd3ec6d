"""Resizing and augmentation. This is the only module that knows Albumentations.

`resize` is deterministic and belongs to a data set. `augmentation` is random and belongs to training; what it draws
depends on (seed, epoch, sample index) alone.
"""

import json
import os
import random
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise the import looks for a new version on the network

import albumentations as A
import cv2
import numpy as np

from seglib.masks import IGNORE

__all__ = ["augment", "augmentation", "describe_augmentation", "resize"]

# How images and masks are resized. An image is interpolated where it grows and averaged where it shrinks, which avoids
# moire. A mask takes the value at the center of the new pixel; OpenCV's INTER_NEAREST takes that of the upper left
# corner, which shifts every mask against its image.
_RESIZING = {
    "interpolation": cv2.INTER_LINEAR,
    "mask_interpolation": cv2.INTER_NEAREST_EXACT,
    "area_for_downscale": "image",
}


def resize(height: int, width: int) -> A.Resize:
    """A transform that resizes image and mask to (height, width) pixels and ignores the aspect ratio.

    It is called as transform(image=image, mask=mask) and returns a dictionary with the same keys. The mask holds no
    values that it did not hold before.
    """
    return A.Resize(height, width, **_RESIZING)


def augmentation(
    *,
    horizontal_flip: float = 0.0,
    vertical_flip: float = 0.0,
    rotate: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    noise: float = 0.0,
    scale: tuple[float, float] | None = None,
    crop: tuple[int, int] | None = None,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> A.Compose:
    """A pipeline of random changes to training images, each independent of the others. Apply it with `augment`.

    Args:
        horizontal_flip: probability of a flip from left to right.
        vertical_flip: probability of a flip upside down.
        rotate: largest angle in degrees, in either direction. The corners that come in are black and 255 in the mask.
        brightness: largest change of the pixel values, up or down, as a fraction of white; applied to half of the
            images, together with `contrast`.
        contrast: largest relative change of the pixel values, up or down.
        noise: largest standard deviation of Gaussian noise, as a fraction of white; applied to half of the images.
        scale: smallest and largest factor by which the image is resized, before `crop`.
        crop: (height, width) in pixels of a random crop, so that images of different sizes can share a batch. An image
            that is too small gets a margin that is black, and 255 in the mask.
        saturation: largest relative change, up or down; applied to half of the images, together with `hue`.
        hue: largest shift around the color circle, in either direction, as a fraction of the circle.

    Raises:
        ValueError: `scale` or `crop` is not a pair of positive numbers.
    """
    for name, pair in (("scale", scale), ("crop", crop)):
        if pair is not None and (np.shape(pair) != (2,) or min(pair) <= 0):
            raise ValueError(f"{name} is a pair of numbers above 0, not {pair!r}: scale=(0.5, 2), crop=(height, width)")
    steps: list[A.BasicTransform] = []
    if scale:
        steps.append(A.RandomScale((scale[0] - 1, scale[1] - 1), **_RESIZING, p=1))
    if crop:
        steps.append(A.RandomCrop(*crop, pad_if_needed=True, pad_position="random", fill=0, fill_mask=IGNORE, p=1))
    if horizontal_flip:
        steps.append(A.HorizontalFlip(p=horizontal_flip))
    if vertical_flip:
        steps.append(A.VerticalFlip(p=vertical_flip))
    if rotate:
        steps.append(A.Rotate(limit=(-rotate, rotate), border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=IGNORE, p=1))
    if brightness or contrast:
        ranges = ((-brightness, brightness), (-contrast, contrast))
        steps.append(A.RandomBrightnessContrast(*ranges, p=0.5))
    if saturation or hue:
        around = (1 - saturation, 1 + saturation)
        steps.append(A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=around, hue=(-hue, hue), p=0.5))
    if noise:
        steps.append(A.GaussNoise(std_range=(0, noise), p=0.5))
    return A.Compose(steps)


def augment(
    pipeline: A.Compose, image: np.ndarray, mask: np.ndarray, draw: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Apply a random pipeline with the random numbers that belong to (seed, epoch, sample index).

    Args:
        pipeline: any composition of Albumentations' transforms.
        image: uint8 (H, W, 3).
        mask: uint8 (H, W).
        draw: whole numbers, 0 or more; the same numbers give the same result in every process and worker.

    Returns:
        The image and the mask, of the size that the pipeline makes.
    """
    # Compose.set_random_seed gives every transform the same seed, so that two flips always happen together.
    steps = list(_nested_steps(pipeline))
    for step, child in zip(steps, np.random.SeedSequence(draw).spawn(len(steps)), strict=True):
        low, high = child.generate_state(2, np.uint64).tolist()
        step.random_generator = np.random.default_rng(child)
        step.py_random = random.Random(low << 64 | high)
    changed = pipeline(image=image, mask=mask)
    return changed["image"], changed["mask"]


def _nested_steps(step: Any) -> Iterator[Any]:
    """A pipeline and all transforms in it, at any depth (`OneOf`, `Sequential`, ...)."""
    yield step
    for child in getattr(step, "transforms", ()):
        yield from _nested_steps(child)


def describe_augmentation(pipeline: A.Compose | None) -> dict[str, Any] | None:
    """The settings of a pipeline, as values that JSON can hold; None for None."""
    return None if pipeline is None else json.loads(json.dumps(pipeline.to_dict()["transform"]))
