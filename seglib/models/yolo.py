"""YOLOv8-seg of Ultralytics behind seglib's own door. Only here, and in `seglib.train_yolo`, is Ultralytics imported.

Its licence is AGPL-3.0: who ships a program that contains it, or lets others use one over a network, owes them that
program's whole source under the same licence, or buys another licence. Nothing else in seglib depends on it.
"""

import logging
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seglib.instances import Instances
from seglib.masks import mask_to_rle
from seglib.models.weights import explained

YOLO = tuple(f"yolov8{scale}-seg" for scale in "nsmlx")
# Where Ultralytics publishes them: ASSETS_REPO and the release's tag in its utils/downloads.py. It publishes neither
# sizes nor checksums with them; a file that is cut short does not open.
PUBLISHED_AT = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
TRACKERS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
STRIDE = 32
AT_ONCE = 16  # masks that are drawn together


class YOLOSegmenter(nn.Module):
    """A YOLOv8-seg (Jocher, Chaurasia and Qiu, 2023), which says where each object of an image is.

    Args:
        name: "yolov8n-seg" to "yolov8x-seg", from 3.4 to 71.8 million parameters.
        classes: background included, as everywhere in seglib, though YOLO has no output for it.
        weights: "coco" for those that the publisher trained on COCO; None: from random numbers.
        image_size: the longer side that images are brought to before the network sees them: what it was trained at.

    Attributes:
        settings: name and arguments, enough to build it again. class_names, image_size: what training knew.
    """

    def __init__(self, name: str, classes: int, weights: str | None = None, image_size: int = 640) -> None:
        super().__init__()
        if name not in YOLO:
            raise ValueError(f"no YOLO {name!r}; there are {', '.join(YOLO)}")
        if classes < 2:
            raise ValueError(f"{classes} classes: background is one of them, so that there are two or more")
        if weights not in (None, "coco"):
            raise ValueError(f"no weights {weights!r} for {name}: there are 'coco', and None for random numbers")
        check_side(image_size)
        self.settings = {"name": name, "classes": classes, "image_size": image_size}
        self.class_names, self.image_size = None, (image_size, image_size)
        with at_work():
            from ultralytics.nn.tasks import SegmentationModel

            self.network = SegmentationModel(f"{name}.yaml", nc=classes - 1, verbose=False)
            if weights:
                self.network.load(torch_load(fetch_weights(name)), verbose=False)

    @torch.no_grad()
    def forward(self, images: Tensor, score: float = 0.001, iou: float = 0.7, most: int = 300) -> list[Instances]:
        """Find objects.

        Args:
            images: (B, 3, H, W), uint8 or float 0-255, RGB.
            score: leave out what it is less sure of. AP wants next to all; a picture, those above 0.25.
            iou: of two boxes of one class that overlap by more, the less sure one is dropped (non-maximum suppression).
            most: objects in an image.

        Returns:
            The objects of each image, at the image's own size.
        """
        if self.training:
            raise RuntimeError("seglib.train_yolo.fit_yolo trains this model; to find objects, call .eval() first")
        device = next(self.parameters()).device
        height, width = images.shape[-2:]
        found = []
        for image in images:  # one by one: the masks of a whole batch, at its own size, could fill a GPU
            picture = self._letterboxed(image).to(device)
            rows, prototypes = self._detect(picture, score, iou, most)
            found.append(self._as_instances(rows, prototypes, tuple(picture.shape[-2:]), (height, width)))
        return found

    def _letterboxed(self, image: Tensor) -> Tensor:
        """Resize (3, H, W) to the longer side, pad to the stride with grey: float (1, 3, h, w), 0-1."""
        from ultralytics.data.augment import LetterBox

        pixels = image.cpu().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        boxed = LetterBox(self.image_size, auto=True, stride=STRIDE)(image=np.ascontiguousarray(pixels))
        return torch.from_numpy(boxed.transpose(2, 0, 1).copy())[None].float() / 255

    def _detect(self, picture: Tensor, score: float, iou: float, most: int) -> tuple[Tensor, Tensor]:
        """The rows of an image's objects, (N, 6 + 32): box, score, class, coefficients; and prototypes (32, h, w)."""
        from ultralytics.utils.nms import non_max_suppression

        outputs = self.network(picture)[0]
        rows = non_max_suppression(
            outputs[0],
            score,
            iou,
            max_det=most,
            nc=self.settings["classes"] - 1,
            max_time_img=3600.0,  # after 0.05 s, on a slow machine, it would drop the rest without a word
        )
        return rows[0], outputs[1][0]

    def _as_instances(
        self, rows: Tensor, prototypes: Tensor, boxed: tuple[int, int], size: tuple[int, int]
    ) -> Instances:
        """The objects of an image at its own size, a few at a time: three hundred bitmaps of a large photograph would
        fill a GPU. Those whose mask is empty are left out."""
        from ultralytics.utils import ops

        rows = rows.clone()
        rows[:, :4] = ops.scale_boxes(boxed, rows[:, :4], size)
        rles = []
        for few in rows.split(AT_ONCE):
            masks = ops.process_mask_native(prototypes, few[:, 6:], few[:, :4], size)
            rles += [mask_to_rle(mask) for mask in masks.bool().cpu().numpy()]
        rows = rows.cpu().double().numpy()
        found = Instances(size, rles, rows[:, 5].astype(int) + 1, rows[:, 4])
        return found.pick(found.areas > 0)


