"""The server's log: a line for each request and for what happens to a model, as text or JSON.

Nothing that a client sent is in it but the name of a model and the path: what is wrong with a
request is told to who sent it, since the sentence may quote the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

import msgspec

from rkzoo.serving.engine import Event

Format = Literal["text", "json"]


class Line(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A line of the log: of a request where `call` is there, else of a model or the server."""

    time: str
    model: str = ""
    call: str = ""
    outcome: str = ""
    status: int = 0
    waited_ms: float | None = None
    worked_ms: float | None = None
    bytes: int | None = None
    client: str = ""
    request: str = ""
    message: str = ""


def as_json(line: Line) -> str:
    """A line as JSON; what it does not have is left out."""
    return msgspec.json.encode(line).decode()


def as_text(line: Line) -> str:
    """A line to read: what it does not have is left out."""
    if not line.call:
        who = f"{line.model}: " if line.model else ""
        return f"{line.time} {who}{line.message}"
    words = [line.time, line.model or "-", line.call, line.outcome, str(line.status)]
    if line.model:
        words.append(f"waited {line.waited_ms:.1f} ms, worked {line.worked_ms:.1f} ms,")
        words.append(f"{line.bytes} bytes")
    words += filter(None, (line.client, line.request, line.message))
    return " ".join(words)


_FORMATS: dict[Format, Callable[[Line], str]] = {"text": as_text, "json": as_json}


@dataclass(frozen=True)
class Log:
    """Where lines go.

    Attributes:
        format: How they are spelled.
        write: Is given each without its end; spells control characters.
        requests: Whether those of requests are written.
    """

    format: Format
    write: Callable[[str], None]
    requests: bool = True

    def say(self, model: str, message: str) -> None:
        """What happened to a model, or to the server ("")."""
        self._add(Line(time=_now(), model=model, message=message))

    def request(self, event: Event) -> None:
        """A request that was answered."""
        if self.requests:
            self._add(line_of(event, _now()))

    def _add(self, line: Line) -> None:
        self.write(_FORMATS[self.format](line))


def line_of(event: Event, time: str) -> Line:
    """The line of a request. Messages of faults of ours are in it (500 and above), and the path of
    one that reached no model."""
    reached = bool(event.model)
    return Line(
        time=time,
        model=event.model,
        call=event.call,
        outcome=event.outcome,
        status=event.status,
        waited_ms=round(event.waited * 1000, 3) if reached else None,
        worked_ms=round(event.worked * 1000, 3) if reached else None,
        bytes=event.size if reached else None,
        client=event.client,
        request=event.request,
        message=event.message if event.status >= 500 or not reached else "",
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
