"""Pictures, sounds and texts in, answers as JSON out: POST /v1/models/NAME:predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rkzoo.errors import RkzooError
from rkzoo.serving.app import Answer, admitted_body
from rkzoo.serving.calls import PredictOptions
from rkzoo.serving.engine import Engine
from rkzoo.serving.errors import ServingError, of_error
from rkzoo.serving.forms import content_type, read_form


def routes(engine: Engine) -> list[BaseRoute]:
    """The route."""

    async def predict(request: Request) -> Response:
        data, filename = await input_of(engine, request)
        options = options_of(request.query_params, filename)
        reply = await engine.predict(request.path_params["name"], data, options)
        return Answer(engine, reply)

    async def told(request: Request) -> Response:
        raise ServingError(405, "This is asked with POST, and the bytes of a file as the body.")

    path = "/v1/models/{name}:predict"
    # By itself, since /v1/models/{name} would answer to GET.
    return [Route(path, predict, methods=["POST"]), Route(path, told, methods=["GET"])]


async def input_of(engine: Engine, request: Request) -> tuple[bytes, str]:
    """The input of a request and its name: the field `file` of a form, `text` of JSON, or the
    body itself. Raises ServingError."""
    kind = content_type(request)
    if kind == "multipart/form-data":
        form = await read_form(engine, request)
        return form.data, form.filename
    data = await admitted_body(engine, request)
    if kind == "application/json":
        try:
            text = msgspec.json.decode(data, type=_Text).text
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ServingError(
                400, f'The body is no JSON of the form {{"text": ...}}: {error}'
            ) from error
        return text.encode(), ""
    if not data:
        raise ServingError(400, "The body is empty: send the bytes of a picture, sound or text.")
    return data, ""


class _Text(msgspec.Struct, frozen=True):
    text: str


def options_of(query: Mapping[str, str], filename: str) -> PredictOptions:
    """What is wanted of the answer, from the query of a URL. Raises ServingError (400)."""
    fields: dict[str, Any] = {"filename": filename[:200]}
    for name, text in query.items():
        read = _READERS.get(name)
        if read is None:
            known = ", ".join(_READERS)
            raise ServingError(400, f"There is no option {name[:40]!r}; there are {known}.")
        try:
            fields[name] = read(text)
        except ValueError:
            raise ServingError(400, f"{name}={text[:80]} cannot be read.") from None
    try:
        return PredictOptions(**fields)
    except RkzooError as error:
        raise of_error(error) from error


def _flag(text: str) -> bool:
    if text.lower() not in ("0", "1", "true", "false"):
        raise ValueError(text)
    return text.lower() in ("1", "true")


def _number(text: str) -> float:
    """Neither NaN nor infinity, which JSON does not have either."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _format(text: str) -> str:
    return text if text == "json" else f".{text.lstrip('.').lower()}"


def _names(text: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdecimal() else part for part in text.split(",") if part)


def _groups(text: str) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(_number, part.split(","))) for part in text.split(";") if part)


_READERS: dict[str, Callable[[str], Any]] = {
    "format": _format,
    "filename": str,
    "confidence": _number,
    "iou": _number,
    "max_boxes": int,
    "classes": _names,
    "language": str,
    "translate": _flag,
    "speed": _number,
    "points": _groups,
    "boxes": _groups,
}
