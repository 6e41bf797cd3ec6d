"""ImageNet weights: found where they were put, fetched from a server, and an error that helps where neither works.

The weights are made here; what is tested is that they arrive in the right place of the right model.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save, save_file
from torchvision.models import VGG16_BN_Weights, vgg

from seglib.models import build_model, load_model
from seglib.models.smp import weight_files
from tests.helpers.server import cut, headed, other, status

CONFIG = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "input_space": "RGB", "input_range": [0, 1]}


def filled(module, seed=0):
    """Random numbers of our own in every weight, those of batch norm too."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.1)
    return module


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


# ------------------------------------------------------------------------------------------------ SegNet's VGG16


@pytest.mark.parametrize(
    ("batch_norm", "file"), [(True, "vgg16_bn-6c64b313.pth"), (False, "vgg16-397923af.pth")], ids=["bn", "plain"]
)
def test_segnet_takes_the_weights_that_lie_in_torchs_folder(torch_home, batch_norm, file):
    """The encoder then gives what torchvision's own VGG16 gives for the same picture."""
    theirs = torch.nn.Module()
    theirs.features = filled(vgg.make_layers(vgg.cfgs["D"], batch_norm)).eval()
    torch_home.mkdir(parents=True)
    classifier = {"classifier.0.weight": torch.zeros(1)}  # there is more in the published file, and it is left out
    torch.save(theirs.state_dict() | classifier, torch_home / file)
    model = build_model("segnet", classes=5, weights="imagenet", batch_norm=batch_norm).eval()
    deepest = []
    model.encoder[-1].register_forward_hook(lambda _m, _i, out: deepest.append(out))
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    preprocess = VGG16_BN_Weights.IMAGENET1K_V1.transforms()  # what torchvision says these weights were trained with
    with torch.no_grad():
        model(images)
        prepared = (images / 255 - torch.tensor(preprocess.mean).view(3, 1, 1)) / torch.tensor(preprocess.std).view(
            3, 1, 1
        )
        expected = theirs.features(prepared)
    assert torch.allclose(torch.nn.functional.max_pool2d(deepest[0], 2), expected, rtol=1e-4)


@pytest.mark.parametrize("content", [b"", b"no weights", None], ids=["empty", "foreign", "of another model"])
def test_wrong_weights_in_torchs_folder_are_named(torch_home, content):
    torch_home.mkdir(parents=True)
    place = torch_home / "vgg16_bn-6c64b313.pth"
    if content is None:
        torch.save({"features.0.weight": torch.zeros(3)}, place)
    else:
        place.write_bytes(content)
    with pytest.raises(OSError, match=rf"(?s)weights of VGG16.*{place}.*\(is there\).*weights=None") as caught:
        build_model("segnet", classes=5, weights="imagenet")
    assert "weights_only" not in str(caught.value)


def serve_vgg(server, monkeypatch, content: bytes) -> str:
    """Let the published address be one of our server, whose file name promises the hash of `content`."""
    name = f"vgg16_bn-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr(VGG16_BN_Weights.IMAGENET1K_V1.value, "url", server.url(f"/models/{name}"))
    server.files[f"/models/{name}"] = content
    return name


def test_segnets_weights_are_fetched_once(server, torch_home, monkeypatch):
    features = filled(vgg.make_layers(vgg.cfgs["D"], batch_norm=True))
    file = io.BytesIO()
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, file)
    name = serve_vgg(server, monkeypatch, file.getvalue())
    for _ in range(2):
        model = build_model("segnet", classes=2, weights="imagenet")
        assert torch.equal(model.encoder[0][0].weight, features[0].weight)
    assert [request.path for request in server.requests] == [f"/models/{name}"]
    assert [path.name for path in torch_home.iterdir()] == [name]


@pytest.mark.parametrize("fault", [status(503), cut(100), other(lambda content: content[::-1])], ids=str)
def test_what_came_wrong_is_named_and_not_kept(server, torch_home, monkeypatch, fault):
    name = serve_vgg(server, monkeypatch, os.urandom(5000))
    server.always(f"/models/{name}", fault)
    with pytest.raises(OSError, match=rf"(?s)VGG16.*{torch_home / name}, from {server.url('/models')}.*weights=None"):
        build_model("segnet", classes=2, weights="imagenet")
    assert not (torch_home / name).exists()


# ------------------------------------------------------------------------------------------------ smp's encoders


def put(files: dict[Path, str], encoder) -> None:
    config, weights = files
    weights.parent.mkdir(parents=True)
    config.write_text(json.dumps(CONFIG))
    save_file(encoder.state_dict(), weights)


