"""Wyoming, asked by the client of the package itself and by a few lines over the raw socket, which
follow the protocol's page (https://github.com/OHF-Voice/wyoming)."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import wave
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

import rkzoo
from rkzoo.audio.sound import decode
from rkzoo.errors import RkzooError
from rkzoo.serving.calls import OpenedModel, PredictOptions
from rkzoo.serving.engine import Engine as RealEngine
from rkzoo.serving.engine import ModelStatus, Reply, ServedModel
from rkzoo.serving.errors import ServingError
from rkzoo.serving.run import Settings
from rkzoo.serving.wyoming_server import Limits, WyomingServer, serve
from rkzoo.tasks.voice.english import sentences

RATE = 22050


def _status(name: str, task: str, kind: str, languages: tuple[str, ...]) -> ModelStatus:
    opened = OpenedModel(kind, task, "onnx", {}, 1, (), (), languages)
    return ModelStatus(name, "ready", "1", name, opened=opened)


@dataclass
class Engine:
    """Hears each sound as its length and language, reads each sentence aloud as so many samples
    as it has words, with the pause between sentences."""

    models: tuple[ModelStatus, ...] = (
        _status("yolov8n", "detect", "picture", ()),
        _status("whisper-base", "speech", "sound", ("en", "de")),
        _status("zipformer-zh-en", "speech", "sound", ()),
        _status("piper-joe", "voice", "text", ("en",)),
    )
    asked: list[tuple[str, bytes, PredictOptions]] = field(default_factory=list)
    wait: asyncio.Event | None = None

    def names(self) -> list[str]:
        return [model.name for model in self.models]

    def status(self, name: str) -> ModelStatus:
        return next(model for model in self.models if model.name == name)

    async def predict(self, name: str, data: bytes, options: PredictOptions) -> Reply:
        self.asked.append((name, data, options))
        if self.wait is not None:
            await self.wait.wait()
        if options.format == ".json":
            sound = decode(data, Path(options.filename))
            parts = [f"{name}, {sound.seconds:.2f} s.", f"Peak {np.abs(sound.samples).max():.2f}."]
            segments = [{"start": 0, "end": 1, "text": part} for part in parts]
            document = {"language": "en", "text": " ".join(parts), "segments": segments}
            return Reply(json.dumps(document).encode())
        text = data.decode()
        if "!" in text:
            raise ServingError(400, "The voice cannot say this.")
        return Reply(_wav(spoken(text)), "audio/wav")


def spoken(text: str) -> bytes:
    """Samples of each sentence, 1000 a word, apart by the pause."""
    pause = bytes(2 * round(0.2 * RATE))
    said = [[word for word in sentence.words if word.isalnum()] for sentence in sentences(text)]
    sounds = [
        np.repeat([hash(word) % 999 + 1 for word in words], 1000).astype("<i2").tobytes()
        for words in said
        if words
    ]
    return pause.join(sounds)


def _wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE, 0, "NONE", ""))
        writer.writeframes(samples)
    return file.getvalue()


@asynccontextmanager
async def served(
    engine: Any = None, limits: Limits | None = None
) -> AsyncIterator[tuple[WyomingServer, AsyncTcpClient]]:
    server = await serve(engine or Engine(), Settings(), 0, limits)
    try:
        async with AsyncTcpClient("127.0.0.1", server.port, read_timeout=10) as client:
            yield server, client
    finally:
        await server.close(grace=1)


def run(talk: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(talk(), 30))


async def ask(client: AsyncTcpClient, *events: Any, until: str) -> list[Event]:
    """Sends events, and reads up to one of the type `until` or the end."""
    for event in events:
        await client.write_event(event.event())
    read: list[Event] = []
    while not read or read[-1].type != until:
        event = await client.read_event()
        if event is None:
            break
        read.append(event)
    return read


def sound(samples: np.ndarray, rate: int, width: int, channels: int) -> list[Any]:
    form = {"rate": rate, "width": width, "channels": channels}
    data = samples.tobytes()
    pieces = [data[at : at + 4096] for at in range(0, len(data), 4096)]
    return [AudioStart(**form), *(AudioChunk(**form, audio=piece) for piece in pieces), AudioStop()]


def heard(events: list[Event]) -> str:
    return next(Transcript.from_event(e).text for e in events if Transcript.is_type(e.type))


def read_aloud(events: list[Event]) -> bytes:
    return b"".join(AudioChunk.from_event(e).audio for e in events if AudioChunk.is_type(e.type))


def test_what_is_served_is_described() -> None:
    async def talk() -> None:
        async with served() as (_, client):
            (event,) = await ask(client, Describe(), until="info")
            info = Info.from_event(event)
            (hears,), (speaks,) = info.asr, info.tts
            assert [model.name for model in hears.models] == ["whisper-base", "zipformer-zh-en"]
            assert hears.models[0].languages == ["en", "de"]
            # One that does not tell is offered for all, since Home Assistant hides it otherwise.
            assert {"zh", "en"} < set(hears.models[1].languages)
            assert hears.installed
            assert hears.models[0].installed
            assert [(voice.name, voice.languages) for voice in speaks.voices] == [
                ("piper-joe", ["en"])
            ]
            assert speaks.supports_synthesize_streaming
            (event,) = await ask(client, Ping("are you there"), until="pong")
            assert Pong.from_event(event).text == "are you there"

    run(talk)


FORMATS = [
    (1, np.uint8, 1, 8000),
    (2, np.dtype("<i2"), 1, 16000),
    (2, np.dtype("<i2"), 2, 44100),
    (4, np.dtype("<i4"), 3, 48000),
]


@pytest.mark.parametrize(("width", "dtype", "channels", "rate"), FORMATS)
def test_sound_of_any_form_is_heard(width: int, dtype: Any, channels: int, rate: int) -> None:
    async def talk() -> None:
        engine = Engine()
        async with served(engine) as (_, client):
            ramp = np.linspace(-0.5, 0.5, rate)[:, None].repeat(channels, axis=1)
            samples = (ramp * (2 ** (8 * width - 1) - 1) + (128 if width == 1 else 0)).astype(dtype)
            asked = Transcribe(language="en-US")
            events = await ask(
                client, asked, *sound(samples, rate, width, channels), until="transcript-stop"
            )
            assert heard(events) == "whisper-base, 1.00 s. Peak 0.50."
            kinds = [event.type for event in events]
            assert kinds == [
                "transcript-start",
                "transcript-chunk",
                "transcript-chunk",
                "transcript",
                "transcript-stop",
            ]
            pieces = [TranscriptChunk.from_event(event).text for event in events[1:3]]
            assert "".join(pieces) == heard(events)
            assert engine.asked[0][2].language == "en"

    run(talk)


def test_a_model_is_chosen_by_name_or_language() -> None:
    async def talk() -> None:
        engine = Engine()
        silence = sound(np.zeros(1600, "<i2"), 16000, 2, 1)
        async with served(engine) as (_, client):
            for asked in (
                Transcribe(name="zipformer-zh-en", language="zh"),
                Transcribe(language="zh"),
                Transcribe(language="de_DE"),
                Transcribe(),
            ):
                await ask(client, asked, *silence, until="transcript-stop")
        assert [(name, options.language) for name, _, options in engine.asked] == [
            ("zipformer-zh-en", None),  # which does not take the option
            ("zipformer-zh-en", None),
            ("whisper-base", "de"),
            ("whisper-base", None),
        ]

    run(talk)


def test_a_recording_without_a_sample_says_nothing() -> None:
    async def talk() -> None:
        engine = Engine()
        async with served(engine) as (_, client):
            events = await ask(
                client, *sound(np.zeros(0, "<i2"), 16000, 2, 1), until="transcript-stop"
            )
            assert heard(events) == ""
        assert not engine.asked

    run(talk)


def test_a_text_is_read_aloud() -> None:
    async def talk() -> None:
        engine = Engine()
        text = "Good morning to you. It is late. " * 9
        async with served(engine) as (_, client):
            voice = SynthesizeVoice(name="piper-joe")
            events = await ask(client, Synthesize(text, voice), until="audio-stop")
            assert read_aloud(events) == spoken(text)
            assert AudioStart.from_event(events[0]).rate == RATE
            assert events[0].type == "audio-start"
            assert {event.type for event in events[1:-1]} == {"audio-chunk"}
            milliseconds = AudioStop.from_event(events[-1]).timestamp
            assert milliseconds == pytest.approx(len(spoken(text)) / 2 / RATE * 1000, rel=0.02)
        assert [(name, data) for name, data, _ in engine.asked] == [("piper-joe", text.encode())]

    run(talk)


def test_a_text_in_pieces_is_read_as_its_sentences_end() -> None:
    text = "Good morning. Dr. Smith paid 3.50 dollars for it. Then he went. 🙂"

    async def talk() -> None:
        engine = Engine()
        async with served(engine) as (_, client):
            pieces = [SynthesizeChunk(text[at : at + 3]) for at in range(0, len(text), 3)]
            first = await ask(client, SynthesizeStart(), *pieces[:10], until="audio-chunk")
            assert [event.type for event in first] == ["audio-start", "audio-chunk"]
            assert engine.asked[0][1] == b"Good morning. "
            # As Home Assistant does: the whole once more, for servers that cannot do this.
            rest = await ask(
                client,
                *pieces[10:],
                Synthesize(text),
                SynthesizeStop(),
                until="synthesize-stopped",
            )
            assert [event.type for event in rest[-2:]] == ["audio-stop", "synthesize-stopped"]
            assert SynthesizeStopped.is_type(rest[-1].type)
            assert read_aloud(first + rest) == spoken(text)
            # And the connection goes on.
            events = await ask(client, Synthesize("Once more."), until="audio-stop")
            assert read_aloud(events) == spoken("Once more.")
        assert [data.decode().strip() for _, data, _ in engine.asked[1:3]] == [
            "Dr. Smith paid 3.50 dollars for it.",
            "Then he went. 🙂",
        ]

    run(talk)


FORM = {"rate": 16000, "width": 2, "channels": 1}
WRONG: dict[str, tuple[tuple[Any, ...], str]] = {
    "no such model": ((Transcribe(name="vosk"),), "called vosk"),
    "no such voice": ((Synthesize("hi", SynthesizeVoice(name="amy")),), "called amy"),
    "no such language": ((Synthesize("hi", SynthesizeVoice(language="fr")),), "language fr"),
    "markup": ((Synthesize("<speak/>", text_format="ssml"),), "no ssml"),
    "five bytes": ((AudioStart(16000, 5, 1),), "audio-start cannot be read"),
    "a rate of nothing": ((AudioStart(0, 2, 1),), "audio-start cannot be read"),
    "a rate in words": ((AudioStart("fast", 2, 1),), "audio-start cannot be read"),  # type: ignore[arg-type]
    "another form": (
        (AudioStart(**FORM), AudioChunk(8000, 2, 1, audio=b"1234")),
        "changed their rate",
    ),
    "too long": (
        (AudioStart(**FORM), *[AudioChunk(**FORM, audio=bytes(32000))] * 3),
        "may last 2 s",
    ),
    "a long text": ((Synthesize("a" * 2000),), "1000 characters"),
    "many pieces": (
        (SynthesizeStart(), *[SynthesizeChunk("a" * 300)] * 4),
        "1000 characters",
    ),
    "a piece of nothing": ((SynthesizeChunk("a"),), "without a synthesize-start"),
    "an end of nothing": ((SynthesizeStop(),), "without a synthesize-start"),
    "the engine's": ((Synthesize("no!"),), "The voice cannot say this."),
}


@pytest.mark.parametrize(("events", "why"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_said_and_ends_the_connection(
    events: tuple[Any, ...], why: str
) -> None:
    async def talk() -> None:
        async with served(limits=Limits(seconds=2, text=1000)) as (server, client):
            # Home Assistant passes errors over and waits for the end of the connection.
            told = await ask(client, *events, until="never")
            assert [event.type for event in told] == ["error"]
            problem = Error.from_event(told[0])
            assert why in problem.text
            assert problem.code in ("400", "404", "413")
            async with AsyncTcpClient("127.0.0.1", server.port, read_timeout=5) as other:
                assert await ask(other, Ping(), until="pong")

    run(talk)


def test_who_asks_while_models_are_loaded_waits_for_them() -> None:
    async def talk() -> None:
        loaded = Engine().models
        engine = Engine(models=(loaded[0], replace(loaded[1], opened=None, state="loading")))
        async with served(engine) as (_, client):
            asking = asyncio.create_task(ask(client, Describe(), until="info"))
            await asyncio.sleep(0.3)
            assert not asking.done()
            engine.models = loaded
            (event,) = await asking
            assert Info.from_event(event).asr[0].models[0].name == "whisper-base"

    run(talk)


def test_a_port_that_is_taken() -> None:
    async def talk() -> None:
        async with served() as (server, _):
            with pytest.raises(RkzooError, match="cannot be spoken at"):
                await serve(Engine(), Settings(), server.port)  # type: ignore[arg-type]

    run(talk)


def test_nothing_is_served() -> None:
    async def talk() -> None:
        engine = Engine(models=(replace(Engine().models[0], opened=None, state="failed"),))
        async with served(engine) as (_, client):
            (event,) = await ask(client, Describe(), until="info")
            assert Info.from_event(event) == Info()
            (event,) = await ask(client, Transcribe(), until="error")
            assert "No model for speech is served" in Error.from_event(event).text

    run(talk)


# ---- the raw bytes ----------------------------------------------------------------------------


class Raw:
    """A line of JSON, `data_length` bytes of JSON, `payload_length` bytes; with no code of the
    package's."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.socket.makefile("rb")

    def send(self, header: dict[str, Any], data: bytes = b"", payload: bytes = b"") -> None:
        lengths = {"data_length": len(data)} if data else {}
        lengths |= {"payload_length": len(payload)} if payload else {}
        self.socket.sendall(json.dumps(header | lengths).encode() + b"\n" + data + payload)

    def read(self) -> dict[str, Any] | None:
        line = self.file.readline()
        if not line:
            return None
        header: dict[str, Any] = json.loads(line)
        data = json.loads(self.file.read(header.get("data_length") or 0) or b"{}")
        payload = self.file.read(header.get("payload_length") or 0)
        return {"type": header["type"], "data": {**header.get("data", {}), **data}, "p": payload}

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def raw(talk: Callable[[Raw], None], limits: Limits | None = None) -> None:
    async def both() -> None:
        async with served(limits=limits) as (server, _):

            def other() -> None:
                client = Raw(server.port)
                try:
                    talk(client)
                finally:
                    client.close()

            await asyncio.to_thread(other)

    run(both)


