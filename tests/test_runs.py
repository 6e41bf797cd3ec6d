"""The run folder: more epochs, other settings, one process at a time, files that cannot be written."""

import json

import numpy as np
import pytest
from filelock import FileLock

from seglib import runs
from seglib.losses import BCELoss
from tests.helpers.discs import Discs, check_same_end, net, train

# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("settings", [{}, {"scheduler": "plateau", "plateau_patience": 0}, {"warmup_steps": 8}])
def test_a_run_with_more_epochs_ends_as_if_it_had_had_them_from_the_start(tmp_path, settings):
    train(tmp_path / "run", epochs=1, **settings)
    run = train(tmp_path / "run", net(seed=9), epochs=3, **settings)
    check_same_end(run.dir, train(tmp_path / "whole", epochs=3, **settings).dir)
    assert json.loads((run.dir / "config.json").read_text())["settings"]["config"]["epochs"] == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": 0.5}, r"config\.lr: 0\.01 then, 0\.5 now(.|\n)*another run_dir"),
        ({"loss": BCELoss()}, "loss: BCEDice"),
        ({"data": Discs(9)}, "train_data"),
        ({"epochs": 1}, r"config\.epochs: 2 then"),
        ({"epochs": 3, "lr": 0.5}, r"config\.lr"),
    ],
    ids=["rate", "loss", "data", "fewer epochs", "more epochs and another rate"],
)
def test_other_settings_are_refused_with_what_differs(tmp_path, changed, message):
    train(tmp_path, epochs=2)
    with pytest.raises(ValueError, match=message):
        train(tmp_path, **{"epochs": 2} | changed)


def test_more_epochs_of_a_cosine_schedule_are_refused_with_the_reason(tmp_path):
    train(tmp_path, epochs=1, scheduler="cosine")
    with pytest.raises(ValueError, match=r"config\.epochs: 1 then, 2 now(.|\n)*cosine schedule"):
        train(tmp_path, epochs=2, scheduler="cosine")


def test_other_initial_weights_are_refused(tmp_path):
    model = net()
    train(tmp_path, model, epochs=1)
    model.weights = "imagenet"
    with pytest.raises(ValueError, match="weights: None then, imagenet now"):
        train(tmp_path, model, epochs=1)


def test_a_run_begun_in_fp16_is_returned_on_a_cpu_if_it_is_finished_and_not_resumed(tmp_path):
    train(tmp_path, epochs=1)
    state = runs.read_checkpoint(tmp_path / runs.LAST)
    state["settings"]["precision"] = "fp16"
    runs.save_torch(tmp_path / runs.LAST, state | {"scaler": {}})
    (tmp_path / "config.json").unlink()
    assert train(tmp_path, epochs=1).finished
    with pytest.raises(ValueError, match="began in fp16"):
        train(tmp_path, epochs=2)


def test_numbers_of_numpy_are_settings_like_others(tmp_path):
    settings = {"lr": np.float32(0.5), "weight_decay": np.logspace(-2, -1, 2)[0]}
    train(tmp_path, epochs=1, **settings)
    assert train(tmp_path, epochs=2, **settings).finished


def test_settings_that_do_not_change_the_result_may_differ(tmp_path):
    train(tmp_path, epochs=1)
    assert train(tmp_path, epochs=1, workers=2, checkpoint_seconds=5, trackers=("tensorboard",)).finished


def test_settings_that_failed_before_the_first_checkpoint_may_be_changed(tmp_path):
    class Nan:
        def __call__(self, logits, mask):
            return logits.sum() * float("nan")

    with pytest.raises(FloatingPointError):
        train(tmp_path, loss=Nan())
    assert train(tmp_path, lr=1e-3, epochs=1).finished


def test_a_run_that_stopped_early_does_not_continue_with_more_epochs(tmp_path):
    class Constant:
        def __call__(self, logits, mask):
            return 1 + 0 * logits.sum()

    train(tmp_path, loss=Constant(), epochs=5, patience=1)
    run = train(tmp_path, loss=Constant(), epochs=6, patience=1)
    assert run.finished
    assert len(run.history) == 2


# ------------------------------------------------------------------------------------------------ locks


def test_a_second_process_in_the_folder_is_refused(tmp_path, monkeypatch):
    train(tmp_path, epochs=1)
    monkeypatch.setattr(runs, "LOCK_SECONDS", 0)
    with FileLock(tmp_path / runs.LOCK), pytest.raises(RuntimeError, match="another process trains in"):
        train(tmp_path, epochs=2)
    assert train(tmp_path, epochs=2).finished


def test_a_file_system_without_locks_can_hold_a_run(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert train(tmp_path, epochs=1).finished


# ------------------------------------------------------------------------------------------------ history


@pytest.mark.parametrize(("scores", "best"), [([float("nan"), 0.2, 0.5, 0.5], 3), ([float("nan")], 1), ([0.3, 0.1], 1)])
def test_the_best_epoch_is_the_first_of_the_highest_score(scores, best):
    assert runs.best_epoch([{"val_iou": score} for score in scores]) == best


def test_history_is_read_back_exactly_whatever_the_class_names(tmp_path):
    rows = [{"epoch": 1, "val_loss": 0.1 + 0.2, "iou/Bäume": 1 / 3}, {"epoch": 2, "val_loss": 1e-9, "iou/Bäume": 0.0}]
    runs.write_history(tmp_path / "history.csv", rows)
    assert "Bäume" in (tmp_path / "history.csv").read_bytes().decode("utf-8")
    assert runs.read_history(tmp_path / "history.csv") == rows
