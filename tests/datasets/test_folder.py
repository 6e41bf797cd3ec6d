"""The reader for a folder of images beside a folder of masks."""

import numpy as np
import pytest
from PIL import Image

from seglib.datasets import MaskFolderDataset
from tests.conftest import REAL


@pytest.fixture
def folders(tmp_path):
    """Three images and masks of 4x6 with values 0 and 1."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in "abc":
        Image.fromarray(np.full((4, 6, 3), ord(name), np.uint8)).save(tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(np.eye(4, 6, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def read(folders, classes=("background", "cup"), **settings):
    return MaskFolderDataset(folders / "images", folders / "masks", list(classes), **settings)


def put(folders, name, values):
    Image.fromarray(np.array(values, np.uint8)).save(folders / "masks" / f"{name}.png")


def test_pairs_are_found_by_name(folders):
    data = read(folders)
    image, mask, name = data[1]
    assert (len(data), name, image.shape, mask.sum().item()) == (3, "b.jpg", (3, 4, 6), 4)


def test_void_values_become_255_and_255_always_is(folders):
    put(folders, "a", [[0, 1, 11, 255, 0, 0]] * 4)
    assert read(folders, void=(11,))[0][1][0].tolist() == [0, 1, 255, 255, 0, 0]


def test_black_and_white_masks_are_read_by_their_values(folders):
    for name in "abc":
        put(folders, name, [[0, 255, 0, 0, 255, 0]] * 4)
    assert read(folders, values=[0, 255])[0][1][0].tolist() == [0, 1, 0, 0, 1, 0]


def test_black_and_white_masks_read_the_wrong_way_are_warned_of(folders):
    for name in "abc":
        put(folders, name, [[0, 255, 0, 0, 255, 0]] * 4)
    with pytest.warns(UserWarning, match=r"values=\[0, 255\]"):
        read(folders)
    read(folders, void=(255,))  # said on purpose


def test_masks_in_jpeg_and_classes_in_one_word_are_refused(folders):
    with pytest.raises(ValueError, match="list of names"):
        MaskFolderDataset(folders / "images", folders / "masks", "leaf")
    (folders / "masks" / "a.png").unlink()
    Image.new("L", (6, 4)).save(folders / "masks" / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg is a JPEG"):
        read(folders)


def test_a_value_out_of_range_names_file_value_and_range(folders):
    put(folders, "b", [[0, 1, 9, 0, 0, 0]] * 4)
    with pytest.raises(ValueError, match=r"b\.png: mask value \[9\] in 4 pixels; allowed are \[0, 1, 255\]"):
        read(folders)[1]


@pytest.mark.parametrize(
    ("lost", "message"), [("masks/b.png", "b.jpg: has no mask"), ("images/b.jpg", "b.png: has no image")]
)
def test_a_missing_partner_is_named(folders, lost, message):
    (folders / lost).unlink()
    with pytest.raises(ValueError, match=message):
        read(folders)
    with pytest.warns(UserWarning, match="skipped 1"):
        assert read(folders, on_error="skip").filenames == ["a.jpg", "c.jpg"]


def test_two_images_of_one_name_are_named(folders):
    Image.new("RGB", (6, 4)).save(folders / "images" / "b.png")
    with pytest.raises(ValueError, match="second image of the name b"):
        read(folders)


def test_skip_leaves_out_files_that_do_not_open(folders):
    (folders / "images" / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"b\.jpg cannot be read as an image"):
        read(folders)[1]
    with pytest.warns(UserWarning, match="skipped 1"):
        assert len(read(folders, on_error="skip")) == 2


def test_a_mask_of_another_size_is_named(folders):
    put(folders, "b", [[0, 1]])
    with pytest.raises(ValueError, match=r"b\.jpg is 4x6"):
        read(folders)[1]


def test_no_folder_and_no_image_are_errors(folders):
    with pytest.raises(FileNotFoundError, match="no folder"):
        MaskFolderDataset(folders / "none", folders / "masks", ["background", "cup"])
    (folders / "empty").mkdir()
    with pytest.raises(ValueError, match="no image with a mask"):
        MaskFolderDataset(folders / "empty", folders / "empty", ["background", "cup"])


def test_values_that_contradict_each_other_are_refused(folders):
    for settings in ({"values": [0]}, {"values": [0, 0]}, {"void": (1,)}):
        with pytest.raises(ValueError, match="one value for each of 2 classes"):
            read(folders, **settings)
    for settings in ({"values": [0, -1]}, {"void": (300,)}):
        with pytest.raises(ValueError, match="within 0 to 255"):
            read(folders, **settings)
    with pytest.raises(ValueError, match="0 classes"):
        read(folders, classes=[])


def test_exif_rotation_is_decided_by_the_size_of_the_mask(folders):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(folders / "images" / "a.jpg", exif=exif)  # seen as 6 high, 4 wide
    assert read(folders)[0][0].shape == (3, 4, 6)  # the mask is 4 high: it was drawn on the stored raster
    put(folders, "a", np.zeros((6, 4)))
    assert read(folders)[0][0].shape == (3, 6, 4)


def test_real_camvid_reads_with_its_void(tmp_path):
    if not (REAL / "camvid").is_dir():
        pytest.skip("needs the real photographs of ../shared/data/camvid")
    classes = [
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    ]
    data = MaskFolderDataset(REAL / "camvid/val", REAL / "camvid/valannot", classes, void=(11,))
    assert len(data) == 101
    values = {value for index in range(0, 101, 20) for value in data[index][1].unique().tolist()}
    assert 255 in values and max(values - {255}) <= 10
