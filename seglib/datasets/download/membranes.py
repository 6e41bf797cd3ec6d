"""Neuron membranes of ISBI 2012: the pages of two TIFF files, written as one PNG each."""

from collections.abc import Sequence
from pathlib import Path

from PIL import ImageSequence

from seglib.datasets.download.catalog import card
from seglib.datasets.download.fetch import check_count
from seglib.files import open_image

__all__ = ["build"]


def build(archives: Sequence[Path], staging: Path) -> None:
    """Write each slice and its label, numbered from 0."""
    for path, part in zip(archives, ("image", "label"), strict=True):
        (staging / part).mkdir()
        with open_image(path, page=1) as stack:
            pages = [page.convert("L") for page in ImageSequence.Iterator(stack)]
        check_count(len(pages), card("isbi2012_em").counts["images"], f"pages in {path.name}")
        for number, page in enumerate(pages):
            page.save(staging / part / f"{number}.png")
