"""Disks that are full and folders that may not be written to: the error says which file, and nothing is lost."""

import os
import resource
import shutil
import tempfile
from pathlib import Path

import pytest

from seglib import runs
from tests.helpers.discs import check_same_end
from tests.helpers.victims import fail, fault, finish

SETTINGS = {"epochs": 2, "count": 6, "checkpoint_minutes": None}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(folder, SETTINGS)
    return folder


def limit_files(size: int) -> None:
    """Let the system refuse this process files of more bytes, as a full disk does in the middle of one."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def be_nobody(*_) -> None:
    """Tests that run as root may write anywhere: be somebody who may not."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


@pytest.mark.parametrize("size", [0, 100, 5_000, 10_000])
@pytest.mark.parametrize("epochs_before", [0, 1])
def test_a_full_disk_names_the_file_and_keeps_what_was_there(tmp_path, whole, size, epochs_before):
    folder = tmp_path / "run"
    if epochs_before:
        finish(folder, SETTINGS | {"epochs": 1})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with fault("full disk"):
        said = fail(folder, SETTINGS, (limit_files, size))
        assert f"OSError: cannot write {folder}" in said and "What was there before is untouched" in said
        for path, content in before.items():
            assert path.name == "config.json" or path.read_bytes() == content
        assert not list(folder.rglob("*.part*"))
        finish(folder, SETTINGS)
        check_same_end(folder, whole)


@pytest.mark.parametrize("what", ["folder", "last", "predictions"])
def test_a_read_only_folder_says_so_and_can_be_gone_on_with_later(whole, what):
    top = Path(tempfile.mkdtemp())  # tmp_path lies in a folder that is closed to others
    try:
        folder = top / "run"
        os.chmod(top, 0o777)
        finish(folder, SETTINGS | {"epochs": 1})
        for path in (folder, *folder.rglob("*")):
            os.chmod(path, 0o777)
        closed = {"folder": folder, "last": folder / "last", "predictions": folder / "predictions"}[what]
        os.chmod(closed, 0o555)
        before = (folder / runs.LAST).read_bytes()
        with fault("read-only folder"):
            said = fail(folder, SETTINGS, (be_nobody,))
            assert f"OSError: cannot write {closed}" in said and "may be written to" in said
            assert what == "predictions" or (folder / runs.LAST).read_bytes() == before
            os.chmod(closed, 0o777)
            finish(folder, SETTINGS)
            check_same_end(folder, whole)
    finally:
        shutil.rmtree(top)


def test_a_folder_that_cannot_be_made_says_so():
    top = Path(tempfile.mkdtemp())
    try:
        os.chmod(top, 0o777)
        (top / "closed").mkdir(mode=0o555)
        with fault("read-only folder"):
            said = fail(top / "closed" / "deep" / "run", SETTINGS, (be_nobody,))
            assert "cannot write" in said
    finally:
        shutil.rmtree(top)
