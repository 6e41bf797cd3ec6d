"""Trainings to be killed: what a child process runs, and how its end is compared with that of another.

The children are forked from a server that has imported everything, so that a killed one can be replaced at once.
"""

import io
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seglib import train as train_module
from seglib.grid import Grid, grid
from seglib.losses import BCEDiceLoss
from seglib.runs import Run
from seglib.train import TrainConfig, fit
from seglib.transforms import augmentation
from tests.helpers.discs import Discs, RandomDiscs, Sketches

TRIED, SURVIVED = Counter(), Counter()  # faults, by kind; printed at the end of the tests
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["victims", "together", "torch._dynamo"])  # the last, torch imports with an optimizer


class Net(nn.Module):
    """Batch norm, whose statistics have to be kept, and dropout, whose draws have to go on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)]
        self.layers = nn.Sequential(*first, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def forward(self, images):
        drawn = random.random() + np.random.rand() if self.training else 0  # what a model of one's own may do
        return self.layers(images.float() / 255 + 0.1 * drawn)


def train(run_dir: Path, count: int = 14, **settings) -> Run:
    """A training whose every step is saved."""
    chosen = {"epochs": 3, "batch_size": 3, "lr": 1e-2, "trackers": (), "previews": 1, "checkpoint_minutes": 0}
    augment = augmentation(horizontal_flip=0.5, rotate=10, brightness=0.2)
    config = TrainConfig(**chosen | settings)
    return fit(Net(), RandomDiscs(count), Discs(5), BCEDiceLoss(), config, run_dir, augment)


def search(folder: Path, axes: dict) -> Grid:
    """A grid of `train`; what has no batch size to train with fails."""
    found = grid(train, axes, folder)
    print([cell.status for cell in found.cells])
    return found


def be_quick() -> None:
    """Do without what takes long in a child process, as conftest.py has it for the tests themselves."""
    torch.set_num_threads(1)
    train_module.plots = Sketches


def train_in_child(run_dir: Path, settings: dict, fault: tuple | None, log: Path) -> None:
    """`train`, or where there are axes `search`, in a child process, to which something happens first.

    Args:
        fault: a function and its arguments. log: for what is printed, the error included.
    """
    be_quick()
    multiprocessing.set_start_method("fork", force=True)  # for the workers: the server's is slow to begin
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
    printed = io.StringIO()
    with log.open("w") as file, redirect_stdout(printed), redirect_stderr(printed):
        try:
            if fault is not None:
                fault[0](*fault[1:])
            (search if "axes" in settings else train)(run_dir, **settings)
        except BaseException:
            traceback.print_exc()
            sys.exit(1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            file.write(printed.getvalue())


def log_of(run_dir: Path) -> Path:
    """What a child printed, its error included."""
    return run_dir.with_name(f"{run_dir.name}.log")


def die_at(moment: str, call: int) -> None:
    """Let this process be killed at the `call`-th file it writes: half-way through, before or after its renaming."""
    save, rename, calls = torch.save, os.replace, Counter()

    def now(name: str) -> bool:
        calls[name] += 1
        return name == moment and calls[name] == call

    def dying_save(content, path):
        save(content, path)
        if now("half written"):
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_rename(source, target):
        if now("not yet renamed"):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)
        if now("just renamed"):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save, os.replace = dying_save, dying_rename


def fork(function: Callable, *arguments: Any) -> BaseProcess:
    """Call a function in a child process, which begins with everything imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # from which the server imports
        forkserver.ensure_running()
    child = SERVER.Process(target=function, args=arguments)
    child.start()
    return child


def start(run_dir: Path, settings: dict, fault: tuple | None = None, log: Path | None = None) -> BaseProcess:
    """Start `train` in a child process; see `train_in_child`."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    return fork(train_in_child, run_dir, settings, fault, log or log_of(run_dir))


def finish(run_dir: Path, settings: dict) -> None:
    """Let `train` run to its end in a child process."""
    child = start(run_dir, settings)
    child.join(120)
    assert child.exitcode == 0, log_of(run_dir).read_text()


def fail(run_dir: Path, settings: dict, fault: tuple | None = None) -> str:
    """Let `train` end with an error in a child process: what it printed."""
    log_of(run_dir).unlink(missing_ok=True)
    child = start(run_dir, settings, fault)
    child.join(120)
    assert child.exitcode == 1, log_of(run_dir).read_text()
    return log_of(run_dir).read_text()


def wait_for(path: Path, alive: Callable[[], bool]) -> None:
    """Wait until a file is written anew: training has begun, or gone on."""
    before = path.stat().st_mtime_ns if path.exists() else None
    until = time.monotonic() + 60
    while alive() and time.monotonic() < until:
        if path.exists() and path.stat().st_mtime_ns != before:
            return
        time.sleep(0.005)


@contextmanager
def fault(kind: str, count: int = 1) -> Iterator[None]:
    """A fault is tried in the block, and survived if what the block asserts holds."""
    TRIED[kind] += count
    yield
    SURVIVED[kind] += count
