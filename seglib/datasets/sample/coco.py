"""Writes the bundled sample in COCO's format: crowds as uncompressed run-length codes, other objects as polygons."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from seglib import masks
from seglib.datasets.sample.objects import write_jpeg
from seglib.datasets.sample.scene import Placed, Scene, everyday
from seglib.files import write_lines

__all__ = ["annotate", "annotation", "compose", "split_of", "write_annotations", "write_image", "write_lists"]

IDS = {"person": 1, "cat": 17, "dog": 18, "sports ball": 37, "potted plant": 64, "book": 84}
PERIOD = 240  # the special pictures repeat after this many pictures
MIN_PIXELS = 8  # objects with fewer visible pixels are not annotated
# Special pictures by index, modulo PERIOD; 2, 7, 12 and 17 are in the validation split.
CROWDS = (1, 2)
POSTS = (3, 7)
EMPTY = (6, 12)
TINY_BALLS = (10, 20, 27)
GRAY = (11, 17)
ORIENTATIONS = {5: 6, 7: 6, 14: 8}  # EXIF
STORED = 14  # its annotations refer to the stored pixels, not to what a viewer shows


def compose(index: int, size: int, seed: int) -> Scene:
    """Return the scene of an image with its objects."""
    rng = np.random.default_rng([seed, index])
    scene = Scene(rng, size, indoor=bool(rng.random() < 0.5), aspect=float(rng.choice([0.667, 0.75, 0.75, 1.333])))
    place = index % PERIOD
    if place in EMPTY:
        scene.put("box", 0.5, 0.5)
        return scene
    if place in CROWDS or rng.random() < 0.08:  # people who stand close together in the background
        start = rng.uniform(0.05, 0.4)
        for x in np.linspace(start, start + 0.55, 11):
            scene.put("person", x, rng.uniform(0, 0.08)).crowd = True
    everyday(scene)
    if place in POSTS:  # a person behind a post, in several parts
        x = rng.uniform(0.2, 0.8)
        owner = scene.put("person", x, rng.uniform(0.5, 0.9))
        scene.put("post", x + 0.02, 1.0).scale = owner.scale + 0.01
    if place in TINY_BALLS:
        for x in rng.uniform(0.1, 0.9, 4):
            scene.put("sports ball", x, 0, meters=0.18)
    return scene


def annotate(visible: Sequence[tuple[Placed, np.ndarray]]) -> list[dict[str, Any]]:
    """Return COCO's annotations, without ids, of objects and their visible pixels; see `Scene.visible`."""
    found = []
    crowd = [mask for placed, mask in visible if placed.crowd]
    if crowd:
        region = np.any(crowd, axis=0)
        found.append(annotation(IDS["person"], _plain_rle(region), region, iscrowd=1))
    for placed, mask in visible:
        if placed.name in IDS and not placed.crowd and mask.sum() >= MIN_PIXELS:
            polygons = _polygons(mask)
            found.append(annotation(IDS[placed.name], polygons, masks.polygons_to_mask(polygons, *mask.shape)))
    return found


def annotation(category: int, segmentation: list | dict, mask: np.ndarray, iscrowd: int = 0) -> dict[str, Any]:
    """Return a COCO annotation, without ids, of an object with a bool (H, W) mask."""
    return {
        "category_id": category,
        "segmentation": segmentation,
        "area": float(mask.sum()),
        "bbox": [float(value) for value in cv2.boundingRect(mask.astype(np.uint8))],
        "iscrowd": iscrowd,
    }


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """The outlines of a mask's parts, holes filled, to about half a pixel; those of a small mask are exact."""
    if mask.sum() < 200:
        return masks.mask_to_polygons(mask)
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)  # traced a quarter of a pixel inside its edge
    loops, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    loops = [cv2.approxPolyDP(loop, 0.8, True) for loop in loops]
    return [((loop + 0.5) / 2).ravel().tolist() for loop in loops if len(loop) > 2]


def _plain_rle(mask: np.ndarray) -> dict[str, Any]:
    """The uncompressed run-length code of a mask: column by column, starting with the number of zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    return {"size": list(mask.shape), "counts": np.diff([0, *changes, flat.size]).tolist()}


def split_of(index: int, images: int) -> str:
    """Return "train" or "val": every fifth picture is for validation; of two pictures, the second."""
    return "val" if index % 5 == 2 or (images == 2 and index == 1) else "train"


def write_image(folder: Path, index: int, images: int, size: int, seed: int) -> dict[str, Any]:
    """Write a picture to images/{train,val}; return its split, its entry in the annotation file and its annotations."""
    scene = compose(index, size, seed)
    picture = scene.paint()
    visible = scene.visible()
    height, width = picture.shape[:2]
    place = index % PERIOD
    if place == STORED:
        height, width = width, height
        visible = [(placed, np.rot90(mask, -1)) for placed, mask in visible]
    split = split_of(index, images)
    image_id = (index + 1) * 139  # COCO's ids have gaps as well
    file = folder / f"images/{split}/{image_id:012d}.jpg"
    write_jpeg(file, picture, place in GRAY, ORIENTATIONS.get(place))
    entry = {"id": image_id, "file_name": file.name, "width": width, "height": height}
    annotations = annotate(visible)
    for number, one in enumerate(annotations, start=1):
        one |= {"id": index * 1000 + number, "image_id": image_id}
    return {"split": split, "image": entry, "annotations": annotations}


def write_lists(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write annotations/instances_{train,val}.json from what `write_image` has returned."""
    for split in ("train", "val"):
        write_annotations(folder / f"annotations/instances_{split}.json", records, split, IDS)


def write_annotations(path: Path, records: Sequence[dict[str, Any]], split: str, ids: dict[str, int]) -> None:
    """Write COCO's annotation file of a split from what `write_image` has returned; ids: those of the categories."""
    here = [record for record in records if record["split"] == split]
    content = {
        "info": {"description": f"Scenes drawn by code, in COCO's format: {split}"},
        "images": [record["image"] for record in here],
        "annotations": [annotation for record in here for annotation in record["annotations"]],
        "categories": [{"id": category, "name": name} for name, category in ids.items()],
    }
    write_lines(path, [json.dumps(content)])
