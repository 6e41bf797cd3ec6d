"""YOLOv8-seg of Ultralytics, which is imported when such a model is built and in the process that trains one.

Its license is AGPL-3.0: whoever distributes a program that contains it, or offers one over a network, must publish the
whole source of that program under the same license, or buy another license. Nothing else in seglib depends on it.
"""

import os
import zipfile
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seglib.files import check_choice
from seglib.instances import Instances
from seglib.masks import mask_to_rle
from seglib.models.weights import explain_weight_errors

__all__ = ["OFFLINE", "YOLOSegmenter", "download_weights", "import_ultralytics"]

# Documented environment variables: Ultralytics looks nothing up, sends and installs nothing, and prints errors only.
OFFLINE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
_WEIGHTS_URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0"


class YOLOSegmenter(nn.Module):
    """YOLOv8-seg (Jocher, Chaurasia and Qiu, 2023), which finds the objects of an image.

    Args:
        name: "yolov8n-seg" (3.4 M parameters), "yolov8s-seg", "yolov8m-seg", "yolov8l-seg" or "yolov8x-seg" (71.8 M).
        classes: number of classes, background included as everywhere in seglib, although YOLO has no output for it.
        weights: "coco" for the publisher's weights, trained on COCO; None: from scratch.
        image_size: the longer side, in pixels, to which images are resized inside the model, a multiple of 32.
        coco_width: set by checkpoints: the training started from "coco", where a branch of the network is wider.

    Attributes:
        network: the network, a `SegmentationModel` of Ultralytics.
        image_size: (height, width) to which a square image is resized.

    Raises:
        ValueError: weights or a number of classes that does not exist.
        OSError: the weights cannot be loaded; the message says where they belong.
    """

    def __init__(
        self, name: str, classes: int, weights: str | None = None, image_size: int = 640, coco_width: bool = False
    ) -> None:
        super().__init__()
        check_choice(f"weights of {name}", weights, (None, "coco"))
        if classes < 2:
            raise ValueError(f"classes must be at least 2, background and one more, not {classes}")
        self.settings: dict[str, Any] = {"name": name, "classes": classes, "image_size": image_size}
        self.settings["coco_width"] = coco_width or weights == "coco"
        self.class_names: list[str] | None = None
        self.image_size = (image_size, image_size)
        ultralytics = import_ultralytics()
        build = partial(ultralytics.nn.tasks.SegmentationModel, f"{name}.yaml", verbose=False)
        self.network: nn.Module = build(nc=classes - 1)
        if weights:
            self.network.load(ultralytics.YOLO(download_weights(name), task="segment").model, verbose=False)
        elif coco_width:
            self.network.load(build(nc=80), verbose=False)
        self._interface: tuple[Any, Any] | None = None

    def as_ultralytics(self) -> Any:
        """Return Ultralytics' interface to the network, a `ultralytics.YOLO`; a new one if the weights have changed."""
        weights = [(value.data_ptr(), value._version) for value in self.network.state_dict().values()]
        if self._interface is None or self._interface[0] != weights:  # it predicts with a copy of them
            with torch.random.fork_rng(devices=[]):  # it draws the weights of a network that is not used
                interface = import_ultralytics().YOLO(f"{self.settings['name']}.yaml", task="segment")
            interface.model = self.network
            self._interface = (weights, interface)  # in a tuple, or it would become a part of this module
        return self._interface[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_interface": None}  # which can be neither copied nor pickled

    @torch.no_grad()
    def forward(self, images: Tensor, score: float = 0.001) -> list[Instances]:
        """Return the objects of each image, at its own size; at most 300, by Ultralytics' default settings.

        Args:
            images: (B, 3, H, W), uint8 or float from 0 to 255, RGB.
            score: leave out objects whose score is lower. AP needs nearly all of them; 0.25 suits a figure.
        """
        settings: dict[str, Any] = {"conf": score, "imgsz": self.image_size, "retina_masks": True, "verbose": False}
        settings["device"] = next(self.parameters()).device
        threads = torch.get_num_threads()
        found = []
        try:
            for image in images:  # one at a time: the masks of a whole batch, at its own size, could fill a GPU
                pixels = image.flip(0).permute(1, 2, 0).clamp(0, 255).to(torch.uint8)  # BGR, as OpenCV reads images
                results = self.as_ultralytics().predict(np.ascontiguousarray(pixels.cpu().numpy()), **settings)
                found.append(_to_instances(results[0]))
        finally:
            torch.set_num_threads(threads)  # Ultralytics sets it to the number of cores less one
        return found


def _to_instances(result: Any) -> Instances:
    masks = () if result.masks is None else torch.as_tensor(result.masks.data)  # None: there is no object
    rles = [mask_to_rle(mask.bool().cpu().numpy()) for mask in masks]
    boxes = torch.as_tensor(result.boxes.data).cpu().double().numpy()  # (N, 6): box, score and class
    return Instances(result.orig_shape, rles, boxes[:, 5].astype(int) + 1, boxes[:, 4])


def download_weights(name: str) -> Path:
    """The path of a YOLO's published weights, downloaded once and cached; OSError says where they belong."""
    path = Path(torch.hub.get_dir(), "checkpoints", f"{name}.pt")  # where torch caches its own downloads
    url = f"{_WEIGHTS_URL}/{name}.pt"
    with explain_weight_errors(f"the COCO weights of {name}", url, path):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        if not zipfile.is_zipfile(path):  # published without a checksum
            raise ValueError("the file is incomplete")
    return path


@cache
def import_ultralytics() -> ModuleType:
    """Import Ultralytics offline, and put back what its import changes of printing, `Image.open` and `torch.save`."""
    os.environ.update(OFFLINE)
    image_open = Image.open
    torch_save = torch.save
    try:
        with np.printoptions():
            import ultralytics.nn.tasks
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'seglib[yolo]', which is under AGPL-3.0") from error
    torch.set_printoptions(profile="default")
    torch.save = torch_save
    Image.open = image_open  # its own asks for another package when an image is damaged
    return ultralytics
