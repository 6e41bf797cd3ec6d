"""Downloads: whatever the server does, the file is complete and right, or one error says what to do."""

import errno
import hashlib
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from seglib.datasets.download import fetch
from seglib.datasets.download.catalog import Remote
from seglib.datasets.download.fetch import DownloadError, download, download_all
from tests.helpers.kill import run_killed
from tests.helpers.server import (
    chunked,
    cut,
    headed,
    ignore_range,
    length,
    other,
    page,
    redirect,
    silent,
    status,
    together,
)

CONTENT = random.Random(0).randbytes(3000)
CHANGED = random.Random(1).randbytes(3000)
published = pytest.mark.parametrize("published", [True, False], ids=["checksum", "nothing published"])


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF", 0.0)
    monkeypatch.setattr(fetch, "TIMEOUT", (5, 5))


@pytest.fixture
def good(server):
    """A server with one file."""
    server.files["/a.zip"] = CONTENT
    return server


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def remote(server, *paths: str, published: bool = True, content: bytes = CONTENT, **more) -> Remote:
    urls = tuple(server.url(path) for path in paths or ("/a.zip",))
    if published:
        more |= {"size": len(content), "checksum": f"sha256:{sha256(content)}"}
    return Remote(**{"name": "a.zip", "urls": urls, **more})


def check_download(what: Remote, folder: Path, content: bytes = CONTENT) -> None:
    """Download, and check that the file is right and that only the lock is left beside it."""
    path = download(what, folder)
    assert path == folder / what.name and path.read_bytes() == content
    assert [each.name for each in path.parent.iterdir() if not each.name.endswith(".lock")] == [path.name]


def failure(what: Remote, folder: Path) -> str:
    """Download in vain, and return the message."""
    with pytest.raises(DownloadError) as caught:
        download(what, folder)
    assert not (folder / what.name).exists()
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ the good case


@published
def test_a_file_comes_with_one_request_and_is_not_requested_again(good, tmp_path, published):
    what = remote(good, published=published, name="new/a.zip")
    check_download(what, tmp_path)
    check_download(what, tmp_path)
    assert good.ranges("/a.zip") == [""]


@published
@pytest.mark.parametrize(
    "way",
    [chunked(), redirect("/elsewhere.zip"), headed(Content_Encoding="gzip")],
    ids=["chunked", "redirect", "called compressed"],
)
def test_a_server_may_send_the_file_in_several_ways(good, tmp_path, published, way):
    good.files["/elsewhere.zip"] = CONTENT
    good.always("/a.zip", way)
    check_download(remote(good, published=published), tmp_path)


# ------------------------------------------------------------------------------------------------ broken connections

PASSING = {
    "cut off": cut(1000),
    "cut off before the header": cut(-1),
    "cut off in a chunk": together(chunked(), cut(1500)),
    "silence": silent(),
    "silence inside the file": silent(after=1000),
    "503": status(503),
    "429": status(429, retry_after="0"),
}


@published
@pytest.mark.parametrize("name", PASSING)
def test_a_passing_fault_is_survived_and_said(good, tmp_path, monkeypatch, capsys, published, name):
    if name.startswith("silence"):
        monkeypatch.setattr(fetch, "TIMEOUT", (5, 0.5))
    good.fault("/a.zip", PASSING[name])
    check_download(remote(good, published=published), tmp_path)
    assert len(good.requests) >= 2
    assert capsys.readouterr().out.count("a.zip: ") == len(good.requests) - 1


def test_a_file_with_a_checksum_is_resumed_at_every_byte(server, tmp_path):
    content = server.files["/a.zip"] = CONTENT[:40]
    for byte in range(40):
        server.fault("/a.zip", cut(byte))
        check_download(remote(server, content=content), tmp_path / str(byte), content)
    assert server.ranges("/a.zip") == ["", "", *(part for byte in range(1, 40) for part in ("", f"bytes={byte}-"))]


