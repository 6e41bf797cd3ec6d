"""Composes the aerial scenes: streets, the blocks between them, and the scenes of special pictures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from seglib.datasets.sample import aerial_blocks as blocks
from seglib.datasets.sample.aerial_blocks import Block, park_car, put, scatter_trees
from seglib.datasets.sample.aerial_ground import ASPHALT, LAWNS, PAINT, PAVING, SOIL, Bridge, Land, make_land
from seglib.datasets.sample.objects import pick
from seglib.datasets.sample.objects.outlines import Outline
from seglib.datasets.sample.objects.roofs import Patch, box, courtyard, jittered, toned, winged

OUT_OF_SIGHT = 12  # metres: what is farther from the picture throws no shadow into it
PAVEMENT = 1.8  # metres wide, along both sides of a street

Use = Callable[[Land, Block], None]
Scene = Callable[[Land], None]

# -------------------------------------------------------------------------------------------------------------- streets


@dataclass(frozen=True)
class Quarter:
    """A kind of neighbourhood: how much of it is in a picture, how its streets lie, what its blocks are used for."""

    view: tuple[float, float]  # metres from side to side of the picture
    across: tuple[float, float]  # of a block, along x
    deep: tuple[float, float]  # of a block, along y
    street: tuple[float, float]  # width of the carriageway
    uses: tuple[tuple[Use, float], ...]  # with their shares


SUBURB = Quarter((54, 76), (60, 110), (48, 54), (5.0, 6.5), ((blocks.houses, 0.86), (blocks.park, 0.14)))
TERRACES = Quarter((92, 105), (70, 100), (46, 50), (5, 6.5), ((blocks.terraces, 1.0),))
TOWN = Quarter(
    (90, 130), (60, 100), (54, 80), (7, 11),
    ((blocks.slabs, 0.36), (blocks.compound, 0.36), (blocks.terraces, 0.08), (blocks.parking, 0.1), (blocks.park, 0.1)),
)  # fmt: skip
WORKS = Quarter(
    (110, 160), (75, 130), (46, 66), (7, 11),
    ((blocks.halls, 0.62), (blocks.tanks, 0.12), (blocks.parking, 0.12), (blocks.soil, 0.14)),
)  # fmt: skip
COUNTRY = Quarter(
    (80, 120), (60, 110), (50, 80), (4, 6),
    ((blocks.farm, 0.5), (blocks.field, 0.22), (blocks.wood, 0.1), (blocks.lake, 0.06), (blocks.houses, 0.12)),
)  # fmt: skip
OPEN = Quarter(
    (80, 150), (50, 100), (45, 90), (5, 12),
    ((blocks.field, 0.34), (blocks.wood, 0.14), (blocks.park, 0.22), (blocks.parking, 0.12), (blocks.soil, 0.08),
     (blocks.lake, 0.1)),
)  # fmt: skip


def settle(land: Land, quarter: Quarter) -> None:
    """Lay streets and give every block between them its use.

    Streets along y go through; between two of them, those along x lie at other places than their neighbours.
    """
    rng, width = land.rng, land.rng.uniform(*quarter.street)
    land.base = jittered(rng, PAVING)
    columns, plots, streets = _positions(rng, land.radius, quarter.across), [], []
    for x0, x1 in pairwise(columns):
        rows = _positions(rng, land.radius, quarter.deep)
        streets += [Street(y, x0, x1, width, upright=False) for y in rows]
        plots += [Block(x0, y0, x1, y1).inner(width / 2 + PAVEMENT) for y0, y1 in pairwise(rows)]
    streets += [Street(x, -1.5 * land.radius, 1.5 * land.radius, width, upright=True) for x in columns]
    lay_streets(land, streets)
    uses, shares = zip(*quarter.uses, strict=True)
    for plot in plots:
        if plot.distance > land.radius + OUT_OF_SIGHT:
            continue
        uses[rng.choice(len(uses), p=shares)](land, plot)
        if rng.random() < 0.6:
            blocks.row_of_trees(land, plot)


def _positions(rng: np.random.Generator, radius: float, spacing: tuple[float, float]) -> list[float]:
    """Where streets lie along one axis, the first and the last out of the picture."""
    at = [-radius - rng.uniform(12, spacing[1])]
    while at[-1] < radius + 12:
        at.append(at[-1] + rng.uniform(*spacing))
    return at


@dataclass(frozen=True)
class Street:
    """A street along y (upright) or x, from t0 to t1, its middle line at `at`."""

    at: float
    t0: float
    t1: float
    width: float
    upright: bool

    def strip(self, t0: float, t1: float, off: float, width: float) -> Outline:
        """A part of it, t0 to t1, `off` its middle line."""
        low, high = self.at + off - width / 2, self.at + off + width / 2
        return box(low, t0, high, t1) if self.upright else box(t0, low, t1, high)


def lay_streets(land: Land, streets: Sequence[Street]) -> None:
    """Asphalt along all of them first, then what is painted and drives on it."""
    asphalt = jittered(land.rng, ASPHALT)
    for street in streets:
        land.lay(street.strip(street.t0, street.t1, 0, street.width), asphalt)
    for street in streets:
        crossings = [
            other for other in streets if other.upright != street.upright and other.t0 <= street.at <= other.t1
        ]
        _mark(land, street, [other.at for other in crossings])


def _mark(land: Land, street: Street, crossings: Sequence[float]) -> None:
    """Lane marks and cars, not where others cross; there, places to walk over at times."""
    rng, width = land.rng, street.width
    if abs(street.at) > land.radius:
        return
    far = math.sqrt(land.radius**2 - street.at**2)  # what is farther along the street is out of sight
    for t in np.arange(max(street.t0, -far), min(street.t1, far), 9.0):
        free = min((abs(t + 1.5 - crossing) for crossing in crossings), default=math.inf) - width / 2
        if free > 4 and width > 5.5:
            land.lay(street.strip(t, t + 3, 0, 0.3), PAINT)
        if free > 3 and rng.random() < 0.12:
            side = street.at + rng.choice((-0.25, 0.25)) * width
            park_car(land, *((side, t) if street.upright else (t, side)), upright=street.upright)
    for crossing in crossings:
        t = crossing + rng.choice((-1, 1)) * (width / 2 + 2.5)
        if width > 7 and rng.random() < 0.4 and max(street.t0, -far) < t < min(street.t1, far):
            for off in np.arange(0.6 - width / 2, width / 2 - 0.3, 1.1):
                land.lay(street.strip(t - 1.5, t + 1.5, off, 0.5), PAINT)


# ------------------------------------------------------------------------------------------------------- special scenes


def suburb(land: Land) -> None:
    """Houses and gardens."""
    settle(land, SUBURB)


def town(land: Land) -> None:
    """Blocks of flats, schools, offices."""
    settle(land, TOWN)


def works(land: Land) -> None:
    """Halls and tanks."""
    settle(land, WORKS)


def country(land: Land) -> None:
    """Farms and fields."""
    settle(land, COUNTRY)


def empty(land: Land) -> None:
    """Fields, woods, parks, car parks: no building."""
    settle(land, OPEN)


def dense(land: Land) -> None:
    """Terraces: more than forty houses, wall to wall."""
    settle(land, TERRACES)


def one_courtyard(land: Land) -> None:
    """A single building around a court: a hole that YOLO's polygons cannot hold."""
    _grounds(land)
    plan = courtyard(land.rng.uniform(36, 44), land.rng.uniform(28, 36), land.rng.uniform(8, 10))
    put(land, plan, pick(land.rng, ("flat", "hip")), (0, 0), land.rng.uniform(7, 9), 0.1)
    scatter_trees(land, Block(-40, -40, 40, 40), 30, (1.8, 4.0))


