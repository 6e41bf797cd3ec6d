"""A web server on this machine that serves files as it should, until it is told to do something else.

    server.files["/a.zip"] = content                      # served at server.url("/a.zip")
    server.fault("/a.zip", cut(100), status(503))         # the first request is cut off, the second refused
    server.always("/a.zip", without("ETag"))              # every request
    server.chaos(random.Random(1), share=0.3)             # any request, to any file
    server.requests, server.ranges("/a.zip"), server.performed

`PERFORMED` counts the faults that really happened, over all servers.
"""

import contextlib
import gzip
import hashlib
import os
import random
import re
import select
import socket
import struct
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PERFORMED: Counter[str] = Counter()  # fault -> how often it happened
PATIENCE = 20.0  # seconds after which a server that stalls hangs up: no test hangs for ever
IN_A_ROW = 3  # faults that chaos does to one file before it lets a request pass
CHUNK = 1000  # bytes of a chunk, where the body comes in chunks


@dataclass
class Answer:
    """What is about to be sent, and how; a fault changes it.

    Attributes:
        path, content: what was asked for, and the whole file; None where there is no such file.
        asked, same, packing: the headers Range, If-Range and Accept-Encoding, "" without one.
        status, headers, body: a right answer, as long as no fault changes it.
        chunked, old: the body comes in chunks; or as in HTTP/1.0, without a length, ended by hanging up.
        stop: hang up after so many bytes of the body; -1: before the header.
        reset: ... with a TCP reset. stall: ... only after so many seconds in which nothing is sent.
        drip: bytes to send at a time, with a pause of `pause` seconds in between.
        happened: the names of the faults that came to pass.
    """

    path: str
    content: bytes | None
    asked: str = ""
    same: str = ""
    packing: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunked: bool = False
    old: bool = False
    stop: int | None = None
    reset: bool = False
    stall: float = 0.0
    drip: int = 0
    pause: float = 0.0
    happened: list[str] = field(default_factory=list)

    def wire(self) -> bytes:
        """The body as it is sent."""
        if not self.chunked:
            return self.body
        chunks = (self.body[i : i + CHUNK] for i in range(0, len(self.body), CHUNK))
        return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"

    def whole(self) -> None:
        """Answer with the whole file, whatever was asked for."""
        self.status, self.body = 200, self.content or b""
        self.headers.pop("Content-Range", None)
        self.headers["Content-Length"] = str(len(self.body))

    def instead(self, status: int, body: bytes, kind: str = "text/html; charset=utf-8") -> None:
        """Answer with something that is not the file."""
        self.status, self.body = status, body
        self.headers = {"Content-Type": kind, "Content-Length": str(len(body))}


Fault = Callable[["Server", Answer], None]


def fault(name: str) -> Callable[[Callable[..., bool | None]], Callable[..., Fault]]:
    """Make a fault of a function (server, answer, settings); it returns False where there was nothing to spoil."""

    def make(act: Callable[..., bool | None]) -> Callable[..., Fault]:
        def configured(*args, **kwargs) -> Fault:
            def perform(server: "Server", answer: Answer) -> None:
                if act(server, answer, *args, **kwargs) is not False:
                    answer.happened.append(name)

            return perform

        configured.__doc__ = act.__doc__
        return configured

    return make


# ------------------------------------------------------------------------------------------------ the faults


@fault("cut off")
def cut(server: "Server", answer: Answer, after: int) -> bool:
    """Hang up after so many bytes of the body."""
    answer.stop = after
    return after < len(answer.wire())


@fault("reset")
def reset(server: "Server", answer: Answer, after: int) -> bool:
    """Break the connection after so many bytes of the body, with a TCP reset."""
    answer.stop, answer.reset = after, True
    return after < len(answer.wire())


@fault("stalled")
def stall(server: "Server", answer: Answer, after: int, seconds: float = PATIENCE) -> bool:
    """Send nothing more after so many bytes of the body, and hang up in the end."""
    answer.stop, answer.stall = after, seconds
    return after < len(answer.wire())


@fault("never answered")
def silent(server: "Server", answer: Answer, seconds: float = PATIENCE) -> None:
    """Take the request and say nothing."""
    answer.stop, answer.stall = -1, seconds


