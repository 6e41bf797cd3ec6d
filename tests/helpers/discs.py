"""Pictures and nets small enough to train in a moment."""

import random
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from seglib import plots, runs
from seglib.losses import BCEDiceLoss
from seglib.models import UNet
from seglib.train import TrainConfig, fit


class Discs(Dataset):
    """Noisy pictures with a brighter disc each: (image, mask, name)."""

    classes = ("background", "disc")

    def __init__(self, count: int, size: int | list[tuple[int, int]] = 32) -> None:
        self.sizes = [(size, size)] * count if isinstance(size, int) else size
        self.filenames = [f"disc{index}.png" for index in range(count)]

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int):
        rng = np.random.default_rng(index)
        height, width = self.sizes[index]
        y, x = np.ogrid[:height, :width]
        mask = (y - rng.uniform(8, height - 8)) ** 2 + (x - rng.uniform(8, width - 8)) ** 2 < 36
        image = rng.integers(0, 120, (3, height, width)) + 80 * mask
        return torch.from_numpy(image.astype(np.uint8)), torch.from_numpy(mask.astype(np.uint8)), self.filenames[index]


class Unsure(Discs):
    """Discs of which more and more does not count, from one image to the next; of the last, nothing."""

    def __getitem__(self, index: int):
        image, mask, name = super().__getitem__(index)
        mask[: (index + 1) * mask.shape[0] // len(self)] = 255
        return image, mask, name


class Jittery(Discs):
    """A data set that draws at random itself, with every generator there is."""

    def __getitem__(self, index: int):
        image, mask, name = super().__getitem__(index)
        drawn = random.randrange(60) + np.random.randint(40) + torch.randint(20, (1,)).item()
        return image // 2 + drawn, mask, name


def net(seed: int = 0, **settings) -> UNet:
    torch.manual_seed(seed)
    return UNet(base_channels=4, depth=2, **settings)


def config(**settings) -> TrainConfig:
    return TrainConfig(**{"epochs": 3, "batch_size": 4, "lr": 1e-2, "trackers": (), "previews": 1} | settings)


class Sketch:
    """A figure of which nothing is saved but the numbers it would show."""

    def __init__(self, *shown) -> None:
        self.shown = shown

    def savefig(self, path, **_) -> None:
        Path(path).write_text(repr(self.shown))


class Sketches:
    """Takes the place of seglib.plots in fit: to draw a run's curves takes longer than to train a net this small."""

    save = staticmethod(plots.save)
    loss_curves = metric_curves = Sketch


def train(run_dir, model=None, data=None, val=None, loss=None, augment=None, **settings):
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
    """The same weights, optimizer, schedule, history and best model, bit for bit; times may differ."""
    states = [torch.load(folder / runs.LAST, weights_only=True) for folder in (one, other)]
    for state in states:
        del state["about"]
        for row in state["history"]:
            del row["seconds"]
        del state["epoch"]["seconds"]
    check_equal(*states)
    check_equal(*(torch.load(folder / runs.BEST, weights_only=True) for folder in (one, other)))
    tables = [runs.read_history(folder / "history.csv") for folder in (one, other)]
    check_equal(*([{**row, "seconds": 0} for row in table] for table in tables))


def check_equal(one, other, where: str = "") -> None:
    """Assert that two nests of dicts, lists and tensors are equal, NaN being equal to NaN."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            check_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            check_equal(*pair, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other or (one != one and other != other), f"{where}: {one} and {other}"
