"""The sample of buildings: outlines that fit the painted roofs, labels and annotations that agree, special images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglib import masks
from seglib.datasets import render
from seglib.datasets.sample.aerial import BUILDING, paint_aerial_scene
from seglib.datasets.sample.buildings import annotate, make_scene, split_of
from seglib.files import read_image

COUNT = 20  # all special images
SIZE = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return render("buildings_yolo", COUNT, SIZE, root=tmp_path_factory.mktemp("sample"))


def image_path(folder: Path, index: int) -> Path:
    return folder / split_of(index) / f"images/tile_{index + 1:06d}.jpg"


def label_masks(folder: Path, index: int) -> list[np.ndarray]:
    """The mask of each line of a label file."""
    lines = (folder / split_of(index) / f"labels/tile_{index + 1:06d}.txt").read_text().splitlines()
    return [masks.polygons_to_mask(masks.yolo_to_polygons(line, SIZE, SIZE)[1], SIZE, SIZE) for line in lines]


def annotations(folder: Path, index: int) -> list[dict]:
    content = json.loads((folder / split_of(index) / "_annotations.coco.json").read_text())
    return [entry for entry in content["annotations"] if entry["image_id"] == index]


def annotation_mask(entry: dict) -> np.ndarray:
    outline = entry["segmentation"]
    return masks.rle_to_mask(outline) if isinstance(outline, dict) else masks.polygons_to_mask(outline, SIZE, SIZE)


def test_labels_and_annotations_agree(folder):
    for index in range(COUNT):
        lines = label_masks(folder, index)
        for entry in annotations(folder, index):
            mask = annotation_mask(entry)
            parts = 1 if isinstance(entry["segmentation"], dict) else len(entry["segmentation"])
            filled = np.any([lines.pop(0) for _ in range(parts)], axis=0)
            rows, columns = np.nonzero(filled)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert entry["area"] == mask.sum() and not (mask & ~filled).any()
            assert (mask == filled).all() or isinstance(entry["segmentation"], dict)
            assert np.allclose(entry["bbox"], box, atol=2.5)
        assert not lines


@pytest.mark.parametrize("index", [0, 3, 4, 9, 14])
def test_outlines_are_those_of_the_painted_roofs_and_do_not_overlap(index):
    scene = make_scene(index, seed=0)
    scene.trees = []  # which may hide a corner of a roof
    _, surfaces = paint_aerial_scene(scene, SIZE, np.random.default_rng(0))
    found = np.sum([annotation_mask(entry).astype(int) for _, entry in annotate(scene, SIZE)], axis=0)
    roofs = surfaces == BUILDING
    assert (roofs & (found > 0)).sum() > 0.93 * (roofs | (found > 0)).sum()
    assert (found > 1).sum() < 0.02 * roofs.sum()


def test_most_images_show_buildings_that_are_large_enough():
    found = [[entry["area"] for _, entry in annotate(make_scene(index, seed=0), 192)] for index in range(60, 100)]
    assert np.mean([len(areas) > 2 for areas in found]) > 0.7
    assert np.median(np.concatenate(found)) > 24**2


@pytest.mark.parametrize("index", [5, 6, 7])
def test_an_image_without_buildings_has_an_empty_label_file(index, folder):
    assert image_path(folder, index).is_file()
    assert label_masks(folder, index) == annotations(folder, index) == []


def test_a_courtyard_is_a_hole_in_coco_and_filled_in_yolo(folder):
    entries = annotations(folder, 3)
    holes = [filled & ~annotation_mask(entry) for filled, entry in zip(label_masks(folder, 3), entries, strict=True)]
    assert all(isinstance(entry["segmentation"], dict) for entry in entries)
    assert max(hole.sum() for hole in holes) > 50


def test_bridges_cut_rows_are_dense_and_sheds_are_tiny(folder):
    assert 2 in [len(entry["segmentation"]) for entry in annotations(folder, 4)]
    assert len(label_masks(folder, 9)) > 40
    areas = [mask.sum() for mask in label_masks(folder, 10)]
    assert len(areas) > 8 and max(areas) < 40


def test_a_rotated_image_is_labeled_as_it_is_shown_and_a_gray_one_has_one_channel(folder):
    for index in (13, 16):
        with Image.open(image_path(folder, index)) as file:
            assert file.getexif()[0x0112] == 6
            stored = np.asarray(file, dtype=float)
        scene = make_scene(index, seed=0)
        picture, _ = paint_aerial_scene(scene, SIZE, scene.rng)
        shown = read_image(image_path(folder, index)).astype(float)
        assert np.abs(shown - picture).mean() < 12 < np.abs(stored - picture).mean()
    for index in (14, 17):
        with Image.open(image_path(folder, index)) as file:
            assert file.mode == "L"


def test_a_camera_that_moves_sees_the_same_land():
    scene = make_scene(0, seed=0)
    scene.turn = 0.0
    _, before = paint_aerial_scene(scene, SIZE, np.random.default_rng(0))
    scene.center = (8 * scene.view / SIZE, 0.0)
    _, after = paint_aerial_scene(scene, SIZE, np.random.default_rng(0))
    assert (before[:, 8:] == after[:, :-8]).mean() > 0.99
