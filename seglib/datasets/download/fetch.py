"""Downloads files, checks them and unpacks archives.

A file is written to `.NAME.part` and renamed to NAME once its length, checksum and content are right, so a file under
its own name is complete. The protocol is left to requests, and requests that fail before an answer arrives are repeated
by urllib3's Retry. Only a connection that breaks inside a file is handled here: a file with a published checksum is
resumed, also by a later call and from another address; any other file is downloaded again from its start.
"""

import hashlib
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from threading import Event
from typing import IO, Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from seglib.datasets.download.catalog import Remote
from seglib.files import locked
from seglib.progress import progress_bar

__all__ = [
    "ArchiveError",
    "DownloadError",
    "check_count",
    "check_disk_and_report",
    "check_files",
    "download",
    "download_all",
    "format_bytes",
    "lock",
    "partial_path",
    "unpack",
    "write_error",
]

TIMEOUT = (15, 30)  # seconds to connect, and seconds without a byte
TRIES = 5  # attempts in a row that bring less than PROGRESS
PROGRESS = 2**20  # bytes; an attempt that brings this much starts the count of attempts again
BACKOFF = 1.0  # seconds; the wait doubles with each attempt
LONGEST_WAIT = 60  # seconds to wait at most when a server asks for it
CHUNK = 2**14  # bytes read at a time
WORKERS = 16  # small files downloaded side by side
MAX_FAILURES = 8  # small files that may fail before the others are given up
BLOCK = 4096  # bytes that even an empty file takes on disk
HTML = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head)\b", re.IGNORECASE)  # the start of a web page
WEB_PAGE = "a web page instead of the file (a log-in, a quota or an error)"


class DownloadError(OSError):
    """A file could not be downloaded or stored. The message says what was expected, what came and what to do."""


class ArchiveError(ValueError):
    """An archive is broken or does not hold what was expected."""


class _Unavailable(Exception):
    """An address does not give the file."""


class _CorruptFile(Exception):
    """The downloaded bytes are not the expected file."""


class _Interrupted(Exception):
    """The user has stopped the downloads."""


class _Retry(Retry):
    """urllib3's Retry, which prints a line for each retry, limits the wait that a server may ask for, and can be ended.

    Args:
        stop: ends the attempts when it is set.
    """

    def __init__(self, *args: Any, stop: Event, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.stop = stop

    def new(self, **settings: Any) -> "_Retry":
        return super().new(stop=self.stop, **settings)

    def increment(  # type: ignore[override]  # `more` holds the private parameters
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        **more: Any,
    ) -> Retry:
        following = super().increment(method, url, response, error, **more)  # raises if there is no attempt left
        print(f"{url}: {error or f'HTTP {response.status}'}; trying again", flush=True)
        return following

    def sleep(self, response: "urllib3.BaseHTTPResponse | None" = None) -> None:
        asked = None if response is None else self.get_retry_after(response)
        if self.stop.wait(asked or self.get_backoff_time()):
            raise _Interrupted

    def get_retry_after(self, response: "urllib3.BaseHTTPResponse") -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, LONGEST_WAIT)


class _Session(requests.Session):
    """A session for several threads that repeats requests which fail before an answer arrives.

    Attributes:
        stop: ends all attempts when it is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stop = Event()
        retry = _Retry(
            total=TRIES - 1,
            backoff_factor=BACKOFF,
            status_forcelist=(408, 425, 429, 500, 502, 503, 504),
            raise_on_status=False,
            stop=self.stop,
        )
        self.headers.update({"User-Agent": "seglib", "Accept-Encoding": "identity"})
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=WORKERS, max_retries=retry))


# ------------------------------------------------------------------------------------------------ downloading


def download(remote: Remote, folder: str | Path) -> Path:
    """Download a file into `folder` and return its path; a file that is already there is checked and kept.

    If several processes ask for the same file at once, one of them downloads it and the others wait.

    Raises:
        DownloadError: no address gave the file, a different file has its name, or the disk cannot be written.
    """
    target = Path(folder) / remote.name
    with lock(target), _Session() as session:
        _download(session, remote, target)
    return target


def download_all(remotes: Sequence[Remote], folder: str | Path, title: str) -> None:
    """Download many small files side by side; files that are already there are checked and kept.

    Args:
        title: plural noun for the progress bar and the error, such as "photographs".

    Raises:
        DownloadError: some files failed; gives the number of missing files and the first reason. The others are kept.
    """
    folder = Path(folder)
    errors: list[OSError] = []
    with lock(folder / "all"), _Session() as session, ThreadPoolExecutor(WORKERS) as pool:

        def download_one(remote: Remote) -> None:
            try:
                if len(errors) < MAX_FAILURES:  # else the network is down or the disk is full
                    _download(session, remote, folder / remote.name, quiet=True)
            except OSError as error:
                errors.append(error)

        try:
            for _ in progress_bar(pool.map(download_one, remotes), title, total=len(remotes), unit=" files"):
                pass
        finally:  # after Ctrl-C, only the attempts under way are completed
            pool.shutdown(wait=False, cancel_futures=True)
            session.stop.set()
    if errors:
        missing = sum(not (folder / remote.name).is_file() for remote in remotes)
        raise DownloadError(
            f"{missing} of {len(remotes)} {title} are still missing; the others are kept. Run this again to download "
            f"the rest. The first error: {errors[0]}"
        ) from errors[0]


def lock(path: Path) -> AbstractContextManager[None]:
    """Let one process at a time work on `path`; the others say so and wait.

    Raises:
        DownloadError: the folder of `path` cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    message = f"Another process is working on {path}: waiting for it to finish."
    return locked(path.with_name(f".{path.name}.lock"), message)


