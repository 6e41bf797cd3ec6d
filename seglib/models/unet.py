"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597)."""

import torch
from torch import Tensor, nn

from seglib.models.common import normalize, pad_to_stride

__all__ = ["DoubleConv", "Down", "UNet", "Up"]


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each with batch norm and ReLU: (B, in, H, W) -> (B, out, H, W).

    Args:
        mid_channels: channels between the two convolutions. None: `out_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int | None = None) -> None:
        mid_channels = mid_channels or out_channels
        super().__init__(
            nn.Conv2d(in_channels, mid_channels, kernel_size=3, padding=1, bias=False),  # batch norm has a bias
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Down(nn.Sequential):
    """Max pooling and a double convolution: (B, in, H, W) -> (B, out, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))


class Up(nn.Module):
    """Upsampling by 2, concatenation with the skip connection, and a double convolution.

    Args:
        in_channels: channels of the features to upsample.
        skip_channels: channels of the skip connection; 0 for none.
        out_channels: channels of the result.
        bilinear: upsample by interpolation instead of a transposed convolution.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, bilinear: bool) -> None:
        super().__init__()
        self.enlarge: nn.Module
        if bilinear:  # keeps the number of channels, which the double convolution then reduces in two steps
            self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            concatenated = in_channels + skip_channels
            self.conv = DoubleConv(concatenated, out_channels, concatenated // 2 if skip_channels else out_channels)
        else:
            self.enlarge = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels // 2 + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Features (B, in, H, W) and skip connection (B, skip, 2H, 2W) -> (B, out, 2H, 2W)."""
        x = self.enlarge(x)
        return self.conv(x if skip is None else torch.cat([skip, x], dim=1))


class UNet(nn.Module):
    """U-Net: an encoder, a decoder, and skip connections between features of the same size.

    Args:
        in_channels: channels of the images; 3 for RGB.
        classes: channels of the logits; 1 for a binary mask.
        base_channels: channels of the first block; each level of the encoder doubles them.
        depth: number of times that the encoder halves the sides.
        bilinear: upsample by bilinear interpolation; the deepest features then have half as many channels, so that the
            decoder has the same widths. False: transposed convolutions.
        skip: False leaves out the skip connections, which shows what they contribute.

    Differences from the paper: convolutions are padded, so that the logits have the size of the image; batch norm
    follows each convolution; images are padded to the stride by repeating their border, and the logits are cropped.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        base_channels: int = 64,
        depth: int = 4,
        bilinear: bool = True,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.settings = {"name": "unet", "in_channels": in_channels, "classes": classes, "base_channels": base_channels}
        self.settings |= {"depth": depth, "bilinear": bilinear, "skip": skip}
        self.skip = skip
        self.stride = 2**depth
        widths = [base_channels * 2**level for level in range(depth + 1)]
        if bilinear:
            widths[-1] //= 2
        self.stem = DoubleConv(in_channels, widths[0])
        self.encoder = nn.ModuleList(Down(widths[level], widths[level + 1]) for level in range(depth))
        self.decoder = nn.ModuleList()
        channels = widths[-1]
        for level in reversed(range(depth)):
            out_channels = widths[level] // 2 if bilinear and level else widths[level]
            self.decoder.append(Up(channels, widths[level] if skip else 0, out_channels, bilinear))
            channels = out_channels
        self.head = nn.Conv2d(widths[0], classes, kernel_size=1)
        # A network without pretrained weights needs no statistics of a data set: bytes become values from -1 to 1.
        self.register_buffer("mean", torch.full((in_channels,), 0.5))
        self.register_buffer("std", torch.full((in_channels,), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, in_channels, H, W), uint8 or float from 0 to 255 -> logits (B, classes, H, W)."""
        height, width = images.shape[-2:]
        x = self.stem(pad_to_stride(normalize(images, self.mean, self.std), self.stride))
        skips = []
        for down in self.encoder:
            skips.append(x)
            x = down(x)
        for up in self.decoder:
            skip = skips.pop()
            x = up(x, skip if self.skip else None)
        return self.head(x)[..., :height, :width]
