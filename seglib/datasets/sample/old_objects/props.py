"""Draws balls, books and plants, in meters."""

import math

import numpy as np

from seglib.datasets.sample.old_objects.outlines import (
    GREENS,
    UPRIGHT,
    Ball,
    Color,
    Drawing,
    Part,
    Point,
    ellipse,
    limb,
    mix,
    palette_color,
    pick,
    rectangle,
    shade,
    smooth,
    stroke,
    tint,
)

__all__ = [
    "BALL_KINDS", "PLANT_HEIGHT", "ball", "closed_book", "open_book", "plant", "raised_book", "standing_book",
]  # fmt: skip

BALL_KINDS = ("football", "basketball", "tennis", "beach", "volley")
_PAPER: Color = (238, 232, 216)
_PAGE_EDGES: Color = (226, 218, 200)
_PRINT: Color = (150, 146, 140)


def ball(rng: np.random.Generator, kind: str) -> Drawing:
    """Return a ball of diameter 1 on the ground; kind: one of BALL_KINDS."""
    colors = {  # all draw random numbers, so that later ones do not depend on the kind
        "football": (tint(rng, (240, 240, 236), 6), pick(rng, ((30, 30, 34), (30, 30, 34), palette_color(rng)))),
        "basketball": (tint(rng, (206, 108, 48)), (50, 34, 28)),
        "tennis": (tint(rng, (206, 222, 72)), (240, 240, 230)),
        "beach": (palette_color(rng), (244, 242, 236), palette_color(rng)),
        "volley": (tint(rng, (236, 232, 220)), palette_color(rng), palette_color(rng)),
    }[kind]
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return Drawing([Ball(np.array([(-0.5, 0.0), (0.5, 1.0)]), kind, colors, turn)], height=1.0)


# ---------------------------------------------------------------------------------------------------------------- books


def closed_book(rng: np.random.Generator) -> Drawing:
    """Return a closed book that lies on the ground."""
    cover, depth, skew = palette_color(rng), rng.uniform(0.07, 0.11), rng.uniform(-0.06, 0.06)
    thick = rng.uniform(0.03, 0.055)
    top = np.array([(-0.14, thick), (0.14, thick), (0.14 + skew, thick + depth), (-0.14 + skew, thick + depth)])
    label = top * 0.55 + top.mean(axis=0) * 0.45
    spine = shade(cover, 0.75)
    front = spine if rng.random() < 0.5 else _PAGE_EDGES
    parts = [
        Part(rectangle(-0.14, 0, 0.14, thick), spine, flat=True),
        Part(rectangle(-0.132, thick * 0.2, 0.132, thick * 0.8), front, flat=True),
        Part(top, cover, flat=True),
        Part(label, mix(cover, palette_color(rng), 0.6), flat=True),
    ]
    return Drawing(parts, height=thick + depth)


def open_book(rng: np.random.Generator, steep: float = 0.6) -> Drawing:
    """Return an open book; `steep`: 0 for a view along the ground, 1 for a view from above."""
    cover, high = palette_color(rng), 0.3 * steep
    back = np.array([(-0.27, -0.012), (0.27, -0.012), (0.25, high + 0.012), (-0.25, high + 0.012)])
    parts = [Part(back, cover, flat=True)]
    paper = tint(rng, _PAPER, 8)
    page = smooth([(0.004, 0.0), (0.12, 0.018), (0.255, 0.0), (0.24, high), (0.12, high + 0.018), (0.004, high)])
    thick = 0.004 * steep + 0.002  # of a line of print
    for way in (-1, 1):
        parts.append(Part(page * (way, 1), paper if way > 0 else shade(paper, 0.94), flat=True))
        for line in range(6):
            y = high * (0.17 + 0.12 * line)
            end = 0.21 if line else 0.14  # the last line of the paragraph is short
            parts.append(limb((way * 0.035, y), (way * end, y), thick, thick, _PRINT, flat=True))
    parts.append(limb((0, 0), (0, high), 0.005, 0.005, shade(paper, 0.6), flat=True))
    return Drawing(parts, height=high + 0.02)


