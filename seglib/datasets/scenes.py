"""Renders the bundled sample of a data set, in that data set's real on-disk format: scenes drawn by code.

Nothing here is downloaded and nobody's photograph is used. Each picture depends on (seed, image index) alone. What
every real data set hides (crowds, holes, turned photographs, grey ones, empty ones ...) is in the sample as well, at
fixed places: see `SPECIALS`.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFilter

from seglib import masks
from seglib.datasets import figures
from seglib.datasets.catalog import data_home
from seglib.datasets.figures import Figure, Sprite, paint, pick, tint
from seglib.files import EXIF_ORIENTATION

VERSION = 2  # part of the folder's name: raise it whenever the pictures change, so that nobody keeps the old ones

PERSON, CAT, DOG, BALL, PLANT, BOOK = 1, 17, 18, 37, 64, 84
CATEGORIES = (  # COCO's own ids, which have gaps
    (PERSON, "person", "person"), (CAT, "cat", "animal"), (DOG, "dog", "animal"), (BALL, "sports ball", "sports"),
    (PLANT, "potted plant", "furniture"), (BOOK, "book", "indoor"),
)  # fmt: skip
SMALLEST = 12  # an object of fewer visible pixels is not annotated, unless it is tiny and wholly in sight
SKIES = (  # the colours above and at the horizon
    ((92, 146, 212), (206, 224, 238)), ((140, 170, 204), (226, 224, 214)), ((176, 184, 194), (222, 222, 220)),
    ((120, 130, 180), (246, 206, 170)),
)  # fmt: skip
ASPECTS = (0.75, 0.75, 0.75, 0.667, 0.667, 0.625)  # short side by long side


# ------------------------------------------------------------------------------------------------------ stage


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
    sprite: Sprite | None = None


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
    canvas: np.ndarray = None  # float32 (3, height, width), 0-255
    things: list[Thing] = field(default_factory=list)

    def scale_at(self, y: float) -> float:
        """Pixels per metre where the ground is at row y."""
        return max((y - self.horizon) / self.camera, 1e-3)

    def put(self, figure: Figure, x: float, scale: float, category: int | None = None, **more) -> Thing:
        """Stand a figure on the ground at column x, at the distance where a metre is `scale` pixels."""
        y = self.horizon + self.camera * scale
        flip = more.pop("flip", bool(self.rng.random() < 0.5))
        thing = Thing(figure, x, y, scale, category, depth=more.pop("depth", y), flip=flip, **more)
        self.things.append(thing)
        return thing

    def hang(self, figure: Figure, x: float, y: float, scale: float, category: int | None = None, **more) -> Thing:
        """Put a figure anywhere: on a wall, a table, in somebody's hands."""
        thing = Thing(figure, x, y, scale, category, lifted=True, **more)
        self.things.append(thing)
        return thing


def make_stage(rng: np.random.Generator, size: int, indoor: bool, camera: float, aspect: float | None = None) -> Stage:
    """A stage whose longer side has `size` pixels; `aspect`: height by width."""
    if aspect is None:
        short = pick(rng, ASPECTS)
        aspect = float(rng.choice([short, 1 / short, 1.0], p=[0.7, 0.18, 0.12]))
    height, width = (size, round(size / aspect)) if aspect > 1 else (round(size * aspect), size)
    horizon = height * rng.uniform(0.34, 0.46)
    stage = Stage(
        rng, rng.spawn(1)[0], height, width, horizon, camera, int(pick(rng, (-1, 1))), bool(rng.random() < 0.6), indoor
    )
    stage.canvas = np.zeros((3, height, width), np.float32)
    return stage


# -------------------------------------------------------------------------------------------------- backdrops


def noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Smooth noise, float32 (height, width), mostly within -1 to 1, with bumps of about `cell` pixels."""
    rows, columns = math.ceil(height / cell) + 2, math.ceil(width / cell) + 2
    coarse = rng.random((rows, columns), dtype=np.float32) * 2 - 1
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def planes(colour: figures.Colour) -> np.ndarray:
    """A colour as float32 (3, 1, 1), to be multiplied with light (H, W)."""
    return np.asarray(colour, np.float32)[:, None, None]


def paint_ground(stage: Stage, top: int, kind: str) -> None:
    """Paint the ground from row `top` down, in perspective."""
    rng, rows = stage.rng, np.arange(top, stage.height, dtype=np.float32) + 0.5
    metres = stage.camera / np.maximum(rows - stage.horizon, 2.0)  # per pixel
    x = (np.arange(stage.width, dtype=np.float32) - stage.width * rng.uniform(0.3, 0.7)) * metres[:, None] + 60
    z = (stage.width * metres)[:, None] + 0 * x
    grain = stage.film.random((64, 64), dtype=np.float32) - 0.5
    near = np.clip(3.2 * (rows - stage.horizon) / stage.height, 0.25, 1)[:, None]  # far texture blurs into one tone

    def speckle(across: float, along: float) -> np.ndarray:
        return grain[(z * along).astype(np.int32) & 63, (x * across).astype(np.int32) & 63]

    fineness = 0.5 / stage.camera
    patches = noise(stage.film, len(rows), stage.width, max(4, stage.height / 6))
    light = 0.08 * patches
    if kind == "grass":
        colour = pick(rng, ((96, 132, 62), (120, 142, 74), (80, 112, 56), (146, 146, 90)))
        blades = 0.34 * speckle(70 * fineness, 24 * fineness) + 0.2 * speckle(25 * fineness, 8 * fineness)
        light = light + near * blades
    elif kind in ("sand", "carpet"):
        colour = pick(rng, ((214, 190, 146), (196, 172, 136))) if kind == "sand" else figures.faded(rng)
        light = light + near * 0.16 * speckle(60 * fineness, 40 * fineness) + 0.05 * np.sin(z * 7 + patches * 3)
    elif kind == "planks":
        colour = pick(rng, figures.WOOD)
        board = x * 5
        light = light + 0.3 * grain[7, board.astype(np.int32) & 63] + 0.14 * near * speckle(40, 2.5)
        light = light - 0.3 * near * (board % 1 < 0.07)
    else:  # tiles, paving
        colour = pick(rng, ((168, 164, 158), (190, 170, 150), (150, 120, 104), (200, 196, 188)))
        size = rng.uniform(1.4, 3.0)
        light = light + 0.22 * speckle(size, size) + 0.1 * near * speckle(50 * fineness, 30 * fineness)
        light = light - 0.22 * near * ((x * size % 1 < 0.06) | (z * size % 1 < 0.08))
    stage.canvas[:, top:] = planes(colour) * (1 + light)


def paint_sky(stage: Stage) -> None:
    rng, height, width = stage.rng, stage.height, stage.width
    high, low = pick(rng, SKIES)
    rows = int(stage.horizon) + 2
    down = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    sky = planes(high) * (1 - down) + planes(low) * down
    clouds = noise(stage.film, rows, width, height / 5) + 0.5 * noise(stage.film, rows, width, height / 14)
    cover = np.clip((clouds - rng.uniform(-0.1, 0.6)) * 1.6, 0, 0.85)
    stage.canvas[:, :rows] = sky * (1 - cover) + planes((248, 246, 244)) * cover
    if rng.random() < 0.2:
        sun = Figure([figures.Part(figures.ellipse((0, 0), 1, 1), tint(rng, (255, 236, 170), 6), flat=True)], height=2)
        stage.hang(sun, rng.uniform(0.1, 0.9) * width, rng.uniform(0.08, 0.6) * stage.horizon, height * 0.05, depth=-1)


def paint_hills(stage: Stage) -> None:
    """One or two ridges before the sky, the farther one paler."""
    rng, bottom = stage.rng, int(stage.horizon) + 2
    rows = np.arange(bottom, dtype=np.float32)[:, None]
    for paleness in (0.55, 0.25)[int(rng.random() < 0.4) :]:
        colour = figures.mix(pick(rng, figures.GREENS), (190, 206, 220), paleness)
        rise = 1 + noise(stage.film, 1, stage.width, stage.width / 4)[0]
        ridge = stage.horizon - stage.height * (0.03 + 0.16 * paleness * rise)
        texture = 1 + 0.1 * noise(stage.film, bottom, stage.width, 5)
        np.copyto(stage.canvas[:, :bottom], planes(colour) * texture, where=rows > ridge)


def outdoors(stage: Stage) -> None:
    """Sky, hills or houses or the sea, the ground, and what only stands around."""
    rng = stage.rng
    place = pick(rng, ("park", "park", "street", "beach", "field"))
    paint_sky(stage)
    if place in ("park", "field"):
        paint_hills(stage)
    horizon = int(stage.horizon)
    if place == "beach":
        sea = pick(rng, ((52, 112, 150), (70, 140, 150)))
        waves = noise(stage.film, stage.height // 10 + 1, stage.width, 6)
        stage.canvas[:, horizon : horizon + len(waves)] = planes(sea) * (1 + 0.12 * waves)
    start = horizon + (stage.height // 12 if place == "beach" else 0)
    paint_ground(stage, start, {"street": "paving", "beach": "sand"}.get(place, "grass"))
    stage.nearest = stage.scale_at(start + 0.03 * stage.height)
    if place == "street":
        _row_of_houses(stage)
    around = {
        "park": (figures.tree, figures.tree, figures.bush, figures.bush, figures.lamp_post, figures.bench,
                 figures.boulder, figures.fence, figures.cairn),
        "street": (figures.car, figures.car, figures.lamp_post, figures.post, figures.pillar, figures.tree,
                   figures.bench),
        "beach": (figures.parasol, figures.parasol, figures.boulder, figures.boulder, figures.cairn, figures.post),
        "field": (figures.tree, figures.bush, figures.fence, figures.post, figures.boulder, figures.cairn),
    }[place]  # fmt: skip
    for _ in range(int(rng.integers(2, 6))):
        _stand_around(stage, pick(rng, around)(rng))


def _stand_around(stage: Stage, figure: Figure) -> None:
    """Put something that is not annotated anywhere on the ground, more often far than near."""
    rng = stage.rng
    # Low cameras look at small things: what is a man's height stays in the distance there.
    nearest = 0.5 * stage.height / figure.height * min(1.0, stage.camera) + 2 * stage.nearest
    scale = stage.nearest * (nearest / stage.nearest) ** rng.uniform(0.05, 0.75 if stage.cluttered else 0.5)
    stage.put(figure, rng.uniform(-0.05, 1.05) * stage.width, scale)


def _row_of_houses(stage: Stage) -> None:
    rng, x, scale = stage.rng, -1.0, stage.nearest
    while x * scale < stage.width:
        width = rng.uniform(3.5, 6.5)
        stage.put(figures.house(rng, width), x * scale, scale, depth=0, flip=False, lifted=True)
        x += width + (rng.uniform(0.2, 1.5) if rng.random() < 0.3 else 0.05)


def indoors(stage: Stage) -> None:
    """A wall with a window or pictures or a shelf, the floor, furniture."""
    rng = stage.rng
    bottom = int(min(stage.horizon + stage.height * rng.uniform(0.1, 0.2), stage.height * 0.7))
    stage.nearest = stage.scale_at(bottom)
    _paint_wall(stage, bottom)
    paint_ground(stage, bottom, pick(rng, ("planks", "planks", "carpet", "tiles")))
    scale, wide = stage.nearest, stage.width / stage.nearest  # at the wall; its width in metres
    top = bottom - stage.horizon * 0.75
    if rng.random() < 0.6:
        figure = figures.window(rng).sized(0.6 * stage.horizon / scale)
        stage.hang(figure, rng.uniform(0.02, 0.7) * stage.width, top + 0.62 * stage.horizon, scale)
    for _ in range(int(rng.integers(0, 3))):
        figure = figures.picture(rng).sized(0.3 * stage.horizon / scale)
        stage.hang(figure, rng.uniform(0, 0.9) * stage.width, rng.uniform(0.2, 0.7) * bottom, scale)
    if rng.random() < 0.25:
        x, y = rng.uniform(0, 0.5) * stage.width, rng.uniform(0.25, 0.6) * bottom
        book_shelf(stage, x, y, scale * 1.3, min(1.4, wide * 0.4))
    for _ in range(int(rng.integers(1, 4))):
        figure = pick(rng, (figures.sofa, figures.sofa, figures.table, figures.table, figures.globe_lamp,
                            figures.cushion, figures.cushion, figures.pillar, figures.coat_stand))(rng)  # fmt: skip
        _stand_around(stage, figure)


def _paint_wall(stage: Stage, bottom: int) -> None:
    rng = stage.rng
    colour = planes(figures.mix(paint(rng), (226, 218, 206), rng.uniform(0.4, 0.9)))
    across = np.linspace(-stage.light * 0.16, stage.light * 0.16, stage.width, dtype=np.float32)
    stains, plaster = (noise(stage.film, bottom, stage.width, cell) for cell in (stage.height / 4, 3))
    light = 1 + across + 0.05 * stains + 0.03 * plaster
    columns, rows = np.arange(stage.width), np.arange(bottom)[:, None]
    period = stage.width * rng.uniform(0.04, 0.1)
    paper = rng.random()
    if paper < 0.3:  # striped wallpaper
        light = light - 0.14 * (columns % period < period / 2)
    elif paper < 0.45:  # dotted
        light = light - 0.2 * (np.hypot(columns % period - period / 2, rows % period - period / 2) < period / 4)
    elif paper < 0.65:  # panelling below
        light = light - 0.2 * (rows > bottom * 0.62) - 0.15 * ((rows > bottom * 0.62) & (columns % period < 1.5))
    stage.canvas[:, :bottom] = colour * light
    stage.canvas[:, bottom - max(2, stage.height // 50) : bottom] *= 0.72  # skirting board


# ---------------------------------------------------------------------------------------------------- casting


def add_person(stage: Stage, x: float, share: float, pose: str | None = None, child: bool = False) -> Thing:
    """Put a person who is `share` of the picture's height (standing) at column x, on a box if the pose needs one."""
    rng = stage.rng
    pose = pose or pick(rng, ("stand", "stand", *figures.POSE_NAMES))
    metres = rng.uniform(0.95, 1.3) if child else rng.uniform(1.6, 1.85)
    figure = figures.person(rng, pose, child).sized(metres)
    scale = max(share * stage.height / metres, stage.nearest)
    if pose in ("ground", "read"):  # whoever sits on the ground does so within the picture
        scale = min(scale, (0.97 * stage.height - stage.horizon) / stage.camera)
    if pose in ("chair", "sideways"):
        box = stage.put(figures.seat(rng, (0.2 if pose == "chair" else 0.18) * metres), x, scale, flip=False)
        box.depth -= 0.01
    return stage.put(figure, x, scale, PERSON)


