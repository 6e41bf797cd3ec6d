"""Prediction: sizes, kinds of images, tiles, flips, batches, precision, saved files, the command line."""

import os
import resource

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from seglib.files import read_image
from seglib.instances import Instances
from seglib.masks import read_index_png
from seglib.models import UNet, build_model, logits_to_mask
from seglib.plots import color_mask, overlay
from seglib.predict import main, predict, predict_instances, predict_logits, save_predictions
from seglib.transforms import resize
from tests.helpers.children import exit_codes

CLASSES = ["background", "bright"]


class Brightness(nn.Module):
    """Predicts class 1 where a pixel is brighter than 100, and records the shapes that it is called with."""

    stride = 8

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        return images.float().mean(dim=1, keepdim=True) - 100


class Column(nn.Module):
    """Returns the column of each pixel as its logit, whatever the image shows."""

    def forward(self, images):
        return torch.arange(float(images.shape[3])).expand(len(images), 1, *images.shape[2:])


def half_bright(height=30, width=50):
    """An image that is black on the left and bright on the right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 200
    return image


def smooth_image(height, width):
    """Blobs of color, in which neighboring pixels are similar as in a photograph."""
    small = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def small_unet(**settings):
    """A U-Net of two levels whose batch norm has the statistics of an image, so that logits differ between pixels."""
    torch.manual_seed(0)
    model = UNet(base_channels=4, depth=2, **settings).train()
    for _ in range(3):
        model(torch.from_numpy(smooth_image(96, 96)).permute(2, 0, 1)[None].repeat(2, 1, 1, 1))
    return model.eval()


def save_photo(path, image=None):
    """Write an image, `half_bright` unless another is given, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(half_bright() if image is None else image).save(path)
    return path


# ------------------------------------------------------------------------------------------------ sizes and kinds


def test_the_mask_has_the_size_of_the_image_whatever_size_the_model_gets():
    model = Brightness()
    for size in (None, (16, 16), (64, 80)):
        mask = predict(model, half_bright(), size)
        assert mask.dtype == np.uint8
        assert mask.shape == (30, 50)
        assert mask[:, :23].max() < mask[:, 27:].min()
    assert model.shapes == [(1, 3, 30, 50), (1, 3, 16, 16), (1, 3, 64, 80)]


def test_the_size_is_that_of_the_checkpoint_unless_tiles_are_wanted():
    model = Brightness()
    model.image_size = (8, 24)
    predict(model, half_bright())
    predict(model, half_bright(), tile=64)
    predict(model, half_bright(), size=(40, 40), tile=64)
    assert model.shapes == [(1, 3, 8, 24), (1, 3, 30, 50), (1, 3, 40, 40)]


def test_logits_are_resized_with_aligned_pixel_centers():
    logits = predict_logits(Column(), half_bright(1, 6), size=(1, 3))[0, 0, 0]  # 0, 1, 2 over six pixels
    assert logits.tolist() == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2])


def test_images_of_any_size_are_predicted():
    model = UNet(base_channels=2, depth=2)
    for size in ((1, 1), (7, 300), (101, 133)):
        for options in ({}, {"size": (32, 48)}, {"tile": 64}):
            assert predict(model, np.zeros((*size, 3), np.uint8), **options).shape == size


def test_arrays_and_tensors_of_every_common_kind_are_predicted_alike():
    rgb = half_bright()
    expected = predict(Brightness(), rgb)
    tensor = torch.from_numpy(rgb.transpose(2, 0, 1).copy())
    for image in (rgb[..., 0], np.dstack([rgb, rgb[..., 0]]), rgb.astype(np.uint16) * 257, tensor):
        assert (predict(Brightness(), image) == expected).all()


def test_a_photograph_is_predicted_as_a_viewer_shows_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left, shown turned back to the right
    turned = Image.fromarray(half_bright()).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    mask = predict(Brightness(), tmp_path / "turned.jpg")
    assert mask.shape == (30, 50)
    assert mask[:, :22].max() < mask[:, 28:].min()


