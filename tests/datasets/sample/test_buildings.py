"""The bundled sample of buildings from above: YOLO's layout, outlines true to the roofs, all special cases there."""

import json
import os
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
import test_scenes
from PIL import Image, ImageOps

from seglib import masks
from seglib.datasets import aerial_scenes, scenes
from seglib.datasets.download.catalog import card
from seglib.datasets.sample.land import ZOOM, paint_land, paint_roofs
from seglib.datasets.sample.objects.roofs import Patch

PARTS = ("train", "valid", "test")
SIZE = 128


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    return scenes.render("buildings_yolo", 80, SIZE, root=tmp_path_factory.mktemp("sample"))


def picture_path(sample: Path, index: int) -> Path:
    return sample / aerial_scenes.part_of(index) / "images" / f"tile_{index + 1:06d}.jpg"


def lines_of(path: Path) -> list[str]:
    return (path.parents[1] / "labels" / f"{path.stem}.txt").read_text().splitlines()


def annotations(sample: Path, index: int) -> list[dict]:
    content = json.loads((sample / aerial_scenes.part_of(index) / "_annotations.coco.json").read_text())
    return [entry for entry in content["annotations"] if entry["image_id"] == index]


def drawn(line: str) -> np.ndarray:
    """The mask of a line of a label file."""
    return masks.polygons_to_mask(masks.yolo_to_polygons(line, SIZE, SIZE)[1], SIZE, SIZE)


def composed(index: int):
    special = aerial_scenes.SPECIALS.get(index % aerial_scenes.PERIOD)
    return aerial_scenes.compose(np.random.default_rng([0, index, 512]), special)


# ------------------------------------------------------------------------------------------- files


def test_layout_is_that_of_the_downloaded_set(sample):
    for pattern in (*card("buildings_yolo").layout, *card("buildings_yolo").also):
        assert list(sample.glob(pattern)), pattern
    expected = "names: [building]\nnc: 1\ntrain: train/images\nval: valid/images\ntest: test/images\n"
    assert (sample / "data.yaml").read_text() == expected
    names = {part: {path.stem for path in (sample / part / "images").iterdir()} for part in PARTS}
    assert [len(names[part]) for part in PARTS] == [48, 16, 16]
    assert not any(names[one] & names[other] for one, other in combinations(PARTS, 2))
    for part in PARTS:
        assert {path.stem for path in (sample / part / "labels").iterdir()} == names[part]
        content = json.loads((sample / part / "_annotations.coco.json").read_text())
        assert {Path(entry["file_name"]).stem for entry in content["images"]} == names[part]
        categories = [
            (category["id"], category["name"], category["supercategory"]) for category in content["categories"]
        ]
        assert categories == [(0, "buildings", "none"), (1, "building", "buildings")]
        assert {entry["image_id"] for entry in content["annotations"]} <= {entry["id"] for entry in content["images"]}
        ids = [entry["id"] for entry in content["annotations"]]
        assert len(set(ids)) == len(ids)


def test_same_bytes_in_another_process(sample, tmp_path):
    command = "import sys; from seglib.datasets import render; render('buildings_yolo', 12, 128, root=sys.argv[1])"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", command, tmp_path], check=True, env=environment, cwd=root)
    pictures = sorted(tmp_path.rglob("*.jpg"))
    assert len(pictures) == 12  # and so a picture does not depend on how many there are
    for path in pictures:
        theirs = sample / path.relative_to(next(tmp_path.iterdir()))
        assert path.read_bytes() == theirs.read_bytes() and lines_of(path) == lines_of(theirs)


def test_another_seed_gives_other_pictures(sample, tmp_path):
    other = scenes.render("buildings_yolo", 3, SIZE, seed=1, root=tmp_path)
    for path in other.rglob("*.jpg"):
        assert path.read_bytes() != (sample / path.relative_to(other)).read_bytes()


@pytest.mark.parametrize("images", [2, 3, 4, 7])
def test_no_part_of_a_small_render_is_empty(images, tmp_path):
    folder = scenes.render("buildings_yolo", images, 64, root=tmp_path)
    counts = [len(list((folder / part / "images").iterdir())) for part in PARTS]
    assert sum(counts) == images
    assert all(counts) or (images == 2 and counts == [1, 1, 0])


@pytest.mark.parametrize("index", [1, 11, 30])
def test_the_scene_does_not_depend_on_the_size(index):
    """The same land in the same light, trees and all, at twice the size."""
    small, large = (paint_land(composed(index), size) for size in (SIZE, 2 * SIZE))
    difference = small - cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(difference.mean(axis=(0, 1))).max() < 2
    assert np.abs(cv2.blur(difference, (9, 9))).mean() < 5


