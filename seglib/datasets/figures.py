"""Draws the things of a scene: people, cats, dogs, balls, books, plants, and what only stands around.

A figure is a list of parts, painted in order. Outlines are in metres (people: in body heights), x to the right, y up;
(0, 0) is where the figure touches the ground. `rasterise` turns a figure into pixels, `scenes` puts them together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]
Outline = np.ndarray  # float (n, 2)

# One palette for clothes, walls, books, cars and bushes, so that no colour gives a class away.
PALETTE: tuple[Colour, ...] = (
    (178, 42, 48), (40, 72, 140), (72, 120, 190), (58, 110, 62), (120, 150, 80), (214, 176, 70), (232, 226, 214),
    (60, 60, 66), (130, 130, 134), (150, 96, 60), (96, 62, 42), (196, 150, 110), (206, 120, 140), (120, 76, 140),
    (224, 130, 60), (90, 160, 160), (170, 190, 210), (225, 200, 170), (130, 40, 70), (34, 38, 52), (242, 242, 240),
)  # fmt: skip
VIVID = tuple(colour for colour in PALETTE if max(colour) - min(colour) > 75)
SKIN: tuple[Colour, ...] = (
    (244, 208, 180), (226, 180, 148), (198, 144, 108), (160, 108, 76), (116, 76, 54), (84, 56, 42),
)  # fmt: skip
FUR: tuple[Colour, ...] = (
    (58, 52, 50), (128, 120, 114), (200, 138, 80), (226, 216, 200), (144, 104, 70), (94, 74, 60), (210, 180, 140),
)  # fmt: skip
HAIR: tuple[Colour, ...] = (
    (30, 24, 22), (58, 38, 26), (98, 62, 36), (150, 104, 58), (204, 166, 100), (150, 70, 40), (160, 158, 156),
)  # fmt: skip
GREENS: tuple[Colour, ...] = ((58, 104, 48), (84, 128, 58), (46, 86, 56), (112, 138, 70), (74, 112, 84))
WOOD: tuple[Colour, ...] = ((120, 84, 56), (156, 112, 72), (92, 68, 50), (186, 146, 104), (136, 120, 104))
STONE: tuple[Colour, ...] = ((130, 126, 120), (160, 140, 120), (190, 160, 130), (96, 92, 90), (176, 172, 166))
DARK: Colour = (34, 28, 28)


@dataclass(frozen=True)
class Pattern:
    """Stripes, checks or dots of a second colour; `period` as a fraction of the part's height."""

    kind: str
    colour: Colour
    period: float


@dataclass(frozen=True)
class Part:
    """One painted outline, shaded towards the light.

    `axis`: the direction along a limb, which is shaded across. `flat`: not shaded, keeps the light of what it lies on.
    """

    outline: Outline
    colour: Colour
    axis: Point | None = None
    pattern: Pattern | None = None
    flat: bool = False


@dataclass(frozen=True)
class Ball:
    """A sphere with a painted skin: `outline` holds two corners of the square around it, `turn` (3, 3) rotates it."""

    outline: Outline
    kind: str
    colours: tuple[Colour, ...]
    turn: np.ndarray


@dataclass(frozen=True)
class Figure:
    """Parts in painting order; `size`: metres per unit of the outlines; `hands`, `lap`: where to put what is held."""

    parts: list[Part | Ball]
    height: float  # in units of the outlines
    size: float = 1.0
    hands: tuple[Point, Point] = ((0.0, 0.0), (0.0, 0.0))
    lap: Point = (0.0, 0.0)
    fingers: list[Part] = field(default_factory=list)  # painted over what the hands hold

    def sized(self, metres: float) -> "Figure":
        """The same figure, so many metres high."""
        return replace(self, size=metres / self.height)


# ---------------------------------------------------------------------------------------------- outlines and colours

_STEPS = np.array([0.0, 0.25, 0.5, 0.75])[:, None]
_CATMULL_ROM = 0.5 * np.hstack([
    -_STEPS + 2 * _STEPS**2 - _STEPS**3, 2 - 5 * _STEPS**2 + 3 * _STEPS**3,
    _STEPS + 4 * _STEPS**2 - 3 * _STEPS**3, -(_STEPS**2) + _STEPS**3,
])  # fmt: skip
_HALF_TURN = np.linspace(-math.pi / 2, math.pi / 2, 7)
_ARC = np.stack([np.cos(_HALF_TURN), np.sin(_HALF_TURN)], axis=1)
_TURN = np.linspace(0, 2 * math.pi, 22, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


def smooth(points: Sequence[Point] | np.ndarray) -> Outline:
    """A closed Catmull-Rom curve through the points, four steps from each to the next."""
    points = np.asarray(points, dtype=float)
    around = (np.arange(len(points))[:, None] + np.arange(-1, 3)) % len(points)
    return (_CATMULL_ROM @ points[around]).reshape(-1, 2)


def mirrored(half: Sequence[Point]) -> Outline:
    """A smooth outline, symmetric about x = 0, from its right half (top to bottom)."""
    return smooth([*half, *((-x, y) for x, y in reversed(half))])


def ellipse(centre: Point, rx: float, ry: float, angle: float = 0.0) -> Outline:
    """An ellipse, turned anticlockwise by `angle` radians."""
    c, s = math.cos(angle), math.sin(angle)
    return _CIRCLE * (rx, ry) @ np.array([[c, s], [-s, c]]) + centre


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Outline:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)


def limb(a: Point, b: Point, ra: float, rb: float, colour: Colour, **more) -> Part:
    """A round-ended, tapering limb from a to b."""
    length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1e-6
    c, s = (b[0] - a[0]) / length, (b[1] - a[1]) / length
    along = np.array([[c, s], [-s, c]])
    return Part(np.concatenate([_ARC @ along * rb + b, -_ARC @ along * ra + a]), colour, axis=(c, s), **more)


def stroke(points: Sequence[Point], start: float, end: float) -> Outline:
    """A smooth open curve through the points as an outline; its half-width runs from `start` to `end`."""
    points = np.asarray(points, dtype=float)
    ends = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    windows = ends[np.arange(len(points) - 1)[:, None] + np.arange(4)]
    path = np.vstack([(_CATMULL_ROM @ windows).reshape(-1, 2), points[-1:]])
    step = np.gradient(path, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1) / (np.hypot(*step.T)[:, None] + 1e-9)
    width = np.linspace(start, end, len(path))[:, None]
    return np.vstack([path + normal * width, (path - normal * width)[::-1]])


def pick(rng: np.random.Generator, choices: Sequence):
    return choices[int(rng.integers(len(choices)))]


def tint(rng: np.random.Generator, colour: Colour, amount: float = 14) -> Colour:
    """The colour, a little lighter or darker and a little shifted."""
    light = rng.uniform(0.86, 1.08)
    return tuple(
        int(min(255, max(0, c * light + d))) for c, d in zip(colour, rng.normal(0, amount / 2, 3), strict=True)
    )


def shade(colour: Colour, factor: float) -> Colour:
    return tuple(min(255, int(c * factor)) for c in colour)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def paint(rng: np.random.Generator) -> Colour:
    return tint(rng, pick(rng, PALETTE))


def cloth(rng: np.random.Generator) -> Colour:
    """A colour of the palette for clothes: the bright ones more often."""
    return tint(rng, pick(rng, PALETTE if rng.random() < 0.4 else VIVID))


def faded(rng: np.random.Generator) -> Colour:
    """A colour of the palette as houses and furniture wear it: most are paler than clothes, some are as bright."""
    return mix(paint(rng), (168, 160, 148), rng.uniform(0.2, 0.85))


def moved(parts: Sequence[Part], by: Point, scale: float = 1.0, flip: bool = False) -> list[Part]:
    """The parts enlarged about (0, 0), mirrored if `flip`, then moved."""
    factor = np.array([-scale if flip else scale, scale])
    return [
        replace(p, outline=p.outline * factor + by, axis=p.axis and (p.axis[0] * (-1 if flip else 1), p.axis[1]))
        for p in parts
    ]


# ------------------------------------------------------------------------------------------------------------- people


