"""Rules that look at the color of a pixel: checked against every threshold tried one by one, and by hand."""

import numpy as np
import pytest
import torch

from seglib.baselines import CHANNELS, ColorTable, Threshold, best_threshold, color_table, score


class Pairs(list):
    """Pairs of image and mask with class names."""

    classes = ("background", "person")


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    found = Pairs()
    for _ in range(3):
        image = rng.integers(0, 256, (3, 8, 9), dtype=np.uint8)
        mask = (image[1] > 150 + rng.integers(-60, 60, (8, 9))).astype(np.uint8)
        mask[rng.random((8, 9)) < 0.2] = 255
        found.append((torch.from_numpy(image), torch.from_numpy(mask)))
    return found


def test_the_best_threshold_is_the_best_of_all(pairs):
    every = [Threshold(name, value, above) for name in CHANNELS for value in range(256) for above in (True, False)]
    iou = [score(rule, pairs).iou()[1].item() for rule in every]
    found = best_threshold(pairs)
    assert found.channel == "green"
    assert score(found, pairs).iou()[1].item() == pytest.approx(max(iou))


def test_a_threshold_below_which_the_class_lies_is_found():
    image = torch.tensor([10, 20, 200, 210], dtype=torch.uint8).expand(3, 1, 4)
    mask = torch.tensor([[1, 1, 0, 0]], dtype=torch.uint8)
    found = best_threshold(Pairs([(image, mask)]))
    assert not found.above
    assert torch.equal(found(image), mask)


def test_a_data_set_without_class_1_or_with_others_is_refused():
    image = torch.zeros(3, 1, 2, dtype=torch.uint8)
    for rule in (best_threshold, color_table):
        with pytest.raises(ValueError, match="no pixel of the data set has class 1"):
            rule(Pairs([(image, torch.tensor([[0, 255]]).byte())]))
        with pytest.raises(ValueError, match="image 0: mask value 2"):
            rule(Pairs([(image, torch.tensor([[1, 2]]).byte())]))


def test_colorfulness_and_brightness_are_what_they_are_called():
    gray = torch.full((3, 1, 1), 100, dtype=torch.uint8)
    red = torch.tensor([200, 50, 50], dtype=torch.uint8)[:, None, None]
    assert [int(Threshold("colorfulness", 149, True)(image)) for image in (gray, red)] == [0, 1]
    assert [int(Threshold("brightness", 99, True)(image)) for image in (gray, red)] == [1, 1]
    assert [int(Threshold("brightness", 100, True)(image)) for image in (gray, red)] == [0, 0]


def test_a_color_table_gives_a_color_its_most_frequent_class():
    data = Pairs([(torch.tensor([0, 0, 0, 255, 255]).byte().expand(3, 1, 5), torch.tensor([[2, 2, 1, 0, 255]]).byte())])
    data.classes = ("background", "cat", "dog")
    table = color_table(data, bins=2)
    assert isinstance(table, ColorTable)
    assert table(data[0][0]).tolist() == [[2, 2, 2, 0, 0]]


def test_the_color_table_of_two_classes_has_the_highest_iou():
    # Two colors: one with 1 of 3 pixels of class 1, one with none. Its majority is background; IoU prefers class 1.
    image = torch.tensor([0, 0, 0, 255]).byte().expand(3, 1, 4)
    data = Pairs([(image, torch.tensor([[1, 0, 0, 0]]).byte())])
    assert color_table(data)(image).tolist() == [[1, 1, 1, 0]]
    assert score(color_table(data), data).iou()[1].item() == pytest.approx(1 / 3)
