"""What exporters put between a graph's input and its network, in many spellings, and what a
picture must look like for each: the oracle feeds the whole graph so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
FLOAT, HALF, BYTES = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
Array = NDArray[Any]
Step = tuple[str, str, str, dict[str, object]]  # operator, inputs, outputs, attributes


def column(*values: object) -> Array:
    return np.asarray(values, np.float32).reshape(1, -1, 1, 1)


def plain(rgb: Array) -> Array:
    return rgb.astype(np.float32)


def share(rgb: Array) -> Array:
    return rgb.astype(np.float32) / np.float32(255)


def swapped(rgb: Array) -> Array:
    return rgb[..., ::-1].astype(np.float32)


@dataclass(frozen=True)
class Front:
    """`steps` turn "@" into "network"; `tensors` are their constants, `inline` as nodes. `fed`
    makes of an RGB picture (H, W, 3) what the graph itself takes."""

    steps: Sequence[Step]
    tensors: dict[str, Any] = field(default_factory=dict)
    fed: Callable[[Array], Array] = plain
    dtype: int = FLOAT
    last: bool = False
    inline: bool = False

    def before(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of `model`, whose picture is 1x3xHxW, with this in front."""
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        graph = copy.graph
        weights = {tensor.name for tensor in graph.initializer}
        info = next(i for i in graph.input if i.name not in weights)
        for node in graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = "network" if name == info.name else name
        nodes = []
        for name, value in self.tensors.items():
            tensor = numpy_helper.from_array(np.asarray(value), name)
            if self.inline:
                nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            else:
                graph.initializer.append(tensor)
        for operator, inputs, outputs, attributes in self.steps:
            names = [info.name if name == "@" else name for name in inputs.split()]
            nodes.append(helper.make_node(operator, names, outputs.split(), **attributes))
        rest = list(graph.node)
        del graph.node[:], graph.value_info[:]
        graph.node.extend([*nodes, *rest])
        kind = info.type.tensor_type
        kind.elem_type = self.dtype
        if self.last:
            dims = [
                onnx.TensorShapeProto.Dimension.FromString(d.SerializeToString())
                for d in kind.shape.dim
            ]
            del kind.shape.dim[:]
            kind.shape.dim.extend(dims[i] for i in (0, 2, 3, 1))
        return copy

    def array(self, rgb: Array) -> Array:
        """An RGB picture (H, W, 3) as the graph takes it."""
        fed = self.fed(rgb)[None]
        fed = fed if self.last else fed.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(fed, helper.tensor_dtype_to_np_dtype(self.dtype))


NORMAL: list[Step] = [("Sub", "@ m", "a", {}), ("Div", "a s", "network", {})]
FIRST: dict[str, object] = {"perm": [0, 3, 1, 2]}
BGR = np.array([2, 1, 0])
_RAW = {"m": column(*MEAN), "s": column(*STD)}
_OF_1 = {"m": column(*MEAN / 255), "s": column(*STD / 255)}

# All of these end in ImageNet's normalisation of an RGB picture.
IMAGENET: dict[str, Front] = {
    "sub, div": Front(NORMAL, _RAW),
    "sub, div of constant nodes": Front(NORMAL, _RAW, inline=True),
    "vectors without a batch": Front(NORMAL, {name: value[0] for name, value in _RAW.items()}),
    "mul, add, constants first": Front(
        [("Mul", "g @", "a", {}), ("Add", "b a", "network", {})],
        {"g": column(*1 / STD), "b": column(*-MEAN / STD)},
    ),
    "of 0..1": Front(NORMAL, _OF_1, share),
    "div by 255, then of 0..1": Front(
        [("Div", "@ k", "c", {}), ("Sub", "c m", "a", {}), ("Div", "a s", "network", {})],
        {"k": np.float32(255), **_OF_1},
    ),
    "mul by 1/255 as a vector": Front(
        [("Mul", "@ k", "c", {}), ("Add", "c m", "a", {}), ("Mul", "a s", "network", {})],
        {"k": column(*[1 / 255] * 3), "m": column(*-MEAN / 255), "s": column(*255 / STD)},
    ),
    "batch normalisation": Front(
        [("BatchNormalization", "@ g b m v", "network", {"epsilon": 1e-9})],
        {"g": np.ones(3, np.float32), "b": np.zeros(3, np.float32), "m": MEAN, "v": STD**2},
    ),
    "batch normalisation of 0..1": Front(
        [("BatchNormalization", "@ g b m v", "network", {"epsilon": 0.0})],
        {
            "g": 255 / STD,
            "b": -MEAN / STD,
            "m": np.zeros(3, np.float32),
            "v": np.ones(3, np.float32),
        },
        share,
    ),
    "a cast from uint8": Front(
        [("Cast", "@", "c", {"to": FLOAT}), ("Sub", "c m", "a", {}), ("Div", "a s", "network", {})],
        _RAW,
        dtype=BYTES,
    ),
    "channels last, then turned": Front(
        [("Transpose", "@", "c", FIRST), ("Sub", "c m", "a", {}), ("Div", "a s", "network", {})],
        _RAW,
        last=True,
    ),
    "uint8, channels last, normalised before it is turned": Front(
        [
            ("Cast", "@", "c", {"to": FLOAT}),
            ("Sub", "c m", "a", {}),
            ("Div", "a s", "n", {}),
            ("Transpose", "n", "network", FIRST),
        ],
        {"m": MEAN, "s": STD},
        dtype=BYTES,
        last=True,
    ),
    "flipped by gather, then normalised": Front(
        [
            ("Gather", "@ i", "c", {"axis": 1}),
            ("Sub", "c m", "a", {}),
            ("Div", "a s", "network", {}),
        ],
        {"i": BGR, **_RAW},
        swapped,
    ),
    "normalised, then flipped by slice": Front(
        [("Sub", "@ m", "a", {}), ("Div", "a s", "n", {}), ("Slice", "n b e x t", "network", {})],
        {
            "m": column(*MEAN[::-1]),
            "s": column(*STD[::-1]),
            "b": np.array([-1]),
            "e": np.array([-4]),
            "x": np.array([1]),
            "t": np.array([-1]),
        },
        swapped,
    ),
    "flipped by split and concat": Front(
        [
            ("Split", "@", "c0 c1 c2", {"axis": 1}),
            ("Concat", "c2 c1 c0", "c", {"axis": 1}),
            ("Sub", "c m", "a", {}),
            ("Div", "a s", "network", {}),
        ],
        _RAW,
        swapped,
    ),
    "each channel by itself": Front(
        [
            ("Split", "@", "c0 c1 c2", {"axis": 1}),
            *(
                (kind, f"{x}{i} {x}{i}_by", f"{y}{i}", {})
                for i in range(3)
                for kind, x, y in (("Sub", "c", "d"), ("Div", "d", "e"))
            ),
            ("Concat", "e0 e1 e2", "network", {"axis": 1}),
        ],
        {f"{x}{i}_by": np.float32(of[i]) for i in range(3) for x, of in (("c", MEAN), ("d", STD))},
    ),
    "uint8, channels last, flipped": Front(
        [
            ("Gather", "@ i", "c", {"axis": 3}),
            ("Cast", "c", "f", {"to": FLOAT}),
            ("Transpose", "f", "t", FIRST),
            ("Sub", "t m", "a", {}),
            ("Div", "a s", "network", {}),
        ],
        {"i": BGR, **_RAW},
        lambda rgb: rgb[..., ::-1],
        dtype=BYTES,
        last=True,
    ),
    "only flipped": Front(
        [("Gather", "@ i", "network", {"axis": 1})],
        {"i": BGR},
        lambda rgb: swapped((rgb - MEAN) / STD),
    ),
    "only turned": Front(
        [("Transpose", "@", "network", FIRST)], {}, lambda rgb: plain((rgb - MEAN) / STD), last=True
    ),
    "clipped to what pixels are": Front(
        [("Clip", "@ low high", "c", {}), ("Sub", "c m", "a", {}), ("Div", "a s", "network", {})],
        {"low": np.float32(0), "high": np.float32(255), **_RAW},
    ),
    "half precision": Front(
        [("Cast", "@", "c", {"to": FLOAT}), ("Sub", "c m", "a", {}), ("Div", "a s", "network", {})],
        _RAW,
        dtype=HALF,
    ),
}

