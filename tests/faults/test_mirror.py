"""A second folder that comes and goes, such as one on Google Drive: it never stops a training, and brings it back."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from seglib import runs, state
from seglib.files import short_path
from tests.helpers.discs import check_same_end
from tests.helpers.victims import die_at, fail, fault, finish, start, train

SETTINGS = {"epochs": 3, "count": 6}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(folder, SETTINGS)
    return folder


@pytest.fixture
def drive(tmp_path):
    (tmp_path / "drive").mkdir()
    return tmp_path / "drive"


def check_mirrors(mirror, run_dir):
    for name in (runs.CONFIG, runs.BEST, runs.LAST):
        assert (mirror / name).read_bytes() == (run_dir / name).read_bytes(), name
    assert not list(mirror.rglob(".*"))


def when_saved(monkeypatch, what: dict):
    """Do something after so many checkpoints, before they are copied."""
    original, calls = runs.mirror_run, []

    def doing(run_dir, mirror):
        calls.append(1)
        if len(calls) in what:
            what[len(calls)]()
        return original(run_dir, mirror)

    monkeypatch.setattr(state.runs, "mirror_run", doing)


def test_it_has_a_copy_of_what_is_needed_after_each_checkpoint(tmp_path, drive, monkeypatch):
    seen = []
    when_saved(monkeypatch, {4: lambda: seen.append(runs.read_checkpoint(drive / "run" / runs.LAST)["epoch"]["steps"])})
    train(tmp_path / "run", **SETTINGS, mirror=drive / "run")
    assert seen == [0]  # two steps and the epoch's end before
    check_mirrors(drive / "run", tmp_path / "run")


def test_the_folder_is_gone_and_comes_back_from_the_mirror(tmp_path, drive, whole, capsys):
    train(tmp_path / "run", **SETTINGS | {"epochs": 2}, mirror=drive / "run")
    with fault("run folder gone"):
        shutil.rmtree(tmp_path / "run")
        train(tmp_path / "run", **SETTINGS, mirror=drive / "run")
        printed = capsys.readouterr().out
        assert f"restored from {short_path(drive / 'run')}" in printed and "Going on after epoch 2 of 3" in printed
        check_same_end(tmp_path / "run", whole)
        check_mirrors(drive / "run", tmp_path / "run")
    with fault("run folder gone"):
        shutil.rmtree(tmp_path / "run")
        run = train(tmp_path / "run", **SETTINGS, mirror=drive / "run")  # finished: returned, without training
        assert "nothing to train" in capsys.readouterr().out and run.model is not None
        check_same_end(tmp_path / "run", whole)
        assert (tmp_path / "run" / "loss.png").is_file()


@pytest.mark.parametrize("back_at", [5, 99])
def test_it_disappears_half_way(tmp_path, drive, whole, monkeypatch, capsys, back_at):
    away = tmp_path / "away"
    moves = {3: lambda: drive.rename(away), back_at: lambda: away.rename(drive)}
    when_saved(monkeypatch, moves)
    with fault("mirror gone"):
        train(tmp_path / "run", **SETTINGS, mirror=drive / "run")
        check_same_end(tmp_path / "run", whole)
        printed = capsys.readouterr().out
        assert printed.count("tried again after the next checkpoint") == (2 if back_at == 5 else 7)
        if back_at == 5:
            check_mirrors(drive / "run", tmp_path / "run")
        else:
            assert not drive.exists()  # nothing was made in its place
            away.rename(drive)
            train(tmp_path / "run", **SETTINGS, mirror=drive / "run")  # finished: only the copy is made up for
            check_mirrors(drive / "run", tmp_path / "run")


@pytest.mark.parametrize("call", range(1, 7))
def test_it_fails_in_the_middle_of_a_copy_and_keeps_the_copies_of_before(tmp_path, drive, monkeypatch, call):
    """Each of the two files of the second epoch's copy fails, and each of the three renamings."""
    train(tmp_path / "run", **SETTINGS | {"epochs": 1}, mirror=drive / "run")
    names, calls = (runs.CONFIG, runs.BEST, runs.LAST), []
    before = {name: (drive / "run" / name).read_bytes() for name in names}
    better = train(tmp_path / "better", **SETTINGS | {"epochs": 2, "lr": 0.02}).dir
    for name in names:
        shutil.copyfile(better / name, tmp_path / "run" / name)

    def failing(original):
        def copy(*arguments):
            if "drive" in str(arguments[1]):
                calls.append(1)
                if len(calls) == call:
                    raise OSError(107, "Transport endpoint is not connected")
            return original(*arguments)

        return copy

    with fault("mirror fails while written"), monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", failing(shutil.copyfile))
        patch.setattr(os, "replace", failing(os.replace))
        assert not runs.mirror_run(tmp_path / "run", drive / "run")
        runs.read_checkpoint(drive / "run" / runs.LAST)
        if call <= 3:  # no copy was whole: none has taken the place of one from before
            assert {name: (drive / "run" / name).read_bytes() for name in names} == before
        assert runs.mirror_run(tmp_path / "run", drive / "run")
        check_mirrors(drive / "run", tmp_path / "run")


