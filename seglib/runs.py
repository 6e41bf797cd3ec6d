"""The run folder: settings, history, checkpoints. Every file in it is written aside and renamed.

config.json       settings, versions, device, data
history.csv       a row an epoch
best_model.pth    the best epoch's weights; rebuilds its model alone (seglib.models.load_model)
last/             what is needed to go on from the last epoch's end, or from the middle of an epoch
loss.png miou.png the curves
predictions/      masks of the first validation images after each epoch
tensorboard/
"""

import csv
import io
import json
import math
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from seglib.files import atomic_path, short_path
from seglib.models import load_model

Row = dict[str, float]
CONFIG, LAST, BEST, LOCK = "config.json", "last/checkpoint.pth", "best_model.pth", "last/.lock"
LEFT = re.compile(r"\..+\.\d+\.part(\..+)?")  # the names that written_aside makes
CHOSEN_BY = ("val_iou", "val_ap")  # the column of a history that says which epoch is best: the one that it has
LOCK_WAIT = 15  # seconds: the workers of a process that was killed hold its lock until they notice


@dataclass
class Run:
    """A training run, as it stands in its folder.

    Attributes:
        dir: the run folder. history: a row an epoch, keys as the columns of history.csv.
        finished: whether training ended, by its last epoch or by early stopping.
        about: its id; versions, device and time of its first call.
    """

    dir: Path
    history: list[Row] = field(default_factory=list, repr=False)
    finished: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Row:
        """The row of the best epoch: the highest `val_iou` or, of a model that finds objects, `val_ap`, the earliest of
        equals."""
        column = next(name for name in CHOSEN_BY if name in self.history[0])
        return self.history[best_epoch(self.history, column) - 1]

    @property
    def seconds(self) -> float:
        """How long the epochs took together."""
        return sum(row["seconds"] for row in self.history)

    def model(self) -> nn.Module:
        """The model of the best epoch, in eval mode, on the CPU."""
        return load_model(self.dir / BEST)

    def column(self, name: str) -> list[float]:
        """One column of the history, first epoch to last."""
        return [row[name] for row in self.history]


def best_epoch(history: list[Row], column: str = "val_iou") -> int:
    """The epoch, counted from 1, that is best by a column, the earliest of equals; see `how_good`."""
    scores = [how_good(row, column) for row in history]
    return scores.index(max(scores)) + 1


def how_good(row: Row, column: str) -> float:
    """A number that is higher the better a row is: of a loss less is better, of all else more; NaN (nothing to find,
    nothing found) is worst."""
    value = row[column]
    if value != value:
        return -math.inf
    return -value if "loss" in column else value


def overfits_after(history: list[Row], later: int = 3, rise: float = 0.05) -> int | None:
    """The epoch after which a run learns its training images by heart; None where it does not, or cannot be told.

    The rule: take the epoch of the least validation loss. If `later` or more epochs follow, and over these the
    validation loss is on average higher by the share `rise` or more, and not on its way down again (in the second half
    of them no lower than in the first), and the training loss is on average lower than in that epoch, then over-fitting
    set in after it.
    """
    losses = [row["val_loss"] for row in history]
    least = losses.index(min(losses)) if losses else 0
    after = history[least + 1 :]
    if len(after) < max(later, 2):
        return None
    half = len(after) // 2
    first, second = _mean(after[:half], "val_loss"), _mean(after[half:], "val_loss")
    higher = _mean(after, "val_loss") - losses[least]
    rose = higher > 0 and higher >= rise * abs(losses[least]) and second >= first
    return least + 1 if rose and _mean(after, "train_loss") < history[least]["train_loss"] else None


def _mean(rows: list[Row], column: str) -> float:
    return sum(row[column] for row in rows) / len(rows)


def read_run(run_dir: str | Path) -> Run:
    """A run as its folder shows it: with its history, but without a word on whether it is finished."""
    table = Path(run_dir) / "history.csv"
    return Run(Path(run_dir), read_history(table) if table.is_file() else [])


def branch(run_dir: str | Path, new_dir: str | Path) -> None:
    """Let a new run begin where another stands: copy that one's checkpoints, unless the new folder has some already.

    With more epochs in its settings, `fit` then goes on in the new folder, as a run with an id of its own, and the old
    one stays as it is.
    """
    run_dir, new_dir = Path(run_dir), Path(new_dir)
    if (new_dir / LAST).is_file():
        return
    if not (run_dir / LAST).is_file():
        raise FileNotFoundError(f"no run to go on from in {run_dir}: train it first")
    state = read_checkpoint(run_dir / LAST) | {"about": about_this_machine()}
    with atomic_path(new_dir / BEST) as aside:
        shutil.copyfile(run_dir / BEST, aside)
    save_torch(new_dir / LAST, state)  # last: until then there is nothing to go on from


