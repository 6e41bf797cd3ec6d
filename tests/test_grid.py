"""The grid: one run folder for each combination, recorded failures, the best cell and the table."""

import csv
import json
from itertools import count

import numpy as np
import pytest
import torch

from seglib import runs
from seglib.grid import Cell, Grid, cell_name, grid, read_grid
from tests.helpers.discs import Discs, check_same_end, train


def history(val_losses, train_losses=None):
    """Rows of a history; val_iou is 1 - val_loss."""
    train_losses = train_losses or val_losses
    return [
        {"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, "val_iou": 1 - val_loss, "seconds": 1.0}
        for epoch, train_loss, val_loss in zip(count(1), train_losses, val_losses, strict=False)
    ]


def write_run(run_dir, lr=0.1, batch=1):
    """A training without a model: the validation loss falls to `lr` in its second epoch of three."""
    runs.write_history(run_dir / "history.csv", history([0.9, lr, 0.8]))


def raising(error, lr=0.3):
    """A training function that fails for one learning rate."""

    def train_or_raise(run_dir, **settings):
        if settings["lr"] == lr:
            raise error
        write_run(run_dir, **settings)

    return train_or_raise


def statuses(result):
    return [cell.status for cell in result.cells]


def read_table(folder):
    with (folder / "grid.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_second_search_in_the_same_folder_is_refused(tmp_path):
    def search(run_dir, **settings):
        grid(write_run, {"lr": [0.1]}, tmp_path)

    with pytest.raises(RuntimeError, match="another process searches"):
        grid(search, {"lr": [0.1]}, tmp_path)


def test_every_combination_is_trained_in_a_folder_of_its_own(tmp_path):
    result = grid(write_run, {"lr": [0.1, 0.2], "batch": [2, 4]}, tmp_path)
    names = ["lr=0.1,batch=2", "lr=0.1,batch=4", "lr=0.2,batch=2", "lr=0.2,batch=4"]
    assert [cell.name for cell in result.cells] == names
    assert [cell.run.dir for cell in result.cells] == [tmp_path / name for name in names]
    assert all(cell.run.finished and len(cell.history) == 3 for cell in result.cells)
    assert read_grid(tmp_path).rows() == result.rows()


def test_a_second_call_trains_only_what_is_new(tmp_path):
    def train_discs(run_dir, lr):
        return train(run_dir, data=Discs(4), val=Discs(2), lr=lr, epochs=1)

    grid(train_discs, {"lr": [1e-2]}, tmp_path)
    written = (tmp_path / "lr=0.01" / runs.LAST).stat().st_mtime_ns
    result = grid(train_discs, {"lr": [1e-2, 1e-3]}, tmp_path)
    assert (tmp_path / "lr=0.01" / runs.LAST).stat().st_mtime_ns == written
    assert statuses(result) == ["finished", "finished"]
    assert result.best.run.model().class_names == ["background", "disc"]


def test_every_cell_starts_with_the_same_random_numbers(tmp_path):
    numbers = []

    def draw(run_dir, lr):
        numbers.append(torch.rand(3).tolist())
        write_run(run_dir, lr)

    grid(draw, {"lr": [0.1, 0.2]}, tmp_path / "a")
    grid(draw, {"lr": [0.1]}, tmp_path / "b", seed=1)
    assert numbers[0] == numbers[1] != numbers[2]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nTry batch_size=2"), "out of memory"),
        (FloatingPointError("the loss became nan"), "diverged"),
        (KeyError("batch"), "failed"),
    ],
)
def test_a_failure_is_recorded_and_the_cell_is_tried_again_by_the_next_call(tmp_path, capsys, error, status):
    result = grid(raising(error), {"lr": [0.3, 0.1]}, tmp_path)
    assert statuses(result) == [status, "finished"]
    assert result.best is result.cells[1]
    assert result.cells[0].reason == f"{type(error).__name__}: {str(error).splitlines()[0]}"
    assert type(error).__name__ in (tmp_path / "lr=0.3" / "error.txt").read_text(encoding="utf-8")
    assert f"lr=0.3: {status}, {type(error).__name__}" in capsys.readouterr().out

    again = grid(write_run, {"lr": [0.3, 0.1]}, tmp_path)  # a cell that failed is tried again
    assert statuses(again) == ["finished", "finished"]
    assert not (tmp_path / "lr=0.3" / "error.txt").exists()


def test_a_training_without_a_history_is_a_failure(tmp_path):
    with pytest.raises(RuntimeError, match=r"failed, ValueError: train\(\) wrote no history\.csv"):
        grid(lambda run_dir, lr: None, {"lr": [0.1]}, tmp_path)
    assert read_grid(tmp_path).best is None
    assert "failed" in str(read_grid(tmp_path))


def test_an_interrupt_ends_the_grid_and_is_recorded(tmp_path):
    (tmp_path / "lr=0.3").mkdir()  # `fit` creates it
    with pytest.raises(KeyboardInterrupt):
        grid(raising(KeyboardInterrupt()), {"lr": [0.1, 0.3, 0.2]}, tmp_path)
    assert statuses(read_grid(tmp_path)) == ["finished", "not finished", "not started"]
    assert read_table(tmp_path)[0]["status"] == "finished"  # the table is written after each cell


