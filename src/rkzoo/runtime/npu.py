"""NPU session of a Rockchip board, through the vendor's C library and with as few copies as
possible.

An image is written straight into the NPU's memory as uint8 NHWC; outputs are read where the NPU
wrote them, as integers and in its own layout. Where an input is not an image, the library copies
inputs and outputs, still without converting integers to floats; that of RV1103 and RV1106 copies
nothing, so every input is quantized and laid out here as the NPU reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu_api import Cores, Format, Init, NpuError, Query, Type
from rkzoo.runtime.npu_context import Context, NpuLibrary, NpuMemory, NpuTensor
from rkzoo.session import Array, Closeable, Label, Session, check_inputs

Layout = Literal["native", "plain"]


class NpuSession(Closeable):
    """A model on the NPU. For one thread at a time; `duplicate` makes one for another.

    The arrays that `run` returns are views of the NPU's memory: read-only, and valid until the next
    `run`; they may outlive the session.

    Args:
        context: The open model.
        layout: "native" leaves 4-D outputs in the NPU's own layout (NC1HWC2, or NHWC on RV1103 and
            RV1106), which the detection decoder reads; "plain" converts them to NCHW.
        zero_copy: Share memory with the NPU. None: wherever the model's only input is an image, and
            always on RV1103 and RV1106.
        floats: Work as the vendor's Python demos do, for comparison (not on RV1103 and RV1106): the
            CPU converts images, and the library outputs, to float32.
        picture: False where the first input is not an image, although it has the shape of one.
        shapes: For a model converted with several input shapes, as for `set_shapes`; empty for its
            first.

    Attributes:
        canvas: NPU memory of the image, uint8 (1, H, W, 3): what is written there need not be
            copied.
        memory: The memory that holds `canvas`.
        fit: A faster preprocessing into `canvas`, where set from outside.

    Raises:
        RkzooError: The model cannot be used in this way.
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
        shapes: Sequence[Sequence[int]] = (),
    ) -> None:
        self.context = context
        self._layout, self._wanted, self._floats = layout, zero_copy, floats
        self._picture = picture
        inputs, _ = context.counts()
        self._known = [context.shapes(index) for index in range(inputs)]
        self._shapes: list[tuple[int, ...]] = []
        if all(self._known):
            # Some versions crash when memory is set before a shape was selected.
            self.set_shapes(shapes or [known[0] for known in self._known])
        else:
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
        """Open a .rknn.

        Args:
            library: The NPU library.
            model: The file, or its bytes.
            cores: NPU cores; AUTO lets the driver choose for each run.
            layout: As for the class.
            zero_copy: As for the class.
            flags: Flags of the context.

        Raises:
            RkzooError: The library cannot open it.
        """
        context = Context.open(library, model, flags)
        return cls(_on(context, cores), layout=layout, zero_copy=zero_copy)

    def duplicate(self, cores: Cores = Cores.AUTO) -> NpuSession:
        """A session on the same weights with its own inputs and outputs, for another thread or
        core.
        """
        context = _on(self.context.duplicate(), cores)
        return NpuSession(
            context,
            layout=self._layout,
            zero_copy=self._wanted,
            floats=self._floats,
            picture=self._picture,
            shapes=self._shapes,
        )

    def _bind(self) -> None:
        ends = _ends(self.context, self._layout, self._picture, bool(self._shapes))
        small = self.context.library.small
        possible = not self._floats and (small or ends.one_picture)
        if (self._wanted and not possible) or (self._floats and small):
            raise RkzooError(
                f"{self.context.name} cannot be run in the requested mode.",
                "This library does not convert to float."
                if small
                else "For zero copy the model's only input must be a picture.",
                "Leave the choice to rkzoo.",
                code=1,
            )
        self.zero_copy = possible if self._wanted is None else self._wanted
        way: type[_ZeroCopy | _Copying] = _ZeroCopy if self.zero_copy else _Copying
        way = _Floats if self._floats else way
        self._way: _Transfer = way(self.context, ends)
        self.inputs = self._way.inputs
        self.outputs = self._way.outputs

    @property
    def canvas(self) -> Array | None:
        """Where an image may be written; None where it is copied anyway."""
        return self._way.canvas

    @property
    def memory(self) -> NpuMemory | None:
        """The memory that holds `canvas`, if any."""
        return self._way.memory

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the model.

        Args:
            arrays: Images as uint8 (N, H, W, C) in the contract's color order, other inputs as
                declared.

        Returns:
            The outputs as `outputs` describes them, valid until the next run.

        Raises:
            RkzooError: An input has the wrong shape or type, or the NPU fails.
        """
        check_inputs(self.context.name, arrays, self.inputs)
        return self._way.run(arrays)

    def set_shapes(self, shapes: Sequence[Sequence[int]]) -> None:
        """Select input shapes of a model that was converted with several.

        `inputs`, `outputs` and `canvas` are replaced.

        Args:
            shapes: One per input, in the library's order of dimensions (NHWC for an image).

        Raises:
            RkzooError: The model does not have these shapes.
        """
        requested = [tuple(shape) for shape in shapes]
        if len(requested) != len(self._known) or any(
            shape not in known for shape, known in zip(requested, self._known, strict=False)
        ):
            has = ", ".join("x".join(map(str, dims)) for known in self._known for dims in known)
            raise RkzooError(
                f"{self.context.name} cannot take inputs of"
                f" {' and '.join('x'.join(map(str, shape)) for shape in requested)}.",
                f"It was converted with {has}." if has else "Its input shapes are fixed.",
                "Choose one of the shapes that rkzoo inspect shows, or convert the model again.",
            )
        self.context.set_shapes(requested)
        self._shapes = requested
        self._bind()

    def close(self) -> None:
        """Close the session. Arrays that `run` returned stay readable, and keep the NPU's memory
        alive.
        """
        self._way = _CLOSED
        self.context.close()


def npu_seconds(session: Session) -> float | None:
    """Duration of a session's last run as the library reports it; None where it does not (the
    small one, or no NPU)."""
    if isinstance(session, NpuSession) and not session.context.library.small:
        with suppress(RkzooError):
            return session.context.run_seconds() or None
    return None


def _on(context: Context, cores: Cores) -> Context:
    # Chips with one core reject the call, so it is made only where needed.
    if cores != Cores.AUTO:
        context.set_cores(cores)
    return context


# ---- tensor attributes --------------------------------------------------------------


@dataclass(frozen=True)
class _InputTensor:
    """An input: as the library declares it, as its memory is laid out, and as `run` takes it."""

    queried: NpuTensor
    native: NpuTensor
    spec: TensorSpec


@dataclass(frozen=True)
class _OutputTensor:
    """An output: in the graph's layout, and as the NPU writes it."""

    plain: NpuTensor
    native: NpuTensor


