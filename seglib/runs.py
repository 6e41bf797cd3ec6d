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
import re
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seglib.files import atomic_path, locked, short_path, write_json
from seglib.models import load_model

__all__ = [
    "BEST",
    "LAST",
    "Mirror",
    "OtherSettings",
    "Row",
    "Run",
    "best_epoch",
    "branch",
    "check_settings",
    "describe_machine",
    "format_epoch",
    "lock_run",
    "open_run",
    "overfits_after",
    "read_checkpoint",
    "read_history",
    "read_run",
    "save_checkpoint",
    "save_torch",
    "score",
    "stored_precision",
    "write_history",
]

Row = dict[str, float]
CONFIG = "config.json"
HISTORY = "history.csv"
LAST = "last/checkpoint.pth"
BEST = "best_model.pth"
LOCK = "last/.lock"
PARTIAL = re.compile(r"\..+\.\d+\.part(\..+)?")  # the names of `atomic_path`
SELECTION_COLUMNS = ("val_iou", "val_ap")  # the best epoch is chosen by whichever the history has
LOCK_SECONDS = 15  # the workers of a killed process hold its lock until they notice
MIRROR_SECONDS = 600.0  # Drive keeps old versions for a while, and they count towards its quota
PACKAGES = (
    "seglib",
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "albumentations",
    "numpy",
    "accelerate",
    "ultralytics-opencv-headless",
)


@dataclass
class Run:
    """A training run, as its folder holds it.

    Attributes:
        dir: the run folder.
        history: one row per epoch; the keys are the columns of history.csv.
        finished: whether training has ended, by its last epoch or by early stopping.
        about: an id, and the versions, device and time of the first call.
    """

    dir: Path
    history: list[Row] = field(default_factory=list, repr=False)
    finished: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Row:
        """The row of the best epoch: the one with the highest `val_iou` (or `val_ap`); the earliest of equals."""
        column = next((name for name in SELECTION_COLUMNS if name in self.history[0]), SELECTION_COLUMNS[0])
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


def overfits_after(history: Sequence[Row], later: int = 3, rise: float = 0.05) -> int | None:
    """The epoch after which a run over-fits; None when it does not, or when too few epochs follow to tell.

    The rule: take the epoch with the lowest validation loss. Over-fitting sets in after it when

    - at least `later` epochs follow,
    - their mean validation loss is higher by at least the fraction `rise`,
    - it is not falling again (their second half is no lower than their first), and
    - their mean training loss is lower than in that epoch.
    """
    losses = [row["val_loss"] for row in history]
    lowest = losses.index(min(losses)) if losses else 0
    after = history[lowest + 1 :]
    if len(after) < max(later, 2):
        return None
    half = len(after) // 2
    increase = _mean(after, "val_loss") - losses[lowest]
    rose = increase > 0 and increase >= rise * abs(losses[lowest])
    falls_again = _mean(after[half:], "val_loss") < _mean(after[:half], "val_loss")
    train_loss_fell = _mean(after, "train_loss") < history[lowest]["train_loss"]
    return lowest + 1 if rose and not falls_again and train_loss_fell else None


def _mean(rows: Sequence[Row], column: str) -> float:
    return sum(row[column] for row in rows) / len(rows)


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
    remaining = (epochs - len(run.history)) * run.seconds / len(run.history)
    left = "" if run.finished else f", {_format_duration(remaining)} left"
    best = "  best so far" if run.best is row else ""
    epoch = f"{row['epoch']:>{len(str(epochs))}}/{epochs}"
    return f"epoch {epoch}  {numbers}  lr {row['lr']:.1e}  {row['seconds']:.1f} s{left}{best}"


