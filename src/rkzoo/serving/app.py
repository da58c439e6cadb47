"""The server as a Starlette application: its routes, who may ask, and errors as JSON."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from rkzoo.protocol.board import Problem
from rkzoo.serving.engine import Engine, Reply
from rkzoo.serving.errors import ServingError
from rkzoo.serving.http_limits import declared_size, read_body

Handler = Callable[[Request], Awaitable[Response]]

_PIECE = 256 << 10  # bytes of an answer that are handed to the system at once


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: What has to be sent as `Authorization: Bearer TOKEN`; empty for none.
        local: The server listens on the loopback alone: a page of another site that the user's
            browser shows must not reach it, so names of other machines are refused.
        open_paths: Paths that need no token: whether the server is alive is no secret.
    """

    token: str = ""
    local: bool = True
    open_paths: tuple[str, ...] = ("/v2/health/live", "/v2/health/ready")


def application(routes: Sequence[BaseRoute], access: Access) -> ASGIApp:
    """The application.

    Args:
        routes: What it answers.
        access: Who may ask.
    """
    app = Starlette(
        routes=list(routes),
        exception_handlers={
            ServingError: _refused,
            HTTPException: _http_error,
            Exception: _fault,
        },
    )
    return _Guard(app, access)


class _Guard:
    """Refuses who may not ask, before anything is read."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access
        self._token = f"Bearer {access.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            error = self._refuses(scope)
            if error is not None:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refuses(self, scope: Scope) -> ServingError | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._access.local and not _is_local(host):
            return ServingError(403, f"This server answers to localhost, not to {host[:80]!r}.")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
            return ServingError(403, "Pages of other sites may not ask this server.")
        if not self._access.token or scope["path"] in self._access.open_paths:
            return None
        given = headers.get(b"authorization", b"")
        if hmac.compare_digest(given, self._token):
            return None
        return ServingError(401, "This server asks for a token: Authorization: Bearer TOKEN.")


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine: a loopback address, localhost, or nothing (over
    a socket of the file system)."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.strip("[]").lower()
    if name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def error_response(error: ServingError) -> Response:
    """An error as JSON: `error` in one line as the Open Inference Protocol has it, and its
    parts."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    problem = msgspec.structs.replace(error.problem, error=error.message)
    return Response(
        msgspec.json.encode(problem), error.status, headers, media_type="application/json"
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {404: f"There is nothing at {request.url.path[:200]}."}
    message = told.get(error.status_code, f"{error.detail}.")
    response = error_response(ServingError(error.status_code, message))
    response.headers.update(dict(error.headers or {}))
    return response


async def _fault(request: Request, error: Exception) -> Response:
    problem = Problem(f"A fault of the server's own: {type(error).__name__}.", code=1)
    return JSONResponse(msgspec.to_builtins(problem), 500)


class Answer(Response):
    """An engine's reply. Its bytes count as held until the client has taken them, so that those
    who read slowly cannot fill the memory."""

    def __init__(self, engine: Engine, reply: Reply, headers: Mapping[str, str] | None = None):
        super().__init__(reply.body, headers=headers, media_type=reply.media_type)
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = memoryview(self.body)
        start = {"type": "http.response.start", "status": self.status_code}
        with self._engine.holding(len(body)):
            await send(start | {"headers": self.raw_headers})
            for place in range(0, max(1, len(body)), _PIECE):
                more = place + _PIECE < len(body)
                piece = body[place : place + _PIECE]
                await send({"type": "http.response.body", "body": piece, "more_body": more})


async def admitted_body(engine: Engine, request: Request) -> bytes:
    """The body of a request for a model, for which there is room. Raises ServingError."""
    with engine.admit(declared_size(request)):
        return await read_body(request)
