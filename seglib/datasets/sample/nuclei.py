"""Writes the sample of nuclei under a microscope, in the layout of `dsb2018`.

Of five images, four are the tiles of one field: they share its stain, its light and the nuclei that their borders cut.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from seglib.datasets.sample.objects import pick, smooth_noise
from seglib.files import write_lines

__all__ = ["draw_field", "write_image", "write_lists"]

SHAPES = ((1.0, 1.0), (0.8, 1.0), (0.7, 0.7))  # height and width of an image as shares of `size`
RADII = ((0.03, 0.04), (0.04, 0.06), (0.07, 0.1))  # of the nuclei of a field, as shares of `size`
STAINED = 0.2  # share of the fields that are stained
FAINT = 0.2  # share of the nuclei that are hardly brighter than the haze around them
GLASS = (232, 222, 238)
STAINS = ((96, 60, 150), (124, 64, 120), (84, 70, 160))
MIN_PIXELS = 6  # a nucleus of which the border leaves less is not annotated


def _outlines(rng: np.random.Generator, height: int, width: int, size: int) -> list[np.ndarray]:
    """The outlines of the nuclei of a field, float (N, 2) in pixels; most of them touch another."""
    low, high = RADII[int(rng.integers(len(RADII)))]
    stretch = math.sqrt(rng.uniform(1.05, 1.7))
    count = int(rng.uniform(0.13, 0.35) * height * width / (math.pi * (size * (low + high) / 2) ** 2))
    disks = np.zeros((0, 3))  # x, y, radius
    angles = np.linspace(0, 2 * math.pi, 32, endpoint=False)
    outlines = []
    for _ in range(max(3, count)):
        radius = size * rng.uniform(low, high)
        middle = rng.uniform(0, (width, height))
        if len(disks) and rng.random() < 0.45:
            x, y, other = disks[int(rng.integers(len(disks)))]
            turn = rng.uniform(0, 2 * math.pi)
            middle = (x, y) + (radius + other) * rng.uniform(0.85, 1) * np.array([math.cos(turn), math.sin(turn)])
        if (np.hypot(*(disks[:, :2] - middle).T) < 0.8 * (radius + disks[:, 2])).any():
            continue  # it would hide another
        disks = np.vstack([disks, [*middle, radius]])
        bumps = sum(rng.normal(0, 0.05) * np.cos(n * angles + rng.uniform(0, 6)) for n in (2, 3))
        oval = np.stack([np.cos(angles) * stretch, np.sin(angles) / stretch]) * (radius * (1 + bumps))
        tilt = rng.uniform(0, math.pi)
        axes = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
        outlines.append(middle + (axes @ oval).T)
    return outlines


def draw_field(rng: np.random.Generator, height: int, width: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture without noise, float (height, width, 3), and its nuclei by number, int32; size: see `RADII`."""
    ids = np.zeros((height, width), np.int32)
    haze = 0.05 + 0.05 * smooth_noise(rng, 64, 64, 12)
    for x, y in rng.integers(0, 64, (int(rng.integers(2, 9)), 2)).tolist():  # out of focus, not annotated
        cv2.circle(haze, (x, y), int(rng.integers(2, 5)), rng.uniform(0.15, 0.4), -1)
    light = cv2.resize(cv2.GaussianBlur(haze, (0, 0), 2.5), (width, height), interpolation=cv2.INTER_CUBIC)
    for number, outline in enumerate(_outlines(rng, height, width, size), start=1):
        points = (16 * outline - 8).round().astype(np.int32)[:, None]
        bright = rng.uniform(0.18, 0.28) if rng.random() < FAINT else rng.uniform(0.45, 0.95)
        cv2.fillPoly(ids, [points], number, shift=4)
        cv2.fillPoly(light, [points], bright, shift=4)
        cv2.polylines(light, [points], True, 0.75 * bright, 1, cv2.LINE_AA, 4)
    light = light * (1 + 0.2 * smooth_noise(rng, height, width, 0.02 * size) * (ids > 0))
    for x, y in rng.uniform(0, (width, height), (int(rng.integers(0, 20)), 2)):  # dust, not annotated
        cv2.circle(light, (int(x), int(y)), max(1, round(0.006 * size)), 0.9, -1)
    light = cv2.GaussianBlur(light, (0, 0), 0.004 * size)[..., None].clip(0, 1)
    if rng.random() < STAINED:
        return GLASS + light * (np.array(pick(rng, STAINS), np.float32) - GLASS), ids
    return np.repeat(rng.uniform(4, 16) + rng.uniform(60, 230) * light, 3, axis=2), ids


def write_image(folder: Path, index: int, images: int, size: int, seed: int) -> dict[str, str]:
    """Write an image, and the numbers of its nuclei in 16 bits, to images/ and labels/; return its name and group."""
    number, place = divmod(index, 5)
    rng = np.random.default_rng([seed, number, place // 4, 2018])
    height, width = (round(size * share) for share in SHAPES[int(rng.integers(len(SHAPES)))])
    rows, columns = (1, 1) if place == 4 else (2, 2)
    picture, ids = draw_field(rng, rows * height, columns * width, size)
    row, column = divmod(place % 4, 2)
    tile = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
    noise = np.random.default_rng([seed, index]).normal(0, 2, (height, width, 1))
    pixels = (picture[tile] + noise).clip(0, 255).astype(np.uint8)
    found, places, counts = np.unique(ids[tile], return_inverse=True, return_counts=True)
    kept = (found > 0) & (counts >= MIN_PIXELS)
    labels = (np.cumsum(kept) * kept)[places].reshape(height, width).astype(np.uint16)
    group = f"field_{2 * number + 1 + place // 4:04d}"
    name = f"{group}_{place % 4 + 1}"
    for part, values in (("images", pixels), ("labels", labels)):
        (folder / part).mkdir(exist_ok=True)
        Image.fromarray(values).save(folder / part / f"{name}.png")
    return {"name": name, "group": group}


def write_lists(folder: Path, records: Sequence[dict[str, str]]) -> None:
    """Write groups.csv, the field of each image, from what `write_image` has returned."""
    write_lines(folder / "groups.csv", ["image,group", *(f"{one['name']},{one['group']}" for one in records)])
