"""Converts drawings to pixels, with smooth edges, patterns and shading."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from seglib.datasets.sample.old_objects.outlines import Ball, Drawing, Outline, Part, Pattern

__all__ = [
    "EVEN_LIGHT",
    "Sprite",
    "rasterize",
]

EVEN_LIGHT = 222  # below 255, so that the lit side of a body can be brighter
# Where a body turns away from the light (1 is its lit edge, -1 the other), and how bright it is from there on.
_LEVELS = ((0.6, 244), (0.2, EVEN_LIGHT), (-0.2, 198), (-0.6, 170))


@dataclass(frozen=True)
class Sprite:
    """A drawing in pixels, RGBA; (left, top) is its position in the picture."""

    image: Image.Image
    top: int
    left: int

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the picture that it covers."""
        return slice(self.top, self.top + self.image.height), slice(self.left, self.left + self.image.width)

    def solid(self) -> np.ndarray:
        """Return the pixels of which the drawing covers at least half, bool (h, w)."""
        return np.asarray(self.image.getchannel("A")) >= 128


def rasterize(
    drawing: Drawing,
    x: float,
    y: float,
    scale: float,
    frame: tuple[int, int],
    light: int = 1,
    flip: bool = False,
) -> Sprite | None:
    """Convert a drawing to pixels at two or four times the size, for smooth edges, and reduce it.

    Args:
        x, y: column and row of the drawing's origin in pixels.
        scale: pixels per meter.
        frame: (height, width) of the picture in pixels.
        light: 1 where the light comes from the right, -1 from the left.
        flip: mirror it.

    Returns:
        The part in the picture; None if there is none.
    """
    factor = np.array([-1.0 if flip else 1.0, -1.0]) * scale * drawing.size
    # One call of NumPy for all outlines is faster than one for each.
    outlines = [part.outline for part in drawing.parts]
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
    large_enough = (high - low).max(axis=1) * zoom >= 1.5  # smaller parts would not be visible
    in_sight = large_enough & (high > (left, top)).all(axis=1) & (low < (right, bottom)).all(axis=1)
    points -= (left, top)
    for i in np.flatnonzero(in_sight).tolist():
        part, outline = drawing.parts[i], points[starts[i] : ends[i]]
        if isinstance(part, Ball):
            _paint_ball(canvas, part, outline * zoom, light)
        else:
            _paint_part(canvas, part, outline, light, flip)
    return canvas.sprite(top, left, soften=scale * drawing.size * drawing.height * 0.016)


@dataclass(frozen=True)
class _Canvas:
    """Colors (RGBA) at `zoom` times the size; the light that falls on them at the size itself."""

    color: Image.Image
    relief: Image.Image
    zoom: int
    color_pen: ImageDraw.ImageDraw
    relief_pen: ImageDraw.ImageDraw

    @staticmethod
    def blank(width: int, height: int, zoom: int) -> "_Canvas":
        color, relief = Image.new("RGBA", (width * zoom, height * zoom)), Image.new("L", (width, height), EVEN_LIGHT)
        return _Canvas(color, relief, zoom, ImageDraw.Draw(color), ImageDraw.Draw(relief))

    def sprite(self, top: int, left: int, soften: float) -> Sprite:
        """Colors times light, at the size itself; `soften`: how many pixels the light is blurred by."""
        light = self.relief.filter(ImageFilter.BoxBlur(max(0.7, soften)))
        light = Image.merge("RGBA", (light, light, light, Image.new("L", light.size, 255)))
        return Sprite(ImageChops.multiply(self.color.reduce(self.zoom), light), top, left)


def _corners(outline: Outline) -> list[float]:
    """An outline as Pillow takes it: x, y, x, y ..."""
    return outline.ravel().tolist()


def _paint_part(canvas: _Canvas, part: Part, outline: Outline, light: int, flip: bool) -> None:
    canvas.color_pen.polygon(_corners(outline * canvas.zoom), fill=(*part.color, 255))
    if part.pattern:
        _paint_pattern(canvas, part.pattern, outline * canvas.zoom)
    if not part.flat:
        _light_part(canvas, part, outline, light, flip)


def _light_part(canvas: _Canvas, part: Part, outline: Outline, light: int, flip: bool) -> None:
    """Paint the shading of a rounded body in several tones, darker away from the light."""
    toward = np.array([0.8 * light, -0.6])
    if part.axis is not None:  # a limb is shaded across its length only
        across = np.array([part.axis[1], part.axis[0] * (-1 if flip else 1)])
        toward = across if across @ toward > 0 else -across
    side = (outline - outline.sum(axis=0) / len(outline)) @ toward
    reach = float(side.max())
    if reach < 1.5:  # pixels: too thin to be shaded
        canvas.relief_pen.polygon(_corners(outline), fill=EVEN_LIGHT)
        return
    canvas.relief_pen.polygon(_corners(outline), fill=255)
    for level, tone in _LEVELS if reach > 12 else _LEVELS[1::2]:
        lit = np.maximum(side - level * reach, 0)  # distance of each point on the lit side of the level
        canvas.relief_pen.polygon(_corners(outline - lit[:, None] * toward), fill=tone)


