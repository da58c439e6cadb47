"""Whisper's weights made of chance, in the small."""

from __future__ import annotations

import numpy as np
import onnx

from rkzoo.graph.from_weights import whisper
from rkzoo.graph.onnx.view import Array

WIDTH, BINS, ROWS, TOKENS, LAYERS, PLACES = 128, 6, 5, 11, 2, 9
Weights = dict[str, Array]


def weights() -> Weights:
    chance = np.random.default_rng(5)
    found: Weights = {}

    def put(name: str, *shape: int, scale: float = 0.08) -> None:
        found[name] = (chance.normal(size=shape) * scale).astype(np.float16)

    def linear(place: str, rows: int, columns: int = WIDTH) -> None:
        put(f"{place}/weight", rows, columns)
        put(f"{place}/bias", rows)

    def norm(place: str) -> None:
        put(f"{place}/gamma", WIDTH, scale=1.0)
        put(f"{place}/beta", WIDTH)

    def block(place: str, crossed: bool) -> None:
        linear(f"{place}/self_attention/linear_0", 3 * WIDTH)
        linear(f"{place}/self_attention/linear_1", WIDTH)
        norm(f"{place}/self_attention/layer_norm")
        if crossed:
            linear(f"{place}/attention/linear_0", WIDTH)
            linear(f"{place}/attention/linear_1", 2 * WIDTH)
            linear(f"{place}/attention/linear_2", WIDTH)
            norm(f"{place}/attention/layer_norm")
        linear(f"{place}/ffn/linear_0", 4 * WIDTH)
        linear(f"{place}/ffn/linear_1", WIDTH, 4 * WIDTH)
        norm(f"{place}/ffn/layer_norm")

    put("encoder/conv1/weight", WIDTH, BINS, 3, scale=0.3)
    put("encoder/conv1/bias", WIDTH)
    put("encoder/conv2/weight", WIDTH, WIDTH, 3)
    put("encoder/conv2/bias", WIDTH)
    put("encoder/position_encodings/encodings", ROWS, WIDTH)
    put("decoder/embeddings/weight", TOKENS, WIDTH, scale=0.5)
    put("decoder/position_encodings/encodings", PLACES, WIDTH)
    for index in range(LAYERS):
        block(f"encoder/layer_{index}", crossed=False)
        block(f"decoder/layer_{index}", crossed=True)
    norm("encoder/layer_norm")
    norm("decoder/layer_norm")
    return found


def decoder(past: int = 6) -> onnx.ModelProto:
    return whisper.decoder(weights(), past)
