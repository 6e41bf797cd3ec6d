"""The bundled sample of COCO: annotations that fit the pictures, and the special cases of real photographs."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from seglib.datasets import COCOSegmentationDataset
from seglib.datasets.sample.coco import ORIENTATIONS, STORED, compose
from seglib.datasets.sample.scene import Scene

LESSON = ("person", "cat", "sports ball", "book")


@pytest.fixture(params=["train", "val"])
def coco(request, sample):
    file = COCO(sample / f"annotations/instances_{request.param}.json")
    file.split = request.param
    return file


def annotations(coco, **wanted) -> list[dict]:
    return coco.loadAnns(coco.getAnnIds(**wanted))


def test_masks_lie_where_the_objects_were_painted():
    scene = compose(0, 160, seed=3)
    picture = scene.paint().astype(int)
    everything = np.any([mask for _, mask in scene.visible()], axis=0)
    scene.objects.clear()
    changed = np.abs(scene.paint() - picture).max(axis=2) > 110  # more than a shadow does
    assert (changed & ~everything).sum() < 0.03 * everything.sum()
    assert (changed & everything).sum() > 0.1 * everything.sum() > 100


def test_crowds_and_nothing_else_are_run_lengths(coco):
    assert all(bool(entry["iscrowd"]) == isinstance(entry["segmentation"], dict) for entry in coco.anns.values())
    crowds = annotations(coco, iscrowd=True)
    assert all(isinstance(crowd["segmentation"]["counts"], list) for crowd in crowds)
    assert 0.05 <= len(crowds) / len(coco.imgs) <= 0.2 and max(crowd["area"] for crowd in crowds) > 0.03 * 160 * 120


def test_both_splits_have_the_special_cases(coco, sample):
    objects = annotations(coco, iscrowd=False)
    assert any(len(entry["segmentation"]) > 1 for entry in objects), "several parts"
    assert any(max(entry["bbox"][2:]) <= 8 for entry in objects), "tiny objects"
    assert any(entry["bbox"][0] == 0 and entry["category_id"] == 1 for entry in objects), "cut off by the border"
    assert any(not coco.getAnnIds(imgIds=[image_id]) for image_id in coco.imgs), "no objects"
    assert any(Image.open(path).mode == "L" for path in (sample / "images" / coco.split).iterdir())
    where = sample / "images" / coco.split, sample / f"annotations/instances_{coco.split}.json", LESSON
    rules = [COCOSegmentationDataset(*where, overlap=rule) for rule in ("maximum", "smallest")]
    assert any((rules[0].mask(i) != rules[1].mask(i)).any() for i in range(len(coco.imgs)))


def test_annotations_of_rotated_pictures_fit_what_is_stored_or_shown(coco, sample):
    for index in (index for index in ORIENTATIONS if 139 * (index + 1) in coco.imgs):
        scene = compose(index, 160, seed=0)
        image = coco.imgs[139 * (index + 1)]
        with Image.open(sample / "images" / coco.split / image["file_name"]) as file:
            shown = ImageOps.exif_transpose(file)
            assert (file if index == STORED else shown).size == (image["width"], image["height"])
        assert np.abs(np.asarray(shown, dtype=int) - scene.paint()).mean() < 12
        expected = np.any([mask for placed, mask in scene.visible() if placed.name == "person"], axis=0)
        people = [coco.annToMask(entry) for entry in annotations(coco, imgIds=[image["id"]], catIds=[1])]
        found = np.rot90(np.any(people, axis=0), index == STORED)
        assert (found & expected).sum() > 0.9 * (found | expected).sum()


def test_each_class_of_the_lessons_is_on_a_quarter_of_the_images(coco):
    for category in coco.getCatIds(catNms=LESSON):
        assert len(coco.getImgIds(catIds=[category])) >= len(coco.imgs) / 4
    assert np.median([entry["bbox"][3] for entry in annotations(coco, catIds=[37, 84])]) > 0.1 * 120


def test_far_objects_move_less_when_the_camera_moves():
    scene = Scene(np.random.default_rng(0), 160, indoor=False)
    for size in (0, 1):
        scene.put("box", 0.5, size)
    columns = []
    for scene.pan in (0.0, 0.2):
        scene.paint()
        columns.append([np.nonzero(mask)[1].mean() for _, mask in scene.visible()])
    far, near = np.subtract(columns[1], columns[0])
    assert near < far < 0 and scene.stuff.max() > scene.stuff.min()
