"""Detectors of DETR's kind: a row of scores and a box for each of a fixed number of queries.

Known by asking, without names: the end of the graph is run alone, and the boxes must answer to the
numbers that they are made of as one of four publications says; where the graph picks the best
itself, what it picks must be the best of the scores and boxes that stand before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import onnx

from rkzoo.contract.model import Contract
from rkzoo.contract.query_detect import QueryDetectHead, QueryOutput
from rkzoo.graph.families.branches import is_close, probe, sigmoid
from rkzoo.graph.families.head_postprocessing import HeadPostprocessing, head_postprocessing
from rkzoo.graph.families.recognition import HeadTensor, ImageSource, Recognition
from rkzoo.graph.families.training import DETR, DFINE, RFDETR, RTDETR, Training
from rkzoo.graph.onnx.view import Array, GraphView, run, submodel
from rkzoo.ort import CannotRun

# https://cocodataset.org: numbers of its 80 classes, 1 to 90.
_NO_CLASS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
_COCO = tuple(number for number in range(1, 91) if number not in _NO_CLASS)
_COCO_COLUMNS = 91
_FLOAT = onnx.TensorProto.FLOAT
_INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
_PASSED = frozenset(
    {"TopK", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Sigmoid"}
    | {"Softmax", "Slice", "ReduceMax"}
)
_MOST_CANDIDATES = 24  # tensors that may be the boxes before what picks them
_MOST_QUERIES = 10_000
_SLACK = 2e-2  # of logits of boxes, which are float32 through a sigmoid and its inverse
_NONE = "its outputs are not a row of scores and a box for each of a number of queries"


@dataclass(frozen=True)
class _Ends:
    """The graph's outputs by what they hold; `label` where the graph picks the best itself, and
    one tensor for both where boxes and scores are joined."""

    score: str
    box: str
    label: str = ""

    @property
    def joined(self) -> bool:
        return self.score == self.box

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(filter(None, (self.label, self.box, self.score))))


@dataclass(frozen=True)
class _Source:
    """The tensors 1xNxC and 1xNx4 (cx, cy, w, h in 0..1) that everything after is made of."""

    scores: str
    boxes: str
    activation: str


def queries(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognise RT-DETR, RT-DETRv2, D-FINE, DEIM, RF-DETR, LW-DETR and DETR, with their scores and
    boxes as outputs (in one tensor, too), or with the best picked in the graph."""
    reason = _NONE
    for ends in _ends(view):
        tail = head_postprocessing(view, ends.names, picking=True)
        if isinstance(tail, str):
            return tail
        if any(len(branch.shape) > 3 for branch in tail.branches):
            return "its outputs come from feature maps and not from queries"
        try:
            answer = _of(view, picture, ends)
        except CannotRun as error:
            return f"the end of the graph cannot be run alone ({error.why})"
        if isinstance(answer, Recognition):
            return answer
        reason = answer
    return reason


def _of(view: GraphView, picture: ImageSource, ends: _Ends) -> Recognition | str:
    source = _source(view, ends)
    if source is None:
        return "what its outputs hold is not the best of its queries and classes"
    tail = head_postprocessing(view, [source.boxes], picking=True)
    if isinstance(tail, str):
        return tail
    coding = _coding(tail)
    if coding is None:
        return "its boxes are not made of four numbers a query as in any DETR"
    return _recognition(view, picture, ends, source, coding)


# ---- what the outputs are -----------------------------------------------------------


def _ends(view: GraphView) -> Iterator[_Ends]:
    """What the outputs could be, by shape."""
    names = [output.name for output in view.model.graph.output]
    shapes = {name: view.shape(name) for name in names}
    boxes = [n for n in names if _is_rows(shapes[n]) and shapes[n][-1] == 4]  # type: ignore[index]
    if len(names) == 1 and _is_rows(shapes[names[0]]):
        if shapes[names[0]][-1] > 4:  # type: ignore[index]
            yield _Ends(names[0], names[0])
    elif len(names) == 2:
        for box in boxes:
            (score,) = (name for name in names if name != box)
            shape = shapes[score]
            if _is_rows(shape) and shape[1] == shapes[box][1]:  # type: ignore[index]
                yield _Ends(score, box)
    elif len(names) == 3 and len(boxes) == 1:
        flat = [n for n in names if n not in boxes and shapes[n] == shapes[boxes[0]][:2]]  # type: ignore[index]
        labels = [n for n in flat if view.dtypes.get(n) in _INTEGERS]
        scores = [n for n in flat if view.dtypes.get(n) == _FLOAT]
        if len(labels) == len(scores) == 1:
            yield _Ends(scores[0], boxes[0], labels[0])


