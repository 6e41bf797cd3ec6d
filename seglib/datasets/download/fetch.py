"""Files from the network: resumed, checked, from mirror after mirror, never half there under their own name.

What comes is written to `.NAME.part`, and becomes NAME when its length, its checksum and its content are right. Killed
at any moment, the same call goes on where that file ends.

Why not pooch, fsspec or huggingface_hub: pooch 1.9 begins an interrupted file anew and knows one address a file,
fsspec checks nothing it copies, huggingface_hub serves one host. The protocol itself is left to requests, the lock to
filelock.
"""

import hashlib
import json
import os
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import requests
import urllib3
from filelock import FileLock, Timeout

from seglib.progress import progress_bar

TIMEOUT = (15, 30)  # seconds: to connect, and without a byte
TRIES = 5  # attempts in a row, at one address, that brought nothing worth mentioning
WORTH = 2**20  # bytes: an attempt that brought so many, or a hundredth of the file, does not count as one of those
WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before the second attempt; doubled each time, or what the server asks for
PIECE = 2**14  # bytes read at a time, and lost where the connection breaks in their midst
WORKERS = 16  # small files fetched side by side
MOST_FAILURES = 8  # small files that fail in a row before the others are not tried any more
MBIT = 1e6 / 8  # bytes a second
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head)\b", re.IGNORECASE)  # how a web page begins


