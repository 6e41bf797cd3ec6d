"""The bundled sample: scenes drawn by code, written in the layouts of the real data sets.

Nothing is downloaded and no photograph is used. A picture depends only on the seed and on its index.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from seglib.datasets.download import data_home
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
    """Return the folder of a data set's bundled sample; draw it if it does not exist yet.

    The folder appears when it is complete, even if two processes draw the same sample at the same time.

    Args:
        name: "coco": images/{train,val} and annotations/instances_{train,val}.json; "voc2012": JPEGImages,
            SegmentationClass, SegmentationObject and ImageSets/Segmentation/{train,val,trainval}.txt;
            "buildings_yolo": {train,valid,test}/images, /labels and /_annotations.coco.json, and data.yaml.
        images: number of pictures, at least 2. A fifth of them is for validation; another fifth of "buildings_yolo" is
            for testing, except when there are only two pictures.
        size: longer side of a picture in pixels, at least 64. The pictures of "buildings_yolo" are square.
        seed: another seed gives other pictures.
        root: the folder that will hold the sample's folder; None: `seglib.datasets.download.data_home()`.

    Raises:
        ValueError: the data set has no sample, or `images` or `size` is too small.
        OSError: the folder cannot be written.
    """
    if name not in WRITERS:
        raise ValueError(f"no bundled sample of {name!r}: there is one of {', '.join(sorted(WRITERS))}")
    if images < 2 or size < 64:
        raise ValueError(f"a sample needs at least 2 images of at least 64 pixels; got {images} of {size} pixels")
    folder = Path(root or data_home()) / f"sample_{name}_{images}x{size}_seed{seed}_v{VERSION}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        WRITERS[name](temporary, images, size, seed)
        temporary.chmod(0o755)
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():  # else another process has drawn the same sample
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
