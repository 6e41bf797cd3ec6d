"""SIGKILL at named points of a run: the same call then ends as if nothing had happened, bit for bit.

By default a training is killed at one point of each kind; `pytest --kills=all` tries every point.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from seglib import runs
from seglib.transforms import augmentation
from tests.helpers.children import KILLED, die_computing, die_copying, die_writing, exit_codes
from tests.helpers.discs import ConvNet, RandomDiscs, check_same_end, train

EPOCHS = 4  # of three steps and two batches of validation each
PLANS = [
    {"optimizer": "adam", "weight_decay": 0.01, "warmup_steps": 7},
    {"optimizer": "adamw", "scheduler": "plateau", "plateau_patience": 0},
    {"optimizer": "sgd", "scheduler": "cosine", "max_grad_norm": 1.0, "accumulate": 2},
]


@dataclass(frozen=True)
class Point:
    """Where a run is killed.

    Args:
        kills: makes the first call die, the second, and so on; the next call is to end the run.
        checkpoint_seconds: of each call: 0 writes a checkpoint after every epoch, 3600 only after the last.
        folder_lost: the run has a mirror, and its folder is deleted after each kill.
    """

    kills: list[Callable[[], None]]
    checkpoint_seconds: tuple[float, ...] = (0, 0)
    folder_lost: bool = False


def writing(name: str, moment: str, call: int) -> Point:
    return Point([partial(die_writing, name, moment, call)])


def computing(part: str, call: int) -> Point:
    return Point([partial(die_computing, part, call)])


POINTS = {
    "config.json half written": writing("config.json", "half", 1),
    "first checkpoint half written": writing("checkpoint.pth", "half", 1),
    "first checkpoint written and not renamed": writing("checkpoint.pth", "before", 1),
    "second checkpoint renamed": writing("checkpoint.pth", "after", 2),
    "last checkpoint half written": writing("checkpoint.pth", "half", EPOCHS),
    "last checkpoint renamed": writing("checkpoint.pth", "after", EPOCHS),
    "first best model half written": writing("best_model.pth", "half", 1),
    "second best model renamed": writing("best_model.pth", "after", 2),
    "history half written": writing("history.csv", "half", 2),
    "last history renamed": writing("history.csv", "after", EPOCHS),
    "predicted mask half written": writing("disc0.png", "half", 2),
    "middle of the first epoch": computing("training", 2),
    "middle of the last epoch": computing("training", 3 * EPOCHS - 1),
    "validation of the first epoch": computing("validation", 2),
    "validation of the last epoch": computing("validation", 2 * EPOCHS - 1),
    "three epochs without a checkpoint": Point([partial(die_computing, "training", 3 * EPOCHS - 1)], (3600,)),
    "two epochs after the last checkpoint": Point(
        [partial(die_computing, "training", 4), partial(die_computing, "training", 8)], (0, 3600)
    ),
    "history put back to the checkpoint": Point(
        [
            partial(die_computing, "training", 4),
            partial(die_computing, "training", 8),
            partial(die_writing, "history.csv", "half", 1),
        ],
        (0, 3600, 0),
    ),
    "mirror half written and folder lost": Point([partial(die_copying, "slot_0.pth", 2)], folder_lost=True),
    "folder half restored from the mirror": Point(
        [partial(die_computing, "training", 8), partial(die_writing, "checkpoint.pth", "half", 1)], folder_lost=True
    ),
}
ONE_OF_EACH_KIND = [
    "second checkpoint renamed",
    "middle of the last epoch",
    "two epochs after the last checkpoint",
    "mirror half written and folder lost",
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the points by the option --kills."""
    names = list(POINTS) if metafunc.config.getoption("kills") == "all" else ONE_OF_EACH_KIND
    metafunc.parametrize("name", names)


def run_plan(run_dir: Path, plan: int, **settings) -> None:
    """Train with batch norm, dropout, augmentation and a data set that draws at random."""
    model = ConvNet(norm=True, stochastic=True)
    augment = augmentation(horizontal_flip=0.5, rotate=10, brightness=0.2)
    train(run_dir, model, RandomDiscs(10), augment=augment, **PLANS[plan] | {"epochs": EPOCHS} | settings)


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory) -> Callable[[int], Path]:
    """Returns the folder of an uninterrupted run of a plan."""
    folders: dict[int, Path] = {}

    def whole(plan: int) -> Path:
        if plan not in folders:
            folders[plan] = tmp_path_factory.mktemp("whole")
            run_plan(folders[plan], plan)
        return folders[plan]

    return whole


def test_a_killed_run_ends_the_same(tmp_path, monkeypatch, whole_runs, name):
    monkeypatch.setattr(runs, "MIRROR_SECONDS", 0.0)
    point = POINTS[name]
    plan = list(POINTS).index(name) % len(PLANS)
    settings = {"mirror": tmp_path / "mirror"} if point.folder_lost else {}

    def killed(kill: Callable[[], None], seconds: float) -> None:
        kill()
        run_plan(tmp_path / "run", plan, checkpoint_seconds=seconds, **settings)

    for kill, seconds in zip(point.kills, point.checkpoint_seconds, strict=False):
        assert exit_codes(partial(killed, kill, seconds)) == [KILLED]
        if point.folder_lost:
            shutil.rmtree(tmp_path / "run")
    run_plan(tmp_path / "run", plan, **settings)
    check_same_end(tmp_path / "run", whole_runs(plan))
    assert not list((tmp_path / "run").rglob("*.part*"))
