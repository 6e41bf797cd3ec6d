"""Metrics, against torchmetrics and against cases computed by hand."""

import math

import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from seglib.metrics import ConfusionMatrix


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
