"""Many runs of one experiment, side by side: a grid of settings over one training function.

    def train(run_dir, lr, batch_size):
        model = build_model("unet", classes=3)
        return fit(model, ..., TrainConfig(epochs=50, lr=lr, batch_size=batch_size), run_dir)

    result = grid(train, {"lr": [1e-3, 1e-4], "batch_size": [8, 16]}, "runs/search")
    result.best.run.model()

runs/search/ then holds a run folder for each cell, grid.json (what was searched) and grid.csv (what was found). In a
cell's folder, cell.json says how it ended, and error.txt where it failed.
"""

import gc
import html
import itertools
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from seglib.files import short_path
from seglib.loading import set_generators
from seglib.processes import apart
from seglib.runs import (
    OtherSettings,
    Row,
    Run,
    best_epoch,
    how_good,
    overfits_after,
    read_run,
    write_history,
    write_json,
)

Plain = str | int | float | bool | None
GRID, TABLE, CELL, ERROR, LOG, LOCK = "grid.json", "grid.csv", "cell.json", "error.txt", "log.txt", ".cell.lock"
FINISHED, NO_MEMORY, DIVERGED, FAILED = "finished", "out of memory", "diverged", "failed"
UNTOUCHED, UNFINISHED, AT_WORK = "not begun", "not finished", "being trained"
LONGEST_NAME = 200  # bytes of a folder's name
NOT_IN_NAMES = set('/\\:*?"<>|\n\0')
NEEDED = {"epoch", "train_loss", "val_loss", "seconds"}  # columns of a history that the table and the figures show
TAKEN = {"run_dir", "status", "seconds", "reason"}
LOOK_AGAIN = 1.0  # seconds between looks at the cells that other processes are at
SLOW_START = 60.0  # seconds: of processes that were launched together, the last begins so long after the first


@dataclass
class Cell:
    """One cell of a grid.

    Attributes:
        settings: the value of each setting. run: its run folder, with the history as far as it got.
        status: "finished"; "out of memory"; "diverged": the loss became NaN or infinite; "failed"; "being trained", by
            another process; "not finished": it was interrupted; "not begun". reason: why it did not finish.
    """

    settings: dict[str, Plain]
    run: Run
    status: str
    reason: str = ""

    @property
    def name(self) -> str:
        """Its settings in words; also the name of its folder."""
        return cell_name(self.settings)

    @property
    def history(self) -> list[Row]:
        return self.run.history

    @property
    def overfits_after(self) -> int | None:
        """The epoch after which it over-fits, by the rule of `seglib.runs.overfits_after`; None if it does not."""
        return overfits_after(self.history)

    def best_row(self, metric: str) -> Row | None:
        """The row of its best epoch; None where no epoch was finished."""
        return self.history[best_epoch(self.history, metric) - 1] if self.history else None