@fault("dropped before the header")
def drop(server: "Server", answer: Answer, reset: bool = False) -> None:
    """Hang up before the header."""
    answer.stop, answer.reset = -1, reset


@fault("error status")
def status(server: "Server", answer: Answer, code: int, retry_after: str = "") -> None:
    """Answer with an HTTP error, and say when to come back."""
    answer.instead(code, f"{code} {responses[code]}".encode(), "text/plain")
    if retry_after:
        answer.headers["Retry-After"] = retry_after


@fault("web page")
def page(server: "Server", answer: Answer, title: str = "Log in", kind: str = "text/html; charset=utf-8") -> None:
    """Answer 200 with a web page; `kind` is what the server says that it is."""
    answer.instead(200, f"\n<!DOCTYPE html><html><head><title>{title}</title></head></html>\n".encode(), kind)


@fault("empty")
def empty(server: "Server", answer: Answer) -> None:
    """Answer 200 with nothing."""
    answer.instead(200, b"", "application/octet-stream")


@fault("wrong length")
def length(server: "Server", answer: Answer, more: int) -> None:
    """Announce so many bytes more than are sent; with a number below 0 those at the end are not sent either."""
    right = len(answer.body)
    answer.body = answer.body[: right + more]
    answer.headers["Content-Length"] = str(right + more)


@fault("other bytes")
def other(server: "Server", answer: Answer, change: Callable[[bytes], bytes]) -> None:
    """Send other bytes than those of the file, with a header that fits them."""
    answer.body = change(answer.body)
    if "Content-Length" in answer.headers:
        answer.headers["Content-Length"] = str(len(answer.body))


def flipped(position: int = 0) -> Fault:
    """The right length, and one byte wrong."""
    return other(lambda body: body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :])


@fault("range ignored")
def ignore_range(server: "Server", answer: Answer) -> bool:
    """Answer 200 with the whole file where a part was asked for."""
    answer.whole()
    return bool(answer.asked)


@fault("other range")
def other_range(server: "Server", answer: Answer, begin: int) -> bool:
    """Answer 206 with the bytes from `begin` on, whatever was asked for."""
    answer.status, answer.body = 206, (answer.content or b"")[begin:]
    answer.headers["Content-Length"] = str(len(answer.body))
    answer.headers["Content-Range"] = _content_range(begin, len(answer.content or b""))
    return bool(answer.asked) and begin != _beginning(answer.asked)


@fault("range cut short")
def short_range(server: "Server", answer: Answer, most: int) -> bool:
    """Answer a question for a part with fewer bytes than that, as a server may: 206 with `most` bytes."""
    if answer.status != 206 or len(answer.body) <= most:
        return False
    total, begin = len(answer.content or b""), _beginning(answer.asked)
    answer.body = answer.body[:most]
    answer.headers["Content-Length"] = str(most)
    answer.headers["Content-Range"] = f"bytes {begin}-{begin + most - 1}/{total}"
    return True


@fault("416")
def unsatisfiable(server: "Server", answer: Answer, total: int | None = None) -> None:
    """Answer 416, for a file of `total` bytes."""
    answer.instead(416, b"")
    answer.headers["Content-Range"] = f"bytes */{len(answer.content or b'') if total is None else total}"


@fault("If-Range ignored")
def ignore_if_range(server: "Server", answer: Answer) -> bool:
    """Answer 206 even where the file is another one by now."""
    if answer.status != 200 or not answer.asked:
        return False
    server.give_range(answer)
    return answer.status == 206


@fault("file replaced")
def replaced(server: "Server", answer: Answer, content: bytes) -> None:
    """From this request on the file is another one; give it first among the faults of a request."""
    server.files[answer.path] = content
    server.look(answer)


@fault("header missing")
def without(server: "Server", answer: Answer, *names: str) -> None:
    """Send these headers not: ETag, Last-Modified, Accept-Ranges."""
    for name in names:
        answer.headers.pop(name, None)


