"""What is behind a scene: sky, hills, sea, ground; walls, floors; and what only stands around there."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from seglib.datasets.sample import objects as figures
from seglib.datasets.sample.objects import Figure, pick, surroundings, tint
from seglib.datasets.sample.scene import BOOK, Stage, noise, planes

SKIES = (  # the colours above and at the horizon
    ((92, 146, 212), (206, 224, 238)), ((140, 170, 204), (226, 224, 214)), ((176, 184, 194), (222, 222, 220)),
    ((120, 130, 180), (246, 206, 170)),
)  # fmt: skip
SEAS = ((52, 112, 150), (70, 140, 150))
CLOUDS = (248, 246, 244)
HAZE = (190, 206, 220)  # what far hills pale to
PLASTER = (226, 218, 206)  # what the colours of walls are mixed with


# --------------------------------------------------------------------------------------------------------------- ground


@dataclass(frozen=True)
class _Ground:
    """Where on the ground each pixel lies, and how far away."""

    x: np.ndarray  # metres to the right, float32 (rows, width)
    z: np.ndarray  # how far off, up to a factor, float32 (rows, 1)
    near: np.ndarray  # 1 near to 0.25 far, float32 (rows, 1): far texture blurs into one tone
    grain: np.ndarray  # random values from -0.5 to 0.5, float32 (64, 64), repeated over the ground

    def speckle(self, across: float, along: float) -> np.ndarray:
        """Grain of so many specks per metre, float32 (rows, width)."""
        return self.grain[(self.z * along).astype(np.int32) & 63, (self.x * across).astype(np.int32) & 63]


def _survey(stage: Stage, top: int) -> _Ground:
    """Measure the ground from row `top` down."""
    rows = np.arange(top, stage.height, dtype=np.float32) + 0.5
    metres = (stage.camera / np.maximum(rows - stage.horizon, 2.0))[:, None]  # per pixel
    columns = np.arange(stage.width, dtype=np.float32) - stage.width * stage.rng.uniform(0.3, 0.7)
    x = columns * metres + 60  # all right of 0, where `speckle` would round to one grain from both sides
    near = np.clip(3.2 * (rows - stage.horizon) / stage.height, 0.25, 1)[:, None]
    return _Ground(x, stage.width * metres, near, stage.film.random((64, 64), dtype=np.float32) - 0.5)


def paint_ground(stage: Stage, top: int, kind: str) -> None:
    """Paint the ground from row `top` down, in perspective: "grass", "sand", "paving"; "carpet", "planks", "tiles"."""
    rng, ground = stage.rng, _survey(stage, top)
    x, z, near, speckle = ground.x, ground.z, ground.near, ground.speckle
    patches = noise(stage.film, stage.height - top, stage.width, max(4, stage.height / 6))
    fine = 0.5 / stage.camera  # a camera near the ground sees finer grain
    light = 0.08 * patches
    if kind == "grass":
        colour = pick(rng, ((96, 132, 62), (120, 142, 74), (80, 112, 56), (146, 146, 90)))
        light = light + near * (0.34 * speckle(70 * fine, 24 * fine) + 0.2 * speckle(25 * fine, 8 * fine))
    elif kind in ("sand", "carpet"):
        colour = pick(rng, ((214, 190, 146), (196, 172, 136))) if kind == "sand" else figures.faded(rng)
        light = light + near * 0.16 * speckle(60 * fine, 40 * fine) + 0.05 * np.sin(z * 7 + patches * 3)
    elif kind == "planks":
        colour = pick(rng, figures.WOOD)
        board = x * 5
        light = light + 0.3 * ground.grain[7, board.astype(np.int32) & 63] + 0.14 * near * speckle(40, 2.5)
        light = light - 0.3 * near * (board % 1 < 0.07)  # joints
    else:
        colour = pick(rng, ((168, 164, 158), (190, 170, 150), (150, 120, 104), (200, 196, 188)))
        slabs = rng.uniform(1.4, 3.0)  # per metre
        light = light + 0.22 * speckle(slabs, slabs) + 0.1 * near * speckle(50 * fine, 30 * fine)
        light = light - 0.22 * near * ((x * slabs % 1 < 0.06) | (z * slabs % 1 < 0.08))  # joints
    stage.canvas[:, top:] = planes(colour) * (1 + light)


def _stand_around(stage: Stage, draw: Callable[[np.random.Generator], Figure]) -> None:
    """Put something that COCO's sample does not annotate anywhere on the ground, more often far than near."""
    rng = stage.rng
    figure = draw(rng)
    # Low cameras look at small things: what is a man's height stays in the distance there.
    largest = 0.5 * stage.height / figure.height * min(1.0, stage.camera) + 2 * stage.nearest
    scale = stage.nearest * (largest / stage.nearest) ** rng.uniform(0.05, 0.75 if stage.cluttered else 0.5)
    stage.put(figure, rng.uniform(-0.05, 1.05) * stage.width, scale).kind = draw.__name__


