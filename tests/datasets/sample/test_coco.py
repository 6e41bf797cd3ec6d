"""The bundled sample of COCO: annotations that fit the pictures, and the special cases of real photographs."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from seglib.datasets import COCOSegmentationDataset
from seglib.datasets.sample.coco import ORIENTATIONS, STORED, compose
from seglib.datasets.sample.scene import Scene

LESSON = ("person", "cat", "sports ball", "book")
ORIENTATION = 0x0112


@pytest.fixture(params=["train", "val"])
def split(request):
    return request.param


@pytest.fixture
def coco(split, sample):
    return COCO(sample / f"annotations/instances_{split}.json")


def annotations(coco, **wanted) -> list[dict]:
    return coco.loadAnns(coco.getAnnIds(**wanted))


def test_area_and_box_are_those_of_the_mask(coco):
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows = np.flatnonzero(mask.any(axis=1))
        columns = np.flatnonzero(mask.any(axis=0))
        assert annotation["area"] == mask.sum() > 0
        assert annotation["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_masks_lie_where_the_objects_were_painted():
    scene = compose(0, 160, seed=3)
    picture = scene.paint().astype(int)
    everything = np.any([mask for _, mask in scene.visible()], axis=0)
    scene.objects.clear()
    changed = np.abs(scene.paint() - picture).max(axis=2) > 110  # more than a shadow does
    assert everything.sum() > 1000 and (changed & ~everything).sum() < 0.03 * everything.sum()
    assert (changed & everything).sum() > 0.1 * everything.sum()


def test_crowds_and_nothing_else_are_run_lengths(coco):
    assert all(bool(entry["iscrowd"]) == isinstance(entry["segmentation"], dict) for entry in coco.anns.values())
    crowds = annotations(coco, iscrowd=True)
    assert all(isinstance(crowd["segmentation"]["counts"], list) for crowd in crowds)
    assert 0.05 <= len(crowds) / len(coco.imgs) <= 0.2 and max(crowd["area"] for crowd in crowds) > 0.03 * 160 * 120


def test_both_splits_have_the_special_cases(split, coco, sample):
    objects = annotations(coco, iscrowd=False)
    assert any(len(entry["segmentation"]) > 1 for entry in objects), "several parts"
    assert any(max(entry["bbox"][2:]) <= 8 for entry in objects), "tiny objects"
    assert any(entry["bbox"][0] == 0 and entry["category_id"] == 1 for entry in objects), "cut off by the border"
    assert any(not coco.getAnnIds(imgIds=[image_id]) for image_id in coco.imgs), "no objects"
    where = sample / "images" / split, sample / f"annotations/instances_{split}.json", LESSON
    rules = [COCOSegmentationDataset(*where, overlap=rule) for rule in ("maximum", "smallest")]
    assert any((rules[0].mask(i) != rules[1].mask(i)).any() for i in range(len(coco.imgs)))


def test_annotations_of_gray_and_rotated_pictures_fit_what_is_stored_or_shown(split, coco, sample):
    seen = set()
    for index in (image_id // 139 - 1 for image_id in coco.imgs):
        image = coco.imgs[(index + 1) * 139]
        with Image.open(sample / "images" / split / image["file_name"]) as file:
            seen.add((file.mode, file.getexif().get(ORIENTATION, 1)))
            shown = ImageOps.exif_transpose(file)
            assert (file if index == STORED else shown).size == (image["width"], image["height"])
        people = annotations(coco, imgIds=[image["id"]], catIds=[1])
        if index in ORIENTATIONS and people:
            scene = compose(index, 160, seed=0)
            assert np.abs(np.asarray(shown, dtype=int) - scene.paint()).mean() < 12
            expected = np.any([mask for placed, mask in scene.visible() if placed.name == "person"], axis=0)
            found = np.rot90(np.any([coco.annToMask(entry) for entry in people], axis=0), index == STORED)
            assert (found & expected).sum() > 0.9 * (found | expected).sum() > 0
    assert seen == {("RGB", 1), ("L", 1), ("RGB", 6)} | ({("RGB", 8)} if split == "train" else set())


def test_each_class_of_the_lessons_is_on_a_quarter_of_the_images(coco):
    for category in coco.getCatIds(catNms=LESSON):
        assert len(coco.getImgIds(catIds=[category])) >= len(coco.imgs) / 4
    heights = [entry["bbox"][3] for entry in annotations(coco, catIds=[37, 84], iscrowd=False)]
    assert np.median(heights) > 0.1 * 120


def test_a_scene_can_be_painted_again_from_a_camera_that_has_moved():
    scene = Scene(np.random.default_rng(0), 160, indoor=False)
    scene.put("box", 0.5, 0)
    scene.put("box", 0.5, 1)
    first = scene.paint()
    columns = [np.nonzero(mask)[1].mean() for _, mask in scene.visible()]
    assert (scene.paint() == first).all() and scene.stuff.max() > scene.stuff.min()
    scene.pan = 0.2
    scene.paint()
    far, near = [
        np.nonzero(mask)[1].mean() - before for (_, mask), before in zip(scene.visible(), columns, strict=True)
    ]
    assert near < far < 0
