"""ONNX graphs of MiniLM, a BERT-style text encoder (https://arxiv.org/abs/1810.04805), from
safetensors.

- embedding: token ids (1, L) int64 -> x (1, L, width);
- encoder: x, mask (1, 1, L), added to the attention scores -> hidden (1, L, width).

L is 128. No tensor has four dimensions, so no runtime mistakes one for an image; no layer of the
encoder runs on the CPU.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.view import Array
from rkzoo.graph.onnx.writer import GraphWriter
from rkzoo.progress import ProgressReporter

LENGTH = 128
_HEADS = 12  # of MiniLM with a hidden size of 384


def make_embedding(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Write the embedding graph as ONNX, from the card's file `model` (a zip with a
    model.safetensors).
    """
    onnx.save(embedding(_weights(files["model"])), target)


def make_encoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Write the encoder graph as ONNX, from the card's file `model` (a zip with a
    model.safetensors).
    """
    onnx.save(encoder(_weights(files["model"])), target)


def _weights(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            return tensors(archive.read("model.safetensors"))
    except (OSError, KeyError, ValueError, TypeError, zipfile.error) as error:
        raise RkzooError(
            f"{path} holds no weights that can be read.",
            f"It is not a zip archive with a complete model.safetensors ({error}).",
            "Fetch it again with rkzoo fetch.",
        ) from error


def tensors(data: bytes) -> dict[str, Array]:
    """Read the float32 tensors of a safetensors file.

    Args:
        data: The whole file.

    Returns:
        float32 arrays by tensor name; tensors of other dtypes are skipped.

    Raises:
        ValueError, KeyError, TypeError: The bytes are not a safetensors file.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        start, end = entry["data_offsets"]
        piece = data[8 + length + start : 8 + length + end]
        tensors[name] = np.frombuffer(piece, "<f4").reshape(entry["shape"])
    return tensors


def embedding(held: Mapping[str, Array], length: int = LENGTH) -> onnx.ModelProto:
    """Build the embedding graph: ids (1, length) int64 -> x (1, length, width) float32."""
    graph = GraphWriter(held)
    ids = graph.input("ids", 1, length, kind=TensorProto.INT64)
    words = held["embeddings.word_embeddings.weight"]
    place = held["embeddings.position_embeddings.weight"][:length]
    # There is one token type, so its embedding is added at every position.
    always = place + held["embeddings.token_type_embeddings.weight"][:1]
    node = graph.node("Gather", graph.constant(words, "words"), ids)
    graph.node(
        "Add", node, graph.constant(always[None]), to=graph.output("x", 1, length, _width(held))
    )
    return graph.model("embedding")


def _width(held: Mapping[str, Array]) -> int:
    return int(held["embeddings.word_embeddings.weight"].shape[1])


def encoder(
    held: Mapping[str, Array], length: int = LENGTH, heads: int = _HEADS
) -> onnx.ModelProto:
    """Build the encoder graph: x (1, length, width), mask (1, 1, length) -> hidden (1, length,
    width).

    Args:
        held: Weights by their names in the safetensors file.
        length: Sequence length in tokens.
        heads: Number of attention heads.

    Returns:
        The model, float32.
    """
    graph = GraphWriter(held)
    width = _width(held)
    size = width // heads

    def layer(x: str, place: str, scale: float = 1.0) -> str:
        weight, bias = (held[f"{place}.{kind}"] * scale for kind in ("weight", "bias"))
        return graph.linear(x, weight, bias)

    def normalised(x: str, place: str, to: str = "") -> str:
        gain, bias = (graph.weight(f"{place}.{kind}") for kind in ("weight", "bias"))
        return graph.node("LayerNormalization", x, gain, bias, to=to, axis=-1, epsilon=1e-12)

    def by_head(x: str, order: tuple[int, int, int]) -> str:
        apart = graph.node("Reshape", x, graph.constant(np.array([length, heads, size])))
        return graph.node("Transpose", apart, perm=order)

    embedded = graph.input("x", 1, length, width)
    mask = graph.input("mask", 1, 1, length)
    x = normalised(embedded, "embeddings.LayerNorm")
    count = len({name.split(".")[2] for name in held if name.startswith("encoder.layer.")})
    for index in range(count):
        place = f"encoder.layer.{index}"
        # The attention scale 1/sqrt(head size) is folded into the query weights.
        query = by_head(layer(x, f"{place}.attention.self.query", size**-0.5), (1, 0, 2))
        key = by_head(layer(x, f"{place}.attention.self.key"), (1, 2, 0))
        value = by_head(layer(x, f"{place}.attention.self.value"), (1, 0, 2))
        scores = graph.node("Add", graph.node("MatMul", query, key), mask)
        seen = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
        together = graph.node("Transpose", seen, perm=(1, 0, 2))
        flat = graph.node("Reshape", together, graph.constant(np.array([1, length, width])))
        seen = graph.node("Add", x, layer(flat, f"{place}.attention.output.dense"))
        x = normalised(seen, f"{place}.attention.output.LayerNorm")
        inner = graph.gelu(layer(x, f"{place}.intermediate.dense"))
        inner = graph.node("Add", x, layer(inner, f"{place}.output.dense"))
        last = index == count - 1
        to = graph.output("hidden", 1, length, width) if last else ""
        x = normalised(inner, f"{place}.output.LayerNorm", to)
    return graph.model("encoder")
