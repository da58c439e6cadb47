"""Where a request came from, known wherever it is worked on in the event loop."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Trace:
    """A request of a client.

    Attributes:
        request: Its identifier.
        client: The address that it came from; "" over a socket of the file system.
        told: Whether the observers heard of it.
    """

    request: str
    client: str = ""
    told: bool = False


TRACE: ContextVar[Trace | None] = ContextVar("TRACE", default=None)
"""The request that the running task answers."""

_PLAIN = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


def request_id(given: str) -> str:
    """A client's own identifier, where it is one word; else a new one."""
    return given if _PLAIN.fullmatch(given) else secrets.token_hex(8)
