"""YOLO-seg folders: how they are read, what is said about broken ones, and conversion from and to COCO."""

import json
import os
import unicodedata
import warnings
from collections import Counter
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

from seglib.datasets import COCOSegmentationDataset, YOLOSegmentationDataset
from seglib.datasets.yolo import (
    ConversionReport,
    coco_to_yolo,
    segmentation_to_yolo,
    yolo_parts,
    yolo_to_coco,
)
from seglib.masks import join_polygons, mask_to_outlines, mask_to_rle
from tests.conftest import REAL

SQUARE = "0 0.1 0.25 0.5 0.25 0.5 0.75 0.1 0.75"  # on an image of 8x10 pixels: x 1 to 4, y 2 to 5
TRIANGLE = "1 0.5 0 1 0 1 1"
YAML = "names: [cup, hat]\nnc: 2\ntrain: train/images\nval: valid/images\n"
bitmaps = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def write_image(path: Path, size=(8, 10), **settings) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path, **settings)


class Folder:
    """A YOLO-seg folder with one image of 8x10 pixels in each part, to break on purpose."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.write_yaml(YAML)
        for part in ("train", "valid"):
            write_image(root / part / "images" / "a.png")
            self.write_label("a", f"{SQUARE}\n", part)

    def write_yaml(self, text: str) -> None:
        (self.root / "data.yaml").write_text(text, encoding="utf-8")

    def write_label(self, name: str, text: str | bytes, part: str = "train") -> None:
        path = self.root / part / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def open(self, part: str = "train", **settings) -> YOLOSegmentationDataset:
        return YOLOSegmentationDataset(self.root, part, **settings)


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path)


def draw(line: str, height: int, width: int) -> np.ndarray:
    """A label line drawn by pycocotools alone."""
    values = np.array(line.split()[1:], dtype=float) * np.resize([width, height], len(line.split()) - 1)
    return coco_mask.decode(coco_mask.frPyObjects([values.round(6).tolist()], height, width))[..., 0].astype(bool)


def corners(line: str, height: int, width: int) -> list[tuple[float, float]]:
    """The sorted points of a label line in pixels."""
    values = np.array(line.split()[1:], dtype=float).reshape(-1, 2) * (width, height)
    return sorted(map(tuple, values.round(4).tolist()))


def listing(root: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(root.rglob("*"))}


# -------------------------------------------------------------------------------------------------------------- reading


def test_a_sample_is_image_mask_and_file_name(folder):
    folder.write_label("a", f"{SQUARE}\n{TRIANGLE}\n")
    data = folder.open()
    image, mask, name = data[0]
    assert data.classes == ["background", "cup", "hat"] and name == "a.png" and len(data) == 1
    assert (str(image.dtype), tuple(image.shape)) == ("torch.uint8", (3, 8, 10))
    assert (str(mask.dtype), tuple(mask.shape)) == ("torch.uint8", (8, 10))
    assert (mask.numpy()[draw(SQUARE, 8, 10)] == 1).all() and (mask == 1).sum() == 16
    assert (mask.numpy()[draw(TRIANGLE, 8, 10)] == 2).all()
    assert data.image_path(0) == folder.root / "train/images/a.png"
    assert data.label_path(0) == folder.root / "train/labels/a.txt"
    assert folder.open("val")[0][1].max() == 1


def test_each_line_is_an_object_in_the_order_of_the_file(folder):
    other = SQUARE.replace("0.75", "0.5")
    folder.write_label("a", f"\ufeff{TRIANGLE}\r\n\n\t{SQUARE}  \n{other}")  # a byte order mark and blank lines
    objects = folder.open().instances(0)
    assert objects.labels.tolist() == [2, 1, 1] and objects.size == (8, 10) and not objects.crowd.any()
    for bitmap, line in zip(objects.masks, (TRIANGLE, SQUARE, other), strict=True):
        assert (bitmap == draw(line, 8, 10)).all()


def test_where_two_objects_overlap_the_smaller_one_is_seen(folder):
    everything = "1 0 0 1 0 1 1 0 1"
    for text in (f"{SQUARE}\n{everything}\n", f"{everything}\n{SQUARE}\n"):
        folder.write_label("a", text)
        mask = folder.open()[0][1]
        assert (mask == 1).sum() == 16 and (mask == 2).sum() == 64


@pytest.mark.parametrize("text", [None, "\n  \n\r\n"])
def test_an_image_without_lines_is_background(folder, text):
    (folder.root / "train/labels/a.txt").unlink()
    if text is not None:
        folder.write_label("a", text)
    data = folder.open()
    assert data[0][1].max() == 0 and len(data.instances(0)) == 0 and data.instances(0).size == (8, 10)


def test_subfolders_and_dots_in_names_are_read_and_hidden_files_are_not(folder):
    images = folder.root / "train/images"
    write_image(images / "city/b.rf.12.JPG", size=(4, 6))
    folder.write_label("city/b.rf.12", TRIANGLE)
    write_image(images / ".thumbnails/a.png")
    write_image(images / "._a.png")
    (images / "notes.txt").write_text("0 0 0")
    (images / "folder.png").mkdir()
    data = folder.open()
    assert data.filenames == ["a.png", "city/b.rf.12.JPG"]
    assert data.instances(1).size == (4, 6) and data.instances(1).labels.tolist() == [2]
    assert data.label_path(1) == folder.root / "train/labels/city/b.rf.12.txt"


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_labels_belong_to_the_image_after_exif_rotation(folder, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder.root / "train/images/a.png").unlink()
    write_image(folder.root / f"train/images/a.{suffix}", size=(10, 8), exif=exif)  # shown 8 high and 10 wide
    data = folder.open()
    image, mask, _ = data[0]
    assert data.instances(0).size == (8, 10) and image.shape == (3, 8, 10)
    assert (mask.numpy().astype(bool) == draw(SQUARE, 8, 10)).all()


def test_real_buildings_have_the_areas_that_pycocotools_draws():
    root = REAL / "buildings_yolo"
    if not root.is_dir():
        pytest.skip("needs the real photographs of ../shared/data/buildings_yolo")
    data = YOLOSegmentationDataset(root, "val")
    assert len(data) == 140 and data.classes == ["background", "building"] and not data.problems
    counts = [len(data.lines(index)) for index in range(len(data))]
    for index in (int(np.argmax(counts)), int(np.argmin(counts)), 7):
        text = (root / "valid/labels" / Path(data.filenames[index]).with_suffix(".txt")).read_text(encoding="utf-8")
        drawn = [draw(line, 512, 512) for line in text.splitlines()]
        assert data.instances(index).areas.tolist() == [int(bitmap.sum()) for bitmap in drawn]
        assert ((data[index][1].numpy() == 1) == np.any([np.zeros((512, 512), bool), *drawn], axis=0)).all()
    assert max(counts) > 100


# ------------------------------------------------------------------------------------------------------------ data.yaml


@pytest.mark.parametrize(
    "text",
    [
        "names:\n  1: hat\n  0: cup\ntrain: train\nval: valid",
        "names: [cup, hat]\ntrain: ../train/images\nval: ../valid/images",  # as Roboflow writes it
        "names: [cup, hat]\ntrain: ./train/images/\nvalid: valid/images",
        "path: /nowhere/on/this/machine\nnames: [cup, hat]\ntrain: train/images\nval: valid/images\ntest:",
        "\ufeffpath: .\nnames: [cup, hat]\ntrain: train/images\nval: valid/images",
        "names: {'0': cup, '1': hat}\ntrain: /content/roofs/train/images\nvalidation: C:\\data\\valid\\images",
        "names: [cup, hat]\ntrain: .\\train\\images\nval: valid.txt",
        "names: [cup, hat]\ntrain: [train/images]\nval: [valid/images, train/images]",
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not exist here")
def test_each_dialect_of_data_yaml_is_read(folder, text):
    folder.write_yaml(text)
    (folder.root / "valid.txt").write_text("./valid/images/a.png\n/home/me/roofs/train/images/a.png\n")
    assert list(yolo_parts(folder.root)) == ["train", "val"]
    for part in ("train", "val"):
        data = folder.open(part)
        assert data.classes == ["background", "cup", "hat"] and data.instances(0).labels.tolist() == [1]


@pytest.mark.parametrize("train", ["/content/roofs/train/images", "C:\\roofs\\train\\images", "roofs/train/images"])
def test_a_folder_that_is_found_by_the_last_parts_of_its_path_is_said(folder, train):
    folder.write_yaml(f"names: [cup, hat]\nnc: '2'\ntrain: {train}\nval: ../valid/images\n")
    with pytest.warns(UserWarning, match=r"roofs.* does not exist here; .*train.images is read in its place"):
        assert len(folder.open()) == 1
    with warnings.catch_warnings(action="error"):
        folder.open("val")  # Roboflow's form


@pytest.mark.parametrize(("image", "label"), [("blätter", "bla\u0308tter"), ("b", "B")])
def test_a_label_file_is_found_in_another_case_or_form_of_accents(folder, image, label):
    write_image(folder.root / f"train/images/{image}.png")
    folder.write_label(unicodedata.normalize("NFD", label), TRIANGLE)
    data = folder.open()
    assert data.filenames == ["a.png", f"{image}.png"] and data.instances(1).labels.tolist() == [2]


def test_the_label_file_of_one_image_is_not_taken_for_another(folder):
    write_image(folder.root / "train/images/A.png")
    data = folder.open()
    assert data.filenames == ["A.png", "a.png"] and [len(data.instances(index)) for index in (0, 1)] == [0, 1]


def test_path_is_absolute_or_relative_to_data_yaml(folder):
    write_image(folder.root / "inner/images/train/x.png")
    (folder.root / "inner/labels/train").mkdir(parents=True)
    (folder.root / "inner/labels/train/x.txt").write_text(TRIANGLE)
    for path in ("inner", folder.root / "inner"):
        folder.write_yaml(f"path: {path}\nnames: [cup, hat]\ntrain: images/train\n")
        data = folder.open()
        assert data.filenames == ["x.png"] and data.instances(0).labels.tolist() == [2]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, FileNotFoundError, r"no .*data\.yaml"),
        ("names: [cup", ValueError, r"data\.yaml has no valid list of classes"),
        ("names: building\ntrain: train/images", ValueError, "no valid list of classes.*'building'"),
        ("names: {0: cup, 2: hat}\ntrain: train/images", ValueError, r"the classes have the numbers \[0, 2\]"),
        ("names: [cup, hat]\nnc: 3\ntrain: train/images", ValueError, "says nc: 3, but names 2 classes"),
        ("names: [background, cup]\ntrain: train/images", ValueError, "occurs twice, or is background"),
        ("names: [cup, hat]", ValueError, r"data\.yaml names no folder of images: write, for .*train: train/images"),
        ("names: [cup, hat]\ntrain: pictures", FileNotFoundError, "no folder for 'train' that exists; it has none"),
        ("names: [cup, hat]\ntrain: train.txt", FileNotFoundError, "no folder for 'train' that exists"),
        ("names: [cup, hat]\ntrain: list.txt", ValueError, r"list\.txt: 1 of 2 images do not exist, such as 'x\.png'"),
        ("names: [cup, hat]\ntrain: [train/images, x]", ValueError, r"data\.yaml: \['x'\] do not exist"),
        ("names: [cup, hat]\ntrain: /x/pictures", FileNotFoundError, "it has none, and '/x/pictures' was not found"),
        ("names: [cup, hat]\ntrain: 5", ValueError, "5 is not a folder, a text file that lists images"),
        ("names: [cup, hat]\ntrain: pictures\nval: valid", FileNotFoundError, "no folder for 'train' .* it has val"),
        ("names: [cup, hat]\ntrain: photographs", FileNotFoundError, "must be in a folder images"),
    ],
)
def test_a_wrong_data_yaml_is_explained(folder, text, error, message):
    write_image(folder.root / "photographs/a.png")
    (folder.root / "list.txt").write_text("train/images/a.png\nx.png\n")
    if text is None:
        (folder.root / "data.yaml").unlink()
    else:
        folder.write_yaml(text)
    with pytest.raises(error, match=message):
        folder.open()


# ------------------------------------------------------------------------------------------------------ broken folders


def test_a_missing_labels_folder_is_an_error(folder):
    (folder.root / "train/labels").rename(folder.root / "train/label")
    with pytest.raises(FileNotFoundError, match=r"no folder .*train.labels"):
        folder.open()


def test_lines_a_little_outside_and_repeated_lines_are_corrected_and_said(folder):
    outside = "0 -0.005 0.25 0.5 0.25 0.5 1.01"
    folder.write_label("a", f"{outside}\n{TRIANGLE}\n{TRIANGLE.replace('0.5', '0.50')} \n")
    with pytest.warns(UserWarning, match="corrected 2"):
        data = folder.open()
    assert [(problem.where[-7:], problem.action) for problem in data.problems] == [
        ("a.txt:1", "corrected"),
        ("a.txt:3", "corrected"),
    ]
    assert data.lines(0) == ["0 0 0.25 0.5 0.25 0.5 1", TRIANGLE]


def test_classes_are_whole_numbers_in_any_notation(folder):
    heights = (0.3, 0.4, 0.5, 0.6)
    names = ("1.0", "+1", "01", "1e0")
    folder.write_label("a", "\n".join(f"{name} 0 0 1 0 1 {y}" for name, y in zip(names, heights, strict=True)))
    data = folder.open()
    assert data.instances(0).labels.tolist() == [2] * 4 and data.lines(0)[0] == "1 0 0 1 0 1 0.3"


def test_data_yaml_may_have_another_name_and_labels_may_lie_beside_images(folder):
    (folder.root / "data.yaml").rename(folder.root / "cups.yml")
    (folder.root / "train/labels/a.txt").rename(folder.root / "train/images/a.txt")
    (folder.root / "train/labels").rmdir()
    for root in (folder.root, folder.root / "cups.yml"):
        assert YOLOSegmentationDataset(root).instances(0).labels.tolist() == [1]
    (folder.root / "hats.yaml").write_text(YAML)
    with pytest.raises(ValueError, match=r"holds cups\.yml, hats\.yaml: give the path"):
        folder.open()


@pytest.mark.parametrize("name", ["b.txt", "a.TXT"])
def test_a_label_file_without_image_is_named(folder, name):
    (folder.root / "train/labels/classes.txt").write_text("cup")  # written by some programs, and no label file
    (folder.root / "train/labels" / name).write_text(SQUARE)
    with pytest.raises(ValueError, match=rf"1 problem\.(.|\n)*{name}: no image has that name"):
        folder.open()


def test_two_images_that_share_a_label_file_and_no_image_are_errors(folder):
    write_image(folder.root / "train/images/a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png in .*images share a label file"):
        folder.open()
    (folder.root / "valid/images/a.png").unlink()
    with pytest.raises(ValueError, match="no image in .*valid/images"):
        folder.open("val")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"0 0.5 0.5 0.2 0.2", "box"),
        (b"2 0.5 0 1 0 1 1", "class 2 is unknown: data.yaml has 2"),
        (b"inf 0.5 0 1 0 1 1", "begins with a class number, this one with 'inf'"),
        (b"0,0.5,0,1,0,1,1", "written as 0.5 with blanks between them, not as in '0,0.5,0,1,0,1,1'"),
        (b"0 0.5 0 1 0 1 1 0.9", "pairs of x and y, this one 7 values: is one a confidence"),
        (b"0 0.1 0.1 0.\xff 0.2 0.3 0.3", "string to float"),  # another encoding
        (b"0 0,1 0,1 0,5 0,1 0,5 0,5", "written as 0.5 with blanks"),
        (b"0 -0.02 0.1 0.5 0.1 0.5 0.5", "fractions from 0 to 1, found -0.02 to 0.5"),
        (b"0.5 0.1 0.1 0.5 0.1 0.5 0.5", "begins with a class number, this one with '0.5'"),
    ],
)
def test_a_broken_line_is_raised_with_its_number_or_skipped(folder, line, message):
    folder.write_label("a", b"\n".join([SQUARE.encode(), b"", line, TRIANGLE.encode()]))
    where = f"{folder.root / 'train/labels/a.txt'}:3"
    with pytest.raises(ValueError, match=message) as error:
        folder.open()
    assert f"{where}: " in str(error.value) and 'on_error="skip"' in str(error.value)
    with pytest.warns(UserWarning, match="skipped 1, repaired 0"):
        data = folder.open(on_error="skip")
    assert [problem.where for problem in data.problems] == [where]
    assert data.lines(0) == [SQUARE, TRIANGLE] and data.instances(0).labels.tolist() == [1, 2]


def test_an_image_that_cannot_be_read_is_raised_on_reading_or_skipped(folder):
    path = folder.root / "train/images/b.png"
    path.write_bytes((folder.root / "train/images/a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"b\.png cannot be read"):
        folder.open()[1]
    with pytest.warns(UserWarning, match="skipped 1"):
        data = folder.open(on_error="skip")
    assert data.filenames == ["a.png"] and data.problems[0].where == "b.png"
    with pytest.raises(ValueError, match="on_error"):
        folder.open(on_error="ignore")


# ------------------------------------------------------------------------------------------------------------ from COCO


@pytest.fixture
def coco(tmp_path) -> Path:
    """A COCO data set with all that a YOLO line cannot express."""
    exif = Image.Exif()
    exif[0x0112] = 6
    images = tmp_path / "coco/images"
    write_image(images / "a.png", (20, 30))
    write_image(images / "sub/b.jpg", (10, 10))
    write_image(images / "c.jpg", (20, 30), exif=exif)
    ring = np.zeros((20, 30), bool)
    ring[10:18, 4:12] = True
    ring[12:16, 6:10] = False
    shapes = [
        (5, 7, [[2, 2, 6, 2, 6, 6, 2, 6], [22, 2, 26, 2, 26, 6, 22, 6]]),  # two parts
        (5, 3, mask_to_rle(ring)),  # a hole
        (5, 3, {"size": [20, 30], "counts": [0, 600]}),  # a crowd
        (5, 90, [[25, 15, 35, 15, 35, 25, 25, 25]]),  # across the border
        (9, 3, [[2, 2, 8, 2, 8, 8, 2, 8], [5, 5, 11, 5, 11, 11, 5, 11]]),  # overlapping parts
    ]
    content = {
        "images": [
            {"id": 5, "file_name": "a.png", "height": 20, "width": 30},
            {"id": 6, "file_name": "sub/b.jpg", "height": 10, "width": 10},
            {"id": 9, "file_name": "c.jpg", "height": 20, "width": 30},
        ],
        "categories": [{"id": 90, "name": "car"}, {"id": 3, "name": "cup"}, {"id": 7, "name": "hat"}],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "segmentation": shape, "iscrowd": number == 13}
            for number, (image, category, shape) in enumerate(shapes, 11)
        ],
    }
    (tmp_path / "coco/a.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "coco"


def convert(coco: Path, root: Path, **settings) -> ConversionReport:
    return coco_to_yolo(coco / "images", coco / "a.json", root, **settings)


def square(left, top, right, bottom) -> list[tuple[float, float]]:
    return sorted([(left, top), (right, top), (right, bottom), (left, bottom)])


def test_coco_to_yolo_splits_parts_and_fills_holes(coco, tmp_path):
    root = tmp_path / "yolo"
    report = convert(coco, root)
    lines = (root / "train/labels/a.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines] == ["1", "1", "0", "2"]
    assert [corners(line, 20, 30) for line in lines] == [
        square(2, 2, 6, 6),
        square(22, 2, 26, 6),
        square(4, 10, 12, 18),
        square(25, 15, 30, 20),
    ]
    union = [(2, 2), (2, 8), (5, 8), (5, 11), (8, 2), (8, 5), (11, 5), (11, 11)]
    (line,) = (root / "train/labels/c.txt").read_text(encoding="utf-8").splitlines()
    assert line.startswith("0 ") and corners(line, 20, 30) == union
    assert (root / "train/labels/sub/b.txt").read_bytes() == b""
    assert (root / "data.yaml").read_text(encoding="utf-8") == "names: [cup, hat, car]\nnc: 3\ntrain: train/images\n"
    assert report.classes == {3: 0, 7: 1, 90: 2}


def test_coco_to_yolo_with_join_and_cut_keeps_every_mask(coco, tmp_path):
    report = convert(coco, tmp_path / "yolo", several="join", holes="cut", part="val")
    data = YOLOSegmentationDataset(tmp_path / "yolo", "val")
    source = COCOSegmentationDataset(coco / "images", coco / "a.json")
    assert data.filenames == ["a.png", "c.jpg", "sub/b.jpg"]
    kept = source.instances(0).pick([0, 1, 3])  # not the crowd
    assert data.instances(0).rles == kept.rles and data.instances(0).labels.tolist() == [2, 1, 3]
    assert data.instances(1).rles == source.instances(2).rles and len(data.instances(2)) == 0
    assert report.counts["lines"] == report.counts["objects"] == 4
    assert "valid/images" in (tmp_path / "yolo/data.yaml").read_text(encoding="utf-8")


def test_the_report_in_words(coco, tmp_path):
    assert set(str(convert(coco, tmp_path / "yolo")).splitlines()) == {
        "images: 3",
        "images without objects: 1",
        "objects: 4",
        "lines: 5",
        "objects in several parts: 1",
        "objects with holes: 1",
        "objects traced along their pixels: 2",
        "objects clipped: 1",
        "crowds left out: 1",
        "images saved upright: 1",
    }


def test_images_are_linked_or_saved_in_the_orientation_of_their_annotations(coco, tmp_path):
    os.rename(coco / "images/a.png", coco / "a.png")
    os.symlink("../a.png", coco / "images/a.png")
    convert(coco, tmp_path / "yolo")
    images = tmp_path / "yolo/train/images"
    for name in ("a.png", "sub/b.jpg"):
        assert (images / name).samefile(coco / "images" / name)
    with Image.open(images / "c.jpg") as image, Image.open(coco / "images/c.jpg") as source:
        assert image.size == (30, 20) and 0x0112 not in image.getexif()
        assert source.getexif()[0x0112] == 6
    assert YOLOSegmentationDataset(tmp_path / "yolo")[1][0].shape == (3, 20, 30)


def test_the_original_images_are_not_overwritten(coco, tmp_path):
    root = tmp_path / "yolo"
    (root / "train").mkdir(parents=True)
    os.rename(coco / "images", root / "train/images")
    before = listing(root)
    with pytest.raises(ValueError, match="is an original image: write to another folder"):
        coco_to_yolo(root / "train/images", coco / "a.json", root)
    links = tmp_path / "links"
    links.mkdir()
    for path in (root / "train/images").iterdir():
        (links / path.name).symlink_to(path)
    with pytest.raises(ValueError, match="is an original image: write to another folder"):
        coco_to_yolo(links, coco / "a.json", root)
    assert listing(root) == before


@pytest.mark.parametrize("name", ["images/old.png", "labels/old.txt"])
def test_files_of_another_conversion_are_not_mixed_with_new_ones(coco, tmp_path, name):
    root = tmp_path / "yolo"
    convert(coco, root)
    (root / "train" / name).write_bytes(b"")
    before = listing(root)
    with pytest.raises(ValueError, match=f"{name} would remain beside the new files: delete .*train"):
        convert(coco, root)
    assert listing(root) == before


def test_parts_are_added_to_a_folder_with_the_same_classes(coco, tmp_path):
    root = tmp_path / "yolo"
    convert(coco, root, categories=["hat", 3])
    with (root / "data.yaml").open("a") as file:
        file.write("path: elsewhere\n")  # where another program had its copy
    (root / "elsewhere/train/images").mkdir(parents=True)
    for part in ("val", "train"):
        convert(coco, root, categories=["hat", 3], part=part)
    data = YOLOSegmentationDataset(root)
    assert data.classes == ["background", "hat", "cup"] and list(yolo_parts(root)) == ["train", "val"]
    assert [len(data.instances(index)) for index in range(3)] == [3, 1, 0]  # without the car
    before = listing(root)
    with pytest.raises(ValueError, match=r"has the classes \['hat', 'cup'\], not \['cup', 'hat', 'car'\]"):
        convert(coco, root)
    assert listing(root) == before


@pytest.mark.parametrize("wrong", [{"several": "merge"}, {"holes": "keep"}, {"part": "valid"}])
def test_unknown_choices_are_refused(coco, tmp_path, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be one of"):
        convert(coco, tmp_path / "yolo", **wrong)
    assert not (tmp_path / "yolo").exists()


def test_broken_annotations_are_skipped_and_counted(coco, tmp_path):
    content = json.loads((coco / "a.json").read_text(encoding="utf-8"))
    content["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]
    (coco / "a.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="annotation 11"):
        convert(coco, tmp_path / "yolo")
    with pytest.warns(UserWarning):
        report = convert(coco, tmp_path / "yolo", on_error="skip")
    assert report.counts["broken entries skipped"] == 1 and report.counts["objects"] == 3


# ----------------------------------------------------------------------------------------------------------- one object


def draw_lines(mask: np.ndarray, several: str, holes: str) -> tuple[list[np.ndarray], Counter]:
    """The masks that the lines of an object give, and the counts."""
    counts = Counter()
    lines = segmentation_to_yolo(0, mask_to_rle(mask), mask.shape, several, holes, counts)
    return [draw(line, *mask.shape) for line in lines], counts


RING_WITH_ISLAND = np.ones((9, 9), bool)
RING_WITH_ISLAND[2:7, 2:7] = False
RING_WITH_ISLAND[4, 4] = True


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill all background that does not touch the outside, not even at a corner."""
    regions, _ = ndimage.label(~np.pad(mask, 1), structure=np.ones((3, 3)))
    return (regions != regions[0, 0])[1:-1, 1:-1]