# ------------------------------------------------------------------------------------------------ tiles


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 80))
@settings(max_examples=30, deadline=None)
def test_tiles_of_any_size_give_the_result_of_the_whole_image(height, width, tile):
    image = smooth_image(height, width)
    logits = predict_logits(Brightness(), image, tile=tile)
    assert torch.allclose(logits, predict_logits(Brightness(), image, size=(height, width)), atol=1e-3)


@pytest.mark.parametrize("bilinear", [True, False])
def test_tiles_give_the_result_of_the_whole_image_for_a_small_receptive_field(bilinear):
    """A U-Net of two levels sees 26 pixels far, less than the 32 that are not used at the edge of a tile."""
    model = small_unet(classes=3, bilinear=bilinear)
    image = smooth_image(360, 410)
    whole = predict_logits(model, image)
    assert whole.std() > 0.05
    for tile in (256, 300):
        assert (whole - predict_logits(model, image, tile=tile)).abs().max() < 1e-4 * whole.std()


def test_tiles_overlap_by_128_pixels_or_half_a_tile():
    for tile, width, count in ((128, 512, 7), (512, 1280, 3)):
        model = Brightness()
        predict(model, half_bright(16, width), tile=tile)
        assert sum(shape[0] for shape in model.shapes) == count


def test_an_image_with_a_side_above_2048_is_always_predicted_in_tiles():
    model = Brightness()
    mask = predict(model, half_bright(16, 2500))
    assert sorted(model.shapes) == [(1, 3, 16, 1020), (2, 3, 16, 1024)]
    assert mask[:, :1250].max() < mask[:, 1250:].min()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 256}, r"size must be \(height, width\), not 256"),
        ({"flips": "x"}, "flips must be one of"),
        ({"precision": "fp8"}, "precision must be one of None, fp16, bf16, not 'fp8'"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        predict(Brightness(), half_bright(), **options)


# ------------------------------------------------------------------------------------------------ flips, batches


def test_flips_average_the_logits_over_mirror_images():
    model = small_unet(classes=2)
    image = smooth_image(64, 64)
    axes = {"h": [(), (1,)], "v": [(), (0,)], "hv": [(), (1,), (0,), (0, 1)]}
    for flips, views in axes.items():
        logits = [predict_logits(model, np.flip(image, view).copy())[0].permute(1, 2, 0).flip(view) for view in views]
        expected = torch.stack(logits).mean(dim=0).permute(2, 0, 1)
        assert torch.allclose(predict_logits(model, image, flips=flips)[0], expected, atol=1e-5)


class Linear(nn.Module):
    """Each logit of a pixel is a weighted sum of its colors."""

    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 1)

    def forward(self, images):
        return self.layer(images.float() / 255)


@pytest.mark.parametrize("options", [{"tile": 256}, {"size": (300, 200)}])
def test_the_mask_is_that_of_the_logits(options):
    torch.manual_seed(0)
    model = Linear(classes=5)
    image = np.random.default_rng(0).integers(0, 255, (700, 900, 3), dtype=np.uint8)
    logits = predict_logits(model, image, **options)
    assert (predict(model, image, **options) == logits_to_mask(logits)[0].numpy()).all()
    if "size" in options:
        small = torch.from_numpy(resize(300, 200)(image=image)["image"]).permute(2, 0, 1)[None]
        expected = F.interpolate(model(small), size=(700, 900), mode="bilinear", align_corners=False)
        torch.testing.assert_close(logits, expected)