@fault("weak ETag")
def weak_etag(server: "Server", answer: Answer) -> bool:
    """Send a weak ETag, which says nothing about bytes."""
    if "ETag" in answer.headers:
        answer.headers["ETag"] = "W/" + answer.headers["ETag"]
    return "ETag" in answer.headers


@fault("redirected")
def redirect(server: "Server", answer: Answer, to: str, code: int = 302, linked: str = "") -> None:
    """Send the client elsewhere; `linked` is the SHA-256 that the Hugging Face hub sends along."""
    answer.instead(code, b"")
    answer.headers["Location"] = to
    if linked:
        answer.headers["X-Linked-ETag"] = f'"{linked}"'


@fault("without a length")
def chunked(server: "Server", answer: Answer) -> None:
    """Send the body in chunks, its length not being known."""
    answer.chunked = True
    answer.headers.pop("Content-Length", None)
    answer.headers["Transfer-Encoding"] = "chunked"


@fault("without a length")
def old(server: "Server", answer: Answer) -> None:
    """Send the body as in HTTP/1.0, ended by hanging up; cut off, it looks whole."""
    answer.old = True
    answer.headers.pop("Content-Length", None)


@fault("other header")
def headed(server: "Server", answer: Answer, **headers: str) -> None:
    """Send these headers in addition: headed(Content_Encoding="gzip")."""
    answer.headers |= {name.replace("_", "-"): value for name, value in headers.items()}


@fault("compressed")
def compressed(server: "Server", answer: Answer) -> bool:
    """Compress the body, if the client says that it may be."""
    if "gzip" not in answer.packing:
        return False
    answer.body = gzip.compress(answer.body)
    answer.headers |= {"Content-Encoding": "gzip", "Content-Length": str(len(answer.body))}
    return True


@fault("slow")
def drip(server: "Server", answer: Answer, piece: int, pause: float) -> None:
    """Send so many bytes at a time, with a pause in seconds in between."""
    answer.drip, answer.pause = piece, pause


def together(*faults: Fault) -> Fault:
    """Several faults in one request."""

    def perform(server: "Server", answer: Answer) -> None:
        for each in faults:
            each(server, answer)

    return perform


