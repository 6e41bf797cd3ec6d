"""How well objects are found: average precision by COCO's rules, and what lies behind that one number.

pycocotools does the matching and the counting (Lin et al., 2014, and its `cocoeval.py`); here is what it is given, and
what is read off its tables. Everything is measured at the image's own size.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seglib.instances import Instances, as_instances

Areas = Mapping[str, tuple[float, float]]
# Pixels of a mask, from ... to. COCO's own, for photographs in which a person is a hundred pixels tall:
COCO_AREAS: Areas = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
# Seen from above, half of all buildings are smaller than COCO's "small", and next to none are "large". These parts hold
# 35 %, 41 % and 24 % of 23,074 outlines in 840 aerial images of 512 pixels a side:
AERIAL_AREAS: Areas = {"small": (0, 24**2), "medium": (24**2, 50**2), "large": (50**2, 1e10)}
ALL = (0, 1e10)


@dataclass(frozen=True)
class MaskAP:
    """Average precision of masks, by COCO's rules. NaN where there is no truth to find.

    Attributes:
        ap: the mean over the IoU thresholds 0.50, 0.55 ... 0.95 (and over classes). ap50, ap75: at one threshold.
        by_size: the same as `ap`, for the objects of each range of areas.
        ar: the share of objects that is found, the mean over the thresholds, by the most detections an image may have.
        by_class: `ap` of each class that occurs, by label.
        recall: (101,), 0, 0.01 ... 1. precision: (thresholds, 101, classes), the highest at that recall or more.
        thresholds: of IoU. truths, detections: how many there were, crowds left out; images: likewise.
    """

    ap: float
    ap50: float
    ap75: float
    by_size: dict[str, float]
    ar: dict[int, float]
    by_class: dict[int, float]
    recall: np.ndarray = field(repr=False)
    precision: np.ndarray = field(repr=False)
    thresholds: np.ndarray = field(repr=False)
    images: int = 0
    truths: int = 0
    detections: int = 0

    def curve(self, iou: float = 0.5) -> np.ndarray:
        """Precision at each of `recall`, (101,): the mean over classes, at one IoU threshold."""
        table = self.precision[nearest(self.thresholds, iou)]
        return mean_where_known(table, axis=1)

    def rows(self) -> dict[str, float]:
        """The figures by name, as a table has them."""
        named = {"AP50-95": self.ap, "AP50": self.ap50, "AP75": self.ap75}
        named |= {f"AP {size}": value for size, value in self.by_size.items()}
        return named | {f"AR{most}": value for most, value in self.ar.items()}

    def __str__(self) -> str:
        lines = [f"{name:<12} {'n/a' if np.isnan(value) else f'{value:.3f}'}" for name, value in self.rows().items()]
        return "\n".join([f"{self.truths} objects and {self.detections} detections in {self.images} images", *lines])


def mask_ap(
    truth: Sequence[Any],
    predictions: Sequence[Any],
    areas: Areas = COCO_AREAS,
    max_detections: Sequence[int] = (1, 10, 100),
) -> MaskAP:
    """Average precision of masks by COCO's rules.

    Args:
        truth: the objects of each image: `Instances`, or a mapping with "masks", "labels" and, where there are, "crowd"
            and "size"; see `Instances.of` for the kinds of masks: arrays, RLE, polygons.
        predictions: what a model found in each image, in the same order, with scores.
        areas: the ranges of `by_size`, in pixels of the mask.
        max_detections: of an image, those with the highest scores, so many of each class, count for `ar`; the last, the
            most, for all else. COCO has 100; images with hundreds of objects need more.

    A crowd is never missed, and what lies on one is not counted as wrong.

    Raises:
        ValueError: images that do not go together; detections without scores, or of a crowd.
    """
    truth, predictions = as_pairs(truth, predictions)
    counts = list(max_detections)
    if not areas or not counts or sorted(set(counts)) != counts or counts[0] < 1:
        raise ValueError(f"areas has a range or more, max_detections rises from 1 on, not {counts}")
    table = evaluate_with_coco(truth, predictions, areas, max_detections)
    precision, recall = table["precision"], table["recall"]  # (T, 101, K, A, M) and (T, K, A, M); -1: no truth
    whole, parameters = precision[..., 0, -1], table["params"]
    thresholds = parameters.iouThrs
    return MaskAP(
        ap=mean_where_known(whole),
        ap50=mean_where_known(whole[nearest(thresholds, 0.5)]),
        ap75=mean_where_known(whole[nearest(thresholds, 0.75)]),
        by_size={name: mean_where_known(precision[..., i, -1]) for i, name in enumerate(areas, 1)},
        ar={count: mean_where_known(recall[..., 0, i]) for i, count in enumerate(max_detections)},
        by_class={int(label): mean_where_known(whole[..., k]) for k, label in enumerate(parameters.catIds)},
        recall=parameters.recThrs,
        precision=whole,
        thresholds=thresholds,
        images=len(truth),
        truths=int(sum((~one.crowd).sum() for one in truth)),
        detections=sum(map(len, predictions)),
    )


def as_pairs(truth: Sequence[Any], predictions: Sequence[Any]) -> tuple[list[Instances], list[Instances]]:
    """The truth and the predictions of some images as instances, checked."""
    if isinstance(truth, Instances | Mapping) or isinstance(predictions, Instances | Mapping):
        raise TypeError("truth and predictions are lists, with the objects of an image in each place")
    truth = [as_instances(one) for one in truth]
    sizes = [one.size for one in truth] + [None] * (len(predictions) - len(truth))
    predictions = [as_instances(one, size) for one, size in zip(predictions, sizes, strict=False)]
    check_pairs(truth, predictions)
    return truth, predictions


def check_pairs(truth: Sequence[Instances], predictions: Sequence[Instances]) -> None:
    """Raise ValueError for truth and predictions that do not go together."""
    if len(truth) != len(predictions) or not truth:
        raise ValueError(f"{len(truth)} images with truth and {len(predictions)} with predictions")
    for index, (real, found) in enumerate(zip(truth, predictions, strict=True)):
        if real.size != found.size:
            raise ValueError(
                f"image {index}: the truth is {real.size} (height, width) but the prediction {found.size}: bring the "
                "predicted masks to the image's own size"
            )
        if found.scores is None and len(found):
            raise ValueError(f"image {index}: the predictions have no scores")
        if found.crowd.any():
            raise ValueError(f"image {index}: a prediction is of one object, never of a crowd")


def evaluate_with_coco(
    truth: Sequence[Instances], predictions: Sequence[Instances], areas: Areas, max_detections: Sequence[int]
) -> dict[str, Any]:
    """pycocotools' tables of precision and recall."""
    labels = sorted({int(label) for one in truth for label in one.labels})
    with redirect_stdout(io.StringIO()):  # it tells how long it took
        evaluation = COCOeval(as_coco(truth, labels), as_coco(predictions, labels), "segm")
        evaluation.params.imgIds = list(range(len(truth)))
        evaluation.params.catIds = labels
        evaluation.params.maxDets = [int(count) for count in max_detections]
        evaluation.params.areaRng = [list(ALL), *(list(span) for span in areas.values())]
        evaluation.params.areaRngLbl = ["all", *areas]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def as_coco(images: Sequence[Instances], labels: Sequence[int]) -> COCO:
    """What pycocotools reads out of an annotation file. A class that has no truth at all is not among the labels: it
    has no recall, and so no part in the mean."""
    annotations = []
    for index, one in enumerate(images):
        areas, boxes = one.areas, one.boxes
        for i in range(len(one)):
            left, top, right, bottom = boxes[i].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,  # its matching takes an id of 0 for "no match"
                    "image_id": index,
                    "category_id": int(one.labels[i]),
                    "segmentation": one.rles[i],
                    "area": float(areas[i]),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": int(one.crowd[i]),
                    **({} if one.scores is None else {"score": float(one.scores[i])}),
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": index, "height": one.size[0], "width": one.size[1]} for index, one in enumerate(images)],
        "categories": [{"id": label, "name": str(label)} for label in labels],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def mean_where_known(table: np.ndarray, axis: int | None = None) -> Any:
    """The mean of what is not -1, pycocotools' mark of "no truth"; NaN where nothing is left."""
    known = table > -1
    total, count = np.where(known, table, 0).sum(axis=axis), known.sum(axis=axis)
    with np.errstate(invalid="ignore"):
        result = np.divide(total, count, dtype=float)
    return float(result) if axis is None else result