@dataclass(frozen=True)
class Remote:
    """A file that somebody publishes, and how to know that what came is that file.

    Attributes:
        name: what to call it; may hold a folder, "train2017/1.jpg".
        urls: where it is, the official address first.
        size: its bytes, where they are known. checksum: "md5:..." or "sha256:...", as published.
        published: where size and checksum stand.
        check: called with the path of what came; raises ValueError where its content is wrong.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    checksum: str = ""
    published: str = ""
    check: Callable[[Path], object] | None = None


class DownloadError(OSError):
    """A file could not be had; says what was expected, what came from where, and how to do it by hand."""


class _Refused(Exception):
    """This address will not give the file, however often it is asked."""


class _Wrong(Exception):
    """The whole file came, and it is not the one that was expected."""


class _TryAgain(Exception):
    """The server is there, but not well. The second argument: for how many seconds it asks to be left alone."""


def download(remote: Remote, folder: str | Path) -> Path:
    """Download a file, or go on with it, or find it there.

    Of several processes that ask for the same file at once, one downloads it and the others wait.

    Args:
        folder: where the file is to lie.

    Raises:
        DownloadError: no address gave it, or what lies there under its name is something else.
        OSError: the disk is full or may not be written to.
    """
    target = Path(folder) / remote.name
    with only_one(target), requests.Session() as session:
        _download(session, remote, target, threading.Event())
    return target


def download_all(remotes: Sequence[Remote], folder: str | Path, title: str) -> None:
    """Download many small files side by side; those that are there already are checked, and stay as they are.

    Args:
        title: what to call them in the progress bar.

    Raises:
        DownloadError: for the first file that could not be had, with the number of the others; what came is kept.
    """
    folder, stop = Path(folder), threading.Event()
    with only_one(folder / "all"):
        remotes = random.sample(remotes, len(remotes))  # a few in a row that are gone must not look like no network
        errors: list[OSError] = []
        in_a_row = 0
        with (
            _shared_session() as session,
            ThreadPoolExecutor(WORKERS) as pool,
            progress_bar(None, title, total=len(remotes), unit=" files") as bar,
        ):
            tasks = [pool.submit(_download, session, remote, folder / remote.name, stop, True) for remote in remotes]
            try:
                for task in as_completed(tasks):
                    if isinstance(error := task.exception(), OSError):
                        errors.append(error)
                    elif error is not None:
                        raise error
                    bar.update(error is None)
                    in_a_row = 0 if error is None else in_a_row + 1
                    if in_a_row == MOST_FAILURES or (errors and not isinstance(errors[-1], DownloadError)):
                        break  # the network is gone, or the disk is full: the others would fail as well
            except KeyboardInterrupt:
                print("Stopping, in half a minute at most: some wait for their server.", flush=True)
                raise
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
    if errors:
        left = sum(not (folder / remote.name).is_file() for remote in remotes)
        raise DownloadError(
            f"{left} of {len(remotes)} files ({title}) are still to come, the others are kept: run it again to go on. "
            f"The first that failed: {errors[0]}"
        ) from errors[0]


def announce(title: str, size: int, disk: int, folder: Path) -> None:
    """Say how much will come and how long that takes, and see that the disk can hold it.

    Args:
        size: bytes to come. disk: bytes needed in `folder` while all is unpacked.

    Raises:
        DownloadError: less room than that.
    """
    _check_room(folder, disk, title)
    if size == 0:
        print(f"{title}: nothing to download, all of it is here.", flush=True)
        return
    times = " or ".join(f"{_duration(size / (rate * MBIT))} at {rate} Mbit/s" for rate in (100, 10))
    print(f"{title}: about {in_bytes(size)} to download ({times}), {in_bytes(disk)} of disk.", flush=True)


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Let one process at a time work on `path`; the others wait, and say so."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is at work on {path}: waiting for it.", flush=True)
        lock.acquire()
    except NotImplementedError:  # some network disks
        print(f"No locks on the disk of {path}: let no other process work there meanwhile.", flush=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()


def in_bytes(size: float) -> str:
    """A number of bytes, for people: "241 MB"."""
    units = ["bytes", "kB", "MB", "GB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" or size >= 999.5 else f"{size:.3g} {units[0]}"


def _shared_session() -> requests.Session:
    """A session that keeps a connection for each worker: a photograph takes less time than to connect."""
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=WORKERS))
    return session


def _download(
    session: requests.Session, remote: Remote, target: Path, stop: threading.Event, quiet: bool = False
) -> None:
    """Put the file at `target`, from the first address that gives it whole."""
    part = target.with_name(f".{target.name}.part")
    if target.exists():
        try:
            _verify(target, remote)
        except _Wrong as wrong:
            raise DownloadError(
                f"{target} is not the file it should be: {wrong}. Move it away, and try again."
            ) from None
        for rest in (part, _note(part)):  # begun before the file was put there by hand
            rest.unlink(missing_ok=True)
        return
    answers = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for url in remote.urls:
            try:
                _from_address(session, url, remote, part, stop, quiet)
                os.replace(part, target)
                _note(part).unlink(missing_ok=True)
                return
            except _Refused as refusal:
                answers.append(f"  {url}: {refusal}")
                if not quiet:
                    print(f"{remote.name}: {refusal}, from {url}.", flush=True)
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise cannot_write(target, error) from error
    raise DownloadError(_explain(remote, target, answers))


def _from_address(
    session: requests.Session, url: str, remote: Remote, part: Path, stop: threading.Event, quiet: bool
) -> None:
    """Fill `part` from one address, attempt after attempt, until it is whole and right.

    Raises:
        _Refused: no use in asking there again.
    """
    failures, reached, joined_wrongly = 0, _size(part), False
    while True:
        if stop.is_set():
            raise _Refused("stopped")
        had = _size(part)
        try:
            promised = _receive(session, url, remote, part, stop, quiet)
            _verify(part, remote, promised)
            return
        except _Wrong as wrong:
            part.unlink(missing_ok=True)
            if not had or joined_wrongly:
                raise _Refused(str(wrong)) from None
            joined_wrongly = True  # pieces that did not belong together, it may be: once more, from its first byte
            reason, wait, reached = str(wrong), 0.0, 0
        except _TryAgain as unwell:
            reason, wait = str(unwell.args[0]), unwell.args[1]
        except (requests.TooManyRedirects, ValueError) as error:  # ValueError: what it redirects to is no address
            raise _Refused(str(error)) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reason, wait = _plainly(error), 0.0
        brought = _size(part) - reached  # beyond what came before: some servers begin at the beginning each time
        reached = max(reached, _size(part))
        failures = 1 if brought >= min(WORTH, max(1, (remote.size or WORTH) // 100)) else failures + 1
        if failures == TRIES:
            raise _Refused(f"{reason} ({in_bytes(_size(part))} had come; asked {TRIES} times)")
        wait = max(min(wait, LONGEST_WAIT), min(WAIT * 2 ** (failures - 1), LONGEST_WAIT))
        if not quiet:
            print(f"{remote.name}: {reason}. Trying again in {wait:.0f} s.", flush=True)
        if stop.wait(wait):
            raise _Refused("stopped")


def _receive(
    session: requests.Session, url: str, remote: Remote, part: Path, stop: threading.Event, quiet: bool
) -> dict[str, str]:
    """Ask once for what `part` lacks, and append it.

    Returns:
        What the server promises of the whole file: "checksum", where it says one.

    Raises:
        _Refused, _TryAgain, _Wrong: by what came. requests' and urllib3's errors: a connection that broke.
    """
    if remote.size is not None and _size(part) == remote.size:
        return _noted(part).get("promised", {})  # it was whole when its process was killed
    have = _resumable(url, remote, part)
    headers = {"Accept-Encoding": "identity", "User-Agent": "seglib"}
    if have:
        headers |= {"Range": f"bytes={have}-"}
        if not remote.checksum:
            headers |= {"If-Range": _noted(part)["validator"]}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        start, total = _understand(answer, have, remote, part)
        promised, validator = _promised(answer), _validator(answer)
        if start == total:
            return promised
        if start and not remote.checksum:
            if validator not in ("", _noted(part)["validator"]):  # not every server heeds If-Range
                part.unlink()
                raise _TryAgain("the file was replaced meanwhile", 0.0)
            validator = _noted(part)["validator"]
        if total is not None:
            _check_room(part.parent, total - start, remote.name)
        piece = answer.raw.read(PIECE)  # raw: a .tgz must not be unpacked on its way
        if start == 0 and PAGE.match(piece):
            _refuse_page(piece)
        with (
            part.open("r+b" if start else "wb") as file,
            progress_bar(None, Path(remote.name).name, total=total, done=start, unit="B", quiet=quiet) as bar,
        ):
            file.seek(start)
            file.truncate()
            _note(part).write_text(json.dumps({"url": url, "validator": validator, "promised": promised}))
            while piece:
                file.write(piece)
                bar.update(len(piece))
                if total is not None and file.tell() > total:
                    raise _Wrong(f"more than the {total:,} bytes that were expected")
                if stop.is_set():
                    raise _Refused("stopped")
                piece = answer.raw.read(PIECE)
    if total is not None and _size(part) < total:
        raise _TryAgain(f"{_size(part):,} of {total:,} bytes", 0.0)
    return promised


def _resumable(url: str, remote: Remote, part: Path) -> int:
    """How many bytes of `part` may be built on: all, if they are of the same file as this address's; else none."""
    have = _size(part)
    if not have or (remote.size is not None and have > remote.size):
        return 0
    if remote.checksum:
        return have  # should they not fit together, the checksum will tell
    note = _noted(part)
    return have if note.get("url") == url and note.get("validator") else 0


