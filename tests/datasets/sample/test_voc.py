"""The bundled sample of PASCAL VOC: layout, palette, classes and the border that does not count."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglib.datasets import VOCSegmentationDataset, render
from seglib.datasets.sample.old_objects import Drawing, Part, ellipse
from seglib.datasets.sample.scene import PERSON, make_scene, paint_scene
from seglib.datasets.sample.voc import label_masks
from seglib.datasets.voc import VOC_CLASSES
from seglib.masks import voc_palette

DRAWN = {"car", "cat", "diningtable", "dog", "person", "pottedplant", "sofa"}


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    return render("voc2012", images=40, size=96, root=tmp_path_factory.mktemp("voc"))


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_masks_have_vocs_palette_and_seven_of_its_classes(voc):
    values = set()
    for split in ("train", "val"):
        data = VOCSegmentationDataset(voc, split)
        values |= {value for index in range(len(data)) for value in data[index][1].unique().tolist()}
    assert {VOC_CLASSES[value] for value in values - {0, 255}} == DRAWN
    for path in (voc / "SegmentationClass").iterdir():
        with Image.open(path) as mask:
            assert mask.mode == "P" and mask.getpalette() == voc_palette().ravel().tolist()


def test_the_lists_of_names_divide_the_images(voc):
    train, val, both = [
        (voc / f"ImageSets/Segmentation/{name}.txt").read_text(encoding="utf-8").split()
        for name in ("train", "val", "trainval")
    ]
    assert sorted(train + val) == both and (len(train), len(val)) == (32, 8)


def test_a_border_that_does_not_count_lies_between_any_two_labels(voc):
    for path in sorted((voc / "SegmentationClass").iterdir()):
        classes = read_png(path)
        objects = read_png(voc / "SegmentationObject" / path.name)
        for labels in (classes, objects):
            assert set(np.unique(labels)) - {0, 255}, path.name  # every image has an object
            for first, second in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
                assert not ((first != second) & (first != 255) & (second != 255)).any(), path.name
        assert ((classes == 255) == (objects == 255)).all() and ((classes == 0) == (objects == 0)).all()


@pytest.mark.parametrize(("crowd", "value"), [(True, 255), (False, 15)])
def test_a_crowd_does_not_count(crowd, value):
    drawing = Drawing([Part(ellipse((0, 0.5), 0.3, 0.5), (255, 0, 0), flat=True)], height=1.0)
    scene = make_scene(np.random.default_rng(0), 160, indoor=True, camera=1.0, aspect=0.75)
    scene.place(drawing, 80, 60, PERSON, crowd=crowd)
    paint_scene(scene)
    classes, _ = label_masks(scene)
    assert (classes == value).sum() > 1000 and (classes == 15).any() != crowd
