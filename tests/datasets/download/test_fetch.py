"""Downloads: whatever the server does, the file is complete and right, or one error says what to do."""

import errno
import hashlib
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from seglib.datasets.download import fetch
from seglib.datasets.download.catalog import Remote
from seglib.datasets.download.fetch import DownloadError, download, download_all
from tests.helpers.kill import run_killed
from tests.helpers.miniature import make_zip
from tests.helpers.server import chunked, cut, ignore_range, length, other, page, redirect, silent, status, together

CONTENT = make_zip({"a": random.Random(0).randbytes(3000)})
CHANGED = make_zip({"a": random.Random(1).randbytes(3000)})
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
@pytest.mark.parametrize("way", [chunked(), redirect("/elsewhere.zip")], ids=["chunked", "redirect"])
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
    "429": status(429),
}


@published
@pytest.mark.parametrize("name", PASSING)
def test_a_passing_fault_is_survived(good, tmp_path, monkeypatch, published, name):
    if name.startswith("silence"):
        monkeypatch.setattr(fetch, "TIMEOUT", (5, 0.5))
    good.fault("/a.zip", PASSING[name])
    check_download(remote(good, published=published), tmp_path)
    assert len(good.requests) == 2


def test_a_file_with_a_checksum_is_resumed_at_every_byte(server, tmp_path):
    content = server.files["/a"] = CONTENT[:40]
    for byte in range(40):
        server.fault("/a", cut(byte))
        check_download(remote(server, "/a", content=content, name="a"), tmp_path / str(byte), content)
    assert server.ranges("/a") == ["", "", *(part for byte in range(1, 40) for part in ("", f"bytes={byte}-"))]


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


# ------------------------------------------------------------------------------------------------ refused files

LENGTH = f"{len(CONTENT):,} bytes"
REFUSED = {
    "404": (status(404), "HTTP 404 Not Found", 1),
    "503": (status(503), "HTTP 503 Service Unavailable", fetch.TRIES),
    "silence": (silent(), "timed out", None),
    "web page": (page(), "a web page instead of the file", 1),
    "web page called a zip": (page(kind="application/zip"), f"64 bytes instead of {len(CONTENT):,}", 1),
    "empty": (other(lambda _: b""), f"0 bytes instead of {len(CONTENT):,}", 1),
    "shorter": (other(lambda body: body[:-1]), f"{len(CONTENT) - 1:,} bytes instead of {len(CONTENT):,}", 1),
    "longer": (other(lambda body: body + b"!"), f"{len(CONTENT) + 1:,} bytes instead of {len(CONTENT):,}", 1),
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
    assert f"a.zip could not be downloaded. Expected: {LENGTH}, sha256 {sha256(CONTENT)}" in message
    assert f"{good.url('/a.zip')}: " in message and f"save it as\n  {tmp_path / 'a.zip'}\n" in message
    assert reason in message and requests in (None, len(good.ranges("/a.zip")))
    good.recover("/a.zip")
    monkeypatch.setattr(fetch, "TIMEOUT", (5, 5))
    check_download(remote(good), tmp_path)


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b"", CONTENT[:2000]], ids=["web page", "empty", "half"])
def test_without_size_and_checksum_a_zip_must_be_complete(good, tmp_path, body):
    what = remote(good, published=False)
    good.fault("/a.zip", other(lambda _: body))
    message = failure(what, tmp_path)
    assert f"not a complete zip file and begin with {body[:40]!r}" in message
    assert "size not published, checksum not published" in message
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
    good.files["/a.zip"] = good.files["/b.zip"] = CONTENT
    good.fault("/a.zip", cut(1000), status(404))
    check_download(remote(good, "/a.zip", "/b.zip"), tmp_path / "continued")
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


def test_what_came_before_the_disk_was_full_is_kept(good, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device"):
        fill_disk(patch, 1234)
        download(remote(good, "/a.zip", "/b.zip"), tmp_path)
    check_download(remote(good), tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=1234-"]


def test_too_little_space_is_said_before_the_download(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000_000))
    fetch.check_disk("Pets", 50_000_000, 100_000_000, tmp_path)
    assert capsys.readouterr().out == f"Pets: about 50 MB to download, 100 MB of disk in {tmp_path}.\n"
    with pytest.raises(DownloadError, match=r"Pets: .* 110 MB of disk .* only 100 MB are free.*SEGLIB_HOME"):
        fetch.check_disk("Pets", 50_000_000, 110_000_000, tmp_path)


@pytest.mark.parametrize(
    ("name", "ranges"),
    [("tqdm.tqdm.update", ["", "bytes=16384-"]), ("seglib.datasets.download.fetch._check_file", [""])],
    ids=["inside the file", "before it is checked"],
)
def test_after_a_kill_the_next_call_continues(server, tmp_path, name, ranges):
    content = server.files["/a.zip"] = make_zip({"a": random.Random(2).randbytes(40_000)})
    what = remote(server, content=content)
    run_killed(name, lambda: download(what, tmp_path))
    check_download(what, tmp_path, content)
    assert server.ranges("/a.zip") == ranges


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


def test_after_an_interruption_or_without_a_network_the_others_are_given_up(server, tmp_path, monkeypatch):
    remotes = publish(server, 500)
    tried: list[str] = []

    def refuse(session, url, *_):
        tried.append(url)
        raise fetch._Refused("no network")

    monkeypatch.setattr(fetch, "_download_from", refuse)
    with pytest.raises(DownloadError, match="(?s)500 of 500 photographs .*no network"):
        download_all(remotes, tmp_path, "photographs")
    monkeypatch.setattr(fetch, "progress_bar", lambda *_, **__: interrupt())
    with pytest.raises(KeyboardInterrupt):
        download_all(remotes, tmp_path, "photographs")
    assert len(tried) <= 2 * (fetch.MAX_FAILURES + fetch.WORKERS)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_error_in_a_check_is_not_hidden(server, tmp_path):
    remotes = publish(server, 3)
    wrong = Remote(remotes[1].name, remotes[1].urls, check=lambda path: path.no_such_attribute)  # type: ignore
    with pytest.raises(AttributeError, match="no_such_attribute"):
        download_all([remotes[0], wrong, remotes[2]], tmp_path, "photographs")