# ------------------------------------------------------------------------------------------------------------- outdoors

GROUNDS = {"park": "grass", "field": "grass", "street": "paving", "beach": "sand"}
AROUND = {  # what stands around in each place; what is listed twice comes twice as often
    "park": (surroundings.tree, surroundings.tree, surroundings.bush, surroundings.bush, surroundings.lamp_post,
             surroundings.bench, surroundings.boulder, surroundings.fence, surroundings.cairn),
    "street": (surroundings.car, surroundings.car, surroundings.lamp_post, surroundings.post, surroundings.pillar,
               surroundings.tree, surroundings.bench),
    "beach": (surroundings.parasol, surroundings.parasol, surroundings.boulder, surroundings.boulder,
              surroundings.cairn, surroundings.post),
    "field": (surroundings.tree, surroundings.bush, surroundings.fence, surroundings.post, surroundings.boulder,
              surroundings.cairn),
}  # fmt: skip


def outdoors(stage: Stage) -> None:
    """Sky, hills or houses or the sea, the ground, and what only stands around."""
    rng = stage.rng
    place = pick(rng, ("park", "park", "street", "beach", "field"))
    _paint_sky(stage)
    if place in ("park", "field"):
        _paint_hills(stage)
    top = int(stage.horizon)
    if place == "beach":
        _paint_sea(stage)
        top += stage.height // 12
    paint_ground(stage, top, GROUNDS[place])
    stage.nearest = stage.scale_at(top + 0.03 * stage.height)
    if place == "street":
        _put_houses(stage)
    for _ in range(int(rng.integers(2, 6))):
        _stand_around(stage, pick(rng, AROUND[place]))


def _paint_sky(stage: Stage) -> None:
    rng, height, width = stage.rng, stage.height, stage.width
    high, low = pick(rng, SKIES)
    rows = int(stage.horizon) + 2
    down = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    sky = planes(high) * (1 - down) + planes(low) * down
    clouds = noise(stage.film, rows, width, height / 5) + 0.5 * noise(stage.film, rows, width, height / 14)
    cover = np.clip((clouds - rng.uniform(-0.1, 0.6)) * 1.6, 0, 0.85)
    stage.canvas[:, :rows] = sky * (1 - cover) + planes(CLOUDS) * cover
    if rng.random() < 0.2:
        disc = figures.Part(figures.ellipse((0, 0), 1, 1), tint(rng, (255, 236, 170), 6), flat=True)
        x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.08, 0.6) * stage.horizon
        stage.hang(Figure([disc], height=2), x, y, height * 0.05, depth=-1)


def _paint_hills(stage: Stage) -> None:
    """One or two ridges before the sky, the farther one paler."""
    rng, bottom = stage.rng, int(stage.horizon) + 2
    rows = np.arange(bottom, dtype=np.float32)[:, None]
    for paleness in (0.25,) if rng.random() < 0.4 else (0.55, 0.25):
        colour = figures.mix(pick(rng, figures.GREENS), HAZE, paleness)
        rise = 1 + noise(stage.film, 1, stage.width, stage.width / 4)[0]
        ridge = stage.horizon - stage.height * (0.03 + 0.16 * paleness * rise)
        texture = 1 + 0.1 * noise(stage.film, bottom, stage.width, 5)
        np.copyto(stage.canvas[:, :bottom], planes(colour) * texture, where=rows > ridge)


