"""View of an ONNX graph: fixed input shapes, folded constants, inferred shapes, producers and
consumers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rkzoo.errors import RkzooError
from rkzoo.ort import MOST_BYTES, BoundedSession, CannotRun, looking, too_large

Array = NDArray[Any]
Shape = tuple[int | None, ...]

MAX_IR = 10
# Tensors with more elements are weights: never folded, only their shape is used.
_SMALL = 100_000
# Folding one chain can reveal the shape that another one needs. Shape arithmetic that depends on
# earlier shapes folds once per round: YOLOv9c exported without simplification takes nine.
_ROUNDS, _LOOKS = 50, 200_000
_OTHER_OPSET = "Export the model again, with opset 12 to 19."
_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"})


@dataclass(frozen=True)
class GraphView:
    """A model with what is known of it without running it.

    Attributes:
        model: The model.
        shapes: Shape of every tensor that shape inference reached; None for a dynamic dimension.
        dtypes: ONNX dtype codes of these tensors.
        producers: The node that produces a tensor.
        initializers: Weights by name.
        tails: What was found of its heads, which every recogniser asks for.
    """

    model: onnx.ModelProto
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, int]
    producers: Mapping[str, onnx.NodeProto] = field(repr=False)
    initializers: Mapping[str, TensorProto] = field(repr=False)
    tails: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def consumers(self) -> Mapping[str, list[onnx.NodeProto]]:
        """The nodes that read a tensor."""
        nodes: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                nodes.setdefault(name, []).append(node)
        return nodes

    @cached_property
    def inputs(self) -> tuple[onnx.ValueInfoProto, ...]:
        """Inputs without weights, which old files list among the inputs too."""
        return tuple(i for i in self.model.graph.input if i.name not in self.initializers)

    def constant(self, name: str) -> Array | None:
        """The value of an initializer or a Constant node; None for anything else."""
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        node = self.producers.get(name)
        return constant_value(node) if node is not None and node.op_type == "Constant" else None

    def is_constant(self, name: str) -> bool:
        """Whether it is an initializer or made by a Constant node."""
        node = self.producers.get(name)
        return name in self.initializers or (node is not None and node.op_type == "Constant")

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor; None unless every dimension is known."""
        dims = self.shapes.get(name)
        if dims is None or any(d is None for d in dims):
            return None
        return tuple(d for d in dims if d is not None)


def graph_view(model: onnx.ModelProto) -> GraphView:
    """Build a view, with shapes inferred anew: those declared in the file are not trusted.

    Raises:
        RkzooError: The shapes cannot be inferred.
    """
    shapes, dtypes = _infer(model)
    return GraphView(
        model=model,
        shapes=shapes,
        dtypes=dtypes,
        producers={name: node for node in model.graph.node for name in node.output},
        initializers={tensor.name: tensor for tensor in model.graph.initializer},
    )


def tensor_value(tensor: TensorProto) -> Array:
    """The values of an initializer."""
    return numpy_helper.to_array(tensor)


def declared(info: onnx.ValueInfoProto) -> Shape | None:
    """The declared shape of an input or output, None for a dynamic dimension; None where there is
    no shape.
    """
    if not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in info.type.tensor_type.shape.dim
    )


def prepared(
    model: onnx.ModelProto, sizes: Mapping[str, tuple[int, ...]], *, scale_of_one: bool = True
) -> GraphView:
    """A copy of a model, simplified: inputs of the given shapes, float16 widened to float32, shape
    arithmetic folded into constants, nodes sorted.

    Args:
        model: The model; not modified.
        sizes: Shapes by input name.
        scale_of_one: Replace the image scale input of PaddleDetection's exports by a constant 1.

    Returns:
        The view of the copy.

    Raises:
        RkzooError: The shapes cannot be inferred.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if scale_of_one:
        _scale_of_one(copy.graph)
    if is_half(copy):
        _to_float32(copy, TensorProto.FLOAT16)
    _sort(copy.graph)
    for info in copy.graph.input:
        if info.name in sizes:
            _set_shape(info, sizes[info.name])
    view = graph_view(copy)
    # A round looks at every node.
    for _ in range(min(_ROUNDS, max(2, _LOOKS // max(len(copy.graph.node), 1)))):
        if not _fold(view):
            break
        view = graph_view(copy)
    if not _mixes_double(view):
        return view
    _to_float32(copy, TensorProto.DOUBLE)
    return graph_view(copy)


def is_scale(info: onnx.ValueInfoProto) -> bool:
    """Whether an input is the image's scale (or size): a number a side, shape (1, 2)."""
    shape = declared(info)
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64)
    return (
        shape is not None
        and len(shape) == 2
        and shape[0] in (1, None)
        and shape[1] == 2
        and info.type.tensor_type.elem_type in kinds
    )


