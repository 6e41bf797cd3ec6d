"""A disk that is full or read-only: the error names the file, and the same call resumes once there is space."""

import errno
import os
from pathlib import Path

import pytest
import torch

from seglib import runs
from tests.helpers.discs import check_same_end, train

SETTINGS = {"epochs": 2, "checkpoint_seconds": 0}
FILES = ["config.json", "checkpoint.pth", "best_model.pth", "history.csv", "disc0.png"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a run on a disk with enough space."""
    return train(tmp_path_factory.mktemp("whole"), **SETTINGS).dir


def refuse_to_write(patch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """Make the system refuse to finish every file of this name."""
    rename = os.replace

    def refusing(source, target):
        if Path(target).name == name:
            raise OSError(code, os.strerror(code))
        rename(source, target)

    patch.setattr(os, "replace", refusing)


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path, monkeypatch, whole, name):
    train(tmp_path, **SETTINGS | {"epochs": 1})
    before = {path: path.read_bytes() for path in tmp_path.rglob(name)}
    with monkeypatch.context() as patch, pytest.raises(OSError, match=rf"cannot write .*{name}: No space left"):
        refuse_to_write(patch, name, errno.ENOSPC)
        train(tmp_path, **SETTINGS)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list(tmp_path.rglob("*.part*"))
    train(tmp_path, **SETTINGS)
    check_same_end(tmp_path, whole)


def test_a_disk_that_fills_up_within_a_checkpoint_is_reported_as_such(tmp_path, monkeypatch):
    def half(content, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match=r"cannot write .*pth.*untouched; free some space"):
        train(tmp_path, epochs=1)
    assert not list(tmp_path.rglob("*.pth"))


def test_a_read_only_folder_is_reported_as_such(tmp_path, monkeypatch):
    refuse_to_write(monkeypatch, "config.json", errno.EROFS)
    with pytest.raises(OSError, match=r"config\.json: Read-only file system.*may be written to"):
        train(tmp_path, epochs=1)


def test_a_folder_that_cannot_be_created_is_reported_as_such(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="Not a directory"):
        train(tmp_path / "file" / "run")


def test_half_written_files_of_a_killed_process_are_deleted(tmp_path):
    train(tmp_path, epochs=1)
    left = [tmp_path / ".config.123.part.json", tmp_path / "last" / ".checkpoint.123.part.pth"]
    left.append(tmp_path / "predictions" / "epoch_001" / ".disc0.123.part.png")
    foreign = tmp_path / ".data.zip.part"
    for path in [*left, foreign]:
        path.write_text("half")
    train(tmp_path, epochs=2)
    assert not any(path.exists() for path in left)
    assert foreign.exists()
    assert (tmp_path / runs.LAST).is_file()
