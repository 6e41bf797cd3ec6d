"""Run a function in a forked process, which may be killed, and name the points at which a training is killed.

The child begins with everything that the tests have imported: no interpreter is started.
"""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch

from seglib.losses import BCEDiceLoss

FORK = multiprocessing.get_context("fork")
KILLED = -signal.SIGKILL


def exit_codes(*functions: Callable[[], object]) -> list[int]:
    """Call each function in a forked child of its own, all at once; return the exit codes.

    0 stands for a return, 1 for an exception, `KILLED` for SIGKILL.

    Raises:
        TimeoutError: a child hangs.
    """
    children = [FORK.Process(target=function) for function in functions]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
        if child.exitcode is None:
            child.kill()
            raise TimeoutError("a child process did not end within five minutes")
    return [child.exitcode for child in children]


def die() -> NoReturn:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL has been delivered")


def die_writing(name: str, moment: str, call: int = 1) -> None:
    """Make this process die at the `call`-th time that a file of this name is written.

    Args:
        moment: "half" of the new file is there; or it is complete and not renamed, "before"; or just renamed, "after".
    """
    rename = os.replace
    calls = 0

    def dying_rename(source: str | Path, target: str | Path) -> None:
        nonlocal calls
        calls += Path(target).name == name
        if Path(target).name != name or calls != call:
            return rename(source, target)
        if moment == "half":
            os.truncate(source, os.path.getsize(source) // 2)
        if moment == "after":
            rename(source, target)
        die()

    os.replace = dying_rename


def die_computing(part: str, call: int) -> None:
    """Make this process die at the `call`-th loss that it computes in "training" or in "validation"."""
    compute = BCEDiceLoss.__call__
    calls = 0

    def dying_loss(loss: BCEDiceLoss, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled() == (part == "training")
        if torch.is_grad_enabled() == (part == "training") and calls == call:
            die()
        return compute(loss, logits, mask)

    BCEDiceLoss.__call__ = dying_loss


def die_copying(name: str, call: int) -> None:
    """Make this process die at the `call`-th time that it copies to a file of this name, with half of it there."""
    copy = shutil.copyfile
    calls = 0

    def dying_copy(source: Path, target: Path) -> None:
        nonlocal calls
        calls += target.name == name
        copy(source, target)
        if target.name == name and calls == call:
            os.truncate(target, os.path.getsize(target) // 2)
            die()

    shutil.copyfile = dying_copy
