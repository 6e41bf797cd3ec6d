"""Data sets: a reader for each file format, the download of the real sets, and the bundled sample.

Each name is imported on first use, so that a reader loads neither the renderer nor the HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seglib.datasets.base import all_instances, hold_out
    from seglib.datasets.coco import COCOSegmentationDataset
    from seglib.datasets.download import prepare
    from seglib.datasets.download.fetch import DownloadError
    from seglib.datasets.folder import MaskFolderDataset
    from seglib.datasets.sample import render
    from seglib.datasets.voc import VOCSegmentationDataset
    from seglib.datasets.yolo import (
        YOLOSegmentationDataset,
        coco_to_yolo,
        round_trip_iou,
        segmentation_to_yolo,
        yolo_parts,
        yolo_to_coco,
    )

__all__ = [
    "COCOSegmentationDataset",
    "DownloadError",
    "MaskFolderDataset",
    "VOCSegmentationDataset",
    "YOLOSegmentationDataset",
    "all_instances",
    "coco_to_yolo",
    "hold_out",
    "prepare",
    "render",
    "round_trip_iou",
    "segmentation_to_yolo",
    "yolo_parts",
    "yolo_to_coco",
]

_MODULES = {
    "base": ("all_instances", "hold_out"),
    "coco": ("COCOSegmentationDataset",),
    "download": ("prepare",),
    "download.fetch": ("DownloadError",),
    "folder": ("MaskFolderDataset",),
    "sample": ("render",),
    "voc": ("VOCSegmentationDataset",),
    "yolo": (
        "YOLOSegmentationDataset",
        "coco_to_yolo",
        "round_trip_iou",
        "segmentation_to_yolo",
        "yolo_parts",
        "yolo_to_coco",
    ),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
