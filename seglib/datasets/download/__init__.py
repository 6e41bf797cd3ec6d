"""Downloads the real data sets and lays them out as their cards say: `prepare`.

A data set is built in a hidden folder beside its place and renamed once it is complete, so a folder under its own name
is ready to use. Downloaded files wait in `downloads/`, where files fetched by hand may be put, too.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from seglib.datasets.download.catalog import Card, card
from seglib.files import locked

__all__ = ["check_layout", "data_home", "find", "prepare"]

Build = Callable[[Sequence[Path], Path], None]  # takes the downloaded files and an empty folder, and fills the folder


def prepare(
    name: str,
    *,
    categories: Sequence[str] | None = None,
    photos: int | str | None = None,
    test_photos: int | str | None = None,
    seed: int = 0,
) -> Path:
    """Return the folder of a real data set; download, check and unpack it first if it is not there.

    If the process is killed, the same call continues with what was downloaded. If several processes ask for the same
    data set at once, one of them prepares it and the others wait.

    Args:
        name: name of a data set, see `python -m seglib.datasets list`. The other arguments select a part of "coco" or
            "coco_four"; the other data sets are always complete.
        categories: category names, for "coco" only; None: all 80. The annotation file keeps the objects of the others.
        photos: photographs of each category to train and validate with, or "all". None: 100 for "coco", 1000 for
            "coco_four".
        test_photos: photographs of each category to test with, from the official validation part, or "all". None: a
            quarter of `photos`.
        seed: selects other photographs.

    Raises:
        ValueError: there is no such data set, or the selection is not possible.
        DownloadError: the data set could not be downloaded or stored; says what was expected, what came and what to do.
        FileNotFoundError: the folder of the data set is there, but not complete.
    """
    # With the HTTP client, which nothing else needs.
    from seglib.datasets.download import buildings, camvid, coco, membranes, nuclei, voc

    chosen = card(name)
    builds: dict[str, Build] = {"voc2012": voc.build, "buildings_yolo": buildings.build, "camvid": camvid.build}
    builds |= {"dsb2018": nuclei.build, "isbi2012_em": membranes.build}
    folder = data_home() / chosen.folder
    if chosen.folder == "coco":
        selection = coco.select(name, categories, photos, test_photos, seed)
        builds[name] = partial(coco.build, selection=selection)
        folder = folder if folder.exists() else data_home() / selection.folder
    elif (categories, photos, test_photos, seed) != (None, None, None, 0):
        raise ValueError(f"{chosen.title} is always complete: a selection of photographs is for coco and coco_four")
    if not folder.exists():
        _prepare_alone(chosen, folder, builds[name])
    return check_layout(name, folder)


def find(name: str) -> list[Path]:
    """Return the folders in which a data set is ready to use; of COCO there may be several selections."""
    chosen = card(name)
    selections = sorted(data_home().glob(chosen.selections)) if chosen.selections else []
    return [folder for folder in (data_home() / chosen.folder, *selections) if not _missing(chosen, folder)]


def data_home() -> Path:
    """Return the folder for data sets and rendered samples: `data/` of a checkout of the course, else ~/.cache/seglib.

    The environment variable SEGLIB_HOME names another folder.
    """
    if home := os.environ.get("SEGLIB_HOME"):
        return Path(home).expanduser()
    checkout = Path(__file__).parents[3]
    is_checkout = (checkout / "pyproject.toml").is_file() and (checkout / "notebooks").is_dir()
    return checkout / "data" if is_checkout else Path.home() / ".cache" / "seglib"


def check_layout(name: str, folder: Path) -> Path:
    """Return `folder` if the data set is laid out there as its card says.

    Raises:
        FileNotFoundError: something is missing; says what, and how the data set is laid out.
    """
    chosen = card(name)
    missing = _missing(chosen, folder)
    if missing:
        way = "move it away" if folder.is_relative_to(data_home()) else "unset SEGLIB_DATA"
        layout = "\n".join(f"  {folder / pattern}" for pattern in chosen.layout)
        raise FileNotFoundError(
            f"{chosen.title} is not complete in {folder}: {', '.join(missing)} not found. The expected layout is:\n"
            f"{layout}\nComplete the folder, or {way} and run `python -m seglib.datasets get {name}` to download the "
            f"data set to {data_home()}. The bundled sample needs no download: set SEGLIB_PROFILE=tiny."
        )
    return folder


def _missing(chosen: Card, folder: Path) -> list[str]:
    return [pattern for pattern in chosen.layout if next(folder.glob(pattern), None) is None]


def _prepare_alone(chosen: Card, folder: Path, build: Build) -> None:
    """Make the folder of a data set, while other processes that ask for it wait."""
    from seglib.datasets.download.fetch import DownloadError

    message = f"Another process is preparing {chosen.title} in {data_home()}: waiting for it to finish."
    try:
        with locked(data_home() / f".{chosen.folder}.lock", message):
            if not folder.exists():
                _download_and_build(chosen, folder, build)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{chosen.title} cannot be stored in {data_home()}. Free some space, or name a writable folder in the "
            f"environment variable SEGLIB_HOME. The files downloaded so far are kept. The reason: {error}"
        ) from error


def _download_and_build(chosen: Card, folder: Path, build: Build) -> None:
    """Download the files of a card and build `folder` from them."""
    from seglib.datasets.download.fetch import DownloadError, check_disk, download, partial_path

    downloads = data_home() / "downloads" / chosen.folder
    by_hand = [remote.name for remote in chosen.files if not remote.urls and not (downloads / remote.name).is_file()]
    if by_hand:
        raise DownloadError(
            f"{chosen.title} cannot be downloaded by a program. Fetch {' and '.join(by_hand)} with a browser, see "
            f"{chosen.homepage}, and save them in\n  {downloads}\nThen run this again: the files are found and used."
        )
    size = sum(remote.size or 0 for remote in chosen.files) or chosen.download_size  # COCO's photographs come later
    present = sum(path.stat().st_size for path in downloads.glob("*") if path.is_file())
    missing = max(0, size - present)
    check_disk(chosen.title, missing, missing + chosen.unpacked_size, data_home())
    archives = [download(remote, downloads) for remote in chosen.files]
    staging = partial_path(folder)
    shutil.rmtree(staging, ignore_errors=True)  # left by a process that was killed
    staging.mkdir()
    try:
        build(archives, staging)
    except (ValueError, LookupError) as error:  # a broken archive, or one with unexpected content
        files = ", ".join(map(str, archives))
        raise DownloadError(
            f"{chosen.name}: the download is not what was expected: {error!r}. Move {files} away and run this again "
            "to download it anew. If the error stays the same, please report it: the publisher has changed the data."
        ) from error
    os.replace(staging, folder)
    if chosen.folder != "coco":  # whose annotations the next selection needs again
        for archive in archives:
            archive.unlink()
    print(f"The data set is ready in {folder}.", flush=True)
