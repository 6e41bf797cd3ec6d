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
import html
import itertools
import json
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seglib.config import is_out_of_memory
from seglib.files import short_path, write_json
from seglib.loading import seed_everything
from seglib.runs import OtherSettings, Row, Run, best_epoch, overfits_after, read_run, score, write_history

__all__ = ["Cell", "Grid", "Value", "cell_name", "grid", "read_grid"]

Value = str | int | float | bool | None

_GRID_FILE = "grid.json"
_TABLE_FILE = "grid.csv"
_CELL_FILE = "cell.json"
_ERROR_FILE = "error.txt"
_FINISHED = "finished"
_RESERVED_NAMES = {"run_dir", "status", "seconds", "reason"}
_REQUIRED_COLUMNS = ["epoch", "train_loss", "val_loss", "seconds"]
_FORBIDDEN_IN_NAMES = set('/\\:*?"<>|\n\0')
_SHORT_NAMES = "give the choice a short name and look it up in your train()"


@dataclass
class Cell:
    """One combination of settings and its run.

    Attributes:
        settings: the value of each setting.
        run: the run in the cell's folder, with the history as far as training got.
        status: "finished", "out of memory", "diverged" (the loss became NaN or infinite), "failed" (any other error),
            "not finished" (training was interrupted) or "not started".
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
    """The cells of a grid as they are on disk. Printing it shows a table.

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
        finished = [cell for cell in self.cells if cell.status == _FINISHED and cell.history]
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
                "seconds": cell.run.seconds if best else None,
                "reason": cell.reason,
            }
            rows.append(row)
        return rows

    def __str__(self) -> str:
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table as a notebook shows it."""
        rows = ["".join(f"<td>{html.escape(text)}</td>" for text in row) for row in self._table()]
        rows[0] = rows[0].replace("td>", "th>")
        return "<table>\n<tr>" + "</tr>\n<tr>".join(rows) + "</tr>\n</table>"

    def _table(self) -> list[list[str]]:
        """The table as text, the heading first. Empty columns are left out and a star marks the best cell."""
        rows = self.rows()
        settings = self.cells[0].settings
        columns = [name for name in rows[0] if name in settings or any(row[name] not in (None, "") for row in rows)]
        best = self.best
        table = [["", *columns]]
        for cell, row in zip(self.cells, rows, strict=True):
            texts = [str(row[name]) if name in settings else _format_value(name, row[name]) for name in columns]
            table.append(["★" if cell is best else "", *texts])
        return table


def _format_value(column: str, value: Value) -> str:
    """A result as the table shows it."""
    if isinstance(value, float):
        return f"{value:.0f}" if column == "seconds" else f"{value:.4g}"
    return "" if value is None else str(value)[:60]


# ------------------------------------------------------------------------------------------------ training


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
        ValueError: a value cannot be part of a folder's name, or a history lacks the metric or another column.
        OtherSettings: a cell's folder holds a run with other settings.
        RuntimeError: no cell finished.
    """
    folder = Path(folder)
    combinations = _combinations(axes)
    result = _read_cells(folder, combinations, metric)
    write_json(folder / _GRID_FILE, {"cells": combinations, "metric": metric})
    write_history(folder / _TABLE_FILE, result.rows())
    for number, settings in enumerate(combinations, 1):
        print(f"[{number}/{len(combinations)}] {cell_name(settings)}", flush=True)
        _train_cell(train, settings, folder / cell_name(settings), seed)
        result = _read_cells(folder, combinations, metric)
        write_history(folder / _TABLE_FILE, result.rows())
    if result.best is None:
        first = result.cells[0]
        raise RuntimeError(
            f"no cell of {short_path(folder)} finished. The first one, {first.name}: {first.status}, {first.reason}. "
            f"The traceback is in {short_path(first.run.dir / _ERROR_FILE)}."
        )
    return result