@given(bitmaps)
@example(RING_WITH_ISLAND)
@example(np.zeros((8, 10), bool))
@settings(max_examples=60)
def test_joined_parts_give_the_bitmap_back_with_or_without_its_holes(mask):
    for holes, expected in (("cut", mask), ("fill", fill_holes(mask))):
        drawn, counts = draw_lines(mask, "join", holes)
        assert (
            len(drawn)
            == counts["lines"]
            == counts["objects"]
            == mask.any()
            == 1 - counts["objects lost, too small or thin"]
        )
        assert all((bitmap == expected).all() for bitmap in drawn)
        assert counts["objects with holes"] == (fill_holes(mask) != mask).any()


@given(bitmaps)
@example(RING_WITH_ISLAND)
@settings(max_examples=40)
def test_with_split_each_connected_part_has_a_line(mask):
    for holes, expected in (("cut", mask), ("fill", fill_holes(mask))):
        labels, count = ndimage.label(expected)
        parts = [labels == number for number in range(1, count + 1)]
        drawn, counts = draw_lines(mask, "split", holes)
        assert counts["lines"] == count and counts["objects in several parts"] == (count > 1)
        assert sorted(bitmap.tobytes() for bitmap in drawn) == sorted(part.tobytes() for part in parts)


def test_pillow_and_opencv_fill_joined_polygons_alike_away_from_the_outline():
    rings = [ring for outer, inner in mask_to_outlines(RING_WITH_ISLAND) for ring in (outer, *inner)]
    points = np.reshape(join_polygons(rings), (-1, 2)).astype(np.int32) * 8
    expected = np.kron(RING_WITH_ISLAND, np.ones((8, 8), bool))
    by_pillow = Image.fromarray(np.zeros_like(expected, np.uint8))
    ImageDraw.Draw(by_pillow).polygon([tuple(point) for point in points.tolist()], fill=1)
    by_opencv = cv2.fillPoly(np.zeros(expected.shape, np.uint8), [points], 1)
    outline = cv2.polylines(np.zeros(expected.shape, np.uint8), [points], True, 1, 3).astype(bool)
    for drawn in (np.asarray(by_pillow), by_opencv):
        assert (drawn.astype(bool) == expected)[~outline].all()


