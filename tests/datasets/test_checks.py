"""Which layout a folder has, and what is wrong with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglib.datasets import check
from seglib.datasets.__main__ import main
from seglib.datasets.layouts import find_parts
from tests.conftest import REAL

rng = np.random.default_rng(0)


def write(path: Path, pixels: np.ndarray, **settings) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)


def photo(size=(60, 80)) -> np.ndarray:
    """A picture of soft blobs, unlike any other."""
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


def mask(value=1, size=(60, 80)) -> np.ndarray:
    pixels = np.zeros(size, np.uint8)
    pixels[10:30, 20:50] = value
    return pixels


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two parts with four photographs and masks of two classes each."""
    for part in ("train", "val"):
        for name in "abcd":
            write(tmp_path / part / "images" / f"{name}.png", photo())
            write(tmp_path / part / "masks" / f"{name}.png", mask(1 + (name > "b")))
    return tmp_path


def kinds(report, severity):
    return sorted({finding.kind for finding in report.findings if finding.severity == severity})


def test_a_sound_folder_has_only_notes(folder, capsys):
    report = check(folder)
    assert report.ok and report.images == {"train": 4, "val": 4} and not kinds(report, "warning")
    assert report.balance["train"]["class 2"] == (600 / 4800 / 2, 2)
    assert report.parts[0].open(classes=["background", "cup", "hat"]).classes == ["background", "cup", "hat"]
    assert "MaskFolderDataset(" in str(report) and "mask_suffix" not in str(report)
    assert main(["check", str(folder), "--classes", "background", "cup", "hat"]) == 0
    out = capsys.readouterr().out
    assert "classes=['background', 'cup', 'hat']" in out and "Nothing to mend" in out


