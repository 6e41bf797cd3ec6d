"""YOLOv8-seg of Ultralytics behind seglib's own door. Only here, and in `seglib.yolo`, is Ultralytics imported.

Its licence is AGPL-3.0: who ships a program that contains it, or lets others use one over a network, owes them that
program's whole source under the same licence, or buys another licence. Nothing else in seglib depends on it.
"""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seglib.instances import Instances
from seglib.models.weights import explained

YOLO = tuple(f"yolov8{scale}-seg" for scale in "nsmlx")
# Where Ultralytics publishes them: ASSETS_REPO and the release's tag in its utils/downloads.py. It publishes neither
# sizes nor checksums with them; a file that is cut short does not open.
PUBLISHED_AT = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
FONTS = ("Arial.ttf", "Arial.Unicode.ttf")  # what it asks for before it trains, and would download
TRACKERS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
STRIDE = 32


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
        quiet_ultralytics()
        from ultralytics.nn.tasks import SegmentationModel

        self.settings = {"name": name, "classes": classes, "image_size": image_size}
        self.class_names, self.image_size = None, (image_size, image_size)
        with hushed():
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
            raise RuntimeError("seglib.yolo.fit_yolo trains this model; to find objects, call .eval() first")
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
        """The objects of an image at its own size; those whose mask is empty there are left out."""
        from ultralytics.utils import ops

        rows = rows.clone()
        rows[:, :4] = ops.scale_boxes(boxed, rows[:, :4], size)
        masks = ops.process_mask_native(prototypes, rows[:, 6:], rows[:, :4], size).bool()
        kept = masks.any(-1).any(-1)
        masks, rows = masks[kept].cpu().numpy(), rows[kept].cpu()
        labels = rows[:, 5].long().numpy() + 1
        return Instances.of(masks, labels, rows[:, 4].double().numpy(), size=size)


def check_side(image_size: int) -> None:
    """Raise ValueError for a side that the network's stride does not divide."""
    if not isinstance(image_size, int) or image_size < STRIDE or image_size % STRIDE:
        raise ValueError(f"image_size must be a multiple of {STRIDE}, {STRIDE} or more, not {image_size}")


# ------------------------------------------------------------------------------------------------ weights


def weights_file(name: str) -> Path:
    """Where the publisher's weights belong: beside those that torch fetches."""
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{name}.pt"


def fetch_weights(name: str) -> Path:
    """The publisher's weights of a YOLO, trained on COCO; downloaded once.

    Raises:
        OSError: they cannot be had; says which file, from where, and where it belongs.
    """
    path, address = weights_file(name), f"{PUBLISHED_AT}/{name}.pt"
    with explained(f"weights 'coco' for {name}", {path: address}):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path), progress=False)
        torch_load(path)
    return path


def torch_load(path: Path) -> nn.Module:
    """The network in a file of Ultralytics'. The file is a pickle, which can run anything: only the publisher's own, or
    one that you have trained, is to be opened."""
    quiet_ultralytics()
    from ultralytics.nn.tasks import load_checkpoint

    return load_checkpoint(str(path))[0]


# ------------------------------------------------------------------------------------------------ silence


def quiet_ultralytics() -> ModuleType:
    """Import Ultralytics so that it sends nothing, looks nothing up, and leaves this process's settings as they were.

    By itself it reports each training to its publisher (`sync`), resolves two names to see whether it is online, asks
    for a font, turns on whatever trackers are installed, changes how numpy and torch print, and, under torchrun, takes
    itself for one of several processes.
    """
    if "ultralytics" not in sys.modules:
        os.environ["YOLO_OFFLINE"], os.environ["YOLO_CONFIG_DIR"] = "true", str(config_home())
        with left_alone():
            try:
                import ultralytics
            except ImportError as error:
                raise ImportError(
                    f"{error}: a YOLO needs pip install ultralytics-opencv-headless (AGPL-3.0)"
                ) from error
    import ultralytics
    from matplotlib import get_data_path
    from ultralytics.utils import SETTINGS, USER_CONFIG_DIR
    from ultralytics.utils.events import events

    events.enabled = False
    dict.update(SETTINGS, dict.fromkeys(("sync", *TRACKERS), False))  # of this process: the file is the reader's own
    for font in FONTS:
        if not (USER_CONFIG_DIR / font).is_file():
            shutil.copyfile(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", USER_CONFIG_DIR / font)
    return ultralytics


def config_home() -> Path:
    """A folder for Ultralytics' settings and fonts that can be written to; never the reader's own."""
    folder = Path(torch.hub.get_dir()) / "ultralytics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="ultralytics-"))
    return folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="ultralytics-"))


@contextmanager
def hushed() -> Iterator[None]:
    """Let Ultralytics say only what went wrong."""
    quiet_ultralytics()
    from ultralytics.utils import LOGGER

    before = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(before)


@contextmanager
def left_alone() -> Iterator[None]:
    """Put back what the import of Ultralytics changes."""
    launched: dict[str, Any] = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "YOLO_VERBOSE")}
    os.environ["YOLO_VERBOSE"] = "false"
    printing, save = np.get_printoptions(), torch.save
    try:
        yield
    finally:
        os.environ.update(launched)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        np.set_printoptions(**printing)
        torch.set_printoptions(profile="default")
        torch.save = save