@dataclass(frozen=True)
class _Ends:
    """A model's inputs and outputs, queried before any memory is set: version 1.5.2 returns other
    attributes afterwards.
    """

    inputs: tuple[_InputTensor, ...]
    outputs: tuple[_OutputTensor, ...]
    layout: Layout

    @property
    def one_picture(self) -> bool:
        return len(self.inputs) == 1 and self.inputs[0].spec.layout == "NHWC"

    @property
    def fed(self) -> tuple[TensorSpec, ...]:
        return tuple(end.spec for end in self.inputs)


def _ends(context: Context, layout: Layout, picture: bool, dynamic: bool) -> _Ends:
    inputs, outputs = context.counts()
    return _Ends(
        tuple(_in(context, index, picture, dynamic) for index in range(inputs)),
        tuple(_out(context, index, dynamic) for index in range(outputs)),
        layout,
    )


def _in(context: Context, index: int, picture: bool, dynamic: bool) -> _InputTensor:
    if dynamic:
        npu_tensor = native = context.tensor(Query.CURRENT_INPUT_ATTR, index)
    else:
        npu_tensor = context.tensor(Query.INPUT_ATTR, index)
        native = context.tensor(Query.NATIVE_INPUT_ATTR, index)
    return _InputTensor(npu_tensor, native, _input_spec(npu_tensor, picture))


def _out(context: Context, index: int, dynamic: bool) -> _OutputTensor:
    plain = context.tensor(Query.CURRENT_OUTPUT_ATTR if dynamic else Query.OUTPUT_ATTR, index)
    native = Query.CURRENT_NATIVE_OUTPUT_ATTR if dynamic else Query.NATIVE_OUTPUT_ATTR
    if context.library.small and len(plain.shape) == 4:
        try:
            tight = context.tensor(Query.NATIVE_NHWC_OUTPUT_ATTR, index)
            if tight.format == Format.NHWC:
                return _OutputTensor(plain, tight)
        except NpuError:
            pass  # NC1HWC2, which it has instead, is supported as well
    return _OutputTensor(plain, context.tensor(native, index))


