"""From data sets to batches: checked, augmented, in an order, and by workers, that change nothing."""

import multiprocessing
import os
import pickle
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from seglib.datasets.base import file_names
from seglib.masks import check_values
from seglib.processes import Processes, ignore_interrupts
from seglib.transforms import augment as apply_augmentation

DEAD_WORKERS = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")  # as torch words it

# ------------------------------------------------------------------------------------------------ samples


class Samples(Dataset):
    """The training samples of (epoch, index): checked, augmented by what (seed, epoch, index) draws.

    A data set that draws at random itself, whatever it draws with, draws the same for the same (seed, epoch, index).
    """

    def __init__(self, data: Dataset, num_classes: int | None, augment: Any, seed: int) -> None:
        self.data, self.num_classes, self.augment, self.seed = data, num_classes, augment, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        """Image (3, H, W) uint8, mask (H, W) uint8, name."""
        epoch, index = position
        with drawing_from(self.seed, epoch, index):
            image, mask, name = read_sample(self.data, index, self.num_classes)
        if self.augment is not None:
            changed = apply_augmentation(
                self.augment, image.permute(1, 2, 0).numpy(), mask.numpy(), (self.seed, epoch, index)
            )
            image = torch.from_numpy(np.ascontiguousarray(changed[0].transpose(2, 0, 1)))
            mask = torch.from_numpy(np.ascontiguousarray(changed[1]))
        return image, mask, name


class CheckedSamples(Dataset):
    """Validation samples: checked, never augmented."""

    def __init__(self, data: Dataset, num_classes: int) -> None:
        self.data, self.num_classes = data, num_classes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        return read_sample(self.data, index, self.num_classes)


def read_sample(data: Dataset, index: int, num_classes: int | None = None) -> tuple[Tensor, Tensor, str]:
    """Sample `index` of any data set of pairs or triples, checked on the CPU: image, uint8 mask, name."""
    try:
        image, mask, *rest = data[index]
    except Exception as error:
        error.add_note(f"This happened while reading {sample_name(data, index)}: data[{index}] repeats it.")
        raise
    name = str(rest[0]) if rest else sample_name(data, index)
    if image.dtype != torch.uint8:
        raise ValueError(f"{name}: images are uint8, 0-255, not {image.dtype}: the model brings them to its own scale")
    if image.ndim != 3 or image.shape[1:] != mask.shape:
        raise ValueError(
            f"{name}: image {tuple(image.shape)} and mask {tuple(mask.shape)} do not fit: (3, H, W) "
            "and (H, W) were expected"
        )
    if num_classes is not None:
        check_values(mask.numpy(), num_classes, name)
    return image, mask.to(torch.uint8), name


def sample_name(data: Dataset, index: int) -> str:
    """The file of a sample where the data set keeps names, else its number."""
    names = file_names(data)
    return f"sample {index}" if names is None else names[index]


def set_generators(*draw: int, seed_torch: Callable[[int], Any] = torch.manual_seed) -> None:
    """Seed Python's, numpy's and torch's random generators with whole numbers, none negative."""
    for_python, for_torch, *for_numpy = np.random.SeedSequence(draw).generate_state(6).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)
    seed_torch(for_torch)


