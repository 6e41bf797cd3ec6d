"""A second folder for the checkpoints, such as one on Google Drive: it restores a lost run and never stops one."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from seglib import runs
from seglib.runs import Mirror
from tests.helpers.discs import check_same_end, train

SETTINGS = {"epochs": 3, "checkpoint_seconds": 0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a run without a mirror."""
    return train(tmp_path_factory.mktemp("whole"), **SETTINGS).dir


@pytest.fixture
def run_dir(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def mirror(tmp_path) -> Path:
    """A folder on a mounted drive; the folder itself is not there yet."""
    (tmp_path / "drive").mkdir()
    return tmp_path / "drive" / "run"


@pytest.fixture
def every_checkpoint(monkeypatch) -> None:
    """Copy every checkpoint to the mirror, however short the time since the last."""
    monkeypatch.setattr(runs, "MIRROR_SECONDS", 0.0)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def copied_epochs(mirror: Path) -> list[int]:
    """After how many epochs the copies were made, checked against the checkpoints in them."""
    slots = Mirror(mirror)._slots()
    epochs = [slot["epochs"] for _, slot in slots]
    assert epochs == [len(runs.read_checkpoint(path)["history"]) for path, _ in slots]
    return epochs


def test_a_copy_is_made_at_the_first_checkpoint_and_at_the_end(run_dir, mirror):
    train(run_dir, **SETTINGS, mirror=mirror)
    assert copied_epochs(mirror) == [3, 1]  # less than ten minutes passed between them


@pytest.mark.usefixtures("every_checkpoint")
def test_two_files_are_overwritten_in_turn_and_none_is_replaced(run_dir, mirror):
    train(run_dir, **SETTINGS | {"epochs": 2}, mirror=mirror)
    before = {path.name: os.stat(path).st_ino for path in mirror.iterdir()}
    train(run_dir, **SETTINGS, mirror=mirror)
    assert copied_epochs(mirror) == [3, 2]
    assert {path.name: os.stat(path).st_ino for path in mirror.iterdir()} == before


def test_a_lost_run_is_restored(run_dir, mirror, whole, capsys):
    train(run_dir, **SETTINGS | {"epochs": 2}, mirror=mirror)
    shutil.rmtree(run_dir)
    train(run_dir, **SETTINGS, mirror=mirror)
    assert "Restored the checkpoint" in capsys.readouterr().out
    check_same_end(run_dir, whole)


def test_a_lost_finished_run_is_restored_without_training(run_dir, mirror, whole, capsys):
    train(run_dir, **SETTINGS, mirror=mirror)
    shutil.rmtree(run_dir)
    run = train(run_dir, **SETTINGS, mirror=mirror)
    assert "nothing to train" in capsys.readouterr().out
    assert run.model() is not None
    assert (run_dir / "loss.png").is_file()
    check_same_end(run_dir, whole)


@pytest.mark.usefixtures("every_checkpoint")
def test_where_the_latest_copy_is_damaged_the_one_before_is_restored(run_dir, mirror, whole):
    train(run_dir, **SETTINGS | {"epochs": 2}, mirror=mirror)
    shutil.rmtree(run_dir)
    latest = Mirror(mirror)._slots()[0][0]
    latest.write_bytes(latest.read_bytes()[:-100])
    train(run_dir, **SETTINGS, mirror=mirror)
    check_same_end(run_dir, whole)
    assert copied_epochs(mirror) == [3, 2]


@pytest.mark.usefixtures("every_checkpoint")
def test_a_copy_of_which_only_the_description_was_uploaded_is_passed_over(run_dir, mirror, whole):
    train(run_dir, **SETTINGS | {"epochs": 2}, mirror=mirror)
    shutil.rmtree(run_dir)
    Mirror(mirror)._slots()[0][0].unlink()
    train(run_dir, **SETTINGS, mirror=mirror)
    check_same_end(run_dir, whole)


@pytest.mark.usefixtures("every_checkpoint")
def test_a_lost_run_without_a_usable_copy_does_not_begin_again(run_dir, mirror):
    train(run_dir, **SETTINGS | {"epochs": 2}, mirror=mirror)
    shutil.rmtree(run_dir)
    for path in mirror.glob("*.pth"):
        path.write_bytes(b"half")
    for _ in range(2):
        with pytest.raises(ValueError, match="no copy in the mirror .* can be used"):
            train(run_dir, **SETTINGS, mirror=mirror)


def test_a_damaged_copy_does_not_replace_a_sound_checkpoint(tmp_path, run_dir, mirror, monkeypatch):
    train(tmp_path / "other", **SETTINGS | {"epochs": 2}, mirror=mirror)
    for path in mirror.glob("*.pth"):
        path.write_bytes(b"half")
    train(run_dir, **SETTINGS | {"epochs": 1})
    before = (run_dir / runs.LAST).read_bytes()
    monkeypatch.setattr("seglib.train.train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(run_dir, **SETTINGS, mirror=mirror)
    assert (run_dir / runs.LAST).read_bytes() == before


def test_a_damaged_checkpoint_is_replaced_by_the_copy(run_dir, mirror, whole):
    train(run_dir, **SETTINGS | {"epochs": 2}, mirror=mirror)
    (run_dir / runs.LAST).write_bytes(b"half")
    train(run_dir, **SETTINGS, mirror=mirror)
    check_same_end(run_dir, whole)


def test_a_mirror_that_is_further_on_is_resumed_from(tmp_path, run_dir, mirror, whole):
    train(run_dir, **SETTINGS | {"epochs": 1})
    train(tmp_path / "other", **SETTINGS | {"epochs": 2}, mirror=mirror)
    run = train(run_dir, **SETTINGS, mirror=mirror)
    assert run.about == runs.read_checkpoint(tmp_path / "other" / runs.LAST)["about"]
    check_same_end(run_dir, whole)


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.usefixtures("every_checkpoint")
def test_a_drive_that_disappears_does_not_stop_training(run_dir, mirror, whole, monkeypatch, capsys):
    copy = shutil.copyfile
    copied = []

    def disconnect(source, target):
        copied.append(target)
        if len(copied) > 1:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", disconnect)
        train(run_dir, **SETTINGS, mirror=mirror)
    assert "could not be written (" in capsys.readouterr().out
    check_same_end(run_dir, whole)
    train(run_dir, **SETTINGS, mirror=mirror)  # a finished run makes the copy that is missing
    assert copied_epochs(mirror)[0] == 3


def test_a_drive_that_is_not_mounted_is_refused_and_not_created(tmp_path, run_dir):
    with pytest.raises(FileNotFoundError, match="mount the drive"):
        train(run_dir, **SETTINGS, mirror=tmp_path / "drive" / "run")
    assert not (tmp_path / "drive").exists()


def test_a_run_resumes_while_its_drive_is_not_mounted(tmp_path, run_dir, mirror, whole, capsys):
    train(run_dir, **SETTINGS | {"epochs": 1}, mirror=mirror)
    mirror.parent.rename(tmp_path / "away")
    train(run_dir, **SETTINGS, mirror=mirror)
    assert "could not be written" in capsys.readouterr().out
    check_same_end(run_dir, whole)


@pytest.mark.parametrize("own_epochs", [0, 1])
def test_the_mirror_of_another_run_is_neither_used_nor_overwritten(tmp_path, run_dir, mirror, own_epochs):
    train(tmp_path / "other", **SETTINGS | {"epochs": 1, "lr": 0.5}, mirror=mirror)
    if own_epochs:
        train(run_dir, **SETTINGS | {"epochs": own_epochs})
    before = {path: path.read_bytes() for path in mirror.iterdir()}
    with pytest.raises(ValueError, match=r"config\.lr: 0\.5 then, 0\.01 now"):
        train(run_dir, **SETTINGS, mirror=mirror)
    assert before == {path: path.read_bytes() for path in mirror.iterdir()}
