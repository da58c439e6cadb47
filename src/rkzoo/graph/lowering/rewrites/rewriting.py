"""Applying the table to a model, and proving what came out of it equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from rkzoo.errors import RkzooError, TooLittleMemory
from rkzoo.graph.lowering.rewrites.rule import Rewrite, replace_nodes
from rkzoo.graph.lowering.rewrites.table import REWRITES
from rkzoo.graph.onnx.opset import with_lower_opset
from rkzoo.graph.onnx.view import Array, GraphView, captured_by, declared, graph_view, run_whole
from rkzoo.ort import looking

TOLERANCE = 1e-4
"""The largest difference that a rewrite may make, relative to the largest number of its tensor."""


@dataclass(frozen=True)
class AppliedRewrite:
    """A rewrite that was used.

    Attributes:
        name: The rewrite.
        operator: The ONNX operator that it took away.
        count: How many of them.
        form: What they became.
        why: What the toolkit does with the operator.
        error: The largest difference in ONNX Runtime, relative to the largest number of the tensor.
    """

    name: str
    operator: str
    count: int
    form: str
    why: str
    error: float = 0.0

    def sentence(self) -> str:
        """What is told of it."""
        are = "is" if self.count == 1 else "are"
        equal = f"equal to {self.error:.0e}" if self.error else "equal in every digit"
        return (
            f"{self.count} {self.operator} {are} rewritten as {self.form}: {self.why}; {equal} in "
            "ONNX Runtime."
        )


@dataclass(frozen=True)
class Rewritten:
    """A model as the toolkit takes it.

    Attributes:
        model: The model; the given one where nothing was done.
        applied: What was rewritten in it.
        left_out: Why rewrites that would apply were not used, in sentences.
    """

    model: onnx.ModelProto
    applied: tuple[AppliedRewrite, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass
class _Attempt:
    """A rewritten copy, and which row wrote the node behind a tensor last."""

    model: onnx.ModelProto
    applied: list[tuple[Rewrite, str, int]] = field(default_factory=list)
    rows: dict[str, Rewrite] = field(default_factory=dict)


def rewrite(
    model: onnx.ModelProto,
    socs: Sequence[str] | None = None,
    feeds: Sequence[Mapping[str, Array]] = (),
    *,
    rows: Sequence[Rewrite] = REWRITES,
    proved: bool = True,
) -> Rewritten:
    """Rewrites a model for the toolkit: operators by the table, the opset to one that it reads.

    Each rewrite is proved: ONNX Runtime computes its outputs in the model as it was, and again with
    the new nodes from the same inputs. What differs is not used.

    Args:
        model: A model with fixed shapes, in float32; it is left as it was.
        socs: The chips that it is built for: what helps on each of them is done; None for
            everything that helps on any chip.
        feeds: Inputs to prove it with; without them random ones are drawn.
        rows: The table.
        proved: Whether it is proved: not where only its cost is asked for.

    Raises:
        RkzooError: The opset cannot be lowered, or this machine has too little memory.
    """
    wanted = [row for row in rows if row.helps(socs)]
    left_out: list[str] = []
    while True:
        try:
            with looking():
                attempt = _rewritten(model, wanted)
            if attempt is None:
                return Rewritten(with_lower_opset(model), (), tuple(left_out))
            errors: dict[str, float] = {}
            if proved:
                errors = prove(model, attempt.model, feeds or (drawn(model),))
        except TooLittleMemory:
            raise
        except RkzooError as error:
            why = f"{error.what} {error.why}".strip()
            left_out += [f"Nothing was rewritten, since it could not be proved equal: {why}"]
            return Rewritten(with_lower_opset(model), (), tuple(left_out))
        worst = {id(row): 0.0 for row, _, _ in attempt.applied}
        for name, apart in errors.items():
            at = id(attempt.rows[name])
            worst[at] = max(worst[at], apart)
        # A tensor that differs has it from the row that wrote it last, or from one before it.
        bad = [
            row for row, _, _ in attempt.applied if not worst[id(row)] <= max(TOLERANCE, row.slack)
        ]
        if not bad:
            applied = tuple(
                AppliedRewrite(row.name, operator, count, row.form, row.why, worst[id(row)])
                for row, operator, count in attempt.applied
            )
            return Rewritten(with_lower_opset(attempt.model), applied, tuple(left_out))
        left_out += [
            f"The rewrite {row.name} of {' and '.join(row.operators)} was left out: its outputs "
            f"differ by {worst[id(row)]:.1g} of their range."
            for row in dict.fromkeys(bad)
        ]
        wanted = [row for row in wanted if row not in bad]


def _rewritten(model: onnx.ModelProto, rows: Iterable[Rewrite]) -> _Attempt | None:
    """The model by these rows; None where none applies."""
    attempt: _Attempt | None = None
    view: GraphView | None = None
    before: set[bytes] = set()
    present = {node.op_type for node in model.graph.node}
    for row in rows:
        if present.isdisjoint(row.operators):
            continue
        if attempt is None:
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            attempt = _Attempt(copy)
        if view is None:
            view, before = graph_view(attempt.model), _spelled(attempt.model)
        done = row.apply(view)
        if not done:
            continue
        view = None
        _drop_unread(attempt.model.graph)
        present = {node.op_type for node in attempt.model.graph.node}
        attempt.applied += [(row, operator, count) for operator, count in sorted(done.items())]
        for node in attempt.model.graph.node:
            if node.SerializeToString() not in before:
                attempt.rows.update(dict.fromkeys(node.output, row))
    if attempt is None or not attempt.applied:
        return None
    _drop_unused(attempt.model.graph)
    return attempt


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Drops nodes that nothing reads any more."""
    read = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read |= {*node.input, *captured_by(node)}
    if len(kept) < len(graph.node):
        replace_nodes(graph, kept[::-1])


