"""Models by name: the contract of every model, skip connections, errors, checkpoints."""

import pickle

import pytest
import torch

from seglib.models import INSTANCE_MODELS, MODELS, UNet, build_model, load_model

# The smallest encoder of each model.
SMALL = {name: {"encoder": "resnet18"} for name in MODELS} | {
    "unet": {"base_channels": 4},
    "segnet": {},
    "segformer": {"encoder": "mit_b0"},
    "dpt": {"encoder": "tu-vit_tiny_patch16_224"},
}


@pytest.mark.parametrize("name", [name for name in MODELS if name not in INSTANCE_MODELS])
def test_a_model_keeps_the_contract(name):
    model = build_model(name, classes=3, **SMALL[name]).eval()
    for size in ((1, 1), (33, 65)):
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        with torch.no_grad():
            logits = model(images)
            assert logits.shape == (2, 3, *size)
            assert logits.isfinite().all()
            assert torch.equal(model(images.float()), logits)
    with pytest.raises(ValueError, match=r"not \(3, 33, 65\); pass a single image as image\[None\]"):
        model(images[0])
    again = build_model(**model.settings)
    assert again.settings == model.settings
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize("skip", [True, False])
def test_only_skip_connections_bypass_the_deepest_features(skip):
    """With the deepest features cut off, the logits depend on the image only through skip connections."""
    model = UNet(base_channels=4, skip=skip).eval()
    model.encoder[-1].register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
    with torch.no_grad():
        black = model(torch.zeros(1, 3, 32, 32))
        white = model(torch.full((1, 3, 32, 32), 255.0))
    assert torch.equal(black, white) is not skip


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("unett", {}, "the name of a model must be one of unet, segnet, deeplabv3,.* segformer.* not 'unett'"),
        ("unet", {"weights": "imagenet"}, r"'unet' has no 'imagenet' weights; build_model\('unet', encoder='resnet50'"),
        (
            "fpn",
            {"encoder": "resnet5"},
            "cannot build 'fpn' with the encoder 'resnet5': .*supported encoders",
        ),
        ("fpn", {"encoder": "tu-resnetfoo"}, "cannot build 'fpn' with the encoder 'tu-resnetfoo': Unknown model"),
        ("fpn", {"encoder": "tu-resnet10t", "weights": "coco"}, "tu-resnet10t must be one of imagenet, not 'coco'"),
        ("fpn", {"encoder": "resnext101_32x4d", "weights": "imagenet"}, "one of ssl, swsl, not 'imagenet'"),
        (
            "unet",
            {"encoder": "resnet18", "base_channels": 4},
            "no setting base_channels; there are decoder_",
        ),
        ("fpn", {"encoder": "tu-resnet10t", "base_channels": 4}, "unexpected keyword argument 'base_channels'"),
        ("maskrcnn", {}, "classes must be at least 2, background and one more, not 1"),
        ("maskrcnn", {"encoder": "resnet18", "weights": "coco"}, "must be one of None, imagenet, not 'coco'"),
    ],
)
def test_names_weights_and_settings_that_do_not_exist_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, classes=1, **settings)


# ------------------------------------------------------------------------------------------------ checkpoints


def test_a_checkpoint_rebuilds_its_model(tmp_path):
    model = UNet(classes=3, base_channels=4, depth=2, bilinear=False, skip=False).eval()
    content = {"model": model.state_dict(), "settings": model.settings}
    torch.save(content | {"classes": ["a", "b", "c"], "image_size": (8, 9)}, tmp_path / "best_model.pth")
    loaded = load_model(tmp_path / "best_model.pth")
    assert loaded.settings == model.settings
    assert (loaded.class_names, loaded.image_size, loaded.training) == (["a", "b", "c"], (8, 9), False)
    images = torch.randint(0, 256, (1, 3, 8, 9), dtype=torch.uint8)
    assert torch.equal(loaded(images), model(images))


def test_files_that_are_not_checkpoints_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_model(tmp_path / "none.pth")
    torch.save({"model": {}, "optimizer": {}, "history": []}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"best_model\.pth of a run, not last/checkpoint\.pth"):
        load_model(tmp_path / "checkpoint.pth")
    torch.save({"model": {}, "settings": None, "classes": None, "image_size": None}, tmp_path / "own.pth")
    with pytest.raises(ValueError, match="build the model as for the training"):
        load_model(tmp_path / "own.pth")


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    torch.save({"model": Malicious(), "settings": {}}, tmp_path / "zip.pth")
    for name in ("pickle.pth", "zip.pth"):
        with pytest.raises(ValueError, match="not a model of seglib"):
            load_model(tmp_path / name)
    assert not (tmp_path / "ran").exists()