@dataclass(frozen=True)
class Pose:
    """Joints relative to the one they hang from: (elbow, wrist) for each arm, (knee, ankle) for each leg.

    Seen from the front or back, x points outwards on either side; seen from the side, x points where the person looks.
    `seat`: the hip's height where the person sits; None: the lower foot stands on the ground.
    """

    view: str
    arms: tuple[tuple[Point, Point], tuple[Point, Point]]
    legs: tuple[tuple[Point, Point], tuple[Point, Point]]
    lean: float = 0.0
    seat: float | None = None


def _bend(upper: float, lower: float, first: float, second: float) -> tuple[Point, Point]:
    """Two segments hanging down, turned forwards (outwards) by two angles in degrees."""
    a, b = math.radians(first), math.radians(second)
    middle = (upper * math.sin(a), -upper * math.cos(a))
    return middle, (middle[0] + lower * math.sin(b), middle[1] - lower * math.cos(b))


def arm(first: float, second: float) -> tuple[Point, Point]:
    return _bend(0.165, 0.15, first, second)


def leg(first: float, second: float) -> tuple[Point, Point]:
    return _bend(0.235, 0.215, first, second)


_AKIMBO = ((0.135, -0.135), (-0.005, -0.25))
_HOLDING = ((0.05, -0.155), (-0.035, -0.17))
POSE_NAMES = ("stand", "akimbo", "wave", "cheer", "stroll", "walk", "run", "kick", "chair", "sideways", "ground")


def make_pose(rng: np.random.Generator, name: str) -> Pose:
    """A pose by name, a little different each time. "hold" and "read" have both hands before the chest."""

    def about(value: float, spread: float = 6) -> float:
        return float(rng.normal(value, spread))

    stance = (leg(about(6, 3), about(4, 3)), leg(about(6, 3), about(4, 3)))
    hanging = arm(about(16), about(8))
    front = pick(rng, ("front", "front", "front", "back"))
    on_chair = (((0.04, -0.05), (0.045, -0.26)), ((0.045, -0.05), (0.05, -0.26)))
    cross_legged = (((0.14, 0.015), (-0.03, -0.035)), ((0.145, 0.02), (-0.02, -0.03)))
    poses = {
        "stand": lambda: Pose(front, (hanging, arm(about(14), about(6))), stance),
        "akimbo": lambda: Pose(front, (_AKIMBO, pick(rng, (hanging, _AKIMBO))), stance),
        "wave": lambda: Pose(front, (arm(about(120, 15), about(165, 12)), hanging), stance),
        "cheer": lambda: Pose(front, (arm(about(140, 12), about(165)), arm(about(140, 12), about(168))), stance),
        "stroll": lambda: Pose(front, (hanging, arm(about(20), about(-10))),
                               (leg(about(2, 2), about(-3, 3)), stance[0])),
        "walk": lambda: Pose("side", (arm(about(28), about(45)), arm(about(-28), about(-8))),
                             (leg(about(-20), about(-34)), leg(about(24), about(10)))),
        "run": lambda: Pose("side", (arm(about(45), about(120)), arm(about(-50), about(30))),
                            (leg(about(-28), about(-85)), leg(about(52), about(-5))), lean=-10),
        "kick": lambda: Pose("side", (arm(about(-45), about(-20)), arm(about(40), about(70))),
                             (leg(about(-8, 3), about(-12, 3)), leg(about(48), about(34))), lean=6),
        "chair": lambda: Pose("front", (arm(about(12), about(-14)), arm(about(12), about(-14))), on_chair, seat=0.30),
        "sideways": lambda: Pose("side", (arm(about(20), about(70)), arm(about(25), about(75))),
                                 (leg(about(84, 3), about(8)), leg(about(88, 3), about(0))), seat=0.26),
        "ground": lambda: Pose("front", (arm(about(22), about(-20)), arm(about(22), about(-20))),
                               cross_legged, seat=0.07),
        "hold": lambda: Pose("front", (_HOLDING, _HOLDING), stance),
        "read": lambda: Pose("front", (_HOLDING, _HOLDING), cross_legged, seat=0.07),
    }  # fmt: skip
    return poses[name]()


@dataclass(frozen=True)
class Look:
    """Skin, hair and clothes of one person."""

    skin: Colour
    hair: Colour
    hairdo: str
    top: Colour
    top_pattern: Pattern | None
    sleeves: str
    bottom: Colour
    bottom_kind: str
    shoes: Colour
    jacket: Colour | None
    hat: Colour | None


def make_look(rng: np.random.Generator) -> Look:
    pattern = None
    if rng.random() < 0.35:
        pattern = Pattern(
            pick(rng, ("stripes", "stripes", "bars", "checks", "dots")), cloth(rng), rng.uniform(0.1, 0.24)
        )
    return Look(
        skin=tint(rng, pick(rng, SKIN), 8), hair=tint(rng, pick(rng, HAIR), 8),
        hairdo=pick(rng, ("short", "short", "long", "long", "bun", "bald")),
        top=cloth(rng), top_pattern=pattern, sleeves=pick(rng, ("long", "short", "short", "none")),
        bottom=cloth(rng), bottom_kind=pick(rng, ("trousers", "trousers", "trousers", "shorts", "skirt", "dress")),
        shoes=paint(rng), jacket=cloth(rng) if rng.random() < 0.2 else None,
        hat=cloth(rng) if rng.random() < 0.22 else None,
    )  # fmt: skip


def person(rng: np.random.Generator, pose: Pose | str, child: bool = False) -> Figure:
    """A person in body heights (1 = standing upright), dressed at random; children have the larger head."""
    pose = make_pose(rng, pose) if isinstance(pose, str) else pose
    look, head = make_look(rng), rng.uniform(1.3, 1.5) if child else rng.uniform(1.0, 1.12)
    hip = pose.seat if pose.seat is not None else 0.03 - min(ankle[1] for _, ankle in pose.legs)
    tilt = math.radians(pose.lean)
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])

    def up(points) -> np.ndarray:  # from the upper body, which leans about the hip, to the figure
        return np.asarray(points, dtype=float) @ turn + (0, hip)

    side = pose.view == "side"
    shoulders = [up((0.0, 0.3))] * 2 if side else [up((-0.105, 0.3)), up((0.105, 0.3))]
    ways = (1, 1) if side else (-1, 1)  # which way "outwards" points, left and right
    arms, hands = zip(*(_arm(look, shoulders[i], pose.arms[i], ways[i]) for i in (0, 1)), strict=True)
    legs = [_leg(look, (0.0 if side else 0.05 * ways[i], hip), pose.legs[i], ways[i], side) for i in (0, 1)]
    trunk, skull = _trunk(look, up, side, pose.seat is not None), _head(look, up, pose.view, head)
    if side:
        far = [replace(part, colour=shade(part.colour, 0.78)) for part in arms[0] + legs[0]]
        parts = far + legs[1] + trunk + skull + arms[1]
    elif pose.view == "back":
        parts = legs[0] + legs[1] + arms[0] + arms[1] + trunk + skull
    else:
        behind = [p for p in skull if p.flat and p.colour == look.hair][:1] if look.hairdo == "long" else []
        parts = behind + legs[0] + legs[1] + trunk + arms[0] + arms[1] + skull[len(behind) :]
    fingers = [Part(ellipse(hand, 0.026, 0.02), look.skin) for hand in hands]
    return Figure(parts, height=1.0, hands=(hands[0], hands[1]), lap=(0.0, hip), fingers=fingers)


def _arm(look: Look, shoulder: np.ndarray, joints: tuple[Point, Point], way: int) -> tuple[list[Part], Point]:
    x, y = float(shoulder[0]), float(shoulder[1]) - 0.012
    (ex, ey), (wx, wy) = joints
    elbow, wrist = (x + way * ex, y + ey), (x + way * wx, y + wy)
    fabric = look.jacket or look.top
    sleeve = "long" if look.jacket else look.sleeves
    parts = [
        Part(ellipse((wrist[0] * 1.12 - elbow[0] * 0.12, wrist[1] * 1.12 - elbow[1] * 0.12), 0.024, 0.026), look.skin)
    ]
    parts.append(limb(elbow, wrist, 0.027, 0.021, fabric if sleeve == "long" else look.skin))
    parts.append(limb((x, y), elbow, 0.036, 0.029, look.skin if sleeve == "none" else fabric))
    return parts, wrist


