"""Composes a scene from the ground: which people, animals and other objects it holds, and where they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from seglib.datasets.sample import old_objects as objects
from seglib.datasets.sample.backgrounds import paint_indoors, paint_outdoors
from seglib.datasets.sample.old_objects import Drawing, pick, surroundings
from seglib.datasets.sample.scene import BALL, BOOK, CAT, DOG, PERSON, PLANT, Scene, SceneObject, make_scene

__all__ = [
    "ORDINARY", "Ordinary", "Special", "add_close_up", "add_distant_crowd", "add_held_object", "add_people",
    "add_person", "add_small_object", "compose", "leave_empty", "split_of",
]  # fmt: skip

SceneBuilder = Callable[[Scene], None]
# a scene, whether it is indoors, the range of camera heights in meters, its share of the pictures
Ordinary = tuple[SceneBuilder, bool, tuple[float, float], float]

# -------------------------------------------------------------------------------------------------------------- objects


def add_person(scene: Scene, x: float, share: float, pose: str | None = None, child: bool = False) -> SceneObject:
    """Add a person, and a box to sit on if the pose needs one.

    Args:
        x: column in pixels.
        share: height of the standing person as a fraction of the picture's height.
        pose: one of `objects.POSE_NAMES`, "hold" or "read"; None: at random.
        child: whether the person is a child.
    """
    rng = scene.rng
    pose = pose or pick(rng, ("stand", "stand", *objects.POSE_NAMES))
    meters = rng.uniform(0.95, 1.3) if child else rng.uniform(1.6, 1.85)
    drawing = objects.person(rng, pose, child).with_height(meters)
    scale = max(share * scene.height / meters, scene.min_scale)
    if pose in ("ground", "read"):  # a person who sits on the ground is wholly in the picture
        scale = min(scale, (0.97 * scene.height - scene.horizon) / scene.camera)
    if pose in ("chair", "sideways"):
        box = scene.place(surroundings.seat(rng, (0.2 if pose == "chair" else 0.18) * meters), x, scale, flip=False)
        box.depth -= 0.01  # behind the person
    return scene.place(drawing, x, scale, PERSON)


def add_held_object(scene: Scene, owner: SceneObject, drawing: Drawing, category: int, at: tuple[float, float]) -> None:
    """Add an object in front of its owner, at (x, y) pixels; it leaves no gap in the annotated outline of the owner."""
    owner.held_objects.append(scene.attach(drawing, *at, owner.scale, category, depth=owner.depth + 0.001))


def _add_person_holding(scene: Scene, x: float, share: float, name: str, child: bool = False) -> None:
    """Add a person who reads a book, holds a ball or carries a cat; for the other arguments see `add_person`."""
    rng = scene.rng
    owner = add_person(scene, x, share, "read" if name == "book" and rng.random() < 0.4 else "hold", child)
    # Height of the held object and distance of its lower edge below the hands, both in body heights.
    if name == "book":
        drawing = objects.raised_book(rng)
        category = BOOK
        high = 0.19
        below = 0.07
    elif name == "ball":
        drawing = objects.ball(rng, pick(rng, objects.BALL_KINDS))
        category = BALL
        high = 0.17
        below = 0.085
    else:
        drawing = objects.cat(rng, "sit")
        category = CAT
        high = 0.3
        below = 0.1
    size = owner.drawing.size
    (x0, y0), (x1, y1) = (owner.to_pixels(hand) for hand in owner.drawing.hands)
    position = ((x0 + x1) / 2, (y0 + y1) / 2 + below * size * owner.scale)
    add_held_object(scene, owner, drawing.with_height(high * size), category, position)
    hands_only = Drawing(owner.drawing.fingers, height=1.0, size=size)
    depth = owner.depth + 0.002
    fingers = scene.attach(hands_only, owner.x, owner.y, owner.scale, depth=depth, flip=owner.flip, owner=owner)
    owner.held_objects[-1].held_objects.append(fingers)  # annotators do not cut fingers out of the outline of a book


def _add_pile_of_books(scene: Scene, x: float, scale: float, count: int) -> None:
    """Add closed books on top of each other at column x; `scale`: pixels per meter."""
    bottom = scene.place(objects.closed_book(scene.rng), x, scale, BOOK)
    y = bottom.y
    for level in range(1, count):
        y -= 0.045 * scale
        x += scene.rng.uniform(-0.03, 0.03) * scale
        scene.attach(objects.closed_book(scene.rng), x, y, scale, BOOK, depth=bottom.depth + 0.001 * level)


def add_small_object(scene: Scene, name: str, share: float, x: float) -> None:
    """Add a cat, dog, ball, book or plant at column x; `share`: its height as a fraction of the picture's height."""
    rng = scene.rng
    if name == "cat":
        drawing = objects.cat(rng, pick(rng, ("sit", "sit", "walk", "lie")))
        category = CAT
    elif name == "dog":
        drawing = objects.dog(rng, pick(rng, ("sit", "walk")))
        category = DOG
    elif name == "ball":
        kind = pick(rng, objects.BALL_KINDS)
        drawing = objects.ball(rng, kind).with_height(0.14 if kind == "tennis" else 0.3)
        category = BALL
    elif name == "plant":
        drawing = objects.plant(rng)
        category = PLANT
    else:
        drawing = objects.open_book(rng) if rng.random() < 0.6 else objects.closed_book(rng)
        category = BOOK
    lowest = scene.scale_at(scene.height * (1.1 if rng.random() < 0.15 else 0.97))  # the border seldom cuts it off
    scale = max(min(share * scene.height / (drawing.height * drawing.size), lowest), scene.min_scale * 1.05)
    scene.place(drawing, x, scale, category)