def under_a_bridge(land: Land) -> None:
    """A single long building that a wide bridge crosses: what is seen of it are two parts."""
    rng = land.rng
    _grounds(land)
    put(land, winged(rng.uniform(44, 54), rng.uniform(13, 17)), pick(rng, ("metal", "flat", "gable")), (0, 0), 7, 0.08)
    at, half = rng.uniform(-8, 8), rng.uniform(5, 6.5)
    street = Street(at, -2 * land.radius, 2 * land.radius, 2 * half, upright=True)
    deck = street.strip(street.t0, street.t1, 0, street.width)
    rails = [street.strip(street.t0, street.t1, side * (half - 0.4), 0.8) for side in (-1, 1)]
    lines = [street.strip(t, t + 3, 0, 0.3) for t in np.arange(-land.radius, land.radius, 9.0)]
    patches = [Patch((deck,), jittered(rng, ASPHALT)), *(Patch((rail,), toned(PAVING, 1.2)) for rail in rails)]
    land.bridge = Bridge(deck, 12.0, (*patches, *(Patch((line,), PAINT) for line in lines)))
    scatter_trees(land, Block(-40, -40, at - half - 4, 40), 14)
    scatter_trees(land, Block(at + half + 4, -40, 40, 40), 14)


def at_the_corner(land: Land) -> None:
    """A building in a corner of the picture, which cuts it, and a house."""
    rng = land.rng
    _grounds(land)
    corner = land.metres(np.array([pick(rng, (0.0, 1.0)), pick(rng, (0.0, 1.0))]), size=1)
    put(land, winged(rng.uniform(30, 36), rng.uniform(20, 24)), pick(rng, ("metal", "flat")), tuple(corner), 7, 0.2)
    put(land, winged(14, 9, below=[(3.5, 6.0, 4.0)]), pick(rng, ("gable", "hip")), (0, 0), 6, 0.3)
    scatter_trees(land, Block(-40, -40, 40, 40), 25)


