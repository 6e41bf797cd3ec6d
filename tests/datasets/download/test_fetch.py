"""Downloads: whatever the network and the server do, a file is there whole and right, or an error says what to do."""

import errno
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from seglib.datasets import download
from seglib.datasets.download.fetch import DownloadError, Remote
from tests.helpers.server import (
    chunked,
    compressed,
    cut,
    drip,
    drop,
    empty,
    flipped,
    headed,
    ignore_if_range,
    ignore_range,
    length,
    old,
    other,
    other_range,
    page,
    redirect,
    replaced,
    reset,
    short_range,
    silent,
    stall,
    status,
    together,
    unsatisfiable,
    weak_etag,
    without,
)

CONTENT = random.Random(0).randbytes(3000)
OTHER = random.Random(1).randbytes(3000)  # another version of the same file
KNOWN = {"all": "size checksum", "size": "size", "checksum": "checksum", "nothing": ""}
known = pytest.mark.parametrize("known", list(KNOWN))


class Waits(threading.Event):
    """An event that notes for how long it was to be waited for, and does not wait."""

    noted: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.noted.append(timeout)
        return self.is_set()


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """No test waits between two attempts; how long it would have waited is noted."""
    monkeypatch.setattr(Waits, "noted", [])
    monkeypatch.setattr(download, "threading", SimpleNamespace(Event=Waits))
    monkeypatch.setattr(download, "TIMEOUT", (5, 5))
    return Waits.noted


@pytest.fixture
def impatient(monkeypatch):
    """A client that soon gives a silent server up."""
    monkeypatch.setattr(download, "TIMEOUT", (5, 0.15))


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def remote(server, *paths: str, content: bytes = CONTENT, known: str = "all", **more) -> Remote:
    """A file of this content, published with its size and checksum or without."""
    return Remote(
        more.pop("name", "a.zip"),
        tuple(server.url(path) for path in paths or ("/a.zip",)),
        len(content) if "size" in KNOWN[known] else None,
        sha256(content) if "checksum" in KNOWN[known] else "",
        **more,
    )


def fetch(what: Remote, folder: Path, content: bytes = CONTENT) -> None:
    """Download, and see that the file is right and that nothing else is left but the lock."""
    path = download.download(what, folder)
    assert path == folder / what.name and path.read_bytes() == content
    assert sorted(each.name for each in path.parent.iterdir() if not each.name.endswith(".lock")) == [path.name]


def refused(what: Remote, folder: Path) -> str:
    """Download in vain; the message. Nothing lies under the file's own name."""
    with pytest.raises(DownloadError) as caught:
        download.download(what, folder)
    assert not (folder / what.name).exists()
    return str(caught.value)


@pytest.fixture
def good(server):
    """A server with one file."""
    server.files["/a.zip"] = CONTENT
    return server


# ------------------------------------------------------------------------------------------------ all is well


@known
def test_a_file_comes_whole_with_one_request(good, tmp_path, known):
    fetch(remote(good, known=known), tmp_path / "new" / "folder")
    assert good.ranges("/a.zip") == [""] and not good.performed


def test_a_name_may_hold_a_folder(good, tmp_path):
    fetch(remote(good, name="train/1/a.zip"), tmp_path)


@known
def test_a_file_that_is_there_is_not_asked_for(good, tmp_path, known):
    (tmp_path / "a.zip").write_bytes(CONTENT)
    fetch(remote(good, known=known), tmp_path)
    assert not good.requests


@pytest.mark.parametrize(
    "way",
    [
        chunked(),
        old(),
        redirect("/elsewhere.zip"),
        redirect("/elsewhere.zip", code=301),
        headed(Content_Encoding="gzip"),
        compressed(),
        headed(Content_Type="application/x-gzip", Content_Disposition="attachment"),
        without("ETag", "Last-Modified", "Accept-Ranges"),
        drip(500, 0.001),
        together(other(lambda body: body + b"more"), headed(Content_Length="3000")),
    ],
)
@known
def test_a_server_may_send_it_its_own_way(good, tmp_path, way, known):
    good.files["/elsewhere.zip"] = CONTENT
    good.always("/a.zip", way)
    fetch(remote(good, known=known), tmp_path)


def test_a_file_may_begin_as_a_web_page_does(server, tmp_path):
    for name, content in (
        ("a.xml", b"<annotation></annotation>"),
        ("a.bin", b"<" + CONTENT),
        ("b.bin", b"\n<!" + CONTENT),
    ):
        server.files[f"/{name}"] = content
        fetch(remote(server, f"/{name}", content=content, name=name), tmp_path / name, content)


def test_a_tgz_that_is_called_compressed_stays_a_tgz(server, tmp_path):
    import gzip

    packed = gzip.compress(CONTENT)
    server.files["/a.tgz"] = packed
    server.always("/a.tgz", headed(Content_Encoding="gzip"))
    fetch(remote(server, "/a.tgz", content=packed), tmp_path, packed)


# ------------------------------------------------------------------------------------------------ bad days


