"""YOLOv8-seg of Ultralytics, which is imported only here and in the training process of `seglib.train_yolo`.

Its license is AGPL-3.0: whoever distributes a program that contains it, or offers one over a network, must publish the
whole source of that program under the same license, or buy another license. Nothing else in seglib depends on it.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seglib.files import check_choice, link_or_copy
from seglib.instances import Instances
from seglib.masks import mask_to_rle
from seglib.models.common import YOLO_MODELS
from seglib.models.weights import explain_weight_errors

if TYPE_CHECKING:
    from ultralytics import YOLO
    from ultralytics.engine.results import Results

__all__ = ["COCO_CLASSES", "OFFLINE", "YOLOSegmenter", "check_image_size", "download_weights"]

# Documented environment variables: Ultralytics looks nothing up, sends nothing and installs nothing.
OFFLINE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
# The release in which Ultralytics publishes its weights, without checksums. A file that is incomplete does not open.
_WEIGHTS_URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
COCO_CLASSES = 80
_STRIDE = 32


class YOLOSegmenter(nn.Module):
    """YOLOv8-seg (Jocher, Chaurasia and Qiu, 2023), which finds the objects of an image.

    Args:
        name: "yolov8n-seg", "yolov8s-seg", "yolov8m-seg", "yolov8l-seg" or "yolov8x-seg", with 3.4 to 71.8 million
            parameters.
        classes: number of classes, background included as everywhere in seglib, although YOLO has no output for it.
        weights: "coco" for the publisher's weights, trained on COCO; None: from scratch.
        image_size: the longer side, in pixels, to which images are resized inside the model: the one that it was
            trained at. A multiple of 32.
        pretrained_classes: number of classes, without background, of the network that the training started from. It
            determines the width of one branch. Set by checkpoints; leave it at None otherwise.

    Attributes:
        network: the network, a `SegmentationModel` of Ultralytics.
        settings: name and arguments, enough to build the model again.
        class_names: what its checkpoint knows, see `load_model`.
        image_size: (height, width) to which a square image is resized.

    Raises:
        ValueError: a name, weights, number of classes or image size that does not exist.
        OSError: the weights cannot be loaded; the message says where they belong.
        ImportError: Ultralytics is not installed; the message says how to install it.
    """

    class_names: list[str] | None
    image_size: tuple[int, int]

    def __init__(
        self,
        name: str,
        classes: int,
        weights: str | None = None,
        image_size: int = 640,
        pretrained_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("name of a YOLO", name, YOLO_MODELS)
        check_choice(f"weights of {name}", weights, (None, "coco"))
        if classes < 2:
            raise ValueError(f"classes must be at least 2, background and one more, not {classes}")
        check_image_size(image_size)
        self.settings: dict[str, Any] = {"name": name, "classes": classes, "image_size": image_size}
        self.settings["pretrained_classes"] = COCO_CLASSES if weights else pretrained_classes
        self.class_names = None
        self.image_size = (image_size, image_size)
        tasks = _import_ultralytics().nn.tasks
        self.network: nn.Module = tasks.SegmentationModel(f"{name}.yaml", nc=classes - 1, verbose=False)
        self._wrapper: tuple[list[tuple[int, int]], YOLO] | None = None
        if weights:
            self.network.load(_load_published(download_weights(name)), verbose=False)
        elif pretrained_classes:
            self.network.load(tasks.SegmentationModel(f"{name}.yaml", nc=pretrained_classes, verbose=False))

    def as_ultralytics(self) -> "YOLO":
        """Return Ultralytics' interface to the network, for `predict` and `val`.

        It keeps a copy of the network to predict with, so it is created anew after the weights have changed.
        """
        weights = [(value.data_ptr(), value._version) for value in self.network.state_dict().values()]
        if self._wrapper is None or self._wrapper[0] != weights:
            # Random numbers are drawn for a network that is not used.
            with _restored_process(), torch.random.fork_rng(devices=[]):
                wrapper = _import_ultralytics().YOLO(f"{self.settings['name']}.yaml", task="segment")
            wrapper.model = self.network
            self._wrapper = (weights, wrapper)  # in a tuple, or it would become a part of this module
        return self._wrapper[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the interface, which can be neither copied nor pickled."""
        return {**self.__dict__, "_wrapper": None}

    @torch.no_grad()
    def forward(
        self, images: Tensor, score: float = 0.001, iou: float = 0.7, max_detections: int = 300
    ) -> list[Instances]:
        """Find the objects of each image.

        Args:
            images: (B, 3, H, W), uint8 or float from 0 to 255, RGB.
            score: leave out objects whose score is lower. AP needs nearly all of them; 0.25 suits a figure.
            iou: of two boxes of one class that overlap by more than this IoU, the one with the lower score is dropped
                (non-maximum suppression).
            max_detections: the largest number of objects found in an image.

        Returns:
            The objects of each image, at the size of the image.

        Raises:
            RuntimeError: the model is in training mode.
        """
        if self.training:
            raise RuntimeError("seglib.train_yolo.fit_yolo trains this model; call .eval() first to find objects")
        settings: dict[str, Any] = {"conf": score, "iou": iou, "max_det": max_detections, "retina_masks": True}
        settings |= {"imgsz": self.image_size, "device": next(self.parameters()).device, "verbose": False}
        found = []
        with _restored_process():
            for image in images:  # one at a time: the masks of a whole batch, at its own size, could fill a GPU
                pixels = image.flip(0).permute(1, 2, 0).clamp(0, 255).to(torch.uint8)  # BGR, as OpenCV reads images
                source = np.ascontiguousarray(pixels.cpu().numpy())
                results: Any = self.as_ultralytics().predict(source, **settings)
                found.append(_to_instances(results[0]))
        return found


