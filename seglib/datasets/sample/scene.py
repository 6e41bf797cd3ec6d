"""A scene seen from the ground: a room or a street, objects from far to near, and what is visible of each."""

from dataclasses import dataclass

import cv2
import numpy as np

from seglib.datasets.sample.objects import BASE, GREEN, KINDS, PAINT, WOOD, camera, draw, pick, smooth_noise

__all__ = ["STUFF", "Placed", "Scene", "everyday"]

PALE = np.array([232, 230, 226])
GROUND = ((96, 132, 62), (112, 138, 76), (128, 132, 78), (168, 164, 158), (148, 140, 132), (206, 184, 146))
ASPHALT = (92, 92, 98)
SKY = ((150, 186, 226), (184, 200, 216), (206, 206, 208), (222, 196, 178))
STUFF = ("wall", "floor", "sky", "building", "trees", "ground", "road")


@dataclass(eq=False)
class Placed:
    """An object in a scene; x and bottom: the column of its middle and the row on which it stands, in pixels."""

    name: str
    sprite: np.ndarray  # see `objects.draw`
    x: float
    bottom: float
    scale: float  # pixels per meter; the nearest object has the largest
    crowd: bool = False
    owner: "Placed | None" = None  # the object before which it is; annotators do not cut it out of that one's outline


