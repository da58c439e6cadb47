"""librga wrapper: scaling, conversion and placement of images by Rockchip's 2D engine (RGA).

A thin, checked wrapper of the C library. Not measured on a board: tested with a stand-in
(tests/rga_standin).
"""

from __future__ import annotations

import ctypes as c
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rkzoo.errors import RkzooError
from rkzoo.runtime import rga_api as api
from rkzoo.runtime.rga_api import Format, Rect, Surface, structure


@dataclass(frozen=True)
class ImportedBuffer:
    """An image that is registered with RGA's driver, by its handle."""

    handle: int
    surface: Surface


class RgaLibrary:
    """librga.so. Raises RkzooError when it cannot be loaded, or is older than 1.8."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            dll = c.CDLL(path)
            self._functions = {name: _typed(dll, name) for name in api.FUNCTIONS}
        except (OSError, AttributeError) as error:
            raise RkzooError(
                f"The library of the 2D engine {path} cannot be used.",
                f"The system says: {error}.",
                "Install librga 1.8 or later, or unset RKZOO_LIBRGA.",
            ) from error
        _talk_aside()
        self.version_text: str = (self._functions["querystring"](api.VERSION) or b"").decode(
            "utf-8", "replace"
        )
        self.engines = api.engines(self.version_text)

    def import_fd(self, fd: int, surface: Surface) -> ImportedBuffer:
        """Import memory of a file descriptor (DMA-BUF), until `release`. Raises RkzooError."""
        return self._import("importbuffer_fd", fd, surface)

    @contextmanager
    def borrowed(self, address: int, surface: Surface) -> Iterator[ImportedBuffer]:
        """Import memory of this process for the duration of the block: the pages behind the address
        may change afterwards. Raises RkzooError.
        """
        imported = self._import("importbuffer_virtualaddr", address, surface)
        try:
            yield imported
        finally:
            self.release(imported)

    def _import(self, function: str, where: int, surface: Surface) -> ImportedBuffer:
        params = structure("im_handle_param_t")(surface.stride, surface.height, surface.format)
        handle = self._functions[function](where, c.byref(params))
        if not handle:
            raise RkzooError(
                "RGA's driver does not accept the memory of a picture.", "", "", code=1
            )
        return ImportedBuffer(handle, surface)

    def release(self, imported: ImportedBuffer) -> None:
        """Release imported memory. Failures are ignored: nobody can act on them."""
        self._functions["releasebuffer_handle"](imported.handle)

    def place(self, source: ImportedBuffer, target: ImportedBuffer, place: Rect) -> None:
        """Scale and convert the whole source into a rectangle of the target, and wait for it.

        Args:
            source: The source image.
            target: The target image.
            place: The rectangle in the target.

        Raises:
            RkzooError: RGA fails; the rectangle may be partly written.
        """
        source_buffer, target_buffer = self._wrapped(source), self._wrapped(target)
        if source.surface.format == Format.NV12:
            target_buffer.color_space_mode = api.BT601_LIMITED
        rect = structure("im_rect")
        answer = self._functions["improcess"](
            source_buffer,
            target_buffer,
            structure("rga_buffer_t")(),
            rect(0, 0, source.surface.width, source.surface.height),
            rect(place.x, place.y, place.width, place.height),
            rect(),
            api.SYNC,
        )
        if answer != api.SUCCESS:
            why = (self._functions["imStrError_t"](answer) or b"").decode("utf-8", "replace")
            raise RkzooError("RGA failed.", f"{why.strip()} ({answer})", "", code=1)

    def _wrapped(self, picture: ImportedBuffer) -> Any:
        # The library fills in the other fields, as its version defines them.
        s = picture.surface
        return self._functions["wrapbuffer_handle_t"](
            picture.handle, s.width, s.height, s.stride, s.height, s.format
        )


def _typed(dll: Any, name: str) -> Any:
    function = getattr(dll, name)
    function.restype, *function.argtypes = api.FUNCTIONS[name]
    return function


def _talk_aside() -> None:
    """Redirect librga's messages (its version, each failure) to stderr: stdout is for results. Only
    glibc allows this.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = c.CDLL(None)
    out, err = (c.c_void_p.in_dll(libc, name) for name in ("stdout", "stderr"))
    libc.fflush(None)
    out.value = err.value


def memory_size() -> int:
    """Memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