BAD_DAYS = {
    "cut": cut(1000),
    "cut at the first byte": cut(0),
    "cut at the last byte": cut(2999),
    "reset": reset(1000),
    "reset at once": reset(0),
    "stall": stall(1000),
    "silent": silent(),
    "drop": drop(),
    "drop with reset": drop(reset=True),
    "408": status(408),
    "429": status(429),
    "500": status(500),
    "502": status(502),
    "503": status(503, retry_after="0"),
    "503 without a reason to understand": status(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"),
    "cut in a chunk": together(chunked(), cut(1500)),
    "cut between chunks": together(chunked(), cut(1007)),
    "chunks without an end": together(chunked(), cut(3021)),
    "less than announced": length(10),
    "HTTP/1.0 cut": together(old(), cut(1000)),
    "416": unsatisfiable(),
}


def can_be_seen(day: str, known: str) -> bool:
    """Whether anything tells that day from a good one, or from a server that has another file."""
    if day == "HTTP/1.0 cut":
        return "size" in KNOWN[known]
    return day != "less than announced" or "size" not in KNOWN[known]


BAD_DAY = pytest.mark.parametrize(
    ("day", "known"), [(day, known) for day in BAD_DAYS for known in KNOWN if can_be_seen(day, known)]
)


@BAD_DAY
def test_a_bad_day_is_survived(good, tmp_path, impatient, day, known):
    good.fault("/a.zip", BAD_DAYS[day])
    fetch(remote(good, known=known), tmp_path)
    assert good.performed and len(good.requests) <= 2


@BAD_DAY
def test_a_bad_day_in_the_middle_of_a_file_is_survived(good, tmp_path, impatient, day, known):
    good.fault("/a.zip", cut(500), BAD_DAYS[day])
    fetch(remote(good, known=known), tmp_path)
    assert 2 <= len(good.requests) <= 4


@pytest.mark.parametrize(
    "fault",
    [cut(1000), reset(1000), stall(1000), together(old(), cut(1000))],
    ids=["cut", "reset", "stall", "HTTP/1.0 cut"],
)
def test_only_the_rest_is_asked_for(good, tmp_path, monkeypatch, impatient, fault):
    monkeypatch.setattr(download, "PIECE", 100)
    good.fault("/a.zip", fault)
    fetch(remote(good), tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=1000-"]


@pytest.mark.parametrize(
    ("headers", "second"),
    [
        (headed(), "bytes=1000-"),
        (weak_etag(), "bytes=1000-"),
        (without("ETag"), "bytes=1000-"),
        (without("Last-Modified"), "bytes=1000-"),
        (together(weak_etag(), without("Last-Modified")), ""),
        (without("ETag", "Last-Modified"), ""),
    ],
    ids=["both", "weak ETag and date", "date", "ETag", "weak ETag", "neither"],
)
def test_without_a_checksum_it_goes_on_only_where_the_server_names_the_version(good, tmp_path, headers, second):
    good.always("/a.zip", headers)
    good.fault("/a.zip", cut(1000))
    fetch(remote(good, known="nothing"), tmp_path)
    assert good.ranges("/a.zip") == ["", second]


@pytest.mark.parametrize("known", ["all", "nothing"])
def test_a_cut_at_every_byte_is_survived(server, tmp_path, known):
    content = CONTENT[:300]
    server.files["/a.zip"] = content
    for byte in range(300):
        server.fault("/a.zip", cut(byte))
        fetch(remote(server, content=content, known=known), tmp_path / str(byte), content)
    assert server.performed["cut off"] == 300
    assert server.ranges("/a.zip")[1::2] == ["", *(f"bytes={byte}-" for byte in range(1, 300))]


@known
def test_many_cuts_in_a_row_are_survived_as_long_as_something_comes(good, tmp_path, known):
    good.fault("/a.zip", *[cut(100) for _ in range(29)])
    if KNOWN[known] in ("checksum", ""):  # a hundredth of 1 MB is more than these pieces: it is not worth mentioning
        refused(remote(good, known=known), tmp_path)
        assert len(good.requests) == download.TRIES
    fetch(remote(good, known=known) if "size" in KNOWN[known] else remote(good), tmp_path)
    assert good.ranges("/a.zip")[-1] == "bytes=2900-" or "size" not in KNOWN[known]


def test_a_slow_line_with_resets_gets_on(good, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WORTH", 500)
    monkeypatch.setattr(download, "PIECE", 100)
    good.always("/a.zip", reset(700))
    fetch(remote(good), tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=700-", "bytes=1400-", "bytes=2100-", "bytes=2800-"]


@known
def test_a_server_that_sends_less_than_the_range_asked_for_gives_the_rest_too(good, tmp_path, known):
    good.fault("/a.zip", cut(1000))
    good.always("/a.zip", short_range(700))
    fetch(remote(good, known=known), tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=1000-", "bytes=1700-", "bytes=2400-"]


@pytest.mark.parametrize("begin", [0, 500, 1500])
@known
def test_another_range_than_the_one_asked_for_spoils_nothing(good, tmp_path, known, begin):
    good.fault("/a.zip", cut(1000), other_range(begin))
    fetch(remote(good, known=known), tmp_path)
    assert good.performed["other range"] == 1


@known
def test_a_server_that_ignores_ranges_is_heard_out(good, tmp_path, known):
    good.always("/a.zip", ignore_range())
    good.fault("/a.zip", cut(1000), cut(2000), cut(1500))
    fetch(remote(good, known=known), tmp_path)
    assert len(good.requests) == 4


def test_a_broken_file_made_of_pieces_is_fetched_once_more_in_one(good, tmp_path):
    good.fault("/a.zip", cut(1000), flipped(700))
    fetch(remote(good), tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=1000-", ""]


@pytest.mark.parametrize("seed", range(12))
@known
def test_chaos_is_survived(server, tmp_path, seed, known):
    rng = random.Random(seed)
    server.chaos(rng, share=0.6)
    for number, size in enumerate((1, 300, 5000, 100_000)):
        content = b"PK" + rng.randbytes(size)
        server.files[f"/{number}"] = content
        fetch(remote(server, f"/{number}", content=content, known=known), tmp_path / str(number), content)


# ------------------------------------------------------------------------------------------------ what is refused


REFUSED = {
    "404": (status(404), "HTTP 404 Not Found", 1),
    "403": (status(403), "HTTP 403 Forbidden", 1),
    "401": (status(401), "HTTP 401 Unauthorized", 1),
    "page": (page("Quota  exceeded"), "a web page ('Quota exceeded') in place of the file", 1),
    "page called a zip": (page(kind="application/zip"), "web page|in place of 3,000", 1),
    "page called a zip, as long as the file": (
        together(page(kind="application/zip"), other(lambda body: body.ljust(3000))), "a web page ('Log in')", 1,
    ),
    "empty": (empty(), "0 bytes", 1),
    "empty in chunks": (together(other(lambda body: b""), chunked()), "0 bytes", None),
    "shorter": (length(-100), "2,900 bytes in place of 3,000", 1),
    "longer": (other(lambda body: body + b"!"), "3,001 bytes in place of 3,000", 1),
    "longer in chunks": (together(other(lambda body: body + b"!"), chunked()), "more than the 3,000 bytes", 1),
    "longer until hanging up": (together(other(lambda body: body + b"!"), old()), "more than the 3,000 bytes", 1),
    "flipped": (flipped(1000), f"in place of {sha256(CONTENT)[7:]}", 1),
    "redirect loop": (redirect("/a.zip"), "Exceeded 30 redirects", 31),
    "redirect to a page": (redirect("/login"), "a web page ('Sign in') in place of the file", 1),
    "redirect nowhere": (redirect("http://127.0.0.1:1/"), "Connection refused", download.TRIES),
    "redirect to another protocol": (redirect("ftp://127.0.0.1/a.zip"), "ftp://127.0.0.1/a.zip", 1),
    "redirect to nonsense": (redirect("http://[/"), "", None),
    "416": (unsatisfiable(), "HTTP 416", download.TRIES),
    "416 for another size": (unsatisfiable(total=7), "HTTP 416|7 bytes in place of 3,000", None),
    "503": (status(503), "HTTP 503 Service Unavailable", download.TRIES),
    "429": (status(429), "HTTP 429 Too Many Requests", download.TRIES),
    "drop": (drop(), "the server hung up", download.TRIES),
    "silent": (silent(), "nothing came for", download.TRIES),
    "cut at once": (cut(0), "0 bytes had come; asked 5 times", download.TRIES),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_refused_with_all_that_helps(good, tmp_path, impatient, case):
    fault, said, requests = REFUSED[case]
    good.files["/login"] = b"<html><title>Sign in</title>"
    good.always("/login", headed(Content_Type="text/html"))
    good.always("/a.zip", fault)
    message = refused(remote(good, published="the authors' README"), tmp_path)
    assert "a.zip could not be downloaded. Expected: 3,000 bytes, sha256 " + sha256(CONTENT)[7:] in message
    assert "(the authors' README)" in message and f"{good.url('/a.zip')}: " in message
    assert f"save it as\n  {tmp_path / 'a.zip'}\n" in message
    assert any(part in message for part in said.split("|")), message
    assert requests in (None, len(good.ranges("/a.zip")))
    good.well("/a.zip")
    fetch(remote(good), tmp_path)  # and nothing that was left behind stands in the way


def test_a_message_says_what_is_not_published(good, tmp_path):
    good.always("/a.zip", status(404))
    assert "Expected: of a size that is not published, no checksum" in refused(remote(good, known="nothing"), tmp_path)


def test_nothing_is_no_file_even_where_nothing_is_known(good, tmp_path):
    good.always("/a.zip", empty())
    assert "nothing came: 0 bytes" in refused(remote(good, known="nothing"), tmp_path)


def test_what_the_check_refuses_is_not_kept(good, tmp_path):
    def check(path: Path) -> None:
        if path.read_bytes() != CONTENT:
            raise ValueError(f"{path}: no archive")

    what = remote(good, known="nothing", check=check)
    good.fault("/a.zip", flipped(5))
    assert f"{good.url('/a.zip')}: what came: no archive" in refused(what, tmp_path)
    fetch(what, tmp_path)


def test_a_server_may_ask_to_be_left_alone_but_not_for_ever(good, tmp_path, waits):
    good.fault("/a.zip", status(503, retry_after="7"), status(429, retry_after="100000"), status(503), status(500))
    fetch(remote(good), tmp_path)
    assert waits == [7, download.LONGEST_WAIT, 4 * download.WAIT, 8 * download.WAIT]


@pytest.mark.parametrize("retry_after", ["²", "-5", "soon", "1e999"])
def test_an_odd_retry_after_is_no_reason_to_fall_over(good, tmp_path, waits, retry_after):
    good.fault("/a.zip", status(503, retry_after=retry_after))
    fetch(remote(good), tmp_path)
    assert waits == [download.WAIT]


def gives_up_after(requests: int):
    """A last resort against a download without an end: from then on the server says 404."""
    left = [requests]

    def count(server, answer) -> None:
        left[0] -= 1
        if left[0] < 0:
            answer.instead(404, b"")
            answer.stop = None

    return count


def test_a_download_ends_where_the_file_is_another_one_and_each_connection_breaks(server, tmp_path):
    server.files["/a.zip"] = OTHER
    server.always("/a.zip", cut(1700), gives_up_after(60))
    assert "in place of" in refused(remote(server), tmp_path)
    assert len(server.requests) <= 4 * download.TRIES


@pytest.mark.parametrize("where", [[100_000, 200_000], [200_000, 100_000, 50_000], [250_000, 3]])
@known
def test_a_download_ends_where_a_server_knows_no_ranges_and_breaks_now_here_now_there(server, tmp_path, known, where):
    content = random.Random(2).randbytes(300_000)
    server.files["/a.zip"] = content
    server.always("/a.zip", ignore_range(), without("ETag", "Last-Modified"), gives_up_after(60))
    server.fault("/a.zip", *[cut(after) for after in where * 40])
    refused(remote(server, content=content, known=known), tmp_path)
    assert len(server.requests) <= 4 * download.TRIES


# ------------------------------------------------------------------------------------------------ mirrors


def test_mirrors_are_asked_in_turn(good, tmp_path):
    good.files |= {"/1": CONTENT, "/2": OTHER, "/4": CONTENT}
    good.always("/1", status(403))
    fetch(remote(good, "/0", "/1", "/2", "/4", "/a.zip"), tmp_path)
    assert [request.path for request in good.requests] == ["/0", "/1", "/2", "/4"]


def test_each_mirror_has_its_line_in_the_message(good, tmp_path):
    good.always("/b.zip", page())
    lines = refused(remote(good, "/0", "/b.zip"), tmp_path).splitlines()
    assert lines[1] == f"  {good.url('/0')}: HTTP 404 Not Found"
    assert lines[2].startswith(f"  {good.url('/b.zip')}: a web page ('Log in')")


def test_with_a_checksum_a_mirror_is_asked_for_the_rest(good, tmp_path):
    good.files["/b.zip"] = CONTENT
    good.fault("/a.zip", cut(1000), status(404))
    fetch(remote(good, "/a.zip", "/b.zip"), tmp_path)
    assert good.ranges("/b.zip") == ["bytes=1000-"]


@pytest.mark.parametrize("known", ["size", "nothing"])
def test_without_a_checksum_a_mirror_is_asked_for_the_whole(good, tmp_path, known):
    good.files["/b.zip"] = OTHER
    good.fault("/a.zip", cut(1000), status(404))
    fetch(remote(good, "/a.zip", "/b.zip", known=known), tmp_path, OTHER)
    assert good.ranges("/b.zip") == [""]


def test_the_beginning_of_a_mirrors_old_version_spoils_nothing(good, tmp_path):
    good.files["/old.zip"] = OTHER
    good.fault("/old.zip", cut(1000), status(404))
    fetch(remote(good, "/old.zip", "/a.zip"), tmp_path)
    assert good.ranges("/a.zip") == ["bytes=1000-", ""]


@pytest.mark.parametrize(
    "fault",
    [
        status(404),
        page(),
        page(kind="application/zip"),
        together(page(kind="application/zip"), other(lambda body: body.ljust(3000))),
        length(-5),
        unsatisfiable(total=7),
    ],
    ids=["404", "page", "page called a zip", "page as long as the file", "shorter", "416"],
)
def test_a_mirror_without_the_file_costs_nothing_of_what_has_come(good, tmp_path, fault):
    good.files["/b.zip"] = CONTENT
    good.fault("/a.zip", cut(1000), status(404))
    good.always("/b.zip", fault)
    refused(remote(good, "/a.zip", "/b.zip"), tmp_path)
    fetch(remote(good, "/a.zip", "/b.zip"), tmp_path)
    assert int(good.ranges("/a.zip")[-1][6:-1] or 0) >= 1000


# ------------------------------------------------------------------------------------------------ the hub's checksum


@pytest.mark.parametrize("fault", [headed(), cut(1000)], ids=["well", "cut"])
def test_the_checksum_that_comes_with_a_redirect_is_checked(server, tmp_path, fault):
    server.files["/store"] = CONTENT
    server.always("/hub", redirect("/store?signed=1", linked=sha256(CONTENT)[7:]))
    server.fault("/store", fault)
    fetch(remote(server, "/hub", known="size"), tmp_path)
    assert server.ranges("/store")[-1] == ("" if not server.performed["cut off"] else "bytes=1000-")


def test_what_does_not_fit_the_checksum_that_comes_with_a_redirect_is_refused(server, tmp_path):
    server.files["/store"] = CONTENT
    server.always("/hub", redirect("/store", linked=sha256(OTHER)[7:]))
    assert f"in place of {sha256(OTHER)[7:]}" in refused(remote(server, "/hub", known="size"), tmp_path)


def test_a_file_that_was_whole_when_its_process_was_killed_still_meets_that_checksum(server, tmp_path, monkeypatch):
    server.files["/store"] = OTHER
    server.always("/hub", redirect("/store", linked=sha256(CONTENT)[7:]))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "_verify", interrupted)
        download.download(remote(server, "/hub", known="size"), tmp_path)
    assert f"in place of {sha256(CONTENT)[7:]}" in refused(remote(server, "/hub", known="size"), tmp_path)


# ------------------------------------------------------------------------------------------------ again, later


def interrupted(*_, **__):
    raise KeyboardInterrupt


def broken_off(server, folder: Path, known: str) -> None:
    """A call that brings the first 1000 bytes."""
    server.fault("/a.zip", cut(1000), *[status(503)] * download.TRIES)
    message = refused(remote(server, known=known), folder)
    assert "1 kB had come" in message and "it goes on where it stopped" in message
    server.well("/a.zip")
    server.requests.clear()


@known
def test_a_second_call_goes_on_where_the_first_one_ended(good, tmp_path, known):
    broken_off(good, tmp_path, known)
    fetch(remote(good, known=known), tmp_path)
    assert good.ranges("/a.zip") == ["bytes=1000-"]


@pytest.mark.parametrize("longer", [b"", b"and more"], ids=["as long", "longer"])
@known
def test_a_file_replaced_meanwhile_is_never_mixed(good, tmp_path, known, longer):
    broken_off(good, tmp_path, known)
    new = good.files["/a.zip"] = OTHER + longer
    if known in ("all", "checksum") or (known == "size" and longer):  # the old one is wanted, and gone
        refused(remote(good, known=known), tmp_path)
    else:
        fetch(remote(good, known=known), tmp_path, new)


@pytest.mark.parametrize(
    "rule",
    [headed(), without("ETag", "Last-Modified"), ignore_if_range()],
    ids=["If-Range", "If-Range and no ETag", "If-Range ignored"],
)
@known
def test_a_file_replaced_between_two_attempts_is_never_mixed(good, tmp_path, known, rule):
    good.fault("/a.zip", cut(1000), together(replaced(OTHER), rule))
    fetch(remote(good, known=known, content=OTHER), tmp_path, OTHER)


@pytest.mark.parametrize("note", [None, "", "{", "[]", "{}", '{"url": 1, "validator": 2}', '"a"', "null"])
def test_a_partial_file_with_a_spoilt_note_is_fetched_anew(good, tmp_path, note):
    (tmp_path / ".a.zip.part").write_bytes(OTHER[:1000])
    if note is not None:
        (tmp_path / ".a.zip.part.json").write_text(note)
    fetch(remote(good, known="nothing"), tmp_path)
    assert good.ranges("/a.zip") == [""]


@pytest.mark.parametrize("left", [OTHER, OTHER + b"!", OTHER[:1000], CONTENT + b"!"])
def test_any_other_bytes_that_lie_there_as_the_partial_file_are_found_out(good, tmp_path, left):
    (tmp_path / ".a.zip.part").write_bytes(left)
    fetch(remote(good), tmp_path)


@known
def test_a_whole_file_that_was_not_renamed_any_more_is_not_fetched_again(good, tmp_path, monkeypatch, known):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", interrupted)
        download.download(remote(good, known=known), tmp_path)
    assert not (tmp_path / "a.zip").exists()
    good.requests.clear()
    fetch(remote(good, known=known), tmp_path)
    assert good.ranges("/a.zip") == ([] if "size" in KNOWN[known] else ["bytes=3000-"])


def test_after_ctrl_c_the_next_call_goes_on(good, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PIECE", 500)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download.tqdm, "update", interrupted)
        download.download(remote(good), tmp_path)
    fetch(remote(good), tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=500-"]


# ------------------------------------------------------------------------------------------------ other processes


SCRIPT = """
import importlib.util, json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs in the background of a shell may ignore it
spec = importlib.util.spec_from_file_location("download", sys.argv[1])
module = sys.modules["download"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.PIECE, module.WAIT = 256, 0.01
remotes = [module.Remote(name, (url,), size, checksum) for name, url, size, checksum in json.loads(sys.argv[3])]
print("ready", flush=True)
if len(remotes) > 1:
    module.download_all(remotes, sys.argv[2], "many")
else:
    module.download(remotes[0], sys.argv[2])
"""


def start(folder: Path, *remotes: Remote) -> subprocess.Popen:
    """A process that downloads; it imports nothing of the library but the one file, to be there soon."""
    import json

    wanted = json.dumps([(each.name, each.urls[0], each.size, each.checksum) for each in remotes])
    command = [sys.executable, "-c", SCRIPT, download.__file__, str(folder), wanted]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def until(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


@pytest.mark.parametrize("known", ["all", "nothing"])
def test_killed_again_and_again_it_arrives(server, tmp_path, known):
    rng = random.Random(known)
    content = server.files["/a.zip"] = rng.randbytes(60_000)
    server.always("/a.zip", drip(256, 0.002))
    part, had, kills = tmp_path / ".a.zip.part", [], 0
    while not (tmp_path / "a.zip").exists() and kills < 12:
        begun = part.stat().st_size if part.exists() else 0
        had.append(begun)
        goal = begun + rng.randrange(1, 20_000)
        process = start(tmp_path, remote(server, content=content, known=known))
        until(lambda: process.poll() is not None or (part.exists() and part.stat().st_size >= goal))  # noqa: B023
        if process.poll() is None:
            kills += 1
        process.kill()
        process.wait()
        process.stdout.close()
    assert kills >= 2 and (tmp_path / "a.zip").read_bytes() == content
    assert server.ranges("/a.zip") == [f"bytes={size}-" if size else "" for size in had]


@pytest.mark.parametrize("number", [2, 4])
def test_processes_that_want_the_same_file_fetch_it_once(good, tmp_path, number):
    good.always("/a.zip", drip(300, 0.1))
    processes = [start(tmp_path, remote(good)) for _ in range(number)]
    said = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * number
    assert good.ranges("/a.zip") == [""] and (tmp_path / "a.zip").read_bytes() == CONTENT
    assert any(f"Another process is at work on {tmp_path / 'a.zip'}: waiting for it." in each for each in said)


def test_when_the_one_that_downloads_is_killed_the_one_that_waits_goes_on(good, tmp_path):
    good.always("/a.zip", drip(300, 0.2))
    first = start(tmp_path, remote(good))
    assert until(lambda: good.requests)
    second = start(tmp_path, remote(good))
    assert "waiting" in second.stdout.readline()
    first.kill()
    first.communicate()
    good.well("/a.zip")
    second.communicate(timeout=30)
    assert second.returncode == 0 and (tmp_path / "a.zip").read_bytes() == CONTENT and len(good.requests) == 2


def test_threads_that_want_the_same_file_fetch_it_once(good, tmp_path):
    good.always("/a.zip", drip(300, 0.02))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: download.download(remote(good), tmp_path), range(3)))
    assert good.ranges("/a.zip") == [""]


def test_ctrl_c_ends_many_downloads_soon_and_keeps_what_came(server, tmp_path):
    remotes = many(server, 60)
    for number in range(60):
        server.always(f"/{number}.jpg", drip(100, 0.05))
    process = start(tmp_path, *remotes)
    assert until(lambda: len(list(tmp_path.glob("[0-9]*.jpg"))) > 5)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=10)[0]
    assert process.returncode != 0 and "KeyboardInterrupt" in said
    there = {path.name for path in tmp_path.glob("[0-9]*.jpg")}
    assert 5 < len(there) < 60
    for number in range(60):
        server.well(f"/{number}.jpg")
    server.requests.clear()
    download.download_all(remotes, tmp_path, "many")
    asked = {request.path[1:] for request in server.requests}
    assert asked and not asked & there
    all_there(server, tmp_path)


# ------------------------------------------------------------------------------------------------ by hand


def test_a_file_put_there_by_hand_is_used_and_a_partial_one_does_not_matter(good, tmp_path):
    (tmp_path / "a.zip").write_bytes(CONTENT)
    (tmp_path / ".a.zip.part").write_bytes(OTHER[:500])
    assert download.download(remote(good), tmp_path).read_bytes() == CONTENT and not good.requests


@pytest.mark.parametrize(
    ("content", "known", "said"),
    [
        (OTHER, "all", "in place of " + sha256(CONTENT)[7:]),
        (CONTENT[:-1], "all", "2,999 bytes in place of 3,000"),
        (CONTENT + b"!", "size", "3,001 bytes in place of 3,000"),
        (b"", "nothing", "0 bytes"),
        (b"checked", "nothing", "no archive"),
    ],
)
def test_a_wrong_file_put_there_by_hand_is_refused_and_stays(good, tmp_path, content, known, said):
    def check(path: Path) -> None:
        if path.read_bytes() == b"checked":
            raise ValueError("no archive")

    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DownloadError, match="is not the file it should be: .*Move it away, and try again") as caught:
        download.download(remote(good, known=known, check=check), tmp_path)
    assert said in str(caught.value) and str(tmp_path / "a.zip") in str(caught.value)
    assert (tmp_path / "a.zip").read_bytes() == content and not good.requests


@known
def test_a_folder_of_the_files_name_is_refused(good, tmp_path, known):
    (tmp_path / "a.zip").mkdir()
    with pytest.raises(OSError, match=r"a\.zip"):
        download.download(remote(good, known=known), tmp_path)


# ------------------------------------------------------------------------------------------------ the disk


def test_a_file_for_which_there_is_no_room_is_not_begun(good, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2999))
    message = refused(remote(good, known="nothing"), tmp_path)
    assert f"a.zip needs 3 kB in {tmp_path}, where 3 kB are free" in message and "SEGLIB_HOME" in message
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3000))
    fetch(remote(good), tmp_path)


def test_room_is_needed_for_the_rest_only(good, tmp_path, monkeypatch):
    broken_off(good, tmp_path, "all")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2000))
    fetch(remote(good), tmp_path)