# ------------------------------------------------------------------------------------------------ opening a folder


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Have a run folder to oneself: two trainings in one folder would overwrite each other's checkpoints.

    Raises:
        RuntimeError: another process trains there.
        OSError: there can be no such folder.
    """
    lock = FileLock(run_dir / LOCK)
    try:
        (run_dir / LOCK).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {run_dir}: {error.strerror}. Choose a folder that may be written to.") from error
    try:
        lock.acquire(timeout=LOCK_WAIT)
    except Timeout:
        raise RuntimeError(
            f"another process trains in {run_dir}: wait for it or stop it (a notebook in another tab, perhaps), or "
            "choose another run_dir"
        ) from None
    except (OSError, NotImplementedError):  # a file system without locks, or one that will be found to be read-only
        pass
    try:
        yield
    finally:
        lock.release()


def open_run(
    run_dir: str | Path, settings: dict[str, Any], about: dict[str, Any], mirror: str | Path | None = None
) -> tuple[Run, dict[str, Any] | None]:
    """Open a run folder to train in, or to go on in.

    Args:
        settings: what decides the outcome, as plain JSON; a run goes on only under the very same, though more epochs
            may do: see `check_settings`.
        about: what is good to know: versions, device. Kept from the run's first call.
        mirror: the folder that holds copies of the run's checkpoints, from which they are restored where this one has
            none that can be read, or none so far on.

    Returns:
        The run, and its last checkpoint, None if it has none yet.

    Raises:
        OtherSettings (a ValueError): the folder, or its mirror, holds a run with other settings; names what differs.
        ValueError: a damaged checkpoint, and no better copy of it.
        OSError: the folder cannot be written to; the place of the mirror is not there.
    """
    run_dir, mirror = Path(run_dir), None if mirror is None else Path(mirror)
    clear_away(run_dir)
    here, there = read_both(run_dir, mirror)
    for state, folder in ((here, run_dir), (there, mirror)):
        if state is not None:
            check_settings(state["settings"], settings, folder)
    state = here
    if there is not None and (here is None or how_far(there) > how_far(here)):
        state = there
        copy_checkpoints(mirror, run_dir)
        print(f"The checkpoints of {short_path(run_dir)} were restored from {short_path(mirror)}.")
    kept = {"settings": settings, "about": state["about"] if state else about}
    if read_config(run_dir) != kept:
        write_json(run_dir / CONFIG, kept)
    return Run(run_dir, state["history"] if state else [], about=kept["about"]), state


def clear_away(run_dir: Path) -> None:
    """Delete what a process that was killed while it wrote has left half written."""
    for folder in (run_dir, (run_dir / LAST).parent, *run_dir.glob("predictions/*")):
        for path in folder.glob(".*.part*"):
            if LEFT.fullmatch(path.name):
                path.unlink(missing_ok=True)


def read_config(folder: Path) -> dict[str, Any] | None:
    """What a run folder's config.json says; None where it cannot be read."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return {"settings": config["settings"], "about": config["about"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


class OtherSettings(ValueError):
    """A run folder holds a run with other settings than those it is to go on with."""


