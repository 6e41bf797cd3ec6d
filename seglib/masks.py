"""Pixel formats and the conversions between them: polygon, bitmap, RLE, index PNG, YOLO line.

A bitmap is bool (H, W). A polygon is COCO's flat list [x1, y1, x2, y2, ...] in pixels; (0, 0) is the upper left corner
of the upper left pixel. A class mask is uint8 (H, W), where 0 is background and 255 means "do not count". pycocotools
rasterizes polygons and encodes run lengths, so a mask has exactly the pixels that COCO's evaluation counts.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from seglib.files import atomic_path, exif_orientation, open_image

__all__ = [
    "IGNORE",
    "RLE",
    "Polygon",
    "check_classes",
    "check_polygon",
    "check_values",
    "ids_to_rles",
    "join_polygons",
    "mask_to_outlines",
    "mask_to_polygons",
    "mask_to_rle",
    "palette",
    "polygons_to_mask",
    "polygons_to_rle",
    "polygons_to_yolo",
    "read_index_png",
    "read_mask_values",
    "rle_to_mask",
    "rle_to_runs",
    "voc_palette",
    "write_index_png",
    "yolo_to_polygons",
]

Polygon = list[float]
RLE = dict[str, Any]  # {"size": [height, width], "counts": ...}
_Edge = tuple[int, int, int, int]  # between two pixels: x and y of its start, and its direction

IGNORE = 255  # the value of pixels that do not count
_COLORS = [
    (0, 0, 0), (230, 57, 70), (58, 110, 230), (255, 183, 3), (42, 157, 80), (155, 93, 229), (0, 187, 212),
    (244, 120, 40), (240, 98, 170), (140, 100, 70), (160, 200, 60), (0, 240, 210), (90, 105, 0), (255, 0, 255),
    (105, 60, 120), (210, 180, 255), (0, 255, 0), (255, 165, 165), (0, 0, 255), (45, 120, 180), (0, 240, 120),
]  # fmt: skip


# ------------------------------------------------------------------------------------------------ polygons


def check_polygon(polygon: Sequence[float], height: int, width: int) -> None:
    """Raise ValueError if a polygon cannot be drawn in a (height, width) image; the message says why."""
    try:
        points = np.asarray(polygon, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"polygon must be a flat list of numbers, not {str(polygon)[:60]}") from None
    if points.ndim != 1 or points.size % 2:
        raise ValueError(f"polygon must be a flat list x1, y1, x2, y2, ..., not of shape {points.shape}")
    if points.size < 6:
        raise ValueError(f"polygon has {points.size // 2} points: an area needs three, and a box is not a polygon")
    largest = np.abs(points).max()
    if not largest <= 1e6:  # pycocotools crashes on larger numbers; False for NaN as well
        raise ValueError(f"polygon has a coordinate of {largest:g} pixels: not a number up to a million")
    x = points[0::2]
    y = points[1::2]
    if x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height:
        raise ValueError(
            f"polygon lies wholly outside the image of {height}x{width} (height x width): "
            f"x {x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g}"
        )


def polygons_to_mask(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Rasterize the union of polygons as COCO does.

    Args:
        polygons: flat lists [x1, y1, x2, y2, ...] in pixels; they may reach beyond the image.
        height, width: size of the image in pixels.

    Returns:
        bool (height, width).

    Raises:
        ValueError: a polygon cannot be drawn: it has fewer than three points, say, or lies wholly outside the image.
    """
    return coco_mask.decode(polygons_to_rle(polygons, height, width)).astype(bool)


def polygons_to_rle(polygons: Sequence[Sequence[float]], height: int, width: int) -> RLE:
    """Encode the union of polygons as COCO's compressed RLE. Arguments and errors are those of `polygons_to_mask`."""
    if len(polygons) == 0:
        return mask_to_rle(np.zeros((height, width), dtype=bool))
    for polygon in polygons:
        check_polygon(polygon, height, width)
    numbers = [[float(value) for value in polygon] for polygon in polygons]
    return _to_json(coco_mask.merge(coco_mask.frPyObjects(numbers, height, width)))


