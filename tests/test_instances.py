"""The objects of an image, made from masks of any kind, and what is computed from them."""

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

SIZE = (6, 9)  # two different sides, so that a test notices when they are swapped
SQUARE = [1, 1, 4, 1, 4, 5, 1, 5]  # x 1 to 3, y 1 to 4
BESIDE = [6, 2, 9, 2, 9, 4, 6, 4]
stacks = arrays(bool, st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)))


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    bitmap = np.zeros(SIZE, dtype=bool)
    bitmap[top:bottom, left:right] = True
    return bitmap


FIRST, SECOND = box(1, 5, 1, 4), box(2, 4, 6, 9)
BOTH = np.stack([FIRST, SECOND])
KINDS = {
    "bool array": BOTH,
    "float array": BOTH.astype(np.float32),
    "Fortran order": np.asfortranarray(BOTH),
    "float tensor with a gradient": torch.from_numpy(BOTH).float().requires_grad_(),
    "list of arrays and tensors": [FIRST, torch.from_numpy(SECOND).byte()],
    "compressed RLE": [mask_to_rle(FIRST), coco_mask.encode(np.asfortranarray(SECOND.astype(np.uint8)))],
    "uncompressed RLE": [{"size": SIZE, "counts": [7, 4, 2, 4, 2, 4, 31]}, mask_to_rle(SECOND)],
    "polygons": [[SQUARE], [BESIDE]],
    "polygons as array and tuple": ((np.array(SQUARE),), (tuple(BESIDE),)),
    "a polygon beside an array": [[SQUARE], SECOND],
    "RLE and polygons": [mask_to_rle(FIRST), [BESIDE]],
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_any_kind_become_the_same_instances(kind):
    objects = Instances.of(KINDS[kind], size=torch.Size(SIZE) if kind.startswith("polygons") else None)
    assert objects.size == SIZE and len(objects) == 2
    assert objects.masks.dtype == bool and (objects.masks == BOTH).all()
    assert objects.rles == [mask_to_rle(FIRST), mask_to_rle(SECOND)]
    assert objects.labels.tolist() == [1, 1] and objects.scores is None and objects.crowd.tolist() == [False, False]


def test_several_polygons_are_one_object_and_none_is_an_empty_one():
    objects = Instances.of([[SQUARE, BESIDE], []], size=SIZE)
    assert (objects.masks[0] == FIRST | SECOND).all()
    assert objects.areas.tolist() == [18, 0] and objects.boxes[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("nothing", [[], torch.zeros(0, *SIZE)])
def test_an_image_without_objects(nothing):
    objects = Instances.of(nothing, [], [], [], size=SIZE)
    assert len(objects) == 0 and objects.masks.shape == (0, *SIZE) and objects.boxes.shape == (0, 4)
    assert objects.labels.dtype == int and objects.scores.dtype == float and objects.crowd.dtype == bool
    assert not objects.numbered().any() and objects.semantic().shape == SIZE and not objects.semantic().any()
    assert len(objects.pick([])) == len(objects.above(0.5)) == 0


@given(stacks, st.data())
@settings(max_examples=40)
def test_areas_and_boxes_are_those_of_the_pixels(stack, data):
    objects = Instances.of(stack)
    assert objects.areas.tolist() == stack.sum((1, 2)).tolist()
    for bitmap, found in zip(stack, objects.boxes.tolist(), strict=True):
        rows, columns = np.nonzero(bitmap)
        if len(rows):
            assert found == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    keep = data.draw(arrays(bool, len(stack)))
    assert (objects.pick(keep).masks == stack[keep]).all()


@pytest.mark.parametrize("kind", [list, np.array, lambda values: torch.tensor(values).reshape(-1, 1)])
def test_labels_scores_and_crowd_of_any_kind(kind):
    objects = Instances.of(BOTH, kind([2, 1]), kind([0.25, 0.5]), kind([0, 1]))
    assert objects.labels.tolist() == [2, 1] and objects.labels.dtype == int
    assert objects.scores.tolist() == [0.25, 0.5] and objects.scores.dtype == float
    assert objects.crowd.tolist() == [False, True] and objects.crowd.dtype == bool


THREE = Instances.of([FIRST, SECOND, FIRST | SECOND], [3, 1, 2], [0.5, 0.9, 0.2], [0, 0, 1])


@pytest.mark.parametrize(
    ("index", "order"),
    [
        ([2, 0], [2, 0]),
        ([True, False, True], [0, 2]),
        (torch.tensor([2]), [2]),
        (slice(1, None), [1, 2]),
    ],
)
def test_pick_selects_masks_labels_scores_and_crowd(index, order):
    picked = THREE.pick(index)
    assert picked.rles == [THREE.rles[i] for i in order] and picked.size == SIZE
    assert picked.labels.tolist() == [[3, 1, 2][i] for i in order]
    assert picked.scores.tolist() == [[0.5, 0.9, 0.2][i] for i in order]
    assert picked.crowd.tolist() == [i == 2 for i in order]


def test_above_includes_the_score_itself():
    assert THREE.above(0.5).labels.tolist() == [3, 1]
    assert len(THREE.above(0)) == 3 and len(THREE.above(1)) == 0
    assert Instances.of([FIRST]).pick([0]).scores is None


# ------------------------------------------------------------------------------------------------ as one mask


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_smaller_of_two_objects_has_its_number_where_they_overlap(order):
    pair = [box(0, 6, 0, 6), box(2, 4, 2, 8)]
    expected = np.zeros(SIZE)
    expected[pair[0]] = order.index(0) + 1
    expected[pair[1]] = order.index(1) + 1
    assert (Instances.of([pair[i] for i in order]).numbered() == expected).all()


@given(stacks, st.data())
@settings(max_examples=40)
def test_the_class_mask_shows_the_smallest_object_then_a_crowd_then_background(stack, data):
    labels = data.draw(st.lists(st.integers(1, 254), min_size=len(stack), max_size=len(stack)))
    crowd = data.draw(st.lists(st.booleans(), min_size=len(stack), max_size=len(stack)))
    mask = Instances.of(stack, labels, crowd=crowd).semantic()
    areas = stack.sum((1, 2))
    for y, x in np.ndindex(mask.shape):
        here = [i for i in range(len(stack)) if stack[i, y, x]]
        objects = [i for i in here if not crowd[i]]
        smallest = {labels[i] for i in objects if areas[i] == min(areas[j] for j in objects)}
        assert mask[y, x] in (smallest or ({IGNORE} if here else {0}))


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masks": BOTH, "labels": [1]}, "1 labels for 2 masks"),
        ({"masks": BOTH, "labels": [1, 0]}, "label 0: classes count from 1"),
        ({"masks": BOTH, "labels": [1.9, 2]}, r"labels must be whole numbers, not \[1.9, 2.0\]"),
        ({"masks": BOTH, "scores": [0.5, float("inf")]}, "score is not a finite number"),
        ({"masks": BOTH * 0.7}, "threshold"),
        ({"masks": BOTH, "size": (9, 6)}, r"shape \(6, 9\) in an image of \(9, 6\)"),
        ({"masks": [mask_to_rle(FIRST), mask_to_rle(SECOND.T)]}, r"\(9, 6\) in an image of \(6, 9\)"),
        ({"masks": []}, "give size"),
        ({"masks": [[SQUARE]]}, "give size"),
        ({"masks": FIRST}, r"masks are \(N, H, W\)"),
        ({"masks": torch.from_numpy(BOTH)[:, None].float()}, r"masks are \(N, H, W\)"),
        ({"masks": [SQUARE], "size": SIZE}, r"shape \(8,\)"),  # an object is a list of polygons
    ],
)
def test_what_cannot_be_objects_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Instances.of(**arguments)


