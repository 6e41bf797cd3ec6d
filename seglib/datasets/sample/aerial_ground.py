"""A piece of land seen from straight above: what lies and stands on it, and how that is painted.

Places are metres from the middle of the picture on the land's own axes, along which its streets run; the picture is
turned against them. The sun comes from one side: every shadow falls the other way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from seglib.datasets.sample.objects import pick
from seglib.datasets.sample.objects.outlines import Outline
from seglib.datasets.sample.objects.roofs import Building, Patch, Surface, box, following, inset, jittered, toned
from seglib.datasets.sample.scene import noise

Circle = tuple[float, float, float]  # x, y and radius in metres

ZOOM = 2  # painted at twice the size, for smooth edges
SHIFT = 4  # OpenCV's coordinates are whole numbers with so many binary places
HAZE = (176, 186, 200)  # red, green, blue of the air between
FULL: Surface = (255, 255, 255, 255)  # what is in a mask
SHADE = 0.46  # how bright the ground is in the shadow

LAWNS: tuple[Surface, ...] = ((88, 108, 62, 50), (70, 92, 54, 56), (106, 118, 70, 56), (130, 128, 88, 56))
CROWNS: tuple[Surface, ...] = ((58, 84, 44, 120), (74, 98, 48, 120), (48, 72, 46, 120), (92, 104, 52, 120))
CROPS: tuple[Surface, ...] = ((112, 122, 70, 44), (158, 146, 102, 40), (132, 108, 84, 44), (82, 106, 60, 50))
CARS: tuple[Surface, ...] = (
    (232, 232, 232, 0), (232, 232, 232, 0), (40, 42, 48, 0), (150, 154, 160, 0), (150, 40, 40, 0), (60, 84, 140, 0),
)  # fmt: skip
ASPHALT: Surface = (102, 102, 106, 26)
PAVING: Surface = (150, 144, 134, 34)
SOIL: Surface = (150, 128, 102, 50)
WATER: Surface = (58, 84, 82, 10)
POOL: Surface = (84, 182, 206, 8)
PAINT: Surface = (214, 212, 204, 10)


@dataclass(frozen=True)
class Bridge:
    """A road along y, high over all else."""

    deck: Outline  # a rectangle
    height: float  # metres
    patches: tuple[Patch, ...]


@dataclass
class Land:
    """What there is in one picture."""

    rng: np.random.Generator  # for what there is
    film: np.random.Generator  # for textures and noise: how much is drawn depends on the size, the scene must not
    view: float  # metres from side to side of the picture
    turn: float  # radians, by which the land's axes are turned in the picture
    sun: np.ndarray  # (2,), of length 1: the direction to the sun on the ground
    reach: float  # metres of shadow per metre of height
    base: Surface = LAWNS[0]
    ground: list[Patch] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    trees: list[Circle] = field(default_factory=list)  # crowns
    bridge: Bridge | None = None

    @property
    def radius(self) -> float:
        """How far the corners of the picture are from its middle."""
        return self.view / math.sqrt(2)

    def lay(self, outline: Outline, surface: Surface) -> None:
        """Cover ground; what was laid before is under it."""
        self.ground.append(Patch((outline,), surface))

    def pixels(self, points: Outline, size: int) -> Outline:
        """Places in the picture, x and y in pixels from its upper left corner."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return points @ np.array([[cos, sin], [-sin, cos]]) * (size / self.view) + size / 2

    def shows(self, x: float, y: float, margin: float) -> bool:
        """Whether a place is in the picture or less than `margin` metres from it."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return max(abs(x * cos - y * sin), abs(x * sin + y * cos)) < self.view / 2 + margin

    def metres(self, points: Outline, size: int) -> Outline:
        """The inverse of `pixels`."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return (np.asarray(points) - size / 2) @ np.array([[cos, -sin], [sin, cos]]) * (self.view / size)


def make_land(rng: np.random.Generator, view: float) -> Land:
    """An empty piece of land, `view` metres wide."""
    azimuth = rng.uniform(0, 2 * math.pi)
    sun = np.array([math.cos(azimuth), math.sin(azimuth)])
    return Land(rng, rng.spawn(1)[0], view, rng.uniform(0, math.pi), sun, rng.uniform(0.5, 1.1))


# --------------------------------------------------------------------------------------------------------- small things


