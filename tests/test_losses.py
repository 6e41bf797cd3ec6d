"""Losses: cases computed by hand, ignored pixels, half precision."""

import math

import pytest
import torch
import torch.nn.functional as F

from seglib.losses import BCEDiceLoss, BCELoss, CEDiceLoss, CrossEntropyLoss, DiceLoss, median_frequency_weights

BINARY = [BCELoss(), BCELoss(pos_weight=3.0), DiceLoss(), BCEDiceLoss()]
SEVERAL = [CrossEntropyLoss(), CrossEntropyLoss(class_weights=(1.0, 2.0, 5.0)), DiceLoss(), CEDiceLoss()]
CASES = [(loss, 1) for loss in BINARY] + [(loss, 3) for loss in SEVERAL]


def logits_and_mask(channels: int, size=(2, 6, 7)):
    generator = torch.Generator().manual_seed(channels)
    logits = torch.randn(size[0], channels, *size[1:], generator=generator)
    return logits, torch.randint(0, max(2, channels), size, generator=generator, dtype=torch.uint8)


def test_bce_by_hand():
    logits = torch.tensor([0.0, 0.0, 2.0]).view(1, 1, 1, 3)
    mask = torch.tensor([[[0, 1, 1]]], dtype=torch.uint8)
    expected = (math.log(2) + math.log(2) + math.log(1 + math.exp(-2))) / 3
    assert BCELoss()(logits, mask).item() == pytest.approx(expected)
    weighted = (math.log(2) + 3 * math.log(2) + 3 * math.log(1 + math.exp(-2))) / 3
    assert BCELoss(pos_weight=3)(logits, mask).item() == pytest.approx(weighted)


def test_dice_by_hand():
    logits = torch.tensor([0.0, 0.0, 100.0, -100.0]).view(1, 1, 2, 2)  # probabilities 0.5, 0.5, 1, 0
    mask = torch.tensor([[[1, 0], [1, 0]]], dtype=torch.uint8)
    assert DiceLoss(smooth=0)(logits, mask).item() == pytest.approx(1 - 2 * 1.5 / (2 + 2))
    assert DiceLoss(smooth=1)(logits, mask).item() == pytest.approx(1 - (2 * 1.5 + 1) / (2 + 2 + 1))


def test_dice_of_several_classes_is_the_mean_over_those_that_occur():
    logits = torch.zeros(1, 3, 1, 2)  # a third each
    mask = torch.tensor([[[0, 2]]], dtype=torch.uint8)
    one = 1 - 2 * (1 / 3) / (2 / 3 + 1)
    assert DiceLoss(smooth=0)(logits, mask).item() == pytest.approx(one)


def test_cross_entropy_is_torchs():
    logits, mask = logits_and_mask(3)
    mask[0, 0] = 255
    weights = torch.tensor([1.0, 2.0, 5.0])
    for loss, weight in ((CrossEntropyLoss(), None), (CrossEntropyLoss((1.0, 2.0, 5.0)), weights)):
        theirs = F.cross_entropy(logits, mask.long(), weight=weight, ignore_index=255)
        assert loss(logits, mask).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_alpha_is_the_share_of_the_first():
    logits, mask = logits_and_mask(1)
    bce, dice = BCELoss()(logits, mask), DiceLoss()(logits, mask)
    assert torch.allclose(BCEDiceLoss(alpha=0.25)(logits, mask), 0.25 * bce + 0.75 * dice)


@pytest.mark.parametrize(("loss", "channels"), CASES)
def test_ignored_pixels_enter_neither_numerator_nor_denominator(loss, channels):
    """What is ignored may as well not be there: the loss equals that of the other pixels alone."""
    logits, mask = logits_and_mask(channels)
    ignored = mask.clone()
    ignored[:, :, 3:] = 255
    wild = logits.clone()
    wild[..., 3:] = 1e4
    assert torch.allclose(loss(wild, ignored), loss(logits[..., :3], mask[..., :3]), rtol=1e-5)


