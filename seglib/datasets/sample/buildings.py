"""Writes the bundled sample of buildings seen from above, in the layout of `buildings_yolo`.

The outline of a building is that of its whole roof, also where a tree hides a corner of it. Only a bridge interrupts
an outline.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seglib import masks
from seglib.datasets.sample.aerial import SPECIALS, compose
from seglib.datasets.sample.aerial_ground import AerialScene, paint_aerial_scene
from seglib.datasets.sample.common import LICENSES, PERIOD
from seglib.datasets.sample.old_objects.outlines import Outline
from seglib.datasets.sample.old_objects.roofs import Building, next_points
from seglib.datasets.yolo import YOLO_PARTS, write_data_yaml
from seglib.files import write_jpeg, write_lines

__all__ = ["annotate", "split_of", "visible_outlines", "write_image", "write_lists"]

CLASS = "building"
# A building at the border is left out if less than this share and fewer than this number of pixels are visible.
MIN_VISIBLE_SHARE = 0.04
MIN_VISIBLE_PIXELS = 12


def split_of(index: int) -> str:
    """Return "train", "valid" or "test": of five pictures in a row, the second is valid and the third is test."""
    return ("train", "valid", "test", "train", "train")[index % 5]


# ---------------------------------------------------------------------------------------------------------- annotations


def _clip_half_plane(outline: Outline, normal: tuple[float, float], limit: float) -> Outline:
    """Return the part of an outline where point . normal <= limit, float (m, 2); m may be 0.

    The first point of the outline stays the first if it is kept.
    """
    rest = masks.clip_to_half_plane(np.roll(outline, -1, axis=0), normal, limit)
    return np.roll(rest, 1, axis=0) if limit - outline[0] @ normal >= 0 else rest


def visible_outlines(scene: AerialScene, building: Building, size: int) -> list[Outline]:
    """Return the outlines of the visible parts of a building, each float (n, 2) in pixels.

    There are two parts if a bridge crosses the building. Outlines end at the border of the picture. A hole is ignored.
    """
    parts = [building.outline]
    if scene.bridge:
        (left, _), (right, _) = scene.bridge.deck[0], scene.bridge.deck[1]
        parts = [_clip_half_plane(building.outline, (1, 0), left), _clip_half_plane(building.outline, (-1, 0), -right)]
    parts = [_clip_to_image(scene.to_pixels(part, size), size) for part in parts if len(part)]
    return [part for part in parts if len(part) > 2 and _polygon_area(part) > 0]


def _clip_to_image(outline: Outline, size: int) -> Outline:
    """Return the part of an outline, in pixels, that lies in the picture."""
    for normal, limit in (((-1, 0), 0), ((1, 0), size), ((0, -1), 0), ((0, 1), size)):
        outline = _clip_half_plane(outline, normal, limit)
        if not len(outline):
            break
    return outline


def _polygon_area(outline: Outline) -> float:
    """Return the area inside an outline, by the shoelace formula."""
    x, y = outline.T
    return float(abs(x @ next_points(y) - y @ next_points(x))) / 2


def annotate(scene: AerialScene, size: int) -> list[tuple[list[list[float]], dict]]:
    """Return the polygons and the COCO annotation of each visible building, in pixels with two decimals.

    The annotation of a building with a courtyard is a run-length code with a hole; its polygon fills the hole.
    """
    found = []
    for building in scene.buildings:
        parts = [part.round(2) for part in visible_outlines(scene, building, size)]
        seen = sum(map(_polygon_area, parts))
        whole = _polygon_area(building.outline) * (size / scene.view) ** 2
        if seen == 0 or (seen < MIN_VISIBLE_SHARE * whole and seen < MIN_VISIBLE_PIXELS):
            continue
        polygons = [part.ravel().tolist() for part in parts]
        points = np.concatenate(parts)
        (x, y), (width, height) = points.min(axis=0).tolist(), np.ptp(points, axis=0).round(2).tolist()
        annotation = {"bbox": [x, y, width, height], "area": round(seen, 2), "segmentation": polygons, "iscrowd": 0}
        if building.hole is not None:
            mask = masks.polygons_to_mask(polygons, size, size) & ~_courtyard_mask(scene, building.hole, size)
            annotation |= {"segmentation": masks.mask_to_rle(mask), "area": float(mask.sum())}
        found.append((polygons, annotation))
    return found


def _courtyard_mask(scene: AerialScene, hole: Outline, size: int) -> np.ndarray:
    """Return the mask of a courtyard, bool (size, size)."""
    outline = _clip_to_image(scene.to_pixels(hole, size), size)
    return masks.polygons_to_mask([outline.ravel().tolist()] if len(outline) else [], size, size)


# ---------------------------------------------------------------------------------------------------------------- files


def write_image(folder: Path, index: int, images: int, size: int, seed: int) -> dict:
    """Write a picture and its labels to {train,valid,test}/images and /labels; return its split and COCO's entries."""
    split = split_of(index)
    special = SPECIALS.get(index % PERIOD)
    name = f"tile_{index + 1:06d}"
    scene = compose(np.random.default_rng([seed, index, 512]), special)
    exif, gray = (special.exif, special.gray) if special else (None, False)
    (folder / split / "images").mkdir(parents=True, exist_ok=True)
    write_jpeg(folder / split / "images" / f"{name}.jpg", paint_aerial_scene(scene, size), gray, exif)
    found = annotate(scene, size)
    lines = [line for polygons, _ in found for line in masks.polygons_to_yolo(0, polygons, size, size)]
    write_lines(folder / split / "labels" / f"{name}.txt", lines)
    return {
        "split": split,
        "image": {"id": index, "file_name": f"{name}.jpg", "height": size, "width": size},
        "annotations": [
            {"id": 1000 * index + number, "image_id": index, "category_id": 1, **annotation}
            for number, (_, annotation) in enumerate(found)
        ],
    }


def write_lists(folder: Path, records: Sequence[dict]) -> None:
    """Write {train,valid,test}/_annotations.coco.json and data.yaml from what `write_image` has returned."""
    for part, split in YOLO_PARTS.items():
        here = [record for record in records if record["split"] == split]
        content = _empty_coco()
        content["images"] = [record["image"] for record in here]
        content["annotations"] = [annotation for record in here for annotation in record["annotations"]]
        write_lines(folder / split / "_annotations.coco.json", [json.dumps(content)])
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
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