def _to_instances(result: "Results") -> Instances:
    """Convert the result of an image."""
    height, width = result.orig_shape
    if result.masks is None or result.boxes is None:
        return Instances((height, width), [], np.zeros(0, int), np.zeros(0))
    rles = [mask_to_rle(mask.bool().cpu().numpy()) for mask in torch.as_tensor(result.masks.data)]
    numbers = torch.as_tensor(result.boxes.data).cpu().double().numpy()  # (N, 6): box, score and class
    return Instances((height, width), rles, numbers[:, 5].astype(int) + 1, numbers[:, 4])


def check_image_size(image_size: int) -> None:
    """Raise ValueError unless the image size is a positive multiple of the network's stride."""
    if not isinstance(image_size, int) or image_size < _STRIDE or image_size % _STRIDE:
        raise ValueError(f"image_size must be a multiple of {_STRIDE}, {_STRIDE} or more, not {image_size}")


def download_weights(name: str) -> Path:
    """Return the path of a YOLO's published weights, trained on COCO. They are downloaded once and cached.

    Raises:
        OSError: they cannot be downloaded or opened; the message says where they belong.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", f"{name}.pt")  # where torch caches its own downloads
    url = f"{_WEIGHTS_URL}/{name}.pt"
    with explain_weight_errors(f"the COCO weights of {name}", {path: url}):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        _load_published(path)
    return path


def _load_published(path: Path) -> nn.Module:
    """Return the network in a checkpoint of Ultralytics.

    The file is a pickle, which can run any code: open only the publisher's files and your own.
    """
    with TemporaryDirectory() as folder, _restored_process():
        copy = Path(folder, "weights.pt")  # Ultralytics searches the Internet for a file whose path has an apostrophe
        link_or_copy(path, copy)
        return _import_ultralytics().YOLO(str(copy), task="segment").model


def _import_ultralytics() -> ModuleType:
    """Import Ultralytics offline, with warnings only, and leave the process as it was.

    The import sets environment variables, print options and OpenCV's threads, and replaces functions of torch and
    Pillow, all of which is put back. Settings are stored in a temporary folder, not in the user's file. Where the
    reader has imported Ultralytics already, the reader's settings apply.
    """
    if "ultralytics.nn.tasks" in sys.modules:
        return sys.modules["ultralytics"]
    torch_save = torch.save
    image_open = Image.open
    opencv_threads = cv2.getNumThreads()
    with TemporaryDirectory() as folder, _restored_process(), np.printoptions(), warnings.catch_warnings():
        os.environ.update(OFFLINE, YOLO_CONFIG_DIR=folder, YOLO_VERBOSE="false")
        try:
            import ultralytics.nn.tasks
        except ImportError as error:
            raise ImportError(
                f"{error}: a YOLO needs Ultralytics; pip install ultralytics-opencv-headless (AGPL-3.0)"
            ) from error
        finally:
            torch.set_printoptions(profile="default")  # torch cannot say what they were
            torch.save = torch_save
            Image.open = image_open
            cv2.setNumThreads(opencv_threads)
    logger = logging.getLogger("ultralytics")
    logger.setLevel(logging.WARNING)
    for handler in logger.handlers:
        handler.setLevel(logging.WARNING)
    return ultralytics


@contextmanager
def _restored_process() -> Iterator[None]:
    """Put back the environment variables and the number of threads after the block."""
    before = dict(os.environ)
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
