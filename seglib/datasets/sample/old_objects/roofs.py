"""Draws buildings seen from above: plans made of wings, and their roofs.

Outlines are float (n, 2) in meters, x to the right and y down, as in a picture. They run clockwise around
a roof and counterclockwise around a hole (seen on the screen), so that the roof is always to the right.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from seglib.datasets.sample.old_objects.outlines import Outline, Point, pick, rectangle

__all__ = [
    "Building", "Patch", "Plan", "Surface", "Wing", "add_roof", "courtyard_plan", "inset", "jitter", "next_points",
    "place_plan", "round_plan", "winged_plan", "with_brightness",
]  # fmt: skip

Surface = tuple[float, float, float, float]  # red, green, blue and roughness, 0-255 each
Side = Sequence[tuple[float, float, float]]  # for each wing: position along the main wing, width, length

EAVE = 0.25  # width of the visible edge of a roof, in meters
TILES: tuple[Surface, ...] = (
    (160, 76, 58, 22), (174, 96, 72, 22), (146, 66, 56, 22), (156, 116, 92, 22), (116, 84, 74, 22), (92, 92, 98, 22),
)  # fmt: skip
CONCRETE: tuple[Surface, ...] = (
    (200, 196, 188, 14), (182, 180, 176, 14), (212, 206, 194, 14), (84, 84, 90, 14), (172, 162, 146, 14),
)  # fmt: skip
METAL: tuple[Surface, ...] = (
    (72, 112, 172, 6), (100, 144, 190, 6), (222, 224, 226, 6), (190, 196, 200, 6), (156, 70, 60, 6), (104, 136, 122, 6),
)  # fmt: skip
GLASS: Surface = (44, 56, 84, 4)


@dataclass(frozen=True)
class Patch:
    """A surface and its outlines; a second outline inside the first is a hole."""

    loops: tuple[Outline, ...]
    surface: Surface


@dataclass(frozen=True)
class Wing:
    """A straight part of a building with one ridge, which continues into the wings that it is joined to."""

    start: Point  # middle of one end wall
    end: Point
    width: float
    joined: tuple[bool, bool] = (False, False)

    @cached_property
    def length(self) -> float:
        return math.dist(self.start, self.end)

    @cached_property
    def along(self) -> np.ndarray:
        """The direction of the ridge, (2,) of length 1."""
        return np.subtract(self.end, self.start) / self.length

    def at(self, x: Sequence[float], y: Sequence[float]) -> Outline:
        """Return the points at x meters from the start of the wing and y meters from its middle line."""
        across = np.array([-self.along[1], self.along[0]])
        return self.start + np.outer(x, self.along) + np.outer(y, across)

    def block(self, x0: float, y0: float, x1: float, y1: float) -> Outline:
        """Return a rectangle on the wing, in the coordinates of `at`."""
        return self.at((x0, x1, x1, x0), (y0, y0, y1, y1))


@dataclass(frozen=True)
class Plan:
    """The plan of a building."""

    outline: Outline
    wings: tuple[Wing, ...] = ()  # none: round
    hole: Outline | None = None


@dataclass(frozen=True)
class Building:
    """The outline of a roof, its patches in painting order and the height of the building."""

    outline: Outline
    hole: Outline | None
    patches: tuple[Patch, ...]
    height: float  # meters

    @property
    def loops(self) -> tuple[Outline, ...]:
        return (self.outline,) if self.hole is None else (self.outline, self.hole)

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """The smallest and largest x and y: x0, y0, x1, y1."""
        return *self.outline.min(axis=0).tolist(), *self.outline.max(axis=0).tolist()


# ---------------------------------------------------------------------------------------------------------------- plans


def winged_plan(length: float, width: float, above: Side = (), below: Side = ()) -> Plan:
    """Return a main wing along x with other wings at right angles to it: a rectangle, L, T, U, Z, cross or comb."""
    upper = _edge(length, width, above)
    lower = _edge(length, width, [(-at, wide, reach) for at, wide, reach in below])
    wings = [Wing((-length / 2, 0), (length / 2, 0), width)]
    for side, others in ((-width / 2, above), (width / 2, below)):
        for at, wide, reach in others:
            wings.append(Wing((at, side), (at, side + math.copysign(reach, side)), wide, (True, False)))
    return Plan(_corners_only(np.concatenate([upper, -lower])), tuple(wings))


def _edge(length: float, width: float, side: Side) -> Outline:
    """The upper edge of a main wing, from left to right around the wings on that side."""
    points, y = [(-length / 2, -width / 2)], -width / 2
    for at, wide, reach in sorted(side):
        left, right = at - wide / 2, at + wide / 2
        points += [(left, y), (left, y - reach), (right, y - reach), (right, y)]
    return np.array([*points, (length / 2, y)])


def _corners_only(outline: Outline) -> Outline:
    """An outline without the points at which it does not turn."""
    ahead = next_points(outline) - outline
    before = np.concatenate([ahead[-1:], ahead[:-1]])
    return outline[np.abs(before[:, 0] * ahead[:, 1] - before[:, 1] * ahead[:, 0]) > 1e-6]


def courtyard_plan(length: float, width: float, deep: float) -> Plan:
    """Return four wings, `deep` meters wide, around a courtyard."""
    x, y = length / 2, width / 2
    wings = [Wing((-x, side * (y - deep / 2)), (x, side * (y - deep / 2)), deep) for side in (-1, 1)]
    for side in (-1, 1):
        at = side * (x - deep / 2)
        wings.append(Wing((at, deep - y), (at, y - deep), deep, (True, True)))
    return Plan(rectangle(-x, -y, x, y), tuple(wings), rectangle(deep - x, deep - y, x - deep, y - deep)[::-1])


def round_plan(radius: float) -> Plan:
    """Return a round plan."""
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    return Plan(radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def place_plan(plan: Plan, center: Point, turn: float = 0.0) -> Plan:
    """Return a plan that is rotated by `turn` radians, clockwise in the picture, and moved to `center`."""
    along, across = (math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))

    def move(points: Outline) -> Outline:
        return points @ np.array([along, across]) + center

    wings = []
    for wing in plan.wings:
        start, end = move(np.array([wing.start, wing.end]))
        wings.append(Wing(start, end, wing.width, wing.joined))
    return Plan(move(plan.outline), tuple(wings), None if plan.hole is None else move(plan.hole))


# ---------------------------------------------------------------------------------------------------------------- roofs


def add_roof(rng: np.random.Generator, plan: Plan, kind: str, sun: np.ndarray, height: float) -> Building:
    """Return a building: a plan with a roof.

    Args:
        kind: "flat" (concrete with a parapet), "gable" or "hip" (tiles), "metal" (sheets, nearly flat).
        sun: direction on the ground towards the sun, (2,) of length 1.
        height: in meters, which determines the length of the shadow.
    """
    surface = jitter(rng, pick(rng, {"flat": CONCRETE, "metal": METAL}.get(kind, TILES)))
    loops = (plan.outline,) if plan.hole is None else (plan.outline, plan.hole)
    patches = [Patch(loops, with_brightness(surface, 1.1 if kind == "flat" else 0.8))]
    if kind == "flat":
        patches.append(Patch(tuple(inset(loop, 2 * EAVE) for loop in loops), surface))
        patches += [patch for wing in plan.wings for patch in _boxes(rng, wing, surface, sun)]
    else:
        steep = 0.12 if kind == "metal" else 0.26
        for face, normal in _faces(plan, hip=kind == "hip"):
            patches.append(Patch((face,), with_brightness(surface, 1 + steep * float(np.dot(normal, sun)))))
        details = _sheets if kind == "metal" else _chimneys
        patches += [patch for wing in plan.wings for patch in details(rng, wing, surface, sun)]
    return Building(plan.outline, plan.hole, tuple(patches), height)


def _faces(plan: Plan, hip: bool) -> Iterator[tuple[Outline, np.ndarray]]:
    """The sloping faces of a roof, each with the direction on the ground that it falls towards, (2,) of length 1."""
    for wing in plan.wings:
        half = wing.width / 2 - EAVE
        eaves = [-EAVE if joined else EAVE for joined in wing.joined]  # how far inside the end walls
        # Where the ridge ends: in the ridge of the wing that it is joined to, short of a hipped end, above a gable.
        ridge = [eave + half * (-1 if joined else hip) for eave, joined in zip(eaves, wing.joined, strict=True)]
        x = (eaves[0], wing.length - eaves[1], wing.length - ridge[1], ridge[0])
        across = np.array([-wing.along[1], wing.along[0]])
        for side in (-1, 1):
            yield wing.at(x, (side * half, side * half, 0, 0)), side * across
        for end, normal in ((0, -wing.along), (1, wing.along)):
            if hip and not wing.joined[end]:
                yield wing.at((x[end], x[end], x[3 - end]), (half, -half, 0)), normal
    if not plan.wings:  # round: a cone
        middle = plan.outline.mean(axis=0)
        rim = inset(plan.outline, EAVE)
        for here, there in zip(rim, next_points(rim), strict=True):
            yield np.array([here, there, middle]), (here - middle) / math.dist(here, middle)


def _boxes(rng: np.random.Generator, wing: Wing, surface: Surface, sun: np.ndarray) -> Iterator[Patch]:
    """Stairheads and machines on a flat roof, with their shadows."""
    for _ in range(int(rng.poisson(min(4.0, wing.length * wing.width / 120)))):
        long, wide = rng.uniform(0.12, 0.24, 2) * wing.width
        x, y = rng.uniform(0.12, 0.88) * wing.length, rng.uniform(-0.25, 0.25) * wing.width
        outline = wing.block(x - long / 2, y - wide / 2, x + long / 2, y + wide / 2)
        yield Patch((outline - 0.5 * wide * np.asarray(sun),), with_brightness(surface, 0.55))
        yield Patch((outline,), with_brightness(surface, rng.uniform(0.85, 1.2)))


def _sheets(rng: np.random.Generator, wing: Wing, surface: Surface, sun: np.ndarray) -> Iterator[Patch]:
    """The joints between metal sheets, and rows of skylights at times."""
    half = 0.46 * wing.width
    lights = rng.random() < 0.4
    for i, x in enumerate(np.arange(2.5, wing.length - 2, 2.5)):
        yield Patch((wing.block(x - 0.1, -half, x + 0.1, half),), with_brightness(surface, 0.9))
        if lights and i % 3 == 1:
            for y in (-0.5 * half, 0.5 * half):
                yield Patch(
                    (wing.block(x - 0.5, y - 0.3 * half, x + 0.5, y + 0.3 * half),), with_brightness(surface, 1.2)
                )


def _chimneys(rng: np.random.Generator, wing: Wing, surface: Surface, sun: np.ndarray) -> Iterator[Patch]:
    """A chimney near the ridge, and solar panels on the side towards the sun."""
    if rng.random() < 0.25 and wing.length > 5:
        x0, x1 = sorted(rng.uniform(0.15, 0.85, 2) * wing.length)
        y0, y1 = 0.1 * wing.width, 0.38 * wing.width
        rows = (wing.block(x0, y0, x1, y1), wing.block(x0, -y1, x1, -y0))
        yield Patch((max(rows, key=lambda row: float(row.mean(axis=0) @ sun)),), GLASS)
    if rng.random() < 0.6:
        x, y = rng.uniform(0.25, 0.75) * wing.length, rng.uniform(-0.15, 0.15) * wing.width
        outline = wing.block(x - 0.4, y - 0.4, x + 0.4, y + 0.4)
        yield Patch((outline - 1.0 * np.asarray(sun),), with_brightness(surface, 0.55))
        yield Patch((outline,), with_brightness(surface, 1.15))


def next_points(outline: Outline) -> Outline:
    """Return the successor of each point."""
    return np.concatenate([outline[1:], outline[:1]])


def inset(outline: Outline, distance: float) -> Outline:
    """Return an outline, moved by `distance` to the right of its direction, which is into the roof."""
    x, y = (next_points(outline) - outline).T
    normals = np.stack([-y, x], axis=1) / np.hypot(x, y)[:, None]
    before = np.concatenate([normals[-1:], normals[:-1]])
    return outline + distance * (before + normals) / (1 + (before * normals).sum(axis=1, keepdims=True))


def with_brightness(surface: Surface, tone: float) -> Surface:
    """Return a surface with its colors multiplied by `tone`."""
    red, green, blue, rough = surface
    return min(tone * red, 255.0), min(tone * green, 255.0), min(tone * blue, 255.0), rough


def jitter(rng: np.random.Generator, surface: Surface, spread: float = 0.05) -> Surface:
    """Return a surface with a small random change of color."""
    red, green, blue = (
        value * cast for value, cast in zip(surface, rng.normal(1, spread / 3, 3).tolist(), strict=False)
    )
    return with_brightness((red, green, blue, surface[3]), rng.normal(1, spread))
