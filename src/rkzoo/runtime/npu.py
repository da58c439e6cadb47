"""The NPU of a Rockchip board, through its own library and without a wasted pass.

A picture is written straight into the NPU's memory as uint8 NHWC; the outputs are read where
the NPU put them, as the integers and in the layout it wrote. Where that is not possible (an
input that is no picture) the library copies both, still without making floats of integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from rkzoo.contract import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu_api import Cores, Format, Init, Query, Type
from rkzoo.runtime.npu_context import Context, Memory, NpuLibrary, Tensor
from rkzoo.session import Array, Closing, Label

Layout = Literal["native", "plain"]


class NpuSession(Closing):
    """A model on the NPU. For one thread at a time; `duplicate` makes one for another.

    `layout` "native" leaves 4-D outputs in the NPU's own layout (NC1HWC2, or NHWC on RV1103
    and RV1106), which the detection decoder reads; "plain" has the library turn them into
    NCHW. `zero_copy` None takes it wherever the model has one input and that is a picture.
    `floats` is the way of the vendor's Python demos, to compare with: the processor makes
    floats of the pictures and the library of the outputs. `picture` False: the first input is
    none, even where it has the shape of one.

    `canvas` is the NPU's memory for the picture, uint8 (1, H, W, 3): what is written there
    need not be copied; `memory` is what it lies in, and `fit`, where somebody sets it, a better
    way to bring pictures there. The arrays that `run` returns look into the NPU's memory and hold
    until the next `run`; they may outlive the session. Raises RkzooError.
    """

    label: Label = "board"
    fit: Any = None

    def __init__(
        self,
        context: Context,
        *,
        layout: Layout = "native",
        zero_copy: bool | None = None,
        floats: bool = False,
        picture: bool = True,
    ) -> None:
        self.context = context
        self._layout, self._wanted, self._floats = layout, zero_copy, floats
        self._picture = picture
        self._dynamic = False
        self._bind()

    @classmethod
    def open(
        cls,
        library: NpuLibrary,
        model: Path | bytes,
        *,
        cores: Cores = Cores.AUTO,
        layout: Layout = "native",
        zero_copy: bool | None = None,
        flags: Init = Init.NONE,
    ) -> NpuSession:
        """Opens a file, or the bytes of one. `cores` AUTO lets the driver choose for each run."""
        context = Context.open(library, model, flags)
        return cls(_on(context, cores), layout=layout, zero_copy=zero_copy)

    def duplicate(self, cores: Cores = Cores.AUTO) -> NpuSession:
        """The same model once more, with its own inputs and outputs and the same weights: for
        another thread, or another core."""
        context = _on(self.context.duplicate(), cores)
        return NpuSession(
            context,
            layout=self._layout,
            zero_copy=self._wanted,
            floats=self._floats,
            picture=self._picture,
        )

    def _bind(self) -> None:
        inputs, outputs = self.context.counts()
        given = [_given(self.context, index, self._dynamic) for index in range(inputs)]
        fed = [_fed(tensor, self._picture) for tensor in given]
        possible = inputs == 1 and fed[0].dtype == "uint8" and not self._floats
        if self._wanted and not possible:
            raise RkzooError(
                f"{self.context.name} cannot be fed without a copy.",
                "Its only input must be a picture for that.",
                "Leave the choice to rkzoo.",
                code=1,
            )
        zero_copy = possible if self._wanted is None else self._wanted
        way: type[_ZeroCopy | _Copied] = _ZeroCopy if zero_copy else _Copied
        way = _Floats if self._floats else way
        ends = _Ends(tuple(given), tuple(fed), outputs, self._layout, self._dynamic)
        self._way: _Way = way(self.context, ends)
        self.zero_copy = zero_copy
        self.inputs = self._way.inputs
        self.outputs = self._way.outputs

    @property
    def canvas(self) -> Array | None:
        """Where a picture may be written, or None where it is copied anyway."""
        return self._way.canvas

    @property
    def memory(self) -> Memory | None:
        """What `canvas` lies in, where there is one."""
        return self._way.memory

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Pictures uint8 (N, H, W, C) in the contract's colour order, the rest as declared."""
        if len(arrays) != len(self.inputs):
            raise RkzooError(
                f"{self.context.name} has {len(self.inputs)} inputs, not {len(arrays)}.",
                "",
                "Look at it with rkzoo inspect.",
            )
        for array, spec in zip(arrays, self.inputs, strict=True):
            _check(array, spec)
        return self._way.run(arrays)

    def set_shapes(self, shapes: Sequence[Sequence[int]]) -> None:
        """For a model that was converted with several input shapes: chooses one for each
        input, in the order that the library has them (NHWC for a picture). `inputs`, `outputs`
        and `canvas` are new ones afterwards."""
        self.context.set_shapes(shapes)
        self._dynamic = True
        self._bind()

    def close(self) -> None:
        """Ends the session. Arrays that `run` gave stay readable, and keep the NPU's memory
        until they go."""
        self._way = _CLOSED
        self.context.close()


