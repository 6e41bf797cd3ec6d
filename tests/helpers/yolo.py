"""A file like Ultralytics' published weights, whose network finds an object on every image."""

from pathlib import Path

import torch

from seglib.models import build_model


def publish(path: Path) -> None:
    """Write an untrained network for COCO's 80 classes in half precision, the first of which is "building".

    Its batch norm has seen one batch, so that its scores differ clearly. Only its largest cells find objects; each box
    reaches 0.85 of a cell to each side of the center of its cell, and the masks fill their boxes.
    """
    torch.manual_seed(0)
    network = build_model("yolov8n-seg", classes=81).network
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    network(torch.rand(4, 3, 64, 64))
    head = network.model[-1]
    distance = torch.tensor([0.15, 0.85, *14 * [1e-9]]).log()  # of being 0, 1 ... cells
    with torch.no_grad():
        for boxes, scores, bias, coefficients in zip(head.cv2, head.cv3, (-20.0, -20.0, 0.0), head.cv4, strict=True):
            scores[-1].bias.fill_(bias)
            boxes[-1].weight.zero_()
            boxes[-1].bias.copy_(distance.repeat(4))
            coefficients[-1].weight.zero_()
            coefficients[-1].bias.fill_(1.0)
        head.proto.cv3.bn.bias.fill_(5.0)  # prototypes above 0
    network.names = {0: "building", **{number: str(number) for number in range(1, 80)}}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": network.half(), "train_args": {}, "date": "", "version": "8"}, path)