def _leg(look: Look, hip: Point, joints: tuple[Point, Point], way: int, side: bool) -> list[Part]:
    (kx, ky), (ax, ay) = joints
    knee, ankle = (hip[0] + way * kx, hip[1] + ky), (hip[0] + way * ax, hip[1] + ay)
    bare = look.bottom_kind in ("skirt", "dress")
    thigh = look.skin if bare else look.bottom
    shin = look.bottom if look.bottom_kind == "trousers" else look.skin
    shift, length = (0.03, 0.055) if side else (0.008 * way, 0.036)
    shoe = Part(ellipse((ankle[0] + shift, max(ankle[1] - 0.012, 0.018)), length, 0.022), look.shoes)
    wide = 0.008 if look.bottom_kind == "trousers" else 0.0
    return [shoe, limb(knee, ankle, 0.043, 0.027 + wide, shin), limb(hip, knee, 0.058, 0.045, thigh)]


def _trunk(look: Look, up, side: bool, seated: bool) -> list[Part]:
    """Hips or skirt, torso, an open jacket."""
    wide = 0.62 if side else 1.0
    half = [(0.03, 0.345), (0.1, 0.325), (0.118, 0.27), (0.098, 0.17), (0.086, 0.09), (0.094, 0.01), (0.085, -0.045)]
    torso = Part(up(mirrored([(x * wide, y) for x, y in half])), look.top, pattern=look.top_pattern)
    parts = []
    if look.bottom_kind in ("skirt", "dress"):
        drop, flare = (-0.07, 0.15) if seated else (-0.2, 0.135)
        hem = mirrored([(0.08 * wide, 0.1), (0.1 * wide, 0.0), (flare * wide, drop), (flare * wide * 0.9, drop - 0.02)])
        fabric = look.top if look.bottom_kind == "dress" else look.bottom
        parts.append(Part(up(hem), fabric, pattern=look.top_pattern if look.bottom_kind == "dress" else None))
    else:
        parts.append(
            Part(up(mirrored([(0.085 * wide, 0.08), (0.097 * wide, 0.0), (0.085 * wide, -0.07)])), look.bottom)
        )
        half[-1] = (0.08, 0.0)
        torso = replace(torso, outline=up(mirrored([(x * wide, y) for x, y in half])))
    parts.append(torso)
    if look.jacket and not side:
        for way in (-1, 1):
            panel = [
                (0.03, 0.34),
                (0.1, 0.322),
                (0.118, 0.27),
                (0.1, 0.17),
                (0.092, 0.05),
                (0.1, -0.03),
                (0.045, -0.03),
            ]
            parts.append(Part(up(smooth([(x * way, y) for x, y in panel])), look.jacket))
    elif look.jacket:
        parts.append(replace(torso, colour=look.jacket, pattern=None))
    return parts


def _head(look: Look, up, view: str, size: float) -> list[Part]:
    """Neck, face and hair; the first part of long hair seen from the front hangs behind the shoulders."""
    middle = 0.335 + 0.085 * size
    rx, ry = 0.056 * size, 0.07 * size

    def shape(points) -> np.ndarray:  # from -1..1 within the head to the figure
        return up(np.asarray(points) * (rx, ry) + (0, middle))

    parts = []
    if look.hairdo == "long" and view == "front":
        mane = [(0.5, 1.05), (1.1, 0.5), (1.25, -0.6), (1.05, -1.6), (0.4, -1.7)]
        parts.append(Part(shape(mirrored(mane)), look.hair, flat=True))
    parts.append(limb(tuple(up((0, 0.31))), tuple(shape((0, -0.6))), 0.032, 0.03, shade(look.skin, 0.9)))
    face = [(0.55, 0.9), (0.98, 0.35), (0.92, -0.35), (0.45, -0.95)]
    if view == "back":
        parts.append(Part(shape(mirrored(face)), look.skin if look.hairdo == "bald" else look.hair))
    elif view == "side":
        profile = [(0.2, 1), (0.75, 0.7), (0.9, 0.1), (1.15, -0.2), (0.88, -0.4), (0.8, -0.8), (0.2, -1), (-0.6, -0.6),
                   (-0.95, 0.2), (-0.6, 0.85)]  # fmt: skip
        parts.append(Part(shape(smooth(profile)), look.skin))
        parts.append(Part(shape(ellipse((0.55, 0.08), 0.1, 0.1)), DARK, flat=True))
    else:
        parts += [Part(shape(ellipse((way * 1.0, -0.05), 0.16, 0.2)), look.skin) for way in (-1, 1)]
        parts.append(Part(shape(mirrored(face)), look.skin))
        for rx_, ry_, colour in ((0.2, 0.13, (238, 234, 228)), (0.1, 0.12, DARK)):
            parts += [Part(shape(ellipse((way * 0.4, 0.05), rx_, ry_)), colour, flat=True) for way in (-1, 1)]
        parts.append(Part(shape(ellipse((0, -0.25), 0.1, 0.12)), shade(look.skin, 0.85), flat=True))
        parts.append(Part(shape(ellipse((0, -0.55), 0.3, 0.06)), mix(look.skin, (150, 50, 50), 0.6), flat=True))
    return parts + _hair(look, shape, view)


def _hair(look: Look, shape, view: str) -> list[Part]:
    parts = []
    if look.hairdo == "bun":
        parts.append(Part(shape(ellipse((-0.7 if view == "side" else 0, 1.2), 0.5, 0.42)), look.hair))
    if look.hairdo != "bald" and view == "front":
        fringe = [(-1.08, -0.1), (-1.0, 0.6), (-0.5, 1.12), (0.5, 1.12), (1.0, 0.6), (1.08, -0.1), (0.85, 0.3),
                  (0.3, 0.55),                  (-0.5, 0.5), (-0.88, 0.25)]  # fmt: skip
        parts.append(Part(shape(smooth(fringe)), look.hair))
    elif look.hairdo != "bald" and view == "side":
        low = -1.7 if look.hairdo == "long" else -0.5
        back = [
            (0.75, 0.75),
            (0.2, 1.15),
            (-0.7, 1.0),
            (-1.15, 0.2),
            (-1.1, low),
            (-0.55, low),
            (-0.3, 0.05),
            (0.1, 0.5),
        ]
        parts.append(Part(shape(smooth(back)), look.hair))
    elif look.hairdo == "long":
        parts.append(Part(shape(mirrored([(0.5, 1.08), (1.08, 0.4), (1.15, -0.8), (0.8, -1.7)])), look.hair))
    if look.hat:
        dome = [(-1.08, 0.42), (-0.95, 0.95), (0, 1.4), (0.95, 0.95), (1.08, 0.42)]
        parts.append(Part(shape(smooth(dome)), look.hat))
        brim = (0.9, 0.5, 0.9) if view == "side" else (0, 0.45, 1.25)
        parts.append(Part(shape(ellipse(brim[:2], brim[2], 0.16)), shade(look.hat, 0.85)))
    return parts


def far_person(rng: np.random.Generator) -> list[Part]:
    """A person of a few pixels, in body heights: trousers, top, head and hair."""
    skin = pick(rng, SKIN)
    top = Part(mirrored([(0.07, 0.82), (0.14, 0.76), (0.13, 0.45)]), paint(rng))
    raised = [limb((way * 0.11, 0.76), (way * 0.2, 1.0), 0.035, 0.03, skin) for way in (-1, 1) if rng.random() < 0.3]
    return [
        Part(rectangle(-0.09, 0, 0.09, 0.5), paint(rng)), *raised, top,
        Part(ellipse((0, 0.91), 0.075, 0.09), skin), Part(ellipse((0, 0.95), 0.075, 0.06), pick(rng, HAIR)),
    ]  # fmt: skip


def crowd(rng: np.random.Generator, columns: int, rows: int) -> Figure:
    """Rows of many little people in metres, the back rows higher up, as in a stand."""
    parts: list[Part] = []
    for row in reversed(range(rows)):
        for column in range(columns):
            x = (column - columns / 2 + 0.5 * (row % 2)) * 0.62 + rng.uniform(-0.14, 0.14)
            parts += moved(far_person(rng), (x, row * 0.55), rng.uniform(1.5, 1.8))
    return Figure(parts, height=1.7 + 0.55 * (rows - 1))


# ------------------------------------------------------------------------------------------------------ cats and dogs