class Full:
    """A file on a disk with room for `left` bytes."""

    def __init__(self, file, left: int) -> None:
        self.file, self.left = file, left

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self) -> "Full":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def write(self, content: bytes) -> int:
        self.file.write(content[: self.left])
        if len(content) > self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= len(content)
        return len(content)


def fill_the_disk(patch, left: int, names: str = "") -> None:
    """From now on only `left` bytes of a file can be written; of those files whose name ends so."""
    whole = Path.open

    def full(self, mode="r", *args, **kwargs):
        file = whole(self, mode, *args, **kwargs)
        return Full(file, left) if self.name.endswith(f"{names}.part") and mode != "rb" else file

    patch.setattr(Path, "open", full)


def test_a_disk_that_fills_up_is_named_and_what_came_is_kept(good, tmp_path, monkeypatch):
    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match=r"cannot write .*a\.zip: No space left on device\. .*SEGLIB_HOME"),
    ):
        fill_the_disk(patch, 1234)
        download.download(remote(good, "/a.zip", "/b.zip"), tmp_path)
    assert len(good.requests) == 1  # no other mirror helps
    fetch(remote(good), tmp_path)
    assert good.ranges("/a.zip") == ["", "bytes=1234-"]


def test_a_disk_on_which_it_cannot_be_renamed_is_named(good, tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"cannot write .*a\.zip: Permission denied"):
        patch.setattr(os, "replace", denied)
        download.download(remote(good), tmp_path)
    fetch(remote(good), tmp_path)


