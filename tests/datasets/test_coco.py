"""The COCO reader: its rules, and what it says of bad input."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from seglib.datasets import COCOSegmentationDataset, hold_out
from seglib.datasets.coco import paint, write_masks
from seglib.masks import IGNORE, read_index_png
from seglib.transforms import resize

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


def add(tiny, **annotation):
    """Add an annotation to the first photograph."""
    whole = {"id": 13, "image_id": 1, "category_id": 3, "segmentation": [SQUARE], "iscrowd": 0, "area": 16}
    tiny.content["annotations"].append(whole | annotation)


# ------------------------------------------------------------------------------------------------ the rules


def test_a_sample_is_image_mask_and_name(tiny):
    data = tiny.open()
    image, mask, name = data[0]
    assert (image.shape, str(image.dtype), mask.shape, str(mask.dtype)) == (
        (3, 8, 10),
        "torch.uint8",
        (8, 10),
        "torch.uint8",
    )
    assert name == "1.png" and len(data) == 2
    assert data.classes == ["background", "cup", "hat"]
    assert mask.sum() == 16 and mask[1:5, 1:5].all()
    assert data[1][1].max() == 2


def test_categories_are_in_the_order_asked_for_by_name_or_id(tiny):
    assert tiny.open(categories=["hat", "cup"]).classes == ["background", "hat", "cup"]
    assert tiny.open(categories=[7, "cup"])[0][1].max() == 2


def test_a_category_not_asked_for_is_background(tiny):
    assert tiny.open(categories=["hat"])[0][1].max() == 0


def test_binary_makes_every_wanted_category_class_1(tiny):
    data = tiny.open(mode="binary")
    assert data.classes == ["background", "object"]
    assert [data[i][1].max().item() for i in range(2)] == [1, 1]


def test_overlap_maximum_takes_the_higher_class_smallest_the_smaller_object(tiny):
    add(tiny, category_id=7, segmentation=[[0, 0, 10, 0, 10, 8, 0, 8]])  # a large hat over a small cup
    assert tiny.open(overlap="maximum").mask(0)[2, 2] == 2
    assert tiny.open(overlap="smallest").mask(0)[2, 2] == 1
    alike = [(2, np.ones((1, 1), bool)), (1, np.ones((1, 1), bool))]
    assert paint(alike, [], 1, 1, "smallest")[0, 0] == 2


def test_a_crowd_is_255_but_where_an_object_lies_on_it_and_only_if_wanted(tiny):
    everything = {"size": [8, 10], "counts": [0, 80]}
    add(tiny, segmentation=everything, iscrowd=1)
    mask = tiny.open().mask(0)
    assert mask[2, 2] == 1 and (mask == IGNORE).sum() == 80 - 16
    assert tiny.open(categories=["hat"]).mask(0).max() == 0


def test_keep_empty_false_leaves_out_images_without_a_wanted_object(tiny):
    assert tiny.open(categories=["cup"], keep_empty=False).filenames == ["1.png"]
    assert len(tiny.open(categories=["cup"])) == 2


def test_transform_is_applied_to_both(tiny):
    image, mask, _ = tiny.open(transform=resize(16, 20))[0]
    assert image.shape == (3, 16, 20) and mask.shape == (16, 20) and mask.sum() == 64


def test_the_reader_pickles_for_workers_that_are_spawned(tiny):
    data = pickle.loads(pickle.dumps(tiny.open(transform=resize(4, 5))))
    assert data[0][1].shape == (4, 5)


@pytest.mark.parametrize(("height", "width", "turned"), [(10, 8, True), (8, 10, False)])
def test_exif_rotation_is_honoured_unless_the_file_speaks_of_the_stored_raster(tiny, height, width, turned):
    pixels = np.zeros((8, 10, 3), np.uint8)
    pixels[0, 0] = 250  # stored upper left; seen upper right once turned by orientation 6
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tiny.images / "1.png", exif=exif)
    tiny.content["images"][0] |= {"height": height, "width": width}
    image = tiny.open()[0][0]
    assert image.shape == (3, height, width)
    assert image[0, 0, -1 if turned else 0] == 250


def test_grey_images_become_three_channels(tiny):
    Image.new("L", (10, 8), 77).save(tiny.images / "1.png")
    assert tiny.open()[0][0].unique().tolist() == [77]


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no annotation file"),
        ("", "is empty"),
        ("{'a': 1}", "is not JSON"),
        ('{"images": [', "is not JSON"),
        ("[]", "images or annotations or categories"),
        ('{"images": [], "annotations": []}', "no list of categories"),
    ],
)
def test_an_annotation_file_that_is_none_says_why_and_names_itself(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises((FileNotFoundError, ValueError), match=message) as error:
        COCOSegmentationDataset(tmp_path, tmp_path / "a.json")
    assert "a.json" in str(error.value)


def test_a_category_that_does_not_exist_lists_those_that_do(tiny):
    with pytest.raises(ValueError, match=r"no category \['cap'\]; it has cup \(3\), hat \(7\)"):
        tiny.open(categories=["cap"])
    with pytest.raises(ValueError, match="twice"):
        tiny.open(categories=["cup", 3])


def broken_annotation(**change):
    return lambda tiny: add(tiny, **change)


def change_image(**change):
    return lambda tiny: tiny.content["images"][0].update(change)


def cut_short(tiny):
    path = tiny.images / "1.png"
    path.write_bytes(path.read_bytes()[:-30])


PROBLEMS = {
    "two points": (broken_annotation(segmentation=[[1, 1, 4, 4]]), "annotation 13 .image 1.: polygon has 2 points"),
    "odd": (broken_annotation(segmentation=[[1, 1, 4, 4, 3]]), "annotation 13 .image 1.: polygon has an odd number"),
    "NaN": (broken_annotation(segmentation=[[1, 1, 4, 4, 3, float("nan")]]), "annotation 13 .*NaN"),
    "outside": (broken_annotation(segmentation=[[50, 1, 60, 4, 60, 9]]), "annotation 13 .*wholly outside the image"),
    "RLE size": (
        broken_annotation(segmentation={"size": [4, 4], "counts": [16]}),
        r"annotation 13 .*RLE of size \[4, 4\]",
    ),
    "RLE runs": (broken_annotation(segmentation={"size": [8, 10], "counts": [16]}), "annotation 13 .*add up to 16"),
    "no shape": (broken_annotation(segmentation=[]), "annotation 13 .*has no segmentation"),
    "no image": (broken_annotation(image_id=99), "annotation 13: its image 99 is not in the file"),
    "no category": (broken_annotation(category_id=99), "annotation 13: its category 99 is not in the file"),
    "same id": (broken_annotation(id=11), "annotation 11: another annotation has that id"),
    "listed twice": (
        lambda tiny: tiny.content["images"].append(tiny.content["images"][0]),
        r"image 1 \(1.png\): is listed twice",
    ),
    "file twice": (change_image(file_name="2.png"), r"image 2 \(2.png\): another image has that name"),
    "image missing": (change_image(file_name="3.png"), r"image 1 \(3.png\): no such file"),
    "height null": (change_image(height=None), r"image 1 \(1.png\): its entry has height None"),
    "height half": (change_image(height=8.5), r"image 1 \(1.png\): its entry has height 8.5"),
    "no image at all": (lambda tiny: tiny.content["images"].append(7), "its entry has no fields: it is 7"),
    "no annotation at all": (lambda tiny: tiny.content["annotations"].append("x"), "annotation None: has no fields"),
    "climbs out": (change_image(file_name="../images/1.png"), "file_name must stay inside"),
    "too far": (broken_annotation(segmentation=[[0, 0, 1e12, 0, 1e12, 5]]), "annotation 13 .*pixels far"),
    "a number": (broken_annotation(segmentation=5), "annotation 13 .*neither polygons nor RLE"),
    "RLE null": (broken_annotation(segmentation={"size": [8, 10], "counts": None}), "annotation 13 .*an RLE must be"),
    "size null": (broken_annotation(segmentation={"size": None, "counts": [80]}), "annotation 13 .*RLE of size None"),
    "no height": (lambda tiny: tiny.content["images"][0].pop("height"), r"image 1 \(1.png\): its entry has no height"),
}
ON_READING = {
    "other size": (change_image(height=9), r"1\.png is 8x10 .* but its annotations or mask say 9x10"),
    "cut short": (cut_short, r"1\.png cannot be read as an image"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_problem_is_raised_at_once_with_file_and_id(tiny, case):
    break_it, message = PROBLEMS[case]
    break_it(tiny)
    with pytest.raises(ValueError, match=message) as error:
        tiny.open()
    assert "instances.json" in str(error.value) and 'on_error="skip"' in str(error.value)


@pytest.mark.parametrize("case", ON_READING)
def test_a_broken_image_is_raised_when_it_is_read(tiny, case):
    break_it, message = ON_READING[case]
    break_it(tiny)
    with pytest.raises(ValueError, match=message):
        tiny.open()[0]


@pytest.mark.parametrize("case", [*PROBLEMS, *ON_READING])
def test_skip_leaves_out_what_is_broken_keeps_the_rest_and_counts(tiny, case):
    break_it, message = (PROBLEMS | ON_READING)[case]
    break_it(tiny)
    with pytest.warns(UserWarning, match="skipped 1, repaired 0"):
        data = tiny.open(on_error="skip")
    assert len(data.problems) == 1 and data.problems[0].action == "skipped"
    assert "2.png" in data.filenames
    sound = data.filenames.index("2.png")
    assert data[sound][1].sum() == 32 or case == "file twice"


def test_two_images_of_one_id_are_both_left_out_for_their_annotations_cannot_be_told_apart(tiny):
    tiny.content["images"].append({"id": 2, "file_name": "1.png", "height": 8, "width": 10})
    with pytest.raises(ValueError, match=r"image 2 \(2.png\): 1.png, 2.png share that id"):
        tiny.open()
    with pytest.warns(UserWarning, match="skipped 2"):
        assert tiny.open(on_error="skip").filenames == ["1.png"]


def test_skip_repairs_an_annotation_of_which_a_part_is_sound(tiny):
    add(tiny, segmentation=[[6, 6, 8, 6, 8, 8, 6, 8], [1, 1, 4, 4]])
    with pytest.warns(UserWarning, match="skipped 0, repaired 1"):
        data = tiny.open(on_error="skip")
    assert data.mask(0)[6, 6] == 1


def test_whole_numbers_written_as_floats_are_sizes(tiny):
    tiny.content["images"][0]["height"] = 8.0
    assert tiny.open().mask(0).shape == (8, 10)


def test_a_file_of_another_encoding_is_named_and_a_byte_order_mark_is_none(tiny):
    tiny.open()
    text = tiny.file.read_text()
    tiny.file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(COCOSegmentationDataset(tiny.images, tiny.file)) == 2
    tiny.file.write_bytes(text.replace("cup", "caf\u00e9").encode("latin-1"))
    tiny.file.write_bytes(tiny.file.read_bytes() + b"\xff")
    with pytest.raises(ValueError, match=r"instances\.json is not JSON"):
        COCOSegmentationDataset(tiny.images, tiny.file)


def test_a_category_without_a_name_is_named(tiny):
    del tiny.content["categories"][1]["name"]
    with pytest.raises(ValueError, match=r"category \{'id': 7\} has no name"):
        tiny.open()


def test_more_classes_than_a_byte_holds_are_refused(tiny):
    tiny.content["categories"] += [{"id": 100 + n, "name": f"c{n}"} for n in range(260)]
    with pytest.raises(ValueError, match="263 classes"):
        tiny.open()


def test_many_problems_are_listed_and_the_rest_counted(tiny):
    for number in range(20, 35):
        add(tiny, id=number, image_id=99)
    with pytest.raises(ValueError, match=r"15 problems(.|\n)*and 5 more"):
        tiny.open()


def test_nothing_left_says_how_that_came(tiny):
    tiny.content["annotations"] = []
    with pytest.raises(ValueError, match=r"no image left: .* lists 2"):
        tiny.open(keep_empty=False)


def test_a_choice_that_does_not_exist_lists_those_that_do(tiny):
    for name in ("mode", "overlap", "on_error"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            tiny.open(**{name: "neither"})


# ------------------------------------------------------------------------------------------------ masks on disk


def test_write_masks_writes_once_and_again_only_when_its_source_changed(tiny):
    data, folder = tiny.open(), tiny.folder / "masks"
    report = write_masks(data, folder)
    assert (report.written, report.skipped, report.repaired) == (2, 0, 0)
    assert (read_index_png(folder / "2.png") == data.mask(1)).all()
    before = os.stat(folder / "1.png").st_mtime_ns
    assert write_masks(data, folder) == report
    assert os.stat(folder / "1.png").st_mtime_ns == before
    (folder / "1.png").unlink()
    write_masks(data, folder)
    assert (folder / "1.png").is_file()
    write_masks(tiny.open(categories=["hat"]), folder)
    assert read_index_png(folder / "1.png").max() == 0


def test_write_masks_interrupted_or_changed_leaves_nothing_stale(tiny, monkeypatch):
    folder = tiny.folder / "masks"
    first = tiny.open()
    write_masks(first, folder)
    fewer = tiny.open(categories=["hat"], keep_empty=False)
    write_masks(fewer, folder)
    assert sorted(path.name for path in folder.glob("*.png")) == ["2.png"]
    write_masks(tiny.open(categories=["hat", "cup"]), folder)  # hat is 1, cup is 2

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("seglib.datasets.coco.write_index_png", dies)
        write_masks(first, folder)
    write_masks(tiny.open(categories=["hat", "cup"]), folder)
    assert read_index_png(folder / "1.png").max() == 2


def test_write_masks_counts_objects_that_cover_no_pixel(tiny):
    add(tiny, segmentation=[[2.0, 2.0, 2.1, 2.0, 2.0, 2.1]])
    assert write_masks(tiny.open(), tiny.folder / "masks").empty == 1


def test_write_masks_says_what_was_skipped_and_repaired(tiny):
    add(tiny, image_id=99)
    with pytest.warns(UserWarning):
        report = write_masks(tiny.open(on_error="skip"), tiny.folder / "masks")
    assert (report.written, report.skipped) == (2, 1)
    assert json.loads((tiny.folder / "masks" / "masks.json").read_text())["report"]["skipped"] == 1


def test_hold_out_depends_on_file_names_alone(sample):
    data = COCOSegmentationDataset(sample / "images/train", sample / "annotations/instances_train.json")
    training, validation = hold_out(data)
    assert (len(training), len(validation)) == (48, 16)
    assert not set(training.indices) & set(validation.indices)
    names = {data.filenames[index] for index in validation.indices}
    some = COCOSegmentationDataset(
        sample / "images/train",
        sample / "annotations/instances_train.json",
        categories=["person"],
        transform=resize(8, 8),
    )
    assert {some.filenames[index] for index in hold_out(some)[1].indices} == names
    assert len(hold_out(data, at_most=5)[1]) == 5
