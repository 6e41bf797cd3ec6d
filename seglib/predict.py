"""Predict photographs with a trained model: masks and overlays at the size of each photograph.

    python -m seglib.predict runs/leaves/best_model.pth photos --out results

writes for each photograph results/masks/<name>.png (class indices), results/colors/<name>.png (the same in colors) and
results/overlays/<name>.jpg. The file results/classes.txt lists the color of each class.
"""

import argparse
import functools
import itertools
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seglib import plots
from seglib.files import as_rgb, check_choice, open_image, read_image, write_lines
from seglib.instances import Instances
from seglib.masks import palette, write_index_png
from seglib.models import INSTANCE_MODELS, load_model, logits_to_mask
from seglib.models.common import autocast
from seglib.progress import progress_bar
from seglib.transforms import resize

__all__ = ["SavedPredictions", "predict", "predict_instances", "predict_logits", "save_predictions"]

# The axes of (B, C, H, W) to flip for each view that the logits are averaged over.
_FLIPS: dict[str, list[tuple[int, ...]]] = {"": [()], "h": [(), (3,)], "v": [(), (2,)], "hv": [(), (3,), (2,), (2, 3)]}
_MAX_SIDE = 2048  # pixels: larger images are always predicted in tiles
_TILE = 1024  # pixels, the default side of a tile
_OVERLAP = 128  # pixels that neighboring tiles share, or half a tile if that is less

_STRIP = 128  # rows, in which logits are resized

_Block = tuple[tuple[slice, slice], Tensor]  # rows and columns of an image, and the logits (C, h, w) of these
_ModelLike = nn.Module | str | Path
_ImageLike = np.ndarray | Tensor | str | Path


def predict(
    model: _ModelLike,
    image: _ImageLike,
    size: tuple[int, int] | None = None,
    tile: int | None = None,
    flips: str = "",
    batch_size: int = 8,
    precision: str | None = None,
) -> np.ndarray:
    """Return the class mask of an image at its own size: uint8 (H, W). In tiles, no more than a batch is in memory.

    Tiles suit models that were trained at the scale of the photographs, not on photographs resized as a whole. Each
    gives its middle to the result, which equals that of the whole image, up to rounding, if logits depend on pixels at
    most half of the shared ones away. With a larger receptive field some pixels change, and a model that pools the
    whole image, such as DeepLabV3, gives another result for each tile.

    Args:
        model: a model, which is put into eval mode, or the path of a `best_model.pth`.
        image: uint8 (H, W, 3), a uint8 tensor (3, H, W) as data sets return it, or the path of an image file. Gray,
            RGBA and 16-bit images are converted.
        size: (height, width) to which the image is resized first; the logits are resized back. None: the size that the
            model was trained at, if its checkpoint has one and no `tile` is given; otherwise the image's own size.
        tile: side in pixels of the tiles into which the image is cut after resizing, rounded up to a multiple of the
            model's stride; neighbors share 128 pixels, or half a tile if that is less. None: the whole image at once,
            unless a side is longer than 2048.
        flips: "h", "v" or "hv": average the logits over mirror images as well: left-right, upside down, or both.
        batch_size: the largest number of tiles that go through the model together.
        precision: "fp16" or "bf16": compute in mixed precision, which is faster on a GPU and changes a few pixels.
            None: float32.

    Raises:
        ValueError: a setting out of its range.
        TypeError: the model returns objects, not logits.
    """
    image = _to_array(image)
    mask = np.empty(image.shape[:2], dtype=np.uint8)
    for place, logits in _predict_blocks(model, image, size, tile, flips, batch_size, precision):
        mask[place] = logits_to_mask(logits[None])[0].numpy()
    return mask


def predict_logits(
    model: _ModelLike, image: _ImageLike, size: tuple[int, int] | None = None, **settings: Any
) -> Tensor:
    """Return the logits of an image at its own size: float32 (1, C, H, W), on the CPU. Arguments: see `predict`."""
    image = _to_array(image)
    return _join(_predict_blocks(model, image, size, **settings), image.shape[:2])[None]