def _is_picture(tensor: NpuTensor) -> bool:
    return (
        tensor.index == 0
        and tensor.format == Format.NHWC
        and len(tensor.shape) == 4
        and tensor.shape[3] in (1, 3, 4)
    )


def _input_spec(tensor: NpuTensor, picture: bool) -> TensorSpec:
    if picture and _is_picture(tensor):
        return TensorSpec(name=tensor.name, shape=tensor.shape, dtype="uint8", layout="NHWC")
    shape = tensor.shape
    if tensor.format == Format.NHWC and len(shape) == 4:
        # Arrays other than images come in the graph's order.
        shape = (shape[0], shape[3], shape[1], shape[2])
    whole = tensor.dtype if tensor.dtype in ("int64", "int32", "bool") else "float32"
    return TensorSpec(name=tensor.name, shape=shape, dtype=whole)


_LAYOUTS: dict[Format, Literal["NCHW", "NHWC", "NC1HWC2"]] = {
    Format.NCHW: "NCHW",
    Format.NHWC: "NHWC",
    Format.NC1HWC2: "NC1HWC2",
}


def _spec(tensor: NpuTensor, shape: tuple[int, ...]) -> TensorSpec:
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


# ---- input and output modes ---------------------------------------------------------


class _Transfer(Protocol):
    """How inputs go in and outputs come out."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    canvas: Array | None
    memory: NpuMemory | None

    def run(self, arrays: Sequence[Array]) -> list[Array]: ...


class _ZeroCopy:
    """Zero copy: memory shared with the NPU on both sides, allocated once."""

    def __init__(self, context: Context, ends: _Ends) -> None:
        self._context = context
        self.inputs = ends.fed
        self._input_buffers = [_input(context, end) for end in ends.inputs]
        first = self._input_buffers[0]
        self.canvas = first.canvas if isinstance(first, _Picture) else None
        self.memory = first.memory if isinstance(first, _Picture) else None
        self._output_tensors = [_Output(context, end, ends.layout) for end in ends.outputs]
        self.outputs = tuple(output.spec for output in self._output_tensors)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        for end, array in zip(self._input_buffers, arrays, strict=True):
            end.write(array)
        self._context.run()
        return [output.read() for output in self._output_tensors]


def _input(context: Context, end: _InputTensor) -> _Picture | _Codes:
    return _Picture(context, end) if end.spec.layout == "NHWC" else _Codes(context, end)


def _input_memory(context: Context, size: int) -> NpuMemory:
    """Zeroed memory, so that padding of rows and channels is the same in every run. The library
    flushes inputs before each run, so these zeros cannot overwrite anything later.
    """
    memory = context.create_memory(size)
    memory.array((size,), "uint8")[:] = 0
    return memory


class _Picture:
    """An image as uint8 NHWC: the NPU applies mean and standard deviation."""

    def __init__(self, context: Context, end: _InputTensor) -> None:
        # Only the native attributes hold the row stride.
        npu_tensor, native = end.queried, end.native
        lies = (
            native
            if native.format == Format.NHWC and native.shape == npu_tensor.shape
            else npu_tensor
        )
        batch, height, width, channels = lies.shape
        row = max(lies.w_stride, width) * channels
        self.memory = _input_memory(context, max(lies.bytes, batch * height * row))
        context.use(self.memory, lies, type=Type.UINT8, fmt=Format.NHWC, pass_through=0)
        self.canvas = self.memory.array(lies.shape, "uint8", row=row)
        self._at = self.canvas.ctypes.data

    def write(self, array: Array) -> None:
        if array.ctypes.data != self._at:
            np.copyto(self.canvas, array)


class _Codes:
    """An input other than an image, quantized and in the NPU's own layout. The library of RV1103
    and RV1106 supports nothing else, and reports success (0) for what it does not support.
    """

    def __init__(self, context: Context, end: _InputTensor) -> None:
        native = end.native
        self._scale = native.scale or end.queried.scale
        self._zero = native.zero_point if native.scale else end.queried.zero_point
        kind = np.dtype(native.dtype)
        self._limits = np.iinfo(kind) if kind.kind in "iu" else None
        self._values = np.empty(end.spec.shape, "float32" if self._scale else kind)
        memory = _input_memory(context, max(native.bytes, end.queried.bytes))
        # NHWC rows must bypass the image preprocessing.
        own = {"pass_through": 1} if native.format == Format.NHWC else {}
        context.use(memory, native, **own)
        self._parts = [(to, of) for of, to in _parts(self._values, memory, native)]

    def write(self, array: Array) -> None:
        values = self._values
        np.copyto(values, array, casting="unsafe")
        if self._scale:
            np.divide(values, np.float32(self._scale), out=values)
            np.rint(values, out=values)
            np.add(values, np.float32(self._zero), out=values)
            if self._limits:
                np.clip(values, self._limits.min, self._limits.max, out=values)
        for to, of in self._parts:
            np.copyto(to, of, casting="unsafe")


def _parts(plain: Array, memory: NpuMemory, tensor: NpuTensor) -> list[tuple[Array, Array]]:
    """An array in the graph's order and a tensor's memory, as pairs of views of the same elements.
    Raises RkzooError for an unknown layout.
    """
    if tensor.format == Format.NC1HWC2 and len(tensor.shape) == 5:
        batch, blocks, height, width, depth = tensor.shape
        channels = plain.shape[1]
        rows = plain.reshape(batch, channels, -1)
        cells = rows.shape[2]
        if cells <= height * width and channels <= blocks * depth:
            whole = memory.array((batch, blocks, height * width, depth), tensor.dtype)
            full, rest = divmod(channels, depth)
            known = whole[:, :full, :cells].transpose(0, 1, 3, 2)
            pairs = [(rows[:, : full * depth].reshape(known.shape), known)]
            if rest:
                last = whole[:, full, :cells, :rest].transpose(0, 2, 1)
                pairs.append((rows[:, full * depth :], last))
            return pairs[not full :]
    elif tensor.format == Format.NHWC and len(tensor.shape) == 4:
        row = max(tensor.w_stride, tensor.shape[2]) * tensor.shape[3]
        seen = memory.array(tensor.shape, tensor.dtype, row=row).transpose(0, 3, 1, 2)
        if seen.shape == plain.shape:
            return [(plain, seen)]
    elif math.prod(tensor.shape) == plain.size:
        return [(plain, memory.array(plain.shape, tensor.dtype))]
    raise RkzooError(
        f"The tensor {tensor.name} has a memory layout that rkzoo does not know.",
        f"The library reports {list(tensor.shape)} ({tensor.format.name}) for {list(plain.shape)}.",
        "Run rkzoo doctor: it names the library's version, and whether there is a newer one.",
    )


class _Output:
    """An output, read where the NPU writes it. Nothing else writes there."""

    def __init__(self, context: Context, end: _OutputTensor, layout: Layout) -> None:
        plain, native = end.plain, end.native
        four = len(plain.shape) == 4 and native.format in (Format.NC1HWC2, Format.NHWC)
        # The declared blocks do not describe a batch (librknnrt 1.5.2 reports pairs and lets the
        # NPU write single ones): leave the conversion to the library.
        own = layout == "native" and plain.shape[0] == 1
        # The small library writes no NCHW, so its 4-D outputs are converted here.
        tensor = native if four and (context.library.small or own) else plain
        # After a flat output the NPU may write up to the end of a block.
        memory = context.create_memory(max(tensor.bytes, native.bytes))
        context.use(memory, tensor)
        self._parts: list[tuple[Array, Array]] = []
        if layout == "plain" and tensor is native:
            self._array = np.empty(_graphs_order(plain), tensor.dtype)
            self._parts = _parts(self._array, memory, tensor)
            tensor_spec = _spec(tensor, self._array.shape)
            self.spec = msgspec.structs.replace(tensor_spec, layout="NCHW")
            return
        shape = _true_shape(tensor, plain)
        tensor_spec = _spec(tensor, shape)
        graphs = _graphs_order(plain)
        channels = graphs[1] if tensor_spec.layout == "NC1HWC2" and len(graphs) == 4 else 0
        self.spec = msgspec.structs.replace(tensor_spec, channels=channels)
        seen = self._array = _visible(memory, tensor, shape)
        seen.flags.writeable = False
        # Padding between channel blocks (in few models) costs a copy.
        if not seen.flags.c_contiguous:
            self._array = np.empty(seen.shape, tensor.dtype)
            self._parts = [(self._array, seen)]

    def read(self) -> Array:
        for to, of in self._parts:
            np.copyto(to, of)
        return self._array


def _graphs_order(tensor: NpuTensor) -> tuple[int, ...]:
    shape = tensor.shape
    turned = tensor.format == Format.NHWC and len(shape) == 4
    return (shape[0], shape[3], shape[1], shape[2]) if turned else shape


def _true_shape(tensor: NpuTensor, plain: NpuTensor) -> tuple[int, ...]:
    """The shape without the NPU's padding after the last cell of a channel block."""
    if tensor.format != Format.NC1HWC2 or plain.format not in (Format.NCHW, Format.NHWC):
        return tensor.shape
    _, _, height, width = _graphs_order(plain)
    batch, blocks, _, _, depth = tensor.shape
    return batch, blocks, height, width, depth


