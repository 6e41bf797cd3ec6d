"""YOLOv8-seg of Ultralytics, which is imported only here and in `seglib.train_yolo`.

Its license is AGPL-3.0: whoever distributes a program that contains it, or offers one over a network, must publish the
whole source of that program under the same license, or buy another license. Nothing else in seglib depends on it.
"""

import logging
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seglib.files import check_choice
from seglib.instances import Instances
from seglib.masks import mask_to_rle
from seglib.models.common import YOLO_MODELS
from seglib.models.weights import explain_weight_errors

__all__ = ["YOLOSegmenter", "check_image_size", "download_weights", "isolated_ultralytics", "quiet_ultralytics"]

# The release in which Ultralytics publishes its weights (ASSETS_REPO and the tag in its utils/downloads.py), without
# sizes or checksums. A file that is incomplete does not open.
_WEIGHTS_URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
_TRACKERS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
_LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_STRIDE = 32
_MASK_CHUNK = 16  # masks that are computed together


class YOLOSegmenter(nn.Module):
    """YOLOv8-seg (Jocher, Chaurasia and Qiu, 2023), which finds the objects of an image.

    Args:
        name: "yolov8n-seg", "yolov8s-seg", "yolov8m-seg", "yolov8l-seg" or "yolov8x-seg", with 3.4 to 71.8 million
            parameters.
        classes: number of classes, background included as everywhere in seglib, although YOLO has no output for it.
        weights: "coco" for the publisher's weights, trained on COCO; None: from scratch.
        image_size: the longer side, in pixels, to which images are resized inside the model: the one that it was
            trained at. A multiple of 32.

    Attributes:
        settings: name and arguments, enough to build the model again.
        class_names: what its checkpoint knows, see `load_model`.
        image_size: (height, width) to which a square image is resized.

    Raises:
        ValueError: a name, weights, number of classes or image size that does not exist.
        OSError: the weights cannot be loaded; the message says where they belong.
    """

    class_names: list[str] | None
    image_size: tuple[int, int]

    def __init__(self, name: str, classes: int, weights: str | None = None, image_size: int = 640) -> None:
        super().__init__()
        check_choice("name of a YOLO", name, YOLO_MODELS)
        check_choice(f"weights of {name}", weights, (None, "coco"))
        if classes < 2:
            raise ValueError(f"classes must be at least 2, background and one more, not {classes}")
        check_image_size(image_size)
        self.settings: dict[str, Any] = {"name": name, "classes": classes, "image_size": image_size}
        self.class_names = None
        self.image_size = (image_size, image_size)
        with isolated_ultralytics():
            from ultralytics.nn.tasks import SegmentationModel

            self.network = SegmentationModel(f"{name}.yaml", nc=classes - 1, verbose=False)
            if weights:
                self.network.load(_load_ultralytics_file(download_weights(name)), verbose=False)

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
        device = next(self.parameters()).device
        height, width = images.shape[-2:]
        found = []
        for image in images:  # one at a time: the masks of a whole batch, at its own size, could fill a GPU
            resized = self._letterbox(image).to(device)
            rows, prototypes = self._detect(resized, score, iou, max_detections)
            resized_size = (resized.shape[-2], resized.shape[-1])
            found.append(self._to_instances(rows, prototypes, resized_size, (height, width)))
        return found

    def _letterbox(self, image: Tensor) -> Tensor:
        """Resize (3, H, W) to the longer side and pad it to the stride with gray: float (1, 3, h, w) from 0 to 1."""
        from ultralytics.data.augment import LetterBox

        pixels = image.cpu().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        padded = np.asarray(LetterBox(self.image_size, auto=True, stride=_STRIDE)(image=np.ascontiguousarray(pixels)))
        return torch.from_numpy(padded.transpose(2, 0, 1).copy())[None].float() / 255

    def _detect(self, image: Tensor, score: float, iou: float, max_detections: int) -> tuple[Tensor, Tensor]:
        """The objects of an image, (N, 6 + 32): box, score, class, coefficients; and the prototypes (32, h, w)."""
        from ultralytics.utils.nms import non_max_suppression

        outputs = self.network(image)[0]
        rows = non_max_suppression(
            outputs[0],
            score,
            iou,
            max_det=max_detections,
            nc=self.settings["classes"] - 1,
            max_time_img=3600.0,  # the default of 0.05 s drops objects without a warning on a slow machine
        )
        return rows[0], outputs[1][0]

    def _to_instances(
        self, rows: Tensor, prototypes: Tensor, resized_size: tuple[int, int], size: tuple[int, int]
    ) -> Instances:
        """The objects of an image at its own size, without those whose mask is empty.

        The masks are computed a few at a time: three hundred bitmaps of a large photograph would fill a GPU.
        """
        from ultralytics.utils import ops

        rows = rows.clone()
        rows[:, :4] = torch.as_tensor(ops.scale_boxes(resized_size, rows[:, :4], size))
        rles = []
        for chunk in rows.split(_MASK_CHUNK):
            masks = ops.process_mask_native(prototypes, chunk[:, 6:], chunk[:, :4], size)
            rles += [mask_to_rle(mask) for mask in masks.bool().cpu().numpy()]
        numbers = rows.cpu().double().numpy()
        objects = Instances(size, rles, numbers[:, 5].astype(int) + 1, numbers[:, 4])
        return objects.pick(objects.areas > 0)


