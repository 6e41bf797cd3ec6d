"""The grid: every cell in its folder, what fails is noted, what is shown is what was measured."""

import csv
import functools
import json
import os
import time

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from seglib import plots, runs
from seglib.grid import Cell, Grid, cell_name, ended_since, grid, how_it_ended, note, read_grid
from seglib.processes import apart
from tests.helpers.discs import Discs, check_same_end, net, train

AXES = {"lr": [1e-2, 1e-3], "batch_size": [2, 4]}


def one(run_dir, trained=None, **settings):
    """Train one cell; `trained` collects which."""
    if trained is not None:
        trained.append(cell_name(settings))
    return train(run_dir, data=Discs(6), epochs=2, **settings)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return grid(one, AXES, tmp_path_factory.mktemp("grid"))


def test_every_combination_is_a_run_of_its_own(result, tmp_path):
    names = ["lr=0.01,batch_size=2", "lr=0.01,batch_size=4", "lr=0.001,batch_size=2", "lr=0.001,batch_size=4"]
    assert [cell.name for cell in result.cells] == names
    for cell in result.cells:
        assert cell.run.dir == result.folder / cell.name and cell.status == "finished" and cell.run.finished
        config = json.loads((cell.run.dir / "config.json").read_text())["settings"]["config"]
        assert {name: config[name] for name in AXES} == cell.settings and len(cell.history) == 2
    last = result.cells[-1]
    one(tmp_path / "alone", **last.settings)
    check_same_end(last.run.dir, tmp_path / "alone")


def test_the_best_cell_is_the_one_with_the_highest_score(result):
    scores = [max(cell.run.column("val_iou")) for cell in result.cells]
    assert result.best is result.cells[scores.index(max(scores))]
    by_loss = Grid(result.folder, result.cells, "val_loss")  # of a loss, less is better
    assert by_loss.best.best_row("val_loss")["val_loss"] == min(min(c.run.column("val_loss")) for c in result.cells)
    assert result.best.run.model().class_names == ["background", "disc"]


