"""Recogniser of Paraformer: speech to text in one pass (https://arxiv.org/abs/2206.08317).

FunASR's export, and sherpa-onnx's: features (N, T, F) and their number (N,) -> scores (N, L, C) of
L tokens, and how many are said (N,). Between its encoder and its decoder a sum over the frames,
continuous integrate-and-fire, says where a token ends; so L depends on the sound. The file becomes
two graphs of fixed shapes, and that sum is left to the processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.audio import ParaformerHead
from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import Contract
from rkzoo.graph.families.recognition import Recognition, SplitPart
from rkzoo.graph.families.speech import FRAMES, features_of, folded, softmax
from rkzoo.graph.onnx.read import metadata
from rkzoo.graph.onnx.subgraph import part
from rkzoo.graph.onnx.view import (
    Array,
    GraphView,
    captured_by,
    declared,
    graph_view,
    run,
    run_whole,
    submodel,
)

_WHOLE = (TensorProto.INT32, TensorProto.INT64)
_ROWS_A_TOKEN = 2
"""The decoder has room for a token in so many rows: 8.3 a second."""
_NORMS = ("ReduceMean", "LayerNormalization")
_FAR = 1e3  # where a mask is added to scores of attention, padding gets at least so much less


@dataclass(frozen=True)
class _Names:
    """Tensors of the file's graph: its inputs, and where it is cut."""

    speech: str
    count: str
    memory: str
    shares: str
    embeddings: str
    said: str
    scores: str


