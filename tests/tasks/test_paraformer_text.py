"""Paraformer's task on a small network, against FunASR's code (scripts/paraformer_answers.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import ParaformerHead, StackedFeatures
from rkzoo.graph.families.plain import with_shapes
from rkzoo.graph.families.registry import recognise_arranged
from rkzoo.graph.onnx.view import run_whole
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.speech.paraformer import Paraformer, integrate_and_fire

ANSWERS = np.load(Path(__file__).parent / "paraformer_answers.npz", allow_pickle=False)
LABELS = ("<blank>", "<s>", "</s>", *(chr(0x4E00 + place) for place in range(36)), "<unk>")
HEAD = ParaformerHead(features=StackedFeatures(shift=(-13.0,) * 560, scale=(0.2,) * 560))


def recogniser(rows: int) -> Paraformer:
    model = onnx.ModelProto.FromString(ANSWERS["model"].tobytes())
    parts = recognise_arranged(with_shapes(model, {"speech": (1, rows, 560)}))[1].parts
    encoder, decoder = (OnnxSession(part.model.SerializeToString()) for part in parts)
    return Paraformer(encoder, decoder, HEAD, LABELS)


@pytest.fixture(scope="module")
def small() -> Paraformer:
    return recogniser(60)


def test_frames_are_summed_as_funasr_sums_them() -> None:
    found, ends = integrate_and_fire(ANSWERS["memory"], ANSWERS["shares"], 0.45)
    np.testing.assert_allclose(found, ANSWERS["embeddings"], atol=1e-5)
    assert len(ends) == len(ANSWERS["embeddings"]) > 10
    nothing, none = integrate_and_fire(np.ones((3, 8), np.float32), np.zeros(3, np.float32), 0.45)
    assert nothing.shape == (0, 8)
    assert len(none) == 0


def test_scores_are_those_of_funasr_before_its_export(small: Paraformer) -> None:
    found = small.scores(ANSWERS["rows"])
    assert found is not None
    scores, _ = found
    log = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert scores.shape == ANSWERS["scores"].shape
    assert len(scores) > 5
    np.testing.assert_allclose(log, ANSWERS["scores"], atol=1e-4)


def test_padding_changes_nothing(small: Paraformer) -> None:
    """The file's own graph in ONNX Runtime, which is given what is there, without padding."""
    file = onnx.ModelProto.FromString(ANSWERS["model"].tobytes())
    random = np.random.default_rng(0)
    for count in (60, 31, 8):
        rows = random.normal(size=(count, 560)).astype(np.float32)
        feeds = {"speech": rows[None], "speech_lengths": np.array([count], np.int32)}
        wanted, said = run_whole(file, feeds)
        found = small.scores(rows)
        assert found is not None
        assert len(found[1]) == said[0] == wanted.shape[1] > 0
        log = found[0] - np.log(np.exp(found[0]).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(log, wanted[0], atol=1e-4)


@pytest.mark.parametrize("place", range(len(ANSWERS["texts"])))
def test_tokens_are_written_as_funasr_writes_them(small: Paraformer, place: int) -> None:
    words = ("", "", "", *str(ANSWERS["tokens"][place]).split(" "))
    reader = Paraformer(small.encoder, small.decoder, HEAD, words)
    ids = np.arange(3, len(words))
    pieces = reader.pieces(ids, [(0.0, 0.1)] * len(ids))
    assert "".join(piece.text for piece in pieces) == str(ANSWERS["texts"][place]).strip()


def test_a_window_with_more_tokens_than_there_is_room_for_is_heard_in_halves(
    small: Paraformer,
) -> None:
    """A network whose frames are a token each, nearly: 60 frames have room for 30."""
    shares = next(n for n in model_of(small).graph.node if n.op_type == "Sigmoid")
    model = model_of(small)
    bias = onnx.numpy_helper.from_array(np.full((1, 1, 1), 0.4, np.float32), "more")
    model.graph.initializer.append(bias)
    node = next(n for n in model.graph.node if n.op_type == "Sigmoid")
    place = list(model.graph.node).index(node)
    node.output[0] = "gate"
    model.graph.node.insert(
        place + 1, onnx.helper.make_node("Add", ["gate", "more"], shares.output)
    )
    crowded = Paraformer(OnnxSession(model.SerializeToString()), small.decoder, HEAD, LABELS)
    random = np.random.default_rng(0)
    assert crowded.scores(random.normal(size=(60, 560)).astype(np.float32)) is None
    samples = random.normal(0, 0.1, 16000 * 8).astype(np.float32)
    heard = crowded(Sound(samples, 16000))
    whole = crowded.head.features.stride * 160
    assert len(heard.text) > 0.4 * len(samples) / whole  # nothing is dropped
    times = heard.times
    assert (np.diff(times, axis=0) >= 0).all()
    assert times[-1, 1] <= len(samples) / 16000 + 0.1


def model_of(reader: Paraformer) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(ANSWERS["model"].tobytes())
    rows = reader.encoder.inputs[0].shape[1]
    parts = recognise_arranged(with_shapes(model, {"speech": (1, rows, 560)}))[1].parts
    return parts[0].model


def test_silence_says_nothing(small: Paraformer) -> None:
    assert small(Sound(np.zeros(16000, np.float32), 16000)).text == ""
