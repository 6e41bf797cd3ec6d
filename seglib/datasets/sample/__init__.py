"""The bundled sample: scenes drawn by code, written in the layouts of the real data sets.

Nothing is downloaded and no photograph is used. A picture depends only on the seed and on its index.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

from seglib.datasets.download import data_home
from seglib.datasets.sample import buildings, coco, nuclei, voc
from seglib.files import check_choice
from seglib.progress import progress_bar

__all__ = ["VERSION", "WRITERS", "render"]

VERSION = 6  # part of the folder's name; increase it whenever the pictures change, so that old folders are not reused
# Each module has write_image(folder, index, images, size, seed), which returns a record for JSON, and
# write_lists(folder, records), which writes the files that concern all images.
WRITERS = {"coco": coco, "voc2012": voc, "buildings_yolo": buildings, "dsb2018": nuclei}
SHARE = 50  # images that are worth another process, which takes some seconds to start


def render(name: str, images: int, size: int, seed: int = 0, root: Path | None = None) -> Path:
    """Return the folder of a data set's bundled sample; draw it if it does not exist yet.

    The folder appears when it is complete, even if two processes draw the same sample.

    Args:
        name: "coco": images/{train,val} and annotations/instances_{train,val}.json; "voc2012": JPEGImages,
            SegmentationClass, SegmentationObject and ImageSets/Segmentation/{train,val,trainval}.txt;
            "buildings_yolo": {train,valid,test}/images, /labels and /_annotations.coco.json, and data.yaml; "dsb2018":
            images, labels and groups.csv.
        images: number of pictures, at least 2. A fifth of them is for validation; another fifth of "buildings_yolo" is
            for testing, except when there are only two pictures. For "dsb2018", `split_by_group` splits by groups.csv.
        size: longer side of a picture in pixels, at least 64. The pictures of "buildings_yolo" are square; some of
            "dsb2018" are smaller.
        seed: another seed gives other pictures.
        root: the folder that will hold the sample's folder; None: `seglib.datasets.download.data_home()`.

    Raises:
        ValueError: the data set has no sample, or `images` or `size` is too small.
        OSError: the folder cannot be written.
    """
    check_choice("the name of a bundled sample", name, sorted(WRITERS))
    if images < 2 or size < 64:
        raise ValueError(f"a sample needs at least 2 images of at least 64 pixels; got {images} of {size} pixels")
    folder = Path(root or data_home()) / f"sample_{name}_{images}x{size}_seed{seed}_v{VERSION}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sample_", dir=folder.parent, ignore_cleanup_errors=True) as hidden:
        drawn = Path(hidden) / folder.name
        drawn.mkdir()
        records = progress_bar(_draw(name, drawn, images, size, seed), "drawing the sample", total=images)
        WRITERS[name].write_lists(drawn, list(records))
        if not folder.is_dir():  # else another process has drawn the same sample
            drawn.rename(folder)
    return folder


def _draw(name: str, folder: Path, images: int, size: int, seed: int) -> Iterator[dict[str, Any]]:
    """Draw the images of a sample, on all cores if they are many; yield their records in order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    step = min(cores, images // SHARE)
    if step < 2:
        for index in range(images):
            yield WRITERS[name].write_image(folder, index, images, size, seed)
        return
    # Plain child processes: a pool of multiprocessing would run the user's script again if that is not guarded.
    command = [sys.executable, "-m", "seglib.datasets.sample", name, str(folder), *map(str, (images, size, seed, step))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENCV_FOR_THREADS_NUM": "1"}
    children = [
        subprocess.Popen([*command, str(first)], stdout=PIPE, stderr=PIPE, text=True, env=environment)
        for first in range(step)  # each draws the images first, first + step, ...
    ]
    try:
        for index in range(images):
            child = children[index % step]
            assert child.stdout and child.stderr  # they are pipes
            line = child.stdout.readline()
            if not line:
                raise OSError(f"the sample could not be drawn: {child.stderr.read().strip()}")
            yield json.loads(line)
    finally:
        for child in children:
            child.kill()
            child.communicate()