def _is_rows(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and len(shape) == 3 and shape[0] == 1 and 1 < shape[1] <= _MOST_QUERIES


# ---- what they are made of ----------------------------------------------------------


def _source(view: GraphView, ends: _Ends) -> _Source | None:
    """The scores before their sigmoid and the boxes before what picks them: those whose numbers,
    chosen by us, come out as they must."""
    for scores in _score_tensors(view, ends):
        for boxes in _box_tensors(view, ends, view.shape(scores)):
            activation = _asked(view, ends, scores, boxes)
            if activation:
                return _Source(scores, boxes, activation)
    return None


def _score_tensors(view: GraphView, ends: _Ends) -> list[str]:
    """The rows that the scores pass through, those before any sigmoid first."""
    found: list[str] = []
    name = ends.score
    if ends.joined:
        node = view.producers.get(name)
        width = (view.shape(name) or (0, 0, 0))[2]
        parts = list(node.input) if node is not None and node.op_type == "Concat" else []
        if len(parts) != 2 or (view.shape(parts[1]) or (0,))[-1] != width - 4:
            return []
        name = parts[1]
    while True:
        if _is_rows(view.shape(name)) and view.dtypes.get(name) == _FLOAT:
            found.append(name)
        node = view.producers.get(name)
        if node is None or node.op_type not in _PASSED:
            return found[::-1]
        name = node.input[0]


def _box_tensors(view: GraphView, ends: _Ends, scores: tuple[int, ...] | None) -> Iterator[str]:
    """Tensors 1xNx4 with a row for each row of scores, that of the output first."""
    if scores is None:
        return
    seen: set[str] = set()
    todo, given = [ends.box], 0
    while todo and given < _MOST_CANDIDATES:
        name = todo.pop(0)
        if name in seen or view.is_constant(name):
            continue
        seen.add(name)
        if view.shape(name) == (1, scores[1], 4) and view.dtypes.get(name) == _FLOAT:
            given += 1
            yield name
        node = view.producers.get(name)
        if node is not None and node.op_type not in ("MatMul", "Gemm", "Conv", "TopK"):
            todo.extend(node.input)


def _asked(view: GraphView, ends: _Ends, scores: str, boxes: str) -> str:
    """Which activation makes the outputs of chosen scores and boxes; "" where none does."""
    random = np.random.default_rng(0)
    shape = view.shape(scores) or ()
    logits = random.normal(0, 2, shape).astype(np.float32)
    middle, size = random.uniform(0.3, 0.7, (2, 1, shape[1], 2))
    given = np.concatenate((middle, size * 0.4), axis=2).astype(np.float32)
    values = {scores: logits, boxes: given}
    wanted = [name for name in ends.names if name not in values]
    nodes = _between(view, wanted, values)
    if nodes is None:
        return ""
    answers = dict(values)
    if wanted:
        answers |= zip(wanted, run(submodel(view, nodes, values, wanted), values), strict=True)
    if ends.label:
        return _as_picked(answers, ends, logits, given)
    if ends.joined:
        box, score = answers[ends.box][..., :4], answers[ends.score][..., 4:]
    else:
        box, score = answers[ends.box], answers[ends.score]
    if not is_close(box, given):
        return ""
    if score is logits or is_close(score, logits):
        return "raw"
    return "sigmoid" if is_close(score, sigmoid(logits)) else ""


def _as_picked(answers: Mapping[str, Array], ends: _Ends, logits: Array, given: Array) -> str:
    label, score, box = (answers[name] for name in (ends.label, ends.score, ends.box))
    half = given[0, :, 2:] / 2
    corners = np.concatenate((given[0, :, :2] - half, given[0, :, :2] + half), axis=1)
    count, classes = score.size, logits.shape[2]
    for activation, expected in (("sigmoid", sigmoid(logits[0])), ("softmax", _softmax(logits[0]))):
        flat = expected.ravel()
        best = np.argsort(-flat, kind="stable")[:count]
        query, column = best // expected.shape[1], best % expected.shape[1]
        if activation == "softmax":
            whole = expected.max(axis=1)
            query = (
                np.argsort(-whole, kind="stable")[:count]
                if count < len(whole)
                else np.arange(count)
            )
            column = expected[query].argmax(axis=1)
        fits = is_close(score.ravel(), expected[query, column]) and np.array_equal(
            label.ravel(), column
        )
        if fits and classes and is_close(box[0], corners[query]):
            return activation
    return ""


def _softmax(logits: Array) -> Array:
    """Without the last column, no object."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray((powers / powers.sum(axis=1, keepdims=True))[:, :-1])


def _between(
    view: GraphView, outputs: Sequence[str], given: Mapping[str, Array]
) -> list[onnx.NodeProto] | None:
    """The nodes that make the outputs of given tensors; None where more is needed."""
    inside: set[str] = set()
    todo = list(outputs)
    while todo:
        name = todo.pop()
        if not name or name in inside or name in given or name in view.initializers:
            continue
        node = view.producers.get(name)
        if node is None or node.op_type in ("Conv", "Gemm", "LayerNormalization", "GridSample"):
            return None
        inside.update(node.output)
        todo.extend(node.input)
    return [node for node in view.model.graph.node if not inside.isdisjoint(node.output)]


# ---- how boxes are made -------------------------------------------------------------


@dataclass(frozen=True)
class _Coding:
    """How a publication makes a box of four numbers of a query: whether boxes `at` some numbers,
    moved by `step`, move so."""

    training: Training
    words: str
    fits: Callable[[Array, Array, Array, Array], bool]


def _logits(boxes: Array) -> Array:
    inside = np.clip(boxes.astype(np.float64), 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside / (1 - inside)))


def _by_sigmoid(at: Array, step: Array, once: Array, twice: Array) -> bool:
    """sigmoid(d + reference)."""
    sure = np.all([(a > 0.01) & (a < 0.99) for a in (at, once)], axis=0)
    moved = _logits(once) - _logits(at)
    return bool(sure.mean() > 0.2 and np.abs(moved - step)[sure].max() < _SLACK)


def _by_exponent(at: Array, step: Array, once: Array, twice: Array) -> bool:
    """d * size + middle of a reference, exp(d) * its size."""
    sized = (at[:, 2:] > 1e-6).all(axis=1) & (once[:, 2:] > 1e-6).all(axis=1)
    if sized.mean() < 0.2:
        return False
    grown = np.log(once[sized, 2:] / at[sized, 2:])
    straight = twice[:, :2] - 2 * once[:, :2] + at[:, :2]
    moves = np.abs(once[:, :2] - at[:, :2]).max() > 1e-4
    return bool(moves and np.abs(grown - step[sized, 2:]).max() < _SLACK and _small(straight, once))


def _by_distances(at: Array, step: Array, once: Array, twice: Array) -> bool:
    """Corners l, t, r, b away from a reference, each in proportion to its own number."""
    first, second, third = (
        np.concatenate((2 * a[:, :2] - a[:, 2:], 2 * a[:, :2] + a[:, 2:]), axis=1)
        for a in (at, once, twice)
    )
    moved = (second - first) * (-1, -1, 1, 1) / step
    pairs = (moved[:, 0] - moved[:, 2], moved[:, 1] - moved[:, 3])  # one width, one height
    same = all(np.abs(pair).max() < _SLACK * max(1.0, float(np.abs(moved).max())) for pair in pairs)
    return bool(same and (moved > 0).mean() > 0.9 and _small(third - 2 * second + first, second))


def _small(rest: Array, boxes: Array) -> bool:
    return bool(np.abs(rest).max() <= 1e-3 * max(1.0, float(np.abs(boxes).max())))


_CODINGS = (
    _Coding(RTDETR, "the sigmoid of a reference moved by its four numbers", _by_sigmoid),
    _Coding(RFDETR, "a reference moved in proportion to its size, as of RF-DETR", _by_exponent),
    _Coding(DFINE, "distances from a reference, as of D-FINE", _by_distances),
)
_PLAIN = _Coding(DETR, "the sigmoid of its four numbers, without a reference", _by_sigmoid)


def _coding(tail: HeadPostprocessing) -> _Coding | None:
    """How the boxes are made: of a branch of four numbers a query, asked."""
    count = _rows_of(tail)
    own = [branch for branch in tail.branches if int(np.prod(branch.shape)) == 4 * count]
    values = probe(tail.branches, seed=0)
    random = np.random.default_rng(1)
    (at,) = tail(values)
    for branch in own:
        step = (
            random.uniform(0.2, 0.6, branch.shape) * random.choice((-1, 1), branch.shape)
        ).astype(np.float32)
        (once,), (twice,) = (
            tail({**values, branch.name: values[branch.name] + factor * step}) for factor in (1, 2)
        )
        rows = step.reshape(count, 4)
        for coding in _CODINGS:
            if coding.fits(at[0], rows, once[0], twice[0]):
                bare = _logits(at[0]) - values[branch.name].reshape(count, 4)
                if coding.training is RTDETR and _is_alike(bare, at[0]):
                    return _PLAIN
                return coding
    return None


def _rows_of(tail: HeadPostprocessing) -> int:
    """The number of boxes that a tail gives."""
    (answer,) = tail(probe(tail.branches, seed=0))
    return int(answer.shape[1]) if answer.ndim == 3 else 0


def _is_alike(rest: Array, boxes: Array) -> bool:
    """Whether the same is added for every query, a bias, and not each one's reference."""
    sure = (boxes > 0.01) & (boxes < 0.99)
    columns = [rest[sure[:, column], column] for column in range(4)]
    return all(len(column) > 1 and np.ptp(column) < _SLACK for column in columns)


# ---- the result ---------------------------------------------------------------------


def _recognition(
    view: GraphView, picture: ImageSource, ends: _Ends, source: _Source, coding: _Coding
) -> Recognition:
    shape = view.shape(source.scores) or (1, 0, 0)
    exclusive = source.activation == "softmax" or (
        coding is _PLAIN and source.activation == "raw" and shape[2] > 1
    )
    ground = coding.training is RFDETR and not ends.label and _boxes_first(view, ends)
    classes, columns, doubts = _classes(shape[2], picture.labels, exclusive, ground)
    head = QueryDetectHead(
        outputs=(QueryOutput(name="logits", role="score"), QueryOutput(name="boxes", role="box")),
        classes=classes,
        activation="softmax" if exclusive else "sigmoid",
        columns=columns,
    )
    cut = bool(ends.label) or ends.joined or source.activation == "sigmoid"
    own = msgspec.structs.replace(
        head,
        outputs=_outputs(ends),
        activation=head.activation if not cut else "none",
        corners=bool(ends.label),
    )
    image = coding.training.over(picture).image
    labels = picture.labels if len(picture.labels) == classes else ()
    family = coding.training.family

    def contract(described: QueryDetectHead) -> Contract:
        return Contract(family=family, picture=image, head=described, labels=labels)

    taps = (
        HeadTensor(source.scores, "score", 0, shape),
        HeadTensor(source.boxes, "box", 0, (1, shape[1], 4)),
    )
    assumed = (coding.training.assumed, *doubts)
    return Recognition(
        family=family,
        form="stock" if cut else "whole",
        contract=contract(head if cut else own),
        uncut=contract(own) if cut else None,
        head_tensors=taps if cut else (),
        evidence=(
            f"{shape[1]} queries, each with {shape[2]} scores and a box.",
            f"Fed with random numbers, the end of the graph answers as a DETR's must: a box is "
            f"{coding.words}.",
            *([_PICKS] if ends.label else []),
            *assumed,
        ),
        assumed=assumed,
    )


_PICKS = (
    "The graph picks the best of its queries and classes, which is cut off and done after the NPU."
)


def _boxes_first(view: GraphView, ends: _Ends) -> bool:
    return view.model.graph.output[0].name == ends.box and not ends.joined


def _outputs(ends: _Ends) -> tuple[QueryOutput, ...]:
    if ends.joined:
        return (QueryOutput(name=ends.box, role="decoded"),)
    named = [QueryOutput(name=ends.score, role="score"), QueryOutput(name=ends.box, role="box")]
    if ends.label:
        named.append(QueryOutput(name=ends.label, role="label"))
    return tuple(named)


def _classes(
    count: int, labels: Sequence[str], exclusive: bool, ground: bool
) -> tuple[int, tuple[int, ...], tuple[str, ...]]:
    """How many classes, in which columns, and what of that is assumed."""
    known = count - exclusive
    if len(labels) == known:
        return known, (), ()
    if known == _COCO_COLUMNS and len(labels) in (0, len(_COCO)):
        text = (
            f"Its {known} columns of scores are taken for COCO's own numbers 0 to 90, of which 80 "
            f"are classes; if they are classes of your own, give {known} names with --labels FILE."
        )
        return len(_COCO), _COCO, (text,)
    if ground and known > 1:
        text = (
            f"The last of its {known} columns of scores is taken for the background, as RF-DETR's "
            f"exporter writes it; if it is a class, give {known} names with --labels FILE."
        )
        return known - 1, (), (text,)
    doubt = (
        "The last column of its scores is taken for no object and the others to exclude each "
        "other, as of DETR.",
    )
    return known, (), doubt if exclusive else ()
