"""Appendix a3: what is lost when real labels go from COCO's format to YOLO's and back. Nothing is trained."""

from pathlib import Path
from typing import Any

import numpy as np

from seglib import lesson
from seglib.datasets import COCOSegmentationDataset, YOLOSegmentationDataset, segmentation_to_yolo, yolo_parts
from seglib.masks import polygons_to_mask, yolo_to_polygons

NEEDS = ("coco", "buildings_yolo")
CHOICES = (("split", "fill"), ("join", "cut"))


def kept(mask: np.ndarray, segmentation: Any, several: str, holes: str) -> float:
    """IoU of an object with the best of the objects that are read back from its YOLO lines."""
    lines = segmentation_to_yolo(0, segmentation, mask.shape, several, holes)
    again = [polygons_to_mask(yolo_to_polygons(line, *mask.shape)[1], *mask.shape) for line in lines]
    return max(((mask & one).sum() / max((mask | one).sum(), 1) for one in again), default=0.0)


def changed(ious: list[float]) -> dict[str, float]:
    """The share of objects of which more than 1 % changed, and their number."""
    return {"objects": len(ious), "changed": float(np.mean(np.less(ious, 0.99)))}


def from_coco(data: COCOSegmentationDataset) -> dict[str, dict[str, float]]:
    """What changes of COCO's objects, by choice."""
    values = {}
    for several, holes in CHOICES:
        ious = []
        for index in range(len(data)):
            for mask, item in zip(data.instances(index).masks, data.annotations(index), strict=True):
                if not item.get("iscrowd") and mask.any():
                    ious.append(kept(mask, item["segmentation"], several, holes))
        values[f"{several}, {holes}"] = changed(ious)
    return values


def from_yolo(parts: list[YOLOSegmentationDataset]) -> dict[str, float]:
    """What changes of YOLO's objects that become polygons in pixels, as in COCO, and lines again."""
    ious = []
    for data in parts:
        for index in range(len(data)):
            objects = data.instances(index)
            for mask, line in zip(objects.masks, data.lines(index), strict=True):
                if mask.any():
                    ious.append(kept(mask, yolo_to_polygons(line, *objects.size)[1], "split", "fill"))
    return changed(ious)


def main(folder: Path) -> dict[str, Any]:
    """Real labels in YOLO's format and back: the share of objects of which more than 1 % changes."""
    coco, buildings = lesson.data("coco"), lesson.data("buildings_yolo")
    annotations = coco / "annotations" / "instances_train.json"
    photographs = COCOSegmentationDataset(coco / "images" / "train", annotations, on_error="skip")
    parts = [YOLOSegmentationDataset(buildings, part) for part in yolo_parts(buildings)]
    values = {"COCO": from_coco(photographs), "buildings": {"YOLO to COCO and back": from_yolo(parts)}}
    return {
        "metric": "share of objects whose mask has an IoU below 0.99 with itself, there and back",
        "split": "COCO: the images at hand of its training part; buildings: all images",
        "settings": {"choices": [list(choice) for choice in CHOICES]},
        "data": coco,
        "images": {"COCO": len(photographs), "buildings": sum(map(len, parts))},
        "values": values,
    }
