"""Reading: the same batches whatever the workers, no two draws alike, and a worker that dies says of what."""

import multiprocessing
import os
import pickle
import random
import re
import signal
from multiprocessing.context import SpawnProcess

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from seglib.datasets import COCOSegmentationDataset, MaskFolderDataset
from seglib.datasets.coco import write_masks
from seglib.loading import Batches, CheckedSamples, Samples, make_loader, split, stack
from seglib.transforms import augmentation, resize
from tests.helpers.discs import Discs, Jittery, train


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # on two cores
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_the_number_of_workers_changes_no_pixel(workers):
    samples = Samples(Discs(9), 2, augmentation(horizontal_flip=0.5, rotate=20, brightness=0.3), seed=3)
    batches = Batches(9, 4, seed=3)
    loader = make_loader(samples, torch.device("cpu"), workers, batch_sampler=batches, collate_fn=stack)
    seen = []
    for epoch in (1, 2):  # the workers live on from one epoch to the next
        batches.epoch = epoch
        seen.append([(images, names) for images, _, names in loader])
    by_hand = [[samples[pair] for pair in batch] for batch in batches]
    for (images, names), batch in zip(seen[1], by_hand, strict=True):
        assert names == [name for *_, name in batch]
        assert torch.equal(images, torch.stack([image for image, *_ in batch]))
    assert [names for _, names in seen[0]] != [names for _, names in seen[1]]


def test_no_two_samples_and_no_two_epochs_share_a_draw():
    class Same(Discs):
        def __getitem__(self, index):
            return super().__getitem__(0)

    samples = Samples(Same(8), 2, augmentation(rotate=30, brightness=0.3, contrast=0.3), seed=0)
    pictures = [samples[(epoch, index)][0].numpy().tobytes() for epoch in (1, 2, 3) for index in range(8)]
    assert len(set(pictures)) == 24


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_no_batch_of_one_and_every_image_once(size):
    for count in range(2, 20):
        batches = [[index for _, index in batch] for batch in Batches(count, size, seed=0)]
        assert sorted(sum(batches, [])) == list(range(count))
        assert min(map(len, batches)) >= 2
        assert max(map(len, batches)) <= (3 if size == 2 else size)
        assert len(batches) == len(Batches(count, size, seed=0))


class Group:
    """Stands for one of several processes."""

    def __init__(self, index: int, count: int) -> None:
        self.index, self.count = index, count


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_processes_and_parts_share_out_each_step_and_nothing_is_alone(processes, accumulate, size):
    fewest = min(size, 2)
    for count in range(1, 40):
        shares = [list(Batches(count, size, 0, accumulate, Group(index, processes))) for index in range(processes)]
        assert len({len(share) for share in shares}) == 1  # every process takes as many steps
        images = [index for share in shares for batch in share for _, index in batch]
        assert sorted(set(images)) == list(range(count))
        assert len(images) == max(count, fewest * processes)  # none twice unless there are too few
        for batch in sum(shares, []):
            parts = [files for _, _, files in split(torch.zeros(len(batch)), torch.zeros(len(batch)), batch, size)]
            assert sum(parts, []) == batch and len(parts) <= accumulate + 2
            assert all(fewest <= len(part) <= max(size, 3 if size == 2 else 1) for part in parts)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_epoch_can_be_begun_in_its_middle(processes):
    for index in range(processes):
        batches = Batches(20, 2, 0, 1, Group(index, processes))
        batches.epoch = 3
        whole = list(batches)
        batches.first = 2
        assert list(batches) == whole[2:] and len(batches) == len(whole)


def test_a_data_set_that_draws_by_itself_draws_the_same_in_any_worker_and_disturbs_nobody():
    samples = Samples(Jittery(9), 2, None, seed=3)
    pictures = {}
    for workers in (0, 2):
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        batches = Batches(9, 2, seed=3)
        loader = make_loader(samples, torch.device("cpu"), workers, batch_sampler=batches, collate_fn=stack)
        pictures[workers] = [images for images, _, _ in loader]
        assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert all(torch.equal(one, other) for one, other in zip(pictures[0], pictures[2], strict=True))
    assert len({samples[(epoch, 0)][0].sum().item() for epoch in range(8)}) > 4


