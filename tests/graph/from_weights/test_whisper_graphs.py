"""Whisper's graphs against the network's definition, with weights made of chance."""

from __future__ import annotations

import struct
from math import erf, sqrt
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_whisper import BINS, LAYERS, ROWS, WIDTH, Weights, weights

from rkzoo.errors import RkzooError
from rkzoo.graph.from_weights import ctranslate2, whisper
from rkzoo.graph.onnx.view import Array


@pytest.fixture(scope="module")
def held() -> Weights:
    return weights()


class Definition:
    """The network of the paper, all tokens at once, in float64."""

    def __init__(self, held: Weights) -> None:
        self.held = {name: array.astype(np.float64) for name, array in held.items()}

    def norm(self, x: Array, place: str) -> Array:
        middle = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((middle**2).mean(axis=-1, keepdims=True) + 1e-5)
        return middle / scale * self.held[f"{place}/gamma"] + self.held[f"{place}/beta"]

    def linear(self, x: Array, place: str) -> Array:
        return x @ self.held[f"{place}/weight"].T + self.held[f"{place}/bias"]

    def attention(self, q: Array, k: Array, v: Array, causal: bool) -> Array:
        out = np.zeros_like(q)
        for head in range(WIDTH // 64):
            at = slice(head * 64, head * 64 + 64)
            for i in range(len(q)):
                seen = range(i + 1) if causal else range(len(k))
                scores = np.array([q[i, at] @ k[j, at] / 8 for j in seen])
                shares = np.exp(scores - scores.max())
                shares /= shares.sum()
                out[i, at] = sum(s * v[j, at] for s, j in zip(shares, seen, strict=True))
        return out

    def own(self, x: Array, place: str, causal: bool) -> Array:
        place += "/self_attention"
        q, k, v = np.split(
            self.linear(self.norm(x, f"{place}/layer_norm"), f"{place}/linear_0"), 3, axis=1
        )
        return x + self.linear(self.attention(q, k, v, causal), f"{place}/linear_1")

    def crossed(self, x: Array, sound: Array, place: str) -> Array:
        place += "/attention"
        q = self.linear(self.norm(x, f"{place}/layer_norm"), f"{place}/linear_0")
        k, v = np.split(self.linear(sound, f"{place}/linear_1"), 2, axis=1)
        return x + self.linear(self.attention(q, k, v, False), f"{place}/linear_2")

    def forward(self, x: Array, place: str) -> Array:
        place += "/ffn"
        inner = gelu(self.linear(self.norm(x, f"{place}/layer_norm"), f"{place}/linear_0"))
        return x + self.linear(inner, f"{place}/linear_1")

    def conv(self, x: Array, place: str, stride: int) -> Array:
        weight, bias = self.held[f"{place}/weight"], self.held[f"{place}/bias"]
        padded = np.pad(x, ((0, 0), (1, 1)))
        columns = [
            np.tensordot(weight, padded[:, t : t + 3], axes=2) + bias
            for t in range(0, x.shape[1], stride)
        ]
        return gelu(np.stack(columns, axis=1))

    def encode(self, mel: Array) -> Array:
        x = self.conv(self.conv(mel, "encoder/conv1", 1), "encoder/conv2", 2).T
        x = x + self.held["encoder/position_encodings/encodings"]
        for index in range(LAYERS):
            place = f"encoder/layer_{index}"
            x = self.forward(self.own(x, place, causal=False), place)
        return self.norm(x, "encoder/layer_norm")

    def decode(self, tokens: list[int], sound: Array) -> Array:
        table = self.held["decoder/embeddings/weight"]
        x = table[tokens] + self.held["decoder/position_encodings/encodings"][: len(tokens)]
        for index in range(LAYERS):
            place = f"decoder/layer_{index}"
            x = self.own(x, place, causal=True)
            x = self.forward(self.crossed(x, sound, place), place)
        return self.norm(x, "decoder/layer_norm") @ table.T


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(erf)(x / sqrt(2)))


def run(model: onnx.ModelProto, feeds: Weights) -> Weights:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def test_a_token_at_a_time_is_the_same_as_all_at_once(held: Weights) -> None:
    past = 6
    mel = np.random.default_rng(1).normal(size=(1, BINS, 2 * ROWS)).astype(np.float32)
    fed = run(whisper.encoder(held), {"mel": mel})
    definition = Definition(held)
    sound = definition.encode(mel[0])
    place = "decoder/layer_1/attention/linear_1"
    keys, values = np.split(definition.linear(sound, place), 2, axis=1)
    assert fed["cross_k1"].shape == (1, 2, 64, ROWS)
    np.testing.assert_allclose(np.vstack(list(fed["cross_k1"][0])).T, keys, atol=1e-4)
    np.testing.assert_allclose(np.hstack(list(fed["cross_v1"][0])), values, atol=1e-4)
    tokens = [3, 0, 10, 4]
    wanted = definition.decode(tokens, sound)
    decoder, embedding = whisper.decoder(held, past), whisper.embedding(held)
    fed |= {
        f"past_{kind}{index}": np.zeros((1, 2, past, 64), np.float32)
        for index in range(LAYERS)
        for kind in "kv"
    }
    fed["mask"] = np.full((1, 1, 1, past + 1), -1e4, np.float32)
    fed["mask"][..., -1] = 0
    for at, token in enumerate(tokens):
        fed["x"] = run(embedding, {"token": np.array([token]), "position": np.array([at])})["x"]
        found = run(decoder, fed)
        np.testing.assert_allclose(found["logits"][0, 0], wanted[at], atol=2e-3)
        for name, array in found.items():
            if name != "logits":
                fed[name.replace("new", "past")][:, :, at] = array[:, :, 0]
        fed["mask"][..., at] = 0


def packed(variables: Weights, aliases: dict[str, str]) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    kinds = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        data += text(name) + struct.pack("<B", array.ndim)
        data += struct.pack(f"<{array.ndim}I", *array.shape)
        data += struct.pack("<BI", kinds[array.dtype.name], array.nbytes) + array.tobytes()
    data += struct.pack("<I", len(aliases))
    return data + b"".join(text(one) + text(other) for one, other in aliases.items())


def test_weights_are_read_from_their_pieces(tmp_path: Path) -> None:
    variables = {
        "a/w": np.arange(6, dtype=np.float16).reshape(2, 3),
        "n": np.array(7, np.int16),
        "q": np.array([-3, 4], np.int8),
    }
    data = packed(variables, {"other": "a/w"})
    pieces = [tmp_path / "1", tmp_path / "2"]
    pieces[0].write_bytes(data[:40])
    pieces[1].write_bytes(data[40:])
    found = ctranslate2.weights(pieces)
    assert set(found) == {"a/w", "n", "q", "other"}
    np.testing.assert_array_equal(found["other"], variables["a/w"])
    assert (found["n"].item(), found["q"].tolist()) == (7, [-3, 4])


@pytest.mark.parametrize("damage", ["short", "long", "version", "kind", "empty"])
def test_broken_weights_are_one_sentence(damage: str, tmp_path: Path) -> None:
    data = packed({"w": np.zeros(4, np.float32)}, {})
    broken = {
        "short": data[:-7],
        "long": data + b"x",
        "version": b"\5" + data[1:],
        "kind": data[:40].replace(b"\0\0\0\0\0\0", b"\xff" * 6) + b"\xff" * 40,
        "empty": b"",
    }[damage]
    path = tmp_path / "model.bin"
    path.write_bytes(broken)
    with pytest.raises(RkzooError, match="no weights"):
        ctranslate2.weights([path])