def predict_instances(
    model: _ModelLike, image: _ImageLike, score: float = 0.25, precision: str | None = None
) -> Instances:
    """Return the objects of an image at its own size.

    Args:
        model: one of `seglib.models.INSTANCE_MODELS`, or the path of its `best_model.pth`.
        image: see `predict`.
        score: leave out objects whose score is lower, 0 to 1. Use 0 to measure AP.
        precision: see `predict`.

    Raises:
        ValueError: score or precision out of range.
        TypeError: the model returns logits, not objects.
    """
    if not 0 <= score <= 1:
        raise ValueError(f"score must be from 0 to 1, not {score}")
    model = _prepare_model(model)
    if not _finds_objects(model):
        raise TypeError(f"{type(model).__name__} returns logits, not objects: use predict(model, image)")
    images = torch.from_numpy(_to_array(image).transpose(2, 0, 1).copy())[None]
    with torch.no_grad(), autocast(_device(model), precision):
        return model(images.to(_device(model)), score=score)[0]


def _finds_objects(model: nn.Module) -> bool:
    return (getattr(model, "settings", None) or {}).get("name") in INSTANCE_MODELS


def _prepare_model(model: _ModelLike) -> nn.Module:
    """The model in eval mode; one that is loaded from a file is moved to the GPU if there is one."""
    if isinstance(model, str | Path):
        model = load_model(model).to("cuda" if torch.cuda.is_available() else "cpu")
    return model.eval()


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _to_array(image: _ImageLike) -> np.ndarray:
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Tensor):
        image = (image.permute(1, 2, 0) if image.ndim == 3 and len(image) == 3 else image).cpu().numpy()
    return as_rgb(image)


def _predict_blocks(
    model: _ModelLike,
    image: np.ndarray,
    size: tuple[int, int] | None,
    tile: int | None = None,
    flips: str = "",
    batch_size: int = 8,
    precision: str | None = None,
) -> Iterator[_Block]:
    """The logits of an image (H, W, 3) at its own size, block by block."""
    check_choice("flips", flips, _FLIPS)
    if size is not None and np.shape(size) != (2,):
        raise ValueError(f"size must be (height, width), not {size!r}")
    if min(*(size or (1, 1)), 1 if tile is None else tile, batch_size) < 1:
        raise ValueError(f"size, tile and batch_size must be at least 1, not {size}, {tile} and {batch_size}")
    model = _prepare_model(model)
    if _finds_objects(model):
        raise TypeError(f"{type(model).__name__} returns objects, not logits: use predict_instances(model, image)")
    size = size or (None if tile else getattr(model, "image_size", None))
    resized = resize(*size)(image=image)["image"] if size else image
    blocks = _predict_tiles(model, resized, tile, flips, batch_size, precision)
    if resized.shape == image.shape:
        return blocks
    return _resize_logits(_join(blocks, resized.shape[:2]), *image.shape[:2])


def _join(blocks: Iterator[_Block], size: tuple[int, ...]) -> Tensor:
    """The logits (C, H, W) that blocks make up."""
    logits = torch.empty(0)
    for (rows, columns), block in blocks:
        if not len(logits):
            logits = torch.empty(len(block), *size)
        logits[:, rows, columns] = block
    return logits


def _resize_logits(logits: Tensor, height: int, width: int) -> Iterator[_Block]:
    """Logits (C, h, w), resized bilinearly to (C, height, width): a strip of rows at a time, to save memory."""
    last = logits.shape[1] - 1
    centers = ((torch.arange(height) + 0.5) * logits.shape[1] / height - 0.5).clamp(0, last)  # in rows of `logits`
    for start in range(0, height, _STRIP):
        center = centers[start : start + _STRIP]
        above = center.long()
        below = (above + 1).clamp(max=last)
        rows = logits[None, :, above[0] : below[-1] + 1]
        rows = F.interpolate(rows, size=(rows.shape[2], width), mode="bilinear", align_corners=False)[0]
        strip = torch.lerp(rows[:, above - above[0]], rows[:, below - above[0]], (center - above)[:, None])
        yield (slice(start, start + len(center)), slice(0, width)), strip


