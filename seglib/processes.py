"""The processes that train together, one or many: what they tell each other, and how they are asked to stop."""

import atexit
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, distributed

Result = TypeVar("Result")
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # says a launcher


class Processes:
    """All processes of one training. What they exchange goes from CPU to CPU, so that no GPU is waited for.

    Attributes:
        count: how many there are. index: which of them this is. main: whether it is the one that writes and prints.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.count = 1 if accelerator is None else accelerator.num_processes
        self.index = 0 if accelerator is None else accelerator.process_index
        self.main = self.index == 0
        self._group = None
        if self.count > 1:
            self._group = distributed.new_group(backend="gloo")
            atexit.register(part)

    def sum(self, numbers: Tensor) -> Tensor:
        """Add up each process's numbers, a tensor on the CPU."""
        if self.count > 1:
            distributed.all_reduce(numbers, group=self._group)
        return numbers

    def gather(self, mine: Any) -> list:
        """What each process has, in order of index."""
        everyone = [mine] * self.count
        if self.count > 1:
            distributed.all_gather_object(everyone, mine, group=self._group)
        return everyone

    def from_main(self, action: Callable[[], Result]) -> Result:
        """Let the main process act alone: its result, or its error, becomes everyone's. Nobody is left waiting."""
        if self.count == 1:
            return action()
        outcome = [None, None]
        if self.main:
            try:
                outcome[0] = action()
            except Exception as error:
                outcome[1] = error if can_be_sent(error) else RuntimeError(f"{type(error).__name__}: {error}")
        distributed.broadcast_object_list(outcome, src=0, group=self._group)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def copy_from_main(self, tensors: Iterator[Tensor]) -> None:
        """Overwrite tensors, on whatever device, with those of the main process."""
        if self.count > 1:
            for tensor in tensors:
                on_cpu = tensor.cpu()
                distributed.broadcast(on_cpu, src=0, group=self._group)
                tensor.copy_(on_cpu)


def part() -> None:
    """End the connections between processes while Python is still whole: left to its end, now and then one crashes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def apart() -> Iterator[int]:
    """Let processes that were started together (torchrun, notebook_launcher) each train by itself, on its own GPU.

    Yields:
        Which of them this is, counted from 0; 0 where there is one only.

    Raises:
        RuntimeError: they are connected already.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    if distributed.is_initialized():
        raise RuntimeError("these processes train together already: make no Accelerator, and train nothing, before")
    kept = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
    if torch.cuda.is_available():
        torch.cuda.set_device(int(kept.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    try:
        yield int(kept.get("RANK", 0))
    finally:
        os.environ.update(kept)
        AcceleratorState._reset_state(reset_partial_state=True)  # else accelerate would go on to see one process


def can_be_sent(error: Exception) -> bool:
    """Whether an error can be handed to other processes."""
    try:
        pickle.dumps(error)
    except Exception:
        return False
    return True


class Interrupts:
    """Ctrl-C, or a notebook's stop button: never in the middle of a step.

    `with interrupts.held():` keeps a KeyboardInterrupt back until the block ends. Of several processes none may stop by
    itself, or the others would wait for it: there a stop is only noted, in `asked`, for them to agree upon.

    Attributes:
        asked: whether a stop was. cut: whether an error, of whatever kind, ended such a block in its middle.
    """

    def __init__(self, processes: Processes) -> None:
        self.asked = self.cut = False
        self._alone, self._holding, self._before = processes.count == 1, False, None

    def __enter__(self) -> "Interrupts":
        # Only the main thread is interrupted; and who ignores interrupts (a job in the background) shall go on so.
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) not in (None, signal.SIG_IGN):
            self._before = signal.signal(signal.SIGINT, self._noted)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _noted(self, *_: Any) -> None:
        self.asked = True
        if self._alone and not self._holding:
            raise KeyboardInterrupt

    @contextmanager
    def held(self, then_stop: bool = True) -> Iterator[None]:
        """Finish what the block does before stopping, or before going on if it is itself the end."""
        self._holding = True
        try:
            yield
        except BaseException:
            self.cut = True
            raise
        finally:
            self._holding = False
        if self._alone and self.asked and then_stop:
            raise KeyboardInterrupt


def ignore_interrupts(*_: Any) -> None:
    """Leave Ctrl-C to the main process: for workers, who are asked to end by it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
