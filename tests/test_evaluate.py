"""Mask AP and matches against pycocotools and against cases computed by hand."""

import json
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seglib.evaluate import (
    AERIAL_AREAS,
    COCO_AREAS,
    DetectionCounts,
    Matches,
    best_score_threshold,
    count_detections,
    mask_ap,
    match_detections,
)
from seglib.instances import Instances

SIZES = [(120, 150), (150, 110), (40, 33), (64, 64)]


@dataclass
class Scene:
    """An image: its objects as (bitmap, label, crowd), its detections as (bitmap, label, score)."""

    size: tuple[int, int]
    truth: list
    detections: list

    def truth_instances(self) -> Instances:
        masks, labels, crowd = zip(*self.truth, strict=True) if self.truth else ([], [], [])
        return Instances.of(masks, labels, crowd=crowd, size=self.size)

    def detected_instances(self) -> Instances:
        masks, labels, scores = zip(*self.detections, strict=True) if self.detections else ([], [], [])
        return Instances.of(masks, labels, scores, size=self.size)


def rectangle(top, bottom, left, right, size=(40, 50)) -> np.ndarray:
    bitmap = np.zeros(size, dtype=bool)
    bitmap[top:bottom, left:right] = True
    return bitmap


def random_ellipse(rng, size: tuple[int, int]) -> np.ndarray:
    """A bitmap of a few pixels to more than 96 x 96."""
    y, x = (np.indices(size).T - rng.uniform(0, size)).T
    height, width = rng.choice([4, 12, 25, 90]) * rng.uniform(0.6, 1.4, 2)
    return (y / height) ** 2 + (x / width) ** 2 < 1


def random_scene(rng, classes: int) -> Scene:
    """Overlapping objects; detections that are right, nearly right, double, of another class or of nothing."""
    size = SIZES[rng.integers(len(SIZES))]
    truth, detections = [], []
    for _ in range(rng.integers(0, 7)):
        bitmap = random_ellipse(rng, size)
        label = int(rng.integers(1, classes + 1))
        truth.append((bitmap, label, rng.random() < 0.2))
        for _ in range(rng.choice([0, 1, 1, 2])):
            moved = np.roll(bitmap, tuple(rng.integers(-3, 4, 2) * rng.integers(0, 3)), (0, 1))
            found = label if rng.random() < 0.8 else int(rng.integers(1, classes + 2))  # one class too many
            detections.append((moved, found, float(rng.integers(1, 20) / 20)))  # with ties
    for _ in range(rng.integers(0, 3)):
        detections.append((random_ellipse(rng, size), int(rng.integers(1, classes + 1)), float(rng.random())))
    return Scene(size, truth, [detections[i] for i in rng.permutation(len(detections))])


def random_scenes(seed: int, classes: int = 3, images: int = 6) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng, classes) for _ in range(images)]


