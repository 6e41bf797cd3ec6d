"""Nuclei of the 2018 Data Science Bowl: a mask for each nucleus, written as one image of numbers."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from seglib.datasets.base import read_groups
from seglib.datasets.download.catalog import card
from seglib.datasets.download.fetch import check_count, unpack
from seglib.files import open_image, read_image, write_lines
from seglib.progress import progress_bar

__all__ = ["build"]


def build(archives: Sequence[Path], staging: Path) -> None:
    """Write each image in RGB, its nuclei as numbers in 16 bits, and the groups of the images."""
    unpacked = staging / "unpacked"
    unpack(archives[0], unpacked, lambda path: "/stage1_train/" in path and path.endswith(".png"), 10**9)
    groups = read_groups(staging)  # those of the library, as there is no groups.csv yet
    # Images that the branch may hold one day, but the list does not, are left out.
    folders = {path.name: path for path in unpacked.glob("*/stage1_train/*") if path.name in groups}
    check_count(len(folders), card("dsb2018").counts["images"], "images with a group")
    for part in ("images", "labels"):
        (staging / part).mkdir()
    for name, folder in progress_bar(sorted(folders.items()), "merging masks", unit=" images"):
        image = read_image(folder / "images" / f"{name}.png")
        Image.fromarray(image).save(staging / "images" / f"{name}.png")
        labels = _merge_masks(sorted((folder / "masks").iterdir()), image.shape[:2])
        Image.fromarray(labels).save(staging / "labels" / f"{name}.png")
    shutil.rmtree(unpacked)
    write_lines(staging / "groups.csv", ["image,group", *(f"{name},{groups[name]}" for name in sorted(folders))])


def _merge_masks(paths: Sequence[Path], size: tuple[int, ...]) -> np.ndarray:
    """The number of the nucleus at each pixel, uint16 (H, W): 0 is background, n the n-th file, above those before."""
    labels = np.zeros(size, np.uint16)
    for number, path in enumerate(paths, start=1):
        with open_image(path) as image:
            mask = np.asarray(image.convert("L")) > 0
        if mask.shape != size:
            raise ValueError(f"{path} is {mask.shape}, its image {size} (height, width)")
        labels[mask] = number
    return labels
