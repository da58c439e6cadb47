"""The Open Inference Protocol v2 over gRPC, with Triton's model repository and stream.

Source: https://github.com/kserve/open-inference-protocol (inference_grpc.md) and
https://github.com/triton-inference-server/server (extension_model_repository.md). Each request
becomes the body that HTTP would have brought, so both are answered alike.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from rkzoo.errors import RkzooError
from rkzoo.protocol.tensors import (
    DATATYPES,
    Body,
    Tensor,
    datatype_of,
    decode_response,
    encode_request,
    from_bytes,
    response_version,
)
from rkzoo.serving.engine import Engine, Event
from rkzoo.serving.errors import ServingError, of_error
from rkzoo.serving.grpc_messages import CHOICE, MESSAGES, PACKAGE
from rkzoo.serving.http_limits import MOST_BODY
from rkzoo.serving.oip import (
    EXTENSIONS,
    metadata,
    named,
    owner,
    refuse_parameters,
    repository_index,
    timeout_of,
)
from rkzoo.serving.run import Settings
from rkzoo.serving.trace import TRACE, Trace, request_id
from rkzoo.session import Array

SERVICE = f"{PACKAGE}.GRPCInferenceService"

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""gRPC's code for the status of a ServingError; INTERNAL for every other."""

_OPEN = (f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady")  # as HTTP: they need no token
_MOST_CALLS = 128  # at once; each may hold a message of MOST_BODY before the queue counts it
_MOST_MESSAGE = 1000  # characters of an error, which goes out as a header
_GRACE = 25.0

_OPTIONS = (
    ("grpc.max_receive_message_length", MOST_BODY),
    # Nothing is unpacked here: it may grow a thousandfold, and tensors hardly shrink.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.so_reuseport", 0),  # a port that is taken is an error
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

_CONTENTS = {
    "BOOL": ("bool_contents", "bool"),
    "INT8": ("int_contents", "int32"),
    "INT16": ("int_contents", "int32"),
    "INT32": ("int_contents", "int32"),
    "INT64": ("int64_contents", "int64"),
    "UINT8": ("uint_contents", "uint32"),
    "UINT16": ("uint_contents", "uint32"),
    "UINT32": ("uint_contents", "uint32"),
    "UINT64": ("uint64_contents", "uint64"),
    "FP32": ("fp32_contents", "float32"),
    "FP64": ("fp64_contents", "float64"),
}
"""Where the values of a datatype stand in InferTensorContents, and as what; FP16 is raw always."""


class GrpcListener:
    """A server that listens at `port`."""

    def __init__(self, server: Any, port: int) -> None:
        self._server, self.port = server, port

    async def close(self) -> None:
        """Takes no more calls, and answers those that it took."""
        await self._server.stop(_GRACE)


async def serve(engine: Engine, settings: Settings, port: int) -> GrpcListener:
    """Listens for clients of the protocol.

    Args:
        engine: The models.
        settings: Host, token and TLS files.
        port: Port; 0 takes a free one.

    Raises:
        RkzooError: The address cannot be used.
    """
    server = grpc.aio.server(
        interceptors=[_Guard(engine, settings.token)] if settings.token else [],
        options=_OPTIONS,
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    server.add_generic_rpc_handlers((_handlers(engine),))
    address = f"{settings.host_in_url}:{port}"
    try:
        bound = _bind(server, settings, address) if 0 <= port <= 65535 else 0
    except RuntimeError:  # which tells no more
        bound = 0
    if not bound:
        raise RkzooError(
            f"The gRPC server cannot listen at {address}.",
            "Another program listens there, or it is no port or address of this machine.",
            "Choose another port with --grpc (0 takes a free one).",
        )
    await server.start()
    return GrpcListener(server, bound)


def _bind(server: Any, settings: Settings, address: str) -> int:
    """Binds the server, and gives its port. Raises RuntimeError."""
    if settings.certificate is None or settings.key is None:
        return int(server.add_insecure_port(address))
    pair = (settings.key.read_bytes(), settings.certificate.read_bytes())
    return int(server.add_secure_port(address, grpc.ssl_server_credentials([pair])))


class _Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Refuses who has no token, before a message is read. Browsers need no further rule, as they
    do with HTTP: no page can make them send gRPC."""

    def __init__(self, engine: Engine, token: str) -> None:
        self._engine, self._token = engine, f"Bearer {token}".encode()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        given = dict(details.invocation_metadata).get("authorization", "")
        if details.method in _OPEN or hmac.compare_digest(str(given).encode(), self._token):
            return await continuation(details)
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, requests: Any, context: Any) -> None:
        _trace(context)
        message = "This server asks for a token, as metadata: authorization: Bearer TOKEN."
        self._engine.tell(Event("", "grpc", 401, message=message))
        await _abort(context, ServingError(401, message))


def _trace(context: Any, id: str = "") -> Trace:
    """Makes known where the request of this task comes from: ipv4:ADDRESS:PORT, or ipv6 with
    brackets that are escaped."""
    peer = unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
    trace = Trace(request_id(id), peer[:64])
    TRACE.set(trace)
    return trace


async def _abort(context: Any, error: ServingError) -> None:
    """Ends a call with an error. When to ask again stands in words, and as gRPC's own clients
    take it."""
    message = error.message[:_MOST_MESSAGE]
    trailing: tuple[tuple[str, str], ...] = ()
    if error.retry_after is not None:
        seconds = max(1, round(error.retry_after))
        message += f" Ask again in {seconds} s."
        trailing = (("grpc-retry-pushback-ms", str(1000 * seconds)),)
    await context.abort(CODES.get(error.status, grpc.StatusCode.INTERNAL), message, trailing)


# ---- methods ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A request, and how many seconds the client still waits for its answer."""

    message: Any
    seconds: float | None


async def _live(engine: Engine, call: Call) -> dict[str, Any]:
    return {"live": True}


async def _ready(engine: Engine, call: Call) -> dict[str, Any]:
    return {"ready": engine.ready}


async def _server(engine: Engine, call: Call) -> dict[str, Any]:
    return {"name": "rkzoo", "version": version("rkzoo"), "extensions": EXTENSIONS}


async def _model_ready(engine: Engine, call: Call) -> dict[str, Any]:
    name = named(engine, call.message.name, call.message.version)
    return {"ready": engine.status(owner(engine, name)).state == "ready"}


async def _model(engine: Engine, call: Call) -> dict[str, Any]:
    told = metadata(engine, named(engine, call.message.name, call.message.version))
    told.pop("parameters", None)  # parts of a pipeline, for which gRPC has no field
    return told


async def _index(engine: Engine, call: Call) -> dict[str, Any]:
    return {"models": repository_index(engine, ready=call.message.ready)}


async def _load(engine: Engine, call: Call) -> dict[str, Any]:
    refuse_parameters(call.message.parameters)
    await engine.load(call.message.model_name)
    return {}


async def _unload(engine: Engine, call: Call) -> dict[str, Any]:
    await engine.unload(call.message.model_name)
    return {}


async def _infer(engine: Engine, call: Call) -> dict[str, Any]:
    message = call.message
    name = named(engine, message.model_name, message.model_version)
    parameters = _values(message.parameters)
    waits = [wait for wait in (call.seconds, timeout_of(parameters)) if wait is not None]
    body = await asyncio.to_thread(_body_of, message, parameters)
    answer = {"model_name": name, "id": message.id}
    message.Clear()  # gRPC keeps it until the answer, and the body has it all
    timeout = max(min(waits), 1e-3) if waits else None
    reply = await engine.infer(name, body.data, body.header_size, timeout=timeout)
    return answer | await asyncio.to_thread(_answer_of, Body(reply.body, reply.header_size))


Method = Callable[[Engine, Call], Awaitable[dict[str, Any]]]

METHODS: dict[str, Method] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ServerMetadata": _server,
    "ModelReady": _model_ready,
    "ModelMetadata": _model,
    "ModelInfer": _infer,
    "RepositoryIndex": _index,
    "RepositoryModelLoad": _load,
    "RepositoryModelUnload": _unload,
}
"""What answers each method: with the fields of NAMEResponse to a NAMERequest."""


def _handlers(engine: Engine) -> Any:
    table = {
        name: grpc.unary_unary_rpc_method_handler(
            _unary(engine, method, MESSAGES[f"{name}Response"]),
            _reader(f"{name}Request"),
            MESSAGES[f"{name}Response"].SerializeToString,
        )
        for name, method in METHODS.items()
    }
    table["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        _stream(engine),
        _reader("ModelInferRequest"),
        MESSAGES["ModelStreamInferResponse"].SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE, table)


def _reader(name: str) -> Callable[[bytes], Any]:
    """Gives the message, or the error: gRPC would print one that is raised."""

    def read(data: bytes) -> Any:
        try:
            return MESSAGES[name].FromString(data)
        except DecodeError as error:
            return error

    return read


def _unary(
    engine: Engine, method: Method, response: type[Any]
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def handle(request: Any, context: Any) -> Any:
        try:
            return response(**await _told(engine, method, request, context))
        except ServingError as error:
            await _abort(context, error)

    return handle


def _stream(engine: Engine) -> Callable[[Any, Any], AsyncIterator[Any]]:
    """Requests of one stream are answered in their order; an error costs its own request only."""
    response = MESSAGES["ModelStreamInferResponse"]

    async def handle(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            id = getattr(request, "id", "")
            try:
                told = await _told(engine, _infer, request, context)
                yield response(infer_response=MESSAGES["ModelInferResponse"](**told))
            except ServingError as error:
                answer = MESSAGES["ModelInferResponse"](id=id)
                yield response(error_message=error.message, infer_response=answer)

    return handle


async def _told(engine: Engine, method: Method, request: Any, context: Any) -> dict[str, Any]:
    """What a method answers. Raises ServingError alone, and tells of those that were refused
    before they reached a model."""
    trace = _trace(context, getattr(request, "id", ""))
    try:
        if isinstance(request, DecodeError):
            raise ServingError(400, "The bytes are no message of this method.")
        return await method(engine, Call(request, context.time_remaining()))
    except Exception as exception:
        error = _serving_error(exception)
        if not trace.told:
            engine.tell(Event("", "grpc", error.status, message=error.message[:_MOST_MESSAGE]))
        raise error from exception


def _serving_error(exception: Exception) -> ServingError:
    if isinstance(exception, ServingError):
        return exception
    if isinstance(exception, RkzooError):
        return of_error(exception)
    return ServingError(500, f"A fault of the server's own: {type(exception).__name__}.")


# ---- messages and bodies ------------------------------------------------------------------


def _values(parameters: Any) -> dict[str, Any]:
    """Parameters of a message as plain values."""
    chosen = {name: value.WhichOneof(CHOICE) for name, value in parameters.items()}
    return {name: getattr(parameters[name], field) for name, field in chosen.items() if field}


def _body_of(message: Any, parameters: dict[str, Any]) -> Body:
    """A request as HTTP has it. Raises RkzooError."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise _wrong(f"It has {len(message.inputs)} inputs, and raw contents of {len(raw)}.")
    arrays: dict[str, Array] = {}
    for index, given in enumerate(message.inputs):
        if given.name in arrays:
            raise _wrong(f"The input {given.name!r} comes twice.")
        if raw and given.HasField("contents"):
            raise _wrong(f"{given.name!r} has contents, and raw contents.")
        tensor = Tensor(given.name, tuple(given.shape), given.datatype)
        arrays[given.name] = from_bytes(tensor, raw[index] if raw else _typed_bytes(given))
    outputs = [output.name for output in message.outputs]
    return encode_request(arrays, outputs=outputs, parameters=parameters, id=message.id)


def _typed_bytes(given: Any) -> bytes:
    """The values of an input's contents as bytes of its datatype. Raises RkzooError."""
    if given.datatype not in _CONTENTS:
        known = ", ".join(_CONTENTS)
        raise _wrong(f"{given.name!r} is {given.datatype!r} without raw contents; so go {known}.")
    field, kind = _CONTENTS[given.datatype]
    values = getattr(given.contents, field)
    array = np.fromiter(values, kind, len(values))
    wanted = array.astype(DATATYPES[given.datatype])
    if wanted.dtype != array.dtype and not np.array_equal(wanted, array):
        raise _wrong(f"{given.name!r} has values that are no {given.datatype}.")
    return wanted.tobytes()


def _answer_of(body: Body) -> dict[str, Any]:
    """The fields of ModelInferResponse. Contents are raw, as Triton's are, whose client reads no
    others."""
    arrays = decode_response(body)
    return {
        "model_version": response_version(body),
        "outputs": [
            {"name": name, "datatype": datatype_of(str(array.dtype)), "shape": array.shape}
            for name, array in arrays.items()
        ],
        "raw_output_contents": [array.tobytes() for array in arrays.values()],
    }


def _wrong(why: str) -> RkzooError:
    return RkzooError(
        "The request cannot be read.", why, "ModelMetadata tells what the model takes."
    )
