"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597)."""

import torch
from torch import Tensor, nn

from seglib.models.common import normalise, pad_to_stride


class DoubleConv(nn.Sequential):
    """Twice a 3x3 convolution, batch norm and ReLU: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, middle: int | None = None) -> None:
        middle = middle or out_channels
        super().__init__(
            nn.Conv2d(in_channels, middle, kernel_size=3, padding=1, bias=False),  # batch norm brings the bias
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Down(nn.Sequential):
    """Halve the sides, then a double convolution: (B, in, H, W) -> (B, out, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))


class Up(nn.Module):
    """Double the sides, join what the encoder saw at that size, then a double convolution.

    Args:
        in_channels: of what comes from below. skip_channels: of what the encoder hands over; 0 for no skip connection.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, bilinear: bool) -> None:
        super().__init__()
        if bilinear:  # has no weights and keeps the channels; the double convolution narrows them half-way
            self.enlarge: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            joined = in_channels + skip_channels
            self.conv = DoubleConv(joined, out_channels, middle=joined // 2 if skip_channels else out_channels)
        else:
            self.enlarge = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels // 2 + skip_channels, out_channels)

    def forward(self, below: Tensor, skip: Tensor | None) -> Tensor:
        """(B, in, H, W) and (B, skip, 2H, 2W) -> (B, out, 2H, 2W)."""
        enlarged = self.enlarge(below)
        return self.conv(enlarged if skip is None else torch.cat([skip, enlarged], dim=1))


class UNet(nn.Module):
    """U-Net: an encoder that halves, a decoder that doubles, and skip connections between equals.

    Args:
        in_channels: 3 for RGB.
        classes: logits out; 1 for a binary mask.
        base_channels: of the first block; every step down doubles them.
        depth: steps down.
        bilinear: enlarge by interpolation; False: by transposed convolutions. With interpolation the bottleneck has
            half the channels (512 in place of 1024 for the standard 64), so that both kinds join equal widths.
        skip: False leaves the skip connections out, to see what they are for.

    Where this is not the paper's: convolutions are padded, so that the output has the image's size; batch norm follows
    each convolution; any image is padded to the stride by repeating its border, and the logits are cropped.
    """

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
        if min(in_channels, classes, base_channels, depth) < 1:
            raise ValueError("in_channels, classes, base_channels and depth must be at least 1")
        self.settings = {
            "name": "unet",
            "in_channels": in_channels,
            "classes": classes,
            "base_channels": base_channels,
            "depth": depth,
            "bilinear": bilinear,
            "skip": skip,
        }
        self.skip, self.stride = skip, 2**depth
        widths = [base_channels * 2**step for step in range(depth + 1)]
        if bilinear:
            widths[-1] //= 2
        self.stem = DoubleConv(in_channels, widths[0])
        self.encoder = nn.ModuleList(Down(widths[step], widths[step + 1]) for step in range(depth))
        ups, below = [], widths[-1]
        for step in reversed(range(depth)):
            out = widths[step] // 2 if bilinear and step else widths[step]
            ups.append(Up(below, widths[step] if skip else 0, out, bilinear))
            below = out
        self.decoder = nn.ModuleList(ups)
        self.head = nn.Conv2d(widths[0], classes, kernel_size=1)
        # Trained from scratch, the net needs no data set's own statistics: bytes are brought to -1..1.
        self.register_buffer("mean", torch.full((in_channels,), 0.5))
        self.register_buffer("std", torch.full((in_channels,), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, in_channels, H, W), uint8 or float 0-255 -> logits (B, classes, H, W)."""
        height, width = images.shape[-2:]
        features = [self.stem(pad_to_stride(normalise(images, self.mean, self.std), self.stride))]
        for down in self.encoder:
            features.append(down(features[-1]))
        x = features.pop()
        for up in self.decoder:
            skip = features.pop()
            x = up(x, skip if self.skip else None)
        return self.head(x)[..., :height, :width]
