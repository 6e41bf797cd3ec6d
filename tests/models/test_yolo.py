"""YOLOSegmenter: Ultralytics' network and predictions, and its published weights."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from seglib.models import build_model, yolo
from seglib.predict import predict, predict_instances
from tests.helpers.yolo import publish


@pytest.fixture(scope="module")
def model():
    """An untrained network whose outputs depend on the image, because its batch norm has seen one batch."""
    torch.manual_seed(0)
    model = build_model("yolov8n-seg", classes=3, image_size=64)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    model.network(torch.rand(4, 3, 64, 64))
    for layer in model.network.model[-1].cv3:
        torch.nn.init.normal_(layer[-1].weight, std=0.3)
    return model.eval()


def test_number_of_parameters_is_the_published_one():
    """3,409,968 for COCO's 80 classes: Ultralytics' summary of YOLOv8n-seg."""
    assert sum(parameter.numel() for parameter in build_model("yolov8n-seg", classes=81).parameters()) == 3_409_968


def test_instances_are_those_of_ultralytics_own_prediction(model):
    from ultralytics import YOLO

    image = np.random.default_rng(0).integers(0, 256, (67, 101, 3)).astype(np.uint8)  # not of the network's size
    images = torch.from_numpy(image).permute(2, 0, 1)[None]
    direct = YOLO("yolov8n-seg.yaml", task="segment")
    direct.model = model.network
    settings = {"imgsz": 64, "conf": 0.001, "iou": 0.7, "max_det": 300, "retina_masks": True, "verbose": False}
    expected = direct.predict(np.ascontiguousarray(image[..., ::-1]), device="cpu", **settings)[0]
    found = model(images)[0]
    assert len(found) == len(expected.boxes) > 3
    assert np.allclose(found.scores, expected.boxes.conf.numpy(), atol=1e-5)
    assert (found.labels == expected.boxes.cls.numpy() + 1).all()
    assert (found.masks == expected.masks.data.numpy().astype(bool)).mean() > 0.999
    middle = float(np.median(found.scores))
    confident = predict_instances(model, image, middle)
    assert 0 < len(confident) < len(found) and (confident.scores >= middle).all()


def process_state() -> tuple:
    printing = repr(np.get_printoptions()), repr(torch.tensor([1.5, 2e8]))
    return torch.get_rng_state().tolist(), torch.get_num_threads(), printing, Image.open


def test_a_prediction_follows_the_weights_and_leaves_the_process_as_it_was(model):
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    copy = deepcopy(model)
    assert len(copy(images)[0]) > 0
    for layer in copy.network.model[-1].cv3:
        torch.nn.init.constant_(layer[-1].bias, -20.0)
    torch.set_num_threads(2)  # Ultralytics by itself sets the number of cores less one
    try:
        before = process_state()
        assert len(copy(images)[0]) == 0
        assert process_state() == before and before[-1].__module__ == "PIL.Image"
    finally:
        torch.set_num_threads(1)


def test_functions_for_the_other_kind_of_model_are_refused(model):
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(TypeError, match="predict_instances"):
        predict(model, image)
    with pytest.raises(TypeError):
        predict_instances(build_model("unet", 2, base_channels=4), image)


def test_published_weights_are_downloaded_once_and_errors_say_where_they_belong(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(yolo, "_WEIGHTS_URL", server.url(""))
    publish(tmp_path / "yolov8n-seg.pt")
    server.files["/yolov8n-seg.pt"] = (tmp_path / "yolov8n-seg.pt").read_bytes()
    cached = tmp_path / "home/hub/checkpoints/yolov8n-seg.pt"
    weights = build_model("yolov8n-seg", classes=2, weights="coco").network.state_dict()
    assert cached.is_file()
    published = torch.load(tmp_path / "yolov8n-seg.pt", weights_only=False)["model"].state_dict()
    equal = [key for key in published if torch.equal(published[key].float(), weights[key].float())]
    assert len(equal) > 0.9 * len(published)  # all but the last layers of the scores, which have other classes
    with pytest.raises(OSError, match="yolov8s-seg.pt"):
        build_model("yolov8s-seg", classes=2, weights="coco")
    cached.write_bytes(b"half of it")
    with pytest.raises(OSError, match=r"incomplete.*yolov8n-seg.pt"):
        build_model("yolov8n-seg", classes=2, weights="coco")
