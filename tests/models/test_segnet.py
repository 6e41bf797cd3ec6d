"""SegNet: the paper's layers and size, unpooling, initialization."""

import pytest
import torch
from torch import nn

from seglib.models import SegNet

# Output channels of the decoder's convolutions without the last, from alexgkendall/SegNet-Tutorial,
# Models/segnet_train.prototxt.
DECODER = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64]
VGG16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]


def convolutions(module) -> list[tuple[int, int]]:
    return [(m.in_channels, m.out_channels) for m in module.modules() if isinstance(m, nn.Conv2d)]


def test_without_skip_connections_it_has_the_layers_and_the_size_of_the_paper():
    """Thirteen convolutions each way, 14.7 M parameters in the encoder, 117 MB (arXiv:1511.00561, section 3)."""
    model = SegNet(classes=11, skip=False)
    encoder = convolutions(model.encoder)
    decoder = [*convolutions(model.decoder), *convolutions(model.head)]
    assert encoder == list(zip([3, *VGG16], VGG16, strict=False))
    assert decoder == list(zip([512, *DECODER], [*DECODER, 11], strict=True))

    # VGG16 has 138,357,544 parameters, most of them in its three fully connected layers.
    fully_connected = (512 * 7 * 7 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    encoder_count = 138_357_544 - fully_connected
    assert encoder_count == sum(9 * a * b + b for a, b in encoder)
    decoder_count = sum(9 * a * b + b for a, b in decoder)
    batch_norm_count = 2 * sum([*VGG16, *DECODER])
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == encoder_count + decoder_count + batch_norm_count
    assert 117e6 < 4 * count < 118e6


def test_unpooling_puts_values_back_at_the_pixel_they_came_from():
    model = SegNet(skip=False).eval()
    outputs = []
    model.encoder[0].register_forward_hook(lambda _m, _i, out: outputs.append(out))
    model.decoder[-1].unpool.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    model(torch.randint(0, 256, (1, 3, 32, 32)).float())
    pooled, unpooled = (out.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4) for out in outputs)  # (1, C, H/2, W/2, 4)
    elsewhere = torch.ones_like(pooled, dtype=torch.bool).scatter(4, pooled.argmax(4, keepdim=True), False)
    assert (unpooled[elsewhere] == 0).all()
    assert (unpooled != 0).any()


def test_logits_start_near_0():
    torch.manual_seed(0)
    model = SegNet(classes=5).train()
    with torch.no_grad():
        logits = model(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    assert 0.05 < logits.std() < 0.8


def test_width_scales_the_channels():
    model = SegNet(classes=5, width=0.25)
    assert [out for _, out in convolutions(model.encoder)] == [channels // 4 for channels in VGG16]
    assert model(torch.zeros(2, 3, 40, 33)).shape == (2, 5, 40, 33)
    with pytest.raises(ValueError, match="weights of segnet of width 0.25"):
        SegNet(classes=5, width=0.25, weights="imagenet")