def paraformer(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Recognition] | None:
    """A Paraformer by its structure.

    Returns:
        The graph in the file, and its contract with the two graphs that it is split into; None for
        another network.
    """
    fed = {info.name: info for info in model.graph.input}
    for tensor in model.graph.initializer:
        fed.pop(tensor.name, None)
    kinds = {name: info.type.tensor_type.elem_type for name, info in fed.items()}
    shapes = {name: declared(info) or () for name, info in fed.items()}
    speech = next((n for n in fed if kinds[n] == TensorProto.FLOAT and len(shapes[n]) == 3), "")
    count = next((n for n in fed if kinds[n] in _WHOLE and len(shapes[n]) == 1), "")
    if len(fed) != 2 or not speech or not count:
        return None
    features = features_of(metadata(model))
    width = features.bins * features.stack
    if shapes[speech][2] != width:
        return None
    view = graph_view(model)
    names = _names(view, speech, count)
    if names is None:
        return None
    rows = shapes[speech][1] or FRAMES
    encoder = _encoder(view, names, (1, rows, width))
    size = _output_shape(encoder, "memory")[-1] if encoder is not None else 0
    tokens = rows // _ROWS_A_TOKEN
    decoder = _decoder(view, names, rows, tokens, size) if size else None
    tail = _tail(view, names, rows, size) if decoder is not None else None
    if encoder is None or decoder is None or tail is None:
        return None
    classes = _output_shape(decoder, "scores")[-1]

    def difference() -> float:
        return max(_difference(view, names, encoder, decoder, count) for count in (rows, rows // 2))

    contract = Contract(
        family="paraformer",
        head=ParaformerHead(features=features, tail=tail),
        others=_inputs(encoder),
    )
    recognition = Recognition(
        family="paraformer",
        form="whole",
        contract=contract,
        head_tensors=(),
        evidence=(
            f"It takes {rows} rows of {features.stack} stacked frames of {features.bins} mel bins "
            f"({rows * 0.06:.1f} s), and gives scores of {classes} pieces of text for each of at "
            f"most {tokens} tokens.",
            "It is split where a sum over the frames says which are one token: an encoder, that "
            "sum on the processor, and a decoder.",
        ),
        difference=difference,
        parts=(
            SplitPart("encoder", encoder, _inputs(encoder)),
            SplitPart("decoder", decoder, _inputs(decoder)),
        ),
    )
    return model, recognition


# ---- where it is cut ----------------------------------------------------------------


def _names(view: GraphView, speech: str, count: str) -> _Names | None:
    graph = view.model.graph
    kinds = {o.name: o.type.tensor_type.elem_type for o in graph.output}
    ranks = {o.name: len(declared(o) or ()) for o in graph.output}
    logits = next((n for n in kinds if kinds[n] == TensorProto.FLOAT and ranks[n] == 3), "")
    said = next((n for n in kinds if kinds[n] in _WHOLE and ranks[n] == 1), "")
    if not logits or not said:
        return None
    needed = _before(view, {logits}, set())
    gates = [node for node in needed if node.op_type == "Sigmoid"]
    if len(gates) != 1:
        return None
    gate = gates[0].output[0]
    first = _before(view, {gate}, set())
    inner = {id(node) for node in first}
    of_speech = _after(view, {speech}) & {name for node in first for name in node.output}
    shared = {
        name for node in needed if id(node) not in inner for name in node.input if name in of_speech
    } - {gate}
    behind = _after(view, {gate})
    norm = next((n for n in needed if n.op_type in _NORMS and n.input[0] in behind), None)
    if len(shared) != 1 or norm is None:
        return None
    last = view.producers[logits]
    return _Names(
        speech=speech,
        count=count,
        memory=shared.pop(),
        shares=_shares(view, gate),
        embeddings=norm.input[0],
        said=said,
        scores=last.input[0] if last.op_type == "LogSoftmax" else logits,
    )


def _shares(view: GraphView, gate: str) -> str:
    """What a frame has of a token, before padding is taken off: behind the sigmoid come numbers of
    the training and a ReLU."""
    name = gate
    while True:
        readers = view.consumers.get(name, [])
        if len(readers) != 1 or readers[0].op_type not in ("Mul", "Sub", "Relu"):
            return name
        others = [n for n in readers[0].input if n != name]
        if not all(view.is_constant(other) for other in others):
            return name
        name = readers[0].output[0]


def _tail(view: GraphView, names: _Names, rows: int, size: int) -> float | None:
    """What is added behind the last frame, so that a token that has begun is said: asked of the
    graph, with frames that have no share of any."""
    needed = _before(view, {names.embeddings}, set())
    behind = _after(view, {names.shares})
    total = next((n for n in needed if n.op_type == "CumSum" and n.input[0] in behind), None)
    if total is None:
        return None
    feeds: dict[str, Array] = {
        names.shares: np.zeros((1, rows, 1), np.float32),
        names.memory: np.zeros((1, rows, size), np.float32),
        names.count: np.array([rows], _integer(view, names.count)),
    }
    nodes = _before(view, {total.input[0]}, set(feeds))
    (summed,) = run(submodel(view, nodes, feeds, [total.input[0]]), feeds)
    if summed.shape != (1, rows + 1) or summed[0, :-1].any():
        return None
    return float(summed[0, -1])


# ---- the two graphs -----------------------------------------------------------------


def _encoder(view: GraphView, names: _Names, shape: tuple[int, int, int]) -> onnx.ModelProto | None:
    """`speech` 1xTxF and `mask` 1xT -> `memory` 1xTxD, 0 where there is no frame, and `shares`
    1xTx1."""
    rows = shape[1]
    masked = _masked(view, [names.memory, names.shares], {names.count: ("mask", rows)}, set())
    if masked is None:
        return None
    # The predictor's convolution must read 0 beyond the last frame, as it does at the graph's end.
    raw = "memory_unmasked"
    for node in masked.graph.node:
        node.output[:] = [raw if name == names.memory else name for name in node.output]
    at = next(i for i, node in enumerate(masked.graph.node) if raw in node.output)
    column = numpy_helper.from_array(np.array([1, rows, 1], np.int64), "mask_column_shape")
    masked.graph.initializer.append(column)
    masked.graph.node.insert(
        at + 1, helper.make_node("Reshape", ["mask", column.name], ["mask_column"])
    )
    masked.graph.node.insert(at + 2, helper.make_node("Mul", [raw, "mask_column"], [names.memory]))
    fixed = {names.speech: ("speech", shape), "mask": ("mask", (1, rows))}
    outputs = {names.memory: "memory", names.shares: "shares"}
    return _fixed(masked, fixed, outputs)


def _decoder(
    view: GraphView, names: _Names, rows: int, tokens: int, size: int
) -> onnx.ModelProto | None:
    """`embeddings` 1xLxD, `token_mask` 1xL, `memory` 1xTxD and `mask` 1xT -> `scores` 1xLxC."""
    masks = {names.count: ("mask", rows), names.said: ("token_mask", tokens)}
    given = {names.embeddings, names.memory}
    masked = _masked(view, [names.scores], masks, given)
    if masked is None:
        return None
    fixed = {
        names.embeddings: ("embeddings", (1, tokens, size)),
        "token_mask": ("token_mask", (1, tokens)),
        names.memory: ("memory", (1, rows, size)),
        "mask": ("mask", (1, rows)),
    }
    return _fixed(masked, fixed, {names.scores: "scores"})


def _masked(
    view: GraphView,
    outputs: list[str],
    masks: Mapping[str, tuple[str, int]],
    given: set[str],
) -> onnx.ModelProto | None:
    """The nodes that make `outputs` of `given`, with a mask of floats, 1 for what is there, in
    place of each number of `masks`: counting and comparing are nothing for an NPU.

    None where a number does something else.
    """
    nodes = _before(view, set(outputs), given | set(masks))
    made: list[onnx.NodeProto] = []
    added: list[TensorProto] = []
    for source, (mask, size) in masks.items():
        counted = _counted(view, source)
        inner = {id(node) for node in nodes if set(node.output) & counted}
        nodes = [node for node in nodes if id(node) not in inner]
        edges = sorted({name for node in nodes for name in node.input if name in counted})
        if source in edges or not edges:
            return None
        less, one = f"{mask}_less", f"{mask}_one"
        added.append(numpy_helper.from_array(np.ones(1, np.float32), one))
        made.append(helper.make_node("Sub", [mask, one], [less]))
        for name, value in zip(edges, _asked(view, source, edges, size), strict=True):
            valid = np.arange(size) < size // 2
            if value.dtype != np.float32 or value.shape[0] != 2 or value.size != 2 * size:
                return None
            shown = value.reshape(2, size)[0]
            shape = numpy_helper.from_array(
                np.array([1, *value.shape[1:]], np.int64), f"{mask}_{len(added)}_shape"
            )
            added.append(shape)
            if np.array_equal(shown, valid):
                made.append(helper.make_node("Reshape", [mask, shape.name], [name]))
                continue
            far = -float(shown[-1])
            if far < _FAR or not np.array_equal(shown, np.where(valid, 0, -far)):
                return None
            scale = numpy_helper.from_array(np.array([far], np.float32), f"{shape.name}_far")
            added.append(scale)
            made.append(helper.make_node("Mul", [less, scale.name], [f"{shape.name}_bias"]))
            made.append(helper.make_node("Reshape", [f"{shape.name}_bias", shape.name], [name]))
    used = {name for node in nodes for name in node.input}
    graph = onnx.GraphProto(name="part")
    graph.node.extend((*made, *nodes))
    graph.initializer.extend(t for n, t in view.initializers.items() if n in used)
    graph.initializer.extend(added)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    cut = onnx.ModelProto(ir_version=view.model.ir_version, graph=graph)
    cut.opset_import.extend(view.model.opset_import)
    return cut


def _asked(view: GraphView, source: str, edges: list[str], size: int) -> list[Array]:
    """What depends on a number alone, for two sounds: half as long as the other, and whole."""
    feeds: dict[str, Array] = {source: np.array([size // 2, size], _integer(view, source))}
    return run(submodel(view, _before(view, set(edges), {source}), feeds, edges), feeds)


def _fixed(
    masked: onnx.ModelProto,
    inputs: Mapping[str, tuple[str, tuple[int, ...]]],
    outputs: Mapping[str, str],
) -> onnx.ModelProto | None:
    """The graph with inputs of these shapes, by these names; None where its shapes stay open."""
    arrays = [ArrayInput(name=old, shape=shape) for old, (_, shape) in inputs.items()]
    view = folded(part(masked, arrays, list(outputs)), list(outputs)[-1])
    if any(view.shape(name) is None for name in outputs):
        return None
    renamed = {old: new for old, (new, _) in inputs.items()} | dict(outputs)
    graph = view.model.graph
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    del graph.input[:], graph.output[:], graph.value_info[:]
    for _, (new, shape) in inputs.items():
        graph.input.append(helper.make_tensor_value_info(new, TensorProto.FLOAT, shape))
    for old, new in outputs.items():
        info = helper.make_tensor_value_info(new, TensorProto.FLOAT, view.shape(old))
        graph.output.append(info)
    return view.model


def _difference(
    view: GraphView,
    names: _Names,
    encoder: onnx.ModelProto,
    decoder: onnx.ModelProto,
    count: int,
) -> float:
    """The largest difference of probabilities, and of frames by their largest number, between the
    file's graph and the two, on noise of `count` rows, which the file's graph is given unpadded."""
    random = np.random.default_rng(count)
    (_, rows, width), (_, tokens, size) = (
        tuple(side or 0 for side in declared(model.graph.input[0]) or ())
        for model in (encoder, decoder)
    )

    def drawn(*shape: int) -> Array:
        return random.normal(size=shape).astype(np.float32)

    number = np.array([count], _integer(view, names.count))
    feeds: dict[str, Array] = {names.speech: drawn(1, count, width), names.count: number}
    ends = [names.memory, names.shares]
    memory, shares = run_whole(submodel(view, _before(view, set(ends), feeds), feeds, ends), feeds)
    mask = (np.arange(rows) < count).astype(np.float32)[None]
    found = run_whole(encoder, {"speech": _padded(feeds[names.speech], rows), "mask": mask})
    apart = max(
        float(np.abs(found[0][:, :count] - memory).max() / np.abs(memory).max()),
        float(np.abs(found[1][:, :count] - shares).max()),
    )
    said = max(count // (2 * _ROWS_A_TOKEN), 1)
    given: dict[str, Array] = {
        names.embeddings: drawn(1, said, size),
        names.memory: memory,
        names.count: number,
        names.said: np.array([said], _integer(view, names.said)),
    }
    nodes = _before(view, {names.scores}, given)
    (wanted,) = run_whole(submodel(view, nodes, given, [names.scores]), given)
    (scores,) = run_whole(
        decoder,
        {
            "embeddings": _padded(given[names.embeddings], tokens),
            "token_mask": (np.arange(tokens) < said).astype(np.float32)[None],
            "memory": _padded(memory, rows),
            "mask": mask,
        },
    )
    return max(apart, float(np.abs(softmax(scores[:, :said]) - softmax(wanted)).max()))


def file_scores(model: onnx.ModelProto, rows: Array) -> Array:
    """What the file's own graph answers.

    Args:
        model: The graph in the file; shapes of its inputs that were chosen do not matter.
        rows: Features, float32 (T, F), without padding.

    Returns:
        Scores of the tokens, (N, C), as logarithms of probabilities where the file gives these.

    Raises:
        RkzooError: It cannot be run, as where nothing is said.
    """
    free = onnx.ModelProto()
    free.CopyFrom(model)
    feeds: dict[str, Array] = {}
    for info in free.graph.input:
        kind = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        feeds[info.name] = rows[None] if kind == np.float32 else np.array([len(rows)], kind)
        for side in info.type.tensor_type.shape.dim:
            side.Clear()
    (scores,) = (value for value in run_whole(free, feeds) if value.ndim == 3)
    return np.asarray(scores[0])


def _padded(rows: Array, count: int) -> Array:
    return np.pad(rows, ((0, 0), (0, count - rows.shape[1]), (0, 0)))


# ---- walking the graph --------------------------------------------------------------


def _before(view: GraphView, targets: set[str], given: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that make these tensors of the given ones, in order."""
    stops, needed, nodes = set(given), set(targets), []
    for node in reversed(view.model.graph.node):
        if (needed - stops) & set(node.output):
            nodes.append(node)
            needed |= set(node.input) | captured_by(node)
    return nodes[::-1]


def _after(view: GraphView, sources: set[str]) -> set[str]:
    """These tensors, and all that are made of them."""
    reached = set(sources)
    for node in view.model.graph.node:
        if reached & (set(node.input) | captured_by(node)):
            reached |= set(node.output)
    return reached


def _counted(view: GraphView, source: str) -> set[str]:
    """A number, and what is made of it and constants alone."""
    counted = {source}
    for node in view.model.graph.node:
        if counted & set(node.input) and all(
            name in counted or view.is_constant(name) or not name for name in node.input
        ):
            counted |= set(node.output)
    return counted


def _integer(view: GraphView, name: str) -> np.dtype[np.generic]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(view.dtypes[name]))


def _output_shape(model: onnx.ModelProto, name: str) -> tuple[int, ...]:
    info = next(o for o in model.graph.output if o.name == name)
    return tuple(side or 0 for side in declared(info) or ())


def _inputs(model: onnx.ModelProto) -> tuple[ArrayInput, ...]:
    return tuple(
        ArrayInput(name=info.name, shape=tuple(side or 0 for side in declared(info) or ()))
        for info in model.graph.input
    )