def _predict_tiles(
    model: nn.Module, image: np.ndarray, tile: int | None, flips: str, batch_size: int, precision: str | None
) -> Iterator[_Block]:
    """The logits of an image (H, W, 3): those of the middles of overlapping tiles, if it has several."""
    height, width = image.shape[:2]
    if tile is None:
        tile = _TILE if max(height, width) > _MAX_SIDE else max(height, width)
    stride = getattr(model, "stride", 32)
    tile = max(2, math.ceil(tile / stride)) * stride
    overlap = min(_OVERLAP, tile // 2)
    tiles = list(itertools.product(*(_tile_spans(side, tile, overlap, stride) for side in (height, width))))
    # A batch at a time, of no more pixels than one large image.
    batch_size = max(1, min(batch_size, _MAX_SIDE**2 // tile**2))
    starts = range(0, len(tiles), batch_size)
    for start in progress_bar(starts, "tiles") if len(tiles) > 1 else starts:
        batch = tiles[start : start + batch_size]
        images = [image[rows.seen, columns.seen] for rows, columns in batch]
        for (rows, columns), logits in zip(batch, _predict_batch(model, images, flips, precision), strict=True):
            yield (rows.kept, columns.kept), logits[:, rows.inner, columns.inner]


@torch.no_grad()
def _predict_batch(model: nn.Module, images: Sequence[np.ndarray], flips: str, precision: str | None) -> list[Tensor]:
    """Logits (C, H, W) of each image (H, W, 3), on the CPU. Images of one size go through the model together."""
    device = _device(model)
    logits: dict[int, Tensor] = {}
    for shape in {image.shape for image in images}:
        indices = [index for index, image in enumerate(images) if image.shape == shape]
        batch = torch.from_numpy(np.stack([images[index] for index in indices])).permute(0, 3, 1, 2).to(device)
        with autocast(device, precision):
            views = (model(batch.flip(axes)).float().flip(axes) for axes in _FLIPS[flips])
            mean = functools.reduce(torch.add, views) / len(_FLIPS[flips])
        logits |= dict(zip(indices, mean.cpu(), strict=True))
    return [logits[index] for index in range(len(images))]


class _Span(NamedTuple):
    """A tile along one side of an image: the pixels it sees, those it is kept for, and the latter within the tile."""

    seen: slice
    kept: slice
    inner: slice


def _tile_spans(length: int, tile: int, overlap: int, stride: int) -> list[_Span]:
    """The tiles along a side of `length` pixels; neighbors share at least `overlap` and meet in the middle of them."""
    # Each begins at a multiple of the stride, so that the model pools the same pixels as in the whole image.
    last = math.ceil(max(length - tile, 0) / stride) * stride
    begins = [*range(0, last, max((tile - overlap) // stride, 1) * stride), last]
    ends = [min(begin + tile, length) for begin in begins]
    cuts = [0, *((end + begin) // 2 for end, begin in zip(ends, begins[1:], strict=False)), length]
    return [
        _Span(slice(begin, end), slice(left, right), slice(left - begin, right - begin))
        for begin, end, left, right in zip(begins, ends, cuts, cuts[1:], strict=False)
    ]


# ------------------------------------------------------------------------------------------------ many files


@dataclass(frozen=True)
class SavedPredictions:
    """The files that `save_predictions` wrote, in the order of the photographs, and the reason for each skipped one."""

    masks: list[Path] = field(default_factory=list)
    colors: list[Path] = field(default_factory=list)
    overlays: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def save_predictions(
    model: _ModelLike,
    photographs: str | Path | Iterable[str | Path],
    out_dir: str | Path,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    *,
    bands: Sequence[int] | None = None,
    white: float | None = None,
    page: int | None = None,
    **settings: Any,
) -> SavedPredictions:
    """Predict photographs and save masks/<name>.png, colors/<name>.png and overlays/<name>.jpg for each.

    Args:
        model: a model, or the path of a `best_model.pth`. For a model that finds objects, masks hold the class of each
            object, overlays have a color for each object, and of the settings only `precision` applies.
        photographs: files and folders (without their sub-folders), or one of either. Files that are not images are
            skipped and named in the result.
        out_dir: the folder to write to.
        classes: names of the classes, background first. None: those of the checkpoint.
        size, settings: as in `predict`.
        bands, white, page: how photographs are read, see `files.read_image`.

    Raises:
        FileNotFoundError: a file or folder that does not exist.
        ValueError: no photographs, two of one name, wrong class names, or photographs in the folders to write to.
    """
    model = _prepare_model(model)
    classes = classes or getattr(model, "class_names", None)
    if classes is None:
        raise ValueError('the model has no class names: pass classes=["background", ...]')
    expected = max(2, (getattr(model, "settings", None) or {}).get("classes", len(classes)))
    if len(classes) != expected and not _finds_objects(model):
        raise ValueError(f"the model predicts {expected} classes, but {len(classes)} are named: {classes}")
    saved = SavedPredictions()
    images = _list_images(photographs, saved.skipped)
    masks, colors, overlays = (Path(out_dir) / kind for kind in ("masks", "colors", "overlays"))
    if {masks.resolve(), colors.resolve(), overlays.resolve()} & {path.resolve().parent for path in images}:
        raise ValueError(f"predictions could overwrite the photographs in {out_dir}: choose another output folder")
    for path in progress_bar(images, "predicting"):
        try:
            image = read_image(path, bands=bands, white=white, page=page)
        except (OSError, ValueError) as error:
            saved.skipped[str(path)] = str(error)
            continue
        mask, overlay = _mask_and_overlay(model, image, size, settings)
        saved.masks.append(masks / f"{path.stem}.png")
        saved.colors.append(colors / f"{path.stem}.png")
        saved.overlays.append(overlays / f"{path.stem}.jpg")
        write_index_png(saved.masks[-1], mask, classes)
        plots.save(plots.color_mask(mask), saved.colors[-1])
        plots.save(overlay, saved.overlays[-1])
    if saved.masks:
        lines = [f"{index} {palette()[index].tobytes().hex()} {name}" for index, name in enumerate(classes)]
        write_lines(Path(out_dir) / "classes.txt", ["class, color as RRGGBB, name", *lines])
    return saved


def _mask_and_overlay(
    model: nn.Module, image: np.ndarray, size: tuple[int, int] | None, settings: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """The class mask of an image, and the image with the mask, or with the objects, drawn over it."""
    if _finds_objects(model):
        objects = predict_instances(model, image, precision=settings.get("precision"))
        return objects.semantic(), plots.draw_instances(image, objects)
    mask = predict(model, image, size, **settings)
    return mask, plots.overlay(image, mask)


def _list_images(photographs: str | Path | Iterable[str | Path], skipped: dict[str, str]) -> list[Path]:
    """The images among the given files and in the given folders, each once; other files are added to `skipped`."""
    given = [photographs] if isinstance(photographs, str | Path) else list(photographs)
    images: dict[Path, Path] = {}
    for top in map(Path, given):
        if not top.exists():
            raise FileNotFoundError(f"no file or folder {top}")
        for path in sorted(top.iterdir()) if top.is_dir() else [top]:
            if path.is_dir() or path.name.startswith("."):
                continue
            try:
                with open_image(path, page=1):  # reads the first bytes only
                    images[path.resolve()] = path
            except ValueError as error:
                if path.suffix.lower() in (".tif", ".tiff"):  # it may have bands that Pillow does not know
                    images[path.resolve()] = path
                else:
                    kind = type(error.__cause__).__name__
                    skipped[str(path)] = f"{path} is not an image that can be read ({kind})"
    if not images and not skipped:
        raise ValueError(f"no photographs in {', '.join(map(str, given)) or 'an empty list'}")
    stems = Counter(path.stem.lower() for path in images.values())
    repeated = ", ".join(str(path) for path in images.values() if stems[path.stem.lower()] > 1)
    if repeated:
        raise ValueError(f"photographs with the same name would have the same mask: {repeated}. Rename one of them")
    return list(images.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 if no photograph could be read. An error exits with 2."""
    parser = argparse.ArgumentParser("python -m seglib.predict", description="Predict photographs with a checkpoint.")
    parser.add_argument("model", metavar="checkpoint", help="the best_model.pth of a run")
    parser.add_argument("photographs", metavar="photos", nargs="+", help="image files and folders of them")
    parser.add_argument("--out", dest="out_dir", required=True, help="the folder for masks/, colors/ and overlays/")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="resize photographs to this size first")
    parser.add_argument("--tile", type=int, help="predict tiles of this many pixels a side, without resizing")
    parser.add_argument("--flips", default="", choices=sorted(_FLIPS), help="average over mirror images as well")
    parser.add_argument("--batch-size", type=int, default=8, help="tiles at a time")
    parser.add_argument("--bands", nargs="+", type=int, help="of the photographs, for red, green, blue; the first is 1")
    parser.add_argument("--white", type=float, help="the value of photographs of more than 8 bits that becomes 255")
    parser.add_argument("--page", type=int, help="of photographs that are stacks, from 1")
    parser.add_argument("--precision", choices=("bf16", "fp16"), help="mixed precision, which is faster on a GPU")
    options = parser.parse_args(arguments)
    try:
        saved = save_predictions(**vars(options))
    except torch.OutOfMemoryError as error:
        parser.exit(2, f"The GPU has too little memory: use --batch-size 1, or --tile 512. ({error})\n")
    except (OSError, ValueError) as error:
        parser.exit(2, f"{type(error).__name__}: {error}\n")
    for reason in saved.skipped.values():
        print("skipped:", reason, file=sys.stderr)
    print(f"{len(saved.masks)} photographs predicted, {len(saved.skipped)} files skipped: see {options.out_dir}")
    return 0 if saved.masks else 1


if __name__ == "__main__":
    sys.exit(main())
