"""Simulator session: RKNN-Toolkit2 emulates the NPU's integer arithmetic on this PC. It is not an
exact model of a chip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rkzoo.contract.inputs import TensorSpec
from rkzoo.session import Array, Closeable, Label
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan


class SimulatorSession(Closeable):
    """Runs a model that `process` has built for simulation; owns and closes the process.

    The toolkit returns dequantized floats; they are converted back into the integers that a board
    returns, so that decoders get the same tensors from both.

    Args:
        process: The toolkit process.
        inputs: Inputs of the built graph.
        outputs: Outputs of the built file, of one sample.
        batch: How many samples it takes at once.
    """

    label: Label = "simulator"

    def __init__(
        self,
        process: ToolkitProcess,
        inputs: Sequence[InputPlan],
        outputs: Sequence[TensorSpec],
        batch: int = 1,
    ) -> None:
        self._process = process
        self.inputs: tuple[TensorSpec, ...] = tuple(fed_spec(plan, batch) for plan in inputs)
        self.outputs = tuple(_as_returned(spec, batch) for spec in outputs)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the model.

        Args:
            arrays: One per input: uint8 (1, H, W, C) in the contract's color order for an image,
                other inputs in their own shapes.

        Returns:
            Integers, or float32 for outputs without a scale; NCHW.
        """
        outputs = self._process.infer(arrays)
        return [quantised(array, spec) for array, spec in zip(outputs, self.outputs, strict=True)]

    def close(self) -> None:
        """End the toolkit process."""
        self._process.close()


def fed_spec(plan: InputPlan, batch: int = 1) -> TensorSpec:
    """The input of a session: an image as uint8 NHWC, anything else as it is."""
    if not plan.mean:
        first, *rest = plan.shape or (1,)
        shape = (first * batch, *rest) if batch > 1 else plan.shape
        return TensorSpec(name=plan.name, shape=shape, dtype=plan.dtype)
    first, channels, height, width = plan.shape
    shape = (first * batch, height, width, channels)
    return TensorSpec(name=plan.name, shape=shape, dtype="uint8", layout="NHWC")


def _as_returned(spec: TensorSpec, batch: int) -> TensorSpec:
    """The output of `run` for an output of the built file: integers or float32, NCHW."""
    integer = spec.scale is not None and spec.dtype in ("int8", "uint8")
    whole = spec.dtype in ("int32", "int64")
    first, *rest = spec.shape or (1,)
    return TensorSpec(
        name=spec.name,
        shape=(first * batch, *rest) if batch > 1 else spec.shape,
        dtype=spec.dtype if integer or whole else "float32",
        layout="NCHW" if len(spec.shape) == 4 else "plain",
        scale=spec.scale if integer else None,
        zero_point=spec.zero_point if integer else 0,
    )


def quantised(array: Array, spec: TensorSpec) -> Array:
    """Convert dequantized floats back to the integers of `spec`, clipped to its range."""
    if spec.scale is None:
        return np.asarray(array, spec.dtype)
    limits = np.iinfo(spec.dtype)
    codes = np.rint(array / np.float32(spec.scale)) + spec.zero_point
    return np.asarray(np.clip(codes, limits.min, limits.max), spec.dtype)