@pytest.mark.parametrize("name", ["deeplabv3", "unet", "segformer"])
def test_an_encoder_takes_the_weights_that_lie_in_the_hubs_cache_and_their_normalisation(hub, tmp_path, name):
    encoder = "mit_b0" if name == "segformer" else "resnet18"
    published = filled(smp.encoders.get_encoder(encoder, weights=None))
    put(weight_files(encoder, "imagenet"), published)
    model = build_model(name, classes=3, encoder=encoder, weights="imagenet")
    mine = model.net.encoder.state_dict()
    assert all(torch.equal(mine[key], value) for key, value in published.state_dict().items())
    assert model.mean.tolist() == pytest.approx(CONFIG["mean"]) and model.std.tolist() == pytest.approx(CONFIG["std"])
    # a checkpoint needs none of this any more
    for path in weight_files(encoder, "imagenet"):
        path.unlink()
    checkpoint = {"model": model.state_dict(), "settings": model.settings, "classes": None, "image_size": None}
    torch.save(checkpoint, tmp_path / "best_model.pth")
    assert load_model(tmp_path / "best_model.pth").mean.tolist() == pytest.approx(CONFIG["mean"])


def test_an_encoder_of_timms_takes_them_too(hub):
    name = "resnet10t.c3_in1k"
    reference, weights = weight_files(f"tu-{name}", "imagenet")
    for path in (reference, weights):
        path.parent.mkdir(parents=True)
    reference.write_text("main")
    published = filled(timm.create_model("resnet10t"))
    save_file(published.state_dict(), weights)
    model = build_model("fpn", classes=2, encoder=f"tu-{name}", weights="imagenet")
    assert torch.equal(model.net.encoder.model.layer4[0].conv1.weight, published.layer4[0].conv1.weight)
    assert model.mean.tolist() == pytest.approx(timm.get_pretrained_cfg(name).mean)


@pytest.mark.parametrize("encoder", ["resnet50", "tu-convnext_tiny"])
def test_weights_that_cannot_be_had_say_which_file_where_and_what_to_do(hub, encoder):
    files = weight_files(encoder, "imagenet")
    with pytest.raises(OSError, match=r"weights=None trains from scratch") as caught:
        build_model("deeplabv3", classes=2, encoder=encoder, weights="imagenet")
    for place, address in files.items():
        assert f"{place}, from {address} (missing)" in str(caught.value)
    assert str(hub) in str(caught.value) and "/resolve/" in str(caught.value)


@pytest.mark.parametrize("spoil", ["cut short", "of another encoder", "no config"])
def test_wrong_weights_in_the_hubs_cache_are_named(hub, spoil):
    files = weight_files("resnet18", "imagenet")
    put(
        files,
        filled(smp.encoders.get_encoder("resnet34" if spoil == "of another encoder" else "resnet18", weights=None)),
    )
    config, weights = files
    if spoil == "cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif spoil == "no config":
        config.unlink()
    state = "missing" if spoil == "no config" else "is there"
    with pytest.raises(
        OSError, match=rf"(?s)weights of resnet18.*{config}\S* from \S+ \({state}\).*{weights}.*weights=None"
    ):
        build_model("deeplabv3", classes=2, encoder="resnet18", weights="imagenet")


def test_an_encoders_weights_are_fetched_from_the_hub(server, tmp_path):
    """In a process of its own, as a reader runs it, with the hub's address changed to that of our server."""
    repository = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    content = save(filled(smp.encoders.get_encoder("resnet18", weights=None)).state_dict())
    for name, body in {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": content}.items():
        path = f"/{repository['repo_id']}/resolve/{repository['revision']}/{name}"
        server.files[path] = body
        server.always(path, headed(X_Repo_Commit=repository["revision"]))
    program = (
        "from seglib.models import build_model\n"
        "for _ in range(2):\n"
        "    model = build_model('deeplabv3', classes=5, encoder='resnet18', weights='imagenet')\n"
        "    print(model.net.encoder.conv1.weight.sum().item(), model.mean.tolist())"
    )
    env = {**os.environ, "HF_ENDPOINT": server.url("")}
    env |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = filled(smp.encoders.get_encoder("resnet18", weights=None)).conv1.weight.sum().item()
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        weight, mean = line.split(" ", 1)
        assert float(weight) == pytest.approx(expected, rel=1e-4)
        assert json.loads(mean) == pytest.approx(CONFIG["mean"])
    gets = [request.path for request in server.requests if request.method == "GET" and "/resolve/" in request.path]
    assert sorted(path.rsplit("/", 1)[1] for path in gets) == ["config.json", "model.safetensors"]
