"""The sample of buildings: outlines fit the painted roofs, labels and annotations agree, special images are there."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from seglib import masks
from seglib.datasets import render
from seglib.datasets.sample.aerial import BUILDING, paint_aerial_scene
from seglib.datasets.sample.buildings import annotate, make_scene, split_of

SIZE = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return render("buildings_yolo", 20, SIZE, root=tmp_path_factory.mktemp("sample"))  # with all special images


def label_masks(folder: Path, index: int) -> list[np.ndarray]:
    lines = (folder / split_of(index) / f"labels/tile_{index + 1:06d}.txt").read_text().splitlines()
    return [masks.polygons_to_mask(masks.yolo_to_polygons(line, SIZE, SIZE)[1], SIZE, SIZE) for line in lines]


def annotations(folder: Path, index: int) -> list[dict]:
    content = json.loads((folder / split_of(index) / "_annotations.coco.json").read_text())
    return [entry for entry in content["annotations"] if entry["image_id"] == index]


def annotation_mask(entry: dict) -> np.ndarray:
    shape = entry["segmentation"]
    return masks.rle_to_mask(shape) if isinstance(shape, dict) else masks.polygons_to_mask(shape, SIZE, SIZE)


def test_labels_and_annotations_agree(folder):
    for index in range(20):
        lines = label_masks(folder, index)
        for entry in annotations(folder, index):
            mask = annotation_mask(entry)
            has_hole = isinstance(entry["segmentation"], dict)
            filled = np.any([lines.pop(0) for _ in range(1 if has_hole else len(entry["segmentation"]))], axis=0)
            assert entry["area"] == mask.sum() and entry["bbox"] == list(cv2.boundingRect(filled.astype(np.uint8)))
            assert (mask <= filled).all() if has_hole else (mask == filled).all()
        assert not lines


@pytest.mark.parametrize("index", [0, 3, 4, 9, 14])
def test_outlines_are_those_of_the_painted_roofs_and_do_not_overlap(index):
    scene = make_scene(index, seed=0)
    scene.trees = []  # which may hide a corner of a roof
    _, surfaces = paint_aerial_scene(scene, SIZE, np.random.default_rng(0))
    roofs = surfaces == BUILDING
    covered = np.sum([annotation_mask(entry).astype(int) for _, entry in annotate(scene, SIZE)], axis=0)
    assert (roofs & (covered > 0)).sum() > 0.93 * (roofs | (covered > 0)).sum()
    assert (covered > 1).sum() < 0.02 * roofs.sum()


def test_most_images_show_buildings_that_are_large_enough():
    areas = [[entry["area"] for _, entry in annotate(make_scene(index, seed=0), 192)] for index in range(20, 50)]
    assert np.mean([len(found) > 2 for found in areas]) > 0.7
    assert np.median(np.concatenate(areas)) > 24**2


def test_special_images_are_there(folder):
    for index in (5, 6, 7):  # one in each split
        assert label_masks(folder, index) == annotations(folder, index) == []
    courtyards = zip(label_masks(folder, 3), annotations(folder, 3), strict=True)
    assert max((line & ~annotation_mask(entry)).sum() for line, entry in courtyards) > 50
    assert 2 in [len(entry["segmentation"]) for entry in annotations(folder, 4)]  # under a bridge
    assert len(label_masks(folder, 9)) > 30
    rotated, gray = [Image.open(next(folder.rglob(f"tile_0000{number}.jpg"))) for number in (14, 15)]
    assert rotated.getexif()[0x0112] == 6 and gray.mode == "L"
