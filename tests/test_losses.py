"""Losses: cases computed by hand, ignored pixels, half precision."""

import math

import pytest
import torch
import torch.nn.functional as F

from seglib.losses import (
    BCEDiceLoss,
    BCELoss,
    CEDiceLoss,
    CrossEntropyLoss,
    DiceLoss,
    median_frequency_weights,
    pixel_count,
    weighted_mean,
)

WEIGHTS = (1.0, 2.0, 5.0)
CASES = [
    *((loss, 1) for loss in (BCELoss(), BCELoss(pos_weight=3.0), DiceLoss(), BCEDiceLoss())),
    *((loss, 3) for loss in (CrossEntropyLoss(), CrossEntropyLoss(WEIGHTS), DiceLoss(), CEDiceLoss())),
]


def random_batch(channels: int, size=(2, 6, 7)):
    generator = torch.Generator().manual_seed(channels)
    logits = torch.randn(size[0], channels, *size[1:], generator=generator)
    return logits, torch.randint(0, max(2, channels), size, generator=generator, dtype=torch.uint8)


# ------------------------------------------------------------------------------------------------ by hand


def test_bce_computed_by_hand():
    logits = torch.tensor([0.0, 0.0, 2.0]).view(1, 1, 1, 3)
    mask = torch.tensor([[[0, 1, 1]]], dtype=torch.uint8)
    expected = (math.log(2) + math.log(2) + math.log(1 + math.exp(-2))) / 3
    assert BCELoss()(logits, mask).item() == pytest.approx(expected)
    weighted = (math.log(2) + 3 * math.log(2) + 3 * math.log(1 + math.exp(-2))) / 3
    assert BCELoss(pos_weight=3)(logits, mask).item() == pytest.approx(weighted)


def test_dice_computed_by_hand():
    logits = torch.tensor([0.0, 0.0, 100.0, -100.0]).view(1, 1, 2, 2)  # probabilities 0.5, 0.5, 1, 0
    mask = torch.tensor([[[1, 0], [1, 0]]], dtype=torch.uint8)
    assert DiceLoss(smooth=0)(logits, mask).item() == pytest.approx(1 - 2 * 1.5 / (2 + 2))
    assert DiceLoss(smooth=1)(logits, mask).item() == pytest.approx(1 - (2 * 1.5 + 1) / (2 + 2 + 1))
    # with several classes, the mean over those that occur: here two of three, each with a probability of a third
    mask = torch.tensor([[[0, 2]]], dtype=torch.uint8)
    assert DiceLoss(smooth=0)(torch.zeros(1, 3, 1, 2), mask).item() == pytest.approx(1 - 2 * (1 / 3) / (2 / 3 + 1))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_equals_that_of_torch(weights):
    logits, mask = random_batch(3)
    mask[0, 0] = 255
    weight = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(logits, mask.long(), weight=weight, ignore_index=255)
    assert CrossEntropyLoss(weights)(logits, mask).item() == pytest.approx(expected.item(), rel=1e-5)


def test_alpha_is_the_weight_of_the_first_part():
    logits, mask = random_batch(1)
    expected = 0.25 * BCELoss()(logits, mask) + 0.75 * DiceLoss()(logits, mask)
    assert torch.allclose(BCEDiceLoss(alpha=0.25)(logits, mask), expected)
    logits, mask = random_batch(3)
    expected = 0.25 * CrossEntropyLoss(WEIGHTS)(logits, mask) + 0.75 * DiceLoss()(logits, mask)
    assert torch.allclose(CEDiceLoss(alpha=0.25, class_weights=WEIGHTS)(logits, mask), expected)


# ------------------------------------------------------------------------------------------------ rules for all losses


@pytest.mark.parametrize(("loss", "channels"), CASES)
def test_the_loss_is_that_of_the_counted_pixels_alone(loss, channels):
    logits, mask = random_batch(channels)
    ignored = mask.clone()
    ignored[:, :, 3:] = 255
    extreme = logits.clone()
    extreme[..., 3:] = 1e4
    assert torch.allclose(loss(extreme, ignored), loss(logits[..., :3], mask[..., :3]), rtol=1e-5)


@pytest.mark.parametrize(("loss", "channels"), CASES)
def test_a_batch_without_counted_pixels_has_loss_0_and_gradient_0(loss, channels):
    logits, mask = random_batch(channels)
    logits.requires_grad_()
    value = loss(logits, torch.full_like(mask, 255))
    value.backward()
    assert value.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize(("loss", "channels"), CASES)
def test_half_precision_does_not_change_the_loss(loss, channels):
    """A sum over half a million probabilities is infinite in float16, and Dice would be 0."""
    logits = torch.full((2, channels, 512, 512), 8.0, dtype=torch.float16)
    mask = torch.ones(2, 512, 512, dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, mask)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(logits.float(), mask).item(), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("loss", "channels"), CASES)
def test_a_mask_of_another_shape_is_refused(loss, channels):
    logits, mask = random_batch(channels)
    with pytest.raises(ValueError, match="do not fit"):
        loss(logits, mask[:1])


# ------------------------------------------------------------------------------------------------ bad input


def test_logits_with_the_wrong_number_of_channels_are_refused():
    logits, mask = random_batch(3)
    with pytest.raises(ValueError, match="classes=1"):
        BCELoss()(logits, mask)
    with pytest.raises(ValueError, match="classes=2"):
        CrossEntropyLoss()(logits[:, :1], mask)


@pytest.mark.parametrize("loss", [CrossEntropyLoss, CEDiceLoss])
def test_class_weights_of_another_number_are_refused(loss):
    logits, mask = random_batch(3)
    with pytest.raises(ValueError, match="2 class weights for 3 classes, background being one"):
        loss(class_weights=(1.0, 2.0))(logits, mask)


# ------------------------------------------------------------------------------------------------ means over batches


@pytest.mark.parametrize(
    ("loss", "channels"), [(BCELoss(), 1), (CrossEntropyLoss(), 3), (CrossEntropyLoss(WEIGHTS), 3)]
)
def test_the_weighted_mean_over_batches_is_the_loss_of_all_pixels(loss, channels):
    logits, mask = random_batch(channels, size=(5, 6, 7))
    mask[0, :4] = 255
    mask[2] = 255
    parts = [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 5)]
    losses = [(loss(logits[part], mask[part]).item(), pixel_count(loss, mask[part])) for part in parts]
    assert weighted_mean(losses) == pytest.approx(loss(logits, mask).item(), rel=1e-5)


def test_pixel_count_and_mean_of_nothing():
    mask = torch.tensor([[[0, 1, 1, 255]]], dtype=torch.uint8)
    assert pixel_count(BCELoss(), mask) == 3
    assert pixel_count(CrossEntropyLoss((0.5, 2.0)), mask) == 4.5
    assert weighted_mean([(0.0, 0.0)]) == 0 and math.isnan(weighted_mean([]))


# ------------------------------------------------------------------------------------------------ class weights


def test_median_frequency_weights_computed_by_hand():
    first = torch.tensor([[0, 0, 0, 1]], dtype=torch.uint8)
    second = torch.tensor([[0, 0, 255, 2]], dtype=torch.uint8)  # three pixels count
    frequency = [5 / 7, 1 / 4, 1 / 3]  # the median is 1/3; class 3 never occurs
    expected = [(1 / 3) / value for value in frequency] + [1.0]
    assert median_frequency_weights([first, second], 4) == pytest.approx(expected)
    # with an even number of classes, the median is the mean of the middle two
    assert median_frequency_weights([first], 2) == pytest.approx([0.5 / 0.75, 0.5 / 0.25])
