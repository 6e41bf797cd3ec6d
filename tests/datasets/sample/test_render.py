"""render(): the folder of a sample, complete or not there, and the same files for the same seed."""

import os
from pathlib import Path

import pytest

from seglib.datasets import render, sample
from seglib.datasets.download import check_layout
from seglib.datasets.sample import coco


def contents(folder: Path, suffix: str = "") -> dict[str, bytes]:
    files = (path for path in folder.rglob(f"*{suffix}") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", ["coco", "voc2012", "buildings_yolo"])
def test_files_depend_on_the_seed_and_pictures_on_seed_and_index_alone(name, tmp_path):
    few = check_layout(name, render(name, 3, 64, root=tmp_path))
    pictures = contents(few, ".jpg")
    other = contents(render(name, 3, 64, seed=1, root=tmp_path), ".jpg")
    assert contents(few) == contents(render(name, 3, 64, root=tmp_path / "again"))
    assert len(pictures) == 3 and pictures.items() <= contents(render(name, 5, 64, root=tmp_path), ".jpg").items()
    assert pictures.keys() == other.keys() and all(pictures[path] != other[path] for path in pictures)


@pytest.mark.parametrize(
    ("name", "images", "expected"),
    [
        ("coco", 2, {"train": 1, "val": 1}),
        ("coco", 6, {"train": 5, "val": 1}),
        ("buildings_yolo", 2, {"train": 1, "valid": 1}),
        ("buildings_yolo", 8, {"train": 4, "valid": 2, "test": 2}),
    ],
)
def test_a_fifth_is_for_validation_and_a_fifth_of_the_buildings_for_testing(name, images, expected, tmp_path):
    folder = render(name, images, 64, root=tmp_path)
    assert {split: len(list(folder.rglob(f"{split}/**/*.jpg"))) for split in expected} == expected


def test_several_processes_draw_the_same_files(tmp_path, monkeypatch):
    alone = render("coco", 5, 64, root=tmp_path / "alone")
    monkeypatch.setattr(sample, "SHARE", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(coco, "write_image", lambda *numbers: pytest.fail("drawn in this process"))
    assert contents(render("coco", 5, 64, root=tmp_path / "together")) == contents(alone)
    monkeypatch.setattr(sample.sys, "executable", "false")  # a process that fails
    with pytest.raises(OSError, match="could not be drawn"):
        render("coco", 6, 64, root=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "together"}


def test_a_sample_is_drawn_once(tmp_path, monkeypatch):
    folder = render("coco", 2, 64, root=tmp_path)
    monkeypatch.setattr(coco, "write_image", lambda *numbers: pytest.fail("drawn again"))
    assert render("coco", 2, 64, root=tmp_path) == folder


def test_the_sample_of_a_faster_process_is_kept(tmp_path, monkeypatch):
    expected = render("coco", 2, 64, root=tmp_path / "elsewhere")
    target = tmp_path / expected.name
    # The other process finishes while this one draws.
    monkeypatch.setattr(coco, "write_lists", lambda folder, records: expected.rename(target))
    assert render("coco", 2, 64, root=tmp_path) == target
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", target.name}


def test_errors_name_the_choices_and_the_limits(tmp_path):
    with pytest.raises(ValueError, match=r"one of buildings_yolo, coco, voc2012, not 'nosuch'"):
        render("nosuch", 4, 96, root=tmp_path)
    with pytest.raises(ValueError, match="at least 2 images of at least 64 pixels; got 1 of 96"):
        render("coco", 1, 96, root=tmp_path)
