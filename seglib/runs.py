"""The run folder: history, checkpoints, resuming, and a mirror of the checkpoints. Every file is written atomically.

config.json            settings, versions, device, data
history.csv            one row per epoch
best_model.pth         the weights of the best epoch; `seglib.models.load_model` rebuilds the model from this file alone
last/checkpoint.pth    everything needed to resume from the end of an epoch, the best weights included
loss.png, miou.png     curves
predictions/           masks of the first validation images after each epoch
tensorboard/
"""

import csv
import hashlib
import io
import json
import math
import os
import platform
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from seglib.config import is_out_of_memory
from seglib.files import atomic_path, locked, short_path, write_json
from seglib.models import load_model

__all__ = [
    "Mirror",
    "OtherSettings",
    "Run",
    "best_epoch",
    "branch",
    "format_epoch",
    "lock_run",
    "open_run",
    "overfits_after",
    "package_versions",
    "read_checkpoint",
    "read_history",
    "read_run",
    "save_checkpoint",
    "save_torch",
    "score",
    "write_history",
]

Row = dict[str, float]
CONFIG = "config.json"
HISTORY = "history.csv"
LAST = "last/checkpoint.pth"
BEST = "best_model.pth"
LOCK = "last/.lock"
LOCK_SECONDS = 15  # the workers of a killed process hold its lock until they notice
MIRROR_SECONDS = 600.0  # Drive keeps old versions for a while, and they count towards its quota
PACKAGES = ("torch", "torchvision", "accelerate", "albumentations", "numpy", "ultralytics-opencv-headless")


@dataclass
class Run:
    """A training run, as its folder holds it.

    Attributes:
        dir: the run folder.
        history: one row per epoch; the keys are the columns of history.csv.
        finished: whether training has ended, by its last epoch or by early stopping.
        about: an id, and the versions, device and time of the first call.
        settings: everything that decides the outcome, as plain JSON; empty if the run was only read.
    """

    dir: Path
    history: list[Row] = field(default_factory=list, repr=False)
    finished: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def best(self) -> Row:
        """The row of the best epoch: the one with the highest `val_iou` (or `val_ap`); the earliest of equals."""
        column = "val_iou" if "val_iou" in self.history[0] else "val_ap"
        return self.history[best_epoch(self.history, column) - 1]

    @property
    def seconds(self) -> float:
        """The duration of all epochs together."""
        return sum(row["seconds"] for row in self.history)

    def model(self) -> nn.Module:
        """The model of the best epoch, in eval mode, on the CPU."""
        return load_model(self.dir / BEST)

    def column(self, name: str) -> list[float]:
        """One column of the history, one value per epoch."""
        return [row[name] for row in self.history]

    def save_curves(self, metrics: Sequence[str], file_name: str = "miou.png") -> None:
        """Draw loss.png, and a figure of these columns of the history, unless they are newer than the checkpoint."""
        from seglib import plots

        figure = self.dir / file_name
        if figure.is_file() and figure.stat().st_mtime >= (self.dir / LAST).stat().st_mtime:
            return
        plots.save(plots.loss_curves(self.history), self.dir / "loss.png")
        plots.save(plots.metric_curves(self.history, list(metrics)), figure)


# ------------------------------------------------------------------------------------------------ history


def score(row: Row, column: str) -> float:
    """The value of a column, negated for a loss, so that higher is better; NaN becomes minus infinity."""
    value = row[column]
    if math.isnan(value):
        return -math.inf
    return -value if "loss" in column else value


def best_epoch(history: Sequence[Row], column: str = "val_iou") -> int:
    """The best epoch by a column, counted from 1; the earliest of equals."""
    scores = [score(row, column) for row in history]
    return scores.index(max(scores)) + 1


def overfits_after(history: Sequence[Row]) -> int | None:
    """The epoch after which a run over-fits; None when it does not, or when too few epochs follow to tell.

    The rule: take the epoch with the lowest validation loss. Over-fitting sets in after it when

    - at least three epochs follow,
    - their mean validation loss is higher by more than 5 %,
    - it is not falling again (their second half is no lower than their first), and
    - their mean training loss is lower than in that epoch.
    """
    val = [row["val_loss"] for row in history]
    train = [row["train_loss"] for row in history]
    lowest = val.index(min(val)) if val else 0
    after = val[lowest + 1 :]
    if len(after) < 3:
        return None
    half = len(after) // 2
    rose = fmean(after) > 1.05 * val[lowest]
    falls_again = fmean(after[half:]) < fmean(after[:half])
    train_loss_fell = fmean(train[lowest + 1 :]) < train[lowest]
    return lowest + 1 if rose and not falls_again and train_loss_fell else None


def write_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write one row per epoch, with all digits, so that reading returns the same numbers."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def read_history(path: str | Path) -> list[Row]:
    """Read history.csv: one row per epoch; `epoch` is an int, every other column a float."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [
            {key: int(value) if key == "epoch" else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def read_run(run_dir: str | Path) -> Run:
    """Read a run folder's history. Whether the run is finished is not known from it."""
    table = Path(run_dir) / HISTORY
    return Run(Path(run_dir), read_history(table) if table.is_file() else [])


