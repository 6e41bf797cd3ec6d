"""Renders the bundled sample of a data set, in that data set's real on-disk format: scenes drawn by code.

Nothing here is downloaded and nobody's photograph is used. Each picture depends on (seed, image index) alone. What
every real data set hides (crowds, holes, turned photographs, grey ones, empty ones ...) is in the sample as well, at
fixed places: see `SPECIALS`. Figures are drawn in `figures`, cast in `casting` and painted on a `stage` before one of
the `backdrops`; here is what COCO's annotators would say of a picture, and how it is written. `voc_scenes` has VOC's,
`aerial_scenes` those of buildings from above.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from seglib import masks
from seglib.datasets.sample import objects as figures
from seglib.datasets.sample.common import LICENSES, PERIOD, VERSION
from seglib.datasets.sample.composition import (
    Special,
    add_person,
    add_small,
    close_up,
    compose,
    empty,
    far_crowd,
    give,
    part_of,
    people,
)
from seglib.datasets.sample.objects import Figure, pick, surroundings
from seglib.datasets.sample.scene import BALL, BOOK, CAT, DOG, PERSON, PLANT, Stage, Thing, paint_stage
from seglib.files import write_jpeg

CATEGORIES = (
    (PERSON, "person", "person"), (CAT, "cat", "animal"), (DOG, "dog", "animal"), (BALL, "sports ball", "sports"),
    (PLANT, "potted plant", "furniture"), (BOOK, "book", "indoor"),
)  # fmt: skip
SMALLEST = 12  # an object of fewer visible pixels is not annotated, unless it is tiny and wholly in sight


# ------------------------------------------------------------------------------------------------------- special scenes


def row_of_plants(stage: Stage) -> None:
    """Potted plants in a row, annotated as one crowd of a category that the lessons do not ask for."""
    parts = [part for i in range(7) for part in figures.moved(figures.plant(stage.rng).parts, (0.34 * i, 0.0))]
    row, scale = Figure(parts, height=figures.PLANT_HEIGHT), max(stage.nearest * 1.3, 0.14 * stage.height)
    stage.put(row, 0.1 * stage.width, scale, PLANT, flip=False, crowd=True)


def behind_posts(stage: Stage) -> None:
    """People partly behind a post and behind each other: outlines of several parts."""
    rng = stage.rng
    for i in range(2):
        x = (0.28 + 0.42 * i) * stage.width
        owner = add_person(stage, x, rng.uniform(0.75, 0.88), "walk" if i else "stand")
        stage.put(surroundings.post(rng).sized(2.4), x + rng.uniform(-1, 1) * 0.01 * stage.width, owner.scale * 1.04)
    add_person(stage, 0.5 * stage.width, 0.5)


def hands_on_hips(stage: Stage) -> None:
    """A near person with the hands on the hips: two holes that a polygon cannot hold."""
    metres = 1.75
    figure = figures.person(stage.rng, "akimbo").sized(metres)
    stage.put(figure, 0.4 * stage.width, 0.95 * stage.height / metres, PERSON)
    add_small(stage, "dog", 0.3, 0.8 * stage.width)


def tiny_things(stage: Stage) -> None:
    """Far people and balls of a few pixels."""
    rng = stage.rng
    scale = max(stage.nearest * 1.05, stage.height * 0.05)
    for _ in range(4):
        figure = figures.ball(rng, pick(rng, figures.BALL_KINDS)).sized(rng.uniform(3.6, 6) / scale)  # pixels to metres
        stage.put(figure, rng.uniform(0.1, 0.9) * stage.width, scale * rng.uniform(1, 1.6), BALL)
    for _ in range(3):
        add_person(stage, rng.uniform(0.1, 0.9) * stage.width, rng.uniform(0.07, 0.14))
    add_person(stage, rng.uniform(0.3, 0.7) * stage.width, 0.8)


def before_big_ball(stage: Stage) -> None:
    """A child before a giant ball, which is outlined straight over it, and of the two the child is the smaller one."""
    _child_before(stage, figures.ball(stage.rng, "beach"), stage.rng.uniform(0.75, 0.85), BALL)


def before_big_book(stage: Stage) -> None:
    """A child before a giant book: as before a giant ball."""
    _child_before(stage, figures.raised_book(stage.rng), stage.rng.uniform(0.62, 0.72), BOOK)


def _child_before(stage: Stage, figure: Figure, share: float, category: int) -> None:
    rng, x = stage.rng, stage.rng.uniform(0.4, 0.6) * stage.width
    child = add_person(stage, x, 0.55, pick(rng, ("stand", "wave", "cheer", "akimbo")), child=True)
    figure = figure.sized(share * stage.height / child.scale)
    big = stage.put(figure, x + rng.uniform(-0.04, 0.04) * stage.width, child.scale * 0.99, category)
    big.holds.append(child)


def on_open_book(stage: Stage) -> None:
    """A kitten and a ball on a big open book, which is outlined straight over them."""
    rng = stage.rng
    scale, side = rng.uniform(0.66, 0.85) * stage.width / 0.54, pick(rng, (-1, 1))  # an open book is 0.54 m wide
    book = stage.put(figures.open_book(rng, rng.uniform(0.6, 0.85)), rng.uniform(0.45, 0.55) * stage.width, scale, BOOK)
    book.y = min(book.y, 0.96 * stage.height)
    kitten = figures.cat(rng, pick(rng, ("lie", "sit"))).sized(rng.uniform(0.13, 0.17))
    give(stage, book, kitten, CAT, (book.x - 0.09 * side * scale, book.y - rng.uniform(0.06, 0.1) * scale))
    ball = figures.ball(rng, "tennis").sized(0.06)
    give(stage, book, ball, BALL, (book.x + 0.13 * side * scale, book.y - rng.uniform(0.03, 0.07) * scale))


def crowd_scene(stage: Stage) -> None:
    """A crowd in the distance, somebody before it, and a ball."""
    far_crowd(stage)
    add_person(stage, stage.rng.uniform(0.3, 0.7) * stage.width, 0.85)
    add_small(stage, "ball", 0.07, stage.rng.uniform(0.1, 0.9) * stage.width)


# ---------------------------------------------------------------------------------------------------- the special cases


def crowd_and_tiny(stage: Stage) -> None:
    """A crowd and tiny things in one picture, for val, which has fewer pictures."""
    crowd_scene(stage)
    tiny_things(stage)


def plants_and_people(stage: Stage) -> None:
    """A crowd of plants, and people."""
    row_of_plants(stage)
    people(stage)


SPECIALS: dict[int, Special] = {  # by image index, counted modulo PERIOD; every fifth (2, 7, 12, 17 ...) is val
    0: Special(people, aspect=0.75),
    1: Special(crowd_scene, indoor=False, camera=1.5, aspect=0.667),
    2: Special(crowd_and_tiny, indoor=False, camera=1.5, aspect=0.75),
    3: Special(behind_posts, indoor=False, camera=1.1),
    4: Special(hands_on_hips, camera=1.0),
    5: Special(people, aspect=0.75, exif=6),
    6: Special(empty, camera=1.2),
    7: Special(behind_posts, indoor=False, camera=1.1, aspect=1.333, exif=6),
    8: Special(before_big_book, camera=0.9, aspect=0.75),
    9: Special(on_open_book, indoor=True, camera=0.4, aspect=0.75),
    10: Special(tiny_things, indoor=False, camera=1.5),
    11: Special(people, grey=True),
    12: Special(empty, camera=1.2),
    13: Special(plants_and_people, indoor=False, camera=1.2),
    14: Special(people, aspect=1.333, exif=8, stored=True),
    15: Special(before_big_ball, camera=0.9, aspect=1.0),
    16: Special(behind_posts, indoor=False, camera=1.1, aspect=0.667),
    17: Special(before_big_book, camera=0.9, aspect=0.75, grey=True),
    18: Special(close_up, indoor=True, camera=0.35),
    22: Special(on_open_book, indoor=True, camera=0.4, aspect=0.75),
    27: Special(hands_on_hips, camera=1.0, aspect=1.333),
}


# ---------------------------------------------------------------------------------------------------------- annotations


def visible_masks(stage: Stage) -> list[tuple[Thing, np.ndarray]]:
    """Each annotated thing's outline as an annotator would draw it, bool (H, W): what is seen of it.

    What a thing holds does not count as being in its way: the two outlines overlap.
    """
    sprites = [(thing, thing.sprite, thing.sprite.solid()) for thing in stage.things if thing.sprite]
    found = []
    for i, (thing, sprite, solid) in enumerate(sprites):
        if thing.category is None:
            continue
        mask = np.zeros((stage.height, stage.width), dtype=bool)
        mask[sprite.window] = solid
        for other, cover, in_the_way in sprites[i + 1 :]:
            if not any(other is held or other.part_of is held for held in (thing, *thing.holds)):
                mask[cover.window] &= ~in_the_way
        # A thing so small that few pixels are all it has may have fewer, if hardly any of them are hidden.
        tiny = thing.figure.size * thing.scale < 12 and mask.sum() >= 0.8 * solid.sum()
        if mask.sum() >= (4 if tiny else SMALLEST):
            found.append((thing, mask))
    return found


def annotate(mask: np.ndarray, crowd: bool) -> dict:
    """COCO's segmentation, area, bbox and iscrowd of a bool (H, W) mask.

    A crowd is stored as a plain run-length code, as in COCO. Other objects are polygons, except where these would fill
    holes: those are stored as a compressed run-length code. Area and bbox are those of what the segmentation covers.
    """
    segmentation, covered = (_plain_rle(mask), mask) if crowd else _segmentation(mask)
    return {
        "segmentation": segmentation,
        "area": float(covered.sum()),
        "bbox": [float(value) for value in _box(covered)],
        "iscrowd": int(crowd),
    }


def _segmentation(mask: np.ndarray) -> tuple[list[list[float]] | dict, np.ndarray]:
    """Polygons, or a run-length code where they would be wrong by 2 % of the mask; what that covers, bool (H, W)."""
    # Of few pixels each one counts: a small mask is traced exactly.
    polygons = masks.mask_to_polygons(mask) if mask.sum() < 200 else _polygons(mask)
    covered = masks.polygons_to_mask(polygons, *mask.shape)
    if (covered ^ mask).sum() > max(0.02 * mask.sum(), 8):
        return masks.mask_to_rle(mask), mask
    return polygons, covered


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height of what is True in the mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Simple outlines of a mask's parts, true to about half a pixel; holes are filled.

    The mask is traced at twice its size: the line then runs inside the outermost pixels, a quarter from their edge.
    """
    left, top, width, height = _box(mask)
    part = mask[top : top + height, left : left + width].astype(np.uint8)
    loops, _ = cv2.findContours(part.repeat(2, axis=0).repeat(2, axis=1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    loops = [cv2.approxPolyDP(loop, 0.8, True)[:, 0] for loop in loops]
    return [((loop + 0.5) / 2 + (left, top)).ravel().tolist() for loop in loops if len(loop) > 2]


def _plain_rle(mask: np.ndarray) -> dict:
    """Run lengths down the columns, beginning with zeros, as a list of whole numbers."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}


# ---------------------------------------------------------------------------------------------------------------- files


def write_coco(folder: Path, images: int, size: int, seed: int) -> None:
    files: dict[str, dict] = {part: _empty_coco(part) for part in ("train", "val")}
    for part in files:
        (folder / "images" / part).mkdir(parents=True)
    for index in range(images):
        part, special = part_of(index, images), SPECIALS.get(index % PERIOD)
        stage = compose(np.random.default_rng([seed, index]), size, special)
        picture, image_id = paint_stage(stage), (index + 1) * 139  # ids with gaps, as COCO's are
        objects = [(thing.category, thing.crowd, mask) for thing, mask in visible_masks(stage)]
        height, width = picture.shape[:2]
        if special and special.stored:  # the picture lies on its side in the file, and so the annotators saw it
            height, width = width, height
            objects = [(category, crowd, np.rot90(mask, -1)) for category, crowd, mask in objects]
        name = f"{image_id:012d}.jpg"
        exif, grey = (special.exif, special.grey) if special else (None, False)
        write_jpeg(folder / "images" / part / name, picture, grey, exif)
        files[part]["images"].append(
            {"id": image_id, "file_name": name, "width": width, "height": height, "license": 1}
        )
        files[part]["annotations"] += [
            {"id": index * 1000 + number, "image_id": image_id, "category_id": category, **annotate(mask, crowd)}
            for number, (category, crowd, mask) in enumerate(objects, start=1)
        ]
    (folder / "annotations").mkdir()
    for part, content in files.items():
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content), encoding="utf-8")


def _empty_coco(part: str) -> dict:
    return {
        "info": {"description": f"Scenes drawn by code in COCO's format, {part}", "version": str(VERSION)},
        "licenses": LICENSES,
        "images": [],
        "annotations": [],
        "categories": [{"id": id_, "name": name, "supercategory": group} for id_, name, group in CATEGORIES],
    }
