"""The reader of a folder of images and a folder of masks."""

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Subset

from seglib.datasets import MaskFolderDataset, all_instances


@pytest.fixture
def folders(tmp_path):
    """Three images and masks of 4x6 pixels with values 0 and 1."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in "abc":
        Image.fromarray(np.full((4, 6, 3), ord(name), np.uint8)).save(tmp_path / "images" / f"{name}.jpg")
        write_mask(tmp_path, name, np.eye(4, 6))
    return tmp_path


def read(folders, classes=("background", "cup"), **settings):
    return MaskFolderDataset(folders / "images", folders / "masks", list(classes), **settings)


def write_mask(folders, name, values):
    Image.fromarray(np.array(values, np.uint8)).save(folders / "masks" / f"{name}.png")


def test_images_and_masks_are_paired_by_name(folders):
    data = read(folders)
    image, mask, name = data[1]
    assert (len(data), name, image.shape, mask.sum().item()) == (3, "b.jpg", (3, 4, 6), 4)


def test_void_values_become_255(folders):
    write_mask(folders, "a", [[0, 1, 11, 255, 0, 0]] * 4)
    assert read(folders, void=(11,))[0][1][0].tolist() == [0, 1, 255, 255, 0, 0]


def test_black_and_white_masks_are_read_by_values_and_warned_about_without(folders):
    for name in "abc":
        write_mask(folders, name, [[0, 255, 0, 0, 255, 0]] * 4)
    assert read(folders, values=[0, 255])[0][1][0].tolist() == [0, 1, 0, 0, 1, 0]
    with pytest.warns(UserWarning, match=r"values=\[0, 255\]"):
        read(folders)
    read(folders, void=(255,))  # intended, so there is no warning


def test_a_value_that_is_not_allowed_is_named_with_its_file(folders):
    write_mask(folders, "b", [[0, 1, 9, 0, 0, 0]] * 4)
    with pytest.raises(ValueError, match=r"b\.png: mask value \[9\] in 4 pixels; allowed are \[0, 1, 255\]"):
        read(folders)[1]


def write_ids(folders, name, ids):
    Image.fromarray(np.array(ids, np.uint16)).save(folders / "masks" / f"{name}.png")


def test_masks_of_instance_ids_are_read_as_one_class_and_as_objects(folders):
    """Ids above 255 need 16 bits; 255 and 256 are objects like the others, and an id may have two parts."""
    for name in "abc":
        write_ids(folders, name, [[0, 255, 255, 0, 256, 0], [0, 0, 0, 0, 256, 0], [7, 0, 0, 0, 0, 7], [300] * 6])
    data = read(folders, instance_ids=True)
    assert data[0][1].tolist() == [[0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1], [1] * 6]
    objects = data.instances(0)
    assert objects.areas.tolist() == [2, 2, 2, 6] and objects.labels.tolist() == [1, 1, 1, 1]  # 7, 255, 256, 300
    assert objects.boxes[0].tolist() == [0, 2, 6, 3]
    assert (objects.semantic() == data[0][1].numpy()).all()
    assert [len(each) for each in all_instances(Subset(data, [1]))] == [4]


def test_void_ids_do_not_count_and_empty_masks_have_no_objects(folders):
    write_mask(folders, "a", [[0, 1, 2, 255, 0, 0]] * 4)  # in 8 bits
    write_mask(folders, "b", np.zeros((4, 6)))
    data = read(folders, instance_ids=True, void=(255,))
    assert data[0][1][0].tolist() == [0, 1, 1, 255, 0, 0] and len(data.instances(0)) == 2
    assert data[1][1].sum() == 0 and len(data.instances(1)) == 0 and data.instances(1).size == (4, 6)


def test_instance_ids_are_read_only_where_they_are_meant(folders):
    with pytest.raises(TypeError, match="instance_ids=True"):
        read(folders).instances(0)
    write_ids(folders, "a", np.arange(24).reshape(4, 6))
    with pytest.raises(ValueError, match=r"a\.png is an image of mode I;16.*instance_ids=True"):
        read(folders)
    write_mask(folders, "a", np.zeros((4, 6)))
    write_mask(folders, "b", np.arange(24).reshape(4, 6))
    with pytest.raises(ValueError, match=r"mask value \[2, .*pass instance_ids=True"):
        read(folders)[1]
    Image.new("RGB", (6, 4)).save(folders / "masks" / "c.png")
    with pytest.raises(ValueError, match=r"c\.png is a PNG of mode RGB"):
        read(folders, instance_ids=True)[2]
    with pytest.raises(ValueError, match="two classes and no values="):
        read(folders, ("background", "cup", "hat"), instance_ids=True)


@pytest.mark.parametrize(
    ("missing", "message"), [("masks/b.png", "b.jpg: has no mask"), ("images/b.jpg", "b.png: has no image")]
)
def test_a_missing_partner_is_named_or_skipped(folders, missing, message):
    (folders / missing).unlink()
    with pytest.raises(ValueError, match=message):
        read(folders)
    with pytest.warns(UserWarning, match="skipped 1"):
        assert read(folders, on_error="skip").filenames == ["a.jpg", "c.jpg"]


def test_two_images_with_the_same_name_are_named(folders):
    Image.new("RGB", (6, 4)).save(folders / "images" / "b.png")
    with pytest.raises(ValueError, match="second image with the name b"):
        read(folders)


def test_files_that_cannot_be_used_are_raised_on_reading_or_skipped(folders):
    (folders / "images" / "a.jpg").write_bytes(b"not an image")
    write_mask(folders, "b", [[0, 1]])
    data = read(folders)
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read as an image"):
        data[0]
    with pytest.raises(ValueError, match=r"b\.jpg is 4x6"):
        data[1]
    with pytest.warns(UserWarning, match="skipped 2"):
        assert read(folders, on_error="skip").filenames == ["c.jpg"]


def test_missing_folders_and_no_images_are_errors(folders):
    with pytest.raises(FileNotFoundError, match="No such file"):
        MaskFolderDataset(folders / "none", folders / "masks", ["background", "cup"])
    (folders / "empty").mkdir()
    with pytest.raises(ValueError, match="no image with a mask"):
        MaskFolderDataset(folders / "empty", folders / "empty", ["background", "cup"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": [0]}, "one value from 0 to 255 for each of 2 classes"),
        ({"void": (1,)}, "one value from 0 to 255 for each of 2 classes"),
        ({"values": [0, -1]}, "one value from 0 to 255 for each of 2 classes"),
        ({"classes": []}, "0 classes"),
        ({"classes": "leaf"}, "list of names"),
    ],
)
def test_contradictory_settings_are_refused(folders, settings, message):
    arguments = {"classes": ["background", "cup"]} | settings
    with pytest.raises(ValueError, match=message):
        MaskFolderDataset(folders / "images", folders / "masks", **arguments)


def test_the_size_of_the_mask_decides_about_exif_rotation(folders):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(folders / "images" / "a.jpg", exif=exif)  # a viewer shows it 6 high and 4 wide
    assert read(folders)[0][0].shape == (3, 4, 6)
    write_mask(folders, "a", np.zeros((6, 4)))
    assert read(folders)[0][0].shape == (3, 6, 4)
