"""CTC and transducer speech on small graphs with the interfaces of the real ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rkzoo.audio.fbank import RATE, fbank
from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import CtcSpeechHead, StackedFeatures, TransducerHead
from rkzoo.contract.inputs import ArrayInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.speech.ctc import CtcRecognizer, normalised
from rkzoo.tasks.speech.transducer import TransducerRecognizer, read_pieces
from rkzoo.tasks.speech.words import TimedToken, segments_of
from rkzoo.zoo.catalogue import card

LABELS = ("<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A")
HOP = 320


def graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, ...]],
    outputs: list[str],
    constants: dict[str, np.ndarray],
    integers: tuple[str, ...] = (),
) -> OnnxSession:
    kinds = {name: TensorProto.INT64 for name in integers}
    made = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None)
            for name in outputs
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return OnnxSession(model.SerializeToString())


def letters(size: int) -> OnnxSession:
    """1xN to 1xTx8: the class of a step is the level of its sound, in tenths; as with
    wav2vec 2.0 a step sees 400 samples, so there is one less than the sound has hops."""
    kernel = np.zeros((1, 1, 400), np.float32)
    kernel[0, 0, :HOP] = 10 / HOP
    return graph(
        [
            helper.make_node("Unsqueeze", ["input", "one"], ["wide"]),
            helper.make_node("Conv", ["wide", "kernel"], ["level"], strides=[HOP]),
            helper.make_node("Transpose", ["level"], ["column"], perm=[0, 2, 1]),
            helper.make_node("Sub", ["column", "classes"], ["apart"]),
            helper.make_node("Abs", ["apart"], ["far"]),
            helper.make_node("Neg", ["far"], ["output"]),
        ],
        {"input": (1, size)},
        ["output"],
        {
            "one": np.array([1]),
            "kernel": kernel,
            "classes": np.arange(8, dtype=np.float32).reshape(1, 1, 8),
        },
    )


def reader(size: int, normal: bool = False) -> CtcRecognizer:
    contract = Contract(
        family="wav2vec2",
        head=CtcSpeechHead(normalised=normal),
        labels=LABELS,
        others=(ArrayInput(name="input", shape=(1, size)),),
    )
    return CtcRecognizer(contract, letters(size))


def levels(classes: list[int]) -> Sound:
    return Sound(np.repeat(np.array(classes, np.float32) / 10, HOP), RATE)


def spoken(classes: list[int]) -> str:
    """By the letter: each run of a class is one character, blanks and brackets are none."""
    text, before = "", 0
    for one in classes:
        if one != before and one >= 4:
            text += LABELS[one]
        before = one
    return " ".join(text.replace("|", " ").split())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=150),
    st.sampled_from([30, 64, 200]),
)
def test_a_sound_of_any_length_is_read_once(classes: list[int], window: int) -> None:
    classes = [*classes, 0]
    found = reader(window * HOP)(levels(classes))
    assert found.text == spoken(classes)


def test_words_have_times_and_pauses_part_segments() -> None:
    classes = [0] * 10 + [6, 6, 0, 5, 5, 4, 7, 0] + [0] * 80 + [4, 6, 0]
    found = reader(64 * HOP)(levels(classes))
    assert found.text == "TE A T"
    assert [segment.text for segment in found.segments] == [" TE A", " T"]
    assert found.segments[0].start == pytest.approx(0.2)
    assert found.segments[1].start == pytest.approx(99 * 0.02)


def test_the_sound_is_fed_as_upstream_feeds_it() -> None:
    chance = np.random.default_rng(0)
    samples = (chance.normal(size=5000) * 0.01 + 0.3).astype(np.float32)
    found = normalised(samples)
    assert abs(found.mean()) < 1e-5
    # By its definition: variance and 1e-7 under one root.
    assert found.std() == pytest.approx(0.01 / np.sqrt(1e-4 + 1e-7), rel=0.02)
    assert np.isfinite(normalised(np.zeros(10, np.float32))).all()


def test_other_characters_are_refused() -> None:
    contract = Contract(family="wav2vec2", head=CtcSpeechHead(), labels=LABELS[:5])
    with pytest.raises(RkzooError, match="for 5 characters"):
        CtcRecognizer(contract, letters(3200))(levels([1, 2]))


# ---- transducer ---------------------------------------------------------------------

BINS, SEGMENT, STEP, WIDTH, TOKENS = 80, 103, 4, 6, 7
PIECES = ["<blk>", "<sos/eos>", "<unk>", "▁AS", "K", "你", "好"]


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(8)
    return {
        "mix": chance.normal(size=(BINS, WIDTH)).astype(np.float32) * 0.05,
        "table": chance.normal(size=(TOKENS, WIDTH)).astype(np.float32),
        "out": chance.normal(size=(WIDTH, TOKENS)).astype(np.float32) * 2,
    }


@pytest.fixture(scope="module")
def transducer(weights: dict[str, np.ndarray]) -> TransducerRecognizer:
    """24 frames of every fourth of the first 96, plus half of what the segment before ended
    with: so a cache that is lost or late shows."""
    encoder = graph(
        [
            helper.make_node("MatMul", ["x", "mix"], ["mixed"]),
            helper.make_node("Slice", ["mixed", "from", "to", "axis", "by"], ["every"]),
            helper.make_node("Mul", ["cached_avg_0", "half"], ["before"]),
            helper.make_node("Add", ["every", "before"], ["encoder_out"]),
            helper.make_node("Slice", ["every", "last", "to", "axis"], ["new_cached_avg_0"]),
            helper.make_node("Add", ["cached_len_0", "count"], ["new_cached_len_0"]),
        ],
        {"x": (1, SEGMENT, BINS), "cached_len_0": (1, 1), "cached_avg_0": (1, 1, WIDTH)},
        # Not in the order of the inputs.
        ["encoder_out", "new_cached_avg_0", "new_cached_len_0"],
        {
            "mix": weights["mix"],
            "half": np.array(0.5, np.float32),
            "from": np.array([0]),
            "to": np.array([96]),
            "axis": np.array([1]),
            "by": np.array([STEP]),
            "last": np.array([23]),
            "count": np.array([[24]]),
        },
        integers=("cached_len_0", "new_cached_len_0"),
    )
    decoder = graph(
        [
            helper.make_node("Gather", ["table", "y"], ["rows"]),
            helper.make_node("ReduceMax", ["rows"], ["decoder_out"], axes=[1], keepdims=0),
        ],
        {"y": (1, 2)},
        ["decoder_out"],
        {"table": weights["table"]},
        integers=("y",),
    )
    joiner = graph(
        [
            helper.make_node("Add", ["encoder_out", "decoder_out"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["squeezed"]),
            helper.make_node("MatMul", ["squeezed", "out"], ["logit"]),
        ],
        {"encoder_out": (1, WIDTH), "decoder_out": (1, WIDTH)},
        ["logit"],
        {"out": weights["out"]},
    )
    return TransducerRecognizer(encoder, decoder, joiner, TransducerHead(), dict(enumerate(PIECES)))


def by_hand(samples: np.ndarray, weights: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """(step, token) of the greedy search, in plain loops over the whole sound."""
    frames = fbank(np.concatenate((samples, np.zeros(3 * RATE, np.float32))))
    count = (len(samples) + 80) // 160
    said, found, before, step = [0, 0], [], np.zeros(WIDTH), 0
    for first in range(0, count, 96):
        mixed = frames[first : first + SEGMENT] @ weights["mix"]
        for row in range(0, 96, STEP):
            heard = mixed[row] + 0.5 * before
            context = np.maximum(weights["table"][said[-2]], weights["table"][said[-1]])
            token = int((np.tanh(heard + context) @ weights["out"]).argmax())
            if token not in (0, 2):
                said.append(token)
                found.append((step, token))
            step += 1
        before = mixed[23 * STEP]
    return found


def sound(seconds: float) -> np.ndarray:
    chance = np.random.default_rng(6)
    time = np.arange(round(seconds * RATE)) / RATE
    loud = 0.2 * (1 + np.sin(2 * np.pi * 1.3 * time))
    return (loud * chance.normal(size=len(time))).astype(np.float32)


def test_what_it_remembers_and_says_is_what_loops_say(
    transducer: TransducerRecognizer, weights: dict[str, np.ndarray]
) -> None:
    samples = sound(4.3)
    found = transducer(Sound(samples, RATE))
    wanted = by_hand(samples, weights)
    assert len({token for _, token in wanted}) > 2
    text = "".join(PIECES[token] for _, token in wanted).replace("▁", " ").strip()
    assert found.text == text
    assert found.segments[0].start == pytest.approx(wanted[0][0] * 0.04)


def test_pieces_of_a_sound_say_what_the_whole_says(transducer: TransducerRecognizer) -> None:
    samples = sound(4.3)
    stream = transducer.stream()
    heard = [""]
    for first in range(0, len(samples), 1111):
        stream.accept(samples[first : first + 1111])
        heard.append(stream.transcript().text)
    assert len(set(heard)) > 2  # it tells while it hears
    assert all(later.startswith(now) for now, later in pairwise(heard))
    stream.finish()
    assert stream.transcript() == transducer(Sound(samples, RATE))


def test_an_encoder_that_forgets_is_one_sentence(transducer: TransducerRecognizer) -> None:
    forgetful = graph(
        [helper.make_node("Identity", ["x"], ["encoder_out"])],
        {"x": (1, SEGMENT, BINS), "cached_len_0": (1, 1)},
        ["encoder_out"],
        {},
    )
    broken = TransducerRecognizer(
        forgetful, transducer.decoder, transducer.joiner, transducer.head, transducer.pieces
    )
    with pytest.raises(RkzooError, match="does not give back cached_len_0"):
        broken(Sound(sound(2), RATE))


def test_a_vocabulary_of_pieces(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("<blk> 0\n▁AS 3\n 6256\n\n你 7\n", encoding="utf-8")
    assert read_pieces(tmp_path / "v.txt") == {0: "<blk>", 3: "▁AS", 6256: "", 7: "你"}
    (tmp_path / "v.txt").write_text("no number\n")
    with pytest.raises(RkzooError, match="not a vocabulary"):
        read_pieces(tmp_path / "v.txt")


def test_pauses_part_segments() -> None:
    pieces = [TimedToken(0, 0.1, " a"), TimedToken(0.9, 1, "b"), TimedToken(2.2, 2.3, " c")]
    assert [(s.start, s.end, s.text) for s in segments_of(pieces)] == [
        (0, 1, " ab"),
        (2.2, 2.3, " c"),
    ]


def test_the_cards_say_what_the_files_take() -> None:
    """36 inputs in the order of the original, what they remember 35 times."""
    names = [one.name for one in card("zipformer-zh-en-encoder").arrays]
    assert len(names) == len(set(names)) == 36
    assert (names[0], names[6], names[11], names[35]) == (
        "x",
        "cached_avg_0",
        "cached_key_0",
        "cached_conv2_4",
    )
    assert len(card("wav2vec2-base-960h").labels) == 32


class Echo:
    """SenseVoice's interface; the class of a step is the first number of its row."""

    label = "onnx"

    def __init__(self, rows: int, classes: int) -> None:
        self._classes = classes
        self.inputs = tuple(
            TensorSpec(name=name, shape=shape, dtype=dtype)
            for name, shape, dtype in (
                ("speech", (1, rows, 4), "float32"),
                ("mask", (1, rows + 4), "float32"),
                ("language", (1,), "int64"),
                ("form", (1,), "int64"),
            )
        )
        self.outputs = (TensorSpec(name="s", shape=(1, rows + 4, classes), dtype="float32"),)
        self.seen: list[tuple[int, int, int]] = []

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        speech, mask, language, form = arrays
        self.seen.append((int(mask.sum()) - 4, int(language[0]), int(form[0])))
        steps = np.concatenate(([1, 2, 3, 4], speech[0, :, 0])).astype(int)
        return [np.eye(self._classes, dtype=np.float32)[steps][None]]


