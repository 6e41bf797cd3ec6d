"""Pretrained weights: read from the caches of torchvision and the Hugging Face hub, downloaded once, errors explained.

The weights are random; the tests check that they arrive in the right place of the right model.
"""

import hashlib
import io
import json
import os
import shutil

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save
from torch import nn
from torchvision.models import VGG16_BN_Weights, resnet18, vgg
from torchvision.transforms.functional import normalize

from seglib.models import build_model, load_model
from tests.helpers.server import other, status

CONFIG = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "input_space": "RGB", "input_range": [0, 1]}


def randomize(module: nn.Module) -> nn.Module:
    """Fill all weights with small random numbers, those of batch norm as well."""
    generator = torch.Generator().manual_seed(0)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.1)
    return module


@pytest.fixture
def torch_cache(tmp_path, monkeypatch):
    """The empty folder in which torchvision caches its downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """The empty cache of the Hugging Face hub, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


# ------------------------------------------------------------------------------------------------ torchvision


def test_the_encoder_of_segnet_computes_what_the_published_vgg16_computes(torch_cache):
    published = nn.Module()
    published.features = randomize(vgg.make_layers(vgg.cfgs["D"], batch_norm=True)).eval()
    torch.save(published.state_dict() | {"classifier.0.weight": torch.zeros(1)}, torch_cache / "vgg16_bn-6c64b313.pth")
    model = build_model("segnet", classes=5, weights="imagenet").eval()
    deepest = []
    model.encoder[-1].register_forward_hook(lambda _m, _i, out: deepest.append(out))
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    preprocessing = VGG16_BN_Weights.IMAGENET1K_V1.transforms()
    with torch.no_grad():
        model(images)
        expected = published.features(normalize(images / 255, preprocessing.mean, preprocessing.std))
    assert torch.allclose(nn.functional.max_pool2d(deepest[0], 2), expected, rtol=1e-4)


@pytest.mark.parametrize("damaged", [True, False])
def test_a_cached_file_that_is_damaged_or_of_another_model_is_named(torch_cache, damaged):
    path = torch_cache / "vgg16_bn-6c64b313.pth"
    torch.save({"features.0.weight": torch.zeros(3)}, path)
    if damaged:
        path.write_bytes(b"not weights")
    with pytest.raises(OSError, match=r"cannot load the ImageNet weights of VGG16") as caught:
        build_model("segnet", classes=5, weights="imagenet")
    assert f"from {VGG16_BN_Weights.IMAGENET1K_V1.url} and kept in {path}. " in str(caught.value)
    assert "weights=None trains from scratch" in str(caught.value)
    assert "weights_only" not in str(caught.value)  # advice of torch that does not apply


def test_imagenet_weights_of_mask_rcnn_fill_the_encoder_and_freeze_its_batch_norm(torch_cache):
    published = resnet18().state_dict()
    torch.save(published, torch_cache / "resnet18-f37072fd.pth")
    model = build_model("maskrcnn", classes=2, weights="imagenet", encoder="resnet18")
    body = model.network.backbone.body
    assert torch.equal(body.conv1.weight, published["conv1.weight"])
    assert type(body.bn1).__name__ == "FrozenBatchNorm2d"
    assert not body.layer1[0].conv1.weight.requires_grad
    assert body.layer3[0].conv1.weight.requires_grad


def test_coco_weights_of_mask_rcnn_fill_all_but_the_last_layers(torch_cache):
    published = build_model("maskrcnn", classes=91).network.state_dict()
    torch.save(published, torch_cache / "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth")
    state = build_model("maskrcnn", classes=4, weights="coco").network.state_dict()
    new = {key for key in state if state[key].shape != published[key].shape}
    assert {key.split(".")[1] for key in new} == {"box_predictor", "mask_predictor"}
    assert torch.equal(state["rpn.head.conv.0.0.weight"], published["rpn.head.conv.0.0.weight"])


