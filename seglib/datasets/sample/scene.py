"""A scene seen from the ground: a room or a street, objects from far to near, and what is visible of each."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from seglib.datasets.sample.background import paint_background
from seglib.datasets.sample.objects import DRAW, Sprite, camera

__all__ = ["METERS", "Placed", "Scene", "everyday"]

METERS = {
    "person": 1.7, "cat": 0.42, "dog": 0.62, "sports ball": 0.3, "book": 0.3, "potted plant": 0.65, "car": 1.4,
    "sofa": 0.9, "table": 0.75, "tree": 4.0, "post": 2.4, "box": 0.45,
}  # fmt: skip


@dataclass(eq=False)
class Placed:
    """An object in a scene.

    Attributes:
        name: a key of `objects.DRAW`.
        sprite: its pixels.
        x: the column of its middle, in pixels.
        bottom: the row on which it stands, in pixels.
        depth: objects are painted in this order; the nearest has the largest.
        scale: pixels per meter.
        crowd: whether it is one of a crowd.
        holds: objects in front of it that annotators do not cut out of its outline.
    """

    name: str
    sprite: Sprite
    x: float
    bottom: float
    depth: float
    scale: float
    crowd: bool = False
    holds: list["Placed"] = field(default_factory=list)


class Scene:
    """A room or a street without objects.

    Args:
        rng: decides everything that is random in the scene.
        size: longer side of the picture in pixels.
        indoor: a room, or a street.
        aspect: height divided by width.

    Attributes:
        objects: what `put` has added.
        pan: meters that the camera has moved to the right. Change it and call `paint` again for the next frame of a
            video; near objects move more than far ones.
        stuff: uint8 (H, W) after `paint`: what the background shows at each pixel, as an index of `background.STUFF`.
    """

    def __init__(self, rng: np.random.Generator, size: int, indoor: bool, aspect: float = 0.75) -> None:
        self.rng = rng
        self.indoor = indoor
        self.height = round(size * min(1, aspect))
        self.width = round(size / max(1, aspect))
        self.eye = rng.uniform(0.55, 1.15)  # height of the camera in meters
        self.horizon = self.height * (0.64 - 0.26 * self.eye + rng.uniform(-0.04, 0.04))
        self.far = self.height * rng.uniform(0.2, 0.28)  # pixels per meter where the ground ends
        self.light = int(rng.choice((-1, 1)))
        self.seed = int(rng.integers(2**32))
        self.objects: list[Placed] = []
        self.pan = 0.0
        self.stuff = np.zeros((self.height, self.width), np.uint8)

    def put(
        self, name: str, x: float, size: float, meters: float = 0, lift: float = 0, crowd: bool = False, **how: Any
    ) -> Placed:
        """Stand an object on the ground.

        Args:
            name: a key of `objects.DRAW`.
            x: its middle, from 0 (left) to 1 (right).
            size: 0 is at the far end of the ground, 1 as large as it fits into the picture; above 1 it is cut off.
            meters: height of the object; 0: the usual one, more or less.
            crowd: whether it is one of a crowd.
            how: passed to the function that draws it.
        """
        meters = meters or METERS[name] * self.rng.uniform(0.85, 1.15)
        largest = 0.97 * (self.height - self.horizon) / self.eye
        if meters > self.eye:
            largest = min(largest, 0.97 * self.horizon / (meters - self.eye))
        scale = self.far + size * (max(largest, self.far) - self.far)
        sprite = DRAW[name](self.rng, meters * scale, **how).sprite(self.light, self.rng.random() < 0.5)
        bottom = self.horizon + self.eye * scale
        placed = Placed(name, sprite, x * self.width, bottom, scale, scale, crowd)
        self.objects.append(placed)
        return placed

    def put_before(self, owner: Placed, name: str, meters: float, lift: float, x: float = 0, **how: Any) -> Placed:
        """Put an object into somebody's hands, or on something; the outline of `owner` is not cut by it.

        Args:
            owner: the object behind.
            name: a key of `objects.DRAW`.
            meters: height of the object.
            lift: meters from where `owner` stands up to the lower edge of the object.
            x: meters to the right of the middle of `owner`.
            how: passed to the function that draws it.
        """
        sprite = DRAW[name](self.rng, meters * owner.scale, **how).sprite(self.light, False)
        bottom = owner.bottom - lift * owner.scale
        held = Placed(name, sprite, owner.x + x * owner.scale, bottom, owner.depth + 0.001, owner.scale)
        owner.holds.append(held)
        self.objects.append(held)
        return held

    def paint(self) -> np.ndarray:
        """Paint the picture: uint8 (H, W, 3)."""
        rng = np.random.default_rng(self.seed)
        picture, self.stuff = paint_background(self, rng)
        self.objects.sort(key=lambda placed: placed.depth)
        for placed in self.objects:
            self._paint_shadow(picture, placed)
            window, part = self._window(placed)
            alpha = placed.sprite.alpha[part][..., None]
            picture[window] = picture[window] * (1 - alpha) + placed.sprite.color[part]
        return camera(picture, rng)

    def visible(self) -> list[tuple[Placed, np.ndarray]]:
        """Return each object, from far to near, with its visible pixels, bool (H, W).

        An object is seen through what it holds.
        """
        top = np.full((self.height, self.width), -1, np.int16)
        solid = []
        for i, placed in enumerate(self.objects):
            window, part = self._window(placed)
            solid.append((window, placed.sprite.alpha[part] > 0.5))
            top[window][solid[i][1]] = i
        found = []
        for i, placed in enumerate(self.objects):
            mask = top == i
            window, inside = solid[i]
            for held in placed.holds:
                mask[window] |= inside & (top[window] == self.objects.index(held))
            found.append((placed, mask))
        return found

    def _window(self, placed: Placed) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of the picture that the sprite of an object covers, and the part of the sprite that is in it."""
        height, width = placed.sprite.alpha.shape
        left = round(placed.x - self.pan * placed.scale - width / 2)
        top = round(placed.bottom) - placed.sprite.base
        rows = slice(min(max(0, top), self.height), max(0, min(self.height, top + height)))
        columns = slice(min(max(0, left), self.width), max(0, min(self.width, left + width)))
        part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        return (rows, columns), part

    def _paint_shadow(self, picture: np.ndarray, placed: Placed) -> None:
        """Darken the ground around the feet of an object."""
        height, width = placed.sprite.alpha.shape
        center = (round(placed.x - self.pan * placed.scale - self.light * 0.1 * width), round(placed.bottom))
        axes = (round(0.36 * width) + 1, round(0.05 * min(height, width)) + 1)
        x0, y0 = max(0, center[0] - 2 * axes[0]), max(0, center[1] - 3 * axes[1])
        region = picture[y0 : center[1] + 3 * axes[1], x0 : center[0] + 2 * axes[0]]
        if region.size:
            shadow = np.zeros(region.shape[:2], np.float32)
            cv2.ellipse(shadow, (center[0] - x0, center[1] - y0), axes, 0, 0, 360, 0.4, -1)
            region *= 1 - cv2.blur(shadow, (axes[1] | 1, axes[1] | 1))[..., None]


