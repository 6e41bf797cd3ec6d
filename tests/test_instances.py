"""The objects of an image: out of any kind of masks, and what is read off them."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask
from torch.utils.data import Subset

from seglib.datasets.base import all_instances
from seglib.instances import Instances, as_instances
from seglib.masks import IGNORE, mask_to_rle

SIZE = (6, 9)  # of different sides: what swaps them is seen
SQUARE = [1, 1, 4, 1, 4, 5, 1, 5]  # x 1 to 3, y 1 to 4
BESIDE = [6, 2, 9, 2, 9, 4, 6, 4]
stacks = arrays(bool, st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)))


def box(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A bitmap with a rectangle of True."""
    bitmap = np.zeros(size, dtype=bool)
    bitmap[top:bottom, left:right] = True
    return bitmap


def runs(bitmap: np.ndarray) -> list[int]:
    """COCO's run lengths, down the columns, zeros first."""
    flat = bitmap.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return [0, *counts] if flat[0] else counts


FIRST, SECOND = box(1, 5, 1, 4), box(2, 4, 6, 9)
BOTH = np.stack([FIRST, SECOND])
KINDS = {
    "bool array": BOTH,
    "byte array": BOTH.astype(np.uint8),
    "float array": BOTH.astype(np.float32),
    "Fortran's order": np.asfortranarray(BOTH),
    "tensor": torch.from_numpy(BOTH),
    "float tensor with a gradient": torch.from_numpy(BOTH).float().requires_grad_(),
    "list of arrays": [FIRST, SECOND],
    "tuple of tensors": (torch.from_numpy(FIRST), torch.from_numpy(SECOND).byte()),
    "compressed RLE": [mask_to_rle(FIRST), mask_to_rle(SECOND)],
    "compressed RLE in bytes": [coco_mask.encode(np.asfortranarray(one.astype(np.uint8))) for one in (FIRST, SECOND)],
    "uncompressed RLE": [{"size": list(SIZE), "counts": runs(one)} for one in (FIRST, SECOND)],
    "RLE of a size that is a tuple": [{"size": SIZE, "counts": runs(one)} for one in (FIRST, SECOND)],
    "polygons": [[SQUARE], [BESIDE]],
    "polygons in arrays": [[np.array(SQUARE)], [np.array(BESIDE, dtype=float)]],
    "polygons in tuples": ((tuple(SQUARE),), (tuple(BESIDE),)),
    "an array and an RLE": [FIRST, mask_to_rle(SECOND)],
    "an RLE and polygons": [mask_to_rle(FIRST), [BESIDE]],
    "polygons and an array": [[SQUARE], SECOND],
    "a tensor and polygons": [torch.from_numpy(FIRST), [BESIDE]],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given_size", [None, SIZE, torch.Size(SIZE)])
def test_any_kind_of_masks_becomes_the_same_instances(kind, given_size):
    if given_size is None and kind in ("polygons", "polygons in arrays", "polygons in tuples"):
        with pytest.raises(ValueError, match="give size"):
            Instances.of(KINDS[kind])
        return
    objects = Instances.of(KINDS[kind], size=given_size)
    assert objects.size == SIZE and len(objects) == 2
    assert objects.masks.dtype == bool and (objects.masks == BOTH).all()
    assert objects.rles == [mask_to_rle(FIRST), mask_to_rle(SECOND)]
    assert objects.labels.tolist() == [1, 1] and objects.scores is None and objects.crowd.tolist() == [False, False]


def test_an_object_in_several_polygons_is_one_object():
    objects = Instances.of([[SQUARE, BESIDE]], size=SIZE)
    assert len(objects) == 1 and (objects.masks[0] == FIRST | SECOND).all()


def test_an_object_without_a_polygon_is_empty_and_stays_an_object():
    objects = Instances.of([[], [SQUARE]], size=SIZE)
    assert objects.areas.tolist() == [0, 12] and objects.boxes[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("nothing", [[], np.zeros((0, *SIZE), bool), torch.zeros(0, *SIZE)])
def test_an_image_without_objects(nothing):
    objects = Instances.of(nothing, [], [], [], size=SIZE)
    assert len(objects) == 0 and objects.size == SIZE
    assert objects.masks.shape == (0, *SIZE) and objects.boxes.shape == (0, 4) and objects.areas.shape == (0,)
    assert objects.labels.dtype == int and objects.scores.dtype == float and objects.crowd.dtype == bool
    assert not objects.numbered().any() and not objects.semantic().any() and objects.semantic().shape == SIZE
    assert len(objects.pick([])) == len(objects.above(0.5)) == 0
    if len(np.shape(nothing)) == 3:
        assert Instances.of(nothing).size == SIZE


@given(stacks, st.data())
@settings(max_examples=60, deadline=None)
def test_areas_and_boxes_are_those_of_the_pixels(stack, data):
    objects = Instances.of(stack)
    assert objects.areas.tolist() == stack.sum((1, 2)).tolist()
    for bitmap, found in zip(stack, objects.boxes.tolist(), strict=True):
        rows, columns = np.nonzero(bitmap)
        if len(rows):
            assert found == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    keep = data.draw(arrays(bool, len(stack)))
    assert (objects.pick(keep).masks == stack[keep]).all()


# ------------------------------------------------------------------------------------------------ what goes with masks


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda values: torch.tensor(values).reshape(-1, 1)])
def test_labels_scores_and_crowds_of_any_kind(kind):
    objects = Instances.of(BOTH, kind([2, 1]), kind([0.25, 0.5]), kind([0, 1]))
    assert objects.labels.tolist() == [2, 1] and objects.labels.dtype == int
    assert objects.scores.tolist() == [0.25, 0.5] and objects.scores.dtype == float
    assert objects.crowd.tolist() == [False, True] and objects.crowd.dtype == bool


