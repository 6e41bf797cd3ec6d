"""The COCO reader: how annotations become masks, and what it says about broken files."""

import pickle
import unicodedata

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from seglib.datasets import COCOSegmentationDataset
from seglib.datasets.coco import write_masks
from seglib.instances import Instances
from seglib.masks import IGNORE, polygons_to_rle, read_index_png
from seglib.transforms import resize

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


def add(tiny, **fields):
    """Add an annotation to the first image."""
    annotation = {"id": 13, "image_id": 1, "category_id": 3, "segmentation": [SQUARE], "iscrowd": 0, "area": 16}
    tiny.content["annotations"].append(annotation | fields)


# --------------------------------------------------------------------------------------------------------------- masks


def test_a_sample_is_image_mask_and_file_name(tiny):
    data = tiny.open()
    image, mask, name = data[0]
    assert (str(image.dtype), tuple(image.shape)) == ("torch.uint8", (3, 8, 10))
    assert (str(mask.dtype), tuple(mask.shape)) == ("torch.uint8", (8, 10))
    assert name == "1.png" and data.filenames == ["1.png", "2.png"] and data.classes == ["background", "cup", "hat"]
    assert mask.sum() == 16 and mask[1:5, 1:5].all() and data[1][1].max() == 2


def test_categories_by_name_or_id_are_classes_in_that_order(tiny):
    assert tiny.open(categories=["hat", "cup"]).classes == ["background", "hat", "cup"]
    assert tiny.open(categories=[7, "cup"])[0][1].max() == 2
    assert tiny.open(categories=["hat"])[0][1].max() == 0  # an unwanted category is background


def test_binary_mode_gives_every_wanted_category_class_1(tiny):
    data = tiny.open(mode="binary")
    assert data.classes == ["background", "object"]
    assert [data[index][1].max().item() for index in range(2)] == [1, 1]


def test_maximum_prefers_the_higher_class_and_smallest_the_smaller_object(tiny):
    add(tiny, category_id=7, segmentation=[[0, 0, 10, 0, 10, 8, 0, 8]])  # a large hat over a small cup
    assert tiny.open(overlap="maximum").mask(0)[2, 2] == 2
    assert tiny.open(overlap="smallest").mask(0)[2, 2] == 1
    equally_large = Instances.of(np.ones((2, 1, 1), bool), labels=[2, 1])
    assert equally_large.semantic("smallest")[0, 0] == 2


def test_masks_of_real_annotations_are_those_of_pycocotools(real_coco):
    annotation_file = real_coco / "annotations" / "instances_val.json"
    data = COCOSegmentationDataset(real_coco / "images" / "val", annotation_file)
    reference = COCO(str(annotation_file))
    class_of = {category: index for index, category in enumerate(sorted(reference.cats), start=1)}
    for index, name in enumerate(data.filenames):
        image_id = next(key for key, entry in reference.imgs.items() if entry["file_name"] == name)
        objects = np.zeros_like(data.mask(index))
        crowd = np.zeros(objects.shape, bool)
        for annotation in reference.imgToAnns[image_id]:
            shape = reference.annToMask(annotation).astype(bool)
            if annotation["iscrowd"]:
                crowd |= shape
            else:
                objects = np.maximum(objects, shape * np.uint8(class_of[annotation["category_id"]]))
        expected = np.where(crowd & (objects == 0), IGNORE, objects)
        assert np.array_equal(data.mask(index), expected), name


def test_a_crowd_of_a_wanted_category_is_255_except_on_objects(tiny):
    add(tiny, segmentation={"size": [8, 10], "counts": [0, 80]}, iscrowd=1)
    mask = tiny.open().mask(0)
    assert mask[2, 2] == 1 and (mask == IGNORE).sum() == 80 - 16
    assert tiny.open(categories=["hat"]).mask(0).max() == 0


def test_instances_have_class_crowd_and_shape_of_each_annotation(tiny):
    add(tiny, category_id=7, segmentation={"size": [8, 10], "counts": [0, 80]}, iscrowd=1)
    objects = tiny.open().instances(0)
    assert objects.labels.tolist() == [1, 2] and objects.crowd.tolist() == [False, True]
    assert objects.areas.tolist() == [16, 80] and objects.size == (8, 10)


