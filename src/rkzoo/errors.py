"""The one error a user sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class RkzooError(Exception):
    """What went wrong, why, and what to do about it: one sentence each.

    `code` is the exit code of the command line: 2 when the user can mend it
    (bad input, missing file), 1 when the fault is ours or the toolkit's.
    `log` names a file with the full story, when there is one.
    """

    def __init__(
        self, what: str, why: str = "", fix: str = "", *, code: int = 2, log: Path | None = None
    ) -> None:
        self.what, self.why, self.fix, self.code, self.log = what, why, fix, code, log
        super().__init__(" ".join(part for part in (what, why, fix) if part))

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process hands its error over whole.
        return _again, (self.what, self.why, self.fix, self.code, self.log)

    def to_json(self) -> dict[str, str | int]:
        found: dict[str, str | int] = {
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            "code": self.code,
        }
        return found | ({"log": str(self.log)} if self.log else {})


def _again(what: str, why: str, fix: str, code: int, log: Path | None) -> RkzooError:
    return RkzooError(what, why, fix, code=code, log=log)


def printable(text: str, instead: str = "") -> str:
    """A stranger's text with `instead` for each character that would steer a terminal."""
    return "".join(c if c.isprintable() else instead for c in text)
