"""Pixel formats, against pycocotools and against cases drawn by hand."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from seglib import masks
from seglib.datasets import COCOSegmentationDataset

bitmaps = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))


def draw(*lines: str) -> np.ndarray:
    """A bitmap from rows of '.' and '#'."""
    return np.array([[character == "#" for character in line] for line in lines])


# ------------------------------------------------------------------------------------------------ polygons


def test_polygons_are_rasterized_as_drawn_by_hand():
    assert (masks.polygons_to_mask([[1, 1, 4, 1, 4, 3, 1, 3]], 4, 5) == draw(".....", ".###.", ".###.", ".....")).all()
    two = [[0, 0, 1, 0, 1, 1, 0, 1], [3, 2, 5, 2, 5, 4, 3, 4]]
    assert (masks.polygons_to_mask(two, 4, 5) == draw("#....", ".....", "...##", "...##")).all()
    beyond = [[-3, -3, 2, -3, 2, 2, -3, 2]]
    assert (masks.polygons_to_mask(beyond, 3, 3) == draw("##.", "##.", "...")).all()
    empty = masks.polygons_to_mask([], 3, 2)
    assert empty.shape == (3, 2) and not empty.any()


def test_a_mask_is_traced_along_pixel_edges():
    assert masks.mask_to_polygons(draw("....", ".##.", "....")) == [[1, 1, 3, 1, 3, 2, 1, 2]]
    assert masks.mask_to_polygons(draw("#.", "##")) == [[0, 0, 1, 0, 1, 1, 2, 1, 2, 2, 0, 2]]
    assert masks.mask_to_polygons(draw("###", "#.#", "###")) == [[0, 0, 3, 0, 3, 3, 0, 3]]  # the hole is lost
    assert len(masks.mask_to_polygons(draw("#.", ".#"))) == 2  # parts that share a corner only
    assert masks.mask_to_polygons(np.zeros((3, 3), bool)) == []


@given(bitmaps)
@settings(max_examples=200)
def test_mask_to_polygons_and_back_is_exact_except_for_filled_holes(mask):
    back = masks.polygons_to_mask(masks.mask_to_polygons(mask), *mask.shape)
    assert (back == ndimage.binary_fill_holes(mask, np.ones((3, 3)))).all()  # a gap at a pixel's corner is no hole


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([1, 1, 3, 3], "2 points"),
        ([1, 1, 3, 3, 2], r"flat list x1, y1, x2, y2, ..., not of shape \(5,\)"),
        ([1, 1, 3, float("nan"), 2, 2], "nan pixels"),
        ([1, 1, 3, 2e6, 2, 2], r"2e\+06 pixels: not a number up to a million"),
        ([20, 20, 30, 20, 30, 30], "wholly outside"),
        ([[1, 1], [3, 3], [2, 2]], "flat list"),
    ],
)
def test_a_polygon_that_cannot_be_drawn_is_refused(polygon, message):
    with pytest.raises(ValueError, match=message):
        masks.polygons_to_mask([polygon], 8, 10)


# ------------------------------------------------------------------------------------------------ outlines


def test_outlines_are_parts_and_their_holes():
    mask = draw("#####..#", "#.#.#..#", "#####...", ".......#")
    outlines = masks.mask_to_outlines(mask)
    assert sorted(len(holes) for _, holes in outlines) == [0, 0, 2]
    outer, holes = max(outlines, key=lambda outline: len(outline[1]))
    assert outer == [0, 0, 5, 0, 5, 3, 0, 3]
    assert sorted(holes) == [[1, 1, 2, 1, 2, 2, 1, 2], [3, 1, 4, 1, 4, 2, 3, 2]]


@given(bitmaps)
@example(draw(".###.", "##.##", "#.#.#", "##.##", ".###."))  # a part touches the hole's four pixels at its corners
@example(draw("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"))  # a part inside a hole
@settings(max_examples=100)
def test_each_part_is_its_outer_polygon_without_its_holes_and_one_polygon_can_hold_it(mask):
    labels, count = ndimage.label(mask)
    parts = {(labels == number).tobytes() for number in range(1, count + 1)}
    outlines = masks.mask_to_outlines(mask)
    assert len(outlines) == count
    for outer, holes in outlines:
        part = masks.polygons_to_mask([outer], *mask.shape) & ~masks.polygons_to_mask(holes, *mask.shape)
        assert part.tobytes() in parts
        joined = masks.join_polygons([outer, *holes])
        assert (masks.polygons_to_mask([joined], *mask.shape) == part).all()
    rings = [ring for outer, holes in outlines for ring in (outer, *holes)]
    if rings:
        assert (masks.polygons_to_mask([masks.join_polygons(rings)], *mask.shape) == mask).all()


def test_polygons_are_joined_between_their_nearest_points():
    left, right = [0, 0, 2, 0, 2, 2, 0, 2], [5, 2, 7, 2, 7, 3, 5, 3]
    assert masks.join_polygons([left]) == left
    joined = np.reshape(masks.join_polygons([left, right]), (-1, 2)).tolist()
    assert joined == [[0, 0], [2, 0], [2, 2], [5, 2], [7, 2], [7, 3], [5, 3], [5, 2], [2, 2], [0, 2]]


# ------------------------------------------------------------------------------------------------ RLE


@given(bitmaps)
@settings(max_examples=200)
def test_rle_is_exact_and_equals_that_of_pycocotools(mask):
    rle = masks.mask_to_rle(mask)
    assert (masks.rle_to_mask(rle) == mask).all()
    assert (coco_mask.decode(rle).astype(bool) == mask).all()
    pixels = mask.ravel(order="F")
    counts = np.diff([0, *np.flatnonzero(np.diff(pixels)) + 1, pixels.size]).tolist()
    uncompressed = {"size": list(mask.shape), "counts": [0, *counts] if pixels[0] else counts}
    assert (masks.rle_to_mask(uncompressed) == mask).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 3], "must add up to its size"),
        ([-1, 21], "must add up to its size"),
        ("5", "must add up to its size"),
        ("P", "must add up to its size"),  # says that more characters follow, and there are none
        ("\x01", "must add up to its size"),
        (None, "must be {"),
    ],
)
def test_an_rle_that_does_not_cover_its_size_is_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        masks.rle_to_mask({"size": [4, 5], "counts": counts})


# ------------------------------------------------------------------------------------------------ YOLO lines


def test_a_yolo_line_is_read_and_written():
    line = "2 0.1 0.25 0.5 0.25 0.5 0.75 0.1 0.75"
    index, polygons = masks.yolo_to_polygons(line, height=8, width=10)
    assert index == 2
    assert np.allclose(polygons, [[1, 2, 5, 2, 5, 6, 1, 6]])
    assert masks.polygons_to_yolo(2, polygons, height=8, width=10) == [line]


def test_each_polygon_becomes_a_yolo_line_of_its_own():
    parts = [[-2, 0, 5, 0, 5, 4], [6, 4, 10, 4, 10, 8]]
    assert masks.polygons_to_yolo(0, parts, 8, 10) == [
        "0 0 0.14285714 0 0 0.5 0 0.5 0.5",  # the edge from (5, 4) to (-2, 0) crosses the border at 8/7 of 8 pixels
        "0 0.6 0.5 1 0.5 1 1",
    ]


def test_a_polygon_whose_box_alone_reaches_into_the_image_gives_no_yolo_line():
    with pytest.raises(ValueError, match="covers nothing"):
        masks.polygons_to_yolo(0, [[-12, 4, 4, -12, -2, -2]], 8, 10)


@given(st.lists(st.integers(-30, 45), min_size=4, max_size=10), st.integers(5, 20), st.integers(5, 20))
@settings(max_examples=100)
def test_a_yolo_line_has_the_pixels_of_the_polygon_inside_the_image(turns, height, width):
    xs, ys = turns[: len(turns) // 2], turns[len(turns) // 2 : len(turns) // 2 * 2]
    polygon = [value for i, x in enumerate(xs) for value in (x, ys[i - 1], x, ys[i])]  # only right angles
    margin = 60
    large = masks.polygons_to_mask([[value + margin for value in polygon]], height + 2 * margin, width + 2 * margin)
    drawn = np.zeros((height, width), bool)
    with suppress(ValueError):  # nothing of the polygon lies in the image
        (line,) = masks.polygons_to_yolo(0, [polygon], height, width)
        drawn = masks.polygons_to_mask(masks.yolo_to_polygons(line, height, width)[1], height, width)
    assert (drawn == large[margin:-margin, margin:-margin]).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "class number"),
        ("\u00b2 0.1 0.1 0.2 0.2 0.3 0.3", "class number"),
        ("0 0.1 0.1 nan 0.2 0.3 0.3", "nan"),
        ("0 0.5 0.5 0.2 0.2", "box"),
        ("0 0.5 0.5", "1 points"),
        ("0 0.1 0.1 0.2 0.2 1.3 0.3", "fractions"),
        ("0 0.1 0.1 0.2 0.2 x 0.3", "could not convert string to float: 'x'"),
    ],
)
def test_a_broken_yolo_line_is_refused(line, message):
    with pytest.raises(ValueError, match=message):
        masks.yolo_to_polygons(line, 8, 10)


# ------------------------------------------------------------------------------------------------ index PNG


def test_an_index_png_keeps_classes_and_255_and_has_a_palette(tmp_path):
    mask = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    masks.write_index_png(tmp_path / "a.png", mask, ["background", "cup", "hat"])
    assert (masks.read_index_png(tmp_path / "a.png") == mask).all()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"  # converted to gray, the colors of a palette would become classes
        assert image.convert("RGB").getpixel((1, 0)) == tuple(masks.palette()[1])


def test_a_value_that_is_not_a_class_is_refused_with_file_value_and_range(tmp_path):
    with pytest.raises(ValueError, match=r"a\.png: mask value 7 in 1 pixels; allowed are 0 to 1"):
        masks.write_index_png(tmp_path / "a.png", np.array([[0, 7]]), ["background", "cup"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("mode", "name"), [("RGB", "a.png"), ("I;16", "a.png"), ("L", "a.jpg")])
def test_an_image_that_cannot_be_an_index_mask_is_refused(tmp_path, mode, name):
    Image.new(mode, (3, 3), (1, 2, 3) if mode == "RGB" else 300).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"a\.png holds (colors|values up to 300)|a\.jpg is a JPEG"):
        masks.read_index_png(tmp_path / name)


# ------------------------------------------------------------------------------------------------ whole data sets


def paint_with_coco(coco: COCO, image_id: int, class_of: dict, overlap: str) -> np.ndarray:
    """The class mask by a plain loop over annToMask."""
    entry = coco.imgs[image_id]
    mask = np.zeros((entry["height"], entry["width"]), np.uint8)
    annotations = [a for a in coco.imgToAnns[image_id] if a["category_id"] in class_of]
    for annotation in annotations:
        if annotation["iscrowd"]:
            mask[coco.annToMask(annotation) == 1] = 255
    objects = [(class_of[a["category_id"]], coco.annToMask(a) == 1) for a in annotations if not a["iscrowd"]]
    if overlap == "maximum":
        objects.sort(key=lambda pair: pair[0])
    else:
        objects.sort(key=lambda pair: (-pair[1].sum(), pair[0]))
    for index, bitmap in objects:
        mask[bitmap] = index
    return mask


def test_class_masks_equal_a_plain_loop_over_annToMask(sample):
    file = sample / "annotations" / "instances_val.json"
    coco = COCO(file)
    four = ["person", "cat", "sports ball", "book"]
    for categories, overlap, mode in (
        (None, "maximum", "multiclass"),
        (four, "smallest", "multiclass"),
        (four[:1], "maximum", "binary"),
    ):
        data = COCOSegmentationDataset(sample / "images" / "val", file, categories, mode, overlap)
        ids = coco.getCatIds(catNms=categories) if categories else sorted(coco.cats)
        class_of = {id_: index for index, id_ in enumerate(ids, 1)}
        for index, entry in enumerate(data.images):
            assert (data.mask(index) == paint_with_coco(coco, entry["id"], class_of, overlap)).all()
