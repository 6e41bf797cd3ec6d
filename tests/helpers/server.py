"""A local web server that misbehaves on request.

    server.files["/a.zip"] = content             # served at server.url("/a.zip")
    server.fault("/a.zip", cut(100), status(503))  # the first request is cut off, the second gets an error
    server.always("/a.zip", page())              # every request gets a web page
    server.requests, server.ranges("/a.zip")     # what was asked for

`PERFORMED` counts the faults over all servers.
"""

import hashlib
import re
import select
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PERFORMED: Counter[str] = Counter()  # number of times that each fault happened
PATIENCE = 20.0  # seconds after which a silent server hangs up, so that no test waits for ever
CHUNK = 1000  # bytes of a chunk in a chunked answer


@dataclass
class Answer:
    """What the server is about to send; a fault changes it.

    Attributes:
        content: the whole file, or None where there is no such file.
        range: the Range header of the request, or "".
        status, headers, body: the answer.
        chunked: send the body in chunks, without a length.
        stop: hang up after this many bytes of the body; -1: before the header.
        silence: seconds without a byte before hanging up.
        faults: names of the faults that happened.
    """

    content: bytes | None
    range: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunked: bool = False
    stop: int | None = None
    silence: float = 0.0
    faults: list[str] = field(default_factory=list)

    def send_file(self) -> None:
        """Answer with the whole file."""
        self.status = 200
        self.body = self.content or b""
        self.headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(self.body)),
            "ETag": f'"{hashlib.md5(self.body).hexdigest()}"',
        }

    def send_range(self, begin: int) -> None:
        """Answer with the bytes from `begin` on."""
        total = len(self.content or b"")
        if begin >= total:
            self.send_other(416, b"")
            self.headers["Content-Range"] = f"bytes */{total}"
            return
        self.send_file()
        self.status = 206
        self.body = self.body[begin:]
        self.headers["Content-Length"] = str(total - begin)
        self.headers["Content-Range"] = f"bytes {begin}-{total - 1}/{total}"

    def send_other(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        """Answer with something that is not the file."""
        self.status = status
        self.body = body
        self.headers = {"Content-Type": kind, "Content-Length": str(len(body))}

    def encoded_body(self) -> bytes:
        """The body as it goes over the network."""
        if not self.chunked:
            return self.body
        chunks = [self.body[i : i + CHUNK] for i in range(0, len(self.body), CHUNK)]
        return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


Fault = Callable[[Answer], None]


def named(name: str) -> Callable[[Callable[..., None]], Callable[..., Fault]]:
    """Turn a function (answer, *settings) into a maker of faults with a name."""

    def decorate(change: Callable[..., None]) -> Callable[..., Fault]:
        def make(*args, **kwargs) -> Fault:
            def fault(answer: Answer) -> None:
                change(answer, *args, **kwargs)
                answer.faults.append(name)

            return fault

        make.__doc__ = change.__doc__
        return make

    return decorate


@named("cut off")
def cut(answer: Answer, after: int) -> None:
    """Hang up after this many bytes of the body; -1: before the header."""
    answer.stop = after


@named("silence")
def silent(answer: Answer, after: int = -1) -> None:
    """Send nothing more after this many bytes of the body; -1: nothing at all."""
    answer.stop = after
    answer.silence = PATIENCE


@named("error status")
def status(answer: Answer, code: int) -> None:
    """Answer with an HTTP error."""
    answer.send_other(code, f"{code} {responses[code]}".encode())


@named("web page")
def page(answer: Answer, kind: str = "text/html; charset=utf-8") -> None:
    """Answer 200 with a web page; `kind` is its Content-Type."""
    answer.send_other(200, b"\n<!DOCTYPE html><html><head><title>Log in</title></head></html>\n", kind)


@named("wrong length")
def length(answer: Answer, more: int) -> None:
    """Announce this many bytes more than are sent."""
    answer.headers["Content-Length"] = str(len(answer.body) + more)


@named("other bytes")
def other(answer: Answer, change: Callable[[bytes], bytes]) -> None:
    """Send a changed body, with a length that fits it."""
    answer.body = change(answer.body)
    answer.headers["Content-Length"] = str(len(answer.body))


@named("range ignored")
def ignore_range(answer: Answer) -> None:
    """Answer with the whole file even where a part was asked for."""
    answer.send_file()


@named("redirected")
def redirect(answer: Answer, to: str, linked: str = "") -> None:
    """Send the client elsewhere; `linked` is the SHA-256 that the Hugging Face hub sends along."""
    answer.send_other(302, b"")
    answer.headers["Location"] = to
    if linked:
        answer.headers["X-Linked-ETag"] = f'"{linked}"'


@named("without a length")
def chunked(answer: Answer) -> None:
    """Send the body in chunks, without its length."""
    answer.chunked = True
    answer.headers.pop("Content-Length")
    answer.headers["Transfer-Encoding"] = "chunked"


def together(*faults: Fault) -> Fault:
    """Several faults in one answer."""

    def perform(answer: Answer) -> None:
        for fault in faults:
            fault(answer)

    return perform


# ------------------------------------------------------------------------------------------------ the server


@dataclass(frozen=True)
class Request:
    """What a client asked for; `range` is "bytes=100-" or ""."""

    method: str
    path: str
    range: str


class Server:
    """A server at a free port of 127.0.0.1; see the top of this module.

    Attributes:
        files: content by path, which begins with a slash.
        requests: the requests in their order.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self._once: dict[str, list[Fault]] = defaultdict(list)
        self._always: dict[str, list[Fault]] = defaultdict(list)
        self._lock = threading.Lock()
        self._http = _Listener(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._http.server_close()

    def url(self, path: str) -> str:
        """The address of a file."""
        return f"http://127.0.0.1:{self._http.server_address[1]}{path}"

    def fault(self, path: str, *faults: Fault) -> None:
        """Each of the next requests to `path` meets one of these faults."""
        self._once[path].extend(faults)

    def always(self, path: str, *faults: Fault) -> None:
        """Every request to `path` meets all of these faults."""
        self._always[path].extend(faults)

    def recover(self, path: str) -> None:
        """Behave again at `path`."""
        self._once.pop(path, None)
        self._always.pop(path, None)

    def ranges(self, path: str) -> list[str]:
        """The Range headers of the requests to `path`, "" where there was none."""
        return [request.range for request in self.requests if request.path == path]

    def answer(self, method: str, path: str, asked: str) -> Answer:
        """Record a request and return its answer."""
        with self._lock:
            self.requests.append(Request(method, path, asked))
            answer = Answer(self.files.get(path), asked)
            begin = re.fullmatch(r"bytes=(\d+)-", asked)
            if answer.content is None:
                answer.send_other(404, b"404 Not Found")
            elif begin:
                answer.send_range(int(begin[1]))
            else:
                answer.send_file()
            for fault in self._always[path]:
                fault(answer)
            if self._once[path]:
                self._once[path].pop(0)(answer)
            PERFORMED.update(answer.faults)
            return answer


class _Listener(ThreadingHTTPServer):
    owner: Server
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is not an error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def do_GET(self) -> None:
        answer = self.server.owner.answer(self.command, self.path.split("?")[0], self.headers.get("Range", ""))
        if answer.stop is None or answer.stop >= 0:
            self._send_head(answer)
            if self.command == "GET":
                self.wfile.write(answer.encoded_body()[: answer.stop])
        if answer.stop is not None:
            self.close_connection = True
            if answer.silence:
                select.select([self.connection], [], [], answer.silence)  # until the client hangs up

    do_HEAD = do_GET

    def log_message(self, *_) -> None:
        """Print nothing: `Server.requests` has the requests."""

    def _send_head(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if not answer.chunked and answer.headers.get("Content-Length") != str(len(answer.body)):
            self.send_header("Connection", "close")  # the client cannot know where the next answer would begin
        self.end_headers()