def place_in(thing: Thing, point: figures.Point) -> tuple[float, float]:
    """Pixels of a point that is given in the figure's own units."""
    unit = thing.scale * thing.figure.size
    return thing.x + point[0] * unit * (-1 if thing.flip else 1), thing.y - point[1] * unit


def give(stage: Stage, owner: Thing, figure: Figure, category: int, at: tuple[float, float]) -> None:
    """Put a thing on another, which is outlined straight over it."""
    owner.holds.append(stage.hang(figure, *at, owner.scale, category, depth=owner.depth + 0.001))


def add_holder(stage: Stage, x: float, share: float, what: str, child: bool = False) -> None:
    """A person who reads a book, holds a ball or carries a cat."""
    rng = stage.rng
    owner = add_person(stage, x, share, "read" if what == "book" and rng.random() < 0.4 else "hold", child)
    figure, category, high = {
        "book": lambda: (figures.raised_book(rng), BOOK, 0.19),
        "ball": lambda: (figures.ball(rng, pick(rng, figures.BALL_KINDS)), BALL, 0.17),
        "cat": lambda: (figures.cat(rng, "sit"), CAT, 0.3),
    }[what]()
    size, hands = owner.figure.size, [place_in(owner, hand) for hand in owner.figure.hands]
    below = {"book": 0.07, "ball": 0.085, "cat": 0.1}[what] * size * owner.scale
    at = (hands[0][0] + hands[1][0]) / 2, (hands[0][1] + hands[1][1]) / 2 + below
    give(stage, owner, figure.sized(high * size), category, at)
    hands_only, depth = Figure(owner.figure.fingers, height=1.0, size=size), owner.depth + 0.002
    fingers = stage.hang(hands_only, owner.x, owner.y, owner.scale, depth=depth, flip=owner.flip, part_of=owner)
    owner.holds[-1].holds.append(fingers)  # nobody cuts fingers out of the outline of a book


