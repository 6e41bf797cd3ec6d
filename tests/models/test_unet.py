"""U-Net: published size, any image size."""

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