def check_side(image_size: int) -> None:
    """Raise ValueError for a side that the network's stride does not divide."""
    if not isinstance(image_size, int) or image_size < STRIDE or image_size % STRIDE:
        raise ValueError(f"image_size must be a multiple of {STRIDE}, {STRIDE} or more, not {image_size}")


# ------------------------------------------------------------------------------------------------ weights


def fetch_weights(name: str) -> Path:
    """The publisher's weights of a YOLO, trained on COCO; downloaded once.

    Raises:
        OSError: they cannot be had; says which file, from where, and where it belongs.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", f"{name}.pt")  # beside those that torch fetches
    address = f"{PUBLISHED_AT}/{name}.pt"
    with explained(f"weights 'coco' for {name}", {path: address}):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path), progress=False)
        torch_load(path)
    return path


def torch_load(path: Path) -> nn.Module:
    """The network in a file of Ultralytics'. The file is a pickle, which can run anything: only the publisher's own, or
    one that you have trained, is to be opened."""
    with at_work():
        from ultralytics.nn.tasks import load_checkpoint

        return load_checkpoint(str(path))[0]


# ------------------------------------------------------------------------------------------------ silence


def quiet_ultralytics() -> None:
    """Import Ultralytics so that it sends nothing and looks nothing up.

    By itself it reports each training to its publisher (`sync`), resolves two names to see whether it is online, turns
    on whatever trackers are installed and, under torchrun, takes itself for one of several processes. YOLO_OFFLINE and
    YOLO_CONFIG_DIR stay set in the environment, for the workers that read images.
    """
    if "ultralytics" not in sys.modules:
        os.environ["YOLO_OFFLINE"], os.environ["YOLO_CONFIG_DIR"] = "true", str(config_home())
        with left_alone():
            try:
                import ultralytics  # noqa: F401
            except ImportError as error:
                raise ImportError(
                    f"{error}: a YOLO needs pip install ultralytics-opencv-headless (AGPL-3.0)"
                ) from error
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.events import events

    events.enabled = False
    dict.update(SETTINGS, dict.fromkeys(("sync", *TRACKERS), False))  # of this process: the file is the reader's own


def config_home() -> Path:
    """A folder for Ultralytics' settings that can be written to; never the reader's own."""
    folder = Path(torch.hub.get_dir()) / "ultralytics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="ultralytics-"))
    return folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="ultralytics-"))


@contextmanager
def at_work() -> Iterator[None]:
    """Let Ultralytics build, train or measure: it says only what went wrong, and downloads nothing of its own accord.

    It would download a font to write on pictures with, a second network to try half precision on, and any file that it
    does not find, for which it is enough that the path has an apostrophe in it.
    """
    quiet_ultralytics()
    from ultralytics.data import utils as data
    from ultralytics.engine import trainer
    from ultralytics.utils import LOGGER, downloads

    level, sure = LOGGER.level, torch.use_deterministic_algorithms
    LOGGER.setLevel(logging.ERROR)
    if not torch.cuda.is_available():  # a CPU is deterministic as it is, and the call imports a compiler for seconds
        sure = mock.Mock()
    with (
        left_alone(),
        mock.patch.object(torch, "use_deterministic_algorithms", sure),
        mock.patch.object(data, "check_font", lambda font: None),
        mock.patch.object(trainer, "check_amp", lambda model: True),
        mock.patch.object(downloads, "attempt_download_asset", lambda file, *_, **__: str(file)),
    ):
        try:
            yield
        finally:
            LOGGER.setLevel(level)


@contextmanager
def left_alone() -> Iterator[None]:
    """Put back what Ultralytics changes for the whole process: environment, random numbers, threads, how numpy and
    torch print, and some functions of torch and Pillow."""
    environment = dict(os.environ)
    for name in LAUNCHED:
        os.environ.pop(name, None)
    os.environ["YOLO_VERBOSE"] = "false"
    printing, drawn = np.get_printoptions(), (random.getstate(), np.random.get_state(), torch.get_rng_state())
    save, opening, threads, cv2_threads = torch.save, Image.open, torch.get_num_threads(), cv2.getNumThreads()
    sure, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name in set(os.environ) - set(environment):
            os.environ.pop(name)
        os.environ.update(environment)
        np.set_printoptions(**printing)
        torch.set_printoptions(profile="default")
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        torch.set_rng_state(drawn[2])
        torch.save, Image.open = save, opening
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
        if torch.are_deterministic_algorithms_enabled() != sure:
            torch.use_deterministic_algorithms(sure)
        torch.backends.cudnn.benchmark = benchmark