def book_shelf(stage: Stage, x: float, y: float, scale: float, width: float) -> None:
    """A board with standing books, each of them an object; x, y in pixels, width in metres."""
    rng = stage.rng
    stage.hang(figures.shelf(rng, width), x, y, scale, depth=y * 0.001)
    at = 0.04
    while at < width - 0.12:
        thick = rng.uniform(0.035, 0.08)
        if rng.random() < 0.85:
            figure = figures.standing_book(rng, thick, rng.uniform(0.2, 0.32), rng.choice([0, 0, 0, 0.12]))
            stage.hang(figure, x + at * scale, y, scale, BOOK, depth=y * 0.001 + 0.0001)
        at += thick + 0.004


def pile_of_books(stage: Stage, x: float, scale: float, count: int) -> Thing:
    """Closed books on top of each other; returns the topmost."""
    bottom = stage.put(figures.closed_book(stage.rng), x, scale, BOOK)
    top, y = bottom, bottom.y
    for level in range(1, count):
        y -= 0.045 * scale
        x += stage.rng.uniform(-0.03, 0.03) * scale
        top = stage.hang(figures.closed_book(stage.rng), x, y, scale, BOOK, depth=bottom.depth + 0.001 * level)
    return top


def add_small(stage: Stage, what: str, share: float, x: float) -> Thing:
    """Put a cat, dog, ball, book or plant of about `share` of the picture's height on the ground."""
    rng = stage.rng
    if what == "cat":
        figure, category = figures.cat(rng, pick(rng, ("sit", "sit", "walk", "lie"))), CAT
    elif what == "dog":
        figure, category = figures.dog(rng, pick(rng, ("sit", "walk"))), DOG
    elif what == "ball":
        kind = pick(rng, figures.BALL_KINDS)
        figure, category = figures.ball(rng, kind).sized(0.14 if kind == "tennis" else 0.3), BALL
    elif what == "plant":
        figure, category = figures.plant(rng), PLANT
    else:
        figure, category = (figures.open_book(rng) if rng.random() < 0.6 else figures.closed_book(rng)), BOOK
    lowest = stage.scale_at(stage.height * (1.1 if rng.random() < 0.15 else 0.97))  # seldom cut off by the border
    scale = max(min(share * stage.height / (figure.height * figure.size), lowest), stage.nearest * 1.05)
    return stage.put(figure, x, scale, category)