def everyday(scene: Scene) -> None:
    """Add people, animals and other objects."""
    rng = scene.rng
    around = (
        ("sofa", "table", "box", "potted plant") if scene.indoor else ("tree", "post", "car", "box", "potted plant")
    )
    for name in rng.choice(around, rng.integers(1, 4)):
        scene.put(str(name), rng.uniform(0, 1), rng.uniform(0, 0.1 if name in ("tree", "car") else 0.6))
    people = int(rng.choice([0, 1, 2, 3], p=[0.12, 0.42, 0.32, 0.14]))
    for slot in range(people):
        x = (slot + rng.uniform(0.2, 0.8)) / people
        if rng.random() < 0.15:
            hold(scene, scene.put("person", x, rng.uniform(0.4, 1.0), pose="hold"))
        else:
            scene.put("person", x, rng.uniform(0.1, 1.1))
    chances = {"cat": 0.45, "sports ball": 0.45, "book": 0.45, "dog": 0.25}
    small = [name for name, chance in chances.items() if rng.random() < chance]
    for slot, name in enumerate(rng.permutation(small)):
        scene.put(str(name), (slot + rng.uniform(0.15, 0.85)) / len(small), rng.uniform(0.4, 1.05))
    if rng.random() < 0.08:
        put_on_book(scene)


def hold(scene: Scene, owner: Placed) -> None:
    """Give a person whose pose is "hold" a ball or a book."""
    name = str(scene.rng.choice(["sports ball", "book"]))
    scene.put_before(owner, name, scene.rng.uniform(0.28, 0.38), scene.rng.uniform(0.85, 0.95))


def put_on_book(scene: Scene) -> None:
    """Add a large open book with a kitten or a ball on it; the outline of the book is not cut by them."""
    atlas = scene.put("book", scene.rng.uniform(0.25, 0.75), 1.0, is_open=True)
    name = str(scene.rng.choice(["cat", "sports ball"]))
    scene.put_before(atlas, name, 0.2, 0.08, scene.rng.uniform(-0.1, 0.1))
