"""ONNX graphs of Whisper (https://arxiv.org/abs/2212.04356), from CTranslate2 weights.

Three graphs, so that decoding one token costs one step instead of a pass over all tokens before it:
- encoder: mel (1, bins, 2 N) -> the cross-attention keys and values of each decoder layer l,
  cross_k{l} (1, H, 64, N) and cross_v{l} (1, H, N, 64);
- embedding: token (1,) and position (1,) int64 -> x (1, 1, width);
- decoder: x, mask (1, 1, 1, PAST + 1), past_k{l} and past_v{l} (1, H, PAST, 64), cross_k{l} and
  cross_v{l} -> logits (1, 1, tokens), new_k{l} and new_v{l} (1, H, 1, 64), which the caller writes
  into the KV cache `past`. The mask is added to the attention scores: 0 for a valid position (the
  last one is the token itself), very negative for a masked one.

The head axis is the second of four: with three axes the toolkit's compiler (2.5.0) writes values
that exceed the NPU's registers. Only the transposes of cross_k and cross_v run on the CPU, once per
audio window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from rkzoo.graph.from_weights.ctranslate2 import weights
from rkzoo.graph.onnx.view import Array
from rkzoo.graph.onnx.writer import GraphWriter
from rkzoo.progress import ProgressReporter

PAST = 223
"""Length of the decoder's KV cache in tokens: the longest answer that upstream allows."""
_HEAD = 64  # head size, the same in every size of Whisper


def make_encoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Write the encoder graph as ONNX, from the card's files `model` and `part2`."""
    _write(files, target, encoder)


