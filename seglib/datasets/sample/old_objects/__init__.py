"""Draws the objects of a scene: people, cats, dogs, balls, books, plants and their surroundings.

A drawing is a list of parts in painting order (see `outlines`); `rasterize` turns it into pixels.
"""

from seglib.datasets.sample.old_objects import surroundings
from seglib.datasets.sample.old_objects.animals import cat, dog
from seglib.datasets.sample.old_objects.outlines import (
    GREENS,
    WOOD,
    Color,
    Drawing,
    Part,
    Point,
    ellipse,
    faded_color,
    mix,
    palette_color,
    pick,
    tint,
    translate,
)
from seglib.datasets.sample.old_objects.people import CROWD_SPACING, POSE_NAMES, crowd, person
from seglib.datasets.sample.old_objects.props import (
    BALL_KINDS,
    PLANT_HEIGHT,
    ball,
    closed_book,
    open_book,
    plant,
    raised_book,
    standing_book,
)
from seglib.datasets.sample.old_objects.raster import EVEN_LIGHT, Sprite, rasterize

__all__ = [
    "BALL_KINDS", "CROWD_SPACING", "EVEN_LIGHT", "GREENS", "PLANT_HEIGHT", "POSE_NAMES", "WOOD", "Color", "Drawing",
    "Part", "Point", "Sprite", "ball", "cat", "closed_book", "crowd", "dog", "ellipse", "faded_color", "mix",
    "translate", "open_book", "palette_color", "person", "pick", "plant", "raised_book", "rasterize",
    "standing_book", "surroundings", "tint",
]  # fmt: skip