def test_a_cell_that_trains_again_is_not_finished_until_it_ends(tmp_path):
    grid(write_run, {"lr": [0.1]}, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        grid(raising(KeyboardInterrupt(), lr=0.1), {"lr": [0.1]}, tmp_path)
    assert statuses(read_grid(tmp_path)) == ["not finished"]


def test_other_settings_are_raised_and_change_no_record(tmp_path):
    axes = {"lr": [0.3, 0.1]}
    before = grid(raising(ValueError("boom")), axes, tmp_path).rows()
    with pytest.raises(runs.OtherSettings, match="epochs"):
        grid(raising(runs.OtherSettings("epochs differ")), axes, tmp_path)
    assert read_grid(tmp_path).rows() == before
    assert "boom" in (tmp_path / "lr=0.3" / "error.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"encoder": "resnet18"}, "encoder needs a list of values"),
        ({"lr": 0.1}, "lr needs a list of values"),
        ({"lr": [0.1, 0.1]}, "lr has a value twice"),
        ({"seconds": [1, 2]}, "none called run_dir, status, seconds or reason"),
        ({}, "a grid needs settings"),
        ({"encoder": []}, "encoder needs a list of values"),
        ({"encoder": ["a/b"]}, "encoder='a/b' cannot name a folder"),
        ({"size": [(256, 256)]}, r"size=\(256, 256\) cannot name a folder"),
    ],
)
def test_settings_that_cannot_name_folders_are_refused_before_training(tmp_path, axes, message):
    with pytest.raises(ValueError, match=message):
        grid(write_run, axes, tmp_path / "grid")
    assert not (tmp_path / "grid").exists()


def test_numbers_of_numpy_become_those_of_python(tmp_path):
    result = grid(write_run, {"lr": np.geomspace(1e-2, 1e-3, 2), "batch": list(np.array([2, 4]))}, tmp_path)
    assert {type(value) for cell in result.cells for value in cell.settings.values()} == {float, int}
    assert json.loads((tmp_path / "grid.json").read_text(encoding="utf-8"))["cells"][0] == {"lr": 0.01, "batch": 2}


def test_an_unknown_metric_is_reported_after_the_first_cell(tmp_path):
    with pytest.raises(ValueError, match="the metric of .* must be one of epoch, train_loss, .*, not 'val_mIoU'"):
        grid(write_run, {"lr": [0.1, 0.2]}, tmp_path, metric="val_mIoU")
    assert not (tmp_path / cell_name({"lr": 0.2})).exists()


def test_the_best_cell_has_the_highest_score_or_the_lowest_loss(tmp_path):
    losses = [[float("nan")], [0.9, 0.4, 0.5], [0.1], [0.4]]
    cells = [Cell({}, runs.Run(tmp_path, history(val_losses)), "finished") for val_losses in losses]
    cells[2].status = "diverged"
    assert Grid(tmp_path, cells, "val_iou").best is cells[1]
    assert Grid(tmp_path, cells, "val_loss").best is cells[1]
    assert Grid(tmp_path, cells[:1], "val_iou").best is cells[0]
    assert cells[1].best_row("val_iou")["epoch"] == 2


def test_the_table_shows_the_best_epoch_and_over_fitting(tmp_path):
    def overfit(run_dir, lr):
        runs.write_history(run_dir / "history.csv", history([0.9, lr, 0.6, 0.7, 0.8], [0.9, 0.8, 0.5, 0.4, 0.3]))

    grid(overfit, {"lr": [0.1, 0.2]}, tmp_path)
    row = read_table(tmp_path)[1]
    assert ",".join(row) == (
        "lr,status,epochs done,val_iou,best epoch,least val_loss,last train_loss,over-fits after,seconds,reason"
    )
    assert list(row.values()) == ["0.2", "finished", "5", "0.8", "2", "0.2", "0.3", "2", "5", ""]


def test_the_table_as_text_marks_the_best_cell(tmp_path):
    result = grid(raising(ValueError("boom")), {"lr": [0.3, 0.1, 0.2]}, tmp_path)
    lines = repr(result).splitlines()
    assert [line[:6] for line in lines] == ["   lr ", "   0.3", "★  0.1", "   0.2"]
    assert "over-fits after" not in lines[0]  # no cell does: empty columns are left out


@pytest.mark.parametrize(
    ("val_losses", "train_losses", "epoch"),
    [
        ([0.9, 0.6, 0.5, 0.55, 0.6, 0.7], [0.9, 0.6, 0.4, 0.3, 0.2, 0.1], 3),  # by hand: mean 0.617, 23 % above 0.5
        ([0.9, 0.6, 0.5, 0.51, 0.52, 0.53], [0.9, 0.6, 0.4, 0.3, 0.2, 0.1], None),  # 4 % are too little
        ([0.9, 0.6, 0.5, 0.6, 0.7], [0.9, 0.6, 0.4, 0.3, 0.2], None),  # two epochs are too few
        ([0.5, 0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6, 0.5], None),  # the loss falls again
        ([0.5, 0.6, 0.7, 0.8], [0.5, 0.6, 0.7, 0.8], None),  # the training loss rises, too
    ],
)
def test_over_fitting_follows_the_stated_rule(tmp_path, val_losses, train_losses, epoch):
    assert Cell({}, runs.Run(tmp_path, history(val_losses, train_losses)), "finished").overfits_after == epoch


def test_a_run_may_start_where_another_one_ended(tmp_path):
    short = train(tmp_path / "short", data=Discs(4), val=Discs(2), epochs=1)
    runs.branch(short.dir, tmp_path / "long")
    long = train(tmp_path / "long", data=Discs(4), val=Discs(2), epochs=2)
    train(tmp_path / "whole", data=Discs(4), val=Discs(2), epochs=2)
    check_same_end(long.dir, tmp_path / "whole")
    assert long.about["id"] != short.about["id"]
    assert len(runs.read_run(short.dir).history) == 1
    with pytest.raises(FileNotFoundError):
        runs.branch(tmp_path / "nowhere", tmp_path / "new")