@contextmanager
def drawing_from(*draw: int) -> Iterator[None]:
    """Let all random generators draw from these numbers, and afterwards go on from where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            set_generators(*draw, seed_torch=torch.default_generator.manual_seed)  # and not that of a GPU that trains
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


# ------------------------------------------------------------------------------------------------ batches


class Batches(Sampler):
    """What one process reads for each step of an epoch: lists of (epoch, index), shuffled by (seed, epoch).

    A step takes `batch_size` images for each of its `accumulate` parts in each process. The pairs carry the epoch to
    the workers.

    No part holds a single image unless the batch size is one, for batch norm in training needs two: a last step with
    too few images takes some from the step before it, or joins it; a data set with too few repeats them. But for this,
    the images of a step are the same however they are shared out.

    Attributes:
        epoch: which one is next. first: the step to begin with, to go on in the middle of an epoch.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, accumulate: int = 1, processes: Processes | None = None
    ) -> None:
        self.count, self.seed, self.processes = count, seed, processes or Processes()
        self.step_size = batch_size * accumulate * self.processes.count
        self.fewest = min(batch_size, 2) * self.processes.count
        self.epoch, self.first = 1, 0

    def __len__(self) -> int:
        """How many steps an epoch has, those before `first` included."""
        return len(self.steps())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps()[self.first :]:
            mine = np.array_split(step, self.processes.count)[self.processes.index]
            yield [(self.epoch, index) for index in mine.tolist()]

    def steps(self) -> list[list[int]]:
        """The images of each step of this epoch, of all processes together."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        size = self.step_size
        steps = [order[start : start + size] for start in range(0, self.count, size)]
        missing = self.fewest - len(steps[-1])
        if missing <= 0:
            return steps
        if len(steps) == 1:
            return [np.resize(order, self.fewest).tolist()]
        if size - missing < self.fewest:
            return [*steps[:-2], steps[-2] + steps[-1]]
        return [*steps[:-2], steps[-2][:-missing], steps[-2][-missing:] + steps[-1]]


def stack(samples: Sequence[tuple[Tensor, Tensor, str]]) -> tuple[Tensor, Tensor, list[str]]:
    """Samples of one size -> images (B, 3, H, W), masks (B, H, W), names."""
    images, masks, names = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        sizes = ", ".join(f"{name} {tuple(image.shape[1:])}" for image, name in zip(images, names, strict=True))
        raise ValueError(
            f"images of different sizes in one training batch: {sizes}. Give the data set "
            "transform=seglib.transforms.resize(height, width), or cut them: augmentation(crop=(height, width))"
        )
    return torch.stack(images), torch.stack(masks), list(names)


def stack_by_size(samples: Sequence[tuple[Tensor, Tensor, str]]) -> list[tuple[Tensor, Tensor, list[str]]]:
    """Samples of any sizes -> a batch for each size: padding to the largest would change predictions."""
    by_size: dict[torch.Size, list] = {}
    for sample in samples:
        by_size.setdefault(sample[0].shape, []).append(sample)
    return [stack(group) for group in by_size.values()]


def split(images: Tensor, masks: Tensor, files: list[str], batch_size: int) -> list[tuple[Tensor, Tensor, list[str]]]:
    """Split what a step takes into parts of `batch_size`, none of a single image unless that is 1 (then one is 3)."""
    fewest = min(batch_size, 2)
    parts = max(1, min(-(-len(files) // batch_size), len(files) // fewest))
    shares = np.array_split(np.arange(len(files)), parts)
    return [(images[s[0] : s[-1] + 1], masks[s[0] : s[-1] + 1], files[s[0] : s[-1] + 1]) for s in shares]


# ------------------------------------------------------------------------------------------------ workers


class Watched(Dataset):
    """Samples whose readers write down, in memory that the main process sees, what they are about to read.

    Attributes:
        reading: (workers, 2) int64, the process id of each worker and the index it is at, -1 between two.
    """

    def __init__(self, samples: Samples | CheckedSamples, workers: int) -> None:
        self.samples = samples
        self.reading = torch.full((workers, 2), -1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: Any) -> tuple[Tensor, Tensor, str]:
        worker = get_worker_info().id
        index = position[1] if isinstance(position, tuple) else position
        self.reading[worker] = torch.tensor([os.getpid(), index])
        sample = self.samples[position]
        self.reading[worker, 1] = -1
        return sample


def make_loader(
    samples: Samples | CheckedSamples, device: torch.device, workers: int | None, **settings: Any
) -> DataLoader:
    """A DataLoader with as many workers as suit the device: beside a CPU that trains they would only be in its way.

    Its workers live from one pass to the next; see `watching_workers` for their end.
    """
    if workers is None:
        workers = min(os.cpu_count() or 1, 8) if device.type == "cuda" else 0
    if workers:
        check_can_be_sent(samples)
        samples = Watched(samples, workers)
        settings |= {"persistent_workers": True, "worker_init_fn": ignore_interrupts}
    # A generator of its own: else it would draw from torch's, and dropout would depend on the number of workers.
    settings |= {"pin_memory": device.type == "cuda", "generator": torch.Generator()}
    return DataLoader(samples, num_workers=workers, **settings)


def check_can_be_sent(samples: Dataset) -> None:
    """Raise ValueError where workers are started afresh (macOS, Windows) and the data set cannot be sent to them."""
    if multiprocessing.get_start_method() == "fork":
        return
    try:
        pickle.dumps(samples)
    except Exception as error:
        raise ValueError(
            f"this data set or its augmentation cannot be sent to worker processes ({error}): workers=0 reads in this "
            "process; to have workers, use no lambda in it and define its class in a file of its own"
        ) from error


@contextmanager
def watching_workers(*loaders: DataLoader) -> Iterator[None]:
    """Where a worker dies (no memory, a decoder that crashes), say which file it was reading; let no worker outlive it.

    The workers of a loader live as long as the loader, and a notebook keeps that with an error it shows.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:  # as torch says it, or a connection that breaks off
        dead = dead_workers(loaders, str(error))
        if not dead:
            raise
        read = what_was_read([loader.dataset for loader in loaders], dead)
        raise RuntimeError(f"{error}\n{read}") from error
    finally:
        for loader in loaders:
            loader._iterator = None


def dead_workers(loaders: Sequence[DataLoader], message: str) -> set[int]:
    """The process ids of the workers that died: those that torch names, else those that are gone."""
    named = DEAD_WORKERS.match(message)
    if named:
        return {int(number) for number in named[1].split(",")}
    workers = [worker for loader in loaders if loader._iterator for worker in loader._iterator._workers]
    for worker in workers:
        worker.join(0.2)  # one that is dying has time to
    return {worker.pid for worker in workers if not worker.is_alive()}


def what_was_read(read_from: list[Watched], processes: set[int]) -> str:
    """The files that these worker processes were reading, and what to do."""
    at = [
        (sample_name(watched.samples.data, index), index)
        for watched in read_from
        for process, index in watched.reading.tolist()
        if process in processes and index >= 0
    ]
    if not at:
        return (
            "It was between two files, or had not begun. If it could not start, its own message stands above: a data "
            "set that a notebook defines needs workers=0 on macOS and Windows. If memory ran out: fewer workers."
        )
    return (
        f"It was reading {', '.join(f'{name} (sample {index})' for name, index in at)}. Read that one by itself, "
        f"data[{at[0][1]}]: if this kills Python too, replace the file or leave it out; if not, memory ran out: fewer "
        "workers, or smaller images."
    )
