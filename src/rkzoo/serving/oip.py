"""The Open Inference Protocol v2 over HTTP, with binary tensors and Triton's model repository.

Source: https://github.com/kserve/open-inference-protocol (inference_rest.md) and
https://github.com/triton-inference-server/server (extension_model_repository.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.protocol.tensors import HEADER_LENGTH, Body, datatype_of, request_parameters
from rkzoo.serving.app import Answer, admitted_body
from rkzoo.serving.engine import Engine
from rkzoo.serving.errors import ServingError, of_error

EXTENSIONS = ("binary_tensor_data", "model_repository", "schedule_policy")
_TRITON_STATES = {"ready": "READY", "loading": "LOADING", "failed": "UNAVAILABLE"}


def routes(engine: Engine) -> list[BaseRoute]:
    """The protocol's routes."""

    async def server(request: Request) -> Response:
        told = {"name": "rkzoo", "version": version("rkzoo"), "extensions": EXTENSIONS}
        return JSONResponse(told)

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": engine.ready}, 200 if engine.ready else 503)

    async def model(request: Request) -> Response:
        return JSONResponse(metadata(engine, named(engine, **request.path_params)))

    async def model_ready(request: Request) -> Response:
        name = named(engine, **request.path_params)
        status = engine.status(owner(engine, name))
        is_ready = status.state == "ready"
        told = {"name": name, "ready": is_ready}
        return JSONResponse(told, 200 if is_ready else 503)

    async def infer(request: Request) -> Response:
        name = named(engine, **request.path_params)
        body = Body(await admitted_body(engine, request), header_size(request))
        try:
            timeout = timeout_of(request_parameters(body))
        except RkzooError as error:  # what cannot be read does not wait in a queue
            raise of_error(error) from error
        reply = await engine.infer(name, body.data, body.header_size, timeout=timeout)
        return Answer(engine, reply, Body(b"", reply.header_size).headers)

    async def index(request: Request) -> Response:
        asked = await _asked(engine, request)
        return JSONResponse(repository_index(engine, ready=asked.ready))

    async def load(request: Request) -> Response:
        refuse_parameters((await _asked(engine, request)).parameters)
        await engine.load(request.path_params["name"])
        return JSONResponse({})

    async def unload(request: Request) -> Response:
        await engine.unload(request.path_params["name"])
        return JSONResponse({})

    table: list[tuple[str, str, Any]] = [
        ("GET", "/v2", server),
        ("GET", "/v2/health/live", live),
        ("GET", "/v2/health/ready", ready),
        ("POST", "/v2/repository/index", index),
        ("POST", "/v2/repository/models/{name}/load", load),
        ("POST", "/v2/repository/models/{name}/unload", unload),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        table += [
            ("GET", path, model),
            ("GET", f"{path}/ready", model_ready),
            ("POST", f"{path}/infer", infer),
        ]
    return [Route(path, handler, methods=[method]) for method, path, handler in table]


def named(engine: Engine, name: str, version: str = "") -> str:
    """The model that a request names. Raises ServingError (404) for another version of it."""
    have = engine.status(owner(engine, name)).version
    if version not in ("", have):
        raise ServingError(404, f"{name} has the version {have}, not {version[:40]!r}.")
    return name


def owner(engine: Engine, name: str) -> str:
    """The model that NAME or NAME.ROLE belongs to. Raises ServingError (404)."""
    if name not in engine.names() and (model := name.rpartition(".")[0]) in engine.names():
        return model
    return name


def metadata(engine: Engine, name: str) -> dict[str, Any]:
    """A model's metadata as the protocol has them. Those of a pipeline name its parts."""
    status = engine.status(owner(engine, name))
    opened = status.opened
    about = {
        "name": name,
        "versions": [status.version],
        "platform": f"rkzoo_{opened.runtime}" if opened else "rkzoo",
    }
    if name in engine.names() and opened is not None and "model" not in opened.parts:
        parts = [f"{name}.{role}" for role in opened.parts]
        return about | {"inputs": [], "outputs": [], "parameters": {"parts": parts}}
    _, _, specs = engine.part(name)
    return about | described(specs.inputs, specs.outputs)


def described(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Inputs and outputs of one graph as the protocol has them."""
    return {
        "inputs": [_tensor(spec) for spec in inputs],
        "outputs": [_tensor(spec) for spec in outputs],
    }


class _Asked(msgspec.Struct, frozen=True):
    """What a call of the repository is told."""

    ready: bool = False
    parameters: dict[str, Any] = {}


async def _asked(engine: Engine, request: Request) -> _Asked:
    body = await admitted_body(engine, request)
    try:
        return msgspec.json.decode(body or b"{}", type=_Asked)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ServingError(400, f"The body cannot be read: {error}") from error


def refuse_parameters(parameters: Mapping[str, Any]) -> None:
    """Triton's clients can send another configuration, or the model. Raises ServingError (400)."""
    if parameters:
        raise ServingError(400, "A model is loaded from the server's own file, as it is.")


def repository_index(engine: Engine, *, ready: bool = False) -> list[dict[str, str]]:
    """The state of every model, or of those that are ready, as Triton's index has it."""
    rows = []
    for name in engine.names():
        status = engine.status(name)
        state = _TRITON_STATES.get(status.state, "UNAVAILABLE")
        reason = status.reason or ("unloaded" if status.state == "unloaded" else "")
        if state == "READY" or not ready:
            rows.append({"name": name, "version": status.version, "state": state, "reason": reason})
    return rows


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": datatype_of(spec.dtype),
        "shape": list(spec.shape),
    }


def header_size(request: Request) -> int | None:
    """The JSON part of a body with binary tensors. Raises ServingError."""
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 12:
        raise ServingError(400, f"{HEADER_LENGTH} is no number.")
    return int(text)


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Seconds that a client waits: Triton's parameter `timeout`, in microseconds. Raises
    ServingError."""
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 0:
        raise ServingError(400, "The parameter timeout is a number of microseconds.")
    return timeout / 1e6 or None
