"""Mutated model files, the same for the same seed: bytes, and the structure of the graph."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

NUMBERS = (
    -1,
    0,
    1,
    2,
    3,
    7,
    1 << 10,
    1 << 15,
    1 << 20,
    1 << 31,
    (1 << 31) - 1,
    1 << 40,
    -(1 << 63),
)
WORDS = ("", "x", "\x1b[31m", "../../etc/passwd", "a" * 3000, "\u202e", "none")


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut out, doubled; or the file cut short."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 20))):
        at = chance.randrange(len(found)) if found else 0
        how = chance.randrange(5)
        if how == 0 and found:
            found[at] ^= 1 << chance.randrange(8)
        elif how == 1 and found:
            found[at] = chance.choice((0, 1, 127, 128, 255))
        elif how == 2:
            del found[at : at + chance.choice((1, 4, 100))]
        elif how == 3:
            found[at:at] = found[at : at + chance.choice((1, 8, 64))]
        elif chance.random() < 0.2:
            del found[at:]
    return bytes(found)


def _node(graph: onnx.GraphProto, chance: random.Random) -> onnx.NodeProto:
    return chance.choice(graph.node)


def _attribute(graph: onnx.GraphProto, chance: random.Random) -> None:
    nodes = [node for node in graph.node if node.attribute] or list(graph.node)
    node = chance.choice(nodes)
    if not node.attribute:
        return
    attribute = chance.choice(node.attribute)
    if attribute.ints:
        attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(NUMBERS)
    elif attribute.HasField("t"):
        _data(attribute.t, chance)
    elif attribute.HasField("i"):
        attribute.i = chance.choice(NUMBERS)
    else:
        attribute.f = chance.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    if chance.random() < 0.1:
        attribute.type = chance.randrange(12)


def _data(tensor: TensorProto, chance: random.Random) -> None:
    """Another number in a small tensor of whole numbers, which are shapes, pads and scales."""
    values = numpy_helper.to_array(tensor).copy()
    if values.size and values.dtype.kind in "if":
        flat = values.reshape(-1)
        number = chance.choice(NUMBERS)
        flat[chance.randrange(flat.size)] = max(min(number, 2**31 - 1), -(2**31))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _initializer(graph: onnx.GraphProto, chance: random.Random) -> None:
    if not graph.initializer:
        return
    tensor = chance.choice(graph.initializer)
    how = chance.randrange(4)
    if how == 0 and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(NUMBERS)
    elif how == 1:
        tensor.data_type = chance.randrange(25)
    elif how == 2:
        tensor.raw_data = tensor.raw_data[: chance.randrange(8)]
    else:
        _data(tensor, chance)


def _small_initializer(graph: onnx.GraphProto, chance: random.Random) -> None:
    small = [t for t in graph.initializer if t.data_type == TensorProto.INT64]
    if small:
        _data(chance.choice(small), chance)


def _shape(graph: onnx.GraphProto, chance: random.Random) -> None:
    info = chance.choice((*graph.input, *graph.output))
    dims = info.type.tensor_type.shape.dim
    if dims and chance.random() < 0.8:
        chance.choice(dims).dim_value = chance.choice(NUMBERS)
    elif chance.random() < 0.5:
        dims.add().dim_value = chance.choice(NUMBERS)
    else:
        info.type.tensor_type.elem_type = chance.randrange(25)


def _edge(graph: onnx.GraphProto, chance: random.Random) -> None:
    """An input from anywhere: cycles too."""
    node = _node(graph, chance)
    names = [name for other in graph.node for name in other.output] + [""]
    if node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(names)
    if chance.random() < 0.2:
        node.output[0] = chance.choice(names)


def _name(graph: onnx.GraphProto, chance: random.Random) -> None:
    node = _node(graph, chance)
    how = chance.randrange(3)
    if how == 0:
        node.op_type = chance.choice([*{n.op_type for n in graph.node}, *WORDS, "Loop", "Range"])
    elif how == 1:
        node.domain = chance.choice(WORDS)
    else:
        chance.choice((*graph.input, *graph.output)).name = chance.choice(WORDS)


def _inserted(graph: onnx.GraphProto, chance: random.Random) -> None:
    """An operator that makes much of little, behind a tensor that is made."""
    at = chance.randrange(len(graph.node))
    node = graph.node[at]
    if not node.output:
        return
    inner = node.output[0]
    node.output[0] = f"{inner}_before"
    size = chance.choice((2, 1 << 10, 1 << 20, 1 << 28, 1 << 40))
    rank = chance.choice((3, 4))
    kind, values = chance.choice(
        (
            ("Pad", [0, 0, *[size] * (rank - 2)] * 2),
            ("Tile", [1] * (rank - 1) + [size]),
            ("Expand", [size] + [1] * rank),
            ("Reshape", [1, -1, size]),
            ("Gather", [size, -size]),
        )
    )
    graph.initializer.append(numpy_helper.from_array(_int64(values), f"{inner}_by"))
    new = helper.make_node(kind, [f"{inner}_before", f"{inner}_by"], [inner])
    nodes = [copy.deepcopy(n) for n in graph.node]
    nodes.insert(at + 1, new)
    del graph.node[:]
    graph.node.extend(nodes)


def _constant(graph: onnx.GraphProto, chance: random.Random) -> None:
    """A large constant that shape arithmetic makes, added to an output."""
    size = chance.choice((1 << 10, 1 << 24, 1 << 27, 1 << 30, 1 << 40))
    name = graph.output[0].name
    makers = [node for node in graph.node if name in node.output]
    if not makers:
        return
    place = list(makers[0].output).index(name)
    makers[0].output[place] = "kept_before"
    graph.initializer.append(numpy_helper.from_array(_int64([size]), "many"))
    graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["many"], ["lots"]),
            helper.make_node("ReduceSum", ["lots"], ["sum_of_lots"], keepdims=0),
            helper.make_node("Add", ["kept_before", "sum_of_lots"], [name]),
        ]
    )


def _int64(values: list[int]) -> Any:
    import numpy as np

    return np.array(values, np.int64)


def _external(graph: onnx.GraphProto, chance: random.Random) -> None:
    if not graph.initializer:
        return
    tensor = chance.choice(graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, values in {
        "location": (*WORDS, "/etc/passwd", "weights.bin", "."),
        "offset": ("-5", "abc", "0", "1" * 30, ""),
        "length": ("-5", "abc", "4", "1" * 30),
    }.items():
        if chance.random() < 0.8:
            entry = tensor.external_data.add()
            entry.key, entry.value = key, chance.choice(values)


STRUCTURAL: tuple[Callable[[onnx.GraphProto, random.Random], None], ...] = (
    _attribute,
    _initializer,
    _small_initializer,
    _shape,
    _edge,
    _name,
    _inserted,
    _constant,
    _external,
)


def changed(model: onnx.ModelProto, chance: random.Random) -> bytes:
    """The model with one to three things changed in its graph."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for _ in range(chance.choice((1, 1, 2, 3))):
        try:
            chance.choice(STRUCTURAL)(found.graph, chance)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError):
            continue  # what an earlier change made impossible
    return bytes(found.SerializeToString())


def changed_json(document: Any, chance: random.Random) -> bytes:
    """The document with some values replaced or taken out."""
    found = copy.deepcopy(document)
    for _ in range(chance.choice((1, 2, 4))):
        at = found
        while isinstance(at, dict | list) and at:
            key = chance.choice(list(at)) if isinstance(at, dict) else chance.randrange(len(at))
            if chance.random() < 0.4 or not isinstance(at[key], dict | list):
                values = (*NUMBERS, *WORDS, None, [], {}, "/dev/zero", [[]] * 50, 1e300)
                if chance.random() < 0.15:
                    del at[key]
                else:
                    at[key] = chance.choice(values)
                break
            at = at[key]
    return json.dumps(found).encode()


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path