def raised_book(rng: np.random.Generator) -> Drawing:
    """Return a book in the hands of a reader: both covers and the spine."""
    cover = palette_color(rng)
    half = np.array([(0.01, 0.0), (0.15, 0.025), (0.15, 0.235), (0.01, 0.21)])
    parts = []
    for way in (-1, 1):
        parts.append(Part(half * (way, 1), shade(cover, 1.05 if way > 0 else 0.85), flat=True))
        parts.append(Part(rectangle(0.045, 0.12, 0.115, 0.17) * (way, 1), mix(cover, (240, 225, 190), 0.7), flat=True))
    parts.append(Part(rectangle(-0.012, -0.002, 0.012, 0.212), shade(cover, 0.7), flat=True))
    return Drawing(parts, height=0.235)


def standing_book(rng: np.random.Generator, width: float, height: float, lean: float = 0.0) -> Drawing:
    """Return a book on a shelf; `lean`: how far it leans to the right, divided by its height."""
    cover, band = palette_color(rng), palette_color(rng)
    shear = np.array([[1.0, 0.0], [lean, 1.0]])
    title = rectangle(width * 0.25, height * 0.4, width * 0.75, height * 0.8)
    parts = [
        Part(rectangle(0, 0, width, height) @ shear, cover, axis=UPRIGHT),
        Part(rectangle(0, height * 0.12, width, height * 0.2) @ shear, band, flat=True),
        Part(title @ shear, mix(cover, band, 0.6), flat=True),
    ]
    return Drawing(parts, height=height)


# --------------------------------------------------------------------------------------------------------------- plants

PLANT_HEIGHT = 0.62
_RIM = 0.2  # height of the pot: where everything grows from


def plant(rng: np.random.Generator) -> Drawing:
    """Return a plant in a pot: broad leaves, blades, a cactus or flowers."""
    pot, green = palette_color(rng), tint(rng, pick(rng, GREENS))
    kind = pick(rng, ("leaves", "blades", "cactus", "flowers"))
    parts = _cactus(green) if kind == "cactus" else _foliage(rng, kind, green)
    pot_outline = np.array([(-0.12, _RIM), (0.12, _RIM), (0.085, 0.0), (-0.085, 0.0)])
    parts.append(Part(pot_outline, pot, axis=UPRIGHT))
    parts.append(Part(rectangle(-0.135, 0.18, 0.135, 0.225), shade(pot, 1.1), axis=UPRIGHT))
    return Drawing(parts, height=PLANT_HEIGHT)


def _cactus(green: Color) -> list[Part]:
    return [
        limb((0, _RIM), (0, 0.5), 0.07, 0.06, green),
        limb((0.05, 0.32), (0.14, 0.36), 0.03, 0.03, green),
        limb((0.14, 0.36), (0.14, 0.46), 0.03, 0.028, green),
    ]


def _foliage(rng: np.random.Generator, kind: str, green: Color) -> list[Part]:
    """Nine blades, or nine stems with a leaf on each and a leaf or a flower at its tip, spread like a fan."""
    parts: list[Part] = []
    for spread in np.linspace(-1, 1, 9):
        angle, reach = spread * 1.1 + rng.normal(0, 0.1), rng.uniform(0.26, 0.4)  # radians from upright, meters
        tip = (math.sin(angle) * reach, 0.22 + math.cos(angle) * reach)
        color = shade(green, rng.uniform(0.8, 1.2))
        if kind == "blades":
            parts.append(Part(stroke([(0, _RIM), _on_the_way(tip, 0.4), tip], 0.02, 0.003), color))
            continue
        parts.append(limb((0, _RIM), tip, 0.008, 0.006, shade(green, 0.7)))
        along = math.pi / 2 - angle
        size, bloom, round_ = (0.05, palette_color(rng), 0.9) if kind == "flowers" else (0.075, color, 0.55)
        parts.append(Part(ellipse(_on_the_way(tip, 0.7), size, size * 0.5, along), color))
        parts.append(Part(ellipse(tip, size, size * round_, along), bloom))
    return parts


def _on_the_way(tip: Point, across: float) -> Point:
    """A point from which a stem goes on to its tip: `across` of the way sideways, 0.7 of the way up."""
    return tip[0] * across, _RIM + (tip[1] - _RIM) * 0.7
