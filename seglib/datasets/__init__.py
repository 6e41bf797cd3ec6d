"""Data sets: a reader for each format, a card for each set, and the rendered sample that stands in for it."""

from seglib.datasets.arrange import prepare
from seglib.datasets.coco import COCOSegmentationDataset
from seglib.datasets.common import hold_out
from seglib.datasets.download import DownloadError
from seglib.datasets.folder import MaskFolderDataset
from seglib.datasets.scenes import render
from seglib.datasets.voc import VOCSegmentationDataset

__all__ = [
    "COCOSegmentationDataset",
    "DownloadError",
    "MaskFolderDataset",
    "VOCSegmentationDataset",
    "hold_out",
    "prepare",
    "render",
]
