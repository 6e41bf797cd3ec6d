"""A trained model and photographs -> masks and overlays at the photograph's own size.

    python -m seglib.predict runs/leaves/best_model.pth photos --out results

writes, for each photograph, results/masks/<name>.png (class indices), results/colours/<name>.png (the same in colours)
and results/overlays/<name>.jpg; results/classes.txt says which colour is which class.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from seglib import plots
from seglib.files import as_rgb, atomic_path, read_image
from seglib.instances import Instances
from seglib.masks import palette, write_index_png
from seglib.models import INSTANCES, load_model, logits_to_mask
from seglib.models.yolo import YOLOSegmenter
from seglib.progress import progress_bar
from seglib.transforms import resize

FLIPS = {"": [()], "h": [(), (3,)], "v": [(), (2,)], "hv": [(), (3,), (2,), (2, 3)]}  # axes of (B, C, H, W) to mirror
WHOLE = 2048  # pixels a side: a larger picture is cut into tiles unasked, and so many go through at a time
TILE, OVERLAP = 1024, 128  # pixels
Photograph = np.ndarray | str | Path


@dataclass(frozen=True)
class How:
    """How a photograph is brought to a model, and its logits back.

    Args:
        size: (height, width) to bring a photograph to first. None: what the model was trained at, where its checkpoint
            says so and no tile is asked for; else the photograph's own.
        tile: side in pixels of the tiles that a picture is cut into, after `size`, rounded up to what the model's
            stride allows. None: the whole picture at once, unless a side is longer than 2048.
        overlap: pixels that neighbouring tiles share, at most half a tile; None: 128, or half a smaller tile. A quarter
            of it, at a tile's edge, is not used: there the model sees too little around a pixel. Over the middle half
            one tile fades into the other.
        flips: "h", "v" or "hv": the mean over the picture and its mirror images, left-right, upside down, or both.
        batch_size: pictures or tiles of one size that go through the model together, at most; large ones go alone.

    How much the size of the tiles changes: nothing but rounding where a model's view of a pixel reaches no further than
    a quarter of the overlap. Where it reaches further, what lies at the rim of its view weighs little: with the usual
    overlap of 128 and tiles of 256 or more, the trained U-Net of the tests, which sees 119 pixels far, gives the class
    of the whole picture on more than 99 of 100 pixels. A model that looks at the whole picture, as DeepLabV3 does in
    its pooled branch, sees another one in each tile, and there is no such promise.

    Tiles show a model objects at the photograph's own scale: they are for models that were trained at that scale, not
    on photographs shrunk as a whole.
    """

    size: tuple[int, int] | None = None
    tile: int | None = None
    overlap: int | None = None
    flips: str = ""
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.size is not None and (not isinstance(self.size, Sequence) or len(self.size) != 2):
            raise ValueError(f"size is (height, width), not {self.size!r}")
        numbers = [*(self.size or ()), self.tile or 1, self.batch_size]
        if min(numbers) < 1 or self.tile == 0:
            raise ValueError(f"size, tile and batch_size must be at least 1: {self}")
        if self.flips not in FLIPS:
            raise ValueError(f"no flips {self.flips!r}; there are h, v and hv")
        if self.overlap is not None and not 0 <= self.overlap <= (self.tile or TILE) // 2:
            raise ValueError(f"tiles overlap by 0 to half their side ({(self.tile or TILE) // 2}), not {self.overlap}")


# ------------------------------------------------------------------------------------------------ one photograph


def predict(model: nn.Module | str | Path, image: Photograph, size: tuple[int, int] | None = None, **how) -> np.ndarray:
    """The class mask of one photograph, uint8 (H, W), at its own size: the logits are resized, then decided.

    Args:
        model: a model, which is put into eval mode, or the path of a `best_model.pth`.
        image: uint8 (H, W, 3), or an image file; grey, RGBA and 16-bit ones are converted.
        size, how: see `How`: tile=512, flips="h" and others.
    """
    return logits_to_mask(predict_logits(model, image, size, **how))[0].numpy()


def predict_logits(
    model: nn.Module | str | Path, image: Photograph, size: tuple[int, int] | None = None, **how
) -> Tensor:
    """The logits behind `predict`: float32 (1, C, H, W), on the CPU, at the photograph's own size."""
    return next(_all_logits(_ready(model), [_pixels(image)], How(size, **how)))


