"""Pixel formats, against pycocotools and against cases drawn by hand."""

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


def without_holes(mask: np.ndarray) -> np.ndarray:
    """The mask with every hole filled: background that does not touch the outside, not even by a corner."""
    regions, _ = ndimage.label(~np.pad(mask, 1), structure=np.ones((3, 3)))
    return (regions != regions[0, 0])[1:-1, 1:-1]


# ------------------------------------------------------------------------------------------------ polygons


def test_rasters_equal_hand_drawn_ones():
    assert (masks.polygons_to_mask([[1, 1, 4, 1, 4, 3, 1, 3]], 4, 5) == draw(".....", ".###.", ".###.", ".....")).all()
    two = [[0, 0, 1, 0, 1, 1, 0, 1], [3, 2, 5, 2, 5, 4, 3, 4]]
    assert (masks.polygons_to_mask(two, 4, 5) == draw("#....", ".....", "...##", "...##")).all()
    beyond = [[-3, -3, 2, -3, 2, 2, -3, 2]]
    assert (masks.polygons_to_mask(beyond, 3, 3) == draw("##.", "##.", "...")).all()
    assert masks.polygons_to_mask([], 3, 2).shape == (3, 2)


def test_tracing_gives_the_corners_along_pixel_edges():
    assert masks.mask_to_polygons(draw("....", ".##.", "....")) == [[1, 1, 3, 1, 3, 2, 1, 2]]
    assert masks.mask_to_polygons(draw("#.", "##")) == [[0, 0, 1, 0, 1, 1, 2, 1, 2, 2, 0, 2]]
    assert masks.mask_to_polygons(np.zeros((3, 3), bool)) == []


def test_parts_that_meet_at_a_corner_are_traced_apart():
    assert len(masks.mask_to_polygons(draw("#.", ".#"))) == 2


@given(bitmaps)
@settings(max_examples=400, deadline=None)
def test_mask_to_polygons_and_back_is_exact_but_for_filled_holes(mask):
    back = masks.polygons_to_mask(masks.mask_to_polygons(mask), *mask.shape)
    assert (back == without_holes(mask)).all()


def test_a_hole_comes_back_filled():
    ring = draw("###", "#.#", "###")
    assert masks.mask_to_polygons(ring) == [[0, 0, 3, 0, 3, 3, 0, 3]]


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([1, 1, 3, 3], "2 points"),
        ([1, 1, 3, 3, 2], "odd number"),
        ([1, 1, 3, float("nan"), 2, 2], "NaN"),
        ([1, 1, 3, float("inf"), 2, 2], "NaN or infinity"),
        ([20, 20, 30, 20, 30, 30], "wholly outside"),
        ([-9, 1, -3, 1, -3, 5], "wholly outside"),
        ([1, 1, "x", 3, 2, 2], "not a number"),
        ([[1, 1], [3, 3], [2, 2]], "flat list"),
    ],
)
def test_a_polygon_that_cannot_be_drawn_says_why(polygon, message):
    with pytest.raises(ValueError, match=message):
        masks.polygons_to_mask([polygon], 8, 10)


# ------------------------------------------------------------------------------------------------ RLE


@given(bitmaps)
@settings(max_examples=300, deadline=None)
def test_rle_both_ways_is_exact_and_is_pycocotools(mask):
    rle = masks.mask_to_rle(mask)
    assert (masks.rle_to_mask(rle) == mask).all()
    assert (coco_mask.decode(rle).astype(bool) == mask).all()


@given(bitmaps)
@settings(max_examples=100, deadline=None)
def test_uncompressed_rle_reads_the_same(mask):
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    if flat[0]:
        counts = [0, *counts]
    assert (masks.rle_to_mask({"size": list(mask.shape), "counts": counts}) == mask).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 3], "add up to 6"),
        ([-1, 21], "0 or more"),
        ("5", "covers 5 pixels"),
        ("P", "cut off"),  # says that more follows, and nothing does
        ("\x01", "does not belong"),
    ],
)
def test_an_rle_of_the_wrong_size_is_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        masks.rle_to_mask({"size": [4, 5], "counts": counts})


def test_rle_without_its_parts_is_refused():
    with pytest.raises(ValueError, match="must be"):
        masks.rle_to_mask({"counts": [20]})


# ------------------------------------------------------------------------------------------------ YOLO


