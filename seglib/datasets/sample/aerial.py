"""Composes a scene from above: streets, the blocks between them, and the scenes of special pictures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from seglib.datasets.sample import aerial_blocks as blocks
from seglib.datasets.sample.aerial_blocks import Block, add_building, add_car, add_random_trees
from seglib.datasets.sample.aerial_ground import (
    ASPHALT,
    LAWNS,
    PAINT,
    PAVING,
    SOIL,
    AerialScene,
    Bridge,
    make_aerial_scene,
)
from seglib.datasets.sample.old_objects import pick
from seglib.datasets.sample.old_objects.outlines import Outline
from seglib.datasets.sample.old_objects.roofs import (
    Patch,
    courtyard_plan,
    jitter,
    rectangle,
    winged_plan,
    with_brightness,
)

__all__ = ["SPECIALS", "Special", "compose"]

OUT_OF_SIGHT = 12  # meters from the picture; a block farther away casts no shadow into it
PAVEMENT = 1.8  # width in meters, along both sides of a street

FillBlock = Callable[[AerialScene, Block], None]
SceneBuilder = Callable[[AerialScene], None]

# -------------------------------------------------------------------------------------------------------------- streets


@dataclass(frozen=True)
class _Neighborhood:
    """The layout of a neighborhood and the functions that fill its blocks."""

    view: tuple[float, float]  # range of the width of the picture in meters
    across: tuple[float, float]  # range of the size of a block along x
    deep: tuple[float, float]  # range of the size of a block along y
    street: tuple[float, float]  # range of the width of a street
    uses: tuple[tuple[FillBlock, float], ...]  # functions with their shares of the blocks


SUBURB = _Neighborhood((54, 76), (60, 110), (48, 54), (5.0, 6.5), ((blocks.add_houses, 0.86), (blocks.add_park, 0.14)))
TERRACES = _Neighborhood((92, 105), (70, 100), (46, 50), (5, 6.5), ((blocks.add_terraced_houses, 1.0),))
TOWN = _Neighborhood(
    (90, 130), (60, 100), (54, 80), (7, 11),
    ((blocks.add_apartment_blocks, 0.36), (blocks.add_large_buildings, 0.36), (blocks.add_terraced_houses, 0.08),
     (blocks.add_parking, 0.1), (blocks.add_park, 0.1)),
)  # fmt: skip
INDUSTRY = _Neighborhood(
    (110, 160), (75, 130), (46, 66), (7, 11),
    ((blocks.add_warehouses, 0.62), (blocks.add_tanks, 0.12), (blocks.add_parking, 0.12), (blocks.add_bare_soil, 0.14)),
)  # fmt: skip
COUNTRY = _Neighborhood(
    (80, 120), (60, 110), (50, 80), (4, 6),
    ((blocks.add_farm, 0.5), (blocks.add_field, 0.22), (blocks.add_wood, 0.1), (blocks.add_lake, 0.06),
     (blocks.add_houses, 0.12)),
)  # fmt: skip
OPEN = _Neighborhood(
    (80, 150), (50, 100), (45, 90), (5, 12),
    ((blocks.add_field, 0.34), (blocks.add_wood, 0.14), (blocks.add_park, 0.22), (blocks.add_parking, 0.12),
     (blocks.add_bare_soil, 0.08), (blocks.add_lake, 0.1)),
)  # fmt: skip


def _add_neighborhood(scene: AerialScene, neighborhood: _Neighborhood) -> None:
    """Add streets and fill the blocks between them.

    Streets along y cross the whole picture. Streets along x end at them, so that not all blocks are in rows.
    """
    rng = scene.rng
    width = scene.rng.uniform(*neighborhood.street)
    scene.base = jitter(rng, PAVING)
    columns = _positions(rng, scene.radius, neighborhood.across)
    plots = []
    streets = []
    for x0, x1 in pairwise(columns):
        rows = _positions(rng, scene.radius, neighborhood.deep)
        streets += [_Street(y, x0, x1, width, upright=False) for y in rows]
        plots += [Block(x0, y0, x1, y1).inner(width / 2 + PAVEMENT) for y0, y1 in pairwise(rows)]
    streets += [_Street(x, -1.5 * scene.radius, 1.5 * scene.radius, width, upright=True) for x in columns]
    _add_streets(scene, streets)
    uses, shares = zip(*neighborhood.uses, strict=True)
    for plot in plots:
        if plot.distance > scene.radius + OUT_OF_SIGHT:
            continue
        uses[rng.choice(len(uses), p=shares)](scene, plot)
        if rng.random() < 0.6:
            blocks.add_tree_row(scene, plot)


def _positions(rng: np.random.Generator, radius: float, spacing: tuple[float, float]) -> list[float]:
    """Return the positions of streets along one axis; the first and the last are outside the picture."""
    at = [-radius - rng.uniform(12, spacing[1])]
    while at[-1] < radius + 12:
        at.append(at[-1] + rng.uniform(*spacing))
    return at


@dataclass(frozen=True)
class _Street:
    """A street along y (upright) or x, from t0 to t1, with its middle line at `at`."""

    at: float
    t0: float
    t1: float
    width: float
    upright: bool

    def strip(self, t0: float, t1: float, off: float, width: float) -> Outline:
        """Return the outline of a strip along the street, from t0 to t1, at distance `off` from the middle line."""
        low, high = self.at + off - width / 2, self.at + off + width / 2
        return rectangle(low, t0, high, t1) if self.upright else rectangle(t0, low, t1, high)


def _add_streets(scene: AerialScene, streets: Sequence[_Street]) -> None:
    """Add the asphalt of all streets, then their markings and cars."""
    asphalt = jitter(scene.rng, ASPHALT)
    for street in streets:
        scene.add_ground(street.strip(street.t0, street.t1, 0, street.width), asphalt)
    for street in streets:
        crossings = [
            other for other in streets if other.upright != street.upright and other.t0 <= street.at <= other.t1
        ]
        _add_street_markings(scene, street, [other.at for other in crossings])


def _add_street_markings(scene: AerialScene, street: _Street, crossings: Sequence[float]) -> None:
    """Add lane markings and cars away from crossings, and sometimes zebra crossings."""
    rng = scene.rng
    width = street.width
    if abs(street.at) > scene.radius:
        return
    far = math.sqrt(scene.radius**2 - street.at**2)  # beyond this, the street is outside the picture
    for t in np.arange(max(street.t0, -far), min(street.t1, far), 9.0):
        free = min((abs(t + 1.5 - crossing) for crossing in crossings), default=math.inf) - width / 2
        if free > 4 and width > 5.5:
            scene.add_ground(street.strip(t, t + 3, 0, 0.3), PAINT)
        if free > 3 and rng.random() < 0.12:
            side = street.at + rng.choice((-0.25, 0.25)) * width
            x, y = (side, t) if street.upright else (t, side)
            add_car(scene, x, y, upright=street.upright)
    for crossing in crossings:
        t = crossing + rng.choice((-1, 1)) * (width / 2 + 2.5)
        if width > 7 and rng.random() < 0.4 and max(street.t0, -far) < t < min(street.t1, far):
            for off in np.arange(0.6 - width / 2, width / 2 - 0.3, 1.1):
                scene.add_ground(street.strip(t - 1.5, t + 1.5, off, 0.5), PAINT)


# ------------------------------------------------------------------------------------------------------- special scenes


def _add_suburb(scene: AerialScene) -> None:
    """Add houses and gardens."""
    _add_neighborhood(scene, SUBURB)


def _add_town(scene: AerialScene) -> None:
    """Add apartment buildings, schools and offices."""
    _add_neighborhood(scene, TOWN)


def _add_industry(scene: AerialScene) -> None:
    """Add warehouses and tanks."""
    _add_neighborhood(scene, INDUSTRY)


def _add_countryside(scene: AerialScene) -> None:
    """Add farms and fields."""
    _add_neighborhood(scene, COUNTRY)


def _add_open_land(scene: AerialScene) -> None:
    """Add fields, woods, parks and car parks, but no building."""
    _add_neighborhood(scene, OPEN)


def _add_dense_housing(scene: AerialScene) -> None:
    """Add more than forty terraced houses, wall to wall."""
    _add_neighborhood(scene, TERRACES)


def _add_courtyard_building(scene: AerialScene) -> None:
    """Add one building around a courtyard: a hole, which YOLO's polygons cannot represent."""
    _add_lawn_and_street(scene)
    plan = courtyard_plan(scene.rng.uniform(36, 44), scene.rng.uniform(28, 36), scene.rng.uniform(8, 10))
    add_building(scene, plan, pick(scene.rng, ("flat", "hip")), (0, 0), scene.rng.uniform(7, 9), 0.1)
    add_random_trees(scene, Block(-40, -40, 40, 40), 30, (1.8, 4.0))


