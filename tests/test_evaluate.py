"""Mask AP against pycocotools, which is set up here by itself: a JSON file, ids of its own, other kinds of masks."""

import json
import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seglib.evaluate import (
    AERIAL_AREAS,
    COCO_AREAS,
    Counts,
    Matches,
    best_score,
    count,
    mask_ap,
    match,
)
from seglib.instances import Instances

SIZES = [(120, 150), (150, 110), (40, 33), (64, 64)]


@dataclass
class Picture:
    """An image: its truth as (polygon or bitmap, label, crowd), what was found as (bitmap, label, score)."""

    size: tuple[int, int]
    truth: list = field(default_factory=list)
    found: list = field(default_factory=list)


def drawn(shape, size: tuple[int, int]) -> np.ndarray:
    """A polygon or a bitmap as a bitmap; nothing of seglib is asked."""
    if isinstance(shape, np.ndarray):
        return shape
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([shape], *size))).astype(bool)


def rectangle(top, bottom, left, right, size=(40, 50)) -> np.ndarray:
    bitmap = np.zeros(size, dtype=bool)
    bitmap[top:bottom, left:right] = True
    return bitmap


def blob(rng, size: tuple[int, int]) -> list[float]:
    """A polygon around some point, from a few pixels to more than 96 x 96."""
    height, width = size
    radius = rng.choice([4, 12, 25, 90]) * rng.uniform(0.6, 1.4)
    turn = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 12)))
    x, y = rng.uniform(2, width - 2), rng.uniform(2, height - 2)
    points = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1)
    return np.clip(points, 0, [width, height]).ravel().round(2).tolist()


def picture(rng, classes: int, crowds: bool = True) -> Picture:
    """Random objects, overlapping, and detections that are right, nearly, twice, of another class or of nothing."""
    one = Picture(SIZES[rng.integers(len(SIZES))])
    for _ in range(rng.integers(0, 7)):
        shape = blob(rng, one.size)
        crowd = crowds and rng.random() < 0.2
        if crowd or rng.random() < 0.3:
            shape = drawn(shape, one.size)
        one.truth.append((shape, int(rng.integers(1, classes + 1)), crowd))
    for shape, label, _ in one.truth:
        for _ in range(rng.choice([0, 1, 1, 2])):
            moved = np.roll(drawn(shape, one.size), tuple(rng.integers(-3, 4, 2) * rng.integers(0, 3)), (0, 1))
            label = label if rng.random() < 0.8 else int(rng.integers(1, classes + 2))  # a class too many
            one.found.append((moved, label, float(rng.choice([rng.random(), rng.integers(1, 5) / 5]))))  # with ties
    for _ in range(rng.integers(0, 3)):
        one.found.append((drawn(blob(rng, one.size), one.size), int(rng.integers(1, classes + 1)), float(rng.random())))
    order = rng.permutation(len(one.found))
    one.found = [one.found[i] for i in order]
    return one


def pictures(seed: int, classes: int = 3, images: int = 6, crowds: bool = True) -> list[Picture]:
    rng = np.random.default_rng(seed)
    return [picture(rng, classes, crowds) for _ in range(images)]


# ------------------------------------------------------------------------------------------------ as seglib, as COCO


def ours(some: list[Picture], areas=COCO_AREAS, max_detections=(1, 10, 100)):
    return mask_ap([truth_of(one) for one in some], [found_of(one) for one in some], areas, max_detections)


def truth_of(one: Picture) -> Instances:
    masks, labels, crowd = zip(*one.truth, strict=True) if one.truth else ([], [], [])
    return Instances.of([drawn(mask, one.size) for mask in masks], labels, crowd=crowd, size=one.size)


def found_of(one: Picture) -> Instances:
    masks, labels, scores = zip(*one.found, strict=True) if one.found else ([], [], [])
    return Instances.of(masks, labels, scores, size=one.size)


def runs(bitmap: np.ndarray) -> list[int]:
    """Uncompressed RLE's counts."""
    flat = bitmap.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return [0, *counts] if flat[0] else counts


def category(label: int) -> int:
    return 7 * label + 4


