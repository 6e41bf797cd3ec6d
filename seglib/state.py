"""All that a run consists of while it trains: what a checkpoint has to hold, and how it comes back."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from seglib import runs
from seglib.config import TrainConfig, is_finished, make_optimizer, make_schedule, make_warmup
from seglib.files import short_path
from seglib.loading import set_generators
from seglib.losses import weighted_mean
from seglib.processes import Interrupts, Processes
from seglib.runs import Row, Run

WHAT_TO_TRY = (
    "look at the files; if they are sound, try a tenth of the learning rate, max_grad_norm=1 or some warmup_steps. "
    "The last checkpoint from before is kept."
)


@dataclass
class Tally:
    """What the steps of one epoch came to in this process.

    Attributes:
        steps: how many are done. done: (loss, weight) of each batch that was found finite.
        unchecked: (loss, weight, where) of those not yet looked at, their losses still on the device.
        begun: when it began, were it without interruption.
    """

    steps: int = 0
    done: list[tuple[float, float]] = field(default_factory=list)
    unchecked: list[tuple[Tensor, float, str]] = field(default_factory=list)
    begun: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def add(self, value: Tensor, weight: float, files: list[str], rate: float) -> None:
        """Add a batch: its loss, how much that weighs, its files, and the learning rate it met."""
        where = f"step {self.steps + 1}, on {', '.join(files)}, at learning rate {rate:g}"
        self.unchecked.append((value, weight, where))

    def check(self, epoch: int) -> None:
        """Raise FloatingPointError, naming epoch, step and files, where a loss is NaN or infinite."""
        if not self.unchecked:
            return
        values = torch.stack([value for value, _, _ in self.unchecked]).tolist()
        for value, (_, weight, where) in zip(values, self.unchecked, strict=True):
            if not np.isfinite(value):
                raise FloatingPointError(f"the loss became {value} in epoch {epoch}, {where}: {WHAT_TO_TRY}")
            self.done.append((value, weight))
        self.unchecked.clear()


class Training:
    """All that a run consists of while it trains, and that a checkpoint has to hold.

    Args:
        told: what the best model's file says beside its weights: "classes", their names; "image_size", the
            (height, width) that a photograph is brought to for it, or None.
    """

    def __init__(
        self,
        run: Run,
        settings: dict[str, Any],
        config: TrainConfig,
        model: nn.Module,
        told: dict[str, Any],
        accelerator: Accelerator,
        processes: Processes,
    ) -> None:
        self.run, self.settings, self.config, self.told = run, settings, config, told
        self.model, self.accelerator, self.processes = model, accelerator, processes
        self.optimizer = make_optimizer(model, config)
        self.warmup, self.schedule = make_warmup(self.optimizer, config), make_schedule(self.optimizer, config)
        self.tally = Tally()
        self.generators: Any = None  # their states in the middle of an epoch that is gone on with
        self.saved = time.monotonic()

    @property
    def rate(self) -> float:
        """The learning rate as it stands."""
        return self.optimizer.param_groups[0]["lr"]

    def check(self) -> None:
        """Look at the losses since the last look."""
        self.tally.check(len(self.run.history) + 1)

    def agree(self, weight: float, asked: bool) -> tuple[float, bool, bool]:
        """What all processes have to know of a step: its whole weight, whether to stop after it, whether to save it."""
        minutes = self.config.checkpoint_minutes
        due = self.processes.main and minutes is not None and time.monotonic() - self.saved >= 60 * minutes
        mine = torch.tensor([weight, asked, due], dtype=torch.float64)
        total, stop, due = self.processes.sum(mine).tolist()
        return total or 1.0, stop > 0, due > 0

    def begin_epoch(self, epoch: int) -> None:
        """Bring the random generators to where this epoch, or its next step, needs them; start the clock."""
        if self.tally.steps:
            set_states(self.generators[self.processes.index])
        else:
            set_generators(self.config.seed, epoch, self.processes.index)
            self.tally.begun = time.perf_counter()

    def mean_loss(self) -> float:
        """The mean loss of the epoch so far, over all processes."""
        return weighted_mean(sum(self.processes.gather(self.tally.done), []))

    def end_epoch(self, row: Row) -> None:
        """Note a finished epoch, and be ready for the next."""
        self.run.history.append(row)
        if self.config.scheduler == "plateau":
            self.schedule.step(row["val_loss"])
        elif self.schedule is not None:
            self.schedule.step()
        self.run.finished = is_finished(self.run.history, self.config)
        self.tally = Tally()

    def save(self) -> None:
        """Save all that the next step depends on, unless it is spoilt."""
        self.check()
        if not all(tensor.isfinite().all() for tensor in self.model.state_dict().values()):
            epoch = len(self.run.history) + (self.tally.steps > 0)
            raise FloatingPointError(f"a weight became NaN or infinite in epoch {epoch}: {WHAT_TO_TRY}")
        tally = self.tally
        self.processes.copy_from_main(self.model.buffers())
        done, generators = zip(*self.processes.gather((tally.done, get_states())), strict=True)
        state = {
            "settings": self.settings,
            "about": self.run.about,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "warmup": self.warmup.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "history": self.run.history,
            "epoch": {"steps": tally.steps, "seconds": tally.seconds, "done": done, "generators": generators},
        }
        self.processes.from_main(lambda: self._write(state))
        self.saved = time.monotonic()

    def _write(self, state: dict[str, Any]) -> None:
        """In this order a kill between any two leaves a folder from which the same call ends the same.

        The best model comes after the checkpoint, from which it can be made up for (`restore` does), and never the
        other way round: on a GPU an epoch that is done again is another one, and its best model would be in no history.
        """
        runs.save_torch(self.run.dir / runs.LAST, state)
        if not self.tally.steps:
            self.keep_if_best()
            runs.write_history(self.run.dir / "history.csv", self.run.history)
        if self.config.mirror is not None:
            runs.mirror_run(self.run.dir, self.config.mirror)

    def keep_if_best(self) -> None:
        """Write best_model.pth if the epoch that has just ended is the best so far."""
        row = self.run.history[-1]
        if self.run.best is row:
            told = {"settings": self.settings["model"], "epoch": row["epoch"], "val_iou": row["val_iou"]}
            runs.save_torch(self.run.dir / runs.BEST, {"model": self.model.state_dict(), **self.told, **told})

    def restore(self, state: dict[str, Any]) -> None:
        """Bring everything to where a checkpoint left it."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.warmup.load_state_dict(state["warmup"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        epoch = state["epoch"]
        begun = time.perf_counter() - epoch["seconds"] if epoch["steps"] else time.perf_counter()
        self.tally = Tally(epoch["steps"], epoch["done"][self.processes.index], begun=begun)
        self.generators = epoch["generators"]
        if self.processes.main and self.run.history and not self._best_is_there():
            self._make_up_for_best()

    def _best_is_there(self) -> bool:
        try:
            kept = torch.load(self.run.dir / runs.BEST, map_location="cpu", weights_only=True)
            return kept["epoch"] == self.run.best["epoch"]
        except Exception:  # missing or damaged, in any of many ways
            return False

    def _make_up_for_best(self) -> None:
        """Write what a process that was killed had no time to write; or say that it is lost."""
        best = self.run.best["epoch"]
        if best == len(self.run.history) and not self.tally.steps:
            self.keep_if_best()
        else:
            print(f"{self.run.dir / runs.BEST} should hold epoch {best} and does not: put a copy back.")

    def say_where_it_begins(self, steps: int) -> None:
        """Say what a step takes, where that is not one batch; and from where a run goes on."""
        config, count = self.config, self.processes.count
        if not self.processes.main:
            return
        if count * config.accumulate > 1:
            images = count * config.accumulate * config.batch_size
            many = [f"{count} processes"] * (count > 1) + [f"{config.accumulate} batches"] * (config.accumulate > 1)
            print(f"{images} images a step: {' x '.join(many)} x {config.batch_size} images.")
        if self.run.history or self.tally.steps:
            inside = f" and {self.tally.steps} of {steps} steps" if self.tally.steps else ""
            print(
                f"Going on after epoch {len(self.run.history)}{inside} of {config.epochs} in {short_path(self.run.dir)}."
            )