def mask_to_polygons(mask: np.ndarray) -> list[Polygon]:
    """Trace a bitmap along its pixel edges, so that `polygons_to_mask` gives exactly the same bitmap.

    Args:
        mask: bool (H, W).

    Returns:
        One polygon for each 4-connected part, clockwise on the screen, corners only. A polygon cannot hold a hole, so
        holes are filled; a gap that reaches the outside through the corner of a pixel is not a hole and is kept.
    """
    edges = _pixel_edges(np.asarray(mask, dtype=bool))
    polygons = []
    while edges:
        first = next(iter(edges))
        loop = [first]
        while (edge := _next_edge(loop[-1], edges)) != first:
            loop.append(edge)
        for edge in loop:
            del edges[edge]
        x, y, dx, dy = np.array(loop).T
        if (x * dy - y * dx).sum() > 0:  # clockwise; the border of a hole runs the other way
            turns = (dx != np.roll(dx, 1)) | (dy != np.roll(dy, 1))
            polygons.append(np.stack([x, y], axis=1)[turns].ravel().astype(float).tolist())
    return polygons


def _pixel_edges(mask: np.ndarray) -> dict[_Edge, None]:
    """The edges between set and unset pixels, each with the set pixel on its right; a dictionary keeps their order."""
    padded = np.pad(mask, 1)
    sides = (  # the neighbor across an edge, and the edge relative to the upper left corner of the set pixel
        (padded[:-2, 1:-1], (0, 0, 1, 0)),  # above: to the right
        (padded[1:-1, 2:], (1, 0, 0, 1)),  # right: downward
        (padded[2:, 1:-1], (1, 1, -1, 0)),  # below: to the left
        (padded[1:-1, :-2], (0, 1, 0, -1)),  # left: upward
    )
    edges: dict[_Edge, None] = {}
    for neighbor, (x, y, dx, dy) in sides:
        for row, column in np.argwhere(mask & ~neighbor).tolist():
            edges[column + x, row + y, dx, dy] = None
    return edges


def _next_edge(edge: _Edge, edges: dict[_Edge, None]) -> _Edge:
    """The edge that begins where `edge` ends: to the right where two pixels meet at a corner only."""
    x, y, dx, dy = edge
    directions = ((-dy, dx), (dx, dy), (dy, -dx))  # right, straight on, left
    return next((x + dx, y + dy, *turn) for turn in directions if (x + dx, y + dy, *turn) in edges)


def mask_to_outlines(mask: np.ndarray) -> list[tuple[Polygon, list[Polygon]]]:
    """Trace each 4-connected part of a bool (H, W) bitmap: its outer polygon, and the polygons of its holes."""
    from scipy import ndimage  # slow to import, and only needed here

    parts, count = ndimage.label(mask)
    outlines = []
    for number in range(1, count + 1):
        part = parts == number
        (outer,) = mask_to_polygons(part)
        holes = polygons_to_mask([outer], *mask.shape) & ~part  # with other parts that lie in them
        outlines.append((outer, mask_to_polygons(holes)))
    return outlines


def join_polygons(polygons: Sequence[Sequence[float]]) -> Polygon:
    """Join polygons to one, by slits of zero width between their nearest points. The polygons must not overlap.

    Polygons side by side become parts of one outline. A polygon inside another is cut out of it, because pycocotools,
    Pillow and OpenCV fill by the even-odd rule.
    """
    rings = [np.asarray(polygon, dtype=float).reshape(-1, 2) for polygon in polygons]
    outline = rings.pop(0)
    while rings:
        distances = [((outline[:, None] - ring) ** 2).sum(-1) for ring in rings]
        nearest = int(np.argmin([distance.min() for distance in distances]))
        ring = rings.pop(nearest)
        here, there = np.unravel_index(np.argmin(distances[nearest]), distances[nearest].shape)
        ring = np.roll(ring, -int(there), axis=0)
        outline = np.concatenate([outline[: here + 1], ring, ring[:1], outline[here:]])
    return outline.ravel().tolist()


# ------------------------------------------------------------------------------------------------ run lengths