@dataclass
class Grid:
    """All cells of a grid, as they stand on disk; shown as a table.

    Attributes:
        folder: where its run folders are. cells: in the order of the settings, the last of which changes fastest.
        metric: the column of the history that chooses the best epoch and the best cell, see `grid`.
    """

    folder: Path
    cells: list[Cell]
    metric: str

    @property
    def best(self) -> Cell | None:
        """The finished cell with the best score, the first of equals; None where none is finished."""
        finished = [cell for cell in self.cells if cell.status == FINISHED]
        return max(finished, key=lambda cell: how_good(cell.best_row(self.metric), self.metric), default=None)

    @property
    def unfinished(self) -> list[Cell]:
        """The cells that did not finish."""
        return [cell for cell in self.cells if cell.status != FINISHED]

    def rows(self) -> list[dict[str, Any]]:
        """The table: a row a cell, its columns as those of grid.csv; None where there is nothing to say."""
        rows = []
        for cell in self.cells:
            best = cell.best_row(self.metric)
            least = cell.best_row("val_loss")
            rows.append(
                {
                    **cell.settings,
                    "status": cell.status,
                    "epochs done": len(cell.history),
                    self.metric: best and best[self.metric],
                    "best epoch": best and best["epoch"],
                    "least val_loss": least and least["val_loss"],
                    "last train_loss": cell.history[-1]["train_loss"] if best else None,
                    "over-fits after": cell.overfits_after,
                    "seconds": cell.run.seconds if best else None,
                    "reason": cell.reason,
                }
            )
        return rows

    def __str__(self) -> str:
        """The table as text, the best cell marked by a star."""
        head, body = self._texts()
        lines = [head, *body]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table as a notebook shows it, the best cell in bold."""
        head, body = self._texts()
        lines = ["<tr>" + "".join(f"<th>{html.escape(text)}</th>" for text in head) + "</tr>"]
        for line in body:
            tag = "b" if line[0] else "span"
            cells = "".join(f"<td><{tag}>{html.escape(text)}</{tag}></td>" for text in line)
            lines.append(f"<tr>{cells}</tr>")
        return "<table>\n" + "\n".join(lines) + "\n</table>"

    def _texts(self) -> tuple[list[str], list[list[str]]]:
        """The table's head and lines, as people read them; columns that say nothing are left out."""
        rows, best = self.rows(), self.best
        settings = self.cells[0].settings
        columns = [name for name in rows[0] if name in settings or any(row[name] not in (None, "") for row in rows)]
        stars = ["★" if cell is best else "" for cell in self.cells]
        texts = [[str(row[name]) if name in settings else _text(name, row[name]) for name in columns] for row in rows]
        return ["", *columns], [[star, *text] for star, text in zip(stars, texts, strict=True)]


def _text(column: str, value: Any) -> str:
    """A value of the table as people read it."""
    if value is None:
        return ""
    if column == "seconds":
        return f"{value:.0f}"
    if column == "reason":
        return value if len(value) <= 60 else value[:57] + "..."
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------ searching


def grid(
    train: Callable[..., Any],
    axes: Mapping[str, Sequence[Plain]],
    folder: str | Path,
    metric: str = "val_iou",
    seed: int = 0,
) -> Grid:
    """Train every combination of some settings, each in a run folder of its own.

    Called again after an interruption of any kind it goes on where it stopped: a finished cell is not trained again, a
    half-trained one goes on from its last checkpoint (for both, `train` is called, and it is `fit` that knows), and one
    that failed is tried once more. A cell that fails, diverges or does not fit in memory is noted with its reason, and
    the others are trained.

    Several processes, each with a GPU of its own, share a grid: started by torchrun, `accelerate launch` or
    `notebook_launcher`, or as separate programs, each takes a cell that nobody is at, trains it by itself, and waits at
    the end for those of the others. What a cell is does not depend on how many they are. All but the first write what
    `train` prints to log.txt in the cell's folder.

    Args:
        train: train(run_dir, **settings) trains one cell, by `fit` or by anything else that leaves in run_dir a
            history.csv with epoch, train_loss, val_loss, seconds and the metric. Before each cell the random generators
            are seeded alike.
        axes: the values of each setting: strings, numbers, True, False or None. Cells that are in the folder from an
            earlier search and not among these combinations are left alone.
        folder: for the cells' run folders and the table.
        metric: the column of history.csv by which the best epoch and the best cell are chosen: the one with most of it,
            or, if it is a loss, with least. (A run's best_model.pth is of the epoch with the best val_iou, always.)

    Returns:
        All cells. The table is in grid.csv too.

    Raises:
        ValueError: values that no folder can be named after; a cell's folder holds a run with other settings.
        RuntimeError: no cell finished.
    """
    folder, combinations = Path(folder), check_axes(axes)
    begun, launch = time.time(), os.getppid() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    found = read_cells(folder, combinations, metric)
    write_json(folder / GRID, {"cells": combinations, "metric": metric})
    write_table(found)
    with apart() as process:
        waiting, told = list(enumerate(combinations, 1)), False
        while waiting:
            for number, settings in tuple(waiting):
                run_dir = folder / cell_name(settings)
                with claimed(run_dir) as mine:
                    if not mine:
                        continue
                    if not ended_since(run_dir, begun, launch):
                        print(f"[{number}/{len(combinations)}] {cell_name(settings)}", flush=True)
                        train_cell(train, settings, run_dir, seed, launch, quiet=process > 0)
                        write_table(read_cells(folder, combinations, metric))
                waiting.remove((number, settings))
            if waiting:
                if not told:
                    print(f"waiting for {len(waiting)} that other processes are at", flush=True)
                told = True
                time.sleep(LOOK_AGAIN)
    result = read_cells(folder, combinations, metric)
    write_table(result)
    if result.best is None:
        first = result.unfinished[0]
        raise RuntimeError(
            f"no cell of {short_path(folder)} finished; {first.name} {first.status}: {first.reason}. "
            f"{short_path(first.run.dir / ERROR)} says where."
        )
    return result