def _on(context: Context, cores: Cores) -> Context:
    # Chips with one core refuse the call, so it is made only where it says something.
    if cores != Cores.AUTO:
        context.set_cores(cores)
    return context


def _given(context: Context, index: int, dynamic: bool) -> Tensor:
    """An input as it is to be filled: what the library tells of its memory first."""
    if dynamic:
        return context.tensor(Query.CURRENT_INPUT_ATTR, index)
    told = context.tensor(Query.INPUT_ATTR, index)
    native = context.tensor(Query.NATIVE_INPUT_ATTR, index)
    # Only the memory's own description knows how long a row is.
    return native if native.format == Format.NHWC and native.shape == told.shape else told


def _is_picture(tensor: Tensor) -> bool:
    return (
        tensor.index == 0
        and tensor.format == Format.NHWC
        and len(tensor.shape) == 4
        and tensor.shape[3] in (1, 3, 4)
    )


def _fed(tensor: Tensor, picture: bool) -> TensorSpec:
    if picture and _is_picture(tensor):
        return TensorSpec(name=tensor.name, shape=tensor.shape, dtype="uint8", layout="NHWC")
    shape = tensor.shape
    if tensor.format == Format.NHWC and len(shape) == 4:
        # Arrays that are no pictures come in the graph's order.
        shape = (shape[0], shape[3], shape[1], shape[2])
    whole = tensor.dtype if tensor.dtype in ("int64", "int32", "bool") else "float32"
    return TensorSpec(name=tensor.name, shape=shape, dtype=whole)


_LAYOUTS: dict[Format, Literal["NCHW", "NHWC", "NC1HWC2"]] = {
    Format.NCHW: "NCHW",
    Format.NHWC: "NHWC",
    Format.NC1HWC2: "NC1HWC2",
}


def _spec(tensor: Tensor, shape: tuple[int, ...]) -> TensorSpec:
    ranks = {Format.NC1HWC2: 5}
    fits = len(shape) == ranks.get(tensor.format, 4)
    return TensorSpec(
        name=tensor.name,
        shape=shape,
        dtype=tensor.dtype,
        layout=_LAYOUTS.get(tensor.format, "plain") if fits else "plain",
        scale=tensor.scale,
        zero_point=tensor.zero_point,
    )


def _check(array: Array, spec: TensorSpec) -> None:
    if array.shape != spec.shape or (spec.dtype == "uint8" and array.dtype != np.uint8):
        raise RkzooError(
            f"The input {spec.name} is {array.dtype} {list(array.shape)}.",
            f"The model takes {spec.dtype} {list(spec.shape)}.",
            "Look at it with rkzoo inspect.",
        )


@dataclass(frozen=True)
class _Ends:
    """A model's inputs, as the library tells of them and as they are fed; how many outputs it
    has, and how those are wanted."""

    tensors: tuple[Tensor, ...]
    fed: tuple[TensorSpec, ...]
    outputs: int
    layout: Layout
    dynamic: bool


