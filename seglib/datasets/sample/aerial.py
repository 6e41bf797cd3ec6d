"""Scenes from above: streets, lots, buildings with their shadows, trees and cars.

Positions are in meters from the middle of the land, along axes that are parallel to the streets.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from seglib.datasets.sample.objects import CIRCLE, Color, camera, pick, smooth_noise, tint

__all__ = ["DISTRICTS", "SURFACES", "AerialScene", "District", "make_aerial_scene", "paint_aerial_scene"]

Outline = np.ndarray  # float (N, 2), clockwise in a picture; that of a hole runs the other way round
Lot = tuple[float, float, float, float]  # x and y of the upper left corner, width, depth
Patch = tuple[list[Outline], Color | None, int]  # outlines, of which a second is a hole; color, None: a shadow; surface

SURFACES = ("grass", "soil", "paving", "road", "car", "building", "tree")  # what a pixel shows
GRASS, SOIL, PAVING, ROAD, CAR, BUILDING, TREE = range(len(SURFACES))
ROUGHNESS = np.array([0.2, 0.2, 0.12, 0.1, 0.03, 0.06, 0.3], np.float32)  # how strong the texture of each surface is
ASPHALT = (102, 102, 106)
COLORS: dict[int, Sequence[Color]] = {
    GRASS: ((88, 108, 62), (70, 92, 54), (106, 118, 70), (130, 128, 88)),
    SOIL: ((150, 112, 86), (158, 146, 102), (126, 92, 74), (112, 122, 70)),
    PAVING: ((150, 144, 134), (186, 180, 170), (108, 108, 110), (160, 112, 90)),
    ROAD: (ASPHALT, (206, 202, 194), (184, 178, 168)),
    CAR: ((232, 232, 232), (40, 42, 48), (150, 154, 160), (150, 40, 40), (60, 84, 140)),
    TREE: ((58, 84, 44), (74, 98, 48), (48, 72, 46), (92, 104, 52)),
}
# Roofs have colors that the ground has as well.
TILES = ((158, 80, 62), (156, 112, 88), (116, 84, 74), (98, 98, 104), (92, 106, 68))
FLAT = ((206, 202, 194), (184, 178, 168), (156, 150, 140), (106, 106, 110), (150, 116, 94))
METAL = ((72, 112, 172), (110, 144, 180), (214, 216, 218), (156, 70, 60), (104, 136, 122))
# Colors, and how much brighter the side towards the sun is.
ROOFS = {"hip": (TILES, 0.26), "gable": (TILES, 0.26), "flat": (FLAT, 0.0), "metal": (METAL, 0.13)}
WINGS = {"I": 1.0, "L": 0.45, "O": 0.32}  # width of a wing, as a share of the shorter side, by plan


@dataclass
class AerialScene:
    """What there is on a piece of land."""

    rng: np.random.Generator
    view: float  # width of the picture in meters
    turn: float  # angle of the streets in the picture in radians
    shadow: np.ndarray  # (2,) where the shadow of a point one meter high falls, in meters
    center: tuple[float, float] = (0.0, 0.0)  # of the picture, in meters; a small change moves the camera
    buildings: list[list[Outline]] = field(default_factory=list)  # outlines of a roof and of its courtyard, if any
    ground: list[Patch] = field(default_factory=list)
    shadows: list[Patch] = field(default_factory=list)
    roofs: list[Patch] = field(default_factory=list)
    trees: list[tuple[float, float, float]] = field(default_factory=list)  # x, y, radius
    bridges: list[Outline] = field(default_factory=list)

    def to_pixels(self, points: Outline, size: int) -> Outline:
        """Convert points (N, 2) from meters to pixels of a picture `size` pixels wide."""
        return (points - self.center) @ _rotation(self.turn) * (size / self.view) + size / 2

    def shows(self, x: float, y: float, margin: float) -> bool:
        """Return whether a point is in the picture or at most `margin` meters beside it."""
        return bool(np.abs(self.to_pixels(np.array([x, y]), 1) - 0.5).max() < 0.5 + margin / self.view)

    def cover(self, lot: Lot, surface: int, colors: Sequence[Color] = ()) -> None:
        """Cover ground with a surface, in one of the colors; (): those of the surface."""
        self.ground.append(([_box(*lot)], pick(self.rng, colors or COLORS[surface]), surface))

    def plant(self, lot: Lot, area: float) -> None:
        """Plant trees, one for each `area` in square meters."""
        x, y, width, depth = lot
        count = self.rng.poisson(width * depth / area)
        self.trees += self.rng.uniform((x, y, 1.3), (x + width, y + depth, 3.2), (count, 3)).tolist()


def _box(x: float, y: float, width: float, depth: float) -> Outline:
    return np.array([(x, y), (x + width, y), (x + width, y + depth), (x, y + depth)], dtype=float)


def _rotation(angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _plan(kind: str, size: Sequence[float], wing: float) -> list[Outline]:
    """The outline of a roof whose wings are `wing` meters wide, and that of its courtyard if there is one."""
    x, y = np.array(size) / 2
    whole = _box(-x, -y, 2 * x, 2 * y)
    if kind == "L":
        return [np.array([*whole[:2], (x, wing - y), (wing - x, wing - y), (wing - x, y), (-x, y)])]
    courtyard = _box(wing - x, wing - y, 2 * (x - wing), 2 * (y - wing))[::-1]
    return [whole, courtyard] if kind == "O" else [whole]


def _roof(rng: np.random.Generator, outlines: list[Outline], kind: str, wing: float, sun: np.ndarray) -> list[Patch]:
    """What is painted of a roof, which rises from each side to the ridge; sun: the direction towards the sun."""
    colors, slope = ROOFS[kind]
    color = pick(rng, colors)
    patches: list[Patch] = [(outlines, tint(color, 0.8 if slope else 1.12), BUILDING)]
    for outline in outlines:
        sides = np.roll(outline, -1, axis=0) - outline
        normals = sides[:, ::-1] * (-1, 1) / np.hypot(sides[:, :1], sides[:, 1:])
        inward = normals + np.roll(normals, 1, axis=0)  # how far each corner moves if all sides move by a meter
        eaves = outline + 0.4 * inward
        ridge = outline + wing / 2 * inward
        if len(outline) == 4 and len(outlines) == 1 and kind in ("gable", "metal"):
            ridge = (eaves + eaves[::-1]) / 2
        for i in range(len(outline)):
            face = np.array([eaves[i - 1], eaves[i], ridge[i], ridge[i - 1]])
            patches.append(([face], tint(color, 1 - slope * float(normals[i - 1] @ sun)), BUILDING))
    return patches


def _parking(scene: AerialScene, lot: Lot) -> None:
    """Rows of cars on asphalt, or on ground as light as a flat roof."""
    x, y, width, depth = lot
    scene.cover(lot, ROAD)
    for row in np.arange(y + 2, y + depth - 5, 8.5):
        for column in np.arange(x + 1, x + width - 2.5, 2.9):
            if scene.rng.random() < 0.5:
                scene.cover((column, row, 2.0, 4.4), CAR)


class District(NamedTuple):
    """How a kind of land is divided and built on; lengths in meters."""

    view: tuple[float, float]  # range of the width of a picture
    lot: tuple[float, float]  # width and depth
    columns: int  # lots side by side in a block, which has two rows
    built: float  # share of the lots with a building
    part: tuple[float, float]  # of the width and the depth of its lot that a building takes; 1: wall to wall
    plans: str
    roofs: tuple[str, ...]
    others: tuple[Callable[[AerialScene, Lot], None], ...]  # for lots without a building


_lawn = partial(AerialScene.plant, area=150.0)
_wood = partial(AerialScene.plant, area=20.0)
_crops = partial(AerialScene.cover, surface=SOIL)
_court = partial(AerialScene.cover, surface=PAVING, colors=(*TILES, *METAL))  # a sports ground in the color of a roof
DISTRICTS = {
    "suburb": District((48, 66), (19, 23), 4, 0.88, (0.72, 0.52), "IIIL", ("hip", "gable", "flat"), (_lawn, _court)),
    "terraces": District((48, 64), (9, 24), 8, 0.94, (1, 0.48), "I", ("gable", "flat"), (_lawn,)),
    "town": District((78, 104), (34, 31), 3, 0.82, (0.85, 0.75), "ILLO", ("hip", "flat"), (_parking, _lawn, _court)),
    "works": District((100, 140), (52, 42), 2, 0.84, (0.8, 0.72), "IIL", ("metal", "flat"), (_parking, _crops)),
    "country": District((70, 95), (38, 34), 2, 0.5, (0.55, 0.42), "IL", ("gable", "hip", "metal"), (_crops, _wood)),
    "open": District((80, 140), (38, 34), 2, 0.0, (0, 0), "", (), (_crops, _wood, _lawn, _parking, _court)),
}
DISTRICTS["courtyards"] = DISTRICTS["town"]._replace(plans="O", built=1.0)
DISTRICTS["dense"] = DISTRICTS["terraces"]._replace(view=(94, 104))
DISTRICTS["bridge"] = DISTRICTS["works"]._replace(view=(80, 100), plans="I", built=1.0)


def make_aerial_scene(rng: np.random.Generator, kind: str, view: float | None = None) -> AerialScene:
    """Return a piece of land.

    Args:
        rng: decides what there is.
        kind: a key of DISTRICTS.
        view: width of the picture in meters; None: what is usual for the kind.
    """
    district = DISTRICTS[kind]
    azimuth = rng.uniform(0, 2 * np.pi)
    shadow = rng.uniform(0.5, 1.0) * np.array([np.cos(azimuth), np.sin(azimuth)])
    scene = AerialScene(rng, view or rng.uniform(*district.view), rng.uniform(0, np.pi), shadow)
    _settle(scene, district)
    solid = [outlines[0] for outlines in scene.buildings]
    if kind == "bridge":  # across the building in the middle
        x, _ = min((outline.mean(axis=0) for outline in solid), key=lambda middle: float(np.hypot(*middle)))
        scene.bridges.append(_box(x - 6, -scene.view, 12, 2 * scene.view).astype(np.float32))
        solid += scene.bridges
    scene.trees = [  # those that hide no more than an edge or a corner of a roof
        (x, y, radius)
        for x, y, radius in scene.trees
        if scene.shows(x, y, 5) and all(cv2.pointPolygonTest(outline, (x, y), True) < 1.0 - radius for outline in solid)
    ]
    return scene


def _settle(scene: AerialScene, district: District) -> None:
    """Lay out streets and blocks, and use the lots."""
    rng = scene.rng
    street = rng.uniform(6, 9)
    width, depth = district.lot
    across, down = district.columns * width, 2 * depth
    reach = 0.75 * scene.view + 10
    scene.cover((-2 * reach, -2 * reach, 4 * reach, 4 * reach), ROAD, [ASPHALT])
    for x in np.arange(-reach - rng.uniform(0, across), reach, across + street):
        for y in np.arange(-reach - rng.uniform(0, down), reach, down + street):
            scene.cover((x - 1.6, y - 1.6, across + 3.2, down + 3.2), PAVING)
            scene.cover((x, y, across, down), GRASS)
            for along in rng.uniform(0, across, 4):
                scene.cover((x + along, y - 0.5 * street, 4.4, 2.0), CAR)
            for column, row in np.ndindex(district.columns, 2):
                lot = (x + column * width, y + row * depth, width, depth)
                middle = (lot[0] + width / 2, lot[1] + depth / 2)
                if not scene.shows(*middle, margin=0.7 * max(width, depth)):
                    continue
                if rng.random() >= district.built:
                    district.others[rng.integers(len(district.others))](scene, lot)
                elif scene.shows(*middle, margin=0.1 * depth):  # the border cuts buildings, but leaves no slivers
                    _build(scene, lot, district, front=2 * row - 1)


def _build(scene: AerialScene, lot: Lot, district: District, front: int) -> None:
    """Build on a lot, whose street is above it (front: -1) or below (1)."""
    rng = scene.rng
    x, y, width, depth = lot
    vary = float(district.part[0] < 1)  # else the buildings stand wall to wall
    if vary and rng.random() < 0.4:
        scene.cover(lot, PAVING)
    size = (width, depth) * np.array(district.part) * (1 + vary * rng.uniform(-0.2, 0.1, 2))
    middle = (x + width / 2, y + depth / 2 + front * (depth - size[1]) * (0.2 + vary * rng.uniform(-0.2, 0.1)))
    turn = _rotation(vary * rng.normal(0, 0.04) + np.pi * rng.integers(2))
    plan = district.plans[rng.integers(len(district.plans))]
    wing = WINGS[plan] * min(size)
    outlines = [(outline @ turn + middle).astype(np.float32) for outline in _plan(plan, size, wing)]
    roof = district.roofs[rng.integers(len(district.roofs))]
    way = rng.uniform(1.0, 1.9) * math.sqrt(min(size)) * scene.shadow  # of the shadow of the roof
    scene.shadows += [([outline + step * way for outline in outlines], None, 0) for step in np.linspace(0, 1, 9)]
    scene.roofs += _roof(rng, outlines, roof, wing, sun=-scene.shadow / np.hypot(*scene.shadow))
    scene.buildings.append(outlines)
    scene.plant(lot, area=180)


def paint_aerial_scene(scene: AerialScene, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint a scene.

    Args:
        scene: what there is.
        size: width of the picture in pixels.
        rng: decides the texture of surfaces and the noise of the camera.

    Returns:
        The picture, uint8 (size, size, 3), and the surface of each pixel, an index into SURFACES, uint8 (size, size).
    """
    patches = [*scene.ground, *scene.shadows, *scene.roofs]
    for bridge in scene.bridges:
        patches += [([bridge + 10 * scene.shadow], None, 0), ([bridge], ASPHALT, ROAD)]
    for i, (x, y, radius) in enumerate(scene.trees):
        green = COLORS[TREE][i % len(COLORS[TREE])]
        patches.append(([radius * (CIRCLE + 1.2 * scene.shadow) + (x, y)], None, 0))
        for part, tone in ((1.0, 0.65), (0.75, 0.85), (0.4, 1.1)):  # brighter towards the sun
            crown = part * CIRCLE - 0.9 * (1 - part) * scene.shadow
            patches.append(([radius * crown + (x, y)], tint(green, tone), TREE))
    canvas, shade = _fill(scene, patches, 2 * size)
    surfaces = canvas[1::2, 1::2, 3].copy()
    meter = size / scene.view
    texture = 0.4 * smooth_noise(rng, size, size, 8 * meter) + 0.5 * smooth_noise(rng, size, size, max(1.5, meter))
    texture += 0.25 * rng.standard_normal((size, size), np.float32)
    light = 1 - np.float32(0.54 / 255) * cv2.resize(shade, (size, size), interpolation=cv2.INTER_AREA)
    light *= 1 + ROUGHNESS[surfaces] * texture
    pixels = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)[..., :3]
    return camera(pixels * light[..., None], rng), surfaces


def _fill(scene: AerialScene, patches: Sequence[Patch], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Paint patches one after the other: their color and surface, uint8 (size, size, 4), and the shade on them."""
    canvas = np.zeros((size, size, 4), np.uint8)
    shade = np.zeros((size, size), np.uint8)
    outlines = [outline for loops, _, _ in patches for outline in loops]
    points = scene.to_pixels(np.concatenate(outlines), size) - 0.5  # OpenCV's integers are the middles of pixels
    fixed = np.rint(16 * points).astype(np.int32)  # with shift=4
    pieces = iter(np.split(fixed, np.cumsum([len(outline) for outline in outlines])[:-1]))
    for loops, color, surface in patches:
        here = [next(pieces) for _ in loops]
        cv2.fillPoly(shade, here, 0 if color else 255, shift=4)
        if color:
            cv2.fillPoly(canvas, here, (*color, surface), shift=4)
    return canvas, shade
