"""Models: published sizes, the contract of forward, checkpoints."""

import pickle

import pytest
import torch

from seglib.models import UNet, build_model, load_model, logits_to_mask
from seglib.models.common import pad_to_stride


def parameters(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("bilinear", "count"), [(False, 31_037_633), (True, 17_262_977)])
def test_unet_has_the_published_number_of_parameters(bilinear, count):
    """The counts of github.com/milesial/Pytorch-UNet, the U-Net with batch norm that most people run."""
    assert parameters(UNet(3, 1, 64, 4, bilinear=bilinear)) == count


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (101, 133), (15, 257)])
@pytest.mark.parametrize("settings", [{}, {"bilinear": False}, {"skip": False}, {"depth": 5}, {"classes": 7}])
def test_logits_have_the_images_size(size, settings):
    model = UNet(base_channels=4, **settings).eval()
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert model(images).shape == (2, settings.get("classes", 1), *size)


def test_bytes_and_floats_of_the_same_pixels_give_the_same_logits():
    model = UNet(base_channels=4).eval()
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(model(images), model(images.float()))


def test_padding_repeats_the_border():
    padded = pad_to_stride(torch.arange(6.0).view(1, 1, 2, 3), 4)
    assert padded.shape == (1, 1, 4, 4)
    assert padded[0, 0, :, 3].tolist() == [2, 5, 5, 5]


def test_without_skip_connections_the_decoder_sees_nothing_of_the_encoder():
    with_skip, without = UNet(base_channels=4).eval(), UNet(base_channels=4, skip=False).eval()
    assert parameters(without) < parameters(with_skip)
    for model, passes in ((with_skip, True), (without, False)):
        model.encoder[-1].register_forward_hook(lambda *_: torch.zeros(1, 32, 2, 2))  # cut the way through the bottom
        black, white = model(torch.zeros(1, 3, 32, 32)), model(torch.full((1, 3, 32, 32), 255.0))
        assert torch.equal(black, white) is not passes


def test_settings_are_enough_to_build_a_model_again():
    model = UNet(classes=3, base_channels=4, depth=2, bilinear=False, skip=False)
    again = build_model(**model.settings)
    assert again.settings == model.settings and parameters(again) == parameters(model)


def test_a_name_or_weights_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="no model 'unett'; there are unet"):
        build_model("unett", classes=1)
    with pytest.raises(ValueError, match="weights=None"):
        build_model("unet", classes=1, weights="imagenet")
    with pytest.raises(ValueError, match="one image goes in as image"):
        UNet(base_channels=4)(torch.zeros(3, 32, 32))


def test_logits_to_mask_decides():
    assert logits_to_mask(torch.tensor([[[[-1.0, 0.0, 0.1]]]])).tolist() == [[[0, 0, 1]]]
    several = logits_to_mask(torch.tensor([1.0, 3.0, 2.0]).view(1, 3, 1, 1))
    assert several.tolist() == [[[1]]] and several.dtype == torch.uint8


def test_a_checkpoint_that_is_none_is_refused_and_never_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_model(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="no checkpoint of seglib"):
        load_model(tmp_path / "text.pth")

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"model": Evil(), "settings": {}}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(ValueError, match="no checkpoint of seglib"):
            load_model(tmp_path / name)
    assert not (tmp_path / "ran").exists()