def test_yolo_line_both_ways():
    line = "2 0.1 0.25 0.5 0.25 0.5 0.75 0.1 0.75"
    index, polygons = masks.yolo_to_polygons(line, height=8, width=10)
    assert index == 2
    assert np.allclose(polygons, [[1, 2, 5, 2, 5, 6, 1, 6]])
    assert masks.polygons_to_yolo(2, polygons, height=8, width=10) == [line]


def test_yolo_writes_a_line_for_each_part_and_clips_to_the_image():
    parts = [[-2, 0, 5, 0, 5, 4], [6, 4, 10, 4, 10, 8]]
    assert masks.polygons_to_yolo(0, parts, 8, 10) == [
        "0 0 0.14285714 0 0 0.5 0 0.5 0.5",  # from (5, 4) to (-2, 0) the border is crossed at 8/7 of 8 pixels
        "0 0.6 0.5 1 0.5 1 1",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "class number"),
        ("cup 0.1 0.1 0.2 0.2 0.3 0.3", "class number"),
        ("\u00b2 0.1 0.1 0.2 0.2 0.3 0.3", "class number"),
        ("0 0.1 0.1 nan 0.2 0.3 0.3", "NaN"),
        ("0 0.5 0.5 0.2 0.2", "box"),
        ("0 0.5 0.5", "1 points"),
        ("0 0.1 0.1 0.2 0.2 1.3 0.3", "fractions"),
        ("0 0.1 0.1 0.2 0.2 x 0.3", "not a number"),
    ],
)
def test_a_broken_yolo_line_says_why(line, message):
    with pytest.raises(ValueError, match=message):
        masks.yolo_to_polygons(line, 8, 10)


def area(polygon: list[float]) -> float:
    x, y = np.reshape(polygon, (-1, 2)).T
    return abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


@pytest.mark.parametrize(
    ("polygon", "clipped"),
    [
        ([1, 1, 5, 1, 5, 5, 1, 5], [1, 1, 5, 1, 5, 5, 1, 5]),  # inside: as it is, number by number
        ([0, 0, 10, 0, 10, 8, 0, 8], [0, 0, 10, 0, 10, 8, 0, 8]),  # the whole image
        ([-5, -5, 20, -5, 20, 20, -5, 20], [0, 0, 10, 0, 10, 8, 0, 8]),  # more than that
        ([-2, 2, 4, 2, 4, 6, -2, 6], [0, 2, 4, 2, 4, 6, 0, 6]),  # left
        ([6, 2, 14, 2, 14, 6, 6, 6], [6, 2, 10, 2, 10, 6, 6, 6]),  # right
        ([2, -3, 6, -3, 6, 3, 2, 3], [2, 0, 6, 0, 6, 3, 2, 3]),  # above
        ([2, 5, 6, 5, 6, 11, 2, 11], [2, 5, 6, 5, 6, 8, 2, 8]),  # below
        ([-4, 4, 4, -4, 4, 4], [0, 4, 0, 0, 4, 0, 4, 4]),  # the long side through a corner
        ([-2, 0, 5, 0, 5, 4], [0, 0, 5, 0, 5, 4, 0, 8 / 7]),
        ([5, -4, 14, 4, 5, 12, -4, 4], [0, 4 / 9, 0.5, 0, 9.5, 0, 10, 4 / 9, 10, 68 / 9, 9.5, 8, 0.5, 8, 0, 68 / 9]),
        ([-9, -9, 30, -9, 30, -1], []),
        ([-12, 4, 4, -12, -12, -12], []),  # its box reaches in, it does not
    ],
)
def test_clipping_by_hand(polygon, clipped):
    found = np.reshape(masks.clip_polygon(polygon, 8, 10), (-1, 2))
    expected = np.reshape(clipped, (-1, 2))
    assert {tuple(point) for point in found.round(9).tolist()} == {tuple(p) for p in expected.round(9).tolist()}
    if clipped:
        assert area(found.ravel().tolist()) == pytest.approx(area(clipped))
    if polygon == clipped:
        assert found.ravel().tolist() == polygon


def cropped(polygon: list[float], height: int, width: int, margin: int = 60) -> np.ndarray:
    """A polygon drawn on a canvas that holds all of it, of which the image is cut out."""
    whole = masks.polygons_to_mask([[value + margin for value in polygon]], height + 2 * margin, width + 2 * margin)
    return whole[margin:-margin, margin:-margin]


