"""The elements of every drawing: colors, outlines and parts.

Outlines are in meters (those of people in body heights), x to the right, y up; (0, 0) is where the object touches the
ground.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

__all__ = [
    "DARK", "FAR_SIDE", "GREENS", "PALETTE", "STONE", "UPRIGHT", "WOOD", "Ball", "Color", "Drawing", "Outline",
    "Part", "Pattern", "Point", "blob", "clip_to_ground", "clothes_color", "ellipse", "faded_color", "limb",
    "mirror", "mix", "palette_color", "pick", "rectangle", "shade", "smooth", "stroke", "tint", "translate",
]  # fmt: skip

Color = tuple[int, int, int]
Point = tuple[float, float]
Outline = np.ndarray  # float (n, 2)
Choice = TypeVar("Choice")

# Clothes, walls, books, cars and bushes share one palette, so that color alone does not reveal the class.
PALETTE: tuple[Color, ...] = (
    (178, 42, 48), (40, 72, 140), (72, 120, 190), (58, 110, 62), (120, 150, 80), (214, 176, 70), (232, 226, 214),
    (60, 60, 66), (130, 130, 134), (150, 96, 60), (96, 62, 42), (196, 150, 110), (206, 120, 140), (120, 76, 140),
    (224, 130, 60), (90, 160, 160), (170, 190, 210), (225, 200, 170), (130, 40, 70), (34, 38, 52), (242, 242, 240),
)  # fmt: skip
VIVID = tuple(color for color in PALETTE if max(color) - min(color) > 75)
GREENS: tuple[Color, ...] = ((58, 104, 48), (84, 128, 58), (46, 86, 56), (112, 138, 70), (74, 112, 84))
WOOD: tuple[Color, ...] = ((120, 84, 56), (156, 112, 72), (92, 68, 50), (186, 146, 104), (136, 120, 104))
STONE: tuple[Color, ...] = ((130, 126, 120), (160, 140, 120), (190, 160, 130), (96, 92, 90), (176, 172, 166))
DARK: Color = (34, 28, 28)  # pupils and noses
DUST: Color = (168, 160, 148)  # mixed into the colors of houses and furniture

FAR_SIDE = 0.78  # brightness of the limbs behind a body that is seen from the side
UPRIGHT: Point = (0.0, 1.0)  # the axis of a standing column


# ---------------------------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Pattern:
    """Marks in a second color; kind: "stripes", "bars", "checks" or "dots"; period: a fraction of the height."""

    kind: str
    color: Color
    period: float


@dataclass(frozen=True)
class Part:
    """One painted outline.

    `axis`: the direction along a limb, which is shaded across it. `flat`: without shading of its own.
    """

    outline: Outline
    color: Color
    axis: Point | None = None
    pattern: Pattern | None = None
    flat: bool = False


@dataclass(frozen=True)
class Ball:
    """A sphere with a painted surface.

    `outline`: two corners of the square around it. `turn`: rotation matrix (3, 3).
    """

    outline: Outline
    kind: str
    colors: tuple[Color, ...]
    turn: np.ndarray


@dataclass(frozen=True)
class Drawing:
    """Parts in painting order; `size`: meters per unit of the outlines; `hands`: positions for held objects."""

    parts: Sequence[Part | Ball]
    height: float  # in units of the outlines
    size: float = 1.0
    hands: tuple[Point, Point] = ((0.0, 0.0), (0.0, 0.0))
    fingers: list[Part] = field(default_factory=list)  # painted over held objects

    def with_height(self, meters: float) -> "Drawing":
        """Return the same drawing with a height of `meters`."""
        return replace(self, size=meters / self.height)


def translate(parts: Sequence[Part | Ball], by: Point, scale: float = 1.0) -> list[Part | Ball]:
    """Return the parts, scaled about (0, 0) and then moved."""
    return [replace(part, outline=part.outline * scale + by) for part in parts]


# --------------------------------------------------------------------------------------------------------------- shapes

# Weights of four neighboring points for four steps of the curve from the second to the third point.
_STEPS = np.array([0.0, 0.25, 0.5, 0.75])[:, None]
_CATMULL_ROM = 0.5 * np.hstack([
    -_STEPS + 2 * _STEPS**2 - _STEPS**3, 2 - 5 * _STEPS**2 + 3 * _STEPS**3,
    _STEPS + 4 * _STEPS**2 - 3 * _STEPS**3, -(_STEPS**2) + _STEPS**3,
])  # fmt: skip
_HALF_TURN = np.linspace(-math.pi / 2, math.pi / 2, 7)
_ARC = np.stack([np.cos(_HALF_TURN), np.sin(_HALF_TURN)], axis=1)
_TURN = np.linspace(0, 2 * math.pi, 22, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


def smooth(points: Sequence[Point] | np.ndarray) -> Outline:
    """Return a closed Catmull-Rom curve through the points, with four steps from each point to the next."""
    points = np.asarray(points, dtype=float)
    around = (np.arange(len(points))[:, None] + np.arange(-1, 3)) % len(points)
    return (_CATMULL_ROM @ points[around]).reshape(-1, 2)


def mirror(half: Sequence[Point]) -> Outline:
    """Return a smooth outline that is symmetric about x = 0, from its right half (top to bottom)."""
    return smooth([*half, *((-x, y) for x, y in reversed(half))])


def ellipse(center: Point, rx: float, ry: float, angle: float = 0.0) -> Outline:
    """Return an ellipse, rotated counterclockwise by `angle` radians."""
    c, s = math.cos(angle), math.sin(angle)
    return _CIRCLE * (rx, ry) @ np.array([[c, s], [-s, c]]) + center


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Outline:
    """Return a rectangle along the axes, x0 < x1 and y0 < y1."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)