def _add_building_under_bridge(scene: AerialScene) -> None:
    """Add one long building below a wide bridge: its visible part is in two pieces."""
    rng = scene.rng
    _add_lawn_and_street(scene)
    plan = winged_plan(rng.uniform(44, 54), rng.uniform(13, 17))
    add_building(scene, plan, pick(rng, ("metal", "flat", "gable")), (0, 0), 7, 0.08)
    at = rng.uniform(-8, 8)
    half = rng.uniform(5, 6.5)
    street = _Street(at, -2 * scene.radius, 2 * scene.radius, 2 * half, upright=True)
    deck = street.strip(street.t0, street.t1, 0, street.width)
    rails = [street.strip(street.t0, street.t1, side * (half - 0.4), 0.8) for side in (-1, 1)]
    lines = [street.strip(t, t + 3, 0, 0.3) for t in np.arange(-scene.radius, scene.radius, 9.0)]
    patches = [Patch((deck,), jitter(rng, ASPHALT)), *(Patch((rail,), with_brightness(PAVING, 1.2)) for rail in rails)]
    scene.bridge = Bridge(deck, 12.0, (*patches, *(Patch((line,), PAINT) for line in lines)))
    add_random_trees(scene, Block(-40, -40, at - half - 4, 40), 14)
    add_random_trees(scene, Block(at + half + 4, -40, 40, 40), 14)


