"""Evaluation of detected objects: mask AP by COCO's rules, and counts of correct and missed objects at one score.

pycocotools matches and counts (Lin et al., 2014, and its `cocoeval.py`), at the image's own size.
"""

from __future__ import annotations

import io
import json
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seglib.files import check_choice
from seglib.instances import Instances, as_instances

if TYPE_CHECKING:
    from seglib.datasets import COCOSegmentationDataset

__all__ = [
    "AERIAL_AREAS",
    "COCO_AREAS",
    "Areas",
    "DetectionCounts",
    "MaskAP",
    "Matches",
    "best_score_threshold",
    "count_detections",
    "mask_ap",
    "match_detections",
]

Areas = Mapping[str, tuple[float, float]]  # name -> smallest and largest area of a mask, in pixels
_Objects = Instances | Mapping[str, Any]  # the objects of an image, see `as_instances`

# COCO's ranges suit photographs in which a person is a hundred pixels tall.
COCO_AREAS: Areas = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
# From above, half of all buildings are smaller than COCO's "small" and almost none are "large". These ranges hold 35 %,
# 41 % and 24 % of 23,074 buildings in 840 aerial images of 512x512 pixels.
AERIAL_AREAS: Areas = {"small": (0, 24**2), "medium": (24**2, 50**2), "large": (50**2, 1e10)}


@dataclass(frozen=True)
class MaskAP:
    """Average precision of masks by COCO's rules. A value is NaN where there is no truth.

    Attributes:
        ap: mean over the IoU thresholds 0.50, 0.55 ... 0.95 and over the classes.
        ap50, ap75: AP at the IoU threshold 0.50 and 0.75.
        by_size: AP of the objects of each range of areas.
        ar: average recall, by the largest number of detections in an image.
        by_class: AP of each class that occurs, by label.
        recall: the recall levels 0, 0.01 ... 1, (101,).
        precision: the highest precision at each recall level or above, (thresholds, 101, classes).
        thresholds: the IoU thresholds.
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

    def curve(self, iou: float = 0.5) -> np.ndarray:
        """The precision at each level of `recall` for one of the IoU thresholds, (101,), averaged over classes."""
        iou = round(iou, 2)
        check_choice("iou", iou, self.thresholds.round(2).tolist())
        return np.array([_known_mean(row) for row in self.precision[np.isclose(self.thresholds, iou)][0]])

    def rows(self) -> dict[str, float]:
        """The values by name, for a table."""
        values = {"AP50-95": self.ap, "AP50": self.ap50, "AP75": self.ap75}
        values |= {f"AP {size}": value for size, value in self.by_size.items()}
        return values | {f"AR{count}": value for count, value in self.ar.items()}

    def __str__(self) -> str:
        lines = [f"{name:<12} {'n/a' if np.isnan(value) else f'{value:.3f}'}" for name, value in self.rows().items()]
        return "\n".join(lines)


def mask_ap(
    truth: Sequence[_Objects] | COCOSegmentationDataset,
    predictions: Sequence[_Objects | None] | str | Path,
    areas: Areas = COCO_AREAS,
    max_detections: Sequence[int] = (1, 10, 100),
) -> MaskAP:
    """Compute the average precision of masks by COCO's rules.

    A crowd is never missed, and a detection on a crowd is not wrong.

    Args:
        truth: the objects of each image: `Instances`, or a mapping with "masks" and optionally "labels" (classes, which
            count from 1), "crowd" and "size". `Instances.of` lists the kinds of masks. Or a COCO data set, whose
            predictions may then be a results file.
        predictions: the detections in each image, in the same order, with scores; None for an image in which nothing
            was found. Or COCO's results, a JSON file or its list of {"image_id", "category_id", "segmentation",
            "score"}; detections of categories that the data set leaves out are left out, too.
        areas: the ranges of `MaskAP.by_size`.
        max_detections: how many detections of a class count in an image, those with the highest scores. There is one
            average recall for each number; the other values take the largest. COCO has 100; images with hundreds of
            objects need more; a warning says so.

    Raises:
        ValueError: the numbers or sizes of the images differ, a prediction has no scores, or a result does not fit the
            data set.
    """
    truth_instances, detections = _to_instances(truth, predictions)
    _warn_of_too_many(truth_instances, max(max_detections))
    labels = sorted({int(label) for image in truth_instances for label in image.labels})  # others have no recall
    with redirect_stdout(io.StringIO()):  # pycocotools prints how long it takes
        evaluation = COCOeval(_to_coco(truth_instances), _to_coco(detections), "segm")
        parameters = evaluation.params
        parameters.imgIds = list(range(len(truth_instances)))
        parameters.catIds = labels
        parameters.maxDets = sorted(max_detections)
        parameters.areaRng = [(0, 1e10), *areas.values()]
        parameters.areaRngLbl = ["all", *areas]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (IoU thresholds, 101, classes, areas, max_detections); -1: no truth
    recall = evaluation.eval["recall"]  # (IoU thresholds, classes, areas, max_detections)
    overall = precision[..., 0, -1]
    return MaskAP(
        ap=_known_mean(overall),
        ap50=_known_mean(overall[0]),
        ap75=_known_mean(overall[5]),
        by_size={name: _known_mean(precision[..., i, -1]) for i, name in enumerate(areas, 1)},
        ar={count: _known_mean(recall[..., 0, i]) for i, count in enumerate(parameters.maxDets)},
        by_class={label: _known_mean(overall[..., k]) for k, label in enumerate(labels)},
        recall=parameters.recThrs,
        precision=overall,
        thresholds=parameters.iouThrs,
    )


def _read_results(data: COCOSegmentationDataset, results: str | Path | Sequence[Mapping[str, Any]]) -> list[Instances]:
    """The detections in each image of a data set from COCO's results."""
    is_file = isinstance(results, str | Path)
    where = str(results) if is_file else "the results"
    found = defaultdict(list)
    for item in json.loads(Path(where).read_text(encoding="utf-8-sig")) if is_file else cast("Any", results):
        missing = [key for key in ("image_id", "category_id", "segmentation", "score") if key not in item]
        if missing:
            raise ValueError(f"{where} must be a list of detections with masks; {str(item)[:80]} has no {missing}")
        found[item["image_id"]].append(item)
    unknown = found.keys() - {entry["id"] for entry in data.images}
    if unknown:
        raise ValueError(f"{where}: {len(unknown)} image ids are not in the data set, such as {next(iter(unknown))!r}")
    return [_detections(found[entry["id"]], data.class_of, (entry["height"], entry["width"])) for entry in data.images]


