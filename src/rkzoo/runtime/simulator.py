"""RKNN-Toolkit2's simulator: the NPU's integer arithmetic, emulated on this PC. It is no exact
model of a chip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rkzoo.contract.inputs import TensorSpec
from rkzoo.session import Array, Closing, Label
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan


class SimulatorSession(Closing):
    """A model that `process` has built for simulation; this session owns the process and
    ends it.

    `outputs` come from the built file. The toolkit hands out floats that lie on the
    INT8 lattice; they are turned back into the integers that a board would return, so
    that a decoder meets the same tensors here and there.
    """

    label: Label = "simulator"

    def __init__(
        self,
        process: ToolkitProcess,
        inputs: Sequence[InputPlan],
        outputs: Sequence[TensorSpec],
    ) -> None:
        self._process = process
        self.inputs: tuple[TensorSpec, ...] = tuple(map(as_fed, inputs))
        self.outputs = tuple(_as_returned(spec) for spec in outputs)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """One array an input: uint8 (1, H, W, C) in the contract's colour order for a picture,
        the rest in their own shapes."""
        outputs = self._process.infer(arrays)
        return [quantised(array, spec) for array, spec in zip(outputs, self.outputs, strict=True)]

    def close(self) -> None:
        self._process.close()


def as_fed(plan: InputPlan) -> TensorSpec:
    """What a session takes for an input: a picture as uint8 NHWC, the rest as it is."""
    if not plan.mean:
        return TensorSpec(name=plan.name, shape=plan.shape, dtype=plan.dtype)
    batch, channels, height, width = plan.shape
    shape = (batch, height, width, channels)
    return TensorSpec(name=plan.name, shape=shape, dtype="uint8", layout="NHWC")


def _as_returned(spec: TensorSpec) -> TensorSpec:
    """What `run` gives for an output of the built file: integers or float32, NCHW."""
    integer = spec.scale is not None and spec.dtype in ("int8", "uint8")
    return TensorSpec(
        name=spec.name,
        shape=spec.shape,
        dtype=spec.dtype if integer else "float32",
        layout="NCHW" if len(spec.shape) == 4 else "plain",
        scale=spec.scale if integer else None,
        zero_point=spec.zero_point if integer else 0,
    )


def quantised(array: Array, spec: TensorSpec) -> Array:
    """Floats on the lattice of `spec` to the integers they stand for."""
    if spec.scale is None:
        return array
    limits = np.iinfo(spec.dtype)
    codes = np.rint(array / np.float32(spec.scale)) + spec.zero_point
    return np.asarray(np.clip(codes, limits.min, limits.max), spec.dtype)
