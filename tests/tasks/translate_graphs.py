"""A small translation network with the interface of Lite Transformer, twice: as ONNX with caches,
and as plain numpy that reads everything again for each piece."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from rkzoo.graph.writer import Writer

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
        graph = Writer(self.weights)
        x = graph.input("x", 1, self.slots, self.width)
        mask = graph.input("encoder_padding_mask", 1, self.slots, self.slots)
        seen, _, _ = self._attention(graph, "enc", x, x, mask, self.slots, self.slots)
        graph.node("Add", x, seen, to=graph.output("encoder_output", 1, self.slots, self.width))
        return graph.model("encoder")

    def decoder(self) -> onnx.ModelProto:
        graph = Writer(self.weights)
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
        graph: Writer,
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
    held = {name: value.astype(np.float64) for name, value in net.weights.items()}

    def rows(numbers: list[int]) -> NDArray[np.float64]:
        return np.array(
            [
                held["table"][number] * net.width**0.5 + place_of(2 + index, net.width)
                for index, number in enumerate(numbers)
            ]
        )

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

    memory = rows([*pieces, 2])
    memory = memory + attend("enc", memory, memory, False)
    x = rows([2, *said])
    for n in range(net.layers):
        x = x + attend(f"self{n}", x, x, True)
        x = x + attend(f"cross{n}", x, memory, False)
    return np.asarray(x[-1] @ held["table"].T)
