"""The progress bar: in a terminal and in a notebook, but not in a log file."""

import io
import sys

import pytest

from seglib.progress import progress_bar


class Output(io.StringIO):
    """A stdout that is a terminal or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize("case", ["terminal", "log file", "second process", "quiet"])
def test_a_bar_is_shown_only_by_the_first_process_in_a_terminal(monkeypatch, case):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setenv("RANK", "1" if case == "second process" else "0")
    monkeypatch.setattr(sys, "stdout", Output(case != "log file"))
    assert list(progress_bar([1, 2, 3], "counting", quiet=case == "quiet")) == [1, 2, 3]
    with progress_bar(None, "reading", total=2000, done=500, unit="B", quiet=case == "quiet") as bar:
        bar.update(1500)
    text = sys.stdout.getvalue()
    if case == "terminal":
        assert "counting:   0%" in text and "0/3" in text and "reading:  25%" in text and "500/2.00k" in text
    else:
        assert text == ""