def predict_instances(model: nn.Module | str | Path, image: Photograph, score: float = 0.25) -> Instances:
    """The objects of one photograph, at its own size.

    Args:
        model: a model that finds objects (`seglib.models.INSTANCES`), or the path of its `best_model.pth`.
        image: as of `predict`, or a uint8 (3, H, W) tensor, as data sets have it.
        score: leave out objects that the model is less sure of, 0 to 1; 0 for those that AP is measured on.
    """
    if not 0 <= score <= 1:
        raise ValueError(f"a score lies between 0 and 1, not at {score}")
    model = _ready(model)
    if not finds_objects(model):
        raise TypeError(f"{type(model).__name__} finds no objects, but classes of pixels: predict(model, image)")
    pixels = torch.from_numpy(_pixels(image).transpose(2, 0, 1).copy())
    pixels = pixels[None].to(next(model.parameters()).device)
    with torch.no_grad():
        found = model(pixels, score=score) if isinstance(model, YOLOSegmenter) else model(pixels)
    return found[0].above(score)


def finds_objects(model: nn.Module) -> bool:
    """Whether a model answers with objects, not with logits."""
    return (getattr(model, "settings", None) or {}).get("name") in INSTANCES


def _ready(model: nn.Module | str | Path) -> nn.Module:
    """A model in eval mode, loaded if need be, and then on a GPU where there is one."""
    if isinstance(model, str | Path):
        model = load_model(model).to("cuda" if torch.cuda.is_available() else "cpu")
    return model.eval()


def _pixels(image: Photograph) -> np.ndarray:
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 3:  # as data sets give them
        image = image.permute(1, 2, 0).cpu().numpy()
    return read_image(image) if isinstance(image, str | Path) else as_rgb(image)


def _all_logits(model: nn.Module, images: Sequence[np.ndarray], how: How) -> Iterator[Tensor]:
    """Logits (1, C, H, W) of each image; pictures of one size go through the model together."""
    if finds_objects(model):
        raise TypeError(f"{type(model).__name__} finds objects, which have no logits: predict_instances(model, image)")
    size = how.size or (None if how.tile else getattr(model, "image_size", None))
    pictures = [resize(*size)(image=image)["image"] if size else image for image in images]
    whole = [number for number, picture in enumerate(pictures) if max(picture.shape[:2]) <= (how.tile or WHOLE)]
    seen = dict(zip(whole, _in_batches(model, [pictures[number] for number in whole], how), strict=True))
    for number, (image, picture) in enumerate(zip(images, pictures, strict=True)):
        logits = seen[number] if number in seen else _tiled(model, picture, how)
        logits = logits[None]
        if logits.shape[2:] != image.shape[:2]:
            logits = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
        yield logits