def test_the_table_says_what_the_histories_say(result):
    with (result.folder / "grid.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row, cell in zip(rows, result.cells, strict=True):
        assert (float(row["lr"]), int(row["batch_size"])) == tuple(cell.settings.values())
        assert float(row["val_iou"]) == cell.run.best["val_iou"] and int(row["best epoch"]) == cell.run.best["epoch"]
        assert float(row["least val_loss"]) == min(cell.run.column("val_loss"))
        assert float(row["seconds"]) == pytest.approx(cell.run.seconds)
    text, page = str(result).splitlines(), result._repr_html_()
    assert [line for line in text if "★" in line] == [text[1 + result.cells.index(result.best)]]
    assert page.count("<tr>") == 5 and page.count("★") == 1 and f"{result.best.run.best['val_iou']:.4g}" in page
    assert "reason" not in text[0]  # nothing failed


def test_a_second_call_trains_nothing_and_more_values_train_only_those(tmp_path, capsys):
    trained = []
    grid(functools.partial(one, trained=trained), {"lr": [1e-2]}, tmp_path)
    written = (tmp_path / "lr=0.01" / runs.LAST).stat().st_mtime_ns
    again = grid(functools.partial(one, trained=trained), {"lr": [1e-2, 1e-3]}, tmp_path)
    assert trained == ["lr=0.01", "lr=0.01", "lr=0.001"]
    assert (tmp_path / "lr=0.01" / runs.LAST).stat().st_mtime_ns == written
    assert [cell.status for cell in again.cells] == ["finished"] * 2
    assert "lr=0.01 is finished (2 epochs): nothing to train" in capsys.readouterr().out


def breaking(run_dir, lr):
    """One cell of five that trains; of the others each ends in its own way."""
    if lr == 0.1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nTry batch_size=2")
    if lr == 0.2:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
    if lr == 0.3:
        raise RuntimeError("boom <&>")
    if lr == 0.4:
        return train(run_dir, loss=lambda logits, mask: logits.sum() * float("nan"), epochs=1)
    return train(run_dir, lr=lr, epochs=1)


def test_what_fails_is_noted_with_its_reason_and_the_rest_goes_on(tmp_path, capsys):
    result = grid(breaking, {"lr": [0.1, 0.2, 0.3, 0.4, 0.01]}, tmp_path)
    statuses = {cell.settings["lr"]: cell.status for cell in result.cells}
    memory = "out of memory"
    assert statuses == {0.1: memory, 0.2: memory, 0.3: "failed", 0.4: "diverged", 0.01: "finished"}
    assert result.best is result.cells[-1] and len(result.unfinished) == 4
    assert result.cells[0].reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB"
    assert "disc" in (tmp_path / "lr=0.4" / "error.txt").read_text()  # the files of that batch
    assert "lr=0.3 failed: RuntimeError: boom" in capsys.readouterr().out
    assert "boom &lt;&amp;&gt;" in result._repr_html_() and "boom <&>" in str(result)
    with (tmp_path / "grid.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == list(statuses.values())


def test_a_cell_that_failed_is_tried_again(tmp_path):
    axes = {"lr": [0.3, 0.01]}
    assert [cell.status for cell in grid(breaking, axes, tmp_path).cells] == ["failed", "finished"]
    result = grid(lambda run_dir, lr: train(run_dir, lr=lr, epochs=1), axes, tmp_path)
    assert [cell.status for cell in result.cells] == ["finished"] * 2 and not result.unfinished
    assert not (tmp_path / "lr=0.3" / "error.txt").exists()


def test_a_grid_of_which_nothing_is_left_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"no cell of .* finished; lr=0\.3 failed: RuntimeError: boom"):
        grid(breaking, {"lr": [0.3]}, tmp_path)
    assert read_grid(tmp_path).best is None and "failed" in str(read_grid(tmp_path))


def test_a_train_that_leaves_no_history_is_told_so(tmp_path):
    with pytest.raises(RuntimeError, match=r"failed: ValueError: train\(\) left no history\.csv"):
        grid(lambda run_dir, lr: None, {"lr": [1e-2]}, tmp_path)


def test_a_history_without_what_the_table_needs_is_told_so(tmp_path):
    def strange(run_dir, lr):
        runs.write_history(run_dir / "history.csv", [{"epoch": 1, "val_iou": 0.5}])

    with pytest.raises(RuntimeError, match=r"has no column seconds, train_loss, val_loss"):
        grid(strange, {"lr": [1e-2]}, tmp_path)


def test_numpys_numbers_are_taken_as_pythons(tmp_path):
    axes = {"lr": np.geomspace(1e-2, 1e-3, 2), "batch_size": list(np.array([2, 4]))}
    for _ in range(2):  # the second call reads the checkpoints of the first
        result = grid(one, axes, tmp_path)
        assert {type(value) for cell in result.cells for value in cell.settings.values()} == {float, int}
    assert read_grid(tmp_path).rows() == result.rows()


def test_the_table_is_written_after_each_cell_and_what_another_process_has_ended_is_left_alone(tmp_path):
    trained, tables = [], []

    def helped(run_dir, lr):
        trained.append(lr)
        with (tmp_path / "grid.csv").open(newline="") as file:
            tables.append([row["status"] for row in csv.DictReader(file)])
        if lr == 1e-2:  # meanwhile another process fails in the next cell, and trains the last
            note(tmp_path / "lr=0.001", {"lr": 1e-3}, "failed", "RuntimeError: boom", ended=time.time())
            train(tmp_path / "lr=0.1", lr=0.1, epochs=1)
            note(tmp_path / "lr=0.1", {"lr": 0.1}, "finished", ended=time.time())
        return train(run_dir, lr=lr, epochs=1)

    result = grid(helped, {"lr": [1e-2, 1e-3, 1e-4, 0.1]}, tmp_path)
    assert trained == [1e-2, 1e-4]
    assert [cell.status for cell in result.cells] == ["finished", "failed", "finished", "finished"]
    assert tables == [["not begun"] * 4, ["finished", "failed", "not begun", "finished"]]


def test_processes_that_were_launched_together_know_each_other_and_no_earlier_launch(tmp_path):
    tmp_path.mkdir(exist_ok=True)
    note(tmp_path, {}, "failed", "boom", ended=time.time() - 5, launch=17)
    now = time.time()
    assert ended_since(tmp_path, now, 17)  # this one was slower to start
    assert not ended_since(tmp_path, now, 18) and not ended_since(tmp_path, now, None)
    assert ended_since(tmp_path, now - 9, None)
    (tmp_path / "cell.json").write_text("")
    assert not ended_since(tmp_path, 1.0, None)


def test_processes_are_apart_for_a_while_only(monkeypatch):
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with apart() as process:
        assert process == 3 and not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"} & set(os.environ)
    assert dict(os.environ) == before
    monkeypatch.setenv("WORLD_SIZE", "1")
    with apart() as process:
        assert process == 0


def test_other_settings_than_those_of_a_run_stop_the_grid_and_spoil_nothing(tmp_path):
    before = grid(one, {"lr": [1e-2, 1e-3]}, tmp_path)
    with pytest.raises(ValueError, match=r"config\.epochs: 2 then, 1 now"):
        grid(lambda run_dir, lr: train(run_dir, data=Discs(6), lr=lr, epochs=1), {"lr": [1e-2, 1e-3]}, tmp_path)
    assert read_grid(tmp_path).rows() == before.rows()


def test_other_settings_leave_the_reason_of_an_earlier_failure_where_it_was(tmp_path):
    axes = {"lr": [0.01]}

    def broken(run_dir, lr):
        one(run_dir, lr=lr)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        grid(broken, axes, tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        grid(lambda run_dir, lr: train(run_dir, data=Discs(6), lr=lr, epochs=1), axes, tmp_path)
    assert "boom" in (tmp_path / "lr=0.01" / "error.txt").read_text()
    assert read_grid(tmp_path).cells[0].status == "failed"


def test_ctrl_c_ends_a_grid_and_the_next_call_goes_on(tmp_path):
    def stopped(run_dir, lr):
        if lr == 1e-3:
            raise KeyboardInterrupt
        return train(run_dir, lr=lr, epochs=1)

    with pytest.raises(KeyboardInterrupt):
        grid(stopped, {"lr": [1e-2, 1e-3, 1e-4]}, tmp_path)
    statuses = [cell.status for cell in read_grid(tmp_path).cells]
    assert statuses == ["finished", "not finished", "not begun"]


def test_a_cell_that_is_being_trained_is_told_from_one_that_was_interrupted(tmp_path):
    def looks(run_dir, lr):
        seen.append([cell.status for cell in read_grid(tmp_path).cells])
        return train(run_dir, lr=lr, epochs=1)

    seen = []
    grid(looks, {"lr": [1e-2, 1e-3]}, tmp_path)
    assert seen == [["being trained", "not begun"], ["finished", "being trained"]]
    (tmp_path / "lr=0.001" / "cell.json").write_text('{"status": "not finished"}')
    assert [cell.status for cell in read_grid(tmp_path).cells] == ["finished", "not finished"]


def test_every_cell_begins_with_the_same_random_numbers(tmp_path):
    drawn = []

    def draws(run_dir, lr):
        drawn.append(torch.rand(3).tolist())
        return train(run_dir, net(seed=1), lr=lr, epochs=1)

    grid(draws, {"lr": [1e-2, 1e-3]}, tmp_path / "a")
    grid(draws, {"lr": [1e-3]}, tmp_path / "b", seed=1)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({}, "needs settings to search"),
        ({"lr": []}, "needs a list"),
        ({"lr": "0.1"}, "needs a list"),
        ({"lr": 0.1}, "needs a list"),
        ({"lr": [0.1, 0.1]}, "must differ"),
        ({"encoder": ["a/b"]}, "can name no folder"),
        ({"loss": [len]}, "can name no folder"),
        ({"run_dir": ["a"]}, "cannot be called run_dir"),
        ({"encoder": ["A", "a"]}, "must differ"),
        ({"encoder": ["a" * 300]}, "can name no folder"),
        ({"a/b": [1]}, "can name no folder"),
    ],
)
def test_axes_that_name_no_folders_are_refused_before_anything_is_trained(tmp_path, axes, said):
    with pytest.raises(ValueError, match=said):
        grid(one, axes, tmp_path / "grid")
    assert not (tmp_path / "grid").exists()


