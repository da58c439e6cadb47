"""Recogniser of SenseVoice, a CTC network that takes stacked mel features and ids.

https://arxiv.org/abs/2407.04051. Both exporters, FunASR's and sherpa-onnx's, give: features (N, T,
F), their number (N,), the ids of a language and of a form of text (N,) -> scores (N, 4 + T, C).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.audio import CtcSpeechHead, StackedFeatures
from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import Contract
from rkzoo.graph.families.recognition import Recognition
from rkzoo.graph.onnx.read import metadata
from rkzoo.graph.onnx.subgraph import part
from rkzoo.graph.onnx.view import (
    Array,
    GraphView,
    declared,
    graph_view,
    prepared,
    run,
    run_whole,
    submodel,
)

FRAMES = 332
"""Rows of features where the graph leaves them free: 19.9 s, and 336 with what leads."""
_BINS, _STACK, _STRIDE = 80, 7, 6
_HOP = 160
_PASSES = 16
# Added to the attention scores of padding: exp of it is 0, also in float16, which ends at 65504.
_FAR = 1e4
# Ids as published (FunASR's lid_dict and textnorm_dict); a file's own notes come first.
_LANGUAGES = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12, "nospeech": 13}
_FORM = 14  # with punctuation and numerals
_WHOLE = (TensorProto.INT32, TensorProto.INT64)


@dataclass(frozen=True)
class _Inputs:
    """Names of the graph's inputs, and where the ids go: rows of what the encoder reads."""

    speech: str
    count: str
    language: str
    form: str
    leading: int


def sensevoice(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Recognition] | None:
    """A SenseVoice by its structure.

    Its length is fixed, and padding is told by a mask of floats in place of a number: added to the
    scores of attention, since comparing and choosing are nothing for an NPU.

    Returns:
        The graph with the inputs `speech` 1xTxF, `mask` 1x(4 + T), `language` and `form` (1,), and
        its contract; None for another network.
    """
    fed = {info.name: info for info in model.graph.input}
    for tensor in model.graph.initializer:
        fed.pop(tensor.name, None)
    shapes = {name: declared(info) or () for name, info in fed.items()}
    kinds = {name: info.type.tensor_type.elem_type for name, info in fed.items()}
    speech = [name for name, kind in kinds.items() if kind not in _WHOLE]
    if len(fed) != 4 or len(speech) != 1 or len(shapes[speech[0]]) != 3:
        return None
    _, rows, width = shapes[speech[0]]
    if width != _BINS * _STACK or any(len(shapes[n]) != 1 for n in fed if n != speech[0]):
        return None
    rows = rows or FRAMES
    arrays = [
        ArrayInput(
            name=name,
            shape=(1, rows, width) if name == speech[0] else (1,),
            dtype="float32"
            if name == speech[0]
            else ("int32" if kinds[name] == TensorProto.INT32 else "int64"),
        )
        for name in fed
    ]
    scores = next((o.name for o in model.graph.output if len(declared(o) or ()) == 3), None)
    if scores is None:
        return None
    fixed = part(model, arrays, [scores])
    view = folded(fixed, scores)
    fixed = view.model
    found = _inputs(view, speech[0], rows)
    shape = view.shape(scores)
    if found is None or shape is None or shape[1] != rows + found.leading:
        return None
    if not _masked(view, found, rows):
        return None
    arranged = _renamed(fixed, found)
    head = _head(metadata(model), found.leading)
    contract = Contract(family="sensevoice", head=head, others=_others(rows, width, found.leading))

    def difference() -> float:
        return _difference(model, arranged, found, scores, contract)

    return arranged, Recognition(
        family="sensevoice",
        form="whole",
        contract=contract,
        head_tensors=(),
        evidence=(
            f"It takes {rows} rows of {_STACK} stacked frames of {_BINS} mel bins "
            f"({rows * _STRIDE * _HOP / 16000:.1f} s), a language and a form of text, and gives "
            f"scores of {shape[2]} pieces of text.",
            "Padding is told by a mask that is added to the scores of attention.",
        ),
        difference=difference,
    )


def folded(model: onnx.ModelProto, scores: str) -> GraphView:
    """The view of a graph whose shapes are folded to its end: those of each of 70 layers depend on
    the layer before, and a pass over so many nodes takes some of them only."""
    view = graph_view(model)
    for _ in range(_PASSES):
        before = len(view.model.graph.node)
        if view.shape(scores) is not None:
            break
        view = prepared(view.model, {}, scale_of_one=False)
        if len(view.model.graph.node) == before:
            break
    return view


