"""A grid search: train every combination of some settings and compare the runs.

    def train(run_dir, lr, batch_size):
        model = build_model("unet", classes=3)
        return fit(model, ..., TrainConfig(epochs=50, lr=lr, batch_size=batch_size), run_dir)

    result = grid(train, {"lr": [1e-3, 1e-4], "batch_size": [8, 16]}, "runs/search")
    result.best.run.model()

The folder runs/search/ holds a run folder for each combination (a cell), grid.json with the settings, and grid.csv with
the results. In a cell's folder, cell.json holds its status, and error.txt the traceback if it failed.
"""

import gc
import itertools
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from seglib.config import is_out_of_memory
from seglib.files import check_choice, locked, short_path, write_json, write_lines
from seglib.loading import seed_everything
from seglib.runs import OtherSettings, Row, Run, best_epoch, overfits_after, read_run, score, write_history

__all__ = ["Cell", "Grid", "Value", "cell_name", "grid", "read_grid"]

Value = str | int | float | bool | None

_GRID_FILE = "grid.json"
_CELL_FILE = "cell.json"
_ERROR_FILE = "error.txt"
_FORBIDDEN_IN_NAMES = set('/\\:*?"<>|\n')


@dataclass
class Cell:
    """One combination of settings and its run.

    Attributes:
        settings: the value of each setting.
        run: the run in the cell's folder, with the history as far as training got.
        status: "finished", "out of memory", "diverged" (the loss became NaN or infinite), "failed" (any other error),
            "not finished" (the first training was interrupted) or "not started".
        reason: the error in one line; empty if there was none.
    """

    settings: dict[str, Value]
    run: Run
    status: str
    reason: str = ""

    @property
    def name(self) -> str:
        """The settings in words, which is also the name of the cell's folder."""
        return cell_name(self.settings)

    @property
    def history(self) -> list[Row]:
        """The rows of history.csv, one for each epoch."""
        return self.run.history

    @property
    def overfits_after(self) -> int | None:
        """The epoch after which the cell over-fits, or None; see `seglib.runs.overfits_after` for the rule."""
        return overfits_after(self.history)

    def best_row(self, metric: str) -> Row | None:
        """The row of the best epoch by a metric, or None if no epoch was finished."""
        return self.history[best_epoch(self.history, metric) - 1] if self.history else None


@dataclass
class Grid:
    """The cells of a grid as they are on disk. Printed as a table without empty columns; a star marks the best cell.

    Attributes:
        folder: the folder that holds the cells' run folders.
        cells: all cells; the last setting changes fastest.
        metric: the column of history.csv by which the best epoch and the best cell are chosen.
    """

    folder: Path
    cells: list[Cell]
    metric: str

    @property
    def best(self) -> Cell | None:
        """The finished cell with the best score, the first one of equals, or None if no cell is finished."""
        finished = [cell for cell in self.cells if cell.status == "finished" and cell.history]
        return max(finished, key=lambda cell: max(score(row, self.metric) for row in cell.history), default=None)

    def rows(self) -> list[dict[str, Value]]:
        """The rows of grid.csv, one for each cell. A value that does not exist is None."""
        rows = []
        for cell in self.cells:
            best = cell.best_row(self.metric)
            lowest = cell.best_row("val_loss")
            row: dict[str, Value] = {
                **cell.settings,
                "status": cell.status,
                "epochs done": len(cell.history),
                self.metric: best[self.metric] if best else None,
                "best epoch": best["epoch"] if best else None,
                "least val_loss": lowest["val_loss"] if lowest else None,
                "last train_loss": cell.history[-1]["train_loss"] if best else None,
                "over-fits after": cell.overfits_after,
                "seconds": round(cell.run.seconds) if best else None,
                "reason": cell.reason,
            }
            rows.append(row)
        return rows

    def __str__(self) -> str:
        rows = self.rows()
        columns = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
        table = [["", *columns]]
        for cell, row in zip(self.cells, rows, strict=True):
            values = {**row, **{name: str(value) for name, value in cell.settings.items()}}  # in full digits
            table.append(["★" if cell is self.best else "", *(_format_value(values[name]) for name in columns)])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)

    __repr__ = __str__


def _format_value(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)[:60]


