"""Pictures and nets small enough to train in a moment."""

import numpy as np
import torch
from torch.utils.data import Dataset

from seglib.models import UNet


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


def net(seed: int = 0, **settings) -> UNet:
    torch.manual_seed(seed)
    return UNet(base_channels=4, depth=2, **settings)
