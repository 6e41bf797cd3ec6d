"""Draws objects that COCO's sample does not annotate, in meters: trees, houses, cars, furniture.

Many of them resemble annotated objects: they are as high as a person, as round as a ball or as colorful as clothes.
"""

import numpy as np

from seglib.datasets.sample.old_objects.outlines import (
    GREENS,
    PALETTE,
    STONE,
    UPRIGHT,
    WOOD,
    Color,
    Drawing,
    Part,
    Pattern,
    blob,
    clip_to_ground,
    ellipse,
    faded_color,
    limb,
    mirror,
    palette_color,
    pick,
    rectangle,
    shade,
    smooth,
    tint,
)

__all__ = [
    "bench", "boulder", "bush", "cairn", "car", "coat_stand", "cushion", "fence", "globe_lamp", "house",
    "lamp_post", "parasol", "picture", "pillar", "post", "seat", "shelf", "sofa", "table", "tree", "window",
]  # fmt: skip

# ------------------------------------------------------------------------------------------------------------- outdoors


def tree(rng: np.random.Generator) -> Drawing:
    """Return a trunk and a crown of leaves."""
    bark, green = tint(rng, pick(rng, WOOD)), tint(rng, pick(rng, GREENS))
    trunk = smooth([(-0.2, 0), (-0.14, 0.6), (-0.12, 2.2), (0.12, 2.2), (0.14, 0.6), (0.22, 0)])
    parts = [Part(trunk, bark, axis=UPRIGHT)]
    for _ in range(7):
        center = (rng.uniform(-0.8, 0.8), rng.uniform(2.3, 3.4))
        parts.append(Part(blob(rng, center, rng.uniform(0.5, 0.8)), shade(green, rng.uniform(0.85, 1.15))))
    return Drawing(parts, height=4.0)


def bush(rng: np.random.Generator) -> Drawing:
    """Return a bush, in most cases green."""
    color = pick(rng, (*GREENS * 12, *PALETTE))
    parts = [Part(clip_to_ground(blob(rng, (x, 0.32), 0.36)), tint(rng, color)) for x in rng.uniform(-0.5, 0.5, 4)]
    return Drawing(parts, height=0.7)


def boulder(rng: np.random.Generator) -> Drawing:
    """Return a stone."""
    color = tint(rng, pick(rng, STONE))
    return Drawing([Part(clip_to_ground(blob(rng, (0, 0.25), 0.4, 0.75)), color)], height=0.55)


def cairn(rng: np.random.Generator) -> Drawing:
    """Return a pile of stones as high as a person."""
    parts, y = [], 0.0
    color = tint(rng, pick(rng, (*STONE * 3, *PALETTE)))
    for radius in (0.34, 0.3, 0.27, 0.2, 0.14):
        parts.append(Part(blob(rng, (rng.uniform(-0.05, 0.05), y + radius * 0.7), radius, 0.75), tint(rng, color)))
        y += radius * 1.25
    return Drawing(parts, height=y)


def post(rng: np.random.Generator) -> Drawing:
    """Return a bollard with a knob."""
    color = faded_color(rng)
    knob = Part(ellipse((0, 1.53), 0.08, 0.06), color)
    return Drawing([limb((0, 0.03), (0, 1.5), 0.06, 0.05, color), knob], height=1.6)


def pillar(rng: np.random.Generator) -> Drawing:
    """Return a painted column, as wide and as high as a person."""
    color = faded_color(rng)
    parts = [Part(rectangle(-0.16, 0, 0.16, 1.75), color, axis=UPRIGHT, pattern=_maybe_pattern(rng))]
    parts += [Part(rectangle(-0.2, y, 0.2, y + 0.1), shade(color, 0.9), axis=UPRIGHT) for y in (0, 1.7)]
    return Drawing(parts, height=1.8)


def lamp_post(rng: np.random.Generator) -> Drawing:
    """Return a street lamp with a round globe."""
    color = tint(rng, (60, 62, 66))
    globe = Part(ellipse((0, 2.75), 0.2, 0.2), tint(rng, (244, 236, 206)))
    return Drawing([limb((0, 0), (0, 2.6), 0.06, 0.035, color), globe], height=2.95)


def fence(rng: np.random.Generator) -> Drawing:
    """Return a fence of eight meters."""
    color = tint(rng, pick(rng, (*WOOD, (236, 234, 228))))
    parts = [Part(rectangle(-4, y, 4, y + 0.09), shade(color, 0.85), flat=True) for y in (0.28, 0.62)]
    picket = np.array([(0, 0), (0.12, 0), (0.12, 0.85), (0.06, 0.95), (0, 0.85)])
    parts += [Part(picket + (x, 0), color, axis=UPRIGHT) for x in np.arange(-4, 4, 0.4)]
    return Drawing(parts, height=0.95)