def test_fast_enough(tmp_path):
    start = time.perf_counter()
    scenes.render("buildings_yolo", 20, 320, seed=3, root=tmp_path)
    assert time.perf_counter() - start < 10


# ------------------------------------------------------------------------------------- annotations


def test_polygons_lie_in_the_picture(sample):
    count = 0
    for path in sample.rglob("labels/*.txt"):
        for line in path.read_text().splitlines():
            number, *values = line.split()
            assert number == "0" and len(values) >= 6 and len(values) % 2 == 0
            assert all(0 <= float(value) <= 1 for value in values)
            count += 1
    assert count > 300


def test_labels_and_coco_say_the_same(sample):
    for index in range(80):
        lines = lines_of(picture_path(sample, index))
        for said in annotations(sample, index):
            assert said["category_id"] == 1 and said["iscrowd"] == 0
            shape, (left, top, width, height) = said["segmentation"], said["bbox"]
            parts = 1 if isinstance(shape, dict) else len(shape)
            mine, lines = lines[:parts], lines[parts:]
            points = np.concatenate([masks.yolo_to_polygons(line, SIZE, SIZE)[1][0] for line in mine]).reshape(-1, 2)
            box = [*points.min(axis=0), *points.max(axis=0)]
            assert np.allclose(box, [left, top, left + width, top + height], atol=0.02)
            if isinstance(shape, dict):
                mask, outline = masks.rle_to_mask(shape), drawn(mine[0])
                assert (mask & ~outline).sum() < 0.01 * outline.sum() and said["area"] == mask.sum()
            else:
                assert np.allclose(np.concatenate(shape), points.ravel(), atol=0.02)
                areas = [abs(cv2.contourArea(np.array(part, np.float32).reshape(-1, 2))) for part in shape]
                assert said["area"] == pytest.approx(sum(areas), abs=0.1)
        assert not lines


def painted(land, building, size: int) -> np.ndarray:
    """The pixels of the painter's canvas, bool (ZOOM * size, ZOOM * size), that one roof takes."""
    land.buildings = [building]
    canvas = np.zeros((ZOOM * size, ZOOM * size, 4), np.uint8)
    paint_roofs(canvas, land)
    return canvas.max(axis=-1) > 0


@pytest.mark.parametrize("index", [0, 3, 8, 11, 12, 13, 14, 30])
def test_polygons_are_true_to_the_painted_roofs(index):
    size, compared = 320, 0
    side = ZOOM * size
    land = composed(index)
    for building in list(land.buildings):
        parts = aerial_scenes.visible(land, building, size)
        if not parts or sum(map(aerial_scenes.area, parts)) < 100:
            continue
        mask = masks.polygons_to_mask([(ZOOM * part).ravel().tolist() for part in parts], side, side)
        if building.hole is not None:
            mask &= ~masks.polygons_to_mask([land.pixels(building.hole, side).ravel().tolist()], side, side)
        roof = painted(land, building, size)
        assert (mask & roof).sum() >= 0.95 * (mask | roof).sum()
        compared += 1
    assert compared


@pytest.mark.parametrize("index", [0, 11])
def test_a_roof_painted_red_is_red_where_the_label_says(index, monkeypatch):
    """The whole way to the picture: what is red there is what the labels cover, but for trees before it."""
    land = composed(index)
    for building in land.buildings:
        building.__dict__["patches"] = (Patch(building.loops, (255.0, 0.0, 0.0, 0.0)),)
    polygons = [polygon for parts, _ in aerial_scenes.annotate(land, 320) for polygon in parts]
    mask = masks.polygons_to_mask(polygons, 320, 320)
    picture = paint_land(land, 320).astype(int)
    red = picture[..., 0] - picture[..., 1] > 90
    assert (red & mask).sum() > 0.85 * mask.sum()
    assert (red & ~mask).sum() < 0.03 * red.sum()


def test_roofs_do_not_overlap(sample):
    for index in range(80):
        taken = np.zeros((SIZE, SIZE), int)
        lines = lines_of(picture_path(sample, index))
        for line in lines:
            taken += drawn(line)
        assert (taken > 1).sum() <= 0.02 * max((taken > 0).sum(), 1), index


# ----------------------------------------------------------------------------------- special cases