@dataclass(frozen=True)
class Coat:
    """Fur of a cat or dog: base, belly, and stripes or patches (None: plain)."""

    base: Colour
    belly: Colour
    marks: Colour | None
    eyes: Colour


def make_coat(rng: np.random.Generator) -> Coat:
    base = tint(rng, pick(rng, FUR), 10)
    belly = mix(base, (245, 238, 228), pick(rng, (0.1, 0.25, 0.8)))
    marks = shade(base, 0.62) if rng.random() < 0.6 else None
    return Coat(base, belly, marks, pick(rng, ((150, 170, 60), (210, 160, 50), (90, 140, 110))))


def cat(rng: np.random.Generator, pose: str) -> Figure:
    """A cat: "sit" (towards us), "walk" or "lie" (from the side, looking right)."""
    coat = make_coat(rng)
    return {"sit": _cat_sitting, "walk": _cat_walking, "lie": _cat_lying}[pose](rng, coat)


def _cat_head(coat: Coat, centre: Point, radius: float) -> list[Part]:
    x, y = centre
    parts = []
    for way in (-1, 1):
        ear = np.array([(0.25, 0.75), (0.62, 1.45), (0.95, 0.35)]) * (way * radius, radius) + centre
        inner = np.array([(0.42, 0.8), (0.62, 1.22), (0.82, 0.55)]) * (way * radius, radius) + centre
        parts += [Part(ear, coat.base), Part(inner, mix(coat.base, (230, 150, 150), 0.5), flat=True)]
    parts.append(Part(ellipse(centre, radius * 1.08, radius * 0.92), coat.base))
    if coat.marks:
        for dx in (-0.3, 0, 0.3):
            parts.append(limb((x + dx * radius, y + 0.8 * radius), (x + dx * 0.8 * radius, y + 0.42 * radius),
                              radius * 0.07, radius * 0.05, coat.marks, flat=True))  # fmt: skip
    parts.append(Part(ellipse((x, y - 0.38 * radius), radius * 0.48, radius * 0.34), coat.belly))
    for way in (-1, 1):
        eye = (x + way * 0.42 * radius, y + 0.08 * radius)
        parts.append(Part(ellipse(eye, radius * 0.2, radius * 0.17), coat.eyes, flat=True))
        parts.append(Part(ellipse(eye, radius * 0.07, radius * 0.16), DARK, flat=True))
        for rise in (-0.1, 0.12):
            parts.append(limb((x + way * 0.4 * radius, y - 0.35 * radius),
                              (x + way * radius, y + (rise - 0.35) * radius),
                              radius * 0.02, radius * 0.02, (235, 232, 228), flat=True))  # fmt: skip
    parts.append(
        Part(np.array([(-0.13, -0.2), (0.13, -0.2), (0, -0.36)]) * radius + centre, (196, 110, 110), flat=True)
    )
    return parts


def _cat_sitting(rng: np.random.Generator, coat: Coat) -> Figure:
    way = pick(rng, (-1, 1))
    tail = stroke([(way * 0.1, 0.04), (way * 0.2, 0.03), (way * 0.27, 0.1), (way * 0.25, 0.2)], 0.026, 0.018)
    body = mirrored([(0.03, 0.33), (0.075, 0.28), (0.1, 0.18), (0.135, 0.08), (0.12, 0.01), (0.04, 0.0)])
    parts = [Part(tail, coat.base), Part(body, coat.base)]
    if coat.marks:
        for side in (-1, 1):
            parts += [limb((side * 0.125, h), (side * 0.08, h + 0.015), 0.009, 0.004, coat.marks, flat=True)
                      for h in (0.07, 0.115, 0.16)]  # fmt: skip
    parts.append(Part(mirrored([(0.03, 0.28), (0.055, 0.22), (0.04, 0.08), (0.02, 0.05)]), coat.belly, flat=True))
    for side in (-1, 1):
        parts.append(limb((side * 0.04, 0.17), (side * 0.042, 0.025), 0.034, 0.026, coat.base))
        parts.append(Part(ellipse((side * 0.045, 0.018), 0.034, 0.02), coat.belly))
    return Figure(parts + _cat_head(coat, (rng.uniform(-0.02, 0.02), 0.36), 0.088), height=0.48)


def _stripes_on_back(coat: Coat, xs: Sequence[float], top: float, length: float) -> list[Part]:
    if not coat.marks:
        return []
    return [limb((x, top), (x - 0.012, top - length), 0.012, 0.004, coat.marks, flat=True) for x in xs]


def _cat_walking(rng: np.random.Generator, coat: Coat) -> Figure:
    swing = rng.uniform(0.02, 0.06)
    tail = stroke([(-0.19, 0.23), (-0.28, 0.25), (-0.31, 0.34), (-0.27, 0.43)], 0.026, 0.016)
    dark = shade(coat.base, 0.78)
    legs = [((-0.15, 0.19), (-0.15 + swing, 0.02), dark), ((0.13, 0.19), (0.13 - swing, 0.02), dark),
            ((-0.16, 0.19), (-0.16 - swing, 0.02), coat.base),
            ((0.14, 0.19), (0.14 + swing, 0.02), coat.base)]  # fmt: skip
    body = smooth([(0.2, 0.27), (0.05, 0.285), (-0.12, 0.29), (-0.215, 0.25), (-0.2, 0.17), (-0.08, 0.145),
                   (0.08, 0.135),                   (0.19, 0.17)])  # fmt: skip
    parts = [Part(tail, coat.base)]
    parts += [limb(hip, paw, 0.046, 0.02, colour) for hip, paw, colour in legs]
    parts += [Part(ellipse((paw[0] + 0.012, 0.016), 0.03, 0.018), coat.belly) for _, paw, _ in legs[2:]]
    parts += [Part(body, coat.base), *_stripes_on_back(coat, (-0.15, -0.09, -0.03, 0.03, 0.09), 0.272, 0.07)]
    return Figure(parts + _cat_head(coat, (0.235, 0.33), 0.08), height=0.45)


def _cat_lying(rng: np.random.Generator, coat: Coat) -> Figure:
    body = smooth([(0.2, 0.12), (0.08, 0.17), (-0.1, 0.18), (-0.22, 0.12), (-0.24, 0.03), (-0.1, 0.0), (0.15, 0.0),
                   (0.24, 0.03)])  # fmt: skip
    tail = stroke([(-0.2, 0.04), (-0.3, 0.03), (-0.28, -0.01), (-0.1, 0.005)], 0.026, 0.02)
    parts = [Part(body, coat.base), *_stripes_on_back(coat, (-0.14, -0.08, -0.02, 0.04), 0.165, 0.07)]
    parts += [Part(tail, shade(coat.base, 0.9)), limb((0.14, 0.03), (0.28, 0.02), 0.03, 0.022, coat.belly)]
    return Figure(parts + _cat_head(coat, (0.21, 0.18 + rng.uniform(0, 0.02)), 0.085), height=0.3)


def dog(rng: np.random.Generator, pose: str) -> Figure:
    """A dog: "walk" (from the side, looking right) or "sit" (towards us); long muzzle, hanging ears."""
    coat = make_coat(rng)
    collar = paint(rng) if rng.random() < 0.6 else None
    return _dog_sitting(rng, coat, collar) if pose == "sit" else _dog_walking(rng, coat, collar)