def bench(rng: np.random.Generator) -> Drawing:
    """Return a park bench from the front."""
    color = tint(rng, pick(rng, WOOD))
    parts = [Part(rectangle(x, 0, x + 0.07, 0.45), (60, 60, 64)) for x in (-0.7, 0.63)]
    for y, light in ((0.4, 0.8), (0.58, 1.0), (0.74, 1.06)):
        parts.append(Part(rectangle(-0.8, y, 0.8, y + 0.1), shade(color, light), flat=True))
    return Drawing(parts, height=0.85)


def car(rng: np.random.Generator) -> Drawing:
    """Return a car from the side."""
    color = faded_color(rng)
    cabin = smooth([(-1.25, 0.85), (-0.8, 1.35), (0.4, 1.4), (1.1, 0.88), (0, 0.8)])
    body = smooth([(-2.0, 0.35), (-1.95, 0.75), (-1.2, 0.9), (1.2, 0.88), (1.9, 0.75), (2.0, 0.4), (1.6, 0.3),
                   (-1.7, 0.28)])  # fmt: skip
    parts = [Part(cabin, shade(color, 0.9)), Part(body, color)]
    for x0, x1 in ((-0.95, -0.2), (-0.08, 0.7)):
        glass = np.array([(x0, 0.9), (x1, 0.9), (x1 - 0.2, 1.28), (x0 + 0.22, 1.28)])
        parts.append(Part(glass, (150, 178, 196), flat=True))
    for x in (-1.2, 1.2):
        parts.append(Part(ellipse((x, 0.32), 0.34, 0.34), (36, 36, 40)))
        parts.append(Part(ellipse((x, 0.32), 0.16, 0.16), (150, 150, 154)))
    return Drawing(parts, height=1.4)


def house(rng: np.random.Generator, width: float) -> Drawing:
    """Return a house front with two rows of windows and a door, `width` meters wide."""
    wall, roof, frame = faded_color(rng), faded_color(rng), tint(rng, (236, 230, 220))
    high = rng.uniform(4.0, 6.5)
    bricks = Pattern("stripes", shade(wall, 0.93), 0.05) if rng.random() < 0.5 else None
    gable = np.array([(-0.2, high), (width + 0.2, high), (width * 0.8, high + 1.6), (width * 0.2, high + 1.6)])
    parts = [Part(rectangle(0, 0, width, high), wall, flat=True, pattern=bricks), Part(gable, roof)]
    count = max(2, round(width / 1.7))
    for i in range(count):
        x = (i + 0.5) * width / count
        if i == count // 2:
            parts.append(Part(rectangle(x - 0.45, 0, x + 0.45, 2.0), faded_color(rng), flat=True))
        else:
            parts += _house_window(rng, x, 0.9, frame)
        parts += _house_window(rng, x, 3.1, frame)
    return Drawing(parts, height=high + 1.6)


def _house_window(rng: np.random.Generator, x: float, y: float, frame: Color) -> list[Part]:
    """Two panes in a frame; x: the middle, y: the lower edge."""
    glass = tint(rng, (96, 116, 136), 24)
    panes = [Part(rectangle(x + left, y, x + left + 0.4, y + 1.2), glass, flat=True) for left in (-0.42, 0.02)]
    return [Part(rectangle(x - 0.48, y - 0.06, x + 0.48, y + 1.26), frame, flat=True), *panes]


def parasol(rng: np.random.Generator) -> Drawing:
    """Return a parasol in two alternating colors."""
    colors = [palette_color(rng), palette_color(rng)]
    parts = [limb((0, 0), (0, 2.1), 0.03, 0.03, (230, 228, 220))]
    for i in range(6):
        x0, x1 = -1.2 + 0.4 * i, -0.8 + 0.4 * i
        wedge = np.array([(x0, 1.75), (x1, 1.75), (x1 * 0.62, 2.12), (0, 2.3), (x0 * 0.62, 2.12)])
        parts.append(Part(wedge, colors[i % 2]))
    return Drawing(parts, height=2.3)


# -------------------------------------------------------------------------------------------------------------- indoors


def seat(rng: np.random.Generator, height: float) -> Drawing:
    """Return a box to sit on."""
    color = faded_color(rng)
    top = np.array([(-0.27, height), (0.27, height), (0.24, height + 0.08), (-0.24, height + 0.08)])
    front = Part(rectangle(-0.27, 0, 0.27, height), shade(color, 0.8), axis=UPRIGHT)
    return Drawing([front, Part(top, color, flat=True)], height=height + 0.08)


def cushion(rng: np.random.Generator) -> Drawing:
    """Return a square or round cushion."""
    color = palette_color(rng)
    if rng.random() < 0.6:
        outline = clip_to_ground(blob(rng, (0, 0.2), 0.21, 0.95))
    else:
        outline = clip_to_ground(mirror([(0.24, 0.36), (0.2, 0.2), (0.25, 0.02), (0.1, 0.03)]))
    return Drawing([Part(outline, color, pattern=_maybe_pattern(rng))], height=0.4)