def test_a_metric_that_does_not_exist_is_said_after_the_first_cell(tmp_path):
    trained = []
    with pytest.raises(ValueError, match="no column 'val_mIoU'; there are epoch, train_loss"):
        grid(functools.partial(one, trained=trained), {"lr": [1e-2, 1e-3]}, tmp_path, metric="val_mIoU")
    assert len(trained) == 1
    again = grid(one, {"lr": [1e-2, 1e-3]}, tmp_path, metric="val_dice")
    with pytest.raises(ValueError, match="no column 'val_mIoU'"):  # now it is seen at once, and nothing is spoilt
        grid(functools.partial(one, trained=trained), {"lr": [1e-2, 1e-3]}, tmp_path, metric="val_mIoU")
    assert len(trained) == 1 and read_grid(tmp_path).rows() == again.rows()
    with pytest.raises(FileNotFoundError, match="no grid in"):
        read_grid(tmp_path / "nowhere")


def test_how_a_cell_ended():
    assert how_it_ended(MemoryError())[0] == "out of memory"
    assert how_it_ended(FloatingPointError("the loss became nan\nand more")) == (
        "diverged",
        "FloatingPointError: the loss became nan",
    )
    for words in ("CUDA error: out of memory", "MPS backend out of memory", "CUDNN_STATUS_ALLOC_FAILED"):
        assert how_it_ended(RuntimeError(words))[0] == "out of memory"
    assert how_it_ended(OSError(12, "Cannot allocate memory"))[0] == "out of memory"
    assert how_it_ended(KeyError("lr")) == ("failed", "KeyError: 'lr'")


