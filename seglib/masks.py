"""One place for pixel formats: polygon <-> bitmap <-> RLE <-> index PNG <-> YOLO polygon.

Numpy in, numpy out. A bitmap is bool (H, W). A polygon is COCO's flat list [x1, y1, x2, y2, ...] in pixels, where
(0, 0) is the upper left corner of the upper left pixel. A class mask is uint8 (H, W): 0 is background, 255 "do not
count". Rasters and run-length encoding are pycocotools', so a mask has the very pixels that COCO's evaluation counts.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from seglib.files import atomic_path, open_image

IGNORE = 255
ROUNDING = 1e-6  # of a fraction: so much beyond 0 or 1 is no mistake
FARTHEST = 1e6  # pixels: a coordinate beyond is a mistake
COLOURS = (
    (0, 0, 0),
    (230, 57, 70),
    (58, 110, 230),
    (255, 183, 3),
    (42, 157, 80),
    (155, 93, 229),
    (0, 187, 212),
    (244, 120, 40),
    (240, 98, 170),
    (140, 100, 70),
    (160, 200, 60),
    (0, 240, 210),
    (90, 105, 0),
    (255, 0, 255),
    (105, 60, 120),
    (210, 180, 255),
    (0, 255, 0),
    (255, 165, 165),
    (0, 0, 255),
    (45, 120, 180),
    (0, 240, 120),
)

Polygon = list[float]


def check_polygon(polygon: Sequence[float], height: int, width: int) -> None:
    """Raise ValueError, saying what is wrong, for a polygon that cannot be drawn in a (height, width) image."""
    points = np.asarray(polygon, dtype=object)
    try:
        points = points.astype(float)
    except (TypeError, ValueError):
        raise ValueError(f"polygon holds something that is no number: {list(polygon)[:8]}") from None
    if points.ndim != 1 or points.size % 2:
        raise ValueError(f"polygon has an odd number of coordinates ({points.size}): it must be x1, y1, x2, y2, ...")
    if points.size < 6:
        raise ValueError(f"polygon has {points.size // 2} points: an area needs three")
    if not np.isfinite(points).all():
        raise ValueError("polygon holds NaN or infinity")
    if np.abs(points).max() > FARTHEST:  # pycocotools' integers overflow, and the interpreter with them
        raise ValueError(f"polygon reaches {np.abs(points).max():g} pixels far: no image does")
    x, y = points[0::2], points[1::2]
    if x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height:
        raise ValueError(
            f"polygon lies wholly outside the image: x {x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g}, "
            f"image {height}x{width} (height x width)"
        )


def polygons_to_mask(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Rasterise the union of some polygons as COCO does.

    Args:
        polygons: flat lists [x1, y1, x2, y2, ...] in pixels; what reaches over the border is cut off.

    Returns:
        bool (height, width).

    Raises:
        ValueError: a polygon of fewer than three points, of an odd number of coordinates, with a coordinate that is
            no finite number, or wholly outside the image.
    """
    if len(polygons) == 0:
        return np.zeros((height, width), dtype=bool)
    return coco_mask.decode(_union(polygons, height, width)).astype(bool)


def polygons_to_rle(polygons: Sequence[Sequence[float]], height: int, width: int) -> dict:
    """COCO's compressed RLE of the union of some polygons: `polygons_to_mask`, encoded, but in one step."""
    if len(polygons) == 0:
        return mask_to_rle(np.zeros((height, width), dtype=bool))
    return {"size": [height, width], "counts": _union(polygons, height, width)["counts"].decode("ascii")}


def _union(polygons: Sequence[Sequence[float]], height: int, width: int) -> dict:
    """pycocotools' RLE of the union of some polygons, one or more, each of which is checked."""
    for polygon in polygons:
        check_polygon(polygon, height, width)
    # A pair of equal polygons of four numbers would be taken for boxes by pycocotools; check_polygon lets none through.
    return coco_mask.merge(
        coco_mask.frPyObjects([[float(value) for value in polygon] for polygon in polygons], height, width)
    )