def _detections(results: Sequence[Mapping[str, Any]], class_of: Mapping[Any, int], size: tuple[int, int]) -> Instances:
    """The detections of the wanted categories in an image of `size` (height, width)."""
    wanted = [item for item in results if item["category_id"] in class_of]
    labels = [class_of[item["category_id"]] for item in wanted]
    return Instances.of(
        [item["segmentation"] for item in wanted], labels, [item["score"] for item in wanted], size=size
    )


def _warn_of_too_many(truth: Sequence[Instances], most: int) -> None:
    """Warn if an image has more objects of a class than detections count."""
    counts = [int(np.bincount(image.labels[~image.crowd], minlength=1).max()) for image in truth]
    if max(counts) > most:
        warnings.warn(
            f"{sum(count > most for count in counts)} images have more than {most} objects of a class (image "
            f"{int(np.argmax(counts))} has {max(counts)}), but only {most} detections of a class count in an image. "
            f"Pass max_detections=(1, 10, {max(counts)}) to count more",
            stacklevel=3,
        )


def _to_instances(
    truth: Sequence[_Objects] | COCOSegmentationDataset, predictions: Any
) -> tuple[list[Instances], list[Instances]]:
    """Convert truth and predictions to instances, and raise ValueError if they do not fit each other."""
    if not isinstance(truth, Sequence):
        if not hasattr(truth, "instances"):
            raise TypeError(f"truth is a list or a COCO data set, not {type(truth).__name__}: pass all_instances(data)")
        is_results = isinstance(predictions, str | Path) or all(
            isinstance(item, dict) and "masks" not in item for item in predictions
        )
        predictions = _read_results(truth, predictions) if is_results else predictions
        truth = [truth.instances(index) for index in range(len(truth))]
    if isinstance(predictions, str | Path):
        raise ValueError(f"{predictions}: COCO's results need the COCO data set as truth, for its image ids")
    if len(truth) != len(predictions) or not len(truth):
        raise ValueError(f"{len(truth)} images with truth and {len(predictions)} with predictions")
    real = [as_instances(objects) for objects in truth]
    nothing: _Objects = {"masks": [], "scores": []}
    detected = [
        as_instances(nothing if objects is None else objects, image.size)
        for objects, image in zip(predictions, real, strict=True)
    ]
    for index, (image, detections) in enumerate(zip(real, detected, strict=True)):
        if image.size != detections.size:
            sizes = f"the truth is {image.size} (height, width) but the prediction {detections.size}"
            raise ValueError(f"image {index}: {sizes}: bring the predicted masks to the image's own size")
        if detections.scores is None and len(detections):
            raise ValueError(f"image {index}: the predictions have no scores")
    return real, detected