@pytest.mark.parametrize("obstacle", ["data", "data/a", "data/.a.zip.part/inside"])
def test_something_in_the_way_is_named(good, tmp_path, obstacle):
    (tmp_path / obstacle).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / obstacle).write_text("")
    name = "a/a.zip" if obstacle == "data/a" else "a.zip"
    with pytest.raises(OSError, match=r"cannot write .*a\.zip: .*SEGLIB_HOME"):
        download.download(remote(good, name=name), tmp_path / "data")
    assert (tmp_path / obstacle).read_text() == ""


# ------------------------------------------------------------------------------------------------ many files


def many(server, number: int, known: str = "all") -> list[Remote]:
    """So many small files."""
    rng = random.Random(number)
    for each in range(number):
        server.files[f"/{each}.jpg"] = b"\xff\xd8" + rng.randbytes(rng.randrange(2000))
    return [remote(server, path, content=content, known=known, name=path[1:]) for path, content in server.files.items()]


def all_there(server, folder: Path) -> None:
    assert all((folder / path[1:]).read_bytes() == content for path, content in server.files.items())
    assert not list(folder.rglob("*.part*"))


@pytest.mark.parametrize("number", [0, 1, 50])
def test_many_files_come(server, tmp_path, number):
    download.download_all(many(server, number), tmp_path / "new", "photographs")
    all_there(server, tmp_path / "new")
    assert len(server.requests) == number


