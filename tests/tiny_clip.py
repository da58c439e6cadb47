"""A small CLIP with the interface of the published one, and what it answers as formulas."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from PIL import Image

from rkzoo.graph.onnx.writer import GraphWriter
from rkzoo.tasks.prompt.tokenizer import END, ClipTokenizer

SIDE, WIDTH, ROWS = 32, 8, 509
RANDOM = np.random.default_rng(11)
COLOURS = RANDOM.normal(size=(WIDTH, 3)).astype(np.float32)
TABLE = RANDOM.normal(size=(ROWS, WIDTH)).astype(np.float32)
MEAN, STD = (122.75, 116.75, 104.0), (68.5, 66.5, 70.25)

CARD = """
name: {name}
task: embed
title: A small CLIP
licence: {{name: MIT}}
"""
PART = CARD + "sources: [{{url: 'file:{name}.onnx', sha256: null, unverified: made here}}]\n"
IMAGE = (
    PART
    + """
input: {{size: [32, 32], mean: [122.75, 116.75, 104.0], std: [68.5, 66.5, 70.25], fit: crop,
  smooth: true}}
head: {{kind: tensors}}
outputs: [image_embeds]
dtypes: [fp16]
"""
)
TEXT = (
    PART
    + """
files: {{vocabulary: [{{url: 'file:vocabulary.gz', sha256: null, unverified: made here}}]}}
arrays: [{{name: input_ids, shape: [1, 12], dtype: int64}}]
head: {{kind: tensors}}
outputs: [text_embeds]
dtypes: [fp16]
"""
)
PIPELINE = (
    CARD
    + "pipeline: {{image: tiny-image, text: tiny-text}}\nhead: {{kind: clip}}\ndtypes: [fp16]\n"
)


def image_model() -> onnx.ModelProto:
    """The mean colour, weighed; a second output, as real exports have."""
    graph = GraphWriter({})
    x = graph.input("pixel_values", 1, 3, SIDE, SIDE)
    mean = graph.node("GlobalAveragePool", x)
    flat = graph.node("Flatten", mean, axis=1)
    graph.linear(flat, COLOURS, None, to=graph.output("image_embeds", 1, WIDTH))
    graph.node("Flatten", x, axis=1, to=graph.output("other", 1, 3 * SIDE * SIDE))
    return graph.model("image")


def text_model() -> onnx.ModelProto:
    """The mean of a row for each token, the ends among them."""
    graph = GraphWriter({})
    ids = graph.input("input_ids", 1, 12, kind=TensorProto.INT64)
    row = graph.node("Mod", ids, graph.constant(np.array(ROWS)))
    rows = graph.node("Gather", graph.constant(TABLE), row)
    to = graph.output("text_embeds", 1, WIDTH)
    graph.node("ReduceMean", rows, to=to, axes=[1], keepdims=0)
    return graph.model("text")


def vocabulary() -> bytes:
    letters = [chr(c) for c in (*range(0x21, 0x7F), *range(0xAE, 0x100))]
    pairs = list(itertools.product(letters, repeat=2))
    merges = [*pairs, *((a + b, a) for a, b in pairs)][: 49152 - 258]
    return gzip.compress(("title\n" + "".join(f"{a} {b}\n" for a, b in merges)).encode(), 1)


def write_cards(folder: Path) -> None:
    """The card tiny-clip, its parts and their files."""
    (folder / "vocabulary.gz").write_bytes(vocabulary())
    onnx.save(image_model(), folder / "tiny-image.onnx")
    onnx.save(text_model(), folder / "tiny-text.onnx")
    for name, text in (("tiny-image", IMAGE), ("tiny-text", TEXT), ("tiny-clip", PIPELINE)):
        (folder / f"{name}.yaml").write_text(text.format(name=name))


def unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / np.linalg.norm(values)


def seen(path: Path) -> NDArray[np.float64]:
    """Pillow scales the short side, as CLIP's own preprocessing does; the middle is taken."""
    picture = Image.open(path).convert("RGB")
    wide, high = picture.size
    short = min(wide, high)
    scaled = (int(SIDE * wide / short), int(SIDE * high / short))
    picture = picture.resize(scaled, Image.Resampling.BICUBIC)
    left, top = (scaled[0] - SIDE) // 2, (scaled[1] - SIDE) // 2
    pixels = np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)), np.float64)
    return unit(COLOURS @ ((pixels - MEAN) / STD).mean(axis=(0, 1)))


def meant(words: str, cards: Path) -> NDArray[np.float64]:
    tokens = ClipTokenizer.from_file(cards / "vocabulary.gz").encode(words)
    row = [49406, *tokens, *[END] * (11 - len(tokens))]
    return unit(np.mean([TABLE[token % ROWS] for token in row], axis=0, dtype=np.float64))
