"""Draws cats and dogs, in meters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seglib.datasets.sample.old_objects.outlines import (
    DARK,
    FAR_SIDE,
    Color,
    Drawing,
    Part,
    Point,
    ellipse,
    limb,
    mirror,
    mix,
    palette_color,
    pick,
    shade,
    smooth,
    stroke,
    tint,
)

__all__ = [
    "cat",
    "dog",
]

FUR: tuple[Color, ...] = (
    (58, 52, 50), (128, 120, 114), (200, 138, 80), (226, 216, 200), (144, 104, 70), (94, 74, 60), (210, 180, 140),
)  # fmt: skip
EYES: tuple[Color, ...] = ((150, 170, 60), (210, 160, 50), (90, 140, 110))
_WHITE: Color = (245, 238, 228)  # mixed into the color of a belly
_WHISKERS: Color = (235, 232, 228)


@dataclass(frozen=True)
class _Coat:
    """The colors of a cat or dog; `marks`: of stripes or patches, None if it has none."""

    base: Color
    belly: Color
    marks: Color | None
    eyes: Color


def _make_coat(rng: np.random.Generator) -> _Coat:
    """Return random colors of fur and eyes."""
    base = tint(rng, pick(rng, FUR), 10)
    belly = mix(base, _WHITE, pick(rng, (0.1, 0.25, 0.8)))
    marks = shade(base, 0.62) if rng.random() < 0.6 else None
    return _Coat(base, belly, marks, pick(rng, EYES))


# ----------------------------------------------------------------------------------------------------------------- cats


def cat(rng: np.random.Generator, pose: str) -> Drawing:
    """Return a cat; pose: "sit" (from the front), "walk" or "lie" (from the side, looking right)."""
    coat = _make_coat(rng)
    return {"sit": _cat_sitting, "walk": _cat_walking, "lie": _cat_lying}[pose](rng, coat)


def _cat_sitting(rng: np.random.Generator, coat: _Coat) -> Drawing:
    way = pick(rng, (-1, 1))
    tail = stroke([(way * 0.1, 0.04), (way * 0.2, 0.03), (way * 0.27, 0.1), (way * 0.25, 0.2)], 0.026, 0.018)
    body = mirror([(0.03, 0.33), (0.075, 0.28), (0.1, 0.18), (0.135, 0.08), (0.12, 0.01), (0.04, 0.0)])
    parts = [Part(tail, coat.base), Part(body, coat.base)]
    if coat.marks:
        parts += [
            limb((side * 0.125, y), (side * 0.08, y + 0.015), 0.009, 0.004, coat.marks, flat=True)
            for side in (-1, 1)
            for y in (0.07, 0.115, 0.16)
        ]
    parts.append(Part(mirror([(0.03, 0.28), (0.055, 0.22), (0.04, 0.08), (0.02, 0.05)]), coat.belly, flat=True))
    for side in (-1, 1):
        parts.append(limb((side * 0.04, 0.17), (side * 0.042, 0.025), 0.034, 0.026, coat.base))
        parts.append(Part(ellipse((side * 0.045, 0.018), 0.034, 0.02), coat.belly))
    return Drawing(parts + _cat_head(coat, (rng.uniform(-0.02, 0.02), 0.36), 0.088), height=0.48)


def _cat_walking(rng: np.random.Generator, coat: _Coat) -> Drawing:
    swing, dark = rng.uniform(0.02, 0.06), shade(coat.base, FAR_SIDE)
    tail = stroke([(-0.19, 0.23), (-0.28, 0.25), (-0.31, 0.34), (-0.27, 0.43)], 0.026, 0.016)
    legs = ((-0.15, 1, dark), (0.13, -1, dark), (-0.16, -1, coat.base), (0.14, 1, coat.base))  # far, then near
    body = smooth([(0.2, 0.27), (0.05, 0.285), (-0.12, 0.29), (-0.215, 0.25), (-0.2, 0.17), (-0.08, 0.145),
                   (0.08, 0.135), (0.19, 0.17)])  # fmt: skip
    parts = [Part(tail, coat.base)]
    parts += [limb((x, 0.19), (x + way * swing, 0.02), 0.046, 0.02, color) for x, way, color in legs]
    parts += [Part(ellipse((x + way * swing + 0.012, 0.016), 0.03, 0.018), coat.belly) for x, way, _ in legs[2:]]
    parts += [Part(body, coat.base), *_stripes_on_back(coat, (-0.15, -0.09, -0.03, 0.03, 0.09), 0.272)]
    return Drawing(parts + _cat_head(coat, (0.235, 0.33), 0.08), height=0.45)


def _cat_lying(rng: np.random.Generator, coat: _Coat) -> Drawing:
    body = smooth([(0.2, 0.12), (0.08, 0.17), (-0.1, 0.18), (-0.22, 0.12), (-0.24, 0.03), (-0.1, 0.0), (0.15, 0.0),
                   (0.24, 0.03)])  # fmt: skip
    tail = stroke([(-0.2, 0.04), (-0.3, 0.03), (-0.28, -0.01), (-0.1, 0.005)], 0.026, 0.02)
    parts = [Part(body, coat.base), *_stripes_on_back(coat, (-0.14, -0.08, -0.02, 0.04), 0.165)]
    parts += [Part(tail, shade(coat.base, 0.9)), limb((0.14, 0.03), (0.28, 0.02), 0.03, 0.022, coat.belly)]
    return Drawing(parts + _cat_head(coat, (0.21, 0.18 + rng.uniform(0, 0.02)), 0.085), height=0.3)


def _stripes_on_back(coat: _Coat, xs: Sequence[float], top: float) -> list[Part]:
    if not coat.marks:
        return []
    return [limb((x, top), (x - 0.012, top - 0.07), 0.012, 0.004, coat.marks, flat=True) for x in xs]


def _cat_head(coat: _Coat, center: Point, radius: float) -> list[Part]:
    """Ears, head, stripes on the forehead, muzzle, eyes, whiskers and nose."""
    x, y = center
    parts = []
    for way in (-1, 1):
        ear = np.array([(0.25, 0.75), (0.62, 1.45), (0.95, 0.35)]) * (way * radius, radius) + center
        inner = np.array([(0.42, 0.8), (0.62, 1.22), (0.82, 0.55)]) * (way * radius, radius) + center
        parts += [Part(ear, coat.base), Part(inner, mix(coat.base, (230, 150, 150), 0.5), flat=True)]
    parts.append(Part(ellipse(center, radius * 1.08, radius * 0.92), coat.base))
    if coat.marks:
        for dx in (-0.3, 0, 0.3):
            above, below = (x + dx * radius, y + 0.8 * radius), (x + dx * 0.8 * radius, y + 0.42 * radius)
            parts.append(limb(above, below, radius * 0.07, radius * 0.05, coat.marks, flat=True))
    parts.append(Part(ellipse((x, y - 0.38 * radius), radius * 0.48, radius * 0.34), coat.belly))
    for way in (-1, 1):
        eye = (x + way * 0.42 * radius, y + 0.08 * radius)
        parts.append(Part(ellipse(eye, radius * 0.2, radius * 0.17), coat.eyes, flat=True))
        parts.append(Part(ellipse(eye, radius * 0.07, radius * 0.16), DARK, flat=True))
        for rise in (-0.1, 0.12):
            root, tip = (x + way * 0.4 * radius, y - 0.35 * radius), (x + way * radius, y + (rise - 0.35) * radius)
            parts.append(limb(root, tip, radius * 0.02, radius * 0.02, _WHISKERS, flat=True))
    nose = np.array([(-0.13, -0.2), (0.13, -0.2), (0, -0.36)]) * radius + center
    return [*parts, Part(nose, (196, 110, 110), flat=True)]


# ----------------------------------------------------------------------------------------------------------------- dogs


def dog(rng: np.random.Generator, pose: str) -> Drawing:
    """Return a dog; pose: "walk" (from the side, looking right) or "sit" (from the front)."""
    coat = _make_coat(rng)
    collar = palette_color(rng) if rng.random() < 0.6 else None
    return {"sit": _dog_sitting, "walk": _dog_walking}[pose](rng, coat, collar)


def _dog_walking(rng: np.random.Generator, coat: _Coat, collar: Color | None) -> Drawing:
    swing, dark = rng.uniform(0.03, 0.09), shade(coat.base, FAR_SIDE)
    tail = stroke([(-0.3, 0.44), (-0.38, 0.5), (-0.41, 0.6), (-0.36, 0.66)], 0.03, 0.012)
    parts = [Part(tail, coat.base)]
    for x, way, color in ((-0.25, 1, dark), (0.18, -1, dark), (-0.27, -1, coat.base), (0.2, 1, coat.base)):
        paw = x + way * swing
        parts.append(limb((x, 0.35), (paw, 0.025), 0.066, 0.026, color))
        parts.append(Part(ellipse((paw + 0.02, 0.02), 0.042, 0.022), coat.belly))
    body = smooth([(0.28, 0.46), (0.05, 0.47), (-0.2, 0.48), (-0.33, 0.42), (-0.3, 0.31), (-0.1, 0.31), (0.1, 0.25),
                   (0.26, 0.29)])  # fmt: skip
    parts += [Part(body, coat.base), limb((0.22, 0.42), (0.33, 0.56), 0.095, 0.07, coat.base)]
    if coat.marks:
        parts.append(Part(ellipse((-0.08, 0.43), 0.12, 0.045), coat.marks, flat=True))
    if collar:
        parts.append(limb((0.24, 0.53), (0.34, 0.46), 0.016, 0.016, collar))
    ear = smooth([(0.33, 0.67), (0.37, 0.62), (0.33, 0.5), (0.28, 0.5), (0.27, 0.6)])
    parts += [
        Part(ellipse((0.36, 0.6), 0.092, 0.082), coat.base),
        limb((0.4, 0.58), (0.5, 0.55), 0.05, 0.034, coat.belly),  # muzzle
        Part(ellipse((0.528, 0.567), 0.02, 0.017), DARK),  # nose
        Part(ellipse((0.39, 0.625), 0.012, 0.012), DARK, flat=True),  # eye
        Part(ear, _ear_color(coat)),
    ]
    return Drawing(parts, height=0.7)


def _dog_sitting(rng: np.random.Generator, coat: _Coat, collar: Color | None) -> Drawing:
    way = pick(rng, (-1, 1))
    tail = stroke([(way * 0.12, 0.05), (way * 0.24, 0.06), (way * 0.32, 0.16)], 0.03, 0.012)
    body = mirror([(0.06, 0.46), (0.12, 0.38), (0.12, 0.22), (0.17, 0.09), (0.14, 0.01), (0.04, 0.0)])
    chest = mirror([(0.04, 0.42), (0.07, 0.32), (0.04, 0.16)])
    parts = [Part(tail, coat.base), Part(body, coat.base), Part(chest, coat.belly, flat=True)]
    for side in (-1, 1):
        parts.append(limb((side * 0.065, 0.3), (side * 0.06, 0.03), 0.05, 0.032, coat.base))
        parts.append(Part(ellipse((side * 0.064, 0.022), 0.044, 0.024), coat.belly))
    if collar:
        parts.append(Part(ellipse((0, 0.43), 0.09, 0.03), collar))
    return Drawing(parts + _dog_head(rng, coat), height=0.65)


def _dog_head(rng: np.random.Generator, coat: _Coat) -> list[Part]:
    """A dog's head from the front: ears, eyes, muzzle, nose, and sometimes a tongue."""
    x, y = rng.uniform(-0.02, 0.02), 0.53
    parts = [Part(ellipse((x, y), 0.1, 0.105), coat.base)]
    for side in (-1, 1):
        ear = smooth([(0.05, 0.1), (0.1, 0.09), (0.15, -0.03), (0.13, -0.12), (0.09, -0.06)]) * (side, 1) + (x, y)
        parts.append(Part(ear, _ear_color(coat)))
        parts.append(Part(ellipse((x + side * 0.042, y + 0.025), 0.015, 0.015), DARK, flat=True))
    parts.append(Part(mirror([(0.03, 0.0), (0.058, -0.06), (0.035, -0.11)]) + (x, y), coat.belly))
    parts.append(Part(ellipse((x, y - 0.035), 0.026, 0.02), DARK))
    if rng.random() < 0.5:
        parts.append(Part(ellipse((x, y - 0.12), 0.018, 0.03), (214, 110, 116)))
    return parts


def _ear_color(coat: _Coat) -> Color:
    return coat.marks or shade(coat.base, 0.72)
