"""Conversions between formats: what comes back, and what is counted as lost."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from seglib.datasets import (
    COCOSegmentationDataset,
    convert,
    cvat_masks_to_coco,
    kaggle_rle_to_coco,
    labelme_to_coco,
)
from seglib.datasets.__main__ import main
from seglib.datasets.coco import write_coco
from seglib.datasets.layouts import find_parts
from seglib.masks import mask_to_rle

CLASSES = ["background", "cup", "hat"]


def bitmap(top, left, height, width, hole=False):
    mask = np.zeros((20, 30), bool)
    mask[top : top + height, left : left + width] = True
    if hole:
        mask[top + 1, left + 1] = False
    return mask


# Apart from each other, so that the connected parts of the classes are the objects.
OBJECTS = [(1, bitmap(1, 1, 5, 6)), (2, bitmap(10, 3, 6, 9)), (1, bitmap(2, 15, 8, 8)), (2, bitmap(14, 18, 4, 9))]


@pytest.fixture
def source(tmp_path) -> Path:
    """A COCO folder of one image."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(folder / "images" / "a.png")
    write(folder, [(label, mask_to_rle(mask), False) for label, mask in OBJECTS])
    return folder


def write(folder, objects):
    write_coco(folder / "annotations/instances_train.json", CLASSES, [("a.png", (20, 30), objects)])


def objects_of(folder):
    """The objects in a COCO folder as pycocotools reads them: category and bitmap."""
    coco = COCO(str(next(folder.glob("annotations/*.json"))))
    found = [(coco.cats[item["category_id"]]["name"], coco.annToMask(item)) for item in coco.anns.values()]
    return sorted((name, mask.tobytes()) for name, mask in found)


@pytest.mark.parametrize("to", ["yolo", "voc", "masks", "instances"])
def test_objects_come_back_from_each_format(source, tmp_path, to):
    counts = convert(source, to, tmp_path / to)
    assert counts["images"] == 1
    convert(tmp_path / to, "coco", tmp_path / "back")
    if to == "instances":  # one class
        assert counts["objects that lose their class"] == 4
        assert [mask for _, mask in sorted(objects_of(tmp_path / "back"))] == sorted(m for _, m in objects_of(source))
    else:
        assert objects_of(tmp_path / "back") == objects_of(source)


def test_what_a_format_cannot_keep_is_counted(source, tmp_path):
    hole = bitmap(1, 1, 5, 6, hole=True)
    objects = [(1, hole), (2, hole & ~bitmap(1, 1, 5, 2)), (1, bitmap(10, 10, 3, 3))]
    write(source, [(label, mask_to_rle(mask), index == 2) for index, (label, mask) in enumerate(objects)])
    assert convert(source, "yolo", tmp_path / "yolo")["crowds left out"] == 1
    counts = convert(source, "voc", tmp_path / "voc", overlap="smallest")
    assert counts["pixels of overlaps that one object gets"] == 20
    mask = find_parts(tmp_path / "voc")[0].open()[0][1].numpy()
    assert (mask == 255).sum() == 9 and (mask[2, 2], mask[1, 4]) == (0, 2)
    counts = convert(tmp_path / "voc", "coco", tmp_path / "coco")
    assert counts["images that lose pixels that do not count"] == 1
    assert counts["objects made of the connected parts of a class"] == 2
    assert convert(source, "instances", tmp_path / "ids")["crowds left out"] == 1


def test_polygons_of_a_file_are_kept(source, tmp_path):
    polygon = [1.5, 1.25, 12.25, 2.5, 7.75, 9.5]
    write(source, [(2, [polygon], False)])
    convert(source, "yolo", tmp_path / "yolo")
    convert(tmp_path / "yolo", "coco", tmp_path / "back")
    (item,) = json.loads(next(tmp_path.glob("back/annotations/*.json")).read_text())["annotations"]
    assert item["segmentation"][0] == pytest.approx(polygon, abs=1e-4) and item["category_id"] == 2


def test_an_outline_with_a_hole_is_kept_as_run_lengths(source, tmp_path):
    write(source, [(1, mask_to_rle(bitmap(1, 1, 5, 6, hole=True)), False)])
    convert(source, "masks", tmp_path / "masks")
    convert(tmp_path / "masks", "coco", tmp_path / "back")
    assert objects_of(tmp_path / "back") == objects_of(source)