@torch.no_grad()
def _in_batches(model: nn.Module, pictures: Sequence[np.ndarray], how: How) -> list[Tensor]:
    """Logits (C, H, W) of each picture (H, W, 3), at its size, on the CPU."""
    device, logits = next((parameter.device for parameter in model.parameters()), "cpu"), {}
    alike = defaultdict(list)
    for number, picture in enumerate(pictures):
        alike[picture.shape].append(number)
    for (height, width, _), numbers in alike.items():
        at_a_time = max(1, min(how.batch_size, WHOLE**2 // (height * width)))
        for start in range(0, len(numbers), at_a_time):
            batch = numbers[start : start + at_a_time]
            images = torch.from_numpy(np.stack([pictures[number] for number in batch])).permute(0, 3, 1, 2).to(device)
            views = [model(images.flip(axes)).float().flip(axes) for axes in FLIPS[how.flips]]
            logits |= dict(zip(batch, torch.stack(views).mean(dim=0).cpu(), strict=True))
    return [logits[number] for number in range(len(pictures))]


# ------------------------------------------------------------------------------------------------ tiles


def _tiled(model: nn.Module, picture: np.ndarray, how: How) -> Tensor:
    """Logits (C, H, W) of a large picture, from tiles of it that fade into one another."""
    stride = getattr(model, "stride", 32)
    tile = max(2, -(-(how.tile or TILE) // stride)) * stride
    overlap = min(OVERLAP, tile // 2) if how.overlap is None else how.overlap
    rows, columns = (spans(length, tile, overlap, stride) for length in picture.shape[:2])
    boxes = [(row, column) for row in rows for column in columns]
    total: Tensor | None = None
    # batch by batch, for all logits of all tiles at once could be too many
    for start in progress_bar(range(0, len(boxes), how.batch_size), "tiles"):
        some = boxes[start : start + how.batch_size]
        logits = _in_batches(model, [picture[slice(*row), slice(*column)] for row, column in some], how)
        for (row, column), of_tile in zip(some, logits, strict=True):
            if total is None:
                total = torch.zeros(len(of_tile), *picture.shape[:2])
                weights = torch.zeros(picture.shape[:2])
            weight = window(*row, picture.shape[0], overlap)[:, None] * window(*column, picture.shape[1], overlap)
            total[:, slice(*row), slice(*column)] += weight * of_tile
            weights[slice(*row), slice(*column)] += weight
    return total.div_(weights)


def spans(length: int, tile: int, overlap: int, stride: int) -> list[tuple[int, int]]:
    """Where tiles begin and end along one side, so that neighbours share `overlap` pixels or more.

    Each begins at a multiple of the stride: there the model halves a tile as it halves the whole picture.
    """
    last = -(-max(length - tile, 0) // stride) * stride
    step = max((tile - overlap) // stride, 1) * stride
    return [(begin, min(begin + tile, length)) for begin in [*range(0, last, step), last]]


def window(begin: int, end: int, length: int, overlap: int) -> Tensor:
    """How much each pixel of a tile counts along one side, (end - begin,): 1, and less next to a neighbour.

    Over an overlap: a quarter of nothing, half a rise (a squared sine, to which a neighbour's fall adds up to 1), a
    quarter of 1. No fall where the tile ends with the picture.
    """
    weight = torch.ones(end - begin)
    if overlap:
        rise = ((torch.arange(overlap) + 0.5) / overlap * 2 - 0.5).clamp(0, 1)
        rise = (rise * torch.pi / 2).sin() ** 2
        if begin > 0:
            weight[:overlap] = rise
        if end < length:
            weight[-overlap:] *= rise.flip(0)
    return weight


# ------------------------------------------------------------------------------------------------ many photographs


@dataclass(frozen=True)
class Saved:
    """What `save_predictions` wrote, in the order of the photographs, and why it skipped what was no image."""

    masks: list[Path] = field(default_factory=list)
    colours: list[Path] = field(default_factory=list)
    overlays: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def save_predictions(
    model: nn.Module | str | Path,
    photographs: str | Path | Iterable[str | Path],
    out_dir: str | Path,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    **how,
) -> Saved:
    """Predict photographs and save, under their own names, masks/<name>.png, colours/<name>.png, overlays/<name>.jpg.

    Args:
        model: a model, or the path of a `best_model.pth`.
        photographs: files and folders, or one of either; of a folder all its files, but not those of folders in it. A
            file that is no image is skipped and named in the result.
        classes: their names, background first. None: those of the checkpoint.
        size, how: see `How`: tile=512, flips="h" and others.

    Raises:
        FileNotFoundError, ValueError: no photograph there; two of one name; no class names; an output that would
            overwrite a photograph.

    Of a model that finds objects, masks hold each object's class, overlays a colour an object; `how` does not apply.
    """
    model, how = _ready(model), How(size, **how)
    classes = classes or getattr(model, "class_names", None)
    if classes is None:
        raise ValueError('the model does not know its class names: give classes=["background", ...]')
    saved = Saved()
    names = _names(_files(photographs), Path(out_dir), saved)
    paths = list(names)
    for start in progress_bar(range(0, len(paths), how.batch_size), "predicting"):
        images = {}
        for path in paths[start : start + how.batch_size]:
            try:
                images[path] = read_image(path)
            except (OSError, ValueError) as error:
                saved.skipped[str(path)] = str(error)
        answers = _answers(model, list(images.values()), how, classes)
        for path, (mask, laid_over) in zip(images, answers, strict=True):
            _save(saved, Path(out_dir), names[path], mask, laid_over, classes)
    return saved


def _answers(
    model: nn.Module, images: Sequence[np.ndarray], how: How, classes: Sequence[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The class mask of each image, uint8 (H, W), and it or its objects laid over the image, uint8 (H, W, 3)."""
    if finds_objects(model):
        for image in images:
            found = predict_instances(model, image)
            yield found.semantic(), plots.objects(image, found)
        return
    for image, logits in zip(images, _all_logits(model, images, how), strict=True):
        told_apart = max(2, logits.shape[1])
        if len(classes) != told_apart:
            raise ValueError(f"the model tells {told_apart} classes apart, and {len(classes)} are named: {classes}")
        mask = logits_to_mask(logits)[0].numpy()
        yield mask, plots.overlay(image, mask)


def _files(photographs: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files that were named, and those in the folders that were, each once."""
    given = [photographs] if isinstance(photographs, str | Path) else list(photographs)
    files: dict[Path, Path] = {}
    for path in map(Path, given):
        if not path.exists():
            raise FileNotFoundError(f"no file or folder {path}")
        inside = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        files |= {file.resolve(): file for file in inside if file == path or not file.name.startswith(".")}
    if not files:
        raise ValueError(f"no photograph to predict in {', '.join(map(str, given)) or 'an empty list'}")
    return list(files.values())


def _names(files: Sequence[Path], out_dir: Path, saved: Saved) -> dict[Path, str]:
    """What the outputs of each photograph are called: as it is, and with its suffix where two would be called alike."""
    photographs = []
    for path in files:
        try:
            with Image.open(path):  # its first bytes only
                photographs.append(path)
        except Exception as error:  # a damaged file can make a decoder raise anything
            saved.skipped[str(path)] = f"{path} is no image that can be read ({type(error).__name__})"
    stems = Counter(path.stem.lower() for path in photographs)
    names = {path: path.stem if stems[path.stem.lower()] == 1 else path.name for path in photographs}
    used = Counter(name.lower() for name in names.values())
    alike = ", ".join(str(path) for path, name in names.items() if used[name.lower()] > 1)
    if alike:
        raise ValueError(f"these share a name, and so would their masks: {alike}. Predict them into two folders")
    inputs = {path.resolve() for path in photographs}
    overwritten = [place for name in names.values() for place in _places(out_dir, name) if place.resolve() in inputs]
    if overwritten:
        raise ValueError(
            f"{overwritten[0]} is a photograph, and a prediction would overwrite it: choose another folder"
        )
    return names


def _places(out_dir: Path, name: str) -> tuple[Path, Path, Path]:
    return out_dir / "masks" / f"{name}.png", out_dir / "colours" / f"{name}.png", out_dir / "overlays" / f"{name}.jpg"


def _save(
    saved: Saved, out_dir: Path, name: str, mask: np.ndarray, laid_over: np.ndarray, classes: Sequence[str]
) -> None:
    """Write mask, colours and overlay of one photograph, and once which colour is which class."""
    mask_file, colour_file, overlay_file = _places(out_dir, name)
    write_index_png(mask_file, mask, classes)
    plots.save(plots.colour_mask(mask), colour_file)
    plots.save(laid_over, overlay_file)
    if not saved.masks:
        lines = [f"{number} {palette()[number].tobytes().hex()} {name}\n" for number, name in enumerate(classes)]
        with atomic_path(out_dir / "classes.txt") as aside:
            aside.write_text("".join(["class, its colour as red, green, blue, its name\n", *lines]), encoding="utf-8")
    saved.masks.append(mask_file)
    saved.colours.append(colour_file)
    saved.overlays.append(overlay_file)


# ------------------------------------------------------------------------------------------------ the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict the photographs that the command line names; 0 unless none of them could be read."""
    parser = argparse.ArgumentParser("python -m seglib.predict", description="A checkpoint and photographs -> masks.")
    parser.add_argument("checkpoint", help="the best_model.pth of a run")
    parser.add_argument("photos", nargs="+", help="image files, and folders of them (not the folders inside)")
    parser.add_argument("--out", required=True, help="the folder to write masks/, colours/ and overlays/ to")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="bring photographs to it first")
    parser.add_argument("--tile", type=int, help="cut into tiles of so many pixels a side, unshrunk")
    parser.add_argument("--overlap", type=int, help="pixels that neighbouring tiles share (128)")
    parser.add_argument("--flips", default="", choices=sorted(FLIPS), help="average over mirror images, too")
    parser.add_argument("--batch-size", type=int, default=8, help="photographs or tiles at a time")
    chosen = vars(parser.parse_args(arguments))
    names = chosen.pop("checkpoint"), chosen.pop("photos"), chosen.pop("out")
    chosen["size"] = tuple(chosen["size"]) if chosen["size"] else None
    try:
        saved = save_predictions(*names, **chosen)
    except torch.OutOfMemoryError as error:
        print(f"Too much for the GPU's memory: --batch-size 1, or --tile 512. ({error})", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for path, reason in saved.skipped.items():
        print("skipped:", reason if path in reason else f"{path}: {reason}", file=sys.stderr)
    where = f": see {names[2]}" if saved.masks else ""
    print(f"{len(saved.masks)} photographs predicted, {len(saved.skipped)} files skipped{where}")
    return 0 if saved.masks else 1


if __name__ == "__main__":
    sys.exit(main())
