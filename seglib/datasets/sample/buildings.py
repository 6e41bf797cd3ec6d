"""The bundled sample of `buildings_yolo`: land seen from straight above, drawn by code, with the outline of every roof.

What is outlined is the roof as the architect drew it, also where the crown of a tree hides a corner of it, as
annotators do: a crown covers little of a roof. Only what wholly cuts a building in two, a bridge, cuts its outline.
What lies on the land is drawn in `blocks`, roofs in `figures.roofs`; `land` paints it.
"""

import json
from pathlib import Path

import numpy as np

from seglib import masks
from seglib.datasets.sample.aerial import SPECIALS, compose
from seglib.datasets.sample.aerial_ground import Land, paint_land
from seglib.datasets.sample.common import LICENSES, PERIOD
from seglib.datasets.sample.objects.outlines import Outline
from seglib.datasets.sample.objects.roofs import Building, following
from seglib.datasets.yolo import YOLO_PARTS, write_data_yaml
from seglib.files import write_jpeg, write_lines

CLASS = "building"
SLIVER = 0.04  # of a building that the border cuts off, so much is not outlined if it has few pixels as well
FEW = 12


def part_of(index: int) -> str:
    """Of five pictures in a row, three train, the second validates, the third tests, wherever the count ends."""
    return ("train", "valid", "test", "train", "train")[index % 5]


# ---------------------------------------------------------------------------------------------------------- annotations


def cut(outline: Outline, normal: tuple[float, float], limit: float) -> Outline:
    """What of an outline lies where point . normal <= limit (Sutherland and Hodgman, 1974); float (m, 2), m may be 0.

    Parts that fall apart stay connected along the cut by a line without any width.
    """
    inside = limit - outline @ normal
    if (inside >= 0).all():
        return outline
    kept = []
    for here, there, d0, d1 in zip(outline, following(outline), inside, following(inside), strict=True):
        if d0 >= 0:
            kept.append(here)
        if (d0 >= 0) != (d1 >= 0):
            kept.append(here + (there - here) * d0 / (d0 - d1))
    return np.array(kept).reshape(-1, 2)


def visible(land: Land, building: Building, size: int) -> list[Outline]:
    """The outlines of what is seen of a building, each float (n, 2) in pixels: one or, on both sides of a bridge, two.

    What lies outside the picture is cut off. A hole is not cut out.
    """
    parts = [building.outline]
    if land.bridge:
        (left, _), (right, _) = land.bridge.deck[0], land.bridge.deck[1]
        parts = [cut(building.outline, (1, 0), left), cut(building.outline, (-1, 0), -right)]
    parts = [in_picture(land.pixels(part, size), size) for part in parts if len(part)]
    return [part for part in parts if len(part) > 2 and area(part) > 0]


def in_picture(outline: Outline, size: int) -> Outline:
    """What of an outline, in pixels, lies in the picture."""
    for normal, limit in (((-1, 0), 0), ((1, 0), size), ((0, -1), 0), ((0, 1), size)):
        outline = cut(outline, normal, limit)
        if not len(outline):
            break
    return outline


def area(outline: Outline) -> float:
    """The area inside an outline, by the shoelace formula."""
    x, y = outline.T
    return float(abs(x @ following(y) - y @ following(x))) / 2


def annotate(land: Land, size: int) -> list[tuple[list[list[float]], dict]]:
    """The polygons of each building in sight, in pixels to two decimals; and what COCO's format says of it.

    A building with a court is a run-length code there, which can hold the hole: its polygon, as YOLO has it, fills it.
    """
    found = []
    for building in land.buildings:
        parts = [part.round(2) for part in visible(land, building, size)]
        seen, whole = sum(map(area, parts)), area(building.outline) * (size / land.view) ** 2
        if seen == 0 or (seen < SLIVER * whole and seen < FEW):
            continue
        polygons = [part.ravel().tolist() for part in parts]
        points = np.concatenate(parts)
        (x, y), (width, height) = points.min(axis=0).tolist(), np.ptp(points, axis=0).round(2).tolist()
        said = {"bbox": [x, y, width, height], "area": round(seen, 2), "segmentation": polygons, "iscrowd": 0}
        if building.hole is not None:
            mask = masks.polygons_to_mask(polygons, size, size) & ~_court(land, building.hole, size)
            said |= {"segmentation": masks.mask_to_rle(mask), "area": float(mask.sum())}
        found.append((polygons, said))
    return found


def _court(land: Land, hole: Outline, size: int) -> np.ndarray:
    """What of a court lies in the picture, bool (size, size)."""
    outline = in_picture(land.pixels(hole, size), size)
    return masks.polygons_to_mask([outline.ravel().tolist()] if len(outline) else [], size, size)


# ---------------------------------------------------------------------------------------------------------------- files


def write_buildings(folder: Path, images: int, size: int, seed: int) -> None:
    """Write `images` pictures to {train,valid,test}/images, /labels and /_annotations.coco.json, and data.yaml."""
    files = {part: _empty_coco() for part in YOLO_PARTS.values()}
    for part in files:
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True)
    for index in range(images):
        part, special, name = part_of(index), SPECIALS.get(index % PERIOD), f"tile_{index + 1:06d}"
        land = compose(np.random.default_rng([seed, index, 512]), special)
        exif, grey = (special.exif, special.grey) if special else (None, False)
        write_jpeg(folder / part / "images" / f"{name}.jpg", paint_land(land, size), grey, exif)
        found = annotate(land, size)
        lines = [line for polygons, _ in found for line in masks.polygons_to_yolo(0, polygons, size, size)]
        write_lines(folder / part / "labels" / f"{name}.txt", lines)
        files[part]["images"].append({"id": index, "file_name": f"{name}.jpg", "height": size, "width": size})
        files[part]["annotations"] += [
            {"id": 1000 * index + number, "image_id": index, "category_id": 1, **said}
            for number, (_, said) in enumerate(found)
        ]
    for part, content in files.items():
        write_lines(folder / part / "_annotations.coco.json", [json.dumps(content)])
    for part in YOLO_PARTS:
        write_data_yaml(folder, [CLASS], part)


def _empty_coco() -> dict:
    return {
        "info": {"description": "Buildings from above, drawn by code in the format of buildings_yolo"},
        "licenses": LICENSES,
        "categories": [
            {"id": 0, "name": "buildings", "supercategory": "none"},
            {"id": 1, "name": CLASS, "supercategory": "buildings"},
        ],
        "images": [],
        "annotations": [],
    }
