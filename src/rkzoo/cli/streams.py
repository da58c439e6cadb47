"""stdin, stdout and stderr of the command: the one place where text goes out.

- Control characters become visible (`\\x1b`): labels, file names, metadata and texts that were read
  are other people's, and none of them shall steer the terminal.
- A character that the terminal's encoding lacks is spelled, so that every locale prints.
- stdout that cannot be written is an OutputFailed; stderr that cannot be written is no reason to
  fail.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from typing import IO, Any


class OutputFailed(Exception):
    """stdout cannot be written; the message is the system's reason."""


class OutputClosed(BrokenPipeError):
    """The reader of stdout has closed it."""


def claim() -> None:
    """Take over stdin, stdout and stderr, which Python leaves out where one was closed."""
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = output(1, sys.stdout)
    sys.stderr = _text(_Messages, 2, sys.stderr)


def output(descriptor: int, like: IO[str] | None) -> io.TextIOWrapper:
    """A stream for stdout's text on `descriptor`, in the encoding of `like`."""
    return _text(_Output, descriptor, like)


_UNSEEN = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_CONTROL = re.compile(_UNSEEN)
_CONTROL_AND_BREAKS = re.compile(f"[\t\n]|{_UNSEEN}")


def visible(text: str) -> str:
    """Spell control characters, reordering marks and broken characters; lines and tabs stay.

    Above the first 32, which JSON text never has, the spelling is JSON's own: a document keeps its
    meaning.
    """
    return _CONTROL.sub(_spelled, text)


def one_line(text: str) -> str:
    """As `visible`, for what has to stay on one line: line ends and tabs are spelled too."""
    return _CONTROL_AND_BREAKS.sub(_spelled, text)


class Unfiltered:
    """The stderr of now, for what draws on the terminal, such as a progress bar."""

    def __init__(self) -> None:
        self._stream: Any = sys.stderr

    def write(self, text: str) -> int:
        return int(getattr(self._stream, "control", self._stream.write)(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _spelled(match: re.Match[str]) -> str:
    return _escape(match[0])


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return f"\\x{code:02x}"
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


# Characters of our own messages, for terminals without them.
_PLAIN = {"…": "...", "→": "->", "–": "-", "—": "-", "×": "x", "·": ".", "°": "deg", "≥": ">="}
_PLAIN |= {"≤": "<=", "µ": "u", "█": "#", "─": "-", "│": "|", "━": "-"}


def _encodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or _escape(c) for c in text), error.end


codecs.register_error("rkzoo", _encodable)


class _Output(io.FileIO):
    """What is written after a failure is dropped: one failure is told once."""

    _failed = False

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        if self._failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            return self._fail(error, len(data))

    def _fail(self, error: OSError, size: int) -> int:
        if isinstance(error, BrokenPipeError):
            raise OutputClosed(*error.args) from None
        raise OutputFailed(error.strerror or str(error)) from None


class _Messages(_Output):
    def _fail(self, error: OSError, size: int) -> int:
        return size


class _Text(io.TextIOWrapper):
    def write(self, text: str) -> int:
        return super().write(visible(text))

    def control(self, text: str) -> int:
        """Write text that may steer the terminal."""
        return super().write(text)


def _text(kind: type[_Output], descriptor: int, like: Any) -> _Text:
    # The console of Windows is written in a way of its own, which Python knows.
    if os.name == "posix" or like is None:
        buffer = io.BufferedWriter(kind(descriptor, "wb", closefd=False))
    else:
        like.flush()
        buffer = like.detach()
    lines = kind is _Messages or os.isatty(descriptor)
    encoding = like.encoding if like is not None else "utf-8"
    return _Text(buffer, encoding=encoding, errors="rkzoo", line_buffering=lines)