def check_image_size(image_size: int) -> None:
    """Raise ValueError unless the image size is a positive multiple of the network's stride."""
    if not isinstance(image_size, int) or image_size < _STRIDE or image_size % _STRIDE:
        raise ValueError(f"image_size must be a multiple of {_STRIDE}, {_STRIDE} or more, not {image_size}")


# ------------------------------------------------------------------------------------------------ weights


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
        _load_ultralytics_file(path)
    return path


def _load_ultralytics_file(path: Path) -> nn.Module:
    """The network in a checkpoint of Ultralytics.

    The file is a pickle, which can run any code: open only the publisher's files and your own.
    """
    with isolated_ultralytics():
        from ultralytics.nn.tasks import load_checkpoint

        return load_checkpoint(str(path))[0]


# ------------------------------------------------------------------------------------------------ isolation


def quiet_ultralytics() -> None:
    """Import Ultralytics so that it sends nothing and looks nothing up.

    By default it reports each training to its publisher (`sync`), resolves two host names to find out whether it is
    online, uses every tracker that is installed and, under torchrun, acts as one of several processes. YOLO_OFFLINE and
    YOLO_CONFIG_DIR stay set in the environment, for the worker processes that read images.

    Raises:
        ImportError: Ultralytics is not installed; the message says how to install it.
    """
    if "ultralytics" not in sys.modules:
        os.environ["YOLO_OFFLINE"] = "true"
        os.environ["YOLO_CONFIG_DIR"] = str(_config_dir())
        with _restored_process_state():
            try:
                import ultralytics  # noqa: F401
            except ImportError as error:
                raise ImportError(
                    f"{error}: a YOLO needs Ultralytics; pip install ultralytics-opencv-headless (AGPL-3.0)"
                ) from error
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.events import events

    events.enabled = False
    # Change the settings of this process only: SETTINGS.update() would write the user's settings file.
    dict.update(SETTINGS, dict.fromkeys(("sync", *_TRACKERS), False))


def _config_dir() -> Path:
    """A writable folder for the settings of Ultralytics that is not the user's own."""
    folder = Path(torch.hub.get_dir()) / "ultralytics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="ultralytics-"))
    return folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="ultralytics-"))


@contextmanager
def isolated_ultralytics() -> Iterator[None]:
    """Let Ultralytics build, train or validate inside the block: it logs errors only and downloads nothing unasked.

    By default it downloads a font for its figures, a second network to test mixed precision with, and any file that it
    does not find, which includes every path with an apostrophe. The state of the process is restored at the end.
    """
    quiet_ultralytics()
    from ultralytics.data import utils as data
    from ultralytics.engine import trainer
    from ultralytics.utils import LOGGER, downloads

    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    make_deterministic: Callable[..., object] = torch.use_deterministic_algorithms
    if not torch.cuda.is_available():  # a CPU is deterministic anyway, and the call takes seconds to import a compiler
        make_deterministic = mock.Mock()
    with (
        _restored_process_state(),
        mock.patch.object(torch, "use_deterministic_algorithms", make_deterministic),
        mock.patch.object(data, "check_font", lambda font: None),
        mock.patch.object(trainer, "check_amp", lambda model: True),
        mock.patch.object(downloads, "attempt_download_asset", lambda file, *_, **__: str(file)),
    ):
        try:
            yield
        finally:
            LOGGER.setLevel(level)


@contextmanager
def _restored_process_state() -> Iterator[None]:
    """Restore what Ultralytics changes for the whole process.

    That is the environment, the random number generators, the number of threads, the print options of numpy and torch,
    and some functions of torch and Pillow.
    """
    environment = dict(os.environ)
    for name in _LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
    os.environ["YOLO_VERBOSE"] = "false"
    print_options = np.get_printoptions()
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state()
    torch_save = torch.save
    image_open = Image.open
    torch_threads = torch.get_num_threads()
    cv2_threads = cv2.getNumThreads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name in set(os.environ) - set(environment):
            os.environ.pop(name)
        os.environ.update(environment)
        np.set_printoptions(**print_options)
        torch.set_printoptions(profile="default")
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        torch.save = torch_save
        Image.open = image_open
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
