"""A scene seen from the ground: its camera, its light, its objects, and how they are painted.

A pinhole camera looks horizontally over flat ground. An object that stands on the ground at row y of the picture is
drawn at (y - horizon) / camera pixels per meter.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageFilter

from seglib.datasets.sample import old_objects as objects
from seglib.datasets.sample.old_objects import Drawing, Sprite, pick

__all__ = [
    "BALL", "BOOK", "CAT", "DOG", "PERSON", "PLANT", "Scene", "SceneObject", "color_planes", "make_scene",
    "paint_scene", "smooth_noise",
]  # fmt: skip

# COCO's category ids
PERSON = 1
CAT = 17
DOG = 18
BALL = 37
PLANT = 64
BOOK = 84

ASPECTS = (0.75, 0.75, 0.75, 0.667, 0.667, 0.625)  # short side by long side
SHADOW: objects.Color = (16, 14, 24)


@dataclass
class SceneObject:
    """A drawing and its place in a scene.

    Annotators draw the outline of an object straight across what it holds: `held_objects` lists those objects.
    """

    drawing: Drawing
    x: float  # pixels; (x, y) is where it touches the ground
    y: float
    scale: float  # pixels per meter there
    category: int | None = None  # the id of a COCO category; None: not annotated
    depth: float = 0.0  # objects are painted in the order of their depth: the row of the ground they stand on
    flip: bool = False
    above_ground: bool = False  # without a shadow
    crowd: bool = False
    owner: "SceneObject | None" = None  # of fingers around a book: the person, who is painted earlier
    held_objects: list["SceneObject"] = field(default_factory=list)
    kind: str = ""  # of an object without a COCO category: "car", "sofa"; VOC has a class for some of them
    sprite: Sprite | None = None  # its pixels, set by paint_scene; None: outside the picture

    def to_pixels(self, point: objects.Point) -> tuple[float, float]:
        """Pixel position (x, y) of a point in the units of the drawing."""
        unit = self.scale * self.drawing.size
        return self.x + point[0] * unit * (-1 if self.flip else 1), self.y - point[1] * unit


@dataclass
class Scene:
    """The objects of one picture, its camera and its light."""

    rng: np.random.Generator  # decides which objects there are
    # Textures and noise draw more numbers for a larger picture. Their own generator keeps the objects the same.
    texture_rng: np.random.Generator
    height: int
    width: int
    horizon: float  # row in pixels
    camera: float  # meters above the ground
    light: int  # 1: the light comes from the right, -1: from the left
    sunny: bool
    indoor: bool
    cluttered: bool = True  # objects without a category may be in the foreground
    min_scale: float = 1.0  # pixels per meter at the farthest place where objects may stand
    objects: list[SceneObject] = field(default_factory=list)
    canvas: np.ndarray = field(init=False)  # the background, float32 (3, height, width), 0 to 255

    def __post_init__(self) -> None:
        self.canvas = np.zeros((3, self.height, self.width), np.float32)

    def scale_at(self, y: float) -> float:
        """Pixels per meter at row y of the ground."""
        return max((y - self.horizon) / self.camera, 1e-3)

    def place(
        self,
        drawing: Drawing,
        x: float,
        scale: float,
        category: int | None = None,
        flip: bool | None = None,
        crowd: bool = False,
    ) -> SceneObject:
        """Place a drawing on the ground.

        Args:
            x: column in pixels.
            scale: pixels per meter, which determines the distance.
            category: the id of a COCO category; None: not annotated.
            flip: whether to mirror it; None: at random.
            crowd: whether to annotate it as a crowd.
        """
        y = self.horizon + self.camera * scale
        random_flip = bool(self.rng.random() < 0.5)  # always drawn, so that the next objects do not depend on `flip`
        flip = random_flip if flip is None else flip
        obj = SceneObject(drawing, x, y, scale, category, depth=y, flip=flip, crowd=crowd)
        self.objects.append(obj)
        return obj

    def attach(
        self,
        drawing: Drawing,
        x: float,
        y: float,
        scale: float,
        category: int | None = None,
        depth: float = 0.0,
        flip: bool = False,
        owner: SceneObject | None = None,
    ) -> SceneObject:
        """Place a drawing above the ground: on a wall, on a table, in a person's hands.

        Args:
            x, y: position in pixels.
            scale: pixels per meter.
            category, depth, flip, owner: see `SceneObject`.
        """
        obj = SceneObject(drawing, x, y, scale, category, depth, flip, above_ground=True, owner=owner)
        self.objects.append(obj)
        return obj


def make_scene(rng: np.random.Generator, size: int, indoor: bool, camera: float, aspect: float | None = None) -> Scene:
    """Return a scene without objects.

    Args:
        size: longer side of the picture in pixels.
        camera: height of the camera in meters.
        aspect: height divided by width; None: at random.
    """
    if aspect is None:
        short = pick(rng, ASPECTS)
        aspect = float(rng.choice([short, 1 / short, 1.0], p=[0.7, 0.18, 0.12]))
    height, width = (size, round(size / aspect)) if aspect > 1 else (round(size * aspect), size)
    return Scene(
        rng,
        texture_rng=rng.spawn(1)[0],
        height=height,
        width=width,
        horizon=height * rng.uniform(0.34, 0.46),
        camera=camera,
        light=pick(rng, (-1, 1)),
        sunny=bool(rng.random() < 0.6),
        indoor=indoor,
    )


# --------------------------------------------------------------------------------------------------------------- pixels


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Return smooth noise, float32 (height, width), mostly between -1 and 1, with bumps of about `cell` pixels."""
    rows, columns = math.ceil(height / cell) + 2, math.ceil(width / cell) + 2
    coarse = rng.random((rows, columns), dtype=np.float32) * 2 - 1
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def color_planes(color: objects.Color | np.ndarray) -> np.ndarray:
    """Return a color as float32 (3, 1, 1), to be multiplied with light (H, W)."""
    return np.asarray(color, np.float32)[:, None, None]