def clipped_and_drawn(polygon: list[float], height: int, width: int) -> np.ndarray:
    points = masks.clip_polygon(polygon, height, width)
    assert all(-1e-9 <= x <= width + 1e-9 for x in points[0::2])
    assert all(-1e-9 <= y <= height + 1e-9 for y in points[1::2])
    if len(points) < 6 or area(points) < 1e-9:
        return np.zeros((height, width), bool)
    return masks.polygons_to_mask([points], height, width)


@given(st.lists(st.integers(-30, 45), min_size=4, max_size=10), st.integers(5, 20), st.integers(5, 20))
@settings(max_examples=150, deadline=None)
def test_a_clipped_polygon_of_right_angles_has_the_pixels_that_lie_inside(turns, height, width):
    xs, ys = turns[: len(turns) // 2], turns[len(turns) // 2 : len(turns) // 2 * 2]
    polygon = [value for i, x in enumerate(xs) for value in (x, ys[i - 1], x, ys[i])]  # x and y change in turn
    assert (clipped_and_drawn(polygon, height, width) == cropped(polygon, height, width)).all()


def distance_to_outline(polygon: list[float], height: int, width: int) -> np.ndarray:
    """Of each pixel's centre, (H, W)."""
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    points, least = np.reshape(polygon, (-1, 2)), np.full((height, width), np.inf)
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        side = end - start
        along = np.clip((centres - start) @ side / max(side @ side, 1e-12), 0, 1)
        least = np.minimum(least, np.linalg.norm(centres - start - along[..., None] * side, axis=-1))
    return least


@given(st.lists(st.integers(-3000, 4500), min_size=6, max_size=14), st.integers(5, 20), st.integers(5, 20))
@settings(max_examples=150, deadline=None)
def test_any_clipped_polygon_has_them_but_for_a_quarter_of_a_pixel_at_its_outline(values, height, width):
    """COCO rounds points to fifths of a pixel: where the border cuts an outline, it runs a little elsewhere."""
    polygon = [value / 100 for value in values[: len(values) // 2 * 2]]
    differs = clipped_and_drawn(polygon, height, width) != cropped(polygon, height, width)
    assert not differs[distance_to_outline(polygon, height, width) > 0.3].any()


# ------------------------------------------------------------------------------------------------ outlines


def test_outlines_are_parts_and_their_holes():
    mask = draw("#####..#", "#.#.#..#", "#####...", ".......#")
    outlines = masks.mask_to_outlines(mask)
    assert sorted(len(inner) for _, inner in outlines) == [0, 0, 2]
    outer, holes = max(outlines, key=lambda outline: len(outline[1]))
    assert outer == [0, 0, 5, 0, 5, 3, 0, 3]
    assert sorted(holes) == [[1, 1, 2, 1, 2, 2, 1, 2], [3, 1, 4, 1, 4, 2, 3, 2]]
    assert masks.mask_to_outlines(np.zeros((3, 4), bool)) == []


@given(bitmaps)
@example(draw(".###.", "##.##", "#.#.#", "##.##", ".###."))  # a part that touches the hole's four pixels by its corners
@example(draw("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"))  # a part in a hole, twice
@settings(max_examples=150, deadline=None)
def test_each_part_is_its_outer_polygon_less_its_holes(mask):
    labelled, count = ndimage.label(mask)
    parts = {(labelled == number).tobytes() for number in range(1, count + 1)}
    outlines = masks.mask_to_outlines(mask)
    assert len(outlines) == count
    for outer, holes in outlines:
        part = masks.polygons_to_mask([outer], *mask.shape) & ~masks.polygons_to_mask(holes, *mask.shape)
        assert part.tobytes() in parts
        for joined in (masks.join_polygons([outer, *holes]), masks.join_polygons([outer, *holes[::-1]])):
            assert (masks.polygons_to_mask([joined], *mask.shape) == part).all()


def test_joining_leads_slits_where_polygons_are_nearest():
    left, right = [0, 0, 2, 0, 2, 2, 0, 2], [5, 2, 7, 2, 7, 3, 5, 3]
    assert masks.join_polygons([left]) == left
    joined = np.reshape(masks.join_polygons([left, right]), (-1, 2)).tolist()
    assert joined == [[0, 0], [2, 0], [2, 2], [5, 2], [7, 2], [7, 3], [5, 3], [5, 2], [2, 2], [0, 2]]
    far = [9, 2, 9.5, 2, 9.5, 3]  # nearest to what was joined before, in whatever order they are given
    for order in ([left, right, far], [left, far, right]):
        points = np.reshape(masks.join_polygons(order), (-1, 2)).tolist()
        steps = [list(step) for step in zip(points, points[1:], strict=False)]
        assert [[7, 2], [9, 2]] in steps and [[9, 2], [7, 2]] in steps and [[2, 2], [5, 2]] in steps
        assert area(sum(points, [])) == pytest.approx(area(left) + area(right) + area(far))


@given(bitmaps)
@settings(max_examples=100, deadline=None)
def test_joined_all_parts_and_holes_are_the_bitmap(mask):
    rings = [ring for outer, holes in masks.mask_to_outlines(mask) for ring in (outer, *holes)]
    if rings:
        assert (masks.polygons_to_mask([masks.join_polygons(rings)], *mask.shape) == mask).all()


# ------------------------------------------------------------------------------------------------ index PNG


def test_index_png_keeps_classes_and_255_and_is_a_palette_png(tmp_path):
    mask = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    masks.write_index_png(tmp_path / "a.png", mask, ["background", "cup", "hat"])
    assert (masks.read_index_png(tmp_path / "a.png") == mask).all()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"  # converted to grey, a palette's colours would become classes
        assert image.convert("RGB").getpixel((1, 0)) == tuple(masks.palette()[1])


def test_a_value_that_is_no_class_is_refused_by_name_value_and_range(tmp_path):
    with pytest.raises(ValueError, match=r"a\.png: mask value 7 in 1 pixels; allowed are 0 to 1"):
        masks.write_index_png(tmp_path / "a.png", np.array([[0, 7]]), ["background", "cup"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_an_image_that_is_no_index_mask_is_refused(tmp_path, mode):
    Image.new(mode, (3, 3)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is an image of mode"):
        masks.read_index_png(tmp_path / "a.png")


# ------------------------------------------------------------------------------------------------ whole data sets


def painted_by_annToMask(coco: COCO, image_id: int, class_of: dict, overlap: str) -> np.ndarray:
    """The class mask by the plainest loop there is."""
    entry = coco.imgs[image_id]
    mask = np.zeros((entry["height"], entry["width"]), np.uint8)
    wanted = [a for a in coco.imgToAnns[image_id] if a["category_id"] in class_of]
    for annotation in wanted:
        if annotation["iscrowd"]:
            mask[coco.annToMask(annotation) == 1] = 255
    things = [(class_of[a["category_id"]], coco.annToMask(a) == 1) for a in wanted if not a["iscrowd"]]
    if overlap == "maximum":
        things.sort(key=lambda thing: thing[0])
    else:
        things.sort(key=lambda thing: (-thing[1].sum(), thing[0]))
    for index, bitmap in things:
        mask[bitmap] = index
    return mask


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("source", ["sample", "real_coco"])
def test_class_masks_equal_a_plain_loop_over_annToMask(source, part, request, capsys):
    root = request.getfixturevalue(source)
    file = root / "annotations" / f"instances_{part}.json"
    coco, four = COCO(file), ["person", "cat", "sports ball", "book"]
    for categories, overlap, mode in (
        (None, "maximum", "multiclass"),
        (None, "smallest", "multiclass"),
        (four, "smallest", "multiclass"),
        (four[:1], "maximum", "binary"),
    ):
        data = COCOSegmentationDataset(root / "images" / part, file, categories, mode, overlap)
        ids = coco.getCatIds(catNms=categories) if categories else sorted(coco.cats)
        class_of = {id_: index for index, id_ in enumerate(ids, 1)}
        for index, entry in enumerate(data.images):
            assert (data.mask(index) == painted_by_annToMask(coco, entry["id"], class_of, overlap)).all()


@pytest.mark.parametrize("source", ["sample", "real_coco"])
def test_every_annotation_goes_round_the_formats(source, request):
    root, checked = request.getfixturevalue(source), 0
    for part in ("train", "val"):
        coco = COCO(root / "annotations" / f"instances_{part}.json")
        for annotation in coco.anns.values():
            bitmap = coco.annToMask(annotation).astype(bool)
            assert (masks.rle_to_mask(masks.mask_to_rle(bitmap)) == bitmap).all()
            traced = masks.polygons_to_mask(masks.mask_to_polygons(bitmap), *bitmap.shape)
            assert (traced == without_holes(bitmap)).all()
            checked += 1
    assert checked > 100
