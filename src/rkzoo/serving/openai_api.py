"""OpenAI's API for what is served: speech to text, text to speech, and embeddings.

`model` is a name that is served, or one of OpenAI's names (ALIASES) where one model alone does what
that is for. What a model here cannot do is refused in a sentence, not left out silently.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rkzoo.serving.app import Answer, ErrorForm, admitted_body
from rkzoo.serving.calls import Embedded, Item, PredictOptions
from rkzoo.serving.engine import Engine, Reply
from rkzoo.serving.errors import ServingError
from rkzoo.serving.forms import read_form

ALIASES: dict[str, tuple[str, ...]] = {
    "speech": ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"),
    "voice": ("tts-1", "tts-1-hd", "gpt-4o-mini-tts"),
    "embed": ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"),
}
"""OpenAI's names of models, by the task that does the same."""

_DOES = {
    "speech": "transcribes no speech",
    "voice": "speaks no text",
    "embed": "makes no embeddings",
}
_MOST_INPUTS = 2048  # of a request for embeddings, as OpenAI has it
_MOST_TEXT = 4 << 20  # characters of all of them: more than their tokens may be
_PICTURE = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII)


class ApiError(ServingError):
    """An error that names a parameter or has a code of OpenAI's."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(status, message)
        self.param, self.code = param, code


def routes(engine: Engine) -> list[BaseRoute]:
    """The routes."""
    began = int(time.time())

    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": began, "owned_by": "rkzoo"}

    async def models(request: Request) -> Response:
        return _json({"object": "list", "data": [described(name) for name in _named(engine)]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _named(engine):
            raise _unknown_model(engine, name, _named(engine))
        return _json(described(name))

    async def transcriptions(request: Request) -> Response:
        return await _transcribed(engine, request, translate=False)

    async def translations(request: Request) -> Response:
        return await _transcribed(engine, request, translate=True)

    async def speech(request: Request) -> Response:
        return await _spoken(engine, request)

    async def embeddings(request: Request) -> Response:
        return await _embedded(engine, request)

    return [
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name}", model, methods=["GET"]),
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        Route("/v1/audio/translations", translations, methods=["POST"]),
        Route("/v1/audio/speech", speech, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
    ]


# ---- errors -------------------------------------------------------------------------------


def error_form(path: str) -> ErrorForm | None:
    """How errors are told at a path: as OpenAI does at its own, None elsewhere."""
    ours = path == "/v1/models" or path.startswith(("/v1/models/", "/v1/audio/", "/v1/embeddings"))
    return error_response if ours and not path.endswith(":predict") else None


def error_response(error: ServingError) -> Response:
    """An error in OpenAI's form."""
    told = {
        "message": error.message,
        "type": "server_error" if error.status >= 500 else "invalid_request_error",
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None) or _CODES.get(error.status),
    }
    response = _json({"error": told}, error.status)
    if error.status in (500, 502, 504):
        # OpenAI's clients send again what failed, by themselves: it would fail or end a worker
        # again, or take as long.
        response.headers["x-should-retry"] = "false"
    return response


_CODES = {401: "invalid_api_key", 413: "request_too_large", 503: "server_overloaded"}


# ---- which model --------------------------------------------------------------------------


def _named(engine: Engine) -> list[str]:
    """Names of the models of the command line; what a board's client opened is its own."""
    return [name for name in engine.names() if engine.status(name).path]


def model_for(engine: Engine, asked: str, task: str) -> str:
    """The served model that a request means.

    Args:
        engine: The models.
        asked: What it calls the model.
        task: What it is asked for, a key of ALIASES.

    Raises:
        ServingError: 404 there is none, or not one alone; 400 it is for something else; 503 the
            models are not loaded yet.
    """
    if asked in _named(engine):
        opened = engine.status(asked).opened
        if opened is not None and opened.task != task:
            raise ApiError(400, f"{asked} {_DOES[task]}.", "model")
        return asked
    able = _able(engine, task)
    if asked not in ALIASES[task]:
        raise _unknown_model(engine, asked, able)
    if not able and any(engine.status(name).state == "loading" for name in _named(engine)):
        raise ServingError(503, "The models are being loaded.", 2.0)
    if len(able) != 1:
        raise _unknown_model(engine, asked, able)
    return able[0]