# ------------------------------------------------------------------------------------------------ other sources


def test_a_mapping_in_the_form_of_other_libraries_is_converted():
    objects = as_instances({"masks": BOTH, "labels": [2, 1], "scores": [0.5, 0.25], "boxes": "not used"})
    assert objects.labels.tolist() == [2, 1] and objects.scores.tolist() == [0.5, 0.25]
    for key in ("crowd", "iscrowd"):
        assert as_instances({"masks": BOTH, key: torch.tensor([0, 1])}).crowd.tolist() == [False, True]
    assert as_instances({"masks": [], "size": SIZE}).size == SIZE
    assert as_instances({"masks": []}, size=SIZE).size == SIZE
    assert as_instances({"masks": [[SQUARE]]}, size=SIZE).size == SIZE  # polygons have no size
    assert as_instances({"masks": BOTH}, size=(1, 1)).size == SIZE
    assert as_instances(objects) is objects


@pytest.mark.parametrize("wrong", [BOTH, {"boxes": []}])
def test_something_else_is_not_converted(wrong):
    with pytest.raises(TypeError, match='"masks"'):
        as_instances(wrong)


def test_what_would_be_lost_in_silence_is_refused():
    with pytest.raises(ValueError, match=r"unknown keys \['label'\]"):
        as_instances({"masks": BOTH, "label": [2, 1]})
    with pytest.raises(ValueError, match="no scores: they are ground truth"):
        Instances.of(BOTH).above(0.5)
    with pytest.raises(ValueError, match="label 256: a class mask holds classes up to 254"):
        Instances.of(BOTH, labels=[1, 256]).semantic()


def test_the_instances_of_a_data_set_and_of_a_subset(tiny):
    tiny.content["annotations"].append(
        {"id": 13, "image_id": 1, "category_id": 7, "iscrowd": 1, "segmentation": {"size": [8, 10], "counts": [0, 80]}}
    )
    data = tiny.open()
    instances = all_instances(data)
    assert [image.labels.tolist() for image in instances] == [[1, 2], [2]]
    assert [image.crowd.tolist() for image in instances] == [[False, True], [False]]
    assert instances[0].size == (8, 10) and instances[0].semantic().tolist() == data.mask(0).tolist()
    subset = all_instances(Subset(Subset(data, [1, 0]), [1, 0, 1]))
    assert [image.labels.tolist() for image in subset] == [[1, 2], [2], [1, 2]]
