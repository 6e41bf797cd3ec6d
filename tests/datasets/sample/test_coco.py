"""The bundled sample of COCO: annotations that fit the pictures, and the special cases of real photographs."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from seglib import masks
from seglib.datasets.sample.coco import SPECIALS, annotate, visible_masks
from seglib.datasets.sample.composition import compose, split_of
from seglib.datasets.sample.old_objects import Drawing, Part, ellipse
from seglib.datasets.sample.scene import BALL, BOOK, CAT, PERSON, PLANT, make_scene, paint_scene

WANTED = (PERSON, CAT, BALL, BOOK)  # in the order of the lessons' classes
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def splits(sample):
    return {split: COCO(sample / f"annotations/instances_{split}.json") for split in ("train", "val")}


@pytest.fixture(params=["train", "val"])
def split(request):
    return request.param


@pytest.fixture
def coco(split, splits):
    return splits[split]


def annotations(coco, **wanted) -> list[dict]:
    return coco.loadAnns(coco.getAnnIds(**wanted))


def union(coco, image_id: int, category: int) -> np.ndarray:
    image = coco.imgs[image_id]
    found = [coco.annToMask(entry) for entry in annotations(coco, imgIds=[image_id], catIds=[category])]
    return np.any([np.zeros((image["height"], image["width"])), *found], axis=0)


def overlaps(coco) -> set[tuple[int, int]]:
    """Pairs of categories that overlap where the smaller object has the lower class: the overlap rules differ."""
    found = set()
    for image_id in coco.imgs:
        here = annotations(coco, imgIds=[image_id], catIds=list(WANTED), iscrowd=False)
        for low, high in combinations(sorted(here, key=lambda entry: entry["category_id"]), 2):
            smaller = low["category_id"] < high["category_id"] and low["area"] < high["area"]
            if smaller and (coco.annToMask(low) & coco.annToMask(high)).sum() > 20:
                found.add((low["category_id"], high["category_id"]))
    return found


def test_area_and_box_are_those_of_the_mask(coco):
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows = np.flatnonzero(mask.any(axis=1))
        columns = np.flatnonzero(mask.any(axis=0))
        assert annotation["area"] == mask.sum() > 0
        assert annotation["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_a_mask_lies_where_the_object_was_painted():
    scene = make_scene(np.random.default_rng(0), 160, indoor=True, camera=1.0, aspect=0.75)
    scene.canvas[:] = 90.0
    red = Drawing([Part(ellipse((0, 0.5), 0.3, 0.5), (255, 0, 0), flat=True)], height=1.0)
    scene.place(red, 70, 60.0, PERSON)
    picture = paint_scene(scene).astype(int)
    ((_, mask),) = visible_masks(scene)
    drawn = masks.polygons_to_mask(annotate(mask, crowd=False)["segmentation"], *mask.shape)
    assert ((picture[..., 0] - picture[..., 1] > 80) ^ drawn).sum() < 0.02 * mask.sum()


def test_a_crowd_is_an_uncompressed_run_length_code(coco):
    crowd = annotations(coco, catIds=[PERSON], iscrowd=True)[0]
    people = annotations(coco, imgIds=[crowd["image_id"]], catIds=[PERSON], iscrowd=False)
    assert isinstance(crowd["segmentation"]["counts"], list) and crowd["area"] > 50
    assert any(person["area"] > crowd["area"] for person in people)


def test_both_splits_have_the_special_cases(coco):
    assert any(max(ball["bbox"][2:]) <= 7 for ball in annotations(coco, catIds=[BALL])), "tiny objects"
    assert any(not coco.getAnnIds(imgIds=[image_id]) for image_id in coco.imgs), "no objects"
    people = [entry["segmentation"] for entry in annotations(coco, catIds=[PERSON], iscrowd=False)]
    assert any(isinstance(polygons, list) and len(polygons) > 1 for polygons in people), "several parts"
    assert np.mean([isinstance(entry["segmentation"], list) for entry in annotations(coco, iscrowd=False)]) > 0.85
    assert overlaps(coco)


def test_the_training_split_has_all_special_cases(splits):
    train = splits["train"]
    assert annotations(train, catIds=[PLANT], iscrowd=True), "a crowd of a category that the lessons do not use"
    assert {(PERSON, BALL), (PERSON, BOOK), (CAT, BOOK), (BALL, BOOK)} <= overlaps(train)
    holes = 0
    for entry in annotations(train, iscrowd=False):
        if isinstance(entry["segmentation"], dict):
            mask = train.annToMask(entry).astype(bool)
            holes += (masks.polygons_to_mask(masks.mask_to_polygons(mask), *mask.shape) & ~mask).sum() > 8
    assert holes


def test_some_pictures_are_grayscale_and_some_rotated(split, coco, sample):
    modes = set()
    orientations = []
    for image in coco.imgs.values():
        with Image.open(sample / "images" / split / image["file_name"]) as file:
            orientation = file.getexif().get(ORIENTATION, 1)
            size = file.size if orientation == 8 else ImageOps.exif_transpose(file).size
            modes.add(file.mode)
        assert size == (image["width"], image["height"]) and max(size) == 160
        orientations += [orientation] if orientation != 1 else []
    assert modes == {"RGB", "L"} and sorted(orientations) == ([6, 8] if split == "train" else [6])


@pytest.mark.parametrize("index", [5, 7, 14])
def test_annotations_of_rotated_pictures_fit_them(index, sample, splits):
    split = split_of(index, 80)
    image_id = (index + 1) * 139
    scene = compose(np.random.default_rng([0, index]), 160, SPECIALS[index])
    upright = paint_scene(scene).astype(int)
    with Image.open(sample / "images" / split / splits[split].imgs[image_id]["file_name"]) as file:
        shown = np.asarray(ImageOps.exif_transpose(file), dtype=int)
    expected = np.any([mask for obj, mask in visible_masks(scene) if obj.category == PERSON], axis=0)
    found = np.rot90(union(splits[split], image_id, PERSON), 1 if SPECIALS[index].stored else 0)
    assert np.abs(shown - upright).mean() < 12
    assert (found & expected).sum() > 0.95 * (found | expected).sum()


def test_every_category_occurs_and_people_cover_most(splits):
    train, val = splits.values()
    for category in WANTED:
        assert len(train.getImgIds(catIds=[category])) >= 10 and len(val.getImgIds(catIds=[category])) >= 3
    pixels = {c: sum(entry["area"] for entry in annotations(train, catIds=[c])) for c in WANTED}
    assert pixels[PERSON] > 3 * max(pixels[BALL], pixels[BOOK], pixels[CAT])


def test_color_alone_does_not_find_people(splits, sample):
    values = []
    truth = []
    for image in splits["val"].imgs.values():
        with Image.open(sample / "images/val" / image["file_name"]) as file:
            shown = ImageOps.exif_transpose(file).convert("RGB")
        planes = [np.asarray(shown.convert(mode)).reshape(shown.width * shown.height, -1) for mode in ("RGB", "HSV")]
        values.append(np.concatenate(planes, axis=1))
        truth.append(union(splits["val"], image["id"], PERSON).ravel())
    is_person = np.concatenate(truth)
    assert all(best_threshold_iou(channel, is_person) < 0.35 for channel in np.concatenate(values).T)


def best_threshold_iou(values: np.ndarray, truth: np.ndarray) -> float:
    """The best IoU with `truth` of any mask "value at most t" or "value above t"."""
    hits = np.bincount(values[truth], minlength=256).cumsum()
    chosen = np.bincount(values, minlength=256).cumsum()
    below = hits / (truth.sum() + chosen - hits)
    above = (hits[-1] - hits) / (hits[-1] + (chosen[-1] - chosen) - (hits[-1] - hits))
    return float(max(below.max(), above.max()))
