"""Where each epoch's numbers go besides history.csv: TensorBoard, and Weights & Biases when asked for."""

import os
from importlib import import_module
from typing import Any

import requests

from seglib.runs import Row, Run

KNOWN = ("tensorboard", "wandb")


class Trackers:
    """The trackers of a run. One that cannot be had, or fails, is said to be lost, once; training goes on without it.

    Args:
        names: any of "tensorboard", "wandb".
        run, settings: what they are told of it. A run that goes on, goes on there too.
    """

    def __init__(self, names: tuple[str, ...], run: Run, settings: dict[str, Any]) -> None:
        self._open = []
        for name in names:
            check_installed(name)
            opener = open_tensorboard if name == "tensorboard" else open_wandb
            tracker = self._tried(name, lambda opener=opener: opener(run, settings))
            if tracker is not None:
                self._open.append((name, *tracker))
        for row in run.history[-1:]:  # its process may have been killed before it could log it
            self.log(row)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *error: Any) -> None:
        for name, _, close in self._open:
            self._tried(name, close)

    def log(self, row: Row) -> None:
        """Log one epoch."""
        numbers = {key: value for key, value in row.items() if key != "epoch"}
        for tracker in list(self._open):
            name, log, _ = tracker
            if self._tried(name, lambda log=log: log(numbers, row["epoch"]) or True) is None:
                self._open.remove(tracker)

    @staticmethod
    def _tried(name: str, action: Any) -> Any:
        try:
            return action()
        except Exception as error:  # a full disk, no network, a server's refusal: none is worth a night's training
            print(f"{name} is lost ({type(error).__name__}: {error}). Training goes on; history.csv has every epoch.")
            return None


def check_installed(name: str) -> None:
    """Raise ModuleNotFoundError where the packages of a tracker are missing: that is no loss, but an oversight."""
    try:
        import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{name} is not installed: pip install {name}") from None


def open_tensorboard(run: Run, _: dict[str, Any]) -> tuple[Any, Any]:
    """How to log to TensorBoard, and how to close it."""
    from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

    board = SummaryWriter(str(run.dir / "tensorboard"), purge_step=len(run.history))

    def log(numbers: Row, epoch: int) -> None:
        for key, value in numbers.items():
            board.add_scalar(key, value, epoch)
        board.flush()

    return log, board.close


def open_wandb(run: Run, settings: dict[str, Any]) -> tuple[Any, Any]:
    """How to log to Weights & Biases, and how to close it. Where its server cannot be reached, in its offline mode."""
    import wandb

    mode = os.environ.get("WANDB_MODE") or ("online" if wandb_answers() else "offline")
    names = {"project": "seglib", "name": run.dir.name, "id": run.about["id"], "resume": "allow"}
    remote = wandb.init(**names, dir=str(run.dir), config=settings, mode=mode)
    if mode == "offline":
        print(f"Weights & Biases keeps this run in {run.dir / 'wandb'}; `wandb sync` uploads it later.")
    return (lambda numbers, epoch: remote.log(numbers, step=epoch)), remote.finish


def wandb_answers() -> bool:
    """Whether its server can be reached."""
    try:
        requests.head(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"), timeout=5)
    except requests.RequestException:
        return False
    return True
