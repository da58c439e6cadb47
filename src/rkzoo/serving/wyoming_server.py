"""Home Assistant's Wyoming protocol: speech to text and text to speech of the served models.

Source: https://github.com/OHF-Voice/wyoming (README.md). An event is a line of JSON, then
`data_length` bytes of JSON, then `payload_length` bytes. The protocol has neither password nor
encryption, so this listens on the loopback unless told otherwise.
"""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.serving.calls import PredictOptions
from rkzoo.serving.errors import ServingError

try:
    from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.error import Error
    from wyoming.event import Event, async_write_event
    from wyoming.info import AsrModel, AsrProgram, Attribution, Info, TtsProgram, TtsVoice
    from wyoming.ping import Pong
    from wyoming.tts import SynthesizeStopped
except ImportError as error:
    raise RkzooError(
        "Wyoming cannot be spoken here.",
        f"The package wyoming is not installed ({error}).",
        'Install it with: pip install "rkzoo[wyoming]"',
    ) from error

if TYPE_CHECKING:
    from rkzoo.serving.engine import Engine, ModelStatus
    from rkzoo.serving.run import Settings

_PROGRAM = "rkzoo"
_SAMPLES = 2048  # in an audio-chunk
_POLL = 0.1  # seconds between two looks at what is being loaded


@dataclass(frozen=True)
class Limits:
    """Bounds of what a client may send; sizes in bytes, times in seconds.

    Attributes:
        clients: Connections at a time.
        line: An event's line of JSON.
        data: The JSON behind it.
        payload: The bytes behind that.
        recording: Samples of one recording.
        seconds: Its length.
        text: Characters of one text.
        idle: Time without an event, after which a client is let go; also for taking an answer.
        loading: Time that a client waits for models that are still being loaded.
    """

    clients: int = 16
    line: int = 64 << 10
    data: int = 256 << 10
    payload: int = 1 << 20
    recording: int = 32 << 20
    seconds: float = 600.0
    text: int = 64 << 10
    idle: float = 300.0
    loading: float = 120.0


class Refused(Exception):
    """What a client is told, in a sentence, before the connection ends."""

    def __init__(self, message: str, code: str = "400") -> None:
        super().__init__(message)
        self.message, self.code = message, code


# ---- events as they come in -----------------------------------------------------------------


class _Header(msgspec.Struct, frozen=True):
    type: Annotated[str, msgspec.Meta(max_length=64)]
    data: dict[str, Any] | None = None
    data_length: Annotated[int, msgspec.Meta(ge=0)] | None = None
    payload_length: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Transcribe(msgspec.Struct, frozen=True):
    name: str | None = None
    language: str | None = None


class _AudioFormat(msgspec.Struct, frozen=True):
    rate: Annotated[int, msgspec.Meta(ge=1000, le=768_000)]
    width: Annotated[int, msgspec.Meta(ge=1, le=4)]
    channels: Annotated[int, msgspec.Meta(ge=1, le=8)]

    @property
    def second(self) -> int:
        """Bytes of a second."""
        return self.rate * self.width * self.channels


class _Voice(msgspec.Struct, frozen=True):
    name: str | None = None
    language: str | None = None


class _Speak(msgspec.Struct, frozen=True):
    text: str = ""
    voice: _Voice | None = None
    text_format: str | None = None


class _Text(msgspec.Struct, frozen=True):
    text: str | None = None


Fields = TypeVar("Fields", bound=msgspec.Struct)


def _fields(event: Event, kind: type[Fields]) -> Fields:
    try:
        return msgspec.convert(event.data, kind)
    except msgspec.ValidationError as error:
        raise Refused(f"The event {event.type} cannot be read: {error}.") from error


async def read_event(reader: asyncio.StreamReader, limits: Limits) -> Event | None:
    """The next event, None at the end of the stream. The package's own reader takes any length
    that a client claims.

    Raises:
        Refused: It breaks the protocol or a limit.
        asyncio.IncompleteReadError: The stream ends within it.
    """
    try:
        line = await reader.readline()
    except ValueError as error:  # asyncio's, for a line over the reader's limit
        raise Refused(f"A line has more than {limits.line} bytes.", "413") from error
    if not line:
        return None
    header = _decoded(line, _Header)
    data = dict(header.data or {})
    if size := _bounded(header.data_length, limits.data, "data"):
        data |= _decoded(await reader.readexactly(size), dict[str, Any])
    payload = None
    if size := _bounded(header.payload_length, limits.payload, "payload"):
        payload = await reader.readexactly(size)
    return Event(header.type, data, payload)


T = TypeVar("T")


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"This is no event of Wyoming: {error}.") from error


def _bounded(size: int | None, most: int, what: str) -> int:
    if size and size > most:
        raise Refused(f"An event claims {size} bytes of {what}, of {most} allowed.", "413")
    return size or 0