def coco_file(some: list[Picture]) -> dict:
    """The truth as an annotation file; its ids rise as ours do, since between equal scores the order decides."""
    images, annotations = [], []
    for number, one in enumerate(some):
        key = 100 + 13 * number
        images.append({"id": key, "file_name": f"{key}.jpg", "height": one.size[0], "width": one.size[1]})
        for shape, label, crowd in one.truth:
            bitmap = drawn(shape, one.size)
            counts = {"size": list(one.size), "counts": runs(bitmap)}
            annotations.append(
                {
                    "id": 5000 + 3 * len(annotations),
                    "image_id": key,
                    "category_id": category(label),
                    "segmentation": counts if isinstance(shape, np.ndarray) else [shape],
                    "area": int(bitmap.sum()),
                    "bbox": [0, 0, 1, 1],
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": category(label), "name": f"thing {label}"} for label in range(1, 6)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def results(some: list[Picture]) -> list[dict]:
    """What was found, as a results file."""
    listed = []
    for number, one in enumerate(some):
        for bitmap, label, score in one.found:
            rle = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
            rle["counts"] = rle["counts"].decode()
            listed.append(
                {"image_id": 100 + 13 * number, "category_id": category(label), "segmentation": rle, "score": score}
            )
    return listed


def theirs(some: list[Picture], folder, areas=None, max_detections=None) -> COCOeval:
    """COCOeval, run as its own demo runs it."""
    (folder / "truth.json").write_text(json.dumps(coco_file(some)))
    (folder / "found.json").write_text(json.dumps(results(some)))
    truth = COCO(folder / "truth.json")
    if results(some):
        found = truth.loadRes(str(folder / "found.json"))
    else:  # loadRes takes no empty file
        found = COCO()
        found.dataset = truth.dataset | {"annotations": []}
        found.createIndex()
    evaluation = COCOeval(truth, found, "segm")
    if areas is not None:
        evaluation.params.areaRng = [[0, 1e10], *map(list, areas.values())]
        evaluation.params.areaRngLbl = ["all", *areas]
    if max_detections is not None:
        evaluation.params.maxDets = list(max_detections)
    evaluation.evaluate()
    evaluation.accumulate()
    if areas is None and max_detections is None:
        evaluation.summarize()
    return evaluation


def mean(table: np.ndarray) -> float:
    """As COCOeval.summarize has it, but for NaN in place of -1."""
    return float(np.mean(table[table > -1])) if (table > -1).any() else math.nan


def told(result) -> list[str]:
    """Every figure to its last digit, NaN included."""
    return [repr(value) for value in result.rows().values()]


def same(a, b) -> bool:
    return np.allclose(a, b, rtol=0, atol=1e-6, equal_nan=True)


def check(some: list[Picture], folder) -> None:
    """All that mask_ap says against COCOeval's stats and tables."""
    result, evaluation = ours(some), theirs(some, folder)
    stats = np.where(evaluation.stats < 0, np.nan, evaluation.stats)
    assert same([result.ap, result.ap50, result.ap75], stats[:3])
    assert list(result.by_size) == ["small", "medium", "large"] and same(list(result.by_size.values()), stats[3:6])
    assert list(result.ar) == [1, 10, 100] and same(list(result.ar.values()), stats[6:9])
    check_tables(result, evaluation, some)


def check_tables(result, evaluation: COCOeval, some: list[Picture]) -> None:
    """The parts of the tables that mask_ap hands on."""
    precision = evaluation.eval["precision"]  # (T, R, K, A, M)
    labels = sorted({label for one in some for _, label, _ in one.truth})
    assert list(result.by_class) == labels
    for place, label in enumerate(labels):
        theirs_of_class = precision[:, :, label - 1, 0, -1]  # categories are listed by id, and all five are there
        assert same(result.by_class[label], mean(theirs_of_class))
        assert same(result.precision[:, :, place], theirs_of_class)
    for threshold, table in zip(evaluation.params.iouThrs, precision[..., 0, -1], strict=True):
        assert same(result.curve(threshold), [mean(row) for row in table])
    assert same(result.recall, np.linspace(0, 1, 101)) and same(result.thresholds, np.linspace(0.5, 0.95, 10))
    assert result.images == len(some) and result.detections == sum(len(one.found) for one in some)
    assert result.truths == sum(not crowd for one in some for *_, crowd in one.truth)


# ------------------------------------------------------------------------------------------------ against pycocotools


@pytest.mark.parametrize("seed", range(16))
def test_mask_ap_is_pycocotools(seed, tmp_path):
    check(pictures(seed, classes=1 + seed % 4), tmp_path)


def test_the_random_pictures_hold_what_they_should():
    """Else the test above would be about less than it says."""
    some = [one for seed in range(16) for one in pictures(seed, classes=1 + seed % 4)]
    assert any(not one.truth for one in some) and any(not one.found for one in some)
    assert sum(crowd for one in some for *_, crowd in one.truth) > 20
    areas = [drawn(shape, one.size).sum() for one in some for shape, *_ in one.truth]
    assert all(sum(low <= area <= high for area in areas) > 10 for low, high in COCO_AREAS.values())
    scores = [score for one in some for *_, score in one.found]
    assert len(set(scores)) < 0.8 * len(scores)
    result = ours(some)
    assert 0.1 < result.ap < result.ap50 < 0.9


def test_images_without_truth_and_without_detections_between_others(tmp_path):
    some = pictures(3)
    some.insert(1, Picture((20, 30)))
    some.insert(3, Picture((20, 30), found=[(rectangle(2, 9, 3, 9, (20, 30)), 1, 0.95)]))
    some.append(Picture((20, 30), truth=[(rectangle(2, 9, 3, 9, (20, 30)), 1, False)]))
    check(some, tmp_path)


DEGENERATE = {
    "no detections": lambda one: setattr(one, "found", []),
    "all wrong": lambda one: setattr(one, "found", [(~drawn(s, one.size), label, 0.5) for s, label, _ in one.truth]),
    "each twice": lambda one: setattr(one, "found", [item for item in one.found for _ in range(2)]),
    "all right": lambda one: setattr(
        one, "found", [(drawn(s, one.size), label, 0.5) for s, label, crowd in one.truth if not crowd]
    ),
    "only crowds": lambda one: setattr(one, "truth", [(drawn(s, one.size), label, True) for s, label, _ in one.truth]),
    "no truth": lambda one: setattr(one, "truth", []),
    "another class": lambda one: setattr(one, "found", [(bitmap, 5, score) for bitmap, _, score in one.found]),
    "one score": lambda one: setattr(one, "found", [(bitmap, label, 0.5) for bitmap, label, _ in one.found]),
    "scores beyond 0 to 1": lambda one: setattr(one, "found", [(b, label, 9 - 20 * s) for b, label, s in one.found]),
    "empty masks": lambda one: setattr(
        one, "found", one.found + [(np.zeros(one.size, dtype=bool), 1, 0.7), (np.ones(one.size, dtype=bool), 1, 0.6)]
    ),
    "areas at the bounds of the ranges": lambda one: one.truth.extend(
        (rectangle(0, side, 0, side, one.size), 1, False) for side in (32, 96) if min(one.size) >= side
    ),
    "empty truth": lambda one: one.truth.append((np.zeros(one.size, dtype=bool), 1, False)),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("seed", [0, 1])
def test_mask_ap_is_pycocotools_where_everything_is_the_same(case, seed, tmp_path):
    some = pictures(seed)
    for one in some:
        DEGENERATE[case](one)
    check(some, tmp_path)


def test_what_must_come_out_in_the_plain_cases():
    def ap(case, seed=0):
        some = pictures(seed)
        for one in some:
            DEGENERATE[case](one)
        return ours(some)

    assert ap("all right").ap == ap("all right").ar[100] == pytest.approx(1)
    assert ap("no detections").ap == ap("another class").ap == 0
    assert mask_ap([THING], [Instances.of([rectangle(0, 10, 10, 20)], scores=[0.5])]).ap == 0
    assert ap("no detections").detections == 0 and ap("no detections").ar[1] == 0
    for case in ("only crowds", "no truth"):
        result = ap(case)
        assert all(math.isnan(value) for value in result.rows().values()) and np.isnan(result.curve()).all()
        assert result.truths == 0 and "n/a" in str(result)
    assert ap("no truth").by_class == {} and all(math.isnan(value) for value in ap("only crowds").by_class.values())


def test_a_class_predicted_but_never_true_does_not_change_ap():
    some = pictures(2)
    before = ours(some)
    for one in some:
        one.found.append((np.ones(one.size, dtype=bool), 9, 0.99))
    assert told(ours(some)) == told(before) and 9 not in ours(some).by_class


def crowded(images: int, squares: int) -> list[Picture]:
    """Little squares, each found, and 20 detections of nothing, of which some are surer."""
    some, rng = [], np.random.default_rng(0)
    for _ in range(images):
        one = Picture((72, 90))
        for number in range(squares):
            top, left = 5 * (number // 16), 5 * (number % 16)
            square = rectangle(top, top + 4, left, left + 4, one.size)
            one.truth.append((square, 1, False))
            one.found.append((square, 1, float(rng.random())))
        for number in range(20):
            one.found.append((rectangle(60, 70, number, number + 5, one.size), 1, float(rng.random())))
        some.append(one)
    return some


def test_of_more_than_a_hundred_detections_the_surest_count(tmp_path):
    check(crowded(2, 105), tmp_path)
    assert ours(crowded(1, 105)).ar[100] < 100 / 105 < ours(crowded(1, 105), max_detections=(100, 200)).ar[200] == 1


def test_more_than_255_objects_in_an_image():
    bitmaps = np.eye(256, dtype=bool).reshape(256, 16, 16)
    found = {"masks": bitmaps[:8], "scores": np.arange(8)}
    assert mask_ap([{"masks": bitmaps}], [found]).ar[100] == pytest.approx(8 / 256)


@pytest.mark.parametrize("max_detections", [(1, 10, 100), (3,), (2, 5), (1, 4, 30, 500)])
@pytest.mark.parametrize(
    "areas", [AERIAL_AREAS, {"a": (0, 300), "b": (250, 4000), "c": (4000, 1e10)}, {"x": (100, 101)}]
)
def test_other_ranges_and_numbers_of_detections(areas, max_detections, tmp_path):
    some = pictures(11) + crowded(1, 40)
    result, evaluation = ours(some, areas, max_detections), theirs(some, tmp_path, areas, max_detections)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    assert list(result.by_size) == list(areas) and list(result.ar) == list(max_detections)
    assert same(result.ap, mean(precision[..., 0, -1]))
    assert same(list(result.by_size.values()), [mean(precision[..., 1 + i, -1]) for i in range(len(areas))])
    assert same(list(result.ar.values()), [mean(recall[..., 0, i]) for i in range(len(max_detections))])
    check_tables(result, evaluation, some)


def test_mask_ap_is_torchmetrics():
    """But for images without truth: it does not count what is found on those."""
    detection = pytest.importorskip("torchmetrics.detection")
    some = [one for one in pictures(1, images=8) if one.truth]
    try:
        metric = detection.MeanAveragePrecision(
            iou_type="segm",
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),  # its own are rounded to 32 bits
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
        )
    except (ImportError, ModuleNotFoundError) as error:
        pytest.skip(f"torchmetrics lacks something: {error}")
    for one in some:
        truth, found = truth_of(one), found_of(one)
        metric.update(
            [
                {
                    "masks": torch.from_numpy(found.masks),
                    "labels": torch.from_numpy(found.labels),
                    "scores": torch.from_numpy(found.scores),
                }
            ],
            [
                {
                    "masks": torch.from_numpy(truth.masks),
                    "labels": torch.from_numpy(truth.labels),
                    "iscrowd": torch.from_numpy(truth.crowd.astype(int)),
                }
            ],
        )
    result, metrics = ours(some), metric.compute()
    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100")
    values = np.array([metrics[name].item() for name in names])
    assert same(list(result.rows().values()), np.where(values < 0, np.nan, values))


# ------------------------------------------------------------------------------------------------ what is handed in


@pytest.mark.parametrize("seed", [4, 8])
def test_arrays_rle_and_polygons_give_the_same(seed):
    some = pictures(seed)
    kinds = [
        lambda shape, size: drawn(shape, size),
        lambda shape, size: torch.from_numpy(drawn(shape, size)),
        lambda shape, size: {"size": list(size), "counts": runs(drawn(shape, size))},
        lambda shape, size: coco_mask.encode(np.asfortranarray(drawn(shape, size).astype(np.uint8))),
        lambda shape, size: shape if isinstance(shape, np.ndarray) else [shape],
    ]
    figures = []
    for kind in kinds:
        truth = [
            {
                "masks": [kind(shape, one.size) for shape, *_ in one.truth],
                "labels": [label for _, label, _ in one.truth],
                "iscrowd": [crowd for *_, crowd in one.truth],
                "size": one.size,
            }
            for one in some
        ]
        found = [
            {
                "masks": [kind(bitmap, one.size) for bitmap, *_ in one.found],
                "labels": torch.tensor([label for _, label, _ in one.found]),
                "scores": torch.tensor([score for *_, score in one.found], dtype=torch.float64),
                "size": one.size,
            }
            for one in some
        ]
        figures.append(told(mask_ap(truth, found)))
    assert figures == [told(ours(some))] * len(kinds)


THING = Instances.of([rectangle(0, 10, 0, 10)])
FOUND = Instances.of([rectangle(0, 10, 0, 10)], scores=[0.5])


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        ([], [], "0 images"),
        ([THING], [], "1 images with truth and 0 with predictions"),
        ([THING], [FOUND, FOUND], "1 images with truth and 2"),
        ([THING], [THING], "image 0: the predictions have no scores"),
        ([THING, THING], [FOUND, THING], "image 1: the predictions have no scores"),
        (
            [THING],
            [Instances.of([rectangle(0, 9, 0, 9, (80, 100))], scores=[1])],
            r"image 0: the truth is \(40, 50\) .height, width. but the prediction \(80, 100\): bring",
        ),
        ([THING], [Instances.of(FOUND.rles, scores=[0.5], crowd=[1])], "never of a crowd"),
        ([THING], [{"masks": FOUND.rles, "scores": [0.5, 0.6]}], "2 scores for 1 masks"),
        ([{"masks": FOUND.rles, "labels": [1, 2]}], [FOUND], "2 labels for 1 masks"),
    ],
)
def test_what_does_not_go_together_is_refused(truth, found, message):
    with pytest.raises(ValueError, match=message):
        mask_ap(truth, found)


@pytest.mark.parametrize(
    "wrong", [{"max_detections": value} for value in ((), (0, 10), (10, 1), (5, 5))] + [{"areas": {}}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="max_detections rises"):
        mask_ap([THING], [FOUND], **wrong)


def test_a_result_can_be_shown_and_kept():
    result = ours(pictures(0))
    text = str(result)
    assert "objects and" in text and all(name in text for name in ("AP50-95", "AP small", "AR100"))
    kept = json.dumps({"by_class": result.by_class, **result.rows()})
    assert json.loads(kept)["by_class"].keys() == {"1", "2", "3"}
    with pytest.raises(ValueError, match="no 0.51 among"):
        result.curve(0.51)
    assert "array" not in repr(result)


# ------------------------------------------------------------------------------------------------ matches and counts


def test_what_is_given_is_left_as_it_was():
    some = pictures(6)
    truth, found = [truth_of(one) for one in some], [found_of(one) for one in some]
    mask_ap(truth, found)
    again = [truth_of(one) for one in some]
    assert [one.rles for one in truth] == [one.rles for one in again]
    assert all((one.labels == other.labels).all() for one, other in zip(truth, again, strict=True))


@pytest.mark.parametrize(("iou", "place"), [(0.5, 0), (0.75, 5)])
@pytest.mark.parametrize("seed", range(8))
def test_match_is_that_of_pycocotools(seed, iou, place, tmp_path):
    some = pictures(seed + 40, classes=2, images=4)
    evaluation, start, ids = theirs(some, tmp_path), 0, coco_file(some)["annotations"]
    real = 0
    for number, one in enumerate(some):
        pairs, ignored, missed = set(), set(), set()
        for table in evaluation.evalImgs:
            if table is None or table["image_id"] != 100 + 13 * number or table["aRng"] != [0, 1e10]:
                continue
            for found, truth, ignore in zip(
                table["dtIds"], table["dtMatches"][place], table["dtIgnore"][place], strict=True
            ):
                if ignore:
                    ignored.add(found - 1 - start)
                elif truth:
                    pairs.add((found - 1 - start, int(truth - 5000) // 3 - real))
            for truth, found, crowd in zip(table["gtIds"], table["gtMatches"][place], table["gtIgnore"], strict=True):
                if not found and not crowd:
                    missed.add((truth - 5000) // 3 - real)
        result = match(truth_of(one), found_of(one), iou)
        assert {(int(i), int(t)) for i, t in zip(result.order, result.truth, strict=True) if t >= 0} == pairs
        assert set(result.order[result.ignored].tolist()) == ignored
        assert set(result.missed.tolist()) == missed and result.missed.tolist() == sorted(missed)
        start, real = start + len(one.found), real + len(one.truth)
    assert real == len(ids)


def test_match_by_hand():
    truth = Instances.of([rectangle(0, 10, 0, 10), rectangle(0, 10, 20, 30), rectangle(20, 40, 0, 20)], [1, 1, 2])
    found = Instances.of(
        [
            rectangle(0, 10, 0, 10),  # right, but less sure than the next, which took it
            rectangle(0, 8, 0, 10),  # 0.8 of the first
            rectangle(0, 10, 20, 25),  # exactly 0.5 of the second
            rectangle(20, 40, 0, 20),  # the third, by another class
            rectangle(30, 40, 40, 50),  # nothing
        ],
        [1, 1, 1, 1, 2],
        [0.6, 0.9, 0.3, 0.8, 0.7],
    )
    result = match(truth, found)
    assert isinstance(result, Matches)
    assert result.order.tolist() == [1, 3, 4, 0, 2] and result.scores.tolist() == [0.9, 0.8, 0.7, 0.6, 0.3]
    assert result.truth.tolist() == [0, -1, -1, -1, 1] and result.right.tolist() == [True, False, False, False, True]
    assert result.iou.tolist() == pytest.approx([0.8, 0, 0, 0, 0.5])
    assert result.missed.tolist() == [2] and not result.ignored.any()
    assert count([result], 0) == Counts(0, right=2, wrong=3, missed=1)
    assert count([result], 0.6) == Counts(0.6, right=1, wrong=3, missed=2)
    assert count([result, result], 0.61) == Counts(0.61, right=2, wrong=4, missed=4)
    assert match(truth, found, 0.51).missed.tolist() == [1, 2]
    assert match(truth, found, 0.85).truth.tolist() == [-1, -1, -1, 0, -1]


def test_of_two_free_objects_the_nearer_is_taken():
    truth = Instances.of([rectangle(0, 10, 0, 10), rectangle(0, 10, 2, 12)])
    found = Instances.of([rectangle(0, 10, 3, 13), rectangle(0, 10, 2, 12)], scores=[0.9, 0.8])
    assert match(truth, found).truth.tolist() == [1, 0]


def test_between_equals_the_first_detection_and_the_last_object_are_taken(tmp_path):
    """As COCO does, of which the numbers are those below."""
    thing = rectangle(0, 10, 0, 10)
    scores = np.random.default_rng(0).choice([0.5, 0.7], 40).tolist()
    one = Picture((40, 50), truth=[(thing, 1, False)] * 3, found=[(thing, 1, score) for score in scores])
    result = match(truth_of(one), found_of(one))
    assert result.order.tolist() == sorted(range(40), key=lambda i: (-scores[i], i))
    assert result.truth.tolist() == [2, 1, 0] + [-1] * 37
    table = next(table for table in theirs([one], tmp_path).evalImgs if table and table["aRng"] == [0, 1e10])
    assert table["dtMatches"][0].tolist() == [5006, 5003, 5000] + [0] * 37


def test_what_lies_on_a_crowd_is_neither_right_nor_wrong_and_a_crowd_is_never_missed():
    truth = Instances.of([rectangle(0, 40, 20, 50), rectangle(0, 10, 0, 10)], [1, 1], crowd=[1, 0])
    found = Instances.of(
        [rectangle(5, 9, 30, 40), rectangle(20, 30, 30, 40), rectangle(30, 40, 15, 24), rectangle(0, 9, 20, 30)],
        [1, 1, 1, 2],  # two on the crowd, one less than half on it, one of another class
        [0.9, 0.8, 0.7, 0.6],
    )
    result = match(truth, found)
    assert result.ignored.tolist() == [True, True, False, False]
    assert result.truth.tolist() == [-1] * 4 and result.missed.tolist() == [1]
    assert count([result], 0) == Counts(0, right=0, wrong=2, missed=1)
    assert count([result], 0.75) == Counts(0.75, right=0, wrong=0, missed=1)


def test_matches_of_nothing():
    nothing = Instances.of([], scores=[], size=(40, 50))
    assert match(THING, nothing).missed.tolist() == [0]
    empty = match(Instances.of([], size=(40, 50)), FOUND)
    assert empty.truth.tolist() == [-1] and empty.missed.tolist() == [] and not empty.ignored.any()
    assert count([match(Instances.of([], size=(40, 50)), nothing)], 0.5) == Counts(0.5, 0, 0, 0)
    with pytest.raises(ValueError, match="no scores"):
        match(THING, THING)
    with pytest.raises(ValueError, match="own size"):
        match(THING, Instances.of([], scores=[], size=(50, 40)))


@pytest.mark.parametrize("seed", range(6))
def test_counts_above_a_score_are_those_of_the_detections_above_it(seed):
    some = pictures(seed + 80, classes=2)
    matches = [match(truth_of(one), found_of(one)) for one in some]
    for score in (0, 0.2, 0.4, 0.5, 0.61, 0.8, 1):
        anew = [match(truth_of(one), found_of(one).above(score)) for one in some]
        assert count(matches, score) == Counts(
            score,
            right=sum(int(one.right.sum()) for one in anew),
            wrong=sum(int((~one.right & ~one.ignored).sum()) for one in anew),
            missed=sum(len(one.missed) for one in anew),
        )


def test_precision_recall_and_f1():
    some = Counts(0.5, right=6, wrong=2, missed=4)
    assert (some.precision, some.recall, some.f1) == (0.75, 0.6, pytest.approx(2 * 0.75 * 0.6 / 1.35))
    nothing = Counts(0.5, 0, 0, 0)
    assert math.isnan(nothing.precision) and math.isnan(nothing.recall) and nothing.f1 == 1
    assert Counts(0.5, 0, 3, 0).f1 == Counts(0.5, 0, 0, 3).f1 == 0
    assert Counts(0.5, 0, 3, 0).precision == 0 and math.isnan(Counts(0.5, 0, 3, 0).recall)


def scored(*items: tuple[float, bool], missed: int = 0) -> SimpleNamespace:
    """Matches of so many detections, each with its score and whether it is right."""
    scores, right = (np.array(column) for column in zip(*sorted(items, reverse=True), strict=True))
    return SimpleNamespace(scores=scores, right=right, ignored=np.zeros(len(scores), bool), missed=np.zeros(missed))


def test_best_score_has_the_highest_f1_and_is_the_lowest_of_equals():
    some = [
        scored((0.9, True), (0.62, True), (0.58, False), (0.3, False)),
        scored((0.61, True), (0.2, False), missed=1),
    ]
    assert best_score(some) == pytest.approx(0.6)
    assert best_score(some, scores=[0.1, 0.59, 0.6, 0.61, 0.7]) == pytest.approx(0.59)
    assert best_score([scored((0.9, True))]) == pytest.approx(0.05)
    assert best_score([scored((0.9, False), (0.1, False))]) == pytest.approx(0.95)  # where nothing is left to be wrong


@pytest.mark.parametrize("seed", range(4))
def test_best_score_beats_every_other(seed):
    some = pictures(seed + 20, classes=1)
    matches = [match(truth_of(one), found_of(one)) for one in some]
    best = best_score(matches)
    f1 = {score: count(matches, score).f1 for score in np.arange(1, 20) / 20}
    assert f1[best] == max(f1.values()) and best == min(score for score in f1 if f1[score] == f1[best])
