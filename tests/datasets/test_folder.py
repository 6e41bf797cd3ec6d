"""The reader of a folder of images and a folder of masks."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Subset

from seglib.datasets import MaskFolderDataset, all_instances
from seglib.instances import Instances
from tests.conftest import REAL, ROOT
from tests.helpers.notebooks import cells


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
    with pytest.raises(ValueError, match=r"mask value \[2, .*pass instance_ids=True"):
        read(folders)[0]
    write_mask(folders, "a", np.zeros((4, 6)))
    write_mask(folders, "b", np.arange(24).reshape(4, 6))
    with pytest.raises(ValueError, match=r"mask value \[2, .*pass instance_ids=True"):
        read(folders)[1]
    Image.new("RGB", (6, 4), (1, 2, 3)).save(folders / "masks" / "c.png")
    with pytest.raises(ValueError, match=r"c\.png holds colors"):
        read(folders, instance_ids=True)[2]
    with pytest.raises(ValueError, match="are for two classes"):
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
        ({"values": [0]}, "one value from 0 to 65535 for each of 2 classes"),
        ({"void": (1,)}, "one value from 0 to 65535 for each of 2 classes"),
        ({"values": [0, -1]}, "one value from 0 to 65535 for each of 2 classes"),
        ({"classes": []}, "0 classes"),
        ({"classes": None}, "classes are needed"),
        ({"threshold": 9, "values": [0, 255]}, "pass one of"),
        ({"instance_ids": True, "object_masks": True}, "pass one of"),
        ({"colors": {"cup": (0, 0, 300)}}, r"from 0 to 255, not \(0, 0, 300\)"),
        ({"colors": {"cup": (1, 1, 1), "hat": (1, 1, 1)}}, "two classes have one color"),
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


# ------------------------------------------------------------------------------------------------ names

MASK = np.zeros((4, 6), np.uint8)
MASK[1:3, 2:5] = 1
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "blätter") for form in ("NFC", "NFD"))


def write(path, pixels, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(path, **settings)


def open_one(tmp_path, mask, image="images/a.png", name="masks/a.png", **settings):
    """The class mask that is read from one image and one mask file."""
    write(tmp_path / image, np.full((4, 6, 3), 9, np.uint8))
    write(tmp_path / name, mask)
    folders = tmp_path / Path(image).parts[0], tmp_path / Path(name).parts[0]
    data = MaskFolderDataset(*folders, **{"classes": ["background", "cup"]} | settings)
    assert data.filenames == [Path(image).relative_to(Path(image).parts[0]).as_posix()]
    return data[0][1].numpy()


@pytest.mark.parametrize(
    ("image", "mask", "settings"),
    [
        ("images/a.jpg", "masks/a_mask.png", {"mask_suffix": "_mask"}),
        ("both/a.jpg", "both/a_mask.png", {"mask_suffix": "_mask"}),
        ("images/x/a_photo.png", "masks/x/a_ids.tif", {"image_suffix": "_photo", "mask_suffix": "_ids"}),
        ("images/A.JPG", "masks/a.png", {}),
        (f"images/{COMPOSED}.png", f"masks/{DECOMPOSED}.png", {}),
        ("images/x/a.png", "masks/y/a.png", {}),
        ("images/a.png", "masks/a.gif", {}),
        ("both/a.jpg", "both/a.png", {"mask_suffix": ".png"}),
        ("images/image_1.jpg", "masks/mask_1.png", {"image_suffix": "image_*", "mask_suffix": "mask_*"}),
        ("both/images/a.jpg", "both/masks/a.png", {}),
        ("both/x/images/a.jpg", "both/x/labels/a.png", {}),
    ],
)
def test_images_and_masks_are_paired_whatever_their_names_have_around_the_common_part(tmp_path, image, mask, settings):
    assert (open_one(tmp_path, MASK, image, mask, **settings) == MASK).all()


def test_the_suffix_that_would_pair_the_files_is_proposed(tmp_path):
    with pytest.raises(ValueError, match="pass mask_suffix='_mask'"):
        open_one(tmp_path, MASK, name="masks/a_mask.png")
    with pytest.raises(ValueError, match="both in .*pass mask_suffix"):
        open_one(tmp_path, MASK, "both/a.jpg", "both/a_mask.png")


def test_files_of_the_same_name_in_several_folders_are_not_confused(tmp_path):
    for folder, value in (("x", 0), ("y", 1)):
        write(tmp_path / "images" / folder / "a.png", np.zeros((4, 6, 3), np.uint8))
        write(tmp_path / "masks" / folder / "a.png", np.full((4, 6), value, np.uint8))
    data = read(tmp_path)
    assert [(name, int(mask.max())) for _, mask, name in data] == [("x/a.png", 0), ("y/a.png", 1)]


# ------------------------------------------------------------------------------------------------ values


def color_mask():
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[MASK == 1] = (0, 128, 0)
    pixels[0, 0] = (255, 255, 255)
    return pixels


def test_colors_become_classes(tmp_path):
    expected = MASK.copy()
    expected[0, 0] = 255
    colors = {"cup": (0, 128, 0), "edge": (255, 255, 255)}
    for void in (("edge",), ((255, 255, 255),)):
        assert (open_one(tmp_path, color_mask(), classes=None, colors=colors, void=void) == expected).all()
    labelmap = tmp_path / "labelmap.txt"
    labelmap.write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncup:0,128,0::\nedge:255,255,255::\n")
    assert (open_one(tmp_path, color_mask(), colors=labelmap, void=("edge",)) == expected).all()
    write(tmp_path / "masks" / "a.png", color_mask())
    data = MaskFolderDataset(tmp_path / "images", tmp_path / "masks", colors=labelmap)
    assert data.classes == ["background", "cup", "edge"] and data[0][1].unique().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"1 unknown colors: \(255, 255, 255\) in 1 pixels; known are"):
        open_one(tmp_path, color_mask(), classes=None, colors={"cup": (0, 128, 0)})
    with pytest.raises(ValueError, match="holds colors, such as .*pass colors="):
        open_one(tmp_path, color_mask())


def test_values_and_names_are_read_from_classes_csv(tmp_path):
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cup\n2, hat\n")
    assert (open_one(tmp_path, MASK, classes=None, colors=tmp_path / "_classes.csv") == MASK).all()


@pytest.mark.parametrize(
    ("mask", "name", "settings"),
    [
        (Image.fromarray(MASK * 255).convert("1"), "masks/a.png", {}),
        (Image.fromarray(MASK * 255).convert("1"), "masks/a.png", {"values": [0, 255]}),
        (MASK.astype(np.uint16), "masks/a.png", {}),
        (MASK.astype(np.uint16) * 1000, "masks/a.png", {"values": [0, 1000]}),
        (np.stack([MASK * 255] * 3, axis=2), "masks/a.png", {"values": [0, 255]}),
        (np.dstack([np.stack([MASK] * 3, axis=2), np.full_like(MASK, 255)]), "masks/a.png", {}),
        (MASK * np.float32(0.9), "masks/a.tif", {"threshold": 0.5}),
        (MASK * 250, "masks/a.jpg", {"threshold": 127}),
    ],
)
def test_masks_of_every_common_kind_are_read(tmp_path, mask, name, settings):
    assert (open_one(tmp_path, mask, name=name, **settings) == MASK).all()


def test_the_threshold_is_named_where_it_helps(tmp_path):
    with pytest.raises(ValueError, match="JPEG.*threshold=127"):
        open_one(tmp_path, MASK * 255, name="masks/a.jpg", values=[0, 255])
    (tmp_path / "masks" / "a.jpg").unlink()
    soft = np.linspace(0, 255, 24).reshape(4, 6).astype(np.uint8)
    with pytest.raises(ValueError, match="pass threshold=127"):
        open_one(tmp_path, soft, values=[0, 255])


def test_a_table_that_changes_how_values_look_is_said_once(tmp_path):
    palette = Image.fromarray(MASK, "P")
    palette.putpalette([255, 255, 255, 0, 0, 0] + [0] * 762)
    with pytest.warns(UserWarning, match="shows the value 0 as gray 255, 1 as gray 0"):
        assert (open_one(tmp_path, palette) == MASK).all()
    inverted = Image.fromarray(MASK * 255).convert("1")
    write(tmp_path / "images" / "a.png", np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "masks" / "a.png").unlink()
    write(tmp_path / "masks" / "a.tif", inverted, tiffinfo={262: 0})
    with pytest.warns(UserWarning, match="WhiteIsZero"):
        assert (read(tmp_path)[0][1].numpy() == MASK).all()


@pytest.mark.parametrize("names", [("a_1.png", "a_2.png", "a1_1.png"), ("a/x.png", "a/y.png", "a1/x.png")])
def test_a_file_for_each_object(tmp_path, names):
    for image in ("a", "a1"):
        write(tmp_path / "images" / f"{image}.png", np.zeros((4, 6, 3), np.uint8))
    second = np.zeros_like(MASK)
    second[0, :2] = 1
    for name, mask in zip(names, (MASK, second, MASK), strict=True):
        write(tmp_path / "masks" / name, mask * 255)
    data = read(tmp_path, object_masks=True)
    assert [len(objects) for objects in all_instances(data)] == [2, 1]
    assert (data.instances(0).masks == [MASK, second]).all() and (data[0][1].numpy() == MASK | second).all()
    with pytest.raises(ValueError, match="object_masks=True"):
        read(tmp_path)


def test_a_folder_for_each_photograph_and_the_masks_of_its_objects(tmp_path):
    write(tmp_path / "a/images/a.png", np.zeros((4, 6, 3), np.uint8))
    write(tmp_path / "a/masks/1.png", MASK * 255)
    write(tmp_path / "a/masks/2.png", MASK[::-1] * 255)
    data = MaskFolderDataset(tmp_path, tmp_path, object_masks=True)
    assert data.classes == ["background", "object"] and (data.instances(0).masks == [MASK, MASK[::-1]]).all()


def test_names_and_colors_are_read_from_a_csv(tmp_path):
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\ncup,0,128,0\nedge,255,255,255\n")
    mask = open_one(tmp_path, color_mask(), classes=None, colors=tmp_path / "class_dict.csv")
    assert (mask == np.where(mask == 2, 2, MASK)).all() and mask[0, 0] == 2


def test_ids_are_read_as_bitmaps_of_each_id_would_be(tmp_path):
    ids = np.random.default_rng(0).integers(0, 9, (40, 30)).astype(np.uint16) * 100
    write(tmp_path / "images" / "a.png", np.zeros((40, 30, 3), np.uint8))
    write(tmp_path / "masks" / "a.png", ids)
    expected = Instances.of([ids == number for number in range(100, 900, 100)])
    assert read(tmp_path, instance_ids=True).instances(0).rles == expected.rles


CONVENTIONS = {  # number of samples, and the values of their class masks
    "dsb2018": (441, [0, 1]),
    "camvid": (367, [*range(11), 255]),
    "inria_tiles": (25, [0, 1]),
    "oxford_pets": (18, [0, 1, 2, 255]),
    "pennfudan": (20, [0, 1]),
    "isbi2012_em": (30, [0, 1]),
}


@pytest.mark.skipif(not REAL.is_dir(), reason="no real data beside the repository")
@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_calls_that_appendix_a2_shows_read_six_published_data_sets(monkeypatch, name):
    text = "\n".join(cell.source for cell in cells(ROOT / "notebooks/a2_your_own_photographs.ipynb", "markdown"))
    call = re.search(rf"^\| `{name}`.*`(MaskFolderDataset\(.*\))` \|$", text, re.MULTILINE)[1]
    monkeypatch.chdir(REAL / name)
    data = eval(call, {"MaskFolderDataset": MaskFolderDataset})
    count, values = CONVENTIONS[name]
    some = range(0, count, max(1, count // 30))
    assert len(data) == count and sorted({int(v) for i in some for v in data[i][1].unique()}) == values
