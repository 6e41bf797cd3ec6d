"""What a block between streets is used for, as seen from above: houses and gardens, halls, parking, parks, fields.

Each use lays its ground, puts its buildings and then its trees, all within the block, so that no two roofs overlap
and none lies on a street. All measures are metres.
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
    Land,
    park_car,
    plant,
    stripes,
)
from seglib.datasets.sample.objects import pick
from seglib.datasets.sample.objects.outlines import Outline
from seglib.datasets.sample.objects.roofs import Plan, box, courtyard, jittered, placed, roofed, tank, toned, winged


@dataclass(frozen=True)
class Block:
    """A rectangle of land along the axes."""

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
        """From the middle of the picture to the nearest place of the block."""
        return math.hypot(max(self.x0, -self.x1, 0), max(self.y0, -self.y1, 0))

    @property
    def outline(self) -> Outline:
        return box(self.x0, self.y0, self.x1, self.y1)

    def inner(self, margin: float) -> "Block":
        return Block(self.x0 + margin, self.y0 + margin, self.x1 - margin, self.y1 - margin)

    def cells(self, columns: int, rows: int) -> list["Block"]:
        """The block cut into equal parts, row after row."""
        x, y = np.linspace(self.x0, self.x1, columns + 1), np.linspace(self.y0, self.y1, rows + 1)
        return [Block(x[i], y[j], x[i + 1], y[j + 1]) for j in range(rows) for i in range(columns)]


def put(land: Land, plan: Plan, kind: str, at: tuple[float, float], height: float, scatter: float = 0.03) -> None:
    """Build; `scatter`: by how much, in radians, it may be turned against the streets."""
    size = float(np.abs(plan.outline).max())
    if not land.shows(*at, 1.5 * size + height * land.reach):  # nor its shadow
        return
    turn = float(np.clip(land.rng.normal(0, scatter), -2 * scatter, 2 * scatter))
    land.buildings.append(roofed(land.rng, placed(plan, at, turn), kind, land.sun, height))


def scatter_trees(land: Land, block: Block, count: float, sizes: tuple[float, float] = (1.6, 3.6)) -> None:
    """About `count` trees anywhere in the block."""
    rng = land.rng
    for _ in range(int(rng.poisson(count))):
        plant(land, rng.uniform(block.x0, block.x1), rng.uniform(block.y0, block.y1), rng.uniform(*sizes))


def row_of_trees(land: Land, block: Block) -> None:
    """Trees along the upper side of a block."""
    radius = land.rng.uniform(1.8, 2.8)
    for x in np.arange(block.x0 + 4, block.x1 - 2, land.rng.uniform(6, 10)):
        if land.rng.random() < 0.85:
            plant(land, x, block.y0 + 0.8, radius * land.rng.uniform(0.85, 1.15))


# ------------------------------------------------------------------------------------------------------------ buildings


def houses(land: Land, block: Block) -> None:
    """Detached houses with a garden each, in two rows back to back where there is room."""
    rows = 2 if block.depth > 36 else 1
    columns = max(1, int(block.width / land.rng.uniform(15, 19)))
    kind = pick(land.rng, ("gable", "hip"))
    for i, lot in enumerate(block.cells(columns, rows)):
        if not land.shows(*lot.middle, 16):
            continue
        land.lay(lot.inner(0.3).outline, jittered(land.rng, pick(land.rng, LAWNS), 0.08))
        if land.rng.random() < 0.93:
            _house(land, lot, kind if land.rng.random() < 0.75 else "flat", front=-1 if i < columns else 1)


def _house(land: Land, lot: Block, kind: str, front: int) -> None:
    """One house; front: the side of the lot that the street is on, -1 the upper one, 1 the lower one."""
    rng = land.rng
    length, width = min(rng.uniform(9.5, 13.5), lot.width - 4), rng.uniform(7.2, 9.2)
    reach = min(rng.uniform(2.0, 4.0), lot.depth - width - 7)
    bays = [(rng.choice((-1, 0, 1)) * (length / 2 - 2.5), 5.0, reach)] if reach > 1.5 and rng.random() < 0.55 else []
    plan = winged(length, width, above=bays) if front > 0 else winged(length, width, below=bays)  # into the garden
    x, street = lot.middle[0] + rng.uniform(-1, 1), lot.y0 if front < 0 else lot.y1
    y = street - front * (rng.uniform(3.5, 5.5) + width / 2)
    side = x + rng.choice((-1, 1)) * (length / 2 - 1.6)
    land.lay(box(side - 1.5, min(street, y), side + 1.5, max(street, y)), jittered(rng, PAVING))
    if rng.random() < 0.5:
        park_car(land, side, street - front * 2.4, upright=True)
    back = street - front * (lot.depth - 3.2)  # in the garden
    pool = not bays and rng.random() < 0.4
    if pool:
        long, wide = rng.uniform(2.4, 3.6), rng.uniform(1.3, 1.9)
        land.lay(box(x - long - 0.8, back - wide - 0.8, x + long + 0.8, back + wide + 0.8), jittered(rng, PAVING))
        land.lay(box(x - long, back - wide, x + long, back + wide), jittered(rng, POOL))
    put(land, plan, kind, (x, y), rng.uniform(4, 6.5))
    for _ in range(int(rng.poisson(3.0))):
        at = lot.x0 + rng.choice((0.1, 0.9) if pool else (0.1, 0.5, 0.9)) * lot.width + rng.uniform(-1, 1)
        plant(land, at, pick(rng, (back, back, street - front * 1.5)) + rng.uniform(-1.5, 1.5), rng.uniform(1.3, 3.4))


def terraces(land: Land, block: Block) -> None:
    """Rows of houses wall to wall, gardens behind."""
    rng = land.rng
    land.lay(block.outline, jittered(rng, PAVING))
    for row, strip in enumerate(block.cells(1, max(1, round(block.depth / 20)))):
        front = -1 if row % 2 == 0 else 1
        deep, wide = rng.uniform(8, 9.5), rng.uniform(5.4, 6.8)
        garden = Block(strip.x0, strip.y0 + 3, strip.x1, strip.y1) if front < 0 else strip
        y = strip.y0 + 3 + deep / 2 if front < 0 else strip.y1 - 3 - deep / 2
        height = rng.uniform(6, 8)
        for x in np.arange(strip.x0 + wide / 2 + 1, strip.x1 - wide / 2 - 1, wide):
            if land.shows(x, y, 22) and rng.random() < 0.92:  # else a gap
                plot = box(
                    x - wide / 2,
                    min(y, strip.y0 if front > 0 else y),
                    x + wide / 2,
                    max(y, garden.y1 if front < 0 else y),
                )
                land.lay(plot, jittered(rng, pick(rng, LAWNS), 0.1))
                put(land, winged(wide, deep), "gable", (x, y), height, scatter=0)
        scatter_trees(land, strip, strip.width / 16, (1.0, 2.2))


def slabs(land: Land, block: Block) -> None:
    """Long blocks of flats side by side, all in one direction, lawns and trees between them."""
    rng = land.rng
    land.lay(block.outline, jittered(rng, pick(rng, LAWNS)))
    kind, deep = pick(rng, ("flat", "flat", "flat", "hip")), rng.uniform(10, 13)
    rows, columns = max(1, int(block.depth / rng.uniform(24, 30))), max(1, int(block.width / rng.uniform(32, 46)))
    height = min(rng.uniform(8, 18), 14 / land.reach)  # the next row is out of the shadow
    stairs = rng.random() < 0.4
    for cell in block.cells(columns, rows):
        length = min(cell.width - 5, 44.0)
        bays = [(at * length, 5.0, 1.6) for at in (-0.3, 0.0, 0.3)] if stairs and kind == "flat" else ()
        path = cell.y1 - 2.5
        land.lay(box(cell.x0, path - 1.2, cell.x1, path + 1.2), PAVING)
        put(land, winged(length, deep, below=bays), kind, (cell.middle[0], cell.y0 + 3 + deep / 2), height, 0.01)
        for x in np.arange(cell.x0 + 4, cell.x1 - 4, 5.6):
            if rng.random() < 0.3:
                park_car(land, x, path)
        scatter_trees(land, Block(cell.x0, cell.y0 + 5 + deep, cell.x1, cell.y1), 5)


def compound(land: Land, block: Block) -> None:
    """Large buildings of several wings: a school, a hospital, offices."""
    rng = land.rng
    land.lay(block.outline, jittered(rng, PAVING))
    for cell in block.cells(max(1, round(block.width / 50)), max(1, round(block.depth / 50))):
        land.lay(cell.inner(rng.uniform(2, 4)).outline, jittered(rng, pick(rng, LAWNS)))
        length, room = min(cell.width - 9, rng.uniform(30, 46)), min(cell.depth - 9, rng.uniform(28, 42))
        plan, kind = large_plan(rng, length, room), pick(rng, ("flat", "flat", "hip", "gable"))
        put(land, plan, kind, cell.middle, rng.uniform(7, 11))
        scatter_trees(land, cell, 14, (1.8, 4.0))


def large_plan(rng: np.random.Generator, length: float, room: float) -> Plan:
    """An L, T, U, Z, a cross, a comb or a courtyard of about length x room metres."""
    deep = min(rng.uniform(0.26, 0.34) * min(length, room), 12.0)
    shape, end, reach = pick(rng, "LTUZ+EO"), (length - deep) / 2, room - deep
    if shape == "O":
        return courtyard(length, room, deep)
    if shape in "Z+":
        at = end if shape == "Z" else 0.0
        return winged(length, deep, above=[(at, deep, reach / 2)], below=[(-at, deep, reach / 2)])
    places = {"L": (end,), "T": (0.0,), "U": (-end, end), "E": (-end, 0.0, end)}[shape]
    plan = winged(length, deep, below=[(at, deep, reach) for at in places])
    return placed(plan, (0, -reach / 2))


def halls(land: Land, block: Block) -> None:
    """Large halls, each with a yard where lorries and cars stand, at times with a lower building on it."""
    rng = land.rng
    land.lay(block.outline, jittered(rng, pick(rng, (ASPHALT, PAVING, PAVING))))
    for cell in block.cells(max(1, round(block.width / 55)), 1):
        split = cell.x0 + rng.uniform(0.6, 0.8) * cell.width
        site, yard = (
            Block(cell.x0 + 2, cell.y0 + 2, split, cell.y1 - 2),
            Block(split, cell.y0, cell.x1, cell.y1).inner(3),
        )
        length, width = site.width, site.depth * rng.uniform(0.6, 1)
        plan = winged(length, width) if length > width else placed(winged(width, length), (0, 0), np.pi / 2)
        put(land, plan, pick(rng, ("metal", "metal", "flat")), site.middle, rng.uniform(6, 9), 0.01)
        if rng.random() < 0.5 and yard.width > 10:
            put(land, winged(8.5, 6.5), pick(rng, ("flat", "metal")), (yard.middle[0], yard.y0 + 5), 3.5, 0.02)
            yard = Block(yard.x0, yard.y0 + 12, yard.x1, yard.y1)
        _rows_of_cars(land, yard, 0.5)
    row_of_trees(land, block)


def tanks(land: Land, block: Block) -> None:
    """Round tanks in a row, on gravel."""
    rng = land.rng
    land.lay(block.outline, jittered(rng, SOIL))
    count = int(rng.integers(2, 4))
    for cell in block.cells(count, 1) if block.width > block.depth else block.cells(1, count):
        radius = min(min(cell.width, cell.depth) / 2 - 3, 11.0) * rng.uniform(0.75, 1)
        if radius > 3:
            put(land, tank(radius), "metal", cell.middle, rng.uniform(6, 10))


# ----------------------------------------------------------------------------------------------------------------- open


def parking(land: Land, block: Block) -> None:
    """A car park, trees around it."""
    land.lay(block.outline, jittered(land.rng, ASPHALT))
    _rows_of_cars(land, block.inner(3), land.rng.uniform(0.3, 0.8))
    row_of_trees(land, block)


def _rows_of_cars(land: Land, block: Block, taken: float) -> None:
    """Bays marked in white along x, a share of them taken."""
    for y in np.arange(block.y0, block.y1 - 5, 15.5):
        for x in np.arange(block.x0, block.x1 - 2.6, 2.7):
            if not land.shows(x, y, 8):
                continue
            land.lay(box(x - 0.1, y, x + 0.1, y + 5), PAINT)
            if land.rng.random() < taken:
                park_car(land, x + 1.35, y + 2.5 + land.rng.uniform(-0.3, 0.3), upright=True)


def park(land: Land, block: Block) -> None:
    """A lawn with paths and trees; at times a pond or a playing field."""
    rng = land.rng
    land.lay(block.outline, jittered(rng, pick(rng, LAWNS)))
    x, what = rng.uniform(block.x0 + 0.1 * block.width, block.x1 - 0.1 * block.width), rng.random()
    land.lay(box(x - 1.2, block.y0, x + 1.2, block.y1), jittered(rng, PAVING))
    if what < 0.3 and min(block.width, block.depth) > 20:
        _pitch(land, block.inner(5))
        row_of_trees(land, block)
        return
    if what < 0.6:
        land.lay(_blob(rng, block.middle, 0.3 * min(block.width, block.depth)), jittered(rng, WATER))
        for x, y in _blob(rng, block.middle, 0.4 * min(block.width, block.depth))[::3]:
            plant(land, x, y, rng.uniform(1.5, 3))
        return
    scatter_trees(land, block, block.width * block.depth / 90, (1.6, 4.2))


def _pitch(land: Land, block: Block) -> None:
    """A playing field, mown in stripes, with its lines."""
    green = jittered(land.rng, (74, 108, 62, 30))
    land.lay(block.outline, PAINT)
    land.lay(block.inner(0.4).outline, green)
    stripes(land, block.inner(0.4).outline, toned(green, 1.1), 7.0, 3.5)
    x, y = block.middle
    land.lay(box(x - 0.2, block.y0, x + 0.2, block.y1), PAINT)


def _blob(rng: np.random.Generator, middle: tuple[float, float], radius: float) -> Outline:
    """A round shape with a soft outline, as ponds have."""
    angles = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    waves = sum(rng.uniform(0, 0.2) / k * np.cos(k * angles + rng.uniform(0, 6)) for k in (2, 3, 4))
    return middle + (radius * (1 + waves))[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def field(land: Land, block: Block) -> None:
    """A ploughed or sown field with its furrows."""
    crop, furrow = jittered(land.rng, pick(land.rng, CROPS)), land.rng.uniform(1.6, 3.5)
    land.lay(block.outline, crop)
    stripes(land, block.outline, toned(crop, land.rng.uniform(0.78, 0.9)), furrow, 0.45 * furrow)
    if land.rng.random() < 0.4:
        row_of_trees(land, block)


def wood(land: Land, block: Block) -> None:
    """Trees so close that the ground cannot be seen."""
    land.lay(block.outline, (52, 66, 40, 90))
    rows, columns = int(block.depth / 4.6) + 1, int(block.width / 4.6) + 1
    for cell in block.cells(columns, rows):
        x, y, radius = land.rng.uniform((cell.x0, cell.y0, 2.4), (cell.x1, cell.y1, 4.4)).tolist()
        plant(land, x, y, radius)


def lake(land: Land, block: Block) -> None:
    """Water with a bank."""
    land.lay(block.outline, jittered(land.rng, pick(land.rng, LAWNS)))
    land.lay(block.inner(3).outline, SOIL)
    land.lay(block.inner(4).outline, jittered(land.rng, WATER))


def soil(land: Land, block: Block) -> None:
    """Bare ground with the tracks of lorries."""
    land.lay(block.outline, jittered(land.rng, SOIL))
    for y in land.rng.uniform(block.y0 + 3, block.y1 - 3, 3):
        for side in (-0.9, 0.9):
            land.lay(box(block.x0, y + side - 0.25, block.x1, y + side + 0.25), toned(SOIL, 0.88))
    scatter_trees(land, block, 3)


def farm(land: Land, block: Block) -> None:
    """A farmhouse and its barns around a yard, in a meadow."""
    rng = land.rng
    land.lay(block.outline, jittered(rng, pick(rng, LAWNS)))
    x, y = block.middle
    land.lay(box(x - 10, y - 9, x + 10, y + 9), jittered(rng, SOIL))
    land.lay(box(x - 2, y, x + 2, block.y1), jittered(rng, SOIL))
    put(land, winged(rng.uniform(22, 28), 10), pick(rng, ("metal", "gable")), (x, y - 15), 7, 0.06)
    put(land, placed(winged(rng.uniform(14, 18), 8.5), (0, 0), np.pi / 2), "gable", (x - 15, y), 6, 0.06)
    if rng.random() < 0.7:
        put(land, winged(12, 8, below=[(3.0, 5.0, 3.0)]), "hip", (x + 16, y + 3), 5, 0.1)
    scatter_trees(land, block.inner(2), 10, (1.8, 4.5))