def _to_coco(images: Sequence[Instances]) -> COCO:
    """The objects as pycocotools reads them from an annotation file."""
    entries = [{"id": i, "height": image.size[0], "width": image.size[1]} for i, image in enumerate(images)]
    annotations = [
        {
            "image_id": image_id,
            "category_id": int(image.labels[i]),
            "segmentation": image.rles[i],
            "area": float(area),
            "iscrowd": int(image.crowd[i]),
            "score": 0.0 if image.scores is None else float(image.scores[i]),
        }
        for image_id, image in enumerate(images)
        for i, area in enumerate(image.areas)
    ]
    for number, annotation in enumerate(annotations, 1):  # matching reads id 0 as "none"
        annotation["id"] = number
    coco = COCO()
    coco.dataset = {"images": entries, "annotations": annotations, "categories": []}
    coco.createIndex()
    return coco


def _known_mean(table: np.ndarray) -> float:
    """The mean of the values that are not -1, which is pycocotools' mark for "no truth"; NaN if there are none."""
    known = table[table > -1]
    return float(known.mean()) if known.size else float("nan")


@dataclass(frozen=True)
class Matches:
    """Which detections of an image are correct at one IoU threshold.

    Attributes:
        scores: float (N,), in falling order, which is the order of the other attributes.
        truth: int (N,), index of the object that each detection matches; -1 if none.
        iou: float (N,), IoU with that object; 0 if none.
        ignored: bool (N,), whether the detection lies on a crowd.
        missed: indices of the objects that no detection matches.
        order: int (N,), index of each detection in the prediction.
    """

    scores: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    ignored: np.ndarray
    missed: np.ndarray
    order: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether each detection matches an object, bool (N,)."""
        return self.truth >= 0


def match_detections(truth: _Objects, prediction: _Objects, iou: float = 0.5) -> Matches:
    """Match the detections in an image with its objects as COCO does.

    In falling order of scores, each detection takes that free object of its class with which its IoU is largest, if
    that is at least `iou`. A detection therefore never changes the match of one with a higher score.

    Args:
        truth: the objects of the image, as for `mask_ap`.
        prediction: the detections, with scores.
        iou: IoU threshold.

    Raises:
        ValueError: the sizes differ, or the prediction has no scores.
    """
    (truth,), (prediction,) = _to_instances([truth], [prediction])
    scores = np.zeros(0) if prediction.scores is None else prediction.scores  # None only without detections
    order = np.argsort(-scores, kind="stable")
    overlap = coco_mask.iou([prediction.rles[i] for i in order], truth.rles, truth.crowd.astype(np.uint8))
    overlap = np.reshape(overlap, (len(prediction), len(truth)))  # [] without detections or objects
    matched = np.full(len(order), -1)
    matched_iou = np.zeros(len(order))
    ignored = np.zeros(len(order), dtype=bool)
    free = set(np.flatnonzero(~truth.crowd).tolist())
    for row, index in enumerate(order):
        same_class = truth.labels == prediction.labels[index]
        best = max((i for i in free if same_class[i]), key=lambda i: (overlap[row, i], i), default=None)
        if best is not None and overlap[row, best] >= iou:
            matched[row] = best
            matched_iou[row] = overlap[row, best]
            free.remove(best)
        else:
            ignored[row] = (overlap[row, truth.crowd & same_class] >= iou).any()
    missed = np.array(sorted(free), dtype=int)
    return Matches(scores[order], matched, matched_iou, ignored, missed, order)


@dataclass(frozen=True)
class DetectionCounts:
    """How many detections with at least a score are correct or wrong, and how many objects are missed."""

    score: float
    correct: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """The fraction of detections that are correct; NaN if there are none."""
        detections = self.correct + self.wrong
        return self.correct / detections if detections else float("nan")

    @property
    def recall(self) -> float:
        """The fraction of objects that are found; NaN if there are none."""
        objects = self.correct + self.missed
        return self.correct / objects if objects else float("nan")

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 1 if there are neither objects nor detections."""
        total = 2 * self.correct + self.wrong + self.missed
        return 2 * self.correct / total if total else 1.0


def count_detections(matches: Sequence[Matches], score: float) -> DetectionCounts:
    """Count the detections of several images that have at least a score. Detections on a crowd are not counted."""
    correct = sum(int((image.correct & (image.scores >= score)).sum()) for image in matches)
    wrong = sum(int((~image.correct & ~image.ignored & (image.scores >= score)).sum()) for image in matches)
    objects = sum(len(image.missed) + int(image.correct.sum()) for image in matches)
    return DetectionCounts(score, correct, wrong, objects - correct)


def best_score_threshold(matches: Sequence[Matches]) -> float:
    """Choose the score, of 0.05, 0.1 ... 0.95, from which on detections have the highest F1; the lowest of equals.

    Args:
        matches: the matches of each validation image.
    """
    scores = np.arange(1, 20) / 20
    return float(max(scores, key=lambda score: (count_detections(matches, score).f1, -score)))