@pytest.mark.parametrize("to", ["yolo", "voc"])
def test_two_images_of_one_name_are_not_mixed(source, tmp_path, to):
    for part in ("one", "two"):
        write_coco(source / f"{part}/annotations/instances_{part}.json", CLASSES, [("a.png", (20, 30), [])])
        (source / part / "images").symlink_to(source / "images")
    (source / "annotations/instances_train.json").unlink()
    with pytest.raises(ValueError, match=r"two parts have an image a\.png"):
        convert(source, to, tmp_path / "out")


def test_nothing_is_overwritten_and_unknown_sources_are_refused(source, tmp_path):
    with pytest.raises(ValueError, match="is not empty"):
        convert(source, "voc", source)
    with pytest.raises(ValueError, match="lies in"):
        convert(source, "voc", source / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        convert(source, "voc", tmp_path / "file")
    for write_to_coco in (labelme_to_coco, cvat_masks_to_coco):
        with pytest.raises(ValueError, match="exists and is not overwritten"):
            write_to_coco(source, tmp_path / "file")
    with pytest.raises(ValueError, match="exists and is not overwritten"):
        kaggle_rle_to_coco(tmp_path / "file", source, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ValueError, match="to must be one of coco, yolo"):
        convert(source, "png", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no known layout"):
        convert(tmp_path / "empty", "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_counts(source, tmp_path, capsys):
    assert main(["convert", str(source), str(tmp_path / "voc"), "--to", "voc"]) == 0
    assert "objects merged into class masks: 4" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "none"), str(tmp_path / "x"), "--to", "voc"]) == 1


def masks_of(images, file):
    data = COCOSegmentationDataset(images, file)
    return data, data.instances(0)


