"""A grid that is killed: the next call resumes, and each cell ends as if nothing had happened."""

from seglib import runs
from seglib.grid import grid, read_grid
from tests.helpers.children import KILLED, die_computing, exit_codes
from tests.helpers.discs import Discs, check_same_end, train


def train_cell(run_dir, lr):
    return train(run_dir, data=Discs(4), val=Discs(2), lr=lr, epochs=2, checkpoint_seconds=0)


def test_a_killed_grid_resumes_in_the_cell_where_it_was_killed(tmp_path):
    axes = {"lr": [1e-2, 1e-3]}

    def killed_in_the_second_cell():
        die_computing("training", call=4)  # a cell has two epochs of one step each
        grid(train_cell, axes, tmp_path / "grid")

    assert exit_codes(killed_in_the_second_cell) == [KILLED]
    killed = read_grid(tmp_path / "grid")
    assert [(cell.status, len(cell.history)) for cell in killed.cells] == [("finished", 2), ("not finished", 1)]
    first, second = (cell.run.dir for cell in killed.cells)
    written = (first / runs.LAST).stat().st_mtime_ns

    result = grid(train_cell, axes, tmp_path / "grid")
    assert [cell.status for cell in result.cells] == ["finished", "finished"]
    assert (first / runs.LAST).stat().st_mtime_ns == written
    train_cell(tmp_path / "alone", lr=1e-3)
    check_same_end(second, tmp_path / "alone")