def train_cell(
    train: Callable[..., Any],
    settings: dict[str, Plain],
    run_dir: Path,
    seed: int,
    launch: int | None = None,
    quiet: bool = False,
) -> None:
    """Train one cell, and note how it ended.

    Args:
        launch: tells processes that were started together from others. quiet: print to log.txt.
    """
    before = _record(run_dir)
    note(run_dir, settings, UNFINISHED)  # and so it stays if it is killed from here on
    set_generators(seed)
    status, reason, told = FINISHED, "", ""
    with (
        (run_dir / LOG).open("a", encoding="utf-8") if quiet else nullcontext() as log,
        redirect_stdout(log) if quiet else nullcontext(),
    ):
        try:
            train(run_dir, **settings)
            check_history(run_dir)
        except OtherSettings:  # a mistake that every cell would repeat, and that changes nothing
            write_json(run_dir / CELL, before)
            raise
        except Exception as error:
            (status, reason), told = how_it_ended(error), traceback.format_exc()
    (run_dir / ERROR).unlink(missing_ok=True)
    if reason:
        (run_dir / ERROR).write_text(told, encoding="utf-8")
        print(f"{cell_name(settings)} {status}: {reason}", flush=True)
    note(run_dir, settings, status, reason, ended=time.time(), launch=launch)
    gc.collect()  # what held the GPU's memory, so that the next cell finds it free
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def note(run_dir: Path, settings: dict[str, Plain], status: str, reason: str = "", **when: Any) -> None:
    """Note how a cell stands."""
    write_json(run_dir / CELL, {"settings": settings, "status": status, "reason": reason, **when})


def check_history(run_dir: Path) -> None:
    """Raise ValueError where a training left no history, or one without what the table needs."""
    history = read_run(run_dir).history
    if not history:
        raise ValueError(f"train() left no history.csv in {short_path(run_dir)}: hand run_dir on to fit()")
    missing = NEEDED - set(history[0])
    if missing:
        raise ValueError(f"{short_path(run_dir / 'history.csv')} has no column {', '.join(sorted(missing))}")


def how_it_ended(error: Exception) -> tuple[str, str]:
    """The status of a cell that an error ended, and the reason in one line."""
    lines = str(error).strip().splitlines() or [""]
    reason = f"{type(error).__name__}: {lines[0]}"
    no_memory = ("out of memory", "allocate memory", "alloc_failed")  # in the words of CUDA, of the CPU, of cuDNN
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error).lower() for text in no_memory):
        return NO_MEMORY, reason
    return (DIVERGED if isinstance(error, FloatingPointError) else FAILED), reason


@contextmanager
def claimed(run_dir: Path) -> Iterator[bool]:
    """Take a cell for this process, unless another has it: whether that went well."""
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):  # a file system without locks: then one process at a time
        pass
    try:
        yield True
    finally:
        lock.release()


# ------------------------------------------------------------------------------------------------ names and files


