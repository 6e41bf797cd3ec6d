"""The Albumentations pipelines, and the one module that knows Albumentations.

Two kinds. `resize` is deterministic and belongs to a data set. `augmentation` is random and belongs to training: what
it draws depends on (seed, epoch, sample index) and nothing else.
"""

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for its newest version

import albumentations as A
import cv2
import numpy as np

from seglib.masks import IGNORE

Transform = Callable[..., dict[str, Any]]


def resize(height: int, width: int) -> Transform:
    """Resize image and mask to (height, width), whatever the aspect: transform(image=, mask=) -> the same keys.

    The image is averaged over what a new pixel covers where it shrinks (no moire), and interpolated where it grows. The
    mask takes the value at the new pixel's centre, `INTER_NEAREST_EXACT`: OpenCV's older INTER_NEAREST takes the upper
    left one, which shifts every mask against its image.
    """
    return A.Resize(
        height,
        width,
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST_EXACT,
        area_for_downscale="image",
    )


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
    """The random changes of a training picture, each independent of the others.

    Args:
        scale: resize by a factor between these two, each as likely as any other, height and width alike.
        crop: (height, width) of a window anywhere in the picture, after `scale`: pictures of many sizes become ones of
            one size, and none is squashed. A picture too small for it gets a margin, anywhere around it, that is black
            and 255 ("do not count").
        horizontal_flip, vertical_flip: probability of mirroring left-right, upside down.
        rotate: largest angle in degrees, either way. The corners that come in are black and 255 ("do not count").
        brightness, contrast: largest relative change, either way; applied to half of the pictures.
        saturation: as brightness. hue: largest turn of the colour circle, either way, as a share of it (0.5 is half).
            Both together are applied to half of the pictures.
        noise: largest standard deviation of Gaussian noise, as a share of white; applied to half of the pictures.
    """
    for name, pair in (("scale", scale), ("crop", crop)):
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2 and min(pair) > 0):
            raise ValueError(f"{name} is two numbers above 0, not {pair!r}: scale=(0.5, 2), crop=(height, width)")
    if scale and scale[0] > scale[1]:
        raise ValueError(f"scale goes from the least factor to the most, not {scale}")
    steps: list[A.BasicTransform] = []
    if scale:
        steps.append(
            A.RandomScale(
                (scale[0] - 1, scale[1] - 1),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST_EXACT,
                area_for_downscale="image",
                p=1,
            )
        )
    if crop:
        steps.append(A.RandomCrop(*crop, pad_if_needed=True, pad_position="random", fill=0, fill_mask=IGNORE, p=1))
    if horizontal_flip:
        steps.append(A.HorizontalFlip(p=horizontal_flip))
    if vertical_flip:
        steps.append(A.VerticalFlip(p=vertical_flip))
    if rotate:
        steps.append(A.Rotate(limit=(-rotate, rotate), border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=IGNORE, p=1))
    if brightness or contrast:
        steps.append(
            A.RandomBrightnessContrast((-brightness, brightness), (-contrast, contrast), ensure_safe_range=True, p=0.5)
        )
    if saturation or hue:
        around = (1 - saturation, 1 + saturation)
        steps.append(A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=around, hue=(-hue, hue), p=0.5))
    if noise:
        steps.append(A.GaussNoise(std_range=(0, noise), p=0.5))
    return A.Compose(steps)


def augment(pipeline: A.Compose, image: np.ndarray, mask: np.ndarray, draw: tuple[int, ...]) -> tuple:
    """Apply a random pipeline with what (seed, epoch, sample index) draws.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W).
        draw: whole numbers, none negative: the same numbers give the same pictures in any process, on any worker.

    Returns:
        The changed (image, mask), of the size that the pipeline makes.

    `Compose.set_random_seed` would hand one and the same seed to every transform, so that two flips of probability 0.5
    always fell together. Here each transform has a child of its own of one `SeedSequence`.
    """
    steps = list(_walk(pipeline))
    for step, child in zip(steps, np.random.SeedSequence(draw).spawn(len(steps)), strict=True):
        low, high = child.generate_state(2, np.uint64).tolist()
        step.random_generator, step.py_random = np.random.default_rng(child), random.Random(low << 64 | high)
    changed = pipeline(image=image, mask=mask)
    return changed["image"], changed["mask"]


def _walk(pipeline: Any) -> Iterator[Any]:
    """The pipeline itself and every transform in it, however deep (`OneOf`, `Sequential`, ...)."""
    yield pipeline
    for step in getattr(pipeline, "transforms", ()):
        yield from _walk(step)


def keeps_size(pipeline: A.Compose, height: int, width: int) -> bool:
    """Whether a pipeline leaves pictures of (height, width), and larger ones, as large as they are: one that crops does
    not, even if it crops to that very size."""
    for draw, shape in enumerate(((height, width), (height + 7, width + 11), (height + 70, width + 110))):
        image, _ = augment(pipeline, np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8), (draw,))
        if image.shape[:2] != shape:
            return False
    return True


def describe(pipeline: Any) -> Any:
    """A pipeline's settings as plain JSON, to be kept with a run."""
    return None if pipeline is None else _plain(pipeline.to_dict()["transform"])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