def _others(rows: int, width: int, leading: int) -> tuple[ArrayInput, ...]:
    return (
        ArrayInput(name="speech", shape=(1, rows, width)),
        ArrayInput(name="mask", shape=(1, rows + leading)),
        ArrayInput(name="language", shape=(1,), dtype="int64"),
        ArrayInput(name="form", shape=(1,), dtype="int64"),
    )


def _inputs(view: GraphView, speech: str, rows: int) -> _Inputs | None:
    """Which input is which, by asking: what stands before the features is run with several ids."""
    joined = speech
    while True:
        readers = view.consumers.get(joined, [])
        if len(readers) != 1 or readers[0].op_type != "Concat":
            break
        joined = readers[0].output[0]
    shape = view.shape(joined)
    if joined == speech or shape is None:
        return None
    leading = shape[1] - rows
    front = _before(view, {joined})
    whole = [info.name for info in view.inputs if info.name != speech]
    read = [name for name in whole if any(name in node.input for node in front)]
    if len(whole) != 3 or len(read) != 2 or leading < 2:
        return None
    kinds = {
        i.name: helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in view.inputs
    }
    zero: dict[str, Array] = {name: np.zeros(1, kinds[name]) for name in read}
    zero[speech] = np.zeros((1, rows, shape[2]), np.float32)
    model = submodel(view, front, zero, [joined])
    (before,) = run(model, zero)
    at: dict[int, str] = {}
    for name in read:
        (after,) = run(model, zero | {name: np.ones(1, kinds[name])})
        changed = np.flatnonzero((before != after).any(axis=(0, 2)))
        if len(changed) != 1:
            return None
        at[int(changed[0])] = name
    if sorted(at) != [0, leading - 1]:
        return None
    (count,) = set(whole) - set(read)
    return _Inputs(speech, count, at[0], at[leading - 1], leading)


