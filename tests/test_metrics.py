"""Metrics, against torchmetrics where it defines them the same and by hand where it does not."""

import math

import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from seglib.metrics import ConfusionMatrix


def random_masks(classes: int, count: int = 10, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 9, 11)
    prediction = torch.randint(0, classes, shape, generator=generator, dtype=torch.uint8)
    mask = torch.randint(0, classes, shape, generator=generator, dtype=torch.uint8)
    mask[torch.rand(shape, generator=generator) < 0.2] = 255
    return prediction, mask


@pytest.mark.parametrize("classes", [2, 5, 21])
def test_iou_is_torchmetrics_jaccard_index(classes):
    prediction, mask = random_masks(classes)
    theirs = MulticlassJaccardIndex(classes, average="none", ignore_index=255)(prediction.long(), mask.long())
    ours = ConfusionMatrix(classes).update(prediction, mask)
    assert torch.allclose(ours.iou().float(), theirs)
    mean = MulticlassJaccardIndex(classes, average="macro", ignore_index=255)(prediction.long(), mask.long())
    assert ours.miou() == pytest.approx(mean.item())


def test_by_hand():
    truth = torch.tensor([0, 0, 0, 1, 1, 255])
    guess = torch.tensor([0, 0, 1, 1, 1, 1])
    matrix = ConfusionMatrix(2).update(guess, truth)
    assert matrix.matrix.tolist() == [[2, 1], [0, 2]]  # rows are the truth
    assert matrix.iou().tolist() == [2 / 3, 2 / 3]
    assert matrix.dice().tolist() == [4 / 5, 4 / 5]
    assert matrix.pixel_accuracy() == pytest.approx(4 / 5)
    more = matrix.update(torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert more.iou().tolist() == [3 / 5, 2 / 4]
    assert more.miou() == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert more.miou(background=False) == pytest.approx(2 / 4)


def test_absent_classes_are_nan_and_left_out_and_false_alarms_count_0():
    matrix = ConfusionMatrix(4).update(torch.tensor([0, 0, 2]), torch.tensor([0, 0, 0]))
    iou = matrix.iou().tolist()
    assert iou[0] == pytest.approx(2 / 3) and math.isnan(iou[1]) and iou[2] == 0 and math.isnan(iou[3])
    assert matrix.miou() == pytest.approx((2 / 3 + 0) / 2)
    assert matrix.miou(background=False) == 0


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_the_batch_size_does_not_change_the_metric(batch):
    prediction, mask = random_masks(3)
    whole = ConfusionMatrix(3).update(prediction, mask)
    parts = ConfusionMatrix(3)
    for start in range(0, 10, batch):
        parts.update(prediction[start : start + batch], mask[start : start + batch])
    assert parts.matrix.tolist() == whole.matrix.tolist()


def test_nothing_counted_is_nan_not_an_error():
    matrix = ConfusionMatrix(2).update(torch.zeros(3, dtype=torch.uint8), torch.full((3,), 255, dtype=torch.uint8))
    assert math.isnan(matrix.miou()) and math.isnan(matrix.pixel_accuracy())


def test_numpy_masks_are_taken_too():
    prediction, mask = random_masks(3)
    ours = ConfusionMatrix(3).update(prediction.numpy(), mask.numpy())
    assert ours.matrix.sum() == (mask != 255).sum()


@pytest.mark.parametrize(
    ("prediction", "mask", "message"),
    [
        (torch.rand(2, 3), torch.zeros(2, 3), "indices, not logits"),
        (torch.zeros(2, 3).long(), torch.zeros(3, 2).long(), "differ in shape"),
        (torch.tensor([5]), torch.tensor([0]), "prediction holds class 5"),
        (torch.tensor([0]), torch.tensor([7]), "mask holds class 7"),
    ],
)
def test_what_is_no_mask_is_refused(prediction, mask, message):
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(3).update(prediction, mask)


def test_one_class_is_none():
    with pytest.raises(ValueError, match="ConfusionMatrix\\(2\\)"):
        ConfusionMatrix(1)
