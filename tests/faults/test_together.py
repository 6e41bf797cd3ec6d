"""Two processes against one: the same optimisation, the same metrics, one history, and no process left waiting."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from discs import check_same_end
from together import SIZES, Discs, Plain
from victims import fault

from seglib import runs
from seglib.losses import BCELoss
from seglib.train import measure

SCRIPT = Path(__file__).with_name("together.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def started(run_dir: Path, processes: int = 2, **settings) -> subprocess.Popen:
    """Start together.py by torchrun, or alone."""
    launcher = TORCHRUN if processes == 2 and not settings.get("launcher") else [sys.executable]
    return subprocess.Popen(
        [*launcher, str(SCRIPT), str(run_dir), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that all of them can be killed
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process: subprocess.Popen, rightly: bool = True) -> str:
    """Wait for it: what it printed."""
    printed = process.communicate(timeout=120)[0]
    assert (process.returncode == 0) is rightly, printed
    return printed


def found_by(run_dir: Path, processes: int = 2) -> list[dict]:
    return [json.loads(Path(f"{run_dir}.{index}.json").read_text()) for index in range(processes)]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / runs.LAST, weights_only=True)["model"]


def test_two_processes_take_the_steps_of_one(tmp_path):
    """Of 8 and of 7 images, in which ever more pixels do not count, and each class weighs otherwise."""
    shared = {"kind": "ce", "optimizer": "sgd", "lr": 0.1, "max_grad_norm": 0.5}
    printed = ended(started(tmp_path / "two", batch_size=4, **shared))
    ended(started(tmp_path / "one", processes=1, batch_size=8, **shared))
    with fault("two processes against one"):
        assert printed.count("epoch 1/2") == printed.count("epoch 2/2") == 1
        assert "8 images a step: 2 processes x 4 images" in printed
        for name, value in weights(tmp_path / "one").items():
            torch.testing.assert_close(weights(tmp_path / "two")[name], value, rtol=0, atol=2e-6)
        one, (first, second) = found_by(tmp_path / "one", 1)[0], found_by(tmp_path / "two")
        assert first == second and len(first["history"]) == 2
        for row, expected in zip(first["history"], one["history"], strict=True):
            assert row["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-6)
        assert runs.read_history(tmp_path / "two" / "history.csv") == first["history"]
        assert json.loads((tmp_path / "two" / runs.CONFIG).read_text())["settings"]["processes"] == 2


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run of two processes, with batch norm and steps of two batches each."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    ended(started(folder, **SETTINGS))
    return folder


SETTINGS = {
    "kind": "slow",
    "batch_size": 2,
    "accumulate": 2,
    "norm": True,
    "epochs": 3,
    "workers": 1,
    "checkpoint_minutes": None,
}


def test_with_the_same_weights_the_metrics_are_those_of_one_process_to_the_last_bit(pair):
    model = Plain(norm=True).to(memory_format=torch.channels_last)  # as it is trained: another layout rounds otherwise
    model.load_state_dict(weights(pair))
    first, second = found_by(pair)
    with fault("two processes against one"):
        for sizes, batch_size in ((SIZES, 2), (32, 2)):
            count = 7 if sizes is SIZES else 5
            measured = measure(model, Discs(count, sizes), BCELoss(), batch_size)
            if sizes is SIZES:
                assert first["matrix"] == second["matrix"] == measured.matrix.matrix.tolist()
                assert first["loss"] == second["loss"] == measured.loss
                pixels = sum(height * width for height, width in SIZES)
                assert measured.matrix.matrix.sum() == pixels  # none twice, none padded in
            else:
                row = first["history"][-1]
                assert (row["val_loss"], row["val_iou"]) == (measured.loss, measured.matrix.iou()[1].item())


def test_notebook_launcher_does_what_torchrun_does(tmp_path, pair):
    with fault("two processes against one"):
        ended(started(tmp_path / "run", launcher=True, **SETTINGS))
        check_same_end(tmp_path / "run", pair)


def test_two_processes_killed_at_random_moments_end_the_same(tmp_path, pair):
    moments, killed = random.Random(0), 0
    for _ in range(2):
        process = started(tmp_path / "run", **SETTINGS | {"checkpoint_minutes": 0})
        wait_for(tmp_path / "run" / runs.LAST, process)
        time.sleep(moments.uniform(0, 0.15))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed
    with fault("SIGKILL of two processes", killed):
        ended(started(tmp_path / "run", **SETTINGS))
        check_same_end(tmp_path / "run", pair)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait until a file is written anew: the processes have begun to train."""
    before = path.stat().st_mtime_ns if path.exists() else None
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if path.exists() and path.stat().st_mtime_ns != before:
            return
        time.sleep(0.01)


def test_two_processes_that_are_stopped_save_the_same_step(tmp_path):
    settings = {"kind": "slow", "batch_size": 2, "epochs": 5, "checkpoint_minutes": None}
    with fault("Ctrl-C of two processes", 2):
        for stop in (os.killpg, os.kill):  # a terminal's Ctrl-C reaches all of them; `kill -INT` torchrun alone
            process = started(tmp_path / "run", **settings)
            wait_for(tmp_path / "run" / runs.LAST, process)
            time.sleep(0.12)
            stop(process.pid, signal.SIGINT)
            printed = process.communicate(timeout=60)[0]
            assert "stopped after epoch" in printed, printed
        assert "Going on after epoch" in ended(started(tmp_path / "run", **settings))
        ended(started(tmp_path / "whole", **settings))
        check_same_end(tmp_path / "run", tmp_path / "whole")


def test_an_error_in_one_process_ends_both(tmp_path):
    with fault("error in one process"):
        printed = ended(started(tmp_path / "run", kind="nan", batch_size=2), rightly=False)
        assert "FloatingPointError: the loss became nan in epoch 1, step 1" in printed


def test_an_error_of_the_main_process_alone_ends_both(tmp_path, pair):
    with fault("error in one process"):
        process = started(pair, **SETTINGS | {"lr": 0.5})
        assert "config.lr: 0.01 then, 0.5 now" in ended(process, rightly=False)


def test_another_number_of_processes_is_another_run(pair):
    with fault("other settings"):
        process = started(pair, processes=1, **SETTINGS)
        assert "processes: 2 then, 1 now" in ended(process, rightly=False)