def nearest(values: np.ndarray, value: float) -> int:
    """Where a value is in an array of rounded ones."""
    index = int(np.argmin(np.abs(values - value)))
    if abs(values[index] - value) > 1e-6:
        raise ValueError(f"no {value} among {np.round(values, 3).tolist()}")
    return index


# ------------------------------------------------------------------------------------------------ one image, one score


@dataclass(frozen=True)
class Matches:
    """Which detections of an image are right, at one IoU threshold.

    Attributes:
        scores: (N,), falling. order: int (N,), the number of each detection in the prediction.
        truth: int (N,), the number of the object that each has found, -1 if none. iou: (N,), with that object.
        ignored: bool (N,), lies on a crowd. missed: the numbers of the objects that none has found.
    """

    scores: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    ignored: np.ndarray
    missed: np.ndarray
    order: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Bool (N,): has found an object."""
        return self.truth >= 0


def match(truth: Any, prediction: Any, iou: float = 0.5) -> Matches:
    """Match detections with objects as COCO does: the surest one first, each takes the object of its class that it
    overlaps most among those still free, if by `iou` or more.

    A less sure detection never changes what a surer one is matched with: above any score the matches are the same.
    """
    (truth,), (prediction,) = as_pairs([truth], [prediction])
    order = np.argsort(-prediction.scores, kind="stable")
    real = np.flatnonzero(~truth.crowd)
    overlap = ious(prediction.pick(order), truth)
    found, shares = np.full(len(order), -1), np.zeros(len(order))
    ignored = np.zeros(len(order), dtype=bool)
    free = set(real.tolist())
    for row, index in enumerate(order):
        same = truth.labels == prediction.labels[index]
        best = max((i for i in free if same[i]), key=lambda i: (overlap[row, i], i), default=None)
        if best is not None and overlap[row, best] >= iou:
            found[row], shares[row] = best, overlap[row, best]
            free.remove(best)
        else:
            ignored[row] = (overlap[row, truth.crowd & same] >= iou).any()
    return Matches(prediction.scores[order], found, shares, ignored, np.array(sorted(free), dtype=int), order)


def ious(prediction: Instances, truth: Instances) -> np.ndarray:
    """IoU of each detection with each object, (N, M); with a crowd, the share of the detection that lies on it."""
    if not len(prediction) or not len(truth):
        return np.zeros((len(prediction), len(truth)))
    return np.asarray(coco_mask.iou(prediction.rles, truth.rles, truth.crowd.astype(np.uint8)))


@dataclass(frozen=True)
class Counts:
    """How many detections above a score are right, how many wrong, and how many objects are missed."""

    score: float
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """The share of detections that is right; NaN where there are none."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else float("nan")

    @property
    def recall(self) -> float:
        """The share of objects that is found; NaN where there are none."""
        return self.right / (self.right + self.missed) if self.right + self.missed else float("nan")

    @property
    def f1(self) -> float:
        """The harmonic mean of both; 1 where there is nothing to find and nothing found."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0


def count(matches: Sequence[Matches], score: float) -> Counts:
    """Count over some images, above a score."""
    right = sum(int((one.right & (one.scores >= score)).sum()) for one in matches)
    wrong = sum(int((~one.right & ~one.ignored & (one.scores >= score)).sum()) for one in matches)
    objects = sum(len(one.missed) + int(one.right.sum()) for one in matches)
    return Counts(score, right, wrong, objects - right)


def best_score(matches: Sequence[Matches], scores: Sequence[float] = tuple(np.arange(1, 20) / 20)) -> float:
    """The score above which detections are best taken for objects: that of the highest F1, the lowest of equals."""
    return float(max(scores, key=lambda score: (count(matches, score).f1, -score)))