# ----------------------------------------------------------------------------------------------------- scenes


def people(stage: Stage) -> None:
    """Some people, near and far, with a few things between them."""
    rng = stage.rng
    count = int(rng.choice([1, 2, 3, 4], p=[0.3, 0.36, 0.24, 0.1]))
    slots = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) / count
    for i, slot in enumerate(slots):
        share = rng.uniform(0.7, 1.0) if i == 0 else rng.uniform(0.35, 0.9)
        if i == 0 and rng.random() < 0.16:
            share = rng.uniform(1.2, 1.7)  # so near that the legs are out of the picture
        x, child = slot * stage.width, bool(rng.random() < 0.2)
        if rng.random() < 0.3:
            add_holder(stage, x, share, pick(rng, ("book", "ball", "book", "ball", "cat")), child)
        else:
            add_person(stage, x, share * (0.75 if child else 1), child=child)
    for what in ("cat", "ball", "book", "dog", "plant"):
        if rng.random() < {"cat": 0.2, "ball": 0.22, "book": 0.16, "dog": 0.14, "plant": 0.16}[what]:
            add_small(stage, what, rng.uniform(0.08, 0.3), rng.uniform(0.05, 0.95) * stage.width)
    if rng.random() < 0.07 and not stage.indoor:
        far_crowd(stage)


def close_up(stage: Stage) -> None:
    """Small things seen from near the ground."""
    rng = stage.rng
    kinds = rng.permutation(["cat", "ball", "book", "cat", "dog", "plant"])[: int(rng.integers(2, 5))]
    for i, what in enumerate(kinds):
        share = rng.uniform(0.35, 0.65) if i == 0 else rng.uniform(0.12, 0.4)
        if what in ("ball", "book"):
            share *= 0.6
        add_small(stage, str(what), share, (i + rng.uniform(0.2, 0.8)) / len(kinds) * stage.width)
    if rng.random() < 0.12:
        add_person(stage, rng.uniform(0.1, 0.9) * stage.width, rng.uniform(1.2, 1.8))
    if rng.random() < 0.35:
        pile_of_books(stage, rng.uniform(0.1, 0.9) * stage.width, 0.5 * stage.height, int(rng.integers(2, 5)))


def far_crowd(stage: Stage) -> None:
    """Many little people in the distance, one region: the crowd of COCO's `iscrowd`."""
    rng, scale = stage.rng, stage.nearest * 1.02
    scale = max(scale, 0.045 * stage.height / 1.7)
    columns = int(min(16, 0.5 * stage.width / (0.62 * scale)))
    stage.put(figures.crowd(rng, columns, 3), rng.uniform(0.3, 0.7) * stage.width, scale, PERSON, crowd=True)


def row_of_plants(stage: Stage) -> None:
    """Potted plants in a row, annotated as one crowd of a category that the lessons do not ask for."""
    rng = stage.rng
    parts = [part for i in range(7) for part in figures.moved(figures.plant(rng).parts, (0.34 * i, 0.0))]
    stage.put(
        Figure(parts, height=0.62),
        0.1 * stage.width,
        max(stage.nearest * 1.3, 0.14 * stage.height),
        PLANT,
        crowd=True,
        flip=False,
    )


def empty(stage: Stage) -> None:
    """Nothing that is annotated."""


def behind_posts(stage: Stage) -> None:
    """People partly behind a post and behind each other: outlines of several parts."""
    rng = stage.rng
    for i in range(2):
        x = (0.28 + 0.42 * i) * stage.width
        owner = add_person(stage, x, rng.uniform(0.75, 0.88), "walk" if i else "stand")
        stage.put(figures.post(rng).sized(2.4), x + rng.uniform(-1, 1) * 0.01 * stage.width, owner.scale * 1.04)
    add_person(stage, 0.5 * stage.width, 0.5)


