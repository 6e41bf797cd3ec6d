"""Mask R-CNN: torchvision's network with our classes, images and objects."""

import numpy as np
import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from seglib.instances import Instances
from seglib.models import build_model

SMALL = {"encoder": "resnet18", "image_size": 64, "proposals": 16}


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def record_calls(model: torch.nn.Module, result: object) -> list:
    """Replace torchvision's network in the model by one that returns a fixed result; return its later arguments."""
    calls = []

    class Recorder(torch.nn.Module):
        def forward(self, *arguments):
            calls.append(arguments)
            return result

    model.network = Recorder()
    return calls


def test_the_network_is_the_published_one():
    """torchvision publishes 44,401,393 parameters for 91 classes; trained batch norm has 2 x 26,560 more."""
    expected = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    model = build_model("maskrcnn", classes=91)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(parameter.numel() for parameter in expected.parameters()) == 44_401_393 + 2 * 26_560
    assert model.network.state_dict().keys() == expected.state_dict().keys()


def test_training_returns_finite_losses_and_prediction_objects_sorted_by_score():
    torch.manual_seed(0)
    model = build_model("maskrcnn", classes=2, **SMALL)
    mask = np.zeros((64, 50), bool)
    mask[10:40, 10:40] = True
    losses = model.train()(random_images(1, 3, 64, 50), [Instances.of([mask])])
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    with torch.no_grad():
        found = model.eval()(random_images(2, 3, 64, 50))
    for objects in found:
        assert objects.size == (64, 50)
        assert (np.diff(objects.scores) <= 0).all()
        assert (objects.areas > 0).all()
    with pytest.raises(ValueError, match="needs targets"):
        model.train()(random_images(1, 3, 64, 50))
    build_model(**model.settings).load_state_dict(model.state_dict())


def test_targets_have_no_crowds():
    model = build_model("maskrcnn", classes=3, **SMALL).train()
    calls = record_calls(model, {})
    masks = np.zeros((2, 8, 10), bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 6:] = True
    model(random_images(1, 3, 8, 10), [Instances.of(masks, [2, 1], crowd=[False, True])])
    (target,) = calls[0][1]
    assert target["labels"].tolist() == [2]
    assert target["boxes"].tolist() == [[3, 2, 9, 5]]
    assert np.array_equal(target["masks"].numpy(), masks[:1])


def test_objects_have_a_mask_and_the_wanted_score():
    model = build_model("maskrcnn", classes=3, **SMALL).eval()
    probabilities = torch.zeros(3, 1, 8, 10)
    probabilities[0, 0, 2:5, 3:9] = 0.6
    probabilities[1] = 0.4  # nowhere above 0.5
    probabilities[2] = 0.9
    detections = {"masks": probabilities, "labels": torch.tensor([2, 1, 1]), "scores": torch.tensor([0.9, 0.8, 0.1])}
    record_calls(model, [detections])
    (objects,) = model(random_images(1, 3, 8, 10))
    assert objects.labels.tolist() == [2, 1]
    assert objects.boxes[0].tolist() == [3, 2, 9, 5]
    (objects,) = model(random_images(1, 3, 8, 10), score=0.5)
    assert objects.labels.tolist() == [2]
