"""Outputs of a graph that the toolkit would drop."""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import helper

from rkzoo.graph.lowering.rewrites.rule import replace_nodes
from rkzoo.graph.onnx.view import GraphView

# What only relabels its input.
VIEWS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")


def twins(view: GraphView) -> Counter[str]:
    """Where an output is another one, or a view of it, the toolkit fails (KeyError) or drops one
    without a word: the second begins with the larger of two equal numbers, which it keeps."""
    graph = view.model.graph
    outputs = {info.name for info in graph.output}
    nodes = list(graph.node)
    producers = {name: node for node in nodes for name in node.output}
    entries: dict[int, onnx.NodeProto] = {}
    done: Counter[str] = Counter()
    for node in nodes:
        first: onnx.NodeProto | None = node
        while first is not None and first.op_type in VIEWS and first.input[0] not in outputs:
            first = producers.get(first.input[0])
        ends = bool(outputs & set(node.output)) and node.op_type in VIEWS
        if ends and first is not None and first.op_type in VIEWS and first.input[0] in producers:
            source = first.input[0]
            again = f"{source}_for_{first.output[0]}"
            if again not in producers:
                producers[again] = helper.make_node("Max", [source, source], [again])
                entries[id(first)] = producers[again]
                first.input[0] = again
                done[node.op_type] += 1
    if done:
        pairs = [(entries.get(id(node)), node) for node in nodes]
        replace_nodes(graph, [one for pair in pairs for one in pair if one is not None])
    return done
