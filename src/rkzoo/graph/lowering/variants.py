"""Variants of a network, made to learn what they would cost on an NPU: another activation, another
input size, the same numbers by other operators, the end without its arithmetic.

No variant is used by `convert`; `advise` builds them. What claims to give the same numbers is held
to the original in ONNX Runtime (`require_equal`) before anything is written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rkzoo.contract.inputs import ArrayInput
from rkzoo.errors import RkzooError
from rkzoo.graph.families.head_postprocessing import head_postprocessing
from rkzoo.graph.lowering.rewrites.rewriting import TOLERANCE, drawn
from rkzoo.graph.lowering.rewrites.rule import replace_nodes
from rkzoo.graph.onnx.subgraph import part
from rkzoo.graph.onnx.view import (
    Array,
    GraphView,
    attributes,
    captured_by,
    declared,
    graph_view,
    prepared,
    run_whole,
)

_ELEMENTWISE = frozenset(
    {"Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Erf", "Exp", "Log", "Clip", "Relu", "Pow"}
    | {"Add", "Sub", "Mul", "Div", "Neg", "Max", "Min", "HardSwish"}
)
_BENT = {
    "Erf": "GELU",
    "Softplus": "Mish",
    "Sigmoid": "SiLU",
    "HardSigmoid": "HardSwish",
    "Clip": "HardSwish",
    "Tanh": "GELU",
}
"""What a product with an operator on the way from its input is; the first that is met counts."""
_ALONE = {"HardSwish": "HardSwish", "Mish": "Mish", "Gelu": "GELU", "Swish": "SiLU"}
_MOST_STEPS = 12  # operators of one activation; GELU by Tanh has eight
_LARGEST_POOL = 5
_LEAST_CHANNELS = 32  # of a part: a convolution of fewer takes the NPU as long
_MOST_PARTS = 4  # of a join; a dense network's are many and small


def folded(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The network with the shapes of its inputs fixed, and what depends on shapes alone computed.

    Args:
        model: The network; not modified.
        shapes: Shapes of inputs; one that does not agree with what is declared is left out.

    Returns:
        The copy, its other tensors called as before.
    """
    fixed = {}
    for info in model.graph.input:
        sides, wanted = declared(info), shapes.get(info.name)
        if sides is None or wanted is None or len(sides) != len(wanted):
            continue
        if all(side in (None, size) for side, size in zip(sides, wanted, strict=True)):
            fixed[info.name] = wanted
    return prepared(model, fixed, scale_of_one=False).model


def with_relu(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, int]]:
    """The network with ReLU in place of its smooth activations, which only a training can use.

    Args:
        model: The network; not modified.

    Returns:
        The copy, and how many of each activation were replaced.
    """
    copy = _copied(model)
    view = graph_view(copy)
    order = {name: i for i, node in enumerate(copy.graph.node) for name in node.output}
    replaced: Counter[str] = Counter()
    for node in copy.graph.node:
        found = _activation(view, node, order)
        if found is None:
            continue
        kind, source, end = found
        target = end.output[0]
        end.CopyFrom(helper.make_node("Relu", [source], [target], end.name))
        replaced[kind] += 1
    _prune(copy.graph)
    return copy, dict(replaced)


def _activation(
    view: GraphView, node: onnx.NodeProto, order: dict[str, int]
) -> tuple[str, str, onnx.NodeProto] | None:
    """The kind of the activation that ends in a node, what it is applied to, and its last node."""
    if node.op_type in _ALONE:
        return _ALONE[node.op_type], node.input[0], node
    if node.op_type != "Mul":
        return None
    front = {name for name in node.input if not view.is_constant(name)}
    if len(front) != 2:
        return None
    met: set[str] = set()
    for _ in range(_MOST_STEPS):
        if len(front) == 1:
            break
        latest = max(front, key=lambda name: order.get(name, -1))
        maker = view.producers.get(latest)
        if maker is None or maker.op_type not in _ELEMENTWISE:
            return None
        met.add(maker.op_type)
        front.remove(latest)
        front |= {name for name in maker.input if name and not view.is_constant(name)}
    kind = next((_BENT[op] for op in _BENT if op in met), None)
    if len(front) != 1 or kind is None:
        return None
    readers = view.consumers.get(node.output[0], [])
    half = readers[0] if kind == "GELU" and len(readers) == 1 else None
    if half is not None and half.op_type == "Mul" and any(map(view.is_constant, half.input)):
        node = half  # x (1 + erf(x / sqrt 2)) / 2, the half at the end
    return kind, next(iter(front)), node


