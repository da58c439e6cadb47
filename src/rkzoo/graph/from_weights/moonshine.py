"""ONNX graphs of Moonshine (https://arxiv.org/abs/2410.15608), from safetensors.

Moonshine hears sounds as long as they are, unpadded; an NPU takes one length. So what is padding
is told, and neither the normalisation over time nor attention looks at it. Three graphs, as
Whisper's:
- encoder: samples (1, 64, R), column r holding samples 64 r to 64 r + 63; share (1, R - 1, 1), one
  by their number for frames of the first convolution that lie in the sound, 0 for the others; mask
  (1, 1, 1, T), added to the attention scores -> cross_k{l} (1, H, D, T), cross_v{l} (1, H, T, D) of
  each decoder layer l;
- embedding: token (1,) and position (1,) int64 -> x (1, 1, width), cos and sin (1, 1, 1, D);
- decoder: these, mask (1, 1, 1, PAST + 1), cross_mask (1, 1, 1, T), past_k{l} and past_v{l} (1, H,
  PAST, D), cross_k{l}, cross_v{l} -> logits (1, 1, tokens), new_k{l}, new_v{l} (1, H, 1, D).

The first convolution, 127 wide at steps of 64 over 256 000 samples, is one of 2 columns at steps of
1, as wide as the compiler can. Turning pairs of numbers by their place is a second linear layer
whose rows are swapped, in place of slices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.graph.from_weights.minilm import tensors
from rkzoo.graph.onnx.view import Array
from rkzoo.graph.onnx.writer import GraphWriter
from rkzoo.progress import ProgressReporter

PAST = 193
"""Length of the decoder's cache in tokens: the longest answer that upstream's own code allows."""
ROWS = 4000
"""Columns of 64 samples: 16 s."""
_COLUMN = 64
_HEADS = 8  # of Moonshine tiny and base
_TURNED = 32  # numbers of a head that are turned by their place, in both
_THETA = 10000.0
_BY_HEAD, _TRANSPOSED = (0, 2, 1, 3), (0, 2, 3, 1)


def make_encoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Write the encoder graph as ONNX, from the card's file `model` (model.safetensors)."""
    _write(files, target, encoder)