def test_the_transform_changes_image_and_mask_also_after_pickling(tiny):
    data = pickle.loads(pickle.dumps(tiny.open(transform=resize(16, 20))))
    image, mask, _ = data[0]
    assert image.shape == (3, 16, 20) and mask.shape == (16, 20) and mask.sum() == 64


@pytest.mark.parametrize(("height", "width", "rotated"), [(10, 8, True), (8, 10, False)])
def test_exif_rotation_is_applied_unless_the_size_is_that_of_the_stored_image(tiny, height, width, rotated):
    pixels = np.zeros((8, 10, 3), np.uint8)
    pixels[0, 0] = 250  # at the upper left when stored, at the upper right after the rotation
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tiny.images / "1.png", exif=exif)
    tiny.content["images"][0] |= {"height": height, "width": width}
    image = tiny.open()[0][0]
    assert image.shape == (3, height, width) and image[0, 0, -1 if rotated else 0] == 250


# -------------------------------------------------------------------------------------------------------- broken files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no annotation file"),
        (b"", "is not JSON"),
        (b'{"images": "\xff"}', "is not UTF-8 text near"),
        (b'{"images": [], "annotations": []}', "no list of categories.*; it holds the keys images, annotations"),
        (b"5", "no list of images.*; it holds 5"),
        (b'{"data": {"images": [], "annotations": [], "categories": []}}', "holds one under 'data'"),
        (b'{"a.png": {"regions": []}}', "holds annotations of VGG Image Annotator"),
        (b'{"images": [7], "annotations": [], "categories": []}', "no list of images"),
        (b'[{"image_id": 1, "category_id": 1, "segmentation": {}, "score": 0.5}]', "holds COCO's results"),
        (b'{"annotations": [{"segments_info": []}]}', "holds COCO's panoptic"),
        (b'{"annotations": [{"keypoints": [1, 2, 2]}]}', "holds COCO's captions or keypoints"),
        (b'{"annotations": [{"caption": "a cup"}]}', "holds COCO's captions"),
        (b'{"shapes": [], "imagePath": "1.png"}', "holds labelme's"),
    ],
)
def test_a_file_without_annotations_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises((FileNotFoundError, ValueError), match=rf"a\.json.*{message}|{message}.*a\.json"):
        COCOSegmentationDataset(tmp_path, tmp_path / "a.json")


def test_a_byte_order_mark_and_sizes_with_a_decimal_point_are_read(tiny):
    tiny.content["images"][0]["height"] = 8.0
    tiny.open()
    tiny.file.write_bytes(b"\xef\xbb\xbf" + tiny.file.read_bytes())
    assert COCOSegmentationDataset(tiny.images, tiny.file).mask(0).shape == (8, 10)


def test_categories_that_cannot_be_selected(tiny):
    with pytest.raises(ValueError, match=r"no category \['cap'\]; it has cup \(3\), hat \(7\)"):
        tiny.open(categories=["cap"])
    with pytest.raises(ValueError, match="name a category twice"):
        tiny.open(categories=["cup", 3])
    with pytest.raises(ValueError, match=r"must be a list, such as \['cup'\]"):
        tiny.open(categories="cup")
    tiny.content["categories"] += [{"id": 100 + number, "name": f"c{number}"} for number in range(260)]
    with pytest.raises(ValueError, match="263 classes"):
        tiny.open()
    del tiny.content["categories"][1]["name"]
    with pytest.raises(ValueError, match=r"category \{'id': 7\} has no valid name"):
        tiny.open()


def annotation(**fields):
    return lambda tiny: add(tiny, **fields)


def image(**fields):
    return lambda tiny: tiny.content["images"][0].update(fields)


def repeat_image(tiny):
    tiny.content["images"].append(tiny.content["images"][0])