def plant(land: Land, x: float, y: float, radius: float) -> None:
    """Plant a tree, unless its crown would hide more of a roof than an annotator would mind."""
    if not land.shows(x, y, 2.5 * radius):  # nor its shadow
        return
    for building in land.buildings:
        x0, y0, x1, y1 = building.bounds
        if not (x0 - radius < x < x1 + radius and y0 - radius < y < y1 + radius):
            continue
        inside = cv2.pointPolygonTest(building.outline.astype(np.float32), (x, y), True)  # metres, below 0 outside
        if inside > 0.4 - radius:
            return
    land.trees.append((x, y, radius))


def park_car(land: Land, x: float, y: float, upright: bool = False) -> None:
    """A car along x, or along y, with its shadow and its windows."""
    if not land.shows(x, y, 4):
        return
    long, wide = (0.95, 2.2) if upright else (2.2, 0.95)
    outline, colour = box(x - long, y - wide, x + long, y + wide), jittered(land.rng, pick(land.rng, CARS))
    land.lay(outline - 0.7 * land.reach * land.sun, toned(ASPHALT, 0.5))
    land.lay(outline, colour)
    middle, lengthwise = np.array([x, y]), np.array([0.92, 0.6] if upright else [0.6, 0.92])
    land.lay((outline - middle) * lengthwise + middle, (50, 56, 66, 0))  # windows, and the roof between them
    land.lay((outline - middle) * np.where(lengthwise < 0.9, 0.34, 0.92) + middle, toned(colour, 0.96))


def stripes(land: Land, area: Outline, surface: Surface, period: float, wide: float) -> None:
    """Lines along x, every `period` metres and `wide` metres thick, over a rectangle."""
    (x0, y0), (x1, y1) = area[0], area[2]
    for y in np.arange(y0 + period / 2, y1 - wide / 2, period):
        land.lay(box(x0, y - wide / 2, x1, y + wide / 2), surface)


# ------------------------------------------------------------------------------------------------------------- painting


def paint_land(land: Land, size: int) -> np.ndarray:
    """Paint everything, from the ground up; uint8 (size, size, 3)."""
    canvas = np.empty((ZOOM * size, ZOOM * size, 4), np.uint8)  # red, green, blue, roughness
    cv2.rectangle(canvas, (0, 0), (ZOOM * size, ZOOM * size), land.base, thickness=-1)
    fill(canvas, land, land.ground)
    _shade(canvas, land, [shadow for building in land.buildings for shadow in _shadows(land, building)], land.trees)
    paint_roofs(canvas, land)
    if land.bridge:
        _shade(canvas, land, [Patch((land.bridge.deck - land.bridge.height * land.reach * land.sun,), FULL)])
        fill(canvas, land, land.bridge.patches)
    _paint_trees(canvas, land)
    return _develop(land, cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA))


def fill(canvas: np.ndarray, land: Land, patches: Sequence[Patch]) -> None:
    """Paint patches on the canvas, uint8 (h, w, 4), one after the other."""
    if not patches:
        return
    outlines = [loop for patch in patches for loop in patch.loops]
    # All at once: one call of numpy for hundreds of short outlines. Whole numbers are the middles of OpenCV's pixels.
    pixels = land.pixels(np.concatenate(outlines), len(canvas)) - 0.5
    fixed, start = np.rint(pixels * 2**SHIFT).astype(np.int32), 0
    for patch in patches:
        loops = []
        for loop in patch.loops:
            loops.append(fixed[start : start + len(loop)])
            start += len(loop)
        cv2.fillPoly(canvas, loops, patch.surface, shift=SHIFT)


def paint_roofs(canvas: np.ndarray, land: Land) -> None:
    """Paint the roofs, the lowest building first."""
    half = 0.5 * land.view / len(canvas)  # OpenCV paints half a pixel more than the outline, all around
    patches = []
    for building in sorted(land.buildings, key=lambda building: building.height):
        base, *rest = building.patches
        patches += [Patch(tuple(inset(loop, half) for loop in base.loops), base.surface), *rest]
    fill(canvas, land, patches)


def _shadows(land: Land, building: Building) -> list[Patch]:
    """Where a building's shadow falls on flat ground: its outline moved away from the sun, and what its edges sweep."""
    far = -building.height * land.reach * land.sun
    shadows = [Patch(tuple(loop + far for loop in building.loops), FULL)]
    for loop in building.loops:
        ahead = following(loop)
        shadows += [Patch((quad,), FULL) for quad in np.stack([loop, ahead, ahead + far, loop + far], axis=1)]
    return shadows


