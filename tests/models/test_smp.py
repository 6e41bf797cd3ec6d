"""The architectures of segmentation_models_pytorch: published sizes, batches of one image, frozen encoders."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torchvision.transforms.functional import normalize

from seglib.losses import CrossEntropyLoss
from seglib.models import build_model


def random_images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


def test_deeplabv3_has_the_published_number_of_parameters():
    """torchvision publishes 42,004,074 with an auxiliary head (1024 to 256 to 21 channels), which smp's has not."""
    auxiliary = 9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21
    model = build_model("deeplabv3", classes=21)
    assert sum(p.numel() for p in model.parameters()) == 42_004_074 - auxiliary
    assert model.settings["encoder"] == "resnet50"


def test_two_images_are_computed_as_by_the_library_itself():
    model = build_model("deeplabv3", classes=2, encoder="resnet18").train()
    expected = smp.create_model("deeplabv3", "resnet18", encoder_weights=None, classes=2).train()
    expected.load_state_dict(model.net.state_dict())
    for module in [*model.modules(), *expected.modules()]:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images = random_images(2, 64, 64)
    assert torch.equal(model(images), expected(normalize(images / 255, model.mean, model.std)))
    running = model.net.state_dict()
    assert all(torch.equal(running[name], value) for name, value in expected.state_dict().items())


@pytest.mark.parametrize("freeze", [True, False])
def test_only_an_encoder_that_is_not_frozen_is_trained(freeze):
    """Weight decay and batch norm change weights and statistics that have no gradient."""
    model = build_model("unet", classes=2, encoder="resnet18", freeze_encoder=freeze)
    assert any(module.training for module in model.net.encoder.modules()) is not freeze
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    CrossEntropyLoss()(model.train()(random_images(2, 32, 32)), torch.ones(2, 32, 32, dtype=torch.uint8)).backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    in_encoder = {name for name in changed if name.startswith("net.encoder.")}
    assert bool(in_encoder) is not freeze
    assert any("running_mean" in name for name in changed - in_encoder)
    assert "net.segmentation_head.0.weight" in changed
    again = build_model(**model.settings)
    assert all(parameter.requires_grad is not freeze for parameter in again.net.encoder.parameters())