def mask_to_polygons(mask: np.ndarray) -> list[Polygon]:
    """Trace a bitmap along its pixel edges, so that `polygons_to_mask` gives the very same bitmap back.

    Args:
        mask: bool (H, W).

    Returns:
        One polygon for each 4-connected part, clockwise as seen on the screen, corners only. A polygon cannot hold a
        hole: holes come back filled. (A hole that touches the outside at a pixel's corner is no hole, and survives.)
    """
    following = _pixel_edges(np.asarray(mask, dtype=bool))
    polygons = []
    while following:
        loop = _walk(following, next(iter(following)))
        if _signed_area(loop) > 0:  # a hole is walked the other way round
            polygons.append([float(value) for corner in _corners(loop) for value in corner])
    return polygons


def _pixel_edges(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The edges between set pixels and others, from corner (x, y) to corners, the set pixel on the right."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    sides = (  # the neighbour that is missing, where the edge starts, where it ends; x and y from the pixel's corner
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # above: walk right
        (padded[1:-1, 2:], (1, 0), (1, 1)),  # right: walk down
        (padded[2:, 1:-1], (1, 1), (0, 1)),  # below: walk left
        (padded[1:-1, :-2], (0, 1), (0, 0)),  # left: walk up
    )
    for neighbour, (x0, y0), (x1, y1) in sides:
        rows, columns = np.nonzero(inside & ~neighbour)
        for y, x in zip(rows.tolist(), columns.tolist(), strict=True):
            following.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return following


def _walk(following: dict, start: tuple[int, int]) -> list[tuple[int, int]]:
    """Take one closed loop out of `following`, turning right where two pixels meet at a corner only."""
    loop, here, right = [], start, None
    while not loop or here != start or right in following.get(start, ()):
        loop.append(here)
        ways = following[here]
        step = right if right in ways else ways[0]
        ways.remove(step)
        if not ways:
            del following[here]
        (x, y), here = here, step
        right = (here[0] - (here[1] - y), here[1] + (here[0] - x))
    return loop


def _signed_area(loop: list[tuple[int, int]]) -> float:
    x, y = np.array(loop, dtype=np.int64).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _corners(loop: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The points of a loop of unit steps at which it turns."""
    points = np.array(loop)
    turns = (np.roll(points, -1, axis=0) - points != points - np.roll(points, 1, axis=0)).any(axis=1)
    return [tuple(point) for point in points[turns].tolist()]


def mask_to_outlines(mask: np.ndarray) -> list[tuple[Polygon, list[Polygon]]]:
    """Each 4-connected part of a bitmap, traced along pixel edges: its outer polygon and those of its holes."""
    parts, _ = ndimage.label(mask)
    outlines = []
    for outer in mask_to_polygons(mask):
        y, x = min(zip(map(int, outer[1::2]), map(int, outer[0::2]), strict=True))  # its first pixel, in reading order
        inside = polygons_to_mask([outer], *mask.shape) & (parts != parts[y, x])  # other parts lie in the holes, too
        outlines.append((outer, mask_to_polygons(inside)))
    return outlines


def join_polygons(polygons: Sequence[Sequence[float]]) -> Polygon:
    """Make one polygon of several, by slits of no width between the points where they are nearest to each other.

    Where a slit leads to a polygon inside another, the inner one is cut out of it: a point lies inside where a line
    from it to the far distance crosses the outline an odd number of times, and so pycocotools, Pillow and OpenCV fill.
    Polygons side by side become the parts of one outline. They must not overlap.
    """
    rings = [np.asarray(polygon, dtype=float).reshape(-1, 2) for polygon in polygons]
    whole = rings.pop(0)
    while rings:
        gaps = [((whole[:, None] - ring) ** 2).sum(-1) for ring in rings]
        number = int(np.argmin([gap.min() for gap in gaps]))
        ring, gap = rings.pop(number), gaps[number]
        here, there = np.unravel_index(np.argmin(gap), gap.shape)
        around = np.roll(ring, -there, axis=0)
        whole = np.concatenate([whole[: here + 1], around, around[:1], whole[here:]])
    return whole.ravel().tolist()


def mask_to_rle(mask: np.ndarray) -> dict:
    """Encode a bool (H, W) bitmap as COCO's compressed RLE: {"size": [H, W], "counts": str}, ready for JSON."""
    rle = coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=bool), dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def rle_to_mask(rle: dict) -> np.ndarray:
    """Decode COCO's RLE, compressed (counts is a string) or not (counts is a list), to a bool (H, W) bitmap.

    Raises:
        ValueError: the runs do not add up to the size.
    """
    try:
        (height, width), counts = rle["size"], rle["counts"]
    except (KeyError, TypeError, ValueError):
        raise ValueError('an RLE must be {"size": [height, width], "counts": ...}') from None
    if not isinstance(height, int) or not isinstance(width, int) or not isinstance(counts, list | str | bytes):
        raise ValueError('an RLE must be {"size": [height, width], "counts": [...] or "..."}')
    if isinstance(counts, list):
        if any(not isinstance(run, int) or run < 0 for run in counts):
            raise ValueError("an RLE's counts must be whole numbers, none negative")
        if sum(counts) != height * width:
            raise ValueError(f"RLE runs add up to {sum(counts)} pixels but its size is {height}x{width}")
        rle = coco_mask.frPyObjects(rle, height, width)
    else:
        _check_compressed(counts, height, width)
    return coco_mask.decode(rle).astype(bool)


