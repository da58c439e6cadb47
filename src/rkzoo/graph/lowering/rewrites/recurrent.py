"""LSTM, GRU and RNN, written out in full and read where the toolkit looks."""

from __future__ import annotations

import numpy as np
import onnx

from rkzoo.graph.lowering.rewrites.reductions import sliced
from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import Array, attributes

_MOST_STEPS = 64
"""Steps, both ways together, that are written out one by one."""


def complete(node: onnx.NodeProto, new: Writer) -> bool:
    """A recurrent layer gets the bias of zeros that it leaves out (else INT8 ends in a SIGSEGV),
    and names for the outputs that are left out before others (else the toolkit loses these)."""
    weight = new.value(node.input[1])
    bare = weight is not None and (len(node.input) < 4 or not node.input[3])
    if not bare and all(node.output):
        return False
    copy = new.copy(node)
    if bare and weight is not None:
        directions, rows = weight.shape[:2]
        inputs = [*node.input, ""][: max(4, len(node.input))]
        inputs[3] = new.constant(np.zeros((directions, 2 * rows)))
        del copy.input[:]
        copy.input.extend(inputs)
    stem = next(name for name in node.output if name)
    for place, name in enumerate(node.output):
        copy.output[place] = name or f"{stem}_beside_{place}"
    return True


def last_step(node: onnx.NodeProto, new: Writer) -> bool:
    """A GRU of which only the last state is read: that is taken from its steps, where the toolkit
    looks for it (else KeyError)."""
    if len(node.output) < 2 or new.is_read(node.output[0]) or (node.input[4:5] or [""])[0]:
        return False
    steps, state = node.output
    del new.copy(node).output[1:]
    direction = attributes(node).get("direction", b"forward").decode()
    if direction != "bidirectional":
        place = -1 if direction == "forward" else 0
        new.add("Gather", steps, new.index(place), axis=0, to=state)
        return True
    ends = [
        new.add("Gather", new.add("Gather", steps, new.index(step), axis=0), each, axis=0)
        for step, each in ((-1, new.whole([0])), (0, new.whole([1])))
    ]
    new.add("Concat", *ends, axis=0, to=state)
    return True


def cell_beside_state(node: onnx.NodeProto, new: Writer) -> bool:
    """An LSTM's last cell that is read without its last state is taken from both, since the toolkit
    loses it behind an output that nothing reads."""
    names = [*node.output, "", "", ""][:3]
    if not new.is_read(names[2]) or (names[1] and new.is_read(names[1])):
        return False
    shape = new.shape(names[2])
    if not names[2] or shape is None:
        return False
    copy = new.copy(node)
    state = copy.output[1] = names[1] or f"{names[2]}_beside_1"
    cell = copy.output[2] = f"{names[2]}_beside_2"
    both = new.add("Concat", state, cell, axis=0)
    new.call(sliced(new, both, 0, shape[0], 2 * shape[0]), names[2])
    return True


def steps(node: onnx.NodeProto, new: Writer) -> bool:
    """An LSTM with peepholes, or whose gates of input and forgetting are one, step by step."""
    given, shape = attributes(node), new.shape(node.input[0])
    names = [*node.input, *[""] * 8][:8]
    peephole, coupled = new.value(names[7]), given.get("input_forget", 0)
    w, r = new.value(names[1]), new.value(names[2])
    bias = new.value(names[3])
    if shape is None or w is None or r is None or not (names[7] or coupled):
        return False
    plain = not {"clip", "activations", "layout"} & given.keys() and not names[4]
    if not plain or (names[3] and bias is None) or (names[7] and peephole is None):
        return False
    directions, size = r.shape[0], r.shape[2]
    if directions * shape[0] > _MOST_STEPS:
        return False
    done = [
        _one_way(
            new,
            names,
            shape,
            (w[way], r[way], np.zeros(8 * size) if bias is None else bias[way]),
            None if peephole is None else peephole[way],
            coupled=bool(coupled),
            way=way,
            backward=bool(way) or given.get("direction") == b"reverse",
        )
        for way in range(directions)
    ]
    outputs = [*node.output, "", "", ""][:3]
    if outputs[0]:
        each = [
            new.add("Concat", *[states[t] for states, _ in done], axis=1)
            if directions > 1
            else done[0][0][t]
            for t in range(shape[0])
        ]
        new.call(new.add("Concat", *each, axis=0), outputs[0])
    last = [
        states[0 if way or given.get("direction") == b"reverse" else -1]
        for way, (states, _) in enumerate(done)
    ]
    ends = (
        (
            outputs[1],
            [new.reshape(state, [1, shape[1], size]) for state in last] if outputs[1] else [],
        ),
        (
            outputs[2],
            [new.reshape(cell, [1, shape[1], size]) for _, cell in done] if outputs[2] else [],
        ),
    )
    for name, parts in ends:
        if name:
            new.add("Concat", *parts, axis=0, to=name)
    return True


def _one_way(
    new: Writer,
    names: list[str],
    shape: tuple[int, ...],
    weights: tuple[Array, Array, Array],
    peephole: Array | None,
    *,
    coupled: bool,
    way: int,
    backward: bool,
) -> tuple[list[str], str]:
    """The states of an LSTM in one direction, 1 x 1 x N x H each, in the order of its input, and
    its last cell, N x H."""
    w, r, bias = weights
    length, batch, size = shape[0], shape[1], r.shape[1]
    from_input = new.add("MatMul", names[0], new.constant(w.T))
    from_input = new.add("Add", from_input, new.constant(bias[: 4 * size] + bias[4 * size :]))
    recurrence = new.constant(r.T)
    parts = None if peephole is None else [new.constant(p) for p in np.split(peephole, 3)]
    state, cell = (_initial(new, name, way, batch, size) for name in names[5:7])
    states = [""] * length
    for step in range(length)[:: -1 if backward else 1]:
        row = new.reshape(sliced(new, from_input, 0, step, step + 1), [batch, 4 * size])
        gates = new.add("Add", row, new.add("MatMul", state, recurrence))
        gate_in, gate_out, gate_forget, fresh = (
            sliced(new, gates, 1, place * size, (place + 1) * size) for place in range(4)
        )
        if parts is not None:
            gate_in = new.add("Add", gate_in, new.add("Mul", cell, parts[0]))
            gate_forget = new.add("Add", gate_forget, new.add("Mul", cell, parts[2]))
        gate_in = new.add("Sigmoid", gate_in)
        if coupled:
            gate_forget = new.add("Sub", new.constant(np.ones(1)), gate_in)
        else:
            gate_forget = new.add("Sigmoid", gate_forget)
        kept = new.add("Mul", gate_forget, cell)
        cell = new.add("Add", kept, new.add("Mul", gate_in, new.add("Tanh", fresh)))
        if parts is not None:
            gate_out = new.add("Add", gate_out, new.add("Mul", cell, parts[1]))
        state = new.add("Mul", new.add("Sigmoid", gate_out), new.add("Tanh", cell))
        states[step] = new.add("Reshape", state, new.whole([1, 1, batch, size]))
    return states, cell


def _initial(new: Writer, name: str, way: int, batch: int, size: int) -> str:
    """N x H of what a recurrent layer begins with in one direction."""
    if not name:
        return new.constant(np.zeros((batch, size)))
    return new.add("Reshape", sliced(new, name, 0, way, way + 1), new.whole([batch, size]))