def transient(rng: random.Random, size: int) -> Fault:
    """Something that happens on a bad day and is over at the next request, to an answer of `size` bytes."""
    somewhere = rng.randrange(max(1, size))
    return rng.choice(
        [
            cut(somewhere), reset(somewhere), stall(somewhere, seconds=0.2), status(503), status(429, retry_after="0"),
            drop(), drop(reset=True), ignore_range(), together(ignore_range(), cut(somewhere)),
        ]
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the server


@dataclass(frozen=True)
class Request:
    """What a client asked for: "GET", "/a.zip", "bytes=100-" or ""."""

    method: str
    path: str
    asked: str


class Server:
    """Files at http://127.0.0.1:PORT; see the top of this module.

    Attributes:
        files: path, beginning with a slash -> content. requests: what was asked for, in this order.
        performed: fault -> how often it happened at this server.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.performed: Counter[str] = Counter()
        self._once: dict[str, list[Fault]] = defaultdict(list)
        self._always: dict[str, list[Fault]] = defaultdict(list)
        self._chaos: tuple[float, float] | None = None
        self._dice: dict[str, random.Random] = {}
        self._in_a_row: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._http = _Listener(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stop; later connections are refused."""
        self._http.shutdown()
        self._http.server_close()

    def url(self, path: str) -> str:
        """The address of a file."""
        return f"http://127.0.0.1:{self._http.server_address[1]}{path}"

    def fault(self, path: str, *faults: Fault) -> None:
        """The next requests to `path` meet one of these each."""
        self._once[path].extend(faults)

    def always(self, path: str, *faults: Fault) -> None:
        """Every request to `path` meets all of these."""
        self._always[path].extend(faults)

    def well(self, path: str) -> None:
        """Behave again at `path`."""
        self._once.pop(path, None)
        self._always.pop(path, None)

    def chaos(self, rng: random.Random, share: float = 0.3) -> None:
        """Let this share of the requests meet something transient; the same for a seed, in whatever order they come."""
        with self._lock:
            self._chaos = rng.random(), share
            self._dice.clear()
            self._in_a_row.clear()

    def ranges(self, path: str) -> list[str]:
        """The Range headers of the requests to `path`, "" where there was none."""
        return [request.asked for request in self.requests if request.path == path]

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        """Note a request, and say what is to be sent."""
        with self._lock:
            self.requests.append(Request(method, path, headers.get("range", "")))
            asked = (headers.get(name, "") for name in ("range", "if-range", "accept-encoding"))
            answer = Answer(path, None, *asked)
            self.look(answer)
            for each in self._always[path]:
                each(self, answer)
            if self._once[path]:
                self._once[path].pop(0)(self, answer)
            elif self._chaos is not None:
                self._roll(path, answer)
            self.performed.update(answer.happened)
            PERFORMED.update(answer.happened)
            return answer

    def look(self, answer: Answer) -> None:
        """Fill in the right answer: the file, the part of it that was asked for, or that there is no such file."""
        answer.content = self.files.get(answer.path)
        if answer.content is None:
            answer.instead(404, b"404 Not Found", "text/plain")
            return
        answer.headers = {
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "ETag": f'"{hashlib.md5(answer.content).hexdigest()}"',
            "Last-Modified": formatdate(1.5e9 + zlib.crc32(answer.content) % 10**8, usegmt=True),
        }
        answer.whole()
        if answer.asked and answer.same in ("", answer.headers["ETag"], answer.headers["Last-Modified"]):
            self.give_range(answer)

    def give_range(self, answer: Answer) -> None:
        """Reduce an answer with the whole file to the part that was asked for: from a byte on, to the end."""
        begin, total = _beginning(answer.asked), len(answer.content or b"")
        if begin >= total:
            answer.instead(416, b"")
            answer.headers["Content-Range"] = f"bytes */{total}"
            return
        answer.status, answer.body = 206, answer.content[begin:]
        answer.headers["Content-Length"] = str(total - begin)
        answer.headers["Content-Range"] = _content_range(begin, total)

    def _roll(self, path: str, answer: Answer) -> None:
        """Do something transient, if the dice say so."""
        seed, share = self._chaos
        rng = self._dice.setdefault(path, random.Random(f"{seed} {path}"))
        if self._in_a_row[path] < IN_A_ROW and rng.random() < share:
            self._in_a_row[path] += 1
            transient(rng, len(answer.body))(self, answer)
        else:
            self._in_a_row[path] = 0


class _Listener(ThreadingHTTPServer):
    owner: Server
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.owner.answer(self.command, self.path.split("?")[0], headers)
        if answer.stop is None or answer.stop >= 0:
            self._head(answer)
            if self.command == "GET":
                self._body(answer)
        if answer.stop is not None:
            self._hang_up(answer)

    do_HEAD = do_GET

    def log_message(self, *_) -> None:
        """Say nothing: `Server.requests` has it."""

    def _head(self, answer: Answer) -> None:
        self.protocol_version = "HTTP/1.0" if answer.old else "HTTP/1.1"
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        # where the body is not as long as the header says, the connection is of no further use
        if answer.old or (not answer.chunked and answer.headers.get("Content-Length") != str(len(answer.body))):
            self.send_header("Connection", "close")
        self.end_headers()

    def _body(self, answer: Answer) -> None:
        wire = answer.wire()[: answer.stop]
        step = answer.drip or max(1, len(wire))
        for begin in range(0, len(wire), step):
            self.wfile.write(wire[begin : begin + step])
            if answer.pause:
                time.sleep(answer.pause)

    def _hang_up(self, answer: Answer) -> None:
        """End the connection, at once or when the client has lost its patience."""
        self.close_connection = True
        if answer.stall:
            select.select([self.connection], [], [], min(answer.stall, PATIENCE))
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                os.close(self.connection.detach())  # no farewell, as shutdown() would send


def _beginning(asked: str) -> int:
    """The first byte of a Range header that asks for all from there on."""
    found = re.fullmatch(r"bytes=(\d+)-", asked)
    return int(found[1]) if found else 0


def _content_range(begin: int, total: int) -> str:
    return f"bytes {begin}-{total - 1}/{total}"
