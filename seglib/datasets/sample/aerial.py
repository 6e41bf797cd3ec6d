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

from seglib.datasets.sample.objects import Color, camera, pick, smooth_noise, tint

__all__ = [
    "DISTRICTS", "SURFACES", "AerialScene", "Building", "District", "Patch", "make_aerial_scene", "paint_aerial_scene",
]  # fmt: skip

Outline = np.ndarray  # float (N, 2), clockwise in a picture; that of a hole runs the other way round
Lot = tuple[float, float, float, float]  # x and y of the upper left corner, width, depth

SURFACES = ("grass", "soil", "paving", "road", "car", "building", "tree")  # what a pixel shows
GRASS, SOIL, PAVING, ROAD, CAR, BUILDING, TREE = range(len(SURFACES))
ROUGHNESS = np.array([0.2, 0.2, 0.12, 0.1, 0.03, 0.06, 0.3], np.float32)  # how strong the texture of each surface is
ASPHALT = (102, 102, 106)
COLORS: dict[int, Sequence[Color]] = {
    GRASS: ((88, 108, 62), (70, 92, 54), (106, 118, 70), (130, 128, 88)),
    SOIL: ((150, 112, 86), (158, 146, 102), (126, 92, 74), (112, 122, 70)),
    PAVING: ((150, 144, 134), (186, 180, 170), (108, 108, 110), (160, 112, 90)),
    CAR: ((232, 232, 232), (40, 42, 48), (150, 154, 160), (150, 40, 40), (60, 84, 140)),
    TREE: ((58, 84, 44), (74, 98, 48), (48, 72, 46), (92, 104, 52)),
}
# Roofs have colors that the ground has as well.
TILES = ((158, 80, 62), (156, 112, 88), (116, 84, 74), (98, 98, 104), (92, 106, 68))
FLAT = ((206, 202, 194), (184, 178, 168), (156, 150, 140), (106, 106, 110), (150, 116, 94))
METAL = ((72, 112, 172), (110, 144, 180), (214, 216, 218), (156, 70, 60), (104, 136, 122))
ROOFS: dict[str, Sequence[Color]] = {"hip": TILES, "gable": TILES, "flat": FLAT, "metal": METAL}
SLOPES = {"hip": 0.26, "gable": 0.26, "flat": 0.0, "metal": 0.13}  # how much brighter the side towards the sun is
PAINT = (214, 212, 204)
WINGS = {"I": 1.0, "L": 0.45, "U": 0.36, "O": 0.32}  # width of a wing, as a share of the shorter side, by plan
EAVE = 0.4  # width of the visible edge of a roof in meters
SHADE = 0.54  # share of the light that a shadow takes
DARK, LIT = (255,), (0,)  # with and without a shadow
CIRCLE = np.array([(math.cos(angle), math.sin(angle)) for angle in np.arange(14) * (2 * math.pi / 14)])
ZOOM = 2  # painted at twice the size
SHIFT = 4  # binary places of OpenCV's coordinates


class Patch(NamedTuple):
    """A piece of one color; a second outline is a hole."""

    outlines: Sequence[Outline]
    color: Sequence[int]
    surface: int


class Building(NamedTuple):
    """A building, as it is seen from above."""

    outlines: Sequence[Outline]  # of the roof, and of the courtyard if there is one
    patches: Sequence[Patch]  # what is painted
    height: float  # meters


