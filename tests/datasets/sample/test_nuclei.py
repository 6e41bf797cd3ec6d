"""The bundled sample of nuclei: labels that fit the pictures, tiles of one field, faint and touching nuclei."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglib.datasets import MaskFolderDataset, all_instances, read_groups, render, split_by_group

SIZE = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return render("dsb2018", 60, SIZE, root=tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def data(folder) -> MaskFolderDataset:
    return MaskFolderDataset(folder / "images", folder / "labels", ["background", "nucleus"], instance_ids=True)


def gray(data: MaskFolderDataset, index: int) -> np.ndarray:
    """A picture in gray, (H, W), in which nuclei are bright, also where they are stained."""
    values = data[index][0].numpy().mean(axis=0)
    return 255 - values if np.median(values) > 128 else values


def test_labels_number_the_nuclei_in_16_bits(folder, data):
    for index, objects in enumerate(all_instances(data)):
        with Image.open(folder / "labels" / data.filenames[index]) as labels:
            assert labels.mode == "I;16"
            assert set(np.unique(labels)) - {0} == set(range(1, len(objects) + 1))
        assert objects.areas.min(initial=6) >= 6 and 0.0 < data[index][1].float().mean() < 0.6


def test_sizes_and_stains_vary(data):
    sizes = Counter(tuple(data[index][1].shape) for index in range(len(data)))
    assert len(sizes) == 3 and max(max(size) for size in sizes) == SIZE
    stained = sum(data[index][0].float().median().item() > 128 for index in range(len(data)))
    assert 0 < stained < len(data) / 2


def test_nuclei_touch_and_some_are_hardly_brighter_than_what_is_around_them(data):
    touching = faint = count = 0
    for index, objects in enumerate(all_instances(data)):
        numbers = objects.numbered()
        pairs = np.hstack(
            [[numbers[1:].ravel(), numbers[:-1].ravel()], [numbers[:, 1:].ravel(), numbers[:, :-1].ravel()]]
        )
        touching += len(np.unique(pairs[:, (pairs[0] != pairs[1]) & (pairs.min(axis=0) > 0)]))
        picture = gray(data, index)
        background = np.median(picture[numbers == 0])
        contrasts = [np.median(picture[numbers == number]) - background for number in range(1, len(objects) + 1)]
        faint += sum(contrast < 0.35 * max(contrasts) for contrast in contrasts)
        count += len(objects)
    assert 0.6 * count < touching < 0.9 * count and 0.05 * count < faint < 0.4 * count


def test_tiles_of_a_field_continue_each_other(folder, data):
    groups = read_groups(folder)
    assert sorted(Counter(groups.values()).values()) == 12 * [1] + 12 * [4]
    inside, across = [], []
    for left in range(0, len(data), 5):  # the tiles in the upper left and upper right corner of a field
        a, b = gray(data, left), gray(data, left + 1)
        assert groups[Path(data.filenames[left]).stem] == groups[Path(data.filenames[left + 1]).stem]
        inside.append(np.abs(a[:, -1] - a[:, -2]).mean())
        across.append(np.abs(a[:, -1] - b[:, 0]).mean())
    assert np.mean(across) < 1.5 * np.mean(inside)
    parts = split_by_group(data, groups)
    assert sum(map(len, parts)) == len(data) and min(map(len, parts)) >= 8