def crowded_scene(squares: int) -> Scene:
    """Little squares, each detected, and 20 detections of nothing, some of which have higher scores."""
    rng = np.random.default_rng(0)
    size = (72, 90)
    corners = [(5 * (number // 16), 5 * (number % 16)) for number in range(squares)]
    bitmaps = [rectangle(top, top + 4, left, left + 4, size) for top, left in corners]
    wrong = [rectangle(60, 70, left, left + 5, size) for left in range(20)]
    detections = [(bitmap, 1, float(rng.random())) for bitmap in [*bitmaps, *wrong]]
    return Scene(size, [(bitmap, 1, False) for bitmap in bitmaps], detections)


def evaluate(scenes: list[Scene], areas=COCO_AREAS, max_detections=(1, 10, 100)):
    truth = [scene.truth_instances() for scene in scenes]
    return mask_ap(truth, [scene.detected_instances() for scene in scenes], areas, max_detections)


# ------------------------------------------------------------------------------------------------ pycocotools


def run_cocoeval(scenes: list[Scene], areas=COCO_AREAS, max_detections=(1, 10, 100)) -> COCOeval:
    """Run COCOeval as its demo does, with other ids than seglib has."""
    annotations, results = [], []
    for image_id, scene in enumerate(scenes, 100):
        for bitmap, label, crowd in scene.truth:
            rle = coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8))
            entry = {"id": 5000 + len(annotations), "image_id": image_id, "category_id": 7 * label + 4}
            entry |= {"segmentation": rle, "area": int(bitmap.sum()), "bbox": [0, 0, 1, 1], "iscrowd": int(crowd)}
            annotations.append(entry)
        for bitmap, label, score in scene.detections:
            rle = coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8))
            results.append({"image_id": image_id, "category_id": 7 * label + 4, "segmentation": rle, "score": score})
    truth, detections = COCO(), COCO()
    truth.dataset = {
        "images": [{"id": i, "height": scene.size[0], "width": scene.size[1]} for i, scene in enumerate(scenes, 100)],
        "annotations": annotations,
        "categories": [{"id": 7 * label + 4, "name": f"class {label}"} for label in range(1, 6)],
        "info": {},
    }
    truth.createIndex()
    if results:
        detections = truth.loadRes(results)
    evaluation = COCOeval(truth, detections, "segm")
    evaluation.params.areaRng = [[0, 1e10], *map(list, areas.values())]
    evaluation.params.areaRngLbl = ["all", *areas]
    evaluation.params.maxDets = list(max_detections)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def mean(table: np.ndarray) -> float:
    """The mean as in COCOeval.summarize, with NaN instead of -1."""
    return float(np.mean(table[table > -1])) if (table > -1).any() else math.nan


def check(scenes: list[Scene], areas=COCO_AREAS, max_detections=(1, 10, 100)) -> None:
    """Compare everything that mask_ap returns with COCOeval's tables."""
    result = evaluate(scenes, areas, max_detections)
    evaluation = run_cocoeval(scenes, areas, max_detections)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # (T, R, K, A, M) and (T, K, A, M)
    overall = precision[..., 0, -1]
    expected = {"AP50-95": mean(overall), "AP50": mean(overall[0]), "AP75": mean(overall[5])}
    expected |= {f"AP {name}": mean(precision[..., i, -1]) for i, name in enumerate(areas, 1)}
    expected |= {f"AR{count}": mean(recall[..., 0, i]) for i, count in enumerate(max_detections)}
    assert result.rows() == pytest.approx(expected, nan_ok=True)
    labels = sorted({label for scene in scenes for _, label, _ in scene.truth})
    by_class = {label: mean(overall[:, :, label - 1]) for label in labels}
    assert result.by_class == pytest.approx(by_class, nan_ok=True)
    assert np.allclose(result.precision, overall[:, :, [label - 1 for label in labels]])
    for threshold, table in zip(result.thresholds, overall, strict=True):
        assert result.curve(threshold) == pytest.approx([mean(row) for row in table], nan_ok=True)
    assert np.allclose(result.recall, np.linspace(0, 1, 101))


@pytest.mark.parametrize("seed", range(6))
def test_mask_ap_equals_pycocotools(seed):
    check(random_scenes(seed, classes=1 + seed % 4))


@pytest.mark.parametrize("case", ["no truth", "only crowds", "no detections", "another class", "empty masks"])
def test_mask_ap_equals_pycocotools_in_edge_cases(case):
    scenes = random_scenes(0)
    for scene in scenes:
        empty = np.zeros(scene.size, dtype=bool)
        match case:
            case "no truth":
                scene.truth = []
            case "only crowds":
                scene.truth = [(bitmap, label, True) for bitmap, label, _ in scene.truth]
            case "no detections":
                scene.detections = []
            case "another class":
                scene.detections = [(bitmap, 5, score) for bitmap, _, score in scene.detections]
            case "empty masks":
                scene.truth.append((empty, 1, False))
                scene.detections.append((empty, 1, 0.7))
    check(scenes)
    if case in ("no truth", "only crowds"):
        assert all(math.isnan(value) for value in evaluate(scenes).rows().values()) and "n/a" in str(evaluate(scenes))