def check_settings(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise OtherSettings, naming what differs, where a run must not go on under these settings.

    More epochs than before are no other run, unless the learning rate depends on how many there are.
    """
    differing = differences(before, now)
    if not differing:
        return
    reason = ""
    more = now.get("config", {}).get("epochs", 0) > before.get("config", {}).get("epochs", 0)
    if more and len(differing) == 1 and differing[0].startswith("config.epochs:"):
        if now["config"]["scheduler"] != "cosine":
            return
        reason = (
            "\nA cosine schedule brings the learning rate down to nothing at the last epoch: with more epochs, those "
            "already done would have had another rate."
        )
    listed = "\n".join(f"  {line}" for line in differing)
    raise OtherSettings(
        f"{folder} holds a run with other settings:\n{listed}{reason}\n"
        "Choose another run_dir (or mirror) for the new ones, or delete that folder to train it anew."
    )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two settings, a line each, by dotted name."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        return [
            line
            for key in keys
            for line in differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if before == now else [f"{name}: {before} then, {now} now"]


# ------------------------------------------------------------------------------------------------ checkpoints


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file that `seglib.train` saved to go on from.

    Raises:
        ValueError: it is cut short, empty, or something else.
    """
    content = io.BytesIO(path.read_bytes())  # first of all: a disk that cannot be read is no damaged checkpoint
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
        missing = {"settings", "about", "history", "epoch"} - set(state)
    except MemoryError:
        raise
    except Exception as error:  # zip, pickle and tensor errors: whatever it is, it cannot be gone on from
        raise ValueError(f"{path} is damaged, or no checkpoint ({type(error).__name__})") from error
    if missing:
        raise ValueError(f"{path} is no checkpoint to go on from: it lacks {', '.join(sorted(missing))}")
    return state


def read_both(run_dir: Path, mirror: Path | None) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The last checkpoint of a run folder and that of its mirror, None where there is none that can be read.

    Raises:
        ValueError: one is damaged and there is no other.
        OSError: the run folder's cannot be read just now, and may well be the better one; there is neither, nor a place
            for a mirror.
    """
    here, there, damage = None, None, None
    try:
        if (run_dir / LAST).is_file():
            here = read_checkpoint(run_dir / LAST)
    except ValueError as error:
        damage = error
    try:
        if mirror is not None and (mirror / LAST).is_file():
            there = read_checkpoint(mirror / LAST)
    except (ValueError, OSError) as error:
        damage = error
    if damage is not None and here is None and there is None:
        raise ValueError(
            f"{damage}. Put a good copy in its place; or delete {run_dir}, and the same call trains anew."
        ) from damage
    if damage is not None:
        print(f"{damage}. The other copy is sound.")
    if mirror is not None and here is None and there is None:
        check_place(mirror)
    return here, there


def how_far(state: dict[str, Any]) -> tuple[int, int]:
    """How many epochs a checkpoint has behind it, and how many steps of the next."""
    return len(state["history"]), state["epoch"]["steps"]


def copy_checkpoints(source: Path, run_dir: Path) -> None:
    """Copy checkpoints to a run folder. The one to go on from comes last: until then, none is."""
    for name in (BEST, LAST):
        if (source / name).is_file():
            with atomic_path(run_dir / name) as aside:
                shutil.copyfile(source / name, aside)


def check_place(mirror: Path) -> None:
    """Raise FileNotFoundError where a mirror has no place to be. It is never made: a Drive that is not mounted would
    be taken for an empty one, and the folder made in its place would keep it from being mounted."""
    if not mirror.parent.is_dir():
        raise FileNotFoundError(
            f"no folder {mirror.parent} for the mirror {mirror.name}: mount the drive that it is on, or make the "
            "folder; mirror=None trains without"
        )


def mirror_run(run_dir: Path, mirror: Path) -> bool:
    """Copy a run's settings and checkpoints to a second folder, say on Google Drive, and tell whether that went well.

    All are copied aside before the first is renamed, so that a disk that fills up or goes away leaves the copies of
    before. Where it fails the reason is printed and nothing raised: the next checkpoint's copy makes up for it.
    Training waits for the copy, also for one that takes its time.
    """
    names = [name for name in (CONFIG, BEST, LAST) if (run_dir / name).is_file()]
    asides = [(mirror / name).with_name(f".{Path(name).name}.part") for name in names]
    try:
        check_place(mirror)
        (mirror / LAST).parent.mkdir(parents=True, exist_ok=True)
        for name, aside in zip(names, asides, strict=True):
            shutil.copyfile(run_dir / name, aside)
            if aside.stat().st_size != (run_dir / name).stat().st_size:
                raise OSError(f"{aside} was cut short")
        for name, aside in zip(names, asides, strict=True):
            os.replace(aside, mirror / name)
    except OSError as error:
        print(f"The mirror {mirror} could not be written ({error}): tried again after the next checkpoint.", flush=True)
        return False
    return True


def is_mirrored(run_dir: Path, mirror: Path) -> bool:
    """Whether the mirror's copy of the last checkpoint is as long and not older."""
    try:
        here, there = (run_dir / LAST).stat(), (mirror / LAST).stat()
    except OSError:
        return False
    return here.st_size == there.st_size and there.st_mtime >= here.st_mtime


def write_json(path: Path, content: Any) -> None:
    """Write JSON aside, then rename."""
    with atomic_path(path) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_torch(path: Path, content: Any) -> None:
    """torch.save aside, onto the disk itself, then rename; a disk that is full is an OSError that names the file."""
    with atomic_path(path) as aside:
        try:
            torch.save(content, aside)
        except RuntimeError as error:  # the zip writer's way to say that the disk is full
            raise OSError(str(error)) from error
        with aside.open("rb+") as file:
            os.fsync(file.fileno())  # else a machine that loses power may be left with the new name and no bytes


def write_history(path: Path, history: list[Row]) -> None:
    """Write a row an epoch; numbers in full, so that reading them back gives the same ones."""
    with atomic_path(path) as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def read_history(path: str | Path) -> list[Row]:
    """Read history.csv: a row an epoch, the epoch a whole number, all else floats."""
    with Path(path).open(newline="") as file:
        return [
            {key: int(value) if key == "epoch" else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def about_this_machine() -> dict[str, Any]:
    """Versions, device, time of day and an id of its own, to be kept with a run."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU"
    packages = {}
    for name in (
        "seglib",
        "torch",
        "torchvision",
        "segmentation-models-pytorch",
        "albumentations",
        "numpy",
        "accelerate",
        "ultralytics-opencv-headless",
    ):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:  # seglib itself, used from a checkout
            continue
    return {
        "id": uuid.uuid4().hex[:12],
        "device": device,
        "python": platform.python_version(),
        "versions": packages,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
