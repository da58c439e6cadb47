"""Kokoro (StyleTTS 2 with an ISTFT vocoder, https://arxiv.org/abs/2306.07691) from a file in parts.

The graph: tokens (1, P), style (1, 256), speed (1,) -> audio (N,). Its durations, whole frames for
each token, become a second output, so that what is said for padding can be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.graph.onnx.writer import save
from rkzoo.progress import ProgressReporter


def make_kokoro(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Write the ONNX of the card's files `model`, `part2`, ..., one after another, with the output
    `durations` (P,) float32. Raises RkzooError when they are no Kokoro."""
    data = b""
    for role in ("model", *sorted(role for role in files if role.startswith("part"))):
        with os_errors_explained(f"{files[role]} cannot be read."):
            data += files[role].read_bytes()
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf has errors of its own
        raise _damaged(f"They are no ONNX file: {error}.") from error
    for opset in model.opset_import:
        if opset.domain == "" and opset.version == 20:
            # All that 20 changed in these operators are types for ConstantOfShape.
            opset.version = 19
    # Rounded and at least 1: the only whole numbers that are clipped.
    rounded = {name for node in model.graph.node if node.op_type == "Round" for name in node.output}
    clipped = [n for n in model.graph.node if n.op_type == "Clip" and n.input[0] in rounded]
    if len(clipped) != 1:
        raise _damaged("No tensor in it holds durations.")
    shape = helper.make_node("Reshape", [clipped[0].output[0], "every_duration"], ["durations"])
    model.graph.node.append(shape)
    model.graph.initializer.append(
        helper.make_tensor("every_duration", TensorProto.INT64, [1], [-1])
    )
    count = helper.make_tensor_value_info("durations", TensorProto.FLOAT, ["tokens"])
    model.graph.output.append(count)
    save(model, target)


def _damaged(why: str) -> RkzooError:
    return RkzooError("The parts are no Kokoro.", why, "Fetch them again with rkzoo fetch.")