def _shade(canvas: np.ndarray, land: Land, shadows: Sequence[Patch], trees: Sequence[Circle] = ()) -> None:
    """Darken what lies in the shadows that are given, and in those of trees."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    fill(mask, land, shadows)
    if trees:
        crowns = np.array(trees)
        crowns[:, :2] -= 1.2 * crowns[:, 2:] * land.reach * land.sun  # a crown's middle is about that high
        _dots(mask, land, crowns, np.full((len(crowns), 1), 255.0))
    cv2.copyTo(cv2.convertScaleAbs(canvas, alpha=SHADE), mask, canvas)


def _dots(canvas: np.ndarray, land: Land, circles: np.ndarray, colours: np.ndarray) -> None:
    """Paint circles, (n, 3) x, y and radius in metres, in colours (n, channels), one after the other."""
    pixels = land.pixels(circles[:, :2], len(canvas)) - 0.5
    fixed = np.column_stack([pixels, circles[:, 2] * (len(canvas) / land.view)]) * 2**SHIFT
    for (x, y, radius), colour in zip(np.rint(fixed).astype(int).tolist(), colours.tolist(), strict=True):
        cv2.circle(canvas, (x, y), radius, colour, -1, shift=SHIFT)


def _paint_trees(canvas: np.ndarray, land: Land) -> None:
    """Crowns: a dark one, and on it bunches of leaves, the brighter the nearer they are to the sun."""
    if not land.trees:
        return
    film, count, bunches = land.film, len(land.trees), 7
    angle, out = film.uniform(0, 2 * math.pi, (count, bunches)), film.uniform(0.15, 0.7, (count, bunches))
    offset = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * out[..., None]
    tone = 0.85 + 0.4 * offset @ land.sun + film.normal(0, 0.08, (count, bunches))
    radius = film.uniform(0.28, 0.5, (count, bunches))
    offset[:, 0], tone[:, 0], radius[:, 0] = 0, 0.68, 0.92  # the crown itself comes first
    trees = np.array(land.trees)[:, None]  # (count, 1, 3)
    circles = np.concatenate([trees[..., :2] + offset * trees[..., 2:], radius[..., None] * trees[..., 2:]], axis=-1)
    greens = np.array(CROWNS)[film.integers(0, len(CROWNS), count)][:, None] * [1.0, 1.0, 1.0, 1.0]
    colours = np.concatenate(
        [greens[..., :3] * tone[..., None], np.broadcast_to(greens[..., 3:], tone[..., None].shape)], axis=-1
    )
    _dots(canvas, land, circles.reshape(-1, 3), np.clip(colours, 0, 255).reshape(-1, 4))


def _develop(land: Land, painted: np.ndarray) -> np.ndarray:
    """What ground and camera add to uint8 (size, size, 4): texture, haze, a colour cast, blur, sensor noise."""
    film, rng, size = land.film, land.rng, len(painted)
    metre = size / land.view
    patches, tufts = noise(film, size, size, 9 * metre), noise(film, size, size, max(1.5, 1.4 * metre))
    speckle = film.standard_normal((size, size), np.float32)
    exposure, haze, blur, sensor = rng.uniform((0.92, 0, 0, 1.5), (1.12, 0.12, 0.6, 5)).tolist()
    casts = rng.normal(1, 0.025, 3).tolist()
    red, green, blue, rough = cv2.split(painted)
    rough = rough * np.float32(1 / 255)
    light = exposure * (1 - haze) * (1 + rough * (0.45 * patches + 0.6 * tufts + 0.3 * speckle))
    dry = exposure * rough * patches  # dry places are redder, the others greener
    flicker = sensor * speckle[::-1]  # the same noise upside down
    planes = []
    for plane, cast, dryness, veil in zip((red, green, blue), casts, (22, 4, -8), HAZE, strict=True):
        planes.append(cast * (plane * light + dryness * dry) + haze * veil + flicker)
    pixels = cv2.merge([np.clip(plane, 0, 255).astype(np.uint8) for plane in planes])
    return cv2.GaussianBlur(pixels, (0, 0), blur * size / 320) if blur * size > 0.25 * 320 else pixels
