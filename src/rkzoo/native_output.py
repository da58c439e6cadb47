"""What C libraries print of a damaged file, kept from users, who are told in rkzoo's own words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

# OpenCV, libpng, libjpeg, libtiff, libwebp, mpg123, libFLAC. Blank lines follow OpenCV's.
_LIBRARY = re.compile(
    rb"\[ *(WARN|ERROR|INFO|DEBUG):\d|libpng|\S*JPEG |(Corrupt|Premature end of) JPEG|"
    rb"TIFF\w*:|\[\S*mpg123|Note: |Warning: |\s*$",
    re.IGNORECASE,
)
# A descriptor belongs to the whole process.
_ONE = Lock()
_left = False


def leave_library_lines() -> None:
    """Leave stderr as it is from now on, for a process whose stderr is a log: threads then wait
    for each other no more, and what a library says before it ends the process is not lost."""
    global _left
    _left = True


@contextmanager
def without_library_lines() -> Iterator[None]:
    """Keep from stderr what libraries print there within the block. What other threads write
    meanwhile is passed on after it."""
    if _left:
        yield
        return
    with _ONE:
        try:
            kept = os.memfd_create("library-lines")
            own = os.dup(2)
        except (AttributeError, OSError):  # not Linux, or stderr is closed
            yield
            return
        try:
            os.dup2(kept, 2)
            try:
                yield
            finally:
                os.dup2(own, 2)
            size = os.fstat(kept).st_size
            for line in os.pread(kept, size, 0).splitlines(keepends=True) if size else ():
                if not _LIBRARY.match(line):
                    with suppress(OSError):
                        os.write(own, line)
        finally:
            os.close(kept)
            os.close(own)