def test_many_files_come_side_by_side(server, tmp_path):
    remotes = many(server, download.WORKERS)
    meeting = threading.Barrier(4)

    def meet(server, answer) -> None:
        server._lock.release()  # the others are to be heard, too
        try:
            meeting.wait(timeout=10)
        finally:
            server._lock.acquire()

    for each in remotes:
        server.always(f"/{each.name}", meet)
    download.download_all(remotes, tmp_path, "photographs")
    all_there(server, tmp_path)


def test_of_many_files_those_that_are_there_are_checked_but_not_asked_for(server, tmp_path):
    remotes = many(server, 20)
    download.download_all(remotes[:12], tmp_path, "photographs")
    server.requests.clear()
    checked = []
    remotes[:12] = [Remote(each.name, each.urls, check=checked.append) for each in remotes[:12]]
    download.download_all(remotes, tmp_path, "photographs")
    assert sorted(checked) == sorted(tmp_path / each.name for each in remotes[:12])
    assert {request.path[1:] for request in server.requests} == {each.name for each in remotes[12:]}
    server.close()
    download.download_all(remotes, tmp_path, "photographs")


def test_a_file_that_is_gone_does_not_keep_the_others_from_coming(server, tmp_path):
    remotes = many(server, 40)
    gone = server.files.pop("/7.jpg")
    with pytest.raises(DownloadError, match=r"1 of 40 files \(photographs\) are still to come") as caught:
        download.download_all(remotes, tmp_path, "photographs")
    assert "run it again to go on" in str(caught.value) and f"{server.url('/7.jpg')}: HTTP 404" in str(caught.value)
    all_there(server, tmp_path)
    server.requests.clear()
    server.files["/7.jpg"] = gone
    download.download_all(remotes, tmp_path, "photographs")
    assert [request.path for request in server.requests] == ["/7.jpg"]