def serve_vgg(server, monkeypatch, content: bytes) -> str:
    """Serve `content` as the published file, whose name includes the hash of the content."""
    name = f"vgg16_bn-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr(VGG16_BN_Weights.IMAGENET1K_V1.value, "url", server.url(f"/models/{name}"))
    server.files[f"/models/{name}"] = content
    return name


def test_weights_are_downloaded_once(server, torch_cache, monkeypatch):
    features = randomize(vgg.make_layers(vgg.cfgs["D"], batch_norm=True))
    file = io.BytesIO()
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, file)
    name = serve_vgg(server, monkeypatch, file.getvalue())
    for _ in range(2):
        model = build_model("segnet", classes=2, weights="imagenet")
        assert torch.equal(model.encoder[0][0].weight, features[0].weight)
    assert [request.path for request in server.requests] == [f"/models/{name}"]
    assert [path.name for path in torch_cache.iterdir()] == [name]


@pytest.mark.parametrize("fault", [status(503), other(lambda content: content[::-1])], ids=["503", "wrong checksum"])
def test_a_failed_download_is_named_and_not_cached(server, torch_cache, monkeypatch, fault):
    name = serve_vgg(server, monkeypatch, os.urandom(5000))
    server.always(f"/models/{name}", fault)
    with pytest.raises(OSError, match="cannot load the ImageNet weights of VGG16") as caught:
        build_model("segnet", classes=2, weights="imagenet")
    assert f"from {server.url(f'/models/{name}')} and kept in {torch_cache / name}. " in str(caught.value)
    assert not (torch_cache / name).exists()


# ------------------------------------------------------------------------------------------------ Hugging Face hub


def cache(folder, files: dict[str, bytes], revision: str) -> None:
    """Put the files of a repository into the cache of the hub."""
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)


@pytest.mark.parametrize(("name", "encoder"), [("unet", "resnet18"), ("segformer", "mit_b0")])
def test_an_encoder_has_the_cached_weights_and_their_normalization(hub_cache, tmp_path, name, encoder):
    published = randomize(smp.encoders.get_encoder(encoder, weights=None))
    source = smp.encoders.encoders[encoder]["pretrained_settings"]["imagenet"]
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": save(published.state_dict())}
    cache(hub_cache / f"models--{source['repo_id'].replace('/', '--')}", files, source["revision"])
    model = build_model(name, classes=3, encoder=encoder, weights="imagenet")
    state = model.net.encoder.state_dict()
    assert all(torch.equal(state[key], value) for key, value in published.state_dict().items())
    assert model.mean.tolist() == pytest.approx(CONFIG["mean"])
    assert model.std.tolist() == pytest.approx(CONFIG["std"])
    shutil.rmtree(hub_cache)  # a checkpoint does not need these files
    content = {"model": model.state_dict(), "settings": model.settings, "classes": None, "image_size": None}
    torch.save(content, tmp_path / "best_model.pth")
    assert load_model(tmp_path / "best_model.pth").mean.tolist() == pytest.approx(CONFIG["mean"])


def test_an_encoder_of_timm_has_the_cached_weights(hub_cache):
    name = "resnet10t.c3_in1k"
    published = randomize(timm.create_model("resnet10t"))
    folder = hub_cache / f"models--timm--{name}"
    cache(folder, {"model.safetensors": save(published.state_dict())}, "main")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("main")
    model = build_model("fpn", classes=2, encoder=f"tu-{name}", weights="imagenet")
    assert torch.equal(model.net.encoder.model.layer4[0].conv1.weight, published.layer4[0].conv1.weight)
    assert model.mean.tolist() == pytest.approx(timm.get_pretrained_cfg(name).mean)


@pytest.mark.parametrize("encoder", ["resnet50", "tu-convnext_tiny"])
def test_missing_weights_are_named_with_address_and_cache(hub_cache, encoder):
    with pytest.raises(OSError, match=f"cannot load the imagenet weights of {encoder} .*weights=None trains") as caught:
        build_model("deeplabv3", classes=2, encoder=encoder, weights="imagenet")
    assert f"from https://huggingface.co and kept in {hub_cache}. " in str(caught.value)
