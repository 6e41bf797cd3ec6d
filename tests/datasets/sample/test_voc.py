"""The bundled sample of PASCAL VOC: layout, palette, classes and the border that does not count."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglib.datasets import render
from seglib.datasets.sample.voc import CLASSES
from seglib.datasets.voc import VOC_CLASSES
from seglib.masks import voc_palette


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    return render("voc2012", images=40, size=96, root=tmp_path_factory.mktemp("voc"))


def test_masks_have_vocs_palette_and_seven_classes_and_the_lists_divide_the_images(voc):
    images: Counter[str] = Counter()
    for path in (voc / "SegmentationClass").iterdir():
        with Image.open(path) as mask:
            assert mask.mode == "P" and mask.getpalette() == voc_palette().ravel().tolist()
            images.update(VOC_CLASSES[value] for value in set(np.unique(mask)) - {0, 255})
    assert images.keys() == set(CLASSES.values()) and min(images.values()) >= 8
    lists = [(voc / f"ImageSets/Segmentation/{name}.txt").read_text().split() for name in ("train", "val", "trainval")]
    assert sorted(lists[0] + lists[1]) == lists[2] and [len(names) for names in lists] == [32, 8, 40]


def test_a_border_that_does_not_count_lies_between_any_two_labels(voc):
    for path in sorted((voc / "SegmentationClass").iterdir()):
        classes = np.asarray(Image.open(path))
        objects = np.asarray(Image.open(voc / "SegmentationObject" / path.name))
        for labels in (classes, objects):
            assert set(np.unique(labels)) - {0, 255}  # every image has an object
            for first, second in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
                assert not ((first != second) & (first != 255) & (second != 255)).any()
        assert ((classes == 255) == (objects == 255)).all() and ((classes == 0) == (objects == 0)).all()