def blob(rng: np.random.Generator, center: Point, radius: float, flatness: float = 1.0) -> Outline:
    """Return an irregular round outline; `flatness`: height divided by width."""
    corners = _CIRCLE[::2]
    return smooth(corners * radius * rng.uniform(0.8, 1.15, (len(corners), 1)) * (1, flatness) + center)


def clip_to_ground(outline: Outline) -> Outline:
    """Return the outline with all points below the ground moved up to it."""
    return np.maximum(outline, (-math.inf, 0))


def stroke(points: Sequence[Point], start: float, end: float) -> Outline:
    """Return the outline of a smooth curve through the points; its half-width changes from `start` to `end`."""
    inner = np.asarray(points, dtype=float)
    ends = np.vstack([2 * inner[0] - inner[1], inner, 2 * inner[-1] - inner[-2]])
    windows = ends[np.arange(len(inner) - 1)[:, None] + np.arange(4)]
    path = np.vstack([(_CATMULL_ROM @ windows).reshape(-1, 2), inner[-1:]])
    step = np.gradient(path, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1) / (np.hypot(*step.T)[:, None] + 1e-9)
    width = np.linspace(start, end, len(path))[:, None]
    return np.vstack([path + normal * width, (path - normal * width)[::-1]])


def limb(a: Point, b: Point, ra: float, rb: float, color: Color, flat: bool = False) -> Part:
    """Return a limb with round ends from a to b, with half-widths `ra` and `rb`."""
    length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1e-6
    c, s = (b[0] - a[0]) / length, (b[1] - a[1]) / length
    along = np.array([[c, s], [-s, c]])
    return Part(np.concatenate([_ARC @ along * rb + b, -_ARC @ along * ra + a]), color, axis=(c, s), flat=flat)


# -------------------------------------------------------------------------------------------------------------- colors


def pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """Return a random choice; one that is listed twice is twice as likely."""
    return choices[int(rng.integers(len(choices)))]


def tint(rng: np.random.Generator, color: Color, amount: float = 14) -> Color:
    """Return the color with a random change of brightness, and of each channel by about half of `amount`."""
    light = rng.uniform(0.86, 1.08)
    shifts = rng.normal(0, amount / 2, 3)
    red, green, blue = (
        int(min(255, max(0, value * light + shift))) for value, shift in zip(color, shifts, strict=True)
    )
    return red, green, blue


def shade(color: Color, factor: float) -> Color:
    """Return the color, darker (`factor` below 1) or brighter."""
    red, green, blue = (min(255, int(value * factor)) for value in color)
    return red, green, blue


def mix(a: Color, b: Color, share: float) -> Color:
    """Return a mixture of color a (`share` 0) and color b (`share` 1)."""
    red, green, blue = (int(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def palette_color(rng: np.random.Generator) -> Color:
    """Return a random color of the palette."""
    return tint(rng, pick(rng, PALETTE))


def clothes_color(rng: np.random.Generator) -> Color:
    """Return a random color of the palette for clothes, vivid colors more often."""
    return tint(rng, pick(rng, PALETTE if rng.random() < 0.4 else VIVID))


def faded_color(rng: np.random.Generator) -> Color:
    """Return a random color for houses and furniture, in most cases paler than clothes."""
    return mix(palette_color(rng), DUST, rng.uniform(0.2, 0.85))