def _add_building_at_corner(scene: AerialScene) -> None:
    """Add a building in a corner of the picture, which cuts it off, and a house."""
    rng = scene.rng
    _add_lawn_and_street(scene)
    x, y = scene.to_meters(np.array([pick(rng, (0.0, 1.0)), pick(rng, (0.0, 1.0))]), size=1)
    plan = winged_plan(rng.uniform(30, 36), rng.uniform(20, 24))
    add_building(scene, plan, pick(rng, ("metal", "flat")), (x, y), 7, 0.2)
    add_building(scene, winged_plan(14, 9, below=[(3.5, 6.0, 4.0)]), pick(rng, ("gable", "hip")), (0, 0), 6, 0.3)
    add_random_trees(scene, Block(-40, -40, 40, 40), 25)


def _add_sheds(scene: AerialScene) -> None:
    """Add allotment gardens with sheds of a few pixels."""
    rng = scene.rng
    scene.base = jitter(rng, SOIL)
    for plot in Block(-85, -85, 85, 85).cells(14, 11):
        if not scene.is_visible(*plot.middle, 12):
            continue
        scene.add_ground(plot.inner(0.7).outline, jitter(rng, pick(rng, LAWNS), 0.08))
        bed = Block(plot.x0 + 1.5, plot.y0 + 1.5, plot.x1 - 1.5, plot.y0 + 0.55 * plot.depth)
        blocks.add_field(scene, bed)
        if rng.random() < 0.22:
            plan = winged_plan(rng.uniform(2.6, 3.4), rng.uniform(2.2, 2.6))
            x = rng.uniform(plot.x0 + 3, plot.x1 - 3)
            add_building(scene, plan, pick(rng, ("gable", "metal")), (x, plot.y1 - 2.6), 2.4, 0.1)
        add_random_trees(scene, plot, 0.2, (1.0, 2.0))


def _add_lawn_and_street(scene: AerialScene) -> None:
    """Add a lawn with a street along one side, for scenes with few buildings."""
    rng = scene.rng
    scene.base = jitter(rng, pick(rng, LAWNS))
    street = _Street(
        pick(rng, (-1, 1)) * 0.42 * scene.view, -scene.radius, scene.radius, rng.uniform(6, 8), upright=False
    )
    scene.add_ground(street.strip(-scene.radius, scene.radius, 0, street.width + 2 * PAVEMENT), jitter(rng, PAVING))
    _add_streets(scene, [street])


# ---------------------------------------------------------------------------------------------------------- one picture


@dataclass(frozen=True)
class Special:
    """A picture with a given scene and given properties of its file."""

    build: SceneBuilder
    view: float | None = None  # width of the picture in meters; None: at random
    gray: bool = False
    exif: int | None = None  # EXIF orientation of the file; the labels refer to what a viewer shows


SPECIALS: dict[int, Special] = {  # by image index, modulo PERIOD
    0: Special(_add_suburb),
    3: Special(_add_courtyard_building, view=74),
    4: Special(_add_building_under_bridge, view=72),
    5: Special(_add_open_land),
    6: Special(_add_open_land),  # valid
    7: Special(_add_open_land),  # test
    8: Special(_add_building_at_corner, view=66),
    9: Special(_add_dense_housing),
    10: Special(_add_sheds, view=110),
    13: Special(_add_suburb, exif=6),
    14: Special(_add_town, gray=True),
    16: Special(_add_countryside, exif=6),  # valid
    17: Special(_add_industry, gray=True),  # test
}
VIEWS: dict[SceneBuilder, tuple[float, float]] = {  # width of the picture in meters
    _add_suburb: SUBURB.view,
    _add_town: TOWN.view,
    _add_industry: INDUSTRY.view,
    _add_countryside: COUNTRY.view,
    _add_open_land: OPEN.view,
    _add_dense_housing: TERRACES.view,
}
ORDINARY: tuple[tuple[SceneBuilder, float], ...] = (  # scenes with their shares of the pictures
    (_add_suburb, 0.36),
    (_add_town, 0.26),
    (_add_industry, 0.18),
    (_add_countryside, 0.16),
    (_add_open_land, 0.02),
    (_add_dense_housing, 0.02),
)


def compose(rng: np.random.Generator, special: Special | None = None) -> AerialScene:
    """Return the scene of one picture.

    Args:
        rng: decides everything that is random in the picture.
        special: the scene to build; None: one of `ORDINARY`, at random.
    """
    build = ORDINARY[rng.choice(len(ORDINARY), p=[share for _, share in ORDINARY])][0]
    if special:
        build = special.build
    view = (special and special.view) or rng.uniform(*VIEWS[build])
    scene = make_aerial_scene(rng, view)
    build(scene)
    return scene
