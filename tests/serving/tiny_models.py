"""ONNX models of a few numbers, whose answers numpy gives as well."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from rkzoo.session import Array

OUTPUT_TYPES = {
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "BOOL": "bool",
}


def scaled(path: Path, *, factor: float = 2.0, batch: int = 1, width: int = 4) -> Path:
    """`y` is `x` times a factor and `total` the sum of each row of it."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=1),
    ]
    weights = [
        helper.make_tensor("factor", TensorProto.FLOAT, [], [factor]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
    ]
    inputs = {"x": (TensorProto.FLOAT, (batch, width))}
    outputs = {"y": (TensorProto.FLOAT, (batch, width)), "total": (TensorProto.FLOAT, (batch, 1))}
    return _save(path, nodes, inputs, outputs, weights)


def of_all_types(path: Path) -> Path:
    """`x` as each datatype; `whole` and `long`, integers, plus one."""
    nodes = [
        helper.make_node("Cast", ["x"], [name], to=_element(dtype))
        for name, dtype in OUTPUT_TYPES.items()
    ]
    nodes.append(helper.make_node("Add", ["whole", "one"], ["whole1"]))
    nodes.append(helper.make_node("Add", ["long", "one_long"], ["long1"]))
    weights = [
        helper.make_tensor("one", TensorProto.INT32, [], [1]),
        helper.make_tensor("one_long", TensorProto.INT64, [], [1]),
    ]
    inputs = {
        "x": (TensorProto.FLOAT, (1, 3)),
        "whole": (TensorProto.INT32, (2, 2)),
        "long": (TensorProto.INT64, (2,)),
    }
    outputs = {name: (_element(dtype), (1, 3)) for name, dtype in OUTPUT_TYPES.items()}
    outputs["whole1"] = (TensorProto.INT32, (2, 2))
    outputs["long1"] = (TensorProto.INT64, (2,))
    return _save(path, nodes, inputs, outputs, weights)


def all_types_inputs() -> dict[str, Array]:
    """Inputs of `of_all_types` at the ends of what they may be."""
    ends = np.iinfo(np.int64)
    return {
        "x": np.array([[0.0, 1.5, 100.25]], np.float32),
        "whole": np.array([[0, -1], [2**31 - 2, -(2**31)]], np.int32),
        "long": np.array([ends.max - 1, ends.min]),
    }


def all_types_outputs(inputs: dict[str, Array]) -> dict[str, Array]:
    """What `of_all_types` gives, behind a server, which has floats as FP32."""
    told: dict[str, Array] = {
        name: inputs["x"].astype(dtype).astype("float32" if name.startswith("FP") else dtype)
        for name, dtype in OUTPUT_TYPES.items()
    }
    return told | {"whole1": inputs["whole"] + 1, "long1": inputs["long"] + 1}


def slow(path: Path, *, side: int = 512, steps: int = 96) -> Path:
    """`y` takes about half a second: products of matrices, one after another."""
    names = ["x", *(f"y{step}" for step in range(steps - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [before, before], [after]) for before, after in pairwise(names)
    ]
    shape = (side, side)
    floats = TensorProto.FLOAT
    return _save(path, nodes, {"x": (floats, shape)}, {"y": (floats, shape)}, [])


def slow_inputs(side: int = 512) -> dict[str, Array]:
    """Inputs of `slow` that stay as they are."""
    return {"x": np.full((side, side), 1 / side, np.float32)}


def _element(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


Tensors = dict[str, tuple[int, tuple[int, ...]]]


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: Tensors,
    outputs: Tensors,
    weights: list[onnx.TensorProto],
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *about) for name, about in inputs.items()],
        [helper.make_tensor_value_info(name, *about) for name, about in outputs.items()],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    # Moved into place, as whoever replaces a model should.
    new = path.with_suffix(".new")
    new.write_bytes(model.SerializeToString())
    new.replace(path)
    return path