def test_the_published_bytes() -> None:
    def talk(client: Raw) -> None:
        client.send({"type": "transcribe", "data": {"name": "zipformer-zh-en"}})
        client.send({"type": "detection", "data": {"name": "hey"}})  # unknown here: passed over
        # The data behind the line goes over the data in it.
        client.send({"type": "audio-start", "data": {"rate": 1}}, json.dumps(FORM).encode())
        client.send({"type": "audio-chunk"}, json.dumps(FORM).encode(), bytes(16000))
        client.send({"type": "audio-chunk", "data": FORM}, b"", bytes(16000))
        client.send({"type": "audio-stop"})
        while (event := client.read()) and event["type"] != "transcript":
            pass
        assert event is not None
        assert event["data"]["text"] == "zipformer-zh-en, 1.00 s. Peak 0.00."
        assert (client.read() or {})["type"] == "transcript-stop"
        client.send({"type": "synthesize", "data": {"text": "One. Two."}})
        samples = b""
        while (event := client.read()) and event["type"] != "audio-stop":
            samples += event["p"]
        assert samples == spoken("One. Two.")

    raw(talk)


RUBBISH = {
    "no JSON": b"GET / HTTP/1.1\r\n\r\n",
    "no object": b"[]\n",
    "no type": b"{}\n",
    "deep": b"[" * 60000 + b"\n",
    "a long line": b"a" * 100_000 + b"\n",
    "a line without an end": b"a" * 100_000,
    "a long payload": b'{"type": "audio-chunk", "payload_length": 99999999999}\n',
    "a long text": b'{"type": "ping", "data_length": 99999999999}\n',
    "a length below 0": b'{"type": "ping", "data_length": -1}\n',
    "a length in words": b'{"type": "ping", "data_length": "1"}\n',
    "data that are no JSON": b'{"type": "ping", "data_length": 3}\nabc',
    "data that are no object": b'{"type": "ping", "data_length": 3}\n[1]',
    "a text of numbers": b'{"type": "synthesize", "data": {"text": 1}}\n',
    "bytes": bytes(range(256)) + b"\n",
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_is_refused_in_a_sentence(rubbish: bytes) -> None:
    def talk(client: Raw) -> None:
        client.socket.sendall(rubbish)
        told = client.read()
        assert told is not None
        assert told["type"] == "error"
        assert told["data"]["text"].endswith(".")
        assert "\n" not in told["data"]["text"]
        with suppress(ConnectionResetError):  # what was sent beyond the limit is not read
            assert client.read() is None

    raw(talk)


def test_one_that_says_nothing_is_let_go() -> None:
    def talk(client: Raw) -> None:
        client.socket.sendall(b'{"type": "audio-ch')
        assert client.read() is None

    raw(talk, Limits(idle=0.2))


def test_no_more_clients_than_there_is_room_for() -> None:
    def talk(client: Raw) -> None:
        told = client.read()
        assert told is not None
        assert "1 clients are connected" in told["data"]["text"]
        assert told["data"]["code"] == "503"

    raw(talk, Limits(clients=1))


def test_the_end_waits_for_what_was_asked() -> None:
    async def talk() -> None:
        engine = Engine(wait=asyncio.Event())
        server = await serve(engine, Settings(), 0)  # type: ignore[arg-type]
        client = AsyncTcpClient("127.0.0.1", server.port, read_timeout=5)
        idle = AsyncTcpClient("127.0.0.1", server.port, read_timeout=5)
        await client.connect()
        await idle.connect()
        asking = asyncio.create_task(ask(client, Synthesize("One."), until="never"))
        while not engine.asked:
            await asyncio.sleep(0.01)
        closing = asyncio.create_task(server.close())
        assert await idle.read_event() is None
        with pytest.raises(ConnectionRefusedError):
            await AsyncTcpClient("127.0.0.1", server.port).connect()
        assert engine.wait is not None
        engine.wait.set()
        assert read_aloud(await asking) == spoken("One.")
        await closing
        for one in (client, idle):
            await one.disconnect()

    run(talk)


def test_the_languages_are_those_of_the_vocabulary() -> None:
    # https://github.com/openai/whisper/blob/main/whisper/tokenizer.py lists 99, of two letters but
    # Hawaiian.
    from rkzoo.tasks.speech.spec import WHISPER_LANGUAGES

    assert len(set(WHISPER_LANGUAGES)) == len(WHISPER_LANGUAGES) == 99
    assert [code for code in WHISPER_LANGUAGES if len(code) != 2] == ["haw"]


# What `rkzoo run` writes of this sound (tests/workflow/inference/test_speech_real.py).
SENTENCE = (
    "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his gospel."
)


@pytest.mark.sweep
@pytest.mark.network
def test_real_models_answer_as_run_does(assets: Path, tmp_path: Path) -> None:
    """Whisper's transcript, and piper's sound whole and in pieces."""
    names = ("whisper-base", "piper-joe")
    text = "Good morning. Dr. Smith is late. No."
    file = assets / "data/audio/speech_en.wav"
    with wave.open(str(file)) as reader:
        form = (reader.getframerate(), reader.getsampwidth(), reader.getnchannels())
        samples = np.frombuffer(reader.readframes(reader.getnframes()), np.uint8)
    engine = RealEngine([ServedModel(name, name, slots=1) for name in names])
    threading.Thread(target=engine.load_all).start()

    async def talk() -> None:
        async with served(engine) as (_, client):
            client.read_timeout = 60
            events = await ask(
                client, Transcribe(language="en"), *sound(samples, *form), until="transcript-stop"
            )
            assert Transcript.from_event(events[-2]) == Transcript(SENTENCE, language="en")
            whole = await ask(client, Synthesize(text), until="audio-stop")
            pieces = [SynthesizeChunk(text[at : at + 5]) for at in range(0, len(text), 5)]
            parts = await ask(
                client, SynthesizeStart(), *pieces, SynthesizeStop(), until="synthesize-stopped"
            )
            assert AudioStart.from_event(whole[0]) == AudioStart(rate, 2, 1, 0)
            assert read_aloud(whole) == saved
            assert read_aloud(parts) == saved

    with rkzoo.load("piper-joe") as joe:
        joe(text).save(tmp_path / "joe.wav")
    with wave.open(str(tmp_path / "joe.wav")) as reader:
        rate, saved = reader.getframerate(), reader.readframes(reader.getnframes())
    try:
        asyncio.run(asyncio.wait_for(talk(), 120))
    finally:
        engine.stop()
