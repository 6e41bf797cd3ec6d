"""What several processes run at once: python -m torch.distributed.run --nproc_per_node 2 together.py RUN_DIR SETTINGS.

With "launcher": true in the settings, one process starts the others by accelerate's notebook_launcher. Started by
`join`, each is a child of the server in victims.py, which has imported everything, and no launcher watches over them.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import nn

from seglib import train as train_module
from seglib.losses import BCELoss, CrossEntropyLoss
from seglib.processes import Processes
from seglib.train import TrainConfig, fit, make_accelerator, measure
from tests.helpers.discs import Discs, Sketches, Unsure

SIZES = [(32, 32), (20, 40), (32, 32), (17, 33), (20, 40), (32, 32), (24, 24)]  # of the images to measure


class Plain(nn.Module):
    """A net without batch norm."""

    def __init__(self, classes: int = 1, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        norms = [nn.BatchNorm2d(8)] if norm else []
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), *norms, nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, images):
        return self.head(self.layers(images.float() / 255))


def nan_in_the_second(logits, mask):
    return BCELoss()(logits, mask) * (float("nan") if os.environ.get("RANK") == "1" else 1)


def slow(logits, mask):
    time.sleep(0.05)
    return BCELoss()(logits, mask)


def main(run_dir: str, settings: dict) -> None:
    """Train, then measure; leave in RUN_DIR.json what each process found."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
    kind, norm = settings.pop("kind", "bce"), settings.pop("norm", False)
    config = TrainConfig(**{"epochs": 2, "lr": 0.01, "trackers": (), "previews": 1} | settings)
    loss = {"ce": CrossEntropyLoss((1.0, 3.0)), "nan": nan_in_the_second, "slow": slow}.get(kind, BCELoss())
    model = Plain(2 if kind == "ce" else 1, norm)
    run = fit(model, Unsure(15), Discs(5), loss, config, run_dir)
    processes = Processes(make_accelerator())
    measured = measure(model, Discs(7, SIZES), loss, 2, processes=processes)
    found = {"matrix": measured.matrix.matrix.tolist(), "loss": measured.loss, "history": run.history}
    Path(f"{run_dir}.{processes.index}.json").write_text(json.dumps(found))


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start(run_dir: str, settings: dict) -> None:
    """`main`, by notebook_launcher where the settings say so."""
    if settings.pop("launcher", False):
        from accelerate import notebook_launcher

        notebook_launcher(main, (run_dir, settings), num_processes=2, use_port=free_port())
    else:
        main(run_dir, settings)


def join(log: Path, variables: dict[str, str], run_dir: str, settings: dict) -> None:
    """Be one of the processes: with the variables that a launcher sets, and workers that can be killed with it.

    Args:
        log: where it and the others print.
    """
    os.setpgrp()
    train_module.plots = Sketches
    multiprocessing.set_start_method("fork", force=True)  # for the workers: the server's is slow to begin
    os.environ.update(variables)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    start(run_dir, settings)


if __name__ == "__main__":
    start(sys.argv[1], json.loads(sys.argv[2]))
