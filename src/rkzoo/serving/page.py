"""GET /, a page that shows what is loaded and tries it; GET /v1/status, the same as JSON."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import deque
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rkzoo.contract.inputs import TensorSpec
from rkzoo.protocol.tensors import datatype_of
from rkzoo.serving.engine import Engine, Event

PAGE = Path(__file__).with_name("static") / "page.html"
_RECENT = 256  # answers that the median is of


class Tensor(msgspec.Struct, frozen=True):
    """An input or output, as the Open Inference Protocol has it."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Part(msgspec.Struct, frozen=True):
    """A graph of a model; `name` is what the Open Inference Protocol calls it."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model. `kind` is what it takes, `written` the formats of its answer beside JSON; both are
    empty until it was loaded. `p50_ms` is the median of recent answers, waiting included."""

    name: str
    state: str
    reason: str
    version: str
    waiting: int
    working: int
    restarts: int
    requests: int
    failed: int
    p50_ms: float | None
    kind: str = ""
    task: str = ""
    runtime: str = ""
    slots: int = 0
    written: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()


class Status(msgspec.Struct, frozen=True):
    """What /v1/status answers."""

    rkzoo: str
    models: list[ModelRow]


@dataclass
class _Counted:
    """The requests of a model; `seconds` of the recent ones that were answered."""

    requests: int = 0
    failed: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, event: Event) -> None:
        self.requests += 1
        if event.outcome == "ok":
            self.seconds.append(event.waited + event.worked)
        elif event.outcome != "wrong":  # that is who asked
            self.failed += 1


def routes(engine: Engine) -> list[BaseRoute]:
    """The routes."""
    text = PAGE.read_text("utf-8")
    headers = _headers(text)
    counted = {name: _Counted() for name in engine.names()}

    def observe(event: Event) -> None:
        if event.model in counted:
            counted[event.model].add(event)

    engine.observers.append(observe)

    async def page(request: Request) -> Response:
        return Response(text, headers=headers, media_type="text/html")

    async def status(request: Request) -> Response:
        rows = [_row(engine, name, of_model) for name, of_model in counted.items()]
        told = Status(version("rkzoo"), rows)
        return Response(
            msgspec.json.encode(told),
            headers={"cache-control": "no-store"},
            media_type="application/json",
        )

    return [
        Route("/", page, methods=["GET"]),
        Route("/v1/status", status, methods=["GET"]),
    ]


def _row(engine: Engine, name: str, counted: _Counted) -> ModelRow:
    status, opened = engine.status(name), engine.status(name).opened
    row = ModelRow(
        name=name,
        state=status.state,
        reason=status.reason,
        version=status.version,
        waiting=status.waiting,
        working=status.working,
        restarts=status.restarts,
        requests=counted.requests,
        failed=counted.failed,
        p50_ms=round(median(counted.seconds) * 1000, 1) if counted.seconds else None,
    )
    if opened is None:
        return row
    return msgspec.structs.replace(
        row,
        kind=opened.kind,
        task=opened.task,
        runtime=opened.runtime,
        slots=opened.slots,
        written=opened.written,
        parts=tuple(
            Part(
                name if role == "model" else f"{name}.{role}",
                tuple(map(_tensor, specs.inputs)),
                tuple(map(_tensor, specs.outputs)),
            )
            for role, specs in opened.parts.items()
        ),
    )


def _tensor(spec: TensorSpec) -> Tensor:
    return Tensor(spec.name, datatype_of(spec.dtype), tuple(spec.shape))


def _headers(text: str) -> dict[str, str]:
    """What the page may do: run its own script, which is named by its digest, and ask this server
    alone."""
    allowed = {
        "default-src": "'none'",
        "script-src": _digest(text, "script"),
        "style-src": _digest(text, "style"),
        "img-src": "blob: data:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {what}" for name, what in allowed.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def _digest(text: str, tag: str) -> str:
    """The only element of a tag, as a Content-Security-Policy names it."""
    (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