# ---------------------------------------------------------------------------------------------------------- and to COCO


def test_yolo_to_coco_gives_the_masks_back(coco, tmp_path):
    convert(coco, tmp_path / "yolo", several="join", holes="cut")
    data = YOLOSegmentationDataset(tmp_path / "yolo")
    target = tmp_path / "back/a.json"
    yolo_to_coco(data, target)
    content = json.loads(target.read_text(encoding="utf-8"))
    assert content["images"] == [
        {"id": 1, "file_name": "a.png", "height": 20, "width": 30},
        {"id": 2, "file_name": "c.jpg", "height": 20, "width": 30},
        {"id": 3, "file_name": "sub/b.jpg", "height": 10, "width": 10},
    ]
    assert content["categories"] == [{"id": 1, "name": "cup"}, {"id": 2, "name": "hat"}, {"id": 3, "name": "car"}]
    fields = ("id", "image_id", "category_id", "area", "bbox", "iscrowd")
    assert [tuple(item[field] for field in fields) for item in content["annotations"]] == [
        (1, 1, 2, 32, [2, 2, 24, 4], 0),
        (2, 1, 1, 48, [4, 10, 8, 8], 0),
        (3, 1, 3, 25, [25, 15, 5, 5], 0),
        (4, 2, 1, 63, [2, 2, 9, 9], 0),
    ]
    reference = COCO(target)
    assert all(reference.annToMask(item).sum() == item["area"] for item in content["annotations"])
    back = COCOSegmentationDataset(tmp_path / "yolo/train/images", target)
    assert [back.instances(index).rles for index in range(3)] == [data.instances(index).rles for index in range(3)]
