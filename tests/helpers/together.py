"""Two processes that train together on a CPU."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from torch import distributed

from tests.helpers.children import exit_codes


def run_together(function: Callable[[], object], folder: Path, processes: int = 2) -> list[dict]:
    """Call a function in several processes, which find each other by a file, and return what it returned in each.

    Args:
        function: returns what JSON can hold.
        folder: an empty folder for the files that the processes exchange.
    """
    ranks = range(processes)
    codes = exit_codes(*[partial(_call, function, folder, rank, processes) for rank in ranks])
    assert codes == [0] * processes
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in ranks]


def _call(function: Callable[[], object], folder: Path, rank: int, processes: int) -> None:
    """Be one of the processes, as if a launcher had started it."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ |= {name: str(number) for name, number in numbers.items()} | {"OMP_NUM_THREADS": "1"}
    AcceleratorState._reset_state(True)  # of the process that this one was forked from
    store = distributed.FileStore(str(folder / "store"), processes)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    torch.set_num_threads(1)
    (folder / f"{rank}.json").write_text(json.dumps(function()))
    distributed.destroy_process_group()
