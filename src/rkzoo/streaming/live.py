"""Live page: MJPEG stream and statistics in a browser, for boards without a screen.

The standard library's server suffices for a few viewers, one thread each. Each frame is encoded
once for all viewers, and only while there are any; a slow viewer skips frames and never blocks the
stream. Nor does it lock others out: a request must arrive whole within seconds, connections are
bounded in all and for each address, and where a bound is reached the one that has waited longest
makes room.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import os
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from time import perf_counter, sleep
from typing import Any

import cv2

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.streaming.sinks import RenderedFrame

DEFAULT = "127.0.0.1:8080"
VIEWERS = 8
# Maximum simultaneous connections, and those of one address.
_CONNECTIONS, _OF_ONE = 6 * VIEWERS, 3 * VIEWERS
# Seconds for a whole request to arrive, for one write, and for the next picture.
_ASKING, _WRITING, _PATIENCE = 5.0, 5.0, 10.0
# A viewer whose write takes longer than this makes room for another, seconds.
_SLOW = 1.0
# Delay of an answer to a wrong password, seconds.
_WRONG = 0.5
# How long after the last request frames are still encoded, seconds.
_ATTENTION = 3.0
_QUALITY = 80
_LAG = 1 << 17  # bytes
_BOUNDARY = "rkzooframe"
_MULTIPART = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Address:
    """Host and port of the live page."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether the address is reachable from this machine only."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Parse `PORT`, `HOST:PORT`, `HOST` or `[::1]:PORT`; the default host is 127.0.0.1. Raises
    RkzooError."""
    match = re.fullmatch(r"(?:(?P<port>\d+)|(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<at>\d+))?)", text)
    port = int((match["port"] or match["at"] or 8080) if match else -1)
    if match is None or not 0 <= port <= 65535:
        raise RkzooError(
            f"{text!r} is not a valid address for the live page.",
            "It is a port of 0..65535, or a host and a port.",
            "Give e.g. --http 8080, or --http 0.0.0.0:8080 for everyone in the network.",
        )
    return Address((match["host"] or "127.0.0.1").strip("[]"), port)


PASSWORD = "RKZOO_HTTP_PASSWORD"
"""Holds the password of the live page, where no file is named."""


def read_password(file: str | None) -> str | None:
    """The password in the first line of a file, or in RKZOO_HTTP_PASSWORD; None without either. It
    is no option of the command line, which every user of the machine can read. Raises RkzooError.
    """
    if file is None:
        return os.environ.get(PASSWORD) or None
    path = Path(file).expanduser()
    with os_errors_explained(f"The password cannot be read from {path}."):
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
    password = text.partition("\n")[0].strip()
    if not password:
        raise RkzooError(
            f"There is no password in {path}.",
            "It is the first line of a file.",
            f"Write it there, or leave the option out and set {PASSWORD}.",
        )
    return password


def own_addresses() -> list[str]:
    """This machine's IPv4 addresses in its networks, as the system would send from. Nothing is
    sent: a connected datagram socket has an address."""
    found: dict[str, None] = {}
    # One of the networks at large (reserved for documentation) and the three private ones.
    for there in ("192.0.2.1", "192.168.254.253", "10.254.254.253", "172.30.254.253"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.connect((there, 9))
            found[str(probe.getsockname()[0])] = None
    return [text for text in found if not ipaddress.ip_address(text).is_loopback]


class LivePage:
    """Serves `/` (the page), `/stats.json`, and of each source N `/stream/N` (MJPEG) and
    `/frame/N` (one JPEG); `/stream.mjpg` and `/frame.jpg` are those of the first.

    Args:
        address: where to listen.
        figures: returns the content of /stats.json; called from the server's threads.
        title: page title.
        viewers: maximum number of simultaneous streams.
        sources: number of sources.
        password: asked of every viewer (HTTP basic authentication, any user name).

    Raises:
        RkzooError: the address cannot be bound.
    """

    over = False

    def __init__(
        self,
        address: Address,
        figures: Callable[[], dict[str, Any]],
        *,
        title: str = "rkzoo",
        viewers: int = VIEWERS,
        sources: int = 1,
        password: str | None = None,
    ) -> None:
        self._pictures = tuple(_Newest() for _ in range(sources))
        self._viewers = threading.BoundedSemaphore(viewers)
        self._password = password
        self.figures, self.title, self.most = figures, title, viewers
        self.local_only = address.loopback
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        server_class = type("_Server6", (_Server,), {"address_family": family})
        try:
            self._server = server_class((address.host, address.port), self)
        except OSError as error:
            raise RkzooError(
                f"The live page cannot be served at {address.host}:{address.port}.",
                f"The system says: {error.strerror or error}.",
                "Choose another port with --http PORT (0 takes a free one), or as HOST a name or "
                "number of this machine: --http 127.0.0.1:8080, or 0.0.0.0:8080 for everyone.",
            ) from error
        self.port = int(self._server.server_address[1])
        self.host = address.host
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="live-page", daemon=True
        )
        self._thread.start()

    @property
    def place(self) -> str:
        """URL of the page."""
        return self.places[0]

    @property
    def places(self) -> list[str]:
        """URLs that can be opened: for 0.0.0.0 and :: those of this machine in its networks, and
        on it."""
        hosts = [*own_addresses(), "localhost"] if self.host in ("0.0.0.0", "::") else [self.host]
        return [f"http://{f'[{h}]' if ':' in h else h}:{self.port}/" for h in hosts]

    def take(self, shown: RenderedFrame) -> None:
        """Draw and encode the frame, only while there are viewers."""
        newest = self._pictures[shown.frame.source]
        if not newest.wanted:
            return
        picture = shown.picture
        start = perf_counter()
        ok, data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
        shown.seconds["encode"] = perf_counter() - start
        if ok:
            newest.put(data.tobytes())

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and join all threads."""
        for newest in self._pictures:
            newest.end()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    # --- for the handler --------------------------------------------------------------

    def enter(self) -> bool:
        """Reserve a viewer slot, for which a viewer that does not keep up makes room; False when
        all are taken."""
        if self._viewers.acquire(blocking=False):
            return True
        return self._server.drop_slowest() and self._viewers.acquire(timeout=_PATIENCE / 5)

    def leave(self) -> None:
        """Release a viewer slot."""
        self._viewers.release()

    def newest(self, source: int = 0) -> _Newest | None:
        """The pictures of a source; None where there is no such one."""
        return self._pictures[source] if source < len(self._pictures) else None

    def admits(self, authorization: str | None) -> bool:
        """Whether a header Authorization has the password, if there is one. Takes as long whatever
        is wrong."""
        if self._password is None:
            return True
        kind, _, text = (authorization or "").partition(" ")
        try:
            given = base64.b64decode(text, validate=True).partition(b":")[2]
        except ValueError:
            given = b""
        right = hmac.compare_digest(given, self._password.encode())
        return right and kind.lower() == "basic"


