"""A small translation network with the interface of Lite Transformer, twice: as ONNX with caches,
and as plain numpy that reads everything again for each piece."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from rkzoo.graph.onnx.writer import GraphWriter

Floats = NDArray[np.float32]
HIDDEN = 1e4  # times 1 is taken off what must not be seen; half precision has such a number


@dataclass(frozen=True)
class Small:
    """`slots` pieces in, `steps` out, `width` numbers in `heads` heads, `layers` decoder layers,
    `pieces` in the vocabulary."""

    slots: int = 8
    steps: int = 8
    width: int = 32
    heads: int = 2
    layers: int = 2
    pieces: int = 64
    seed: int = 0

    @cached_property
    def weights(self) -> dict[str, Floats]:
        random = np.random.default_rng(self.seed)
        places = ["enc", *(f"{kind}{n}" for n in range(self.layers) for kind in ("self", "cross"))]
        shape = (self.width, self.width)
        found = {
            f"{place}.{name}": random.normal(size=shape).astype(np.float32) / self.width**0.5
            for place in places
            for name in "qkvo"
        }
        table = random.normal(size=(self.pieces, self.width)) / self.width**0.5
        table[1] = 0
        return {**found, "table": table.astype(np.float32)}

    def encoder(self) -> onnx.ModelProto:
        graph = GraphWriter(self.weights)
        x = graph.input("x", 1, self.slots, self.width)
        mask = graph.input("encoder_padding_mask", 1, self.slots, self.slots)
        seen, _, _ = self._attention(graph, "enc", x, x, mask, self.slots, self.slots)
        graph.node("Add", x, seen, to=graph.output("encoder_output", 1, self.slots, self.width))
        return graph.model("encoder")

    def decoder(self) -> onnx.ModelProto:
        graph = GraphWriter(self.weights)
        size = self.width // self.heads
        x = graph.input("prev_output_tokens", 1, 1, self.width)
        memory = graph.input("encoder_out", 1, self.slots, self.width)
        hidden = graph.input("encoder_padding_mask", 1, self.slots)
        mask = graph.input("decoder_pading_mask", 1, self.steps)
        caches = [
            graph.input(f"prev_{name}{n}", 1, self.heads, self.steps - 1, size)
            for n in range(self.layers)
            for name in ("key", "value")
        ]
        scores = graph.output("decoder_output", 1, 1, self.pieces)
        for n in range(self.layers):
            saved = [
                graph.output(f"save_{name}{n}", 1, self.heads, self.steps, size)
                for name in ("key", "value")
            ]
            past = (caches[2 * n], caches[2 * n + 1], *saved)
            seen, _, _ = self._attention(graph, f"self{n}", x, x, mask, 1, 1, past)
            x = graph.node("Add", x, seen)
            seen, _, _ = self._attention(graph, f"cross{n}", x, memory, hidden, 1, self.slots)
            x = graph.node("Add", x, seen)
        graph.linear(x, self.weights["table"], None, to=scores)
        return graph.model("decoder")

    def _attention(
        self,
        graph: GraphWriter,
        place: str,
        x: str,
        memory: str,
        mask: str,
        rows: int,
        columns: int,
        past: tuple[str, ...] = (),
    ) -> tuple[str, str, str]:
        size = self.width // self.heads

        def apart(value: str, count: int, to: str = "") -> str:
            shape = graph.constant(np.array([1, count, self.heads, size]))
            split = graph.node("Reshape", value, shape)
            return graph.node("Transpose", split, perm=(0, 2, 1, 3), to=to)

        held = self.weights
        q = apart(graph.linear(x, held[f"{place}.q"], None), rows)
        k = apart(graph.linear(memory, held[f"{place}.k"], None), columns)
        v = apart(graph.linear(memory, held[f"{place}.v"], None), columns)
        if past:
            k = graph.node("Concat", past[0], k, axis=2, to=past[2])
            v = graph.node("Concat", past[1], v, axis=2, to=past[3])
        turned = graph.node("Transpose", k, perm=(0, 1, 3, 2))
        scores = graph.node("Mul", graph.node("MatMul", q, turned), graph.constant(size**-0.5))
        off = graph.node("Mul", mask, graph.constant(-HIDDEN))
        seen = graph.node("Softmax", graph.node("Add", scores, off), axis=-1)
        mixed = graph.node("Transpose", graph.node("MatMul", seen, v), perm=(0, 2, 1, 3))
        flat = graph.node("Reshape", mixed, graph.constant(np.array([1, rows, self.width])))
        return graph.linear(flat, held[f"{place}.o"], None), k, v


def place_of(place: int, width: int) -> list[float]:
    """Sines, then cosines, number by number."""
    half = width // 2
    angles = [place / 10000 ** (i / (half - 1)) for i in range(half)]
    return [*map(float, np.sin(angles)), *map(float, np.cos(angles))]


def plain_scores(net: Small, pieces: list[int], said: list[int]) -> NDArray[np.float64]:
    """(pieces,): scores of what follows `said`, everything calculated anew, without any pad,
    mask or cache: a pad must change nothing."""
    table = net.weights["table"].astype(np.float64)

    def rows(numbers: list[int]) -> NDArray[np.float64]:
        return np.array(
            [
                table[number] * net.width**0.5 + place_of(2 + index, net.width)
                for index, number in enumerate(numbers)
            ]
        )

    return draw_prediction(net, rows([*pieces, 2]), rows([2, *said]))


def draw_prediction(
    net: Small, memory: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(pieces,): scores of what follows the rows `x`, having read the rows `memory`."""
    held = {name: value.astype(np.float64) for name, value in net.weights.items()}

    def attend(
        place: str, x: NDArray[np.float64], memory: NDArray[np.float64], causal: bool
    ) -> NDArray[np.float64]:
        size = net.width // net.heads
        found = np.zeros_like(x)
        q, k, v = (
            a @ held[f"{place}.{n}"].T for a, n in zip((x, memory, memory), "qkv", strict=True)
        )
        for i in range(len(x)):
            for head in range(net.heads):
                part = slice(head * size, (head + 1) * size)
                seen = range(i + 1) if causal else range(len(memory))
                powers = np.array([np.exp(q[i, part] @ k[j, part] / size**0.5) for j in seen])
                for j, share in zip(seen, powers / powers.sum(), strict=True):
                    found[i, part] += share * v[j, part]
        return found @ held[f"{place}.o"].T

    memory = memory + attend("enc", memory, memory, False)
    for n in range(net.layers):
        x = x + attend(f"self{n}", x, x, True)
        x = x + attend(f"cross{n}", x, memory, False)
    return np.asarray(x[-1] @ held["table"].T)


