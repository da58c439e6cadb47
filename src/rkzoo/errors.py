"""The exception type reported to users, `RkzooError`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any


class RkzooError(Exception):
    """An error for the user: what went wrong, why, and how to fix it, one sentence each.

    Attributes:
        what, why, fix: the three sentences; `why` and `fix` may be empty.
        code: exit code of the command line: 2 for user errors (bad input, missing file), 1 for
            errors of rkzoo or of the toolkit.
        log: path of the full log, if there is one.
        typo: a word that was given, and the valid one that was probably meant: the command line
            names the whole command with it.
    """

    def __init__(
        self,
        what: str,
        why: str = "",
        fix: str = "",
        *,
        code: int = 2,
        log: Path | None = None,
        typo: tuple[str, str] | None = None,
    ) -> None:
        self.what, self.why, self.fix, self.code, self.log = what, why, fix, code, log
        self.typo = typo
        super().__init__(" ".join(part for part in (what, why, fix) if part))

    def __reduce__(self) -> tuple[Any, ...]:
        # Keeps all fields when a worker process pickles the error.
        return partial(type(self), **vars(self)), ()

    @property
    def reason(self) -> str:
        """What went wrong and why, without the remedy."""
        return " ".join(part for part in (self.what, self.why) if part)

    def to_json(self) -> dict[str, str | int]:
        document: dict[str, str | int] = {
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            "code": self.code,
        }
        return document | ({"log": str(self.log)} if self.log else {})


class TooLittleMemory(RkzooError):
    """The machine has too little memory."""


def too_little_memory() -> TooLittleMemory:
    """The error for what could be done with more memory."""
    return TooLittleMemory(
        "This machine has too little memory for that.",
        "",
        "Close other programs, give smaller or fewer inputs, or use a machine with more memory.",
        code=1,
    )


_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Insufficient memory")


def is_memory_shortage(error: BaseException) -> bool:
    """Whether an exception, of Python, ONNX Runtime or OpenCV, says that memory ran out."""
    return isinstance(error, MemoryError | TooLittleMemory) or any(
        words in str(error) for words in _MEMORY
    )


def printable(text: str, instead: str = "") -> str:
    """Replace each non-printable character of untrusted text by `instead`, so that none controls
    the terminal.
    """
    return "".join(c if c.isprintable() else instead for c in text)
