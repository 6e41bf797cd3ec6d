"""Who is in a scene, and where: people and what they hold, animals, things; and how a picture is put together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from seglib.datasets.sample import objects as figures
from seglib.datasets.sample.backgrounds import indoors, outdoors
from seglib.datasets.sample.objects import Figure, pick, surroundings
from seglib.datasets.sample.scene import BALL, BOOK, CAT, DOG, PERSON, PLANT, Stage, Thing, make_stage

# -------------------------------------------------------------------------------------------------------------- casting


def add_person(stage: Stage, x: float, share: float, pose: str | None = None, child: bool = False) -> Thing:
    """Put a person at column x, on a box if the pose needs one.

    Args:
        share: how high the person would be, standing, as a fraction of the picture's height.
        pose: one of `figures.POSE_NAMES`, "hold" or "read"; None: by chance.
    """
    rng = stage.rng
    pose = pose or pick(rng, ("stand", "stand", *figures.POSE_NAMES))
    metres = rng.uniform(0.95, 1.3) if child else rng.uniform(1.6, 1.85)
    figure = figures.person(rng, pose, child).sized(metres)
    scale = max(share * stage.height / metres, stage.nearest)
    if pose in ("ground", "read"):  # whoever sits on the ground does so within the picture
        scale = min(scale, (0.97 * stage.height - stage.horizon) / stage.camera)
    if pose in ("chair", "sideways"):
        box = stage.put(surroundings.seat(rng, (0.2 if pose == "chair" else 0.18) * metres), x, scale, flip=False)
        box.depth -= 0.01  # behind whoever sits on it
    return stage.put(figure, x, scale, PERSON)


def give(stage: Stage, owner: Thing, figure: Figure, category: int, at: tuple[float, float]) -> None:
    """Put a thing at (x, y) pixels on another, which is outlined straight over it."""
    owner.holds.append(stage.hang(figure, *at, owner.scale, category, depth=owner.depth + 0.001))


def add_holder(stage: Stage, x: float, share: float, what: str, child: bool = False) -> None:
    """A person who reads a book, holds a ball or carries a cat; the rest as for `add_person`."""
    rng = stage.rng
    owner = add_person(stage, x, share, "read" if what == "book" and rng.random() < 0.4 else "hold", child)
    # How high it is, and how far its lower edge lies below the hands, both in body heights.
    if what == "book":
        figure, category, high, below = figures.raised_book(rng), BOOK, 0.19, 0.07
    elif what == "ball":
        figure, category, high, below = figures.ball(rng, pick(rng, figures.BALL_KINDS)), BALL, 0.17, 0.085
    else:
        figure, category, high, below = figures.cat(rng, "sit"), CAT, 0.3, 0.1
    size = owner.figure.size
    (x0, y0), (x1, y1) = (owner.place(hand) for hand in owner.figure.hands)
    give(stage, owner, figure.sized(high * size), category, ((x0 + x1) / 2, (y0 + y1) / 2 + below * size * owner.scale))
    hands_only, depth = Figure(owner.figure.fingers, height=1.0, size=size), owner.depth + 0.002
    fingers = stage.hang(hands_only, owner.x, owner.y, owner.scale, depth=depth, flip=owner.flip, part_of=owner)
    owner.holds[-1].holds.append(fingers)  # nobody cuts fingers out of the outline of a book


def pile_of_books(stage: Stage, x: float, scale: float, count: int) -> None:
    """Closed books on top of each other, at column x, where a metre is `scale` pixels."""
    bottom = stage.put(figures.closed_book(stage.rng), x, scale, BOOK)
    y = bottom.y
    for level in range(1, count):
        y -= 0.045 * scale
        x += stage.rng.uniform(-0.03, 0.03) * scale
        stage.hang(figures.closed_book(stage.rng), x, y, scale, BOOK, depth=bottom.depth + 0.001 * level)


def add_small(stage: Stage, what: str, share: float, x: float) -> None:
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
    stage.put(figure, x, scale, category)


# --------------------------------------------------------------------------------------------------------------- scenes


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
    for what, chance in (("cat", 0.2), ("ball", 0.22), ("book", 0.16), ("dog", 0.14), ("plant", 0.16)):
        if rng.random() < chance:
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
    scale = max(stage.nearest * 1.02, 0.045 * stage.height / 1.7)  # each at least 4.5 % of the picture's height
    columns = int(min(16, 0.5 * stage.width / (figures.CROWD_SPACING * scale)))
    figure, x = figures.crowd(stage.rng, columns, 3), stage.rng.uniform(0.3, 0.7) * stage.width
    stage.put(figure, x, scale, PERSON, crowd=True)


def empty(stage: Stage) -> None:
    """Nothing that is annotated: `compose` then takes away what a backdrop has of it."""


# ---------------------------------------------------------------------------------------------------------- one picture


@dataclass(frozen=True)
class Special:
    """What sets one picture apart: its scene, and how its file is stored; None: as it comes."""

    scene: Callable[[Stage], None]
    indoor: bool | None = None
    camera: float | None = None
    aspect: float | None = None
    grey: bool = False
    exif: int | None = None  # the EXIF orientation
    stored: bool = False  # the annotations speak of the stored raster, not of what a viewer shows


ORDINARY = (  # scene, indoor, camera height in metres, share of the pictures
    (people, False, (0.95, 1.3), 0.44), (people, True, (0.95, 1.25), 0.30), (close_up, False, (0.3, 0.5), 0.10),
    (close_up, True, (0.3, 0.45), 0.13), (empty, False, (1.0, 1.4), 0.03),
)  # fmt: skip


def compose(
    rng: np.random.Generator, size: int, special: Special | None = None, ordinary: Sequence[tuple] = ORDINARY
) -> Stage:
    """Set up one picture: stage, backdrop and cast, nothing painted but the backdrop.

    Args:
        size: the longer side in pixels.
        special: what is to be in it; None: one of `ordinary`, which are listed as ORDINARY is.
    """
    scene, indoor, cameras, _ = ordinary[rng.choice(len(ordinary), p=[share for *_, share in ordinary])]
    camera, aspect = rng.uniform(*cameras), None
    if special:
        scene, aspect = special.scene, special.aspect
        indoor = indoor if special.indoor is None else special.indoor
        camera = special.camera or (camera if camera > 0.8 else 1.1)  # not the height that was drawn for a close-up
    stage = make_stage(rng, size, indoor, camera, aspect)
    stage.cluttered = special is None or special.scene in (people, empty, close_up)
    backdrop = indoors if indoor else outdoors
    backdrop(stage)
    if scene is empty:
        stage.things = [thing for thing in stage.things if thing.category is None]
    scene(stage)
    stage.things.sort(key=lambda thing: thing.depth)
    return stage


def part_of(index: int, images: int) -> str:
    """Every fifth picture is val, wherever the count ends; of two pictures, the second."""
    return "val" if index % 5 == 2 or (images == 2 and index == 1) else "train"