@dataclass(frozen=True)
class SmallMarian(Small):
    """The same attention with the interface of a Marian export: numbers in, no caches. The last
    piece is the pad."""

    @cached_property
    def places(self) -> Floats:
        """Rows of the places, as good as any: they are inside the graph."""
        shape = (max(self.slots, self.steps), self.width)
        return np.random.default_rng(self.seed + 1).normal(size=shape).astype(np.float32)

    def encoder(self) -> onnx.ModelProto:
        graph = GraphWriter(self.weights)
        x = self._embedded(graph, "input_ids", self.slots)
        hidden = self._hidden(graph, "attention_mask")
        seen, _, _ = self._attention(graph, "enc", x, x, hidden, self.slots, self.slots)
        graph.node("Add", x, seen, to=graph.output("last_hidden_state", 1, self.slots, self.width))
        return graph.model("encoder")

    def decoder(self) -> onnx.ModelProto:
        graph = GraphWriter(self.weights)
        hidden = self._hidden(graph, "encoder_attention_mask")
        x = self._embedded(graph, "input_ids", self.steps)
        memory = graph.input("encoder_hidden_states", 1, self.slots, self.width)
        later = graph.constant(np.triu(np.ones((1, self.steps, self.steps)), 1))
        for n in range(self.layers):
            seen, _, _ = self._attention(graph, f"self{n}", x, x, later, self.steps, self.steps)
            x = graph.node("Add", x, seen)
            seen, _, _ = self._attention(
                graph, f"cross{n}", x, memory, hidden, self.steps, self.slots
            )
            x = graph.node("Add", x, seen)
        scores = graph.output("logits", 1, self.steps, self.pieces)
        graph.linear(x, self.weights["table"], None, to=scores)
        # An export with past has the keys and values beside: they are of no use here.
        graph.node("Identity", x, to=graph.output("present", 1, self.steps, self.width))
        return graph.model("decoder")

    def rows(self, numbers: list[int]) -> NDArray[np.float64]:
        table = self.weights["table"].astype(np.float64)
        return table[numbers] * self.width**0.5 + self.places[: len(numbers)]

    def _embedded(self, graph: GraphWriter, name: str, count: int) -> str:
        ids = graph.input(name, 1, count, kind=onnx.TensorProto.INT64)
        rows = graph.node("Gather", graph.constant(self.weights["table"]), ids)
        wide = graph.node("Mul", rows, graph.constant(self.width**0.5))
        return graph.node("Add", wide, graph.constant(self.places[None, :count]))

    def _hidden(self, graph: GraphWriter, name: str) -> str:
        mask = graph.input(name, 1, self.slots, kind=onnx.TensorProto.INT64)
        none = graph.node("Equal", mask, graph.constant(np.array(0)))
        return graph.node("Where", none, graph.constant(1.0), graph.constant(0.0))


def only(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """As the card cuts it: without the other outputs."""
    kept = [one for one in model.graph.output if one.name == output]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model


SENTENCES = [
    "The cat sat on the mat, and the dog ran.",
    "A long day; the sun was hot and the cat slept.",
    "He ran to the sun with a hat on the dog.",
]


def write_pieces(folder: Path) -> tuple[Path, Path, Path]:
    """vocab.json, source.spm and target.spm of a SentencePiece model of SENTENCES; the network's
    numbers are not SentencePiece's."""
    import sentencepiece as spm

    trained = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=trained,
        model_type="bpe",
        vocab_size=60,
        minloglevel=2,
    )
    known = spm.SentencePieceProcessor(model_proto=trained.getvalue())
    pieces = [known.id_to_piece(number) for number in range(3, len(known))]
    names = ["</s>", "<unk>", *sorted(pieces), ">>x<<", "<pad>"]
    files = folder / "vocab.json", folder / "source.spm", folder / "target.spm"
    table = {piece: number for number, piece in enumerate(names)}
    files[0].write_text(json.dumps(table), "utf-8")
    files[1].write_bytes(trained.getvalue())
    files[2].write_bytes(trained.getvalue())
    return files