def _spelled(model: onnx.ModelProto) -> set[bytes]:
    return {node.SerializeToString() for node in model.graph.node}


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drops stored tensors that no node reads any more."""
    read = {name for node in graph.node for name in (*node.input, *captured_by(node))}
    read |= {info.name for info in (*graph.output, *graph.input)}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(kept) < len(graph.initializer):
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)


# ---- proof --------------------------------------------------------------------------


def prove(
    model: onnx.ModelProto, rewritten: onnx.ModelProto, feeds: Sequence[Mapping[str, Array]]
) -> dict[str, float]:
    """Runs the new nodes of a rewritten model from what they read in the model as it was.

    Only they are run again: what lies between two rewrites cannot enlarge a difference, or hide it.

    Args:
        model: The model as it was.
        rewritten: The model with other nodes.
        feeds: Its inputs, several times.

    Returns:
        For each tensor that new nodes make and the model had: the largest difference, relative to
        its largest number. Infinite where shape, type or what is not a number differ.

    Raises:
        RkzooError: ONNX Runtime refuses one of both, or there is too little memory.
    """
    known = _spelled(model)
    fresh = [node for node in rewritten.graph.node if node.SerializeToString() not in known]
    made = {name for node in fresh for name in node.output if name}
    stored = {tensor.name for tensor in rewritten.graph.initializer}
    given = {info.name for info in model.graph.input}
    had = {name for node in model.graph.node for name in node.output if name}
    read = dict.fromkeys(name for node in fresh for name in (*node.input, *captured_by(node)))
    fed = [name for name in read if name and name not in made | stored]
    checked = [
        name for name in dict.fromkeys(n for node in fresh for n in node.output) if name in had
    ]
    tapped = _with_outputs(model, [name for name in dict.fromkeys([*fed, *checked]) if name in had])
    part = onnx.ModelProto(ir_version=rewritten.ir_version)
    part.opset_import.extend(rewritten.opset_import)
    part.functions.extend(rewritten.functions)
    part.graph.name = "rewritten"
    part.graph.node.extend(fresh)
    part.graph.initializer.extend(t for t in rewritten.graph.initializer if t.name in read)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in checked)
    errors = dict.fromkeys(checked, 0.0)
    for feed in feeds:
        names = [info.name for info in tapped.graph.output]
        values = dict(zip(names, run_whole(tapped, feed), strict=True))
        values |= {name: value for name, value in feed.items() if name in given}
        del part.graph.input[:]
        part.graph.input.extend(_described(name, values[name]) for name in fed)
        answers = run_whole(part, {name: values[name] for name in fed})
        for name, answer in zip(checked, answers, strict=True):
            errors[name] = max(errors[name], _difference(answer, values[name]))
    return errors


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy that returns these tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    declared_outputs = {info.name: info for info in model.graph.output}
    del copy.graph.output[:]
    copy.graph.output.extend(
        declared_outputs.get(name) or onnx.ValueInfoProto(name=name) for name in names
    )
    return copy


def _described(name: str, value: Array) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)


def _difference(found: Array, expected: Array) -> float:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if not np.issubdtype(found.dtype, np.floating):
        return 0.0 if np.array_equal(found, expected) else float("inf")
    whole = np.isfinite(expected)
    if not np.array_equal(found[~whole], expected[~whole], equal_nan=True):
        return float("inf")
    ours, theirs = found[whole].astype(np.float64), expected[whole].astype(np.float64)
    largest = np.abs(theirs).max(initial=0.0)
    apart = float(np.abs(ours - theirs).max(initial=0.0))
    return apart / largest if largest and apart else apart


def drawn(model: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    """Random inputs of a model: floats around zero, bytes, and whole numbers that are 0 or 1, which
    every table of embeddings has. A free dimension is one."""
    random = np.random.default_rng(seed)
    stored = {tensor.name for tensor in model.graph.initializer}
    made: dict[str, Array] = {}
    for info in model.graph.input:
        if info.name in stored:
            continue
        shape = tuple(size or 1 for size in declared(info) or ())
        kind = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        if np.issubdtype(kind, np.floating):
            value = random.standard_normal(shape).astype(kind)
        else:
            value = random.integers(0, 256 if kind == np.uint8 else 2, shape).astype(kind)
        made[info.name] = value
    return made
