"""Speech and classes in sounds of any length, against plain loops."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import SoundHead, VoiceActivityHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.view import run
from rkzoo.tasks.sound.classification import SoundClassifier, window_starts
from rkzoo.tasks.sound.voice_activity import VoiceActivityDetector, spans, steps
from rkzoo.workflow.request.importers.yamnet import named


class Fake:
    """A session that computes with a function."""

    label = "onnx"

    def __init__(self, shapes: Sequence[tuple[int, ...]], outputs: int, run: Callable[..., Any]):
        self.inputs = tuple(
            TensorSpec(name=f"in{n}", shape=shape, dtype="float32")
            for n, shape in enumerate(shapes)
        )
        self.outputs = tuple(
            TensorSpec(name=f"out{n}", shape=(), dtype="float32") for n in range(outputs)
        )
        self.run = lambda arrays: [np.asarray(array, np.float32) for array in run(*arrays)]

    def close(self) -> None: ...

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None: ...


HEAD = VoiceActivityHead(rate=1000, step=10, context=4, silence=0.05, shortest=0.02, pad=0.005)


@given(st.integers(1, 200))
def test_steps_go_through_all_samples_with_what_was_before(count: int) -> None:
    samples = np.arange(1, count + 1, dtype=np.float32)
    found = list(steps(samples, 10, 4))
    assert len(found) == -(-count // 10)
    for number, piece in enumerate(found):
        for at in range(14):
            sample = number * 10 + at - 4
            assert piece[at] == (samples[sample] if 0 <= sample < count else 0)


@given(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.9]), max_size=60))
def test_spans_are_those_of_a_plain_walk(values: list[float]) -> None:
    seconds = len(values) * 0.01
    plain = []
    start = None
    for at, value in enumerate([*values, *[0.0] * 5]):
        if start is None:
            if value >= 0.5:
                start, last = at, at
        elif value >= 0.35:
            last = at
        elif at - last >= 5:
            plain.append((start, last + 1))
            start = None
    plain = [(a, b) for a, b in plain if b - a >= 2]
    found = spans(np.array(values, np.float32), HEAD, seconds)
    assert len(found) == len(plain)
    for (first, last_), (a, b) in zip(found, plain, strict=True):
        assert max(a * 0.01 - 0.005, 0) == pytest.approx(first)
        assert min(b * 0.01 + 0.005, seconds) == pytest.approx(last_)


def test_the_state_is_carried_and_speech_is_found_wherever_it_is(tmp_path: Path) -> None:
    """A detector that remembers how loud it was: half of the new, half of the old."""

    def listen(samples: Any, state: Any) -> list[Any]:
        loud = (state + np.abs(samples[:, 4:]).max()) / 2
        return [loud.reshape(1, 1), loud]

    finder = VoiceActivityDetector(
        Contract(family="vad", head=HEAD), Fake([(1, 14), (1, 1)], 2, listen)
    )
    samples = np.zeros(60_005, np.float32)
    samples[59_900:59_960] = 1
    samples[1_000:1_100] = 1
    state = 0.0
    expected = []
    for at in range(0, len(samples), 10):
        state = (state + float(samples[at : at + 10].max())) / 2
        expected.append(state)
    np.testing.assert_allclose(finder.probabilities(samples), expected, atol=1e-6)
    found = finder(Sound(samples, 1000))
    assert [round(one.start, 3) for one in found.stretches] == [0.995, 59.895]
    assert found.stretches[0].end == pytest.approx(1.115)
    assert found.stretches[0].score == pytest.approx(1, abs=1e-2)
    found.save(tmp_path / "x.csv")
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert [row["start"] for row in rows] == ["0.995", "59.895"]
    assert len(found.lines()) == 3
    silent = finder(Sound(np.zeros(50, np.float32), 1000))
    assert not len(silent)
    assert silent.lines() == []


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(1, 300))
def test_windows_cover_every_sample(length: int, size: int, hop: int) -> None:
    hop = min(hop, size)
    starts = window_starts(length, size, hop)
    assert starts == [n * hop for n in range(len(starts))]
    assert starts[-1] + size >= length
    assert len(starts) == 1 or starts[-2] + size < length


def classifier(rows: int = 1) -> SoundClassifier:
    """Two parts: samples doubled, then the mean of each row's positive and negative part."""
    front = Fake([(1, 40)], 1, lambda x: [2 * x])

    def scores(x: Any) -> list[Any]:
        rows_ = x.reshape(rows, -1)
        return [
            np.zeros(3),
            np.stack([np.maximum(rows_, 0).mean(1), np.maximum(-rows_, 0).mean(1)], 1),
        ]

    head = SoundHead(classes=2, rate=1000, hop=20, scores=1)
    return SoundClassifier(head, ("up", "down"), [front, Fake([(1, 1, 40)], 2, scores)])