@pytest.mark.parametrize("count", [1, 50, 60, 61, 200])
def test_features_of_any_length_are_read_once_and_padding_is_told(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    labels = ("<blank>", "<|en|>", "<|HAPPY|>", "<|Speech|>", "<|withitn|>", "▁", "▁a", "好", "b")
    classes = np.random.default_rng(count).integers(5, 9, count)
    classes[1::2] = 0  # so that no two are the same
    rows = np.zeros((count, 4), np.float32)
    rows[:, 0] = 2 * classes - 7
    monkeypatch.setattr("rkzoo.tasks.speech.ctc.stacked_fbank", lambda *_: rows)
    head = CtcSpeechHead(
        hop=960,
        divider="▁",
        features=StackedFeatures(bins=2, stack=2, shift=(7.0,) * 4, scale=(0.5,) * 4),
        leading=4,
        languages={"auto": 0, "en": 4},
        form=14,
    )
    session = Echo(60, len(labels))
    contract = Contract(family="sensevoice", head=head, labels=labels)
    found = CtcRecognizer(contract, session, "en")(Sound(np.zeros(9, np.float32), RATE))
    wanted = "".join(labels[one] for one in classes if one >= 5).replace("▁", " ")
    assert " ".join(found.text.split()) == " ".join(wanted.split())
    assert (found.language, found.emotion, found.event) == ("en", "HAPPY", "Speech")
    assert {seen[1:] for seen in session.seen} == {(4, 14)}
    assert session.seen[-1][0] <= 60
    assert session.seen[0][0] == min(count, 60)
    if found.segments:
        assert found.lines()[0] == "language en, emotion HAPPY, event Speech"
        assert found.to_json()[0]["emotion"] == "HAPPY"