def test_the_memory_of_a_mask_does_not_grow_with_the_logits_of_the_whole_image():
    """In the tiles' logits of 21 classes, 84 bytes a pixel, only a batch is kept."""
    side = 3000
    model = Linear(classes=21)
    image = np.zeros((side, side, 3), dtype=np.uint8)

    def measure():
        predict(model, image[:300, :300], tile=256, batch_size=1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        predict(model, image, tile=256, batch_size=1)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        os._exit(0 if grown < 10 * side**2 else 1)

    assert exit_codes(measure) == [0]


def test_tiles_of_one_size_form_batches():
    model = Brightness()
    predict(model, half_bright(16, 600), tile=128, batch_size=4)
    assert model.shapes == [(4, 3, 16, 128), (4, 3, 16, 128), (1, 3, 16, 128)]


# ------------------------------------------------------------------------------------------------ precision, objects


def test_mixed_precision_changes_few_pixels():
    model = small_unet(classes=3)
    dtypes = []
    model.head.register_forward_hook(lambda _m, _i, out: dtypes.append(out.dtype))
    image = smooth_image(128, 128)
    expected = predict_logits(model, image)
    logits = predict_logits(model, image, precision="bf16")
    assert logits.dtype == torch.float32
    assert (logits.argmax(dim=1) == expected.argmax(dim=1)).float().mean() > 0.95
    assert dtypes == [torch.float32, torch.bfloat16]


def test_objects_are_found_at_the_size_of_the_image(tmp_path):
    torch.manual_seed(0)
    model = build_model("maskrcnn", classes=2, encoder="resnet18", image_size=64, proposals=16)
    image = smooth_image(40, 60)
    for precision in (None, "bf16"):
        objects = predict_instances(model, image, score=0, precision=precision)
        assert isinstance(objects, Instances)
        assert objects.size == (40, 60)
    assert len(predict_instances(model, image, score=1)) == 0
    saved = save_predictions(model, save_photo(tmp_path / "photo.png", image), tmp_path, ["background", "thing"])
    expected = predict_instances(model, image).semantic()
    assert (read_index_png(saved.masks[0]) == expected).all()


def test_a_model_of_the_other_kind_is_refused():
    model = build_model("maskrcnn", classes=2, encoder="resnet18", image_size=64)
    with pytest.raises(TypeError, match=r"use predict_instances\(model, image\)"):
        predict(model, half_bright())
    with pytest.raises(TypeError, match=r"use predict\(model, image\)"):
        predict_instances(Brightness(), half_bright())
    with pytest.raises(ValueError, match="score must be from 0 to 1, not 50"):
        predict_instances(model, half_bright(), score=50)


# ------------------------------------------------------------------------------------------------ saved files


def test_masks_colors_and_overlays_have_the_names_and_sizes_of_the_photographs(tmp_path):
    photos = tmp_path / "photos"
    (photos / "folder").mkdir(parents=True)
    save_photo(photos / "one.jpg")
    save_photo(photos / "two.png", half_bright(20, 60)[..., 0])
    (photos / "incomplete.jpg").write_bytes((photos / "one.jpg").read_bytes()[:400])
    (photos / "empty.png").write_bytes(b"")
    (photos / "notes.txt").write_text("not an image")
    (photos / ".hidden").write_text("a file of the system")
    saved = save_predictions(Brightness(), [photos, photos / "one.jpg"], tmp_path / "out", classes=CLASSES)
    assert [path.name for path in saved.masks] == ["one.png", "two.png"]
    assert [path.name for path in saved.overlays] == ["one.jpg", "two.jpg"]
    assert sorted(saved.skipped) == [str(photos / name) for name in ("empty.png", "incomplete.jpg", "notes.txt")]
    assert all(name in reason for name, reason in saved.skipped.items())
    mask = read_index_png(saved.masks[1])
    assert mask.shape == (20, 60)
    assert (read_image(saved.colors[1]) == color_mask(mask)).all()
    difference = read_image(saved.overlays[1]).astype(int) - overlay(read_image(photos / "two.png"), mask)
    assert np.abs(difference).mean() < 8  # a JPEG
    lines = (tmp_path / "out" / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["class, color as RRGGBB, name", "0 000000 background", "1 e63946 bright"]


def test_photographs_that_share_a_name_are_refused_and_other_files_are_not(tmp_path):
    for folder in ("one", "two"):
        save_photo(tmp_path / folder / "a.png")
        (tmp_path / folder / "Thumbs.db").write_text("a file of the system")
    folders = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(ValueError, match=r"photographs with the same name .*a\.png.*a\.png. Rename one of them"):
        save_predictions(Brightness(), folders, tmp_path / "out", classes=CLASSES)
    (tmp_path / "two" / "a.png").rename(tmp_path / "two" / "b.png")
    saved = save_predictions(Brightness(), folders, tmp_path / "out", classes=CLASSES)
    assert [path.name for path in saved.masks] == ["a.png", "b.png"]
    assert len(saved.skipped) == 2


def test_a_photograph_is_never_overwritten(tmp_path):
    photo = save_photo(tmp_path / "masks" / "a.png")
    before = photo.read_bytes()
    with pytest.raises(ValueError, match="could overwrite the photographs in .*: choose another output folder"):
        save_predictions(Brightness(), photo, tmp_path, classes=CLASSES)
    assert photo.read_bytes() == before


def test_missing_photographs_and_class_names_are_named(tmp_path):
    photo = save_photo(tmp_path / "a.png")
    out_dir = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        save_predictions(Brightness(), tmp_path / "none", out_dir, CLASSES)
    with pytest.raises(ValueError, match="no photographs in .*empty"):
        save_predictions(Brightness(), tmp_path / "empty", out_dir, CLASSES)
    with pytest.raises(ValueError, match="no class names"):
        save_predictions(Brightness(), photo, out_dir)
    with pytest.raises(ValueError, match="predicts 2 classes, but 3 are named"):
        save_predictions(UNet(base_channels=1, depth=1), photo, out_dir, ["a", "b", "c"])
    assert not out_dir.exists()


# ------------------------------------------------------------------------------------------------ command line


@pytest.fixture
def checkpoint(tmp_path):
    """The checkpoint of a U-Net that predicts class 1 everywhere."""
    model = UNet(classes=2, base_channels=1, depth=1)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias[:] = torch.tensor([0.0, 1.0])
    content = {"model": model.state_dict(), "settings": model.settings, "classes": CLASSES, "image_size": (32, 32)}
    torch.save(content, tmp_path / "best_model.pth")
    return tmp_path / "best_model.pth"


def test_the_command_predicts_photographs_and_reports_what_it_skips(tmp_path, checkpoint, capsys):
    save_photo(tmp_path / "photos" / "one.jpg", half_bright(48, 64))
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    save_photo(tmp_path / "two.png", half_bright(64, 32))
    options = ["--size", "40", "60", "--tile", "16", "--flips", "hv", "--batch-size", "2", "--precision", "bf16"]
    photos = [str(tmp_path / "photos"), str(tmp_path / "two.png")]
    assert main([str(checkpoint), *photos, "--out", str(tmp_path / "out"), *options]) == 0
    output = capsys.readouterr()
    assert f"2 photographs predicted, 1 files skipped: see {tmp_path / 'out'}" in output.out
    assert f"skipped: {tmp_path / 'photos' / 'notes.txt'} is not an image" in output.err
    for name, shape in (("one", (48, 64)), ("two", (64, 32))):
        mask = read_index_png(tmp_path / "out" / "masks" / f"{name}.png")
        assert mask.shape == shape
        assert (mask == 1).all()


def test_stacks_and_deep_images_are_predicted_as_the_options_say(tmp_path, checkpoint):
    pages = [Image.fromarray(np.full((32, 48), value, np.uint16)) for value in (0, 4000)]
    (tmp_path / "photos").mkdir()
    pages[0].save(tmp_path / "photos" / "a.tif", save_all=True, append_images=pages[1:])
    command = [str(checkpoint), str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    assert main(command) == 1  # which page?
    assert main([*command, "--page", "2", "--white", "4000"]) == 0
    overlay = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.jpg"))
    assert overlay.shape == (32, 48, 3) and overlay.min() > 90  # class 1 over white


def test_the_command_reports_errors_without_a_traceback(tmp_path, checkpoint, capsys):
    photo = str(save_photo(tmp_path / "one.png"))
    (tmp_path / "notes.txt").write_text("not an image")
    out = ["--out", str(tmp_path / "out")]
    assert main([str(checkpoint), str(tmp_path / "notes.txt"), *out]) == 1
    assert capsys.readouterr().out == f"0 photographs predicted, 1 files skipped: see {tmp_path / 'out'}\n"
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "none.pth"), photo, *out])
    assert "no checkpoint" in capsys.readouterr().err