def test_special_cases_are_where_they_should_be():
    assert max(aerial_scenes.SPECIALS) < aerial_scenes.PERIOD and aerial_scenes.PERIOD % 5 == 0
    by_part = {part: [] for part in PARTS}
    for index, special in aerial_scenes.SPECIALS.items():
        by_part[aerial_scenes.part_of(index)].append(special)
    assert all(any(special.scene is aerial_scenes.empty for special in by_part[part]) for part in PARTS)
    train = by_part["train"]
    wanted = (aerial_scenes.one_courtyard, aerial_scenes.under_a_bridge, aerial_scenes.at_the_corner)
    wanted += (aerial_scenes.dense, aerial_scenes.sheds)
    assert {special.scene for special in train} >= set(wanted)
    assert any(special.exif == 6 for special in train) and any(special.grey for special in train)


@pytest.mark.parametrize("index", [5, 6, 7])
def test_a_picture_without_buildings_has_an_empty_label_file(index, sample):
    path = picture_path(sample, index)
    assert path.is_file() and lines_of(path) == [] and annotations(sample, index) == []


def test_a_court_is_a_hole_for_coco_and_filled_for_yolo(sample):
    (line,), (said,) = lines_of(picture_path(sample, 3)), annotations(sample, 3)
    hole = drawn(line) & ~masks.rle_to_mask(said["segmentation"])
    assert 0.08 * drawn(line).sum() < hole.sum() < 0.6 * drawn(line).sum()
    rows, columns = np.nonzero(hole)
    assert drawn(line)[rows.min() - 2, columns].all() and drawn(line)[rows.max() + 2, columns].all()


def test_a_building_under_a_bridge_has_two_parts(sample):
    lines, (said,) = lines_of(picture_path(sample, 4)), annotations(sample, 4)
    assert len(lines) == 2 == len(said["segmentation"])
    one, other = (cv2.dilate(drawn(line).astype(np.uint8), np.ones((5, 5))) for line in lines)
    assert not (one & other).any()


def test_a_building_is_cut_by_the_corner(sample):
    corners = [
        drawn(line)[rows, columns]
        for line in lines_of(picture_path(sample, 8))
        for rows in (0, -1)
        for columns in (0, -1)
    ]
    assert any(corners)


def test_terraces_are_many_and_sheds_are_tiny(sample):
    assert len(lines_of(picture_path(sample, 9))) > 40
    areas = [drawn(line).sum() for line in lines_of(picture_path(sample, 10))]
    assert len(areas) >= 8 and max(areas) <= 20


@pytest.mark.parametrize("index", [13, 16])
def test_labels_of_a_turned_picture_are_those_of_what_a_viewer_shows(index, sample):
    with Image.open(picture_path(sample, index)) as file:
        assert file.getexif()[0x0112] == 6
        shown = np.asarray(ImageOps.exif_transpose(file), dtype=int)
        stored = np.asarray(file, dtype=int)
    upright = paint_land(composed(index), SIZE).astype(int)
    assert np.abs(shown - upright).mean() < 12 < np.abs(stored - upright).mean()


def test_grey_pictures_are_stored_grey(sample):
    modes = {path: Image.open(path).mode for path in sample.rglob("*.jpg")}
    assert {path for path, mode in modes.items() if mode == "L"} == {picture_path(sample, i) for i in (14, 17)}


# -------------------------------------------------------------------------------------- statistics


def test_ordinary_pictures_can_be_learnt_from():
    counts, sides = [], []
    for index in range(80, 160):
        if index % aerial_scenes.PERIOD not in aerial_scenes.SPECIALS:
            found = aerial_scenes.annotate(composed(index), 160)
            counts.append(len(found))
            sides += [said["area"] ** 0.5 for _, said in found]
    assert 4 <= np.median(counts) <= 12 and np.mean(np.array(counts) > 40) < 0.1
    assert 12 < np.median(sides) < 40


def test_colour_alone_does_not_find_buildings(sample):
    values, truth = [], []
    for index in range(80):
        path = picture_path(sample, index)
        with Image.open(path) as file:
            shown = ImageOps.exif_transpose(file).convert("RGB")
        mask = np.zeros((SIZE, SIZE), bool)
        for line in lines_of(path):
            mask |= drawn(line)
        planes = [np.asarray(shown), np.asarray(shown.convert("HSV")), np.asarray(shown.convert("L"))[..., None]]
        values.append(np.concatenate(planes, axis=-1).reshape(-1, 7))
        truth.append(mask.ravel())
    buildings = np.concatenate(truth)
    for channel in np.concatenate(values).T:
        assert test_scenes.best_threshold(channel, buildings) < 0.6
