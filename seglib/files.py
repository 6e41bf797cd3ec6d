"""Files: written aside and renamed, so that nobody meets half of one; photographs read as a viewer shows them."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
EXIF_ORIENTATION = 0x0112
# How a raster is turned before it is stored, so that a viewer that obeys the EXIF orientation shows it upright.
STORED_AS = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there becomes `path` when the block ends well.

    Raises:
        OSError: the disk is full or may not be written to; names `path`, which is left as it was.
    """
    path = Path(path)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        os.replace(aside, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f"cannot write {path}: {reason}. What was there before is untouched; free some space or choose a folder "
            "that may be written to."
        ) from error
    finally:
        with suppress(OSError):  # a read-only disk: there is nothing to tidy, and the error above says more
            aside.unlink(missing_ok=True)


def short_path(path: str | Path) -> str:
    """A path as a message shows it: as it is, or from here, whichever is shorter."""
    with suppress(ValueError):  # Windows: another drive
        return min(str(path), os.path.relpath(path), key=len)
    return str(path)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, which takes no room where the disk can do that."""
    try:
        os.link(os.path.realpath(source), target)  # of a link, the file: a relative one leads nowhere from elsewhere
    except OSError:
        shutil.copyfile(source, target)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as aside:
        aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def image_files(folder: str | Path) -> dict[str, Path]:
    """The image files of a folder by name, sorted; hidden files and other kinds are left out."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give the folder that holds the images")
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    }


def write_jpeg(path: str | Path, picture: np.ndarray, grey: bool = False, exif: int | None = None) -> None:
    """Write uint8 (H, W, 3) as a JPEG; exif: the EXIF orientation it is stored in, 6 or 8, None: upright."""
    image, tags = Image.fromarray(picture), Image.Exif()
    if grey:
        image = image.convert("L")
    if exif:
        image = image.transpose(STORED_AS[exif])
        tags[EXIF_ORIENTATION] = exif
    image.save(path, quality=90, exif=tags)


def open_image(path: str | Path) -> Image.Image:
    """Open and decode an image file, with an error that names the file where that fails."""
    try:
        with Image.open(path) as image:  # closed also where it fails: Windows deletes no open file
            image.load()
    except FileNotFoundError:
        raise FileNotFoundError(f"no image {path}: put the file there, or leave it out of the data set") from None
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ValueError(f"{path} cannot be read as an image ({error}): replace the file or leave it out") from error
    return image


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of a photograph as a viewer shows it, without decoding it."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format == "TIFF":  # Pillow turns its size, in some versions on opening it, in some when decoding
                width, height = image.tag_v2[256], image.tag_v2[257]
            turn = 1
            with suppress(Exception):  # as in read_image
                turn = image.getexif().get(EXIF_ORIENTATION, 1)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image {path}: put the file there, or leave it out of the data set") from None
    except Exception as error:  # as in open_image
        raise ValueError(f"{path} cannot be read as an image ({error}): replace the file or leave it out") from error
    return (width, height) if turn in (5, 6, 7, 8) else (height, width)


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a photograph as a viewer shows it.

    Args:
        size: (height, width) that the annotations speak of. It decides where a file carries an EXIF rotation: if it
            is the size of the stored raster and not that of the turned one, the annotations were drawn on the stored
            raster, and that is what comes back.

    Returns:
        uint8 (H, W, 3) RGB; grey, palette, CMYK and 16-bit images are converted, transparency is dropped. White is
        65535 in 16 bits: twelve bits of a microscope in a 16-bit file come out as dark as a viewer shows them.

    Raises:
        FileNotFoundError, ValueError: the file is missing, broken, or of another size than `size` either way round.
    """
    stored = open_image(path)
    try:
        shown = ImageOps.exif_transpose(stored)
    except Exception:  # damaged EXIF, in which viewers find no rotation either
        shown = stored
    image = shown
    if size is not None:
        if (shown.height, shown.width) != tuple(size):
            image = stored
        if (image.height, image.width) != tuple(size):
            raise ValueError(
                f"{path} is {shown.height}x{shown.width} (height x width) but its annotations or mask say "
                f"{size[0]}x{size[1]}: the image was resized, or belongs to others"
            )
    if image.mode == "F":
        raise ValueError(f"{path} holds fractions, whose black and white are not known: save it with 8 or 16 bits")
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):  # more than 8 bits, which Pillow would cut off at 255
        values = np.asarray(image)
        if values.max() > 65535 or values.min() < 0:
            raise ValueError(f"{path} holds numbers beyond 16 bits: save it with 8 or 16 bits a channel")
        as_8_bits = image.mode == "I" and values.max() <= 255  # a small picture in a large kind of number
        return as_rgb(values.astype(np.uint8 if as_8_bits else np.uint16))
    return np.array(image.convert("RGB"))


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """Make a photograph of any common kind of array.

    Args:
        picture: uint8 or uint16; (H, W) or (H, W, 1) grey, (H, W, 3) RGB, (H, W, 4) RGBA; transparency is dropped.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    if picture.dtype not in (np.uint8, np.uint16) or picture.ndim not in (2, 3) or picture.size == 0:
        raise ValueError(f"an image is uint8 (H, W, 3), not {picture.dtype} {picture.shape}")
    channels = picture.reshape(*picture.shape[:2], -1)
    if channels.shape[2] not in (1, 3, 4):
        raise ValueError(f"an image has 1, 3 or 4 channels, last: (H, W, 3), not {picture.shape}")
    if picture.dtype == np.uint16:
        channels = (channels / 257).round().astype(np.uint8)
    return np.repeat(channels, 3, axis=2) if channels.shape[2] == 1 else np.ascontiguousarray(channels[..., :3])