def _visible(memory: NpuMemory, tensor: NpuTensor, shape: tuple[int, ...]) -> Array:
    if shape == tensor.shape or len(shape) != 5:
        return memory.array(shape, tensor.dtype)
    batch, blocks, height, width, depth = shape
    cells = tensor.shape[2] * tensor.shape[3]
    whole = memory.array((batch, blocks, cells, depth), tensor.dtype)
    rows = whole[:, :, : height * width]
    size = whole.itemsize
    steps = (*rows.strides[:2], width * depth * size, depth * size, size)
    return np.lib.stride_tricks.as_strided(rows, shape, steps)


class _Copying:
    """The library copies inputs and outputs, for models with other inputs than an image."""

    _floats = False

    def __init__(self, context: Context, ends: _Ends) -> None:
        self._context = context
        self.canvas: Array | None = None
        self.memory: NpuMemory | None = None
        self.inputs = ends.fed
        self._tensors = [end.queried for end in ends.inputs]
        self._turned = [_turned(spec, self._type(spec)) for spec in ends.fed]
        self._limits = [_limits(end) for end in ends.inputs]
        outputs = [end.plain for end in ends.outputs]
        self.outputs = tuple(_spec(tensor, tensor.shape) for tensor in outputs)
        self._arrays = [np.empty(tensor.shape, tensor.dtype) for tensor in outputs]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        ends = zip(arrays, self.inputs, self._turned, self._limits, strict=True)
        inputs = [self._converted(*end) for end in ends]
        self._context.set_inputs(self._tensors, inputs)
        self._context.run()
        self._context.get_outputs(self._arrays, floats=self._floats)
        return list(self._arrays)

    def _type(self, spec: TensorSpec) -> str:
        """Data type that is handed to the library."""
        return spec.dtype

    def _converted(
        self,
        array: Array,
        spec: TensorSpec,
        turned: tuple[Array, Array],
        limits: tuple[float, float] | None,
    ) -> Array:
        """The array as the library takes it: of its type, within `limits`, and NHWC where it is
        4-D. `turned` is a buffer for that, in the library's order and viewed in the array's.
        """
        room, seen = turned
        if limits:
            np.clip(array, *limits, out=seen)
            return room
        fits = len(spec.shape) != 4 or spec.layout == "NHWC"
        if fits and array.dtype == room.dtype and array.flags.c_contiguous:
            return array
        np.copyto(seen, array, casting="unsafe")
        return room


