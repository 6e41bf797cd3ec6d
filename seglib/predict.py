"""A trained model and photographs -> masks and overlays at the photograph's own size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from seglib import plots
from seglib.files import image_files, read_image, written_aside
from seglib.masks import write_index_png
from seglib.models import logits_to_mask
from seglib.transforms import resize


@torch.no_grad()
def predict_logits(model: nn.Module, image: np.ndarray, size: tuple[int, int] | None = None) -> Tensor:
    """Logits (1, C, H, W), float32, for one photograph, at its own size.

    Args:
        image: uint8 (H, W, 3).
        size: (height, width) to bring the photograph to first. None: what the model was trained at, where the
            checkpoint says so, else the photograph's own.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 (H, W, 3), not {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    size = size or getattr(model, "image_size", None) or (height, width)
    model.eval()
    seen = resize(*size)(image=image)["image"]
    batch = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1)))[None]
    logits = model(batch.to(next(model.parameters()).device)).float()
    return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)


def predict(model: nn.Module, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """The class mask of one photograph, uint8 (H, W), at its own size: the logits are resized, then decided.

    Args:
        image: uint8 (H, W, 3).
        size: see `predict_logits`.
    """
    return logits_to_mask(predict_logits(model, image, size))[0].cpu().numpy()


@dataclass(frozen=True)
class Saved:
    """What `save_predictions` wrote: masks and overlays; and the files that were no images, with the reason."""

    masks: list[Path]
    overlays: list[Path]
    skipped: dict[str, str]


def save_predictions(
    model: nn.Module,
    photographs: str | Path | Iterable[str | Path],
    out_dir: str | Path,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
) -> Saved:
    """Predict photographs and save, under their own names, masks/<name>.png and overlays/<name>.jpg.

    Args:
        photographs: a folder, or files. A file that is no image is skipped and named in the result.
        classes: their names, background first. None: those of the checkpoint.
        size: see `predict_logits`.

    Raises:
        FileNotFoundError, ValueError: no photograph there; two of one name; no class names.
    """
    classes = classes or getattr(model, "class_names", None)
    if classes is None:
        raise ValueError('the model does not know its class names: give classes=["background", ...]')
    if isinstance(photographs, str | Path):
        path = Path(photographs)
        if not path.exists():
            raise FileNotFoundError(f"no file or folder {path}")
        photographs = image_files(path).values() if path.is_dir() else [path]
    paths = [Path(path) for path in photographs]
    if not paths:
        raise ValueError("no photograph to predict")
    if len({path.stem for path in paths}) < len(paths):
        raise ValueError("two photographs share a name, and so would their masks: predict them into two folders")
    out_dir, saved = Path(out_dir), Saved([], [], {})
    for path in paths:
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            saved.skipped[str(path)] = str(error)
            continue
        mask = predict(model, image, size)
        saved.masks.append(out_dir / "masks" / f"{path.stem}.png")
        saved.overlays.append(out_dir / "overlays" / f"{path.stem}.jpg")
        write_index_png(saved.masks[-1], mask, classes)
        with written_aside(saved.overlays[-1]) as aside:
            Image.fromarray(plots.overlay(image, mask)).save(aside, quality=92)
    return saved
