"""A scene seen from above: its ground, buildings, trees and cars, and how they are painted.

Coordinates are in meters, with the origin in the middle of the picture. Streets run along the axes, which are rotated
against the borders of the picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from seglib.datasets.sample.objects import smooth_noise
from seglib.datasets.sample.old_objects import pick
from seglib.datasets.sample.old_objects.outlines import Outline
from seglib.datasets.sample.old_objects.roofs import (
    Building,
    Patch,
    Surface,
    inset,
    jitter,
    next_points,
    rectangle,
    with_brightness,
)

__all__ = [
    "ASPHALT", "CROPS", "LAWNS", "PAINT", "PAVING", "POOL", "SOIL", "WATER", "ZOOM", "AerialScene", "Bridge",
    "add_car", "add_stripes", "add_tree", "make_aerial_scene", "paint_aerial_scene", "paint_roofs",
]  # fmt: skip

Circle = tuple[float, float, float]  # x, y and radius in meters

ZOOM = 2  # the scene is painted at twice the size, for smooth edges
SHIFT = 4  # binary places of OpenCV's fixed-point coordinates
HAZE = (176, 186, 200)  # color of haze
FULL: Surface = (255, 255, 255, 255)  # the value of a mask
SHADE = 0.46  # brightness of the ground in a shadow

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
    """A road along y above everything else."""

    deck: Outline  # a rectangle
    height: float  # meters
    patches: tuple[Patch, ...]


@dataclass
class AerialScene:
    """The ground, the buildings and the light of one picture."""

    rng: np.random.Generator  # decides which objects there are
    # Textures and noise draw more numbers for a larger picture. Their own generator keeps the objects the same.
    texture_rng: np.random.Generator
    view: float  # width of the picture in meters
    rotation: float  # of the axes against the picture, in radians
    sun: np.ndarray  # (2,), of length 1: direction on the ground towards the sun
    shadow_length: float  # meters of shadow per meter of height
    base: Surface = LAWNS[0]
    ground: list[Patch] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    trees: list[Circle] = field(default_factory=list)  # crowns
    bridge: Bridge | None = None

    @property
    def radius(self) -> float:
        """Distance in meters from the middle of the picture to its corners."""
        return self.view / math.sqrt(2)

    def add_ground(self, outline: Outline, surface: Surface) -> None:
        """Add a patch of ground above all earlier patches."""
        self.ground.append(Patch((outline,), surface))

    def to_pixels(self, points: Outline, size: int) -> Outline:
        """Convert points (n, 2) from meters to pixels of a picture of the given size."""
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        return points @ np.array([[cos, sin], [-sin, cos]]) * (size / self.view) + size / 2

    def is_visible(self, x: float, y: float, margin: float) -> bool:
        """Return whether a point is in the picture or less than `margin` meters outside it."""
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        return max(abs(x * cos - y * sin), abs(x * sin + y * cos)) < self.view / 2 + margin

    def to_meters(self, points: Outline, size: int) -> Outline:
        """Convert points (n, 2) from pixels of a picture of the given size to meters."""
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        return (np.asarray(points) - size / 2) @ np.array([[cos, -sin], [sin, cos]]) * (self.view / size)


def make_aerial_scene(rng: np.random.Generator, view: float) -> AerialScene:
    """Return a scene without objects, `view` meters wide."""
    azimuth = rng.uniform(0, 2 * math.pi)
    sun = np.array([math.cos(azimuth), math.sin(azimuth)])
    return AerialScene(rng, rng.spawn(1)[0], view, rng.uniform(0, math.pi), sun, rng.uniform(0.5, 1.1))


# -------------------------------------------------------------------------------------------------------- small objects


def add_tree(scene: AerialScene, x: float, y: float, radius: float) -> None:
    """Add a tree unless its crown would hide too much of a roof."""
    if not scene.is_visible(x, y, 2.5 * radius):  # neither the tree nor its shadow
        return
    for building in scene.buildings:
        x0, y0, x1, y1 = building.bounds
        if not (x0 - radius < x < x1 + radius and y0 - radius < y < y1 + radius):
            continue
        inside = cv2.pointPolygonTest(building.outline.astype(np.float32), (x, y), True)  # meters, below 0 outside
        if inside > 0.4 - radius:
            return
    scene.trees.append((x, y, radius))


def add_car(scene: AerialScene, x: float, y: float, upright: bool = False) -> None:
    """Add a car along x, or along y if `upright`, with its shadow and its windows."""
    if not scene.is_visible(x, y, 4):
        return
    long, wide = (0.95, 2.2) if upright else (2.2, 0.95)
    outline = rectangle(x - long, y - wide, x + long, y + wide)
    color = jitter(scene.rng, pick(scene.rng, CARS))
    scene.add_ground(outline - 0.7 * scene.shadow_length * scene.sun, with_brightness(ASPHALT, 0.5))
    scene.add_ground(outline, color)
    middle = np.array([x, y])
    lengthwise = np.array([0.92, 0.6] if upright else [0.6, 0.92])
    scene.add_ground((outline - middle) * lengthwise + middle, (50, 56, 66, 0))  # windows, and the roof between them
    scene.add_ground((outline - middle) * np.where(lengthwise < 0.9, 0.34, 0.92) + middle, with_brightness(color, 0.96))


def add_stripes(scene: AerialScene, polygon_area: Outline, surface: Surface, period: float, wide: float) -> None:
    """Cover a rectangle with lines along x, every `period` meters and `wide` meters thick."""
    (x0, y0), (x1, y1) = polygon_area[0], polygon_area[2]
    for y in np.arange(y0 + period / 2, y1 - wide / 2, period):
        scene.add_ground(rectangle(x0, y - wide / 2, x1, y + wide / 2), surface)


# ------------------------------------------------------------------------------------------------------------- painting


def paint_aerial_scene(scene: AerialScene, size: int) -> np.ndarray:
    """Paint the scene from the ground up and return the picture, uint8 (size, size, 3)."""
    canvas = np.empty((ZOOM * size, ZOOM * size, 4), np.uint8)  # red, green, blue, roughness
    cv2.rectangle(canvas, (0, 0), (ZOOM * size, ZOOM * size), scene.base, thickness=-1)
    _fill(canvas, scene, scene.ground)
    _shade(canvas, scene, [shadow for building in scene.buildings for shadow in _shadows(scene, building)], scene.trees)
    paint_roofs(canvas, scene)
    if scene.bridge:
        _shade(
            canvas, scene, [Patch((scene.bridge.deck - scene.bridge.height * scene.shadow_length * scene.sun,), FULL)]
        )
        _fill(canvas, scene, scene.bridge.patches)
    _paint_trees(canvas, scene)
    return _add_camera_effects(scene, cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA))


def _fill(canvas: np.ndarray, scene: AerialScene, patches: Sequence[Patch]) -> None:
    """Paint patches on the canvas, uint8 (h, w, 4), one after the other."""
    if not patches:
        return
    outlines = [loop for patch in patches for loop in patch.loops]
    # One call of NumPy for hundreds of short outlines is faster. OpenCV's integers are the middles of pixels.
    pixels = scene.to_pixels(np.concatenate(outlines), len(canvas)) - 0.5
    fixed = np.rint(pixels * 2**SHIFT).astype(np.int32)
    start = 0
    for patch in patches:
        loops = []
        for loop in patch.loops:
            loops.append(fixed[start : start + len(loop)])
            start += len(loop)
        cv2.fillPoly(canvas, loops, patch.surface, shift=SHIFT)


def paint_roofs(canvas: np.ndarray, scene: AerialScene) -> None:
    """Paint the roofs, the lowest building first."""
    half = 0.5 * scene.view / len(canvas)  # OpenCV paints half a pixel beyond the outline
    patches = []
    for building in sorted(scene.buildings, key=lambda building: building.height):
        base, *rest = building.patches
        patches += [Patch(tuple(inset(loop, half) for loop in base.loops), base.surface), *rest]
    _fill(canvas, scene, patches)


def _shadows(scene: AerialScene, building: Building) -> list[Patch]:
    """Return a building's shadow on flat ground: its outline, moved away from the sun, and what its edges sweep."""
    far = -building.height * scene.shadow_length * scene.sun
    shadows = [Patch(tuple(loop + far for loop in building.loops), FULL)]
    for loop in building.loops:
        ahead = next_points(loop)
        shadows += [Patch((quad,), FULL) for quad in np.stack([loop, ahead, ahead + far, loop + far], axis=1)]
    return shadows


