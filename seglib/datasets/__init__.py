"""Data sets: a reader for each format, a card for each set, and the rendered sample that stands in for it."""

from seglib.datasets.arrange import prepare
from seglib.datasets.coco import COCOSegmentationDataset
from seglib.datasets.common import all_instances, hold_out
from seglib.datasets.download import DownloadError
from seglib.datasets.folder import MaskFolderDataset
from seglib.datasets.scenes import render
from seglib.datasets.voc import VOCSegmentationDataset
from seglib.datasets.yolo import (
    YOLOSegmentationDataset,
    coco_to_yolo,
    round_trip,
    to_lines,
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
    "round_trip",
    "to_lines",
    "yolo_parts",
    "yolo_to_coco",
]