def partial_path(target: Path) -> Path:
    """The path of a file or folder that is not complete yet."""
    return target.with_name(f".{target.name}.part")


def _download(session: _Session, remote: Remote, target: Path, quiet: bool = False) -> None:
    """Store the file at `target`, from the first address that gives it."""
    part = partial_path(target)
    if target.exists():
        try:
            _check_file(target, remote)
        except _CorruptFile as error:
            raise DownloadError(
                f"{target} is not the expected file: {error}. Move it away and run this again."
            ) from None
        return
    answers = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for url in remote.urls:
            try:
                _download_from(session, url, remote, part, quiet)
                os.replace(part, target)
                return
            except _Unavailable as error:
                answers.append(f"  {url}: {error}")
    except OSError as error:
        raise write_error(target, error) from error
    raise DownloadError(_describe_failure(remote, target, answers))


def _download_from(session: _Session, url: str, remote: Remote, part: Path, quiet: bool) -> None:
    """Download `part` from one address, in as many attempts as it takes.

    Raises:
        _Unavailable: the address does not give the file.
        _Interrupted: the downloads have been stopped.
    """
    attempts = 0
    largest = _size(part)
    while True:
        resumed = bool(remote.checksum) and part.is_file()
        try:
            checksum = _receive(session, url, remote, part, quiet)
            _check_file(part, remote, checksum)
            return
        except _CorruptFile as error:
            part.unlink(missing_ok=True)
            if not resumed:
                raise _Unavailable(str(error)) from None
            reason = str(error)  # perhaps the pieces come from different files: download it in one piece
        except urllib3.exceptions.HTTPError as error:
            reason = f"the connection broke ({error})"
        attempts = 1 if _size(part) - largest >= PROGRESS else attempts + 1
        largest = max(largest, _size(part))  # a server that always begins at byte 0 makes no progress
        if attempts == TRIES:
            raise _Unavailable(f"{reason}; {format_bytes(largest)} received in {TRIES} attempts")
        print(f"{remote.name}: {reason}; trying again", flush=True)
        if session.stop.wait(BACKOFF * 2 ** (attempts - 1)):
            raise _Interrupted


def _receive(session: requests.Session, url: str, remote: Remote, part: Path, quiet: bool) -> str:
    """Request the bytes that `part` lacks, append them, and return the checksum that the server announces, or "".

    Raises:
        _Unavailable, _CorruptFile: what came is not the file.
        urllib3.exceptions.HTTPError: the connection broke inside the file.
    """
    start = _size(part) if remote.checksum else 0
    if start and start == remote.size:  # complete; a process was killed before it was renamed
        return ""
    try:
        answer = session.get(url, headers={"Range": f"bytes={start}-"} if start else {}, stream=True, timeout=TIMEOUT)
    except (requests.RequestException, ValueError) as error:  # ValueError: a redirect to something that is no address
        raise _Unavailable(str(getattr(error.args[0], "reason", error) if error.args else error)) from None
    with answer:
        _check_response(answer, start, remote)
        start = start if answer.status_code == 206 else 0
        announced = answer.raw.length_remaining
        total = remote.size or (None if announced is None else start + announced)
        bar: tqdm[bytes] = progress_bar(None, remote.name, total=total, done=start, unit="B", quiet=quiet)
        with part.open("ab" if start else "wb") as file, bar:
            while chunk := answer.raw.read(CHUNK):  # raw: keeps the bytes of a file that is sent as compressed
                file.write(chunk)
                bar.update(len(chunk))
                if total is not None and file.tell() > total:
                    raise _CorruptFile(f"more than the expected {total:,} bytes")
    if total is not None and _size(part) < total:
        raise urllib3.exceptions.ProtocolError(f"{_size(part):,} of {total:,} bytes")
    # The Hugging Face hub sends the checksum of a large file before it redirects to its store.
    tags = [response.headers.get("X-Linked-ETag", "").strip('"') for response in (*answer.history, answer)]
    return next((f"sha256:{tag}" for tag in tags if re.fullmatch("[0-9a-f]{64}", tag)), "")