@pytest.mark.parametrize(("loss", "channels"), CASES)
def test_a_batch_of_nothing_but_255_gives_0_with_finite_gradients(loss, channels):
    logits, mask = logits_and_mask(channels)
    logits.requires_grad_()
    value = loss(logits, torch.full_like(mask, 255))
    value.backward()
    assert value.item() == 0 and torch.isfinite(logits.grad).all() and (logits.grad == 0).all()


@pytest.mark.parametrize(("loss", "channels"), CASES)
def test_half_precision_logits_of_a_full_mask_cost_what_full_precision_says(loss, channels):
    """A sum over half a million probabilities is infinite in float16: Dice would come out as 0."""
    logits = torch.full((2, channels, 512, 512), 8.0, dtype=torch.float16)
    mask = torch.ones(2, 512, 512, dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, mask)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(logits.float(), mask).item(), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("loss", "channels"), CASES)
def test_a_better_prediction_costs_less(loss, channels):
    _, mask = logits_and_mask(channels)
    truth = (mask == 1)[:, None] if channels == 1 else torch.stack([mask == index for index in range(3)], dim=1)
    good = truth.float() * 8 - 4
    assert loss(good, mask) < loss(-good, mask)


def test_cedice_is_its_two_parts_and_class_weights_reach_the_first_alone():
    logits, mask = logits_and_mask(3)
    weights = (1.0, 2.0, 5.0)
    parts = 0.25 * CrossEntropyLoss(weights)(logits, mask) + 0.75 * DiceLoss()(logits, mask)
    assert torch.allclose(CEDiceLoss(alpha=0.25, class_weights=weights)(logits, mask), parts)
    assert not torch.allclose(CEDiceLoss(alpha=0.25)(logits, mask), parts)


def test_median_frequency_weights_by_hand():
    """Eigen and Fergus: a class's pixels over those of the images on which it occurs, the median of these over it."""
    first = torch.tensor([[0, 0, 0, 1]], dtype=torch.uint8)
    second = torch.tensor([[0, 0, 255, 2]], dtype=torch.uint8)  # three pixels count
    frequency = [5 / 7, 1 / 4, 1 / 3]  # the median is 1/3; class 3 never occurs
    expected = [(1 / 3) / value for value in frequency] + [1.0]
    assert median_frequency_weights([first, second], 4) == pytest.approx(expected)
    # with an even number of classes the median lies half-way between the middle two
    assert median_frequency_weights([first], 2) == pytest.approx([0.5 / 0.75, 0.5 / 0.25])
    many = torch.zeros(2**13, 2**12, dtype=torch.uint8)  # more pixels than float32 can count
    many[0, 0] = 1
    share = 1 / many.numel()  # the masks of two images: the second has no pixels
    assert median_frequency_weights([many, first[:, :0]], 2)[1] == pytest.approx(0.5 / share)


def test_class_weights_that_make_no_sense_are_refused():
    logits, mask = logits_and_mask(3)
    for loss in (CrossEntropyLoss, CEDiceLoss):
        with pytest.raises(ValueError, match="numbers from 0 up, not"):
            loss(class_weights=(1.0, -2.0, 1.0))
        with pytest.raises(ValueError, match="2 class weights for 3 classes, background being one"):
            loss(class_weights=(1.0, 2.0))(logits, mask)
    with pytest.raises(ValueError, match="mask 0: mask value 2 in"):
        median_frequency_weights([mask[0]], 2)
    for nothing in ([], [torch.full((2, 2), 255, dtype=torch.uint8)]):
        with pytest.raises(ValueError, match="no pixel counts"):
            median_frequency_weights(nothing, 3)


def test_logits_of_the_wrong_number_of_channels_are_refused():
    logits, mask = logits_and_mask(3)
    with pytest.raises(ValueError, match="classes=1"):
        BCELoss()(logits, mask)
    with pytest.raises(ValueError, match="classes=2"):
        CrossEntropyLoss()(logits[:, :1], mask)


def test_a_mask_that_would_be_broadcast_and_a_share_beyond_1_are_refused():
    for loss, channels in CASES:
        logits, mask = logits_and_mask(channels)
        with pytest.raises(ValueError, match="do not fit"):
            loss(logits, mask[:1])
    for loss in (BCEDiceLoss, CEDiceLoss):
        with pytest.raises(ValueError, match="alpha"):
            loss(alpha=5)