@pytest.mark.parametrize("max_detections", [(3,), (1, 4, 30, 500)])
@pytest.mark.parametrize("areas", [AERIAL_AREAS, {"a": (0, 300), "b": (250, 1e10)}])
def test_mask_ap_equals_pycocotools_for_other_areas_and_numbers_of_detections(areas, max_detections):
    check([*random_scenes(11, images=3), crowded_scene(40)], areas, max_detections)


def test_only_the_detections_with_the_highest_scores_count():
    scenes = [crowded_scene(105)]
    assert evaluate(scenes).ar[100] < 100 / 105 < evaluate(scenes, max_detections=(200, 100)).ar[200] == 1


def test_a_class_that_is_predicted_but_never_true_does_not_change_ap():
    scenes = random_scenes(2)
    before = evaluate(scenes)
    for scene in scenes:
        scene.detections.append((np.ones(scene.size, dtype=bool), 9, 0.99))
    assert evaluate(scenes).rows() == pytest.approx(before.rows(), nan_ok=True)
    assert 9 not in evaluate(scenes).by_class


def test_an_image_may_hold_more_than_255_objects():
    bitmaps = np.eye(256, dtype=bool).reshape(256, 16, 16)
    detections = {"masks": bitmaps[:8], "scores": np.arange(8)}
    assert mask_ap([{"masks": bitmaps}], [detections]).ar[100] == pytest.approx(8 / 256)


# ------------------------------------------------------------------------------------------------ arguments


THING = Instances.of([rectangle(0, 10, 0, 10)])
FOUND = Instances.of([rectangle(0, 10, 0, 10)], scores=[0.5])


def test_mappings_in_the_form_of_other_libraries_are_accepted():
    scenes = random_scenes(4)
    truth = [
        {"masks": t.rles, "labels": t.labels.tolist(), "iscrowd": t.crowd, "size": t.size}
        for t in (scene.truth_instances() for scene in scenes)
    ]
    detections = [
        {"masks": torch.from_numpy(d.masks), "labels": torch.tensor(d.labels), "scores": torch.tensor(d.scores)}
        for d in (scene.detected_instances() for scene in scenes)
    ]
    assert repr(mask_ap(truth, detections).rows()) == repr(evaluate(scenes).rows())  # NaN equals NaN as text


@pytest.mark.parametrize(
    ("truth", "predictions", "message"),
    [
        ([], [], "0 images"),
        ([THING], [FOUND, FOUND], "1 images with truth and 2"),
        ([THING, THING], [FOUND, THING], "image 1: the predictions have no scores"),
        ([THING], [Instances.of([rectangle(0, 9, 0, 9, (80, 100))], scores=[1])], r"image 0: .*\(80, 100\): bring"),
        ([THING], [{"masks": FOUND.rles, "scores": [0.5, 0.6]}], "2 scores for 1 masks"),
    ],
)
def test_truth_and_predictions_that_do_not_fit_are_refused(truth, predictions, message):
    with pytest.raises(ValueError, match=message):
        mask_ap(truth, predictions)


def test_a_result_can_be_printed_and_stored():
    result = evaluate(random_scenes(0))
    assert all(name in str(result) for name in ("AP50-95", "AP small", "AR100"))
    assert json.loads(json.dumps({"by_class": result.by_class, **result.rows()}))["by_class"].keys() == {"1", "2", "3"}
    assert "array" not in repr(result)
    with pytest.raises(ValueError, match="iou must be one of 0.5, 0.55, .*, not 0.51"):
        result.curve(0.51)


# ------------------------------------------------------------------------------------------------ matches and counts


