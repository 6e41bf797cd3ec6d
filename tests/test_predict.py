"""From a checkpoint and photographs to masks at the photographs' own size."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from seglib.files import read_image
from seglib.losses import CEDiceLoss
from seglib.masks import read_index_png
from seglib.models import UNet, build_model
from seglib.plots import colour_mask, overlay
from seglib.predict import How, _all_logits, main, predict, predict_logits, save_predictions, spans, window
from seglib.train import TrainConfig, fit
from tests.conftest import ROOT

CLASSES = ["background", "bright"]


class Brighter(nn.Module):
    """Says class 1 where a pixel is brighter than 100: a model whose answer is known."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        return images.float().mean(dim=1, keepdim=True) * self.weight - 100


class LeftHalf(nn.Module):
    """Says how far a pixel lies from the left, whatever the picture shows: mirrored, it is wrong."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        across = torch.arange(images.shape[3]) * self.weight
        return across.expand(len(images), 1, *images.shape[2:])


def photo(height=30, width=50):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 200
    return image


def random_photo(height, width):
    """Smooth blobs of colour: neighbouring pixels are alike, as in a photograph."""
    small = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def trained_a_little(model):
    """Give batch norm statistics that are not those of an untrained net, and logits that differ from pixel to pixel."""
    torch.manual_seed(0)
    for _ in range(3):
        model.train()(torch.from_numpy(random_photo(96, 96)).permute(2, 0, 1)[None].repeat(2, 1, 1, 1))
    return model.eval()


# ------------------------------------------------------------------------------------------------ sizes and kinds


def test_the_mask_has_the_photographs_own_size_whatever_the_model_saw():
    model = Brighter()
    for size in (None, (16, 16), (64, 80)):
        mask = predict(model, photo(), size)
        assert mask.shape == (30, 50) and mask.dtype == np.uint8
        assert (mask[:, :23] == 0).all() and (mask[:, 27:] == 1).all()
    assert model.seen == [(1, 3, 30, 50), (1, 3, 16, 16), (1, 3, 64, 80)]


def test_the_size_comes_from_the_checkpoint_unless_tiles_are_asked_for():
    model = Brighter()
    model.image_size = (8, 24)
    predict(model, photo())
    predict(model, photo(), tile=64)
    predict(model, photo(), size=(40, 40), tile=64)
    assert model.seen == [(1, 3, 8, 24), (1, 3, 30, 50), (1, 3, 40, 40)]


def test_logits_are_resized_before_they_are_decided():
    """Between a sure yes and a faint no, the border lies nearer to the no than a resized decision would put it."""
    model = Brighter()
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = 90, 255
    logits = predict_logits(model, np.repeat(np.repeat(image, 8, 0), 8, 1), (1, 2))[0, 0, 0]
    assert (logits > 0).sum() > 8


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 300), (101, 133), (1000, 1500)])
@pytest.mark.parametrize("how", [{}, {"size": (32, 48)}, {"tile": 64}, {"flips": "hv", "size": (16, 16)}])
def test_a_photograph_of_any_size_goes_through(size, how):
    assert predict(UNet(base_channels=2, depth=2), np.zeros((*size, 3), np.uint8), **how).shape == size


@pytest.mark.parametrize("name", ["segnet", "deeplabv3"])
def test_a_pixel_and_a_large_photograph_go_through_the_lessons_models(name):
    model = build_model(name, classes=3)
    model.image_size = (64, 64)
    for size in ((1, 1), (1000, 1500)):
        assert predict(model, np.zeros((*size, 3), np.uint8)).shape == size
    assert predict(model, np.zeros((1, 1, 3), np.uint8), size=(1, 1)).shape == (1, 1)


def test_arrays_of_every_common_kind_are_taken():
    rgb = photo()
    kinds = [rgb, rgb[..., 0], rgb[..., :1], np.dstack([rgb, rgb[..., 0]]), rgb.astype(np.uint16) * 257]
    for array in kinds:
        assert (predict(Brighter(), array) == predict(Brighter(), rgb)).all()


def test_what_is_no_image_is_refused():
    for wrong in (np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(ValueError, match="an image is uint8"):
            predict(Brighter(), wrong)
    with pytest.raises(ValueError, match="1, 3 or 4 channels, last"):
        predict(Brighter(), np.zeros((3, 4, 5), np.uint8))


def png16(path, image):
    """A PNG of sixteen bits a channel, which Pillow reads but does not write."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in image)
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def every_kind(folder):
    """The same picture, dark on the left and bright on the right, in every kind of file that holds it."""
    picture = Image.fromarray(photo())
    for mode in ("RGB", "L", "P", "RGBA", "LA"):
        picture.convert(mode).save(folder / f"{mode.lower()}.png")
    picture.convert("1", dither=Image.Dither.NONE).save(folder / "black_and_white.png")
    picture.convert("P").save(folder / "transparent.png", transparency=0)
    picture.save(folder / "animated.gif", save_all=True, append_images=[picture])
    for suffix in ("jpg", "bmp", "tif", "webp"):
        picture.save(folder / f"as_{suffix}.{suffix}")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("L").save(folder / "grey.jpg")
    picture.save(folder / "progressive.JPEG", progressive=True)
    Image.fromarray(photo()[..., 0].astype(np.uint16) * 257).save(folder / "grey16.png")
    Image.fromarray(photo()[..., 0].astype(np.uint16) * 257).save(folder / "grey16_as_tif.tif")
    png16(folder / "rgb16.png", photo())
    for orientation, turn in {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation  # "turn me back by so much": what is stored is the picture turned the other way
        picture.transpose(turn).save(folder / f"turned{orientation}.jpg", exif=exif, quality=95)


def test_every_kind_of_photograph_comes_out_the_same_at_its_own_size(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    every_kind(photos)
    saved = save_predictions(Brighter(), photos, tmp_path / "out", CLASSES)
    assert not saved.skipped and len(saved.masks) == 20
    for path in saved.masks:
        mask = read_index_png(path)
        assert mask.shape == (30, 50), path
        assert (mask[:, :22] == 0).all() and (mask[:, 28:] == 1).all(), path


# ------------------------------------------------------------------------------------------------ tiles


@given(st.integers(1, 3000), st.integers(2, 20), st.integers(0, 10), st.sampled_from([1, 8, 32]))
@settings(max_examples=300, deadline=None)
def test_tiles_cover_a_side_overlap_enough_and_keep_to_the_stride(length, tile, overlap, stride):
    tile, overlap = tile * stride, min(overlap, tile // 2) * stride
    found = spans(length, tile, overlap, stride)
    assert found[0][0] == 0 and found[-1][1] == length
    assert all(begin % stride == 0 and 0 < end - begin <= tile for begin, end in found)
    assert all(a_end - b_begin >= overlap for (_, a_end), (b_begin, _) in zip(found, found[1:], strict=False))
    total = torch.zeros(length)
    for begin, end in found:
        weight = window(begin, end, length, overlap)
        assert (weight >= 0).all() and (weight <= 1).all()
        total[begin:end] += weight
    assert (total > 0.99).all()  # one where two tiles meet, more where the last begins early


def test_a_window_leaves_out_a_tiles_edge_and_rises_smoothly():
    weight = window(64, 128, 500, 32)
    assert (weight[:8] == 0).all() and (weight[24:-24] == 1).all() and (weight[-8:] == 0).all()
    assert (weight[:32].diff() >= 0).all() and weight[:32].diff().max() < 0.1
    assert torch.allclose(weight[:32] + weight[:32].flip(0), torch.ones(32))
    assert window(0, 64, 64, 32).tolist() == [1] * 64


@pytest.mark.parametrize("tile", [256, 320, 500])
@pytest.mark.parametrize("bilinear", [True, False])
def test_tiles_change_nothing_where_a_models_view_is_narrow(tile, bilinear):
    """Two levels of U-Net see 26 pixels far, less than the 32 that a tile's edge leaves out."""
    model = trained_a_little(UNet(classes=3, base_channels=4, depth=2, bilinear=bilinear))
    image = random_photo(600, 710)
    whole, tiled = predict_logits(model, image), predict_logits(model, image, tile=tile)
    assert whole.std() > 0.05
    assert (whole - tiled).abs().max() < 1e-5 * whole.std()


def test_tiles_change_little_where_a_model_sees_far(tmp_path):
    """A U-Net of four levels sees 119 pixels far. Trained, with the usual overlap, it says nearly the same."""
    image = torch.from_numpy(random_photo(160, 160)).permute(2, 0, 1)
    images = torch.stack([image[:, y : y + 64, x : x + 64] for y in range(0, 97, 32) for x in range(0, 97, 32)])
    brightness = images.float().mean(dim=1, keepdim=True)
    around = nn.functional.avg_pool2d(brightness, 31, stride=1, padding=15, count_include_pad=False)
    data = TensorDataset(images, (brightness > around)[:, 0].to(torch.uint8))  # brighter than its neighbourhood
    config = TrainConfig(epochs=8, batch_size=4, lr=3e-3, trackers=(), previews=0)
    run = fit(UNet(classes=2, base_channels=8), data, data, CEDiceLoss(), config, tmp_path)
    assert run.best["val_iou"] > 0.6
    photograph = random_photo(500, 610)
    whole = predict(run.model(), photograph, size=(500, 610))
    assert 0.2 < whole.mean() < 0.8
    for tile in (256, 352, 512):
        assert (predict(run.model(), photograph, tile=tile) == whole).mean() > 0.99


def test_tiles_overlap_by_128_and_by_half_where_they_are_smaller():
    for tile, width, count in ((256, 1024, 7), (128, 512, 7), (512, 1280, 3)):  # each begins 128, 64, 384 pixels on
        model = Brighter()
        predict(model, photo(64, width), tile=tile)
        assert sum(shape[0] for shape in model.seen) == count


def test_logits_go_back_to_the_photographs_size_by_the_middles_of_their_pixels():
    logits = predict_logits(LeftHalf(), photo(1, 6), size=(1, 3))[0, 0, 0]  # 0, 1, 2 spread over six pixels
    assert logits.tolist() == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2])


def test_large_pictures_go_through_alone_however_large_a_batch_may_be():
    model = Brighter()
    predict_all = list(_all_logits(model, [photo(1500, 2048)] * 2 + [photo(20, 20)] * 3, How(batch_size=8)))
    assert len(predict_all) == 5 and model.seen == [(1, 3, 1500, 2048)] * 2 + [(3, 3, 20, 20)]


def test_a_huge_photograph_is_cut_into_tiles_unasked():
    model = Brighter()
    mask = predict(model, photo(40, 2500))
    assert sorted(shape[3] for shape in model.seen) == [996, 1024]  # the last begins at a multiple of the stride, 1504
    assert (mask[:, :1250] == 0).all() and (mask[:, 1250:] == 1).all()


def test_what_makes_no_sense_is_refused():
    for wrong, said in (
        ({"tile": 0}, "at least 1"),
        ({"size": (0, 4)}, "at least 1"),
        ({"size": 256}, r"size is \(height, width\), not 256"),
        ({"batch_size": 0}, "at least 1"),
        ({"tile": 64, "overlap": 40}, r"0 to half their side \(32\), not 40"),
        ({"flips": "x"}, "there are h, v and hv"),
    ):
        with pytest.raises(ValueError, match=said):
            How(**wrong)


# ------------------------------------------------------------------------------------------------ flips and batches


def test_flips_are_the_mean_over_mirror_images():
    image = photo(4, 6)
    across = torch.arange(6.0)
    assert torch.equal(predict_logits(LeftHalf(), image)[0, 0, 0], across)
    assert torch.equal(predict_logits(LeftHalf(), image, flips="v")[0, 0, 0], across)
    for flips in ("h", "hv"):
        assert torch.equal(predict_logits(LeftHalf(), image, flips=flips)[0, 0, 0], torch.full((6,), 2.5))
    model = trained_a_little(UNet(classes=2, base_channels=4, depth=2))
    image = random_photo(64, 64)
    views = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    logits = [predict_logits(model, np.ascontiguousarray(view))[0] for view in views]
    expected = (logits[0] + logits[1].flip(2) + logits[2].flip(1) + logits[3].flip(1, 2)) / 4
    assert torch.allclose(predict_logits(model, image, flips="hv")[0], expected, atol=1e-5)


def test_photographs_of_one_size_go_through_together_and_come_out_as_alone(tmp_path):
    sizes = [(20, 30), (40, 30), (20, 30), (20, 30), (40, 30)]
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, size in enumerate(sizes):
        Image.fromarray(random_photo(*size)).save(photos / f"{number}.png")
    model = Brighter()
    saved = save_predictions(model, photos, tmp_path / "out", CLASSES, batch_size=4)
    assert model.seen == [(3, 3, 20, 30), (1, 3, 40, 30), (1, 3, 40, 30)]
    for number, path in enumerate(saved.masks):
        assert (read_index_png(path) == predict(Brighter(), photos / f"{number}.png")).all()
    model = Brighter()
    save_predictions(model, photos, tmp_path / "out", CLASSES, size=(8, 8), batch_size=4)
    assert model.seen == [(4, 3, 8, 8), (1, 3, 8, 8)]


# ------------------------------------------------------------------------------------------------ many files


def test_save_predictions_keeps_names_and_sizes_and_names_what_it_skips(tmp_path):
    photos = tmp_path / "photos"
    (photos / "folder").mkdir(parents=True)
    Image.fromarray(photo()).save(photos / "one.jpg")
    Image.fromarray(photo(20, 60)).convert("L").save(photos / "two.png")
    Image.fromarray(photo()).save(photos / "cut.jpg")
    (photos / "cut.jpg").write_bytes((photos / "cut.jpg").read_bytes()[:400])
    (photos / "three.jpg").write_text("no picture")
    (photos / "empty.png").write_bytes(b"")
    (photos / "notes.txt").write_text("not even called one")
    (photos / ".hidden").write_text("of the system")
    saved = save_predictions(Brighter(), photos, tmp_path / "out", classes=CLASSES)
    assert [path.name for path in saved.masks] == ["one.png", "two.png"]
    assert [path.name for path in saved.overlays] == ["one.jpg", "two.jpg"]
    assert sorted(saved.skipped) == [str(photos / n) for n in ("cut.jpg", "empty.png", "notes.txt", "three.jpg")]
    assert all(name in reason for name, reason in saved.skipped.items())
    mask, image = read_index_png(saved.masks[1]), read_image(photos / "two.png")
    assert mask.shape == (20, 60) and (read_image(saved.colours[1]) == colour_mask(mask)).all()
    laid = read_image(saved.overlays[1]).astype(int)
    assert laid.shape == (20, 60, 3) and np.abs(laid - overlay(image, mask)).mean() < 8  # JPEG
    one = save_predictions(Brighter(), photos / "one.jpg", tmp_path / "again", classes=CLASSES)
    assert len(one.masks) == 1
    assert (tmp_path / "out" / "classes.txt").read_text().splitlines()[1:] == ["0 000000 background", "1 e63946 bright"]
    both = save_predictions(Brighter(), [photos / "one.jpg", photos / "folder"], tmp_path / "both", classes=CLASSES)
    assert len(both.masks) == 1


def test_photographs_that_differ_in_kind_alone_keep_it_in_their_names(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "a.png", "b.c.png"):
        Image.fromarray(photo()).save(photos / name)
    (photos / "b.c.json").write_text("{}")  # no photograph, and so nothing that a name is shared with
    saved = save_predictions(Brighter(), [photos, photos / "a.jpg"], tmp_path / "out", classes=CLASSES)
    assert [path.name for path in saved.masks] == ["a.jpg.png", "a.png.png", "b.c.png"]
    assert [path.name for path in saved.overlays] == ["a.jpg.jpg", "a.png.jpg", "b.c.jpg"]
    Image.fromarray(photo()).save(photos / "a.png.bmp")
    with pytest.raises(ValueError, match=r"share a name, .*a\.png, .*a\.png\.bmp"):
        save_predictions(Brighter(), photos, tmp_path / "again", classes=CLASSES)
    assert not (tmp_path / "again").exists()


def test_one_damaged_file_stops_nobody(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(photo()).save(tmp_path / name, exif=b"Exif\0\0garbage" if name == "b.png" else b"")
    saved = save_predictions(Brighter(), tmp_path, tmp_path / "out", classes=CLASSES)
    assert [path.name for path in saved.masks] == ["a.png", "b.png"]


def test_save_predictions_refuses_what_would_overwrite_or_be_nameless(tmp_path):
    for folder in ("one", "two", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(photo()).save(tmp_path / folder / "a.png")
    before = (tmp_path / "masks" / "a.png").read_bytes()
    with pytest.raises(ValueError, match="share a name"):
        save_predictions(Brighter(), [tmp_path / "one", tmp_path / "two"], tmp_path / "out", classes=CLASSES)
    for folder in ("one", "two"):  # no images of the same name: files that every folder of some system has
        (tmp_path / folder / "Thumbs.db").write_text("of the system")
        (tmp_path / folder / "a.png").rename(tmp_path / folder / f"{folder}.png")
    saved = save_predictions(Brighter(), [tmp_path / "one", tmp_path / "two"], tmp_path / "fine", classes=CLASSES)
    assert len(saved.masks) == 2 and len(saved.skipped) == 2
    with pytest.raises(ValueError, match="tells 2 classes apart, and 3 are named"):
        save_predictions(Brighter(), tmp_path / "one", tmp_path / "three", classes=["a", "b", "c"])
    assert not (tmp_path / "three").exists()
    with pytest.raises(ValueError, match="would overwrite it"):
        save_predictions(Brighter(), tmp_path / "masks", tmp_path, classes=CLASSES)
    assert (tmp_path / "masks" / "a.png").read_bytes() == before
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        save_predictions(Brighter(), tmp_path / "none", tmp_path / "out", classes=CLASSES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no photograph"):
        save_predictions(Brighter(), tmp_path / "empty", tmp_path / "out", classes=CLASSES)
    with pytest.raises(ValueError, match="class names"):
        save_predictions(Brighter(), tmp_path / "one", tmp_path / "out")


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def checkpoint(tmp_path):
    """What `fit` leaves behind, of a net that says class 1 where a picture is bright."""
    model = UNet(classes=2, base_channels=1, depth=1).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.fill_(0.0 if "bias" in name or "weight" in name else value)
        stem = model.stem
        stem[0].weight[0, :, 1, 1] = 1 / 3  # the mean of the three colours, -1 to 1
        stem[1].weight.fill_(1.0)
        stem[3].weight[0, 0, 1, 1] = 1.0
        stem[4].weight.fill_(1.0)
        last = model.decoder[-1].conv
        last[0].weight[0, 0, 1, 1] = 1.0  # the skip connection comes first
        last[1].weight.fill_(1.0)
        last[3].weight[0, 0, 1, 1] = 1.0
        last[4].weight.fill_(1.0)
        model.head.weight[1] = 1.0
        model.head.bias[0] = 0.2
    content = {"model": model.state_dict(), "settings": model.settings, "classes": CLASSES, "image_size": (32, 32)}
    torch.save(content, tmp_path / "best_model.pth")
    return tmp_path / "best_model.pth"


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "seglib.predict", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_command_predicts_a_folder_and_a_file_and_goes_on_past_what_is_no_image(tmp_path, checkpoint):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(photo(48, 64)).save(photos / "one.jpg")
    (photos / "notes.txt").write_text("no picture")
    Image.fromarray(photo(64, 32)).save(tmp_path / "two.png")
    done = command(checkpoint, photos, tmp_path / "two.png", "--out", tmp_path / "out", "--flips", "h")
    assert done.returncode == 0, done.stderr
    assert f"2 photographs predicted, 1 files skipped: see {tmp_path / 'out'}" in done.stdout
    assert f"skipped: {photos / 'notes.txt'} is no image" in done.stderr and "Traceback" not in done.stderr
    for name, width, shape in (("one", 64, (48, 64)), ("two", 32, (64, 32))):
        mask = read_index_png(tmp_path / "out" / "masks" / f"{name}.png")
        assert mask.shape == shape
        assert (mask[:, : width // 2 - 3] == 0).all() and (mask[:, width // 2 + 3 :] == 1).all()
        assert (tmp_path / "out" / "colours" / f"{name}.png").is_file()
        assert (tmp_path / "out" / "overlays" / f"{name}.jpg").is_file()


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path, checkpoint, capsys):
    (tmp_path / "notes.txt").write_text("no picture")
    Image.fromarray(photo()).save(tmp_path / "one.png")
    out = ["--out", str(tmp_path / "out")]
    assert main([str(checkpoint), str(tmp_path / "notes.txt"), *out]) == 1
    assert "0 photographs predicted, 1 files skipped\n" in capsys.readouterr().out
    assert main([str(tmp_path / "none.pth"), str(tmp_path / "one.png"), *out]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert main([str(checkpoint), str(tmp_path / "none"), *out]) == 2
    assert main([str(checkpoint), str(tmp_path / "one.png"), *out, "--tile", "64", "--overlap", "60"]) == 2
    assert "half their side" in capsys.readouterr().err
    tiles = ["--tile", "16", "--overlap", "4", "--size", "40", "60", "--flips", "hv", "--batch-size", "2"]
    assert main([str(checkpoint), str(tmp_path / "one.png"), *out, *tiles]) == 0
    assert read_index_png(tmp_path / "out" / "masks" / "one.png").shape == (30, 50)


def test_a_checkpoints_path_does_for_a_model(checkpoint):
    mask = predict(checkpoint, photo(40, 40))
    assert (mask[:, :17] == 0).all() and (mask[:, 23:] == 1).all()
