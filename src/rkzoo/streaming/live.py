"""Live page: MJPEG stream and statistics in a browser, for boards without a screen.

The standard library's server suffices for a few viewers, one thread each. Each frame is encoded
once for all viewers, and only while there are any; a slow viewer skips frames and never blocks the
stream.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from time import perf_counter
from typing import Any

import cv2

from rkzoo.errors import RkzooError
from rkzoo.streaming.sinks import RenderedFrame

DEFAULT = "127.0.0.1:8080"
VIEWERS = 8
# Maximum simultaneous connections; further ones are closed at once.
_CONNECTIONS = 4 * VIEWERS
# Timeout of a connection, seconds.
_PATIENCE = 10.0
# How long after the last request frames are still encoded, seconds.
_ATTENTION = 3.0
_QUALITY = 80
_LAG = 1 << 17  # bytes
_BOUNDARY = "rkzooframe"
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


class LivePage:
    """Serves `/` (the page), `/stream.mjpg`, `/frame.jpg` and `/stats.json`.

    Args:
        address: where to listen.
        figures: returns the content of /stats.json; called from the server's threads.
        title: page title.
        viewers: maximum number of simultaneous streams.

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
    ) -> None:
        self._picture = _Newest()
        self._viewers = threading.BoundedSemaphore(viewers)
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
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def take(self, shown: RenderedFrame) -> None:
        """Draw and encode the frame, only while there are viewers."""
        if not self._picture.wanted:
            return
        picture = shown.picture
        start = perf_counter()
        ok, data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
        shown.seconds["encode"] = perf_counter() - start
        if ok:
            self._picture.put(data.tobytes())

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and join all threads."""
        self._picture.end()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    # --- for the handler --------------------------------------------------------------

    def enter(self) -> bool:
        """Reserve a viewer slot; False when all are taken."""
        return self._viewers.acquire(blocking=False)

    def leave(self) -> None:
        """Release a viewer slot."""
        self._viewers.release()

    @property
    def newest(self) -> _Newest:
        return self._picture


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


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close joins them
    block_on_close = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], page: LivePage) -> None:
        self.page = page
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Skips HTTPServer's reverse DNS lookup, which takes seconds in a network without DNS.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._open) >= _CONNECTIONS
            if not full:
                self._open.add(request)
        if full:
            super().shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Shut down all connections, so that blocked reads and writes return."""
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # already closed

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a disconnected viewer is no error


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version, sys_version = "rkzoo", ""

    def do_GET(self) -> None:
        page = self.server.page
        if page.local_only and not self._meant_for_us():
            # Protects against DNS rebinding by other web pages.
            self._text(403, "This page is for this machine only.")
            return
        serve = _ROUTES.get(self.path.partition("?")[0])
        if serve is None:
            self._text(404, "There is nothing here. Look at /")
            return
        serve(self)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def page(self) -> None:
        self._send(200, "text/html; charset=utf-8", _html())

    def stats(self) -> None:
        page = self.server.page
        document = {"title": page.title} | page.figures()
        self._send(200, "application/json", json.dumps(document).encode())

    def frame(self) -> None:
        newest = self.server.page.newest
        numbered = newest.after(newest.number, _PATIENCE / 2)
        if not numbered or not numbered[1]:
            self._text(503, "There is no picture yet.")
            return
        self._send(200, "image/jpeg", numbered[1])

    def stream(self) -> None:
        page = self.server.page
        if not page.enter():
            self._text(503, f"{page.most} viewers look at it already, which is as many as may.")
            return
        try:
            self._pictures(page.newest)
        finally:
            page.leave()

    def _pictures(self, newest: _Newest) -> None:
        self._head(200, f"multipart/x-mixed-replace; boundary={_BOUNDARY}", None)
        # Limits the lag of a slow viewer to this send buffer.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LAG)
        number = 0
        while (numbered := newest.after(number, _PATIENCE)) is not None:
            number, data = numbered
            if data:
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}"
                self.wfile.write(head.encode() + b"\r\n\r\n" + data + b"\r\n")

    def _meant_for_us(self) -> bool:
        host = self.headers.get("Host", "localhost")
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return name.lower() in _LOCAL_NAMES or name == self.server.page.host

    def _text(self, status: int, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", text.encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self._head(status, kind, len(body))
        self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in _SAFE.items():
            self.send_header(name, value)
        self.end_headers()


_ROUTES: dict[str, Callable[[_Handler], None]] = {
    "/": _Handler.page,
    "/stream.mjpg": _Handler.stream,
    "/frame.jpg": _Handler.frame,
    "/stats.json": _Handler.stats,
}
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