def _able(engine: Engine, task: str) -> list[str]:
    opened = {name: engine.status(name).opened for name in _named(engine)}
    return [name for name, model in opened.items() if model is not None and model.task == task]


def _unknown_model(engine: Engine, asked: str, able: Sequence[str]) -> ApiError:
    served = ", ".join(able) or f"none for this, only {', '.join(_named(engine)) or 'nothing'}"
    message = f"There is no model {asked[:80]!r}; served are {served}."
    return ApiError(404, message, "model", "model_not_found")


# ---- speech to text -----------------------------------------------------------------------

_FORMATS = {"json": ".json", "verbose_json": ".json", "text": ".txt", "srt": ".srt", "vtt": ".vtt"}

# What a parameter may be, and what is said of everything else.
_Only = Mapping[str, tuple[Callable[[str], bool], str]]
_FIXED: _Only = {
    "prompt": (lambda text: not text, "No model here is led by a prompt: leave it out."),
    "response_format": (_FORMATS.__contains__, f"response_format is one of {', '.join(_FORMATS)}."),
    "temperature": (
        lambda text: _number(text) == 0,
        "The temperature is 0, and rises by itself where the text becomes improbable.",
    ),
    "stream": (lambda text: text.lower() == "false", "Transcripts come in one piece."),
    "timestamp_granularities[]": (
        lambda text: text == "segment",
        "Times are known of segments, not of words.",
    ),
    "chunking_strategy": (
        lambda text: text == "auto",
        "Long sounds are cut at pauses: leave it out.",
    ),
}
_FREE = ("model", "language")


def _check(only: _Only, name: str, value: str) -> None:
    """Raises ApiError for a parameter that cannot be heeded."""
    fits, why = only[name]
    if not fits(value):
        raise ApiError(400, why, name)


async def _transcribed(engine: Engine, request: Request, *, translate: bool) -> Response:
    form = await read_form(engine, request)
    fields = _checked_fields(form.fields)
    wanted = fields.get("response_format", "json")
    name = model_for(engine, fields["model"], "speech")
    options = PredictOptions(
        format=_FORMATS[wanted],
        filename=form.filename,
        language=fields.get("language") or None,
        translate=translate,
    )
    reply = await engine.predict(name, form.data, options)
    if _FORMATS[wanted] != ".json":
        return Answer(engine, reply)
    document = msgspec.json.decode(reply.body)
    if wanted == "json":
        return _json({"text": document["text"]})
    return _json(_verbose(document, reply, translate))


