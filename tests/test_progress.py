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


class NotebookOutput(Output):
    """The stdout of a notebook's kernel."""

    __module__ = "ipykernel.iostream"


@pytest.mark.parametrize("case", ["terminal", "notebook", "log file", "second process", "quiet"])
def test_a_bar_is_shown_only_by_the_first_process_in_a_terminal_or_a_notebook(monkeypatch, case):
    monkeypatch.setenv("RANK", "1" if case == "second process" else "0")
    output = NotebookOutput(False) if case == "notebook" else Output(case != "log file")
    monkeypatch.setattr(sys, "stdout", output)
    assert list(progress_bar([1, 2, 3], "counting", quiet=case == "quiet")) == [1, 2, 3]
    with progress_bar(None, "reading", total=2000, done=500, unit="B", quiet=case == "quiet") as bar:
        bar.update(1500)
    text = sys.stdout.getvalue()
    if case in ("terminal", "notebook"):
        assert "counting:   0%" in text and "0/3" in text and "reading:  25%" in text and "500/2.00k" in text
    else:
        assert text == ""
