"""Files: images read as a viewer shows them, files that are written completely or not at all, and file locks."""

import json
import os
import shutil
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image, ImageOps

__all__ = [
    "IMAGE_SUFFIXES",
    "as_rgb",
    "atomic_path",
    "check_choice",
    "image_files",
    "image_size",
    "link_or_copy",
    "locked",
    "open_image",
    "read_image",
    "short_path",
    "write_json",
    "write_lines",
]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_ORIENTATION = 0x0112  # the EXIF tag


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to `path` when the block ends without an error.

    Raises:
        OSError: the disk is full or read-only. The message names `path`; a file of that name is left as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error.strerror or error}. What was there before is untouched; free some space or "
            "choose a folder that may be written to."
        ) from error
    finally:
        with suppress(OSError):  # on a read-only disk there is nothing to remove
            temporary.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, one line for each string."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as a JSON file."""
    write_lines(path, [json.dumps(content, indent=1)])


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link to a file, or a copy where the disk has no hard links."""
    try:
        os.link(os.path.realpath(source), target)  # not the symbolic link itself, which may be relative
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def locked(path: str | Path, message: str, timeout: float | None = None) -> Iterator[None]:
    """Hold a lock file while the block runs, so that other processes keep out.

    If another process holds it, print `message` and wait. With a `timeout` in seconds, raise RuntimeError with the
    message when the time is over.
    """
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout or 0)
    except Timeout:
        if timeout is not None:
            raise RuntimeError(message) from None
        print(message, flush=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # some network drives have no locks
        warnings.warn(f"no locks in {folder} ({error!r}): let only one process at a time work there", stacklevel=3)
    try:
        yield
    finally:
        lock.release()


def image_files(folder: str | Path) -> list[Path]:
    """The image files of a folder, sorted by name; hidden files and files of other kinds are left out."""
    paths = sorted(Path(folder).iterdir())
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file for the block, which decodes it. Raises ValueError, naming the file, if that fails."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: {error} Cut it into tiles, or set PIL.Image.MAX_IMAGE_PIXELS = None.") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image as a viewer shows it, without decoding it. Raises as `open_image` does."""
    orientation = 1
    with open_image(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # some versions of Pillow turn the size on opening, others on decoding
            width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]  # TiffImageFile has it
        with suppress(Exception):  # damaged EXIF: viewers do not turn the image either
            orientation = image.getexif().get(_ORIENTATION, 1)
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image as a viewer shows it.

    Gray, palette, CMYK and 16-bit images are converted, and transparency is dropped. White is 65535 in 16 bits: 12-bit
    values in a 16-bit file come out dark, as in a viewer.

    Args:
        path: the file.
        size: (height, width) that the annotations were drawn on. An image with an EXIF rotation is turned only if the
            result has this size; it stays as stored if the stored raster has it.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be decoded, has no known white, or has another size than `size`.
    """
    with open_image(path) as stored:
        stored.load()
        upright = stored
        with suppress(Exception):  # damaged EXIF: viewers do not turn the image either
            upright = ImageOps.exif_transpose(stored)
        height, width = size or (upright.height, upright.width)
        for image in (upright, stored):
            if (image.height, image.width) == (height, width):
                return as_rgb(_to_array(image))
    raise ValueError(
        f"{path} is {upright.height}x{upright.width} (height x width) but its annotations or mask say "
        f"{height}x{width}: the image was resized, or the annotations belong to another image"
    )


def _to_array(image: Image.Image) -> np.ndarray:
    """The pixels of an image with 8 or 16 bits a channel."""
    if image.mode in ("I", "F"):
        raise ValueError("it has 32 bits a channel, whose black and white are not known: save it with 8 or 16")
    if image.mode.startswith("I;16"):  # `convert` would cut off all values at 255
        return np.array(image).astype(np.uint16)
    return np.array(image.convert("RGB"))


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Convert an image of uint8 or uint16 to uint8 (H, W, 3) RGB.

    Args:
        image: (H, W) or (H, W, 1) gray, (H, W, 3) RGB, or (H, W, 4) RGBA, whose alpha is dropped.

    Raises:
        ValueError: another type or shape.
    """
    channels = image[..., None] if image.ndim == 2 else image
    if image.dtype not in (np.uint8, np.uint16) or channels.ndim != 3 or channels.shape[2] not in (1, 3, 4):
        raise ValueError(f"an image is uint8 of shape (H, W, 3), not {image.dtype} {image.shape}")
    if image.dtype == np.uint16:
        channels = (channels / 257).round().astype(np.uint8)
    if channels.shape[2] == 1:
        return np.repeat(channels, 3, axis=2)
    return np.ascontiguousarray(channels[..., :3])


def short_path(path: str | Path) -> str:
    """A path as a message shows it: as given or relative to the current folder, whichever is shorter."""
    with suppress(ValueError):  # another drive on Windows
        return min(str(path), os.path.relpath(path), key=len)
    return str(path)


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise ValueError, listing the choices, unless `value` is one of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