def make_embedding(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Write the embedding graph as ONNX, from the card's file `model` (model.safetensors)."""
    _write(files, target, embedding)


def make_decoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Write the decoder graph as ONNX, from the card's file `model` (model.safetensors)."""
    _write(files, target, decoder)


def _write(
    files: Mapping[str, Path],
    target: Path,
    make: Callable[[Mapping[str, Array]], onnx.ModelProto],
) -> None:
    path = files["model"]
    with os_errors_explained(f"{path} cannot be read."):
        data = path.read_bytes()
    try:
        onnx.save(make(tensors(data)), target)
    except (KeyError, ValueError, TypeError, json.JSONDecodeError) as error:
        raise RkzooError(
            f"{path} holds no weights of Moonshine.",
            f"It is not the model.safetensors that transformers reads ({error}).",
            "Fetch it again with rkzoo fetch.",
        ) from error


def frames(samples: int) -> tuple[int, int]:
    """Frames that the first convolution, and the encoder, make of so many samples."""
    first = max((samples - 127) // 64 + 1, 0)
    second = max((first - 7) // 3 + 1, 0)
    return first, max((second - 3) // 2 + 1, 0)


class _Graph(GraphWriter):
    """Moonshine's layers, by their names in transformers."""

    def normalised(self, x: str, place: str) -> str:
        gamma = self.weight(f"{place}.weight")
        beta = self.constant(np.zeros_like(self.held[f"{place}.weight"]))
        return self.node("LayerNormalization", x, gamma, beta, axis=-1, epsilon=1e-5)

    def layer(self, x: str, place: str) -> str:
        return self.linear(x, self.held[f"{place}.weight"], self.held.get(f"{place}.bias"))

    def heads(self, x: str, rows: int, order: tuple[int, int, int, int], to: str = "") -> str:
        """Split (1, rows, width) into heads, (1, rows, H, D), and transpose by `order`."""
        if rows == 1 and order == _BY_HEAD:
            return self.node("Reshape", x, self.constant(np.array([1, _HEADS, 1, -1])), to=to)
        apart = self.node("Reshape", x, self.constant(np.array([1, rows, _HEADS, -1])))
        return self.node("Transpose", apart, to=to, perm=order)

    def turned(self, x: str, weight: Array, rows: int, cos: str, sin: str, to: str = "") -> str:
        """Heads (1, H, rows, D) of a linear layer, turned by place: cos, sin (1, 1, rows, D)."""
        straight = self.heads(self.linear(x, weight, None), rows, _BY_HEAD)
        across = self.heads(self.linear(x, _swapped(weight), None), rows, _BY_HEAD)
        return self.node(
            "Add", self.node("Mul", straight, cos), self.node("Mul", across, sin), to=to
        )

    def attend(self, q: str, k: str, v: str, rows: int, mask: str) -> str:
        """Attention of q (1, H, rows, D), k (1, H, D, N), v (1, H, N, D), as (1, rows, width)."""
        scores = self.node("Add", self.node("MatMul", q, k), mask)
        seen = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        together = self.node("Transpose", seen, perm=(0, 2, 1, 3))
        return self.node("Reshape", together, self.constant(np.array([1, rows, -1])))

    def add(self, x: str, y: str) -> str:
        return self.node("Add", x, y)


def _swapped(weight: Array) -> Array:
    """Rows of a projection (H * D, width) so that what comes out is each pair turned by a quarter:
    (a, b) becomes (-b, a); rows that are not turned become 0."""
    heads = weight.reshape(_HEADS, -1, weight.shape[1])
    out = np.zeros_like(heads)
    out[:, 0:_TURNED:2] = -heads[:, 1:_TURNED:2]
    out[:, 1:_TURNED:2] = heads[:, 0:_TURNED:2]
    return out.reshape(weight.shape)


def _places(count: int, size: int) -> tuple[Array, Array]:
    """Cosine and sine by which a head of `size` is turned at each place, (count, size)."""
    speed = _THETA ** (-np.arange(0, _TURNED, 2) / _TURNED)
    angle = np.repeat(np.arange(count)[:, None] * speed, 2, axis=1)
    cos, sin = np.ones((count, size)), np.zeros((count, size))
    cos[:, :_TURNED], sin[:, :_TURNED] = np.cos(angle), np.sin(angle)
    return cos.astype(np.float32), sin.astype(np.float32)


def _layers(held: Mapping[str, Array], of: str) -> range:
    start = f"model.{of}.layers."
    return range(len({name.split(".")[3] for name in held if name.startswith(start)}))


def encoder(held: Mapping[str, Array], rows: int = ROWS) -> onnx.ModelProto:
    """Build the encoder graph, with the cross-attention keys and values of the decoder.

    Args:
        held: Weights by their names in transformers.
        rows: Columns of 64 samples.

    Returns:
        The model, float32; inputs and outputs as in the module's docstring.
    """
    graph = _Graph(held)
    first, count = frames(rows * _COLUMN)
    kernel = held["model.encoder.conv1.weight"]
    width = len(kernel)
    size = width // _HEADS
    samples = graph.input("samples", 1, _COLUMN, rows)
    share = graph.input("share", 1, first, 1)
    mask = graph.input("mask", 1, 1, 1, count)
    columns = np.pad(kernel[:, 0], ((0, 0), (0, 1))).reshape(width, 2, _COLUMN)
    x = graph.node("Conv", samples, graph.constant(columns.transpose(0, 2, 1)), kernel_shape=[2])
    x = _group_normalised(graph, graph.node("Tanh", x), share)
    for place, wide, stride in (("conv2", 7, 3), ("conv3", 3, 2)):
        weight, bias = (
            graph.weight(f"model.encoder.{place}.{kind}") for kind in ("weight", "bias")
        )
        x = graph.node("Conv", x, weight, bias, kernel_shape=[wide], strides=[stride])
        x = graph.gelu(x)
    x = graph.node("Transpose", x, perm=(0, 2, 1))
    cos, sin = (graph.constant(table[None, None]) for table in _places(count, size))
    for index in _layers(held, "encoder"):
        place = f"model.encoder.layers.{index}"
        inner = graph.normalised(x, f"{place}.input_layernorm")
        query, key, value = (held[f"{place}.self_attn.{n}_proj.weight"] for n in "qkv")
        keys = graph.turned(inner, key, count, cos, sin)
        seen = graph.attend(
            graph.turned(inner, query * size**-0.5, count, cos, sin),
            graph.node("Transpose", keys, perm=(0, 1, 3, 2)),
            graph.heads(graph.linear(inner, value, None), count, _BY_HEAD),
            count,
            mask,
        )
        x = graph.add(x, graph.layer(seen, f"{place}.self_attn.o_proj"))
        inner = graph.normalised(x, f"{place}.post_attention_layernorm")
        inner = graph.gelu(graph.layer(inner, f"{place}.mlp.fc1"))
        x = graph.add(x, graph.layer(inner, f"{place}.mlp.fc2"))
    x = graph.normalised(x, "model.encoder.layer_norm")
    for index in _layers(held, "decoder"):
        place = f"model.decoder.layers.{index}.encoder_attn"
        k = graph.output(f"cross_k{index}", 1, _HEADS, size, count)
        v = graph.output(f"cross_v{index}", 1, _HEADS, count, size)
        graph.heads(graph.layer(x, f"{place}.k_proj"), count, _TRANSPOSED, to=k)
        graph.heads(graph.layer(x, f"{place}.v_proj"), count, _BY_HEAD, to=v)
    return graph.model("encoder")


def _group_normalised(graph: _Graph, x: str, share: str) -> str:
    """One group over channels and time (1, C, L), of the frames of the sound alone: `share`
    (1, L, 1) is one by their number, 0 for the others."""

    def mean(value: str) -> str:
        return graph.node("ReduceMean", graph.node("MatMul", value, share), axes=[1], keepdims=1)

    middle = mean(x)
    spread = graph.node("Sub", mean(graph.node("Mul", x, x)), graph.node("Mul", middle, middle))
    root = graph.node("Sqrt", graph.node("Add", spread, graph.constant(1e-5)))
    gamma, beta = (
        graph.constant(graph.held[f"model.encoder.groupnorm.{kind}"][None, :, None])
        for kind in ("weight", "bias")
    )
    apart = graph.node("Div", graph.node("Sub", x, middle), root)
    return graph.add(graph.node("Mul", apart, gamma), beta)


def embedding(held: Mapping[str, Array], past: int = PAST) -> onnx.ModelProto:
    """Build the embedding graph: token (1,), position (1,) int64 -> x (1, 1, width), cos and sin
    (1, 1, 1, D) float32."""
    graph = _Graph(held)
    words = held["model.decoder.embed_tokens.weight"]
    width = words.shape[1]
    size = width // _HEADS
    token = graph.input("token", 1, kind=TensorProto.INT64)
    position = graph.input("position", 1, kind=TensorProto.INT64)
    row = graph.node("Gather", graph.constant(words, "words"), token)
    shape = graph.constant(np.array([1, 1, width]))
    graph.node("Reshape", row, shape, to=graph.output("x", 1, 1, width))
    shape = graph.constant(np.array([1, 1, 1, size]))
    for name, table in zip(("cos", "sin"), _places(past + 1, size), strict=True):
        row = graph.node("Gather", graph.constant(table), position)
        graph.node("Reshape", row, shape, to=graph.output(name, 1, 1, 1, size))
    return graph.model("embedding")


def decoder(held: Mapping[str, Array], past: int = PAST, rows: int = ROWS) -> onnx.ModelProto:
    """Build the graph of one decoding step.

    Args:
        held: Weights by their names in transformers.
        past: Length of the cache in tokens.
        rows: Columns of 64 samples that the encoder takes.

    Returns:
        The model, float32; inputs and outputs as in the module's docstring.
    """
    graph = _Graph(held)
    tokens, width = held["model.decoder.embed_tokens.weight"].shape
    size, (_, count) = width // _HEADS, frames(rows * _COLUMN)
    x, mask = graph.input("x", 1, 1, width), graph.input("mask", 1, 1, 1, past + 1)
    cos, sin = graph.input("cos", 1, 1, 1, size), graph.input("sin", 1, 1, 1, size)
    cross_mask = graph.input("cross_mask", 1, 1, 1, count)
    logits = graph.output("logits", 1, 1, tokens)
    for index in _layers(held, "decoder"):
        place = f"model.decoder.layers.{index}"
        past_k = graph.input(f"past_k{index}", 1, _HEADS, past, size)
        past_v = graph.input(f"past_v{index}", 1, _HEADS, past, size)
        cross_k = graph.input(f"cross_k{index}", 1, _HEADS, size, count)
        cross_v = graph.input(f"cross_v{index}", 1, _HEADS, count, size)
        new_k = graph.output(f"new_k{index}", 1, _HEADS, 1, size)
        new_v = graph.output(f"new_v{index}", 1, _HEADS, 1, size)
        inner = graph.normalised(x, f"{place}.input_layernorm")
        query, key, value = (held[f"{place}.self_attn.{n}_proj.weight"] for n in "qkv")
        graph.turned(inner, key, 1, cos, sin, to=new_k)
        graph.heads(graph.linear(inner, value, None), 1, _BY_HEAD, to=new_v)
        keys = graph.node("Concat", past_k, new_k, axis=2)
        seen = graph.attend(
            graph.turned(inner, query * size**-0.5, 1, cos, sin),
            graph.node("Transpose", keys, perm=(0, 1, 3, 2)),
            graph.node("Concat", past_v, new_v, axis=2),
            1,
            mask,
        )
        x = graph.add(x, graph.layer(seen, f"{place}.self_attn.o_proj"))
        inner = graph.normalised(x, f"{place}.post_attention_layernorm")
        query = held[f"{place}.encoder_attn.q_proj.weight"] * size**-0.5
        asked = graph.heads(graph.linear(inner, query, None), 1, _BY_HEAD)
        seen = graph.attend(asked, cross_k, cross_v, 1, cross_mask)
        x = graph.add(x, graph.layer(seen, f"{place}.encoder_attn.o_proj"))
        x = graph.add(x, _gated(graph, graph.normalised(x, f"{place}.final_layernorm"), place))
    x = graph.normalised(x, "model.decoder.norm")
    graph.linear(x, held["model.decoder.embed_tokens.weight"], None, to=logits)
    return graph.model("decoder")


def _gated(graph: _Graph, x: str, place: str) -> str:
    """SwiGLU: the second half of the first layer's rows is the gate."""
    weight, bias = (graph.held[f"{place}.mlp.fc1.{kind}"] for kind in ("weight", "bias"))
    half = len(bias) // 2
    value = graph.linear(x, weight[:half], bias[:half])
    gate = graph.linear(x, weight[half:], bias[half:])
    gate = graph.node("Mul", gate, graph.node("Sigmoid", gate))
    return graph.layer(graph.node("Mul", gate, value), f"{place}.mlp.fc2")