def paint_scene(scene: Scene) -> np.ndarray:
    """Paint all objects, from far to near, and set their sprites; return the picture, uint8 (H, W, 3)."""
    frame = (scene.height, scene.width)
    for obj in scene.objects:
        obj.sprite = objects.rasterize(obj.drawing, obj.x, obj.y, obj.scale, frame, scene.light, obj.flip)
    # Drawings are darker than their colors, so that lit sides can be brighter; the background must match.
    background = np.clip(scene.canvas * (objects.EVEN_LIGHT / 255), 0, 255).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(background.transpose(1, 2, 0)))
    for obj in scene.objects:
        if obj.sprite and not obj.above_ground:
            _paint_shadow(scene, picture, obj.sprite, obj.y)
    for obj in scene.objects:
        if obj.sprite:
            picture.paste(obj.sprite.image, (obj.sprite.left, obj.sprite.top), obj.sprite.image)
    return _add_camera_effects(scene, picture)


def _paint_shadow(scene: Scene, picture: Image.Image, sprite: Sprite, y: float) -> None:
    """Darken the ground around row y; in sunlight the shadow is long and points away from the light."""
    cover = sprite.image.getchannel("A")
    strong, lean, flat = (0.5, 0.55, 0.22) if scene.sunny and not scene.indoor else (0.35, 0.1, 0.16)
    reach = math.ceil(lean * cover.height)
    rows = math.ceil(flat * cover.height) + 1
    ground = min(y - sprite.top, cover.height)  # the row of the sprite that touches the ground
    shift = reach if scene.light > 0 else 0
    slope = -scene.light * lean / flat
    # Pillow's coefficients, which map a pixel of the shadow to the pixel of the sprite that casts it.
    transform = (1, slope, -shift - slope * rows, 0, 1 / flat, ground - rows / flat)
    shadow = cover.transform(
        (cover.width + reach, rows + 3), Image.Transform.AFFINE, transform, Image.Resampling.BILINEAR
    )
    shadow = shadow.filter(ImageFilter.BoxBlur(max(0.6, 0.012 * cover.height)))
    shadow = shadow.point([int(value * strong) for value in range(256)])
    picture.paste(SHADOW, (sprite.left - shift, round(sprite.top + ground - rows)), shadow)


def _add_camera_effects(scene: Scene, picture: Image.Image) -> np.ndarray:
    """Add what a camera adds: a color cast, darker corners, some texture, sensor noise."""
    rng = scene.rng
    shape = (scene.height, scene.width)
    across, down = (np.linspace(-1, 1, side, dtype=np.float32) for side in (scene.width, scene.height))
    light = rng.uniform(1.0, 1.2) * (1 - 0.07 * (across**2 + down[:, None] ** 2)) + across * rng.uniform(-0.08, 0.08)
    light += 0.03 * smooth_noise(scene.texture_rng, *shape, max(3, scene.height / 40))
    pixels = np.asarray(picture).transpose(2, 0, 1) * light
    pixels *= color_planes(rng.normal(1, 0.02, 3))
    pixels += scene.texture_rng.standard_normal(shape, dtype=np.float32) * np.float32(rng.uniform(2, 6))
    return np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))
