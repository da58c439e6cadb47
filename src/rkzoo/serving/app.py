"""The server as a Starlette application: its routes, who may ask, and errors as JSON."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rkzoo.protocol.board import Problem
from rkzoo.serving.engine import Engine, Event, Reply
from rkzoo.serving.errors import ServingError
from rkzoo.serving.http_limits import MOST_BODY, declared_size, read_body
from rkzoo.serving.trace import TRACE, Trace

ErrorForm = Callable[[ServingError], Response]

_PIECE = 1024 << 10  # bytes of an answer that are handed to the system at once


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: What has to be sent as `Authorization: Bearer TOKEN`; empty for none.
        local: The server listens on the loopback alone: a page of another site that the user's
            browser shows must not reach it, so names of other machines are refused.
        open_paths: Paths that need no token: whether the server is alive is no secret, nor is the
            page, which asks for the token.
    """

    token: str = ""
    local: bool = True
    open_paths: tuple[str, ...] = ("/", "/v2/health/live", "/v2/health/ready")


def application(
    routes: Sequence[BaseRoute],
    access: Access,
    form_at: Callable[[str], ErrorForm | None] = lambda path: None,
) -> ASGIApp:
    """The application.

    Args:
        routes: What it answers.
        access: Who may ask.
        form_at: How errors are told at a path; None is as the Open Inference Protocol has it.
    """

    def told(path: str, error: ServingError) -> Response:
        response = (form_at(path) or error_response)(error)
        if error.retry_after is not None:
            response.headers["retry-after"] = str(max(1, round(error.retry_after)))
        if error.status == 401:
            response.headers["www-authenticate"] = "Bearer"
        return response

    async def on_error(request: Request, exception: Exception) -> Response:
        path = request.url.path
        response = told(path, _serving_error(exception, path))
        if isinstance(exception, HTTPException):
            response.headers.update(dict(exception.headers or {}))
        return response

    kinds = (ServingError, HTTPException, Exception)
    app = Starlette(routes=list(routes), exception_handlers=dict.fromkeys(kinds, on_error))
    return _Guard(app, access, told)


_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=-]{1,128}")


class Traced:
    """Knows a request by its X-Request-ID, which is repeated in the answer, and tells of those
    that were refused before they reached a model.

    Args:
        app: What answers.
        tell: Is told.
    """

    def __init__(self, app: ASGIApp, tell: Callable[[Event], None]) -> None:
        self._app, self._tell = app, tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        trace = Trace(request, str((scope.get("client") or [""])[0])[:64])
        TRACE.set(trace)  # of this task, which ends with the request
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                fields = [*message.get("headers", ()), (b"x-request-id", request.encode())]
                message = {**message, "headers": fields}
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            path: str = scope["path"]
            # That a model is not ready yet is an answer.
            if status >= 400 and not trace.told and not path.endswith("/ready"):
                self._tell(Event("", "http", status, message=f"{scope['method']} {path[:200]}"))


class _Guard:
    """Refuses who may not ask, before anything is read."""

    def __init__(
        self, app: ASGIApp, access: Access, told: Callable[[str, ServingError], Response]
    ) -> None:
        self._app, self._access, self._told = app, access, told
        self._token = f"Bearer {access.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            error = self._refuses(scope)
            if error is not None:
                await self._told(scope["path"], error)(scope, receive, send)
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
    """Whether a Host header names this machine: a loopback address, localhost, or nothing."""
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
    problem = msgspec.structs.replace(error.problem, error=error.message)
    return Response(msgspec.json.encode(problem), error.status, media_type="application/json")


def _serving_error(exception: Exception, path: str) -> ServingError:
    if isinstance(exception, ServingError):
        return exception
    if isinstance(exception, HTTPException):
        told = {404: f"There is nothing at {path[:200]}."}
        code = exception.status_code
        return ServingError(code, told.get(code, f"{exception.detail}."))
    message = f"A fault of the server's own: {type(exception).__name__}."
    return ServingError(500, message, problem=Problem(message, code=1))


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
            for place in range(0, len(body), _PIECE):
                piece = body[place : place + _PIECE]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            # Which waits until the last piece is on its way, too.
            await send({"type": "http.response.body", "body": b""})


async def admitted_body(engine: Engine, request: Request) -> bytes:
    """The body of a request for a model, for which there is room. Raises ServingError."""
    # One that comes in chunks may be as large as any.
    size = declared_size(request) if "content-length" in request.headers else MOST_BODY
    with engine.admit(size):
        return await read_body(request)
