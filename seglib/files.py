"""Files: images read as a viewer shows them, files that are written completely or not at all, and file locks."""

import json
import os
import shutil
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image, ImageOps, PngImagePlugin

__all__ = [
    "IMAGE_SUFFIXES",
    "as_rgb",
    "atomic_path",
    "check_choice",
    "exif_orientation",
    "image_files",
    "image_size",
    "is_image_file",
    "link_or_copy",
    "locked",
    "open_image",
    "read_image",
    "read_text",
    "short_path",
    "warn_once",
    "write_json",
    "write_lines",
]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
_ORIENTATION = 0x0112  # the EXIF tag
_SUBFILE_TYPE = 254  # the TIFF tag, which is not 0 for a smaller copy of the image or its mask
# TIFF tags: the bits of each band, 2 if each band is stored by itself, the bands beside gray or colors (0: not alpha)
_BITS, _PLANAR, _EXTRA_SAMPLES = 258, 284, 338
_WARNED: set[tuple[Path, str]] = set()  # folders and what was warned of in them


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


def read_text(path: str | Path, errors: str = "strict") -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark. ValueError for others unless errors="replace"."""
    content = Path(path).read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding, errors)
    except UnicodeDecodeError as error:
        near = content[max(error.start - 10, 0) : error.end + 5]
        raise ValueError(f"{path} is not UTF-8 text near {near!r}: open it in an editor and save it as UTF-8") from None


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
    return [path for path in sorted(Path(folder).iterdir()) if is_image_file(path)]


def is_image_file(path: Path) -> bool:
    """Whether a file has the name of an image and is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


@contextmanager
def open_image(path: str | Path, page: int | None = None) -> Iterator[Image.Image]:
    """Open an image file for the block, which decodes it.

    Pillow's limits on the number of pixels and the length of texts do not hold in the block.

    Args:
        path: the file.
        page: the page of a stack or the frame of an animation, from 1. A file of one page is read whatever it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be decoded, or has several pages and `page` is None.
    """
    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = None, 2**30, 2**30
    try:
        with Image.open(path) as image:
            _go_to_page(image, page)
            yield image
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def _go_to_page(image: Image.Image, page: int | None) -> None:
    """Select a page of a stack. Smaller copies of an image within its file (thumbnails, overviews) are no pages."""
    pages = list(range(getattr(image, "n_frames", 1)))
    if image.format == "TIFF" and len(pages) > 1:
        pages = [index for index in pages if not _tiff_tag(image, index, _SUBFILE_TYPE)]
        image.seek(0)
    if image.format == "MPO":  # a photograph of a telephone, which may hold further views
        pages = [0]
    if len(pages) == 1:
        return
    if page is None:
        raise ValueError(f"it is a stack of {len(pages)} pages: pass page=1 for the first, or save each page as a file")
    if not 1 <= page <= len(pages):
        raise ValueError(f"it has {len(pages)} pages, counted from 1, and no page {page}")
    image.seek(pages[page - 1])


