"""Writes the sample of buildings from above, in the layout of `buildings_yolo`.

A building is annotated by the outline of its whole roof, also where a tree hides a corner. A bridge cuts it in two.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from seglib import masks
from seglib.datasets.sample.aerial import AerialScene, Building, make_aerial_scene, paint_aerial_scene
from seglib.datasets.sample.objects import write_jpeg
from seglib.datasets.yolo import YOLO_PARTS, write_data_yaml
from seglib.files import write_lines

__all__ = ["annotate", "make_scene", "split_of", "write_image", "write_lists"]

PERIOD = 80  # the special images repeat after so many; a multiple of 5, so that their splits repeat as well
SPECIALS = {  # kinds of scenes by index, modulo PERIOD
    0: "suburb", 3: "courtyards", 4: "bridge", 5: "open", 6: "open", 7: "open", 9: "dense", 10: "sheds",
    13: "suburb", 14: "town", 16: "country", 17: "works",
}  # fmt: skip
ORDINARY = {"suburb": 0.36, "terraces": 0.14, "town": 0.24, "works": 0.14, "country": 0.12}  # shares of the others
ROTATED = (13, 16)  # stored on their side; EXIF says so
GRAY = (14, 17)
MIN_PIXELS = 12  # a building of which the border leaves less is not annotated


def split_of(index: int) -> str:
    """Return "train", "valid" or "test": of five images in a row, the second is valid and the third is test."""
    return ("train", "valid", "test", "train", "train")[index % 5]


def make_scene(index: int, seed: int) -> AerialScene:
    """Return the scene of an image."""
    rng = np.random.default_rng([seed, index])
    ordinary = rng.choice(list(ORDINARY), p=list(ORDINARY.values()))
    return make_aerial_scene(rng, SPECIALS.get(index % PERIOD, ordinary))


def write_image(folder: Path, index: int, images: int, size: int, seed: int) -> dict[str, Any]:
    """Write an image and its labels to {train,valid,test}/images and /labels; return what its COCO file says of it."""
    split = split_of(index)
    name = f"tile_{index + 1:06d}"
    scene = make_scene(index, seed)
    picture, _ = paint_aerial_scene(scene, size, scene.rng)
    for kind in ("images", "labels"):
        (folder / split / kind).mkdir(parents=True, exist_ok=True)
    place = index % PERIOD
    write_jpeg(folder / split / f"images/{name}.jpg", picture, place in GRAY, 6 if place in ROTATED else None)
    found = annotate(scene, size)
    write_lines(folder / split / f"labels/{name}.txt", [line for lines, _ in found for line in lines])
    ids = [{"id": 1000 * index + i, "image_id": index, "category_id": 1, "iscrowd": 0} for i in range(len(found))]
    return {
        "split": split,
        "image": {"id": index, "file_name": f"{name}.jpg", "height": size, "width": size},
        "annotations": [one | annotation for one, (_, annotation) in zip(ids, found, strict=True)],
    }


def write_lists(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write {train,valid,test}/_annotations.coco.json and data.yaml from what `write_image` returned."""
    for part, split in YOLO_PARTS.items():
        here = [record for record in records if record["split"] == split]
        content = {
            "info": {"description": "Buildings from above, drawn by code"},
            "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
            "categories": [
                {"id": 0, "name": "buildings", "supercategory": "none"},
                {"id": 1, "name": "building", "supercategory": "buildings"},
            ],
            "images": [record["image"] for record in here],
            "annotations": [annotation for record in here for annotation in record["annotations"]],
        }
        (folder / split / "labels").mkdir(parents=True, exist_ok=True)
        write_lines(folder / split / "_annotations.coco.json", [json.dumps(content)])
        write_data_yaml(folder, ["building"], part)


def annotate(scene: AerialScene, size: int) -> list[tuple[list[str], dict[str, Any]]]:
    """Return YOLO's lines and COCO's annotation of each building that an image of `size` pixels shows.

    In COCO, a building with a courtyard is a run-length code with a hole. YOLO's polygon fills the hole.
    """
    found = []
    for building in scene.buildings:
        lines = []
        for part in _parts(scene, building):
            points = scene.to_pixels(part, size)
            pixels = coco_mask.area(_rle(points, size))
            if pixels >= min(MIN_PIXELS, cv2.contourArea(points.astype(np.float32)) / 2):
                lines += masks.polygons_to_yolo(0, [points.ravel().tolist()], size, size)
        if not lines:
            continue
        polygons = [masks.yolo_to_polygons(line, size, size)[1][0] for line in lines]  # end at the border
        rle = masks.polygons_to_rle(polygons, size, size)
        segmentation: Any = polygons
        for courtyard in building.outlines[1:]:
            hole = masks.rle_to_mask(_rle(scene.to_pixels(courtyard, size), size))
            segmentation = rle = masks.mask_to_rle(masks.rle_to_mask(rle) & ~hole)
        box = coco_mask.toBbox(rle).tolist()
        found.append((lines, {"segmentation": segmentation, "bbox": box, "area": int(coco_mask.area(rle))}))
    return found


def _parts(scene: AerialScene, building: Building) -> list[np.ndarray]:
    """The outlines of a roof: two if the bridge crosses it."""
    outline = building.outlines[0]
    if scene.bridge is None:
        return [outline]
    (left, top), _, (right, bottom), _ = scene.bridge
    far = 2 * scene.view
    sides = [[(x, top), (x + far, top), (x + far, bottom), (x, bottom)] for x in (left - far, right)]
    parts = [cv2.intersectConvexConvex(outline, np.array(side, np.float32)) for side in sides]
    return [part[:, 0] for area, part in parts if area > 0]


def _rle(points: np.ndarray, size: int) -> masks.RLE:
    """The pixels of an outline, which may lie outside the image."""
    is_outside = points.max(axis=0).min() <= 0 or points.min(axis=0).max() >= size
    return masks.polygons_to_rle([] if is_outside else [points.ravel().tolist()], size, size)
