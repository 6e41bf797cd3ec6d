"""SIGKILL at any moment: the same call ends as if nothing had happened."""

import random

import pytest

from seglib import runs
from tests.helpers.discs import check_same_end
from tests.helpers.victims import die_at, fault, finish, start, wait_for

CASES = [  # every optimizer with every scheduler, and each of them both without workers and with some
    {"optimizer": optimizer, "scheduler": scheduler, "workers": 2 * ((row + column) % 2)}
    for row, optimizer in enumerate(("adam", "adamw", "sgd"))
    for column, scheduler in enumerate((None, "plateau", "cosine"))
]
MORE = {"plateau_patience": 0, "weight_decay": 0.01, "warmup_steps": 7, "max_grad_norm": 1.0, "epochs": 6}
KILLS = 4  # a case


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of these settings."""
    done = {}

    def run(settings):
        settings = {name: value for name, value in settings.items() if name != "workers"}
        name = "-".join(map(str, settings.values()))
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name) / "run"
            finish(done[name], settings)
        return done[name]

    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_killed_at_random_moments_it_ends_the_same(tmp_path, whole, case):
    settings = case | MORE
    expected = whole(settings)
    moments = random.Random(str(case))
    killed = 0
    while killed < KILLS:
        child = start(tmp_path / "run", settings)
        if killed % 2:  # while it trains; else perhaps before it has begun to, or while it reads where it was
            wait_for(tmp_path / "run" / runs.LAST, child.is_alive)
        child.join(moments.uniform(0, 0.2))  # seconds; a whole run takes longer
        if child.exitcode is not None:
            assert child.exitcode == 0
            break
        child.kill()
        child.join()
        killed += 1
    assert killed > 1
    with fault("SIGKILL at a random moment", killed):
        finish(tmp_path / "run", settings)
        check_same_end(tmp_path / "run", expected)


@pytest.mark.parametrize("moment", ["half written", "not yet renamed", "just renamed"])
def test_killed_while_it_writes_it_ends_the_same(tmp_path, whole, moment):
    settings = {"optimizer": "adam", "scheduler": "plateau"} | MORE | {"count": 6, "epochs": 2}
    expected = whole(settings)
    for call in range(1, 30):
        folder = tmp_path / f"run{call}"
        child = start(folder, settings, (die_at, moment, call))
        child.join(60)
        if child.exitcode == 0:  # it does not write so many files
            break
        with fault("SIGKILL while writing"):
            finish(folder, settings)
            check_same_end(folder, expected)
            assert not list(folder.rglob("*.part*"))
    assert call > (5 if moment == "half written" else 12)
