"""The reader of PASCAL VOC's layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCSegmentation

from seglib.datasets import VOCSegmentationDataset
from seglib.datasets.voc import VOC_CLASSES
from seglib.masks import voc_palette
from tests.conftest import REAL


def write_mask(root: Path, name: str, values, palette: np.ndarray | None = None) -> None:
    image = Image.fromarray(np.array(values, np.uint8))
    image.putpalette((voc_palette() if palette is None else palette).tobytes())
    image.save(root / "SegmentationClass" / f"{name}.png")


def write_list(root: Path, text: str, image_set: str = "train") -> None:
    (root / "ImageSets/Segmentation" / f"{image_set}.txt").write_bytes(text.encode())


@pytest.fixture
def devkit(tmp_path) -> Path:
    """Three images of 4x6 in VOC's layout. Each mask has the classes 0, 1 and 15 and pixels of 255."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for name in "abc":
        Image.fromarray(np.full((4, 6, 3), ord(name), np.uint8)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        write_mask(tmp_path, name, [[0, 1, 15, 255, 0, 0]] * 4)
    write_list(tmp_path, "a\nc\n")
    write_list(tmp_path, "b\n", "val")
    return tmp_path


def test_the_images_of_one_set_are_read(devkit):
    data = VOCSegmentationDataset(devkit, "train")
    image, mask, name = data[1]
    assert (len(data), name, data.filenames) == (2, "c.jpg", ["a.jpg", "c.jpg"])
    assert image.dtype == mask.dtype == torch.uint8 and image.shape == (3, 4, 6)
    assert mask[0].tolist() == [0, 1, 15, 255, 0, 0] and data.classes == list(VOC_CLASSES)
    assert VOCSegmentationDataset(devkit, "val").filenames == ["b.jpg"]


def test_a_mask_that_does_not_hold_classes_is_named(devkit):
    write_mask(devkit, "b", [[0, 21, 15, 255, 0, 0]] * 4)
    with pytest.raises(ValueError, match=r"b\.png: mask value 21 in 4 pixels; allowed are 0 to 20"):
        VOCSegmentationDataset(devkit, "val")[0]


def test_missing_lists_folders_and_files_are_named(devkit):
    with pytest.raises(FileNotFoundError, match="available are train, val"):
        VOCSegmentationDataset(devkit, "trainaug")
    with pytest.raises(FileNotFoundError, match="holds JPEGImages"):
        VOCSegmentationDataset(devkit / "JPEGImages")
    write_list(devkit, "b\nx.y\n", "val")
    with pytest.raises(ValueError, match=r"has 2 problems(.|\n)*x\.y: is listed but has no file in .*JPEGImages"):
        VOCSegmentationDataset(devkit, "val")
    (devkit / "SegmentationClass" / "c.png").unlink()
    with pytest.raises(ValueError, match=r"c: is listed but has no file in .*SegmentationClass"):
        VOCSegmentationDataset(devkit, "train")
    (devkit / "SegmentationClass").rename(devkit / "masks")
    with pytest.raises(FileNotFoundError, match="no folder .*SegmentationClass"):
        VOCSegmentationDataset(devkit)


def test_a_folder_above_is_answered_with_the_one_to_give(devkit):
    inside = devkit / "download/VOCdevkit/VOC2012"
    inside.parent.mkdir(parents=True)
    inside.symlink_to(devkit)
    with pytest.raises(FileNotFoundError, match=r"give .*VOCdevkit.VOC2012"):
        VOCSegmentationDataset(devkit / "download")


def test_skip_leaves_out_names_without_mask_and_files_that_cannot_be_read(devkit):
    write_list(devkit, "a\nb\nc\nd\n")
    write_mask(devkit, "a", [[0, 99, 15, 255, 0, 0]] * 4)
    (devkit / "JPEGImages" / "c.jpg").write_bytes(b"not an image")
    with pytest.warns(UserWarning, match="skipped 4"):
        data = VOCSegmentationDataset(devkit, on_error="skip")
    assert data.filenames == ["b.jpg"] and {problem.where for problem in data.problems} == {"a", "c", "d"}
    write_list(devkit, "a\nc\n")
    with pytest.warns(UserWarning, match="skipped 2"), pytest.raises(ValueError, match="no image left of 2"):
        VOCSegmentationDataset(devkit, on_error="skip")


def test_an_image_with_exif_rotation_is_read_in_the_orientation_of_its_mask(devkit):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer would rotate it to 6x4; the mask is 4x6
    Image.fromarray(pixels).save(devkit / "JPEGImages" / "b.jpg", exif=exif, quality=100)
    image, mask, _ = VOCSegmentationDataset(devkit, "val")[0]
    assert image.shape[1:] == mask.shape == (4, 6) and image[0, :, 0].min() > 200 and image[0, :, 5].max() < 50


def test_a_list_of_names_may_have_a_byte_order_mark_blank_lines_and_repetitions(devkit):
    write_list(devkit, "\ufeffc\r\n\r\na\r\nc\r\n")
    assert VOCSegmentationDataset(devkit).filenames == ["c.jpg", "a.jpg"]


@pytest.mark.parametrize(
    "line",
    ["my a", '"my a"', "my a.JPG", "JPEGImages/my a.JPG", "MY A", "/JPEGImages/my%20a /x", "JPEGImages\\my a.JPG"],
)
def test_names_are_found_whatever_surrounds_them_and_whatever_suffix_the_image_has(devkit, line):
    name = "my%20a" if "%" in line else "my a"
    (devkit / "JPEGImages" / "a.jpg").rename(devkit / "JPEGImages" / f"{name}.JPG")
    (devkit / "SegmentationClass" / "a.png").rename(devkit / "SegmentationClass" / f"{name}.png")
    write_list(devkit, f"{line}\n")
    assert VOCSegmentationDataset(devkit)[0][2] == f"{name}.JPG"


@pytest.mark.parametrize("name", ["house 1", 'pipe 5"', "'b'", "b.tif"])
def test_what_looks_like_a_label_a_quote_or_a_suffix_may_belong_to_the_name(devkit, name):
    (devkit / "JPEGImages" / "a.jpg").rename(devkit / "JPEGImages" / f"{name}.png")
    (devkit / "SegmentationClass" / "a.png").rename(devkit / "SegmentationClass" / f"{name}.png")
    write_list(devkit, f"{name}\nc\n")
    assert VOCSegmentationDataset(devkit).filenames == [f"{name}.png", "c.jpg"]


def test_names_that_differ_only_in_case_are_two_images(devkit):
    (devkit / "JPEGImages" / "a.jpg").rename(devkit / "JPEGImages" / "C.jpg")
    write_mask(devkit, "C", [[0] * 6] * 4)
    write_list(devkit, "C\nc\n")
    data = VOCSegmentationDataset(devkit)
    assert data.filenames == ["C.jpg", "c.jpg"] and [sample[1].max().item() for sample in data] == [0, 255]


def test_two_images_of_one_name_are_a_problem(devkit):
    Image.new("RGB", (6, 4)).save(devkit / "JPEGImages" / "a.png")
    with pytest.raises(ValueError, match=r"a: has a\.jpg and a\.png in .*JPEGImages"):
        VOCSegmentationDataset(devkit)


def test_classes_are_those_of_a_labelmap(devkit):
    (devkit / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncup:128,0,0::\n")
    assert VOCSegmentationDataset(devkit).classes == ["background", "cup"]


def test_a_list_of_another_kind_is_refused(devkit):
    write_list(devkit, "a  1\nc -1\n")
    with pytest.raises(ValueError, match=r"train\.txt: 'a  1' is not a name"):
        VOCSegmentationDataset(devkit)


def test_other_data_in_this_layout_may_have_other_classes(devkit):
    write_mask(devkit, "a", [[0, 1, 2, 255, 0, 0]] * 4)
    data = VOCSegmentationDataset(devkit, classes=["background", "leaf", "stem"])
    assert data.classes == ["background", "leaf", "stem"] and data[0][1].unique().tolist() == [0, 1, 2, 255]


def test_every_pixel_of_real_images_is_that_of_torchvision(tmp_path):
    real_voc = REAL / "voc2012"
    if not real_voc.is_dir():
        pytest.skip("needs the real photographs of ../shared/data/voc2012")
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit/VOC2012").symlink_to(real_voc)
    reference = VOCSegmentation(tmp_path, image_set="val")
    data = VOCSegmentationDataset(real_voc, "val")
    assert len(reference) == len(data)
    for index in range(0, len(data), 5):
        image, mask = reference[index]
        assert (data[index][0].permute(1, 2, 0).numpy() == np.asarray(image)).all()
        assert (data[index][1].numpy() == np.asarray(mask)).all()