def sheds(land: Land) -> None:
    """Allotments: beds, and tiny sheds of few pixels."""
    rng = land.rng
    land.base = jittered(rng, SOIL)
    for plot in Block(-85, -85, 85, 85).cells(14, 11):
        if not land.shows(*plot.middle, 12):
            continue
        land.lay(plot.inner(0.7).outline, jittered(rng, pick(rng, LAWNS), 0.08))
        bed = Block(plot.x0 + 1.5, plot.y0 + 1.5, plot.x1 - 1.5, plot.y0 + 0.55 * plot.depth)
        blocks.field(land, bed)
        if rng.random() < 0.22:
            plan, x = winged(rng.uniform(2.6, 3.4), rng.uniform(2.2, 2.6)), rng.uniform(plot.x0 + 3, plot.x1 - 3)
            put(land, plan, pick(rng, ("gable", "metal")), (x, plot.y1 - 2.6), 2.4, 0.1)
        scatter_trees(land, plot, 0.2, (1.0, 2.0))


def _grounds(land: Land) -> None:
    """A lawn with a street along one side, for scenes of few buildings."""
    rng = land.rng
    land.base = jittered(rng, pick(rng, LAWNS))
    street = Street(pick(rng, (-1, 1)) * 0.42 * land.view, -land.radius, land.radius, rng.uniform(6, 8), upright=False)
    land.lay(street.strip(-land.radius, land.radius, 0, street.width + 2 * PAVEMENT), jittered(rng, PAVING))
    lay_streets(land, [street])


# ---------------------------------------------------------------------------------------------------------- one picture


@dataclass(frozen=True)
class Special:
    """What sets one picture apart: its scene, and how its file is stored; None: as it comes."""

    scene: Scene
    view: float | None = None  # metres from side to side; None: by chance
    grey: bool = False
    exif: int | None = None  # the EXIF orientation; the labels are those of what a viewer shows


SPECIALS: dict[int, Special] = {  # by image index, modulo PERIOD
    0: Special(suburb),
    3: Special(one_courtyard, view=74),
    4: Special(under_a_bridge, view=72),
    5: Special(empty),
    6: Special(empty),  # valid
    7: Special(empty),  # test
    8: Special(at_the_corner, view=66),
    9: Special(dense),
    10: Special(sheds, view=110),
    13: Special(suburb, exif=6),
    14: Special(town, grey=True),
    16: Special(country, exif=6),  # valid
    17: Special(works, grey=True),  # test
}
VIEWS = {
    suburb: SUBURB.view,
    town: TOWN.view,
    works: WORKS.view,
    country: COUNTRY.view,
    empty: OPEN.view,
    dense: TERRACES.view,
}
ORDINARY = ((suburb, 0.36), (town, 0.26), (works, 0.18), (country, 0.16), (empty, 0.02), (dense, 0.02))


def compose(rng: np.random.Generator, special: Special | None = None) -> Land:
    """Lay out the land of one picture; special: what is to be on it, None: one of `ORDINARY`."""
    scene = ORDINARY[rng.choice(len(ORDINARY), p=[share for _, share in ORDINARY])][0]
    if special:
        scene = special.scene
    view = (special and special.view) or rng.uniform(*VIEWS[scene])
    land = make_land(rng, view)
    scene(land)
    return land