def _understand(answer: requests.Response, have: int, remote: Remote, part: Path) -> tuple[int, int | None]:
    """Where what comes begins, and how long the whole file is, where that is known.

    Raises:
        _Refused, _TryAgain: it will not come, or not now.
    """
    status = answer.status_code
    if status in (408, 425, 429) or status >= 500:
        asked = answer.headers.get("Retry-After", "")
        raise _TryAgain(f"HTTP {status} {answer.reason}", float(asked) if asked.isdecimal() else 0.0)
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if status in (206, 416):
        total = int(span[2]) if span and span[2] != "*" else None
        if status == 416 and total is not None and remote.size not in (None, total):
            raise _Refused(f"a file of {total:,} bytes in place of {remote.size:,}")
        if status == 416 and have and have == total:
            return have, total
        if status == 416 or not span or not span[1] or int(span[1]) != have:
            part.unlink(missing_ok=True)
            raise _TryAgain(f"HTTP {status} with {answer.headers.get('Content-Range')} for bytes {have}-", 0.0)
        start = have
    elif status == 200:
        length = answer.headers.get("Content-Length", "")
        start, total = 0, int(length) if length.isdecimal() else None
    else:
        raise _Refused(f"HTTP {status} {answer.reason}")
    if "html" in answer.headers.get("Content-Type", ""):
        _refuse_page(answer.raw.read(4096))
    if remote.size is not None and total not in (None, remote.size):
        raise _Refused(f"a file of {total:,} bytes in place of {remote.size:,}")
    return start, remote.size if remote.size is not None else total


