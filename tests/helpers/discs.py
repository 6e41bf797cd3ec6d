"""Images and models that train in a moment, and the comparison of two finished runs."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from seglib import runs
from seglib.losses import BCEDiceLoss
from seglib.models import UNet
from seglib.runs import Run
from seglib.train import TrainConfig, fit

# ------------------------------------------------------------------------------------------------ data


class Discs(Dataset):
    """Noisy images of one brighter disc each: (image, mask, name)."""

    classes = ("background", "disc")

    def __init__(self, count: int, size: int | list[tuple[int, int]] = 32) -> None:
        self.sizes = [(size, size)] * count if isinstance(size, int) else size
        self.filenames = [f"disc{index}.png" for index in range(count)]

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        rng = np.random.default_rng(index)
        height, width = self.sizes[index]
        y, x = np.ogrid[:height, :width]
        mask = (y - rng.uniform(8, height - 8)) ** 2 + (x - rng.uniform(8, width - 8)) ** 2 < 36
        image = rng.integers(0, 120, (3, height, width)) + 80 * mask
        return torch.from_numpy(image.astype(np.uint8)), torch.from_numpy(mask.astype(np.uint8)), self.filenames[index]


class PartlyIgnored(Discs):
    """Discs in which the share of ignored pixels grows with the index; the last image is ignored altogether."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        image, mask, name = super().__getitem__(index)
        mask[: (index + 1) * mask.shape[0] // len(self)] = 255
        return image, mask, name


class RandomDiscs(Discs):
    """Discs of random brightness, drawn from the global generators of Python, numpy and torch."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        image, mask, name = super().__getitem__(index)
        brightness = random.randrange(60) + np.random.randint(40) + int(torch.randint(20, (1,)))
        return image // 2 + brightness, mask, name


# ------------------------------------------------------------------------------------------------ models


class ConvNet(nn.Module):
    """Two convolutions; on request with batch norm, and with random draws in training.

    Args:
        stochastic: dropout, and a brightness drawn from the global generators of Python and numpy.
    """

    def __init__(self, classes: int = 1, norm: bool = False, stochastic: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stochastic = stochastic
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(0.2 if stochastic else 0.0),
            nn.Conv2d(4, classes, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        brightness = random.random() + np.random.rand() if self.stochastic and self.training else 0.0
        return self.layers(images.float() / 255 + 0.1 * brightness)


def net(seed: int = 0, **settings: Any) -> UNet:
    """A small U-Net, whose checkpoint rebuilds it."""
    torch.manual_seed(seed)
    return UNet(base_channels=4, depth=2, **settings)


# ------------------------------------------------------------------------------------------------ training


def config(**settings: Any) -> TrainConfig:
    """Three short epochs, unless the settings say otherwise."""
    return TrainConfig(**{"epochs": 3, "batch_size": 4, "lr": 1e-2, "trackers": (), "previews": 1} | settings)


def train(
    run_dir: Path,
    model: nn.Module | None = None,
    data: Any = None,
    val: Any = None,
    loss: Any = None,
    augment: Any = None,
    **settings: Any,
) -> Run:
    """`fit` of a small U-Net on ten discs, unless the arguments say otherwise."""
    return fit(
        model or net(),
        Discs(10) if data is None else data,
        Discs(5) if val is None else val,
        loss or BCEDiceLoss(),
        config(**settings),
        run_dir,
        augment,
    )


def check_same_end(one: Path, other: Path) -> None:
    """Assert that two runs ended with equal checkpoints, best models and histories, but for times and ids."""
    for name in (runs.LAST, runs.BEST):
        check_equal(*(torch.load(folder / name, weights_only=True) for folder in (one, other)), where=name)
    check_equal(*(runs.read_history(folder / "history.csv") for folder in (one, other)), where="history.csv")


def check_equal(one: Any, other: Any, where: str = "") -> None:
    """Assert that two nests of dicts, lists and tensors are equal but for "about" and "seconds"; NaN equals NaN."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {"about", "seconds"}:
            check_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            check_equal(*pair, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other or (one != one and other != other), f"{where}: {one} and {other}"
