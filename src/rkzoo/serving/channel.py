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


class Closed(Exception):
    """The other end is gone."""


class Channel:
    """One end of a pair of sockets. For one thread at a time."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(True)

    def send(self, header: bytes, buffers: Sequence[bytes | memoryview] = ()) -> None:
        """Sends a message. Raises Closed."""
        parts = [header, *buffers]
        sizes = struct.pack(f"<{len(parts)}Q", *(len(part) for part in parts))
        try:
            # What is small goes in one call, what is large is not copied.
            self._end.sendall(_COUNT.pack(len(parts)) + sizes + header)
            for buffer in buffers:
                self._end.sendall(buffer)
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self) -> tuple[bytes, list[bytearray]]:
        """The next message: its header and its buffers. Raises Closed."""
        (count,) = _COUNT.unpack(self._read(_COUNT.size))
        if not 1 <= count <= _MOST_BUFFERS:
            raise Closed(f"a message of {count} parts")
        sizes = struct.unpack(f"<{count}Q", self._read(8 * count))
        header, *buffers = [self._read(size) for size in sizes]
        return bytes(header), buffers

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view, place = memoryview(data), 0
        while place < size:
            try:
                count = self._end.recv_into(view[place:])
            except OSError as error:
                raise Closed(str(error)) from error
            if not count:
                raise Closed("the end of the stream")
            place += count
        return data

    def close(self) -> None:
        """Closes this end, also under a thread that waits at it."""
        with suppress(OSError):  # the other end was first
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()
