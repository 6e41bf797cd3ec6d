"""Checkpoints that are cut short, empty, or somebody else's: said plainly, and mended where there is a copy."""

import pickle
import shutil

import pytest
import torch

from seglib import runs
from tests.helpers.discs import check_same_end
from tests.helpers.victims import fault, train

DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"P"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "all but the last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a web page": lambda path: path.write_text("<!doctype html><title>Sign in</title>"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "another file of torch's": lambda path: torch.save({"model": {}}, path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "the best model": lambda path: shutil.copyfile(path.parents[1] / runs.BEST, path),
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps(Bomb(), protocol=2)),
}
EXPLODED = []


class Bomb:
    def __reduce__(self):
        return EXPLODED.append, (1,)


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """A run after one of two epochs, and the same run at its end."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "half", epochs=1)
    train(folder / "whole", epochs=2)
    return folder / "half", folder / "whole"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_said_to_be_one_and_changes_nothing(tmp_path, half_done, damage):
    run_dir = shutil.copytree(half_done[0], tmp_path / "run")
    DAMAGES[damage](run_dir / runs.LAST)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with fault("damaged checkpoint"):
        with pytest.raises(ValueError, match=r"last/checkpoint\.pth is .*good copy in its place; or delete .*run"):
            train(run_dir, epochs=2)
        assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        assert not EXPLODED


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_mended_from_the_mirror(tmp_path, half_done, damage, capsys):
    mirror, run_dir = (
        shutil.copytree(half_done[0], tmp_path / "mirror"),
        shutil.copytree(half_done[0], tmp_path / "run"),
    )
    DAMAGES[damage](run_dir / runs.LAST)
    with fault("damaged checkpoint, sound mirror"):
        train(run_dir, epochs=2, mirror=mirror)
        assert "restored from" in capsys.readouterr().out
        check_same_end(run_dir, half_done[1])
        check_same_end(mirror_of(mirror, half_done[1]), half_done[1])


def mirror_of(mirror, whole):
    """A mirror has no table of its own: lend it the right one."""
    shutil.copyfile(whole / "history.csv", mirror / "history.csv")
    return mirror


def test_damage_in_both_places_is_said(tmp_path, half_done):
    run_dir, mirror = (
        shutil.copytree(half_done[0], tmp_path / "run"),
        shutil.copytree(half_done[0], tmp_path / "mirror"),
    )
    for folder in (run_dir, mirror):
        DAMAGES["half"](folder / runs.LAST)
    with fault("damaged checkpoint"), pytest.raises(ValueError, match=r"mirror/last/checkpoint\.pth is damaged"):
        train(run_dir, epochs=2, mirror=mirror)


@pytest.mark.parametrize("with_config", [True, False])
def test_another_runs_checkpoint_is_refused_by_what_differs(tmp_path, half_done, with_config):
    run_dir = shutil.copytree(half_done[0], tmp_path / "run")
    train(tmp_path / "other", epochs=1, lr=0.5)
    shutil.copyfile(tmp_path / "other" / runs.LAST, run_dir / runs.LAST)
    if not with_config:
        (run_dir / runs.CONFIG).unlink()
    with fault("foreign checkpoint"), pytest.raises(ValueError, match=r"config\.lr: 0\.5 then, 0\.01 now"):
        train(run_dir, epochs=1)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"settings": 1}'])
def test_a_lost_or_damaged_config_is_written_again_from_the_checkpoint(tmp_path, half_done, content):
    run_dir = shutil.copytree(half_done[0], tmp_path / "run")
    config = run_dir / runs.CONFIG
    right = config.read_text().replace('"epochs": 1', '"epochs": 2')
    config.unlink() if content is None else config.write_text(content)
    with fault("damaged config.json"):
        train(run_dir, epochs=2)
        assert config.read_text() == right
        check_same_end(run_dir, half_done[1])


@pytest.mark.parametrize("damage", ["gone", "empty", "of another epoch"])
def test_a_best_model_that_was_not_written_is_written_again(tmp_path, half_done, damage, capsys):
    run_dir = shutil.copytree(half_done[0], tmp_path / "run")
    best = run_dir / runs.BEST
    if damage == "gone":
        best.unlink()
    elif damage == "empty":
        best.write_bytes(b"")
    else:
        torch.save(torch.load(best, weights_only=True) | {"epoch": 7}, best)
    with fault("damaged best_model.pth"):
        train(run_dir, epochs=1)  # finished, its best epoch the last: the checkpoint has its weights
        check_same_end(run_dir, half_done[0])
        best.unlink()
        run = train(run_dir, epochs=2)
        assert run.best["epoch"] == 1 and best.is_file()
    best.unlink()
    capsys.readouterr()
    train(run_dir, epochs=2)  # now it is not the last: nothing can bring it back
    assert "best_model.pth should hold epoch 1 and does not" in capsys.readouterr().out