def _checked_fields(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The fields of a form by name. Raises ApiError for one that cannot be heeded."""
    for name, text in given:
        if name in _FIXED:
            _check(_FIXED, name, text)
        elif name not in _FREE:
            raise ApiError(400, f"There is no parameter {name[:80]!r} here.", name[:80])
    if "model" not in dict(given):
        raise ApiError(400, "The form has no field `model`.", "model")
    return dict(given)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _verbose(document: Mapping[str, Any], reply: Reply, translate: bool) -> dict[str, Any]:
    """OpenAI's `verbose_json`. Languages are codes (en), where OpenAI has names; tokens and
    probabilities of segments are told where the model is a Whisper."""
    segments = enumerate(document["segments"])
    return {
        "task": "translate" if translate else "transcribe",
        "language": "en" if translate else document["language"],
        "duration": reply.duration,
        "text": document["text"],
        "segments": [{"id": number, **segment} for number, segment in segments],
    }


# ---- text to speech -----------------------------------------------------------------------


class _SpeechRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: str
    input: str
    voice: Any = None
    response_format: str = "mp3"
    speed: float = 1.0
    instructions: str = ""
    stream_format: str = "audio"


_SOUNDS = ("mp3", "opus", "flac", "wav", "pcm")
_SPOKEN: _Only = {
    "response_format": (_SOUNDS.__contains__, f"response_format is one of {', '.join(_SOUNDS)}."),
    "instructions": (lambda text: not text, "No voice here takes instructions: leave them out."),
    "stream_format": (lambda text: text == "audio", "A sound comes as it is: leave it out."),
}


async def _spoken(engine: Engine, request: Request) -> Response:
    asked = _decoded(await admitted_body(engine, request), _SpeechRequest)
    for parameter in _SPOKEN:
        _check(_SPOKEN, parameter, getattr(asked, parameter))
    # A model here has one voice: `voice` chooses among models, where it names one.
    voices = _able(engine, "voice")
    by_voice = asked.model in ALIASES["voice"] and asked.voice in voices
    name = asked.voice if by_voice else model_for(engine, asked.model, "voice")
    options = PredictOptions(format=f".{asked.response_format}", speed=asked.speed)
    reply = await engine.predict(name, asked.input.encode(), options)
    return Answer(engine, reply)


# ---- embeddings ---------------------------------------------------------------------------


class _EmbeddingsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str = ""


async def _embedded(engine: Engine, request: Request) -> Response:
    asked = _decoded(await admitted_body(engine, request), _EmbeddingsRequest)
    name = model_for(engine, asked.model, "embed")
    items = _items(asked.input)
    told, buffers = await engine.ask(name, "embed", None, msgspec.msgpack.encode(items))
    embedded = msgspec.json.decode(told, type=Embedded)
    if asked.dimensions not in (None, embedded.width):
        raise ApiError(
            400, f"{name} gives {embedded.width} numbers, no fewer and no more.", "dimensions"
        )
    rows = bytes(buffers[0])
    size = len(rows) // len(items)
    write = _ENCODINGS[asked.encoding_format]
    data = [
        {"object": "embedding", "index": at, "embedding": write(rows[at * size : (at + 1) * size])}
        for at in range(len(items))
    ]
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    return _json({"object": "list", "data": data, "model": name, "usage": usage})


# From float32 as bytes, in the order of nearly every machine.
_ENCODINGS: dict[str, Callable[[bytes], Any]] = {
    "float": lambda row: memoryview(row).cast("f").tolist(),
    "base64": lambda row: base64.b64encode(row).decode("ascii"),
}


def _items(given: str | list[Any]) -> list[Item]:
    """Texts, and the pictures that are there as data: URLs. Raises ApiError."""
    texts = [given] if isinstance(given, str) else given
    if not 0 < len(texts) <= _MOST_INPUTS:
        raise ApiError(400, f"input has 1 to {_MOST_INPUTS} texts.", "input")
    kinds = chain.from_iterable(text if isinstance(text, list) else [text] for text in texts)
    if any(isinstance(value, int) for value in kinds):
        raise ApiError(400, "Tokens are of OpenAI's models: send texts.", "input")
    if not all(isinstance(text, str) and text for text in texts):
        raise ApiError(400, "input is a text or a list of texts, none of them empty.", "input")
    items = [_item(text) for text in texts]
    if sum(len(item) for item in items if isinstance(item, str)) > _MOST_TEXT:
        raise ApiError(400, "The texts are too long: send fewer at once.", "input")
    return items


def _item(text: str) -> Item:
    head = _PICTURE.match(text)
    if head is None:
        return text
    try:
        return base64.b64decode(text[head.end() :], validate=True)
    except binascii.Error:
        raise ApiError(400, "A data: URL holds no base64.", "input") from None


# ---- JSON ---------------------------------------------------------------------------------

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_AT = re.compile(r" - at `\$\.(\w+)|unknown field `(\w{1,80})`|missing required field `(\w+)`")


def _decoded(body: bytes, kind: type[_Struct]) -> _Struct:
    """A body of JSON. Raises ApiError that names the parameter which is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        found = _AT.search(str(error))
        param = next(filter(None, found.groups())) if found else None
        raise ApiError(400, f"The body cannot be read: {str(error)[:300]}.", param) from error


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