def _dog_walking(rng: np.random.Generator, coat: Coat, collar: Colour | None) -> Figure:
    swing, dark = rng.uniform(0.03, 0.09), shade(coat.base, 0.78)
    tail = stroke([(-0.3, 0.44), (-0.38, 0.5), (-0.41, 0.6), (-0.36, 0.66)], 0.03, 0.012)
    parts = [Part(tail, coat.base)]
    for x, way, colour in ((-0.25, 1, dark), (0.18, -1, dark), (-0.27, -1, coat.base), (0.2, 1, coat.base)):
        paw = (x + way * swing, 0.025)
        parts += [
            limb((x, 0.35), paw, 0.066, 0.026, colour),
            Part(ellipse((paw[0] + 0.02, 0.02), 0.042, 0.022), coat.belly),
        ]
    body = smooth([(0.28, 0.46), (0.05, 0.47), (-0.2, 0.48), (-0.33, 0.42), (-0.3, 0.31), (-0.1, 0.31), (0.1, 0.25),
                   (0.26, 0.29)])  # fmt: skip
    parts += [Part(body, coat.base), limb((0.22, 0.42), (0.33, 0.56), 0.095, 0.07, coat.base)]
    if coat.marks:
        parts.append(Part(ellipse((-0.08, 0.43), 0.12, 0.045), coat.marks, flat=True))
    if collar:
        parts.append(limb((0.24, 0.53), (0.34, 0.46), 0.016, 0.016, collar))
    parts += [
        Part(ellipse((0.36, 0.6), 0.092, 0.082), coat.base),
        limb((0.4, 0.58), (0.5, 0.55), 0.05, 0.034, coat.belly),
    ]
    parts += [
        Part(ellipse((0.528, 0.567), 0.02, 0.017), DARK),
        Part(ellipse((0.39, 0.625), 0.012, 0.012), DARK, flat=True),
    ]
    ear = smooth([(0.33, 0.67), (0.37, 0.62), (0.33, 0.5), (0.28, 0.5), (0.27, 0.6)])
    return Figure([*parts, Part(ear, coat.marks or shade(coat.base, 0.72))], height=0.7)


def _dog_sitting(rng: np.random.Generator, coat: Coat, collar: Colour | None) -> Figure:
    way = pick(rng, (-1, 1))
    tail = stroke([(way * 0.12, 0.05), (way * 0.24, 0.06), (way * 0.32, 0.16)], 0.03, 0.012)
    body = mirrored([(0.06, 0.46), (0.12, 0.38), (0.12, 0.22), (0.17, 0.09), (0.14, 0.01), (0.04, 0.0)])
    parts = [Part(tail, coat.base), Part(body, coat.base)]
    parts.append(Part(mirrored([(0.04, 0.42), (0.07, 0.32), (0.04, 0.16)]), coat.belly, flat=True))
    for side in (-1, 1):
        parts.append(limb((side * 0.065, 0.3), (side * 0.06, 0.03), 0.05, 0.032, coat.base))
        parts.append(Part(ellipse((side * 0.064, 0.022), 0.044, 0.024), coat.belly))
    if collar:
        parts.append(Part(ellipse((0, 0.43), 0.09, 0.03), collar))
    x, y = rng.uniform(-0.02, 0.02), 0.53
    parts.append(Part(ellipse((x, y), 0.1, 0.105), coat.base))
    for side in (-1, 1):
        ear = smooth([(0.05, 0.1), (0.1, 0.09), (0.15, -0.03), (0.13, -0.12), (0.09, -0.06)]) * (side, 1) + (x, y)
        parts.append(Part(ear, coat.marks or shade(coat.base, 0.72)))
        parts.append(Part(ellipse((x + side * 0.042, y + 0.025), 0.015, 0.015), DARK, flat=True))
    parts += [Part(mirrored([(0.03, 0.0), (0.058, -0.06), (0.035, -0.11)]) + (x, y), coat.belly),
              Part(ellipse((x, y - 0.035), 0.026, 0.02), DARK)]  # fmt: skip
    if rng.random() < 0.5:
        parts.append(Part(ellipse((x, y - 0.12), 0.018, 0.03), (214, 110, 116)))
    return Figure(parts, height=0.65)


# -------------------------------------------------------------------------------------------- balls, books and plants

BALL_KINDS = ("football", "basketball", "tennis", "beach", "volley")
_GOLDEN = (1 + 5**0.5) / 2
_ICOSAHEDRON = np.array(
    [p for a in (-1, 1) for b in (-_GOLDEN, _GOLDEN) for p in ((0, a, b), (a, b, 0), (b, 0, a))]
) / math.hypot(1, _GOLDEN)  # fmt: skip


def ball(rng: np.random.Generator, kind: str) -> Figure:
    """A ball of radius 1/2 that lies on the ground; `sized` gives it its diameter."""
    colours = {
        "football": (tint(rng, (240, 240, 236), 6), pick(rng, ((30, 30, 34), (30, 30, 34), paint(rng)))),
        "basketball": (tint(rng, (206, 108, 48)), (50, 34, 28)),
        "tennis": (tint(rng, (206, 222, 72)), (240, 240, 230)),
        "beach": (paint(rng), (244, 242, 236), paint(rng)),
        "volley": (tint(rng, (236, 232, 220)), paint(rng), paint(rng)),
    }[kind]
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return Figure([Ball(np.array([(-0.5, 0.0), (0.5, 1.0)]), kind, colours, turn)], height=1.0)


def _ball_skin(ball: Ball, normal: np.ndarray) -> np.ndarray:
    """Colours, float (H, W, 3), of a ball where its surface points along `normal` (H, W, 3)."""
    local = normal @ ball.turn
    x, y, z = local[..., 0], local[..., 1], local[..., 2]
    if ball.kind == "football":
        near = np.sort(local @ _ICOSAHEDRON.T, axis=-1)
        index = ((near[..., -1] > 0.925) | (near[..., -1] - near[..., -2] < 0.016)).astype(int)
    elif ball.kind == "basketball":
        index = ((np.abs(x) < 0.04) | (np.abs(y) < 0.04) | (np.abs(np.abs(x) - 0.45 - 0.3 * z**2) < 0.04)).astype(int)
    elif ball.kind == "tennis":
        index = (np.abs(z - 1.1 * x * y - 0.35 * np.sign(x) * x**2) < 0.06).astype(int)
    else:
        sector = np.floor((np.arctan2(y, x) / math.pi + 1) * 3).astype(int)
        index = np.where(np.abs(z) > 0.94, 1, np.array([0, 1, 2, 1, 0, 1, 2])[sector])
    return np.asarray(ball.colours, dtype=np.float32)[index]


def closed_book(rng: np.random.Generator) -> Figure:
    """A closed book lying on the ground, its spine or its pages towards us."""
    cover, depth, skew = paint(rng), rng.uniform(0.07, 0.11), rng.uniform(-0.06, 0.06)
    thick = rng.uniform(0.03, 0.055)
    top = np.array([(-0.14, thick), (0.14, thick), (0.14 + skew, thick + depth), (-0.14 + skew, thick + depth)])
    label = top * 0.55 + top.mean(axis=0) * 0.45
    front = shade(cover, 0.75) if rng.random() < 0.5 else (226, 218, 200)
    parts = [Part(rectangle(-0.14, 0, 0.14, thick), shade(cover, 0.75), flat=True)]
    parts.append(Part(rectangle(-0.132, thick * 0.2, 0.132, thick * 0.8), front, flat=True))
    parts += [Part(top, cover, flat=True), Part(label, mix(cover, paint(rng), 0.6), flat=True)]
    return Figure(parts, height=thick + depth)


def open_book(rng: np.random.Generator, steep: float = 0.6) -> Figure:
    """An open book, its pages towards us; `steep`: 0 seen flat along the ground, 1 seen from straight above."""
    cover, high = paint(rng), 0.3 * steep
    parts = [
        Part(np.array([(-0.27, -0.012), (0.27, -0.012), (0.25, high + 0.012), (-0.25, high + 0.012)]), cover, flat=True)
    ]
    paper = tint(rng, (238, 232, 216), 8)
    for way in (-1, 1):
        page = smooth([(0.004, 0.0), (0.12, 0.018), (0.255, 0.0), (0.24, high), (0.12, high + 0.018), (0.004, high)])
        parts.append(Part(page * (way, 1), paper if way > 0 else shade(paper, 0.94), flat=True))
        for line in range(6):
            y = high * (0.17 + 0.12 * line)
            end = 0.21 if line else 0.14
            parts.append(limb((way * 0.035, y), (way * end, y), 0.004 * steep + 0.002, 0.004 * steep + 0.002,
                              (150, 146, 140), flat=True))  # fmt: skip
    parts.append(limb((0, 0), (0, high), 0.005, 0.005, shade(paper, 0.6), flat=True))
    return Figure(parts, height=high + 0.02)


