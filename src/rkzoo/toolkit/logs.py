"""Log files of failures in the cache: the newest twenty are kept."""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir

KEPT = 20
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def keep_text(text: str, label: str) -> Path | None:
    """Write a log and remove the oldest ones; None when that fails (a full disk)."""
    try:
        folder = cache_dir("logs")
        # Sorted by name, because files of one moment have the same time stamp.
        now = time.time_ns()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now // 10**9))
        name = f"{stamp}.{now % 10**9:09d}-{label}-{secrets.token_hex(2)}.log"
        path = folder / name
        path.write_text(text, encoding="utf-8")
        for old in sorted(folder.glob("*.log"))[:-KEPT]:
            old.unlink(missing_ok=True)
    except (OSError, RkzooError):
        return None
    return path


def strip_colors(text: str) -> str:
    """Remove terminal colors."""
    return _COLOUR.sub("", text)


def last_line(text: str) -> str:
    """The last meaningful line, without colors and progress bars; "" when there is none."""
    for line in reversed(strip_colors(text).replace("\r", "\n").splitlines()):
        line = line.strip()
        if line and not re.search(r"\d+%\|", line) and not re.fullmatch(r"[-=+\s^~]*", line):
            return line[:400]
    return ""