def get_states() -> dict[str, Any]:
    """Where the random generators of Python, numpy and torch stand, as what a checkpoint may hold."""
    numpy = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    states = {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state()}
    return states | {name: getattr(torch, name).get_rng_state() for name in gpus()}


def set_states(states: dict[str, Any]) -> None:
    """Bring the random generators to where `get_states` found them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    for name in gpus():
        if name in states:
            getattr(torch, name).set_rng_state(states[name])


def gpus() -> list[str]:
    """The kinds of GPU there are that draw random numbers of their own: "cuda", "mps" or none."""
    return ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()


@contextmanager
def saving_when_stopped(training: Training, interrupts: Interrupts) -> Iterator[None]:
    """On Ctrl-C or a notebook's stop button save the last whole step, then let KeyboardInterrupt go on its way."""
    try:
        yield
    except KeyboardInterrupt:
        if interrupts.cut:  # raised by something else than the signal: half a step is nothing to save
            raise
        run, steps = training.run, training.tally.steps
        if steps:  # the end of an epoch is saved already
            with interrupts.held(then_stop=False):  # who presses once more would lose it all
                training.save()
        if not steps and not run.history:
            raise KeyboardInterrupt("stopped before the first step was done: there is nothing to go on from") from None
        done = f"epoch {len(run.history)} and {steps} steps"
        raise KeyboardInterrupt(
            f"stopped after {done}, which is saved in {short_path(run.dir)}: the same call goes on from there"
        ) from None
