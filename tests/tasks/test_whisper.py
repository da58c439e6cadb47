"""What Whisper may say, what it means, and that nothing of a long sound is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.audio.mel import RATE
from rkzoo.audio.sound import Sound
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.session import Array, Closeable, Label
from rkzoo.tasks.speech.tokens import WhisperTokens, read_tokens
from rkzoo.tasks.speech.transcript import Decoding, Segment, Transcript
from rkzoo.tasks.speech.whisper import Whisper
from rkzoo.tasks.speech.whisper_decoding import (
    WindowSegments,
    next_log_probs,
    repetitive,
    thin,
    window_segments,
)
from rkzoo.tasks.speech.windows import loud_seconds, pause_in

WORDS = [
    *("a", "b", "Ġone", "Ġtwo", "Ġthree", "ä½", "ł", "Ġ"),
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>"),
    *("<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
    *(f"<|{number * 0.02:.2f}|>" for number in range(1501)),
]
END, START, EN, ZH, TIME = 8, 9, 10, 11, 18


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> WhisperTokens:
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "v.json").write_text(json.dumps(WORDS))
    (folder / "s.json").write_text(json.dumps({"suppress_ids": [1, START]}))
    return read_tokens(folder / "v.json", folder / "s.json")


def test_a_vocabulary_says_what_its_tokens_are(tokens: WhisperTokens) -> None:
    assert tokens.languages == {"en": EN, "zh": ZH}
    assert (tokens.end, tokens.time, tokens.silence) == (END, TIME, 16)
    assert tokens.text([2, TIME, 3, 0, END]) == " one twoa"
    assert tokens.text([5, 6]) == "你"  # one character, its bytes in two tokens
    assert tokens.text([5]) == "�"
    assert tokens.language("EN") == EN
    with pytest.raises(RkzooError, match="It knows en, zh"):
        tokens.language("xx")


@pytest.mark.parametrize("words", ["{", "[]", json.dumps(WORDS[:12]), '["的"]', "3"])
def test_a_broken_vocabulary_is_one_sentence(words: str, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(words)
    (tmp_path / "s.json").write_text('{"suppress_ids": []}')
    with pytest.raises(RkzooError, match="not a vocabulary of Whisper"):
        read_tokens(tmp_path / "v.json", tmp_path / "s.json")


def allowed(said: Sequence[int], tokens: WhisperTokens, likely: Sequence[int] = ()) -> set[int]:
    logits = np.zeros(len(WORDS), np.float32)
    logits[: tokens.time] = 20  # else the many times are likelier together than any word
    logits[list(likely)] = 40
    return set(np.flatnonzero(np.isfinite(next_log_probs(logits, said, tokens))).tolist())


def test_what_may_be_said_next(tokens: WhisperTokens) -> None:
    text = {0, 2, 3, 4, 5, 6, 7, END}  # 1 is suppressed, what is behind END is no text
    assert allowed([], tokens) == set(range(TIME, TIME + 51))
    assert allowed([TIME + 10], tokens) == text
    later = set(range(TIME + 11, TIME + 1501))
    assert allowed([TIME + 10, 2], tokens) == text | later
    # An end is followed by a beginning, which may be the same time, or by nothing.
    assert allowed([TIME + 10, 2, TIME + 60], tokens) == {END} | set(range(TIME + 60, TIME + 1501))
    assert allowed([TIME + 10, 2, TIME + 60, TIME + 60], tokens) == text
    assert allowed([TIME + 10, 2, TIME + 60, TIME + 70, 3], tokens) == text | set(
        range(TIME + 71, TIME + 1501)
    )


def test_where_a_time_is_likelier_than_any_word_it_is_a_time(tokens: WhisperTokens) -> None:
    logits = np.zeros(len(WORDS), np.float32)
    logits[3] = 6.0  # e^6 = 403, less than the 1490 times together
    found = next_log_probs(logits, [TIME + 10, 2], tokens)
    assert set(np.flatnonzero(np.isfinite(found))) == set(range(TIME + 11, TIME + 1501))
    logits[3] = 8.0  # e^8 = 2981
    assert int(next_log_probs(logits, [TIME + 10, 2], tokens).argmax()) == 3


@given(st.data())
def test_whatever_is_chosen_can_be_read(tokens: WhisperTokens, data: st.DataObject) -> None:
    """Times never go back, segments lie in the window, and something is always settled."""
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    said: list[int] = []
    ended = False
    for _ in range(data.draw(st.integers(2, 25))):
        token = int(next_log_probs(chance.normal(size=len(WORDS)) * 6, said, tokens).argmax())
        if token == tokens.end:
            ended = True
            break
        said.append(token)
    read = window_segments(said, 30.0, tokens, ended)
    edges = [edge for one in read.segments for edge in (one.start, one.end)]
    assert edges == sorted(edges)
    assert all(0 <= edge <= 30 for edge in edges)
    assert 0 <= read.settled <= 30


def at(seconds: float) -> int:
    return TIME + round(seconds * 50)


def test_what_an_answer_means(tokens: WhisperTokens) -> None:
    pair = [at(0), 2, at(4), at(5), 3, at(9), at(9), 4]
    # What follows the last pair is heard again, from there on.
    read = window_segments(pair, 30.0, tokens, True)
    assert read.segments == (Segment(0, 4, " one"), Segment(5, 9, " two"))
    assert read.settled == 9
    # A single time at the end: nothing more is said in the window.
    read = window_segments([*pair, at(12)], 30.0, tokens, True)
    assert read.segments[-1] == Segment(9, 12, " three")
    assert read.settled == 30
    # Cut off: what is behind the last pair does not count.
    assert window_segments([*pair, at(12)], 30.0, tokens, False).settled == 9
    # Without a pair all of it is one segment.
    assert window_segments([at(1), 2, 3], 8.0, tokens, True).segments == (
        Segment(1, 8, " one two"),
    )
    assert window_segments([at(0)], 8.0, tokens, True).segments == ()


def test_repetition_and_gaps_are_noticed() -> None:
    assert repetitive("thank you. " * 20) > 2.4
    assert repetitive("Mr. Quilter is the apostle of the middle classes, and we are glad") < 2.4
    assert repetitive("") == 0
    speech = np.random.default_rng(0).normal(size=20 * RATE).astype(np.float32)
    speech[8 * RATE : 12 * RATE] = 0
    loud = loud_seconds(speech, RATE)
    assert loud[-1] == pytest.approx(16, abs=0.1)
    words = "a sentence of eight seconds has a hundred letters or a few more than these, "
    both = (Segment(0, 8, words * 2), Segment(12, 20, words * 2))
    assert not thin(WindowSegments(both, 20), loud)
    assert thin(WindowSegments((Segment(0, 20, words * 2),), 20), loud)
    assert thin(WindowSegments((both[0], Segment(12, 20, " a word")), 20), loud)


def test_a_window_ends_in_the_quietest_place() -> None:
    samples = np.ones(10 * RATE, np.float32)
    samples[7 * RATE : 8 * RATE] = 0.01
    assert 7 * RATE < pause_in(samples, RATE, 6 * RATE) < 8 * RATE
    assert pause_in(samples, RATE, 10 * RATE - 100) == 10 * RATE


class Ear(Closeable):
    """Stands in for the three parts. A sound is a row of pulses, 2 s apart at the least; the
    answer tells for each pulse of a window when it was heard, by the token " one"."""

    label: Label = "onnx"
    bins, columns = 4, 3000

    def __init__(self, room: int = 40) -> None:
        self.script: list[int] = []
        self.room = room
        self.windows = 0
        self.outputs: tuple[TensorSpec, ...] = ()
        self.inputs: tuple[TensorSpec, ...] = ()

    def part(self, inputs: dict[str, tuple[int, ...]], outputs: Sequence[str], run: object) -> Ear:
        made = Ear()
        made.inputs = tuple(
            TensorSpec(
                name=name,
                shape=shape,
                dtype="int64" if name in ("token", "position") else "float32",
            )
            for name, shape in inputs.items()
        )
        made.outputs = tuple(TensorSpec(name=name, shape=(1,), dtype="float32") for name in outputs)
        made.run = run  # type: ignore[method-assign, assignment]
        return made

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        raise NotImplementedError

    def whisper(self, tokens: WhisperTokens, language: int | None = None) -> Whisper:
        def encode(arrays: Sequence[Array]) -> list[Array]:
            self.windows += 1
            level = arrays[0][0].mean(axis=0)
            loud = level > level.min() + 0.5 * (level.max() - level.min() + 1e-9)
            edges = np.flatnonzero(np.diff(np.r_[0, loud, 0])).reshape(-1, 2) / 100
            self.script = []
            for begin, end in edges:
                if end - begin > 0.3:  # not the rest of one that was heard before
                    self.script += [at(begin), 2, at(begin + 0.5)]
            return [np.zeros((1, 1), np.float32)]

        def embed(arrays: Sequence[Array]) -> list[Array]:
            return [np.array([[arrays[1][0]]], np.float32)]

        def decode(arrays: Sequence[Array]) -> list[Array]:
            number = int(arrays[0].item()) - 2
            logits = np.full(len(WORDS), -10, np.float32)
            logits[EN] = 5
            script = self.script or [TIME]
            logits[script[number] if 0 <= number < len(script) else END] = 30
            return [logits[None, None], np.full((1, 1, 1), float(number), np.float32)]

        return Whisper(
            self.part({"mel": (1, self.bins, self.columns)}, ["cross"], encode),
            self.part({"token": (1,), "position": (1,)}, ["x"], embed),
            self.part(
                {"x": (1, 1, 1), "mask": (1, 1, self.room + 1), "past_a": (1, self.room, 1)}
                | {"cross": (1, 1)},
                ["logits", "new_a"],
                decode,
            ),
            tokens,
            language,
        )


def pulses(begins: Sequence[float], seconds: float) -> Sound:
    samples = np.random.default_rng(1).normal(size=round(seconds * RATE)).astype(np.float32) * 1e-4
    for begin in begins:
        first = round(begin * RATE)
        samples[first : first + RATE // 2] += 0.5 * np.sin(0.4 * np.arange(RATE // 2))
    return Sound(samples, RATE)


@pytest.mark.parametrize("room", [40, 15])
def test_every_word_of_three_minutes_is_heard_once_and_in_its_place(
    room: int, tokens: WhisperTokens
) -> None:
    """`room`: where an answer is cut off, what it left out is heard with the next window."""
    begins = np.cumsum(np.random.default_rng(4).uniform(2, 6, size=44)) - 1.5
    ear = Ear(room)
    found = ear.whisper(tokens)(pulses(begins, begins[-1] + 2))
    assert len(found) == len(begins)
    times = np.array([(segment.start, segment.end) for segment in found.segments])
    np.testing.assert_allclose(times[:, 1], begins + 0.5, atol=0.15)
    if room == 40:  # else windows begin where a word still rings
        np.testing.assert_allclose(times[:, 0], begins, atol=0.15)
    assert found.language == "en"
    assert ear.windows < 60
    for segment in found.segments:
        assert segment.decoding is not None
        begin = segment.decoding.seek / 100
        assert begin - 0.01 <= segment.start < segment.end <= begin + 30
        assert segment.tokens[1] == 2, "what is said, behind its time"
        assert segment.decoding.temperature == 0
        assert -1 <= segment.decoding.avg_logprob <= 0


def test_silence_is_no_text(tokens: WhisperTokens) -> None:
    ear = Ear()
    found = ear.whisper(tokens)(Sound(np.zeros(40 * RATE, np.float32), RATE))
    assert (len(found), found.text, found.language, found.lines()) == (0, "", "", [])
    assert not ear.windows  # the real one hears "you" in it


SAID = Transcript((Segment(0, 1.5, " Hello."), Segment(3661.25, 3662, " Who's there?")), "en")


def test_transcripts_are_written_in_four_ways(tmp_path: Path) -> None:
    for suffix in (".txt", ".srt", ".vtt", ".json"):
        SAID.save(tmp_path / f"a{suffix}")
    assert (tmp_path / "a.txt").read_text() == "Hello.\nWho's there?\n"
    srt = (tmp_path / "a.srt").read_text()
    assert srt.startswith("1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n01:01:01,250 --> ")
    assert (tmp_path / "a.vtt").read_text().startswith("WEBVTT\n\n1\n00:00:00.000 --> ")
    document = json.loads((tmp_path / "a.json").read_text())
    assert (document["text"], document["language"]) == ("Hello. Who's there?", "en")
    how = Decoding(0, 0.2, -0.5, 1.5, 0.01)
    Transcript((Segment(0.1 + 0.2, 1.0, "a", (7, 8), how),)).save(tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["segments"] == [
        {"start": 0.3, "end": 1.0, "text": "a", "tokens": [7, 8]}
        | {"seek": 0, "temperature": 0.2, "avg_logprob": -0.5}
        | {"compression_ratio": 1.5, "no_speech_prob": 0.01}
    ]
    assert document["segments"][0] == {"start": 0, "end": 1.5, "text": "Hello."}
    with pytest.raises(RkzooError, match=r"\.txt, \.srt"):
        SAID.save(tmp_path / "a.docx")
    assert not (tmp_path / "a.docx").exists()
    assert SAID.lines()[1] == "01:01:01.250 - 01:01:02.000  Who's there?"
