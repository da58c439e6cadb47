"""What every way of running a model has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError

Array = NDArray[Any]
Label = Literal["onnx", "simulator", "board"]


Self = TypeVar("Self", bound="Closing")
F = TypeVar("F")


class Closing:
    """A context manager that ends with the `close` of its class."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Session(Protocol):
    """A loaded model that can run.

    `inputs` are what `run` takes: pictures as uint8 NHWC in the contract's colour order,
    everything else as the model declares it. `outputs` describe what `run` returns: raw
    tensors, integer ones with their scale and zero point, never dequantised wholesale.
    `label` says where the numbers come from and goes into every report.
    """

    label: Label
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, arrays: Sequence[Array]) -> list[Array]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def canvas_of(session: Session, size: tuple[int, int], channels: int = 3) -> NDArray[np.uint8]:
    """Where a picture of `size` (height, width) is written, uint8 (1, height, width, channels):
    the session's own memory where it has some (the NPU's, `canvas`), so that nothing is copied."""
    shape = (1, *size, channels)
    own: NDArray[np.uint8] | None = getattr(session, "canvas", None)
    if own is not None and own.shape == shape:
        return own
    return np.empty(shape, np.uint8)


def run_named(session: Session, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a model that takes no picture: inputs and outputs by their names, outputs as
    float32 or the integers that they are, which outlast the next run. Raises RkzooError for
    inputs that it has not, or that are missing."""
    names = [spec.name for spec in session.inputs]
    if set(names) != set(arrays):
        raise RkzooError(
            f"The model takes {', '.join(names)} and was given {', '.join(arrays)}.", code=1
        )
    fed = [np.ascontiguousarray(arrays[spec.name], spec.dtype) for spec in session.inputs]
    outputs = session.run(fed)
    return {
        spec.name: np.array(dequantise(array, spec))
        if array.dtype.kind == "f" or spec.scale
        else np.array(array)
        for spec, array in zip(session.outputs, outputs, strict=True)
    }


def fitter_of(session: Session, usual: F) -> F:
    """What brings pictures to the canvas: the session's own way where it has one (`fit`, of
    hardware that the board has), else the usual."""
    own: F | None = getattr(session, "fit", None)
    return own or usual


def dequantise(array: Array, spec: TensorSpec) -> NDArray[np.float32]:
    """value = (q - zero_point) * scale as float32; float tensors pass through."""
    if spec.scale is None:
        return np.asarray(array, dtype=np.float32)
    values = array.astype(np.float32)
    values -= np.float32(spec.zero_point)
    values *= np.float32(spec.scale)
    return values
