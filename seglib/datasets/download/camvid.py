"""CamVid: SegNet's copy, out of its repository, with a split by video."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from seglib.datasets.download.catalog import CAMVID_VIDEOS, MB, card
from seglib.datasets.download.fetch import ArchiveError, check_count, check_files, unpack
from seglib.files import image_size, write_lines
from seglib.masks import read_index_png
from seglib.progress import progress_bar

__all__ = ["build"]


def build(archives: Sequence[Path], staging: Path) -> None:
    """Unpack frames and masks, check them, and list the frames of each part."""
    counts = card("camvid").counts
    unpack(archives[0], staging, _wanted, 600 * MB)
    frames: list[str] = []
    for part, expected in counts.items():
        names = sorted(path.stem for path in (staging / part).glob("*.png"))
        check_count(len(names), expected, f"frames in {part}")
        check_files(staging, [f"{part}annot/{name}.png" for name in names])
        for name in progress_bar(names, f"checking {part}", unit=" masks"):
            _check_mask(staging / part / f"{name}.png", staging / f"{part}annot" / f"{name}.png")
        frames += [f"{part}/{name}" for name in names]
    for part, videos in CAMVID_VIDEOS.items():
        members = [frame for frame in frames if frame.split("/")[1].split("_")[0] in videos]
        write_lines(staging / "splits" / f"{part}.txt", members)


def _wanted(name: str) -> str | None:
    """The path of a frame or mask in the data set: .../CamVid/train/a.png is train/a.png."""
    path = PurePosixPath(name)
    is_wanted = (
        len(path.parts) == 4
        and path.parts[1] == "CamVid"
        and path.parts[2].removesuffix("annot") in card("camvid").counts
        and path.suffix == ".png"
    )
    return f"{path.parts[2]}/{path.name}" if is_wanted else None


def _check_mask(frame: Path, mask: Path) -> None:
    """Raise ArchiveError unless a mask has the size of its frame and holds only classes and the void value."""
    void = len(card("camvid").classes)
    try:
        values = read_index_png(mask)
        size = image_size(frame)
    except ValueError as error:
        raise ArchiveError(str(error)) from None
    if values.shape != size or values.max() > void:
        raise ArchiveError(f"{mask} has another size than its frame, or holds values above {void}")