# These end in 0..1 of an RGB picture.
SHARES: dict[str, Front] = {
    "div by a scalar": Front([("Div", "@ k", "network", {})], {"k": np.float32(255)}),
    "div by a vector": Front([("Div", "@ k", "network", {})], {"k": column(255, 255, 255)}),
    "two factors": Front(
        [("Mul", "@ k", "c", {}), ("Div", "c l", "network", {})],
        {"k": np.float32(2), "l": np.float32(510)},
    ),
    "a cast from uint8": Front(
        [("Cast", "@", "c", {"to": FLOAT}), ("Mul", "c k", "network", {})],
        {"k": np.float32(1 / 255)},
        dtype=BYTES,
    ),
    "channels last": Front(
        [("Transpose", "@", "c", FIRST), ("Mul", "c k", "network", {})],
        {"k": np.float32(1 / 255)},
        last=True,
    ),
    "uint8, channels last, flipped": Front(
        [
            ("Cast", "@", "c", {"to": FLOAT}),
            ("Div", "c k", "d", {}),
            ("Transpose", "d", "e", FIRST),
            ("Split", "e", "e0 e1 e2", {"axis": 1}),
            ("Concat", "e2 e1 e0", "network", {"axis": 1}),
        ],
        {"k": np.float32(255)},
        lambda rgb: rgb[..., ::-1],
        dtype=BYTES,
        last=True,
    ),
    "only flipped": Front(
        [("Gather", "@ i", "network", {"axis": 1})], {"i": BGR}, lambda rgb: swapped(rgb) / 255
    ),
    "uint8 through a dequantisation": Front(
        [("DequantizeLinear", "@ s z", "network", {})],
        {"s": np.float32(1 / 255), "z": np.uint8(0)},
        dtype=BYTES,
    ),
    "whole numbers": Front(
        [("Cast", "@", "c", {"to": FLOAT}), ("Div", "c k", "network", {})],
        {"k": np.float32(255)},
        dtype=TensorProto.INT32,
    ),
    "signed bytes": Front(
        [("Cast", "@", "c", {"to": FLOAT}), ("Add", "c b", "d", {}), ("Div", "d k", "network", {})],
        {"b": np.float32(128), "k": np.float32(255)},
        lambda rgb: rgb.astype(np.float32) - 128,
        dtype=TensorProto.INT8,
    ),
    "double precision": Front(
        [("Div", "@ k", "c", {}), ("Cast", "c", "network", {"to": FLOAT})],
        {"k": np.float64(255)},
        dtype=TensorProto.DOUBLE,
    ),
    "planes picked one by one": Front(
        [
            *(("Gather", f"@ i{i}", f"p{i}", {"axis": 1}) for i in range(3)),
            ("Concat", "p2 p1 p0", "c", {"axis": 1}),
            ("Mul", "c k", "network", {}),
        ],
        {**{f"i{i}": np.array([i]) for i in range(3)}, "k": np.float32(1 / 255)},
        swapped,
    ),
    "channels last, and nothing else": Front(
        [("Transpose", "@", "network", FIRST)], {}, share, last=True
    ),
}