@pytest.mark.parametrize(("iou", "threshold_index"), [(0.5, 0), (0.75, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_matches_equal_those_of_pycocotools(seed, iou, threshold_index):
    scenes = random_scenes(seed + 40, classes=2, images=4)
    tables = [t for t in run_cocoeval(scenes).evalImgs if t is not None and t["aRng"] == [0, 1e10]]
    first_detection, first_object = 1, 5000
    for image_id, scene in enumerate(scenes, 100):
        matched, ignored, missed = set(), set(), set()
        for table in (t for t in tables if t["image_id"] == image_id):
            columns = (table["dtIds"], table["dtMatches"][threshold_index], table["dtIgnore"][threshold_index])
            for detection, truth, is_ignored in zip(*columns, strict=True):
                if is_ignored:
                    ignored.add(detection - first_detection)
                elif truth:
                    matched.add((detection - first_detection, int(truth) - first_object))
            columns = (table["gtIds"], table["gtMatches"][threshold_index], table["gtIgnore"])
            missed |= {truth - first_object for truth, match, crowd in zip(*columns, strict=True) if not match + crowd}
        result = match_detections(scene.truth_instances(), scene.detected_instances(), iou)
        assert {(int(i), int(t)) for i, t in zip(result.order, result.truth, strict=True) if t >= 0} == matched
        assert set(result.order[result.ignored].tolist()) == ignored
        assert result.missed.tolist() == sorted(missed)
        first_detection += len(scene.detections)
        first_object += len(scene.truth)


def test_matches_computed_by_hand():
    truth = Instances.of([rectangle(0, 10, 0, 10), rectangle(0, 10, 20, 30), rectangle(20, 40, 0, 20)], [1, 1, 2])
    detections = Instances.of(
        [
            rectangle(0, 10, 0, 10),  # correct, but the next one has a higher score and takes the object
            rectangle(0, 8, 0, 10),  # 0.8 of the first object
            rectangle(0, 10, 20, 25),  # exactly 0.5 of the second
            rectangle(20, 40, 0, 20),  # the third, with another class
            rectangle(30, 40, 40, 50),  # nothing
        ],
        [1, 1, 1, 1, 2],
        [0.6, 0.9, 0.3, 0.8, 0.7],
    )
    result = match_detections(truth, detections)
    assert result.order.tolist() == [1, 3, 4, 0, 2] and result.scores.tolist() == [0.9, 0.8, 0.7, 0.6, 0.3]
    assert result.truth.tolist() == [0, -1, -1, -1, 1] and result.correct.tolist() == [True, False, False, False, True]
    assert result.iou.tolist() == pytest.approx([0.8, 0, 0, 0, 0.5])
    assert result.missed.tolist() == [2] and not result.ignored.any()
    assert count_detections([result], 0) == DetectionCounts(0, correct=2, wrong=3, missed=1)
    assert count_detections([result], 0.6) == DetectionCounts(0.6, correct=1, wrong=3, missed=2)
    assert count_detections([result, result], 0.61) == DetectionCounts(0.61, correct=2, wrong=4, missed=4)
    assert match_detections(truth, detections, 0.85).truth.tolist() == [-1, -1, -1, 0, -1]


def test_a_detection_on_a_crowd_is_neither_correct_nor_wrong_and_a_crowd_is_never_missed():
    truth = Instances.of([rectangle(0, 40, 20, 50), rectangle(0, 10, 0, 10)], [1, 1], crowd=[1, 0])
    detections = Instances.of(
        [rectangle(5, 9, 30, 40), rectangle(20, 30, 30, 40), rectangle(30, 40, 15, 24), rectangle(0, 9, 20, 30)],
        [1, 1, 1, 2],  # two on the crowd, one less than half on it, one of another class
        [0.9, 0.8, 0.7, 0.6],
    )
    result = match_detections(truth, detections)
    assert result.ignored.tolist() == [True, True, False, False] and result.missed.tolist() == [1]
    assert count_detections([result], 0) == DetectionCounts(0, correct=0, wrong=2, missed=1)


def test_images_without_objects_or_without_detections():
    nothing = Instances.of([], size=(40, 50))
    assert match_detections(THING, nothing).missed.tolist() == [0]
    only_false = match_detections(nothing, FOUND)
    assert only_false.truth.tolist() == [-1] and only_false.missed.tolist() == [] and not only_false.ignored.any()
    assert count_detections([match_detections(nothing, nothing)], 0.5) == DetectionCounts(0.5, 0, 0, 0)


def test_precision_recall_and_f1():
    counts = DetectionCounts(0.5, correct=6, wrong=2, missed=4)
    assert (counts.precision, counts.recall, counts.f1) == (0.75, 0.6, pytest.approx(2 * 0.75 * 0.6 / 1.35))
    nothing = DetectionCounts(0.5, 0, 0, 0)
    assert math.isnan(nothing.precision) and math.isnan(nothing.recall) and nothing.f1 == 1


def matches_of(*detections: tuple[float, bool], missed: int = 0) -> Matches:
    """Matches with these scores, in falling order, and whether each is correct."""
    scores, correct = (np.array(column) for column in zip(*detections, strict=True))
    zeros = np.zeros(len(scores))
    return Matches(scores, np.where(correct, 0, -1), zeros, zeros.astype(bool), np.zeros(missed), zeros.astype(int))


def test_the_best_score_threshold_has_the_highest_f1_and_is_the_lowest_of_equals():
    matches = [
        matches_of((0.9, True), (0.62, True), (0.58, False), (0.3, False)),
        matches_of((0.61, True), (0.2, False), missed=1),
    ]
    assert best_score_threshold(matches) == pytest.approx(0.6)
    assert best_score_threshold([matches_of((0.9, True))]) == pytest.approx(0.05)
    assert best_score_threshold([matches_of((0.9, False), (0.1, False))]) == pytest.approx(0.95)


def squares(count, score=None):
    """`count` squares of 4 pixels in a row."""
    masks = np.zeros((count, 6, 6 * count), dtype=bool)
    for index in range(count):
        masks[index, 1:5, 6 * index : 6 * index + 4] = True
    return Instances.of(masks, scores=None if score is None else [score] * count)


def test_more_objects_than_detections_count_are_said():
    with pytest.warns(UserWarning, match=r"image 1 has 120.* only 100 .*max_detections=\(1, 10, 120\)"):
        assert mask_ap([squares(3), squares(120)], [squares(3, 0.9), squares(120, 0.9)]).ap < 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mask_ap([squares(120)], [squares(120, 0.9)], max_detections=(1, 10, 120)).ap == pytest.approx(1)


def test_none_stands_for_an_image_in_which_nothing_was_found():
    assert mask_ap([squares(3), squares(1)], [squares(3, 0.9), None]).ar[100] == pytest.approx(0.75)


def test_coco_results_are_read_with_their_data_set(tmp_path, tiny):
    data = tiny.open(categories=["cup"])
    results = [
        {key: item[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 0.9}
        for index in range(len(data))
        for item in data.annotations(index)
        if not item.get("iscrowd")
    ]
    other = results[0] | {"category_id": 7, "score": 0.95}  # a category that the data set leaves out
    file = tmp_path / "results.json"
    file.write_text(json.dumps([*results, other]))
    assert mask_ap(data, file).ap == mask_ap(data, results).ap == pytest.approx(1)
    for wrong, message in (({"image_id": 99}, "such as 99"), ({"segmentation": None}, "polygon|mask")):
        with pytest.raises((ValueError, TypeError), match=message):
            mask_ap(data, [results[0] | wrong])
    with pytest.raises(ValueError, match=r"has no \['segmentation'\]"):
        mask_ap(data, [{key: value for key, value in results[0].items() if key != "segmentation"}])