def mask_to_rle(mask: np.ndarray) -> RLE:
    """Encode a bool (H, W) bitmap as COCO's compressed RLE: {"size": [H, W], "counts": str}, ready for JSON."""
    return _to_json(coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=bool), dtype=np.uint8)))


def _to_json(rle: RLE) -> RLE:
    """pycocotools' RLE with types that JSON can hold."""
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def rle_to_mask(rle: RLE) -> np.ndarray:
    """Decode COCO's RLE, compressed (counts is a string) or not (counts is a list), to a bool (H, W) bitmap.

    Raises:
        ValueError: the runs do not add up to the size, or a part is missing.
    """
    runs = rle_to_runs(rle)
    is_set = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_set, runs).reshape(rle["size"], order="F")


def rle_to_runs(rle: RLE) -> np.ndarray:
    """The run lengths of an RLE, int (N,): of unset, set, unset ... pixels, column by column. Errors: `rle_to_mask`."""
    match rle:
        case {"size": [int(height), int(width)], "counts": list(counts)}:
            is_whole = all(isinstance(run, int) for run in counts)
            runs = np.array(counts if is_whole else [-1], dtype=int)
        case {"size": [int(height), int(width)], "counts": str() | bytes() as counts}:
            runs = _compressed_runs(counts.encode("ascii", "replace") if isinstance(counts, str) else counts)
        case _:
            raise ValueError('an RLE must be {"size": [height, width], "counts": [...] or "..."}')
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"RLE runs must add up to its size, {height}x{width} pixels; they begin with {counts[:8]!r}")
    return runs


def _compressed_runs(counts: bytes) -> np.ndarray:
    """The run lengths in a compressed RLE; pycocotools reads beyond its end if it is damaged."""
    # The format (rleFrString in COCO's maskApi.c): a character holds five bits of a number, lowest first, offset by 48;
    # its sixth bit says that more characters follow. The fifth bit of the last character is the sign. From the fourth
    # number on, a number is the difference from the run before the previous one.
    codes = np.frombuffer(counts, dtype=np.uint8).astype(int) - 48
    last = np.flatnonzero(codes & 0x20 == 0)  # the last character of each number
    length = np.diff(last, prepend=-1)
    if not len(last) or ((codes < 0) | (codes > 0x3F)).any() or length.max() > 10 or last[-1] + 1 < len(codes):
        return np.array([-1])
    place = np.arange(len(codes)) - np.repeat(last - length + 1, length)
    values = np.add.reduceat((codes & 0x1F) << 5 * place, last - length + 1)
    runs = values - ((codes[last] & 0x10 > 0) << 5 * length)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


# ------------------------------------------------------------------------------------------------ YOLO lines


def yolo_to_polygons(line: str, height: int, width: int) -> tuple[int, list[Polygon]]:
    """Read a line of a YOLO-seg label file.

    Args:
        line: "class x1 y1 x2 y2 ...", coordinates as fractions of the image's width and height. Those up to 0.01
            outside are clipped. The class is any notation of a whole number, such as 3.0.
        height, width: size of the image in pixels.

    Returns:
        The class index (0 is the first class, as YOLO has no background) and [polygon] in pixels.

    Raises:
        ValueError: the line is not of this form; the message says why.
    """
    name, *rest = line.split() or [""]
    if not rest and re.search("[,;]", name):
        raise ValueError(f"YOLO coordinates are written as 0.5 with blanks between them, not as in {name[:40]!r}")
    try:
        values = np.array([float(value) for value in rest])
    except ValueError as error:
        raise ValueError(f"YOLO coordinates are written as 0.5 with blanks between them ({error})") from None
    try:
        index = int(name) if name.isdecimal() else float(name)
    except ValueError:
        index = -1
    if not 0 <= index < 1e9 or index != int(index):  # False for NaN, too
        raise ValueError(f"a YOLO line begins with a class number, this one with {name!r}")
    if values.size and not (values.min() >= -0.01 and values.max() <= 1.01):  # False for NaN, too
        raise ValueError(f"YOLO coordinates are fractions from 0 to 1, found {values.min():g} to {values.max():g}")
    if values.size == 4:
        raise ValueError("this line is a box (class, center, width, height) for detection; a mask needs an outline")
    if values.size % 2:
        raise ValueError(f"a YOLO line holds pairs of x and y, this one {values.size} values: is one a confidence?")
    # Rounded, because 10.5 pixels may come back as 10.4999999, which lies on the other side of a pixel's center.
    polygon = np.round(np.clip(values, 0, 1) * np.resize([width, height], len(values)), 4).tolist()
    check_polygon(polygon, height, width)
    return int(index), [polygon]