def _scale_of_one(graph: onnx.GraphProto) -> None:
    """Replace the scale input by 1: boxes then come out in pixels of the model's input, or where
    it is a size (RT-DETR's `orig_target_sizes`) in shares of it."""
    weights = {tensor.name for tensor in graph.initializer}
    scales = [info for info in graph.input if info.name not in weights and is_scale(info)]
    if len(scales) == len([info for info in graph.input if info.name not in weights]):
        return
    for info in scales:
        kind = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        graph.initializer.append(numpy_helper.from_array(np.ones((1, 2), kind), info.name))
        graph.input.remove(info)


def _set_shape(info: onnx.ValueInfoProto, shape: Iterable[int]) -> None:
    dims = info.type.tensor_type.shape
    del dims.dim[:]
    for size in shape:
        dims.dim.add().dim_value = size


def _sort(graph: onnx.GraphProto) -> None:
    """Sort the nodes topologically. ONNX demands it, but not every exporter does it."""
    nodes = list(graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    order: dict[int, None] = {}
    for start in range(len(nodes)):
        todo = [(start, False)]
        open_now: set[int] = set()
        while todo:
            index, finished = todo.pop()
            if finished:
                order[index] = None
            elif index not in order and index not in open_now:
                open_now.add(index)
                todo.append((index, True))
                needed = (*nodes[index].input, *captured_by(nodes[index]))
                todo.extend((maker[n], False) for n in needed if n in maker)
    if list(order) != list(range(len(nodes))):
        copies = [onnx.NodeProto.FromString(nodes[i].SerializeToString()) for i in order]
        del graph.node[:]
        graph.node.extend(copies)


# ---- shapes -------------------------------------------------------------------------


def _infer(model: onnx.ModelProto) -> tuple[dict[str, Shape], dict[str, int]]:
    graph = model.graph
    skeleton = onnx.ModelProto(ir_version=min(model.ir_version, MAX_IR))
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    skeleton.graph.name = "skeleton"
    skeleton.graph.node.extend(
        # Inference skips this one, whose output is as its input.
        helper.make_node("Identity", node.input[:1], node.output)
        if node.op_type == "GroupNormalization"
        else node
        for node in graph.node
    )
    weights = {tensor.name for tensor in graph.initializer}
    skeleton.graph.input.extend(i for i in graph.input if i.name not in weights)
    for tensor in graph.initializer:
        # Only the shapes of weights matter; copying their data would dominate the cost.
        if _count(tensor.dims) > _SMALL:
            skeleton.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
        else:
            skeleton.graph.initializer.append(tensor)
    skeleton.graph.output.extend(onnx.ValueInfoProto(name=o.name) for o in graph.output)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception as error:  # shape inference raises RuntimeError, ValueError and its own
        raise RkzooError(
            "The shapes inside the model cannot be inferred.",
            f"ONNX says: {first_line(error)}",
            "Export the model again; for a dynamic input size give --size HxW.",
        ) from error
    shapes: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
    dtypes = {t.name: t.data_type for t in graph.initializer}
    known = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    for info in known:
        shape = declared(info)
        if shape is not None:
            shapes[info.name] = shape
            dtypes[info.name] = info.type.tensor_type.elem_type
    _check_sizes(graph, shapes)
    return shapes, dtypes


def _check_sizes(graph: onnx.GraphProto, shapes: Mapping[str, Shape]) -> None:
    """Raise OutOfBounds for a tensor that nobody can mean, before anything is made of its size."""
    large = {n for n, dims in shapes.items() if math.prod(d or 1 for d in dims) * 4 > MOST_BYTES}
    for node in graph.node if large else ():
        if not large.isdisjoint(node.output):
            raise too_large(f"The {node.op_type} node {node.name}".rstrip(), MOST_BYTES)
    if large:
        raise too_large(f"The input {min(large)}", MOST_BYTES)


def _count(dims: Iterable[int]) -> int:
    total = 1
    for size in dims:
        total *= max(size, 0)
    return total


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first non-empty line of an exception's text, cut to `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


# ---- folding ------------------------------------------------------------------------


def _fold(view: GraphView) -> bool:
    """Fold in place what depends on shapes and constants only. True when anything was folded."""
    graph = view.model.graph
    sources: dict[str, Array] = {}
    foldable: list[onnx.NodeProto] = []
    known = {t.name for t in graph.initializer if _count(t.dims) <= _SMALL} | {""}
    for node in graph.node:
        shape = _shape_result(view, node)
        if shape is not None:
            sources[node.output[0]] = shape
            known.add(node.output[0])
        elif _may_fold(node, known):
            foldable.append(node)
            known.update(node.output)
    gone = {node.output[0] for node in foldable if node.op_type != "Constant"} | set(sources)
    if not gone:
        return False
    kept = [node for node in graph.node if not node.output or node.output[0] not in gone]
    outer = {name for node in kept for name in node.input} | _captured(graph)
    outer |= {output.name for output in graph.output}
    exits = [n for node in foldable if node.output[0] in gone for n in node.output if n in outer]
    try:
        values = run(submodel(view, foldable, sources, exits), sources) if exits else []
    except CannotRun:
        return False
    fresh = {name: value for name, value in sources.items() if name in outer}
    fresh |= dict(zip(exits, values, strict=True))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in fresh.items()
    )
    return True