def hands_on_hips(stage: Stage) -> None:
    """A near person with the hands on the hips: two holes that a polygon cannot hold."""
    rng = stage.rng
    figure = figures.person(rng, figures.make_pose(rng, "akimbo")).sized(1.75)
    stage.put(figure, 0.4 * stage.width, 0.95 * stage.height / 1.75, PERSON)
    add_small(stage, "dog", 0.3, 0.8 * stage.width)


def tiny_things(stage: Stage) -> None:
    """Far people and balls of a few pixels."""
    rng = stage.rng
    for _ in range(4):
        scale = max(stage.nearest * 1.05, stage.height * 0.05)
        figure = figures.ball(rng, pick(rng, figures.BALL_KINDS)).sized(rng.uniform(3.6, 6) / scale)
        stage.put(figure, rng.uniform(0.1, 0.9) * stage.width, scale * rng.uniform(1, 1.6), BALL)
    for _ in range(3):
        add_person(stage, rng.uniform(0.1, 0.9) * stage.width, rng.uniform(0.07, 0.14))
    add_person(stage, rng.uniform(0.3, 0.7) * stage.width, 0.8)


def before_big_ball(stage: Stage) -> None:
    """A child before a giant ball, which is outlined straight over it, and of the two the child is the smaller one."""
    _child_before(stage, figures.ball(stage.rng, "beach"), stage.rng.uniform(0.75, 0.85), BALL)


def before_big_book(stage: Stage) -> None:
    """A child before a giant book: as before a giant ball."""
    _child_before(stage, figures.raised_book(stage.rng), stage.rng.uniform(0.62, 0.72), BOOK)


def _child_before(stage: Stage, figure: Figure, share: float, category: int) -> None:
    rng, x = stage.rng, stage.rng.uniform(0.4, 0.6) * stage.width
    child = add_person(stage, x, 0.55, pick(rng, ("stand", "wave", "cheer", "akimbo")), child=True)
    figure = figure.sized(share * stage.height / child.scale)
    big = stage.put(figure, x + rng.uniform(-0.04, 0.04) * stage.width, child.scale * 0.99, category)
    big.holds.append(child)


def on_open_book(stage: Stage) -> None:
    """A kitten and a ball on a big open book, which is outlined straight over them."""
    rng = stage.rng
    scale, side = rng.uniform(0.66, 0.85) * stage.width / 0.54, pick(rng, (-1, 1))
    book = stage.put(figures.open_book(rng, rng.uniform(0.6, 0.85)), rng.uniform(0.45, 0.55) * stage.width, scale, BOOK)
    book.y = min(book.y, 0.96 * stage.height)
    kitten = figures.cat(rng, pick(rng, ("lie", "sit"))).sized(rng.uniform(0.13, 0.17))
    give(stage, book, kitten, CAT, (book.x - 0.09 * side * scale, book.y - rng.uniform(0.06, 0.1) * scale))
    give(
        stage,
        book,
        figures.ball(rng, "tennis").sized(0.06),
        BALL,
        (book.x + 0.13 * side * scale, book.y - rng.uniform(0.03, 0.07) * scale),
    )


def crowd_scene(stage: Stage) -> None:
    """A crowd in the distance, somebody before it, and plants in a row."""
    far_crowd(stage)
    add_person(stage, stage.rng.uniform(0.3, 0.7) * stage.width, 0.85)
    add_small(stage, "ball", 0.07, stage.rng.uniform(0.1, 0.9) * stage.width)


# ------------------------------------------------------------------------------------------- the special cases


@dataclass(frozen=True)
class Special:
    """What sets one picture apart: its scene, and how its file is stored."""

    scene: Callable[[Stage], None]
    indoor: bool | None = None
    camera: float | None = None
    aspect: float | None = None
    grey: bool = False
    exif: int | None = None  # the EXIF orientation
    stored: bool = False  # the annotations speak of the stored raster, not of what a viewer shows


def crowd_and_tiny(stage: Stage) -> None:
    crowd_scene(stage)
    tiny_things(stage)


def plants_and_people(stage: Stage) -> None:
    row_of_plants(stage)
    people(stage)