def globe_lamp(rng: np.random.Generator) -> Drawing:
    """Return a round lamp on a stand."""
    metal = (50, 50, 54)
    parts = [Part(ellipse((0, 0.02), 0.2, 0.03), metal), limb((0, 0), (0, 1.3), 0.02, 0.02, metal)]
    return Drawing([*parts, Part(ellipse((0, 1.45), 0.2, 0.2), tint(rng, (246, 232, 196)))], height=1.65)


def coat_stand(rng: np.random.Generator) -> Drawing:
    """Return a coat on a stand."""
    color, wood = faded_color(rng), tint(rng, pick(rng, WOOD))
    parts = [limb((0, 0), (0, 1.75), 0.03, 0.025, wood), Part(ellipse((0, 0.02), 0.22, 0.04), wood)]
    coat = mirror([(0.05, 1.55), (0.2, 1.45), (0.2, 1.1), (0.24, 0.6), (0.1, 0.58)])
    parts += [limb((way * 0.18, 1.42), (way * 0.24, 0.95), 0.07, 0.06, shade(color, 0.9)) for way in (-1, 1)]
    return Drawing([*parts, Part(coat, color, pattern=_maybe_pattern(rng))], height=1.8)


def sofa(rng: np.random.Generator) -> Drawing:
    """Return a sofa for two, from the front."""
    color = faded_color(rng)
    parts = [Part(rectangle(-0.95, 0.1, 0.95, 0.85), shade(color, 0.9), pattern=_maybe_pattern(rng))]
    parts += [Part(smooth(rectangle(x, 0.3, x + 0.9, 0.52)), color) for x in (-0.9, 0.0)]
    parts.append(Part(rectangle(-0.95, 0.08, 0.95, 0.34), shade(color, 0.8), flat=True))
    parts += [Part(smooth([(x, 0), (x + 0.26, 0), (x + 0.27, 0.6), (x - 0.01, 0.6)]), color) for x in (-1.15, 0.89)]
    return Drawing(parts, height=0.85)


def table(rng: np.random.Generator) -> Drawing:
    """Return a table on two legs, from a little above."""
    color = tint(rng, pick(rng, WOOD))
    parts = [Part(rectangle(x, 0, x + 0.07, 0.6), shade(color, 0.7), axis=UPRIGHT) for x in (-0.6 + 0.04, 0.6 - 0.11)]
    top = np.array([(-0.6, 0.6), (0.6, 0.6), (0.528, 0.74), (-0.528, 0.74)])
    edge = rectangle(-0.6, 0.54, 0.6, 0.6)
    return Drawing([*parts, Part(top, color, flat=True), Part(edge, shade(color, 0.82), flat=True)], height=0.74)


def shelf(rng: np.random.Generator, width: float) -> Drawing:
    """Return a board on the wall; its top is at y = 0."""
    color = tint(rng, pick(rng, WOOD))
    board = Part(rectangle(0, -0.05, width, 0), color, flat=True)
    return Drawing([board, Part(rectangle(0, -0.07, width, -0.05), shade(color, 0.6), flat=True)], height=0.05)


def picture(rng: np.random.Generator) -> Drawing:
    """Return a framed picture."""
    wide, high = rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.7)
    parts = [Part(rectangle(0, 0, wide, high), tint(rng, pick(rng, WOOD)), flat=True)]
    parts.append(Part(rectangle(0.05, 0.05, wide - 0.05, high - 0.05), faded_color(rng), flat=True))
    for _ in range(3):
        center = (rng.uniform(0.2, 0.8) * wide, rng.uniform(0.3, 0.7) * high)
        parts.append(Part(blob(rng, center, 0.12), faded_color(rng), flat=True))
    return Drawing(parts, height=high)


def window(rng: np.random.Generator) -> Drawing:
    """Return a window with curtains."""
    parts = [Part(rectangle(0, 0, 1.2, 1.2), (238, 236, 230), flat=True)]
    for x in (0.06, 0.63):
        parts.append(Part(rectangle(x, 0.06, x + 0.51, 1.14), tint(rng, (190, 214, 236)), flat=True))
        parts.append(Part(rectangle(x, 0.06, x + 0.51, rng.uniform(0.3, 0.5)), tint(rng, pick(rng, GREENS)), flat=True))
    fabric = faded_color(rng)
    for x, way in ((-0.1, 1), (1.3, -1)):
        drape = smooth([(x, 1.3), (x + way * 0.34, 1.3), (x + way * 0.22, 0.5), (x + way * 0.3, -0.12), (x, -0.12)])
        parts.append(Part(drape, fabric, pattern=Pattern("bars", shade(fabric, 0.8), 0.08)))
    return Drawing(parts, height=1.3)


def _maybe_pattern(rng: np.random.Generator) -> Pattern | None:
    if rng.random() < 0.5:
        return Pattern(pick(rng, ("stripes", "checks", "bars")), faded_color(rng), rng.uniform(0.06, 0.2))
    return None
