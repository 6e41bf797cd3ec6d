"""The bundled sample of buildings: outlines that fit the painted roofs, equal labels and annotations, special cases."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from seglib import masks
from seglib.datasets import render
from seglib.datasets.sample import aerial
from seglib.datasets.sample.aerial_ground import ZOOM, paint_aerial_scene, paint_roofs
from seglib.datasets.sample.buildings import split_of, visible_outlines

COUNT = 20  # all special cases
SIZE = 128


@pytest.fixture(scope="module")
def buildings(tmp_path_factory) -> Path:
    return render("buildings_yolo", COUNT, SIZE, root=tmp_path_factory.mktemp("sample"))


def picture_path(folder: Path, index: int) -> Path:
    return folder / split_of(index) / f"images/tile_{index + 1:06d}.jpg"


def label_lines(folder: Path, index: int) -> list[str]:
    return (folder / split_of(index) / f"labels/tile_{index + 1:06d}.txt").read_text().splitlines()


def label_masks(folder: Path, index: int) -> list[np.ndarray]:
    outlines = [masks.yolo_to_polygons(line, SIZE, SIZE)[1] for line in label_lines(folder, index)]
    return [masks.polygons_to_mask(polygons, SIZE, SIZE) for polygons in outlines]


def annotations(folder: Path, index: int) -> list[dict]:
    content = json.loads((folder / split_of(index) / "_annotations.coco.json").read_text())
    return [entry for entry in content["annotations"] if entry["image_id"] == index]


def compose(index: int):
    return aerial.compose(np.random.default_rng([0, index, 512]), aerial.SPECIALS.get(index))


def test_labels_and_coco_annotations_agree(buildings):
    for index in range(COUNT):
        lines = label_lines(buildings, index)
        for entry in annotations(buildings, index):
            if isinstance(entry["segmentation"], dict):  # with a hole
                assert entry["area"] == masks.rle_to_mask(entry["segmentation"]).sum() and lines.pop(0)
                continue
            assert [lines.pop(0) for _ in entry["segmentation"]] == masks.polygons_to_yolo(
                0, entry["segmentation"], SIZE, SIZE
            )
            points = np.concatenate(entry["segmentation"]).reshape(-1, 2)
            assert np.allclose(entry["bbox"], [*points.min(axis=0), *np.ptp(points, axis=0)], atol=0.02)
            areas = [cv2.contourArea(np.float32(polygon).reshape(-1, 2)) for polygon in entry["segmentation"]]
            assert entry["area"] == pytest.approx(sum(areas), abs=0.1)
        assert not lines


def test_roofs_do_not_overlap(buildings):
    for index in range(COUNT):
        taken = np.sum([np.zeros((SIZE, SIZE), int), *label_masks(buildings, index)], axis=0)
        assert (taken > 1).sum() <= 0.02 * max((taken > 0).sum(), 1), index


@pytest.mark.parametrize("index", [0, 8, 14])
def test_outlines_are_those_of_the_painted_roofs(index):
    size = 200
    side = ZOOM * size
    scene = compose(index)
    compared = 0
    for building in list(scene.buildings):
        parts = visible_outlines(scene, building, size)
        expected = masks.polygons_to_mask([(ZOOM * part).ravel().tolist() for part in parts], side, side)
        if expected.sum() < 400:
            continue
        scene.buildings = [building]
        canvas = np.zeros((side, side, 4), np.uint8)
        paint_roofs(canvas, scene)
        roof = canvas.max(axis=-1) > 0
        assert (expected & roof).sum() >= 0.93 * (expected | roof).sum()
        compared += 1
    assert compared


@pytest.mark.parametrize("index", [5, 6, 7])
def test_a_picture_without_buildings_has_an_empty_label_file(index, buildings):
    assert picture_path(buildings, index).is_file()
    assert label_masks(buildings, index) == annotations(buildings, index) == []


def test_a_courtyard_is_a_hole_in_coco_and_filled_in_yolo(buildings):
    (filled,) = label_masks(buildings, 3)
    (entry,) = annotations(buildings, 3)
    hole = filled & ~masks.rle_to_mask(entry["segmentation"])
    rows, columns = np.nonzero(hole)
    assert 0.08 * filled.sum() < hole.sum() < 0.6 * filled.sum()
    assert filled[rows.min() - 2, columns].all() and filled[rows.max() + 2, columns].all()


def test_a_building_under_a_bridge_has_two_parts(buildings):
    one, other = (cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) for mask in label_masks(buildings, 4))
    (entry,) = annotations(buildings, 4)
    assert len(entry["segmentation"]) == 2 and not (one & other).any()


def test_the_corner_cuts_a_building_rows_have_many_and_sheds_are_tiny(buildings):
    assert any(mask[row, column] for mask in label_masks(buildings, 8) for row in (0, -1) for column in (0, -1))
    assert len(label_masks(buildings, 9)) > 40
    areas = [mask.sum() for mask in label_masks(buildings, 10)]
    assert len(areas) >= 8 and max(areas) <= 20


@pytest.mark.parametrize("index", [13, 16])
def test_labels_of_a_rotated_picture_refer_to_what_is_shown(index, buildings):
    with Image.open(picture_path(buildings, index)) as file:
        assert file.getexif()[0x0112] == 6
        stored = np.asarray(file, dtype=int)
        shown = np.asarray(ImageOps.exif_transpose(file), dtype=int)
    upright = paint_aerial_scene(compose(index), SIZE).astype(int)
    assert np.abs(shown - upright).mean() < 12 < np.abs(stored - upright).mean()