@dataclass
class AerialScene:
    """What there is on a piece of land."""

    rng: np.random.Generator
    view: float  # width of the picture in meters
    turn: float  # angle of the streets in the picture in radians
    shadow: np.ndarray  # (2,) where the shadow of a point one meter high falls, in meters
    center: tuple[float, float] = (0.0, 0.0)  # of the picture, in meters; a small change moves the camera
    ground: list[Patch] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    trees: list[tuple[float, float, float]] = field(default_factory=list)  # x, y, radius
    bridge: Outline | None = None  # a rectangle along y

    def to_pixels(self, points: Outline, size: int) -> Outline:
        """Convert points (N, 2) from meters to pixels of a picture `size` pixels wide."""
        return (points - self.center) @ _rotation(self.turn) * (size / self.view) + size / 2

    def shows(self, x: float, y: float, margin: float) -> bool:
        """Return whether a point is in the picture or at most `margin` meters beside it."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return max(abs(x * cos - y * sin), abs(x * sin + y * cos)) < self.view / 2 + margin

    def cover(self, lot: Lot, surface: int, color: Color | None = None) -> None:
        """Cover ground with a surface; color: None for one that the surface has."""
        self.ground.append(Patch([_box(*lot)], color or pick(self.rng, COLORS[surface]), surface))

    def plant(self, lot: Lot, area: float) -> None:
        """Plant trees, one for each `area` in square meters."""
        x, y, width, depth = lot
        count = self.rng.poisson(width * depth / area)
        self.trees += self.rng.uniform((x, y, 1.3), (x + width, y + depth, 3.2), (count, 3)).tolist()

    def park(self, x: float, y: float, upright: bool) -> None:
        """Park a car or a van with its middle at a point, along y if it is upright, else along x."""
        length = 6.8 if self.rng.random() < 0.15 else 4.4
        width, depth = (2.0, length) if upright else (length, 2.0)
        dx, dy = 1.2 * self.shadow
        self.cover((x - width / 2 + dx, y - depth / 2 + dy, width, depth), ROAD, (48, 48, 52))
        self.cover((x - width / 2, y - depth / 2, width, depth), CAR)
        self.cover((x - 0.3 * width, y - 0.3 * depth, 0.6 * width, 0.6 * depth), CAR, (60, 66, 76))

    def build(self, plan: str, roof: str, at: Sequence[float], size: Sequence[float], turn: float) -> None:
        """Put up a building.

        Args:
            plan: a key of WINGS; "O" has a courtyard.
            roof: a key of ROOFS.
            at: its middle.
            size: its length along x and its width in meters.
            turn: its angle against the streets in radians.
        """
        matrix = np.diag(self.rng.choice((-1.0, 1.0), 2)) @ _rotation(turn)
        sun = matrix @ -self.shadow / np.hypot(*self.shadow)  # the direction towards the sun, on the plan
        deep = WINGS[plan] * min(size)
        patches = [
            patch._replace(outlines=[(outline @ matrix + at).astype(np.float32) for outline in patch.outlines])
            for patch in _roof(self.rng, _plan(plan, size, deep), roof, deep, sun)
        ]
        self.buildings.append(Building(patches[0].outlines, patches, self.rng.uniform(1.0, 1.9) * math.sqrt(min(size))))


def _box(x: float, y: float, width: float, depth: float) -> Outline:
    return np.array([(x, y), (x + width, y), (x + width, y + depth), (x, y + depth)], dtype=float)


def _rotation(angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _inward(outline: Outline) -> np.ndarray:
    """How far each corner moves if all sides move inwards by a meter; all corners are right angles."""
    sides = outline[[*range(1, len(outline)), 0]] - outline
    normals = sides[:, ::-1] * (-1, 1) / np.hypot(sides[:, :1], sides[:, 1:])
    return normals + normals[[-1, *range(len(outline) - 1)]]


# ------------------------------------------------------------------------------------------------ roofs


def _plan(kind: str, size: Sequence[float], deep: float) -> list[Outline]:
    """The outline of a roof whose wings are `deep` meters wide, and that of its courtyard if there is one."""
    length, width = size
    x, y = length / 2, width / 2
    inner = deep - y  # where the first wing ends and others begin
    whole = _box(-x, -y, length, width)
    match kind:
        case "L":
            return [np.array([*whole[:2], (x, inner), (deep - x, inner), (deep - x, y), (-x, y)])]
        case "U":
            gap = [(x - deep, y), (x - deep, inner), (deep - x, inner), (deep - x, y)]
            return [np.array([*whole[:3], *gap, (-x, y)])]
        case "O":
            return [whole, _box(deep - x, inner, length - 2 * deep, -2 * inner)[::-1]]
    return [whole]


def _roof(rng: np.random.Generator, outlines: list[Outline], kind: str, deep: float, sun: np.ndarray) -> list[Patch]:
    """What is painted of a roof, which rises from each side to the ridge; sun: the direction towards the sun."""
    color = pick(rng, ROOFS[kind])
    patches = [Patch(outlines, tint(color, 1.12 if kind == "flat" else 0.8), BUILDING)]
    is_plain = sum(map(len, outlines)) == 4
    for outline in outlines:
        inward = _inward(outline)
        eaves = outline + EAVE * inward
        ridge = outline + deep / 2 * inward
        if is_plain and kind in ("gable", "metal"):
            ridge = eaves * (1, 0)
        for i in range(len(outline)):
            x, y = (eaves[i] - eaves[i - 1]) / math.dist(eaves[i], eaves[i - 1])
            face = np.array([eaves[i - 1], eaves[i], ridge[i], ridge[i - 1]])
            patches.append(Patch([face], tint(color, 1 + SLOPES[kind] * float(y * sun[0] - x * sun[1])), BUILDING))
    if is_plain and kind == "flat":
        for x, y in np.ptp(outlines[0], axis=0) * rng.uniform(-0.3, 0.3, (rng.integers(4), 2)):
            machine = _box(x, y, *rng.uniform(1.2, 2.6, 2))
            patches.append(Patch([machine - 0.8 * sun], tint(color, 0.55), BUILDING))
            patches.append(Patch([machine], tint(color, 1.1), BUILDING))
    return patches


# ------------------------------------------------------------------------------------------------ districts


def _lawn(scene: AerialScene, lot: Lot, area: float = 150.0) -> None:
    scene.cover(lot, GRASS)
    scene.plant(lot, area)


def _crops(scene: AerialScene, lot: Lot) -> None:
    """Rows of plants on soil in the colors of tiles."""
    x, y, width, depth = lot
    color = pick(scene.rng, COLORS[SOIL])
    scene.cover(lot, SOIL, color)
    for row in np.arange(1, depth - 1, 2.4):
        scene.cover((x, y + row, width, 0.8), SOIL, tint(color, 0.88))


def _parking(scene: AerialScene, lot: Lot) -> None:
    """Rows of cars on asphalt, or on ground as light as a flat roof."""
    x, y, width, depth = lot
    scene.cover(lot, ROAD, pick(scene.rng, [ASPHALT, *FLAT[:2]]))
    for row in np.arange(y + 4, y + depth - 3, 8.5):
        for at in np.arange(x + 2, x + width - 1.5, 2.9):
            scene.cover((at - 1.5, row - 2.6, 0.12, 5.2), ROAD, PAINT)
            if scene.rng.random() < 0.5:
                scene.park(at, row, upright=True)


def _court(scene: AerialScene, lot: Lot) -> None:
    """A sports ground in the color of a roof, with a white line around it."""
    x, y, width, depth = lot
    color = pick(scene.rng, [*TILES, *METAL])
    scene.cover(lot, GRASS)
    scene.cover((x + 2, y + 2, width - 4, depth - 4), PAVING, color)
    scene.cover((x + 3.5, y + 3.5, width - 7, depth - 7), PAVING, PAINT)
    scene.cover((x + 3.8, y + 3.8, width - 7.6, depth - 7.6), PAVING, color)


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


_wood = partial(_lawn, area=20.0)
DISTRICTS = {
    "suburb": District((48, 66), (19, 23), 4, 0.88, (0.72, 0.52), "IIIL", ("hip", "gable", "flat"), (_lawn, _court)),
    "terraces": District((48, 64), (9, 24), 8, 0.94, (1, 0.48), "I", ("gable", "flat"), (_lawn,)),
    "town": District((78, 104), (34, 31), 3, 0.82, (0.85, 0.75), "ILUO", ("hip", "flat"), (_parking, _lawn, _court)),
    "works": District((100, 140), (52, 42), 2, 0.84, (0.8, 0.72), "IIL", ("metal", "flat"), (_parking, _crops)),
    "country": District((70, 95), (38, 34), 2, 0.5, (0.55, 0.42), "IL", ("gable", "hip", "metal"), (_crops, _wood)),
    "open": District((80, 140), (38, 34), 2, 0.0, (0, 0), "", (), (_crops, _wood, _lawn, _parking, _court)),
    "dense": District((94, 104), (8, 24), 9, 0.98, (1, 0.48), "I", ("gable", "flat"), (_lawn,)),
    "sheds": District((105, 115), (11, 11), 6, 0.3, (0.33, 0.26), "I", ("gable", "metal"), (_lawn, _crops)),
}
DISTRICTS["courtyards"] = DISTRICTS["town"]._replace(plans="O", built=1.0)
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
    solid = [building.outlines[0] for building in scene.buildings]
    if kind == "bridge":  # across the building in the middle
        x, _ = min((outline.mean(axis=0) for outline in solid), key=lambda middle: float(np.hypot(*middle)))
        scene.bridge = _box(x - 6, -scene.view, 12, 2 * scene.view).astype(np.float32)
        solid.append(scene.bridge)
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
    scene.cover((-2 * reach, -2 * reach, 4 * reach, 4 * reach), ROAD, ASPHALT)
    for x in np.arange(-reach - rng.uniform(0, across), reach, across + street):
        _mark_street(scene, x - street / 2, -reach, reach, upright=True)
        for y in np.arange(-reach - rng.uniform(0, down), reach, down + street):
            _mark_street(scene, y - street / 2, x, x + across, upright=False)
            scene.cover((x - 1.6, y - 1.6, across + 3.2, down + 3.2), PAVING)
            scene.cover((x, y, across, down), GRASS)
            for column, row in np.ndindex(district.columns, 2):
                lot = (x + column * width, y + row * depth, width, depth)
                middle = (lot[0] + width / 2, lot[1] + depth / 2)
                if not scene.shows(*middle, margin=0.7 * max(width, depth)):
                    continue
                if rng.random() < district.built:
                    if scene.shows(*middle, margin=0.1 * depth):  # the border cuts buildings, but leaves no slivers
                        _build_on_lot(scene, lot, district, front=2 * row - 1)
                else:
                    district.others[rng.integers(len(district.others))](scene, lot)


def _build_on_lot(scene: AerialScene, lot: Lot, district: District, front: int) -> None:
    """Build on a lot, whose street is above it (front: -1) or below (1)."""
    rng = scene.rng
    x, y, width, depth = lot
    in_row = district.part[0] == 1
    size = (width, depth) * np.array(district.part) * (1 if in_row else rng.uniform(0.8, 1.1, 2))
    shift = front * (depth - size[1]) * (0.2 if in_row else rng.uniform(0, 0.3))
    if not in_row:
        scene.cover(lot, GRASS if rng.random() < 0.6 else PAVING)
    plan = district.plans[rng.integers(len(district.plans))]
    roof = district.roofs[rng.integers(len(district.roofs))]
    at = (x + width / 2, y + depth / 2 + shift)
    scene.build(plan, roof, at, size, turn=0.0 if in_row else rng.normal(0, 0.04))
    scene.plant(lot, area=180)


def _mark_street(scene: AerialScene, at: float, start: float, end: float, upright: bool) -> None:
    """Paint the middle line of a street and park cars."""
    for along in np.arange(start, end, 8.0):
        x, y = (at, along) if upright else (along, at)
        if scene.shows(x, y, 5):
            scene.cover((x, y, 0.3, 3) if upright else (x, y, 3, 0.3), ROAD, PAINT)
            if scene.rng.random() < 0.2:
                scene.park(x + 2 * upright, y + 2 * (not upright), upright)


# ------------------------------------------------------------------------------------------------ painting


def paint_aerial_scene(scene: AerialScene, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint a scene.

    Args:
        scene: what there is.
        size: width of the picture in pixels.
        rng: decides the texture of surfaces and the noise of the camera.

    Returns:
        The picture, uint8 (size, size, 3), and the surface of each pixel, an index into SURFACES, uint8 (size, size).
    """
    buildings = sorted(scene.buildings, key=lambda building: building.height)
    painted = [*scene.ground, *(patch for building in buildings for patch in building.patches)]
    shades = [patch for building in buildings for patch in _shadow(building, scene.shadow)]
    shades += [Patch(building.outlines, LIT, 0) for building in buildings]
    if scene.bridge is not None:
        lanes = scene.bridge + 0.5 * _inward(scene.bridge)
        painted += [Patch([scene.bridge], PAINT, ROAD), Patch([lanes], ASPHALT, ROAD)]
        shades += [Patch([scene.bridge + 10 * scene.shadow], DARK, 0), Patch([scene.bridge], LIT, 0)]
    tones = [[tint(green, tone) for tone in (0.65, 0.85, 1.1)] for green in COLORS[TREE]]
    layers = [part * CIRCLE - 0.9 * (1 - part) * scene.shadow for part in (1.0, 0.75, 0.4)]  # brighter towards the sun
    for i, (x, y, radius) in enumerate(scene.trees):
        crowns = [radius * layer + np.array([x, y]) for layer in layers]
        shades += [Patch([crowns[0] + 1.2 * radius * scene.shadow], DARK, 0), Patch(crowns[:1], LIT, 0)]
        painted += [Patch([crown], tone, TREE) for crown, tone in zip(crowns, tones[i % len(tones)], strict=True)]
    canvas = np.zeros((ZOOM * size, ZOOM * size, 4), np.uint8)  # red, green, blue, surface
    _fill(canvas, scene, painted)
    shade = np.zeros((ZOOM * size, ZOOM * size), np.uint8)
    _fill(shade, scene, shades)
    surfaces = canvas[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM, 3].copy()
    meter = size / scene.view
    texture = 0.4 * smooth_noise(rng, size, size, 8 * meter) + 0.5 * smooth_noise(rng, size, size, max(1.5, meter))
    texture += 0.25 * rng.standard_normal((size, size), np.float32)
    light = 1 - np.float32(SHADE / 255) * cv2.resize(shade, (size, size), interpolation=cv2.INTER_AREA)
    light *= 1 + ROUGHNESS[surfaces] * texture
    pixels = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)[..., :3]
    return camera(pixels * cv2.merge([light, light, light]), rng), surfaces