def format_epoch(run: Run, epochs: int, scores: Mapping[str, str]) -> str:
    """One line about the last epoch.

    Args:
        epochs: planned number of epochs.
        scores: columns to show besides the losses, by label: {"val IoU": "val_iou"}.
    """
    row = run.history[-1]
    columns = {"train loss": "train_loss", "val loss": "val_loss", **scores}
    numbers = "  ".join(f"{label} {row[column]:.4f}" for label, column in columns.items())
    remaining = timedelta(seconds=round((epochs - len(run.history)) * run.seconds / len(run.history)))
    left = "" if run.finished else f", {remaining} left"
    best = "  best so far" if run.best is row else ""
    epoch = f"{row['epoch']:>{len(str(epochs))}}/{epochs}"
    return f"epoch {epoch}  {numbers}  lr {row['lr']:.1e}  {row['seconds']:.1f} s{left}{best}"


# ------------------------------------------------------------------------------------------------ opening a folder


def lock_run(run_dir: Path) -> AbstractContextManager[None]:
    """Lock a run folder for the block; RuntimeError if another process trains there."""
    message = f"another process trains in {run_dir}: wait for it, stop it, or choose another run_dir"
    return locked(run_dir / LOCK, message, timeout=LOCK_SECONDS)


def open_run(
    run_dir: str | Path, settings: dict[str, Any], mirror: "Mirror | None" = None
) -> tuple[Run, dict[str, Any] | None]:
    """Open a run folder, to begin a run or to resume the one that it holds.

    history.csv and best_model.pth are put back to the last checkpoint. When the mirror has a later checkpoint, or the
    folder has none that can be read, the mirror's is restored first.

    Args:
        settings: everything that decides the outcome, as plain JSON. A run keeps the "precision" in which it began.

    Returns:
        The run, and its last checkpoint; None when there is none.

    Raises:
        OtherSettings (a ValueError): the folder or its mirror holds a run with other settings; lists the differences.
        ValueError: the checkpoint is damaged and the mirror has no copy.
        OSError: the folder cannot be written to, or the drive of the mirror is not there.
    """
    run_dir = Path(run_dir)
    for folder in ("", "last/", "predictions/*/"):
        for path in run_dir.glob(f"{folder}.*.[0-9]*.part*"):  # of a process that was killed while it wrote
            path.unlink()
    state = _last_checkpoint(run_dir, settings, mirror)
    if state is None:
        run = Run(run_dir, about=_describe_machine(), settings=settings)
        for name in (HISTORY, BEST):  # of an attempt that ended before its first checkpoint
            (run_dir / name).unlink(missing_ok=True)
    else:
        settings = {**settings, "precision": state["settings"].get("precision")}
        run = Run(run_dir, state["history"], about=state["about"], settings=settings)
        write_history(run_dir / HISTORY, run.history)
        save_torch(run_dir / BEST, state["best"])
        if mirror is not None:
            mirror.write(run)
    write_json(run_dir / CONFIG, {"settings": run.settings, "about": run.about})
    return run, state


def _last_checkpoint(run_dir: Path, settings: dict[str, Any], mirror: "Mirror | None") -> dict[str, Any] | None:
    """The last checkpoint of the folder or of its mirror, whichever is later."""
    state = None
    damage = None
    try:
        state = read_checkpoint(run_dir / LAST)
    except FileNotFoundError:
        pass
    except ValueError as error:
        damage = error
    if state is not None:  # before a mirror could take its place
        _check_settings(state["settings"], settings, run_dir)
    epochs = -1 if state is None else len(state["history"])
    if mirror is not None and mirror.read(run_dir, settings, epochs):
        return read_checkpoint(run_dir / LAST)
    if damage is not None:
        raise damage
    return state


class OtherSettings(ValueError):
    """The run folder holds a run with other settings."""