def test_many_files_that_are_gone_do_not_keep_the_others_from_coming_in_the_end(server, tmp_path):
    remotes = many(server, 200)
    for number in range(5 * download.MOST_FAILURES):
        del server.files[f"/{number}.jpg"]
    for _ in range(4):
        with pytest.raises(DownloadError):
            download.download_all(remotes, tmp_path, "photographs")
    all_there(server, tmp_path)


def test_without_a_network_many_files_are_soon_given_up(server, tmp_path, waits):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        remotes = [Remote(f"{n}.jpg", (f"{address}{n}.jpg",)) for n in range(500)]
        begun = time.monotonic()
        with pytest.raises(DownloadError, match=r"(?s)500 of 500 files .*Connection refused"):
            download.download_all(remotes, tmp_path, "photographs")
    assert time.monotonic() - begun < 10 and len(waits) < 1000  # of 2000, if each file were tried


def test_a_full_disk_ends_many_downloads_at_once(server, tmp_path, monkeypatch):
    remotes = many(server, 300)
    with (
        monkeypatch.context() as patch,
        pytest.raises(DownloadError, match="(?s)of 300 files .*No space left on device"),
    ):
        fill_the_disk(patch, 0, "7.jpg")  # now and then there is room again
        download.download_all(remotes, tmp_path, "photographs")
    assert len(server.requests) < 200
    download.download_all(remotes, tmp_path, "photographs")
    all_there(server, tmp_path)