def test_what_was_given_is_copied_and_the_result_is_frozen():
    labels = np.array([1, 2])
    objects = Instances.of(BOTH, labels)
    labels[0] = 7
    assert objects.labels.tolist() == [1, 2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        objects.labels = labels


@pytest.fixture
def three() -> Instances:
    return Instances.of([FIRST, SECOND, FIRST | SECOND], [3, 1, 2], [0.5, 0.9, 0.2], [0, 0, 1])


@pytest.mark.parametrize(
    ("which", "order"),
    [
        ([2, 0], [2, 0]),
        ([], []),
        (np.array([1, 1]), [1, 1]),
        ([True, False, True], [0, 2]),
        (np.array([False] * 3), []),
        (torch.tensor([True, True, False]), [0, 1]),
        (torch.tensor([2]), [2]),
        (slice(1, None), [1, 2]),
        (np.argsort([-0.5, -0.9, -0.2]), [1, 0, 2]),
    ],
)
def test_pick_takes_everything_along(three, which, order):
    some = three.pick(which)
    assert some.rles == [three.rles[i] for i in order] and some.size == three.size
    assert some.labels.tolist() == [[3, 1, 2][i] for i in order]
    assert some.scores.tolist() == [[0.5, 0.9, 0.2][i] for i in order]
    assert some.crowd.tolist() == [i == 2 for i in order]


def test_pick_of_the_truth_has_no_scores(three):
    assert dataclasses.replace(three, scores=None).pick([0]).scores is None


def test_above_has_the_score_itself(three):
    assert three.above(0.5).labels.tolist() == [3, 1]
    assert three.above(0.51).labels.tolist() == [1]
    assert len(three.above(0)) == 3 and len(three.above(1)) == 0


# ------------------------------------------------------------------------------------------------ as one mask


def test_numbered_shows_the_smaller_of_two():
    large, small = box(0, 6, 0, 6), box(2, 4, 2, 8)
    for masks, inner, outer in (([large, small], 2, 1), ([small, large], 1, 2)):
        numbers = Instances.of(masks).numbered()
        assert np.issubdtype(numbers.dtype, np.integer) and numbers.shape == SIZE
        assert (numbers[small] == inner).all() and (numbers[large & ~small] == outer).all()
        assert (numbers[~(large | small)] == 0).all()


def test_numbered_counts_beyond_a_byte():
    bitmaps = np.eye(400, dtype=bool).reshape(400, 20, 20)
    assert (Instances.of(bitmaps).numbered() == np.arange(1, 401).reshape(20, 20)).all()


def test_semantic_shows_the_smaller_of_two_whatever_their_classes():
    large, small = box(0, 6, 0, 6), box(2, 4, 2, 8)
    for masks, labels in (([large, small], [1, 2]), ([small, large], [2, 1]), ([large, small], [2, 1])):
        mask = Instances.of(masks, labels).semantic()
        of_large, of_small = labels if masks[0] is large else labels[::-1]
        assert mask.dtype == np.uint8
        assert (mask[small] == of_small).all() and (mask[large & ~small] == of_large).all()
        assert (mask[~(large | small)] == 0).all()


@pytest.mark.parametrize("crowd_first", [True, False])
@pytest.mark.parametrize("crowd_area", [box(0, 6, 0, 9), box(2, 3, 2, 8)])  # larger than the object, and smaller
def test_a_crowd_is_255_but_where_an_object_lies_on_it(crowd_first, crowd_area):
    thing = box(1, 5, 1, 4)
    given = [(crowd_area, 1, True), (thing, 2, False)]
    masks, labels, crowd = zip(*(given if crowd_first else given[::-1]), strict=True)
    mask = Instances.of(masks, labels, crowd=crowd).semantic()
    assert (mask[thing] == 2).all() and (mask[crowd_area & ~thing] == IGNORE).all()
    assert (mask[~(crowd_area | thing)] == 0).all()


@given(stacks, st.data())
@settings(max_examples=60, deadline=None)
def test_semantic_equals_a_plain_look_at_each_pixel(stack, data):
    labels = data.draw(st.lists(st.integers(1, 254), min_size=len(stack), max_size=len(stack)))
    crowd = data.draw(st.lists(st.booleans(), min_size=len(stack), max_size=len(stack)))
    mask = Instances.of(stack, labels, crowd=crowd).semantic()
    areas = stack.sum((1, 2))
    for y, x in np.ndindex(mask.shape):
        on = [i for i in range(len(stack)) if stack[i, y, x]]
        things = [i for i in on if not crowd[i]]
        smallest = {labels[i] for i in things if areas[i] == min(areas[j] for j in things)}
        assert mask[y, x] in (smallest or ({IGNORE} if on else {0}))


def test_254_is_a_class_and_255_is_none():
    assert Instances.of([FIRST], [254]).semantic().max() == 254
    with pytest.raises(ValueError, match="label 255.*up to 254"):
        Instances.of([FIRST], [255]).semantic()


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masks": BOTH, "labels": [1]}, "1 labels for 2 masks"),
        ({"masks": BOTH, "scores": [0.1, 0.2, 0.3]}, "3 scores for 2 masks"),
        ({"masks": BOTH, "crowd": []}, "0 crowd for 2 masks"),
        ({"masks": BOTH, "labels": [1, 0]}, "label 0: classes count from 1"),
        ({"masks": BOTH, "labels": [1, -4]}, "label -4"),
        ({"masks": BOTH, "labels": [1, 1.5]}, "labels are whole numbers.*1.5"),
        ({"masks": BOTH, "labels": [1, float("nan")]}, "labels are whole numbers"),
        ({"masks": BOTH, "labels": [1, float("inf")]}, "labels are whole numbers"),
        ({"masks": BOTH, "scores": [0.5, float("nan")]}, "score is not a finite number"),
        ({"masks": BOTH, "scores": [0.5, float("inf")]}, "score is not a finite number"),
        ({"masks": BOTH * 0.7}, "threshold"),
        ({"masks": BOTH.astype(np.uint8) * 255}, "True and False"),
        ({"masks": BOTH, "size": (9, 6)}, r"shape \(6, 9\) in an image of \(9, 6\)"),
        ({"masks": [FIRST, SECOND.T]}, r"shape \(9, 6\) in an image of \(6, 9\)"),
        ({"masks": [mask_to_rle(FIRST), mask_to_rle(SECOND.T)]}, r"\(9, 6\) in an image of \(6, 9\)"),
        ({"masks": [mask_to_rle(FIRST), SECOND.T]}, r"shape \(9, 6\) in an image of \(6, 9\)"),
        ({"masks": [mask_to_rle(FIRST)], "size": (9, 6)}, r"\(6, 9\) in an image of \(9, 6\)"),
        ({"masks": []}, "give size"),
        ({"masks": [[SQUARE]]}, "give size"),
        ({"masks": [[SQUARE], [[*SQUARE, 2, 2]]]}, "give size"),
        ({"masks": FIRST}, r"shape \(6, 9\).*\(N, H, W\)"),
        ({"masks": BOTH[:, None]}, r"shape \(2, 1, 6, 9\).*\(N, H, W\)"),
        ({"masks": torch.from_numpy(BOTH)[:, None].float()}, r"shape \(2, 1, 6, 9\).*\(N, H, W\)"),
        ({"masks": [[[1, 1, 4, 4]]], "size": SIZE}, "2 points"),
        ({"masks": [SQUARE], "size": SIZE}, r"shape \(8,\)"),  # an object is a list of polygons, not one
        ({"masks": [[[20, 20, 30, 20, 30, 30]]], "size": SIZE}, "wholly outside"),
        ({"masks": [{"size": list(SIZE), "counts": [3]}]}, "add up to 3"),
        ({"masks": [{"size": list(SIZE), "counts": "5"}]}, "covers 5 pixels"),
        ({"masks": [{"size": list(SIZE)}]}, "an RLE must be"),
    ],
)
def test_what_cannot_be_objects_says_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        Instances.of(**arguments)