def test_labelme_shapes_become_objects_and_groups_one_object(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    square = [[1, 1], [5, 1], [5, 5], [1, 5]]
    shapes = [
        {"label": "hat", "points": square, "shape_type": "polygon", "group_id": 1},
        {"label": "hat", "points": [[10, 10], [14, 12]], "shape_type": "rectangle", "group_id": 1},
        {"label": "cup", "points": [[20, 10], [23, 10]], "shape_type": "circle", "group_id": None},
        {"label": "cup", "points": [[3, 3]], "shape_type": "point", "group_id": None},
    ]
    content = {"version": "5.4", "shapes": shapes, "imagePath": "..\\photos\\a.png", "imageData": "AAAA"}
    (tmp_path / "a.json").write_text(json.dumps(content))
    counts = labelme_to_coco(tmp_path, tmp_path / "coco.json")
    data, objects = masks_of(tmp_path, tmp_path / "coco.json")
    assert data.classes == CLASSES and dict(zip(objects.labels.tolist(), objects.areas.tolist(), strict=True))[2] == 24
    assert abs(objects.areas[objects.labels == 1][0] - np.pi * 9) < 5
    assert counts == {"objects": 2, "images": 1, "shapes left out: point cup": 1}
    assert main(["convert", str(tmp_path), str(tmp_path / "again" / "coco.json")]) == 0
    assert (tmp_path / "again" / "coco.json").read_text() == (tmp_path / "coco.json").read_text()


def test_kaggle_runs_count_from_one_column_by_column(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "b.png")
    rows = ["ImageId,EncodedPixels", "a,2 3 22 3", "a,595 6", "b.png,", "b.png,-1"]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    kaggle_rle_to_coco(tmp_path / "train.csv", tmp_path, tmp_path / "coco.json")
    data, objects = masks_of(tmp_path, tmp_path / "coco.json")
    expected = np.zeros((2, 20, 30), bool)
    expected[0, 1:4, :2] = True
    expected[1, 14:, 29] = True
    assert (objects.masks == expected).all() and data.filenames == ["a.png", "b.png"]
    assert main(["convert", str(tmp_path / "train.csv"), str(tmp_path / "again.json")]) == 0
    assert (tmp_path / "again.json").read_text() == (tmp_path / "coco.json").read_text()
    for text, message in (("a,596 6", "within 600 pixels"), ("a,5", "pairs"), ("c,1 1", "no image 'c'")):
        (tmp_path / "train.csv").write_text(f"ImageId,EncodedPixels\n{text}")
        with pytest.raises(ValueError, match=message):
            kaggle_rle_to_coco(tmp_path / "train.csv", tmp_path, tmp_path / "none.json")


@pytest.mark.parametrize(
    "rows",
    [
        ("ImageId,EncodedPixels,ClassId", "a.png,2 3,10", "a.png,1 1,9"),
        ("Image_Label,EncodedPixels", "a.png_10,2 3", "a.png_9,1 1"),
        ("id,class,segmentation", "a,10,2 3", "a,9,1 1"),
        ("id,class, EncodedPixels", "a,10,2 3", "a,9,1 1"),
    ],
)
def test_kaggle_columns_have_many_names_and_numbered_classes_their_order(tmp_path, rows):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    kaggle_rle_to_coco(tmp_path / "train.csv", tmp_path, tmp_path / "coco.json")
    data, objects = masks_of(tmp_path, tmp_path / "coco.json")
    assert data.classes == ["background", "9", "10"]
    assert (objects.labels.tolist(), objects.areas.tolist()) == ([2, 1], [3, 1])


def test_labelme_masks_are_read_and_images_found_where_the_file_says(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "photos" / "a.png")
    png = io.BytesIO()
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(png, "PNG")
    shapes = [
        {"label": "hat", "shape_type": "mask", "points": [[3, 2], [8, 5]], "mask": base64.b64encode(png.getvalue())},
        {"label": "hat", "points": [[-9, -9], [-5, -9], [-5, -5]], "shape_type": "polygon"},
        {"label": "hat", "points": [[20, 10], [24, 12]], "shape_type": "rectangle", "group_id": 1},
        {"label": "hat", "shape_type": "mask", "points": [[3, 2], [8, 5]], "group_id": 1},
    ]
    shapes[3]["mask"] = shapes[0]["mask"] = shapes[0]["mask"].decode()
    (tmp_path / "json").mkdir()
    content = {"shapes": shapes, "imagePath": "..\\photos\\a.png"}
    (tmp_path / "json" / "a.json").write_text(json.dumps(content))
    counts = labelme_to_coco(tmp_path, tmp_path / "coco.json")
    data, objects = masks_of(tmp_path, tmp_path / "coco.json")
    assert data.filenames == ["photos/a.png"] and counts["shapes left out: polygon hat"] == 1
    assert objects.areas.tolist() == [24, 32] and objects.masks[0, 2:6, 3:9].all()
    for broken, what in (({"shapes": shapes}, "its image None"), (content | {"shapes": [{"points": []}]}, "'label'")):
        (tmp_path / "json" / "a.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=rf"a\.json: .*{what}"):
            labelme_to_coco(tmp_path, tmp_path / "none.json")


def test_cvat_masks_keep_objects_that_touch(tmp_path):
    classes, objects = (np.zeros((20, 30, 3), np.uint8) for _ in range(2))
    classes[2:6, 2:12] = (250, 50, 83)
    objects[2:6, 2:7], objects[2:6, 7:12] = (10, 0, 0), (20, 0, 0)
    for folder, pixels in (("SegmentationClass", classes), ("SegmentationObject", objects), ("JPEGImages", classes)):
        (tmp_path / folder / "day").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / folder / "day" / "a.png")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nhat:250,50,83::\n")
    cvat_masks_to_coco(tmp_path, tmp_path / "coco.json")
    data, found = masks_of(tmp_path / "JPEGImages", tmp_path / "coco.json")
    assert data.classes == ["background", "hat"] and found.areas.tolist() == [20, 20]
    assert data.filenames == ["day/a.png"]
    assert main(["convert", str(tmp_path), str(tmp_path / "again.json")]) == 0
    assert (tmp_path / "again.json").read_text() == (tmp_path / "coco.json").read_text()
    (tmp_path / "SegmentationObject/day/a.png").unlink()
    with pytest.raises(FileNotFoundError, match="SegmentationObject/day/a.png"):
        cvat_masks_to_coco(tmp_path, tmp_path / "none.json")
