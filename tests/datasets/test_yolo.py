"""YOLO-seg folders: how they are read, what is said of broken ones, and what becomes of COCO's annotations in them."""

import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from seglib.datasets import COCOSegmentationDataset
from seglib.datasets.yolo import (
    Converted,
    YOLOSegmentationDataset,
    coco_to_yolo,
    read_data_yaml,
    round_trip,
    to_lines,
    yolo_to_coco,
)
from seglib.masks import join_polygons, mask_to_outlines, mask_to_rle
from seglib.transforms import resize
from tests.conftest import REAL

SQUARE = "0 0.1 0.25 0.5 0.25 0.5 0.75 0.1 0.75"  # of 8x10 pixels: x 1 to 4, y 2 to 5
TRIANGLE = "1 0.5 0 1 0 1 1"
YAML = "names: [cup, hat]\nnc: 2\ntrain: train/images\nval: valid/images\n"
bitmaps = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def photograph(path: Path, size=(8, 10), **settings) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path, **settings)


class Folder:
    """A YOLO-seg folder with one photograph a part, to break on purpose."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.yaml(YAML)
        for part in ("train", "valid"):
            photograph(root / part / "images" / "a.png")
            self.label("a", f"{SQUARE}\n", part)

    def yaml(self, text: str) -> None:
        (self.root / "data.yaml").write_text(text)

    def label(self, name: str, text: str | bytes, part: str = "train") -> None:
        path = self.root / part / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def open(self, part: str = "train", **settings) -> YOLOSegmentationDataset:
        return YOLOSegmentationDataset(self.root, part, **settings)


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path)


def raster(line: str, height: int, width: int) -> np.ndarray:
    """A label line drawn by pycocotools alone."""
    values = np.array(line.split()[1:], dtype=float) * np.resize([width, height], len(line.split()) - 1)
    return coco_mask.decode(coco_mask.frPyObjects([values.round(6).tolist()], height, width))[..., 0].astype(bool)


def corners(line: str, height: int, width: int) -> list[tuple[float, float]]:
    """The points of a label line in pixels, sorted: where an outline begins is of no interest."""
    values = np.array(line.split()[1:], dtype=float).reshape(-1, 2) * (width, height)
    return sorted(map(tuple, values.round(4).tolist()))


def listing(root: Path) -> dict:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(root.rglob("*"))}


# ------------------------------------------------------------------------------------------------ reading


def test_a_sample_is_image_mask_and_name(folder):
    folder.label("a", f"{SQUARE}\n{TRIANGLE}\n")
    data = folder.open()
    image, mask, name = data[0]
    assert data.classes == ["background", "cup", "hat"] and name == "a.png" and len(data) == 1
    assert (image.shape, str(image.dtype), mask.shape, str(mask.dtype)) == (
        (3, 8, 10),
        "torch.uint8",
        (8, 10),
        "torch.uint8",
    )
    assert (mask.numpy()[raster(SQUARE, 8, 10)] == 1).all() and (mask == 1).sum() == 16
    assert (mask.numpy()[raster(TRIANGLE, 8, 10)] == 2).all()
    assert folder.open("val")[0][1].max() == 1
    assert data.image_path(0) == folder.root / "train/images/a.png"
    assert data.label_path("a.png") == folder.root / "train/labels/a.txt"


def test_a_line_is_an_object_in_the_order_of_the_file(folder):
    folder.label("a", f"{TRIANGLE}\n{SQUARE}\n{SQUARE}\n")
    data = folder.open()
    objects = data.instances(0)
    assert data.lines(0) == [TRIANGLE, SQUARE, SQUARE] and objects.labels.tolist() == [2, 1, 1]
    assert objects.size == (8, 10) and objects.scores is None and not objects.crowd.any()
    for bitmap, line in zip(objects.masks, data.lines(0), strict=True):
        assert (bitmap == raster(line, 8, 10)).all()


def test_of_two_objects_on_a_pixel_the_smaller_is_seen(folder):
    everything = "1 0 0 1 0 1 1 0 1"
    for text in (f"{SQUARE}\n{everything}\n", f"{everything}\n{SQUARE}\n"):
        folder.label("a", text)
        mask = folder.open()[0][1]
        assert (mask == 1).sum() == 16 and (mask == 2).sum() == 64


@pytest.mark.parametrize("text", [None, "", "\n  \n\r\n"])
def test_an_image_without_lines_is_background(folder, text):
    (folder.root / "train/labels/a.txt").unlink()
    if text is not None:
        folder.label("a", text)
    data = folder.open()
    assert data[0][1].max() == 0 and len(data.instances(0)) == 0 and data.instances(0).size == (8, 10)


def test_a_part_without_any_label_is_all_background(folder):
    (folder.root / "train/labels/a.txt").unlink()
    assert folder.open()[0][1].max() == 0


def test_labels_that_lie_elsewhere_are_missed(folder):
    """Else every photograph would teach that there is nothing on it."""
    (folder.root / "train/labels").rename(folder.root / "train/label")
    with pytest.raises(FileNotFoundError, match=r"no folder .*train/labels.*there is images, label|label"):
        folder.open()


@pytest.mark.parametrize(("name", "message"), [("b.txt", "no photograph"), ("a.TXT", "small letters")])
def test_label_files_that_nobody_would_read_are_named(folder, name, message):
    (folder.root / "train/labels" / name).write_text(SQUARE)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        folder.open()
    (folder.root / "train/labels" / name).rename(folder.root / "train/labels/classes.txt")
    folder.open()


def test_a_part_that_is_not_there_is_in_nobodys_way(folder):
    folder.yaml(YAML + "test: test/images\n")
    assert len(folder.open()) == 1
    with pytest.raises(FileNotFoundError, match="'test' lies"):
        YOLOSegmentationDataset(folder.root, "test")


@pytest.mark.parametrize(
    "text",
    [
        f"{SQUARE}\r\n{TRIANGLE}\r\n",
        f"\ufeff{SQUARE}\n{TRIANGLE}",
        f"\n{SQUARE}\n\n\t{TRIANGLE}  \n",
        f"{SQUARE}\r{TRIANGLE}",
    ],
    ids=["Windows", "byte order mark", "blank lines", "old Macintosh"],
)
def test_lines_end_as_they_may(folder, text):
    folder.label("a", text)
    assert folder.open().instances(0).labels.tolist() == [1, 2]


def test_folders_below_are_read_and_what_is_hidden_or_no_image_is_not(folder):
    images = folder.root / "train/images"
    photograph(images / "city/b.JPG", size=(4, 6))
    folder.label("city/b", TRIANGLE)
    photograph(images / ".thumbnails/a.png")
    photograph(images / "._a.png")
    (images / "notes.txt").write_text("0 0 0")
    (images / "folder.png").mkdir()
    data = folder.open()
    assert data.filenames == ["a.png", "city/b.JPG"]
    assert data.instances(1).size == (4, 6) and data.instances(1).labels.tolist() == [2]
    assert data.label_path("city/b.JPG") == folder.root / "train/labels/city/b.txt"


def test_of_several_folders_called_images_the_last_becomes_labels(tmp_path):
    folder = Folder(tmp_path / "images/buildings")
    assert folder.open().label_path("a.png") == tmp_path / "images/buildings/train/labels/a.txt"
    assert len(folder.open().instances(0)) == 1


def test_a_name_with_dots_keeps_them(folder):
    photograph(folder.root / "train/images/b.rf.12.jpg")
    folder.label("b.rf.12", TRIANGLE)
    data = folder.open()
    assert data.instances(data.filenames.index("b.rf.12.jpg")).labels.tolist() == [2]


def test_two_images_that_share_a_label_file_are_named(folder):
    photograph(folder.root / "train/images/a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg, a\.png in .*images share a label file"):
        folder.open()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_labels_are_of_the_image_as_it_is_seen(folder, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder.root / "train/images/a.png").unlink()
    photograph(folder.root / f"train/images/a.{suffix}", size=(10, 8), exif=exif)  # seen: 8 high, 10 wide
    data = folder.open()
    image, mask, _ = data[0]
    assert data.instances(0).size == (8, 10) and image.shape == (3, 8, 10)
    assert (mask.numpy().astype(bool) == raster(SQUARE, 8, 10)).all()


def test_an_image_whose_exif_is_damaged_is_as_it_is_stored(folder):
    photograph(folder.root / "train/images/a.png", exif=b"Exif\0\0garbage, garbage")
    assert folder.open()[0][1].shape == (8, 10)


def test_transform_changes_the_sample_and_not_the_objects(folder):
    data = folder.open(transform=resize(16, 20))
    image, mask, _ = data[0]
    assert image.shape == (3, 16, 20) and mask.shape == (16, 20) and mask.sum() == 64
    assert data.instances(0).size == (8, 10)
    assert pickle.loads(pickle.dumps(data))[0][1].sum() == 64


def test_nothing_is_written_into_the_folder(folder, tmp_path_factory):
    photograph(folder.root / "train/images/b.png")
    before = listing(folder.root)
    data = folder.open()
    for index in range(len(data)):
        data[index], data.instances(index), data.lines(index)
    yolo_to_coco(data, tmp_path_factory.mktemp("elsewhere") / "a.json")
    assert listing(folder.root) == before


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_objects_are_those_of_pycocotools_and_roughly_those_of_opencv(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("yolo", numbered=True)
    height, width = data.draw(st.integers(20, 60)), data.draw(st.integers(20, 60))
    point = st.tuples(st.integers(0, 10**4), st.integers(0, 10**4))
    points = data.draw(st.lists(point, min_size=3, max_size=6, unique=True))
    centre = np.mean(points, axis=0)  # in order around it: an outline that does not cross itself
    points.sort(key=lambda p: np.arctan2(p[1] - centre[1], p[0] - centre[0]))
    line = " ".join(["0", *(f"{value / 10**4:g}" for pair in points for value in pair)])
    folder = Folder(root)
    photograph(root / "train/images/a.png", size=(height, width))
    if min(p[0] for p in points) == 10**4 or max(p[0] for p in points) == 0:
        return
    if min(p[1] for p in points) == 10**4 or max(p[1] for p in points) == 0:
        return
    folder.label("a", line)
    sample = folder.open()
    found = sample.instances(0).masks[0]
    assert (found == raster(line, height, width)).all()
    assert (sample[0][1].numpy() == found).all()
    pixels = np.array(points) / 10**4 * (width, height) - 0.5  # OpenCV's coordinates are those of pixels' centres
    drawn = cv2.fillPoly(np.zeros((height, width), np.uint8), [pixels.round().astype(np.int32)], 1).astype(bool)
    outline = cv2.polylines(np.zeros((height, width), np.uint8), [pixels.round().astype(np.int32)], True, 1, 3)
    assert not (found ^ drawn)[outline == 0].any()


# ------------------------------------------------------------------------------------------------ data.yaml


@pytest.mark.parametrize(
    "text",
    [
        YAML,
        "names: {0: cup, 1: hat}\ntrain: train/images\nval: valid/images",
        "names:\n  1: hat\n  0: cup\ntrain: train\nval: valid",
        "names: [cup, hat]\ntrain: ../train/images\nval: ../valid/images",  # as Roboflow writes it
        "names: [cup, hat]\ntrain: ./train/images/\nvalid: valid/images",
        "path: /nowhere/on/this/machine\nnames: [cup, hat]\ntrain: train/images\nval: valid/images\ntest:",
        "path:\nnames: [cup, hat]\ntrain: train/images\nval: valid/images",
        "path: .\nnames: [cup, hat]\ntrain: train/images\nval: valid/images",
        "\ufeffnames: [cup, hat]\ntrain: train/images\nval: valid/images",
    ],
)
def test_a_data_yaml_of_any_dialect(folder, text):
    (folder.root / "data.yaml").write_text(text, encoding="utf-8")
    names, parts = read_data_yaml(folder.root)
    assert names == ["cup", "hat"] and list(parts) == ["train", "val"]
    for part in ("train", "val"):
        assert folder.open(part).instances(0).labels.tolist() == [1]


def test_path_counts_from_data_yaml_or_is_absolute(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    photograph(elsewhere / "inner/images/train/x.png")
    (elsewhere / "inner/labels/train").mkdir(parents=True)
    (elsewhere / "inner/labels/train/x.txt").write_text(TRIANGLE)
    os.rename(elsewhere / "inner", folder.root / "inner")
    for path in ("inner", folder.root / "inner"):
        folder.yaml(f"path: {path}\nnames: [cup, hat]\ntrain: images/train\n")
        data = folder.open()
        assert data.filenames == ["x.png"] and data.instances(0).labels.tolist() == [2]


def test_names_that_are_no_text_become_text(folder):
    folder.yaml("names: [1, yes]\ntrain: train/images")
    assert folder.open().classes == ["background", "1", "True"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, FileNotFoundError, r"no .*data\.yaml"),
        ("", ValueError, r"data\.yaml has no list of class names"),
        ("names: [cup", ValueError, r"data\.yaml has no list of class names"),
        ("names:", ValueError, "no list of class names"),
        ("names: building\ntrain: train/images", ValueError, "no list of class names"),
        ("names: 3\ntrain: train/images", ValueError, "no list of class names"),
        ("names: {1: cup, 2: hat}\ntrain: train/images", ValueError, "no list of class names"),
        ("train: train/images\nnc: 2", ValueError, "no list of class names"),
        ("names: [cup, hat]\nnc: 3\ntrain: train/images", ValueError, "nc: 3 but names 2 classes"),
        ("names: [cup, hat]", ValueError, "names no folder of images"),
        (
            "names: [cup, hat]\ntrain: train/pictures",
            FileNotFoundError,
            "no folder of images where .*data.yaml says 'train' lies",
        ),
        ("names: [cup, hat]\ntrain: train.txt", ValueError, "'train.txt' is no folder"),
        ("names: [cup, hat]\ntrain: [train/images, valid/images]", ValueError, "is no folder"),
        ("names: [cup, hat]\nval: valid/images", FileNotFoundError, "no part 'train'; there are val"),
        ("names: [cup, hat]\ntrain: photographs", ValueError, "must lie in a folder called images"),
        (
            "names: {0: cup, 2: hat}\ntrain: train/images",
            ValueError,
            r"\[0, 2\], where they count from 0 without a gap",
        ),
        ("names: [cup, cup]\ntrain: train/images", ValueError, "there twice"),
        ("names: [background, cup]\ntrain: train/images", ValueError, "or is background"),
    ],
)
def test_a_data_yaml_that_is_none_says_why(folder, text, error, message):
    photograph(folder.root / "photographs/a.png")
    if text is None:
        (folder.root / "data.yaml").unlink()
    else:
        folder.yaml(text)
    with pytest.raises(error, match=message):
        folder.open()


def test_more_classes_than_a_mask_of_bytes_holds_and_no_image_at_all(folder):
    folder.yaml(f"names: {[f'c{i}' for i in range(255)]}\ntrain: train/images")
    with pytest.raises(ValueError, match="256 classes"):
        folder.open()
    folder.yaml(YAML)
    (folder.root / "train/images/a.png").unlink()
    with pytest.raises(ValueError, match="no image in .*train/images"):
        folder.open()


# ------------------------------------------------------------------------------------------------ broken lines

BROKEN = {
    "two points": ("0 0.1 0.1 0.2 0.2 ", "box"),  # four numbers, whatever they were meant for
    "one point": ("0 0.1 0.1", "1 points"),
    "no point": ("0", "0 points"),
    "odd": ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "odd number"),
    "above 1": ("0 0.1 0.1 0.2 0.2 1.01 0.3", "fractions from 0 to 1, found 0.1 to 1.01"),
    "below 0": ("0 -0.1 0.1 0.2 0.2 0.5 0.3", "fractions from 0 to 1, found -0.1"),
    "in pixels": ("0 10 10 20 20 30 10", "fractions from 0 to 1"),
    "unknown class": (SQUARE.replace("0 ", "2 ", 1), "class 2 is unknown: data.yaml has 2"),
    "negative class": (SQUARE.replace("0 ", "-1 ", 1), "class number, this one with '-1'"),
    "class with a point": (SQUARE.replace("0 ", "0.0 ", 1), "class number, this one with '0.0'"),
    "class by name": (SQUARE.replace("0 ", "cup ", 1), "class number, this one with 'cup'"),
    "superscript class": (SQUARE.replace("0 ", "\u00b2 ", 1), "class number"),
    "no number": ("0 0.1 0.1 x 0.2 0.3 0.3", "no number"),
    "commas": ("0 0.1,0.1,0.2,0.2,0.3,0.3", "no number"),
    "NaN": ("0 0.1 0.1 nan 0.2 0.3 0.3", "NaN"),
    "infinity": ("0 0.1 0.1 inf 0.2 0.3 0.3", "fractions.*inf"),
    "box": ("0 0.5 0.5 0.2 0.2", "box"),
    "no area at the border": ("0 1 0.1 1 0.5 1 0.9", "outside"),
    "another encoding": (b"0 0.1 0.1 0.\xff 0.2 0.3 0.3", "no number"),
}


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_line_is_raised_at_once_with_file_and_number(folder, case):
    line, message = BROKEN[case]
    folder.label("a", b"\n".join([SQUARE.encode(), b"", as_bytes(line), TRIANGLE.encode()]))
    with pytest.raises(ValueError, match=message) as error:
        folder.open()
    assert f"{folder.root / 'train/labels/a.txt'}:3: " in str(error.value) and 'on_error="skip"' in str(error.value)
    assert len(folder.open("val")) == 1


@pytest.mark.parametrize("case", BROKEN)
def test_skip_leaves_out_that_line_and_lists_it(folder, case):
    line, _ = BROKEN[case]
    folder.label("a", b"\r\n".join([as_bytes(line), TRIANGLE.encode(), as_bytes(line), SQUARE.encode()]))
    with pytest.warns(UserWarning, match="skipped 2, repaired 0"):
        data = folder.open(on_error="skip")
    path = folder.root / "train/labels/a.txt"
    assert [problem.where for problem in data.problems] == [f"{path}:1", f"{path}:3"]
    assert data.lines(0) == [TRIANGLE, SQUARE] and data.instances(0).labels.tolist() == [2, 1]
    assert set(np.unique(data[0][1])) == {0, 1, 2}


def test_skip_keeps_the_image_of_which_every_line_is_broken(folder):
    folder.label("a", "0 0.5 0.5 0.2 0.2")
    with pytest.warns(UserWarning):
        data = folder.open(on_error="skip")
    assert len(data) == 1 and data[0][1].max() == 0


def test_an_image_that_does_not_open(folder):
    photograph(folder.root / "train/images/b.png")
    path = folder.root / "train/images/b.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"b\.png cannot be read"):
        folder.open()[1]
    with pytest.warns(UserWarning, match="skipped 1"):
        data = folder.open(on_error="skip")
    assert data.filenames == ["a.png"] and data.problems[0].where == "b.png"


def test_on_error_is_raise_or_skip(folder):
    with pytest.raises(ValueError, match="on_error"):
        folder.open(on_error="ignore")


# ------------------------------------------------------------------------------------------------ real buildings


def test_real_buildings_are_read_as_they_are():
    root = REAL / "buildings_yolo"
    if not root.is_dir():
        pytest.skip("needs the real photographs of ../shared/data/buildings_yolo")
    for part, folder, images in (("train", "train", 700), ("val", "valid", 140)):
        data = YOLOSegmentationDataset(root, part)
        assert len(data) == images and data.classes == ["background", "building"] and not data.problems
        texts = {path.stem: path.read_text().split("\n") for path in (root / folder / "labels").glob("*.txt")}
        texts = {stem: [line for line in lines if line.strip()] for stem, lines in texts.items()}
        counts = [len(data.lines(index)) for index in range(len(data))]
        assert counts == [len(texts.get(Path(name).stem, [])) for name in data.filenames]
        for index in (int(np.argmax(counts)), int(np.argmin(counts)), 7, len(data) - 1):
            objects = data.instances(index)
            lines = texts.get(Path(data.filenames[index]).stem, [])
            assert len(objects) == len(lines) and objects.size == (512, 512)
            assert objects.areas.tolist() == [int(raster(line, 512, 512).sum()) for line in lines]
            if lines:
                drawn = np.any([raster(line, 512, 512) for line in lines], axis=0)
                assert ((data[index][1].numpy() == 1) == drawn).all()
    assert max(counts) > 100


# ------------------------------------------------------------------------------------------------ from COCO


@pytest.fixture
def coco(tmp_path) -> Path:
    """A COCO set of everything that YOLO's lines cannot say."""
    exif = Image.Exif()
    exif[0x0112] = 6
    images = tmp_path / "coco/images"
    photograph(images / "a.png", (20, 30))
    photograph(images / "sub/b.jpg", (10, 10))
    photograph(images / "c.jpg", (20, 30), exif=exif)
    ring = np.zeros((20, 30), bool)
    ring[10:18, 4:12] = True
    ring[12:16, 6:10] = False
    parts = [[2, 2, 6, 2, 6, 6, 2, 6], [22, 2, 26, 2, 26, 6, 22, 6]]
    over = [25, 15, 35, 15, 35, 25, 25, 25]
    overlapping = [[2, 2, 8, 2, 8, 8, 2, 8], [5, 5, 11, 5, 11, 11, 5, 11]]
    annotations = [
        {"id": 11, "image_id": 5, "category_id": 7, "segmentation": parts, "iscrowd": 0},
        {"id": 12, "image_id": 5, "category_id": 3, "segmentation": mask_to_rle(ring), "iscrowd": 0},
        {
            "id": 13,
            "image_id": 5,
            "category_id": 3,
            "segmentation": {"size": [20, 30], "counts": [0, 600]},
            "iscrowd": 1,
        },
        {"id": 14, "image_id": 5, "category_id": 90, "segmentation": [over], "iscrowd": 0},
        {"id": 15, "image_id": 9, "category_id": 3, "segmentation": overlapping, "iscrowd": 0},
    ]
    content = {
        "images": [
            {"id": 5, "file_name": "a.png", "height": 20, "width": 30},
            {"id": 6, "file_name": "sub/b.jpg", "height": 10, "width": 10},
            {"id": 9, "file_name": "c.jpg", "height": 20, "width": 30},
        ],
        "annotations": [item | {"area": 1} for item in annotations],
        "categories": [{"id": 90, "name": "car"}, {"id": 3, "name": "cup"}, {"id": 7, "name": "hat"}],
    }
    (tmp_path / "coco/a.json").write_text(json.dumps(content))
    return tmp_path / "coco"