def polygons_to_yolo(index: int, polygons: Sequence[Sequence[float]], height: int, width: int) -> list[str]:
    """Write polygons as YOLO-seg lines, clipped to the image.

    A YOLO line holds one polygon: an object in several parts becomes several lines, and is read as several objects.

    Args:
        index: the class; 0 is the first.
        polygons: flat lists [x1, y1, x2, y2, ...] in pixels.
        height, width: size of the image in pixels.

    Raises:
        ValueError: a polygon cannot be drawn, or covers no part of the image.
    """
    lines = []
    for polygon in polygons:
        check_polygon(polygon, height, width)
        points = np.reshape(np.asarray(polygon, dtype=float), (-1, 2))
        for normal, limit in (((-1, 0), 0), ((1, 0), width), ((0, -1), 0), ((0, 1), height)):
            points = _clip_to_half_plane(points, normal, limit)
        if len(points) < 3:
            raise ValueError(f"polygon covers nothing of the image of {height}x{width} (height x width)")
        fractions = np.clip(points / (width, height), 0, 1).ravel()
        lines.append(" ".join([str(index), *(f"{value:.8f}".rstrip("0").rstrip(".") for value in fractions)]))
    return lines


def _clip_to_half_plane(points: np.ndarray, normal: tuple[int, int], limit: float) -> np.ndarray:
    """Clip a polygon, float (N, 2), to the points p with p . normal <= limit (Sutherland and Hodgman, 1974)."""
    depth = limit - points @ np.array(normal)
    if (depth >= 0).all():
        return points
    kept = []
    for before, point, d0, d1 in zip(np.roll(points, 1, axis=0), points, np.roll(depth, 1), depth, strict=True):
        if (d0 >= 0) != (d1 >= 0):
            kept.append(before + (point - before) * d0 / (d0 - d1))
        if d1 >= 0:
            kept.append(point)
    return np.array(kept).reshape(-1, 2)


# ------------------------------------------------------------------------------------------------ class masks


def palette(count: int = 256) -> np.ndarray:
    """The library's colors of the classes: uint8 (count, 3). Class 0 is black, 255 is pale.

    The first classes have colors that are easy to tell apart on a photograph, the others those of PASCAL VOC.
    """
    colors = voc_palette()
    colors[: len(_COLORS)] = _COLORS
    return colors[:count]