def _check_settings(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise OtherSettings, listing the differences, unless a run may resume under these settings."""
    before = {**before, "precision": now.get("precision")}
    old, new = before.get("config", {}), now.get("config", {})
    if new.get("epochs", 0) > old.get("epochs", 0) and new["scheduler"] != "cosine":
        before["config"] = {**old, "epochs": new["epochs"]}
    lines = _differences(before, now)
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        hint = " (More epochs are accepted, except with a cosine schedule, whose learning rates depend on them.)"
        raise OtherSettings(
            f"{short_path(folder)} holds a run with other settings:\n{listed}\n"
            "Choose another run_dir (or mirror) for the new settings, or delete that folder to train again from the "
            f"start.{hint if 'config' in now else ''}"
        )


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """The differences between two settings, one line each, by dotted name."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [f"{name}: {before} then, {now} now"]
    lines = []
    for key in dict.fromkeys([*before, *now]):
        lines += _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    return lines


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that decide the outcome of a training."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _describe_machine() -> dict[str, Any]:
    """Versions, device and time of day, and an id, to be kept with a run."""
    return {
        "id": uuid.uuid4().hex[:12],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU",
        "python": platform.python_version(),
        "versions": package_versions(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


# ------------------------------------------------------------------------------------------------ checkpoints


def save_checkpoint(run: Run, state: dict[str, Any], mirror: "Mirror | None") -> None:
    """Write last/checkpoint.pth, then best_model.pth from it, then the mirror's copy if one is due.

    Args:
        state: "best", the contents of best_model.pth; and whatever else is needed to resume. The run's settings,
            history and description are added.
    """
    save_torch(run.dir / LAST, {**state, "settings": run.settings, "about": run.about, "history": run.history})
    save_torch(run.dir / BEST, state["best"])
    if mirror is not None:
        mirror.write(run)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a run.

    Raises:
        ValueError: the file is truncated, empty, or not a checkpoint of a run.
    """
    content = io.BytesIO(path.read_bytes())  # a disk that cannot be read is not a damaged checkpoint
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
        state["history"]  # best_model.pth has none
    except Exception as error:  # any of zip's, pickle's and torch's errors
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{path} is damaged or not a checkpoint ({type(error).__name__}). Put a good copy in its place, or delete "
            f"{path.parents[1]} to train again from the start."
        ) from error
    return state


def save_torch(path: Path, content: Any) -> None:
    """Save with torch.save, atomically; a full disk raises an OSError that names the file."""
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # how torch's zip writer reports a full disk
            raise OSError(str(error)) from error
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # otherwise a power failure may leave the new name without the bytes


def branch(run_dir: str | Path, new_dir: str | Path) -> None:
    """Copy the checkpoint of a run to a new folder, so that `fit` continues it there, for example for more epochs.

    Does nothing when the new folder has a checkpoint already. The old run stays as it is.
    """
    target = Path(new_dir) / LAST
    if not target.is_file():
        save_torch(target, {**read_checkpoint(Path(run_dir) / LAST), "about": _describe_machine()})


class Mirror:
    """Copies of a run's checkpoint in a second folder, for example on Google Drive.

    There are two slots, written in place and in turn, each with its checksum, so that one of them is always whole.
    (Drive moves a file that is deleted or replaced to its bin, where it still counts.) A copy is made at the first
    checkpoint, then at most every ten minutes, and at the end. When a copy fails, the reason is printed and training
    continues. The parent of the folder is never created: it may be a drive that is not mounted.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self._written = -math.inf

    def write(self, run: Run) -> None:
        """Copy the checkpoint of a run over the older slot, if that is due."""
        slots = self._slots()
        is_copied = bool(slots) and slots[0][1]["epochs"] >= len(run.history)
        if is_copied or not run.finished and time.monotonic() - self._written < MIRROR_SECONDS:
            return
        path = self.folder / ("slot_1.pth" if slots and slots[0][0].stem == "slot_0" else "slot_0.pth")
        description = {"epochs": len(run.history), "sha256": _sha256(run.dir / LAST), "settings": run.settings}
        try:
            self.folder.mkdir(exist_ok=True)
            path.with_suffix(".json").write_text("")  # the slot is invalid until it is whole
            shutil.copyfile(run.dir / LAST, path)
            path.with_suffix(".json").write_text(json.dumps(description))
            self._written = time.monotonic()
        except OSError as error:
            print(f"The mirror {self.folder} could not be written ({error}); training continues.", flush=True)

    def read(self, run_dir: Path, settings: dict[str, Any], epochs: int) -> bool:
        """Copy the latest whole slot to `run_dir` if it has more than `epochs` epochs; return whether it has.

        Args:
            epochs: of the checkpoint in the run folder; -1: there is none, and one in the mirror must be readable.
        """
        if epochs < 0 and not self.folder.parent.is_dir():
            raise FileNotFoundError(
                f"no folder {self.folder.parent} for the mirror: mount the drive, create it, or use mirror=None"
            )
        for path, slot in self._slots():
            _check_settings(slot["settings"], settings, self.folder)
            if slot["epochs"] <= epochs:
                break
            try:
                content = path.read_bytes()
            except OSError as error:
                print(f"{path} cannot be read ({error}).", flush=True)
                continue
            if hashlib.sha256(content).hexdigest() == slot["sha256"]:
                with atomic_path(run_dir / LAST) as temporary:
                    temporary.write_bytes(content)
                print(f"Restored the checkpoint of {short_path(run_dir)} from {short_path(self.folder)}.")
                return True
            print(f"{path} is damaged.", flush=True)
            path.with_suffix(".json").unlink()  # so that it is overwritten first
        if epochs < 0 and any(self.folder.glob("slot_*.pth")):
            raise ValueError(f"no copy in the mirror {self.folder} can be used: delete it to train from the start")
        return False

    def _slots(self) -> list[tuple[Path, dict[str, Any]]]:
        """The path and the description of each whole copy, latest first."""
        slots = []
        for path in (self.folder / "slot_0.pth", self.folder / "slot_1.pth"):
            with suppress(OSError, ValueError):  # missing, or cut off while it was written
                path.stat()  # Drive may have the description without the checkpoint
                slots.append((path, json.loads(path.with_suffix(".json").read_text())))
        return sorted(slots, key=lambda slot: slot[1]["epochs"], reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