def test_a_file_without_a_checksum_is_downloaded_from_its_start_again(good, tmp_path):
    good.fault("/a.zip", cut(1000))
    check_download(remote(good, published=False), tmp_path)
    assert good.ranges("/a.zip") == ["", ""]


def test_a_server_without_ranges_sends_the_whole_file_again(good, tmp_path):
    good.always("/a.zip", ignore_range())
    good.fault("/a.zip", cut(1000), cut(2000))
    check_download(remote(good), tmp_path)


def test_pieces_of_two_versions_are_not_mixed(good, tmp_path):
    good.fault("/a.zip", together(other(lambda _: CHANGED), cut(1000)))
    check_download(remote(good), tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=1000-", ""]


def test_as_long_as_the_file_grows_a_connection_may_break_often(good, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "PROGRESS", 100)
    good.fault("/a.zip", *[cut(100)] * 29)
    check_download(remote(good), tmp_path)
    assert good.ranges("/a.zip")[-1] == "bytes=2900-"


@published
def test_a_download_ends_where_every_connection_breaks(good, tmp_path, published):
    good.always("/a.zip", ignore_range(), cut(1000))
    assert f"1 kB received in {fetch.TRIES} attempts" in failure(remote(good, published=published), tmp_path)
    assert len(good.requests) == fetch.TRIES


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_later_call_resumes(good, tmp_path, size):
    what = remote(good, published=False, checksum=f"sha256:{sha256(CONTENT)}", size=size)
    good.fault("/a.zip", cut(2000), status(404))
    failure(what, tmp_path)
    check_download(what, tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=2000-", "bytes=2000-"]


@pytest.mark.parametrize("left", [CONTENT, CHANGED, CHANGED[:1000], CONTENT + b"more"])
def test_whatever_an_interrupted_call_left_the_file_is_right(good, tmp_path, left):
    fetch.partial_path(tmp_path / "a.zip").write_bytes(left)
    check_download(remote(good), tmp_path)


@pytest.mark.parametrize(("asked", "waited"), [("7", 7), ("100000", fetch.LONGEST_WAIT)])
def test_a_server_may_ask_to_wait_but_not_for_ever(good, tmp_path, monkeypatch, asked, waited):
    waits: list[float] = []
    monkeypatch.setattr(fetch, "Event", lambda: SimpleNamespace(wait=waits.append))
    good.fault("/a.zip", status(503, retry_after=asked))
    check_download(remote(good), tmp_path)
    assert waits == [waited]


# ------------------------------------------------------------------------------------------------ refused files

REFUSED = {
    "404": (status(404), "HTTP 404 Not Found", 1),
    "503": (status(503), "HTTP 503 Service Unavailable", fetch.TRIES),
    "silence": (silent(), "timed out", None),
    "web page": (page(), "a web page instead of the file", 1),
    "web page called a zip": (page(kind="application/zip"), "a file of 64 bytes instead of 3,000", 1),
    "empty": (other(lambda _: b""), "a file of 0 bytes instead of 3,000", 1),
    "shorter": (other(lambda body: body[:-1]), "a file of 2,999 bytes instead of 3,000", 1),
    "longer": (together(other(lambda body: body + b"!"), chunked()), "more than the expected 3,000 bytes", 1),
    "less than announced": (together(other(lambda body: body[:-9]), length(9)), "the connection broke", fetch.TRIES),
    "wrong byte": (other(lambda body: body[:-1] + b"!"), f"instead of {sha256(CONTENT)}", 1),
    "redirects in a circle": (redirect("/a.zip"), "Exceeded 30 redirects", 31),
    "redirect to another protocol": (redirect("ftp://127.0.0.1/a.zip"), "No connection adapters", 1),
}


@pytest.mark.parametrize(("fault", "reason", "requests"), REFUSED.values(), ids=REFUSED)
def test_the_error_says_what_was_expected_what_came_and_what_to_do(
    good, tmp_path, monkeypatch, fault, reason, requests
):
    if "timed out" in reason:
        monkeypatch.setattr(fetch, "TIMEOUT", (5, 0.05))
    good.always("/a.zip", fault)
    message = failure(remote(good), tmp_path)
    assert f"a.zip could not be downloaded. Expected: 3,000 bytes, sha256 {sha256(CONTENT)}" in message
    assert f"{good.url('/a.zip')}: " in message and f"save it as\n  {tmp_path / 'a.zip'}\n" in message
    assert reason in message and requests in (None, len(good.ranges("/a.zip")))
    good.recover("/a.zip")
    monkeypatch.setattr(fetch, "TIMEOUT", (5, 5))
    check_download(remote(good), tmp_path)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (page(kind="application/zip"), "a web page instead of the file"),
        (other(lambda _: b""), "an empty file"),
        (other(lambda body: b"?" + body), "not an archive"),
    ],
)
def test_without_size_and_checksum_the_content_is_checked(good, tmp_path, fault, reason):
    def check(path: Path) -> None:
        if path.read_bytes()[:1] == b"?":
            raise ValueError("not an archive")

    what = remote(good, published=False, check=check)
    good.fault("/a.zip", fault)
    message = failure(what, tmp_path)
    assert reason in message and "size not published, checksum not published" in message
    check_download(what, tmp_path)


