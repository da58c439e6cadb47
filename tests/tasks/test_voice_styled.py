"""Kokoro's symbols, styles and padding, on a small graph with the interface of the real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.audio import VoiceHead
from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.graph.from_weights.kokoro import make_kokoro
from rkzoo.graph.onnx.subgraph import part
from rkzoo.progress import SILENT
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.voice.styled import StyledSynthesizer, misaki, read_styles, read_symbols

HEAD = VoiceHead(rate=24000, hop=3, voice="b")
SYMBOLS = 10


def kokoro() -> onnx.ModelProto:
    """A sample for each token and each of three places: its id plus the style's first number; as
    many frames as the id divided by the speed, at least one."""
    nodes = [
        helper.make_node("Cast", ["tokens"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["style", "zero", "one", "one"], ["first"]),
        helper.make_node("Add", ["ids", "first"], ["level"]),
        helper.make_node("Unsqueeze", ["level", "one"], ["column"]),
        helper.make_node("Expand", ["column", "hop"], ["wide"]),
        helper.make_node("Transpose", ["wide"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["turned", "flat"], ["audio"]),
        helper.make_node("Div", ["ids", "speed"], ["long"]),
        helper.make_node("Mul", ["long", "none"], ["short"]),
        helper.make_node("Round", ["short"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "least"], ["frames"]),
        helper.make_node("ReduceSum", ["frames"], ["unused"], keepdims=0),
    ]
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "hop": np.array([1, 3, 1]),
        "flat": np.array([-1]),
        "none": np.array(0.0, np.float32),
        "least": np.array(1.0, np.float32),
    }
    shapes = {"tokens": [1, "n"], "style": [1, 4], "speed": [1]}
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name == "tokens" else TensorProto.FLOAT, shape
            )
            for name, shape in shapes.items()
        ],
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["samples"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.fixture
def made(tmp_path: Path) -> onnx.ModelProto:
    data = kokoro().SerializeToString()
    files = {}
    for role, start, end in (("model", 0, 100), ("part2", 100, 300), ("part3", 300, None)):
        files[role] = tmp_path / role
        files[role].write_bytes(data[start:end])
    files["voices"] = tmp_path / "model"
    make_kokoro(files, tmp_path / "out.onnx", SILENT)
    return onnx.load(tmp_path / "out.onnx")


def test_parts_are_joined_and_give_durations(made: onnx.ModelProto) -> None:
    fed = {
        "tokens": np.array([[0, 5, 6, 0]]),
        "style": np.full((1, 4), 0.5, np.float32),
        "speed": np.ones(1, np.float32),
    }
    session = onnxruntime.InferenceSession(made.SerializeToString())
    audio, frames = session.run(None, fed)
    before = onnxruntime.InferenceSession(kokoro().SerializeToString())
    assert np.array_equal(audio, before.run(None, fed)[0])
    assert frames.tolist() == [1, 1, 1, 1]


def test_what_is_said_for_padding_is_left_out(made: onnx.ModelProto) -> None:
    arrays = (
        ArrayInput(name="tokens", shape=(1, SYMBOLS), dtype="int64"),
        ArrayInput(name="style", shape=(1, 4)),
        ArrayInput(name="speed", shape=(1,)),
    )
    session = OnnxSession(part(made, arrays).SerializeToString())
    contract = Contract(family="kokoro", head=TensorsHead(), others=arrays)
    styles = np.arange(6, dtype=np.float32)[:, None].repeat(4, axis=1) / 10
    mouth = StyledSynthesizer(HEAD, {"network": (contract, session)}, styles)
    assert mouth.max_symbols == 6
    found = mouth([5, 7, 9], 1.0)
    assert found is not None
    # The style of three symbols is the third.
    np.testing.assert_allclose(found, np.repeat([0, 5, 7, 9, 0], 3) + 0.2, atol=1e-6)


def test_words_are_spelled_as_the_network_was_trained() -> None:
    spelled = misaki(lambda words: ["dʒˈʌdʒ", "tʃˈɜːtʃ", "lˈeɪzi", "aɪ", "oʊvɚ"])(())
    assert spelled == ["ʤˈʌʤ", "ʧˈɜɹʧ", "lˈAzi", "I", "Ovəɹ"]


def test_symbols_and_styles_are_read_and_damage_is_told(tmp_path: Path) -> None:
    symbols, voices = tmp_path / "vocab.json", tmp_path / "voices.npz"
    symbols.write_text(json.dumps({"vocab": {"a": 43, "ˈ": 156}}), "utf-8")
    assert read_symbols(symbols) == {"a": (43,), "ˈ": (156,)}
    np.savez(voices, a=np.zeros((5, 1, 4), np.float32), b=np.ones((5, 1, 4), np.float32))
    assert read_styles(voices, "b").tolist() == np.ones((5, 4)).tolist()
    with pytest.raises(RkzooError, match="The file has a, b"):
        read_styles(voices, "c")
    symbols.write_text('{"vocab": {"a": "x"}}')
    with pytest.raises(RkzooError, match="symbols of a voice"):
        read_symbols(symbols)
    voices.write_bytes(b"nothing")
    with pytest.raises(RkzooError, match="holds no voices"):
        read_styles(voices, "a")
    for name in ("model", "part2"):
        (tmp_path / name).write_bytes(b"\xff\xff")
    with pytest.raises(RkzooError, match="no Kokoro"):
        make_kokoro({"model": tmp_path / "model"}, tmp_path / "out.onnx", SILENT)
