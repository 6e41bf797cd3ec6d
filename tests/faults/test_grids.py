"""Grids that are killed, and grids that several processes share: each cell ends as if it had been trained alone."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from seglib import runs
from seglib.grid import cell_name, check_axes, read_grid
from tests.conftest import ROOT
from tests.helpers.discs import check_same_end
from tests.helpers.victims import fault, finish, start

AXES = {"lr": [1e-2, 1e-3], "batch_size": [0, 3]}  # a batch size of 0 is refused: two of the four cells fail
ENDS = ["failed", "finished"] * 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a grid that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "grid"
    finish(folder, {"axes": AXES})
    return folder


def check_same_grid(folder: Path, expected: Path) -> None:
    """The same cells, each with the same end; times may differ."""
    tables = [[{**row, "seconds": 0} for row in read_grid(one).rows()] for one in (folder, expected)]
    assert tables[0] == tables[1]
    for cell in check_axes(AXES):
        if cell["batch_size"]:
            check_same_end(folder / cell_name(cell), expected / cell_name(cell))


def test_a_cell_that_fails_is_noted_and_the_others_are_trained(whole):
    result = read_grid(whole)
    assert [cell.status for cell in result.cells] == ENDS
    assert all("batch_size" in cell.reason and cell.reason.startswith("ValueError") for cell in result.unfinished)
    assert "TrainConfig" in (result.cells[0].run.dir / "error.txt").read_text()


def test_killed_at_random_moments_a_grid_goes_on_where_it_stopped(tmp_path, whole):
    moments, killed = random.Random(0), 0
    for _ in range(12):
        child = start(tmp_path / "grid", {"axes": AXES})
        child.join(moments.uniform(0.05, 0.3))
        if child.exitcode is not None:
            break
        child.kill()
        child.join()
        killed += 1
    assert killed > 1
    with fault("SIGKILL of a grid", killed):
        finish(tmp_path / "grid", {"axes": AXES})
        check_same_grid(tmp_path / "grid", whole)


def test_a_grid_that_is_killed_in_its_second_cell_trains_the_first_no_more(tmp_path, whole):
    axes, folder = {"lr": [1e-2, 1e-3], "batch_size": [3]}, tmp_path / "grid"
    first, second = (folder / cell_name(cell) for cell in check_axes(axes))
    child = start(folder, {"axes": axes})
    while not (second / runs.LAST).is_file():
        child.join(0.02)
        assert child.exitcode is None
    child.kill()
    child.join()
    assert [cell.status for cell in read_grid(folder).cells] == ["finished", "not finished"]
    written = (first / runs.LAST).stat().st_mtime_ns
    with fault("SIGKILL of a grid"):
        finish(folder, {"axes": axes})
        assert (first / runs.LAST).stat().st_mtime_ns == written
        for cell in (first, second):
            check_same_end(cell, whole / cell.name)


def check_trained_once(folder: Path, whole: Path, said: list[str]) -> None:
    """The same grid as ever, each cell by one process, as the settings have it."""
    check_same_grid(folder, whole)
    for cell in read_grid(folder).cells:
        if cell.history:
            assert json.loads((cell.run.dir / runs.CONFIG).read_text())["settings"]["processes"] == 1
    assert sum(text.count("epoch 3/3") for text in said) == 2


def test_two_processes_share_a_grid_under_torchrun(tmp_path, whole):
    script, folder = tmp_path / "search.py", tmp_path / "grid"
    script.write_text(
        f"import sys, json\nsys.path[:0] = {[str(ROOT / 'tests'), str(ROOT / 'tests/faults')]!r}\n"
        "import torch, victims\ntorch.set_num_threads(1)\n"
        f"victims.search(sys.argv[1], {AXES!r})\n"
        "victims.train(victims.Path(sys.argv[1] + '-together'), batch_size=2, epochs=2)\n"  # afterwards as ever
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(script), str(folder)], env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(str(ENDS)) == 2
    logs = [path.read_text() for path in folder.rglob("log.txt")]
    assert logs
    check_trained_once(folder, whole, [*logs, done.stdout])
    together = json.loads((tmp_path / "grid-together" / runs.CONFIG).read_text())
    assert together["settings"]["processes"] == 2 and done.stdout.count("epoch 2/2") == 1


def test_two_programs_that_know_nothing_of_each_other_share_a_grid(tmp_path, whole):
    logs = [tmp_path / "one.log", tmp_path / "other.log"]
    programs = [start(tmp_path / "grid", {"axes": AXES}, log=log) for log in logs]
    for program in programs:
        program.join(90)
    said = [log.read_text() for log in logs]
    assert [program.exitcode for program in programs] == [0, 0], "\n".join(said)
    assert [text.count(str(ENDS)) for text in said] == [1, 1]
    check_trained_once(tmp_path / "grid", whole, said)
