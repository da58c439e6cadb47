"""Inference session interface shared by all backends, and dequantization."""

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


Self = TypeVar("Self", bound="Closeable")
F = TypeVar("F")


class Closeable:
    """Context manager mixin that calls `close` on exit."""

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
    """A loaded model, ready for inference.

    Attributes:
        label: backend that produces the numbers; named in every report.
        inputs: what `run` takes: images as uint8 NHWC in the contract's colour order, all other
            inputs as the model declares them.
        outputs: what `run` returns: raw tensors; integer tensors come with scale and zero point and
            are not dequantized.
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


def check_inputs(name: str, arrays: Sequence[Array], specs: Sequence[TensorSpec]) -> None:
    """Raises RkzooError where the arrays do not fit the inputs of the model `name`: another
    number, another shape, or a picture of another type."""
    if len(arrays) != len(specs):
        raise RkzooError(
            f"{name} has {len(specs)} inputs, not {len(arrays)}.",
            "",
            "Look at it with rkzoo inspect.",
        )
    for array, spec in zip(arrays, specs, strict=True):
        if array.shape != spec.shape or (spec.dtype == "uint8" and array.dtype != np.uint8):
            raise RkzooError(
                f"The input {spec.name} is {array.dtype} {list(array.shape)}.",
                f"The model takes {spec.dtype} {list(spec.shape)}.",
                "Look at it with rkzoo inspect.",
            )


def canvas_of(session: Session, size: tuple[int, int], channels: int = 3) -> NDArray[np.uint8]:
    """Where a picture of `size` (height, width) is written, uint8 (1, height, width, channels):
    the session's own memory where it has some (the NPU's, `canvas`), so that nothing is copied."""
    shape = (1, *size, channels)
    own: NDArray[np.uint8] | None = getattr(session, "canvas", None)
    if own is not None and own.shape == shape:
        return own
    return np.empty(shape, np.uint8)


def run_named(session: Session, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Run a model without image inputs, with tensors by name.

    Args:
        session: the model.
        arrays: input name to array; cast to the declared dtype.

    Returns:
        Output name to array: float32 (dequantized), or integers where the output has no scale.
        Copies, so they stay valid after the next run.

    Raises:
        RkzooError: unknown or missing inputs.
    """
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


def preprocess_of(session: Session, usual: F) -> F:
    """Return the session's own resize function (`fit`, hardware accelerated) or else `usual`."""
    own: F | None = getattr(session, "fit", None)
    return own or usual


def dequantise(array: Array, spec: TensorSpec) -> NDArray[np.float32]:
    """Dequantize: (q - zero_point) * scale as float32. Float tensors pass through."""
    if spec.scale is None:
        return np.asarray(array, dtype=np.float32)
    values = array.astype(np.float32)
    values -= np.float32(spec.zero_point)
    values *= np.float32(spec.scale)
    return values


def plain(array: Array, spec: TensorSpec) -> Array:
    """An output in the graph's order, NCHW where it has four dimensions, whatever layout the NPU
    wrote; a view where that is possible."""
    if spec.layout == "NHWC" and array.ndim == 4:
        nchw: Array = array.transpose(0, 3, 1, 2)
        return nchw
    if spec.layout == "NC1HWC2" and array.ndim == 5:
        batch, blocks, height, width, depth = array.shape
        channels = spec.channels or blocks * depth
        planes: Array = array.transpose(0, 1, 4, 2, 3).reshape(batch, blocks * depth, height, width)
        cut: Array = planes[:, :channels]
        return cut
    return array


def plain_spec(spec: TensorSpec) -> TensorSpec:
    """The spec of an output after `plain` and `dequantise`."""
    shape = spec.shape
    if spec.layout == "NHWC" and len(shape) == 4:
        shape = (shape[0], shape[3], shape[1], shape[2])
    elif spec.layout == "NC1HWC2" and len(shape) == 5:
        shape = (shape[0], spec.channels or shape[1] * shape[4], shape[2], shape[3])
    floats = spec.scale is not None or spec.dtype.startswith("float")
    return TensorSpec(
        name=spec.name,
        shape=shape,
        dtype="float32" if floats else spec.dtype,
        layout="NCHW" if len(shape) == 4 else "plain",
    )
