"""From data sets to batches: samples are checked and augmented, and depend on (seed, epoch, index) alone."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from seglib.datasets.base import SegmentationData
from seglib.masks import check_values
from seglib.transforms import augment as apply_augmentation

__all__ = [
    "Batches",
    "Samples",
    "available_cores",
    "make_loader",
    "seed_everything",
    "split_batch",
    "to_device",
    "val_batches",
]

Sample = tuple[Tensor, Tensor, str]  # image uint8 (3, H, W), mask uint8 (H, W), file name
Batch = tuple[Tensor, Tensor, list[str]]  # images uint8 (B, 3, H, W), masks uint8 (B, H, W), file names


@dataclass
class Samples(Dataset[Sample]):
    """The samples of a data set, checked and augmented, indexed by (epoch, index).

    Augmentation, and whatever the data set itself draws at random, depends on (seed, epoch, index) alone.

    Args:
        data: samples (image uint8 (3, H, W), mask uint8 (H, W)) or (image, mask, file name).
        num_classes: check that every mask value is below it or 255; None: do not check.
        augment: a pipeline of `seglib.transforms.augmentation`; None: no augmentation.
        seed: 0 or more.
    """

    data: SegmentationData
    num_classes: int | None = None
    augment: Any = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: tuple[int, int]) -> Sample:
        epoch, index = position
        with _temporary_seed(self.seed, epoch, index):
            image, mask, name = self._read(index)
        if self.augment is None:
            return image, mask, name
        pixels = image.permute(1, 2, 0).numpy()
        pixels, labels = apply_augmentation(self.augment, pixels, mask.numpy(), (self.seed, epoch, index))
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return image, torch.from_numpy(np.ascontiguousarray(labels)), name

    def _read(self, index: int) -> Sample:
        try:
            image, mask, *rest = self.data[index]
        except Exception as error:
            error.add_note(f"Raised while reading sample {index}; data[{index}] repeats it.")
            raise
        name = str(rest[0]) if rest else f"sample {index}"
        if image.dtype != torch.uint8:
            raise ValueError(f"{name}: images must be uint8 (0 to 255), not {image.dtype}; the model normalizes them")
        if image.ndim != 3 or image.shape[1:] != mask.shape:
            raise ValueError(
                f"{name}: image {tuple(image.shape)} and mask {tuple(mask.shape)} are not (3, H, W), (H, W)"
            )
        if self.num_classes is not None:
            check_values(mask.numpy(), self.num_classes, name)
        return image, mask.to(torch.uint8), name


def seed_everything(*numbers: int, seed_torch: Callable[[int], Any] = torch.manual_seed) -> None:
    """Seed the random generators of Python, numpy and torch with non-negative integers."""
    for_python, for_torch, *for_numpy = np.random.SeedSequence(numbers).generate_state(6).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)
    seed_torch(for_torch)


@contextmanager
def _temporary_seed(*numbers: int) -> Iterator[None]:
    """Seed all random generators of the CPU for the block, and restore them afterwards."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            seed_everything(*numbers, seed_torch=torch.default_generator.manual_seed)  # leaves a GPU's generator alone
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@dataclass
class Batches(Sampler[list[tuple[int, int]]]):
    """The samples of each optimizer step of an epoch: lists of (epoch, index), shuffled by (seed, epoch).

    A step has batch_size * accumulate * process_count images, of which each process gets an equal share. Batch norm
    cannot train on one image, so unless batch_size is 1 every process gets at least two: an incomplete last step takes
    images from the step before it, or joins it; a data set with fewer images repeats them.

    Args:
        count: number of samples in the data set.
        epoch: the epoch to iterate over next, counted from 1.
    """

    count: int
    batch_size: int
    seed: int
    accumulate: int = 1
    process_count: int = 1
    process_index: int = 0
    epoch: int = 1

    def __len__(self) -> int:
        """The number of steps in an epoch."""
        return len(self._steps())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self._steps():
            share = np.array_split(step, self.process_count)[self.process_index]
            yield [(self.epoch, index) for index in share.tolist()]

    def _steps(self) -> list[list[int]]:
        """The images of each step, of all processes together."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        size = self.batch_size * self.accumulate * self.process_count
        min_size = min(self.batch_size, 2) * self.process_count
        steps = [order[start : start + size] for start in range(0, self.count, size)]
        missing = min_size - len(steps[-1])
        if missing <= 0:
            return steps
        if len(steps) == 1:
            return [np.resize(order, min_size).tolist()]
        if size - missing < min_size:
            return [*steps[:-2], steps[-2] + steps[-1]]
        return [*steps[:-2], steps[-2][:-missing], steps[-2][-missing:] + steps[-1]]


def split_batch(images: Tensor, masks: Tensor, names: list[str], batch_size: int) -> list[Batch]:
    """Split the images of a step into batches of at most `batch_size`.

    No batch has a single image unless `batch_size` is 1: three images in batches of two stay together.
    """
    count = max(1, min(-(-len(names) // batch_size), len(names) // min(batch_size, 2)))
    names_of_parts = [part.tolist() for part in np.array_split(names, count)]
    return list(zip(images.tensor_split(count), masks.tensor_split(count), names_of_parts, strict=True))


def to_device(batch: Tensor, accelerator: Accelerator) -> Tensor:
    """Copy images or masks to the device; images get the layout that is faster there, channels last."""
    layout = torch.channels_last if batch.ndim == 4 else torch.preserve_format
    return batch.to(accelerator.device, non_blocking=True, memory_format=layout)


def _stack(samples: Sequence[Sample]) -> Batch:
    images, masks, names = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        sizes = ", ".join(f"{name} {tuple(image.shape[1:])}" for image, name in zip(images, names, strict=True))
        raise ValueError(
            f"a training batch has images of different sizes: {sizes}. Give the data set "
            "transform=seglib.transforms.resize(height, width), or crop with augmentation(crop=(height, width))"
        )
    return torch.stack(images), torch.stack(masks), list(names)


def _stack_by_size(samples: Sequence[Sample]) -> list[Batch]:
    """Stack samples into one batch for each image size. Padding to one size would change the predictions."""
    by_size: dict[torch.Size, list[Sample]] = {}
    for sample in samples:
        by_size.setdefault(sample[0].shape, []).append(sample)
    return [_stack(group) for group in by_size.values()]


def make_loader(samples: Samples, batches: Any, device: torch.device, workers: int | None) -> DataLoader:
    """A DataLoader whose workers live from one epoch to the next.

    Args:
        batches: the (epoch, index) of the samples of each batch: `Batches`, whose images must have one size, or lists,
            which are split by size.
        workers: number of worker processes; None: one per core (at most 8) for a GPU, none for a CPU.
    """
    if workers is None:
        workers = min(available_cores(), 8) if device.type == "cuda" else 0
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_stack if isinstance(batches, Batches) else _stack_by_size,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # without one, the loader draws from torch's, and workers change dropout
    )


def val_batches(count: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """The (epoch, index) of `count` samples, in order and in batches."""
    positions = [(0, index) for index in range(count)]
    return [positions[start : start + batch_size] for start in range(0, count, batch_size)]


def available_cores() -> int:
    """The number of cores that this process may use; macOS and Windows only know how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