def check_axes(axes: Mapping[str, Sequence[Plain]]) -> list[dict[str, Plain]]:
    """The settings of each cell, the last axis changing fastest.

    Raises:
        ValueError: no values; a value that no folder can be named after; two that would share one.
    """
    plain = {name: as_plain(name, values) for name, values in axes.items()}
    if not plain:
        raise ValueError("a grid needs settings to search among, {'lr': [1e-3, 1e-4]} say")
    cells = [dict(zip(plain, values, strict=True)) for values in itertools.product(*plain.values())]
    names = [cell_name(cell) for cell in cells]
    if len({name.casefold() for name in names}) < len(names):  # in capitals alone, some file systems see no difference
        raise ValueError(f"the cells of a grid must differ; these do not all: {'; '.join(names)}")
    for name in names:
        if set(name) & NOT_IN_NAMES or len(name.encode()) > LONGEST_NAME or name[-1] in " .":
            raise ValueError(
                f"{name!r} can name no folder: give the choice a short name, and look it up in your train()"
            )
    return cells


def as_plain(name: str, values: Sequence[Plain]) -> list[Plain]:
    """The values of a setting as JSON can hold them: numpy's numbers become Python's."""
    if name in TAKEN:
        raise ValueError(f"a setting cannot be called {name}: that is the run folder's name, or the table's")
    if isinstance(values, str) or not isinstance(values, Iterable) or not len(values := list(values)):
        raise ValueError(f"{name} needs a list of values, [1e-3, 1e-4] say, not {values!r}")
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    for value in values:
        if not isinstance(value, str | int | float | None):
            raise ValueError(
                f"{name}={value!r} can name no folder: give the choice a short name, and look it up in your train()"
            )
    return values


def cell_name(settings: Mapping[str, Plain]) -> str:
    """A cell's settings in words: "lr=0.001,batch_size=16"."""
    return ",".join(f"{name}={value}" for name, value in settings.items())


def read_grid(folder: str | Path) -> Grid:
    """A grid as its folder shows it, finished or not; `grid` need not be at work.

    Raises:
        FileNotFoundError: no grid was ever begun there. ValueError: its metric is no column of the histories.
    """
    folder = Path(folder)
    if not (folder / GRID).is_file():
        raise FileNotFoundError(f"no grid in {folder}: it would hold {GRID}")
    searched = json.loads((folder / GRID).read_text(encoding="utf-8"))
    return read_cells(folder, searched["cells"], searched["metric"])


def read_cells(folder: Path, combinations: Sequence[dict[str, Plain]], metric: str) -> Grid:
    """A grid of these cells, as their folders show them.

    Raises:
        ValueError: the metric is no column of a history; lists those there are.
    """
    cells = []
    for settings in combinations:
        run = read_run(folder / cell_name(settings))
        columns = run.history[0] if run.history else {}
        if columns and not set(columns) >= NEEDED:  # something else wrote it, and `train_cell` has said so
            run.history, columns = [], {}
        if columns and metric not in columns:
            raise ValueError(f"{run.dir / 'history.csv'} has no column {metric!r}; there are {', '.join(columns)}")
        noted = _record(run.dir)
        status = noted.get("status", UNTOUCHED)
        if status == UNFINISHED:
            with claimed(run.dir) as nobody_is_at_it:
                status = UNFINISHED if nobody_is_at_it else AT_WORK
        run.finished = status == FINISHED
        cells.append(Cell(settings, run, status, noted.get("reason", "")))
    return Grid(folder, cells, metric)


def write_table(result: Grid) -> None:
    """Write grid.csv, numbers in full."""
    write_history(result.folder / TABLE, result.rows())


def _record(run_dir: Path) -> dict[str, Any]:
    """What is noted of a cell; empty where it was not begun, or where a loss of power left nothing to read."""
    try:
        return json.loads((run_dir / CELL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def ended_since(run_dir: Path, begun: float, launch: int | None) -> bool:
    """Whether another process has brought a cell to its end, whatever that was, since this one began."""
    noted = _record(run_dir)
    together = launch is not None and noted.get("launch") == launch
    return noted.get("ended", 0.0) >= begun - SLOW_START * together
