"""What all readers share: Subsets, the objects of a data set, the held-out validation split, the split by group."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from torch.utils.data import Dataset, Subset

import seglib.datasets
from seglib.datasets import MaskFolderDataset, all_instances, hold_out, read_groups, split_by_group
from seglib.datasets.base import get_class_names, get_filenames, get_transform, unwrap_subset
from tests.conftest import REAL


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


def test_a_split_by_group_tears_no_group_whichever_images_are_present():
    groups = {f"{group:02}_{place}": f"{group:02}" for group in range(25) for place in range(4 if group < 10 else 1)}
    names = [f"{stem}.png" for stem in groups]
    parts = split_by_group(Named(names), groups)
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert [len({name[:2] for name in part}) for part in parts] == [15, 5, 5]  # 3 : 1 : 1, also of the large groups:
    assert [sum(int(name[:2]) < 10 for name in part) for part in parts] == [24, 8, 8]
    some = names[::-3]
    assert [sorted(part) for part in split_by_group(Named(some), groups)] == [
        sorted({*part} & {*some}) for part in parts
    ]
    with pytest.raises(ValueError, match=r"1 of 2 images have no group: \['x'\]"):
        split_by_group(Named(["00_1.png", "x.png"]), groups)
    with pytest.raises(ValueError, match="0 of 0 images"):
        split_by_group([1, 2, 3], groups)


def test_groups_are_those_of_the_folder_or_the_list_of_the_nuclei(tmp_path):
    listed = read_groups(tmp_path)
    full = {name: group for name, group in listed.items() if len(name) == 64}
    assert (len(full), len(listed), len(set(full.values()))) == (664, 2 * 664, 228)
    assert all(listed[name[:16]] == group for name, group in full.items())
    for names in (full, [name[:16] for name in full]):
        assert [len(part) for part in split_by_group(Named([f"{name}.png" for name in names]), listed)] == [
            403,
            135,
            126,
        ]
    (tmp_path / "groups.csv").write_text("image,group\na,1\nb,1\n")
    assert read_groups(tmp_path) == {"a": "1", "b": "1"}


def test_the_lists_that_are_published_with_the_nuclei_tear_groups():
    root = REAL / "dsb2018"
    if not root.is_dir():
        pytest.skip("needs the real photographs of ../shared/data/dsb2018")
    groups = read_groups(root)
    data = MaskFolderDataset(root / "images", root / "labels", ["background", "nucleus"], instance_ids=True)
    split = [{Path(name).stem for name in get_filenames(part)} for part in split_by_group(data, groups)]
    published = [{*(root / f"splits/{part}.txt").read_text().split()} for part in ("train", "val")]
    assert [len(part) for part in split] == [267, 85, 89] and [len(part) for part in published] == [353, 88]
    sizes = Counter(groups[Path(name).stem] for name in data.filenames)
    assert (len(sizes), sum(size > 1 for size in sizes.values())) == (133, 113)
    torn = [
        sum(len({groups[n] for n in a} & {groups[n] for n in b}) for a, b in pairs)
        for pairs in ([published], [(split[0], split[1]), (split[0], split[2]), (split[1], split[2])])
    ]
    assert torn == [60, 0]
    objects = data.instances(0)
    assert (objects.semantic() == data[0][1].numpy()).all() and len(objects) > 5
