"""From a checkpoint and photographs to masks at the photographs' own size."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seglib.masks import read_index_png
from seglib.models import UNet
from seglib.predict import predict, predict_logits, save_predictions


class Brighter(nn.Module):
    """Says class 1 where a pixel is brighter than 100: a model whose answer is known."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        return images.float().mean(dim=1, keepdim=True) * self.weight - 100


def photo(height=30, width=50):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 200
    return image


def test_the_mask_has_the_photographs_own_size_whatever_the_model_saw():
    model = Brighter()
    for size in (None, (16, 16), (64, 80)):
        mask = predict(model, photo(), size)
        assert mask.shape == (30, 50) and mask.dtype == np.uint8
        assert (mask[:, :23] == 0).all() and (mask[:, 27:] == 1).all()
    assert model.seen == [(1, 3, 30, 50), (1, 3, 16, 16), (1, 3, 64, 80)]


def test_the_size_comes_from_the_checkpoint():
    model = Brighter()
    model.image_size = (8, 24)
    predict(model, photo())
    assert model.seen == [(1, 3, 8, 24)]


def test_logits_are_resized_before_they_are_decided():
    """Between a sure yes and a faint no, the border lies nearer to the no than a resized decision would put it."""
    model = Brighter()
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = 90, 255
    logits = predict_logits(model, np.repeat(np.repeat(image, 8, 0), 8, 1), (1, 2))[0, 0, 0]
    assert (logits > 0).sum() > 8


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (101, 133)])
def test_any_size_goes_through_a_unet(size):
    assert predict(UNet(base_channels=4), np.zeros((*size, 3), np.uint8)).shape == size


def test_what_is_no_image_is_refused():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="an image is uint8"):
            predict(Brighter(), wrong)


def test_save_predictions_keeps_names_and_sizes_and_names_what_it_skips(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(photo()).save(photos / "one.jpg")
    Image.fromarray(photo(20, 60)).convert("L").save(photos / "two.png")
    (photos / "three.jpg").write_text("no picture")
    (photos / "notes.txt").write_text("not even called one")
    saved = save_predictions(Brighter(), photos, tmp_path / "out", classes=["background", "bright"])
    assert [path.name for path in saved.masks] == ["one.png", "two.png"]
    assert list(saved.skipped) == [str(photos / "three.jpg")]
    assert read_index_png(saved.masks[1]).shape == (20, 60)
    with Image.open(saved.overlays[0]) as overlay:
        assert overlay.size == (50, 30) and overlay.mode == "RGB"
    one = save_predictions(Brighter(), photos / "one.jpg", tmp_path / "again", classes=["background", "bright"])
    assert len(one.masks) == 1


def test_save_predictions_refuses_what_would_overwrite_or_be_nameless(tmp_path):
    for name in ("a.jpg", "a.png"):
        Image.fromarray(photo()).save(tmp_path / name)
    with pytest.raises(ValueError, match="share a name"):
        save_predictions(Brighter(), tmp_path, tmp_path / "out", classes=["background", "bright"])
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        save_predictions(Brighter(), tmp_path / "none", tmp_path / "out", classes=["background", "bright"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no photograph"):
        save_predictions(Brighter(), tmp_path / "empty", tmp_path / "out", classes=["background", "bright"])
    with pytest.raises(ValueError, match="class names"):
        save_predictions(Brighter(), tmp_path / "a.jpg", tmp_path / "out")
