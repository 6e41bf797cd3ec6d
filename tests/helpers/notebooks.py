"""The notebooks of the course and their cells."""

import sys
from pathlib import Path

import nbformat

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import course

NOTEBOOKS = course.find_lessons()


def cells(path: Path, kind: str = "") -> list[nbformat.NotebookNode]:
    """The cells of a notebook; only those of one kind, "code" or "markdown"."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if kind in ("", cell.cell_type)]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def tagged(path: Path, tag: str) -> list[nbformat.NotebookNode]:
    """The code cells of a notebook that have a tag."""
    return [cell for cell in cells(path, "code") if tag in tags(cell)]
