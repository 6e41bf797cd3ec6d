"""From data sets to batches: samples are checked and augmented, and depend on (seed, epoch, index) alone."""

import multiprocessing
import os
import pickle
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from seglib.datasets.base import SegmentationData, get_filenames
from seglib.masks import check_values
from seglib.transforms import augment as apply_augmentation

__all__ = [
    "Batches",
    "Samples",
    "ValidationSamples",
    "available_cores",
    "explain_dead_workers",
    "make_loader",
    "read_sample",
    "seed_everything",
    "split_batch",
    "stack",
    "stack_by_size",
]

Sample = tuple[Tensor, Tensor, str]  # image uint8 (3, H, W), mask uint8 (H, W), file name
Batch = tuple[Tensor, Tensor, list[str]]  # images uint8 (B, 3, H, W), masks uint8 (B, H, W), file names

# ------------------------------------------------------------------------------------------------ samples


@dataclass
class Samples(Dataset[Sample]):
    """Training samples, indexed by (epoch, index).

    Augmentation, and whatever the data set itself draws at random, depends on (seed, epoch, index) alone.
    """

    data: SegmentationData
    num_classes: int | None
    augment: Any
    seed: int

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: tuple[int, int]) -> Sample:
        epoch, index = position
        with _temporary_seed(self.seed, epoch, index):
            image, mask, name = read_sample(self.data, index, self.num_classes)
        if self.augment is None:
            return image, mask, name
        pixels = image.permute(1, 2, 0).numpy()
        pixels, labels = apply_augmentation(self.augment, pixels, mask.numpy(), (self.seed, epoch, index))
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return image, torch.from_numpy(np.ascontiguousarray(labels)), name


@dataclass
class ValidationSamples(Dataset[Sample]):
    """Validation samples, indexed by position; never augmented."""

    data: SegmentationData
    num_classes: int

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        return read_sample(self.data, index, self.num_classes)


def read_sample(data: SegmentationData, index: int, num_classes: int | None = None) -> Sample:
    """Read and check one sample of a data set of (image, mask) or (image, mask, name).

    Args:
        num_classes: check that every mask value is below it or 255; None: do not check.

    Raises:
        ValueError: the image is not uint8, image and mask do not fit, or a mask value is out of range.
    """
    try:
        image, mask, *rest = data[index]
    except Exception as error:
        error.add_note(f"Raised while reading {_sample_name(data, index)}; data[{index}] repeats it.")
        raise
    name = str(rest[0]) if rest else _sample_name(data, index)
    if image.dtype != torch.uint8:
        raise ValueError(f"{name}: images must be uint8 (0 to 255), not {image.dtype}; the model normalizes them")
    if image.ndim != 3 or image.shape[1:] != mask.shape:
        raise ValueError(
            f"{name}: image {tuple(image.shape)} and mask {tuple(mask.shape)} do not fit; expected (3, H, W) and (H, W)"
        )
    if num_classes is not None:
        check_values(mask.numpy(), num_classes, name)
    return image, mask.to(torch.uint8), name


def _sample_name(data: SegmentationData, index: int) -> str:
    names = get_filenames(data)
    return f"sample {index}" if names is None else names[index]


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


# ------------------------------------------------------------------------------------------------ batches


@dataclass
class Batches(Sampler[list[tuple[int, int]]]):
    """The samples of each optimizer step of an epoch: lists of (epoch, index), shuffled by (seed, epoch).

    A step has batch_size * accumulate * process_count images, of which each process gets an equal share. The pairs
    carry the epoch to the workers. Batch norm cannot train on one image, so unless batch_size is 1 every process gets
    at least two: an incomplete last step takes images from the step before it, or joins it; a data set with fewer
    images repeats them.

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


def stack(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size into a batch.

    Raises:
        ValueError: the images differ in size; names them.
    """
    images, masks, names = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        sizes = ", ".join(f"{name} {tuple(image.shape[1:])}" for image, name in zip(images, names, strict=True))
        raise ValueError(
            f"a training batch has images of different sizes: {sizes}. Give the data set "
            "transform=seglib.transforms.resize(height, width), or crop with augmentation(crop=(height, width))"
        )
    return torch.stack(images), torch.stack(masks), list(names)


def stack_by_size(samples: Sequence[Sample]) -> list[Batch]:
    """Stack samples into one batch for each image size. Padding to one size would change the predictions."""
    by_size: dict[torch.Size, list[Sample]] = {}
    for sample in samples:
        by_size.setdefault(sample[0].shape, []).append(sample)
    return [stack(group) for group in by_size.values()]


def split_batch(images: Tensor, masks: Tensor, names: list[str], batch_size: int) -> list[Batch]:
    """Split the images of a step into batches of at most `batch_size`.

    No batch has a single image unless `batch_size` is 1: three images in batches of two stay together.
    """
    min_size = min(batch_size, 2)
    count = max(1, min(-(-len(names) // batch_size), len(names) // min_size))
    shares = np.array_split(np.arange(len(names)), count)
    return [(images[s[0] : s[-1] + 1], masks[s[0] : s[-1] + 1], names[s[0] : s[-1] + 1]) for s in shares]


# ------------------------------------------------------------------------------------------------ workers


def make_loader(
    samples: Samples | ValidationSamples, device: torch.device, workers: int | None, **settings: Any
) -> DataLoader:
    """A DataLoader whose workers live from one epoch to the next.

    Args:
        workers: number of worker processes; None: one per core (at most 8) for a GPU, none for a CPU.
        settings: further arguments of DataLoader.
    """
    if workers is None:
        workers = min(available_cores(), 8) if device.type == "cuda" else 0
    if workers:
        _check_picklable(samples)
        settings |= {"persistent_workers": True, "worker_init_fn": _ignore_interrupts}
    # With a generator of its own the loader does not draw from torch's, so workers do not change dropout.
    settings |= {"pin_memory": device.type == "cuda", "generator": torch.Generator()}
    return DataLoader(samples, num_workers=workers, **settings)


def available_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ignore_interrupts(worker: int) -> None:
    """Let the main process alone handle Ctrl-C; it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check_picklable(samples: Samples | ValidationSamples) -> None:
    """Raise ValueError when the data set cannot be sent to workers that are not forked."""
    if multiprocessing.get_start_method() == "fork":
        return
    try:
        pickle.dumps(samples)
    except Exception as error:
        raise ValueError(
            f"this data set or its augmentation cannot be sent to worker processes ({error}). Set workers=0; or use no "
            "lambda in it and define its class in a module rather than in a notebook."
        ) from error


@contextmanager
def explain_dead_workers() -> Iterator[None]:
    """Add advice to torch's error about a worker process that died."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            error.add_note(
                "A worker process died: out of memory, a crash while decoding a file, or too little shared memory "
                "(Docker: --shm-size=2g). workers=0 reads in this process and shows which file it is."
            )
        raise
