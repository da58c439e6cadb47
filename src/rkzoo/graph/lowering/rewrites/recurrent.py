"""LSTM, GRU and RNN, written out in full and read where the toolkit looks."""

from __future__ import annotations

import numpy as np
import onnx

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import attributes


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