# --------------------------------------------------------------------------------------------------------------- scenes


def add_people(scene: Scene) -> None:
    """Add people, near and far, and a few small objects."""
    rng = scene.rng
    count = int(rng.choice([1, 2, 3, 4], p=[0.3, 0.36, 0.24, 0.1]))
    slots = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) / count
    for i, slot in enumerate(slots):
        share = rng.uniform(0.7, 1.0) if i == 0 else rng.uniform(0.35, 0.9)
        if i == 0 and rng.random() < 0.16:
            share = rng.uniform(1.2, 1.7)  # too near for the legs to be in the picture
        x = slot * scene.width
        child = bool(rng.random() < 0.2)
        if rng.random() < 0.3:
            _add_person_holding(scene, x, share, pick(rng, ("book", "ball", "book", "ball", "cat")), child)
        else:
            add_person(scene, x, share * (0.75 if child else 1), child=child)
    for name, chance in (("cat", 0.2), ("ball", 0.22), ("book", 0.16), ("dog", 0.14), ("plant", 0.16)):
        if rng.random() < chance:
            add_small_object(scene, name, rng.uniform(0.08, 0.3), rng.uniform(0.05, 0.95) * scene.width)
    if rng.random() < 0.07 and not scene.indoor:
        add_distant_crowd(scene)


def add_close_up(scene: Scene) -> None:
    """Add small objects, seen from near the ground."""
    rng = scene.rng
    kinds = rng.permutation(["cat", "ball", "book", "cat", "dog", "plant"])[: int(rng.integers(2, 5))]
    for i, name in enumerate(kinds):
        share = rng.uniform(0.35, 0.65) if i == 0 else rng.uniform(0.12, 0.4)
        if name in ("ball", "book"):
            share *= 0.6
        add_small_object(scene, str(name), share, (i + rng.uniform(0.2, 0.8)) / len(kinds) * scene.width)
    if rng.random() < 0.12:
        add_person(scene, rng.uniform(0.1, 0.9) * scene.width, rng.uniform(1.2, 1.8))
    if rng.random() < 0.35:
        _add_pile_of_books(scene, rng.uniform(0.1, 0.9) * scene.width, 0.5 * scene.height, int(rng.integers(2, 5)))


def add_distant_crowd(scene: Scene) -> None:
    """Add many people in the distance as one region, which COCO marks with `iscrowd`."""
    scale = max(
        scene.min_scale * 1.02, 0.045 * scene.height / 1.7
    )  # each person is at least 4.5 % of the picture's height
    columns = int(min(16, 0.5 * scene.width / (objects.CROWD_SPACING * scale)))
    drawing = objects.crowd(scene.rng, columns, 3)
    x = scene.rng.uniform(0.3, 0.7) * scene.width
    scene.place(drawing, x, scale, PERSON, crowd=True)


def leave_empty(scene: Scene) -> None:
    """Add nothing; `compose` also removes the annotated objects of the background."""


# ---------------------------------------------------------------------------------------------------------- one picture


@dataclass(frozen=True)
class Special:
    """A picture with a given scene and given properties of its file; None: chosen at random."""

    build: SceneBuilder
    indoor: bool | None = None
    camera: float | None = None
    aspect: float | None = None
    gray: bool = False
    exif: int | None = None  # EXIF orientation of the file
    stored: bool = False  # the annotations refer to the stored pixels, not to what a viewer shows


ORDINARY: tuple[Ordinary, ...] = (
    (add_people, False, (0.95, 1.3), 0.44),
    (add_people, True, (0.95, 1.25), 0.30),
    (add_close_up, False, (0.3, 0.5), 0.10),
    (add_close_up, True, (0.3, 0.45), 0.13),
    (leave_empty, False, (1.0, 1.4), 0.03),
)


def compose(
    rng: np.random.Generator, size: int, special: Special | None = None, ordinary: Sequence[Ordinary] = ORDINARY
) -> Scene:
    """Return the scene of one picture; its background is painted, its objects are not.

    Args:
        rng: decides everything that is random in the picture.
        size: longer side of the picture in pixels.
        special: the scene to build; None: one of `ordinary`, at random.
        ordinary: scenes with their shares of the pictures.
    """
    build, indoor, cameras, _ = ordinary[rng.choice(len(ordinary), p=[share for *_, share in ordinary])]
    camera = rng.uniform(*cameras)
    aspect = None
    if special:
        build = special.build
        aspect = special.aspect
        indoor = indoor if special.indoor is None else special.indoor
        camera = special.camera or (
            camera if camera > 0.8 else 1.1
        )  # a camera height for a close-up does not fit other scenes
    scene = make_scene(rng, size, indoor, camera, aspect)
    scene.cluttered = special is None or special.build in (add_people, leave_empty, add_close_up)
    paint_background = paint_indoors if indoor else paint_outdoors
    paint_background(scene)
    if build is leave_empty:
        scene.objects = [obj for obj in scene.objects if obj.category is None]
    build(scene)
    scene.objects.sort(key=lambda obj: obj.depth)
    return scene


def split_of(index: int, images: int) -> str:
    """Return "train" or "val": every fifth picture is for validation; of two pictures, the second."""
    return "val" if index % 5 == 2 or (images == 2 and index == 1) else "train"
