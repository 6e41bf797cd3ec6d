"""Data sets: a reader for each file format, the download of the real sets, and the bundled sample.

`prepare`, `render`, `check` and the converters are imported on first use, so that a reader loads no HTTP client, no
renderer and no image hashes.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from seglib.datasets.base import all_instances, hold_out, read_groups, split_by_group
from seglib.datasets.coco import COCOSegmentationDataset
from seglib.datasets.folder import MaskFolderDataset
from seglib.datasets.voc import VOCSegmentationDataset
from seglib.datasets.yolo import (
    YOLOSegmentationDataset,
    coco_to_yolo,
    segmentation_to_yolo,
    yolo_parts,
    yolo_to_coco,
)

if TYPE_CHECKING:
    from seglib.datasets.checks import check
    from seglib.datasets.converters import convert, cvat_masks_to_coco, kaggle_rle_to_coco, labelme_to_coco
    from seglib.datasets.download import prepare
    from seglib.datasets.sample import render

__all__ = [
    "COCOSegmentationDataset",
    "MaskFolderDataset",
    "VOCSegmentationDataset",
    "YOLOSegmentationDataset",
    "all_instances",
    "check",
    "coco_to_yolo",
    "convert",
    "cvat_masks_to_coco",
    "hold_out",
    "kaggle_rle_to_coco",
    "labelme_to_coco",
    "prepare",
    "read_groups",
    "render",
    "segmentation_to_yolo",
    "split_by_group",
    "yolo_parts",
    "yolo_to_coco",
]

_MODULES = {"prepare": "download", "render": "sample", "check": "checks"}
_MODULES |= dict.fromkeys(("convert", "cvat_masks_to_coco", "kaggle_rle_to_coco", "labelme_to_coco"), "converters")


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