def _check_response(answer: requests.Response, start: int, remote: Remote) -> None:
    """Raise _Unavailable unless the server sends the file, and _CorruptFile if it cannot be resumed at byte `start`."""
    status = answer.status_code
    content_range = answer.headers.get("Content-Range", "")
    length = answer.raw.length_remaining  # None where the server does not announce it
    if status == 416 or (status == 206 and not content_range.startswith(f"bytes {start}-")):
        raise _CorruptFile(f"HTTP {status} {content_range} instead of the bytes from {start} on")
    if status not in (200, 206):
        raise _Unavailable(f"HTTP {status} {answer.reason}")
    if "html" in answer.headers.get("Content-Type", ""):
        raise _Unavailable(WEB_PAGE)
    if status == 200 and remote.size and length not in (None, remote.size):
        raise _Unavailable(f"a file of {length:,} bytes instead of {remote.size:,}")


def _check_file(path: Path, remote: Remote, announced: str = "") -> None:
    """Raise _CorruptFile unless a file has the published length, checksum and content, and the announced checksum."""
    if not path.is_file():
        raise _CorruptFile("a folder")
    size = _size(path)
    with path.open("rb") as file:
        start = file.read(1024)
    if not start:
        raise _CorruptFile("an empty file")
    if HTML.match(start):
        raise _CorruptFile(WEB_PAGE)
    if remote.size not in (None, size):
        raise _CorruptFile(f"{size:,} bytes instead of {remote.size:,}")
    for checksum in filter(None, (remote.checksum, announced)):
        kind, expected = checksum.split(":")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != expected:
            raise _CorruptFile(f"{kind} {found} instead of {expected}")
    if remote.check is not None:
        try:
            remote.check(path)
        except ValueError as error:
            raise _CorruptFile(str(error)) from None


def _describe_failure(remote: Remote, target: Path, answers: Sequence[str]) -> str:
    """The message of a download that failed at every address."""
    size = f"{remote.size:,} bytes" if remote.size else "size not published"
    checksum = remote.checksum.replace(":", " ") or "checksum not published"
    listed = "\n".join(answers)
    return (
        f"{remote.name} could not be downloaded. Expected: {size}, {checksum}. The addresses gave:\n{listed}\n"
        "If the network was down, run this again later. To get the file by hand, download it with a browser from one "
        f"of these addresses, or copy it from somebody who has it, and save it as\n  {target}\nThen run this again: "
        "the file is found, checked and used."
    )


# ------------------------------------------------------------------------------------------------ disk and sizes


def check_disk_and_report(title: str, download_size: int, disk_size: int, folder: Path) -> None:
    """Check that the disk is large enough, and print how much will be downloaded.

    Args:
        title: what will be downloaded.
        download_size: bytes to download.
        disk_size: bytes needed in `folder` while everything is unpacked.

    Raises:
        DownloadError: the disk has too little space.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
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


def write_error(path: Path, error: OSError) -> DownloadError:
    """The error of a disk that is full or cannot be written."""
    return DownloadError(
        f"cannot write {path}: {error.strerror or error}. Free some space, or name a writable folder in the "
        "environment variable SEGLIB_HOME; the files downloaded so far are kept."
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# ------------------------------------------------------------------------------------------------ unpacking


def unpack(archive: Path, folder: Path, wanted: Callable[[str], str | None], limit: int) -> None:
    """Unpack the wanted files of a zip or tar archive. Links and devices are left out.

    Args:
        wanted: takes the path of a file in the archive and returns its path in `folder`, or None to leave it out.
        limit: bytes that the unpacked files may take.

    Raises:
        ArchiveError: the archive is broken or holds more than `limit`, a path leads out of `folder`, or two files have
            the same path there.
    """
    try:
        for name, size, open_file in progress_bar(_list_files(archive), f"unpacking {archive.name}", unit=" files"):
            target = wanted(name)
            if target is None:
                continue
            path = folder / target
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ArchiveError(f"{archive}: the path {name} leads out of the folder to unpack to")
            limit -= max(size, BLOCK)
            if limit < 0:
                raise ArchiveError(f"{archive} holds more than expected; stopped at {name}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with open_file() as source, path.open("xb") as file:
                    shutil.copyfileobj(source, file)
            except (FileExistsError, NotADirectoryError) as error:
                raise ArchiveError(
                    f"{archive}: {name} cannot be unpacked to {target}, because another of its files is there"
                ) from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError) as error:  # Runtime: encrypted
        raise ArchiveError(f"{archive} is broken ({error or type(error).__name__})") from error


def _list_files(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Path, unpacked size and a function that opens it, for each regular file of an archive."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zip_file:
            for info in zip_file.infolist():
                if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
                    yield info.filename, info.file_size, partial(zip_file.open, info)
    else:
        with tarfile.open(archive) as tar_file:
            for member in tar_file:
                if member.isreg():
                    open_file = partial(tar_file.extractfile, member)
                    yield member.name, member.size, open_file  # type: ignore[misc]  # None for other kinds of members


def check_count(found: int, expected: int, things: str) -> None:
    """Raise ArchiveError unless an archive holds as many things as its publisher says."""
    if found != expected:
        raise ArchiveError(f"{found:,} {things} instead of {expected:,}")


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Raise ArchiveError unless each of the files was in the archive."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ArchiveError(f"{len(missing):,} files are missing, the first of them {missing[0]}")
