"""U-Net: published size, any image size, skip connections."""

import pytest
import torch

from seglib.models import UNet


@pytest.mark.parametrize(("bilinear", "count"), [(False, 31_037_633), (True, 17_262_977)])
def test_number_of_parameters_is_the_published_one(bilinear, count):
    """The counts of github.com/milesial/Pytorch-UNet, a widely used U-Net with batch norm."""
    model = UNet(3, 1, 64, 4, bilinear=bilinear)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("settings", [{}, {"bilinear": False}, {"skip": False, "depth": 5, "classes": 7}])
def test_logits_have_the_size_of_the_image(settings):
    model = UNet(base_channels=4, **settings).eval()
    for size in ((1, 1), (16, 16), (101, 133)):
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        assert model(images).shape == (2, settings.get("classes", 1), *size)


def test_the_decoder_sees_the_encoder_only_through_skip_connections():
    """With the deepest features cut off, only skip connections let the image through."""
    for skip in (True, False):
        model = UNet(base_channels=4, skip=skip).eval()
        model.encoder[-1].register_forward_hook(lambda *_: torch.zeros(1, 32, 2, 2))
        black = model(torch.zeros(1, 3, 32, 32))
        white = model(torch.full((1, 3, 32, 32), 255.0))
        assert torch.equal(black, white) is not skip
