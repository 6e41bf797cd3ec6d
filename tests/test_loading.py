"""Samples and batches depend on seed, epoch and index alone; errors in a data set name the sample."""

import multiprocessing
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from seglib.datasets import MaskFolderDataset
from seglib.datasets.coco import write_masks
from seglib.loading import Batches, Samples, make_loader, split_batch
from seglib.transforms import augmentation, resize
from tests.helpers.discs import Discs, RandomDiscs, train


def test_the_number_of_workers_changes_no_pixel():
    samples = Samples(RandomDiscs(9), 2, augmentation(horizontal_flip=0.5, rotate=20, brightness=0.3), seed=3)
    epochs = {}
    for workers in (0, 2):
        batches = Batches(9, 4, seed=3)
        loader = make_loader(samples, batches, torch.device("cpu"), workers)
        for epoch in (1, 2):  # the workers live from one epoch to the next
            batches.epoch = epoch
            epochs[workers, epoch] = list(loader)
    for epoch in (1, 2):
        for batch, other in zip(epochs[0, epoch], epochs[2, epoch], strict=True):
            assert batch[2] == other[2]
            assert torch.equal(batch[0], other[0]) and torch.equal(batch[1], other[1])
    assert [names for *_, names in epochs[0, 1]] != [names for *_, names in epochs[0, 2]]


def test_no_two_samples_and_no_two_epochs_are_augmented_alike():
    class Same(Discs):
        def __getitem__(self, index):
            return super().__getitem__(0)

    samples = Samples(Same(8), 2, augmentation(rotate=30, brightness=0.3, contrast=0.3), seed=0)
    images = {samples[(epoch, index)][0].numpy().tobytes() for epoch in (1, 2, 3) for index in range(8)}
    assert len(images) == 24


def test_a_data_set_that_draws_at_random_leaves_the_generators_as_they_were():
    samples = Samples(RandomDiscs(9), 2, None, seed=3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = samples[(1, 0)][0]
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert torch.equal(first, samples[(1, 0)][0])
    assert not torch.equal(first, samples[(2, 0)][0])


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_each_epoch_reads_every_image_once_and_no_batch_has_a_single_one(processes, accumulate, size):
    fewest = min(size, 2)
    for count in range(1, 30):
        shares = [list(Batches(count, size, 0, accumulate, processes, index)) for index in range(processes)]
        assert len({len(share) for share in shares}) == 1  # every process takes as many steps
        indices = [index for share in shares for step in share for _, index in step]
        assert sorted(set(indices)) == list(range(count))
        assert len(indices) == max(count, fewest * processes)  # a data set with too few images repeats them
        for step in [step for share in shares for step in share]:
            names = [str(index) for _, index in step]
            parts = [names for *_, names in split_batch(torch.zeros(len(step)), torch.zeros(len(step)), names, size)]
            assert [name for part in parts for name in part] == names
            assert all(fewest <= len(part) <= (3 if size == 2 else max(size, 1)) for part in parts)


# ------------------------------------------------------------------------------------------------ errors


class Failing(Discs):
    """Reading one image fails."""

    def __getitem__(self, index):
        if index == 3:
            raise RuntimeError("a broken file")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_data_set_names_the_sample_and_leaves_no_worker(tmp_path, workers):
    before = multiprocessing.active_children()
    with pytest.raises(RuntimeError, match="a broken file") as error:
        train(tmp_path, data=Failing(6), epochs=1, workers=workers)
    message = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert "while reading sample 3; data[3] repeats it" in message
    assert not [child for child in multiprocessing.active_children() if child not in before]


def test_readers_and_augmentation_read_the_same_in_new_processes(tiny, tmp_path):
    """What is pickled and read back is what a spawned worker has."""
    coco = tiny.open(transform=resize(16, 16))
    write_masks(coco, tmp_path / "masks")
    folder = MaskFolderDataset(tiny.images, tmp_path / "masks", coco.classes, transform=resize(16, 16))
    augment = augmentation(horizontal_flip=0.5, rotate=15, brightness=0.2, noise=0.1)
    for data in (coco, folder, Subset(folder, [1])):
        samples = Samples(data, 3, augment)
        image, mask, _ = samples[1, 0]
        copied_image, copied_mask, _ = pickle.loads(pickle.dumps(samples))[1, 0]
        assert torch.equal(image, copied_image)
        assert torch.equal(mask, copied_mask)
