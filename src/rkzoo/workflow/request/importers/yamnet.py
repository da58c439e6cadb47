"""YAMNet's ONNX, of which the spectrogram and the network can be told apart by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.errors import RkzooError
from rkzoo.progress import ProgressReporter
from rkzoo.workflow.request.importers.tensorflow import tensorflow

if TYPE_CHECKING:
    import onnx

_CLASSES = 521


def yamnet(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Makes the .onnx of a .tflite: input `waveform`, tensor `patches` that goes into the first
    convolution, output `scores`. Raises RkzooError where it is no such network."""
    from rkzoo.graph.onnx.read import load
    from rkzoo.graph.onnx.writer import save

    tensorflow(files, target, report)
    save(named(load(target)), target)


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with the three names; other outputs are left out."""
    graph = model.graph
    first = next((node for node in graph.node if node.op_type == "Conv"), None)
    scores = [
        info.name
        for info in graph.output
        if [d.dim_value for d in info.type.tensor_type.shape.dim][-1:] == [_CLASSES]
    ]
    if len(graph.input) != 1 or first is None or len(scores) != 1:
        raise RkzooError(
            "This is not YAMNet.",
            f"It should have one input and one output of {_CLASSES} scores.",
            "Check the file that the card names.",
        )
    names = {graph.input[0].name: "waveform", first.input[0]: "patches", scores[0]: "scores"}
    for node in graph.node:
        for tensors in (node.input, node.output):
            for index, name in enumerate(tensors):
                tensors[index] = names.get(name, name)
    kept = [info for info in graph.output if info.name == scores[0]]
    kept[0].name = "scores"
    graph.input[0].name = "waveform"
    described = [info for info in graph.value_info if info.name not in names]
    copies = [type(info).FromString(info.SerializeToString()) for info in (*kept, *described)]
    del graph.output[:], graph.value_info[:]
    graph.output.extend(copies[:1])
    graph.value_info.extend(copies[1:])
    return model