def _before(view: GraphView, targets: set[str]) -> list[onnx.NodeProto]:
    """The nodes that make these tensors, in order."""
    needed, nodes = set(targets), []
    for node in reversed(view.model.graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    return nodes[::-1]


def _masked(view: GraphView, found: _Inputs, rows: int) -> bool:
    """Lets the mask come in as floats, in place. False where the count of frames does something
    else than masking."""
    graph = view.model.graph
    counted = {found.count}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if counted & set(node.input) and all(
            name in counted or view.is_constant(name) or not name for name in node.input
        ):
            nodes.append(node)
            counted |= set(node.output)
    inner = {id(node) for node in nodes}
    edges = {
        name
        for node in graph.node
        if id(node) not in inner
        for name in node.input
        if name in counted
    }
    if not edges or found.count in edges:
        return False
    names = sorted(edges)
    kind = next(i for i in view.inputs if i.name == found.count).type.tensor_type.elem_type
    number = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    total = rows + found.leading
    asked = _before(view, edges)
    model = submodel(view, asked, {found.count: np.zeros(1, number)}, names)
    kept = {
        count: run(model, {found.count: np.array([count], number)})
        for count in (1, rows // 2, rows)
    }
    valid = {count: np.arange(total) < count + found.leading for count in kept}

    def told(place: int, positive: bool) -> bool:
        return all(
            np.array_equal(values[place].ravel(), valid[count] == positive)
            for count, values in kept.items()
        )

    plain = {name for place, name in enumerate(names) if told(place, True)}
    negated = {name for place, name in enumerate(names) if told(place, False)}
    if plain | negated != edges:
        return False
    return _with_mask(
        view, plain, negated, inner, {n: kept[rows][p].shape for p, n in enumerate(names)}
    )


def _with_mask(
    view: GraphView,
    plain: set[str],
    negated: set[str],
    inner: set[int],
    shapes: Mapping[str, tuple[int, ...]],
) -> bool:
    graph = view.model.graph
    made: list[onnx.NodeProto] = []
    added: list[TensorProto] = []

    def constant(name: str, value: Array) -> str:
        added.append(numpy_helper.from_array(value, name))
        return name

    one = constant("mask_one", np.ones(1, np.float32))
    far = constant("mask_far", np.array([_FAR], np.float32))
    made.append(helper.make_node("Sub", ["mask", one], ["mask_less"]))
    made.append(helper.make_node("Mul", ["mask_less", far], ["mask_bias"]))
    for name in sorted(plain | negated):
        source, target = ("mask", name) if name in plain else ("mask_bias", f"{name}_bias")
        shape = constant(f"{name}_shape", np.array(shapes[name], np.int64))
        made.append(helper.make_node("Reshape", [source, shape], [target]))
    instead: dict[str, str] = {}
    for node in graph.node:
        if id(node) in inner:
            continue
        node.input[:] = [instead.get(name, name) for name in node.input]
        asked = node.op_type == "Where" and node.input[0] in negated
        value = view.constant(node.input[1]) if asked else None
        if value is not None and value.size == 1 and value.item() < -_FAR:
            made.append(
                helper.make_node("Add", [node.input[2], f"{node.input[0]}_bias"], [node.output[0]])
            )
        elif value is not None and value.size == 1 and value.item() == 0:
            # Softmax made 0 of it already.
            producer = view.producers.get(node.input[2])
            if producer is None or producer.op_type != "Softmax":
                return False
            instead[node.output[0]] = node.input[2]
        elif negated & set(node.input) or (
            plain & set(node.input) and node.op_type not in ("Mul", "Reshape")
        ):
            return False
        else:
            made.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(added)
    return True


def _renamed(model: onnx.ModelProto, found: _Inputs) -> onnx.ModelProto:
    """The graph with inputs in the contract's order and by its names."""
    graph = model.graph
    names = {found.speech: "speech", found.language: "language", found.form: "form"}
    infos = {info.name: info for info in graph.input}
    shapes = {old: declared(infos[old]) for old in names}
    rows = shapes[found.speech][1] or 0  # type: ignore[index]
    # Ids come in as int64 and are cast where the graph takes another type.
    casts = []
    for old, new in names.items():
        kind = infos[old].type.tensor_type.elem_type
        inner = f"{new}_of_graph"
        if old != found.speech and kind != TensorProto.INT64:
            casts.append(helper.make_node("Cast", [new], [inner], to=kind))
        else:
            inner = new
        for node in graph.node:
            node.input[:] = [inner if name == old else name for name in node.input]
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (*casts, *graph.node)]
    width = shapes[found.speech][2] or 0  # type: ignore[index]
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(kept)
    for other in _others(rows, width, found.leading):
        kind = TensorProto.FLOAT if other.dtype == "float32" else TensorProto.INT64
        graph.input.append(helper.make_tensor_value_info(other.name, kind, other.shape))
    _without_unused(graph)
    return model


def _without_unused(graph: onnx.GraphProto) -> None:
    """Drops nodes and weights that nothing reads any more."""
    needed = {info.name for info in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(copies)


def features_of(notes: Mapping[str, str]) -> StackedFeatures:
    """FunASR's features, with the statistics that sherpa-onnx writes into a file (`neg_mean`,
    `inv_stddev`)."""
    shift, scale = (_numbers(notes.get(key, "")) for key in ("neg_mean", "inv_stddev"))
    return StackedFeatures(bins=_BINS, stack=_STACK, stride=_STRIDE, shift=shift, scale=scale)


def _head(notes: Mapping[str, str], leading: int) -> CtcSpeechHead:
    """The head, by what sherpa-onnx writes into a file (`lang_*`, `with_itn`)."""
    ids = {key[5:]: int(v) for key, v in notes.items() if key.startswith("lang_") and v.isdecimal()}
    form = notes.get("with_itn", "")
    return CtcSpeechHead(
        hop=_STRIDE * _HOP,
        divider="▁",
        normalised=False,
        features=features_of(notes),
        leading=leading,
        languages=ids or _LANGUAGES,
        form=int(form) if form.isdecimal() else _FORM,
    )


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas; none where there are not as many as a row has."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()
    return values if len(values) == _BINS * _STACK and np.isfinite(values).all() else ()


def _difference(
    model: onnx.ModelProto,
    arranged: onnx.ModelProto,
    found: _Inputs,
    scores: str,
    contract: Contract,
) -> float:
    """The largest difference between probabilities of the file's graph and of the arranged one, on
    noise of the whole length and of half of it, which the file's graph is given unpadded."""
    rows, width = contract.others[0].shape[1:]
    random = np.random.default_rng(0)
    most = 0.0
    names = {o.name: place for place, o in enumerate(model.graph.output)}
    kinds = {
        i.name: helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
        for i in model.graph.input
    }
    for count in (rows, rows // 2):
        speech = np.zeros((1, rows, width), np.float32)
        speech[:, :count] = random.normal(size=(1, count, width))
        mask = (np.arange(rows + found.leading) < count + found.leading).astype(np.float32)
        ids = {found.language: 1, found.form: 2}
        whole = run_whole(
            model,
            {
                found.speech: speech,
                found.count: np.array([count], kinds[found.count]),
                **{name: np.array([value], kinds[name]) for name, value in ids.items()},
            },
        )[names[scores]]
        (mine,) = run_whole(
            arranged,
            {
                "speech": speech,
                "mask": mask[None],
                "language": np.array([1]),
                "form": np.array([2]),
            },
        )
        steps = count + found.leading
        apart = softmax(whole[:, :steps]) - softmax(mine[:, :steps])
        most = max(most, float(np.abs(apart).max()))
    return most


def softmax(values: Array) -> Array:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