def test_the_checksum_that_the_hub_announces_is_checked(server, tmp_path):
    server.files["/store"] = CONTENT
    server.always("/hub", redirect("/store", linked=sha256(CHANGED)))
    assert f"instead of {sha256(CHANGED)}" in failure(remote(server, "/hub", published=False), tmp_path)
    server.files["/store"] = CHANGED
    check_download(remote(server, "/hub", published=False), tmp_path, CHANGED)


def test_the_addresses_are_tried_in_their_order(good, tmp_path):
    good.files["/changed.zip"] = CHANGED
    what = remote(good, "/missing.zip", "/changed.zip", "/a.zip")
    check_download(what, tmp_path)
    good.files["/a.zip"] = CHANGED
    lines = failure(what, tmp_path / "other").splitlines()
    assert [line.split(": ")[0].strip() for line in lines[1:4]] == list(what.urls)


def test_another_address_continues_a_file_with_a_checksum(good, tmp_path):
    good.files["/b.zip"] = CONTENT
    good.fault("/a.zip", cut(1000), status(404))
    check_download(remote(good, "/a.zip", "/b.zip"), tmp_path)
    assert good.ranges("/b.zip") == ["bytes=1000-"]


@pytest.mark.parametrize("content", [CHANGED, CONTENT[:-1], b""])
def test_a_wrong_file_put_there_by_hand_is_named_and_kept(good, tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DownloadError, match=r"a\.zip is not the expected file: .*Move it away and run this again"):
        download(remote(good), tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == content and not good.requests


# ------------------------------------------------------------------------------------------------ disk, processes


class FullFile:
    """A file on a disk that is full after `left` bytes."""

    def __init__(self, file, left: int) -> None:
        self.file = file
        self.left = left

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self) -> "FullFile":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        self.file.write(content[: self.left])
        if len(content) > self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_disk(monkeypatch, left: int) -> None:
    open_file = Path.open

    def open_on_full_disk(self, mode="r", *args, **kwargs):
        file = open_file(self, mode, *args, **kwargs)
        return FullFile(file, left) if self.name.endswith(".part") and mode in ("wb", "ab") else file

    monkeypatch.setattr(Path, "open", open_on_full_disk)


