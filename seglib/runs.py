"""The run folder: settings, history, checkpoints. Every file in it is written aside and renamed.

config.json       settings, versions, device, data
history.csv       a row an epoch
best_model.pth    the best epoch's weights; rebuilds its model alone (seglib.models.load_model)
last/             what is needed to go on after the last epoch
loss.png miou.png the curves
predictions/      masks of the first validation images after each epoch
tensorboard/
"""

import csv
import json
import platform
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seglib.files import written_aside
from seglib.models import load_model

Row = dict[str, float]


@dataclass
class Run:
    """A training run, as it stands in its folder.

    Attributes:
        dir: the run folder. history: a row an epoch, keys as the columns of history.csv.
        finished: whether training ended, by its last epoch or by early stopping.
    """

    dir: Path
    history: list[Row] = field(default_factory=list)
    finished: bool = False

    @property
    def best(self) -> Row:
        """The row of the best epoch: the highest `val_iou`, the earliest of equals."""
        return self.history[best_epoch(self.history) - 1]

    @property
    def seconds(self) -> float:
        """How long the epochs took together."""
        return sum(row["seconds"] for row in self.history)

    def model(self) -> nn.Module:
        """The model of the best epoch, in eval mode, on the CPU."""
        return load_model(self.dir / "best_model.pth")

    def column(self, name: str) -> list[float]:
        """One column of the history, first epoch to last."""
        return [row[name] for row in self.history]


def best_epoch(history: list[Row]) -> int:
    """The epoch, counted from 1, with the highest `val_iou`; NaN (nothing to find, nothing found) counts as lowest."""
    scores = [row["val_iou"] if row["val_iou"] == row["val_iou"] else -1.0 for row in history]
    return scores.index(max(scores)) + 1


def open_run(run_dir: str | Path, settings: dict[str, Any], about: dict[str, Any]) -> Run:
    """Open a run folder to train in, or to go on in.

    Args:
        settings: what decides the outcome; a run goes on only under the very same.
        about: what is good to know: versions, device.

    Raises:
        ValueError: the folder holds a run with other settings; names what differs.
        OSError: the folder cannot be written to.
    """
    run_dir = Path(run_dir)
    config = run_dir / "config.json"
    settings = json.loads(json.dumps(settings))
    if config.is_file():
        differing = differences(json.loads(config.read_text())["settings"], settings)
        if differing:
            listed = "\n".join(f"  {line}" for line in differing)
            raise ValueError(
                f"{run_dir} holds a run with other settings:\n{listed}\n"
                "Choose another run_dir for the new ones, or delete that folder to train it anew."
            )
    else:
        write_json(config, {"settings": settings, "about": about})
    return Run(run_dir)


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


def write_json(path: Path, content: Any) -> None:
    """Write JSON aside, then rename."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_torch(path: Path, content: Any) -> None:
    """torch.save aside, then rename; a disk that is full is an OSError that names the file."""
    with written_aside(path) as aside:
        try:
            torch.save(content, aside)
        except RuntimeError as error:  # the zip writer's way to say that the disk is full
            raise OSError(str(error)) from error


def write_history(path: Path, history: list[Row]) -> None:
    """Write a row an epoch; numbers in full, so that reading them back gives the same ones."""
    with written_aside(path) as aside, aside.open("w", newline="") as file:
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


class Trackers:
    """Where each epoch's numbers go besides history.csv: TensorBoard, and Weights & Biases when asked for.

    Args:
        names: any of "tensorboard", "wandb". epoch: how many epochs there are already.
    """

    def __init__(self, names: tuple[str, ...], run_dir: Path, settings: dict[str, Any], epoch: int) -> None:
        unknown = set(names) - {"tensorboard", "wandb"}
        if unknown:
            raise ValueError(f"no tracker {sorted(unknown)}; there are tensorboard and wandb")
        self.board = self.wandb = None
        if "tensorboard" in names:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

            self.board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=epoch + 1)
        if "wandb" in names:
            try:
                import wandb
            except ModuleNotFoundError:
                raise ModuleNotFoundError("Weights & Biases is not installed: pip install wandb") from None
            about = json.loads((run_dir / "config.json").read_text())["about"]  # a run that goes on, goes on there too
            self.wandb = wandb.init(
                project="seglib", name=run_dir.name, id=about["id"], resume="allow", dir=str(run_dir), config=settings
            )

    def log(self, row: Row) -> None:
        """Log one epoch."""
        numbers = {key: value for key, value in row.items() if key != "epoch"}
        if self.board is not None:
            for key, value in numbers.items():
                self.board.add_scalar(key, value, row["epoch"])
        if self.wandb is not None:
            self.wandb.log(numbers, step=row["epoch"])

    def close(self) -> None:
        """Write out what is still in memory."""
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()
