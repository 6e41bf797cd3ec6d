"""The bundled sample: scenes drawn by code, in the layouts of the real data sets."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from seglib.datasets.download.catalog import data_home
from seglib.datasets.sample.buildings import write_buildings
from seglib.datasets.sample.coco import write_coco
from seglib.datasets.sample.common import VERSION
from seglib.datasets.sample.voc import write_voc

__all__ = ["render"]

WRITERS: dict[str, Callable[[Path, int, int, int], None]] = {
    "coco": write_coco,
    "voc2012": write_voc,
    "buildings_yolo": write_buildings,
}


def render(name: str, images: int, size: int, seed: int = 0, root: Path | None = None) -> Path:
    """Render the bundled sample of a data set in its real on-disk format, unless it is there already.

    Args:
        name: which data set; "coco" is images/train, images/val and annotations/instances_{train,val}.json; "voc2012"
            is JPEGImages, SegmentationClass, SegmentationObject and ImageSets/Segmentation/{train,val,trainval}.txt;
            "buildings_yolo" is {train,valid,test}/images, /labels and /_annotations.coco.json, and data.yaml.
        images: how many pictures, at least 2; a fifth of them is val. Of "buildings_yolo" three fifths train, a fifth
            validates, a fifth tests; of two pictures none tests.
        size: the longer side of a picture in pixels, at least 64. Those of "buildings_yolo" are square.
        seed: other seeds give other pictures; a picture depends on seed and index alone.
        root: the folder that the sample's own folder is put in; None: `catalog.data_home()`.

    Returns:
        The folder. It appears when it is complete, also where two processes render it at the same time.

    Raises:
        ValueError: a data set that has no sample, or numbers too small.
    """
    if name not in WRITERS:
        raise ValueError(f"no bundled sample of {name!r}: there is one of {', '.join(sorted(WRITERS))}")
    if images < 2 or size < 64:
        raise ValueError(f"a sample needs at least 2 images of 64 pixels, not {images} of {size}")
    folder = Path(root or data_home()) / f"sample_{name}_{images}x{size}_seed{seed}_v{VERSION}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        WRITERS[name](aside, images, size, seed)
        aside.chmod(0o755)
        os.rename(aside, folder)
    except OSError:
        if not folder.is_dir():  # else somebody else was faster, and theirs is the same
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder
