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


@pytest.mark.parametrize("name", ["coco", "voc2012", "buildings_yolo", "dsb2018"])
def test_files_depend_on_the_seed_and_pictures_on_seed_and_index_alone(name, tmp_path):
    kind = ".png" if name == "dsb2018" else ".jpg"
    few = check_layout(name, render(name, 3, 64, root=tmp_path))
    pictures = contents(few, kind)
    other = contents(render(name, 3, 64, seed=1, root=tmp_path), kind)
    assert contents(few) == contents(render(name, 3, 64, root=tmp_path / "again"))
    shown = [path for path in pictures if "images/" in path.lower()]
    assert len(shown) == 3 and pictures.items() <= contents(render(name, 5, 64, root=tmp_path), kind).items()
    assert pictures.keys() == other.keys() and all(pictures[path] != other[path] for path in pictures)


def test_of_two_images_one_is_for_validation(tmp_path):
    for name in ("coco", "buildings_yolo"):
        assert len(list(render(name, 2, 64, root=tmp_path).rglob("val*/**/*.jpg"))) == 1


def test_several_processes_draw_the_same_files(tmp_path, monkeypatch):
    alone = render("coco", 5, 64, root=tmp_path / "alone")
    monkeypatch.setattr(sample, "SHARE", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(coco, "write_image", lambda *numbers: pytest.fail("drawn in this process"))
    assert contents(render("coco", 5, 64, root=tmp_path / "together")) == contents(alone)
    monkeypatch.setattr(sample.sys, "executable", "false")  # a process that fails
    with pytest.raises(OSError, match="could not be drawn"):
        render("coco", 6, 64, root=tmp_path)
    assert render("coco", 5, 64, root=tmp_path / "alone") == alone  # not drawn again
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "together"}


def test_errors_name_the_choices_and_the_limits(tmp_path):
    with pytest.raises(ValueError, match=r"one of buildings_yolo, coco, dsb2018, voc2012, not 'nosuch'"):
        render("nosuch", 4, 96, root=tmp_path)
    with pytest.raises(ValueError, match="at least 2 images of at least 64 pixels; got 1 of 96"):
        render("coco", 1, 96, root=tmp_path)
