"""Data sets: a reader for each format, a card for each set, and the rendered sample that stands in for it."""

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
