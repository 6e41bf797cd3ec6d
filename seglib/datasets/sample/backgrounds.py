"""Paints the background of a scene from the ground and adds objects that COCO's sample does not annotate."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from seglib.datasets.sample import old_objects as objects
from seglib.datasets.sample.old_objects import Drawing, pick, surroundings, tint
from seglib.datasets.sample.scene import BOOK, Scene, color_planes, smooth_noise

__all__ = ["paint_indoors", "paint_outdoors"]

SKIES = (  # colors at the top and at the horizon
    ((92, 146, 212), (206, 224, 238)), ((140, 170, 204), (226, 224, 214)), ((176, 184, 194), (222, 222, 220)),
    ((120, 130, 180), (246, 206, 170)),
)  # fmt: skip
SEAS = ((52, 112, 150), (70, 140, 150))
CLOUDS = (248, 246, 244)
HAZE = (190, 206, 220)  # mixed into the color of distant hills
PLASTER = (226, 218, 206)  # mixed into the colors of walls


# --------------------------------------------------------------------------------------------------------------- ground


@dataclass(frozen=True)
class _Ground:
    """Position on the ground and distance of each pixel."""

    x: np.ndarray  # meters to the right, float32 (rows, width)
    z: np.ndarray  # distance up to a factor, float32 (rows, 1)
    near: np.ndarray  # contrast of the texture, from 1 near to 0.25 far, float32 (rows, 1)
    grain: np.ndarray  # random values from -0.5 to 0.5, float32 (64, 64), repeated over the ground

    def speckle(self, across: float, along: float) -> np.ndarray:
        """Return grain with the given number of specks per meter in each direction, float32 (rows, width)."""
        return self.grain[(self.z * along).astype(np.int32) & 63, (self.x * across).astype(np.int32) & 63]


def _measure_ground(scene: Scene, top: int) -> _Ground:
    """Return the ground from row `top` down."""
    rows = np.arange(top, scene.height, dtype=np.float32) + 0.5
    meters = (scene.camera / np.maximum(rows - scene.horizon, 2.0))[:, None]  # per pixel
    columns = np.arange(scene.width, dtype=np.float32) - scene.width * scene.rng.uniform(0.3, 0.7)
    x = columns * meters + 60  # above 0, because `speckle` rounds both -0.5 and 0.5 to 0
    near = np.clip(3.2 * (rows - scene.horizon) / scene.height, 0.25, 1)[:, None]
    return _Ground(x, scene.width * meters, near, scene.texture_rng.random((64, 64), dtype=np.float32) - 0.5)


def _paint_ground(scene: Scene, top: int, kind: str) -> None:
    """Paint the ground from row `top` down, in perspective: "grass", "sand", "paving"; "carpet", "planks", "tiles"."""
    rng = scene.rng
    ground = _measure_ground(scene, top)
    x = ground.x
    z = ground.z
    near = ground.near
    speckle = ground.speckle
    patches = smooth_noise(scene.texture_rng, scene.height - top, scene.width, max(4, scene.height / 6))
    fine = 0.5 / scene.camera  # a camera near the ground shows finer grain
    light = 0.08 * patches
    if kind == "grass":
        color = pick(rng, ((96, 132, 62), (120, 142, 74), (80, 112, 56), (146, 146, 90)))
        light = light + near * (0.34 * speckle(70 * fine, 24 * fine) + 0.2 * speckle(25 * fine, 8 * fine))
    elif kind in ("sand", "carpet"):
        color = pick(rng, ((214, 190, 146), (196, 172, 136))) if kind == "sand" else objects.faded_color(rng)
        light = light + near * 0.16 * speckle(60 * fine, 40 * fine) + 0.05 * np.sin(z * 7 + patches * 3)
    elif kind == "planks":
        color = pick(rng, objects.WOOD)
        board = x * 5
        light = light + 0.3 * ground.grain[7, board.astype(np.int32) & 63] + 0.14 * near * speckle(40, 2.5)
        light = light - 0.3 * near * (board % 1 < 0.07)  # joints
    else:
        color = pick(rng, ((168, 164, 158), (190, 170, 150), (150, 120, 104), (200, 196, 188)))
        slabs = rng.uniform(1.4, 3.0)  # per meter
        light = light + 0.22 * speckle(slabs, slabs) + 0.1 * near * speckle(50 * fine, 30 * fine)
        light = light - 0.22 * near * ((x * slabs % 1 < 0.06) | (z * slabs % 1 < 0.08))  # joints
    scene.canvas[:, top:] = color_planes(color) * (1 + light)


def _add_unannotated_object(scene: Scene, draw: Callable[[np.random.Generator], Drawing]) -> None:
    """Place an object without a COCO category on the ground, more often far than near."""
    rng = scene.rng
    drawing = draw(rng)
    # A low camera is for small objects: large ones stay in the distance.
    largest = 0.5 * scene.height / drawing.height * min(1.0, scene.camera) + 2 * scene.min_scale
    scale = scene.min_scale * (largest / scene.min_scale) ** rng.uniform(0.05, 0.75 if scene.cluttered else 0.5)
    scene.place(drawing, rng.uniform(-0.05, 1.05) * scene.width, scale).kind = draw.__name__


# ------------------------------------------------------------------------------------------------------------- outdoors

GROUNDS = {"park": "grass", "field": "grass", "street": "paving", "beach": "sand"}
OUTDOOR_OBJECTS = {  # objects of each place; what is listed twice is twice as frequent
    "park": (surroundings.tree, surroundings.tree, surroundings.bush, surroundings.bush, surroundings.lamp_post,
             surroundings.bench, surroundings.boulder, surroundings.fence, surroundings.cairn),
    "street": (surroundings.car, surroundings.car, surroundings.lamp_post, surroundings.post, surroundings.pillar,
               surroundings.tree, surroundings.bench),
    "beach": (surroundings.parasol, surroundings.parasol, surroundings.boulder, surroundings.boulder,
              surroundings.cairn, surroundings.post),
    "field": (surroundings.tree, surroundings.bush, surroundings.fence, surroundings.post, surroundings.boulder,
              surroundings.cairn),
}  # fmt: skip


def paint_outdoors(scene: Scene) -> None:
    """Paint sky, hills, houses or sea and the ground; add trees, cars and other objects."""
    rng = scene.rng
    place = pick(rng, ("park", "park", "street", "beach", "field"))
    _paint_sky(scene)
    if place in ("park", "field"):
        _paint_hills(scene)
    top = int(scene.horizon)
    if place == "beach":
        _paint_sea(scene)
        top += scene.height // 12
    _paint_ground(scene, top, GROUNDS[place])
    scene.min_scale = scene.scale_at(top + 0.03 * scene.height)
    if place == "street":
        _add_houses(scene)
    for _ in range(int(rng.integers(2, 6))):
        _add_unannotated_object(scene, pick(rng, OUTDOOR_OBJECTS[place]))


def _paint_sky(scene: Scene) -> None:
    rng = scene.rng
    height = scene.height
    width = scene.width
    high, low = pick(rng, SKIES)
    rows = int(scene.horizon) + 2
    down = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    sky = color_planes(high) * (1 - down) + color_planes(low) * down
    clouds = smooth_noise(scene.texture_rng, rows, width, height / 5) + 0.5 * smooth_noise(
        scene.texture_rng, rows, width, height / 14
    )
    cover = np.clip((clouds - rng.uniform(-0.1, 0.6)) * 1.6, 0, 0.85)
    scene.canvas[:, :rows] = sky * (1 - cover) + color_planes(CLOUDS) * cover
    if rng.random() < 0.2:
        disc = objects.Part(objects.ellipse((0, 0), 1, 1), tint(rng, (255, 236, 170), 6), flat=True)
        x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.08, 0.6) * scene.horizon
        scene.attach(Drawing([disc], height=2), x, y, height * 0.05, depth=-1)


def _paint_hills(scene: Scene) -> None:
    """Paint one or two ridges, the farther one paler."""
    rng = scene.rng
    bottom = int(scene.horizon) + 2
    rows = np.arange(bottom, dtype=np.float32)[:, None]
    for paleness in (0.25,) if rng.random() < 0.4 else (0.55, 0.25):
        color = objects.mix(pick(rng, objects.GREENS), HAZE, paleness)
        rise = 1 + smooth_noise(scene.texture_rng, 1, scene.width, scene.width / 4)[0]
        ridge = scene.horizon - scene.height * (0.03 + 0.16 * paleness * rise)
        texture = 1 + 0.1 * smooth_noise(scene.texture_rng, bottom, scene.width, 5)
        np.copyto(scene.canvas[:, :bottom], color_planes(color) * texture, where=rows > ridge)


def _paint_sea(scene: Scene) -> None:
    horizon = int(scene.horizon)
    color = pick(scene.rng, SEAS)
    waves = smooth_noise(scene.texture_rng, scene.height // 10 + 1, scene.width, 6)
    scene.canvas[:, horizon : horizon + len(waves)] = color_planes(color) * (1 + 0.12 * waves)


def _add_houses(scene: Scene) -> None:
    """Add a row of houses along the far side of the street."""
    # x in meters
    rng = scene.rng
    x = -1.0
    scale = scene.min_scale
    while x * scale < scene.width:
        width = rng.uniform(3.5, 6.5)
        house = scene.place(surroundings.house(rng, width), x * scale, scale, flip=False)
        house.depth = 0.0  # behind everything else
        house.above_ground = True  # without a shadow
        x += width + (rng.uniform(0.2, 1.5) if rng.random() < 0.3 else 0.05)


# -------------------------------------------------------------------------------------------------------------- indoors

FURNITURE = (
    surroundings.sofa, surroundings.sofa, surroundings.table, surroundings.table, surroundings.globe_lamp,
    surroundings.cushion, surroundings.cushion, surroundings.pillar, surroundings.coat_stand,
)  # fmt: skip


def paint_indoors(scene: Scene) -> None:
    """Paint a wall and the floor; add a window, pictures, a shelf and furniture."""
    rng = scene.rng
    bottom = int(min(scene.horizon + scene.height * rng.uniform(0.1, 0.2), scene.height * 0.7))  # of the wall
    scene.min_scale = scale = scene.scale_at(bottom)
    _paint_wall(scene, bottom)
    _paint_ground(scene, bottom, pick(rng, ("planks", "planks", "carpet", "tiles")))
    if rng.random() < 0.6:
        drawing = surroundings.window(rng).with_height(0.6 * scene.horizon / scale)
        sill = bottom - scene.horizon * 0.75
        scene.attach(drawing, rng.uniform(0.02, 0.7) * scene.width, sill + 0.62 * scene.horizon, scale)
    for _ in range(int(rng.integers(0, 3))):
        drawing = surroundings.picture(rng).with_height(0.3 * scene.horizon / scale)
        scene.attach(drawing, rng.uniform(0, 0.9) * scene.width, rng.uniform(0.2, 0.7) * bottom, scale)
    if rng.random() < 0.25:
        x, y = rng.uniform(0, 0.5) * scene.width, rng.uniform(0.25, 0.6) * bottom
        _add_book_shelf(scene, x, y, scale * 1.3, min(1.4, 0.4 * (scene.width / scale)))
    for _ in range(int(rng.integers(1, 4))):
        _add_unannotated_object(scene, pick(rng, FURNITURE))


def _paint_wall(scene: Scene, bottom: int) -> None:
    """Paint plaster or wallpaper down to row `bottom`, brighter on the side of the light."""
    rng = scene.rng
    color = color_planes(objects.mix(objects.palette_color(rng), PLASTER, rng.uniform(0.4, 0.9)))
    across = np.linspace(-scene.light * 0.16, scene.light * 0.16, scene.width, dtype=np.float32)
    stains, plaster = (smooth_noise(scene.texture_rng, bottom, scene.width, cell) for cell in (scene.height / 4, 3))
    light = 1 + across + 0.05 * stains + 0.03 * plaster
    columns, rows = np.arange(scene.width), np.arange(bottom)[:, None]
    period = scene.width * rng.uniform(0.04, 0.1)
    paper = rng.random()
    if paper < 0.3:  # striped
        light = light - 0.14 * (columns % period < period / 2)
    elif paper < 0.45:  # dotted
        light = light - 0.2 * (np.hypot(columns % period - period / 2, rows % period - period / 2) < period / 4)
    elif paper < 0.65:  # panelling below
        low = rows > bottom * 0.62
        light = light - 0.2 * low - 0.15 * (low & (columns % period < 1.5))
    scene.canvas[:, :bottom] = color * light
    scene.canvas[:, bottom - max(2, scene.height // 50) : bottom] *= 0.72  # skirting board


def _add_book_shelf(scene: Scene, x: float, y: float, scale: float, width: float) -> None:
    """Add a shelf with standing books, which are annotated; x, y in pixels, width in meters."""
    # behind everything that stands on the floor
    rng = scene.rng
    depth = y * 0.001
    scene.attach(surroundings.shelf(rng, width), x, y, scale, depth=depth)
    at = 0.04
    while at < width - 0.12:
        thick = rng.uniform(0.035, 0.08)
        if rng.random() < 0.85:  # else a gap
            drawing = objects.standing_book(rng, thick, rng.uniform(0.2, 0.32), rng.choice([0, 0, 0, 0.12]))
            scene.attach(drawing, x + at * scale, y, scale, BOOK, depth=depth + 0.0001)
        at += thick + 0.004