def _limits(end: _InputTensor) -> tuple[float, float] | None:
    """Range of values that the quantized input can represent. The library does not saturate: a
    value beyond it wraps around (seen with librknnrt 1.5.2).
    """
    tensor = end.queried
    if tensor.scale is None or end.spec.dtype != "float32":
        return None
    codes = np.iinfo(tensor.dtype)
    return (
        (codes.min - tensor.zero_point) * tensor.scale,
        (codes.max - tensor.zero_point) * tensor.scale,
    )


def _turned(spec: TensorSpec, dtype: str) -> tuple[Array, Array]:
    """A buffer for an input in the library's order, and its view in the order of `run`."""
    if len(spec.shape) != 4 or spec.layout == "NHWC":
        room = np.empty(spec.shape, dtype)
        return room, room
    batch, channels, height, width = spec.shape
    room = np.empty((batch, height, width, channels), dtype)
    return room, room.transpose(0, 3, 1, 2)


class _Floats(_Copying):
    """Float inputs and float outputs: every value is converted once more."""

    _floats = True

    def __init__(self, context: Context, ends: _Ends) -> None:
        super().__init__(context, ends)
        self.outputs = tuple(
            spec
            if spec.dtype in ("int64", "int32")
            else msgspec.structs.replace(spec, dtype="float32", scale=None, zero_point=0)
            for spec in self.outputs
        )
        self._arrays = [np.empty(spec.shape, spec.dtype) for spec in self.outputs]

    def _type(self, spec: TensorSpec) -> str:
        return "float32" if spec.dtype == "uint8" else spec.dtype


class _Closed:
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    canvas: Array | None = None
    memory: NpuMemory | None = None

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        raise RkzooError(
            "The model is closed.", "It was run after it was closed.", "Open it again.", code=1
        )


_CLOSED = _Closed()
