"""SegNet (Badrinarayanan, Kendall and Cipolla, 2017, arXiv:1511.00561)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seglib.models.common import normalise, pad_to_stride
from seglib.models.weights import IMAGENET_MEAN, IMAGENET_STD, of_torchvision

WIDTHS = (64, 128, 256, 512, 512)  # channels of VGG16's five stages
CONVOLUTIONS = (2, 2, 3, 3, 3)  # and how many convolutions each has


def vgg16_stages(batch_norm: bool, weights: str | None) -> list[nn.Sequential]:
    """The thirteen convolutions of torchvision's VGG16 (Simonyan and Zisserman, 2015), in five stages without pooling.

    Raises:
        OSError: the weights cannot be had; says where they belong.
    """
    from torchvision.models import VGG16_BN_Weights, VGG16_Weights, vgg  # takes seconds to import

    features = vgg.make_layers(vgg.cfgs["D"], batch_norm)
    if weights is None:
        he_init(features)
    else:
        published = (VGG16_BN_Weights if batch_norm else VGG16_Weights).IMAGENET1K_V1
        with of_torchvision(published, "the ImageNet weights of VGG16") as state:
            of_features = {name.removeprefix("features."): value for name, value in state.items() if "features" in name}
            features.load_state_dict(of_features)  # what is left out classifies whole pictures
    stages: list[list[nn.Module]] = [[]]
    for layer in features:
        if isinstance(layer, nn.MaxPool2d):
            stages.append([])
        else:
            stages[-1].append(layer)
    return [nn.Sequential(*layers) for layers in stages[:-1]]


def he_init(part: nn.Module) -> None:
    """Random weights of the size that keeps a signal's strength from one ReLU to the next (He et al., 2015)."""
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class Learned(nn.ConvTranspose2d):
    """Learn how to enlarge: a transposed convolution that takes no notice of the indices."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=2, stride=2)

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        return super().forward(x)


class DecoderStage(nn.Module):
    """Enlarge, join what the encoder saw at that size, then convolutions, each with batch norm and ReLU.

    Args:
        width: channels of what comes from below, and of the encoder's stage of this size. out_channels: at the end.
        convolutions: how many there are.
    """

    def __init__(self, width: int, out_channels: int, convolutions: int, upsampling: str, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.enlarge = nn.MaxUnpool2d(2) if upsampling == "indices" else Learned(width)
        layers, inside = [], 2 * width if skip else width
        for number in range(convolutions):
            outside = out_channels if number == convolutions - 1 else width
            layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]
            inside = outside
        self.conv = nn.Sequential(*layers)

    def forward(self, below: Tensor, indices: Tensor, seen: Tensor) -> Tensor:
        """(B, width, H, W), its pooling's indices, and the encoder's (B, width, 2H, 2W) -> (B, out, 2H, 2W)."""
        x = self.enlarge(below, indices)
        return self.conv(torch.cat([seen, x], dim=1) if self.skip else x)


class SegNet(nn.Module):
    """SegNet: VGG16's convolutions as encoder, and a decoder that is their mirror image.

    Args:
        classes: logits out; 1 for a binary mask.
        weights: "imagenet" for an encoder that has learnt to tell ImageNet's pictures apart; None: from scratch.
        batch_norm: in the encoder, as in torchvision's vgg16_bn. The decoder always has it.
        upsampling: "indices", the paper's: each value returns to the pixel that max-pooling took it from; "learned":
            transposed convolutions.
        skip: join the encoder's own features of each size in the decoder, as a U-Net does.

    The paper's network is `SegNet(classes, skip=False)`: thirteen convolutions down, thirteen up, the last of which
    gives the logits, and nothing but the indices of the maxima between equals. Where ours is not the paper's:

    - Skip connections, unless `skip=False`. They double what the first convolution of each decoder stage takes in.
    - Any image is padded to the stride by repeating its border, and the logits are cropped.
    - The softmax is left to the loss, and class weights too; the paper balances classes in a part of its experiments,
      see `seglib.losses.median_frequency_weights`.
    - With `batch_norm=False` the encoder has none; the paper has it after every convolution.

    Raises:
        OSError: the weights cannot be had; says where they belong.
    """

    def __init__(
        self,
        classes: int = 1,
        weights: str | None = None,
        batch_norm: bool = True,
        upsampling: str = "indices",
        skip: bool = True,
    ) -> None:
        super().__init__()
        if upsampling not in ("indices", "learned"):
            raise ValueError(f"no upsampling {upsampling!r}; there are indices and learned")
        if weights not in (None, "imagenet"):
            raise ValueError(f"there are no {weights!r} weights for 'segnet'; there are imagenet, and None for none")
        self.settings = {
            "name": "segnet",
            "classes": classes,
            "batch_norm": batch_norm,
            "upsampling": upsampling,
            "skip": skip,
        }
        self.weights = weights
        self.skip, self.stride = skip, 2 ** len(WIDTHS)
        self.encoder = nn.ModuleList(vgg16_stages(batch_norm, weights))
        stages = []
        for number in reversed(range(1, len(WIDTHS))):
            width, out = WIDTHS[number], WIDTHS[number - 1]
            stages.append(DecoderStage(width, out, CONVOLUTIONS[number], upsampling, skip))
        stages.append(DecoderStage(WIDTHS[0], WIDTHS[0], CONVOLUTIONS[0] - 1, upsampling, skip))
        self.decoder = nn.ModuleList(stages)
        self.head = nn.Conv2d(WIDTHS[0], classes, kernel_size=3, padding=1)  # the decoder's thirteenth convolution
        he_init(self.decoder)  # not the head, which no ReLU follows: its logits would start far from 0
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), uint8 or float 0-255 -> logits (B, classes, H, W)."""
        height, width = images.shape[-2:]
        x = pad_to_stride(normalise(images, self.mean, self.std), self.stride)
        seen, indices = [], []
        for stage in self.encoder:
            seen.append(stage(x))
            x, where = F.max_pool2d(seen[-1], kernel_size=2, return_indices=True)
            indices.append(where)
        for stage in self.decoder:
            x = stage(x, indices.pop(), seen.pop())
        return self.head(x)[..., :height, :width]
