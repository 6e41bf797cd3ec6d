"""The bundled sample of PASCAL VOC: scenes drawn by code in the layout of its devkit.

Of VOC's twenty classes seven are drawn; the others never occur, as some do not in any small part of the real set. Where
two labels meet lies a border that does not count, as wide for the picture as VOC's is.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from seglib.datasets.download.catalog import VOC_CLASSES
from seglib.datasets.sample import objects as figures
from seglib.datasets.sample.composition import add_person, add_small, close_up, compose, part_of, people
from seglib.datasets.sample.objects import Figure, surroundings
from seglib.datasets.sample.scene import CAT, DOG, PERSON, PLANT, Stage, Thing, paint_stage
from seglib.masks import IGNORE, voc_palette, write_index_png

BORDER = 5 / 500  # width of VOC's border, as a share of the longer side of a picture
CLASS_OF_CATEGORY = {PERSON: "person", CAT: "cat", DOG: "dog", PLANT: "pottedplant"}
CLASS_OF_KIND = {"car": "car", "sofa": "sofa", "table": "diningtable"}

# --------------------------------------------------------------------------------------------------------------- scenes


def street(stage: Stage) -> None:
    """Cars from the side, one of them near, and who walks by."""
    rng = stage.rng
    for i in range(int(rng.integers(1, 4))):
        share = rng.uniform(0.45, 0.85) if i == 0 else rng.uniform(0.2, 0.45)  # of the picture's width
        put_by_width(stage, surroundings.car, share, rng.uniform(0.1, 0.9))
    for _ in range(int(rng.integers(0, 3))):
        add_person(stage, rng.uniform(0.05, 0.95) * stage.width, rng.uniform(0.4, 0.9))
    if rng.random() < 0.3:
        add_small(stage, "dog", rng.uniform(0.2, 0.35), rng.uniform(0.1, 0.9) * stage.width)


def living_room(stage: Stage) -> None:
    """A sofa, with a cat on it perhaps, a table, and who else is in."""
    rng = stage.rng
    sofa = put_by_width(stage, surroundings.sofa, rng.uniform(0.45, 0.8), rng.uniform(0.3, 0.7))
    if rng.random() < 0.5:
        seat, x = 0.5 * sofa.scale, sofa.x + rng.uniform(-0.5, 0.5) * sofa.scale
        stage.hang(figures.cat(rng, "lie"), x, sofa.y - seat, sofa.scale, CAT, depth=sofa.depth + 0.001)
    if rng.random() < 0.6:
        put_by_width(stage, surroundings.table, rng.uniform(0.25, 0.5), rng.uniform(0.1, 0.9))
    for what, chance in (("plant", 0.6), ("dog", 0.4), ("cat", 0.3)):
        if rng.random() < chance:
            add_small(stage, what, rng.uniform(0.2, 0.45), rng.uniform(0.05, 0.95) * stage.width)
    if rng.random() < 0.4:
        add_person(stage, rng.uniform(0.1, 0.9) * stage.width, rng.uniform(0.7, 1.0))


def put_by_width(stage: Stage, draw: Callable[[np.random.Generator], Figure], share: float, x: float) -> Thing:
    """Put what one of `surroundings` draws on the ground, `share` of the picture wide; x: 0 is left, 1 right."""
    figure = draw(stage.rng)
    across = float(np.ptp(np.concatenate([part.outline[:, 0] for part in figure.parts])))  # metres
    lowest = stage.scale_at(0.98 * stage.height)
    scale = min(max(share * stage.width / across, stage.nearest * 1.05), lowest)
    thing = stage.put(figure, x * stage.width, scale)
    thing.kind = draw.__name__
    return thing


ORDINARY = (  # scene, indoor, camera height in metres, share of the pictures
    (people, False, (0.95, 1.3), 0.17), (people, True, (0.95, 1.25), 0.13), (close_up, False, (0.3, 0.5), 0.12),
    (close_up, True, (0.3, 0.45), 0.12), (street, False, (0.9, 1.4), 0.22), (living_room, True, (0.8, 1.2), 0.24),
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------- masks


def class_of(thing: Thing) -> int:
    """VOC's class of a thing, 0 for what it has none for; 255 for a crowd, in which nobody can be told apart."""
    if thing.crowd:
        return IGNORE
    name = CLASS_OF_KIND.get(thing.kind) if thing.category is None else CLASS_OF_CATEGORY.get(thing.category)
    return VOC_CLASSES.index(name) if name else 0


def label(stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """The masks of a painted stage, both uint8 (H, W): classes, and objects counted from 1; 255 does not count."""
    classes = np.zeros((stage.height, stage.width), np.uint8)
    objects = np.zeros_like(classes)
    numbers: dict[int, int] = {}
    for thing in stage.things:  # from far to near, as they were painted
        if thing.sprite is None:
            continue
        owner = thing.part_of or thing  # fingers belong to their hand
        index = class_of(owner)
        number = numbers.setdefault(id(owner), len(numbers) + 1) if index else 0
        seen = thing.sprite.solid()
        classes[thing.sprite.window][seen] = index
        objects[thing.sprite.window][seen] = number
    side = max(1, round(BORDER * max(classes.shape))) + 1  # of a window that, laid over an edge, is not all alike
    window = np.ones((side, side), np.uint8)
    void = (cv2.dilate(objects, window) != cv2.erode(objects, window)) | (classes == IGNORE)
    classes[void] = objects[void] = IGNORE
    return classes, objects


# ---------------------------------------------------------------------------------------------------------------- files


def write_voc(folder: Path, images: int, size: int, seed: int) -> None:
    """Write `images` scenes to JPEGImages/, SegmentationClass/, SegmentationObject/ and ImageSets/Segmentation/."""
    for name in ("JPEGImages", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    names: dict[str, list[str]] = {"train": [], "val": []}
    colours = voc_palette()
    for index in range(images):
        stage = compose(np.random.default_rng([seed, index, 2012]), size, ordinary=ORDINARY)
        picture, name = paint_stage(stage), f"2012_{index + 1:06d}"
        names[part_of(index, images)].append(name)
        Image.fromarray(picture).save(folder / "JPEGImages" / f"{name}.jpg", quality=90)
        classes, objects = label(stage)
        write_index_png(folder / "SegmentationClass" / f"{name}.png", classes, VOC_CLASSES, colours)
        write_index_png(folder / "SegmentationObject" / f"{name}.png", objects, range(IGNORE), colours)
    for part, listed in (*names.items(), ("trainval", sorted(sum(names.values(), [])))):
        (folder / "ImageSets/Segmentation" / f"{part}.txt").write_text("".join(f"{name}\n" for name in listed))
