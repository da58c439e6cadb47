"""Builds a small model of each operator for each chip and writes src/rkzoo/speed/operators.yaml:
which of them the compiler leaves to the processor, and which it cannot build.

    python scripts/probe_operators.py

All operators of a chip go into one graph, each behind a convolution of its own; a graph that
cannot be built is halved until the guilty ones are found.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.soc.chips import chips
from rkzoo.speed.latency import cpu_layers
from rkzoo.speed.operators import Operators, Places
from rkzoo.speed.table import cost_table
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.environment import ToolkitEnv, ensure
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import DEFAULT_VERSION, InputPlan, Recipe

OUT = Path(__file__).parents[1] / "src/rkzoo/speed/operators.yaml"
C, S = 16, 32  # channels and side of what each operator gets: 1 x 16 x 32 x 32

Made = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]
Maker = Callable[[str, str, str], Made]


def _plain(op: str, *constants: np.ndarray, **attributes: object) -> Maker:
    """The operator on x, with constants as its other inputs."""

    def make(x: str, y: str, name: str) -> Made:
        weights = [
            numpy_helper.from_array(value, f"{name}_{i}") for i, value in enumerate(constants)
        ]
        inputs = [x, *(weight.name for weight in weights)]
        return [helper.make_node(op, inputs, [y], name, **attributes)], weights

    return make


def _twice(op: str) -> Maker:
    return lambda x, y, name: ([helper.make_node(op, [x, x], [y], name)], [])


def _behind(first: str, op: str) -> Maker:
    """The operator on what `first` leaves, where it takes no negative numbers."""

    def make(x: str, y: str, name: str) -> Made:
        nodes = [
            helper.make_node(first, [x], [f"{name}_a"], f"{name}_{first}"),
            helper.make_node(op, [f"{name}_a"], [y], name),
        ]
        return nodes, []

    return make


def _compared(op: str) -> Maker:
    """A comparison, made a number again."""

    def make(x: str, y: str, name: str) -> Made:
        zero = numpy_helper.from_array(np.float32([0.1]), f"{name}_0")
        nodes = [
            helper.make_node(op, [x, zero.name], [f"{name}_b"], name),
            helper.make_node("Cast", [f"{name}_b"], [y], f"{name}_cast", to=TensorProto.FLOAT),
        ]
        return nodes, [zero]

    return make


def _indices(op: str, **attributes: object) -> Maker:
    """An operator that answers places, made numbers again."""

    def make(x: str, y: str, name: str) -> Made:
        nodes = [
            helper.make_node(op, [x], [f"{name}_i"], name, **attributes),
            helper.make_node("Cast", [f"{name}_i"], [y], f"{name}_cast", to=TensorProto.FLOAT),
        ]
        return nodes, []

    return make


def _top(x: str, y: str, name: str) -> Made:
    count = numpy_helper.from_array(np.int64([4]), f"{name}_k")
    nodes = [helper.make_node("TopK", [x, count.name], [y, f"{name}_i"], name, axis=-1)]
    return nodes, [count]


def _layer_norm(x: str, y: str, name: str) -> Made:
    """Over the last of three axes, as transformers have it."""
    shape = numpy_helper.from_array(np.int64([1, S * S, C]), f"{name}_s")
    scale = numpy_helper.from_array(np.ones(C, np.float32), f"{name}_0")
    bias = numpy_helper.from_array(np.zeros(C, np.float32), f"{name}_1")
    nodes = [
        helper.make_node("Reshape", [x, shape.name], [f"{name}_x"], f"{name}_reshape"),
        helper.make_node(
            "LayerNormalization",
            [f"{name}_x", scale.name, bias.name],
            [y],
            name,
            axis=-1,
            # As the rewrites write it out: left to its default, it falls to the processor.
            epsilon=1e-5,
        ),
    ]
    return nodes, [shape, scale, bias]


def _resize(mode: str, way: str = "half_pixel") -> Maker:
    def make(x: str, y: str, name: str) -> Made:
        scales = numpy_helper.from_array(np.float32([1, 1, 2, 2]), f"{name}_0")
        node = helper.make_node(
            "Resize",
            [x, "", scales.name],
            [y],
            name,
            mode=mode,
            coordinate_transformation_mode=way,
        )
        return [node], [scales]

    return make


def _where(x: str, y: str, name: str) -> Made:
    zero = numpy_helper.from_array(np.float32([0.1]), f"{name}_0")
    nodes = [
        helper.make_node("Greater", [x, zero.name], [f"{name}_b"], f"{name}_greater"),
        helper.make_node("Where", [f"{name}_b", x, zero.name], [y], name),
    ]
    return nodes, [zero]


def _gridded(x: str, y: str, name: str) -> Made:
    grid = np.random.default_rng(0).uniform(-1, 1, (1, S, S, 2)).astype(np.float32)
    place = numpy_helper.from_array(grid, f"{name}_g")
    return [helper.make_node("GridSample", [x, place.name], [y], name)], [place]


_F = np.float32
_AXIS = np.int64([1])

OPERATORS: dict[str, Maker] = {
    **{
        op: _plain(op)
        for op in (
            "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Elu", "Selu", "HardSwish",
            "HardSigmoid", "Exp", "Abs", "Neg", "Sin", "Cos", "Erf", "Sign", "Floor",
            "Ceil", "Round", "Atan", "Shrink", "ThresholdedRelu",
            "GlobalAveragePool", "GlobalMaxPool", "Det", "Reciprocal", "Identity",
        )
    },
    **{op: _twice(op) for op in ("Add", "Sub", "Mul", "MatMul", "Max", "Min", "Mean")},
    **{op: _compared(op) for op in ("Equal", "Greater", "Less")},
    "LeakyRelu": _plain("LeakyRelu", alpha=0.1),
    "PRelu": _plain("PRelu", np.full((C, 1, 1), 0.1, _F)),
    "Clip": _plain("Clip", _F(0.0), _F(6.0)),
    "Div": _plain("Div", np.full((1,), 3.0, _F)),
    "Pow": _plain("Pow", np.full((1,), 2.0, _F)),
    "Softmax": _plain("Softmax", axis=-1),
    "LogSoftmax": _plain("LogSoftmax", axis=-1),
    "InstanceNormalization": _plain("InstanceNormalization", np.ones(C, _F), np.zeros(C, _F)),
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _plain(
        "BatchNormalization", np.ones(C, _F), np.zeros(C, _F), np.zeros(C, _F), np.ones(C, _F)
    ),
    "LRN": _plain("LRN", size=3),
    "LpNormalization": _plain("LpNormalization", axis=1, p=2),
    "AveragePool": _plain("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "AveragePoolEdge": _plain(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "MaxPool": _plain("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    "ReduceMean": _plain("ReduceMean", axes=[2, 3]),
    "ReduceMax": _plain("ReduceMax", axes=[1]),
    "ReduceMin": _plain("ReduceMin", axes=[1]),
    "ReduceSum": _plain("ReduceSum", _AXIS),
    "ReduceL2": _plain("ReduceL2", axes=[1]),
    "Transpose": _plain("Transpose", perm=[0, 2, 3, 1]),
    "Reshape": _plain("Reshape", np.int64([1, S, C, S])),
    "Flatten": _plain("Flatten"),
    "Slice": _plain("Slice", np.int64([0]), np.int64([8]), np.int64([1])),
    "Gather": _plain("Gather", np.int64([3, 1, 2]), axis=1),
    "GatherElements": _plain("GatherElements", np.zeros((1, C, 4, S), np.int64), axis=2),
    "GatherND": _plain("GatherND", np.int64([[0, 1], [0, 2]])),
    "ScatterND": _plain("ScatterND", np.int64([[[0, 1]]]), np.ones((1, 1, S, S), _F)),
    "SliceStep": _plain("Slice", *map(np.int64, ([0, 0], [S, S], [2, 3], [2, 2]))),
    "Trilu": _plain("Trilu"),
    "Mod": _plain("Mod", _F(3.0), fmod=1),
    "Expand": _plain("Expand", np.int64([2, C, S, S])),
    "Tile": _plain("Tile", np.int64([1, 2, 1, 1])),
    "TileRows": _plain("Tile", np.int64([1, 1, 2, 2])),
    "Einsum": _plain("Einsum", np.ones((C, 8), _F), equation="bchw,cd->bdhw"),
    "Pad": _plain("Pad", np.int64([0, 0, 1, 1, 0, 0, 1, 1])),
    "PadReflect": _plain("Pad", np.int64([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect"),
    "Resize": _resize("nearest"),
    "ResizeLinear": _resize("linear"),
    "ResizeAligned": _resize("linear", "align_corners"),
    "ResizeCubic": _resize("cubic"),
    "DepthToSpace": _plain("DepthToSpace", blocksize=2),
    "SpaceToDepth": _plain("SpaceToDepth", blocksize=2),
    "CumSum": _plain("CumSum", np.int64(1)),
    "Sqrt": _behind("Abs", "Sqrt"),
    "Log": _behind("Exp", "Log"),
    "ArgMax": _indices("ArgMax", axis=1),
    "ArgMin": _indices("ArgMin", axis=1),
    "NonZero": _indices("NonZero"),
    "TopK": _top,
    "Where": _where,
    "GridSample": _gridded,
}  # fmt: skip
"""Name -> what to build. Names with a suffix are modes of an operator; only the plain name is
what a graph is searched for."""


def graph(names: Sequence[str]) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    nodes, weights, outputs = [], [], []
    for name in names:
        kernel = random.standard_normal((C, 3, 3, 3)).astype(np.float32) * 0.2
        weights.append(numpy_helper.from_array(kernel, f"conv_{name}_w"))
        nodes.append(
            helper.make_node(
                "Conv", ["images", f"conv_{name}_w"], [f"in_{name}"], f"conv_{name}",
                kernel_shape=[3, 3], pads=[1] * 4,
            )
        )  # fmt: skip
        operator_nodes, constants = OPERATORS[name](f"in_{name}", f"out_{name}", f"probe_{name}")
        nodes += operator_nodes
        weights += constants
        outputs.append(helper.make_empty_tensor_value_info(f"out_{name}"))
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, S, S])
    made_graph = helper.make_graph(nodes, "probe", [image], outputs, weights)
    model = helper.make_model(made_graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    model = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    shapes = {info.name: info for info in model.graph.value_info}
    known = [shapes.get(info.name, info) for info in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(known)
    return model


def _of(operator: str, row: str) -> bool:
    """Whether a row of the table is the operator itself, or a part that the toolkit made of it;
    not what was put around it."""
    name = row.partition(":")[2]
    return name == f"probe_{operator}" or name.startswith(
        (f"probe_{operator}#", f"probe_{operator}_2", f"out_{operator}_")
    )


def probe(env: ToolkitEnv, soc: str, names: Sequence[str]) -> Places:
    """Where the compiler puts each of the operators."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        onnx.save(graph(names), path / "model.onnx")
        dtype = chips()[soc].dtypes[0]
        np.save(
            path / "calibration-0.npy",
            np.random.default_rng(0).integers(0, 256, (1, S, S, 3), np.uint8),
        )
        image = InputPlan(name="images", shape=(1, 3, S, S), mean=(0.0,) * 3, std=(255.0,) * 3)
        recipe = Recipe(soc=soc, dtype=dtype, inputs=(image,))
        plan = BuildInputs(path / "model.onnx", recipe, path if dtype == "int8" else None)
        try:
            with ToolkitProcess(env) as process:
                build_report = process.build(plan, path / "out.rknn", timeout=300)
        except RkzooError as error:
            if len(names) == 1:
                print(f"{soc} {names[0]}: {error.why}", file=sys.stderr, flush=True)
                return Places(refused=tuple(names))
            half = len(names) // 2
            places, two = probe(env, soc, names[:half]), probe(env, soc, names[half:])
            return Places(cpu=places.cpu + two.cpu, refused=places.refused + two.refused)
    table = cost_table(build_report, dtype)
    on_cpu = {layer.name for layer in cpu_layers(table)}
    print(f"{soc}: {len(names)} in one, on the CPU: {sorted(on_cpu)}", flush=True)
    cpu = [name for name in names if any(_of(name, row) for row in on_cpu)]
    return Places(cpu=tuple(cpu))


def main() -> None:
    env = ensure(DEFAULT_VERSION)
    places: dict[str, Places] = {}
    families: set[str] = set()
    # What makes every build fail is asked for by itself, or each chip would be halved for it.
    alone = ("NonZero", "LayerNormalization", "ResizeCubic")
    together = [name for name in OPERATORS if name not in alone]
    for soc, chip in chips().items():
        if chip.generation != 2 or (chip.family and chip.family in families):
            continue
        families.add(chip.family)
        parts = [probe(env, soc, together), *(probe(env, soc, [name]) for name in alone)]
        places[soc] = Places(
            cpu=tuple(sorted(name for part in parts for name in part.cpu)),
            refused=tuple(sorted(name for part in parts for name in part.refused)),
        )
    document = Operators(
        toolkit=DEFAULT_VERSION,
        date=date.today().isoformat(),
        tried=tuple(sorted(OPERATORS)),
        chips=places,
    )
    text = yaml.safe_dump(msgspec.to_builtins(document), sort_keys=False, width=100)
    write_text(OUT, "# Written by scripts/probe_operators.py; do not edit.\n" + text)


if __name__ == "__main__":
    main()