FAULTS = {
    "a mask of another size": (
        lambda f: write(f / "train/masks/a.png", mask(size=(30, 40))),
        "A sample cannot be read",
    ),
    "a damaged photograph": (lambda f: (f / "val/images/a.png").write_bytes(b"no"), "A sample cannot be read"),
    "a value out of range": (lambda f: write(f / "train/masks/a.png", mask(9)), "A sample cannot be read"),
    "a missing mask": (lambda f: (f / "val/masks/a.png").unlink(), "An entry or a file cannot be used"),
    "a missing photograph": (lambda f: (f / "val/images/a.png").unlink(), "An entry or a file cannot be used"),
    "a JPEG mask": (
        lambda f: [write(f / "train/masks/a.jpg", mask(2), quality=50), (f / "train/masks/a.png").unlink()],
        "A sample cannot be read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_stop_a_training_is_an_error_with_its_file(folder, fault):
    spoil, kind = FAULTS[fault]
    spoil(folder)
    report = check(folder, classes=["background", "cup", "hat"])
    assert not report.ok and kinds(report, "error") == [kind]
    (finding,) = [finding for finding in report.findings if finding.severity == "error"]
    assert "a." in finding.where and finding.what and finding.remedy
    assert main(["check", str(folder), "--classes", "background", "cup", "hat"]) == 1


def test_equal_and_nearly_equal_images_are_found_within_and_across_parts(folder):
    shutil.copy(folder / "train/images/a.png", folder / "train/images/b.png")
    again = np.asarray(Image.open(folder / "train/images/c.png")).astype(int) + 3
    write(folder / "val/images/c.jpg", again.clip(0, 255).astype(np.uint8), quality=80)
    (folder / "val/images/c.png").unlink()
    found = {finding.kind: (finding.severity, finding.where, finding.what) for finding in check(folder).findings}
    assert found["Equal images"] == ("note", "train: b.png", "as train: a.png")
    assert found["Nearly equal images in two parts"] == ("warning", "val: c.jpg", "as train: c.png")


def test_masks_that_were_interpolated_have_a_class_only_at_edges(folder):
    for path in (folder / "train/masks").iterdir():
        small = Image.fromarray(mask(2))
        small.resize((40, 30), Image.Resampling.NEAREST).resize((80, 60), Image.Resampling.BILINEAR).save(path)
    found = [finding for finding in check(folder).findings if finding.kind == "A class only at edges"]
    assert [(finding.where, finding.what[:8]) for finding in found] == [("train", "class 1:")]


def test_masks_that_show_nothing_and_rare_classes_are_reported(folder):
    for path in (folder / "train/masks").iterdir():
        write(path, mask(0))
    report = check(folder, classes=["background", "cup", "hat", "bowl"])
    assert kinds(report, "error") == ["No image shows an object"] and "A class on no image" in kinds(report, "warning")


def test_a_folder_without_a_layout_is_said(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "loop").symlink_to(tmp_path)
    report = check(tmp_path)
    assert not report.ok and not report.parts and kinds(report, "error") == ["No known layout"]
    assert main(["check", str(tmp_path)]) == 2
    for path in (tmp_path / "none", tmp_path / "notes.txt"):
        assert main(["check", str(path)]) == 2
    assert "no folder" in capsys.readouterr().err


def test_a_file_that_nearly_fits_a_layout_is_named(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [cup]\nnc: 2\ntrain: images")
    (tmp_path / "panoptic.json").write_text('{"annotations": [{"segments_info": []}]}')
    entry = {"id": 1, "file_name": None, "height": 4, "width": 4}
    (tmp_path / "none.json").write_text(json.dumps({"images": [entry], "annotations": [], "categories": []}))
    text = str(check(tmp_path))
    assert "none.json: no folder of its images was found, such as ['None']" in text
    assert "says nc: 2, but names 1 classes" in text and "panoptic.json is not a file of COCO's instances" in text


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        ([0, 255], {"values": [0, 255]}),
        (range(256), {"threshold": 127.5}),
        ([0, 1, 3, 255], {"classes": ["background", "class 1", "class 2", "class 3"]}),
        ([0, 1000], {"instance_ids": True}),
        ([0, 85, 170, 255], {"values": [0, 85, 170, 255]}),
    ],
)
def test_how_masks_are_read_is_guessed_from_their_values(tmp_path, values, settings):
    pixels = np.zeros((64, 256), np.uint16 if max(values) > 255 else np.uint8)
    pixels[:32] = max(values)
    pixels[31, : len(values)] = list(values)
    for name in "ab":
        write(tmp_path / "image" / f"{name}.jpg", photo(pixels.shape))
        write(tmp_path / "label" / f"{name}.png", pixels)
    (part,) = find_parts(tmp_path)
    assert settings.items() <= part.settings.items()
    assert part.open()[0][1].max() in (1, 3, 255)


@pytest.mark.parametrize(
    ("images", "masks", "settings"),
    [
        (["images/{}.jpg"], ["masks/{}_1.png", "masks/{}_2.png"], {"object_masks": True}),
        (["images/{}.jpg"], ["masks/{}/1.png", "masks/{}/2.png"], {"object_masks": True}),
        (["{}/images/{}.jpg"], ["{}/masks/1.png", "{}/masks/2.png"], {"object_masks": True}),
        (["{}/images/{}.jpg"], ["{}/masks/{}.png"], {"values": [0, 255]}),
        (["{}.jpg"], ["{}.png"], {"image_suffix": ".jpg", "mask_suffix": ".png"}),
        (["images/image_{}.jpg"], ["labels/mask_{}.png"], {"image_suffix": "image_*", "mask_suffix": "mask_*"}),
        (
            ["leftImg8bit/{}/{}_7_leftImg8bit.png"],
            ["gtFine/{}/{}_7_gtFine_color.png", "gtFine/{}/{}_7_gtFine_labelIds.png"],
            {"image_suffix": "_7_leftImg8bit", "mask_suffix": "_7_gtFine_labelIds"},
        ),
    ],
)
def test_how_images_and_masks_are_paired_is_guessed_from_their_names(tmp_path, images, masks, settings):
    for name in ("ulm_1", "ulm_2", "bonn_3"):
        for paths, pixels in ((images, photo()), (masks, mask(255))):
            for path in paths:
                write(tmp_path / path.replace("{}", name), pixels)
    report = check(tmp_path)
    assert settings.items() <= report.parts[0].settings.items()
    assert report.ok and list(report.images.values()) == [3] and not kinds(report, "warning")


def test_a_split_within_the_folders_is_a_part_each(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for part in ("train", "val"):
        shutil.copytree(folder / part / "images", other / "images" / part)
        shutil.copytree(folder / part / "masks", other / "masks" / part)
    shutil.copy(other / "images/train/a.png", other / "images/val/a.png")
    report = check(other)
    assert report.images == {"train": 4, "val": 4} and "Equal images in two parts" in kinds(report, "warning")


def test_a_list_of_voc_that_repeats_the_others_is_no_part(tmp_path):
    for name in "ab":
        write(tmp_path / "JPEGImages" / f"{name}.jpg", photo())
        write(tmp_path / "SegmentationClass" / f"{name}.png", mask())
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    for part, names in (("train", "a\n"), ("val", "b\n"), ("trainval", "a\nb\n")):
        (tmp_path / "ImageSets/Segmentation" / f"{part}.txt").write_text(names)
    report = check(tmp_path)
    assert report.images == {"train": 1, "val": 1} and "Equal images in two parts" not in kinds(report, "warning")


def test_polygons_outside_and_problems_of_coco_are_reported(tiny):
    tiny.content["annotations"][0]["segmentation"] = [[-5, 0, 4, 0, 4, 4, -5, 4]]
    tiny.content["annotations"][1]["image_id"] = 99
    tiny.file.write_text(json.dumps(tiny.content))
    report = check(tiny.file.parent)
    assert report.parts[0].layout == "COCO" and kinds(report, "error") == ["An entry or a file cannot be used"]
    assert "Polygons reach outside of the image" in kinds(report, "warning")


LAYOUTS = {
    "buildings_yolo": ("YOLO", {"train": 700, "val": 140}),
    "camvid": ("masks", {"train": 367, "val": 101}),
    "coco": ("COCO", {"train": 298, "val": 33}),
    "dsb2018": ("masks", {"all": 441}),
    "inria_tiles": ("masks", {"train_data": 25, "val_data": 9}),
    "isbi2012_em": ("masks", {"all": 30}),
    "oxford_pets": ("masks", {"all": 18}),
    "pennfudan": ("masks", {"all": 20}),
    "voc2012": ("VOC", {"train": 72, "val": 32}),
}


@pytest.mark.skipif(not REAL.is_dir(), reason="no real data beside the repository")
@pytest.mark.parametrize("name", LAYOUTS)
def test_real_folders_are_recognized(name):
    layout, images = LAYOUTS[name]
    parts = find_parts(REAL / name)
    assert {part.layout for part in parts} == {layout}
    assert {part.name: len(part.open(on_error="list")) for part in parts} == images
    if len(images) == 1 and name != "dsb2018":  # the small ones
        assert check(REAL / name).ok