def raised_book(rng: np.random.Generator) -> Figure:
    """A book held up by its reader: we see both covers and the spine."""
    cover = paint(rng)
    parts = []
    for way in (-1, 1):
        parts.append(Part(np.array([(0.01, 0.0), (0.15, 0.025), (0.15, 0.235), (0.01, 0.21)]) * (way, 1),
                          shade(cover, 1.05 if way > 0 else 0.85), flat=True))  # fmt: skip
        parts.append(Part(rectangle(0.045, 0.12, 0.115, 0.17) * (way, 1), mix(cover, (240, 225, 190), 0.7), flat=True))
    parts.append(Part(rectangle(-0.012, -0.002, 0.012, 0.212), shade(cover, 0.7), flat=True))
    return Figure(parts, height=0.235)


def standing_book(rng: np.random.Generator, width: float, height: float, lean: float = 0.0) -> Figure:
    """A book on a shelf, its spine towards us."""
    cover, band = paint(rng), paint(rng)
    shapes = [(rectangle(0, 0, width, height), cover), (rectangle(0, height * 0.12, width, height * 0.2), band),
              (rectangle(width * 0.25, height * 0.4, width * 0.75, height * 0.8), mix(cover, band, 0.6))]  # fmt: skip
    shear = np.array([[1.0, 0.0], [lean, 1.0]])
    parts = [
        Part(outline @ shear, colour, flat=i > 0, axis=None if i else (0.0, 1.0))
        for i, (outline, colour) in enumerate(shapes)
    ]
    return Figure(parts, height=height)


def plant(rng: np.random.Generator) -> Figure:
    """A plant in a pot: broad leaves, grass-like blades, a cactus or flowers."""
    pot, green = paint(rng), tint(rng, pick(rng, GREENS))
    kind = pick(rng, ("leaves", "blades", "cactus", "flowers"))
    parts: list[Part] = []
    if kind == "cactus":
        parts += [limb((0, 0.2), (0, 0.5), 0.07, 0.06, green), limb((0.05, 0.32), (0.14, 0.36), 0.03, 0.03, green),
                  limb((0.14, 0.36), (0.14, 0.46), 0.03, 0.028, green)]  # fmt: skip
    for spread in np.linspace(-1, 1, 9) if kind != "cactus" else ():
        angle, reach = spread * 1.1 + rng.normal(0, 0.1), rng.uniform(0.26, 0.4)
        tip = (math.sin(angle) * reach, 0.22 + math.cos(angle) * reach)
        colour = shade(green, rng.uniform(0.8, 1.2))
        if kind == "blades":
            parts.append(Part(stroke([(0, 0.2), (tip[0] * 0.4, 0.2 + (tip[1] - 0.2) * 0.7), tip], 0.02, 0.003), colour))
            continue
        parts.append(limb((0, 0.2), tip, 0.008, 0.006, shade(green, 0.7)))
        size = 0.05 if kind == "flowers" else 0.075
        parts.append(
            Part(ellipse((tip[0] * 0.7, 0.2 + (tip[1] - 0.2) * 0.7), size, size * 0.5, math.pi / 2 - angle), colour)
        )
        bloom = paint(rng) if kind == "flowers" else colour
        parts.append(Part(ellipse(tip, size, size * (0.9 if kind == "flowers" else 0.55), math.pi / 2 - angle), bloom))
    parts.append(Part(np.array([(-0.12, 0.2), (0.12, 0.2), (0.085, 0.0), (-0.085, 0.0)]), pot, axis=(0.0, 1.0)))
    parts.append(Part(rectangle(-0.135, 0.18, 0.135, 0.225), shade(pot, 1.1), axis=(0.0, 1.0)))
    return Figure(parts, height=0.62)


# ------------------------------------------------------------------------------------------ what only stands around


def tree(rng: np.random.Generator) -> Figure:
    """A trunk and a crown of leaves (metres, about 4 high)."""
    trunk, green = tint(rng, pick(rng, WOOD)), tint(rng, pick(rng, GREENS))
    parts = [
        Part(smooth([(-0.2, 0), (-0.14, 0.6), (-0.12, 2.2), (0.12, 2.2), (0.14, 0.6), (0.22, 0)]), trunk, axis=(0, 1))
    ]
    for _ in range(7):
        centre = (rng.uniform(-0.8, 0.8), rng.uniform(2.3, 3.4))
        parts.append(Part(blob(rng, centre, rng.uniform(0.5, 0.8)), shade(green, rng.uniform(0.85, 1.15))))
    return Figure(parts, height=4.0)


def blob(rng: np.random.Generator, centre: Point, radius: float, flatness: float = 1.0) -> Outline:
    """An irregular roundish outline."""
    return smooth(_CIRCLE[::2] * radius * rng.uniform(0.8, 1.15, (11, 1)) * (1, flatness) + centre)


def bush(rng: np.random.Generator) -> Figure:
    colour = pick(rng, (*GREENS,) * 12 + PALETTE)
    parts = [Part(blob(rng, (x, 0.32), 0.36), tint(rng, colour)) for x in rng.uniform(-0.5, 0.5, 4)]
    return Figure([Part(np.maximum(p.outline, (-9, 0)), p.colour) for p in parts], height=0.7)


def boulder(rng: np.random.Generator) -> Figure:
    colour = tint(rng, pick(rng, STONE))
    return Figure([Part(np.maximum(blob(rng, (0, 0.25), 0.4, 0.75), (-9, 0)), colour)], height=0.55)


def cairn(rng: np.random.Generator) -> Figure:
    """Stones piled up to a man's height: from afar, like somebody standing there."""
    parts, y = [], 0.0
    colour = tint(rng, pick(rng, (*STONE, *STONE, *STONE, *PALETTE)))
    for radius in (0.34, 0.3, 0.27, 0.2, 0.14):
        parts.append(Part(blob(rng, (rng.uniform(-0.05, 0.05), y + radius * 0.7), radius, 0.75), tint(rng, colour)))
        y += radius * 1.25
    return Figure(parts, height=y)


def post(rng: np.random.Generator) -> Figure:
    colour = faded(rng)
    return Figure(
        [limb((0, 0.03), (0, 1.5), 0.06, 0.05, colour), Part(ellipse((0, 1.53), 0.08, 0.06), colour)], height=1.6
    )


def pillar(rng: np.random.Generator) -> Figure:
    """A painted column, as wide and as high as a person."""
    colour = faded(rng)
    parts = [Part(rectangle(-0.16, 0, 0.16, 1.75), colour, axis=(0, 1), pattern=_maybe_pattern(rng))]
    parts += [Part(rectangle(-0.2, y, 0.2, y + 0.1), shade(colour, 0.9), axis=(0, 1)) for y in (0, 1.7)]
    return Figure(parts, height=1.8)


def _maybe_pattern(rng: np.random.Generator) -> Pattern | None:
    return (
        Pattern(pick(rng, ("stripes", "checks", "bars")), faded(rng), rng.uniform(0.06, 0.2))
        if rng.random() < 0.5
        else None
    )


def lamp_post(rng: np.random.Generator) -> Figure:
    colour = tint(rng, (60, 62, 66))
    globe = Part(ellipse((0, 2.75), 0.2, 0.2), tint(rng, (244, 236, 206)))
    return Figure([limb((0, 0), (0, 2.6), 0.06, 0.035, colour), globe], height=2.95)


def fence(rng: np.random.Generator) -> Figure:
    colour = tint(rng, pick(rng, (*WOOD, (236, 234, 228))))
    parts = [Part(rectangle(-4, y, 4, y + 0.09), shade(colour, 0.85), flat=True) for y in (0.28, 0.62)]
    picket = np.array([(0, 0), (0.12, 0), (0.12, 0.85), (0.06, 0.95), (0, 0.85)])
    parts += [Part(picket + (x, 0), colour, axis=(0, 1)) for x in np.arange(-4, 4, 0.4)]  # fmt: skip
    return Figure(parts, height=0.95)


def bench(rng: np.random.Generator) -> Figure:
    colour = tint(rng, pick(rng, WOOD))
    parts = [Part(rectangle(x, 0, x + 0.07, 0.45), (60, 60, 64)) for x in (-0.7, 0.63)]
    parts += [Part(rectangle(-0.8, y, 0.8, y + 0.1), shade(colour, f), flat=True)
              for y, f in ((0.4, 0.8), (0.58, 1.0), (0.74, 1.06))]  # fmt: skip
    return Figure(parts, height=0.85)


