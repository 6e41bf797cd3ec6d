"""Functions that fill a block between streets, seen from above: houses, warehouses, car parks, parks, fields.

Each adds ground, buildings and then trees within the block, so that no two roofs overlap and no roof covers a street.
All measures are in meters.
"""

import math
from dataclasses import dataclass

import numpy as np

from seglib.datasets.sample.aerial_ground import (
    ASPHALT,
    CROPS,
    LAWNS,
    PAINT,
    PAVING,
    POOL,
    SOIL,
    WATER,
    AerialScene,
    add_car,
    add_stripes,
    add_tree,
)
from seglib.datasets.sample.old_objects import pick
from seglib.datasets.sample.old_objects.outlines import Outline
from seglib.datasets.sample.old_objects.roofs import (
    Plan,
    add_roof,
    courtyard_plan,
    jitter,
    place_plan,
    rectangle,
    round_plan,
    winged_plan,
    with_brightness,
)

__all__ = [
    "Block", "add_apartment_blocks", "add_bare_soil", "add_building", "add_farm", "add_field", "add_houses",
    "add_lake", "add_large_buildings", "add_park", "add_parking", "add_random_trees", "add_tanks",
    "add_terraced_houses", "add_tree_row", "add_warehouses", "add_wood",
]  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A rectangle along the axes."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def depth(self) -> float:
        return self.y1 - self.y0

    @property
    def middle(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    @property
    def distance(self) -> float:
        """Distance from the middle of the picture to the nearest point of the block."""
        return math.hypot(max(self.x0, -self.x1, 0), max(self.y0, -self.y1, 0))

    @property
    def outline(self) -> Outline:
        return rectangle(self.x0, self.y0, self.x1, self.y1)

    def inner(self, margin: float) -> "Block":
        return Block(self.x0 + margin, self.y0 + margin, self.x1 - margin, self.y1 - margin)

    def cells(self, columns: int, rows: int) -> list["Block"]:
        """Return equal parts of the block, row by row."""
        x, y = np.linspace(self.x0, self.x1, columns + 1), np.linspace(self.y0, self.y1, rows + 1)
        return [Block(x[i], y[j], x[i + 1], y[j + 1]) for j in range(rows) for i in range(columns)]


def add_building(
    scene: AerialScene, plan: Plan, kind: str, at: tuple[float, float], height: float, scatter: float = 0.03
) -> None:
    """Add a building unless it is outside the picture.

    Args:
        plan: its outline.
        kind: of its roof, see `roofs.add_roof`.
        at: its position.
        height: its height.
        scatter: standard deviation of its rotation against the streets, in radians.
    """
    size = float(np.abs(plan.outline).max())
    if not scene.is_visible(*at, 1.5 * size + height * scene.shadow_length):  # neither it nor its shadow
        return
    turn = float(np.clip(scene.rng.normal(0, scatter), -2 * scatter, 2 * scatter))
    scene.buildings.append(add_roof(scene.rng, place_plan(plan, at, turn), kind, scene.sun, height))


def add_random_trees(scene: AerialScene, block: Block, count: float, sizes: tuple[float, float] = (1.6, 3.6)) -> None:
    """Add about `count` trees anywhere in the block; `sizes`: range of their radius."""
    rng = scene.rng
    for _ in range(int(rng.poisson(count))):
        add_tree(scene, rng.uniform(block.x0, block.x1), rng.uniform(block.y0, block.y1), rng.uniform(*sizes))


def add_tree_row(scene: AerialScene, block: Block) -> None:
    """Add trees along the upper side of a block."""
    radius = scene.rng.uniform(1.8, 2.8)
    for x in np.arange(block.x0 + 4, block.x1 - 2, scene.rng.uniform(6, 10)):
        if scene.rng.random() < 0.85:
            add_tree(scene, x, block.y0 + 0.8, radius * scene.rng.uniform(0.85, 1.15))


# ------------------------------------------------------------------------------------------------------------ buildings


def add_houses(scene: AerialScene, block: Block) -> None:
    """Add detached houses with gardens, in two rows if there is room."""
    rows = 2 if block.depth > 36 else 1
    columns = max(1, int(block.width / scene.rng.uniform(15, 19)))
    kind = pick(scene.rng, ("gable", "hip"))
    for i, lot in enumerate(block.cells(columns, rows)):
        if not scene.is_visible(*lot.middle, 16):
            continue
        scene.add_ground(lot.inner(0.3).outline, jitter(scene.rng, pick(scene.rng, LAWNS), 0.08))
        if scene.rng.random() < 0.93:
            _add_house(scene, lot, kind if scene.rng.random() < 0.75 else "flat", front=-1 if i < columns else 1)


def _add_house(scene: AerialScene, lot: Block, kind: str, front: int) -> None:
    """Add a house; front: the side of the lot along the street, -1 for the upper one, 1 for the lower one."""
    rng = scene.rng
    length = min(rng.uniform(9.5, 13.5), lot.width - 4)
    width = rng.uniform(7.2, 9.2)
    reach = min(rng.uniform(2.0, 4.0), lot.depth - width - 7)
    bays = [(rng.choice((-1, 0, 1)) * (length / 2 - 2.5), 5.0, reach)] if reach > 1.5 and rng.random() < 0.55 else []
    plan = (
        winged_plan(length, width, above=bays) if front > 0 else winged_plan(length, width, below=bays)
    )  # into the garden
    x = lot.middle[0] + rng.uniform(-1, 1)
    street = lot.y0 if front < 0 else lot.y1
    y = street - front * (rng.uniform(3.5, 5.5) + width / 2)
    side = x + rng.choice((-1, 1)) * (length / 2 - 1.6)
    scene.add_ground(rectangle(side - 1.5, min(street, y), side + 1.5, max(street, y)), jitter(rng, PAVING))
    if rng.random() < 0.5:
        add_car(scene, side, street - front * 2.4, upright=True)
    back = street - front * (lot.depth - 3.2)  # in the garden
    pool = not bays and rng.random() < 0.4
    if pool:
        long = rng.uniform(2.4, 3.6)
        wide = rng.uniform(1.3, 1.9)
        scene.add_ground(
            rectangle(x - long - 0.8, back - wide - 0.8, x + long + 0.8, back + wide + 0.8), jitter(rng, PAVING)
        )
        scene.add_ground(rectangle(x - long, back - wide, x + long, back + wide), jitter(rng, POOL))
    add_building(scene, plan, kind, (x, y), rng.uniform(4, 6.5))
    for _ in range(int(rng.poisson(3.0))):
        at = lot.x0 + rng.choice((0.1, 0.9) if pool else (0.1, 0.5, 0.9)) * lot.width + rng.uniform(-1, 1)
        add_tree(
            scene, at, pick(rng, (back, back, street - front * 1.5)) + rng.uniform(-1.5, 1.5), rng.uniform(1.3, 3.4)
        )


def add_terraced_houses(scene: AerialScene, block: Block) -> None:
    """Add rows of houses wall to wall, with gardens behind them."""
    rng = scene.rng
    scene.add_ground(block.outline, jitter(rng, PAVING))
    for row, strip in enumerate(block.cells(1, max(1, round(block.depth / 20)))):
        front = -1 if row % 2 == 0 else 1
        deep = rng.uniform(8, 9.5)
        wide = rng.uniform(5.4, 6.8)
        garden = Block(strip.x0, strip.y0 + 3, strip.x1, strip.y1) if front < 0 else strip
        y = strip.y0 + 3 + deep / 2 if front < 0 else strip.y1 - 3 - deep / 2
        height = rng.uniform(6, 8)
        for x in np.arange(strip.x0 + wide / 2 + 1, strip.x1 - wide / 2 - 1, wide):
            if scene.is_visible(x, y, 22) and rng.random() < 0.92:  # else a gap
                plot = rectangle(
                    x - wide / 2,
                    min(y, strip.y0 if front > 0 else y),
                    x + wide / 2,
                    max(y, garden.y1 if front < 0 else y),
                )
                scene.add_ground(plot, jitter(rng, pick(rng, LAWNS), 0.1))
                add_building(scene, winged_plan(wide, deep), "gable", (x, y), height, scatter=0)
        add_random_trees(scene, strip, strip.width / 16, (1.0, 2.2))


def add_apartment_blocks(scene: AerialScene, block: Block) -> None:
    """Add long apartment buildings in one direction, with lawns and trees between them."""
    rng = scene.rng
    scene.add_ground(block.outline, jitter(rng, pick(rng, LAWNS)))
    kind = pick(rng, ("flat", "flat", "flat", "hip"))
    deep = rng.uniform(10, 13)
    rows, columns = max(1, int(block.depth / rng.uniform(24, 30))), max(1, int(block.width / rng.uniform(32, 46)))
    height = min(rng.uniform(8, 18), 14 / scene.shadow_length)  # the next row is out of the shadow
    stairs = rng.random() < 0.4
    for cell in block.cells(columns, rows):
        length = min(cell.width - 5, 44.0)
        bays = [(at * length, 5.0, 1.6) for at in (-0.3, 0.0, 0.3)] if stairs and kind == "flat" else ()
        path = cell.y1 - 2.5
        scene.add_ground(rectangle(cell.x0, path - 1.2, cell.x1, path + 1.2), PAVING)
        add_building(
            scene, winged_plan(length, deep, below=bays), kind, (cell.middle[0], cell.y0 + 3 + deep / 2), height, 0.01
        )
        for x in np.arange(cell.x0 + 4, cell.x1 - 4, 5.6):
            if rng.random() < 0.3:
                add_car(scene, x, path)
        add_random_trees(scene, Block(cell.x0, cell.y0 + 5 + deep, cell.x1, cell.y1), 5)


def add_large_buildings(scene: AerialScene, block: Block) -> None:
    """Add large buildings with several wings, such as schools and offices."""
    rng = scene.rng
    scene.add_ground(block.outline, jitter(rng, PAVING))
    for cell in block.cells(max(1, round(block.width / 50)), max(1, round(block.depth / 50))):
        scene.add_ground(cell.inner(rng.uniform(2, 4)).outline, jitter(rng, pick(rng, LAWNS)))
        length = min(cell.width - 9, rng.uniform(30, 46))
        room = min(cell.depth - 9, rng.uniform(28, 42))
        plan = _large_plan(rng, length, room)
        kind = pick(rng, ("flat", "flat", "hip", "gable"))
        add_building(scene, plan, kind, cell.middle, rng.uniform(7, 11))
        add_random_trees(scene, cell, 14, (1.8, 4.0))


def _large_plan(rng: np.random.Generator, length: float, room: float) -> Plan:
    """Return a plan of about length x room meters: an L, T, U or Z, a cross, a comb or a courtyard."""
    deep = min(rng.uniform(0.26, 0.34) * min(length, room), 12.0)
    shape = pick(rng, "LTUZ+EO")
    end = (length - deep) / 2
    reach = room - deep
    if shape == "O":
        return courtyard_plan(length, room, deep)
    if shape in "Z+":
        at = end if shape == "Z" else 0.0
        return winged_plan(length, deep, above=[(at, deep, reach / 2)], below=[(-at, deep, reach / 2)])
    places = {"L": (end,), "T": (0.0,), "U": (-end, end), "E": (-end, 0.0, end)}[shape]
    plan = winged_plan(length, deep, below=[(at, deep, reach) for at in places])
    return place_plan(plan, (0, -reach / 2))


def add_warehouses(scene: AerialScene, block: Block) -> None:
    """Add warehouses, each with a yard for cars and sometimes a lower building."""
    rng = scene.rng
    scene.add_ground(block.outline, jitter(rng, pick(rng, (ASPHALT, PAVING, PAVING))))
    for cell in block.cells(max(1, round(block.width / 55)), 1):
        split = cell.x0 + rng.uniform(0.6, 0.8) * cell.width
        site = Block(cell.x0 + 2, cell.y0 + 2, split, cell.y1 - 2)
        yard = Block(split, cell.y0, cell.x1, cell.y1).inner(3)
        length = site.width
        width = site.depth * rng.uniform(0.6, 1)
        plan = (
            winged_plan(length, width) if length > width else place_plan(winged_plan(width, length), (0, 0), np.pi / 2)
        )
        add_building(scene, plan, pick(rng, ("metal", "metal", "flat")), site.middle, rng.uniform(6, 9), 0.01)
        if rng.random() < 0.5 and yard.width > 10:
            add_building(
                scene, winged_plan(8.5, 6.5), pick(rng, ("flat", "metal")), (yard.middle[0], yard.y0 + 5), 3.5, 0.02
            )
            yard = Block(yard.x0, yard.y0 + 12, yard.x1, yard.y1)
        _add_parking_bays(scene, yard, 0.5)
    add_tree_row(scene, block)


def add_tanks(scene: AerialScene, block: Block) -> None:
    """Add round tanks in a row."""
    rng = scene.rng
    scene.add_ground(block.outline, jitter(rng, SOIL))
    count = int(rng.integers(2, 4))
    for cell in block.cells(count, 1) if block.width > block.depth else block.cells(1, count):
        radius = min(min(cell.width, cell.depth) / 2 - 3, 11.0) * rng.uniform(0.75, 1)
        if radius > 3:
            add_building(scene, round_plan(radius), "metal", cell.middle, rng.uniform(6, 10))


# ----------------------------------------------------------------------------------------------------------------- open


def add_parking(scene: AerialScene, block: Block) -> None:
    """Add a car park with trees."""
    scene.add_ground(block.outline, jitter(scene.rng, ASPHALT))
    _add_parking_bays(scene, block.inner(3), scene.rng.uniform(0.3, 0.8))
    add_tree_row(scene, block)


def _add_parking_bays(scene: AerialScene, block: Block, taken: float) -> None:
    """Add parking bays along x; `taken`: the share of bays with a car."""
    for y in np.arange(block.y0, block.y1 - 5, 15.5):
        for x in np.arange(block.x0, block.x1 - 2.6, 2.7):
            if not scene.is_visible(x, y, 8):
                continue
            scene.add_ground(rectangle(x - 0.1, y, x + 0.1, y + 5), PAINT)
            if scene.rng.random() < taken:
                add_car(scene, x + 1.35, y + 2.5 + scene.rng.uniform(-0.3, 0.3), upright=True)


def add_park(scene: AerialScene, block: Block) -> None:
    """Add a lawn with a path and trees, a pond or a playing field."""
    rng = scene.rng
    scene.add_ground(block.outline, jitter(rng, pick(rng, LAWNS)))
    x = rng.uniform(block.x0 + 0.1 * block.width, block.x1 - 0.1 * block.width)
    what = rng.random()
    scene.add_ground(rectangle(x - 1.2, block.y0, x + 1.2, block.y1), jitter(rng, PAVING))
    if what < 0.3 and min(block.width, block.depth) > 20:
        _add_playing_field(scene, block.inner(5))
        add_tree_row(scene, block)
        return
    if what < 0.6:
        scene.add_ground(_blob(rng, block.middle, 0.3 * min(block.width, block.depth)), jitter(rng, WATER))
        for x, y in _blob(rng, block.middle, 0.4 * min(block.width, block.depth))[::3]:
            add_tree(scene, x, y, rng.uniform(1.5, 3))
        return
    add_random_trees(scene, block, block.width * block.depth / 90, (1.6, 4.2))


def _add_playing_field(scene: AerialScene, block: Block) -> None:
    """Add a playing field with stripes and lines."""
    green = jitter(scene.rng, (74, 108, 62, 30))
    scene.add_ground(block.outline, PAINT)
    scene.add_ground(block.inner(0.4).outline, green)
    add_stripes(scene, block.inner(0.4).outline, with_brightness(green, 1.1), 7.0, 3.5)
    x, y = block.middle
    scene.add_ground(rectangle(x - 0.2, block.y0, x + 0.2, block.y1), PAINT)


def _blob(rng: np.random.Generator, middle: tuple[float, float], radius: float) -> Outline:
    """Return the outline of a pond."""
    angles = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    waves = np.zeros(36)
    for k in (2, 3, 4):
        waves += rng.uniform(0, 0.2) / k * np.cos(k * angles + rng.uniform(0, 6))
    return middle + (radius * (1 + waves))[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def add_field(scene: AerialScene, block: Block) -> None:
    """Add a field with furrows."""
    crop = jitter(scene.rng, pick(scene.rng, CROPS))
    furrow = scene.rng.uniform(1.6, 3.5)
    scene.add_ground(block.outline, crop)
    add_stripes(scene, block.outline, with_brightness(crop, scene.rng.uniform(0.78, 0.9)), furrow, 0.45 * furrow)
    if scene.rng.random() < 0.4:
        add_tree_row(scene, block)


def add_wood(scene: AerialScene, block: Block) -> None:
    """Add trees that hide the ground."""
    scene.add_ground(block.outline, (52, 66, 40, 90))
    rows, columns = int(block.depth / 4.6) + 1, int(block.width / 4.6) + 1
    for cell in block.cells(columns, rows):
        x, y, radius = scene.rng.uniform((cell.x0, cell.y0, 2.4), (cell.x1, cell.y1, 4.4)).tolist()
        add_tree(scene, x, y, radius)


def add_lake(scene: AerialScene, block: Block) -> None:
    """Add a lake with a bank."""
    scene.add_ground(block.outline, jitter(scene.rng, pick(scene.rng, LAWNS)))
    scene.add_ground(block.inner(3).outline, SOIL)
    scene.add_ground(block.inner(4).outline, jitter(scene.rng, WATER))


def add_bare_soil(scene: AerialScene, block: Block) -> None:
    """Add bare ground with tire tracks."""
    scene.add_ground(block.outline, jitter(scene.rng, SOIL))
    for y in scene.rng.uniform(block.y0 + 3, block.y1 - 3, 3):
        for side in (-0.9, 0.9):
            scene.add_ground(
                rectangle(block.x0, y + side - 0.25, block.x1, y + side + 0.25), with_brightness(SOIL, 0.88)
            )
    add_random_trees(scene, block, 3)


def add_farm(scene: AerialScene, block: Block) -> None:
    """Add a farmhouse and barns around a yard."""
    rng = scene.rng
    scene.add_ground(block.outline, jitter(rng, pick(rng, LAWNS)))
    x, y = block.middle
    scene.add_ground(rectangle(x - 10, y - 9, x + 10, y + 9), jitter(rng, SOIL))
    scene.add_ground(rectangle(x - 2, y, x + 2, block.y1), jitter(rng, SOIL))
    add_building(scene, winged_plan(rng.uniform(22, 28), 10), pick(rng, ("metal", "gable")), (x, y - 15), 7, 0.06)
    add_building(
        scene, place_plan(winged_plan(rng.uniform(14, 18), 8.5), (0, 0), np.pi / 2), "gable", (x - 15, y), 6, 0.06
    )
    if rng.random() < 0.7:
        add_building(scene, winged_plan(12, 8, below=[(3.0, 5.0, 3.0)]), "hip", (x + 16, y + 3), 5, 0.1)
    add_random_trees(scene, block.inner(2), 10, (1.8, 4.5))
