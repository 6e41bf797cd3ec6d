"""Two processes against one: the same optimisation, the same metrics, one history, and no process left waiting."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from seglib import runs
from seglib.losses import BCELoss
from seglib.train import measure
from tests.helpers.discs import check_same_end
from tests.helpers.together import SIZES, Discs, Plain, free_port, join
from tests.helpers.victims import fault, fork, log_of, wait_for

SCRIPT = Path(__file__).with_name("together.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def started(run_dir: Path, processes: int = 2, **settings) -> list[BaseProcess]:
    """Start together.py's training, by as many processes as a launcher would have started."""
    log_of(run_dir).unlink(missing_ok=True)
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    children = []
    for index in map(str, range(processes)):
        variables = together | {"RANK": index, "LOCAL_RANK": index} if processes > 1 else {}
        variables["OMP_NUM_THREADS"] = "1"
        children.append(fork(join, log_of(run_dir), variables, str(run_dir), settings))
    return children


def ended(children: list[BaseProcess], run_dir: Path, rightly: bool = True) -> str:
    """Wait for all of them: what they printed."""
    for child in children:
        child.join(120)
    printed = log_of(run_dir).read_text()
    assert [child.exitcode for child in children] == [0 if rightly else 1] * len(children), printed
    return printed


def launched(run_dir: Path, **settings) -> subprocess.Popen:
    """Start together.py by torchrun itself, which takes its time."""
    return subprocess.Popen(
        [*TORCHRUN, str(SCRIPT), str(run_dir), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def found_by(run_dir: Path, processes: int = 2) -> list[dict]:
    return [json.loads(Path(f"{run_dir}.{index}.json").read_text()) for index in range(processes)]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / runs.LAST, weights_only=True)["model"]


def test_two_processes_take_the_steps_of_one(tmp_path):
    """Of 8 and of 7 images, in which ever more pixels do not count, and each class weighs otherwise."""
    shared = {"kind": "ce", "optimizer": "sgd", "lr": 0.1, "max_grad_norm": 0.5}
    printed = ended(started(tmp_path / "two", batch_size=4, **shared), tmp_path / "two")
    ended(started(tmp_path / "one", processes=1, batch_size=8, **shared), tmp_path / "one")
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
    """A run of two processes under torchrun, with batch norm and steps of two batches each."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    process = launched(folder, **SETTINGS)
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 0, printed
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
        ended(started(tmp_path / "run", processes=1, launcher=True, **SETTINGS), tmp_path / "run")
        check_same_end(tmp_path / "run", pair)


def test_two_processes_killed_at_random_moments_end_the_same(tmp_path, pair):
    moments, killed = random.Random(0), 0
    for _ in range(2):
        children = started(tmp_path / "run", **SETTINGS | {"checkpoint_minutes": 0})
        wait_for(tmp_path / "run" / runs.LAST, children[0].is_alive)
        time.sleep(moments.uniform(0, 0.15))
        killed += children[0].is_alive()
        for child in children:
            if child.is_alive():
                os.killpg(child.pid, signal.SIGKILL)  # its workers, too
            child.join()
    assert killed
    with fault("SIGKILL of two processes", killed):
        ended(started(tmp_path / "run", **SETTINGS), tmp_path / "run")
        check_same_end(tmp_path / "run", pair)


def test_two_processes_that_are_stopped_save_the_same_step(tmp_path):
    settings, folder = {"kind": "slow", "batch_size": 2, "epochs": 5, "checkpoint_minutes": None}, tmp_path / "run"
    with fault("Ctrl-C of two processes", 3):
        for stopped in ((0, 1), (1,)):  # a terminal's Ctrl-C reaches both; `kill -INT` the one that it names
            children = started(folder, **settings)
            wait_for(folder / runs.LAST, children[0].is_alive)
            time.sleep(0.12)
            for index in stopped:
                os.kill(children[index].pid, signal.SIGINT)
            assert ended(children, folder, rightly=False).count("stopped after epoch") == 2
        process = launched(folder, **settings)  # which hands on what itself is asked
        wait_for(folder / runs.LAST, lambda: process.poll() is None)
        time.sleep(0.12)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=60)[0]
        assert "stopped after epoch" in printed, printed
        assert "Going on after epoch" in ended(started(folder, **settings), folder)
        ended(started(tmp_path / "whole", **settings), tmp_path / "whole")
        check_same_end(folder, tmp_path / "whole")


def test_an_error_in_one_process_ends_both(tmp_path):
    """By themselves: there is no launcher that would end the other."""
    with fault("error in one process"):
        printed = ended(started(tmp_path / "run", kind="nan", batch_size=2), tmp_path / "run", rightly=False)
        assert "FloatingPointError: the loss became nan in epoch 1, step 1" in printed


def test_an_error_of_the_main_process_alone_ends_both(tmp_path, pair):
    with fault("error in one process"):
        children = started(pair, **SETTINGS | {"lr": 0.5})
        assert ended(children, pair, rightly=False).count("config.lr: 0.01 then, 0.5 now") == 2


def test_another_number_of_processes_is_another_run(pair):
    with fault("other settings"):
        assert "processes: 2 then, 1 now" in ended(started(pair, processes=1, **SETTINGS), pair, rightly=False)
