"""OpenAI's API as its own client and curl see it: equal to what rkzoo answers without a server."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest
import soundfile

import rkzoo
from rkzoo.cli.main import main
from rkzoo.serving import openai_api
from rkzoo.serving.errors import ServingError
from rkzoo.vision.image import write
from serving.server import Server, serving
from tiny_clip import WIDTH, meant, seen, write_cards

TOKEN = "a-token-of-tests"
SAID = "Good morning."
TEXTS = ["A puppy runs on the grass", "The stock market fell today", "a word " * 200]


def client_of(server: Server, key: str = TOKEN) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


# ---- without the network: a small CLIP ----------------------------------------------------


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    write_cards(folder)
    return folder


@pytest.fixture(scope="module")
def small(cards: Path) -> Iterator[Server]:
    env = {"RKZOO_CARDS": str(cards), "RKZOO_SERVE_TOKEN": TOKEN}
    with serving("tiny-clip", "--workers", "1", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def client(small: Server) -> openai.OpenAI:
    return client_of(small)


def test_models_are_listed_and_told(client: openai.OpenAI) -> None:
    assert [(one.id, one.object) for one in client.models.list()] == [("tiny-clip", "model")]
    assert client.models.retrieve("tiny-clip").owned_by == "rkzoo"
    with pytest.raises(openai.NotFoundError, match="served are tiny-clip"):
        client.models.retrieve("gpt-4")


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}])
def test_words_and_pictures_are_embedded_as_the_formula_says(
    client: openai.OpenAI, cards: Path, tmp_path: Path, encoding: dict[str, Any]
) -> None:
    picture = tmp_path / "a.png"
    write(picture, np.random.default_rng(2).integers(0, 255, (90, 61, 3)).astype(np.uint8))
    url = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    texts = ["a red bus", url, "the sea at night"]
    answer = client.embeddings.create(model="tiny-clip", input=texts, **encoding)
    assert [one.index for one in answer.data] == [0, 1, 2]
    wanted = [meant(texts[0], cards), seen(picture), meant(texts[2], cards)]
    np.testing.assert_allclose([one.embedding for one in answer.data], wanted, atol=2e-3)
    # Start, end, and the pieces of the words; a picture has none.
    tokens = sum(len(text.replace(" ", "")) > 0 and pieces(text, cards) + 2 for text in texts[::2])
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens
    by_alias = client.embeddings.create(model="text-embedding-3-small", input="a red bus")
    assert by_alias.model == "tiny-clip"
    assert by_alias.data[0].embedding == answer.data[0].embedding
    assert len(client.embeddings.create(model="tiny-clip", input="a", dimensions=WIDTH).data) == 1


def pieces(text: str, cards: Path) -> int:
    from rkzoo.tasks.prompt.tokenizer import ClipTokenizer

    return len(ClipTokenizer.from_file(cards / "vocabulary.gz").encode(text))


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"model": "tiny"}, "model", "no model 'tiny'"),
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "1 to 2048"),
        ({"input": ["a"] * 2049}, "input", "1 to 2048"),
        ({"input": [1, 2]}, "input", "Tokens"),
        ({"input": [[1, 2], [3]]}, "input", "Tokens"),
        ({"input": "a" * (5 << 20)}, "input", "too long"),
        ({"input": "data:image/png;base64,?"}, "input", "base64"),
        ({"input": "data:image/png;base64,AAAA"}, None, "picture"),
        ({"input": "a b c d e f g h i j k l m n"}, None, "too long"),
        ({"dimensions": WIDTH - 1}, "dimensions", f"gives {WIDTH} numbers"),
        ({"encoding_format": "int8"}, "encoding_format", "int8"),
        ({"extra_body": {"truncate": True}}, "truncate", "unknown field"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_its_parameter(
    client: openai.OpenAI, asked: dict[str, Any], param: str | None, said: str
) -> None:
    kind = openai.NotFoundError if "model" in asked else openai.BadRequestError
    with pytest.raises(kind, match=said) as caught:
        client.embeddings.create(**({"model": "tiny-clip", "input": "a"} | asked))
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"prompt": "Names: Aoife"}, "prompt", "leave it out"),
        ({"temperature": 0.7}, "temperature", "is 0"),
        ({"stream": True}, "stream", "one piece"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]", "not of words"),
        ({"response_format": "diarized_json"}, "response_format", "verbose_json"),
        ({"extra_body": {"beams": 5}}, "beams", "no parameter 'beams'"),
        ({"temperature": 0.0}, "model", "tiny-clip transcribes no speech"),
    ],
)
def test_what_no_transcript_heeds_is_refused_by_its_parameter(
    client: openai.OpenAI, asked: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.audio.transcriptions.create(model="tiny-clip", file=("a.wav", b"RIFF"), **asked)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"response_format": "aac"}, "response_format", "mp3, opus, flac, wav, pcm"),
        ({"instructions": "Sing."}, "instructions", "leave them out"),
        ({"stream_format": "sse"}, "stream_format", "leave it out"),
        ({"extra_body": {"pitch": 2}}, "pitch", "unknown field"),
        ({}, "model", "tiny-clip speaks no text"),
    ],
)
def test_what_no_voice_heeds_is_refused_by_its_parameter(
    client: openai.OpenAI, asked: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.audio.speech.create(**({"model": "tiny-clip", "voice": "x", "input": "a"} | asked))
    assert caught.value.param == param


def test_every_error_at_these_paths_has_openais_form(small: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="token") as caught:
        client_of(small, "sk-wrong-key").models.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.NotFoundError, match="whisper-1") as unknown:
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF"))
    assert unknown.value.code == "model_not_found"
    key = {"authorization": f"Bearer {TOKEN}"}
    form = key | {"content-type": "multipart/form-data; boundary=x"}
    for path, body, headers, status in (
        ("/v1/audio/nothing", b"", key, 404),
        ("/v1/embeddings", None, key, 405),
        ("/v1/embeddings", b'{"model":', key, 400),
        ("/v1/embeddings", b"[" * 100_000, key, 400),
        ("/v1/embeddings", b'{"model":"tiny-clip","input":"\\ud800."}', key, 400),
        ("/v1/audio/transcriptions", b"{}", key, 400),
        ("/v1/audio/transcriptions", b"rubbish", form, 400),
        ("/v1/audio/transcriptions", b"--x\r\n", form, 400),
        ("/v1/audio/transcriptions", b"--x--\r\n", form, 400),
    ):
        told = small.ask(path, body, headers)
        assert told[0] == status, told
        error = json.loads(told[2])["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"].endswith(".")
    # What is not OpenAI's is told as everywhere else.
    status, _, told = small.ask("/v1/models/tiny-clip:predict", b"", key)
    assert (status, type(json.loads(told)["error"])) == (400, str)
    assert all("Traceback" not in line for line in small.lines)


def test_a_form_in_chunks_has_the_bounds_of_every_body(small: Server) -> None:
    connection = HTTPConnection("127.0.0.1", int(small.url.rpartition(":")[2]), timeout=30)
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "multipart/form-data; boundary=x",
        "Transfer-Encoding": "chunked",
    }
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    chunks = (head, *[bytes(1 << 20)] * 65)
    connection.request(
        "POST", "/v1/audio/transcriptions", iter(chunks), headers, encode_chunked=True
    )
    answer = connection.getresponse()
    assert answer.status == 413
    assert "larger than 64 MiB" in json.loads(answer.read())["error"]["message"]
    connection.close()


class FakeEngine:
    """Names of models, with their tasks; None is not loaded yet."""

    def __init__(self, **tasks: str | None) -> None:
        self._tasks = tasks

    def names(self) -> list[str]:
        return list(self._tasks)

    def status(self, name: str) -> Any:
        task = self._tasks[name]
        opened = None if task is None else SimpleNamespace(task=task)
        path = "" if task == "of a board's client" else name
        return SimpleNamespace(opened=opened, path=path, state="ready" if task else "loading")


def test_openais_names_mean_the_only_model_that_does_it() -> None:
    both: Any = FakeEngine(tiny="speech", joe="voice", remote="of a board's client")
    assert openai_api.model_for(both, "whisper-1", "speech") == "tiny"
    assert openai_api.model_for(both, "tts-1", "voice") == "joe"
    for asked, task, status in (
        ("tts-1", "speech", 404),
        ("text-embedding-3-small", "embed", 404),
        ("remote", "speech", 404),
        ("joe", "speech", 400),
    ):
        with pytest.raises(ServingError) as caught:
            openai_api.model_for(both, asked, task)
        assert caught.value.status == status
    two: Any = FakeEngine(joe="voice", amy="voice", slow=None)
    with pytest.raises(ServingError, match="served are joe, amy"):
        openai_api.model_for(two, "tts-1", "voice")
    with pytest.raises(ServingError) as caught:
        openai_api.model_for(two, "whisper-1", "speech")
    assert (caught.value.status, caught.value.retry_after) == (503, 2.0)
    # What is not loaded is named, and the engine says so.
    assert openai_api.model_for(two, "slow", "speech") == "slow"


# ---- real models --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What rkzoo writes without a server, as `rkzoo run -o` does."""
    folder = tmp_path_factory.mktemp("answers")
    with rkzoo.load("whisper-base") as whisper:
        heard = whisper(assets / "data/audio/speech_en.wav")
    for suffix in (".json", ".srt"):
        heard.save(folder / f"heard{suffix}")
    with rkzoo.load("piper-joe") as voice:
        said = voice(SAID)
    for suffix in (".wav", ".mp3", ".pcm"):
        said.save(folder / f"said{suffix}")
    return folder


