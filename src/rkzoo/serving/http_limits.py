"""Bounds on what a client may send: head, body, and the time for both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rkzoo.serving.errors import ServingError

MOST_HEADERS = 64
MOST_HEAD = 16 << 10  # bytes of the request line and all headers
HEAD_SECONDS = 10.0
IDLE_SECONDS = 10.0  # between two pieces of a body
SEND_SECONDS = 30.0  # for a piece of an answer, before the client counts as gone
MOST_BODY = 64 << 20

Receive = Callable[[], Awaitable[Any]]


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with bounds that it does not have: a head is whole within seconds, and
    small; an answer is read. A connection that breaks them is closed."""

    _size = 0
    _count = 0
    _unparsed = 0  # bytes that came while the head was not whole
    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        self._is_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._is_read()
        super().resume_writing()

    def _is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def on_message_begin(self) -> None:
        self._size = self._count = self._unparsed = 0
        self._wait_for_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._add(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        self._add(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_is_here()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        # What is no whole header yet is in the parser. The last piece may go on with the body.
        if self._late is not None:
            if self._unparsed > MOST_HEAD:
                self._refuse()
                return
            self._unparsed += len(data)
        super().data_received(data)

    def _add(self, size: int) -> None:
        self._size += size
        if self._size > MOST_HEAD or self._count > MOST_HEADERS:
            self._refuse()

    def _refuse(self) -> None:
        self._head_is_here()
        self.transport.abort()

    def _wait_for_head(self) -> None:
        self._head_is_here()
        self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _head_is_here(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        self.transport.abort()


async def read_body(request: Request, most: int = MOST_BODY) -> bytes:
    """The body of a request.

    Raises:
        ServingError: It is too large (413), stops in the middle (408), or is packed (415).
    """
    if (packed := request.headers.get("content-encoding", "identity")) != "identity":
        raise ServingError(415, f"The body is packed as {packed[:20]!r}: send it as it is.")
    size = declared_size(request, most)
    pieces: list[bytes] = []
    received, more = 0, True
    while more:
        try:
            message = await asyncio.wait_for(request.receive(), IDLE_SECONDS)
        except asyncio.TimeoutError:
            raise ServingError(
                408, f"The body stopped after {received} of {size or '?'} bytes."
            ) from None
        if message["type"] == "http.disconnect":
            raise ServingError(400, "The client went away.")
        piece, more = message.get("body", b""), message.get("more_body", False)
        received += len(piece)
        if received > most:
            raise ServingError(413, f"The body is larger than {most >> 20} MiB.")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def declared_size(request: Request, most: int = MOST_BODY) -> int:
    """What Content-Length says, 0 where it says nothing. Raises ServingError (413)."""
    text = request.headers.get("content-length", "0")
    size = int(text) if text.isdecimal() else 0
    if size > most:
        raise ServingError(413, f"The body has {size >> 20} MiB, of {most >> 20} MiB allowed.")
    return size