class Scene:
    """A room or a street without objects.

    Args:
        rng: decides everything that is random in the scene.
        size: longer side of the picture in pixels.
        indoor: a room, or a street.
        aspect: height divided by width.

    Attributes:
        objects: what `put` has added; change the `x` of one to move it.
        pan: meters that the camera has moved to the right. Change it and call `paint` again for the next frame of a
            video; near objects move more than far ones.
        stuff: uint8 (H, W) after `paint`: what the background shows at each pixel, as an index of `STUFF`.
    """

    def __init__(self, rng: np.random.Generator, size: int, indoor: bool, aspect: float = 0.75) -> None:
        self.rng = rng
        self.indoor = indoor
        self.height = round(size * min(1, aspect))
        self.width = round(size / max(1, aspect))
        self.eye = rng.uniform(0.55, 1.15)  # height of the camera in meters
        self.horizon = self.height * (0.64 - 0.26 * self.eye + rng.uniform(-0.04, 0.04))
        self.far = self.height * rng.uniform(0.2, 0.28)  # pixels per meter where the ground ends
        self.seed = int(rng.integers(2**32))
        self.objects: list[Placed] = []
        self.pan = 0.0
        self.stuff = np.zeros((self.height, self.width), np.uint8)

    def put(self, name: str, x: float, size: float, meters: float = 0) -> Placed:
        """Stand an object on the ground.

        Args:
            name: a key of `objects.KINDS`.
            x: its middle, from 0 (left) to 1 (right).
            size: 0 is at the far end of the ground, 1 as large as it fits into the picture; above 1 it is cut off.
            meters: height of the object; 0: the usual one, more or less.
        """
        meters = meters or KINDS[name][1] * self.rng.uniform(0.85, 1.15)
        largest = 0.97 * (self.height - self.horizon) / self.eye
        if meters > self.eye:
            largest = min(largest, 0.97 * self.horizon / (meters - self.eye))
        scale = self.far + size * (max(largest, self.far) - self.far)
        bottom = self.horizon + self.eye * scale
        placed = Placed(name, draw(name, self.rng, meters, scale), x * self.width, bottom, scale)
        self.objects.append(placed)
        return placed

    def put_before(self, owner: Placed, name: str, meters: float, lift: float) -> None:
        """Put an object before another, `lift` meters above where that stands, without cutting its outline."""
        sprite = draw(name, self.rng, meters, owner.scale)
        self.objects.append(Placed(name, sprite, owner.x, owner.bottom - lift * owner.scale, owner.scale, owner=owner))

    def paint(self) -> np.ndarray:
        """Paint the picture: uint8 (H, W, 3)."""
        rng = np.random.default_rng(self.seed)
        canvas = np.zeros((self.height, self.width, 4), np.float32)  # red, green, blue, index of `STUFF`
        edge = round(self.horizon + self.eye * self.far)
        paint_above = _paint_wall if self.indoor else _paint_distance
        paint_above(canvas[:edge], rng, self.far, round(self.pan * self.far))
        _paint_ground(self, canvas[edge:], rng, edge)
        self.stuff = canvas[..., 3].astype(np.uint8)
        self.objects.sort(key=lambda placed: placed.scale)
        light = np.ones((self.height, self.width), np.float32)  # on the ground
        for placed in self.objects:
            width = placed.sprite.shape[1]
            middle = (round(placed.x - self.pan * placed.scale), round(placed.bottom))
            cv2.ellipse(light, middle, (width * 2 // 5, width // 14 + 1), 0, 0, 360, 0.55, -1)
        picture = canvas[..., :3] * cv2.blur(light, (self.width // 30 + 1, self.height // 60 + 1))[..., None]
        for placed in self.objects:
            window, part = self._window(placed)
            sprite = placed.sprite[part]
            picture[window] = picture[window] * (1 - sprite[..., 3:]) + sprite[..., :3]
        return camera(picture, rng)

    def visible(self) -> list[tuple[Placed, np.ndarray]]:
        """Return each object, far to near, with its visible pixels, bool (H, W)."""
        found: list[tuple[Placed, np.ndarray]] = []
        for placed in self.objects:
            window, part = self._window(placed)
            solid = placed.sprite[part][..., 3] > 0.5
            for other, mask in found:
                if other is not placed.owner:
                    mask[window] &= ~solid
            mask = np.zeros((self.height, self.width), bool)
            mask[window] = solid
            found.append((placed, mask))
        return found

    def _window(self, placed: Placed) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of the picture that an object's sprite covers, and the part of the sprite that is in the picture."""
        height, width = placed.sprite.shape[:2]
        left = round(placed.x - self.pan * placed.scale - width / 2)
        top = round(placed.bottom - BASE * height)
        x0, x1 = np.clip((left, left + width), 0, self.width).tolist()
        y0, y1 = np.clip((top, top + height), 0, self.height).tolist()
        return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def _paint_wall(wall: np.ndarray, rng: np.random.Generator, meter: float, shift: int) -> None:
    """Paint a plain wall with up to two pictures; meter: in pixels."""
    wall[..., :3] = PALE + rng.uniform(0.15, 0.6) * (pick(rng, PAINT) - PALE)  # paler than the objects
    for x in rng.permutation(3)[: rng.integers(3)]:
        corner = ((x + rng.uniform(0.05, 0.4)) * wall.shape[1] / 3 - shift, len(wall) - rng.uniform(1.5, 2.1) * meter)
        _rectangle(wall, corner, meter * rng.uniform(0.5, 0.9, 2), pick(rng, (*PAINT, *SKY)))


def _paint_distance(view: np.ndarray, rng: np.random.Generator, meter: float, shift: int) -> None:
    """Paint the sky, and houses or trees where the ground ends; meter: in pixels."""
    height, width = view.shape[:2]
    fade = np.linspace(0.85, 1.1, height)[:, None] + 0.08 * smooth_noise(rng, height, width, height / 3)
    view[..., :3] = fade[..., None] * pick(rng, SKY)
    view[..., 3] = STUFF.index("sky")
    houses = rng.random() < 0.5
    low, high = ((1.5, 1.0), (3.0, 2.6)) if houses else ((0.8, 0.6), (1.6, 1.6))
    x = -4 * meter - shift
    for size in meter * rng.uniform(low, high, (16, 2)):
        if houses:
            corner = np.array([x, height - size[1]])
            wall = PALE + 0.55 * (pick(rng, PAINT) - PALE)
            _rectangle(view, corner, size, (*wall, STUFF.index("building")))
            for window in np.ndindex(*(size // (0.65 * meter)).astype(int)):
                at = corner + 0.2 * meter + 0.65 * meter * np.array(window)
                _rectangle(view, at, (0.28 * meter, 0.4 * meter), (70, 84, 98, STUFF.index("building")))
        else:
            color = (*pick(rng, GREEN), STUFF.index("trees"))
            cv2.ellipse(view, (round(x), height), (round(size[0]), round(size[1])), 0, 0, 360, color, -1)
        x += size[0]


def _rectangle(view: np.ndarray, corner: np.ndarray | tuple, size: np.ndarray | tuple, color: tuple) -> None:
    x, y = (round(value) for value in corner)
    cv2.rectangle(view, (x, y), (x + round(size[0]) - 1, y + round(size[1]) - 1), color, -1)


def _paint_ground(scene: Scene, ground: np.ndarray, rng: np.random.Generator, edge: int) -> None:
    """Paint a carpet, grass or paving in perspective, and outdoors a road."""
    height, width = ground.shape[:2]
    scale = ((np.arange(edge, edge + height) + 0.5 - scene.horizon) / scene.eye)[:, None]  # pixels per meter
    x = (np.arange(width) - width / 2) / scale + scene.pan
    z = np.broadcast_to(width / scale, x.shape)  # meters away
    bumps = smooth_noise(rng, 128, 128, 2.5)
    column, row = (np.abs(meters * 40 % 254 - 127).astype(np.float32) for meters in (x, z))  # mirrored: no seams
    light = 1 + rng.uniform(0.03, 0.12) * cv2.remap(bumps, column, row, cv2.INTER_LINEAR)[..., None]
    carpet = (90, 86, 83) + 0.4 * np.array(pick(rng, (*WOOD, *PAINT)))
    ground[..., :3] = light * (carpet if scene.indoor else pick(rng, GROUND))
    ground[..., 3] = STUFF.index("floor" if scene.indoor else "ground")
    if not scene.indoor and rng.random() < 0.5:
        start = rng.uniform(0.55, 0.8) * width / scene.far
        road = (z > start) & (z < start + 0.9 * width / scene.far)
        ground[road, :3] = light[road] * ASPHALT
        ground[road, 3] = STUFF.index("road")


def everyday(scene: Scene) -> None:
    """Add people, animals and other objects."""
    rng = scene.rng
    around = ["potted plant", "box", *(("sofa", "table") if scene.indoor else ("tree", "post", "car"))]
    for name in rng.choice(around, rng.integers(1, 4)):
        scene.put(str(name), rng.uniform(0, 1), rng.uniform(0, 0.1 if name in ("tree", "car") else 0.6))
    people = int(rng.choice([0, 1, 2, 3], p=[0.12, 0.42, 0.32, 0.14]))
    for slot in range(people):
        person = scene.put("person", (slot + rng.uniform(0.2, 0.8)) / people, rng.uniform(0.3, 1.1))
        if rng.random() < 0.15:
            scene.put_before(person, str(rng.choice(["sports ball", "book"])), 0.33, 0.5)
    chances = {"cat": 0.45, "sports ball": 0.45, "book": 0.45, "dog": 0.25}
    small = [name for name, chance in chances.items() if rng.random() < chance]
    for slot, name in enumerate(rng.permutation(small)):
        scene.put(str(name), (slot + rng.uniform(0.15, 0.85)) / len(small), rng.uniform(0.5, 1.05))
    if rng.random() < 0.08:
        atlas = scene.put("book", rng.uniform(0.25, 0.75), 1.0)
        scene.put_before(atlas, str(rng.choice(["cat", "sports ball"])), 0.2, 0.06)