@pytest.fixture(scope="module")
def real(answers: Path) -> Iterator[Server]:
    with serving("whisper-base", "piper-joe", "minilm", "--workers", "1") as server:
        yield server


@pytest.mark.network
def test_a_transcript_is_what_run_writes(real: Server, answers: Path, assets: Path) -> None:
    told = client_of(real).audio.transcriptions.create(
        model="whisper-1",
        file=assets / "data/audio/speech_en.wav",
        response_format="srt",
        prompt="",
        temperature=0,
    )
    assert told == (answers / "heard.srt").read_text()


@pytest.mark.network
@pytest.mark.parametrize(
    ("wanted", "text"),
    [("json", ""), ("verbose_json", ""), ("text", ""), ("srt", ""), ("vtt", "WEBVTT\n\n")],
)
def test_silence_has_a_transcript_in_every_format(real: Server, wanted: Any, text: str) -> None:
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(16000), 16000, format="MP3")
    told = client_of(real).audio.transcriptions.create(
        model="whisper-1", file=("a.mp3", sound.getvalue()), response_format=wanted
    )
    assert getattr(told, "text", told) == text
    if wanted == "verbose_json":
        assert (told.segments, told.duration) == ([], pytest.approx(1, abs=0.1))


@pytest.mark.network
def test_a_verbose_transcript_has_what_whisper_tells(
    real: Server, answers: Path, assets: Path
) -> None:
    sound = assets / "data/audio/speech_en.wav"
    told = client_of(real).audio.transcriptions.create(
        model="whisper-base",
        file=sound,
        language="en",
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )
    wanted = json.loads((answers / "heard.json").read_text())
    assert (told.text, told.language) == (wanted["text"], "en")
    assert told.model_extra
    assert told.model_extra["task"] == "transcribe"
    assert told.duration == pytest.approx(soundfile.info(sound).duration)
    assert told.segments is not None
    for at, (segment, one) in enumerate(zip(told.segments, wanted["segments"], strict=True)):
        assert segment.id == at
        assert (segment.start, segment.end, segment.text) == (one["start"], one["end"], one["text"])
        assert segment.tokens == one["tokens"]
        assert segment.tokens[0] >= 50364, "it begins with a time"
        assert (segment.seek, segment.temperature) == (0, 0)
        assert -1 < segment.avg_logprob < 0
        assert 0 < segment.no_speech_prob < 0.1
        assert 0.5 < segment.compression_ratio < 2.4