# ---- what is served ---------------------------------------------------------------------------


def describe(models: Iterable[ModelStatus]) -> Info:
    """What clients are told: one program that hears and one that speaks, with the served models.
    Home Assistant uses the first program of each kind."""
    models = list(models)
    hearing = [
        AsrModel(**_artifact(model), languages=list(_heard(model)))
        for model in _of_task(models, "speech")
    ]
    voices = [
        TtsVoice(**_artifact(model), languages=list(_languages(model)))
        for model in _of_task(models, "voice")
    ]
    program: dict[str, Any] = {
        "name": _PROGRAM,
        "attribution": Attribution(_PROGRAM, ""),
        "installed": True,
        "description": "Models of rkzoo serve",
        "version": version("rkzoo"),
    }
    hears = AsrProgram(**program, models=hearing, supports_transcript_streaming=True)
    speaks = TtsProgram(**program, voices=voices, supports_synthesize_streaming=True)
    return Info(asr=[hears] if hearing else [], tts=[speaks] if voices else [])


def _of_task(models: Iterable[ModelStatus], task: str) -> list[ModelStatus]:
    """Those of a task that were loaded once."""
    return [model for model in models if model.opened and model.opened.task == task]


def _languages(model: ModelStatus) -> tuple[str, ...]:
    return model.opened.languages if model.opened else ()


def _heard(model: ModelStatus) -> tuple[str, ...]:
    """Home Assistant offers only languages that are listed. Where a model does not tell its own,
    all are, and whoever serves it knows."""
    from rkzoo.tasks.speech.spec import WHISPER_LANGUAGES

    return _languages(model) or WHISPER_LANGUAGES


def _artifact(model: ModelStatus) -> dict[str, Any]:
    return {
        "name": model.name,
        "attribution": Attribution(_PROGRAM, ""),
        "installed": model.state != "failed",
        "description": model.name,
        "version": model.version,
    }


def pick(
    models: Sequence[ModelStatus], name: str | None, language: str | None, what: str
) -> ModelStatus:
    """The model that a client means: by name, or the first for a language, or the first.

    Args:
        models: Those of one task.
        name: Name of a model.
        language: Code such as en or en-US.
        what: What they are called in messages.

    Raises:
        Refused: There is none.
    """
    if not models:
        raise Refused(f"No {what} is served here.", "404")
    code = _code(language)
    named = [model for model in models if name is None or model.name == name]
    fits = [model for model in named if name or not code or code in (_languages(model) or (code,))]
    if not fits:
        wanted = f"called {name}" if name else f"for the language {language}"
        there = ", ".join(model.name for model in models)
        raise Refused(f"No {what} {wanted} is served here; there are {there}.", "404")
    return fits[0]


def _code(language: str | None) -> str:
    """en of en-US or en_GB."""
    return (language or "").replace("_", "-").split("-")[0].lower()


# ---- one client -------------------------------------------------------------------------------


class _Transcribed(msgspec.Struct, frozen=True):
    text: str
    segments: tuple[_Text, ...]
    language: str | None = None


class _Recording:
    """Samples as they come in, of one format."""

    def __init__(self, form: _AudioFormat, limits: Limits) -> None:
        self._form = form
        self._most = min(limits.recording, int(limits.seconds * form.second))
        self._samples = bytearray()

    def add(self, form: _AudioFormat, samples: bytes) -> None:
        if form != self._form:
            raise Refused("The samples changed their rate, width or channels.")
        if len(self._samples) + len(samples) > self._most:
            seconds = self._most / self._form.second
            raise Refused(f"A recording may last {seconds:.0f} s.", "413")
        self._samples += samples

    def wav(self) -> bytes:
        """As a file, which rkzoo reads like any other: channels and rate are converted there.
        Empty where there is no sample."""
        whole = len(self._samples) - len(self._samples) % (self._form.width * self._form.channels)
        if not whole:
            return b""
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setframerate(self._form.rate)
            writer.setsampwidth(self._form.width)
            writer.setnchannels(self._form.channels)
            writer.writeframes(memoryview(self._samples)[:whole])
        return file.getvalue()


@dataclass
class _Reading:
    """A text that comes in pieces and is read aloud sentence by sentence; `at` is the time in
    milliseconds of what was sent."""

    voice: _Voice | None
    text: str = ""
    begun: bool = False
    at: int = 0


Send = Callable[[Event], Awaitable[None]]


