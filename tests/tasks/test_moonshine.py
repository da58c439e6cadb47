"""Moonshine against transformers: moonshine_generated.npz holds what `generate` of
MoonshineForConditionalGeneration (transformers 5.24, greedy, unpadded) gave for noise of three
lengths, with weights that are drawn by their names as here."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import MoonshineHead
from rkzoo.errors import RkzooError
from rkzoo.graph.from_weights.moonshine import decoder, embedding, encoder
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.speech.cached_decoder import CachedDecoder
from rkzoo.tasks.speech.moonshine import Moonshine, read_pieces, text_of

MADE = np.load(Path(__file__).parent / "moonshine_generated.npz")
ROWS, PAST = 520, 45
PIECES = {i: f"▁{i}" for i in range(300)}


def drawn(name: str, shape: list[int]) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("norm.weight"):
        return (1 + 0.1 * random.normal(size=shape)).astype(np.float32)
    if name.endswith("bias"):
        return (0.1 * random.normal(size=shape)).astype(np.float32)
    return (random.normal(size=shape) * (3 / np.prod(shape[1:])) ** 0.5).astype(np.float32)


def noise(length: int) -> np.ndarray:
    random = np.random.default_rng(5)
    for size in (32000, 20000, 7001):
        samples = (0.1 * random.normal(size=size)).astype(np.float32)
        if size == length:
            return samples
    raise AssertionError(length)


@pytest.fixture(scope="module")
def sessions() -> tuple[OnnxSession, OnnxSession, OnnxSession]:
    held = {name: drawn(name, shape) for name, shape in json.loads(str(MADE["shapes"])).items()}
    made = (encoder(held, ROWS), embedding(held, PAST), decoder(held, PAST, ROWS))
    encode, embed, decode = (OnnxSession(model.SerializeToString()) for model in made)
    return encode, embed, decode


@pytest.mark.parametrize("length", [32000, 20000, 7001])
def test_padded_sounds_give_the_tokens_of_unpadded_ones(
    sessions: tuple[OnnxSession, OnnxSession, OnnxSession], length: int
) -> None:
    reader = Moonshine(*sessions, MoonshineHead(tokens_per_second=100), PIECES)
    wanted = MADE[f"tokens_{length}"].tolist()
    heard = reader._encode(noise(length))
    decoding = CachedDecoder(sessions[1], sessions[2], heard)
    for place, token in enumerate(wanted[:8]):
        np.testing.assert_allclose(decoding.step(token), MADE[f"logits_{length}"][place], atol=2e-3)
    found, ended = reader.answer(noise(length))
    assert found[:40] == wanted[1:]
    assert not ended


def test_an_answer_ends_at_its_token_and_is_not_longer_than_speech(
    sessions: tuple[OnnxSession, OnnxSession, OnnxSession],
) -> None:
    wanted = MADE["tokens_32000"].tolist()[1:]
    reader = Moonshine(*sessions, MoonshineHead(end=wanted[8], tokens_per_second=100), PIECES)
    assert reader.answer(noise(32000)) == (wanted[:8], True)
    assert reader(Sound(noise(32000), 16000)).text == " ".join(map(str, wanted[:8]))
    slow = Moonshine(*sessions, MoonshineHead(), PIECES)
    assert len(slow.answer(noise(32000))[0]) == 13  # 6.5 a second


def test_a_long_sound_is_read_in_windows(
    sessions: tuple[OnnxSession, OnnxSession, OnnxSession],
) -> None:
    reader = Moonshine(*sessions, MoonshineHead(), PIECES)
    part, silence = noise(20000), np.zeros(12000, np.float32)
    found = reader(Sound(np.concatenate((part, silence, part, silence, part)), 16000))
    assert [round(segment.start) for segment in found.segments] == [0, 2, 4]
    assert all(segment.text.strip() for segment in found.segments)
    assert reader(Sound(np.zeros(50000, np.float32), 16000)).text == ""


def test_text_of_pieces_and_bytes(tmp_path: Path) -> None:
    """By the decoder of the published tokenizer.json: ▁ to a blank, bytes joined, one blank
    stripped at the start."""
    vocabulary = {"<s>": 1, "▁Caf": 5, "<0xC3>": 6, "<0xA9>": 7, "▁au": 8, "x": 9, "<": 10}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": vocabulary}}))
    assert text_of([1, 5, 6, 7, 8, 9, 10, 999], read_pieces(file)) == "Café aux<"
    file.write_text('{"model": {"vocab": [1]}}')
    with pytest.raises(RkzooError, match="not a vocabulary of Moonshine"):
        read_pieces(file)
