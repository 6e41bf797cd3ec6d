"""What all readers share: Subsets, the objects of a data set, and the held-out validation split."""

import hashlib

import pytest
from torch.utils.data import Dataset, Subset

import seglib.datasets
from seglib.datasets import all_instances, hold_out
from seglib.datasets.base import get_class_names, get_filenames, get_transform, unwrap_subset


class Named(Dataset):
    """A data set of file names only."""

    classes = ["background", "cup"]
    transform = len

    def __init__(self, filenames: list[str]) -> None:
        self.filenames = filenames

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> str:
        return self.filenames[index]


def test_every_public_name_can_be_imported():
    for name in seglib.datasets.__all__:
        assert getattr(seglib.datasets, name) is not None and name in dir(seglib.datasets)
    with pytest.raises(AttributeError, match="no attribute 'neither'"):
        seglib.datasets.neither  # noqa: B018


def test_a_subset_of_a_subset_keeps_names_classes_and_transform():
    data = Named(["a.png", "b.png", "c.png"])
    subset = Subset(Subset(data, [2, 0]), [1, 0, 1])
    assert unwrap_subset(subset) == (data, [0, 2, 0])
    assert get_filenames(subset) == ["a.png", "c.png", "a.png"]
    assert get_class_names(subset) == ["background", "cup"] and get_transform(subset) is len
    assert get_filenames(Subset([1, 2], [0])) is None and get_class_names([1, 2]) is None


def test_all_instances_of_a_subset(tiny):
    objects = all_instances(Subset(tiny.open(), [1]))
    assert [item.labels.tolist() for item in objects] == [[2]]
    with pytest.raises(TypeError, match="Named has no method instances"):
        all_instances(Named(["a.png"]))


def test_hold_out_takes_the_stems_with_the_smallest_hashes_in_any_order():
    stems = [f"{number:06}" for number in range(40)]
    expected = sorted(stems, key=lambda stem: hashlib.sha256(stem.encode()).digest())[:10]
    for names in ([f"{stem}.jpg" for stem in stems], [f"{stem}.png" for stem in reversed(stems)]):
        training, validation = hold_out(Named(names))
        assert sorted(name[:-4] for name in validation) == sorted(expected)
        assert sorted([*training, *validation]) == sorted(names)


def test_hold_out_limits():
    names = [f"{number}.jpg" for number in range(20)]
    assert len(hold_out(Named(names), at_most=3)[1]) == 3
    assert [len(part) for part in hold_out(Named(names[:2]), fraction=0.99)] == [1, 1]
    for fraction in (0, 1, 2.0):
        with pytest.raises(ValueError, match=f"above 0 and below 1, not {fraction}"):
            hold_out(Named(names), fraction)
    for data in (Named(names[:1]), [1, 2, 3]):
        with pytest.raises(ValueError, match="at least two samples"):
            hold_out(data)