def _train_cell(train: Callable[..., object], settings: dict[str, Value], run_dir: Path, seed: int) -> None:
    """Train one cell and record its status."""
    error_file = run_dir / _ERROR_FILE
    before = _read_record(run_dir)
    record = {"settings": settings, "status": "not finished", "reason": ""}  # stays if the process is killed
    write_json(run_dir / _CELL_FILE, record)
    seed_everything(seed)
    try:
        train(run_dir, **settings)
        if not read_run(run_dir).history:
            raise ValueError(f"train() wrote no history.csv into {short_path(run_dir)}: pass run_dir on to fit()")
        record["status"] = _FINISHED
        error_file.unlink(missing_ok=True)
    except OtherSettings:  # a mistake in the call, not a result: the folder keeps its earlier status
        write_json(run_dir / _CELL_FILE, before)
        raise
    except Exception as error:
        record["status"] = "diverged" if isinstance(error, FloatingPointError) else "failed"
        if is_out_of_memory(error):
            record["status"] = "out of memory"
        record["reason"] = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
        error_file.write_text(traceback.format_exc(), encoding="utf-8")
        print(f"{cell_name(settings)}: {record['status']}, {record['reason']}", flush=True)
    write_json(run_dir / _CELL_FILE, record)
    gc.collect()  # otherwise the next cell may find the GPU's memory still in use
    torch.cuda.empty_cache()


# ------------------------------------------------------------------------------------------------ names and files


def cell_name(settings: Mapping[str, Value]) -> str:
    """The name of a cell's folder, for example "lr=0.001,batch_size=16"."""
    return ",".join(f"{name}={value}" for name, value in settings.items())


def _combinations(axes: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    """The settings of each cell; the last axis changes fastest."""
    if not axes:
        raise ValueError("a grid needs at least one setting, for example {'lr': [1e-3, 1e-4]}")
    values = [_axis_values(name, given) for name, given in axes.items()]
    cells = [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*values)]
    names = [cell_name(cell) for cell in cells]
    if len({name.casefold() for name in names}) < len(names):  # some file systems ignore the case of letters
        raise ValueError(f"the cells of a grid must have different names, not {'; '.join(names)}")
    for name in names:
        if set(name) & _FORBIDDEN_IN_NAMES or len(name.encode()) > 200 or name[-1] in " .":
            raise ValueError(f"{name!r} cannot be the name of a folder: {_SHORT_NAMES}")
    return cells


def _axis_values(name: str, values: Sequence[Value]) -> list[Value]:
    """The values of a setting; numpy's numbers become Python's, which JSON can hold."""
    if name in _RESERVED_NAMES:
        raise ValueError(f"a setting cannot be called {name}: the grid uses this name itself")
    if isinstance(values, str) or not isinstance(values, Iterable) or len(list(values)) == 0:
        raise ValueError(f"{name} needs a list of values, for example [1e-3, 1e-4], not {values!r}")
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    for value in plain:
        if not isinstance(value, str | int | float | None):
            raise ValueError(f"{name}={value!r} cannot be part of a folder's name: {_SHORT_NAMES}")
    return plain


def read_grid(folder: str | Path) -> Grid:
    """The grid in a folder, finished or not.

    Raises:
        FileNotFoundError: there is no grid in the folder.
        ValueError: a history lacks the metric or another column.
    """
    file = Path(folder) / _GRID_FILE
    if not file.is_file():
        raise FileNotFoundError(f"no grid in {folder}: there is no {_GRID_FILE}")
    content = json.loads(file.read_text(encoding="utf-8"))
    return _read_cells(file.parent, content["cells"], content["metric"])


def _read_cells(folder: Path, combinations: Sequence[dict[str, Value]], metric: str) -> Grid:
    """The grid of these cells as their folders show it. Raises ValueError if a history lacks a column."""
    cells = []
    for settings in combinations:
        run = read_run(folder / cell_name(settings))
        for name in (*_REQUIRED_COLUMNS, metric):
            if run.history and name not in run.history[0]:
                columns = ", ".join(run.history[0])
                raise ValueError(f"{run.dir / 'history.csv'} has no column {name!r}; its columns are {columns}")
        record = _read_record(run.dir)
        status = record.get("status", "not started")
        run.finished = status == _FINISHED
        cells.append(Cell(settings, run, status, record.get("reason", "")))
    return Grid(folder, cells, metric)


def _read_record(run_dir: Path) -> dict[str, Any]:
    """The content of cell.json; empty if there is none, or if it cannot be read after a loss of power."""
    try:
        return json.loads((run_dir / _CELL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