class Conversation:
    """What one client said so far. An answer goes out through `send`."""

    def __init__(self, engine: Engine, limits: Limits, send: Send) -> None:
        self._engine, self._limits, self._send = engine, limits, send
        self._asked = _Transcribe()
        self._recording: _Recording | None = None
        self._reading: _Reading | None = None

    async def hear(self, event: Event) -> None:
        """Deals with an event; others than the table's are passed over, as the protocol asks.

        Raises:
            Refused: The event asks for what is not possible.
            ServingError: The engine cannot answer.
        """
        if action := _ACTIONS.get(event.type):
            await action(self, event)

    async def _describe(self, event: Event) -> None:
        await self._send(describe(await self._models()).event())

    async def _ping(self, event: Event) -> None:
        await self._send(Pong(_fields(event, _Text).text).event())

    async def _transcribe(self, event: Event) -> None:
        self._asked, self._recording = _fields(event, _Transcribe), None
        await self._hearing()  # so that a wrong name is refused before the sound is sent

    async def _audio_start(self, event: Event) -> None:
        self._recording = _Recording(_fields(event, _AudioFormat), self._limits)

    async def _audio_chunk(self, event: Event) -> None:
        form = _fields(event, _AudioFormat)
        if self._recording is None:
            self._recording = _Recording(form, self._limits)
        self._recording.add(form, event.payload or b"")

    async def _audio_stop(self, event: Event) -> None:
        recording, self._recording = self._recording, None
        wav = recording.wav() if recording else b""
        heard = await self._heard(wav) if wav else _Transcribed("", ())
        await self._send(TranscriptStart(language=heard.language).event())
        for piece in _pieces(heard):
            await self._send(TranscriptChunk(piece).event())
        await self._send(Transcript(heard.text, language=heard.language).event())
        await self._send(TranscriptStop().event())

    async def _heard(self, wav: bytes) -> _Transcribed:
        model = await self._hearing()
        # Only a model of several languages is told which; another refuses the option.
        language = _code(self._asked.language) if len(_languages(model)) > 1 else None
        options = PredictOptions(
            format=".json", filename="recording.wav", language=language or None
        )
        reply = await self._engine.predict(model.name, wav, options)
        return msgspec.json.decode(reply.body, type=_Transcribed)

    async def _synthesize(self, event: Event) -> None:
        asked = self._spoken(event)
        if self._reading is not None:
            return  # the whole text once more, for servers that cannot read it in pieces
        reading = _Reading(asked.voice)
        await self._speak(reading, asked.text)
        await self._send(AudioStop(timestamp=reading.at).event())

    async def _synthesize_start(self, event: Event) -> None:
        self._reading = _Reading(self._spoken(event).voice)

    async def _synthesize_chunk(self, event: Event) -> None:
        from rkzoo.tasks.voice.english import split_sentences

        reading = self._reading
        if reading is None:
            raise Refused("A synthesize-chunk came without a synthesize-start.")
        text = reading.text + (_fields(event, _Text).text or "")
        self._check_length(text)
        ready, reading.text = await asyncio.to_thread(split_sentences, text)
        if ready:
            await self._speak_words(reading, ready)

    async def _synthesize_stop(self, event: Event) -> None:
        reading, self._reading = self._reading, None
        if reading is None:
            raise Refused("A synthesize-stop came without a synthesize-start.")
        await self._speak_words(reading, reading.text)
        if reading.begun:
            await self._send(AudioStop(timestamp=reading.at).event())
        await self._send(SynthesizeStopped().event())

    async def _speak_words(self, reading: _Reading, text: str) -> None:
        """As `_speak`; what has no words is passed over, as it is in the middle of a text."""
        from rkzoo.tasks.voice.english import sentences

        if any(sentence.words for sentence in await asyncio.to_thread(sentences, text)):
            await self._speak(reading, text)

    async def _speak(self, reading: _Reading, text: str) -> None:
        """Reads a text aloud, after a pause where something was read before."""
        from rkzoo.tasks.voice.synthesize import BETWEEN

        voice = reading.voice or _Voice()
        served = _of_task(await self._models(), "voice")
        model = pick(served, voice.name, voice.language, "voice")
        options = PredictOptions(format=".wav", filename="text.txt")
        reply = await self._engine.predict(model.name, text.encode(), options)
        with wave.open(io.BytesIO(reply.body)) as sound:
            form = {
                "rate": sound.getframerate(),
                "width": sound.getsampwidth(),
                "channels": sound.getnchannels(),
            }
            samples = sound.readframes(sound.getnframes())
        frame = form["width"] * form["channels"]
        if reading.begun:
            samples = bytes(round(BETWEEN * form["rate"]) * frame) + samples
        else:
            await self._send(AudioStart(**form, timestamp=0).event())
        reading.begun = True
        for start in range(0, len(samples), _SAMPLES * frame):
            chunk = AudioChunk(
                **form, audio=samples[start : start + _SAMPLES * frame], timestamp=reading.at
            )
            await self._send(chunk.event())
            reading.at += chunk.milliseconds

    async def _models(self) -> list[ModelStatus]:
        """All models, when each was loaded or failed: Home Assistant asks once what there is, and
        comes again later only where there is no answer."""
        until = monotonic() + self._limits.loading
        while True:
            models = [self._engine.status(name) for name in self._engine.names()]
            if monotonic() > until or all(m.opened or m.state == "failed" for m in models):
                return models
            await asyncio.sleep(_POLL)

    async def _hearing(self) -> ModelStatus:
        served = _of_task(await self._models(), "speech")
        return pick(served, self._asked.name, self._asked.language, "model for speech")

    def _spoken(self, event: Event) -> _Speak:
        asked = _fields(event, _Speak)
        if asked.text_format not in (None, "text"):
            raise Refused(f"Plain text is read aloud, and no {asked.text_format}.")
        self._check_length(asked.text)
        return asked

    def _check_length(self, text: str) -> None:
        if len(text) > self._limits.text:
            raise Refused(f"A text may have {self._limits.text} characters.", "413")


