"""Grids that are killed, and grids that several processes share: each cell ends as if it had been trained alone."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from discs import check_same_end
from victims import fault, finish, start

from seglib import runs
from seglib.grid import cell_name, check_axes, read_grid

AXES = {"lr": [1e-2, 1e-3], "batch_size": [0, 3]}  # a batch size of 0 is refused: two of the four cells fail


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
    assert [cell.status for cell in result.cells] == ["failed", "finished"] * 2
    assert all("batch_size" in cell.reason and cell.reason.startswith("ValueError") for cell in result.unfinished)
    assert "TrainConfig" in (result.cells[0].run.dir / "error.txt").read_text()


def test_killed_at_random_moments_a_grid_goes_on_where_it_stopped(tmp_path, whole):
    moments, killed = random.Random(0), 0
    for _ in range(12):
        child = start(tmp_path / "grid", {"axes": AXES})
        child.join(moments.uniform(0.05, 0.8))
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


@pytest.mark.parametrize("launched", [True, False], ids=["by torchrun", "one by one"])
def test_two_processes_share_a_grid(tmp_path, whole, launched):
    """Together under torchrun, and as two programs that know nothing of each other."""
    script = tmp_path / "search.py"
    script.write_text(
        f"import sys, json\nsys.path[:0] = {[str(ROOT / 'tests'), str(ROOT / 'tests/faults')]!r}\n"
        "import torch, victims\ntorch.set_num_threads(1)\n"
        f"result = victims.search(sys.argv[1], {AXES!r})\n"
        "assert [cell.status for cell in result.cells] == ['failed', 'finished'] * 2\n"
        f"if {launched}: victims.train(victims.Path(sys.argv[1] + '-together'), batch_size=2)\n"  # afterwards as ever
    )
    folder = tmp_path / "grid"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = (command if launched else [sys.executable]) + [str(script), str(folder)]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    programs = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(1 if launched else 2)
    ]
    said = [program.communicate(timeout=90)[0] for program in programs]
    assert [program.returncode for program in programs] == [0] * len(programs), "\n".join(said)
    check_same_grid(folder, whole)
    for cell in read_grid(folder).cells:
        if cell.history:  # trained once, and by one process: as the settings have it
            state = json.loads((cell.run.dir / "config.json").read_text())
            assert state["settings"]["processes"] == 1
    logs = [path.read_text() for path in folder.rglob("log.txt")]
    if launched:
        together = json.loads((tmp_path / "grid-together" / "config.json").read_text())
        assert logs and together["settings"]["processes"] == 2
    assert sum(text.count("epoch 3/3") for text in logs + said) == 2 + launched