def seat(rng: np.random.Generator, height: float) -> Figure:
    """A box to sit on."""
    colour = faded(rng)
    parts = [Part(rectangle(-0.27, 0, 0.27, height), shade(colour, 0.8), axis=(0, 1))]
    parts.append(
        Part(
            np.array([(-0.27, height), (0.27, height), (0.24, height + 0.08), (-0.24, height + 0.08)]),
            colour,
            flat=True,
        )
    )
    return Figure(parts, height=height + 0.08)


def car(rng: np.random.Generator) -> Figure:
    colour = faded(rng)
    body = smooth(
        [(-2.0, 0.35), (-1.95, 0.75), (-1.2, 0.9), (1.2, 0.88), (1.9, 0.75), (2.0, 0.4), (1.6, 0.3), (-1.7, 0.28)]
    )
    cabin = smooth([(-1.25, 0.85), (-0.8, 1.35), (0.4, 1.4), (1.1, 0.88), (0, 0.8)])
    parts = [Part(cabin, shade(colour, 0.9)), Part(body, colour)]
    for x0, x1 in ((-0.95, -0.2), (-0.08, 0.7)):
        parts.append(
            Part(np.array([(x0, 0.9), (x1, 0.9), (x1 - 0.2, 1.28), (x0 + 0.22, 1.28)]), (150, 178, 196), flat=True)
        )
    for x in (-1.2, 1.2):
        parts += [
            Part(ellipse((x, 0.32), 0.34, 0.34), (36, 36, 40)),
            Part(ellipse((x, 0.32), 0.16, 0.16), (150, 150, 154)),
        ]
    return Figure(parts, height=1.4)


def house(rng: np.random.Generator, width: float) -> Figure:
    """A house front with windows and a door (metres, `width` wide)."""
    wall, roof, frame = faded(rng), faded(rng), tint(rng, (236, 230, 220))
    high = rng.uniform(4.0, 6.5)
    parts = [Part(rectangle(0, 0, width, high), wall, flat=True, pattern=_brickwork(rng, wall))]
    parts.append(
        Part(np.array([(-0.2, high), (width + 0.2, high), (width * 0.8, high + 1.6), (width * 0.2, high + 1.6)]), roof)
    )
    count = max(2, round(width / 1.7))
    for i in range(count):
        x = (i + 0.5) * width / count
        for y in (0.9, 3.1):
            if i == count // 2 and y < 1:
                parts.append(Part(rectangle(x - 0.45, 0, x + 0.45, 2.0), faded(rng), flat=True))
                continue
            parts.append(Part(rectangle(x - 0.48, y - 0.06, x + 0.48, y + 1.26), frame, flat=True))
            glass = tint(rng, (96, 116, 136), 24)
            parts += [Part(rectangle(x + a, y, x + a + 0.4, y + 1.2), glass, flat=True) for a in (-0.42, 0.02)]
    return Figure(parts, height=high + 1.6)


def _brickwork(rng: np.random.Generator, wall: Colour) -> Pattern | None:
    return Pattern("stripes", shade(wall, 0.93), 0.05) if rng.random() < 0.5 else None


def parasol(rng: np.random.Generator) -> Figure:
    colours = [paint(rng), paint(rng)]
    parts = [limb((0, 0), (0, 2.1), 0.03, 0.03, (230, 228, 220))]
    for i in range(6):
        x0, x1 = -1.2 + 0.4 * i, -0.8 + 0.4 * i
        wedge = np.array([(x0, 1.75), (x1, 1.75), (x1 * 0.62, 2.12), (0, 2.3), (x0 * 0.62, 2.12)])
        parts.append(Part(wedge, colours[i % 2]))
    return Figure(parts, height=2.3)


def cushion(rng: np.random.Generator) -> Figure:
    """A cushion, square or as round as a ball."""
    colour = paint(rng)
    outline = (
        blob(rng, (0, 0.2), 0.21, 0.95)
        if rng.random() < 0.6
        else mirrored([(0.24, 0.36), (0.2, 0.2), (0.25, 0.02), (0.1, 0.03)])
    )
    return Figure([Part(np.maximum(outline, (-9, 0)), colour, pattern=_maybe_pattern(rng))], height=0.4)


def globe_lamp(rng: np.random.Generator) -> Figure:
    """A round lamp on a stand."""
    parts = [Part(ellipse((0, 0.02), 0.2, 0.03), (50, 50, 54)), limb((0, 0), (0, 1.3), 0.02, 0.02, (50, 50, 54))]
    return Figure([*parts, Part(ellipse((0, 1.45), 0.2, 0.2), tint(rng, (246, 232, 196)))], height=1.65)


def coat_stand(rng: np.random.Generator) -> Figure:
    """A coat on a stand: clothes without anybody in them."""
    colour, wood = faded(rng), tint(rng, pick(rng, WOOD))
    parts = [limb((0, 0), (0, 1.75), 0.03, 0.025, wood), Part(ellipse((0, 0.02), 0.22, 0.04), wood)]
    coat = mirrored([(0.05, 1.55), (0.2, 1.45), (0.2, 1.1), (0.24, 0.6), (0.1, 0.58)])
    parts += [limb((way * 0.18, 1.42), (way * 0.24, 0.95), 0.07, 0.06, shade(colour, 0.9)) for way in (-1, 1)]
    return Figure([*parts, Part(coat, colour, pattern=_maybe_pattern(rng))], height=1.8)


def sofa(rng: np.random.Generator) -> Figure:
    colour = faded(rng)
    parts = [Part(rectangle(-0.95, 0.1, 0.95, 0.85), shade(colour, 0.9), pattern=_maybe_pattern(rng))]
    parts += [Part(smooth(rectangle(x, 0.3, x + 0.9, 0.52)), colour) for x in (-0.9, 0.0)]
    parts.append(Part(rectangle(-0.95, 0.08, 0.95, 0.34), shade(colour, 0.8), flat=True))
    parts += [Part(smooth([(x, 0), (x + 0.26, 0), (x + 0.27, 0.6), (x - 0.01, 0.6)]), colour) for x in (-1.15, 0.89)]
    return Figure(parts, height=0.85)


def table(rng: np.random.Generator, width: float = 1.2, height: float = 0.6) -> Figure:
    colour, half = tint(rng, pick(rng, WOOD)), width / 2
    parts = [
        Part(rectangle(x, 0, x + 0.07, height), shade(colour, 0.7), axis=(0, 1)) for x in (-half + 0.04, half - 0.11)
    ]
    top = np.array([(-1, 0), (1, 0), (0.88, 0.14), (-0.88, 0.14)]) * (half, 1) + (0, height)
    parts.append(Part(top, colour, flat=True))
    return Figure(
        [*parts, Part(rectangle(-half, height - 0.06, half, height), shade(colour, 0.82), flat=True)],
        height=height + 0.14,
    )


def shelf(rng: np.random.Generator, width: float) -> Figure:
    """A board on the wall, to put things on (its top is at 0)."""
    colour = tint(rng, pick(rng, WOOD))
    return Figure(
        [
            Part(rectangle(0, -0.05, width, 0), colour, flat=True),
            Part(rectangle(0, -0.07, width, -0.05), shade(colour, 0.6), flat=True),
        ],
        height=0.05,
    )


def picture(rng: np.random.Generator) -> Figure:
    """A framed picture of nothing in particular."""
    wide, high = rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.7)
    parts = [Part(rectangle(0, 0, wide, high), tint(rng, pick(rng, WOOD)), flat=True)]
    parts.append(Part(rectangle(0.05, 0.05, wide - 0.05, high - 0.05), faded(rng), flat=True))
    for _ in range(3):
        centre = (rng.uniform(0.2, 0.8) * wide, rng.uniform(0.3, 0.7) * high)
        parts.append(Part(blob(rng, centre, 0.12), faded(rng), flat=True))
    return Figure(parts, height=high)


