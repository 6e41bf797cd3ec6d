"""Writes the bundled sample in the layout of PASCAL VOC's devkit; seven of its twenty classes occur."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from seglib.datasets.sample.coco import split_of
from seglib.datasets.sample.objects import write_jpeg
from seglib.datasets.sample.scene import Placed, Scene
from seglib.datasets.voc import VOC_CLASSES
from seglib.files import write_lines
from seglib.masks import IGNORE, voc_palette, write_index_png

__all__ = ["CLASSES", "compose", "label_masks", "write_image", "write_lists"]

BORDER = 5 / 500  # width of the border of 255 between two labels, divided by the longer side of a picture, as in VOC
CLASSES = {  # VOC's names of drawn objects
    "person": "person", "cat": "cat", "dog": "dog", "potted plant": "pottedplant", "car": "car", "sofa": "sofa",
    "table": "diningtable",
}  # fmt: skip
# The chance of each object, and its smallest and largest size; see `Scene.put`.
ROOM = {
    "sofa": (0.65, 0.0, 0.6), "table": (0.55, 0.0, 0.6), "potted plant": (0.5, 0.3, 1.0), "person": (0.5, 0.3, 1.05),
    "cat": (0.45, 0.5, 1.05), "dog": (0.35, 0.5, 1.05), "box": (0.3, 0.2, 0.8),
}  # fmt: skip
STREET = {
    "car": (0.85, 0.0, 0.6), "person": (0.7, 0.3, 1.05), "dog": (0.4, 0.5, 1.05), "cat": (0.3, 0.5, 1.05),
    "potted plant": (0.25, 0.3, 1.0), "tree": (0.5, 0.0, 0.2), "post": (0.3, 0.0, 0.6),
}  # fmt: skip


def compose(index: int, size: int, seed: int) -> Scene:
    """Return the living room or the street of an image with its objects."""
    rng = np.random.default_rng([seed, index, 2012])
    scene = Scene(rng, size, indoor=bool(rng.random() < 0.55), aspect=float(rng.choice([0.667, 0.75, 1.333])))
    kinds = ROOM if scene.indoor else STREET
    names = [name for name, (chance, _, _) in kinds.items() if rng.random() < chance]
    if CLASSES.keys().isdisjoint(names):
        names.append("person")
    for name, slot in zip(names, rng.permutation(len(names)), strict=True):
        placed = scene.put(name, (slot + rng.uniform(0.1, 0.9)) / len(names), rng.uniform(*kinds[name][1:]))
        if name == "sofa" and rng.random() < 0.3:
            scene.put_before(placed, str(rng.choice(["cat", "dog"])), 0.42, 0.45)
    return scene


def label_masks(visible: Sequence[tuple[Placed, np.ndarray]], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the class mask and the object mask, both uint8 (height, width); see `Scene.visible`.

    Objects are numbered from 1. Borders are 255 in both masks.
    """
    classes = np.zeros((height, width), np.uint8)
    objects = np.zeros_like(classes)
    for number, (placed, mask) in enumerate((item for item in visible if item[0].name in CLASSES), start=1):
        classes[mask] = VOC_CLASSES.index(CLASSES[placed.name])
        objects[mask] = number
    side = max(1, round(BORDER * max(height, width))) + 1  # a window of this size that crosses an edge holds two labels
    window = np.ones((side, side), np.uint8)
    void = cv2.dilate(objects, window) != cv2.erode(objects, window)
    classes[void] = IGNORE
    objects[void] = IGNORE
    return classes, objects


def write_image(folder: Path, index: int, images: int, size: int, seed: int) -> dict[str, str]:
    """Write a picture, and its masks to SegmentationClass/ and SegmentationObject/; return its split and its name."""
    scene = compose(index, size, seed)
    name = f"2012_{index + 1:06d}"
    write_jpeg(folder / f"JPEGImages/{name}.jpg", scene.paint())
    classes, objects = label_masks(scene.visible(), scene.height, scene.width)
    write_index_png(folder / f"SegmentationClass/{name}.png", classes, VOC_CLASSES, voc_palette())
    numbers = [str(number) for number in range(IGNORE)]
    write_index_png(folder / f"SegmentationObject/{name}.png", objects, numbers, voc_palette())
    return {"split": split_of(index, images), "name": name}


def write_lists(folder: Path, records: Sequence[dict[str, str]]) -> None:
    """Write ImageSets/Segmentation/{train,val,trainval}.txt from what `write_image` has returned."""
    for split in ("train", "val", "trainval"):
        names = [record["name"] for record in records if record["split"] in split]
        write_lines(folder / "ImageSets/Segmentation" / f"{split}.txt", names)
