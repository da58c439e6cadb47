"""What an output of one row of numbers, 1xN, means: scores of classes, an embedding, or numbers
that were measured. Told by what stands between the last weights and the output; where that tells
nothing, by the count, and the doubt is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx

from rkzoo.graph.onnx.view import GraphView, attributes, run, submodel
from rkzoo.ort import CannotRun

Meaning = Literal["classes", "labels", "embedding", "numbers"]
"""`classes` exclude each other; of `labels` each holds or not; an `embedding` is compared with
others; `numbers` are measured."""

_SHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast"})
_POOLING = frozenset({"GlobalAveragePool", "ReduceMean", "AveragePool"})
_SOFTMAX = frozenset({"Softmax", "LogSoftmax"})
_NORMALISING = frozenset({"BatchNormalization", "LayerNormalization"})
_DIVIDING = frozenset({"Div", "Mul", "LpNormalization"})
# What bounds measured numbers; scores leave a classifier raw, by a softmax or by a sigmoid.
_BOUNDING = frozenset({"Relu", "Tanh", "Clip", "Softplus", "Elu", "LeakyRelu", "HardSigmoid"})
_WEIGHTED = ("Gemm", "MatMul", "Conv")
# ImageNet's, ImageNet-21k's, Places', Kinetics'.
_CLASSES = frozenset({1000, 1001, 21841, 21843, 365, 400, 600, 700})
# Of face landmarks: x and y of 68, 98 and 106 points; x, y, z of 468 and 478.
_POINTS = frozenset({136, 196, 212, 1404, 1434})
_FEWEST = 16  # numbers of an embedding


@dataclass(frozen=True)
class FlatOutput:
    """An output of `count` numbers. `end`: the kinds of what stands behind its last weights, the
    last first; `weighted`: whether these make just so many numbers; `biased`: with a bias; `unit`:
    the length is brought to 1."""

    name: str
    count: int
    end: tuple[str, ...] = field(default=())
    weighted: bool = False
    biased: bool = False
    unit: bool = False

    def has(self, kinds: frozenset[str]) -> bool:
        return not kinds.isdisjoint(self.end)

    @property
    def activated(self) -> bool:
        """Whether its last step gives probabilities of single labels."""
        return self.end[:1] == ("Sigmoid",)


@dataclass(frozen=True)
class Judged:
    """What an output is taken for; `doubt` says why that may be wrong, empty where it is sure."""

    meaning: Meaning
    doubt: str = ""


def flat_output(view: GraphView, name: str) -> FlatOutput | None:
    """The output, where it is 1xN (or 1xNx1x1) and comes from weights that see the whole picture;
    None for any other."""
    shape = view.shape(name)
    if shape is None or len(shape) < 2 or int(np.prod(shape)) != shape[1]:
        return None
    count, end, biased, unit = shape[1], [], False, False
    current = name
    while (node := view.producers.get(current)) is not None:
        before = next((i for i in node.input if i and view.constant(i) is None), "")
        whole = unit or _is_unit(view, current, before, node)
        if whole and not unit:
            unit = True
        elif node.op_type == "Add" and len([i for i in node.input if view.constant(i) is None]) < 2:
            biased = True
        elif node.op_type in _POOLING and _over_all(view, node):
            end.append("pool")
        elif node.op_type in _SOFTMAX | _NORMALISING | _BOUNDING | {"Sigmoid"}:
            end.append(node.op_type)
        elif node.op_type not in _SHAPING:
            break
        current = before
    return _weighted(view, node, FlatOutput(name, count, tuple(end), biased=biased, unit=unit))


def _weighted(
    view: GraphView, node: onnx.NodeProto | None, flat_output: FlatOutput
) -> FlatOutput | None:
    """With what is known of the weights; None where a map of scores is behind, not pooled."""
    if node is None:
        return None
    shape = view.shape(node.output[0])
    if shape is None or node.op_type not in _WEIGHTED:
        # A transformer's token, a product of features: no weights make its numbers.
        return FlatOutput(
            flat_output.name, flat_output.count, flat_output.end, unit=flat_output.unit
        )
    weight = view.shape(node.input[1]) if view.constant(node.input[1]) is not None else None
    if weight is None:
        return FlatOutput(
            flat_output.name, flat_output.count, flat_output.end, unit=flat_output.unit
        )
    across = weight[-1]
    if node.op_type == "Conv" or attributes(node).get("transB", 0):
        across = weight[0]
    if node.op_type == "Conv" and "pool" not in flat_output.end and int(np.prod(shape[2:])) != 1:
        return None
    own = node.op_type != "MatMul" and len(node.input) > 2 and bool(node.input[2])
    return FlatOutput(
        flat_output.name,
        flat_output.count,
        flat_output.end,
        weighted=across == flat_output.count,
        biased=flat_output.biased or own,
        unit=flat_output.unit,
    )


def _over_all(view: GraphView, node: onnx.NodeProto) -> bool:
    before, after = view.shape(node.input[0]), view.shape(node.output[0])
    return (
        before is not None
        and after is not None
        and len(before) == 4
        and int(np.prod(after)) == before[0] * before[1]
    )


def _is_unit(view: GraphView, name: str, before: str, node: onnx.NodeProto) -> bool:
    """Whether `name` is `before` brought to length 1: asked, so that its spelling does not
    matter."""
    shape = view.shape(before)
    if node.op_type not in _DIVIDING or shape is None or int(np.prod(shape)) != shape[1]:
        return False
    inside: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        if current in inside or current == before or view.constant(current) is not None:
            continue
        maker = view.producers.get(current)
        if maker is None or len(inside) > 20:
            return False
        inside.add(current)
        todo.extend(i for i in maker.input if i)
    nodes = [n for n in view.model.graph.node if not inside.isdisjoint(n.output)]
    values = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    try:
        (actual,) = run(submodel(view, nodes, {before: values}, [name]), {before: values})
    except CannotRun:
        return False
    expected = values / np.linalg.norm(values)
    return actual.size == values.size and bool(
        np.allclose(actual.ravel(), expected.ravel(), atol=1e-4)
    )


def judged(flat_output: FlatOutput, labels: int, *, classifies: bool = False) -> Judged:
    """What an output means. `labels`: how many names of classes are known; `classifies`: the file
    says itself that it is a classifier's."""
    count = flat_output.count
    named = labels == count or (count == 1 and labels == 2)
    if flat_output.has(_SOFTMAX) and count > 1:
        return Judged("classes")
    if named or classifies:
        return Judged("labels" if flat_output.activated or count == 1 else "classes")
    if flat_output.unit or flat_output.end[:1] in {(kind,) for kind in _NORMALISING}:
        return Judged("embedding") if count not in _CLASSES else Judged("classes")
    if flat_output.activated:
        return Judged("labels", "" if count == 1 else _if_numbers(count, "labels"))
    if count == 1:
        return Judged("numbers", "Its one number is taken for a measured one; if it is the score "
                      "of a class, give its name with --labels FILE.")  # fmt: skip
    if count in _CLASSES:
        return Judged("classes")
    return _by_count(flat_output)


def _by_count(flat_output: FlatOutput) -> Judged:
    """Where nothing else tells. Embeddings are as wide as layers are, and have no bias as often
    as not; the classes of a data set are a few, or an odd number of them."""
    count = flat_output.count
    as_wide = count >= 64 and (count % 64 == 0 or count in (96, 160))
    bare = not (flat_output.weighted and flat_output.biased) or flat_output.end[:1] == ("pool",)
    if as_wide or (bare and count >= _FEWEST and count not in _POINTS):
        return Judged("embedding", _if_classes(count, "an embedding"))
    bounded = flat_output.end[:1] in {(kind,) for kind in _BOUNDING}
    if bounded or count in _POINTS or not flat_output.weighted:
        return Judged("numbers", _if_classes(count, "measured ones"))
    return Judged("classes", _if_numbers(count, "classes"))


def _if_classes(count: int, taken: str) -> str:
    return f"Its {count} numbers are taken for {taken}; if these are classes, give --labels FILE."


def _if_numbers(count: int, taken: str) -> str:
    return (
        f"Its {count} numbers are taken for the scores of {count} {taken}; if they are measured "
        f"ones, say so in a card with head: {{kind: vector, size: {count}, embedding: false}}."
    )