def window(rng: np.random.Generator) -> Figure:
    """A window with curtains; outside it is day."""
    parts = [Part(rectangle(0, 0, 1.2, 1.2), (238, 236, 230), flat=True)]
    for x in (0.06, 0.63):
        parts.append(Part(rectangle(x, 0.06, x + 0.51, 1.14), tint(rng, (190, 214, 236)), flat=True))
        parts.append(Part(rectangle(x, 0.06, x + 0.51, rng.uniform(0.3, 0.5)), tint(rng, pick(rng, GREENS)), flat=True))
    fabric = faded(rng)
    for x, way in ((-0.1, 1), (1.3, -1)):
        drape = smooth([(x, 1.3), (x + way * 0.34, 1.3), (x + way * 0.22, 0.5), (x + way * 0.3, -0.12), (x, -0.12)])
        parts.append(Part(drape, fabric, pattern=Pattern("bars", shade(fabric, 0.8), 0.08)))
    return Figure(parts, height=1.3)


# ------------------------------------------------------------------------------------------------------------- pixels


@dataclass(frozen=True)
class Sprite:
    """A figure in pixels, RGBA, to be pasted at rows `top` and columns `left` on."""

    image: Image.Image
    top: int
    left: int

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.image.height), slice(self.left, self.left + self.image.width)

    def solid(self) -> np.ndarray:
        """Bool (h, w): the pixels of which the figure covers at least half."""
        return np.asarray(self.image.getchannel("A")) >= 128


def rasterise(figure: Figure, x: float, y: float, scale: float, frame: tuple[int, int], light: int = 1,
              flip: bool = False) -> Sprite | None:  # fmt: skip
    """Draw a figure with its origin at (x, y) pixels.

    Args:
        scale: pixels per metre.
        frame: (height, width) of the picture in pixels.
        light: 1 where the light comes from the right, -1 from the left.

    Returns:
        What of it lies in the picture, None if nothing. Edges are smooth: it is drawn at two to four times the size.
    """
    factor = np.array([-1.0 if flip else 1.0, -1.0]) * scale * figure.size
    outlines = [part.outline for part in figure.parts]
    ends = np.cumsum([len(outline) for outline in outlines])
    starts = np.concatenate([[0], ends[:-1]])
    points = np.concatenate(outlines) * factor + (x, y)
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)  # of each part
    left, top = np.maximum(np.floor(low.min(axis=0)).astype(int) - 1, 0).tolist()
    right, bottom = np.minimum(np.ceil(high.max(axis=0)).astype(int) + 2, (frame[1], frame[0])).tolist()
    if right <= left or bottom <= top:
        return None
    zoom = 4 if max(right - left, bottom - top) < 32 else 2
    canvas = _Canvas.blank(right - left, bottom - top, zoom)
    in_sight = (
        ((high - low).max(axis=1) * zoom >= 1.5)
        & (high > (left, top)).all(axis=1)
        & (low < (right, bottom)).all(axis=1)
    )
    points -= (left, top)
    for i in np.flatnonzero(in_sight).tolist():
        outline = points[starts[i] : ends[i]]
        if isinstance(figure.parts[i], Ball):
            _paint_ball(canvas, figure.parts[i], outline * zoom, light)
        else:
            _paint_part(canvas, figure.parts[i], outline, light, flip)
    return canvas.sprite(top, left, soften=scale * figure.size * figure.height * 0.016)


@dataclass(frozen=True)
class _Canvas:
    """Colours (RGBA) at `zoom` times the size; the light that falls on them at the size itself."""

    colour: Image.Image
    relief: Image.Image
    zoom: int
    pens: tuple[ImageDraw.ImageDraw, ImageDraw.ImageDraw]

    @staticmethod
    def blank(width: int, height: int, zoom: int) -> "_Canvas":
        colour, relief = Image.new("RGBA", (width * zoom, height * zoom)), Image.new("L", (width, height), EVEN_LIGHT)
        return _Canvas(colour, relief, zoom, (ImageDraw.Draw(colour), ImageDraw.Draw(relief)))

    def sprite(self, top: int, left: int, soften: float) -> Sprite:
        light = self.relief.filter(ImageFilter.BoxBlur(max(0.7, soften)))
        light = Image.merge("RGBA", (light, light, light, Image.new("L", light.size, 255)))
        return Sprite(ImageChops.multiply(self.colour.reduce(self.zoom), light), top, left)


EVEN_LIGHT = 222  # of 255, so that the lit side of a body can be brighter
# Where a body turns away from the light (1 is its lit edge, -1 the other), and how bright it is from there on.
_LEVELS = [(0.6, 244), (0.2, EVEN_LIGHT), (-0.2, 198), (-0.6, 170)]


def _paint_part(canvas: _Canvas, part: Part, outline: Outline, light: int, flip: bool) -> None:
    colour, relief = canvas.pens
    colour.polygon((outline * canvas.zoom).ravel().tolist(), fill=(*part.colour, 255))
    if part.pattern:
        _paint_pattern(canvas, part.pattern, outline * canvas.zoom)
    if part.flat:  # it keeps the light of what it lies on
        return
    toward = np.array([0.8 * light, -0.6])
    if part.axis is not None:  # a limb is round across its length only
        across = np.array([part.axis[1], part.axis[0] * (-1 if flip else 1)])
        toward = across if across @ toward > 0 else -across
    side = (outline - outline.sum(axis=0) / len(outline)) @ toward
    reach = float(side.max())
    if reach < 1.5:
        relief.polygon(outline.ravel().tolist(), fill=EVEN_LIGHT)
        return
    relief.polygon(outline.ravel().tolist(), fill=255)
    for level, tone in _LEVELS if reach > 12 else _LEVELS[1::2]:
        lit = np.maximum(side - level * reach, 0)  # how far each point lies on the lit side of the level
        relief.polygon((outline - lit[:, None] * toward).ravel().tolist(), fill=tone)


def _paint_pattern(canvas: _Canvas, pattern: Pattern, outline: Outline) -> None:
    left, top = np.floor(outline.min(axis=0)).astype(int).tolist()
    width, height = (np.ceil(outline.max(axis=0)).astype(int) - (left, top) + 1).tolist()
    inside, marks = Image.new("L", (width, height)), Image.new("L", (width, height))
    ImageDraw.Draw(inside).polygon((outline - (left, top)).ravel().tolist(), fill=255)
    pen, period = ImageDraw.Draw(marks), max(4.0, pattern.period * height)
    if pattern.kind in ("stripes", "checks"):
        for y in np.arange(0, height, period):
            pen.rectangle((0, y, width, y + period * 0.45), fill=255)
    if pattern.kind in ("bars", "checks"):
        for x in np.arange(0, width, period):
            pen.rectangle((x, 0, x + period * 0.45, height), fill=255)
    if pattern.kind == "dots":
        for i, y in enumerate(np.arange(0, height, period)):
            for x in np.arange((i % 2) * period / 2, width, period):
                pen.ellipse((x, y, x + period * 0.45, y + period * 0.45), fill=255)
    canvas.colour.paste((*pattern.colour, 255), (left, top), ImageChops.multiply(inside, marks))


def _paint_ball(canvas: _Canvas, ball: Ball, bounds: Outline, light: int) -> None:
    """Paint a ball into `bounds`, two corners in pixels of the enlarged canvas."""
    (x0, y0), (x1, y1) = bounds.min(axis=0).tolist(), bounds.max(axis=0).tolist()
    left, top, right, bottom = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    steps = min(right - left, max(24, (right - left) // 2))  # the skin of a large ball need not be drawn enlarged
    x = ((np.arange(steps, dtype=np.float32) + 0.5) * ((right - left) / steps) + left - (x0 + x1) / 2) * (2 / (x1 - x0))
    y = ((np.arange(steps, dtype=np.float32) + 0.5) * ((bottom - top) / steps) + top - (y0 + y1) / 2) * (2 / (y1 - y0))
    x, y = x[None, :], y[:, None]
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    normal = np.stack(np.broadcast_arrays(x, y, z), axis=-1)
    shading = 0.55 + 0.5 * np.clip(0.5 * light * x - 0.6 * y + 0.62 * z, 0, 1)
    colours = np.clip(_ball_skin(ball, normal) * shading[..., None], 0, 255).astype(np.uint8)
    stencil = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(stencil).ellipse((x0 - left, y0 - top, x1 - left - 1, y1 - top - 1), fill=255)
    skin = Image.fromarray(colours).convert("RGBA").resize(stencil.size, Image.Resampling.BILINEAR)
    canvas.colour.paste(skin, (left, top), stencil)
    canvas.pens[1].ellipse([value / canvas.zoom for value in (x0, y0, x1, y1)], fill=EVEN_LIGHT)