class _Newest:
    """The latest JPEG, and the threads waiting for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._data = b""
        self._number = 0
        self._ended = False
        self._last_request = float("-inf")

    @property
    def wanted(self) -> bool:
        """Whether a frame was requested recently."""
        return perf_counter() - self._last_request < _ATTENTION

    def put(self, data: bytes) -> None:
        with self._changed:
            self._data = data
            self._number += 1
            self._changed.notify_all()

    def after(self, number: int, timeout: float) -> tuple[int, bytes] | None:
        """Wait for a frame newer than `number`; None at the end of the stream, b"" on timeout."""
        end = perf_counter() + timeout
        with self._changed:
            while not self._ended and self._number <= number:
                self._last_request = perf_counter()
                left = end - self._last_request
                if left <= 0:
                    return number, b""
                self._changed.wait(min(left, _ATTENTION / 3))
            self._last_request = perf_counter()
            return None if self._ended else (self._number, self._data)

    @property
    def number(self) -> int:
        return self._number

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@dataclass(eq=False)
class _Connection:
    """One client. `asking`: its request has not arrived yet; `writing`: since when it has not
    taken what is sent."""

    socket: socket.socket
    address: str
    opened: float
    asking: bool = True
    writing: float | None = None

    def hang_up(self) -> None:
        """Blocked reads and writes return, and its thread ends."""
        with suppress(OSError):  # already closed
            self.socket.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close joins them
    block_on_close = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], page: LivePage) -> None:
        self.page = page
        self._open: dict[socket.socket, _Connection] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Skips HTTPServer's reverse DNS lookup, which takes seconds in a network without DNS.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._takes(_Connection(request, str(client_address[0]), perf_counter())):
            super().process_request(request, client_address)
        else:
            super().shutdown_request(request)

    def _takes(self, new: _Connection) -> bool:
        """Keep a connection, for which the longest of those that have not asked makes room."""
        with self._lock:
            every = list(self._open.values())
            same = [one for one in every if one.address == new.address]
            crowd = same if len(same) >= _OF_ONE else every
            if len(every) >= _CONNECTIONS or len(same) >= _OF_ONE:
                silent = [one for one in crowd if one.asking]
                if not silent:
                    return False
                oldest = min(silent, key=lambda one: one.opened)
                oldest.hang_up()
                del self._open[oldest.socket]
            self._open[new.socket] = new
            return True

    def service_actions(self) -> None:
        """Called several times a second: whoever has not asked in time is hung up on."""
        now = perf_counter()
        with self._lock:
            for one in self._open.values():
                if one.asking and now - one.opened > _ASKING:
                    one.hang_up()

    def connection(self, request: Any) -> _Connection:
        """What is known of a connection; a stand-in for one that had to make room."""
        with self._lock:
            return self._open.get(request) or _Connection(request, "", perf_counter())

    def drop_slowest(self) -> bool:
        """Hang up on the viewer whose write has taken longest, if one does not keep up."""
        now = perf_counter()
        with self._lock:
            slow = [(one.writing, one) for one in self._open.values() if one.writing is not None]
            since, slowest = min(slow, key=lambda pair: pair[0], default=(now, None))
            if slowest is None or now - since < _SLOW:
                return False
            slowest.hang_up()
            return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Shut down all connections, so that blocked reads and writes return."""
        with self._lock:
            for one in self._open.values():
                one.hang_up()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a disconnected viewer is no error


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _WRITING
    server_version, sys_version = "rkzoo", ""

    def do_GET(self) -> None:
        page = self.server.page
        self._mine = self.server.connection(self.connection)
        self._mine.asking = False
        if page.local_only and not self._meant_for_us():
            # Protects against DNS rebinding by other web pages.
            self._text(403, "This page is for this machine only.")
            return
        authorization = self.headers.get("Authorization")
        if not page.admits(authorization):
            if authorization:
                sleep(_WRONG)  # guessing takes time
            self._text(401, "The password is missing or wrong.")
            return
        path = self.path.partition("?")[0]
        numbered = _NUMBERED.fullmatch(path)
        serve = _ROUTES.get(numbered[1] if numbered else path)
        newest = page.newest(int(numbered[2]) if numbered else 0)
        if serve is None or newest is None:
            self._text(404, "There is nothing here. Look at /")
            return
        serve(self, newest)

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it; nothing but headers is sent

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def page(self, newest: _Newest) -> None:
        self._send(200, "text/html; charset=utf-8", _html())

    def stats(self, newest: _Newest) -> None:
        page = self.server.page
        document = {"title": page.title} | page.figures()
        self._send(200, "application/json", json.dumps(document).encode())

    def frame(self, newest: _Newest) -> None:
        if self.command == "HEAD":
            self._head(200, "image/jpeg", None)
            return
        numbered = newest.after(newest.number, _PATIENCE / 2)
        if not numbered or not numbered[1]:
            self._text(503, "There is no picture yet.")
            return
        self._send(200, "image/jpeg", numbered[1])

    def stream(self, newest: _Newest) -> None:
        if self.command == "HEAD":
            self._head(200, _MULTIPART, None)
            return
        page = self.server.page
        if not page.enter():
            self._text(503, f"{page.most} viewers look at it already, which is as many as may.")
            return
        try:
            self._pictures(newest)
        finally:
            page.leave()

    def _pictures(self, newest: _Newest) -> None:
        self._head(200, _MULTIPART, None)
        # Limits the lag of a slow viewer to this send buffer.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LAG)
        number = 0
        while (numbered := newest.after(number, _PATIENCE)) is not None:
            number, data = numbered
            if data:
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}"
                # Frames that come meanwhile are skipped; after `timeout` the viewer is dropped.
                self._mine.writing = perf_counter()
                self.wfile.write(head.encode() + b"\r\n\r\n" + data + b"\r\n")
                self._mine.writing = None

    def _meant_for_us(self) -> bool:
        host = self.headers.get("Host", "localhost")
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return name.lower() in _LOCAL_NAMES or name == self.server.page.host

    def _text(self, status: int, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", text.encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self._head(status, kind, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="rkzoo", charset="UTF-8"')
        for name, value in _SAFE.items():
            self.send_header(name, value)
        self.end_headers()


_ROUTES: dict[str, Callable[[_Handler, _Newest], None]] = {
    "/": _Handler.page,
    "/stream.mjpg": _Handler.stream,
    "/stream": _Handler.stream,
    "/frame.jpg": _Handler.frame,
    "/frame": _Handler.frame,
    "/stats.json": _Handler.stats,
}
_NUMBERED = re.compile(r"(/stream|/frame)/(\d{1,4})")
_SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@cache
def _html() -> bytes:
    return Path(__file__).with_name("live.html").read_bytes()