def voc_palette(count: int = 256) -> np.ndarray:
    """PASCAL VOC's colors of the classes (VOCcolormap.m of its devkit): uint8 (count, 3)."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, count=9, bitorder="little")
    # Bits 0, 3, 6 of the index are the high bits of red, 1, 4, 7 those of green, 2, 5, 8 those of blue.
    return np.packbits(bits.reshape(256, 3, 3), axis=1)[:count, 0]


def read_index_png(path: str | Path) -> np.ndarray:
    """Read a mask whose pixel values are class indices; a palette PNG is read as indices, not as colors.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: the file is a JPEG, or holds colors (RGB), fractions or values above 255.
    """
    mask = read_mask_values(path)
    if mask.ndim == 3:
        raise ValueError(f"{path} holds colors, not class indices: read it by MaskFolderDataset(colors=...)")
    if mask.max(initial=0) > IGNORE:
        raise ValueError(f"{path} holds values up to {mask.max()}, above {IGNORE}: not a mask of class indices")
    return mask.astype(np.uint8)


def read_mask_values(path: str | Path, page: int | None = None, exact: bool = True) -> np.ndarray:
    """Read the values of a mask as they are stored; a palette PNG is read as indices, not as colors.

    Colors whose three channels are equal are gray. The palette of a GIF, whose order its writer chooses, is looked up
    if it is gray. A mask with an EXIF rotation is turned, as a viewer turns it.

    Args:
        path: the file.
        page: the page of a stack, from 1.
        exact: whether the values have to be whole numbers without loss. False, for masks that a threshold follows,
            allows JPEG and fractions.

    Returns:
        (H, W) of bool for masks of one bit, of whole numbers or of float32; uint8 (H, W, 3) for colors.

    Raises:
        ValueError: the file is a JPEG or holds fractions, unless `exact` is False; or it is partly transparent.
    """
    with open_image(path, page) as image:
        is_jpeg = image.format in ("JPEG", "MPO")
        if exif_orientation(image) != 1:
            image = ImageOps.exif_transpose(image)
        if image.format == "GIF":
            image = image.convert("RGB")
        mask = np.array(image)
    if exact and is_jpeg:
        raise _inexact(f"{path} is a JPEG, which changes the values at every edge")
    if mask.ndim == 3 and mask.shape[2] in (2, 4):
        if mask[..., -1].min() < 255:
            raise ValueError(f"{path} is partly transparent, so its values are not what is seen: save it without alpha")
        mask = mask[..., :-1]
    if mask.ndim == 3 and (mask == mask[..., :1]).all():
        mask = mask[..., 0]
    if exact and mask.dtype.kind == "f":
        if not (mask == mask.round()).all():
            raise _inexact(f"{path} holds fractions, such as {mask[mask != mask.round()][0]}")
        mask = mask.astype(np.int32)
    return mask


def _inexact(what: str) -> ValueError:
    remedy = "read it by MaskFolderDataset(threshold=127), which makes larger values class 1, or save PNG"
    return ValueError(f"{what}: {remedy}")


def ids_to_rles(ids: np.ndarray) -> dict[int, RLE]:
    """The RLE of each object in a map of whole numbers (H, W), by ascending number; 0 is background."""
    flat = ids.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    numbers, firsts = np.unique(flat[starts][order], return_index=True)
    rles = {}
    for number, runs in zip(numbers.tolist(), np.split(order, firsts[1:]), strict=True):
        borders = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        counts = np.diff(borders, prepend=0, append=[flat.size] * bool(borders[-1] < flat.size)).tolist()
        if number:
            rles[number] = _to_json(coco_mask.frPyObjects({"size": list(ids.shape), "counts": counts}, *ids.shape))
    return rles


def write_index_png(
    path: str | Path, mask: np.ndarray, classes: Sequence[str], colors: np.ndarray | None = None
) -> None:
    """Write a class mask as a palette PNG, whose values are the classes and whose colors are only for viewing.

    Args:
        path: the file.
        mask: whole numbers (H, W), each below len(classes), or 255.
        classes: names of the classes, background first.
        colors: uint8 (256, 3); None: `palette()`.

    Raises:
        ValueError: a value is not a class.
    """
    check_classes(classes)
    check_values(mask, len(classes), path)
    image = Image.fromarray(np.asarray(mask).astype(np.uint8))
    image.putpalette((palette() if colors is None else colors).tobytes())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def check_classes(classes: Sequence[str]) -> None:
    """Raise ValueError if an 8-bit mask, in which 255 is taken, cannot hold these classes."""
    if isinstance(classes, str):
        raise ValueError(f"classes must be a list of names, not {classes!r}")
    if not 1 <= len(classes) <= IGNORE:
        raise ValueError(f"{len(classes)} classes: a mask holds 1 to {IGNORE}, background among them")


def check_values(mask: np.ndarray, classes: int, where: str | Path) -> None:
    """Raise ValueError, which names the file `where`, if a mask holds a value that is neither a class nor 255."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ValueError(f"{where}: a class mask holds whole numbers (H, W), not {mask.dtype} {mask.shape}")
    wrong = mask[((mask < 0) | (mask >= classes)) & (mask != IGNORE)]
    if wrong.size:
        values = ", ".join(str(value) for value in np.unique(wrong)[:8].tolist())
        raise ValueError(
            f"{where}: mask value {values} in {wrong.size} pixels; allowed are 0 to {classes - 1}, "
            f"and {IGNORE} for pixels that do not count"
        )
