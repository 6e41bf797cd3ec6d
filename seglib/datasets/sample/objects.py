"""Draws the objects of the bundled sample, and gives a picture the light and the noise of a camera."""

from collections.abc import Sequence

import cv2
import numpy as np

__all__ = ["Color", "camera", "pick", "smooth_noise"]

Color = tuple[int, int, int]


def pick(rng: np.random.Generator, colors: Sequence[Color]) -> Color:
    """Return one of the colors, a little lighter or darker."""
    red, green, blue = np.clip(np.array(colors[rng.integers(len(colors))]) * rng.uniform(0.85, 1.15), 0, 255)
    return int(red), int(green), int(blue)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Return noise with bumps of about `cell` pixels, mostly between -1 and 1: float32 (height, width)."""
    coarse = rng.uniform(-1, 1, (int(height / cell) + 2, int(width / cell) + 2)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def camera(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture with uneven light, a tint and the noise of a sensor: uint8 (H, W, 3).

    Args:
        picture: uint8 (H, W, 3).
        rng: decides how light the picture is and how much noise it has.
    """
    height, width = picture.shape[:2]
    patches = 1 + 0.15 * smooth_noise(rng, height, width, max(height, width) / 3)
    noise = rng.standard_normal((height, width), np.float32) * rng.uniform(1, 5)
    tint = (rng.uniform(0.75, 1.15) * rng.normal(1, 0.03, 3)).astype(np.float32)
    lit = picture * patches[..., None] * tint + noise[..., None]
    return np.clip(lit, 0, 255).astype(np.uint8)
