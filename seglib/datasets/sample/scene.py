"""The stage of a scene: an empty picture with a camera and a light, the things on it, and how they are painted.

A pinhole camera looks level over flat ground. What stands on the ground at row y of the picture is drawn at
(y - horizon) / camera pixels per metre: that one number is its distance.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageFilter

from seglib.datasets.sample import objects as figures
from seglib.datasets.sample.objects import Figure, Sprite, pick

PERSON, CAT, DOG, BALL, PLANT, BOOK = 1, 17, 18, 37, 64, 84  # COCO's own ids, which have gaps
ASPECTS = (0.75, 0.75, 0.75, 0.667, 0.667, 0.625)  # short side by long side
SHADOW: figures.Colour = (16, 14, 24)


@dataclass
class Thing:
    """A figure in its place. What an annotator outlines straight over, because it is held, is listed in `holds`."""

    figure: Figure
    x: float  # pixels, where it touches the ground
    y: float
    scale: float  # pixels per metre there
    category: int | None = None  # None: only stands around
    depth: float = 0.0  # things are painted in the order of their depth: the y of the ground they stand on
    flip: bool = False
    lifted: bool = False  # above the ground: no shadow
    crowd: bool = False
    part_of: "Thing | None" = None  # painted later, but belongs to that thing: the fingers around a book
    holds: list["Thing"] = field(default_factory=list)
    kind: str = ""  # of what only stands around: "car", "sofa"; some data sets have a class for it
    sprite: Sprite | None = None  # once painted, and if in the picture

    def place(self, point: figures.Point) -> tuple[float, float]:
        """Pixels (x, y) of a point that is given in the figure's own units."""
        unit = self.scale * self.figure.size
        return self.x + point[0] * unit * (-1 if self.flip else 1), self.y - point[1] * unit


@dataclass
class Stage:
    """An empty picture, the camera and the light: everything that a scene is put on."""

    rng: np.random.Generator  # for what there is
    film: np.random.Generator  # for textures and noise: how much is drawn depends on the size, the scene must not
    height: int
    width: int
    horizon: float  # row in pixels
    camera: float  # metres above the ground
    light: int  # 1: from the right, -1: from the left
    sunny: bool
    indoor: bool
    cluttered: bool = True  # what only stands around may be in the foreground
    nearest: float = 1.0  # pixels per metre of the farthest place on the ground where things may stand
    things: list[Thing] = field(default_factory=list)
    canvas: np.ndarray = field(init=False)  # the backdrop, float32 (3, height, width), 0-255

    def __post_init__(self) -> None:
        self.canvas = np.zeros((3, self.height, self.width), np.float32)

    def scale_at(self, y: float) -> float:
        """Pixels per metre where the ground is at row y."""
        return max((y - self.horizon) / self.camera, 1e-3)

    def put(
        self,
        figure: Figure,
        x: float,
        scale: float,
        category: int | None = None,
        flip: bool | None = None,
        crowd: bool = False,
    ) -> Thing:
        """Stand a figure on the ground.

        Args:
            x: column in pixels.
            scale: pixels per metre there, which says how far away it is.
            category: COCO's id; None: it is not annotated.
            flip: mirror it; None: by chance.
            crowd: annotate it as COCO's crowd.
        """
        y = self.horizon + self.camera * scale
        by_chance = bool(self.rng.random() < 0.5)  # drawn in any case, so that what follows does not depend on `flip`
        flip = by_chance if flip is None else flip
        thing = Thing(figure, x, y, scale, category, depth=y, flip=flip, crowd=crowd)
        self.things.append(thing)
        return thing

    def hang(self, figure: Figure, x: float, y: float, scale: float, category: int | None = None, **more) -> Thing:
        """Put a figure anywhere: on a wall, a table, in somebody's hands; `more`: other fields of its `Thing`."""
        thing = Thing(figure, x, y, scale, category, lifted=True, **more)
        self.things.append(thing)
        return thing