def grid(
    train: Callable[..., object],
    axes: Mapping[str, Sequence[Value]],
    folder: str | Path,
    metric: str = "val_iou",
    seed: int = 0,
) -> Grid:
    """Train every combination of some settings, each in its own run folder.

    If a cell fails, diverges or runs out of memory, its reason is recorded and the next cell is trained. Calling the
    function again continues an interrupted search: `train` is called for each cell, and `fit` returns at once where
    the run is finished and resumes where it is not. A cell that failed is tried again. Only one process may work in a
    folder at a time.

    Args:
        train: train(run_dir, **settings) trains one cell, by `fit` or by anything else that writes a history.csv with
            the columns epoch, train_loss, val_loss, seconds and the metric into run_dir. The random generators are
            seeded alike before each cell.
        axes: the values of each setting: strings, numbers, True, False or None. Folders of other combinations, from an
            earlier search, are left alone.
        folder: the folder for the run folders and the table.
        metric: the column of history.csv by which the best epoch and the best cell are chosen: the lowest value for a
            loss, else the highest. The choice of best_model.pth is made by `fit` and does not depend on it.
        seed: the seed of the random generators before each cell.

    Returns:
        All cells. grid.csv holds the same table.

    Raises:
        ValueError: a value cannot be part of a folder's name, or a history has no column for the metric.
        OtherSettings: a cell's folder holds a run with other settings.
        RuntimeError: no cell finished, or another process works in the folder.
    """
    folder = Path(folder)
    combinations = _combinations(axes)
    write_json(folder / _GRID_FILE, {"cells": combinations, "metric": metric})
    with locked(folder / ".lock", f"another process searches in {folder}: wait for it, or stop it", timeout=0):
        for number, settings in enumerate(combinations, 1):
            print(f"[{number}/{len(combinations)}] {cell_name(settings)}", flush=True)
            _train_cell(train, settings, folder / cell_name(settings), seed)
            result = _read_cells(folder, combinations, metric)
            write_history(folder / "grid.csv", result.rows())
    if result.best is None:
        first = result.cells[0]
        raise RuntimeError(
            f"no cell of {short_path(folder)} finished. The first one, {first.name}: {first.status}, {first.reason}. "
            f"The traceback is in {short_path(first.run.dir / _ERROR_FILE)}."
        )
    return result


def _train_cell(train: Callable[..., object], settings: dict[str, Value], run_dir: Path, seed: int) -> None:
    """Train one cell and record how it ended."""
    record = {"settings": settings, "status": "finished", "reason": ""}
    cell_file = run_dir / _CELL_FILE
    earlier = cell_file.read_bytes() if cell_file.is_file() else None
    cell_file.unlink(missing_ok=True)  # until the training ends, the cell is not finished
    seed_everything(seed)
    try:
        train(run_dir, **settings)
        if not read_run(run_dir).history:
            raise ValueError(f"train() wrote no history.csv into {short_path(run_dir)}: pass run_dir on to fit()")
        (run_dir / _ERROR_FILE).unlink(missing_ok=True)
    except OtherSettings:  # a mistake in the call, not a result
        if earlier is not None:
            cell_file.write_bytes(earlier)
        raise
    except Exception as error:
        record["status"] = "diverged" if isinstance(error, FloatingPointError) else "failed"
        if is_out_of_memory(error):
            record["status"] = "out of memory"
        record["reason"] = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
        write_lines(run_dir / _ERROR_FILE, traceback.format_exc().splitlines())
        print(f"{cell_name(settings)}: {record['status']}, {record['reason']}", flush=True)
    write_json(cell_file, record)
    gc.collect()  # otherwise the next cell may find the GPU's memory still in use
    torch.cuda.empty_cache()


def cell_name(settings: Mapping[str, Value]) -> str:
    """The name of a cell's folder, for example "lr=0.001,batch_size=16"."""
    return ",".join(f"{name}={value}" for name, value in settings.items())


def _combinations(axes: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    """The settings of each cell; the last axis changes fastest."""
    if not axes or {"run_dir", "status", "seconds", "reason"} & set(axes):
        raise ValueError(f"a grid needs settings, and none called run_dir, status, seconds or reason, not {list(axes)}")
    values = [_plain_values(name, given) for name, given in axes.items()]
    return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*values)]


def _plain_values(name: str, values: Sequence[Value]) -> list[Value]:
    """The values of a setting; numpy's numbers become Python's, which JSON can hold."""
    if isinstance(values, str) or not np.iterable(values) or not len(values):
        raise ValueError(f"{name} needs a list of values, for example [1e-3, 1e-4], not {values!r}")
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    for value in plain:
        if not isinstance(value, str | int | float | None) or set(str(value)) & _FORBIDDEN_IN_NAMES:
            raise ValueError(f"{name}={value!r} cannot name a folder: use a short name, and look it up in your train()")
    if len(set(map(str, plain))) < len(plain):
        raise ValueError(f"{name} has a value twice: {plain}")
    return plain


def read_grid(folder: str | Path) -> Grid:
    """The grid in a folder, finished or not.

    Raises:
        FileNotFoundError: there is no grid in the folder.
        ValueError: a history has no column for the metric.
    """
    content = json.loads((Path(folder) / _GRID_FILE).read_text(encoding="utf-8"))
    return _read_cells(Path(folder), content["cells"], content["metric"])


def _read_cells(folder: Path, combinations: Sequence[dict[str, Value]], metric: str) -> Grid:
    """The grid of these cells as their folders show it."""
    cells = []
    for settings in combinations:
        run = read_run(folder / cell_name(settings))
        if run.history:
            check_choice(f"the metric of {run.dir}", metric, run.history[0])
        record = {"status": "not finished" if run.dir.is_dir() else "not started", "reason": ""}
        if (run.dir / _CELL_FILE).is_file():
            record = json.loads((run.dir / _CELL_FILE).read_text(encoding="utf-8"))
        run.finished = record["status"] == "finished"
        cells.append(Cell(settings, run, record["status"], record["reason"]))
    return Grid(folder, cells, metric)