def test_a_copy_that_is_cut_short_without_an_error_is_noticed(tmp_path, drive, monkeypatch, capsys):
    train(tmp_path / "run", **SETTINGS | {"epochs": 1})
    with fault("mirror fails while written"), monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", lambda source, target: target.write_bytes(b"half"))
        assert not runs.mirror_run(tmp_path / "run", drive / "run")
        assert "was cut short" in capsys.readouterr().out and not (drive / "run" / runs.LAST).exists()


@pytest.mark.parametrize("call", range(3, 17, 2))
def test_killed_while_it_is_copied_and_the_folder_lost_it_ends_the_same(tmp_path, drive, whole, call):
    settings = SETTINGS | {"mirror": drive / "run"}
    with fault("SIGKILL while mirrored, run folder gone"):
        child = start(tmp_path / "run", settings, (die_at, "not yet renamed", call))
        child.join(60)
        assert child.exitcode == -9
        shutil.rmtree(tmp_path / "run")
        finish(tmp_path / "run", settings)
        check_same_end(tmp_path / "run", whole)
        check_mirrors(drive / "run", tmp_path / "run")


def test_killed_while_it_is_restored_it_ends_the_same(tmp_path, drive, whole):
    finish(tmp_path / "run", SETTINGS | {"epochs": 2, "mirror": drive / "run"})
    for call in (1, 2):
        with fault("SIGKILL while restored"):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            child = start(tmp_path / "run", SETTINGS | {"mirror": drive / "run"}, (die_at, "not yet renamed", call))
            child.join(60)
            assert child.exitcode == -9
    finish(tmp_path / "run", SETTINGS | {"mirror": drive / "run"})
    check_same_end(tmp_path / "run", whole)


def test_a_drive_that_is_not_mounted_is_not_made_and_not_taken_for_an_empty_one(tmp_path):
    mirror = tmp_path / "drive" / "MyDrive" / "run"
    with fault("mirror not mounted"):
        said = fail(tmp_path / "run", SETTINGS | {"mirror": mirror})
        assert "FileNotFoundError" in said and "mount the drive" in said
        assert not (tmp_path / "drive").exists()


def test_a_mirror_that_is_not_there_does_not_keep_a_run_from_going_on(tmp_path, drive, whole, capsys):
    train(tmp_path / "run", **SETTINGS | {"epochs": 1}, mirror=drive / "run")
    with fault("mirror not mounted"):
        drive.rename(tmp_path / "away")
        train(tmp_path / "run", **SETTINGS, mirror=drive / "run")
        assert "could not be written" in capsys.readouterr().out
        check_same_end(tmp_path / "run", whole)


def test_a_mirror_that_is_further_on_is_not_overwritten_but_gone_on_from(tmp_path, drive, whole, capsys):
    train(tmp_path / "run", **SETTINGS | {"epochs": 1})
    train(tmp_path / "other", **SETTINGS | {"epochs": 2}, mirror=drive / "run")
    with fault("mirror further on"):
        train(tmp_path / "run", **SETTINGS, mirror=drive / "run")
        assert "Going on after epoch 2 of 3" in capsys.readouterr().out
        check_same_end(tmp_path / "run", whole)


@pytest.mark.parametrize("reason", [MemoryError(), PermissionError(13, "Permission denied")])
def test_a_checkpoint_that_cannot_be_read_just_now_is_neither_called_damaged_nor_replaced(
    tmp_path, drive, monkeypatch, reason
):
    train(tmp_path / "other", **SETTINGS | {"epochs": 1}, mirror=drive / "run")
    train(tmp_path / "run", **SETTINGS | {"epochs": 2})
    before = (tmp_path / "run" / runs.LAST).read_bytes()

    def fails(*_, **__):
        raise reason

    broken = (torch, "load") if isinstance(reason, MemoryError) else (Path, "read_bytes")
    with fault("checkpoint cannot be read just now"):
        with monkeypatch.context() as patch, pytest.raises(type(reason)):
            patch.setattr(*broken, fails)
            train(tmp_path / "run", **SETTINGS, mirror=drive / "run")
        assert (tmp_path / "run" / runs.LAST).read_bytes() == before


@pytest.mark.parametrize("own_checkpoint", [True, False])
def test_another_runs_mirror_is_neither_taken_nor_overwritten(tmp_path, drive, own_checkpoint):
    train(tmp_path / "other", **SETTINGS | {"epochs": 1, "lr": 0.5}, mirror=drive / "run")
    if own_checkpoint:
        train(tmp_path / "run", **SETTINGS | {"epochs": 1})
    before = (drive / "run" / runs.LAST).read_bytes()
    with fault("mirror of another run"):
        with pytest.raises(ValueError, match=r"config\.lr: 0\.5 then, 0\.01 now"):
            train(tmp_path / "run", **SETTINGS, mirror=drive / "run")
        assert (drive / "run" / runs.LAST).read_bytes() == before
        assert (tmp_path / "run" / runs.LAST).exists() == own_checkpoint
        assert train(tmp_path / "run", **SETTINGS).finished  # without the mirror, nothing is in the way
