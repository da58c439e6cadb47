"""RTMO: people and their key points in one stage, https://arxiv.org/abs/2312.07526.

mmdeploy exports it with NMS inside, and behind it what makes key points of those who are left: a
dynamic coordinate classifier, with weights of its own, which looks at the bins of each one's box.
The graph is taken apart at the rows that NMS picks: the network gives a box, a score, a pose vector
and visibilities for each cell, and the classifier answers one person at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.detect import DecodedOutput, DetectHead, HeadOutput
from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.contract.pose import OneStagePoseHead
from rkzoo.graph.families.branches import (
    BOX_SLACK,
    SCORE_SLACK,
    Float,
    cells,
    changed_channels,
    contract,
    group_by_size,
    outputs_without_branch,
    probe,
    sigmoid,
    strides_of,
)
from rkzoo.graph.families.head_postprocessing import Branch, head_postprocessing
from rkzoo.graph.families.outputs import cut_outputs
from rkzoo.graph.families.recognition import (
    HeadTensor,
    ImageSource,
    Recognition,
    Role,
    SecondPart,
)
from rkzoo.graph.onnx.subgraph import part
from rkzoo.graph.onnx.view import Array, GraphView, prepared, run, submodel
from rkzoo.ort import CannotRun

FAMILY = "rtmo"
_PICKING = ("NonMaxSuppression", "TopK")
_GATHERING = ("Gather", "GatherND")
_WEIGHTED = ("MatMul", "Gemm")
_JOINED = "rkzoo_joined"
# What the classifier reads of a person: box and score, pose vector, visibilities, and the middle of
# the cell in pixels.
_INPUTS = ("person", "pose", "visibility", "cell")
_PERSON = 5
_PROVED = 4  # people
_POINT_PX = 1e-2
_SHARE = 1e-5  # float32 keeps six digits of the hundreds of pixels that exp of a side makes
_WHY = (
    "It reads the pose vectors of those people alone whom NMS leaves, in the bins of their boxes."
)
_FEEDING = (
    "Assumed, since the file does not say: BGR pixels of 0..255, in the middle of the input and "
    "padded with 114, as RTMO was trained."
)
_ORDER: tuple[Role, ...] = ("box", "score", "coefficients", "keypoints")


def split(
    model: onnx.ModelProto, name: str, shape: tuple[int, ...]
) -> tuple[onnx.ModelProto, SecondPart] | None:
    """Takes an RTMO apart that has NMS inside.

    Args:
        model: The model; its input takes floats.
        name: Name of that input.
        shape: Its shape, 1x3xHxW.

    Returns:
        The network, with one output 1xNx(5 + V + K) of box, score, pose vector and visibilities of
        each cell, and the classifier, which was tried on random numbers; None for another graph.
    """
    if not any(node.op_type == "NonMaxSuppression" for node in model.graph.node):
        return None
    view = prepared(model, {name: shape})
    picked = _behind(view, _PICKING)
    outputs = [output.name for output in view.model.graph.output]
    points = [output for output in outputs if _is_computed(view, output, picked)]
    if len(outputs) != 2 or len(points) != 1:
        return None
    gathers = _gathers(view, points[0], picked)
    index = _last_common(view, [node.input[1] for node in gathers], picked)
    tables = sorted({node.input[0] for node in gathers})
    if index is None or len(tables) != len(_INPUTS):
        return None
    try:
        people, rows, *values = _tried(view, [points[0], index, *tables])
        roles = _roles(dict(zip(tables, values, strict=True)), people.shape, view, shape)
        if roles is None:
            return None
        classifier = _classifier(view, [roles[role] for role in _INPUTS], index, rows, points[0])
        given = [values[tables.index(roles[role])] for role in _INPUTS]
        if not _agrees(classifier, given, rows.ravel(), people):
            return None
    except CannotRun:
        return None
    others = tuple(
        ArrayInput(name=role, shape=tuple(d.dim_value for d in info.type.tensor_type.shape.dim))
        for role, info in zip(_INPUTS, classifier.graph.input, strict=True)
    )
    second = SecondPart(
        model=classifier,
        contract=Contract(family=FAMILY, head=TensorsHead(), others=others),
        head=OneStagePoseHead(points=people.shape[2]),
        roles=("network", "classifier"),
        cpu=_WHY,
    )
    picture = ArrayInput(name=name, shape=shape)
    return _network(view, picture, [roles[role] for role in _INPUTS[:3]]), second


def _behind(view: GraphView, kinds: Sequence[str]) -> set[str]:
    """All tensors that depend on an operator of these kinds."""
    found: set[str] = set()
    for node in view.model.graph.node:
        if node.op_type in kinds or not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _is_computed(view: GraphView, output: str, picked: set[str]) -> bool:
    """Whether weights stand between what is picked and an output."""
    return any(node.op_type in _WEIGHTED for node in _made_by(view, [output], picked))


def _made_by(view: GraphView, names: Iterable[str], within: set[str]) -> list[onnx.NodeProto]:
    """The nodes that make tensors, in graph order, as far as they make some of `within`."""
    needed = set(names)
    nodes = []
    for node in reversed(view.model.graph.node):
        if not needed.isdisjoint(node.output) and not within.isdisjoint(node.output):
            nodes.append(node)
            needed.update(node.input)
    return nodes[::-1]


def _gathers(view: GraphView, output: str, picked: set[str]) -> list[onnx.NodeProto]:
    """The nodes nearest to an output that read rows of what was there before anything was picked.
    Shapes are not followed: they tell how many rows, not which."""
    found: dict[str, onnx.NodeProto] = {}
    todo, seen = [output], set[str]()
    while todo:
        name = todo.pop()
        node = view.producers.get(name)
        if name in seen or name not in picked or node is None or node.op_type == "Shape":
            continue
        seen.add(name)
        if node.op_type in _GATHERING and node.input[0] not in picked:
            found[name] = node
        else:
            todo.extend(node.input)
    return list(found.values())


def _last_common(view: GraphView, names: Sequence[str], picked: set[str]) -> str | None:
    """The last tensor on which all of these depend, or which they are."""
    shared: set[str] | None = None
    for name in names:
        nodes = _made_by(view, [name], picked)
        makers = {output for node in nodes for output in node.output}
        shared = makers if shared is None else shared & makers
    order = [output for node in view.model.graph.node for output in node.output]
    return next((name for name in reversed(order) if name in (shared or ())), None)


def _tried(view: GraphView, names: Sequence[str]) -> list[Array]:
    """These tensors where the last convolutions give random numbers. Raises RkzooError."""
    nodes: list[onnx.NodeProto] = []
    needed, branches = set(names), dict[str, Branch]()
    for node in reversed(view.model.graph.node):
        if needed.isdisjoint(node.output):
            continue
        if node.op_type == "Conv":
            shape = view.shape(node.output[0]) or ()
            branches[node.output[0]] = Branch(node.output[0], shape)
        else:
            nodes.append(node)
            needed.update(node.input)
    constant = {name for name in names if view.is_constant(name)}
    fed = probe(list(branches.values()), seed=0)
    made = [name for name in names if name not in constant]
    answers = dict(zip(made, run(submodel(view, nodes[::-1], fed, made), fed), strict=True))
    return [_value(view, name) if name in constant else answers[name] for name in names]


def _value(view: GraphView, name: str) -> Array:
    value = view.constant(name)
    return np.empty(0) if value is None else value


def _roles(
    tables: Mapping[str, Array],
    people: tuple[int, ...],
    view: GraphView,
    shape: tuple[int, ...],
) -> dict[str, str] | None:
    """The tensors of N rows by what they are for the classifier."""
    if len(people) != 4 or people[0] != 1 or people[3] != 3 or people[1] < 1:
        return None
    widths = {"person": _PERSON, "visibility": people[2]}
    found = {"cell": [name for name in tables if view.is_constant(name)]}
    rest = [name for name in tables if not view.is_constant(name)]
    for role, width in widths.items():
        found[role] = [name for name in rest if tables[name].shape[-1] == width]
    found["pose"] = [n for n in rest if n not in found["person"] + found["visibility"]]
    if any(len(names) != 1 for names in found.values()):
        return None
    roles = {role: name for role, (name,) in found.items()}
    return roles if _are_middles(tables[roles["cell"]], shape[2:]) else None


def _are_middles(table: Array, size: tuple[int, ...]) -> bool:
    """Whether rows are the middles of the cells of levels, in pixels, the finest first."""
    if table.ndim != 2 or table.shape[1] != 2:
        return False
    row = 0
    while row < len(table):
        step = 2 * table[row, 0] + 1
        if not 1 <= step <= max(size):
            return False
        height, width = (int(-(-side // step)) for side in size)
        y, x = np.divmod(np.arange(height * width), width)
        middles = np.stack((x, y), axis=1) * step + (step - 1) / 2
        if not np.array_equal(table[row : row + len(middles)], middles):
            return False
        row += len(middles)
    return row > 0


def _classifier(
    view: GraphView, tables: Sequence[str], index: str, rows: Array, output: str
) -> onnx.ModelProto:
    """The graph from a person's rows to key points 1x1xKx3: of tables with one row the first."""
    fed = [
        ArrayInput(
            name=name, shape=(*(1,) * (len(view.shapes[name]) - 1), view.shapes[name][-1] or 1)
        )
        for name in tables
    ]
    shape = (1,) * rows.ndim
    model = part(view.model, [*fed, ArrayInput(name=index, shape=shape, dtype="int64")], [output])
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.int64), index))
    kept = {info.name: info for info in graph.input if info.name != index}
    del graph.input[:]
    graph.input.extend(kept[name] for name in tables)
    _rename(graph, {**dict(zip(tables, _INPUTS, strict=True)), output: "keypoints"})
    return prepared(model, {}, scale_of_one=False).model  # of `cell`


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    # What is called so already gives way.
    other = {new: f"{new}_inner" for new in names.values()}
    for node in graph.node:
        for side in (node.input, node.output):
            for place, name in enumerate(side):
                side[place] = names.get(name) or other.get(name, name)
    for info in (*graph.input, *graph.output):
        info.name = names.get(info.name, info.name)
    for tensor in graph.initializer:
        tensor.name = other.get(tensor.name, tensor.name)


