"""Padding to the stride, and the decision from logits to a mask."""

import torch

from seglib.models import logits_to_mask
from seglib.models.common import pad_to_stride


def test_padding_repeats_the_border():
    padded = pad_to_stride(torch.arange(6.0).view(1, 1, 2, 3), 4)
    assert padded.shape == (1, 1, 4, 4)
    assert padded[0, 0, :, 3].tolist() == [2, 5, 5, 5]


def test_one_channel_is_decided_at_zero_and_several_by_the_first_of_the_largest():
    assert logits_to_mask(torch.tensor([[[[-1.0, 0.0, 0.1]]]])).tolist() == [[[0, 0, 1]]]
    logits = torch.randint(0, 3, (2, 5, 40, 30)).float()  # many ties
    mask = logits_to_mask(logits)
    assert mask.dtype == torch.uint8
    assert torch.equal(mask.long(), logits.argmax(dim=1))