PROBLEMS = {  # what breaks the data set, and what is said about it
    "points as objects": (annotation(segmentation=[[{"x": 1, "y": 1}]]), "polygon must be a flat list of numbers"),
    "two points": (annotation(segmentation=[[1, 1, 4, 4]]), r"annotation 13 \(image 1\): polygon has 2 points"),
    "RLE size": (annotation(segmentation={"size": [4, 4], "counts": [16]}), r"annotation 13 .*RLE of size \[4, 4\]"),
    "RLE runs": (annotation(segmentation={"size": [8, 10], "counts": [16]}), "annotation 13 .*16"),
    "no shape": (annotation(segmentation=[]), r"annotation 13 .*must be a list of polygons or an RLE .*, not \[\]"),
    "a number": (annotation(segmentation=5), "annotation 13 .*must be a list of polygons or an RLE .*, not 5"),
    "unknown image": (annotation(image_id=99), "annotation 13: its image_id 99 is not in the file"),
    "unknown category": (annotation(category_id=99), "annotation 13: its category_id 99 is not in the file"),
    "same id": (annotation(id=11), "annotation 11: another annotation has that id"),
    "image listed twice": (repeat_image, r"image 1 \(1.png\): another entry has that name"),
    "same file": (image(file_name="2.png"), r"image 2 \(2.png\): another entry has that name"),
    "crowd as a word": (annotation(iscrowd="no"), r"annotation 13: iscrowd is 'no', not 0 or 1"),
    "true as an id": (annotation(id=True), "annotation True: has no valid id: True"),
    "true as a size": (image(height=True), r"image 1 \(1.png\): height True and width 10 must be whole"),
    "a list as an id": (annotation(category_id=[3]), r"annotation 13: has no valid category_id: \[3\]"),
    "half an id": (annotation(category_id=3.5), "annotation 13: has no valid category_id: 3.5"),
    "file above the folder": (image(file_name="../instances.json"), r"image 1 \(../instances.json\): no such file"),
    "no file": (image(file_name="3.png"), r"image 1 \(3.png\): no such file"),
    "half a pixel": (image(height=8.5), r"image 1 \(1.png\): height 8.5 and width 10 must be whole"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_problem_is_raised_with_file_and_id_or_skipped(tiny, case):
    break_data, message = PROBLEMS[case]
    break_data(tiny)
    with pytest.raises(ValueError, match=message) as error:
        tiny.open()
    assert "instances.json" in str(error.value) and 'on_error="skip"' in str(error.value)
    with pytest.warns(UserWarning, match="skipped 1, repaired 0"):
        data = tiny.open(on_error="skip")
    assert [problem.action for problem in data.problems] == ["skipped"] and "2.png" in data.filenames


def test_an_image_that_cannot_be_used_is_raised_on_reading_or_skipped(tiny):
    path = tiny.images / "1.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"1\.png cannot be read as an image"):
        tiny.open()[0]
    with pytest.warns(UserWarning, match="skipped 1"):
        assert tiny.open(on_error="skip").filenames == ["2.png"]
    path.write_bytes(whole)
    tiny.content["images"][0]["height"] = 9
    with pytest.raises(ValueError, match=r"1\.png is 8x10 .*9x10"):
        tiny.open()[0]


def test_two_images_with_one_id_are_both_skipped(tiny):
    tiny.content["images"].append({"id": 2, "file_name": "1.png", "height": 8, "width": 10})
    with pytest.raises(ValueError, match=r"image 2 \(2.png\): 1.png, 2.png share that id"):
        tiny.open()
    with pytest.warns(UserWarning, match="skipped 2"):
        assert tiny.open(on_error="skip").filenames == ["1.png"]


def test_skip_keeps_the_valid_parts_of_an_object(tiny):
    add(tiny, segmentation=[[6, 6, 8, 6, 8, 8, 6, 8], [1, 1, 4, 4]])
    with pytest.warns(UserWarning, match="skipped 0, repaired 1"):
        data = tiny.open(on_error="skip")
    assert data.mask(0)[6, 6] == 1


def test_an_error_lists_ten_problems_and_counts_the_rest(tiny):
    for number in range(20, 35):
        add(tiny, id=number, image_id=99)
    with pytest.raises(ValueError, match=r"15 problems(.|\n)*annotation 29(.|\n)*and 5 more"):
        tiny.open()


def test_no_image_left_is_an_error(tiny):
    del tiny.content["images"][0]
    (tiny.images / "2.png").write_bytes(b"")
    tiny.content["annotations"] = []
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no image left of 1 in"):
        tiny.open(on_error="skip")


@pytest.mark.parametrize("name", ["mode", "overlap", "on_error"])
def test_an_unknown_choice_is_refused(tiny, name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        tiny.open(**{name: "neither"})


# ------------------------------------------------------------------------------------------------------- masks on disk


def test_write_masks_writes_again_only_if_the_source_has_changed(tiny, monkeypatch):
    data = tiny.open()
    folder = tiny.folder / "masks"
    report = write_masks(data, folder)
    assert (report.written, report.skipped, report.repaired, report.empty) == (2, 0, 0, 0)
    assert (read_index_png(folder / "2.png") == data.mask(1)).all()
    (folder / "1.png").write_bytes(b"kept")
    assert write_masks(data, folder) == report and (folder / "1.png").read_bytes() == b"kept"
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("seglib.datasets.coco.write_index_png", lambda *_: 1 / 0)
        write_masks(tiny.open(categories=["hat"]), folder)
    write_masks(data, folder)  # after the interruption, all masks are written again
    assert read_index_png(folder / "1.png").max() == 1
    (folder / "2.png").unlink()
    write_masks(data, folder)
    assert read_index_png(folder / "2.png").max() == 2
    del tiny.content["images"][0], tiny.content["annotations"][0]
    write_masks(tiny.open(), folder)
    assert [path.name for path in folder.glob("*.png")] == ["2.png"]


def test_the_mask_report_counts_problems_and_objects_without_pixels(tiny):
    add(tiny, segmentation=[[2.0, 2.0, 2.1, 2.0, 2.0, 2.1]])
    add(tiny, id=14, image_id=99)
    with pytest.warns(UserWarning):
        report = write_masks(tiny.open(on_error="skip"), tiny.folder / "masks")
    assert (report.written, report.skipped, report.repaired, report.empty) == (2, 1, 0, 1)


# ------------------------------------------------------------------------------------------------ dialects


def crowd(tiny):
    for item in tiny.content["annotations"]:
        item["iscrowd"] = "1"


def change_ids(change):
    def apply(tiny):
        for item in tiny.content["annotations"]:
            item |= {key: change(item[key]) for key in ("id", "image_id", "category_id")}
        for item in [*tiny.content["images"], *tiny.content["categories"]][::2]:  # of two kinds
            item["id"] = change(item["id"])

    return apply


def change_shapes(change):
    def apply(tiny):
        for item in tiny.content["annotations"]:
            if isinstance(item["segmentation"], list) and len(item["segmentation"]) == 1:
                item["segmentation"] = change(item["segmentation"][0])

    return apply


def pairs(polygon):
    return [polygon[i : i + 2] for i in range(0, len(polygon), 2)]


def remove_sizes_and_ids(tiny):
    for item in tiny.content["images"]:
        del item["height"]
        item["width"] = None
    for item in tiny.content["annotations"]:
        del item["id"]


def add_root(name, supercategory):
    def apply(tiny):
        tiny.content["categories"].insert(0, {"id": 0, "name": name, "supercategory": "none"})
        for item in tiny.content["categories"][1:]:
            item["supercategory"] = supercategory

    return apply


@pytest.mark.parametrize(
    "change",
    [
        change_ids(str),
        change_ids(float),
        change_ids("{}.0".format),
        change_ids("{:06}".format),
        change_shapes(lambda polygon: polygon),
        change_shapes(pairs),
        change_shapes(lambda polygon: [pairs(polygon)]),
        change_shapes(lambda polygon: list(map(str, polygon))),
        change_shapes(lambda polygon: [polygons_to_rle([polygon], 8, 10)]),
        remove_sizes_and_ids,
        image(height="8", width=10.0),
        add_root("cups-and-hats", "cups-and-hats"),
        add_root("cup", "cup"),
        add_root("cup", "none"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*only groups the others")
def test_dialects_of_tools_give_the_same_masks(tiny, change):
    expected = [tiny.open(categories=["cup", "hat"]).mask(index) for index in range(2)]
    change(tiny)
    data = tiny.open()
    assert data.classes == ["background", "cup", "hat"]
    assert all((data.mask(index) == mask).all() for index, mask in enumerate(expected))


def test_a_root_category_is_left_out_and_said(tiny):
    add_root("things", "things")(tiny)
    with pytest.warns(UserWarning, match=r"category 'things' \(id 0\) only groups the others"):
        assert tiny.open().classes == ["background", "cup", "hat"]


def test_objects_that_are_all_crowds_are_said_and_read_as_objects_if_wanted(tiny):
    expected = tiny.open(crowds="objects").mask(0)
    crowd(tiny)
    with pytest.warns(UserWarning, match=r'all \d objects are crowds .*crowds="objects"'):
        tiny.open()
    assert (tiny.open(crowds="objects").mask(0) == expected).all() and expected.max() < IGNORE


def test_a_class_of_crowds_beside_another_class_is_said(tiny):
    tiny.content["annotations"][0]["iscrowd"] = 1
    with pytest.warns(UserWarning, match=r"all 1 objects of 'cup' are crowds"):
        tiny.open()


def test_rle_with_numbers_as_pandas_writes_them_is_read(tiny):
    add(tiny, category_id=7, segmentation={"size": [8.0, "10"], "counts": [0.0, 8.0, 72.0]})
    assert tiny.open().instances(0).areas.tolist() == [16, 8]


def test_categories_are_selected_by_ids_that_are_texts(tiny):
    for item in tiny.content["categories"]:
        item["id"] = {3: "3", 7: "hat-1"}[item["id"]]
    for item in tiny.content["annotations"]:
        item["category_id"] = {3: 3, 7: "hat-1"}[item["category_id"]]
    assert tiny.open(categories=["hat-1", "3"]).classes == ["background", "hat", "cup"]


def test_the_name_of_a_file_is_not_taken_for_one_in_a_sub_folder(tiny):
    (tiny.images / "sub").mkdir()
    (tiny.images / "sub/1.png").write_bytes(b"another")
    tiny.content["images"][0]["file_name"] = "1.PNG"
    with pytest.warns(UserWarning, match="are not as in"):
        assert tiny.open().filenames[0] == "1.png"
    (tiny.images / "1.png").rename(tiny.images / "2")
    (tiny.images / "more").mkdir()
    (tiny.images / "more/1.png").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"image 1 \(1.PNG\): no such file in .*, or more than one"):
        tiny.open()


@pytest.mark.parametrize(
    "name", ["C:\\photos\\1.png", "https://example.org/%31.png?size=8", "images\\1.PNG", "../images/1.png"]
)
def test_file_names_of_another_machine_are_found_by_their_last_part_and_said(tiny, name):
    tiny.content["images"][0]["file_name"] = name
    with pytest.warns(UserWarning, match="1 file names are not as in .* as '1.png'"):
        assert tiny.open().filenames[0] == "1.png"


def test_accents_are_compared_whatever_their_form(tiny):
    composed, decomposed = (unicodedata.normalize(form, "bl\u00e4tter.png") for form in ("NFC", "NFD"))
    (tiny.images / "1.png").rename(tiny.images / decomposed)
    tiny.content["images"][0]["file_name"] = composed
    with pytest.warns(UserWarning, match="are not as in"):
        assert tiny.open()[0][2] == decomposed


def test_utf_16_is_read(tiny):
    expected = tiny.open().mask(0)
    tiny.file.write_bytes(tiny.file.read_text(encoding="utf-8").encode("utf-16"))
    assert (COCOSegmentationDataset(tiny.images, tiny.file).mask(0) == expected).all()