PERIOD = 80
SPECIALS: dict[int, Special] = {  # by image index, counted modulo PERIOD; every fifth (2, 7, 12, 17 ...) is val
    0: Special(people, aspect=0.75),
    1: Special(crowd_scene, indoor=False, camera=1.5, aspect=0.667),
    2: Special(crowd_and_tiny, indoor=False, camera=1.5, aspect=0.75),
    3: Special(behind_posts, indoor=False, camera=1.1),
    4: Special(hands_on_hips, camera=1.0),
    5: Special(people, aspect=0.75, exif=6),
    6: Special(empty, camera=1.2),
    7: Special(behind_posts, indoor=False, camera=1.1, aspect=1.333, exif=6),
    8: Special(before_big_book, camera=0.9, aspect=0.75),
    9: Special(on_open_book, indoor=True, camera=0.4, aspect=0.75),
    10: Special(tiny_things, indoor=False, camera=1.5),
    11: Special(people, grey=True),
    12: Special(empty, camera=1.2),
    13: Special(plants_and_people, indoor=False, camera=1.2),
    14: Special(people, aspect=1.333, exif=8, stored=True),
    15: Special(before_big_ball, camera=0.9, aspect=1.0),
    16: Special(behind_posts, indoor=False, camera=1.1, aspect=0.667),
    17: Special(before_big_book, camera=0.9, aspect=0.75, grey=True),
    18: Special(close_up, indoor=True, camera=0.35),
    22: Special(on_open_book, indoor=True, camera=0.4, aspect=0.75),
    27: Special(hands_on_hips, camera=1.0, aspect=1.333),
}
ORDINARY = (  # scene, indoor, camera height in metres, share of the pictures
    (people, False, (0.95, 1.3), 0.44), (people, True, (0.95, 1.25), 0.30), (close_up, False, (0.3, 0.5), 0.10),
    (close_up, True, (0.3, 0.45), 0.13), (empty, False, (1.0, 1.4), 0.03),
)  # fmt: skip


def compose(rng: np.random.Generator, size: int, special: Special | None) -> Stage:
    """Set up one picture: stage, backdrop and cast, nothing painted but the backdrop."""
    scene, indoor, cameras, _ = ORDINARY[rng.choice(len(ORDINARY), p=[share for *_, share in ORDINARY])]
    camera, aspect = rng.uniform(*cameras), None
    if special:
        scene, aspect = special.scene, special.aspect
        indoor = indoor if special.indoor is None else special.indoor
        camera = special.camera or (camera if camera > 0.8 else 1.1)
    stage = make_stage(rng, size, indoor, camera, aspect)
    stage.cluttered = special is None or special.scene in (people, empty, close_up)
    (indoors if indoor else outdoors)(stage)
    if scene is empty:
        stage.things = [thing for thing in stage.things if thing.category is None]
    scene(stage)
    stage.things.sort(key=lambda thing: thing.depth)
    return stage


# --------------------------------------------------------------------------------------------------- painting


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
    picture.paste((16, 14, 24), (thing.sprite.left - shift, round(thing.sprite.top + ground - rows)), shadow)


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


# ------------------------------------------------------------------------------------------------ annotations


def visible_masks(stage: Stage) -> list[tuple[Thing, np.ndarray]]:
    """Each annotated thing's outline as an annotator would draw it, bool (H, W): what is seen of it.

    What a thing holds does not count as being in its way: the two outlines overlap.
    """
    sprites = [(thing, thing.sprite, thing.sprite.solid()) for thing in stage.things if thing.sprite]
    found = []
    for i, (thing, sprite, solid) in enumerate(sprites):
        if thing.category is None:
            continue
        mask = np.zeros((stage.height, stage.width), dtype=bool)
        mask[sprite.window] = solid
        for other, cover, in_the_way in sprites[i + 1 :]:
            if not any(other is held or other.part_of is held for held in (thing, *thing.holds)):
                mask[cover.window] &= ~in_the_way
        whole = thing.figure.size * thing.scale < 12  # a thing so small that few pixels are all it has
        if mask.sum() >= (4 if whole and mask.sum() >= 0.8 * solid.sum() else SMALLEST):
            found.append((thing, mask))
    return found