def _paint_sea(stage: Stage) -> None:
    horizon, colour = int(stage.horizon), pick(stage.rng, SEAS)
    waves = noise(stage.film, stage.height // 10 + 1, stage.width, 6)
    stage.canvas[:, horizon : horizon + len(waves)] = planes(colour) * (1 + 0.12 * waves)


def _put_houses(stage: Stage) -> None:
    """A row of houses along the far side of the street, with a gap here and there."""
    rng, x, scale = stage.rng, -1.0, stage.nearest  # x in metres
    while x * scale < stage.width:
        width = rng.uniform(3.5, 6.5)
        house = stage.put(surroundings.house(rng, width), x * scale, scale, flip=False)
        house.depth, house.lifted = 0.0, True  # behind all else, and without a shadow
        x += width + (rng.uniform(0.2, 1.5) if rng.random() < 0.3 else 0.05)


# -------------------------------------------------------------------------------------------------------------- indoors

FURNITURE = (
    surroundings.sofa, surroundings.sofa, surroundings.table, surroundings.table, surroundings.globe_lamp,
    surroundings.cushion, surroundings.cushion, surroundings.pillar, surroundings.coat_stand,
)  # fmt: skip


def indoors(stage: Stage) -> None:
    """A wall with a window or pictures or a shelf, the floor, furniture."""
    rng = stage.rng
    bottom = int(min(stage.horizon + stage.height * rng.uniform(0.1, 0.2), stage.height * 0.7))  # of the wall
    stage.nearest = scale = stage.scale_at(bottom)
    _paint_wall(stage, bottom)
    paint_ground(stage, bottom, pick(rng, ("planks", "planks", "carpet", "tiles")))
    if rng.random() < 0.6:
        figure, sill = surroundings.window(rng).sized(0.6 * stage.horizon / scale), bottom - stage.horizon * 0.75
        stage.hang(figure, rng.uniform(0.02, 0.7) * stage.width, sill + 0.62 * stage.horizon, scale)
    for _ in range(int(rng.integers(0, 3))):
        figure = surroundings.picture(rng).sized(0.3 * stage.horizon / scale)
        stage.hang(figure, rng.uniform(0, 0.9) * stage.width, rng.uniform(0.2, 0.7) * bottom, scale)
    if rng.random() < 0.25:
        x, y = rng.uniform(0, 0.5) * stage.width, rng.uniform(0.25, 0.6) * bottom
        _hang_book_shelf(stage, x, y, scale * 1.3, min(1.4, 0.4 * (stage.width / scale)))
    for _ in range(int(rng.integers(1, 4))):
        _stand_around(stage, pick(rng, FURNITURE))


def _paint_wall(stage: Stage, bottom: int) -> None:
    """Plaster or wallpaper down to row `bottom`, brighter on the side of the light."""
    rng = stage.rng
    colour = planes(figures.mix(figures.paint(rng), PLASTER, rng.uniform(0.4, 0.9)))
    across = np.linspace(-stage.light * 0.16, stage.light * 0.16, stage.width, dtype=np.float32)
    stains, plaster = (noise(stage.film, bottom, stage.width, cell) for cell in (stage.height / 4, 3))
    light = 1 + across + 0.05 * stains + 0.03 * plaster
    columns, rows = np.arange(stage.width), np.arange(bottom)[:, None]
    period = stage.width * rng.uniform(0.04, 0.1)
    paper = rng.random()
    if paper < 0.3:  # striped
        light = light - 0.14 * (columns % period < period / 2)
    elif paper < 0.45:  # dotted
        light = light - 0.2 * (np.hypot(columns % period - period / 2, rows % period - period / 2) < period / 4)
    elif paper < 0.65:  # panelling below
        low = rows > bottom * 0.62
        light = light - 0.2 * low - 0.15 * (low & (columns % period < 1.5))
    stage.canvas[:, :bottom] = colour * light
    stage.canvas[:, bottom - max(2, stage.height // 50) : bottom] *= 0.72  # skirting board


def _hang_book_shelf(stage: Stage, x: float, y: float, scale: float, width: float) -> None:
    """A board with standing books, each of them an object; x, y in pixels, width in metres."""
    rng, depth = stage.rng, y * 0.001  # behind whatever stands on the floor
    stage.hang(surroundings.shelf(rng, width), x, y, scale, depth=depth)
    at = 0.04
    while at < width - 0.12:
        thick = rng.uniform(0.035, 0.08)
        if rng.random() < 0.85:  # else a gap
            figure = figures.standing_book(rng, thick, rng.uniform(0.2, 0.32), rng.choice([0, 0, 0, 0.12]))
            stage.hang(figure, x + at * scale, y, scale, BOOK, depth=depth + 0.0001)
        at += thick + 0.004