def _refuse_page(beginning: bytes) -> NoReturn:
    """Raise _Refused for a web page that came in place of a file, with the page's title."""
    title = re.search(rb"<title[^>]*>(.*?)</title>", beginning, re.IGNORECASE | re.DOTALL)
    said = f" ({' '.join(title[1].decode(errors='replace').split())[:80]!r})" if title else ""
    raise _Refused(f"a web page{said} in place of the file: a log-in, a quota or an error")


def _validator(answer: requests.Response) -> str:
    """What names this very version of the file on this server; empty where nothing does."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _promised(answer: requests.Response) -> dict[str, str]:
    """The checksum that the Hugging Face hub sends along with a large file, before it redirects to its store."""
    for response in (*answer.history, answer):
        tag = response.headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", tag):
            return {"checksum": f"sha256:{tag}"}
    return {}


def _verify(path: Path, remote: Remote, promised: dict[str, str] | None = None) -> None:
    """Raise _Wrong unless the file has the length, the checksum and the content that were published or promised."""
    if path.is_dir():
        raise _Wrong("a folder")
    size = _size(path)
    if size == 0 and remote.size != 0:
        raise _Wrong("nothing came: 0 bytes")
    with path.open("rb") as file:
        if PAGE.match(file.read(1024)):
            raise _Wrong("a web page in place of the file")
    if remote.size is not None and size != remote.size:
        raise _Wrong(f"{size:,} bytes in place of {remote.size:,}")
    for checksum in filter(None, (remote.checksum, (promised or {}).get("checksum"))):
        kind, wanted = checksum.split(":")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != wanted:
            raise _Wrong(f"{kind} {found} in place of {wanted}")
    if remote.check is not None:
        try:
            remote.check(path)
        except ValueError as error:
            raise _Wrong(str(error).replace(str(path), "what came")) from None


def _explain(remote: Remote, target: Path, answers: list[str]) -> str:
    """The message of a download that failed everywhere."""
    size = f"{remote.size:,} bytes" if remote.size is not None else "of a size that is not published"
    checksum = f", {remote.checksum.replace(':', ' ')}" if remote.checksum else ", no checksum published"
    source = f" ({remote.published})" if remote.published else ""
    listed = "\n".join(answers)
    return (
        f"{remote.name} could not be downloaded. Expected: {size}{checksum}{source}. What came:\n{listed}\n"
        f"By hand: get it with a browser, from one of these addresses or from somebody who has it, save it as\n"
        f"  {target}\nand run this again: it will be found, checked and used. If the network was the trouble, "
        "run this again later: it goes on where it stopped."
    )


def cannot_write(path: Path, error: OSError) -> OSError:
    """The error of a disk that is full or may not be written to."""
    return OSError(
        f"cannot write {path}: {error.strerror or error}. Free some space, or name a folder that may be written to "
        "in the environment variable SEGLIB_HOME; what has come so far is kept."
    )


def _check_room(folder: Path, needed: int, what: str) -> None:
    """Raise DownloadError where the disk that will hold `folder` has less than `needed` bytes left."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DownloadError(
            f"{what} needs {in_bytes(needed)} in {folder}, where {in_bytes(free)} are free: free some space, or name a "
            "folder on another disk in the environment variable SEGLIB_HOME."
        )


def _plainly(error: Exception) -> str:
    """What broke a connection, for people: requests and urllib3 wrap it several times."""
    text, kinds = str(error), (type(error).__name__,)
    while isinstance(inner := getattr(error, "reason", None) or (error.args or [None])[0], Exception):
        error, kinds = inner, (*kinds, type(inner).__name__)
    for kind, plain in (
        ("NameResolutionError", "no such host, or no network"),
        ("ReadTimeoutError", f"nothing came for {TIMEOUT[1]} s"),
        ("ConnectTimeoutError", f"no connection within {TIMEOUT[0]} s"),
        ("IncompleteRead", "the connection broke"),
        ("ConnectionResetError", "the connection was reset"),
        ("ConnectionRefusedError", "the connection was refused"),
        ("RemoteDisconnected", "the server hung up"),
    ):
        if kind in kinds or kind in text:
            return plain
    return str(error) or type(error).__name__


def _note(part: Path) -> Path:
    """The file beside a partial one that says where it came from."""
    return part.with_name(part.name + ".json")


def _noted(part: Path) -> dict:
    """What stands in that file; nothing where it cannot be read."""
    try:
        note = json.loads(_note(part).read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _duration(seconds: float) -> str:
    """A time, for people, roughly."""
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
