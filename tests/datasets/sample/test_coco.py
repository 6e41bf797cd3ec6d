"""The bundled sample: COCO's layout, the same bytes every time, true annotations, every special case in its place."""

import hashlib
import json
import os
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from seglib import masks
from seglib.datasets import figures, scenes
from seglib.datasets.sample.scene import make_stage

PERSON, CAT, DOG, BALL, PLANT, BOOK = 1, 17, 18, 37, 64, 84
WANTED = (PERSON, CAT, BALL, BOOK)  # in class order


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    return scenes.render("coco", 80, 160, root=tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def train(sample) -> COCO:
    return COCO(sample / "annotations" / "instances_train.json")


@pytest.fixture(scope="module")
def val(sample) -> COCO:
    return COCO(sample / "annotations" / "instances_val.json")


def stored(sample: Path, part: str) -> dict[int, Image.Image]:
    """The JPEGs of a part by image id, as they lie on the disk."""
    return {int(path.stem): Image.open(path) for path in sorted((sample / "images" / part).glob("*.jpg"))}


def digest(folder: Path) -> str:
    """One hash of every file's path and bytes."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


def objects(coco: COCO, **wanted) -> list[tuple[dict, np.ndarray]]:
    return [(a, coco.annToMask(a).astype(bool)) for a in coco.loadAnns(coco.getAnnIds(**wanted))]


# ------------------------------------------------------------------------------------------- files


def test_layout_is_cocos(sample):
    for part, count in (("train", 64), ("val", 16)):
        content = json.loads((sample / "annotations" / f"instances_{part}.json").read_text())
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert [c["id"] for c in content["categories"]] == [1, 17, 18, 37, 64, 84]
        names = {path.name for path in (sample / "images" / part).iterdir()}
        assert names == {image["file_name"] for image in content["images"]}
        assert len(names) == count and all(len(name) == 16 for name in names)
        assert all(set(image) >= {"id", "file_name", "width", "height", "license"} for image in content["images"])
        keys = {"id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd"}
        assert all(set(annotation) == keys for annotation in content["annotations"])
        ids = [annotation["id"] for annotation in content["annotations"]]
        assert len(set(ids)) == len(ids)
    assert sorted(path.name for path in sample.iterdir()) == ["annotations", "images"]


def test_same_bytes_in_another_process(sample, tmp_path):
    command = "import sys; from seglib.datasets import scenes; scenes.render('coco', 80, 160, root=sys.argv[1])"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", command, tmp_path], check=True, env=environment, cwd=Path(__file__).parents[1]
    )
    assert digest(tmp_path / sample.name) == digest(sample)


def test_two_processes_at_once_both_end_well(tmp_path):
    command = "import sys; from seglib.datasets import scenes; print(scenes.render('coco', 4, 96, root=sys.argv[1]))"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", command, tmp_path], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
        )
        for _ in range(2)
    ]
    answers = {process.communicate()[0].decode().strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert answers == {str(path) for path in tmp_path.iterdir()}  # one folder, and nothing left beside it


def test_another_who_was_faster_is_kept(tmp_path, monkeypatch):
    theirs = scenes.render("coco", 2, 64, root=tmp_path)
    before = digest(theirs)
    hidden = tmp_path / "hidden"
    theirs.rename(hidden)

    def write(folder, *numbers):
        scenes._write_coco(folder, *numbers)
        hidden.rename(theirs)  # the other process finishes while this one draws

    monkeypatch.setitem(scenes.WRITERS, "coco", write)
    assert scenes.render("coco", 2, 64, root=tmp_path) == theirs
    assert digest(theirs) == before and [path.name for path in tmp_path.iterdir()] == [theirs.name]


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def write(folder, *numbers):
        (folder / "half").mkdir()
        raise OSError("disk full")

    monkeypatch.setitem(scenes.WRITERS, "coco", write)
    with pytest.raises(OSError, match="disk full"):
        scenes.render("coco", 2, 64, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_second_call_does_not_render(sample, monkeypatch):
    monkeypatch.setitem(scenes.WRITERS, "coco", lambda *numbers: pytest.fail("rendered again"))
    assert scenes.render("coco", 80, 160, root=sample.parent) == sample


def test_changed_renderer_renders_again(tmp_path, monkeypatch):
    old = scenes.render("coco", 2, 64, root=tmp_path)
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    assert scenes.render("coco", 2, 64, root=tmp_path) != old


def test_picture_depends_on_seed_and_index_alone(sample, tmp_path):
    few = scenes.render("coco", 5, 160, root=tmp_path)
    other = scenes.render("coco", 5, 160, seed=1, root=tmp_path)
    for path in sorted(few.rglob("*.jpg")):
        relative = path.relative_to(few)
        assert path.read_bytes() == (sample / relative).read_bytes()
        assert path.read_bytes() != (other / relative).read_bytes()


@pytest.mark.parametrize("images", [2, 3, 5, 7, 20])
def test_small_renders_have_both_parts(images, tmp_path):
    folder = scenes.render("coco", images, 64, root=tmp_path)
    counts = {part: len(list((folder / "images" / part).iterdir())) for part in ("train", "val")}
    assert sum(counts.values()) == images
    assert counts["train"] == (1 if images == 2 else round(0.8 * images))
    for part in counts:
        assert len(COCO(folder / "annotations" / f"instances_{part}.json").imgs) == counts[part]


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="nosuch.*coco"):
        scenes.render("nosuch", 4, 96, root=tmp_path)
    with pytest.raises(ValueError, match="at least 2 images"):
        scenes.render("coco", 1, 96, root=tmp_path)


def test_fast_enough(tmp_path):
    start = time.perf_counter()
    scenes.render("coco", 40, 160, seed=3, root=tmp_path)
    assert time.perf_counter() - start < 20


# ------------------------------------------------------------------------------------- annotations


@pytest.mark.parametrize("part", ["train", "val"])
def test_numbers_agree_with_the_mask(part, request):
    coco = request.getfixturevalue(part)
    for annotation, mask in objects(coco):
        image = coco.imgs[annotation["image_id"]]
        assert mask.shape == (image["height"], image["width"])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        assert annotation["area"] == mask.sum() > 0
        assert annotation["bbox"] == box
        if isinstance(annotation["segmentation"], list):
            assert (masks.polygons_to_mask(annotation["segmentation"], *mask.shape) == mask).all()


def test_polygons_are_true_to_what_is_seen():
    for index in range(30):
        stage = scenes.compose(np.random.default_rng([0, index]), 160, scenes.SPECIALS.get(index))
        scenes.paint_stage(stage)
        for thing, mask in scenes.visible_masks(stage):
            annotation = scenes.annotate(mask, thing.crowd)
            if isinstance(annotation["segmentation"], list):
                drawn = masks.polygons_to_mask(annotation["segmentation"], *mask.shape)
                assert (drawn ^ mask).sum() <= max(0.05 * (drawn | mask).sum(), 8)
                assert sum(map(len, annotation["segmentation"])) < 2 * mask.sum() + 200


def test_mask_lies_where_the_figure_was_painted():
    stage = make_stage(np.random.default_rng(0), 160, indoor=True, camera=1.0, aspect=0.75)
    stage.canvas[:] = 90.0
    red = figures.Figure([figures.Part(figures.ellipse((0, 0.5), 0.3, 0.5), (255, 0, 0), flat=True)], height=1.0)
    stage.put(red, 70, 60.0, PERSON)
    picture = scenes.paint_stage(stage).astype(int)
    ((_, mask),) = scenes.visible_masks(stage)
    assert ((picture[..., 0] - picture[..., 1] > 80) ^ mask).sum() < 0.02 * mask.sum()


def test_runs_of_a_crowd_read_back():
    for mask in (np.zeros((3, 4), bool), np.ones((3, 4), bool), np.eye(5, 4, dtype=bool)):
        assert (masks.rle_to_mask(scenes._plain_rle(mask)) == mask).all()


# ----------------------------------------------------------------------------------- special cases


def crowds(coco):
    return {a["category_id"]: a for a in coco.anns.values() if a["iscrowd"]}


def holes(coco):
    """Objects, not crowds, whose compressed run-length code has a hole that polygons would fill."""
    found = []
    for annotation, mask in objects(coco, iscrowd=False):
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
            outline = masks.polygons_to_mask(masks.mask_to_polygons(mask), *mask.shape)
            found += [annotation] if (outline & ~mask).sum() > 8 else []
    return found


def disagreements(coco) -> set[tuple[int, int]]:
    """Wanted categories that overlap with the smaller object of the lower class: the two rules of overlap differ."""
    found = set()
    for image_id in coco.imgs:
        here = objects(coco, imgIds=[image_id], catIds=list(WANTED), iscrowd=False)
        for (a, mask_a), (b, mask_b) in combinations(sorted(here, key=lambda pair: pair[0]["category_id"]), 2):
            low, high = a["category_id"], b["category_id"]
            if low < high and a["area"] < b["area"] and (mask_a & mask_b).sum() > 20:
                found.add((low, high))
    return found


@pytest.mark.parametrize("part", ["train", "val"])
def test_special_cases_in_both_parts(part, sample, request):
    coco, pictures = request.getfixturevalue(part), stored(sample, part)
    crowd = crowds(coco)[PERSON]
    assert isinstance(crowd["segmentation"]["counts"], list) and crowd["area"] > 50
    people = coco.loadAnns(coco.getAnnIds(imgIds=[crowd["image_id"]], catIds=[PERSON], iscrowd=False))
    assert any(person["area"] > crowd["area"] for person in people), "somebody by himself where the crowd is"
    balls = coco.loadAnns(coco.getAnnIds(catIds=[BALL]))
    assert any(max(ball["bbox"][2:]) <= 7 for ball in balls), "tiny"
    assert any(not coco.getAnnIds(imgIds=[image_id]) for image_id in coco.imgs), "without annotations"
    assert any(picture.mode == "L" for picture in pictures.values()), "grey"
    assert any(picture.getexif().get(0x0112) == 6 for picture in pictures.values()), "turned"
    assert disagreements(coco)


@pytest.mark.parametrize("index", [3, 7, 16])
def test_people_behind_posts_have_several_parts(index, request):
    coco = request.getfixturevalue(scenes.part_of(index, 80))
    people = coco.loadAnns(coco.getAnnIds(imgIds=[(index + 1) * 139], catIds=[PERSON]))
    parts = [len(p["segmentation"]) for p in people if isinstance(p["segmentation"], list) and p["area"] > 300]
    assert max(parts) > 1


@pytest.mark.parametrize("part", ["train", "val"])
def test_nearly_all_objects_are_polygons(part, request):
    single = objects(request.getfixturevalue(part), iscrowd=False)
    assert np.mean([isinstance(annotation["segmentation"], list) for annotation, _ in single]) > 0.85


def test_special_cases_in_train(sample, train):
    assert PLANT in crowds(train), "a crowd of an unwanted category"
    assert holes(train)
    assert {(PERSON, BALL), (PERSON, BOOK), (CAT, BOOK), (BALL, BOOK)} <= disagreements(train)


@pytest.mark.parametrize("part", ["train", "val"])
def test_sizes_are_those_that_the_case_says(part, sample, request):
    coco, turned = request.getfixturevalue(part), {}
    for image_id, picture in stored(sample, part).items():
        image = coco.imgs[image_id]
        said, shown = (image["width"], image["height"]), ImageOps.exif_transpose(picture).size
        orientation = picture.getexif().get(0x0112, 1)
        assert said == (picture.size if orientation == 8 else shown)
        assert max(said) == 160
        if orientation != 1:
            assert said[0] != said[1] and coco.getAnnIds(imgIds=[image_id])
            turned[orientation] = turned.get(orientation, 0) + 1
    assert turned == ({6: 1, 8: 1} if part == "train" else {6: 1})


@pytest.mark.parametrize("index", [5, 7, 14])
def test_annotations_of_turned_pictures_lie_on_the_picture(index, sample, request):
    """The upright scene, composed again, has the masks that the file's own annotations give on the file's raster."""
    coco = request.getfixturevalue(scenes.part_of(index, 80))
    special, image_id = scenes.SPECIALS[index], (index + 1) * 139
    stage = scenes.compose(np.random.default_rng([0, index]), 160, special)
    upright = scenes.paint_stage(stage).astype(int)
    with Image.open(sample / "images" / scenes.part_of(index, 80) / coco.imgs[image_id]["file_name"]) as file:
        shown = np.asarray(ImageOps.exif_transpose(file), dtype=int)
    assert np.abs(shown - upright).mean() < 12  # what a viewer shows is the upright scene
    people = np.zeros(upright.shape[:2], dtype=bool)
    for thing, mask in scenes.visible_masks(stage):
        people |= mask & (thing.category == PERSON)
    said = np.any([mask for _, mask in objects(coco, imgIds=[image_id], catIds=[PERSON])], axis=0)
    if special.stored:  # the raster is turned back a quarter anticlockwise to stand upright
        said = np.rot90(said, 1)
    assert (said & people).sum() > 0.95 * (said | people).sum()


def test_special_cases_in_a_larger_render_and_in_the_smallest():
    """The fixed places repeat every PERIOD pictures, and all that must be there is among the first twenty."""
    assert max(scenes.SPECIALS) < scenes.PERIOD == 80
    assert scenes.PERIOD % 5 == 0  # so that what is val once is val again
    for part in ("train", "val"):
        here = [
            special for index, special in scenes.SPECIALS.items() if index < 20 and scenes.part_of(index, 20) == part
        ]
        assert any(special.grey for special in here) and any(special.exif == 6 for special in here)
        assert any(special.scene is scenes.empty for special in here)


# -------------------------------------------------------------------------------------- statistics


def test_every_wanted_category_occurs_often_enough(train, val):
    for category in WANTED:
        assert len(train.getImgIds(catIds=[category])) >= 10
        assert len(val.getImgIds(catIds=[category])) >= 3
    for category in (DOG, PLANT):
        assert train.getImgIds(catIds=[category])


def test_people_are_most_of_what_there_is(train):
    pixels = {c: sum(a["area"] for a in train.loadAnns(train.getAnnIds(catIds=[c]))) for c in WANTED}
    total = sum(image["width"] * image["height"] for image in train.imgs.values())
    assert 0.10 < pixels[PERSON] / total < 0.18
    assert pixels[PERSON] > 3 * max(pixels[BALL], pixels[BOOK], pixels[CAT])
    assert 0.65 < len(train.getImgIds(catIds=[PERSON])) / len(train.imgs) < 0.85


def test_pictures_have_many_shapes(train):
    ratios = {round(image["width"] / image["height"], 1) for image in train.imgs.values()}
    assert len(ratios) >= 4 and min(ratios) < 1 < max(ratios) and 1.0 in ratios


def test_colour_alone_does_not_find_people(sample, train):
    channels: dict[str, list] = {name: [] for name in "RGBHSVL"}
    truth = []
    for image_id, picture in stored(sample, "train").items():
        image = train.imgs[image_id]
        shown = ImageOps.exif_transpose(picture)
        shown = shown if shown.size == (image["width"], image["height"]) else picture
        mask = np.zeros(shown.size[::-1], dtype=bool)
        for _, part in objects(train, imgIds=[image_id], catIds=[PERSON]):
            mask |= part
        truth.append(mask.ravel())
        for mode in ("RGB", "HSV", "L"):
            values = np.asarray(shown.convert("RGB").convert(mode)).reshape(mask.size, -1)
            for name, column in zip(mode, values.T, strict=True):
                channels[name].append(column)
    people = np.concatenate(truth)
    assert people.mean() < 0.2  # everything called a person
    for name, parts in channels.items():
        values = np.concatenate(parts)
        assert best_threshold(values, people) < 0.35, name


def best_threshold(values: np.ndarray, truth: np.ndarray) -> float:
    """The best IoU with `truth` of any mask "value at most t" or "value above t"."""
    hits = np.bincount(values[truth], minlength=256).cumsum()
    chosen = np.bincount(values, minlength=256).cumsum()
    below = hits / (truth.sum() + chosen - hits)
    above = (hits[-1] - hits) / (hits[-1] + (chosen[-1] - chosen) - (hits[-1] - hits))
    return float(max(below.max(), above.max()))
