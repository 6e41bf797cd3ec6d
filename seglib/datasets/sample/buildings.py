"""Writes the sample of buildings from above, in the layout of `buildings_yolo`.

A building is annotated by the outline of its whole roof, also where a tree hides a corner. A bridge cuts it in two.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seglib import masks
from seglib.datasets.sample.aerial import AerialScene, make_aerial_scene, paint_aerial_scene
from seglib.datasets.sample.coco import annotation, write_annotations
from seglib.datasets.sample.objects import write_jpeg
from seglib.datasets.yolo import YOLO_PARTS, write_data_yaml
from seglib.files import write_lines

__all__ = ["annotate", "make_scene", "split_of", "write_image", "write_lists"]

PERIOD = 80  # the special images repeat after so many; a multiple of 5, so that their splits repeat as well
SPECIALS = {3: "courtyards", 4: "bridge", 5: "open", 6: "open", 7: "open", 9: "dense"}  # kinds by index, modulo PERIOD
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
    place = index % PERIOD
    write_jpeg(folder / split / f"images/{name}.jpg", picture, place in GRAY, 6 if place in ROTATED else None)
    found = annotate(scene, size)
    write_lines(folder / split / f"labels/{name}.txt", [line for lines, _ in found for line in lines])
    for number, (_, one) in enumerate(found):
        one |= {"id": 1000 * index + number, "image_id": index}
    entry = {"id": index, "file_name": f"{name}.jpg", "height": size, "width": size}
    return {"split": split, "image": entry, "annotations": [one for _, one in found]}


def write_lists(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write {train,valid,test}/_annotations.coco.json and data.yaml from what `write_image` returned."""
    for part, split in YOLO_PARTS.items():
        (folder / split / "labels").mkdir(parents=True, exist_ok=True)
        write_annotations(folder / split / "_annotations.coco.json", records, split, {"buildings": 0, "building": 1})
        write_data_yaml(folder, ["building"], part)


def annotate(scene: AerialScene, size: int) -> list[tuple[list[str], dict[str, Any]]]:
    """Return YOLO's lines and COCO's annotation of each building that an image of `size` pixels shows.

    In COCO, a building with a courtyard is a run-length code with a hole. YOLO's polygon fills the hole.
    """
    found = []
    bridges = [polygon for outline in scene.bridges for polygon in _clip(scene, outline, size)]
    hidden = masks.polygons_to_mask(bridges, size, size)
    for roof, *courtyards in scene.buildings:
        polygons = _clip(scene, roof, size)
        mask = masks.polygons_to_mask(polygons, size, size)
        if (mask & hidden).any():
            mask &= ~hidden
            polygons = masks.mask_to_polygons(mask)
        if not polygons:
            continue
        segmentation: Any = polygons
        for courtyard in courtyards:
            if hole := _clip(scene, courtyard, size):
                mask &= ~masks.polygons_to_mask(hole, size, size)
                segmentation = masks.mask_to_rle(mask)
        found.append((masks.polygons_to_yolo(0, polygons, size, size), annotation(1, segmentation, mask)))
    return found


def _clip(scene: AerialScene, outline: np.ndarray, size: int) -> list[masks.Polygon]:
    """The part of an outline that the image shows, in pixels: one polygon, or none if it is too small."""
    points = scene.to_pixels(outline, size)
    is_outside = points.max(axis=0).min() <= 0 or points.min(axis=0).max() >= size
    polygons = [] if is_outside else [points.ravel().tolist()]
    if masks.polygons_to_mask(polygons, size, size).sum() < MIN_PIXELS:
        return []
    (line,) = masks.polygons_to_yolo(0, polygons, size, size)
    return masks.yolo_to_polygons(line, size, size)[1]