def with_small_pools(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The network with its large max-pools of stride 1 (SPP's 9x9 and 13x13) as rows of 5x5 and
    3x3: the largest of a window is the largest of windows in it, so the numbers stay.

    Args:
        model: The network; not modified.

    Returns:
        The copy, and how many pools were replaced.
    """
    copy = _copied(model)
    nodes, count = [], 0
    for node in copy.graph.node:
        row = _pool_row(node)
        source = node.input[0] if row else ""
        for step, kernel in enumerate(row, 1):
            name = node.output[0] if step == len(row) else f"{node.output[0]}_pool_{step}"
            pads = [kernel // 2] * 4
            nodes.append(
                helper.make_node(
                    "MaxPool", [source], [name], name, kernel_shape=[kernel] * 2, pads=pads
                )
            )
            source = name
        count += bool(row)
        if not row:
            nodes.append(node)
    replace_nodes(copy.graph, nodes)
    return copy, count


def _pool_row(node: onnx.NodeProto) -> list[int]:
    """The small kernels that a large max-pool is made of; none for any other node."""
    given = attributes(node)
    sides = set(given.get("kernel_shape", ()))
    if node.op_type != "MaxPool" or len(node.output) != 1 or len(sides) != 1:
        return []
    (side,) = sides
    plain = (
        set(given.get("strides", [1])) == {1}
        and set(given.get("dilations", [1])) == {1}
        and list(given.get("pads", ())) == [side // 2] * 4
        and not given.get("ceil_mode")
    )
    if not plain or side % 2 == 0 or side <= _LARGEST_POOL or len(given["kernel_shape"]) != 2:
        return []
    steps = side // 2  # to each side; a pool of 5 takes two, one of 3 takes one
    return [_LARGEST_POOL] * (steps // 2) + [3] * (steps % 2)


def without_concats(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The network with each convolution of joined channels as the sum of a convolution of each
    part, as U-Nets have them: the NPU adds inside a convolution, and joining moves all the data.

    Args:
        model: The network; not modified.

    Returns:
        The copy, and how many joins went.
    """
    copy = _copied(model)
    view = graph_view(copy)
    ends = {info.name for info in copy.graph.output}
    taken: dict[int, list[onnx.NodeProto]] = {}
    gone: set[int] = set()
    for join in copy.graph.node:
        readers = view.consumers.get(join.output[0], []) if join.op_type == "Concat" else []
        parts = _parts(view, join, readers)
        if parts and join.output[0] not in ends:
            taken |= {id(node): _by_part(view, node, join, parts) for node in readers}
            gone.add(id(join))
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        if id(node) not in gone:
            nodes += taken.get(id(node)) or [node]
    replace_nodes(copy.graph, nodes)
    _prune(copy.graph)
    return copy, len(gone)


def _parts(view: GraphView, join: onnx.NodeProto, readers: Sequence[onnx.NodeProto]) -> list[int]:
    """Channels of what is joined for convolutions alone, where their sums would move less than the
    join does; none otherwise."""
    shapes = [view.shape(name) for name in join.input]
    parts = [shape[1] for shape in shapes if shape is not None and len(shape) == 4]
    plain = attributes(join).get("axis") == 1 and all(
        node.op_type == "Conv"
        and node.input[0] == join.output[0]
        and attributes(node).get("group", 1) == 1
        and view.constant(node.input[1]) is not None
        for node in readers
    )
    if not readers or not plain or len(parts) < len(shapes):
        return []
    if not 2 <= len(parts) <= _MOST_PARTS or min(parts) < _LEAST_CHANNELS:
        return []
    joined = view.shape(join.output[0])
    results = [view.shape(node.output[0]) for node in readers]
    if joined is None or None in results:
        return []
    moved = (len(parts) - 1) * sum(math.prod(result or ()) for result in results)
    return parts if math.prod(joined) > moved else []


def _by_part(
    view: GraphView, node: onnx.NodeProto, join: onnx.NodeProto, parts: Sequence[int]
) -> list[onnx.NodeProto]:
    """A convolution of each joined tensor, and their sum."""
    weight = view.constant(node.input[1])
    if weight is None:
        return [node]
    nodes, sums, first = [], [], 0
    for index, (name, channels) in enumerate(zip(join.input, parts, strict=True)):
        stem = f"{node.output[0]}_part_{index}"
        part_weight = np.ascontiguousarray(weight[:, first : first + channels])
        view.model.graph.initializer.append(numpy_helper.from_array(part_weight, f"{stem}_weight"))
        first += channels
        inputs = [name, f"{stem}_weight", *(node.input[2:] if not index else ())]
        nodes.append(helper.make_node("Conv", inputs, [stem], stem))
        nodes[-1].attribute.extend(node.attribute)
        sums.append(stem)
    total = sums[0]
    for index, name in enumerate(sums[1:], 1):
        last = index == len(sums) - 1
        to = node.output[0] if last else f"{node.output[0]}_sum_{index}"
        nodes.append(helper.make_node("Add", [total, name], [to], to))
        total = to
    return nodes


def at_size(model: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
    """The network with its picture at another size, to see what it costs.

    Args:
        model: The network, its first input 1xCxHxW of a fixed size; not modified.
        size: (height, width).

    Returns:
        The copy. It runs, and each of its feature maps has the size that it should have.

    Raises:
        RkzooError: A size is fixed inside the graph.
    """
    picture = declared(model.graph.input[0])
    if picture is None or len(picture) != 4 or not picture[1] or not picture[2] or not picture[3]:
        raise _fixed("Its first input is no picture of a fixed size.")
    copy = _copied(model)
    _scale_resizes(copy)
    del copy.graph.value_info[:]
    for info in copy.graph.output:
        info.type.tensor_type.ClearField("shape")
    shape = (1, picture[1], *size)
    try:
        view = prepared(copy, {copy.graph.input[0].name: shape}, scale_of_one=False)
        answers = run_whole(view.model, drawn(view.model))
    except RkzooError as error:
        raise _fixed(error.why or error.what) from error
    old = [declared(info) for info in model.graph.output]
    for info, before, answer in zip(view.model.graph.output, old, answers, strict=True):
        if before is not None and len(before) == answer.ndim == 4 and before[2] and before[3]:
            expected = [before[2] * size[0] / picture[2], before[3] * size[1] / picture[3]]
            if list(answer.shape[2:]) != expected and min(before[2], before[3]) > 1:
                raise _fixed(f"Its output {info.name} does not grow with the picture.")
        kind = info.type.tensor_type.elem_type
        info.CopyFrom(helper.make_tensor_value_info(info.name, kind, answer.shape))
    return view.model


def _scale_resizes(model: onnx.ModelProto) -> None:
    """A resize to a size becomes one by a factor, which goes with any size of the picture."""
    view = graph_view(model)
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Resize" or len(node.input) < 4 or not node.input[3]:
            continue
        sizes, shape = view.constant(node.input[3]), view.shape(node.input[0])
        if sizes is None or shape is None or len(sizes) != len(shape):
            continue
        factors = np.array([new / old for new, old in zip(sizes, shape, strict=True)], np.float32)
        name = f"{node.output[0]}_scales_{index}"
        model.graph.initializer.append(numpy_helper.from_array(factors, name))
        inputs = [*node.input[:2], name]
        del node.input[:]
        node.input.extend(inputs)


def before_arithmetic(
    model: onnx.ModelProto, inputs: Sequence[ArrayInput]
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A network in two: up to its last weights, and the arithmetic behind them.

    Args:
        model: The network; not modified.
        inputs: Its inputs with fixed shapes.

    Returns:
        What has weights, for the NPU; and what has none, for the processor, whose inputs are the
        outputs of the first.

    Raises:
        RkzooError: There is nothing behind the last weights, or they lie on the way to others.
    """
    whole = part(model, inputs)
    view = graph_view(whole)
    outputs = [info.name for info in whole.graph.output]
    tail = head_postprocessing(view, outputs, picking=True)
    if isinstance(tail, str):
        raise RkzooError("Its end cannot be taken off.", f"{tail}.", "Convert it as it is.")
    ends = [branch.name for branch in tail.branches]
    if not set(outputs) - set(ends):
        raise RkzooError(
            "There is nothing to take off.",
            "All its outputs come from layers with weights.",
            "Convert it as it is.",
        )
    used = [array for array in inputs if array.name in _needed(whole, ends)]
    rest = [ArrayInput(name=branch.name, shape=branch.shape) for branch in tail.branches]
    return part(whole, used, ends), part(whole, rest, outputs)


def _needed(model: onnx.ModelProto, names: Sequence[str]) -> set[str]:
    needed = set(names)
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
    return needed


def require_equal(model: onnx.ModelProto, *variants: onnx.ModelProto) -> float:
    """Hold variants, each fed by the one before, to the model, in ONNX Runtime on random numbers.

    Args:
        model: The original.
        variants: One model with the same outputs, or several in a row; the first has inputs of
            fixed shapes.

    Returns:
        The largest difference, relative to the largest value of its output.

    Raises:
        RkzooError: They differ, or one cannot be run.
    """
    answers = drawn(variants[0])
    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
    expected = _named(
        model,
        {
            name: array.astype(helper.tensor_dtype_to_np_dtype(kinds[name]))
            for name, array in answers.items()
            if name in kinds
        },
    )
    for variant in variants:
        answers |= _named(variant, answers)
    worst = 0.0
    for name, array in expected.items():
        other = answers[name]
        if array.shape != other.shape:
            raise _different(f"Its output {name} is {other.shape}, not {array.shape}.")
        if not array.size or array.dtype.kind != "f":
            apart = 0.0 if np.array_equal(array, other) else 1.0
        else:
            scale = float(np.abs(array).max()) or 1.0
            apart = float(np.abs(array.astype(np.float64) - other).max()) / scale
        if not apart <= TOLERANCE:  # nor NaN
            raise _different(f"Its output {name} differs by {apart:.2g} of its largest value.")
        worst = max(worst, apart)
    return worst


def _named(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    answers = run_whole(model, feeds)
    names = [info.name for info in model.graph.output]
    return dict(zip(names, answers, strict=True))


def _prune(graph: onnx.GraphProto) -> None:
    """Drop, in place, the nodes and the weights that nothing reads."""
    needed = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= {*node.input, *captured_by(node)}
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    read = [tensor for tensor in graph.initializer if tensor.name in needed]
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in read]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _fixed(why: str) -> RkzooError:
    return RkzooError(
        "The graph cannot be tried at another size.",
        f"It has its size fixed inside: {why}",
        "Export it with that size from the training framework.",
    )


def _different(why: str) -> RkzooError:
    return RkzooError(
        "The changed model does not give the numbers of the original.",
        why,
        "Nothing was written; please report this model.",
        code=1,
    )


SAME_NUMBERS: dict[str, tuple[str, Callable[[onnx.ModelProto], tuple[onnx.ModelProto, int]]]] = {
    "split-joins": ("{count} convolutions of joined channels as sums", without_concats),
    "small-pools": ("{count} large max-pools as rows of 5x5 and 3x3", with_small_pools),
}
"""Changes that keep the numbers: how each is told, and what makes it."""