def _paint_pattern(canvas: _Canvas, pattern: Pattern, outline: Outline) -> None:
    """Paint a pattern inside an outline, in pixels of the enlarged canvas."""
    left, top = np.floor(outline.min(axis=0)).astype(int).tolist()
    width, height = (np.ceil(outline.max(axis=0)).astype(int) - (left, top) + 1).tolist()
    inside, marks = Image.new("L", (width, height)), Image.new("L", (width, height))
    ImageDraw.Draw(inside).polygon(_corners(outline - (left, top)), fill=255)
    pen, period = ImageDraw.Draw(marks), max(4.0, pattern.period * height)
    thick = period * 0.45
    if pattern.kind in ("stripes", "checks"):
        for y in np.arange(0, height, period):
            pen.rectangle((0, y, width, y + thick), fill=255)
    if pattern.kind in ("bars", "checks"):
        for x in np.arange(0, width, period):
            pen.rectangle((x, 0, x + thick, height), fill=255)
    if pattern.kind == "dots":
        for row, y in enumerate(np.arange(0, height, period)):
            for x in np.arange((row % 2) * period / 2, width, period):
                pen.ellipse((x, y, x + thick, y + thick), fill=255)
    canvas.color.paste((*pattern.color, 255), (left, top), ImageChops.multiply(inside, marks))


# ---------------------------------------------------------------------------------------------------------------- balls


def _paint_ball(canvas: _Canvas, ball: Ball, bounds: Outline, light: int) -> None:
    """Paint a ball into `bounds`, two corners in pixels of the enlarged canvas."""
    (x0, y0), (x1, y1) = bounds.min(axis=0).tolist(), bounds.max(axis=0).tolist()
    left, top, right, bottom = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    steps = min(right - left, max(24, (right - left) // 2))  # a large ball needs no smooth edges inside
    x = _across(left, right, steps, x0, x1)[None, :]
    y = _across(top, bottom, steps, y0, y1)[:, None]
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    normal = np.stack(np.broadcast_arrays(x, y, z), axis=-1)
    shading = 0.55 + 0.5 * np.clip(0.5 * light * x - 0.6 * y + 0.62 * z, 0, 1)
    colors = np.clip(_ball_skin(ball, normal) * shading[..., None], 0, 255).astype(np.uint8)
    stencil = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(stencil).ellipse((x0 - left, y0 - top, x1 - left - 1, y1 - top - 1), fill=255)
    skin = Image.fromarray(colors).convert("RGBA").resize(stencil.size, Image.Resampling.BILINEAR)
    canvas.color.paste(skin, (left, top), stencil)
    canvas.relief_pen.ellipse([value / canvas.zoom for value in (x0, y0, x1, y1)], fill=EVEN_LIGHT)


def _across(first: int, last: int, steps: int, start: float, end: float) -> np.ndarray:
    """Where the middles of `steps` pixels from `first` to `last` lie between `start` (-1) and `end` (1), float32."""
    middles = (np.arange(steps, dtype=np.float32) + 0.5) * ((last - first) / steps) + first
    return (middles - (start + end) / 2) * (2 / (end - start))


_GOLDEN = (1 + 5**0.5) / 2
_ICOSAHEDRON = np.array(
    [p for a in (-1, 1) for b in (-_GOLDEN, _GOLDEN) for p in ((0, a, b), (a, b, 0), (b, 0, a))]
) / math.hypot(1, _GOLDEN)  # its twelve corners, where a football has its dark patches
_BEACH_SECTORS = np.array([0, 1, 2, 1, 0, 1, 2])  # the seventh where rounding ends the full turn


def _ball_skin(ball: Ball, normal: np.ndarray) -> np.ndarray:
    """Colors, float (H, W, 3), of a ball where its surface points along `normal` (H, W, 3).

    The thresholds are half widths of seams, on a ball of radius 1.
    """
    local = normal @ ball.turn
    x, y, z = local[..., 0], local[..., 1], local[..., 2]
    if ball.kind == "football":  # patches around the corners, seams half way between two of them
        near = np.sort(local @ _ICOSAHEDRON.T, axis=-1)
        index = ((near[..., -1] > 0.925) | (near[..., -1] - near[..., -2] < 0.016)).astype(int)
    elif ball.kind == "basketball":
        index = ((np.abs(x) < 0.04) | (np.abs(y) < 0.04) | (np.abs(np.abs(x) - 0.45 - 0.3 * z**2) < 0.04)).astype(int)
    elif ball.kind == "tennis":
        index = (np.abs(z - 1.1 * x * y - 0.35 * np.sign(x) * x**2) < 0.06).astype(int)
    else:  # beach and volley: six sectors and two caps
        sector = np.floor((np.arctan2(y, x) / math.pi + 1) * 3).astype(int)
        index = np.where(np.abs(z) > 0.94, 1, _BEACH_SECTORS[sector])
    return np.asarray(ball.colors, dtype=np.float32)[index]