def test_the_timeline_and_the_top_of_a_long_sound(tmp_path: Path) -> None:
    samples = np.concatenate([np.full(100, 0.3), np.full(110, -0.4)]).astype(np.float32)
    heard = classifier()(Sound(samples, 1000))
    assert len(heard) == len(window_starts(210, 40, 20)) == 10
    up, down = heard.timeline
    assert (up.label, up.start, up.end) == ("up", 0.0, 0.1)
    assert (down.label, down.start, down.end) == ("down", 0.08, 0.21)
    assert down.score == pytest.approx(0.8)
    assert [label for label, _ in heard.top()] == ["down", "up"]
    mean = np.mean([max(0, 2 * samples[s : s + 40].clip(0).sum() / 40) for s in range(0, 200, 20)])
    assert dict(heard.top())["up"] == pytest.approx(mean, abs=1e-6)
    heard.save(tmp_path / "y.csv")
    assert (tmp_path / "y.csv").read_text().splitlines()[1] == "0.0,0.1,up,0.6"
    (document,) = heard.to_json()
    assert len(document["timeline"]) == 2


def test_rows_of_silence_behind_a_short_sound_do_not_count() -> None:
    loud = classifier(rows=4).window(np.full(20, 0.5, np.float32))
    np.testing.assert_allclose(loud, [1.0, 0.0])


def test_classes_need_their_names() -> None:
    with pytest.raises(RkzooError, match="521 classes but 2 labels"):
        SoundClassifier(SoundHead(classes=521), ("a", "b"), [Fake([(1, 4)], 1, lambda x: [x])])


def yamnet(outputs: int = 521) -> onnx.ModelProto:
    """A spectrogram, a convolution and scores, under names as an exporter makes them."""
    weights = np.random.default_rng(0).standard_normal((outputs, 1, 4, 4)).astype(np.float32)
    shape = np.array([1, 1, 4, 4])
    nodes = [
        helper.make_node("Reshape", ["x;y", "shape"], ["mel"]),
        helper.make_node("Abs", ["mel"], ["a:0"]),
        helper.make_node("Conv", ["a:0", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["Identity"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x;y", 1, [1, 16])],
        [
            helper.make_tensor_value_info("Identity", 1, [1, outputs]),
            helper.make_tensor_value_info("mel", 1, [1, 1, 4, 4]),
        ],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(shape, "shape")],
        value_info=[helper.make_tensor_value_info("a:0", 1, [1, 1, 4, 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_yamnets_parts_are_found_by_structure() -> None:
    given_ = np.random.default_rng(1).standard_normal((1, 16)).astype(np.float32)
    before = run(yamnet(), {"x;y": given_})[0]
    made = named(yamnet())
    onnx.checker.check_model(made)
    assert [info.name for info in made.graph.output] == ["scores"]
    np.testing.assert_array_equal(run(made, {"waveform": given_})[0], before)
    assert "patches" in {name for node in made.graph.node for name in node.input}
    with pytest.raises(RkzooError, match="not YAMNet"):
        named(yamnet(7))