def annotate(mask: np.ndarray, crowd: bool) -> dict:
    """COCO's segmentation, area, bbox and iscrowd of a bool (H, W) mask.

    A crowd is stored as a plain run-length code, as in COCO. Other objects are polygons, except where these would fill
    holes: those are stored as a compressed run-length code.
    """
    segmentation, drawn = _plain_rle(mask), mask
    if not crowd:
        segmentation = masks.mask_to_polygons(mask) if mask.sum() < 200 else _polygons(mask)
        drawn = masks.polygons_to_mask(segmentation, *mask.shape)
        if (drawn ^ mask).sum() > max(0.02 * mask.sum(), 8):
            segmentation, drawn = masks.mask_to_rle(mask), mask
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "segmentation": segmentation,
        "area": float(drawn.sum()),
        "bbox": [float(v) for v in box],
        "iscrowd": int(crowd),
    }


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Simple outlines of a mask's parts, true to about half a pixel; holes are filled.

    The mask is traced at twice its size: the line then runs inside the outermost pixels, a quarter from their edge.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = rows[0], columns[0]
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8)
    loops, _ = cv2.findContours(part.repeat(2, axis=0).repeat(2, axis=1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    loops = [cv2.approxPolyDP(loop, 0.8, True)[:, 0] for loop in loops]
    return [((loop + 0.5) / 2 + (left, top)).ravel().tolist() for loop in loops if len(loop) > 2]


def _plain_rle(mask: np.ndarray) -> dict:
    """Run lengths down the columns, beginning with zeros, as a list of whole numbers."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    edges = [0, *changes, flat.size]
    return {"size": list(mask.shape), "counts": [b - a for a, b in zip(edges, edges[1:], strict=False)]}


# ------------------------------------------------------------------------------------------------------- files


def render(name: str, images: int, size: int, seed: int = 0, root: Path | None = None) -> Path:
    """Render the bundled sample of a data set in its real on-disk format, unless it is there already.

    Args:
        name: which data set; "coco" is images/train, images/val and annotations/instances_{train,val}.json.
        images: how many pictures, at least 2; a fifth of them is val.
        size: the longer side of a picture in pixels, at least 64.
        seed: other seeds give other pictures; a picture depends on seed and index alone.
        root: the folder that the sample's own folder is put in; None: `catalog.data_home()`.

    Returns:
        The folder. It appears when it is complete, also where two processes render it at the same time.

    Raises:
        ValueError: a data set that has no sample, or numbers too small.
    """
    if name not in WRITERS:
        raise ValueError(f"no bundled sample of {name!r}: there is one of {', '.join(sorted(WRITERS))}")
    if images < 2 or size < 64:
        raise ValueError(f"a sample needs at least 2 images of 64 pixels, not {images} of {size}")
    folder = Path(root or data_home()) / f"sample_{name}_{images}x{size}_seed{seed}_v{VERSION}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        WRITERS[name](aside, images, size, seed)
        aside.chmod(0o755)
        os.rename(aside, folder)
    except OSError:
        if not folder.is_dir():  # else somebody else was faster, and theirs is the same
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def part_of(index: int, images: int) -> str:
    """Every fifth picture is val, wherever the count ends; of two pictures, the second."""
    return "val" if index % 5 == 2 or (images == 2 and index == 1) else "train"


def _write_coco(folder: Path, images: int, size: int, seed: int) -> None:
    files: dict[str, dict] = {part: _empty_coco(part) for part in ("train", "val")}
    for part in files:
        (folder / "images" / part).mkdir(parents=True)
    for index in range(images):
        part, special = part_of(index, images), SPECIALS.get(index % PERIOD, Special(people))
        stage = compose(np.random.default_rng([seed, index]), size, SPECIALS.get(index % PERIOD))
        picture, id_ = paint_stage(stage), (index + 1) * 139
        objects = [(thing.category, thing.crowd, mask) for thing, mask in visible_masks(stage)]
        height, width = picture.shape[:2]
        if special.stored:  # the picture lies on its side in the file, and so the annotators saw it
            height, width = width, height
            objects = [(category, crowd, np.rot90(mask, -1)) for category, crowd, mask in objects]
        name = f"{id_:012d}.jpg"
        _write_jpeg(folder / "images" / part / name, picture, special)
        entry = {"id": id_, "file_name": name, "width": width, "height": height, "license": 1}
        files[part]["images"].append(entry)
        files[part]["annotations"] += [
            {"id": index * 1000 + number, "image_id": id_, "category_id": category, **annotate(mask, crowd)}
            for number, (category, crowd, mask) in enumerate(objects, start=1)
        ]
    (folder / "annotations").mkdir()
    for part, content in files.items():
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content), encoding="utf-8")


def _empty_coco(part: str) -> dict:
    return {
        "info": {"description": f"Scenes drawn by code in COCO's format, {part}", "version": str(VERSION)},
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": [], "annotations": [],
        "categories": [{"id": id_, "name": name, "supercategory": group} for id_, name, group in CATEGORIES],
    }  # fmt: skip


# How a raster is turned before it is stored, so that a viewer that obeys the EXIF orientation shows it upright.
STORED_AS = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def _write_jpeg(path: Path, picture: np.ndarray, special: Special) -> None:
    image, exif = Image.fromarray(picture), Image.Exif()
    if special.grey:
        image = image.convert("L")
    if special.exif:
        image = image.transpose(STORED_AS[special.exif])
        exif[EXIF_ORIENTATION] = special.exif
    image.save(path, quality=90, exif=exif)


WRITERS = {"coco": _write_coco}
