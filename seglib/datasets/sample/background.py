"""Paints what lies behind the objects of a scene: a room, or a street with houses or trees."""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from seglib.datasets.sample.objects import GREEN, PAINT, WOOD, Color, pick, smooth_noise

if TYPE_CHECKING:
    from seglib.datasets.sample.scene import Scene

__all__ = ["STUFF", "paint_background"]

PALE = (232, 230, 226)
STUFF = ("wall", "floor", "sky", "building", "trees", "ground", "road")
GRASS = ((96, 132, 62), (112, 138, 76), (128, 132, 78))
PAVING = ((168, 164, 158), (148, 140, 132), (206, 184, 146))
ASPHALT = (92, 92, 98)
SKY = ((150, 186, 226), (184, 200, 216), (206, 206, 208), (222, 196, 178))


def paint_background(scene: "Scene", rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture without objects, float32 (H, W, 3), and its labels, uint8 (H, W), as indices of `STUFF`."""
    picture = np.zeros((scene.height, scene.width, 3), np.uint8)
    labels = np.zeros((scene.height, scene.width), np.uint8)
    edge = round(scene.horizon + scene.eye * scene.far)
    shift = round(scene.pan * scene.far)
    if scene.indoor:
        _paint_wall(picture[:edge], rng, scene.far, shift)
        labels[edge:] = STUFF.index("floor")
    else:
        _paint_distance(picture[:edge], labels[:edge], rng, scene.far, shift)
        labels[edge:] = STUFF.index("ground")
    painted = picture.astype(np.float32)
    _paint_ground(scene, painted[edge:], labels[edge:], rng, edge)
    return painted, labels


def _paint_wall(wall: np.ndarray, rng: np.random.Generator, meter: float, shift: int) -> None:
    """Paint a wall, plain or striped, with up to two pictures and a skirting board; meter: in pixels."""
    height, width = wall.shape[:2]
    pale = rng.uniform(0, 0.7)
    wall[:] = (1 - pale) * np.array(pick(rng, PAINT)) + pale * np.array(PALE)
    if rng.random() < 0.4:
        step = max(6, round(meter * rng.uniform(0.2, 0.5)))
        striped = (np.arange(width) + shift) % step < step / 2
        wall[:, striped] = wall[:, striped] * 0.9
    for x in rng.permutation(3)[: rng.integers(3)]:
        corner = np.array([(x + rng.uniform(0.05, 0.4)) * width / 3 - shift, height - rng.uniform(1.5, 2.1) * meter])
        size = meter * rng.uniform(0.5, 0.9, 2)
        _rectangle(wall, corner, size, pick(rng, (*WOOD, PALE)))
        _rectangle(wall, corner + 0.08 * size, 0.84 * size, pick(rng, (*PAINT, *SKY)))
    _rectangle(wall, (0, height - 0.1 * meter), (width, 0.1 * meter + 1), pick(rng, (*WOOD, PALE)))


def _paint_distance(view: np.ndarray, labels: np.ndarray, rng: np.random.Generator, meter: float, shift: int) -> None:
    """Paint the sky, and houses or trees where the ground ends; meter: in pixels."""
    height, width = view.shape[:2]
    fade = np.linspace(0.85, 1.1, height)[:, None] + 0.08 * smooth_noise(rng, height, width, height / 3)
    view[:] = np.clip(fade[..., None] * pick(rng, SKY), 0, 255)
    labels[:] = STUFF.index("sky")
    houses = rng.random() < 0.5
    x = -4 * meter - shift
    for size in meter * rng.uniform(
        (1.5, 1.0) if houses else (0.8, 0.6), (3.0, 2.6) if houses else (1.6, 1.6), (16, 2)
    ):
        corner = (x, height - size[1])
        x += size[0]
        if not houses:
            axes = (round(size[0]), round(size[1]))
            cv2.ellipse(view, (round(x), height), axes, 0, 0, 360, pick(rng, GREEN), -1)
            cv2.ellipse(labels, (round(x), height), axes, 0, 0, 360, STUFF.index("trees"), -1)
            continue
        _rectangle(view, corner, size, pick(rng, PAINT))
        _rectangle(labels, corner, size, STUFF.index("building"))
        glass = pick(rng, ((90, 110, 130), (50, 56, 66), (196, 206, 212)))
        for column in np.arange(0.25 * meter, size[0] - 0.3 * meter, 0.6 * meter):
            for row in np.arange(0.25 * meter, size[1] - 0.4 * meter, 0.7 * meter):
                _rectangle(view, (corner[0] + column, corner[1] + row), (0.28 * meter, 0.4 * meter), glass)


def _rectangle(canvas: np.ndarray, corner: np.ndarray | tuple, size: np.ndarray | tuple, color: Color | int) -> None:
    x, y = (round(value) for value in corner)
    cv2.rectangle(canvas, (x, y), (x + round(size[0]) - 1, y + round(size[1]) - 1), color, -1)


def _paint_ground(scene: "Scene", ground: np.ndarray, labels: np.ndarray, rng: np.random.Generator, edge: int) -> None:
    """Paint boards, tiles, carpet, grass or paving in perspective, and outdoors a road."""
    height, width = labels.shape
    scale = ((np.arange(edge, edge + height) + 0.5 - scene.horizon) / scene.eye)[:, None]  # pixels per meter
    x = (np.arange(width) - width / 2) / scale + scene.pan
    z = np.broadcast_to(width / scale, x.shape)  # meters away
    bumps = smooth_noise(rng, 256, 256, 2.5)
    column, row = (np.abs(meters * 40 % 510 - 255).astype(np.float32) for meters in (x, z))  # mirrored: no seams
    rough = cv2.remap(bumps, column, row, cv2.INTER_LINEAR)
    light = 1 + rng.uniform(0.03, 0.12) * rough
    grass = rng.random() < 0.5
    color = pick(rng, (*WOOD, *PAINT) if scene.indoor else GRASS if grass else PAVING)
    if not grass:  # nor a carpet
        cell = np.array([(0.2, 2.0), (0.5, 0.5)][rng.integers(2)])  # boards or tiles
        columns = np.floor(x / cell[0]).astype(int)
        rows = np.floor(z / cell[1] + 0.4 * columns).astype(int)
        light += rng.uniform(-0.06, 0.06, 64)[(7 * columns + 13 * rows) % 64]
    ground[:] = light[..., None] * color
    if not scene.indoor and rng.random() < 0.5:
        start = rng.uniform(0.55, 0.8) * width / scene.far
        road = (z > start) & (z < start + 0.9 * width / scene.far)
        ground[road] = light[road][:, None] * ASPHALT
        labels[road] = STUFF.index("road")