@pytest.mark.network
def test_a_translation_is_english(real: Server, assets: Path) -> None:
    """By curl, which sends forms in its own way."""
    form = (f"file=@{assets / 'data/audio/speech_zh.wav'}", "model=whisper-1", "language=zh")
    words = [word for part in form for word in ("-F", part)]
    url = f"{real.url}/v1/audio/translations"
    done = subprocess.run(["curl", "-sS", url, *words], capture_output=True, check=True, timeout=60)
    text = json.loads(done.stdout)["text"]
    assert text.isascii()
    assert "research" in text


@pytest.mark.network
@pytest.mark.parametrize("wanted", ["wav", "pcm", None])
def test_a_spoken_text_is_the_file_that_run_writes(
    real: Server, answers: Path, wanted: str | None
) -> None:
    asked: dict[str, Any] = {} if wanted is None else {"response_format": wanted}
    told = client_of(real).audio.speech.create(model="tts-1", voice="alloy", input=SAID, **asked)
    assert told.content == (answers / f"said.{wanted or 'mp3'}").read_bytes()
    types = {"wav": "audio/wav", "pcm": "audio/pcm", None: "audio/mpeg"}
    assert told.response.headers["content-type"] == types[wanted]


@pytest.mark.network
def test_a_speed_is_heeded_and_a_voice_chooses(real: Server, answers: Path) -> None:
    client = client_of(real)
    asked = {"input": SAID, "response_format": "wav"}
    fast = client.audio.speech.create(model="tts-1", voice="piper-joe", speed=2, **asked)
    usual = soundfile.info(answers / "said.wav").duration
    # Not half: each symbol lasts a whole number of frames.
    assert 0.4 * usual < soundfile.info(io.BytesIO(fast.content)).duration < 0.75 * usual
    opus = client.audio.speech.create(
        model="tts-1", voice="x", input=SAID, response_format="opus", speed=2
    )
    assert soundfile.info(io.BytesIO(opus.content)).subtype == "OPUS"
    with pytest.raises(openai.BadRequestError, match=r"between 0\.25 and 4"):
        client.audio.speech.create(model="piper-joe", voice="x", speed=9, **asked)
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.audio.speech.create(model="piper-joe", voice="x", input=" ")


@pytest.mark.network
def test_texts_are_embedded_as_run_compares_them(
    real: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    told = client_of(real).embeddings.create(model="text-embedding-ada-002", input=TEXTS)
    rows = np.array([one.embedding for one in told.data], np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    # 6 and 5 words with two ends; 400 in four parts with two ends each.
    assert told.usage.total_tokens == 6 + 2 + 5 + 2 + 400 + 2 * 4
    prompts = [word for text in TEXTS[1:] for word in ("--prompt", text)]
    assert main(["run", "minilm", TEXTS[0], *prompts, "--json"]) == 0
    (compared,) = json.loads(capsys.readouterr().out)["texts"]
    cosines = {one["name"]: one["cosine"] for one in compared["results"]}
    for text, row in zip(TEXTS[1:], rows[1:], strict=True):
        assert cosines[" ".join(text.split())] == pytest.approx(float(rows[0] @ row), abs=1e-4)
    with pytest.raises(openai.BadRequestError, match="texts only"):
        client_of(real).embeddings.create(model="minilm", input="data:image/png;base64,AAAA")
