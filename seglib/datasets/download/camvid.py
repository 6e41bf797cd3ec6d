"""CamVid: SegNet's copy, out of its repository, with a split by video."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from seglib.datasets.download.catalog import card
from seglib.datasets.download.fetch import check_count, check_files, unpack
from seglib.files import image_size, write_lines
from seglib.masks import read_index_png
from seglib.progress import progress_bar

__all__ = ["VIDEOS", "build"]

# The videos of each part; a file name begins with the name of its video.
VIDEOS = {"train": ("0001TP", "0016E5"), "val": ("0006R0",), "test": ("Seq05VD",)}


def build(archives: Sequence[Path], staging: Path) -> None:
    """Unpack frames and masks, check them, and list the frames of each part."""
    unpacked = staging / "unpacked"
    unpack(archives[0], unpacked, lambda path: "/CamVid/" in path and path.endswith(".png"), 6 * 10**8)
    for folder in unpacked.glob("*/CamVid/*"):
        folder.rename(staging / folder.name)
    shutil.rmtree(unpacked)
    frames: list[str] = []
    for part, expected in card("camvid").counts.items():
        names = sorted(path.stem for path in (staging / part).glob("*.png"))
        check_count(len(names), expected, f"frames in {part}")
        check_files(staging, [f"{part}annot/{name}.png" for name in names])
        for name in progress_bar(names, f"checking {part}", unit=" masks"):
            _check_mask(staging / part / f"{name}.png", staging / f"{part}annot" / f"{name}.png")
        frames += [f"{part}/{name}" for name in names]
    for part, videos in VIDEOS.items():
        members = [frame for frame in frames if frame.split("/")[1].split("_")[0] in videos]
        write_lines(staging / "splits" / f"{part}.txt", members)


def _check_mask(frame: Path, mask: Path) -> None:
    """Raise ValueError unless a mask has the size of its frame and holds only classes and the void value."""
    values = read_index_png(mask)
    void = len(card("camvid").classes)
    if values.shape != image_size(frame) or values.max() > void:
        raise ValueError(f"{mask} has another size than its frame, or holds values above {void}")
