"""Downloads files, checks them and unpacks archives.

A file is written to `.NAME.part` and renamed to NAME once its length, checksum and content are right, so a file under
its own name is complete. A request that fails before the answer arrives is repeated by urllib3's Retry. After a
connection that breaks inside a file, a file with a published checksum is resumed, also by a later call and from another
address; any other file is downloaded again from its start.
"""

import hashlib
import os
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
import urllib3
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from seglib.datasets.download.catalog import Remote
from seglib.progress import progress_bar

__all__ = [
    "DownloadError",
    "check_count",
    "check_disk",
    "check_files",
    "download",
    "download_all",
    "format_bytes",
    "partial_path",
    "unpack",
]

TIMEOUT = (15, 30)  # seconds to connect, and seconds without a byte
TRIES = 5  # attempts at each address
BACKOFF = 1.0  # seconds; the wait doubles with each attempt
WORKERS = 16  # small files downloaded side by side
MAX_FAILURES = 8  # small files that may fail before the others are given up


class DownloadError(OSError):
    """A file could not be downloaded or stored. The message says what was expected, what came and what to do."""


class _Refused(Exception):
    """An address does not give the expected file."""


# ------------------------------------------------------------------------------------------------ downloading


def download(remote: Remote, folder: Path) -> Path:
    """Download a file into `folder` and return its path; a file that is already there is checked and kept.

    Raises:
        DownloadError: no address gave the file, or a different file has its name.
        OSError: the disk is full or cannot be written.
    """
    with _session() as session:
        _download(session, remote, folder / remote.name)
    return folder / remote.name


def download_all(remotes: Sequence[Remote], folder: Path, title: str) -> None:
    """Download many small files, called `title`, side by side; files that are already there are checked and kept.

    Raises:
        DownloadError: some files failed; gives the number of missing files and the first reason. The others are kept.
    """
    errors: list[OSError] = []

    def download_one(remote: Remote) -> None:
        try:
            if len(errors) < MAX_FAILURES:  # else the network is down or the disk is full
                _download(session, remote, folder / remote.name, quiet=True)
        except OSError as error:
            errors.append(error)

    with _session() as session, ThreadPoolExecutor(WORKERS) as pool:
        try:
            for _ in progress_bar(pool.map(download_one, remotes), title, total=len(remotes), unit=" files"):
                pass
        finally:  # after Ctrl-C, only the downloads under way are completed
            pool.shutdown(cancel_futures=True)
    if errors:
        missing = sum(not (folder / remote.name).is_file() for remote in remotes)
        raise DownloadError(
            f"{missing} of {len(remotes)} {title} are still missing; the others are kept. Run this again to download "
            f"the rest. The first error: {errors[0]}"
        ) from errors[0]


def partial_path(target: Path) -> Path:
    """The path of a file or folder that is not complete yet."""
    return target.with_name(f".{target.name}.part")


def _session() -> requests.Session:
    retry = Retry(
        total=TRIES - 1,
        backoff_factor=BACKOFF,
        status_forcelist=(408, 425, 429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=False,  # a server may ask to wait for hours
    )
    session = requests.Session()
    session.headers.update({"User-Agent": "seglib", "Accept-Encoding": "identity"})
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=WORKERS, max_retries=retry))
    return session


def _download(session: requests.Session, remote: Remote, target: Path, quiet: bool = False) -> None:
    """Store the file at `target`, from the first address that gives it."""
    if target.exists():
        try:
            _check_file(target, remote)
        except ValueError as error:
            raise DownloadError(
                f"{target} is not the expected file: {error}. Move it away and run this again."
            ) from None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    answers = []
    for url in remote.urls:
        try:
            _download_from(session, url, remote, partial_path(target), quiet)
            os.replace(partial_path(target), target)
            return
        except _Refused as error:
            answers.append(f"  {url}: {error}\n")
    size = f"{remote.size:,} bytes" if remote.size else "size not published"
    checksum = remote.checksum.replace(":", " ") or "checksum not published"
    raise DownloadError(
        f"{remote.name} could not be downloaded. Expected: {size}, {checksum}. The addresses gave:\n{''.join(answers)}"
        "If the network was down, run this again later. To get the file by hand, download it with a browser from one "
        f"of these addresses, or copy it from somebody who has it, and save it as\n  {target}\nThen run this again: "
        "the file is found, checked and used."
    )


def _download_from(session: requests.Session, url: str, remote: Remote, part: Path, quiet: bool) -> None:
    """Download `part` from one address. Raises _Refused if the address does not give the file."""
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            print(f"{remote.name}: {reason}; trying again", flush=True)
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        start = _size(part) if remote.checksum else 0
        try:
            announced = _receive(session, url, remote, part, start, quiet)
            _check_file(part, remote, announced)
            return
        except urllib3.exceptions.HTTPError as error:
            reason = f"the connection broke ({error})"
        except ValueError as error:
            part.unlink(missing_ok=True)
            if not start:
                raise _Refused(str(error)) from None
            reason = str(error)  # perhaps the pieces come from different files: download it in one piece
    raise _Refused(f"{reason}; {format_bytes(_size(part))} received in {TRIES} attempts")


