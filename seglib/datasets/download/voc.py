"""PASCAL VOC 2012: what belongs to segmentation, out of the devkit's archive."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from seglib.datasets.download.catalog import card
from seglib.datasets.download.fetch import check_count, check_files, unpack

__all__ = ["build"]

_ROOT = "VOCdevkit/VOC2012"


def build(archives: Sequence[Path], staging: Path) -> None:
    """Unpack the lists, and the photographs and masks that they name."""
    lists = f"{_ROOT}/ImageSets/Segmentation/"
    unpack(archives[0], staging, lambda path: path.startswith(lists), 10**7)
    listed: list[str] = []
    for part, expected in card("voc2012").counts.items():
        check_files(staging, [f"{lists}{part}.txt"])
        names = (staging / f"{lists}{part}.txt").read_text(encoding="utf-8").split()
        check_count(len(names), expected, f"names in {part}.txt")
        listed += names
    photos = {f"{_ROOT}/JPEGImages/{name}.jpg" for name in listed}
    masks = {f"{_ROOT}/SegmentationClass/{name}.png" for name in listed}
    objects = {f"{_ROOT}/SegmentationObject/{name}.png" for name in listed}
    wanted = photos | masks | objects
    unpack(archives[0], staging, lambda path: path in wanted, 10**9)
    check_files(staging, photos | masks)
    for folder in (staging / _ROOT).iterdir():
        folder.rename(staging / folder.name)
    shutil.rmtree(staging / "VOCdevkit")