class _Way(Protocol):
    """How inputs go in and outputs come out."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    canvas: Array | None
    memory: Memory | None

    def run(self, arrays: Sequence[Array]) -> list[Array]: ...


class _ZeroCopy:
    """Memory shared with the NPU on both sides, made once."""

    def __init__(self, context: Context, ends: _Ends) -> None:
        self._context = context
        (picture,) = ends.tensors
        self.inputs = ends.fed
        batch, height, width, channels = picture.shape
        row = max(picture.w_stride, width) * channels
        memory = context.create_memory(max(picture.bytes, batch * height * row))
        self.memory: Memory | None = memory
        context.use(memory, picture, type=Type.UINT8, fmt=Format.NHWC, pass_through=0)
        self.canvas: Array | None = memory.array(picture.shape, "uint8", row=row)
        self._at = self.canvas.ctypes.data
        made = [_Output(context, index, ends.layout, ends.dynamic) for index in range(ends.outputs)]
        self._made = made
        self.outputs = tuple(output.spec for output in made)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        (picture,) = arrays
        if self.canvas is not None and picture.ctypes.data != self._at:
            np.copyto(self.canvas, picture)
        self._context.run()
        return [output.read() for output in self._made]


class _Output:
    """One output, read where the NPU writes it."""

    def __init__(self, context: Context, index: int, layout: Layout, dynamic: bool) -> None:
        plain = context.tensor(Query.CURRENT_OUTPUT_ATTR if dynamic else Query.OUTPUT_ATTR, index)
        tensor = plain
        # The small library writes no NCHW, so its pictures are turned here.
        small = context.library.small
        if len(plain.shape) == 4 and (small or layout == "native"):
            native = context.tensor(_native_query(small, dynamic), index)
            if native.format in (Format.NC1HWC2, Format.NHWC):
                tensor = native
        memory = context.create_memory(tensor.bytes)
        context.use(memory, tensor)
        shape = _true_shape(tensor, plain)
        self.spec = _spec(tensor, shape)
        self._seen = _visible(memory, tensor, shape)
        if tensor.format == Format.NHWC and len(shape) == 4 and layout == "plain":
            self._seen = self._seen.transpose(0, 3, 1, 2)
            self.spec = msgspec.structs.replace(self.spec, shape=self._seen.shape, layout="NCHW")
        # Turning, and padding between channels (few models have it), cost a pass; else none.
        tight = self._seen.flags.c_contiguous
        self._tight = None if tight else np.empty(self._seen.shape, tensor.dtype)

    def read(self) -> Array:
        if self._tight is None:
            return self._seen
        np.copyto(self._tight, self._seen)
        return self._tight


def _native_query(small: bool, dynamic: bool) -> Query:
    if dynamic:
        return Query.CURRENT_NATIVE_OUTPUT_ATTR
    return Query.NATIVE_NHWC_OUTPUT_ATTR if small else Query.NATIVE_OUTPUT_ATTR


def _true_shape(tensor: Tensor, plain: Tensor) -> tuple[int, ...]:
    """The shape without what the NPU adds behind the last cell of a channel block."""
    if tensor.format != Format.NC1HWC2 or plain.format not in (Format.NCHW, Format.NHWC):
        return tensor.shape
    height, width = plain.shape[2:] if plain.format == Format.NCHW else plain.shape[1:3]
    batch, blocks, _, _, depth = tensor.shape
    return batch, blocks, height, width, depth


def _visible(memory: Memory, tensor: Tensor, shape: tuple[int, ...]) -> Array:
    if shape == tensor.shape or len(shape) != 5:
        return memory.array(shape, tensor.dtype)
    batch, blocks, height, width, depth = shape
    cells = tensor.shape[2] * tensor.shape[3]
    whole = memory.array((batch, blocks, cells, depth), tensor.dtype)
    rows = whole[:, :, : height * width]
    size = whole.itemsize
    steps = (*rows.strides[:2], width * depth * size, depth * size, size)
    return np.lib.stride_tricks.as_strided(rows, shape, steps)


class _Copied:
    """The library copies inputs and outputs, for models that are fed more than a picture."""

    _floats = False

    def __init__(self, context: Context, ends: _Ends) -> None:
        self._context, self._tensors = context, ends.tensors
        self.canvas: Array | None = None
        self.memory: Memory | None = None
        self.inputs = ends.fed
        question = Query.CURRENT_OUTPUT_ATTR if ends.dynamic else Query.OUTPUT_ATTR
        tensors = [context.tensor(question, index) for index in range(ends.outputs)]
        self.outputs = tuple(_spec(tensor, tensor.shape) for tensor in tensors)
        self._arrays = [np.empty(tensor.shape, tensor.dtype) for tensor in tensors]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        given = [self._given(array, spec) for array, spec in zip(arrays, self.inputs, strict=True)]
        self._context.set_inputs(self._tensors, given)
        self._context.run()
        self._context.get_outputs(self._arrays, floats=self._floats)
        return list(self._arrays)

    def _given(self, array: Array, spec: TensorSpec) -> Array:
        return np.ascontiguousarray(array, spec.dtype)


class _Floats(_Copied):
    """Floats in, NCHW, and floats out: every number is made and read once more."""

    _floats = True

    def __init__(self, context: Context, ends: _Ends) -> None:
        super().__init__(context, ends)
        self.outputs = tuple(
            msgspec.structs.replace(spec, dtype="float32", scale=None, zero_point=0)
            for spec in self.outputs
        )
        self._arrays = [np.empty(spec.shape, np.float32) for spec in self.outputs]

    def _given(self, array: Array, spec: TensorSpec) -> Array:
        if spec.dtype == "uint8":
            return np.ascontiguousarray(array.transpose(0, 3, 1, 2), np.float32)
        return super()._given(array, spec)


class _Closed:
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    canvas: Array | None = None
    memory: Memory | None = None

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        raise RkzooError(
            "The model is closed.", "It was run after its end.", "Open it again.", code=1
        )


_CLOSED = _Closed()