def _agrees(
    classifier: onnx.ModelProto, tables: Sequence[Array], rows: Array, people: Array
) -> bool:
    """Whether the classifier alone gives what it gave inside, for the first people."""
    for place, row in enumerate(rows[:_PROVED]):
        if row < 0:
            break  # fewer were found; the rest is filled up
        fed = {
            role: table.reshape(-1, table.shape[-1])[[row]].reshape((1,) * (table.ndim - 1) + (-1,))
            for role, table in zip(_INPUTS, tables, strict=True)
        }
        (alone,) = run(classifier, fed)
        apart = np.abs(alone[0, 0].astype(np.float64) - people[0, place])
        if not apart.max() <= _POINT_PX + _SHARE * np.abs(people[0, place]).max():
            return False
    return True


def _network(view: GraphView, picture: ArrayInput, tables: Sequence[str]) -> onnx.ModelProto:
    """The graph up to the tables, which are joined."""
    model = part(view.model, [picture], tables)
    graph = model.graph
    shapes = [view.shapes[name] for name in tables]
    count, width = shapes[0][-2] or 1, sum(shape[-1] or 0 for shape in shapes)
    parts = [f"{_JOINED}_{place}" for place in range(len(tables))]
    for name, joined, shape in zip(tables, parts, shapes, strict=True):
        whole = numpy_helper.from_array(
            np.array([1, count, shape[-1]], np.int64), f"{joined}_shape"
        )
        graph.initializer.append(whole)
        graph.node.append(helper.make_node("Reshape", [name, whole.name], [joined]))
    graph.node.append(helper.make_node("Concat", parts, [_JOINED], axis=2))
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info(_JOINED, TensorProto.FLOAT, [1, count, width])
    )
    return model


