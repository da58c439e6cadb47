"""The calls of protocol/board.py over HTTP. A session is a model of the Open Inference Protocol.

Whatever blocks runs in threads; the event loop waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from rkzoo.errors import RkzooError
from rkzoo.protocol import board as protocol
from rkzoo.protocol.board import LEASE_HEADER, OpenSession, SetClocks
from rkzoo.protocol.tensors import Body, request_parameters
from rkzoo.serving.app import admitted_body
from rkzoo.serving.board import MOST_WAITING, Board
from rkzoo.serving.calls import InferArguments, InferReply, RecordArguments, TimeArguments
from rkzoo.serving.engine import Engine
from rkzoo.serving.errors import ServingError, of_error, of_problem, problem_of
from rkzoo.serving.file_store import MOST_PIECE, NoRoom, WrongContent, WrongPlace, parse_range
from rkzoo.serving.http_limits import read_body
from rkzoo.serving.leases import Lease, NoLease
from rkzoo.serving.oip import described, header_size
from rkzoo.serving.worker_process import WorkerDied

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_THREADS = 32
_ENDS = 4
_MOST_JSON = 1 << 20
_LINES = "application/x-ndjson"

_STATUSES: dict[type[RkzooError], int] = {
    NoLease: 410,
    NoRoom: 507,
    WrongPlace: 409,
    WrongContent: 422,
    WorkerDied: 502,
}
"""Of errors whose status is not that of any other."""


class BoardApi:
    """The board's side of the calls.

    Args:
        board: What they are about.
        engine: Gives room for bodies.
    """

    def __init__(self, board: Board, engine: Engine) -> None:
        self.board, self._engine = board, engine
        self._threads = ThreadPoolExecutor(_THREADS, "board")
        # Apart, since what hangs in the others is ended by the end of its lease.
        self._ends = ThreadPoolExecutor(_ENDS, "lease-end")
        self._stopping = asyncio.Event()

    def routes(self) -> list[BaseRoute]:
        """The routes; they stand before those of the Open Inference Protocol."""
        session = f"{protocol.SESSIONS}/{{session}}"
        model = "/v2/models/session-{key}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", protocol.HELLO, self._hello),
            ("POST", protocol.LEASES, self._lease),
            ("GET", f"{protocol.FILES}/{{sha256}}", self._stored),
            ("PUT", f"{protocol.FILES}/{{sha256}}", self._put),
            ("POST", protocol.SESSIONS, self._open),
            ("DELETE", session, self._close),
            ("POST", f"{session}/time", self._time),
            ("POST", f"{session}/record", self._record),
            ("GET", f"{session}/layers", self._layers),
            ("GET", f"{session}/memory", self._memory),
            ("GET", protocol.DOCTOR, self._doctor),
            ("GET", protocol.CAPTURE, self._capture),
            ("GET", protocol.MACHINE, self._machine),
            ("POST", protocol.CLOCKS, self._clocks),
            ("GET", model, self._metadata),
            ("GET", f"{model}/ready", self._ready),
            ("POST", f"{model}/infer", self._infer),
        ]
        return [Route(path, _told(handler), methods=[method]) for method, path, handler in table]

    def stop(self) -> None:
        """Ends every lease; called in the event loop."""
        self._stopping.set()

    async def close(self) -> None:
        """Gives back what clients have, and waits for it."""
        self.stop()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._ends, self.board.close)
        for threads in (self._threads, self._ends):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(call, *arguments))

    async def _ask(
        self, name: str, kind: str, arguments: Any = None, data: Sequence[bytes] = ()
    ) -> tuple[msgspec.Raw, list[bytes]]:
        """As Board.call, in turn."""
        session = self.board.session(name)
        if session.waiting >= MOST_WAITING:
            raise ServingError(503, f"{MOST_WAITING} calls wait for {name}.", 1.0)
        session.waiting += 1
        try:
            async with session.turn:
                return await self._in_thread(self.board.call, name, kind, arguments, data)
        finally:
            session.waiting -= 1

    # ---- leases and files ---------------------------------------------------------------

    async def _lease(self, request: Request) -> Response:
        return _LeaseResponse(self.board.leases.begin(), self._stopping, self._end)

    def _end(self, lease: Lease) -> None:
        """Nobody waits for it: the client is gone."""
        try:
            self._ends.submit(self.board.leases.end, lease)
        except RuntimeError:
            self.board.leases.end(lease)  # the server stops, and its threads are gone

    async def _stored(self, request: Request) -> Response:
        return _json(await self._in_thread(self.board.files.state, _path(request, "sha256")))

    async def _put(self, request: Request) -> Response:
        data = await read_body(request, MOST_PIECE)
        piece = parse_range(request.headers.get("content-range", ""), len(data))
        append = self.board.files.append
        return _json(await self._in_thread(append, _path(request, "sha256"), piece, data))

    # ---- sessions -----------------------------------------------------------------------

    async def _open(self, request: Request) -> Response:
        asked = _decoded(await read_body(request, _MOST_JSON), OpenSession)
        lease = self.board.leases.of(_lease_of(request))
        async with lease.opening:
            return _json(await self._in_thread(self.board.open, lease.name, asked))

    async def _close(self, request: Request) -> Response:
        await self._in_thread(self.board.close_session, _path(request, "session"))
        return JSONResponse({})

    async def _infer(self, request: Request) -> Response:
        name = _session(request)
        self.board.session(name)
        body = await admitted_body(self._engine, request)
        asked = InferArguments((header_size(request),), name, "1")
        value, data = await self._ask(name, "infer", asked, [body])
        return _tensors(value, data)

    async def _time(self, request: Request) -> Response:
        body = Body(await admitted_body(self._engine, request), header_size(request))
        runs = request_parameters(body).get("runs", 1)
        if not isinstance(runs, int) or isinstance(runs, bool):
            raise ServingError(400, "The parameter runs is a whole number.")
        asked = TimeArguments(runs, body.header_size)
        name = _path(request, "session")
        value, _ = await self._ask(name, "time", asked, [body.data])
        return _raw(value)

    async def _record(self, request: Request) -> Response:
        name = _path(request, "session")
        self.board.session(name)
        body = await admitted_body(self._engine, request)
        asked = RecordArguments(request.query_params.get("name", ""))
        value, data = await self._ask(name, "record", asked, [body])
        return _tensors(value, data)

    async def _layers(self, request: Request) -> Response:
        name = _path(request, "session")
        value, _ = await self._ask(name, "layers")
        return _raw(value)

    async def _memory(self, request: Request) -> Response:
        return _json(await self._in_thread(self.board.memory, _path(request, "session")))

    async def _metadata(self, request: Request) -> Response:
        name = _session(request)
        opened = self.board.session(name).opened
        about = {"name": name, "versions": ["1"], "platform": "rkzoo_board"}
        return JSONResponse(about | described(opened.inputs, opened.outputs))

    async def _ready(self, request: Request) -> Response:
        name = _session(request)
        self.board.session(name)
        return JSONResponse({"name": name, "ready": True})

    # ---- the machine --------------------------------------------------------------------

    async def _hello(self, request: Request) -> Response:
        return _json(await self._in_thread(self.board.hello))

    async def _doctor(self, request: Request) -> Response:
        asked = request.query_params
        file, name = asked.get("file", ""), asked.get("name", "")
        return _raw(await self._in_thread(self.board.doctor, file, name))

    async def _capture(self, request: Request) -> Response:
        data = await self._in_thread(self.board.capture)
        return Response(data, media_type="application/x-tar")

    async def _machine(self, request: Request) -> Response:
        return _raw(await self._in_thread(self.board.machine))

    async def _clocks(self, request: Request) -> Response:
        asked = _decoded(await read_body(request, _MOST_JSON), SetClocks)
        return _json(await self._in_thread(self.board.set_clocks, _lease_of(request), asked))


class _LeaseResponse(Response):
    """Lines for as long as somebody reads them; with the last one the lease ends."""

    def __init__(self, lease: Lease, stopping: asyncio.Event, end: Callable[[Lease], None]) -> None:
        super().__init__(media_type=_LINES, headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._lease, self._stopping, self._end = lease, stopping, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ends = [
            asyncio.ensure_future(_gone(receive)),
            asyncio.ensure_future(self._stopping.wait()),
        ]
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            line = msgspec.json.encode(protocol.Lease(self._lease.name))
            done: set[asyncio.Future[Any]] = set()
            while not done:
                await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})
                line = b"{}"
                done, _ = await asyncio.wait(
                    ends, timeout=protocol.BEAT, return_when=asyncio.FIRST_COMPLETED
                )
            await send({"type": "http.response.body", "body": b""})
        except OSError:
            pass  # the client is gone
        finally:
            for end in ends:
                end.cancel()
            self._end(self._lease)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _told(handler: Handler) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """The handler, whose errors become what the server answers with."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except RkzooError as error:
            status = _STATUSES.get(type(error))
            if status is None:
                raise of_error(error) from error
            raise ServingError(status, str(error), problem=problem_of(error)) from error

    return answer


def _path(request: Request, name: str) -> str:
    return str(request.path_params[name])


def _session(request: Request) -> str:
    return f"session-{_path(request, 'key')}"


def _lease_of(request: Request) -> str:
    return request.headers.get(LEASE_HEADER, "")


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ServingError(400, f"The body is no {kind.__name__}: {error}.") from error


def _json(value: Any) -> Response:
    return _raw(msgspec.json.encode(value))


def _raw(data: bytes | msgspec.Raw) -> Response:
    return Response(bytes(data), media_type="application/json")


def _tensors(value: msgspec.Raw, data: list[bytes]) -> Response:
    """The answer of a slot to one request with tensors. Raises ServingError."""
    (reply,) = msgspec.json.decode(value, type=list[InferReply])
    if reply.error is not None:
        raise of_problem(msgspec.convert(reply.error, protocol.Problem))
    return Response(bytes(data[0]), headers=Body(b"", reply.header_size).headers)