def _shadow(building: Building, shadow: np.ndarray) -> list[Patch]:
    """What a building shades: its outlines, moved away from the sun, and what each side covers on the way."""
    way = (building.height * shadow).astype(np.float32)
    ends = [outline + way for outline in building.outlines]
    patches = [Patch(ends, DARK, 0)]
    for start, end in zip(building.outlines, ends, strict=True):
        patches += [Patch([np.array([start[i - 1], start[i], end[i], end[i - 1]])], DARK, 0) for i in range(len(start))]
    return patches


def _fill(canvas: np.ndarray, scene: AerialScene, patches: Sequence[Patch]) -> None:
    """Paint patches one after the other, with their surface if the canvas has four channels."""
    outlines = [outline for patch in patches for outline in patch.outlines]
    if not outlines:
        return
    points = scene.to_pixels(np.concatenate(outlines), len(canvas)) - 0.5  # OpenCV's integers are the middles of pixels
    fixed = np.rint(points * 2**SHIFT).astype(np.int32)
    pieces = iter(np.split(fixed, np.cumsum([len(outline) for outline in outlines])[:-1]))
    for patch in patches:
        color = (*patch.color, patch.surface) if canvas.ndim == 3 else patch.color
        cv2.fillPoly(canvas, [next(pieces) for _ in patch.outlines], color, shift=SHIFT)