def _format_duration(seconds: float) -> str:
    """40 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


# ------------------------------------------------------------------------------------------------ opening a folder


def lock_run(run_dir: Path) -> AbstractContextManager[None]:
    """Lock a run folder for the block: two trainings in one folder would overwrite each other's checkpoints.

    Raises:
        RuntimeError: another process trains there.
    """
    message = (
        f"another process trains in {run_dir}: wait for it, stop it (perhaps a notebook in another tab), or choose "
        "another run_dir"
    )
    return locked(run_dir / LOCK, message, timeout=LOCK_SECONDS)


def open_run(
    run_dir: str | Path, settings: dict[str, Any], mirror: "Mirror | None" = None
) -> tuple[Run, dict[str, Any] | None]:
    """Open a run folder, to begin a run or to resume the one that it holds.

    history.csv and best_model.pth are put back to the last checkpoint. When the mirror has a later checkpoint, or the
    folder has none that can be read, the mirror's is restored first.

    Args:
        settings: everything that decides the outcome, as plain JSON.

    Returns:
        The run, and its last checkpoint; None when there is none.

    Raises:
        OtherSettings (a ValueError): the folder or its mirror holds a run with other settings; lists the differences.
        ValueError: the checkpoint is damaged and the mirror has no copy.
        OSError: the folder cannot be written to, or the drive of the mirror is not there.
    """
    run_dir = Path(run_dir)
    _remove_partial_files(run_dir)
    state = _read_last(run_dir, settings, mirror)
    if state is not None:
        check_settings(state["settings"], settings, run_dir)
        _put_back(run_dir, state)
    else:  # of an attempt that ended before its first checkpoint
        (run_dir / HISTORY).unlink(missing_ok=True)
        (run_dir / BEST).unlink(missing_ok=True)
    about = state["about"] if state else describe_machine()
    config = {"settings": settings, "about": about}
    if _read_config(run_dir) != config:
        write_json(run_dir / CONFIG, config)
    return Run(run_dir, state["history"] if state else [], about=about), state


def _read_last(run_dir: Path, settings: dict[str, Any], mirror: "Mirror | None") -> dict[str, Any] | None:
    """The last checkpoint of the folder or of its mirror, whichever is later."""
    state = None
    damage = None
    if (run_dir / LAST).is_file():
        try:
            state = read_checkpoint(run_dir / LAST)
        except ValueError as error:
            damage = error
    epochs = -1 if state is None else len(state["history"])
    if mirror is not None and mirror.restore(run_dir, settings, epochs):
        return read_checkpoint(run_dir / LAST)
    if damage is not None:
        raise ValueError(
            f"{damage}. Put a good copy in its place, or delete {run_dir} to train again from the start."
        ) from damage
    return state


def _put_back(run_dir: Path, state: dict[str, Any]) -> None:
    """Write history.csv and best_model.pth as they were at a checkpoint."""
    try:
        best = torch.load(run_dir / BEST, map_location="cpu", weights_only=True)
        saved_best = (best["epoch"], best.get("val_iou"))
    except Exception:  # missing or damaged, in any of many ways
        saved_best = None
    if saved_best != (state["best"]["epoch"], state["best"].get("val_iou")):
        save_torch(run_dir / BEST, state["best"])
    try:
        saved_history = read_history(run_dir / HISTORY)
    except (OSError, ValueError):
        saved_history = []
    if saved_history != state["history"]:
        write_history(run_dir / HISTORY, state["history"])


def _remove_partial_files(run_dir: Path) -> None:
    """Delete the temporary files of a process that was killed while it wrote."""
    for folder in (run_dir, (run_dir / LAST).parent, *run_dir.glob("predictions/*")):
        for path in folder.glob(".*.part*"):
            if PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _read_config(folder: Path) -> dict[str, Any] | None:
    """The contents of config.json; None when it cannot be read."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return {"settings": config["settings"], "about": config["about"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stored_precision(run_dir: Path, mirror: "Mirror | None") -> str | None:
    """The precision in which the run of a folder, or of its mirror, began; None when there is no checkpoint."""
    settings: dict[str, Any] = {}
    if mirror is not None and mirror.slots():
        settings = mirror.slots()[0].settings
    if (run_dir / LAST).is_file():
        with suppress(ValueError):  # damaged, as `open_run` will say
            settings = (_read_config(run_dir) or read_checkpoint(run_dir / LAST))["settings"]
    return settings.get("precision")


class OtherSettings(ValueError):
    """The run folder holds a run with other settings."""


