"""The middle of a voice against plain loops, long inputs in pieces, and voices of made-up parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from rkzoo.contract.audio import VoiceHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.voice.chunks import PhoneticWord, fitting, halves, in_windows, windows
from rkzoo.tasks.voice.grapheme_to_phoneme import _SHAPES, SOUNDS, GraphemeToPhoneme
from rkzoo.tasks.voice.phonemizer import Phonemizer, ipa, read_lexicon
from rkzoo.tasks.voice.synthesize import (
    ChunkedSynthesizer,
    OneShotSynthesizer,
    TextToSpeech,
    lettered,
    phonetic,
)
from rkzoo.tasks.voice.timing import alignment, durations, symbols_of_frames

# ---- pieces ---------------------------------------------------------------------------


@given(st.integers(1, 900), st.integers(20, 64), st.integers(0, 9))
def test_windows_keep_everything_once_and_are_sure_of_it(
    length: int, size: int, margin: int
) -> None:
    found = windows(length, size, margin)
    kept = [at for _, first, last in found for at in range(first, last)]
    assert kept == list(range(length))
    for start, first, last in found:
        assert start <= first < last <= start + size
        assert start == 0 or first - start >= margin
        assert last == length or start + size - last >= margin
        assert start == 0 or start + size <= length


def test_a_filter_in_windows_is_the_filter() -> None:
    taps = np.random.default_rng(1).standard_normal(9)

    def whole(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.repeat(np.convolve(x[0, 0], taps, "same"), 3).astype(np.float32)

    given_ = np.random.default_rng(2).standard_normal((1, 1, 200)).astype(np.float32)
    np.testing.assert_allclose(in_windows(whole, given_, 32, 4, 3)[0], whole(given_), atol=1e-5)
    short = given_[..., :20]
    np.testing.assert_allclose(in_windows(whole, short, 32, 4, 3)[0], whole(short), atol=1e-5)


LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=40)


@given(LENGTHS, st.integers(3, 50))
def test_words_are_put_into_runs_that_fit_and_none_is_lost(
    lengths: list[tuple[int, bool]], room: int
) -> None:
    words = [PhoneticWord(tuple(range(n)), pause) for n, pause in lengths]
    runs = fitting(words, room)
    assert [s for run in runs for word in run for s in word.symbols] == [
        s for word in words for s in word.symbols
    ]
    assert all(0 < sum(len(word.symbols) for word in run) <= room for run in runs)


def test_a_run_ends_at_a_pause_where_one_is_late_enough() -> None:
    words = [
        PhoneticWord((1,) * 4),
        PhoneticWord((1,) * 4, True),
        PhoneticWord((1,) * 4),
        PhoneticWord((1,) * 4),
    ]
    assert [len(run) for run in fitting(words, 13)] == [2, 2]
    assert [len(run) for run in fitting(words, 16)] == [4]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9).filter(lambda n: sum(n) > 1))
def test_halves_are_both_something(lengths: list[int]) -> None:
    first, second = halves([PhoneticWord(tuple(range(n))) for n in lengths])
    ends = [sum(len(word.symbols) for word in half) for half in (first, second)]
    assert all(ends)
    assert sum(ends) == sum(lengths)


# ---- the middle -----------------------------------------------------------------------


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12),
    st.integers(0, 11),
    st.floats(0.25, 4),
)
def test_durations_and_alignment_are_those_of_plain_loops(
    logs: list[float], there: int, speed: float
) -> None:
    mask = np.array([float(at <= there) for at in range(len(logs))], np.float32)
    counts = durations(np.array(logs, np.float32).reshape(1, 1, -1), mask, speed)
    which = symbols_of_frames(counts)
    plain = []
    for at, value in enumerate(np.array(logs, np.float32)):
        frames = np.ceil(np.exp(value) * mask[at] / speed)
        plain += [at] * int(frames)
    assert which.tolist() == plain
    room = len(plain) + 3
    aligned = alignment(which, room, len(logs))
    assert aligned.shape == (1, 1, room, len(logs))
    # Monotonic: what upstream makes of cumulative sums.
    ends = np.cumsum(counts)
    for frame in range(room):
        for at in range(len(logs)):
            begins = 0 if at == 0 else ends[at - 1]
            assert aligned[0, 0, frame, at] == float(begins <= frame < ends[at])


def test_durations_that_are_no_numbers_are_refused() -> None:
    for bad in (np.nan, 1000.0):
        with pytest.raises(RkzooError, match="cannot say this"):
            durations(np.array([[[bad]]], np.float32), np.ones(1, np.float32), 1.0)
    assert durations(np.zeros((1, 1, 3), np.float32), np.zeros(3, np.float32), 1.0).sum() == 1


# ---- voices of made-up parts ----------------------------------------------------------


class Fake:
    """A session that computes with a function."""

    label = "onnx"

    def __init__(
        self, inputs: dict[str, tuple[int, ...]], outputs: Sequence[str], run: Callable[..., Any]
    ) -> None:
        self.inputs = tuple(
            TensorSpec(name=n, shape=s, dtype="int64" if "id" in n or n == "count" else "float32")
            for n, s in inputs.items()
        )
        self.outputs = tuple(TensorSpec(name=n, shape=(), dtype="float32") for n in outputs)
        self._run, self.calls = run, 0

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        self.calls += 1
        return [np.asarray(array, np.float32) for array in self._run(*arrays)]

    def close(self) -> None: ...

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None: ...


PART = Contract(family="part", head=TensorsHead())
SYMBOLS, FRAMES, HOP = 41, 60, 4
LETTERS = ("_", *"abcdefghijklmnopqrstuvwxyz", " ", "'")
HEAD = VoiceHead(rate=16000, hop=HOP)


def mms(frames_a_symbol: float = 2) -> dict[str, tuple[Contract, Fake]]:
    """The interface of the MMS voice: each symbol lasts `frames_a_symbol`, and sounds as its
    number."""

    def encode(ids: Any, mask: Any) -> list[Any]:
        logs = np.full((1, 1, SYMBOLS), np.log(frames_a_symbol) - 1e-3)
        return [logs, mask[:, None], np.repeat(ids[..., None], 3, 2), np.zeros((1, SYMBOLS, 3))]

    def decode(aligned: Any, there: Any, means: Any, spread: Any) -> list[Any]:
        frames = (aligned[0, 0] @ means[0])[:, 0] * there[0, 0]
        return [np.repeat(frames, HOP)[None] / 100]

    encoder = Fake(
        {"input_ids": (1, SYMBOLS), "mask_ids": (1, SYMBOLS)}, ("d", "m", "mu", "s"), encode
    )
    decoder = Fake(
        {"attn": (1, 1, FRAMES, SYMBOLS), "there": (1, 1, FRAMES), "mu": (1, SYMBOLS, 3),
         "s": (1, SYMBOLS, 3)}, ("wave",), decode,
    )  # fmt: skip
    return {"encoder": (PART, encoder), "decoder": (PART, decoder)}


def numbers(text: str) -> list[int]:
    return [LETTERS.index(char) for char in text]


def read_off(samples: Any) -> list[int]:
    """The symbols that sound, each once: blanks (0) between tell repeats apart."""
    values = np.rint(samples * 100).astype(int).tolist()
    return [b for a, b in zip([0, *values], values, strict=False) if b != a and b]


def test_a_sentence_sounds_as_its_letters_one_after_another() -> None:
    mouth = OneShotSynthesizer(HEAD, mms())
    samples = mouth(numbers("hello"), 1.0)
    assert samples is not None
    plain = []  # blank, letter, blank, ...: two frames each
    for symbol in [0, *(n for letter in numbers("hello") for n in (letter, 0))]:
        plain += [symbol / 100] * (2 * HOP)
    np.testing.assert_allclose(samples, plain, atol=1e-6)


@settings(max_examples=20)
@given(st.lists(st.text("abcdefgh", min_size=1, max_size=30), min_size=1, max_size=30))
def test_text_of_any_length_is_spoken_whole(words: list[str]) -> None:
    text = " ".join(words)
    spoken = TextToSpeech(HEAD, OneShotSynthesizer(HEAD, mms()), lettered(LETTERS))(text)
    assert read_off(spoken.sound.samples) == numbers(text)


def test_what_lasts_too_long_at_once_is_said_in_two() -> None:
    parts = mms(3)
    text = "one two three four"
    spoken = TextToSpeech(HEAD, OneShotSynthesizer(HEAD, parts), lettered(LETTERS))(text)
    assert read_off(spoken.sound.samples) == numbers(text)
    assert parts["decoder"][1].calls == 3
    with pytest.raises(RkzooError, match="higher --speed"):
        TextToSpeech(HEAD, OneShotSynthesizer(HEAD, mms(100)), lettered(LETTERS))("a")


def test_speed_divides_the_durations() -> None:
    normal = OneShotSynthesizer(HEAD, mms(4))(numbers("abc"), 1.0)
    fast = OneShotSynthesizer(HEAD, mms(4))(numbers("abc"), 2.0)
    assert normal is not None
    assert fast is not None
    assert len(normal) == 2 * len(fast) == 7 * 4 * HOP
    for speed in (0.0, -1.0, 9.0, float("nan")):
        with pytest.raises(RkzooError, match="speed"):
            TextToSpeech(HEAD, OneShotSynthesizer(HEAD, mms()), lettered(LETTERS), speed)


def test_times_and_what_was_not_spoken() -> None:
    spoken = TextToSpeech(HEAD, OneShotSynthesizer(HEAD, mms()), lettered(LETTERS))(
        "Hi. Zoë 你 said so!"
    )
    first, second = spoken.sentences
    assert first.end == pytest.approx(2 * 5 * HOP / 16000)
    assert second.start == pytest.approx(first.end + 0.2)
    assert second.end == pytest.approx(spoken.sound.seconds)
    assert second.unspoken == "你"
    assert "你" in spoken.lines()[-1]
    assert len(spoken.to_json()) == len(spoken) == 2
    with pytest.raises(RkzooError, match="nothing in this text"):
        TextToSpeech(HEAD, OneShotSynthesizer(HEAD, mms()), lettered(LETTERS))("你好")


def piper(window: int = 96, symbols: int = 83) -> dict[str, tuple[Contract, Fake]]:
    """The interface of a piper voice, without noise: each symbol lasts two frames."""

    def encode(ids: Any, count: Any, noise: Any) -> list[Any]:
        mask = (np.arange(symbols) < count)[None, None]
        means = np.repeat(ids[:, None], 2, 1)
        return [np.full((1, 1, symbols), np.log(2) - 1e-3), mask, means, np.zeros((1, 2, symbols))]

    encoder = Fake(
        {"ids": (1, symbols), "count": (1,), "noise": (1, 2, symbols)},
        ("d", "m", "mu", "s"),
        encode,
    )
    flow = Fake({"z": (1, 2, window), "there": (1, 1, window)}, ("h",), lambda z, m: [z * m])
    sound = Fake({"h": (1, 2, 32)}, ("wave",), lambda h: [np.repeat(h[0, 0], HOP) / 100])
    return {"encoder": (PART, encoder), "flow": (PART, flow), "vocoder": (PART, sound)}


def test_a_voice_in_windows_loses_nothing() -> None:
    head = VoiceHead(rate=22050, hop=HOP, noise=0.0)
    mouth = ChunkedSynthesizer(head, piper())
    samples = mouth([7, 9, 11] * 13, 1.0)
    ids = [1, *(n for symbol in [7, 9, 11] * 13 for n in (0, symbol)), 0, 2]
    np.testing.assert_allclose(samples, np.repeat(ids, 2 * HOP) / 100, atol=1e-6)
    noisy = ChunkedSynthesizer(VoiceHead(rate=22050, hop=HOP), piper())
    first, second = noisy([5, 6], 1.0), noisy([5, 6], 1.0)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - mouth([5, 6], 1.0)).max() > 1e-3


# ---- words to sounds ------------------------------------------------------------------

LEXICON = """## a comment
THE  DH AH0
APPLE  AE1 - P AH0 L
DOG  D AO1 G
READ  R EH1 D
READ(2)  R IY1 D
N  EH1 N
P  P IY1
U  Y UW1
BUS  B AH1 S
"""


@pytest.fixture
def guesser(tmp_path: Path) -> GraphemeToPhoneme:
    noise = np.random.default_rng(3)
    arrays = {n: noise.standard_normal(s).astype(np.float32) / 9 for n, s in _SHAPES.items()}
    np.savez(tmp_path / "net.npz", **arrays)
    return GraphemeToPhoneme(tmp_path / "net.npz")


def test_words_are_looked_up_spelled_or_guessed(tmp_path: Path, guesser: GraphemeToPhoneme) -> None:
    (tmp_path / "lexicon").write_text(LEXICON)
    say = Phonemizer(read_lexicon(tmp_path / "lexicon"), guesser)
    assert say(("the", "dog", ",", "the", "apple", ".")) == ["ðə", "dˈɔːɡ,", "ðɪ", "ˈæpəl."]
    assert say.sounds("read") == ["R", "EH1", "D"]
    assert say.sounds("dog's") == ["D", "AO1", "G", "Z"]
    assert say.sounds("bus's")[-2:] == ["IH0", "Z"]
    assert ipa(say.sounds("NPU")) == "ˈɛnpˈiːjˈuː"
    assert say.sounds("zzz") == guesser("zzz")
    spell = phonetic({"d": [5], "ˈ": [6], "ɔ": [7], "ː": [8], " ": [3], ",": [4]}, say)
    words, lost = spell(("dog", ","))
    assert words == [PhoneticWord((5, 6, 7, 8, 4), True)]
    assert lost == "ɡ"


def test_the_guess_is_that_of_onnx_runtimes_gru(guesser: GraphemeToPhoneme) -> None:
    """Greedy decoding with ONNX's own GRU (gates z, r, h; reset after the product)."""
    w = guesser._w

    def gru(side: str) -> onnxruntime.InferenceSession:
        def gates(array: Any) -> Any:
            reset, update, new = np.split(array, 3)
            return np.concatenate([update, reset, new])[None]

        weights = {
            "W": gates(w[f"{side}_w_ih"]),
            "R": gates(w[f"{side}_w_hh"]),
            "B": np.concatenate([gates(w[f"{side}_b_ih"]), gates(w[f"{side}_b_hh"])], axis=1),
        }
        node = helper.make_node(
            "GRU", ["x", "W", "R", "B", "", "h"], ["", "y"], hidden_size=256, linear_before_reset=1
        )
        graph = helper.make_graph(
            [node],
            "g",
            [
                helper.make_tensor_value_info("x", 1, ["n", 1, 256]),
                helper.make_tensor_value_info("h", 1, [1, 1, 256]),
            ],
            [helper.make_tensor_value_info("y", 1, [1, 1, 256])],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        onnx.checker.check_model(model)
        return onnxruntime.InferenceSession(model.SerializeToString())

    encoder, decoder = gru("enc"), gru("dec")
    for word in ("zoo", "rockchip"):
        letters = [ord(char) - ord("a") + 3 for char in word] + [2]
        zero = np.zeros((1, 1, 256), np.float32)
        (state,) = encoder.run(None, {"x": w["enc_emb"][letters][:, None], "h": zero})
        plain: list[str] = []
        last = 2
        for _ in range(60):
            (state,) = decoder.run(None, {"x": w["dec_emb"][[last]][:, None], "h": state})
            last = int((w["fc_w"] @ state[0, 0] + w["fc_b"]).argmax())
            if last == 3:
                break
            plain += [SOUNDS[last - 4]] if last > 3 else []
        assert guesser(word) == plain


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(RkzooError, match="cannot be used"):
        GraphemeToPhoneme(tmp_path / "x")
    np.savez(tmp_path / "y.npz", **{n: np.zeros(2) for n in _SHAPES})
    with pytest.raises(RkzooError, match="shape"):
        GraphemeToPhoneme(tmp_path / "y.npz")
    for text in ("", "hello\n", "WORD  XX YY\n"):
        (tmp_path / "lexicon").write_text(text)
        with pytest.raises(RkzooError, match="not a pronouncing dictionary"):
            read_lexicon(tmp_path / "lexicon")
