"""SegNet (Badrinarayanan, Kendall and Cipolla, 2017, arXiv:1511.00561)."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seglib.files import check_choice
from seglib.models.common import IMAGENET_MEAN, IMAGENET_STD, normalize, pad_to_stride
from seglib.models.weights import torchvision_weights

__all__ = ["DecoderStage", "SegNet"]

_WIDTHS = (64, 128, 256, 512, 512)  # channels of the five stages of VGG16
_CONVOLUTIONS = (2, 2, 3, 3, 3)  # number in each stage


def _vgg16_stages(weights: str | None, width: float) -> list[nn.Sequential]:
    """The convolutions of VGG16 (Simonyan and Zisserman, 2015) with batch norm, in five stages without pooling."""
    from torchvision.models import VGG16_BN_Weights, vgg  # takes seconds to import

    layers = [layer if isinstance(layer, str) else round(width * layer) for layer in vgg.cfgs["D"]]
    features = vgg.make_layers(layers, batch_norm=True)
    if weights is None:
        _init_kaiming(features)
    else:
        with torchvision_weights(VGG16_BN_Weights.IMAGENET1K_V1, "the ImageNet weights of VGG16") as state:
            names = features.state_dict()  # the other weights belong to the classifier
            features.load_state_dict({name: state[f"features.{name}"] for name in names})
    ends = [index for index, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    return [nn.Sequential(*features[begin + 1 : end]) for begin, end in itertools.pairwise([-1, *ends])]


def _init_kaiming(module: nn.Module) -> None:
    """Initialize the convolutions so that the variance of the signal is kept through ReLUs (He et al., 2015)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class DecoderStage(nn.Module):
    """Unpooling, concatenation with the skip connection, and convolutions with batch norm and ReLU.

    Args:
        width: channels of the features to unpool, and of the encoder's features at the larger size.
        out_channels: channels of the result.
        convolutions: number of convolutions.
        skip: whether there is a skip connection.
    """

    def __init__(self, width: int, out_channels: int, convolutions: int, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.unpool = nn.MaxUnpool2d(2)
        widths = [2 * width if skip else width, *[width] * (convolutions - 1), out_channels]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor, indices: Tensor, skip: Tensor) -> Tensor:
        """Features (B, width, H, W), indices of their pooling, skip (B, width, 2H, 2W) -> (B, out_channels, 2H, 2W)."""
        x = self.unpool(x, indices)
        return self.conv(torch.cat([skip, x], dim=1) if self.skip else x)


class SegNet(nn.Module):
    """SegNet: the convolutions of VGG16 as the encoder, and a decoder that mirrors them.

    In the decoder, max unpooling puts each value back at the pixel that max pooling took it from.

    Args:
        classes: channels of the logits; 1 for a binary mask.
        weights: "imagenet" for an encoder pretrained on ImageNet; None: from scratch.
        skip: concatenate the encoder's features of each size in the decoder, as a U-Net does.
        width: factor of the number of channels, for small budgets; pretrained weights exist for 1 only.

    Raises:
        ValueError: weights that do not exist.
        OSError: the weights cannot be loaded; the message says where they belong.

    The paper's network is `SegNet(classes, skip=False)`: thirteen convolutions in the encoder, thirteen in the decoder,
    the last of which gives the logits, and only the indices of the maxima between the two. Differences from the paper:
    skip connections; images are padded to the stride by repeating their border, and the logits are cropped; softmax and
    class weights (`seglib.losses.median_frequency_weights`) belong to the loss.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int = 1, weights: str | None = None, skip: bool = True, width: float = 1.0) -> None:
        super().__init__()
        check_choice(f"weights of segnet of width {width}", weights, (None, "imagenet") if width == 1 else (None,))
        self.settings = {"name": "segnet", "classes": classes, "skip": skip, "width": width}
        self.weights = weights
        self.skip = skip
        self.stride = 2 ** len(_WIDTHS)
        self.encoder = nn.ModuleList(_vgg16_stages(weights, width))
        self.decoder = nn.ModuleList()
        widths = [round(width * channels) for channels in _WIDTHS]
        for number in reversed(range(len(widths))):
            convolutions = _CONVOLUTIONS[number] if number else 1  # the head is the other one of the last stage
            out_channels = widths[max(number - 1, 0)]
            self.decoder.append(DecoderStage(widths[number], out_channels, convolutions, skip))
        self.head = nn.Conv2d(widths[0], classes, kernel_size=3, padding=1)
        _init_kaiming(self.decoder)  # not the head: no ReLU follows it, and its logits would start far from 0
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), uint8 or float from 0 to 255 -> logits (B, classes, H, W)."""
        height, width = images.shape[-2:]
        x = pad_to_stride(normalize(images, self.mean, self.std), self.stride)
        skips = []
        pooling_indices = []
        for stage in self.encoder:
            skips.append(stage(x))
            x, indices = F.max_pool2d(skips[-1], kernel_size=2, return_indices=True)
            pooling_indices.append(indices)
        for stage in self.decoder:
            x = stage(x, pooling_indices.pop(), skips.pop())
        return self.head(x)[..., :height, :width]