def make_embedding(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Write the embedding graph as ONNX, from the card's files `model` and `part2`."""
    _write(files, target, embedding)


def make_decoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Write the decoder graph as ONNX, from the card's files `model` and `part2`."""
    _write(files, target, decoder)


def _write(
    files: Mapping[str, Path],
    target: Path,
    make: Callable[[Mapping[str, Array]], onnx.ModelProto],
) -> None:
    onnx.save(make(weights([files["model"], files["part2"]])), target)


class _Graph(GraphWriter):
    """Whisper's layers, by their names in CTranslate2."""

    def normalised(self, x: str, place: str) -> str:
        gamma, beta = self.weight(f"{place}/gamma"), self.weight(f"{place}/beta")
        return self.node("LayerNormalization", x, gamma, beta, axis=-1, epsilon=1e-5)

    def layer(self, x: str, place: str, to: str = "") -> str:
        return self.linear(x, self.held[f"{place}/weight"], self.held[f"{place}/bias"], to)

    def heads(self, x: str, rows: int, order: tuple[int, int, int, int], to: str = "") -> str:
        """Split (1, rows, width) into heads, (1, rows, H, 64), and transpose by `order`."""
        apart = self.node("Reshape", x, self.constant(np.array([1, rows, -1, _HEAD])))
        return self.node("Transpose", apart, to=to, perm=order)

    def attend(self, q: str, k: str, v: str, rows: int, mask: str = "") -> str:
        """Attention of q (1, H, rows, 64), k (1, H, 64, N), v (1, H, N, 64), merged to (1, rows,
        width).
        """
        scores = self.node("MatMul", q, k)
        if mask:
            scores = self.node("Add", scores, mask)
        seen = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        together = self.node("Transpose", seen, perm=(0, 2, 1, 3))
        return self.node("Reshape", together, self.constant(np.array([1, rows, -1])))

    def feed_forward(self, x: str, place: str) -> str:
        inner = self.normalised(x, f"{place}/layer_norm")
        inner = self.gelu(self.layer(inner, f"{place}/linear_0"))
        return self.node("Add", x, self.layer(inner, f"{place}/linear_1"))

    def projections(self, place: str, count: int) -> list[tuple[Array, Array]]:
        """Split a fused projection into `count` (weight (width, width), bias (width,)) pairs."""
        rows = np.split(self.held[f"{place}/weight"], count)
        return list(zip(rows, np.split(self.held[f"{place}/bias"], count), strict=True))


def _layers(held: Mapping[str, Array], of: str) -> range:
    names = {name.split("/")[1] for name in held if name.startswith(f"{of}/layer_")}
    return range(len(names - {"layer_norm"}))


# The attention scale 1/sqrt(head size) is folded into the query weights.
def _scaled(matrix: tuple[Array, Array]) -> tuple[Array, Array]:
    return matrix[0] * _HEAD**-0.5, matrix[1] * _HEAD**-0.5


_BY_HEAD, _TURNED = (0, 2, 1, 3), (0, 2, 3, 1)


def encoder(held: Mapping[str, Array]) -> onnx.ModelProto:
    """Build the encoder graph, with the cross-attention keys and values of the decoder.

    Args:
        held: Weights by their names in CTranslate2.

    Returns:
        The model, float32: mel (1, bins, 2 N) -> cross_k{l} (1, H, 64, N), cross_v{l} (1, H, N,
            64).
    """
    graph = _Graph(held)
    places = held["encoder/position_encodings/encodings"]
    rows, width = places.shape
    x = graph.input("mel", 1, held["encoder/conv1/weight"].shape[1], 2 * rows)
    for index, stride in ((1, 1), (2, 2)):
        weight, bias = (graph.weight(f"encoder/conv{index}/{kind}") for kind in ("weight", "bias"))
        x = graph.node("Conv", x, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[stride])
        x = graph.gelu(x, wide=True)
    x = graph.node("Transpose", x, perm=(0, 2, 1))
    x = graph.node("Add", x, graph.constant(places[None]))
    for index in _layers(held, "encoder"):
        place = f"encoder/layer_{index}"
        inner = graph.normalised(x, f"{place}/self_attention/layer_norm")
        query, key, value = graph.projections(f"{place}/self_attention/linear_0", 3)
        seen = graph.attend(
            graph.heads(graph.linear(inner, *_scaled(query)), rows, _BY_HEAD),
            graph.heads(graph.linear(inner, *key), rows, _TURNED),
            graph.heads(graph.linear(inner, *value), rows, _BY_HEAD),
            rows,
        )
        x = graph.node("Add", x, graph.layer(seen, f"{place}/self_attention/linear_1"))
        x = graph.feed_forward(x, f"{place}/ffn")
    x = graph.normalised(x, "encoder/layer_norm")
    heads = width // _HEAD
    for index in _layers(held, "decoder"):
        key, value = graph.projections(f"decoder/layer_{index}/attention/linear_1", 2)
        k = graph.output(f"cross_k{index}", 1, heads, _HEAD, rows)
        v = graph.output(f"cross_v{index}", 1, heads, rows, _HEAD)
        graph.heads(graph.linear(x, *key), rows, _TURNED, to=k)
        graph.heads(graph.linear(x, *value), rows, _BY_HEAD, to=v)
    return graph.model("encoder")


def embedding(held: Mapping[str, Array]) -> onnx.ModelProto:
    """Build the embedding graph: token (1,), position (1,) int64 -> x (1, 1, width) float32."""
    graph = _Graph(held)
    token = graph.input("token", 1, kind=TensorProto.INT64)
    position = graph.input("position", 1, kind=TensorProto.INT64)
    node = graph.node("Gather", graph.weight("decoder/embeddings/weight"), token)
    place = graph.node("Gather", graph.weight("decoder/position_encodings/encodings"), position)
    width = held["decoder/embeddings/weight"].shape[1]
    x = graph.output("x", 1, 1, width)
    shape = graph.constant(np.array([1, 1, width]))
    graph.node("Reshape", graph.node("Add", node, place), shape, to=x)
    return graph.model("embedding")


def decoder(held: Mapping[str, Array], past: int = PAST) -> onnx.ModelProto:
    """Build the graph of one decoding step.

    Args:
        held: Weights by their names in CTranslate2.
        past: Length of the KV cache in tokens.

    Returns:
        The model, float32; inputs and outputs as in the module's docstring.
    """
    graph = _Graph(held)
    tokens, width = held["decoder/embeddings/weight"].shape
    rows = len(held["encoder/position_encodings/encodings"])
    heads = width // _HEAD
    x, mask = graph.input("x", 1, 1, width), graph.input("mask", 1, 1, 1, past + 1)
    logits = graph.output("logits", 1, 1, tokens)
    for index in _layers(held, "decoder"):
        place = f"decoder/layer_{index}"
        past_k = graph.input(f"past_k{index}", 1, heads, past, _HEAD)
        past_v = graph.input(f"past_v{index}", 1, heads, past, _HEAD)
        cross_k = graph.input(f"cross_k{index}", 1, heads, _HEAD, rows)
        cross_v = graph.input(f"cross_v{index}", 1, heads, rows, _HEAD)
        inner = graph.normalised(x, f"{place}/self_attention/layer_norm")
        query, key, value = graph.projections(f"{place}/self_attention/linear_0", 3)
        new_k = graph.output(f"new_k{index}", 1, heads, 1, _HEAD)
        new_v = graph.output(f"new_v{index}", 1, heads, 1, _HEAD)
        graph.heads(graph.linear(inner, *key), 1, _BY_HEAD, to=new_k)
        graph.heads(graph.linear(inner, *value), 1, _BY_HEAD, to=new_v)
        keys = graph.node("Concat", past_k, new_k, axis=2)
        seen = graph.attend(
            graph.heads(graph.linear(inner, *_scaled(query)), 1, _BY_HEAD),
            graph.node("Transpose", keys, perm=(0, 1, 3, 2)),
            graph.node("Concat", past_v, new_v, axis=2),
            1,
            mask,
        )
        x = graph.node("Add", x, graph.layer(seen, f"{place}/self_attention/linear_1"))
        inner = graph.normalised(x, f"{place}/attention/layer_norm")
        (query,) = graph.projections(f"{place}/attention/linear_0", 1)
        query_heads = graph.heads(graph.linear(inner, *_scaled(query)), 1, _BY_HEAD)
        seen = graph.attend(query_heads, cross_k, cross_v, 1)
        x = graph.node("Add", x, graph.layer(seen, f"{place}/attention/linear_2"))
        x = graph.feed_forward(x, f"{place}/ffn")
    x = graph.normalised(x, "decoder/layer_norm")
    graph.linear(x, held["decoder/embeddings/weight"], None, to=logits)
    return graph.model("decoder")