# ------------------------------------------------------------------------------------------------ what goes wrong


class Deadly(Discs):
    """Reading one of the images ends the process."""

    end = staticmethod(lambda: os.kill(os.getpid(), signal.SIGKILL))

    def __getitem__(self, index: int):
        if index == 4:
            self.end()
        return super().__getitem__(index)


class Leaving(Deadly):
    """Reading one of the images ends the process without a signal: torch may see no more than a broken connection."""

    end = staticmethod(lambda: os._exit(1))


@pytest.mark.parametrize("kind", [Deadly, Leaving])
@pytest.mark.parametrize("part", ["data", "val"])
def test_a_worker_that_dies_says_which_file_it_was_reading(tmp_path, part, kind):
    sets = {"data": Discs(30), "val": Discs(30)} | {part: kind(30)}
    for attempt in range(2):
        with pytest.raises(RuntimeError) as error:
            train(tmp_path / str(attempt), **sets, epochs=1, workers=2)
        told = str(error.value)
        assert re.search(r"disc4\.png \(sample 4\).*data\[4\].*leave it out.*fewer workers", told), told
        assert "between two files" not in told


def test_of_a_subset_the_file_itself_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"reading disc4\.png \(sample 1\)"):
        train(tmp_path, data=Subset(Deadly(6), [2, 4, 5]), epochs=1, workers=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_data_set_says_of_which_sample(tmp_path, workers):
    class Failing(Discs):
        def __getitem__(self, index: int):
            return super().__getitem__(index) if index != 3 else [][0]

    with pytest.raises(IndexError) as error:
        train(tmp_path, data=Failing(6), epochs=1, workers=workers)
    told = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert "while reading disc3.png: data[3] repeats it" in told


def test_what_cannot_be_sent_to_fresh_processes_is_said_before_they_start(tmp_path, monkeypatch):
    data = Discs(4)
    data.transform = lambda **picture: picture
    assert train(tmp_path, data=data, epochs=1, workers=1).finished  # forked, it need not be sent
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    with pytest.raises(ValueError, match=r"cannot be sent to worker processes .*workers=0"):
        train(tmp_path / "spawned", data=data, epochs=1, workers=1)


def test_readers_and_pipelines_can_be_sent_to_other_processes(tiny, tmp_path):
    outlines = tiny.open(transform=resize(16, 16))
    write_masks(outlines, tmp_path / "masks")
    augment = augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate=15, brightness=0.2, contrast=0.2, noise=0.1)
    folder = MaskFolderDataset(tiny.images, tmp_path / "masks", outlines.classes, transform=resize(16, 16))
    for data in (outlines, folder, Subset(folder, [1])):
        for samples, position in ((Samples(data, 3, augment, 0), (1, 0)), (CheckedSamples(data, 3), 0)):
            here, there = samples[position], pickle.loads(pickle.dumps(samples))[position]
            assert all(torch.equal(one, other) for one, other in zip(here[:2], there[:2], strict=True))
    assert isinstance(outlines, COCOSegmentationDataset)


@pytest.fixture
def _spawning():
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.usefixtures("_spawning")
def test_workers_that_are_started_afresh_read_the_same(tmp_path, monkeypatch):
    """As on macOS and Windows."""
    settings = {"data": Discs(6), "epochs": 2, "augment": augmentation(horizontal_flip=0.5, rotate=9)}
    start, started = SpawnProcess._Popen, []
    monkeypatch.setattr(SpawnProcess, "_Popen", lambda worker: started.append(worker) or start(worker))
    spawned = train(tmp_path / "spawned", workers=1, **settings)
    assert len(started) == 2  # one to train with, one to validate
    assert spawned.column("val_loss") == train(tmp_path / "alone", workers=0, **settings).column("val_loss")
