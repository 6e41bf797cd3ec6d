"""Mask R-CNN: torchvision's, with our classes, our images and our kind of objects."""

import numpy as np
import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.detection import maskrcnn_resnet50_fpn

from seglib.evaluate import mask_ap
from seglib.instances import Instances
from seglib.models import build_model, load_model, maskrcnn

SMALL = {"encoder": "resnet18", "image_size": 64, "proposals": 16}


def scene(seed: int) -> tuple[torch.Tensor, Instances]:
    """A bright rectangle on noise, and a crowd beside it."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 90, (64, 64, 3)).astype(np.uint8)
    mask, crowd = np.zeros((2, 64, 64), bool)
    top, left = rng.integers(4, 20, 2)
    mask[top : top + 32, left : left + 32] = True
    crowd[60:] = True
    picture[mask] = (240, 230, 80)
    return torch.from_numpy(picture.transpose(2, 0, 1).copy()), Instances.of([mask, crowd], [1, 1], crowd=[False, True])


@pytest.fixture(scope="module")
def trained():
    """A small one that has learnt to find that rectangle."""
    torch.manual_seed(0)
    model = build_model("maskrcnn", classes=2, **SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-4)
    images, targets = zip(*(scene(seed) for seed in range(2)), strict=True)
    losses = []
    for _ in range(16):
        parts = model.train()(torch.stack(images), targets)
        losses.append(sum(parts.values()))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    return model.eval(), [loss.item() for loss in losses]


def test_it_is_the_network_that_is_published():
    """44,401,393 parameters for COCO's 91 outputs, says torchvision; batch norm that learns has 2 x 26,560 more."""
    frozen = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    model = build_model("maskrcnn", classes=91)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(parameter.numel() for parameter in frozen.parameters()) == 44_401_393 + 2 * 26_560
    assert model.network.state_dict().keys() == frozen.state_dict().keys()


def test_it_learns_and_the_evaluator_measures_it(trained):
    model, losses = trained
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    images, truth = zip(*(scene(seed) for seed in range(2)), strict=True)
    found = model(torch.stack(images))
    assert mask_ap(truth, found).ap50 > 0.5


def test_objects_have_the_size_of_the_image_and_fall_in_score(trained):
    images = torch.stack([scene(9)[0], scene(8)[0]])[..., :50]
    found = trained[0](images)
    assert [one.size for one in found] == [(64, 50), (64, 50)]
    assert all((np.diff(one.scores) <= 0).all() and one.areas.min(initial=1) > 0 for one in found)


def test_targets_are_what_torchvision_wants_and_leave_crowds_out():
    target = maskrcnn.as_target(scene(0)[1], torch.device("cpu"))
    assert target["masks"].shape == (1, 64, 64) and target["labels"].tolist() == [1]
    left, top, right, bottom = target["boxes"][0].int().tolist()
    assert target["masks"][0, top:bottom, left:right].all() and target["masks"].sum() == 32 * 32


def test_a_checkpoint_rebuilds_it(trained, tmp_path):
    model = trained[0]
    saved = {
        "settings": model.settings,
        "model": model.state_dict(),
        "classes": ["background", "a"],
        "image_size": None,
    }
    torch.save(saved, tmp_path / "best_model.pth")
    again = load_model(tmp_path / "best_model.pth")
    image = scene(5)[0][None]
    assert (again(image)[0].scores == model(image)[0].scores).all() and not again.training


def publish(state: dict, name: str, tmp_path, monkeypatch) -> None:
    """Put weights where torchvision's own are found."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub/checkpoints" / name)


def test_imagenet_weights_fill_the_encoder_and_freeze_its_batch_norm(tmp_path, monkeypatch):
    published = resnet18().state_dict()
    publish(published, "resnet18-f37072fd.pth", tmp_path, monkeypatch)
    model = build_model("maskrcnn", classes=2, weights="imagenet", encoder="resnet18")
    body = model.network.backbone.body
    assert torch.equal(body.conv1.weight, published["conv1.weight"])
    assert type(body.bn1).__name__ == "FrozenBatchNorm2d"
    assert not body.layer1[0].conv1.weight.requires_grad and body.layer3[0].conv1.weight.requires_grad


@pytest.mark.parametrize("weights", ["imagenet", "coco"])
def test_weights_of_another_network_are_named(weights, tmp_path, monkeypatch):
    files = {"imagenet": "resnet50-0676ba61.pth", "coco": "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"}
    publish({"conv1.weight": torch.zeros(3)}, files[weights], tmp_path, monkeypatch)
    with pytest.raises(OSError, match=rf"(?s)cannot be had.*{files[weights]}.*is there.*weights=None"):
        build_model("maskrcnn", classes=2, weights=weights)


def test_coco_weights_fill_all_but_the_last_layers(tmp_path, monkeypatch):
    torch.manual_seed(3)
    published = build_model("maskrcnn", classes=91).network.state_dict()
    publish(published, "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", tmp_path, monkeypatch)
    model = build_model("maskrcnn", classes=4, weights="coco")
    ours = model.network.state_dict()
    other = {key for key in ours if ours[key].shape != published[key].shape}
    assert {key.split(".")[1] for key in other} == {"box_predictor", "mask_predictor"}
    assert torch.equal(ours["rpn.head.conv.0.0.weight"], published["rpn.head.conv.0.0.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "vgg16"}, "no encoder 'vgg16'"),
        ({"weights": "coco", "encoder": "resnet18"}, "no weights 'coco'"),
        ({"classes": 1}, "background is one of them"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_model("maskrcnn", **{"classes": 2, **settings})


def test_training_wants_targets():
    with pytest.raises(ValueError, match="targets"):
        build_model("maskrcnn", classes=2, **SMALL).train()(scene(0)[0][None])