def _check_compressed(counts: str | bytes, height: int, width: int) -> None:
    """Raise where a compressed RLE does not cover its size: pycocotools would read past the end of its memory.

    The format (COCO's rleFrString): five bits a character from 48 on, the sixth says that more follow, the last
    one's fifth bit is the sign; from the fourth run on, a run is stored as its difference from the run two before.
    """
    data = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    runs: list[int] = []
    position = 0
    while position < len(data):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(data) or not 48 <= data[position] < 112:
                raise ValueError("compressed RLE is cut off or holds a character that does not belong there")
            bits = data[position] - 48
            value |= (bits & 0x1F) << shift
            more, shift, position = bool(bits & 0x20), shift + 5, position + 1
            if not more and bits & 0x10:
                value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"compressed RLE covers {sum(runs)} pixels but its size is {height}x{width}")


def yolo_to_polygons(line: str, height: int, width: int) -> tuple[int, list[Polygon]]:
    """Read one line of a YOLO-seg label file: a class and one polygon, x and y as fractions of the image's sides.

    Returns:
        The class index (0 is the first class: YOLO has no background) and [polygon] in pixels.

    Raises:
        ValueError: no whole class number, fewer than three points, an odd number of coordinates, or one outside 0-1.
    """
    name, *rest = line.split() or [""]
    if not name.isdecimal():  # isdigit also takes a superscript, which is no number
        raise ValueError(f"a YOLO line begins with a class number, this one with {name!r}")
    try:
        values = np.array([float(value) for value in rest])
    except ValueError:
        raise ValueError(f"YOLO line holds something that is no number: {line[:60]!r}") from None
    if len(values) == 4:
        raise ValueError("YOLO line holds four numbers: a box, or two points, where a polygon has three or more")
    if values.size and (values.min() < -ROUNDING or values.max() > 1 + ROUNDING):
        raise ValueError(f"YOLO coordinates are fractions from 0 to 1, found {values.min():g} to {values.max():g}")
    # Rounded, so that what was 10.5 pixels before it was made a fraction is not 10.4999999, on another side of a pixel.
    polygon = np.round(np.clip(values, 0, 1) * np.resize([width, height], len(values)), 4)
    check_polygon(polygon, height, width)
    return int(name), [polygon.tolist()]


def polygons_to_yolo(index: int, polygons: Sequence[Sequence[float]], height: int, width: int) -> list[str]:
    """Write polygons in pixels as YOLO-seg lines of class `index`, cut off at the image's border.

    A YOLO line holds one polygon: an object in several parts becomes several lines, and reads as several objects.

    Raises:
        ValueError: a polygon that cannot be drawn, or that covers nothing of the image.
    """
    lines = []
    for polygon in polygons:
        check_polygon(polygon, height, width)
        points = clip_polygon(polygon, height, width)
        if len(points) < 6:
            raise ValueError(f"polygon covers nothing of the image of {height}x{width} (height x width)")
        fractions = np.clip(np.asarray(points) / np.resize([width, height], len(points)), 0, 1)
        lines.append(" ".join([str(index), *(f"{value:.8f}".rstrip("0").rstrip(".") for value in fractions)]))
    return lines