def _shape_result(view: GraphView, node: onnx.NodeProto) -> Array | None:
    if node.op_type != "Shape" or node.domain:
        return None
    shape = view.shape(node.input[0])
    if shape is None:
        return None
    inputs = attributes(node)
    return np.array(shape[inputs.get("start", 0) : inputs.get("end", len(shape))], np.int64)


def _may_fold(node: onnx.NodeProto, known: set[str]) -> bool:
    if node.domain or node.op_type in _RANDOM or any(a.HasField("g") for a in node.attribute):
        return False
    if node.op_type == "Constant":
        return all(_count(a.t.dims) <= _SMALL for a in node.attribute)
    return all(name in known for name in node.input)


def _captured(graph: onnx.GraphProto) -> set[str]:
    """Outer tensors that the bodies of If, Loop and Scan read."""
    return {name for node in graph.node for name in captured_by(node)}


def captured_by(node: onnx.NodeProto) -> set[str]:
    """Tensors read in the bodies of If, Loop and Scan, outer ones and their own."""
    captured: set[str] = set()
    for attribute in node.attribute:
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            captured |= {name for inner in body.node for name in inner.input} | _captured(body)
            captured |= {output.name for output in body.output}
    return captured


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node by name, as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def constant_value(node: onnx.NodeProto) -> Array | None:
    """The value of a Constant node; None for strings and sparse tensors."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return numpy_helper.to_array(attribute.t)
        if attribute.name in ("value_float", "value_floats"):
            return np.array(helper.get_attribute_value(attribute), np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.array(helper.get_attribute_value(attribute), np.int64)
    return None


# ---- running ------------------------------------------------------------------------


def submodel(
    view: GraphView,
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Array],
    outputs: Iterable[str],
) -> onnx.ModelProto:
    """A model of only these nodes.

    Args:
        view: The graph they come from.
        nodes: The nodes, in graph order.
        feeds: Inputs of the new model; their names, shapes and dtypes are used.
        outputs: Names of its outputs.

    Returns:
        The model, with the weights that the nodes read.
    """
    graph = onnx.GraphProto(name="part")
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    graph.initializer.extend(
        tensor for name, tensor in view.initializers.items() if name in used and name not in feeds
    )
    graph.input.extend(
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    )
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    part = onnx.ModelProto(ir_version=min(view.model.ir_version, MAX_IR), graph=graph)
    part.opset_import.extend(view.model.opset_import)
    part.functions.extend(view.model.functions)
    return part


@looking()
def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a part of a model once on ONNX Runtime's CPU provider, with little memory and time; as
    `run_whole` otherwise.
    """
    return run_whole(model, feeds)


def run_whole(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a whole model once on ONNX Runtime's CPU provider, with the memory there is.

    Args:
        model: The model.
        feeds: Inputs by name; names that the model does not have are ignored.

    Returns:
        All outputs, in the model's order.

    Raises:
        CannotRun: ONNX Runtime cannot load or run it.
        RkzooError: It takes too much memory or time.
    """
    session = BoundedSession(
        model.SerializeToString(), what="A part of the model", fix=_OTHER_OPSET
    )
    named = {i.name for i in session.session.get_inputs()}
    return session.run({n: v for n, v in feeds.items() if n in named})


# ---- half precision -----------------------------------------------------------------


def is_half(model: onnx.ModelProto) -> bool:
    """Whether a model holds float16 weights."""
    return any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)


_ONE_TYPE = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Concat", "Max", "Min", "MatMul", "Sum"})


def _mixes_double(view: GraphView) -> bool:
    """Whether an operator that takes one type is given both float64 and float32, as graphs that
    were edited by hand do: ONNX Runtime refuses them, other readers do not."""
    both = {TensorProto.DOUBLE, TensorProto.FLOAT}
    return any(
        both <= {view.dtypes.get(name) for name in node.input}
        for node in view.model.graph.node
        if node.op_type in _ONE_TYPE
    )


def _to_float32(model: onnx.ModelProto, kind: int) -> None:
    """Convert tensors of another float type to float32, in place: the NPU's compiler expects
    float32, and the equivalence check needs more than the three digits of float16.
    """
    graph = model.graph
    for tensor in graph.initializer:
        _recast(tensor, kind)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _recast(attribute.t, kind)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == kind:
                attribute.i = TensorProto.FLOAT
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type == kind:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]


def _recast(tensor: TensorProto, kind: int) -> None:
    if tensor.data_type == kind:
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
