"""Metrics, against torchmetrics and against cases computed by hand."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from seglib.instances import Instances
from seglib.metrics import ConfusionMatrix, boundary_iou, small_object_iou


def random_masks(classes: int):
    generator = torch.Generator().manual_seed(0)
    shape = (10, 9, 11)
    prediction = torch.randint(0, classes, shape, generator=generator, dtype=torch.uint8)
    mask = torch.randint(0, classes, shape, generator=generator, dtype=torch.uint8)
    mask[torch.rand(shape, generator=generator) < 0.2] = 255
    return prediction, mask


@pytest.mark.parametrize("classes", [2, 21])
def test_iou_equals_the_jaccard_index_of_torchmetrics(classes):
    prediction, mask = random_masks(classes)
    matrix = ConfusionMatrix(classes).update(prediction, mask)
    expected = MulticlassJaccardIndex(classes, average="none", ignore_index=255)(prediction.long(), mask.long())
    assert torch.allclose(matrix.iou().float(), expected)
    assert matrix.miou() == pytest.approx(expected.mean().item())


def test_metrics_computed_by_hand():
    mask = torch.tensor([0, 0, 0, 1, 1, 255])
    prediction = torch.tensor([0, 0, 1, 1, 1, 1])
    matrix = ConfusionMatrix(2).update(prediction, mask)
    assert matrix.matrix.tolist() == [[2, 1], [0, 2]]  # rows are the truth
    assert matrix.iou().tolist() == [2 / 3, 2 / 3]
    assert matrix.dice().tolist() == [4 / 5, 4 / 5]
    assert matrix.pixel_accuracy() == pytest.approx(4 / 5)
    matrix.update(torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert matrix.iou().tolist() == [3 / 5, 2 / 4]
    assert matrix.miou() == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert matrix.miou(background=False) == pytest.approx(2 / 4)
    assert repr(matrix) == "ConfusionMatrix(2 classes, 7 pixels, IoU 0.600, 0.500)"


def test_absent_classes_are_nan_and_left_out_of_the_mean_and_false_alarms_are_0():
    matrix = ConfusionMatrix(4).update(torch.tensor([0, 0, 2]), torch.tensor([0, 0, 0]))
    iou = matrix.iou().tolist()
    assert iou[0] == pytest.approx(2 / 3) and math.isnan(iou[1]) and iou[2] == 0 and math.isnan(iou[3])
    assert matrix.miou() == pytest.approx((2 / 3 + 0) / 2)
    assert matrix.miou(background=False) == 0


def test_the_batch_size_does_not_change_the_matrix():
    prediction, mask = random_masks(3)
    expected = ConfusionMatrix(3).update(prediction, mask)
    matrix = ConfusionMatrix(3)
    for start in range(0, 10, 3):
        matrix.update(prediction[start : start + 3].numpy(), mask[start : start + 3].numpy())
    assert matrix.matrix.tolist() == expected.matrix.tolist()


def test_metrics_of_no_counted_pixels_are_nan():
    matrix = ConfusionMatrix(2).update(torch.zeros(3, dtype=torch.uint8), torch.full((3,), 255, dtype=torch.uint8))
    assert math.isnan(matrix.miou()) and math.isnan(matrix.pixel_accuracy())


@pytest.mark.parametrize(
    ("prediction", "mask", "message"),
    [
        (torch.rand(2, 3), torch.zeros(2, 3), "indices, not logits"),
        (torch.zeros(2, 3).long(), torch.zeros(3, 2).long(), "differ in shape"),
        (torch.tensor([5]), torch.tensor([0]), "prediction holds class 5; allowed are 0 to 2"),
        (torch.tensor([0]), torch.tensor([7]), "mask holds class 7"),
    ],
)
def test_what_are_not_class_indices_is_refused(prediction, mask, message):
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(3).update(prediction, mask)


# ------------------------------------------------------------------------------------------------ boundary IoU


def square(top: int, left: int, side: int, size: int = 10) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def test_the_boundary_of_a_square_is_its_outermost_pixels():
    """At 10x10, 2 % of the diagonal round to 0 pixels, so the boundary is one pixel wide: 20 of 6x6 pixels.

    Moved by one column, the squares share 2 x 5 pixels in their first and last rows; their columns are 2 apart.
    """
    iou = boundary_iou([square(2, 3, 6)], [square(2, 2, 6)])
    assert iou[1] == pytest.approx(10 / 30)
    assert boundary_iou([square(2, 2, 6)], [square(2, 2, 6)]).tolist() == [1, 1]
    assert boundary_iou([square(3, 3, 4)], [square(2, 2, 6)])[1] == 0  # although the IoU of the masks is 16 / 36


def test_the_width_of_the_boundary_follows_the_diagonal():
    """At 100x100, the diagonal has 141 pixels, so the boundary is 3 wide: 40x40 - 34x34 pixels of a square of 40x40."""
    hole = square(30, 30, 40, 100)
    hole[33:67, 33:67] = 0  # the hole has an edge as well, but the rest of the mask is boundary already
    assert boundary_iou([hole], [square(30, 30, 40, 100)])[1] == 1
    assert boundary_iou([hole], [square(30, 30, 40, 100)], ratio=0.03)[1] == pytest.approx(444 / (40**2 - 32**2))


def test_a_mask_that_the_image_cuts_off_has_a_boundary_there():
    """In the corner, a square of 6x6 has 20 boundary pixels as anywhere; 11 of them lie at the border of the image."""
    truth = square(0, 0, 6)
    inner = truth.copy()
    inner[0, :] = inner[:, 0] = 0  # 5x5: 16 boundary pixels, which share 5 + 4 with those of the truth
    assert boundary_iou([inner], [truth])[1] == pytest.approx(9 / 27)
    full = np.ones((10, 10), np.uint8)
    assert boundary_iou([full], [full]).tolist()[1] == 1


def test_ignored_pixels_have_no_boundary_and_make_none():
    truth = square(0, 0, 10)
    truth[:, 5:] = 255
    prediction = np.ones((10, 10), np.uint8)
    expected = boundary_iou([prediction], [truth])
    assert expected[1] == 1 and math.isnan(expected[0])
    prediction[:, 7:] = 0  # where nothing counts
    assert boundary_iou([prediction], [truth])[1] == 1
    prediction[:, 4:] = 0  # a column that counts is missing: 2 of 18 boundary pixels, and 8 in the column before it
    assert boundary_iou([prediction], [truth])[1] == pytest.approx(16 / (18 + 8))


def test_boundaries_are_counted_over_all_images():
    predictions = [square(2, 3, 6), square(5, 5, 2, 20), np.zeros((7, 9), np.uint8)]
    masks = [square(2, 2, 6), square(5, 5, 4, 20), np.zeros((7, 9), np.uint8)]
    assert boundary_iou(predictions, masks)[1] == pytest.approx((10 + 3) / (30 + 13))
    empty = boundary_iou(predictions[2:], masks[2:])
    assert empty[0] == 1 and math.isnan(empty[1])
    with pytest.raises(ValueError, match="shorter|longer"):
        boundary_iou(predictions, masks[:2])
    with pytest.raises(ValueError, match=r"one image goes into a list"):
        boundary_iou(masks[0], masks[0])
    with pytest.raises(ValueError, match="indices, not logits"):
        boundary_iou([torch.rand(5, 5)], [torch.zeros(5, 5)])


# ------------------------------------------------------------------------------------------------ small objects


def test_small_objects_are_measured_in_their_surroundings():
    """A small object of 4x4 pixels has surroundings of 8x8; a large one reaches into them with 2 columns."""
    small = square(8, 8, 4, 40)
    large = square(4, 14, 20, 40)
    large[:, 13] = 0
    objects = Instances.of(np.array([small, large]))
    prediction = small | large
    assert small_object_iou([prediction], [objects], max_area=16).tolist() == [1, 1]
    prediction[8:12, 8:10] = 0  # half of the small object
    prediction[9, 12] = 1  # a false pixel beside it
    prediction[30:, :] = 1  # false pixels elsewhere
    prediction[large > 0] = 0  # the large object is missed
    assert small_object_iou([prediction], [objects], max_area=16)[1] == pytest.approx(8 / 17)
    assert small_object_iou([prediction], [objects], max_area=400)[1] < 0.1
    nothing = small_object_iou([prediction], [objects], max_area=15)
    assert torch.isnan(nothing).all()


def test_crowds_and_larger_objects_do_not_count_near_a_small_one():
    masks = np.array([square(8, 8, 4, 24), square(8, 12, 3, 24)])
    objects = Instances.of(masks, crowd=[False, True])
    beside = masks[0].copy()
    beside[9, 15] = 1  # in the surroundings of the crowd alone, which do not count
    for prediction in (masks[0], masks[0] | masks[1], beside):
        assert small_object_iou([prediction], [objects])[1] == 1
    assert small_object_iou([masks[0]], [Instances.of(masks)])[1] == pytest.approx(16 / 25)
