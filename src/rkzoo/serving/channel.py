"""Messages between the server and its worker processes, over a pair of sockets.

A message is a JSON header and any number of buffers: their sizes as numbers of 64 bits, then they
themselves. Both ends are ours and on one machine.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

_COUNT = struct.Struct("<I")
_MOST_BUFFERS = 1 << 16
_KERNEL_BUFFER = 4 << 20  # bytes on their way; the system may allow less

Piece = bytes | memoryview
Buffer = Piece | Sequence[Piece]
"""Bytes, which may lie in pieces: the receiver gets them as one."""


class Closed(Exception):
    """The other end is gone."""


class Channel:
    """One end of a pair of sockets. For one thread at a time."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(True)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)

    def send(self, header: bytes, buffers: Sequence[Buffer] = ()) -> None:
        """Sends a message. Raises Closed."""
        parts = [(header,), *map(_pieces, buffers)]
        sizes = struct.pack(f"<{len(parts)}Q", *(sum(map(len, part)) for part in parts))
        try:
            # What is small goes in one call, what is large is not copied.
            self._end.sendall(_COUNT.pack(len(parts)) + sizes + header)
            for part in parts[1:]:
                for piece in part:
                    self._end.sendall(piece)
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self) -> tuple[bytes, list[bytes]]:
        """The next message: its header and its buffers. Raises Closed."""
        (count,) = _COUNT.unpack(self._read(_COUNT.size))
        if not 1 <= count <= _MOST_BUFFERS:
            raise Closed(f"a message of {count} parts")
        sizes = struct.unpack(f"<{count}Q", self._read(8 * count))
        header, *buffers = [self._read(size) for size in sizes]
        return header, buffers

    def _read(self, size: int) -> bytes:
        """In one call into memory that nobody has to clear first: what a tensor costs here is
        one copy, outside of Python's lock."""
        pieces: list[bytes] = []
        while size:
            try:
                piece = self._end.recv(size, socket.MSG_WAITALL)
            except OSError as error:
                raise Closed(str(error)) from error
            if not piece:
                raise Closed("the end of the stream")
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Closes this end, also under a thread that waits at it."""
        with suppress(OSError):  # the other end was first
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()


def _pieces(buffer: Buffer) -> Sequence[Piece]:
    return (buffer,) if isinstance(buffer, (bytes, memoryview)) else buffer
