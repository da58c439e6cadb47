"""A server on 127.0.0.1 that behaves as badly as the network can."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """How one address answers. `breaks` lists after how many bytes the n-th answer ends."""

    content: bytes = b""
    kind: str = "application/octet-stream"
    status: int = 200
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    redirect: str = ""
    silence: float = 0.0
    length: bool = True


@dataclass
class Server:
    url: str
    pages: dict[str, Page]
    asked: list[tuple[str, dict[str, str]]]


def _handler(
    pages: dict[str, Page], asked: list[tuple[str, dict[str, str]]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            page = pages.get(self.path, Page(status=404))
            time.sleep(page.silence)
            with suppress(BrokenPipeError, ConnectionResetError):
                self._answer(page)

        def _answer(self, page: Page) -> None:
            if page.redirect:
                self.send_response(302)
                self.send_header("Location", page.redirect)
                self.end_headers()
                return
            body, start, status = page.content, 0, page.status
            wanted = self.headers.get("Range")
            if wanted and page.ranges and status == 200:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                status = 206 if start < len(body) else 416
            self.send_response(status)
            self.send_header("Content-Type", page.kind)
            if page.length:
                self.send_header("Content-Length", str(max(0, len(body) - start)))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            if status < 300:
                end = page.breaks.pop(0) if page.breaks else len(body)
                self.wfile.write(body[start : max(start, end)])

        def log_message(self, *args: object) -> None:
            pass

    return Handler


def serve(context: ssl.SSLContext | None) -> Iterator[Server]:
    pages: dict[str, Page] = {}
    asked: list[tuple[str, dict[str, str]]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(pages, asked))
    server.daemon_threads = True
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    scheme = "https" if context else "http"
    try:
        yield Server(f"{scheme}://127.0.0.1:{server.server_port}", pages, asked)
    finally:
        server.shutdown()
        server.server_close()