def clip_polygon(polygon: Sequence[float], height: int, width: int) -> Polygon:
    """Cut a polygon off at the image's border, side by side (Sutherland and Hodgman, 1974).

    Moving the points that lie outside onto the border instead would bend the edges that lead to them, inside too.
    """
    points = [(float(x), float(y)) for x, y in zip(polygon[0::2], polygon[1::2], strict=True)]
    for axis, sign, bound in ((0, 1, 0.0), (0, -1, -float(width)), (1, 1, 0.0), (1, -1, -float(height))):
        inside = [sign * point[axis] >= bound for point in points]
        kept = []
        for i, (point, here) in enumerate(zip(points, inside, strict=True)):
            before = points[i - 1]
            if here != inside[i - 1]:
                share = (sign * bound - before[axis]) / (point[axis] - before[axis])
                kept.append(tuple(a + share * (b - a) for a, b in zip(before, point, strict=True)))
            if here:
                kept.append(point)
        points = kept
    return [value for point in points for value in point]


def palette(count: int = 256) -> np.ndarray:
    """The colours of the classes: uint8 (count, 3), class 0 black, 255 pale.

    Twenty picked to be told apart on a photograph, then PASCAL VOC's.
    """
    colours = voc_palette()
    colours[: len(COLOURS)] = COLOURS
    return colours[:count]


def voc_palette(count: int = 256) -> np.ndarray:
    """PASCAL VOC's own colours (VOC devkit, VOCcolormap.m): uint8 (count, 3), 255 is the border that does not count."""
    index = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):  # bits 0, 3, 6 of the index are the high bits of red; 1, 4, 7 of green; 2, 5 of blue
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours[:count]


def read_index_png(path: str | Path) -> np.ndarray:
    """Read a mask whose pixel values are class indices: a palette PNG as its indices, never as its colours.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: the file holds colours (RGB) or more than 8 bits, which are not class indices.
    """
    image = open_image(path)
    if image.format == "JPEG":
        raise ValueError(f"{path} is a JPEG, which changes the values at every edge: save masks as PNG")
    if image.mode not in ("P", "L", "1"):
        raise ValueError(
            f"{path} is an image of mode {image.mode}, not a mask of class indices: save it as an 8-bit grey or "
            "palette PNG whose pixel values are the classes"
        )
    return np.array(image, dtype=np.uint8)


def write_index_png(
    path: str | Path, mask: np.ndarray, classes: Sequence[str], colours: np.ndarray | None = None
) -> None:
    """Write a class mask as a palette PNG: the values are the classes, the colours are for people.

    Args:
        mask: whole numbers (H, W), each below len(classes), or 255.
        colours: uint8 (256, 3), a row a value; None: `palette()`.

    Raises:
        ValueError: a value that is no class.
    """
    check_classes(classes)
    check_values(mask, len(classes), path)
    image = Image.fromarray(np.asarray(mask).astype(np.uint8))
    image.putpalette((palette() if colours is None else colours).tobytes())
    with atomic_path(path) as aside:
        image.save(aside, format="PNG")


def check_classes(classes: Sequence[str]) -> None:
    """Raise ValueError for a list of classes that a mask of bytes cannot hold, 255 being taken."""
    if isinstance(classes, str):
        raise ValueError(f"classes must be a list of names, not {classes!r}")
    if not 1 <= len(classes) <= IGNORE:
        raise ValueError(f"{len(classes)} classes: a mask holds 1 to {IGNORE}, background among them")


def check_values(mask: np.ndarray, classes: int, where: str | Path) -> None:
    """Raise ValueError, naming file, value and allowed range, where a class mask holds a value that is no class."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"{where}: a class mask has two dimensions (H, W), this one {mask.shape}")
    wrong = mask[((mask < 0) | (mask >= classes)) & (mask != IGNORE)]
    if wrong.size:
        values = ", ".join(str(value) for value in np.unique(wrong)[:8].tolist())
        raise ValueError(
            f"{where}: mask value {values} in {wrong.size} pixels; allowed are 0 to {classes - 1}, "
            f"and {IGNORE} for pixels that do not count"
        )
