"""Writes the bundled sample in the layout of PASCAL VOC's devkit.

Seven of VOC's twenty classes occur. A border of 255 separates two labels; relative to the picture it is as wide as
VOC's.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from seglib.datasets.sample import old_objects as objects
from seglib.datasets.sample.composition import (
    Ordinary,
    add_close_up,
    add_people,
    add_person,
    add_small_object,
    compose,
    split_of,
)
from seglib.datasets.sample.old_objects import Drawing, surroundings
from seglib.datasets.sample.scene import CAT, DOG, PERSON, PLANT, Scene, SceneObject, paint_scene
from seglib.datasets.voc import VOC_CLASSES
from seglib.files import write_lines
from seglib.masks import IGNORE, voc_palette, write_index_png

__all__ = ["label_masks", "write_voc"]

DrawingFunction = Callable[[np.random.Generator], Drawing]
BORDER = 5 / 500  # width of VOC's border divided by the longer side of a picture
CLASS_OF_CATEGORY = {PERSON: "person", CAT: "cat", DOG: "dog", PLANT: "pottedplant"}
CLASS_OF_KIND = {"car": "car", "sofa": "sofa", "table": "diningtable"}

# --------------------------------------------------------------------------------------------------------------- scenes


def _add_street_objects(scene: Scene) -> None:
    """Add cars seen from the side, people and sometimes a dog."""
    rng = scene.rng
    for i in range(int(rng.integers(1, 4))):
        share = rng.uniform(0.45, 0.85) if i == 0 else rng.uniform(0.2, 0.45)  # of the picture's width
        _place_by_width(scene, surroundings.car, share, rng.uniform(0.1, 0.9))
    for _ in range(int(rng.integers(0, 3))):
        add_person(scene, rng.uniform(0.05, 0.95) * scene.width, rng.uniform(0.4, 0.9))
    if rng.random() < 0.3:
        add_small_object(scene, "dog", rng.uniform(0.2, 0.35), rng.uniform(0.1, 0.9) * scene.width)


def _add_living_room_objects(scene: Scene) -> None:
    """Add a sofa and sometimes a cat on it, a table, plants, animals and a person."""
    rng = scene.rng
    sofa = _place_by_width(scene, surroundings.sofa, rng.uniform(0.45, 0.8), rng.uniform(0.3, 0.7))
    if rng.random() < 0.5:
        seat = 0.5 * sofa.scale
        x = sofa.x + rng.uniform(-0.5, 0.5) * sofa.scale
        scene.attach(objects.cat(rng, "lie"), x, sofa.y - seat, sofa.scale, CAT, depth=sofa.depth + 0.001)
    if rng.random() < 0.6:
        _place_by_width(scene, surroundings.table, rng.uniform(0.25, 0.5), rng.uniform(0.1, 0.9))
    for name, chance in (("plant", 0.6), ("dog", 0.4), ("cat", 0.3)):
        if rng.random() < chance:
            add_small_object(scene, name, rng.uniform(0.2, 0.45), rng.uniform(0.05, 0.95) * scene.width)
    if rng.random() < 0.4:
        add_person(scene, rng.uniform(0.1, 0.9) * scene.width, rng.uniform(0.7, 1.0))


def _place_by_width(scene: Scene, draw: DrawingFunction, share: float, x: float) -> SceneObject:
    """Place a drawing on the ground.

    Args:
        draw: a function of `surroundings`.
        share: width as a fraction of the picture's width.
        x: position between 0 (left) and 1 (right).
    """
    drawing = draw(scene.rng)
    across = float(np.ptp(np.concatenate([part.outline[:, 0] for part in drawing.parts])))  # meters
    lowest = scene.scale_at(0.98 * scene.height)
    scale = min(max(share * scene.width / across, scene.min_scale * 1.05), lowest)
    obj = scene.place(drawing, x * scene.width, scale)
    obj.kind = draw.__name__
    return obj


ORDINARY: tuple[Ordinary, ...] = (
    (add_people, False, (0.95, 1.3), 0.17),
    (add_people, True, (0.95, 1.25), 0.13),
    (add_close_up, False, (0.3, 0.5), 0.12),
    (add_close_up, True, (0.3, 0.45), 0.12),
    (_add_street_objects, False, (0.9, 1.4), 0.22),
    (_add_living_room_objects, True, (0.8, 1.2), 0.24),
)

# ---------------------------------------------------------------------------------------------------------------- masks


def _class_index(obj: SceneObject) -> int:
    """Return VOC's class of an object: 0 if there is none, 255 for a crowd."""
    if obj.crowd:
        return IGNORE
    name = CLASS_OF_KIND.get(obj.kind) if obj.category is None else CLASS_OF_CATEGORY.get(obj.category)
    return VOC_CLASSES.index(name) if name else 0


def label_masks(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the class mask and the object mask of a painted scene, both uint8 (H, W).

    Objects are numbered from 1. Borders and crowds are 255 in both masks.
    """
    classes = np.zeros((scene.height, scene.width), np.uint8)
    instances = np.zeros_like(classes)
    numbers: dict[int, int] = {}
    for obj in scene.objects:  # from far to near, as in paint_scene
        if obj.sprite is None:
            continue
        owner = obj.owner or obj  # fingers get the label of their person
        index = _class_index(owner)
        number = numbers.setdefault(id(owner), len(numbers) + 1) if index else 0
        seen = obj.sprite.solid()
        classes[obj.sprite.window][seen] = index
        instances[obj.sprite.window][seen] = number
    side = max(1, round(BORDER * max(classes.shape))) + 1  # a window of this size that crosses an edge holds two labels
    window = np.ones((side, side), np.uint8)
    void = (cv2.dilate(instances, window) != cv2.erode(instances, window)) | (classes == IGNORE)
    classes[void] = instances[void] = IGNORE
    return classes, instances


# ---------------------------------------------------------------------------------------------------------------- files


def write_voc(folder: Path, images: int, size: int, seed: int) -> None:
    """Write the sample to JPEGImages/, SegmentationClass/, SegmentationObject/ and ImageSets/Segmentation/.

    Args:
        folder: where to write.
        images: number of pictures.
        size: longer side of a picture in pixels.
        seed: another seed gives other pictures.
    """
    for name in ("JPEGImages", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    names: dict[str, list[str]] = {"train": [], "val": []}
    colors = voc_palette()
    numbers = [str(number) for number in range(IGNORE)]  # the names of the objects
    for index in range(images):
        scene = compose(np.random.default_rng([seed, index, 2012]), size, ordinary=ORDINARY)
        picture = paint_scene(scene)
        name = f"2012_{index + 1:06d}"
        names[split_of(index, images)].append(name)
        Image.fromarray(picture).save(folder / "JPEGImages" / f"{name}.jpg", quality=90)
        classes, instances = label_masks(scene)
        write_index_png(folder / "SegmentationClass" / f"{name}.png", classes, VOC_CLASSES, colors)
        write_index_png(folder / "SegmentationObject" / f"{name}.png", instances, numbers, colors)
    names["trainval"] = sorted(names["train"] + names["val"])
    for split, listed in names.items():
        write_lines(folder / "ImageSets/Segmentation" / f"{split}.txt", listed)
