"""Checkpoints that are damaged or belong to another run are refused, or replaced by a sound copy."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from seglib import runs
from tests.helpers.discs import check_same_end, train

SETTINGS = {"epochs": 2, "checkpoint_seconds": 0}


EXECUTED = []


def execute() -> None:
    EXECUTED.append("code of a pickle")


class Malicious:
    """A pickle of it runs code."""

    def __reduce__(self):
        return execute, ()


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a web page": lambda path: path.write_text("<!doctype html><title>Sign in</title>"),
    "the best model": lambda path: shutil.copyfile(path.parents[1] / runs.BEST, path),
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps(Malicious(), protocol=2)),
}


@pytest.fixture(scope="module")
def half_done(tmp_path_factory) -> Path:
    """The folder of a run after one of two epochs."""
    return train(tmp_path_factory.mktemp("half"), **SETTINGS | {"epochs": 1}).dir


@pytest.fixture
def run_dir(tmp_path, half_done) -> Path:
    """A copy of `half_done`."""
    return shutil.copytree(half_done, tmp_path / "run")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_nothing_is_changed(run_dir, damage):
    DAMAGES[damage](run_dir / runs.LAST)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"checkpoint\.pth is .*delete"):
        train(run_dir, **SETTINGS)
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert not EXECUTED


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "Permission denied")], ids=repr)
def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(run_dir, monkeypatch, error):
    def fail(*_, **__):
        raise error

    before = (run_dir / runs.LAST).read_bytes()
    broken = (torch, "load") if isinstance(error, MemoryError) else (Path, "read_bytes")
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(*broken, fail)
        train(run_dir, **SETTINGS)
    assert (run_dir / runs.LAST).read_bytes() == before


def test_the_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path, run_dir):
    other = train(tmp_path / "other", **SETTINGS | {"epochs": 1, "lr": 0.5}).dir
    shutil.copyfile(other / runs.LAST, run_dir / runs.LAST)
    with pytest.raises(ValueError, match=r"config\.lr: 0\.5 then, 0\.01 now"):
        train(run_dir, **SETTINGS)


@pytest.mark.parametrize("content", [None, "{", "[]"])
@pytest.mark.parametrize("name", ["config.json", "history.csv", "best_model.pth"])
def test_a_file_that_is_missing_or_damaged_is_written_again_from_the_checkpoint(run_dir, half_done, name, content):
    config = (run_dir / "config.json").read_text()
    (run_dir / name).unlink()
    if content is not None:
        (run_dir / name).write_text(content)
    train(run_dir, **SETTINGS | {"epochs": 1})
    assert (run_dir / "config.json").read_text() == config
    check_same_end(run_dir, half_done)