# ------------------------------------------------------------------------------------------------ over-fitting


def test_nan_is_the_worst_score_and_of_a_loss_less_is_better():
    nan = float("nan")
    assert runs.best_epoch(history([0.5, nan, 0.3, 0.3], [1, 1, 1, 1]), "val_loss") == 3
    assert runs.best_epoch(history([0.5, nan, 0.3, 0.3], [1, 1, 1, 1])) == 3  # val_iou is one less it
    assert runs.best_epoch(history([nan], [1])) == 1


def history(val, train):
    return [
        {"epoch": i, "train_loss": t, "val_loss": v, "val_iou": 1 - v, "seconds": 1.0}
        for i, (v, t) in enumerate(zip(val, train, strict=True), 1)
    ]


@pytest.mark.parametrize(
    ("val", "train_loss", "epoch"),
    [
        ([0.9, 0.6, 0.5, 0.55, 0.6, 0.7], [0.9, 0.6, 0.4, 0.3, 0.2, 0.1], 3),  # by hand: mean 0.617 of 0.5
        ([0.9, 0.6, 0.5, 0.51, 0.52, 0.53], [0.9, 0.6, 0.4, 0.3, 0.2, 0.1], None),  # 4 % are too little
        ([0.9, 0.6, 0.5, 0.6, 0.7], [0.9, 0.6, 0.4, 0.3, 0.2], None),  # two epochs are too few
        ([0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6], None),  # it still learns
        ([0.5, 0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6, 0.5], None),  # on its way down again
        ([0.9, 0.5, 0.53, 0.53, 0.53], [0.9, 0.5, 0.4, 0.3, 0.2], 2),  # 6 % are enough
        ([0.9, 0.0, 0.0, 0.0, 0.0], [0.9, 0.5, 0.4, 0.3, 0.2], None),  # no higher than nothing
        ([0.5, 0.6, 0.7, 0.8], [0.5, 0.6, 0.7, 0.8], None),  # both rise: it does not learn at all
        ([], [], None),
    ],
)
def test_over_fitting_sets_in_by_the_stated_rule(val, train_loss, epoch):
    assert runs.overfits_after(history(val, train_loss)) == epoch


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
    nan = float("nan")
    cells = [cell(tmp_path, [nan], [1.0], lr=1.0), cell(tmp_path, [3.0], [1.0], lr=2.0)]
    assert Grid(tmp_path, cells, "val_iou").best is cells[1]  # of -2
    assert Grid(tmp_path, cells[:1], "val_iou").best is cells[0]


def cell(tmp_path, val, train_loss, status="finished", **settings):
    return Cell(settings, runs.Run(tmp_path, history(val, train_loss)), status)