def convert(coco: Path, root: Path, **settings) -> Converted:
    return coco_to_yolo(coco / "images", coco / "a.json", root, **settings)


def rectangle(left, top, right, bottom) -> list[tuple[float, float]]:
    return sorted([(left, top), (right, top), (right, bottom), (left, bottom)])


def test_coco_to_yolo_split_and_filled(coco, tmp_path):
    before = listing(coco)
    root = tmp_path / "yolo"
    report = convert(coco, root)
    lines = (root / "train/labels/a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "1", "0", "2"]
    assert [corners(line, 20, 30) for line in lines] == [
        rectangle(2, 2, 6, 6),
        rectangle(22, 2, 26, 6),
        rectangle(4, 10, 12, 18),  # the hole is filled
        rectangle(25, 15, 30, 20),  # cut off at the border
    ]
    assert (root / "train/labels/sub/b.txt").read_text() == ""
    union = [(2, 2), (2, 8), (5, 8), (5, 11), (8, 2), (8, 5), (11, 5), (11, 11)]
    (line,) = (root / "train/labels/c.txt").read_text().splitlines()
    assert line.startswith("0 ") and corners(line, 20, 30) == union
    assert report == Converted(
        images=3,
        background=1,
        objects=4,
        lines=5,
        several=1,
        holes=1,
        with_holes=1,
        retraced=2,
        clipped=1,
        crowds=1,
        lost=0,
        turned=1,
        problems=0,
        classes={3: 0, 7: 1, 90: 2},
        choices=("split", "fill"),
    )
    assert (root / "data.yaml").read_text() == "names:\n- cup\n- hat\n- car\nnc: 3\ntrain: train/images\n"
    assert {path: told[0] for path, told in listing(coco).items()} == {path: told[0] for path, told in before.items()}


def test_coco_to_yolo_joined_and_cut(coco, tmp_path):
    report = convert(coco, tmp_path / "yolo", several="join", holes="cut", part="val")
    data = YOLOSegmentationDataset(tmp_path / "yolo", "val")
    source = COCOSegmentationDataset(coco / "images", coco / "a.json")
    assert data.filenames == ["a.png", "c.jpg", "sub/b.jpg"]
    kept = source.instances(0).pick([0, 1, 3])
    assert data.instances(0).rles == kept.rles and data.instances(0).labels.tolist() == [2, 1, 3]
    assert data.instances(1).rles == source.instances(2).rles and len(data.instances(2)) == 0
    assert (report.lines, report.objects, report.several, report.holes, report.crowds) == (4, 4, 1, 1, 1)
    assert "valid/images" in (tmp_path / "yolo/data.yaml").read_text()


def test_what_a_conversion_tells(coco, tmp_path):
    assert str(convert(coco, tmp_path / "yolo")) == (
        "3 images, 1 of them without an object\n"
        "4 objects in 5 lines\n"
        "category ids renumbered: 3 -> 0, 7 -> 1, 90 -> 2\n"
        "1 objects of several parts: split, a line a part\n"
        "1 holes in 1 objects: filled\n"
        "2 objects drawn and outlined anew, pixel by pixel\n"
        "1 objects cut off at the border\n"
        "1 crowds left out\n"
        "1 images stored on their side were written upright"
    )
    told = str(convert(coco, tmp_path / "other", several="join", holes="cut"))
    assert "several parts: joined" in told and "cut by a slit" in told


def test_photographs_are_linked_and_one_on_its_side_is_written_as_it_was_annotated(coco, tmp_path):
    convert(coco, tmp_path / "yolo")
    images = tmp_path / "yolo/train/images"
    for name in ("a.png", "sub/b.jpg"):
        assert (images / name).samefile(coco / "images" / name)
    with Image.open(images / "c.jpg") as image, Image.open(coco / "images/c.jpg") as source:
        assert image.size == (30, 20) and 0x0112 not in image.getexif()
        assert source.getexif()[0x0112] == 6
    assert YOLOSegmentationDataset(tmp_path / "yolo")[1][0].shape == (3, 20, 30)


def test_a_photograph_that_is_a_link_is_there_afterwards(coco, tmp_path):
    os.rename(coco / "images/a.png", coco / "a.png")
    os.symlink("../a.png", coco / "images/a.png")
    convert(coco, tmp_path / "yolo")
    image, _, name = YOLOSegmentationDataset(tmp_path / "yolo")[0]
    assert name == "a.png" and image.shape == (3, 20, 30)


def test_photographs_that_lie_where_they_belong_stay(coco, tmp_path):
    root = tmp_path / "yolo"
    (root / "train").mkdir(parents=True)
    os.rename(coco / "images", root / "train/images")
    on_its_side = (root / "train/images/c.jpg").read_bytes()
    with pytest.raises(ValueError, match=r"c\.jpg is stored on its side"):
        coco_to_yolo(root / "train/images", coco / "a.json", root)
    assert (root / "train/images/c.jpg").read_bytes() == on_its_side
    photograph(root / "train/images/c.jpg", (20, 30))
    before = listing(root / "train/images")
    for _ in range(2):
        coco_to_yolo(root / "train/images", coco / "a.json", root)
        assert listing(root / "train/images") == before
    assert len(YOLOSegmentationDataset(root)) == 3


def test_parts_are_added_and_other_classes_refused(coco, tmp_path):
    root = tmp_path / "yolo"
    convert(coco, root, categories=["hat", 3])
    convert(coco, root, categories=["hat", 3], part="val")
    convert(coco, root, categories=["hat", 3])  # once more, over what is there
    names, parts = read_data_yaml(root)
    assert names == ["hat", "cup"] and list(parts) == ["train", "val"]
    data = YOLOSegmentationDataset(root)
    assert [len(data.instances(i)) for i in range(3)] == [3, 1, 0]  # a hat in two parts, a cup; no car
    before = listing(root)
    with pytest.raises(ValueError, match=r"has the classes \['hat', 'cup'\], not \['cup', 'hat', 'car'\]"):
        convert(coco, root)
    assert listing(root) == before


@pytest.mark.parametrize("wrong", [{"several": "merge"}, {"holes": "keep"}, {"part": "valid"}])
def test_choices_that_there_are_not(coco, tmp_path, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be one of"):
        convert(coco, tmp_path / "yolo", **wrong)
    assert not (tmp_path / "yolo").exists()


def test_broken_annotations_are_skipped_and_counted(coco, tmp_path):
    content = json.loads((coco / "a.json").read_text())
    content["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]
    (coco / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="annotation 11"):
        convert(coco, tmp_path / "yolo")
    with pytest.warns(UserWarning):
        report = convert(coco, tmp_path / "yolo", on_error="skip")
    assert report.problems == 1 and report.objects == 3 and "1 broken entries skipped" in str(report)


# ------------------------------------------------------------------------------------------------ one object


def lines_of(mask: np.ndarray, several: str, holes: str) -> tuple[list[np.ndarray], Converted]:
    """An object drawn again from its lines, and the report."""
    report = Converted()
    lines = to_lines(0, mask_to_rle(mask), mask.shape, several, holes, report)
    return [raster(line, *mask.shape) for line in lines], report


def ring_with_island() -> np.ndarray:
    mask = np.ones((9, 9), bool)
    mask[2:7, 2:7] = False
    mask[4, 4] = True
    return mask


def test_a_part_in_the_hole_of_another():
    mask = ring_with_island()
    for several, count in (("split", 2), ("join", 1)):
        drawn, report = lines_of(mask, several, "cut")
        assert len(drawn) == count and (np.any(drawn, axis=0) == mask).all() and report.several == 1
        drawn, report = lines_of(mask, several, "fill")
        assert len(drawn) == 1 and drawn[0].all()  # what fills the hole holds the island
        assert (report.several, report.holes, report.objects, report.lines) == (0, 1, 1, 1)


def test_a_part_in_a_hole_that_it_touches_by_its_corners():
    mask = np.ones((5, 5), bool)
    mask[[1, 2, 2, 3], [2, 1, 3, 2]] = False  # four pixels around the one in the middle
    assert len(mask_to_outlines(mask)) == 2
    (drawn,), _ = lines_of(mask, "join", "cut")
    assert (drawn == mask).all()
    (drawn,), _ = lines_of(mask, "join", "fill")
    assert drawn.all()


def test_what_cannot_be_written_is_lost():
    report = Converted()
    assert to_lines(0, mask_to_rle(np.zeros((8, 10), bool)), (8, 10), "split", "fill", report) == []
    assert (report.lost, report.objects, report.lines) == (1, 0, 0)
    assert round_trip(mask_to_rle(np.zeros((8, 10), bool)), (8, 10), "join", "cut") == 0


def test_parts_side_by_side_are_kept_as_they_are_drawn():
    parts = [[1.25, 1, 4, 1, 4, 5.5], [6, 1, 9, 1, 9, 5]]
    report = Converted()
    lines = to_lines(3, parts, (8, 10), "split", "fill", report)
    assert [line.split()[0] for line in lines] == ["3", "3"] and report.retraced == 0
    assert [corners(line, 8, 10) for line in lines] == [sorted(zip(p[::2], p[1::2], strict=True)) for p in parts]


def filled(mask: np.ndarray) -> np.ndarray:
    """Every hole filled: background that does not touch the outside, not even by a corner."""
    regions, _ = ndimage.label(~np.pad(mask, 1), structure=np.ones((3, 3)))
    return (regions != regions[0, 0])[1:-1, 1:-1]


@given(bitmaps)
@example(ring_with_island())
@example(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool))
@settings(max_examples=150, deadline=None)
def test_joined_and_cut_any_bitmap_comes_back(mask):
    """Exactly, whatever its parts and holes. There is but one that cannot: that of nothing, which has no line."""
    rle = mask_to_rle(mask)
    assert round_trip(rle, mask.shape, "join", "cut") == float(mask.any())
    if mask.any():
        assert len(to_lines(0, rle, mask.shape, "join", "cut")) == 1
        hull = filled(mask)
        assert round_trip(rle, mask.shape, "join", "fill") == pytest.approx(mask.sum() / hull.sum())


@given(bitmaps)
@settings(max_examples=60, deadline=None)
def test_split_each_part_has_a_line(mask):
    parts, count = ndimage.label(mask)
    drawn, report = lines_of(mask, "split", "cut")
    assert len(drawn) == report.lines == count and report.several == (count > 1)
    assert sorted(one.tobytes() for one in drawn) == sorted((parts == n).tobytes() for n in range(1, count + 1))
    largest = max((int((parts == n).sum()) for n in range(1, count + 1)), default=0)
    assert round_trip(mask_to_rle(mask), mask.shape, "split", "cut") == pytest.approx(largest / max(mask.sum(), 1))


def test_real_objects_come_back_joined_and_lose_parts_where_they_are_split(real_coco):
    content = json.loads((real_coco / "annotations/instances_val.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    shapes = [(a["segmentation"], sizes[a["image_id"]]) for a in content["annotations"] if not a["iscrowd"]]
    assert len(shapes) > 250 and sum(len(shape) > 1 for shape, _ in shapes) > 10
    for shape, size in shapes:
        assert round_trip(shape, size, "join", "cut") == 1
        if len(shape) > 1:
            assert round_trip(shape, size, "split", "cut") < 1
    once = [item for item in shapes if len(item[0]) == 1][:60]
    assert all(round_trip(shape, size) == 1 for shape, size in once)


def by_pillow(polygon: list[float], size: tuple[int, int], scale: int) -> np.ndarray:
    image = Image.new("1", (size[1] * scale, size[0] * scale))
    points = np.reshape(polygon, (-1, 2)) * scale - 0.5
    ImageDraw.Draw(image).polygon([tuple(point) for point in points.tolist()], fill=1)
    return np.array(image)


def by_opencv(polygon: list[float], size: tuple[int, int], scale: int) -> np.ndarray:
    points = np.floor(np.reshape(polygon, (-1, 2)) * scale).astype(np.int32)
    return cv2.fillPoly(np.zeros((size[0] * scale, size[1] * scale), np.uint8), [points], 1).astype(bool)


@given(bitmaps)
@example(ring_with_island())
@settings(max_examples=40, deadline=None)
def test_pillow_and_opencv_fill_a_joined_polygon_alike(mask):
    """But for the pixels its outline, slits included, runs through: both paint those, too."""
    scale = 8
    rings = [ring for outer, inner in mask_to_outlines(mask) for ring in (outer, *inner)]
    if not rings:
        return
    polygon, large = join_polygons(rings), np.kron(mask, np.ones((scale, scale), bool))
    line = np.zeros(large.shape, np.uint8)
    points = np.floor(np.reshape(polygon, (-1, 2)) * scale).astype(np.int32)
    near = cv2.polylines(line, [points], True, 1, 3).astype(bool)
    for draw in (by_pillow, by_opencv):
        drawn = draw(polygon, mask.shape, scale)
        assert not (drawn ^ large)[~near].any()
    assert near.mean() < 1


# ------------------------------------------------------------------------------------------------ back to COCO


def test_yolo_to_coco_and_the_ids_are_back(coco, tmp_path):
    report = convert(coco, tmp_path / "yolo", several="join", holes="cut")
    data = YOLOSegmentationDataset(tmp_path / "yolo")
    target = tmp_path / "back/a.json"
    yolo_to_coco(data, target, ids={new: old for old, new in report.classes.items()})
    content = json.loads(target.read_text())
    assert content["images"] == [
        {"id": 1, "file_name": "a.png", "height": 20, "width": 30},
        {"id": 2, "file_name": "c.jpg", "height": 20, "width": 30},
        {"id": 3, "file_name": "sub/b.jpg", "height": 10, "width": 10},
    ]
    assert content["categories"] == [{"id": 3, "name": "cup"}, {"id": 7, "name": "hat"}, {"id": 90, "name": "car"}]
    told = [(a["id"], a["image_id"], a["category_id"], a["area"], a["bbox"]) for a in content["annotations"]]
    assert told == [
        (1, 1, 7, 32, [2, 2, 24, 4]),
        (2, 1, 3, 48, [4, 10, 8, 8]),
        (3, 1, 90, 25, [25, 15, 5, 5]),
        (4, 2, 3, 63, [2, 2, 9, 9]),
    ]
    assert all(a["iscrowd"] == 0 for a in content["annotations"])
    reader = COCO(target)
    for annotation in content["annotations"]:
        assert reader.annToMask(annotation).sum() == annotation["area"]
    back = COCOSegmentationDataset(tmp_path / "yolo/train/images", target)
    for index in range(3):
        assert back.instances(index).rles == data.instances(index).rles


def test_yolo_to_coco_counts_from_1_and_leaves_broken_lines_out(folder, tmp_path):
    folder.label("a", f"{TRIANGLE}\n0 0.5 0.5 0.2 0.2\n{SQUARE}\n")
    with pytest.warns(UserWarning):
        data = folder.open(on_error="skip")
    yolo_to_coco(data, tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "cup"}, {"id": 2, "name": "hat"}]
    assert [a["category_id"] for a in content["annotations"]] == [2, 1]
    assert content["annotations"][1]["segmentation"] == [[1, 2, 5, 2, 5, 6, 1, 6]]


def test_there_and_back_the_lines_are_the_same(folder, tmp_path):
    """Polygons of a tenth of a pixel: a fraction keeps eight digits, a pixel four."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(20):
        points = rng.integers(0, [100, 80], (5, 2)) / [100, 80]
        lines.append(" ".join([str(number % 2), *(f"{value:.8f}".rstrip("0").rstrip(".") for value in points.ravel())]))
    folder.label("a", "\n".join(lines))
    yolo_to_coco(folder.open(), tmp_path / "a.json")
    coco_to_yolo(folder.root / "train/images", tmp_path / "a.json", tmp_path / "again")
    assert (tmp_path / "again/train/labels/a.txt").read_text().splitlines() == lines