def test_a_folder_that_cannot_be_created_is_named(good, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert "a.zip: Not a directory. " in failure(remote(good), tmp_path / "file" / "new")


def test_a_full_disk_is_named_and_what_came_is_kept(good, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fill_disk(patch, 1234)
        message = failure(remote(good, "/a.zip", "/b.zip"), tmp_path)
    assert f"cannot write {tmp_path / 'a.zip'}: No space left on device. " in message and "SEGLIB_HOME" in message
    check_download(remote(good), tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=1234-"]


def test_too_little_space_is_said_before_the_download(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000_000))
    fetch.check_disk_and_report("Pets", 50_000_000, 100_000_000, tmp_path / "new")
    assert capsys.readouterr().out == f"Pets: about 50 MB to download, 100 MB of disk in {tmp_path / 'new'}.\n"
    with pytest.raises(DownloadError, match=r"Pets: .* 110 MB of disk .* only 100 MB are free.*SEGLIB_HOME"):
        fetch.check_disk_and_report("Pets", 50_000_000, 110_000_000, tmp_path)


@pytest.mark.parametrize(
    ("name", "ranges"),
    [("tqdm.tqdm.update", ["", "bytes=16384-"]), ("seglib.datasets.download.fetch._check_file", [""])],
    ids=["inside the file", "before it is checked"],
)
def test_after_a_kill_the_next_call_continues(server, tmp_path, name, ranges):
    content = server.files["/a.zip"] = random.Random(2).randbytes(40_000)
    what = remote(server, content=content)
    run_killed(name, lambda: download(what, tmp_path))
    check_download(what, tmp_path, content)
    assert server.ranges("/a.zip") == ranges


def test_several_callers_download_a_file_once(good, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: download(remote(good), tmp_path), range(3)))
    assert good.ranges("/a.zip") == [""]


# ------------------------------------------------------------------------------------------------ many files


def publish(server, count: int) -> list[Remote]:
    """Small files on the server."""
    for number in range(count):
        server.files[f"/{number}.jpg"] = b"\xff\xd8" + random.Random(number).randbytes(500)
    return [remote(server, path, content=content, name=path[1:]) for path, content in server.files.items()]


def test_many_files_come_and_only_missing_ones_are_requested(server, tmp_path):
    remotes = publish(server, 30)
    server.fault("/3.jpg", cut(100))
    download_all(remotes[:20], tmp_path, "photographs")
    server.requests.clear()
    download_all(remotes, tmp_path, "photographs")
    assert sorted(request.path for request in server.requests) == sorted(f"/{number}.jpg" for number in range(20, 30))
    assert all((tmp_path / path[1:]).read_bytes() == content for path, content in server.files.items())


def test_a_missing_file_is_named_and_the_others_are_kept(server, tmp_path):
    remotes = publish(server, 30)
    del server.files["/7.jpg"]
    with pytest.raises(DownloadError, match=r"(?s)1 of 30 photographs are still missing.*7\.jpg: HTTP 404"):
        download_all(remotes, tmp_path, "photographs")
    assert len(list(tmp_path.glob("*.jpg"))) == 29


def test_without_a_network_many_files_are_given_up_early(server, tmp_path, monkeypatch):
    tried: list[str] = []

    def refuse(session, url, *_):
        tried.append(url)
        raise fetch._Unavailable("no network")

    monkeypatch.setattr(fetch, "_download_from", refuse)
    with pytest.raises(DownloadError, match="(?s)500 of 500 photographs .*no network"):
        download_all(publish(server, 500), tmp_path, "photographs")
    assert len(tried) < fetch.MAX_FAILURES + fetch.WORKERS


def test_after_an_interruption_no_request_is_repeated(server, tmp_path, monkeypatch):
    started = Event()
    show = fetch.progress_bar

    def interrupt(items, *arguments, **settings):
        if items is None:  # the bar of one file
            return show(items, *arguments, **settings)
        assert started.wait(60)
        raise KeyboardInterrupt

    remotes = publish(server, 100)
    for path in server.files:
        server.always(path, cut(100), lambda _: started.set())
    monkeypatch.setattr(fetch, "BACKOFF", 1000.0)
    monkeypatch.setattr(fetch, "progress_bar", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download_all(remotes, tmp_path, "photographs")
    assert len(server.requests) <= fetch.WORKERS


def test_an_error_in_a_check_is_not_hidden(server, tmp_path):
    remotes = publish(server, 3)
    wrong = Remote(remotes[1].name, remotes[1].urls, check=lambda path: path.no_such_attribute)  # type: ignore
    with pytest.raises(AttributeError, match="no_such_attribute"):
        download_all([remotes[0], wrong, remotes[2]], tmp_path, "photographs")