def make_stage(rng: np.random.Generator, size: int, indoor: bool, camera: float, aspect: float | None = None) -> Stage:
    """An empty stage.

    Args:
        size: the longer side in pixels.
        camera: metres above the ground.
        aspect: height by width; None: by chance.
    """
    if aspect is None:
        short = pick(rng, ASPECTS)
        aspect = float(rng.choice([short, 1 / short, 1.0], p=[0.7, 0.18, 0.12]))
    height, width = (size, round(size / aspect)) if aspect > 1 else (round(size * aspect), size)
    return Stage(
        rng,
        film=rng.spawn(1)[0],
        height=height,
        width=width,
        horizon=height * rng.uniform(0.34, 0.46),
        camera=camera,
        light=pick(rng, (-1, 1)),
        sunny=bool(rng.random() < 0.6),
        indoor=indoor,
    )


# --------------------------------------------------------------------------------------------------------------- pixels


def noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Smooth noise, float32 (height, width), mostly within -1 to 1, with bumps of about `cell` pixels."""
    rows, columns = math.ceil(height / cell) + 2, math.ceil(width / cell) + 2
    coarse = rng.random((rows, columns), dtype=np.float32) * 2 - 1
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def planes(colour: figures.Colour | np.ndarray) -> np.ndarray:
    """A colour as float32 (3, 1, 1), to be multiplied with light (H, W)."""
    return np.asarray(colour, np.float32)[:, None, None]


def paint_stage(stage: Stage) -> np.ndarray:
    """Paint everything on the backdrop, from far to near; uint8 (H, W, 3). Each thing gets its sprite."""
    frame = (stage.height, stage.width)
    for thing in stage.things:
        thing.sprite = figures.rasterise(thing.figure, thing.x, thing.y, thing.scale, frame, stage.light, thing.flip)
    seen = [thing for thing in stage.things if thing.sprite]
    # Figures keep some brightness in reserve for their lit sides: the backdrop is painted as much darker.
    backdrop = np.clip(stage.canvas * (figures.EVEN_LIGHT / 255), 0, 255).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(backdrop.transpose(1, 2, 0)))
    for thing in seen:
        if not thing.lifted:
            _paint_shadow(stage, picture, thing)
    for thing in seen:
        picture.paste(thing.sprite.image, (thing.sprite.left, thing.sprite.top), thing.sprite.image)
    return _develop(stage, picture)


def _paint_shadow(stage: Stage, picture: Image.Image, thing: Thing) -> None:
    """Darken the ground: the thing's outline laid down, in the sun far away from the light, else underneath it."""
    cover = thing.sprite.image.getchannel("A")
    strong, lean, flat = (0.5, 0.55, 0.22) if stage.sunny and not stage.indoor else (0.35, 0.1, 0.16)
    reach, rows = math.ceil(lean * cover.height), math.ceil(flat * cover.height) + 1
    ground = min(thing.y - thing.sprite.top, cover.height)  # the row of the sprite that touches the ground
    shift, slope = (reach if stage.light > 0 else 0), -stage.light * lean / flat
    # Of each shadow pixel, the sprite's pixel that throws it: Pillow's coefficients of x and y.
    throws = (1, slope, -shift - slope * rows, 0, 1 / flat, ground - rows / flat)
    shadow = cover.transform((cover.width + reach, rows + 3), Image.Transform.AFFINE, throws, Image.Resampling.BILINEAR)
    shadow = shadow.filter(ImageFilter.BoxBlur(max(0.6, 0.012 * cover.height)))
    shadow = shadow.point([int(value * strong) for value in range(256)])
    picture.paste(SHADOW, (thing.sprite.left - shift, round(thing.sprite.top + ground - rows)), shadow)


def _develop(stage: Stage, picture: Image.Image) -> np.ndarray:
    """What a camera adds: a colour cast, darker corners, a touch of texture, sensor noise."""
    rng, shape = stage.rng, (stage.height, stage.width)
    across, down = (np.linspace(-1, 1, side, dtype=np.float32) for side in (stage.width, stage.height))
    light = rng.uniform(1.0, 1.2) * (1 - 0.07 * (across**2 + down[:, None] ** 2)) + across * rng.uniform(-0.08, 0.08)
    light += 0.03 * noise(stage.film, *shape, max(3, stage.height / 40))
    pixels = np.asarray(picture).transpose(2, 0, 1) * light
    pixels *= planes(rng.normal(1, 0.02, 3))
    pixels += stage.film.standard_normal(shape, dtype=np.float32) * np.float32(rng.uniform(2, 6))
    return np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))