def cells_of_people(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognises what `split` leaves: one output 1xNx(5 + V + K), level after level, of boxes x1,
    y1, x2, y2 in pixels, a score and visibilities after their sigmoid, pose vectors between them.
    """
    outputs = [output.name for output in view.model.graph.output]
    if len(outputs) != 1:
        return ""
    end = head_postprocessing(view, outputs)
    groups = end if isinstance(end, str) else group_by_size(end)
    if isinstance(end, str) or isinstance(groups, str):
        return str(groups)
    if any(len(group) != len(_ORDER) for group in groups):
        return "its levels do not end in four branches: box, score, pose vector and visibilities"
    values = probe(end.branches, seed=0)
    try:
        table = end(values)[0]
        if table.ndim != 3 or table.shape[:2] != (1, sum(cells(group[0]) for group in groups)):
            return "its output is not a row of numbers for each cell"
        firsts = {
            branch.name: changed_channels(table, outputs_without_branch(end, values, branch)[0], 2)
            for branch in end.branches
        }
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    levels = [sorted(group, key=lambda branch: firsts[branch.name][:1]) for group in groups]
    strides = strides_of(levels, picture)
    if isinstance(strides, str):
        return strides
    widths = [branch.shape[1] for branch in levels[0]]
    if widths[:2] != [4, 1] or any([b.shape[1] for b in level] != widths for level in levels):
        return "its branches are not box, score, pose vector and visibilities"
    if table.shape[2] != sum(widths):
        return f"its output has {table.shape[2]} numbers a cell, not {sum(widths)}"
    expected = np.concatenate(
        [_rows(level, values, step) for level, step in zip(levels, strides, strict=True)]
    )
    slack = SCORE_SLACK + np.zeros_like(expected)
    slack[:, :4] = BOX_SLACK + _SHARE * np.abs(expected[:, :4])
    if not (np.abs(table[0] - expected) <= slack).all():
        return "its boxes, scores, pose vectors and visibilities are not those of an RTMO"
    taps = tuple(
        HeadTensor(branch.name, role, number, branch.shape, sigmoid=role == "score")
        for number, level in enumerate(levels)
        for role, branch in zip(_ORDER, level, strict=True)
    )
    head = DetectHead(
        outputs=cut_outputs(taps, strides),
        classes=1,
        reg_max=1,
        strides=tuple(strides),
        coding="middle_exponent",
        coefficients=widths[2],
        keypoints=widths[3],
        keypoint_values=1,
    )
    uncut = msgspec.structs.replace(
        head,
        outputs=(HeadOutput(name=outputs[0], role="decoded"),),
        decoded=DecodedOutput(rows_last=False, corners=True),
    )
    image = msgspec.structs.replace(picture.image, color="BGR", std=(1.0, 1.0, 1.0), pad=114)
    fed = replace(picture, image=image)
    steps = ", ".join(str(step) for step in strides)
    return Recognition(
        family=FAMILY,
        form="stock",
        contract=contract(FAMILY, fed, head),
        uncut=contract(FAMILY, fed, uncut),
        head_tensors=taps,
        evidence=(
            f"{len(levels)} levels (stride {steps}), each with branches for box (4), score (1), "
            f"pose vector ({widths[2]}) and the visibilities of {widths[3]} key points.",
            "Run on random values, the graph's decoding agrees with this head's formula.",
            _FEEDING,
        ),
    )


def _rows(level: Sequence[Branch], values: Mapping[str, Array], stride: int) -> Float:
    """(cells, 5 + V + K) of a level by RTMO's formula."""
    box, score, pose, seen = (
        values[branch.name][0].reshape(branch.shape[1], -1).T.astype(np.float64) for branch in level
    )
    y, x = np.divmod(np.arange(len(box)), level[0].shape[3])
    centre = (box[:, :2] + np.stack((x, y), axis=1)) * stride + (stride - 1) / 2
    half = np.exp(box[:, 2:]) * stride / 2
    return np.concatenate(
        (centre - half, centre + half, sigmoid(score), pose, sigmoid(seen)), axis=1
    )