def test_above_without_scores_says_so():
    with pytest.raises(ValueError, match="no scores"):
        Instances.of(BOTH).above(0.5)


# ------------------------------------------------------------------------------------------------ from elsewhere


def test_a_mapping_is_taken_for_instances():
    objects = as_instances({"masks": BOTH, "labels": [2, 1], "scores": [0.5, 0.25], "boxes": "of no interest"})
    assert objects.labels.tolist() == [2, 1] and objects.scores.tolist() == [0.5, 0.25]
    for key in ("crowd", "iscrowd"):
        assert as_instances({"masks": BOTH, key: torch.tensor([0, 1])}).crowd.tolist() == [False, True]
    assert as_instances({"masks": [], "size": SIZE}).size == SIZE
    assert as_instances(objects) is objects


@pytest.mark.parametrize("wrong", [BOTH, [FIRST], {"boxes": []}, None])
def test_what_is_no_mapping_with_masks_is_refused(wrong):
    with pytest.raises(TypeError, match='"masks"'):
        as_instances(wrong)


def test_the_instances_of_a_data_set_and_of_a_part_of_it(tiny):
    tiny.content["annotations"].append(
        {"id": 13, "image_id": 1, "category_id": 7, "iscrowd": 1, "segmentation": {"size": [8, 10], "counts": [0, 80]}}
    )
    data = tiny.open()
    whole = all_instances(data)
    assert [one.labels.tolist() for one in whole] == [[1, 2], [2]]
    assert [one.crowd.tolist() for one in whole] == [[False, True], [False]]
    assert whole[0].size == (8, 10) and (whole[0].masks == np.stack(data.bitmaps(0))).all()
    assert whole[0].scores is None and whole[0].semantic().tolist() == data.mask(0).tolist()
    part = all_instances(Subset(Subset(data, [1, 0]), [1, 0, 1]))
    assert [one.labels.tolist() for one in part] == [[1, 2], [2], [1, 2]]


def test_an_image_of_a_data_set_without_objects_has_its_size(tiny):
    tiny.content["annotations"].pop()
    assert tiny.open().instances(1).masks.shape == (0, 8, 10)