def test_the_comparison_names_nine_curves_and_marks_the_best_and_the_onset(tmp_path):
    falling = [0.9, 0.8, 0.7, 0.6, 0.5]
    cells = [
        cell(tmp_path, [value / (1 + i / 1000) for value in falling], falling, lr=lr, batch_size=batch)  # all end alike
        for i, (lr, batch) in enumerate((lr, batch) for lr in (1e-3, 1e-4, 1e-5) for batch in (16, 32, 64))
    ]
    cells[4] = cell(tmp_path, [0.9, 0.3, 0.5, 0.6, 0.7], falling, lr=1e-4, batch_size=32)
    figure = plots.grid_comparison(cells, "val_loss", best=cells[4])
    axis = figure.axes[0]
    curves = [line for line in axis.get_lines() if len(line.get_xdata()) == 5]
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 9
    assert curves[1].get_ydata().tolist() == [value / 1.001 for value in falling]
    marks = {line.get_marker(): line for line in axis.get_lines() if len(line.get_xdata()) == 1}
    assert marks["X"].get_xydata().tolist() == [[2, 0.3]] and marks["*"].get_xydata().tolist() == [[2, 0.3]]
    assert [line.get_linewidth() for line in curves].index(3.0) == 4
    names = [text for text in axis.texts if "colour" not in text.get_text()]
    assert {text.get_text() for text in names} == {f"{lr}, {b}" for lr in (1e-3, 1e-4, 1e-5) for b in (16, 32, 64)}
    plots.save(figure, tmp_path / "figure.png")  # only then everything has its place
    extents = [Text.get_window_extent(text) for text in names]  # without the line to the curve
    boxes = sorted((extent.y0, extent.y1) for extent in extents)
    assert all(above[0] >= below[1] - 1 for below, above in zip(boxes, boxes[1:], strict=False))  # none over another
    assert {text.get_color() for text in names} == {line.get_color() for line in curves}


def test_a_grid_of_many_values_is_drawn_too(tmp_path):
    cells = [cell(tmp_path, [0.9, 0.5], [0.9, 0.5], lr=lr, batch=batch) for lr in (1, 2) for batch in range(6)]
    lines = plots.grid_comparison(cells, "val_loss").axes[0].get_lines()
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}) == 12


def test_cells_that_end_early_or_never_began_are_drawn_as_far_as_they_got(tmp_path):
    cells = [
        cell(tmp_path, [0.9, 0.8], [0.9, 0.8], lr=0.1),
        cell(tmp_path, [0.9], [0.9], "diverged", lr=1.0),
        cell(tmp_path, [], [], "out of memory", lr=10.0),
    ]
    axis = plots.grid_comparison(cells, "train_loss").axes[0]
    assert [text.get_text() for text in axis.texts][:2] == ["0.1", "1.0 (diverged)"]
    nothing = plots.grid_comparison(cells[2:], "train_loss")
    assert not nothing.axes[0].get_lines() and "lr=10.0 (out of memory)" in nothing.get_supxlabel()
    with pytest.raises(ValueError, match="no column 'lossy'.*there are epoch, train_loss"):
        plots.grid_comparison(cells, "lossy")


def test_a_run_may_begin_where_another_stands(tmp_path):
    short = train(tmp_path / "short", epochs=2)
    runs.branch(short.dir, tmp_path / "long")
    train(tmp_path / "long", epochs=5)
    train(tmp_path / "whole", epochs=5)
    long, whole = (torch.load(tmp_path / name / runs.LAST, weights_only=True) for name in ("long", "whole"))
    assert all(torch.equal(long["model"][key], whole["model"][key]) for key in whole["model"])
    ids = [torch.load(tmp_path / name / runs.LAST, weights_only=True)["about"]["id"] for name in ("short", "long")]
    assert ids[0] != ids[1] and (tmp_path / "short" / runs.BEST).is_file()
    assert len(runs.read_run(tmp_path / "short").history) == 2 and len(runs.read_run(tmp_path / "long").history) == 5
    runs.branch(short.dir, tmp_path / "long")  # which has gone on: it stays as it is
    assert len(torch.load(tmp_path / "long" / runs.LAST, weights_only=True)["history"]) == 5
    with pytest.raises(FileNotFoundError, match="no run to go on from"):
        runs.branch(tmp_path / "nowhere", tmp_path / "new")
