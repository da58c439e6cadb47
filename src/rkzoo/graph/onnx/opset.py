"""ONNX opset limit of the toolkit, and conversion to it."""

from __future__ import annotations

import onnx

from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.summary import opset
from rkzoo.graph.onnx.view import MAX_IR, first_line

MAX_OPSET = 19


def with_lower_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a model with fixed shapes, in place where it can be, to operators and an opset that
    the toolkit reads (at most `MAX_OPSET`).

    Raises:
        RkzooError: The opset cannot be lowered.
    """
    version = opset(model)
    if version <= MAX_OPSET:
        return model
    try:
        lowered = onnx.version_converter.convert_version(model, MAX_OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own
        raise RkzooError(
            f"The model is written for ONNX opset {version}, which is too new.",
            f"The toolkit reads up to {MAX_OPSET}, and it cannot be lowered: {first_line(error)}",
            "Export it again with opset=17.",
        ) from error
    lowered.ir_version = min(lowered.ir_version, MAX_IR)
    return lowered