_ACTIONS: dict[str, Callable[[Conversation, Event], Awaitable[None]]] = {
    "describe": Conversation._describe,
    "ping": Conversation._ping,
    "transcribe": Conversation._transcribe,
    "audio-start": Conversation._audio_start,
    "audio-chunk": Conversation._audio_chunk,
    "audio-stop": Conversation._audio_stop,
    "synthesize": Conversation._synthesize,
    "synthesize-start": Conversation._synthesize_start,
    "synthesize-chunk": Conversation._synthesize_chunk,
    "synthesize-stop": Conversation._synthesize_stop,
}


def _pieces(heard: _Transcribed) -> list[str]:
    """The text cut after each segment: joined they are the text, with its blanks."""
    pieces, start = [], 0
    for segment in heard.segments:
        end = heard.text.find(segment.text or "", start) + len(segment.text or "")
        if end > start:
            pieces.append(heard.text[start:end])
            start = end
    return [*pieces, heard.text[start:]] if start < len(heard.text) else pieces


# ---- the listener -----------------------------------------------------------------------------


class WyomingServer:
    """A listener that clients talk to, at `port`; `serve` starts one."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self._clients: dict[asyncio.Task[Any], bool] = {}  # whether it waits for an answer
        self._server: asyncio.Server | None = None
        self._closing = False
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(
            self._connected, host, port, limit=self._limits.line
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self, grace: float = 25.0) -> None:
        """Takes no more, answers what was asked for within `grace` seconds, and ends."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for task, busy in list(self._clients.items()):
            if not busy:
                task.cancel()
        if self._clients:
            await asyncio.wait(list(self._clients), timeout=grace)
        left = list(self._clients)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(event: Event) -> None:
            await asyncio.wait_for(async_write_event(event, writer), self._limits.idle)

        task = asyncio.current_task()
        assert task is not None
        full = len(self._clients) >= self._limits.clients
        self._clients[task] = False
        try:
            if full:
                raise Refused(f"{self._limits.clients} clients are connected; come later.", "503")
            await self._talk(task, reader, send)
        except Refused as refusal:
            await _tell(send, refusal.message, refusal.code)
        except ServingError as problem:
            await _tell(send, problem.message, str(problem.status))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass  # the client is gone, or silent
        except asyncio.CancelledError:
            pass  # by close(), which waits for this very task
        finally:
            del self._clients[task]
            writer.close()

    async def _talk(
        self, task: asyncio.Task[Any], reader: asyncio.StreamReader, send: Send
    ) -> None:
        conversation = Conversation(self._engine, self._limits, send)
        while not self._closing:
            event = await asyncio.wait_for(read_event(reader, self._limits), self._limits.idle)
            if event is None:
                return
            self._clients[task] = True
            await conversation.hear(event)
            self._clients[task] = False


async def _tell(send: Send, message: str, code: str) -> None:
    """An error, after which the connection ends: Home Assistant waits for an answer or the end,
    and passes errors over."""
    with suppress(ConnectionError, asyncio.TimeoutError):
        await send(Error(message, code).event())


async def serve(
    engine: Engine, settings: Settings, port: int, limits: Limits | None = None
) -> WyomingServer:
    """Listens for clients of Wyoming.

    Args:
        engine: What answers.
        settings: Its host is the address to listen on. The protocol has no password: whoever
            reaches it may use it.
        port: Port; 0 for a free one.
        limits: Bounds of what a client may send.

    Returns:
        The listener; `close()` ends it.

    Raises:
        RkzooError: The address cannot be used.
    """
    server = WyomingServer(engine, limits or Limits())
    try:
        await server.start(settings.host, port)
    except (OSError, OverflowError) as error:
        raise RkzooError(
            f"Wyoming cannot be spoken at {settings.host}:{port}.",
            f"The system says: {getattr(error, 'strerror', None) or error}.",
            "Choose another port with --wyoming (0 takes a free one).",
        ) from error
    return server