def _tiff_tag(image: Image.Image, index: int, tag: int) -> int:
    image.seek(index)
    return image.tag_v2.get(tag, 0)  # type: ignore[attr-defined]  # TiffImageFile has it


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image as a viewer shows it, without decoding it. Raises as `read_image` does."""
    if _has_many_bands(path):
        with _open_raster(path, None) as raster:
            return raster.height, raster.width
    with open_image(path, page=1) as image:
        width, height = image.size
        if image.format == "TIFF":  # some versions of Pillow turn the size on opening, others on decoding
            width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]  # TiffImageFile has it
        return (width, height) if exif_orientation(image) in (5, 6, 7, 8) else (height, width)


def exif_orientation(image: Image.Image) -> int:
    """How a viewer turns an image, as EXIF counts it: 1 is not at all."""
    with suppress(Exception):  # damaged EXIF: viewers do not turn the image either
        return image.getexif().get(_ORIENTATION, 1)
    return 1


def read_image(
    path: str | Path,
    size: tuple[int, int] | None = None,
    *,
    bands: Sequence[int] | None = None,
    white: float | None = None,
    page: int | None = None,
) -> np.ndarray:
    """Read an image as a viewer shows it.

    Gray, palette, CMYK and 16-bit images are converted, and transparency is dropped.

    Args:
        path: the file.
        size: (height, width) that the annotations were drawn on. An image with an EXIF rotation is turned only if the
            result has this size; it stays as stored if the stored raster has it.
        bands: the numbers of the bands that become red, green and blue, or of one band that becomes gray; the first
            band is 1. None: the first three.
        white: the value that becomes 255 in images of more than 8 bits, such as 4000 for reflectance. None: 65535 in 16
            bits; an image that is nearly black with it is warned about.
        page: the page of a stack, from 1.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be decoded, needs `bands`, `white` or `page`, or has another size than `size`.
    """
    shapes = []
    for pixels in _read_pixels(path, bands, page):
        shapes.append(pixels.shape)
        if size is None or pixels.shape[:2] == tuple(size):
            return as_rgb(_to_bytes(pixels, white, Path(path)))
    height, width = size or (0, 0)
    raise ValueError(
        f"{path} is {shapes[0][0]}x{shapes[0][1]} (height x width) but its annotations or mask say {height}x{width}: "
        "the image was resized, or the annotations belong to another image"
    )


def _read_pixels(path: str | Path, bands: Sequence[int] | None, page: int | None) -> Iterator[np.ndarray]:
    """The pixels (H, W) or (H, W, C) of an image as a viewer shows it, then, if it is turned, as it is stored."""
    if _has_many_bands(path):
        yield _read_raster(path, bands, page)
        return
    with open_image(path, page) as image:
        if image.format == "PNG" and ";16" in str(getattr(image, "tile", "")) and image.mode in ("RGB", "RGBA"):
            yield _select_bands(_read_deep_png(path), bands)  # Pillow would keep 8 bits
            return
        image.load()
        if exif_orientation(image) != 1:
            with suppress(Exception):
                image_upright = ImageOps.exif_transpose(image)
                yield _select_bands(_to_array(image_upright), bands)
        yield _select_bands(_to_array(image), bands)


def _read_deep_png(path: str | Path) -> np.ndarray:
    """The pixels of a PNG with colors of 16 bits: uint16 (H, W, 3)."""
    import cv2  # slow to import, and only needed here

    pixels = np.asarray(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED))
    return pixels[..., 2::-1]  # OpenCV's order is blue, green, red


def _to_array(image: Image.Image) -> np.ndarray:
    """The pixels of an image that Pillow has read, in the type in which it holds them."""
    if image.mode in ("I", "F", "L", "RGB", "RGBA"):
        return np.array(image)
    if image.mode.startswith("I;16"):  # `convert` would cut off all values at 255
        return np.array(image).astype(np.uint16)
    return np.array(image.convert("RGB"))


def _select_bands(pixels: np.ndarray, bands: Sequence[int] | None) -> np.ndarray:
    """The pixels (H, W, C) of some bands; the first is 1."""
    if bands is None:
        return pixels
    stacked = np.atleast_3d(pixels)
    _check_bands(bands, stacked.shape[2])
    return stacked[..., [band - 1 for band in bands]]


def _check_bands(bands: Sequence[int], count: int) -> None:
    if len(bands) not in (1, 3) or not all(1 <= band <= count for band in bands):
        raise ValueError(f"bands must be one or three numbers from 1 to {count}, not {bands}")


def _has_many_bands(path: str | Path) -> bool:
    """Whether a file is a TIFF that Pillow cannot hold: with bands beside gray or colors, or colors of 16 bits."""
    if Path(path).suffix.lower() not in (".tif", ".tiff") or not Path(path).is_file():
        return False
    with suppress(ValueError), open_image(path, page=1) as image:
        tags = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]  # TiffImageFile has it
        is_deep = max(tags.get(_BITS, (8,))) > 8 and (len(tags[_BITS]) > 1 or tags.get(_PLANAR) == 2)
        return 0 in tags.get(_EXTRA_SAMPLES, ()) or is_deep
    return True


def _open_raster(path: str | Path, page: int | None) -> Any:
    """Open a TIFF by rasterio, which reads any number of bands of any type."""
    try:
        import rasterio
    except ImportError:
        raise ValueError(f"{path} has more bands or bits than Pillow reads: pip install 'seglib[tiff]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            return rasterio.open(path if page is None else f"GTIFF_DIR:{page}:{path}")
        except rasterio.errors.RasterioError as error:
            raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _read_raster(path: str | Path, bands: Sequence[int] | None, page: int | None) -> np.ndarray:
    """The pixels (H, W, C) of some bands of an image that Pillow cannot hold."""
    with _open_raster(path, page) as raster:
        if page is None and len(raster.subdatasets) > 1:
            raise ValueError(f"{path} is a stack of {len(raster.subdatasets)} pages: pass page=1 for the first")
        if bands is None and raster.count not in (1, 3, 4):
            raise ValueError(
                f"{path} has {raster.count} bands: pass the numbers of those for red, green and blue, such as "
                "bands=(3, 2, 1); the first is 1"
            )
        if bands is None and raster.count == 4 and raster.colorinterp[3].name != "alpha":
            warn_once(path, "has four bands, of which the first three are read: pass bands=(1, 2, 3), or others")
        bands = bands or range(1, min(raster.count, 3) + 1)
        _check_bands(bands, raster.count)
        return np.moveaxis(raster.read(list(bands)), 0, 2)


def _to_bytes(pixels: np.ndarray, white: float | None, path: Path) -> np.ndarray:
    """Scale pixels of any type to uint8; those that have this type stay as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    if white is None and pixels.dtype != np.uint16:
        raise ValueError(f"{path} has values of {pixels.dtype}, whose white is not known: pass white=, the largest")
    if white is None and 0 < pixels.max(initial=0) < 65535 / 8:
        warn_once(path, f"is nearly black, with values up to {pixels.max()} of 65535: pass white=, such as 4095")
    return ((np.nan_to_num(pixels.astype(np.float32)) / (white or 65535)).clip(0, 1) * 255).round().astype(np.uint8)


def warn_once(path: str | Path, what: str) -> None:
    """Warn of a file, unless another one of its folder had the same warning."""
    key = (Path(path).parent, what[:20])
    if key not in _WARNED:
        _WARNED.add(key)
        warnings.warn(f"{path} {what}. (Said once for a folder.)", stacklevel=4)


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
