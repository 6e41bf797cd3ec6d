"""PASCAL VOC 2012: what belongs to segmentation, out of the devkit's archive."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from seglib.datasets.download.catalog import MB, card
from seglib.datasets.download.fetch import check_count, check_files, unpack

__all__ = ["build"]

_ROOT = PurePosixPath("VOCdevkit/VOC2012")


def build(archives: Sequence[Path], staging: Path) -> None:
    """Unpack the lists, the masks and the photographs that have a mask."""
    lists = "ImageSets/Segmentation"
    unpack(archives[0], staging, lambda name: _below(name, lists), 10 * MB)
    photos: set[str] = set()
    masks: set[str] = set()
    for part, expected in card("voc2012").counts.items():
        check_files(staging, [f"{lists}/{part}.txt"])
        names = (staging / lists / f"{part}.txt").read_text(encoding="utf-8").split()
        check_count(len(names), expected, f"names in {part}.txt")
        photos.update(f"JPEGImages/{name}.jpg" for name in names)
        masks.update(f"SegmentationClass/{name}.png" for name in names)

    def wanted(name: str) -> str | None:
        photo = _below(name, "JPEGImages")
        if photo in photos:
            return photo
        return _below(name, "SegmentationClass") or _below(name, "SegmentationObject")

    unpack(archives[0], staging, wanted, 1000 * MB)
    check_files(staging, photos | masks)


def _below(name: str, folder: str) -> str | None:
    """The path of a file counted from the devkit's root, if the file lies in `folder`."""
    path = PurePosixPath(name)
    return str(path.relative_to(_ROOT)) if _ROOT / folder in path.parents else None