def test_a_mistake_in_a_check_of_many_files_comes_to_light(server, tmp_path):
    remotes = many(server, 5)
    wrong = Remote(remotes[2].name, remotes[2].urls, check=lambda path: path.no_such_thing)
    with pytest.raises(AttributeError, match="no_such_thing"):
        download.download_all([*remotes[:2], wrong, *remotes[3:]], tmp_path, "photographs")


@pytest.mark.parametrize("seed", range(4))
@known
def test_many_files_survive_chaos(server, tmp_path, seed, known):
    remotes = many(server, 40, known)
    server.chaos(random.Random(seed), share=0.4)
    download.download_all(remotes, tmp_path, "photographs")
    all_there(server, tmp_path)


# ------------------------------------------------------------------------------------------------ what is said


def test_how_much_will_come_is_said_before(tmp_path, capsys):
    download.announce("Pets", 241_000_000, 1_200_000_000, tmp_path / "not" / "yet")
    assert capsys.readouterr().out == (
        "Pets: about 241 MB to download (19 s at 100 Mbit/s or 3 min at 10 Mbit/s), 1.2 GB of disk.\n"
    )
    assert not (tmp_path / "not").exists()


def test_a_disk_without_room_is_refused_before(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=99_000_000))
    with pytest.raises(DownloadError, match=r"Pets needs 100 MB in .*, where 99 MB are free: .*SEGLIB_HOME"):
        download.announce("Pets", 1, 100_000_000, tmp_path)
    download.announce("Pets", 1, 99_000_000, tmp_path)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (241_000_000, "241 MB"),
        (20_500_000_000, "20.5 GB"),
        (1_180_000_000_000, "1180 GB"),
    ],
)
def test_bytes_are_said_for_people(size, said):
    assert download.in_bytes(size) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (1e5, "27.8 h")]
)
def test_times_are_said_for_people(seconds, said):
    assert download._duration(seconds) == said


def test_the_progress_bar_shows_the_whole_file_also_where_only_the_rest_comes(good, tmp_path, capsys):
    broken_off(good, tmp_path, "all")
    capsys.readouterr()
    fetch(remote(good), tmp_path)
    said = capsys.readouterr().out
    assert "a.zip:  33%" in said and "a.zip: 100%" in said and "3.00k/3.00k" in said


def test_many_files_have_one_bar(server, tmp_path, capsys):
    remotes = many(server, 10)
    download.download_all(remotes[:4], tmp_path, "photographs")
    capsys.readouterr()
    download.download_all(remotes, tmp_path, "photographs")
    said = capsys.readouterr().out
    assert "photographs: 100%" in said and "10/10" in said and ".jpg" not in said and said.count("\n") == 1