def _receive(session: requests.Session, url: str, remote: Remote, part: Path, start: int, quiet: bool) -> str:
    """Write the bytes from `start` on to `part`, and return the checksum that the server announces, or "".

    Raises _Refused if this is not the file, ValueError if it cannot be resumed, HTTPError if the connection breaks.
    """
    if start and start == remote.size:  # complete; a process was killed before it was renamed
        return ""
    try:
        answer = session.get(url, headers={"Range": f"bytes={start}-"} if start else {}, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise _Refused(str(error)) from None
    with answer:
        if answer.status_code == 416:
            raise ValueError(f"no bytes from {start} on")
        if answer.status_code not in (200, 206):
            raise _Refused(f"HTTP {answer.status_code} {answer.reason}")
        if "html" in answer.headers.get("Content-Type", ""):
            raise _Refused("a web page instead of the file (a log-in, a quota or an error)")
        start = start if answer.status_code == 206 else 0  # 200: the server sends the whole file
        length = int(answer.headers.get("Content-Length", 0))
        total = remote.size or (start + length if length else None)
        bar: tqdm[bytes] = progress_bar(None, remote.name, total=total, done=start, unit="B", quiet=quiet)
        with part.open("ab" if start else "wb") as file, bar:
            while chunk := answer.raw.read(2**14):  # raw: keeps the bytes of a file that is sent as compressed
                file.write(chunk)
                bar.update(len(chunk))
    # The Hugging Face hub sends the checksum of a large file before it redirects to its store.
    tags = [response.headers.get("X-Linked-ETag", "").strip('"') for response in (*answer.history, answer)]
    return next((f"sha256:{tag}" for tag in tags if re.fullmatch("[0-9a-f]{64}", tag)), "")


def _check_file(path: Path, remote: Remote, announced: str = "") -> None:
    """Raise ValueError unless a file has the published length, checksum and content, and the announced checksum."""
    size = _size(path)
    if remote.size not in (None, size):
        raise ValueError(f"{size:,} bytes instead of {remote.size:,}")
    for checksum in filter(None, (remote.checksum, announced)):
        kind, expected = checksum.split(":")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != expected:
            raise ValueError(f"{kind} {found} instead of {expected}")
    if remote.name.endswith(".zip") and not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            raise ValueError(f"{size:,} bytes that are not a complete zip file and begin with {file.read(40)!r}")
    if remote.check is not None:
        remote.check(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# ------------------------------------------------------------------------------------------------ disk and sizes


def check_disk(title: str, download_size: int, disk_size: int, folder: Path) -> None:
    """Print how many bytes will be downloaded; raise DownloadError if `folder` has not as many free as are needed."""
    free = shutil.disk_usage(folder).free
    needed = f"{title}: about {format_bytes(download_size)} to download, {format_bytes(disk_size)} of disk in {folder}"
    if free < disk_size:
        raise DownloadError(
            f"{needed}, where only {format_bytes(free)} are free. Free some space, or name a folder on another disk in "
            "the environment variable SEGLIB_HOME."
        )
    print(f"{needed}.", flush=True)


def format_bytes(size: float) -> str:
    """A number of bytes with a unit, such as "241 MB"."""
    power = sum(size >= 999.5 * 1000**power for power in range(3))
    return f"{size / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB')[power]}"


# ------------------------------------------------------------------------------------------------ unpacking


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool], limit: int) -> None:
    """Unpack the files of a zip or tar archive whose path is `wanted`; links and devices are left out.

    Raises:
        ValueError: the archive is broken, the files take more than `limit` bytes, or a path leads out of `folder`.
    """
    title = f"unpacking {archive.name}"
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zip_file:
                infos = [info for info in zip_file.infolist() if not info.is_dir() and wanted(info.filename)]
                _check_unpacked_size(archive, sum(info.file_size for info in infos), limit)
                for info in progress_bar(infos, title, unit=" files"):
                    zip_file.extract(info, folder)  # inside the folder, whatever the path
        else:
            with tarfile.open(archive) as tar_file:
                members = [member for member in tar_file if member.isreg() and wanted(member.name)]
                _check_unpacked_size(archive, sum(member.size for member in members), limit)
                for member in progress_bar(members, title, unit=" files"):
                    tar_file.extract(member, folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise ValueError(f"{archive} is broken ({error or type(error).__name__})") from error


def _check_unpacked_size(archive: Path, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"{archive} unpacks to {format_bytes(size)} where at most {format_bytes(limit)} are expected")


def check_count(found: int, expected: int, things: str) -> None:
    """Raise ValueError unless an archive holds as many things as its publisher says."""
    if found != expected:
        raise ValueError(f"{found:,} {things} instead of {expected:,}")


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Raise ValueError unless each of the files was in the archive."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{len(missing):,} files are missing, the first of them {missing[0]}")