def _shade(canvas: np.ndarray, scene: AerialScene, shadows: Sequence[Patch], trees: Sequence[Circle] = ()) -> None:
    """Darken the given shadows and those of trees."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    _fill(mask, scene, shadows)
    if trees:
        crowns = np.array(trees)
        crowns[:, :2] -= (
            1.2 * crowns[:, 2:] * scene.shadow_length * scene.sun
        )  # about the height of the middle of a crown
        _dots(mask, scene, crowns, np.full((len(crowns), 1), 255.0))
    cv2.copyTo(cv2.convertScaleAbs(canvas, alpha=SHADE), mask, canvas)


def _dots(canvas: np.ndarray, scene: AerialScene, circles: np.ndarray, colors: np.ndarray) -> None:
    """Paint circles, (n, 3): x, y and radius in meters, in colors (n, channels), one after the other."""
    pixels = scene.to_pixels(circles[:, :2], len(canvas)) - 0.5
    fixed = np.column_stack([pixels, circles[:, 2] * (len(canvas) / scene.view)]) * 2**SHIFT
    for (x, y, radius), color in zip(np.rint(fixed).astype(int).tolist(), colors.tolist(), strict=True):
        cv2.circle(canvas, (x, y), radius, color, -1, shift=SHIFT)


def _paint_trees(canvas: np.ndarray, scene: AerialScene) -> None:
    """Paint dark crowns and on them bunches of leaves, which are brighter towards the sun."""
    if not scene.trees:
        return
    texture_rng = scene.texture_rng
    count = len(scene.trees)
    bunches = 7
    angle = texture_rng.uniform(0, 2 * math.pi, (count, bunches))
    out = texture_rng.uniform(0.15, 0.7, (count, bunches))
    offset = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * out[..., None]
    tone = 0.85 + 0.4 * offset @ scene.sun + texture_rng.normal(0, 0.08, (count, bunches))
    radius = texture_rng.uniform(0.28, 0.5, (count, bunches))
    offset[:, 0], tone[:, 0], radius[:, 0] = 0, 0.68, 0.92  # the crown itself comes first
    trees = np.array(scene.trees)[:, None]  # (count, 1, 3)
    circles = np.concatenate([trees[..., :2] + offset * trees[..., 2:], radius[..., None] * trees[..., 2:]], axis=-1)
    greens = np.array(CROWNS)[texture_rng.integers(0, len(CROWNS), count)][:, None] * [1.0, 1.0, 1.0, 1.0]
    colors = np.concatenate(
        [greens[..., :3] * tone[..., None], np.broadcast_to(greens[..., 3:], tone[..., None].shape)], axis=-1
    )
    _dots(canvas, scene, circles.reshape(-1, 3), np.clip(colors, 0, 255).reshape(-1, 4))


def _add_camera_effects(scene: AerialScene, painted: np.ndarray) -> np.ndarray:
    """Add texture, haze, a color cast, blur and sensor noise to uint8 (size, size, 4)."""
    texture_rng = scene.texture_rng
    rng = scene.rng
    size = len(painted)
    meter = size / scene.view
    patches = smooth_noise(texture_rng, size, size, 9 * meter)
    tufts = smooth_noise(texture_rng, size, size, max(1.5, 1.4 * meter))
    speckle = texture_rng.standard_normal((size, size), np.float32)
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
