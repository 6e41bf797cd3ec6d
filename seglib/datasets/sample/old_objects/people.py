"""Draws people and crowds, in body heights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from seglib.datasets.sample.old_objects.outlines import (
    DARK,
    FAR_SIDE,
    Ball,
    Color,
    Drawing,
    Outline,
    Part,
    Pattern,
    Point,
    clothes_color,
    ellipse,
    limb,
    mirror,
    mix,
    palette_color,
    pick,
    rectangle,
    shade,
    smooth,
    tint,
    translate,
)

__all__ = [
    "CROWD_SPACING",
    "POSE_NAMES",
    "crowd",
    "person",
]

SKIN: tuple[Color, ...] = (
    (244, 208, 180), (226, 180, 148), (198, 144, 108), (160, 108, 76), (116, 76, 54), (84, 56, 42),
)  # fmt: skip
HAIR: tuple[Color, ...] = (
    (30, 24, 22), (58, 38, 26), (98, 62, 36), (150, 104, 58), (204, 166, 100), (150, 70, 40), (160, 158, 156),
)  # fmt: skip

CROWD_SPACING = 0.62  # meters between neighbors in a crowd

Points = Point | Sequence[Point] | Outline
Place = Callable[[Points], Outline]  # converts the coordinates of a body part to those of the drawing
Joints = tuple[Point, Point]  # elbow and wrist, or knee and ankle
Spread = tuple[float, float]  # standard deviations in degrees, of the upper and the lower segment


# ---------------------------------------------------------------------------------------------------------------- poses


@dataclass(frozen=True)
class _Pose:
    """The positions of arms and legs, (left, right); joints are relative to the shoulder or hip of their limb.

    Seen from the front or back, x points outwards on either side; seen from the side, x points where the person looks.
    `lean`: degrees by which the upper body leans back. `seat`: the hip's height where the person sits; None: the lower
    foot stands on the ground.
    """

    view: str
    arms: tuple[Joints, Joints]
    legs: tuple[Joints, Joints]
    lean: float = 0.0
    seat: float | None = None


def _bend(rng: np.random.Generator, lengths: Point, upper: float, lower: float, spread: Spread) -> Joints:
    """Two segments hanging down, turned forwards (outwards) by about `upper` and `lower` degrees."""
    a, b = math.radians(rng.normal(upper, spread[0])), math.radians(rng.normal(lower, spread[1]))
    middle = (lengths[0] * math.sin(a), -lengths[0] * math.cos(a))
    return middle, (middle[0] + lengths[1] * math.sin(b), middle[1] - lengths[1] * math.cos(b))


def _bent_arm(rng: np.random.Generator, upper: float, lower: float, spread: Spread = (6, 6)) -> Joints:
    return _bend(rng, (0.165, 0.15), upper, lower, spread)


def _bent_leg(rng: np.random.Generator, upper: float, lower: float, spread: Spread = (6, 6)) -> Joints:
    return _bend(rng, (0.235, 0.215), upper, lower, spread)


POSE_NAMES = ("stand", "akimbo", "wave", "cheer", "stroll", "walk", "run", "kick", "chair", "sideways", "ground")
_AKIMBO = ((0.135, -0.135), (-0.005, -0.25))
_HOLDING = ((0.05, -0.155), (-0.035, -0.17))
_ON_CHAIR = (((0.04, -0.05), (0.045, -0.26)), ((0.045, -0.05), (0.05, -0.26)))
_CROSS_LEGGED = (((0.14, 0.015), (-0.03, -0.035)), ((0.145, 0.02), (-0.02, -0.03)))


def _make_pose(rng: np.random.Generator, name: str) -> _Pose:
    """Return a pose with small random changes.

    Args:
        name: one of POSE_NAMES, or "hold" or "read": standing or sitting, with both hands in front of the chest.

    Raises:
        ValueError: there is no such pose.
    """
    arm, leg = partial(_bent_arm, rng), partial(_bent_leg, rng)
    stance, hanging = (leg(6, 4, (3, 3)), leg(6, 4, (3, 3))), arm(16, 8)
    front = pick(rng, ("front", "front", "front", "back"))
    match name:
        case "stand":
            return _Pose(front, (hanging, arm(14, 6)), stance)
        case "akimbo":
            return _Pose(front, (_AKIMBO, pick(rng, (hanging, _AKIMBO))), stance)
        case "wave":
            return _Pose(front, (arm(120, 165, (15, 12)), hanging), stance)
        case "cheer":
            return _Pose(front, (arm(140, 165, (12, 6)), arm(140, 168, (12, 6))), stance)
        case "stroll":
            return _Pose(front, (hanging, arm(20, -10)), (leg(2, -3, (2, 3)), stance[0]))
        case "walk":
            return _Pose("side", (arm(28, 45), arm(-28, -8)), (leg(-20, -34), leg(24, 10)))
        case "run":
            return _Pose("side", (arm(45, 120), arm(-50, 30)), (leg(-28, -85), leg(52, -5)), lean=-10)
        case "kick":
            return _Pose("side", (arm(-45, -20), arm(40, 70)), (leg(-8, -12, (3, 3)), leg(48, 34)), lean=6)
        case "chair":
            return _Pose("front", (arm(12, -14), arm(12, -14)), _ON_CHAIR, seat=0.30)
        case "sideways":
            return _Pose("side", (arm(20, 70), arm(25, 75)), (leg(84, 8, (3, 6)), leg(88, 0, (3, 6))), seat=0.26)
        case "ground":
            return _Pose("front", (arm(22, -20), arm(22, -20)), _CROSS_LEGGED, seat=0.07)
        case "hold":
            return _Pose("front", (_HOLDING, _HOLDING), stance)
        case "read":
            return _Pose("front", (_HOLDING, _HOLDING), _CROSS_LEGGED, seat=0.07)
    raise ValueError(f"unknown pose {name!r}; choose one of {', '.join(POSE_NAMES)}, hold, read")


# -------------------------------------------------------------------------------------------------------------- clothes


@dataclass(frozen=True)
class _Look:
    """Skin, hair and clothes of one person."""

    skin: Color
    hair: Color
    hairdo: str
    top: Color
    top_pattern: Pattern | None
    sleeves: str
    bottom: Color
    bottom_kind: str
    shoes: Color
    jacket: Color | None
    hat: Color | None


def _make_look(rng: np.random.Generator) -> _Look:
    """Return random skin, hair and clothes."""
    pattern = None
    if rng.random() < 0.35:
        kind = pick(rng, ("stripes", "stripes", "bars", "checks", "dots"))
        pattern = Pattern(kind, clothes_color(rng), rng.uniform(0.1, 0.24))
    return _Look(
        skin=tint(rng, pick(rng, SKIN), 8),
        hair=tint(rng, pick(rng, HAIR), 8),
        hairdo=pick(rng, ("short", "short", "long", "long", "bun", "bald")),
        top=clothes_color(rng),
        top_pattern=pattern,
        sleeves=pick(rng, ("long", "short", "short", "none")),
        bottom=clothes_color(rng),
        bottom_kind=pick(rng, ("trousers", "trousers", "trousers", "shorts", "skirt", "dress")),
        shoes=palette_color(rng),
        jacket=clothes_color(rng) if rng.random() < 0.2 else None,
        hat=clothes_color(rng) if rng.random() < 0.22 else None,
    )


# --------------------------------------------------------------------------------------------------------------- bodies


def person(rng: np.random.Generator, pose_name: str, child: bool = False) -> Drawing:
    """Return a person in random clothes; the unit is the height of the standing person.

    Args:
        pose_name: see `_make_pose`.
        child: draw a larger head.
    """
    pose, look = _make_pose(rng, pose_name), _make_look(rng)
    head_size = rng.uniform(1.3, 1.5) if child else rng.uniform(1.0, 1.12)
    # The lower ankle of a standing person is just above the ground.
    hip = pose.seat if pose.seat is not None else 0.03 - min(ankle[1] for _, ankle in pose.legs)
    tilt = math.radians(pose.lean)
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])

    def up(points: Points) -> Outline:  # converts coordinates of the upper body, which leans about the hip
        return np.asarray(points, dtype=float) @ turn + (0, hip)

    side = pose.view == "side"
    ways = (1, 1) if side else (-1, 1)  # which way "outwards" points, left and right
    shoulders = [up((0.0, 0.3))] * 2 if side else [up((-0.105, 0.3)), up((0.105, 0.3))]
    (left_arm, left_hand), (right_arm, right_hand) = (_arm(look, shoulders[i], pose.arms[i], ways[i]) for i in (0, 1))
    hips = [(0.0 if side else 0.05 * way, hip) for way in ways]
    left_leg, right_leg = (_leg(look, hips[i], pose.legs[i], ways[i], side) for i in (0, 1))
    trunk = _trunk(look, up, side, pose.seat is not None)
    mane, head = _head(look, up, pose.view, head_size)
    if side:
        far = [replace(part, color=shade(part.color, FAR_SIDE)) for part in left_arm + left_leg]
        parts = far + right_leg + trunk + head + right_arm
    elif pose.view == "back":
        parts = left_leg + right_leg + left_arm + right_arm + trunk + head
    else:
        parts = mane + left_leg + right_leg + trunk + left_arm + right_arm + head
    fingers = [Part(ellipse(hand, 0.026, 0.02), look.skin) for hand in (left_hand, right_hand)]
    return Drawing(parts, height=1.0, hands=(left_hand, right_hand), fingers=fingers)


def _arm(look: _Look, shoulder: np.ndarray, joints: Joints, way: int) -> tuple[list[Part], Point]:
    """The parts of an arm, and where its wrist is."""
    x, y = float(shoulder[0]), float(shoulder[1]) - 0.012
    (ex, ey), (wx, wy) = joints
    elbow, wrist = (x + way * ex, y + ey), (x + way * wx, y + wy)
    hand = (wrist[0] * 1.12 - elbow[0] * 0.12, wrist[1] * 1.12 - elbow[1] * 0.12)  # the forearm's line, a little on
    fabric = look.jacket or look.top
    sleeves = "long" if look.jacket else look.sleeves
    return [
        Part(ellipse(hand, 0.024, 0.026), look.skin),
        limb(elbow, wrist, 0.027, 0.021, fabric if sleeves == "long" else look.skin),
        limb((x, y), elbow, 0.036, 0.029, look.skin if sleeves == "none" else fabric),
    ], wrist


def _leg(look: _Look, hip: Point, joints: Joints, way: int, side: bool) -> list[Part]:
    (kx, ky), (ax, ay) = joints
    knee, ankle = (hip[0] + way * kx, hip[1] + ky), (hip[0] + way * ax, hip[1] + ay)
    thigh = look.skin if look.bottom_kind in ("skirt", "dress") else look.bottom
    shin, cuff = (look.bottom, 0.035) if look.bottom_kind == "trousers" else (look.skin, 0.027)
    shift, length = (0.03, 0.055) if side else (0.008 * way, 0.036)
    return [
        Part(ellipse((ankle[0] + shift, max(ankle[1] - 0.012, 0.018)), length, 0.022), look.shoes),
        limb(knee, ankle, 0.043, cuff, shin),
        limb(hip, knee, 0.058, 0.045, thigh),
    ]


_JACKET_PANEL = ((0.03, 0.34), (0.1, 0.322), (0.118, 0.27), (0.1, 0.17), (0.092, 0.05), (0.1, -0.03), (0.045, -0.03))


def _trunk(look: _Look, up: Place, side: bool, seated: bool) -> list[Part]:
    """Hips or skirt, torso, an open jacket."""
    wide = 0.62 if side else 1.0  # a body is less deep than wide
    if look.bottom_kind in ("skirt", "dress"):
        waist = ((0.094, 0.01), (0.085, -0.045))
        drop, flare = (-0.07, 0.15) if seated else (-0.2, 0.135)
        hem = [(0.08 * wide, 0.1), (0.1 * wide, 0.0), (flare * wide, drop), (flare * wide * 0.9, drop - 0.02)]
        fabric, pattern = (look.top, look.top_pattern) if look.bottom_kind == "dress" else (look.bottom, None)
        lower = Part(up(mirror(hem)), fabric, pattern=pattern)
    else:
        waist = ((0.094, 0.01), (0.08, 0.0))
        lower = Part(up(mirror([(0.085 * wide, 0.08), (0.097 * wide, 0.0), (0.085 * wide, -0.07)])), look.bottom)
    half = ((0.03, 0.345), (0.1, 0.325), (0.118, 0.27), (0.098, 0.17), (0.086, 0.09), *waist)
    torso = Part(up(mirror([(x * wide, y) for x, y in half])), look.top, pattern=look.top_pattern)
    if look.jacket and side:
        return [lower, torso, replace(torso, color=look.jacket, pattern=None)]
    if look.jacket:
        panels = [up(smooth([(x * way, y) for x, y in _JACKET_PANEL])) for way in (-1, 1)]
        return [lower, torso, *(Part(panel, look.jacket) for panel in panels)]
    return [lower, torso]


# ---------------------------------------------------------------------------------------------------------------- heads

# Outlines from -1 to 1 within the head; (0, 0) is its middle.
_FACE = mirror([(0.55, 0.9), (0.98, 0.35), (0.92, -0.35), (0.45, -0.95)])
_PROFILE = smooth([(0.2, 1), (0.75, 0.7), (0.9, 0.1), (1.15, -0.2), (0.88, -0.4), (0.8, -0.8), (0.2, -1),
                   (-0.6, -0.6), (-0.95, 0.2), (-0.6, 0.85)])  # fmt: skip
_MANE_BEHIND = mirror([(0.5, 1.05), (1.1, 0.5), (1.25, -0.6), (1.05, -1.6), (0.4, -1.7)])
_MANE_FROM_BACK = mirror([(0.5, 1.08), (1.08, 0.4), (1.15, -0.8), (0.8, -1.7)])
_FRINGE = smooth([(-1.08, -0.1), (-1.0, 0.6), (-0.5, 1.12), (0.5, 1.12), (1.0, 0.6), (1.08, -0.1), (0.85, 0.3),
                  (0.3, 0.55), (-0.5, 0.5), (-0.88, 0.25)])  # fmt: skip
_HAT = smooth([(-1.08, 0.42), (-0.95, 0.95), (0, 1.4), (0.95, 0.95), (1.08, 0.42)])
_EYE_WHITE: Color = (238, 234, 228)
_RED: Color = (150, 50, 50)  # mixed into the color of lips


def _head(look: _Look, up: Place, view: str, size: float) -> tuple[list[Part], list[Part]]:
    """What hangs behind the shoulders (long hair, seen from the front); neck, face, hair and hat."""
    middle = 0.335 + 0.085 * size
    rx, ry = 0.056 * size, 0.07 * size

    def shape(points: Points) -> Outline:
        return up(np.asarray(points) * (rx, ry) + (0, middle))

    behind = [Part(shape(_MANE_BEHIND), look.hair, flat=True)] if look.hairdo == "long" and view == "front" else []
    neck = limb(tuple(up((0, 0.31))), tuple(shape((0, -0.6))), 0.032, 0.03, shade(look.skin, 0.9))
    return behind, [neck, *_face(look, shape, view), *_hair(look, shape, view), *_hat(look, shape, view)]


def _face(look: _Look, shape: Place, view: str) -> list[Part]:
    if view == "back":
        return [Part(shape(_FACE), look.skin if look.hairdo == "bald" else look.hair)]
    if view == "side":
        eye = Part(shape(ellipse((0.55, 0.08), 0.1, 0.1)), DARK, flat=True)
        return [Part(shape(_PROFILE), look.skin), eye]
    ears = [Part(shape(ellipse((way * 1.0, -0.05), 0.16, 0.2)), look.skin) for way in (-1, 1)]
    eyes = [
        Part(shape(ellipse((way * 0.4, 0.05), rx, ry)), color, flat=True)
        for rx, ry, color in ((0.2, 0.13, _EYE_WHITE), (0.1, 0.12, DARK))
        for way in (-1, 1)
    ]
    nose = Part(shape(ellipse((0, -0.25), 0.1, 0.12)), shade(look.skin, 0.85), flat=True)
    mouth = Part(shape(ellipse((0, -0.55), 0.3, 0.06)), mix(look.skin, _RED, 0.6), flat=True)
    return [*ears, Part(shape(_FACE), look.skin), *eyes, nose, mouth]


def _hair(look: _Look, shape: Place, view: str) -> list[Part]:
    if look.hairdo == "bald":
        return []
    outlines = []
    if look.hairdo == "bun":
        outlines.append(ellipse((-0.7 if view == "side" else 0, 1.2), 0.5, 0.42))
    if view == "front":
        outlines.append(_FRINGE)
    elif view == "side":
        low = -1.7 if look.hairdo == "long" else -0.5
        outlines.append(smooth([(0.75, 0.75), (0.2, 1.15), (-0.7, 1.0), (-1.15, 0.2), (-1.1, low), (-0.55, low),
                                (-0.3, 0.05), (0.1, 0.5)]))  # fmt: skip
    elif look.hairdo == "long":
        outlines.append(_MANE_FROM_BACK)
    return [Part(shape(outline), look.hair) for outline in outlines]


def _hat(look: _Look, shape: Place, view: str) -> list[Part]:
    if not look.hat:
        return []
    brim = ellipse((0.9, 0.5), 0.9, 0.16) if view == "side" else ellipse((0, 0.45), 1.25, 0.16)
    return [Part(shape(_HAT), look.hat), Part(shape(brim), shade(look.hat, 0.85))]


# --------------------------------------------------------------------------------------------------------------- crowds


def _far_person(rng: np.random.Generator) -> list[Part]:
    """A person of a few pixels, in body heights: trousers, arms that are raised, top, head and hair."""
    skin = pick(rng, SKIN)
    top = Part(mirror([(0.07, 0.82), (0.14, 0.76), (0.13, 0.45)]), palette_color(rng))
    raised = [limb((way * 0.11, 0.76), (way * 0.2, 1.0), 0.035, 0.03, skin) for way in (-1, 1) if rng.random() < 0.3]
    trousers = Part(rectangle(-0.09, 0, 0.09, 0.5), palette_color(rng))
    head, hair = ellipse((0, 0.91), 0.075, 0.09), ellipse((0, 0.95), 0.075, 0.06)
    return [trousers, *raised, top, Part(head, skin), Part(hair, pick(rng, HAIR))]


def crowd(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Return rows of many people, in meters; the back rows are higher, as in a stand."""
    parts: list[Part | Ball] = []
    for row in reversed(range(rows)):
        for column in range(columns):
            x = (column - columns / 2 + 0.5 * (row % 2)) * CROWD_SPACING + rng.uniform(-0.14, 0.14)
            parts += translate(_far_person(rng), (x, row * 0.55), rng.uniform(1.5, 1.8))
    return Drawing(parts, height=1.7 + 0.55 * (rows - 1))
