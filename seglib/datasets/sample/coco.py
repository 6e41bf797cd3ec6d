"""Writes the bundled sample in COCO's format.

`SPECIALS` lists the pictures that show a special case of real data sets: crowds, holes, rotated photographs, grayscale
photographs, photographs without objects and others.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from seglib import masks
from seglib.datasets.sample import old_objects as objects
from seglib.datasets.sample.common import LICENSES, PERIOD, VERSION
from seglib.datasets.sample.composition import (
    Special,
    add_close_up,
    add_distant_crowd,
    add_held_object,
    add_people,
    add_person,
    add_small_object,
    compose,
    leave_empty,
    split_of,
)
from seglib.datasets.sample.old_objects import Drawing, pick, surroundings
from seglib.datasets.sample.scene import BALL, BOOK, CAT, DOG, PERSON, PLANT, Scene, SceneObject, paint_scene
from seglib.files import write_jpeg

__all__ = ["SPECIALS", "annotate", "visible_masks", "write_coco"]

CATEGORIES = (
    (PERSON, "person", "person"), (CAT, "cat", "animal"), (DOG, "dog", "animal"), (BALL, "sports ball", "sports"),
    (PLANT, "potted plant", "furniture"), (BOOK, "book", "indoor"),
)  # fmt: skip
MIN_VISIBLE_PIXELS = 12  # objects with fewer visible pixels are not annotated, unless they are tiny and not hidden


# ------------------------------------------------------------------------------------------------------- special scenes


def _add_row_of_plants(scene: Scene) -> None:
    """Add potted plants in a row, annotated as one crowd of a category that the lessons do not use."""
    plants = [objects.plant(scene.rng).parts for _ in range(7)]
    parts = [part for i, plant in enumerate(plants) for part in objects.translate(plant, (0.34 * i, 0.0))]
    row = Drawing(parts, height=objects.PLANT_HEIGHT)
    scale = max(scene.min_scale * 1.3, 0.14 * scene.height)
    scene.place(row, 0.1 * scene.width, scale, PLANT, flip=False, crowd=True)


def _add_people_behind_posts(scene: Scene) -> None:
    """Add people who are partly behind posts and behind each other: outlines with several parts."""
    rng = scene.rng
    for i in range(2):
        x = (0.28 + 0.42 * i) * scene.width
        person = add_person(scene, x, rng.uniform(0.75, 0.88), "walk" if i else "stand")
        post = surroundings.post(rng).with_height(2.4)
        scene.place(post, x + rng.uniform(-1, 1) * 0.01 * scene.width, person.scale * 1.04)
    add_person(scene, 0.5 * scene.width, 0.5)


def _add_person_with_hands_on_hips(scene: Scene) -> None:
    """Add a near person with the hands on the hips: two holes, which a polygon cannot represent."""
    meters = 1.75
    drawing = objects.person(scene.rng, "akimbo").with_height(meters)
    scene.place(drawing, 0.4 * scene.width, 0.95 * scene.height / meters, PERSON)
    add_small_object(scene, "dog", 0.3, 0.8 * scene.width)


def _add_tiny_objects(scene: Scene) -> None:
    """Add distant people and balls of a few pixels."""
    rng = scene.rng
    scale = max(scene.min_scale * 1.05, scene.height * 0.05)
    for _ in range(4):
        ball = objects.ball(rng, pick(rng, objects.BALL_KINDS))
        ball = ball.with_height(rng.uniform(3.6, 6) / scale)  # 3.6 to 6 pixels
        scene.place(ball, rng.uniform(0.1, 0.9) * scene.width, scale * rng.uniform(1, 1.6), BALL)
    for _ in range(3):
        add_person(scene, rng.uniform(0.1, 0.9) * scene.width, rng.uniform(0.07, 0.14))
    add_person(scene, rng.uniform(0.3, 0.7) * scene.width, 0.8)


def _add_child_before_big_ball(scene: Scene) -> None:
    """Add a smaller child in front of a giant ball, whose annotation includes the pixels of the child."""
    _add_child_before(scene, objects.ball(scene.rng, "beach"), scene.rng.uniform(0.75, 0.85), BALL)


def _add_child_before_big_book(scene: Scene) -> None:
    """Add a smaller child in front of a giant book, whose annotation includes the pixels of the child."""
    _add_child_before(scene, objects.raised_book(scene.rng), scene.rng.uniform(0.62, 0.72), BOOK)


def _add_child_before(scene: Scene, drawing: Drawing, share: float, category: int) -> None:
    rng = scene.rng
    x = scene.rng.uniform(0.4, 0.6) * scene.width
    child = add_person(scene, x, 0.55, pick(rng, ("stand", "wave", "cheer", "akimbo")), child=True)
    drawing = drawing.with_height(share * scene.height / child.scale)
    big = scene.place(drawing, x + rng.uniform(-0.04, 0.04) * scene.width, child.scale * 0.99, category)
    big.held_objects.append(child)


def _add_objects_on_open_book(scene: Scene) -> None:
    """Add a kitten and a ball on a big open book, whose annotation includes their pixels."""
    rng = scene.rng
    scale = rng.uniform(0.66, 0.85) * scene.width / 0.54  # an open book is 0.54 m wide
    side = pick(rng, (-1, 1))
    book = scene.place(
        objects.open_book(rng, rng.uniform(0.6, 0.85)), rng.uniform(0.45, 0.55) * scene.width, scale, BOOK
    )
    book.y = min(book.y, 0.96 * scene.height)
    kitten = objects.cat(rng, pick(rng, ("lie", "sit"))).with_height(rng.uniform(0.13, 0.17))
    add_held_object(scene, book, kitten, CAT, (book.x - 0.09 * side * scale, book.y - rng.uniform(0.06, 0.1) * scale))
    ball = objects.ball(rng, "tennis").with_height(0.06)
    add_held_object(scene, book, ball, BALL, (book.x + 0.13 * side * scale, book.y - rng.uniform(0.03, 0.07) * scale))


def _add_crowd_and_person(scene: Scene) -> None:
    """Add a crowd in the distance, a person in front of it and a ball."""
    add_distant_crowd(scene)
    add_person(scene, scene.rng.uniform(0.3, 0.7) * scene.width, 0.85)
    add_small_object(scene, "ball", 0.07, scene.rng.uniform(0.1, 0.9) * scene.width)


def _add_crowd_and_tiny_objects(scene: Scene) -> None:
    """Add a crowd and tiny objects; the validation split has few pictures and shows both cases in one."""
    _add_crowd_and_person(scene)
    _add_tiny_objects(scene)


def _add_plants_and_people(scene: Scene) -> None:
    """Add a crowd of plants, and people."""
    _add_row_of_plants(scene)
    add_people(scene)


SPECIALS: dict[int, Special] = {  # by image index modulo PERIOD; 2, 7, 12 and 17 are in the validation split
    0: Special(add_people, aspect=0.75),
    1: Special(_add_crowd_and_person, indoor=False, camera=1.5, aspect=0.667),
    2: Special(_add_crowd_and_tiny_objects, indoor=False, camera=1.5, aspect=0.75),
    3: Special(_add_people_behind_posts, indoor=False, camera=1.1),
    4: Special(_add_person_with_hands_on_hips, camera=1.0),
    5: Special(add_people, aspect=0.75, exif=6),
    6: Special(leave_empty, camera=1.2),
    7: Special(_add_people_behind_posts, indoor=False, camera=1.1, aspect=1.333, exif=6),
    8: Special(_add_child_before_big_book, camera=0.9, aspect=0.75),
    9: Special(_add_objects_on_open_book, indoor=True, camera=0.4, aspect=0.75),
    10: Special(_add_tiny_objects, indoor=False, camera=1.5),
    11: Special(add_people, gray=True),
    12: Special(leave_empty, camera=1.2),
    13: Special(_add_plants_and_people, indoor=False, camera=1.2),
    14: Special(add_people, aspect=1.333, exif=8, stored=True),
    15: Special(_add_child_before_big_ball, camera=0.9, aspect=1.0),
    16: Special(_add_people_behind_posts, indoor=False, camera=1.1, aspect=0.667),
    17: Special(_add_child_before_big_book, camera=0.9, aspect=0.75, gray=True),
    18: Special(add_close_up, indoor=True, camera=0.35),
    22: Special(_add_objects_on_open_book, indoor=True, camera=0.4, aspect=0.75),
    27: Special(_add_person_with_hands_on_hips, camera=1.0, aspect=1.333),
}


# ---------------------------------------------------------------------------------------------------------- annotations


def visible_masks(scene: Scene) -> list[tuple[SceneObject, np.ndarray]]:
    """Return the annotated objects of a painted scene with the masks of their visible pixels, bool (H, W).

    An object that another one holds does not hide it: the two masks overlap.
    """
    sprites = [(obj, obj.sprite, obj.sprite.solid()) for obj in scene.objects if obj.sprite]
    found = []
    for i, (obj, sprite, solid) in enumerate(sprites):
        if obj.category is None:
            continue
        mask = np.zeros((scene.height, scene.width), dtype=bool)
        mask[sprite.window] = solid
        for other, cover, in_the_way in sprites[i + 1 :]:
            if not any(other is held or other.owner is held for held in (obj, *obj.held_objects)):
                mask[cover.window] &= ~in_the_way
        # A tiny object may have fewer pixels than others if hardly any of them are hidden.
        tiny = obj.drawing.size * obj.scale < 12 and mask.sum() >= 0.8 * solid.sum()
        if mask.sum() >= (4 if tiny else MIN_VISIBLE_PIXELS):
            found.append((obj, mask))
    return found


def annotate(mask: np.ndarray, crowd: bool) -> dict:
    """Return COCO's segmentation, area, bbox and iscrowd of a bool (H, W) mask.

    A crowd becomes an uncompressed run-length code, as in COCO. Other objects become polygons, or a compressed
    run-length code if polygons would fill holes. Area and bbox are those of the segmentation.
    """
    segmentation, covered = (_plain_rle(mask), mask) if crowd else _segmentation(mask)
    return {
        "segmentation": segmentation,
        "area": float(covered.sum()),
        "bbox": [float(value) for value in _box(covered)],
        "iscrowd": int(crowd),
    }


def _segmentation(mask: np.ndarray) -> tuple[list[list[float]] | dict, np.ndarray]:
    """Return polygons, or a run-length code if they miss the mask by 2 %, and the mask that they cover, bool (H, W)."""
    # Each pixel of a small mask matters: it is traced exactly.
    polygons = masks.mask_to_polygons(mask) if mask.sum() < 200 else _polygons(mask)
    covered = masks.polygons_to_mask(polygons, *mask.shape)
    if (covered ^ mask).sum() > max(0.02 * mask.sum(), 8):
        return masks.mask_to_rle(mask), mask
    return polygons, covered


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the True pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Return simplified outlines of a mask's parts, accurate to about half a pixel; holes are filled.

    The mask is traced at twice its size, so that the line runs a quarter of a pixel inside the edge of the mask.
    """
    left, top, width, height = _box(mask)
    part = mask[top : top + height, left : left + width].astype(np.uint8)
    loops, _ = cv2.findContours(part.repeat(2, axis=0).repeat(2, axis=1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    loops = [cv2.approxPolyDP(loop, 0.8, True)[:, 0] for loop in loops]
    return [((loop + 0.5) / 2 + (left, top)).ravel().tolist() for loop in loops if len(loop) > 2]


def _plain_rle(mask: np.ndarray) -> dict:
    """Return the uncompressed run-length code of a mask: column by column, starting with the number of zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}


# ---------------------------------------------------------------------------------------------------------------- files


def write_coco(folder: Path, images: int, size: int, seed: int) -> None:
    """Write the sample to images/{train,val} and annotations/instances_{train,val}.json.

    Args:
        folder: where to write.
        images: number of pictures.
        size: longer side of a picture in pixels.
        seed: another seed gives other pictures.
    """
    files: dict[str, dict] = {split: _empty_coco(split) for split in ("train", "val")}
    for split in files:
        (folder / "images" / split).mkdir(parents=True)
    for index in range(images):
        split = split_of(index, images)
        special = SPECIALS.get(index % PERIOD)
        scene = compose(np.random.default_rng([seed, index]), size, special)
        picture = paint_scene(scene)
        image_id = (index + 1) * 139  # COCO's ids have gaps as well
        found = visible_masks(scene)
        height, width = picture.shape[:2]
        if special and special.stored:  # annotated without regard to the EXIF orientation
            height, width = width, height
            found = [(obj, np.rot90(mask, -1)) for obj, mask in found]
        name = f"{image_id:012d}.jpg"
        exif, gray = (special.exif, special.gray) if special else (None, False)
        write_jpeg(folder / "images" / split / name, picture, gray, exif)
        files[split]["images"].append(
            {"id": image_id, "file_name": name, "width": width, "height": height, "license": 1}
        )
        files[split]["annotations"] += [
            {"id": index * 1000 + i, "image_id": image_id, "category_id": obj.category, **annotate(mask, obj.crowd)}
            for i, (obj, mask) in enumerate(found, start=1)
        ]
    (folder / "annotations").mkdir()
    for split, content in files.items():
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")


def _empty_coco(split: str) -> dict:
    return {
        "info": {"description": f"Scenes drawn by code in COCO's format, {split}", "version": str(VERSION)},
        "licenses": LICENSES,
        "images": [],
        "annotations": [],
        "categories": [{"id": id_, "name": name, "supercategory": group} for id_, name, group in CATEGORIES],
    }