def check_settings(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise OtherSettings, listing the differences, unless a run may resume under these settings.

    A run may resume with more epochs, unless its learning rate depends on their number.
    """
    lines = _differences(before, now)
    if not lines:
        return
    reason = ""
    more_epochs = now.get("config", {}).get("epochs", 0) > before.get("config", {}).get("epochs", 0)
    if more_epochs and len(lines) == 1 and lines[0].startswith("config.epochs:"):
        if now["config"]["scheduler"] != "cosine":
            return
        reason = (
            "\nA cosine schedule lowers the learning rate to 0 at the last epoch: with more epochs, the epochs already "
            "done would have had another learning rate."
        )
    listed = "\n".join(f"  {line}" for line in lines)
    raise OtherSettings(
        f"{folder} holds a run with other settings:\n{listed}{reason}\n"
        "Choose another run_dir (or mirror) for the new settings, or delete that folder to train again from the start."
    )


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """The differences between two settings, one line each, by dotted name."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [f"{name}: {before} then, {now} now"]
    lines = []
    for key in dict.fromkeys([*before, *now]):
        lines += _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    return lines


# ------------------------------------------------------------------------------------------------ checkpoints


def save_checkpoint(run: Run, state: dict[str, Any], mirror: "Mirror | None") -> None:
    """Write last/checkpoint.pth, then best_model.pth from it, then the mirror's copy if one is due.

    Args:
        state: "settings"; "best", the contents of best_model.pth; and whatever else is needed to resume. The run's
            history and description are added.
    """
    save_torch(run.dir / LAST, {**state, "about": run.about, "history": run.history})
    save_torch(run.dir / BEST, state["best"])
    if mirror is not None and mirror.is_due(run.finished):
        mirror.write(run.dir / LAST, state["settings"], len(run.history))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a run.

    Raises:
        ValueError: the file is truncated, empty, or not a checkpoint of a run.
    """
    content = io.BytesIO(path.read_bytes())  # a disk that cannot be read is not a damaged checkpoint
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
        missing = {"settings", "about", "history", "best"} - set(state)
    except MemoryError:
        raise
    except Exception as error:  # any of zip's, pickle's and torch's errors
        raise ValueError(f"{path} is damaged or not a checkpoint ({type(error).__name__})") from error
    if missing:
        raise ValueError(f"{path} is not a checkpoint of a run: it lacks {', '.join(sorted(missing))}")
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
    source = Path(run_dir) / LAST
    target = Path(new_dir) / LAST
    if target.is_file():
        return
    if not source.is_file():
        raise FileNotFoundError(f"no checkpoint in {run_dir}: train that run first")
    state = read_checkpoint(source)
    state["about"] = describe_machine()
    save_torch(target, state)


# ------------------------------------------------------------------------------------------------ mirror


@dataclass(frozen=True)
class _Slot:
    """One copy of a checkpoint in a mirror."""

    path: Path
    epochs: int
    sha256: str
    settings: dict[str, Any]

    def read(self) -> bytes | None:
        """The checkpoint; None when the drive cannot be read, or the checksum differs: then the slot becomes free."""
        try:
            content = self.path.read_bytes() if self.path.is_file() else b""
            if hashlib.sha256(content).hexdigest() == self.sha256:
                return content
            self.path.with_suffix(".json").write_text("", encoding="utf-8")
        except OSError:
            pass
        print(f"{self.path} is damaged or cannot be read.", flush=True)
        return None


class Mirror:
    """Copies of a run's checkpoint in a second folder, for example on Google Drive.

    There are two slots, written in place and in turn, each with its checksum, so that one of them is always whole.
    (Drive moves a file that is deleted or replaced to its bin, where it still counts.) A copy is made at the first
    checkpoint, then at most every ten minutes, and at the end. When a copy fails, the reason is printed and training
    continues. The parent of the folder is never created: it may be a drive that is not mounted.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._written = -math.inf

    def slots(self) -> list[_Slot]:
        """The copies whose description is whole, latest first."""
        slots = []
        for path in (self.folder / "slot_0.pth", self.folder / "slot_1.pth"):
            try:
                slots.append(_Slot(path, **json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):  # missing, or cut off while it was written
                continue
        return sorted(slots, key=lambda slot: slot.epochs, reverse=True)

    def is_due(self, finished: bool) -> bool:
        """Whether to make a copy at this checkpoint."""
        return finished or time.monotonic() - self._written >= MIRROR_SECONDS

    def has(self, epochs: int) -> bool:
        """Whether there is a copy of a checkpoint after this many epochs."""
        return any(slot.epochs >= epochs and slot.path.is_file() for slot in self.slots())

    def write(self, checkpoint: Path, settings: dict[str, Any], epochs: int) -> None:
        """Copy a checkpoint over the older slot."""
        kept = self.slots()[:1]
        name = "slot_1.pth" if kept and kept[0].path.name == "slot_0.pth" else "slot_0.pth"
        description = (self.folder / name).with_suffix(".json")
        try:
            self._check_parent()
            self.folder.mkdir(exist_ok=True)
            description.write_text("", encoding="utf-8")  # the slot is invalid until it is whole
            shutil.copyfile(checkpoint, self.folder / name)
            if _sha256(self.folder / name) != (sha256 := _sha256(checkpoint)):
                raise OSError(f"{name} differs from what was written")
            content = {"epochs": epochs, "sha256": sha256, "settings": settings}
            description.write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            print(f"The mirror {self.folder} could not be written ({error}); training continues.", flush=True)
            return
        self._written = time.monotonic()

    def restore(self, run_dir: Path, settings: dict[str, Any], epochs: int) -> bool:
        """Copy the latest whole slot to `run_dir` when it is further on than `epochs`; return whether it was.

        Raises:
            OtherSettings: the mirror holds a run with other settings.
            FileNotFoundError: the run folder has no checkpoint (epochs < 0), and the drive of the mirror is not there.
            ValueError: the run folder has no checkpoint, and no copy in the mirror can be used.
        """
        if epochs < 0:
            self._check_parent()
        for slot in self.slots():
            check_settings(slot.settings, settings, self.folder)
            content = slot.read() if slot.epochs > epochs else None
            if content is not None:
                with atomic_path(run_dir / LAST) as temporary:
                    temporary.write_bytes(content)
                print(f"Restored the checkpoint of {short_path(run_dir)} from {short_path(self.folder)}.")
                return True
        if epochs < 0 and any(self.folder.glob("slot_*.pth")):
            raise ValueError(
                f"{run_dir} has no checkpoint and no copy in the mirror {self.folder} can be used. Try again when the "
                "drive can be read, or delete the mirror to train from the start."
            )
        return False

    def _check_parent(self) -> None:
        if not self.folder.parent.is_dir():
            raise FileNotFoundError(
                f"the mirror {self.folder} has no parent folder: mount the drive or create "
                "the folder; mirror=None trains without a mirror"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_machine() -> dict[str, Any]:
    """Versions, device and time of day, and an id, to be kept with a run."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # seglib itself, when it is used from a checkout
            continue
    return {
        "id": uuid.uuid4().hex[:12],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU",
        "python": platform.python_version(),
        "versions": versions,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
