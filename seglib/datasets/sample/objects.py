"""Draws the objects of the bundled sample, and writes pictures with the light, noise and EXIF data of a camera.

Lengths are in heights of the object; (0, 0) is where it touches the ground, and y points up.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

__all__ = ["BASE", "KINDS", "Color", "camera", "draw", "pick", "smooth_noise", "tint", "write_jpeg"]

Color = tuple[int, ...]  # red, green, blue
Point = tuple[float, float]
Points = Sequence[Point] | np.ndarray

BASE = 1.12 / 1.17  # an object touches the ground in this row of its picture, as a share of the height of that

# The same colors dress people, cover books and sofas, and paint walls and cars: color does not tell them apart.
PAINT = (
    (176, 52, 54), (46, 78, 138), (84, 128, 186), (66, 114, 72), (208, 172, 84), (118, 82, 134), (214, 130, 70),
    (96, 156, 156), (70, 70, 76), (222, 214, 200), (150, 150, 148), (124, 88, 64),
)  # fmt: skip
SKIN = ((242, 206, 178), (224, 178, 146), (196, 142, 108), (158, 108, 78), (112, 76, 56))
FUR = ((62, 56, 54), (132, 124, 118), (198, 136, 82), (222, 212, 196), (142, 104, 72), (96, 74, 58))
GREEN = ((62, 108, 54), (88, 132, 62), (50, 90, 60))
WOOD = ((122, 86, 58), (158, 114, 76), (94, 70, 52))
DARK = (40, 36, 36)
PAGE = (238, 232, 216)
GLASS = (150, 176, 192)
CIRCLE = np.array([(math.cos(angle), math.sin(angle)) for angle in np.arange(24) * math.pi / 12])


def pick(rng: np.random.Generator, colors: Sequence[Color]) -> Color:
    """Return one of the colors, a little lighter or darker."""
    return tint(colors[int(rng.integers(len(colors)))], rng.uniform(0.85, 1.15))


def tint(color: Color, factor: float) -> Color:
    """Return the color lighter (factor above 1) or darker."""
    return tuple(min(255, int(value * factor)) for value in color)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Return noise with bumps of about `cell` pixels, mostly between -1 and 1: float32 (height, width)."""
    coarse = rng.uniform(-1, 1, (int(height / cell) + 2, int(width / cell) + 2)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def camera(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture with uneven light, a tint and the noise of a sensor: uint8 (H, W, 3).

    Args:
        picture: uint8 or float32 (H, W, 3), from 0 to 255.
        rng: decides how light the picture is and how much noise it has.
    """
    height, width = picture.shape[:2]
    light = 1 + 0.12 * smooth_noise(rng, height, width, max(height, width) / 3)
    color = (rng.uniform(0.78, 1.12) * rng.normal(1, 0.03, 3)).astype(np.float32)
    noise = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(1, 4))
    return np.clip(picture * light[..., None] * color + noise[..., None], 0, 255).astype(np.uint8)


def write_jpeg(path: Path, image: np.ndarray, gray: bool = False, exif: int | None = None) -> None:
    """Write an upright uint8 (H, W, 3) image as a JPEG, in one channel if `gray`; `exif` is an orientation, 6 or 8."""
    raster = Image.fromarray(image).convert("L" if gray else "RGB")
    tags = Image.Exif()
    if exif:
        raster = raster.transpose(Image.Transpose.ROTATE_90 if exif == 6 else Image.Transpose.ROTATE_270)
        tags[ExifTags.Base.Orientation] = exif
    path.parent.mkdir(parents=True, exist_ok=True)
    raster.save(path, quality=90, exif=tags)


class _Pen:
    """Draws at twice the final size; height: pixels of the object's height; width: of the sheet in heights."""

    def __init__(self, height: float, width: float) -> None:
        self.scale = 2 * height
        self.corner = np.array([width / 2, 1.12])  # upper left corner of the sheet
        self.sheet = np.zeros((2 * math.ceil(1.17 * height), 2 * math.ceil(width * height), 4), np.uint8)

    def _to_pixels(self, points: Points) -> np.ndarray:
        """Points as OpenCV takes them with shift=4: sixteenths of a pixel, from the center of the first pixel."""
        return ((self.corner + np.asarray(points) * (1, -1)) * (16 * self.scale) - 8).round().astype(np.int32)

    def polygon(self, points: Points, color: Color) -> None:
        cv2.fillPoly(self.sheet, [self._to_pixels(points)], (*color, 255), shift=4)

    def ellipse(self, center: Point, rx: float, ry: float, color: Color) -> None:
        self.polygon(CIRCLE * (rx, ry) + center, color)

    def line(self, points: Points, widths: Sequence[float], color: Color) -> None:
        """Draw a bent line with round ends; widths: one for each segment."""
        joints = self._to_pixels(points)
        for i, width in enumerate(widths):
            cv2.line(self.sheet, joints[i], joints[i + 1], (*color, 255), max(1, round(width * self.scale)), shift=4)


def _bend(start: Point, lengths: Point, degrees: np.ndarray) -> np.ndarray:
    """The three joints of a limb; degrees: of its segments from straight down, positive to the right."""
    angles = np.radians(degrees)
    steps = np.stack([np.sin(angles), -np.cos(angles)], axis=1) * np.reshape(lengths, (2, 1))
    return np.cumsum([start, *steps], axis=0)


# Angles of the upper and the lower segment of the left arm, the right arm, the left leg and the right leg.
POSES = {
    "stand": ((-14, -6), (14, 8), (-5, -3), (5, 3)),
    "wave": ((-125, -165), (14, 8), (-5, -3), (5, 3)),
    "cheer": ((-140, -165), (140, 165), (-10, -5), (10, 5)),
    "walk": ((-30, -8), (30, 48), (-22, -34), (24, 10)),
    "run": ((-52, 30), (48, 120), (-30, -88), (52, -5)),
    "akimbo": ((-48, 40), (48, -40), (-8, -4), (8, 4)),  # hands on the hips: two holes
    "crouch": ((-30, 30), (30, -30), (-68, 40), (68, -40)),
    "cross-legged": ((-22, 25), (22, -25), (-76, 82), (76, -82)),
    "hold": ((-24, 42), (24, -42), (-5, -3), (5, 3)),
}


def _person(pen: _Pen, rng: np.random.Generator) -> None:
    angles = np.array(POSES[str(rng.choice(list(POSES)))]) + rng.normal(0, 4, (4, 2))
    skin = pick(rng, SKIN)
    trousers = pick(rng, PAINT)
    lower_leg = trousers if rng.random() < 0.6 else skin
    legs = [_bend((x, 0), (0.24, 0.22), degrees) for x, degrees in zip((-0.05, 0.05), angles[2:], strict=True)]
    hip = 0.03 - np.min(legs, axis=(0, 1))[1]  # the lowest joint is just above the ground
    for leg in legs:
        joints = leg + (0, hip)
        pen.ellipse((1.15 * joints[2, 0], joints[2, 1]), 0.05, 0.026, DARK)
        pen.line(joints, (0.1, 0.075), lower_leg)
        pen.line(joints, (0.11,), trousers)
    _upper_body(pen, rng, hip, angles[:2], skin)


def _upper_body(pen: _Pen, rng: np.random.Generator, hip: float, arms: np.ndarray, skin: Color) -> None:
    shirt = pick(rng, PAINT)
    sleeve = tint(shirt, 0.88)
    lower_arm = sleeve if rng.random() < 0.5 else skin
    pen.polygon([(0.13, hip + 0.32), (0.11, hip - 0.02), (-0.11, hip - 0.02), (-0.13, hip + 0.32)], shirt)
    pen.ellipse((0, hip + 0.31), 0.13, 0.045, shirt)
    if rng.random() < 0.35:
        stripes = pick(rng, PAINT)
        for y in hip + np.arange(0.05, 0.3, 0.08):
            pen.line([(-0.085, y), (0.085, y)], (0.035,), stripes)
    for x, degrees in zip((-0.115, 0.115), arms, strict=True):
        joints = _bend((x, hip + 0.31), (0.17, 0.16), degrees)
        pen.line(joints, (0.06, 0.055), lower_arm)
        pen.line(joints, (0.07,), sleeve)
        pen.ellipse(joints[-1], 0.03, 0.03, skin)
    head = hip + 0.42
    pen.ellipse((0, head + 0.015), 0.074, 0.083, pick(rng, FUR))
    if rng.random() < 0.75:  # else seen from behind
        pen.ellipse((0, head - 0.014), 0.062, 0.07, skin)
        for x in (-0.025, 0.025):
            pen.ellipse((x, head), 0.009, 0.011, DARK)


def _animal(pen: _Pen, rng: np.random.Generator, is_cat: bool) -> None:
    """A cat with pointed ears or a dog with hanging ears; it sits or walks."""
    fur = pick(rng, FUR)
    shade = tint(fur, 0.8)
    leg = 0.1 if is_cat else 0.13
    x, y = (0.0, 0.72) if rng.random() < 0.5 else (0.64, 0.68)  # the middle of the head
    if x == 0:
        pen.line([(0.2, 0.06), (0.45, 0.06), (0.55, 0.24)], (leg, leg), shade)
        pen.polygon([(-0.12, 0.7), (0.12, 0.7), (0.3, 0.08), (-0.3, 0.08)], fur)
        pen.ellipse((0, 0.16), 0.31, 0.16, fur)
        pen.ellipse((0, 0.42), 0.1, 0.2, tint(fur, 1.4))
        for side in (-0.1, 0.1):
            pen.line([(side, 0.42), (side, 0.04)], (leg,), tint(fur, 0.92))
    else:
        pen.line([(-0.5, 0.56), (-0.78, 0.7), (-0.8, 0.96)], (leg, leg) if is_cat else (leg,), shade)
        for hip, color in ((-0.44, shade), (0.28, shade), (-0.3, fur), (0.42, fur)):
            pen.line([(hip, 0.4), (hip + rng.uniform(-0.16, 0.16), 0.04)], (1.1 * leg,), color)
        pen.ellipse((0, 0.46), 0.56, 0.2, fur)
        for stripe in (-0.35, -0.19, -0.03, 0.13):
            pen.line([(stripe, 0.62), (stripe + 0.03, 0.45)], (0.04,), shade)
        pen.line([(0.4, 0.5), (0.6, 0.68)], (0.24,), fur)
    pen.ellipse((x, y), 0.24 if is_cat else 0.19, 0.19, fur)
    pen.ellipse((x, y - 0.085), 0.13, 0.095, tint(fur, 1.4))
    pen.ellipse((x, y - 0.04), 0.03 if is_cat else 0.06, 0.03, DARK)
    for side in (-1, 1):
        eye = (x + 0.09 * side, y + 0.05)
        if is_cat:
            pen.polygon(np.array([(0.06, 0.14), (0.21, 0.36), (0.23, 0.03)]) * (side, 1) + (x, y), tint(fur, 0.85))
            pen.ellipse(eye, 0.045, 0.05, (170, 190, 80))
        else:
            pen.line([(x + 0.18 * side, y + 0.1), (x + 0.23 * side, y - 0.13)], (0.14,), tint(fur, 0.7))
        pen.ellipse(eye, 0.02, 0.04, DARK)


def _ball(pen: _Pen, rng: np.random.Generator) -> None:
    """A ball with a patch in the middle and five stripes or further patches around it."""
    color = pick(rng, PAINT)
    pen.ellipse((0, 0.5), 0.5, 0.5, pick(rng, PAINT))
    pen.ellipse((0, 0.5), 0.14, 0.14, color)
    start = rng.choice([0.0, 0.36])  # where the stripes begin
    for turn in rng.uniform(0, 2 * np.pi) + np.arange(5) * 2 * np.pi / 5:
        pen.line(np.outer((start, 0.39), (math.cos(turn), math.sin(turn))) + (0, 0.5), (0.2,), color)


def _plant(pen: _Pen, rng: np.random.Generator) -> None:
    green = pick(rng, GREEN)
    pot = pick(rng, PAINT)
    wide = rng.uniform(0.3, 0.55)
    for spread in rng.permutation(np.linspace(-1, 1, 11)):
        tip = (wide * spread + rng.normal(0, 0.03), 0.98 - 0.35 * spread**2 - rng.uniform(0, 0.2))
        middle = (tip[0] * 0.45, 0.3 + (tip[1] - 0.3) * 0.65)
        pen.line([(0, 0.3), middle, tip], (0.09, 0.06), tint(green, rng.uniform(0.75, 1.3)))
    pen.polygon([(-0.22, 0.36), (0.22, 0.36), (0.15, 0), (-0.15, 0)], pot)


def _tree(pen: _Pen, rng: np.random.Generator) -> None:
    green = pick(rng, GREEN)
    pen.line([(0, 0), (rng.normal(0, 0.02), 0.6)], (0.1,), pick(rng, WOOD))
    for y in np.linspace(0.5, 0.86, 12):
        pen.ellipse((rng.uniform(-0.6, 0.6) * (1 - y), y), 0.2, 0.13, tint(green, 0.4 + 0.8 * y))


# Rigid objects: left, bottom, right and top of rectangles, how much shorter the upper side is at both ends, and how
# much darker than the object each is, or its own color.
RIGID: dict[str, list[tuple[float, float, float, float, float, float | Color]]] = {
    "closed book": [(0.3, 0.03, 0.45, 1, 0, PAGE), (-0.42, 0, 0.36, 0.98, 0, 1), (-0.2, 0.6, 0.24, 0.84, 0, PAGE)],
    "open book": [
        (-0.95, 0, 0.95, 1, 0.09, 1),
        (-0.88, 0.06, -0.02, 0.94, 0.03, PAGE),
        (0.02, 0.06, 0.88, 0.94, 0.03, PAGE),
        *((x, y, x + 0.57, y + 0.04, 0, (150, 146, 140)) for x in (-0.72, 0.15) for y in (0.2, 0.35, 0.5, 0.65, 0.8)),
    ],
    "car": [
        (-0.95, 0.58, 0.95, 1, 0.3, 0.92),
        (-1.42, 0.22, 1.45, 0.62, 0.06, 1),
        (-0.78, 0.62, -0.05, 0.92, 0.14, GLASS),
        (0.05, 0.62, 0.78, 0.92, 0.14, GLASS),
    ],
    "sofa": [
        (-1, 0.1, 1, 1, 0.04, 0.82),
        (-1, 0.08, 1, 0.54, 0, 1),
        (-1.25, 0, -0.94, 0.72, 0.03, 1.1),
        (0.94, 0, 1.25, 0.72, 0.03, 1.1),
    ],
    "table": [
        (-0.88, 0, -0.7, 0.85, 0, 0.6),
        (0.7, 0, 0.88, 0.85, 0, 0.6),
        (-0.92, 0.66, 0.92, 1, 0.1, 1.1),
    ],
    "box": [(-0.6, 0, 0.6, 0.84, 0, 1), (-0.6, 0.82, 0.6, 1, 0.12, 1.15)],
    "post": [(-0.03, 0, 0.03, 0.97, 0, 1)],
}


def _rigid(pen: _Pen, rng: np.random.Generator, names: Sequence[str]) -> None:
    """One of the objects of RIGID, a little wider or narrower."""
    name = str(rng.choice(names))
    color = pick(rng, (*PAINT, *WOOD))
    stretch = (rng.uniform(0.85, 1.15), 1)
    for left, bottom, right, top, slant, look in RIGID[name]:
        corners = np.array([(left, bottom), (right, bottom), (right - slant, top), (left + slant, top)])
        pen.polygon(corners * stretch, look if isinstance(look, tuple) else tint(color, look))
    if name == "car":
        for x in (-0.85, 0.88):
            pen.ellipse((x * stretch[0], 0.23), 0.24, 0.24, DARK)


# How each object is drawn, its height in meters, and the width of its sheet in heights.
KINDS: dict[str, tuple[Callable[..., None], float, float]] = {
    "person": (_person, 1.7, 1.1),
    "cat": (partial(_animal, is_cat=True), 0.5, 2.3),
    "dog": (partial(_animal, is_cat=False), 0.66, 2.3),
    "sports ball": (_ball, 0.36, 1.06),
    "book": (partial(_rigid, names=["closed book", "open book"]), 0.36, 2.3),
    "potted plant": (_plant, 0.65, 1.3),
    "tree": (_tree, 4.0, 1.2),
    "car": (partial(_rigid, names=["car"]), 1.4, 3.4),
    "sofa": (partial(_rigid, names=["sofa"]), 0.9, 2.9),
    "table": (partial(_rigid, names=["table"]), 0.75, 2.1),
    "box": (partial(_rigid, names=["box"]), 0.45, 1.6),
    "post": (partial(_rigid, names=["post"]), 2.4, 0.1),
}


def draw(name: str, rng: np.random.Generator, meters: float, scale: float) -> np.ndarray:
    """Return an object of KINDS as it looks by chance: float32 (h, w, 4), premultiplied RGBA; opacity is from 0 to 1.

    Args:
        name: a key of KINDS.
        rng: decides how it looks.
        meters, scale: its height in meters, and pixels per meter.
    """
    function, _, width = KINDS[name]
    pen = _Pen(meters * scale, width)
    function(pen, rng)
    sheet = pen.sheet[:, ::-1] if rng.random() < 0.5 else pen.sheet
    sprite = cv2.resize(sheet, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32)
    sprite[..., 3] /= 255
    sprite[..., :3] *= 0.35 + 0.65 * cv2.blur(sprite[..., 3:], (5, 5))[..., None]  # darker towards the edge
    return sprite
