"""NPU context: a model open on the NPU, and memory shared between the NPU and this process.

A thin, checked wrapper of the C library. Resources are destroyed in the right order when nothing
refers to them any more: an array that views NPU memory keeps that memory, and with it the context,
alive.
"""

from __future__ import annotations

import ctypes as c
import math
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from rkzoo.contract.custom_operator import CustomOperator
from rkzoo.errors import RkzooError
from rkzoo.runtime import npu_api as api
from rkzoo.runtime.npu_api import Cores, Format, Init, Quantised, Query, Sync, Type, structure
from rkzoo.runtime.npu_custom import Callbacks
from rkzoo.runtime.npu_log import captured, pass_on
from rkzoo.session import Array

SMALL = "librknnmrt"
"""Name of the library of RV1103 and RV1106. It shares no weights, copies only a single image input
and does not convert to float: inputs and outputs are in NPU memory, as the NPU reads them.
"""


class NpuLibrary:
    """librknnrt.so or librknnmrt.so, loaded. Raises RkzooError when it cannot be loaded."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._dll = c.CDLL(self.path)
        except OSError as error:
            raise RkzooError(
                f"The NPU's library {self.path} cannot be loaded.",
                f"The system says: {error}.",
                "Run rkzoo doctor: it says which file is needed.",
            ) from error
        self._functions: dict[str, Any] = {}
        self.function("init")

    @property
    def small(self) -> bool:
        """Whether this is the library of RV1103 and RV1106, under any name: it alone has no core
        mask.
        """
        return Path(self.path).name.startswith(SMALL) or not self.has("set_core_mask")

    def has(self, name: str) -> bool:
        """Whether this version has the function `rknn_<name>`."""
        return hasattr(self._dll, f"rknn_{name}")

    def function(self, name: str) -> Any:
        """`rknn_<name>` with its types. Raises RkzooError where the library lacks it."""
        if name not in self._functions:
            if not self.has(name):
                raise RkzooError(
                    f"The NPU's library {self.path} does not support this.",
                    f"It has no function rknn_{name}.",
                    "Update the library (rkzoo doctor says how), or check that it is the right "
                    "file.",
                )
            function = getattr(self._dll, f"rknn_{name}")
            wide = api.context_type()
            function.argtypes = [wide if t is api.CONTEXT else t for t in api.FUNCTIONS[name]]
            function.restype = c.c_void_p if name in api.MAKE_MEMORY else c.c_int
            self._functions[name] = function
        return self._functions[name]

    def call(self, name: str, what: str, *arguments: Any) -> None:
        """Call a function that returns an error code. What the library prints is not captured.

        Args:
            name: Name of the function without `rknn_`.
            what: What is being done, as a sentence for the error.
            *arguments: Its arguments.

        Raises:
            Refused: The code is not 0.
        """
        if code := self.function(name)(*arguments):
            raise api.failure(code, what, function=name)


@dataclass(frozen=True)
class NpuTensor:
    """Attributes of an input or output.

    Attributes:
        index: Its index.
        name: Its name.
        shape: In the order of `format`.
        format: Its layout.
        type: Its data type, a number of `Type`.
        scale: Quantization scale; None for a float tensor.
        zero_point: Its zero point.
        w_stride: Pixels of a row in memory, at least the width.
        bytes: Size of its memory.
        raw: The C structure.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    format: Format
    type: int
    scale: float | None
    zero_point: int
    w_stride: int
    bytes: int
    raw: Any

    @property
    def dtype(self) -> str:
        """numpy name of the data type. Raises RkzooError for one that numpy does not have."""
        name = api.DTYPES.get(self.type)  # type: ignore[call-overload]
        if name is None:
            raise RkzooError(
                f"The tensor {self.name} has a data type that rkzoo cannot read.",
                f"It is type {self.type} of the NPU library.",
                "Convert the model to int8 or fp16.",
            )
        return str(name)


def _tensor(raw: Any) -> NpuTensor:
    shape = tuple(raw.dims[: min(raw.n_dims, api.MAX_DIMS)])
    quantised = raw.qnt_type == Quantised.AFFINE and raw.type in (Type.INT8, Type.UINT8, Type.INT16)
    layout = Format(raw.fmt) if raw.fmt in set(Format) else Format.UNDEFINED
    return NpuTensor(
        raw.index,
        raw.name.decode("utf-8", "replace"),
        shape,
        layout,
        raw.type,
        float(np.float32(raw.scale)) if quantised else None,
        raw.zp if quantised else 0,
        raw.w_stride,
        max(raw.size, raw.size_with_stride),
        raw,
    )


@dataclass(frozen=True)
class NpuMemory:
    """Memory shared by the NPU and this process. `fd` is its file descriptor (DMA-BUF), in which it
    begins at `offset`.
    """

    address: int
    size: int
    fd: int
    pointer: int
    offset: int
    _buffer: Any

    def array(self, shape: Sequence[int], dtype: str, *, row: int = 0) -> Array:
        """A view of the memory, which keeps it alive.

        Args:
            shape: Shape of the array.
            dtype: numpy data type.
            row: Elements per row of an image (N, H, W, C) where rows are padded; 0 for W * C.
        """
        kind = np.dtype(dtype)
        if not row:
            return np.frombuffer(self._buffer, kind, math.prod(shape)).reshape(shape)
        batch, height, _, channels = shape
        flat = np.frombuffer(self._buffer, kind, batch * height * row)
        steps = tuple(kind.itemsize * count for count in (height * row, row, channels, 1))
        return np.lib.stride_tricks.as_strided(flat, shape, steps)


@dataclass(frozen=True)
class MemoryUse:
    """Memory of an open model in bytes: its weights, what lies between its layers, all that the
    NPU was given, and the chip's SRAM."""

    weights: int
    internal: int
    dma: int
    sram_total: int
    sram_free: int


class _Owner:
    """Owner of a context handle; destroys it. A duplicate is destroyed before its origin."""

    def __init__(self, library: NpuLibrary, number: Any, origin: object = None) -> None:
        """`origin` is kept until the context is destroyed."""
        self.number = number
        weakref.finalize(self, _end, library.function("destroy"), number, origin)


# A failure to destroy is ignored: nobody can act on it, and it must not hide an earlier error.


def _end(function: Any, number: Any, origin: object) -> None:
    function(number)


def _end_memory(function: Any, owner: _Owner, pointer: int) -> None:
    function(owner.number, pointer)


_OF_A_SHAPE = frozenset(question for question in Query if question.name.startswith("CURRENT_"))


class Context:
    """A model open on the NPU, made by `open` or `duplicate`; for one thread at a time. Every
    method raises RkzooError when the library returns an error.
    """

    def __init__(
        self,
        library: NpuLibrary,
        owner: _Owner,
        name: str,
        flags: Init = Init.NONE,
        source: Path | bytes | None = None,
        known: dict[tuple[Query, int], NpuTensor] | None = None,
        custom: Callbacks | None = None,
    ) -> None:
        """`source` is reopened for a duplicate where the library cannot duplicate; `known` are
        tensor attributes queried before memory was set in any context of the model; `custom` what
        the library calls for custom operators.
        """
        self.library, self.name = library, name
        self._flags, self._source, self._custom = flags, source, custom
        self._known: dict[tuple[Query, int], NpuTensor] = {} if known is None else known
        self._owner: _Owner | None = owner
        self._ran = False
        # The library supports one call at a time on a context.
        self._lock = Lock()

    @classmethod
    def open(
        cls,
        library: NpuLibrary,
        model: Path | bytes,
        flags: Init = Init.NONE,
        custom: Sequence[CustomOperator] = (),
    ) -> Context:
        """Open a .rknn from a file or its bytes.

        Args:
            library: The NPU library.
            model: The file, or its bytes.
            flags: Flags of the context.
            custom: All custom operators of the model.

        Raises:
            RkzooError: The file is missing or empty, or the library cannot open it.
        """
        callbacks = Callbacks(custom) if custom else None
        number = api.context_type()()
        name = model.name if isinstance(model, Path) else "The model"
        if isinstance(model, Path):
            if not model.is_file():
                raise RkzooError(f"There is no file {model}.", "", "Check the path.")
            data, size, empty = os.fsencode(model), 0, not model.stat().st_size
        else:
            data, size, empty = model, len(model), not model
        if empty:
            # The library crashes on it.
            raise RkzooError(
                f"{name} cannot be opened on the NPU.",
                "It is empty.",
                "Copy the file again, or convert the model again with rkzoo convert.",
            )
        begin = partial(library.function("init"), c.byref(number), data, size, flags, None)
        # The error codes of init say least, and it may end the process.
        code, error_lines = captured(begin, guarded=True)
        if code:
            raise api.failure(code, f"{name} cannot be opened on the NPU.", error_lines)
        pass_on(error_lines)
        # Whether a duplicate has the custom operators of its origin is not published.
        source = model if library.small or callbacks else None
        owner = _Owner(library, number, callbacks)
        if callbacks:
            # All at once: a second call fails (issue 538 of airockchip/rknn-toolkit2).
            what = f"The NPU's library does not take the custom operators of {name}."
            rows = callbacks.rows
            library.call("register_custom_ops", what, number, c.byref(rows), len(rows))
        return cls(library, owner, name, flags, source, custom=callbacks)

    def duplicate(self) -> Context:
        """A second context that shares the weights. On RV1103 and RV1106, whose library shares
        none, and with custom operators the model is opened once more.
        """
        origin, number = self._held, api.context_type()()
        if self._source is not None:
            custom = self._custom.operators if self._custom else ()
            return Context.open(self.library, self._source, self._flags, custom)
        what = f"{self.name} cannot be opened a second time."
        with self._lock:
            self.library.call("dup_context", what, c.byref(origin.number), c.byref(number))
        owner = _Owner(self.library, number, origin)
        return Context(self.library, owner, self.name, self._flags, known=self._known)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._owner is None

    @property
    def _held(self) -> _Owner:
        if self._owner is None:
            raise RkzooError(
                f"{self.name} is closed.",
                "It was used after it was closed.",
                "Open it again.",
                code=1,
            )
        return self._owner

    @property
    def _number(self) -> Any:
        return self._held.number

    def close(self) -> None:
        """Release the context. It is destroyed at once, or with the last array that views its
        memory.
        """
        self._owner = None

    def _call(self, function: str, what: str, *arguments: Any) -> None:
        self.library.call(function, what, self._number, *arguments)

    # ---- queries --------------------------------------------------------------------

    def query(self, question: Query, kind: str, index: int | None = None) -> Any:
        """The result of a query as a ctypes structure of npu_api.

        Args:
            question: The query.
            kind: Name of its structure.
            index: Index of the input or output, for attribute queries.
        """
        info = structure(kind)()
        if index is not None:
            info.index = index
        self._call(
            "query",
            f"The NPU's library does not describe {self.name} ({question.name}).",
            question,
            c.byref(info),
            c.sizeof(info),
        )
        return info

    def counts(self) -> tuple[int, int]:
        """Number of inputs and of outputs."""
        info = self.query(Query.IN_OUT_NUM, "input_output_num")
        return info.n_input, info.n_output

    def tensor(self, question: Query, index: int) -> NpuTensor:
        """Attributes of an input or output. Queried once for this context and its duplicates:
        version 1.5.2 reports other padding once memory was set in one of them, while the NPU writes
        as first reported.
        """
        key = (question, index)
        if key in self._known:
            return self._known[key]
        npu_tensor = _tensor(self.query(question, "tensor_attr", index))
        if question not in _OF_A_SHAPE:
            self._known[key] = npu_tensor
        return npu_tensor

    def versions(self) -> tuple[str, str]:
        """Version texts of library and driver."""
        info = self.query(Query.SDK_VERSION, "sdk_version")
        return info.api_version.decode("utf-8", "replace"), info.drv_version.decode(
            "utf-8", "replace"
        )

    @property
    def stand_in(self) -> bool:
        """Whether the library is the tests' stand-in, whose results say nothing about a board."""
        return "stand-in" in self.versions()[0]

    def custom_string(self) -> str:
        """The custom string of the model."""
        info = self.query(Query.CUSTOM_STRING, "custom_string")
        return str(info.string.decode("utf-8", "replace"))

    def run_seconds(self) -> float:
        """Duration of the last run on the NPU in seconds, as the library reports it."""
        if not self._ran:  # the library would return an arbitrary value
            raise RkzooError(f"{self.name} was not run yet.", "", "Run it first.", code=1)
        return float(self.query(Query.PERF_RUN, "perf_run").run_duration) / 1e6

    def layers(self) -> str:
        """The library's profile by layer, as text; the context needs Init.COLLECT_PERF."""
        info = self.query(Query.PERF_DETAIL, "perf_detail")
        if not info.perf_data or not info.data_len:
            return ""
        return c.string_at(info.perf_data, info.data_len).decode("utf-8", "replace").rstrip("\0")

    def memory_use(self) -> MemoryUse:
        """Memory of the model. Version 1.5.2 cannot duplicate the context after it."""
        info = self.query(Query.MEM_SIZE, "mem_size")
        return MemoryUse(
            info.total_weight_size,
            info.total_internal_size,
            info.total_dma_allocated_size,
            info.total_sram_size,
            info.free_sram_size,
        )

    def shapes(self, index: int) -> list[tuple[int, ...]]:
        """Input shapes that a model was converted with; empty for a fixed shape, or where the
        library does not support several (RV1103 and RV1106).
        """
        info = structure("input_range")(index=index)
        ask = partial(self.library.function("query"), self._number, Query.INPUT_DYNAMIC_RANGE)
        # For a model with fixed shapes the library prints an error.
        code, _ = captured(partial(ask, c.byref(info), c.sizeof(info)))
        count = 0 if code else min(info.shape_number, api.MAX_SHAPES)
        return [tuple(row[: info.n_dims]) for row in info.dyn_range[:count]]

    # ---- settings -------------------------------------------------------------------

    def set_cores(self, cores: Cores) -> None:
        """Set the NPU cores that the context may use."""
        self._call("set_core_mask", f"The NPU cores {cores!r} cannot be used.", int(cores))

    def set_batch_cores(self, count: int) -> None:
        """Set the number of cores that a batch is spread over."""
        self._call("set_batch_core_num", f"A batch cannot be spread over {count} cores.", count)

    def set_shapes(self, shapes: Sequence[Sequence[int]]) -> None:
        """Select one of the model's shapes for every input."""
        rows = (structure("tensor_attr") * len(shapes))()
        for index, shape in enumerate(shapes):
            rows[index] = self.tensor(Query.INPUT_ATTR, index).raw
            rows[index].n_dims = len(shape)
            rows[index].dims[: len(shape)] = list(shape)
        what = f"{self.name} cannot take inputs of {' and '.join(map(_format_shape, shapes))}."
        self._call("set_input_shapes", what, len(shapes), c.byref(rows))

    # ---- memory ---------------------------------------------------------------------

    def create_memory(self, size: int) -> NpuMemory:
        """Allocate NPU memory of `size` bytes, not initialized.

        Only inputs are flushed before a run: what the CPU writes to other memory before the first
        run may later overwrite what the NPU wrote. Raises RkzooError when there is not enough.
        """
        return self._memory("create_mem", size)

    def memory_of(self, fd: int, address: int, size: int, offset: int = 0) -> NpuMemory:
        """Import memory of another device by its file descriptor, mapped at `address`."""
        return self._memory("create_mem_from_fd", fd, address, size, offset)

    def _memory(self, function: str, *arguments: Any) -> NpuMemory:
        owner = self._held
        pointer = self.library.function(function)(owner.number, *arguments)
        if not pointer:
            raise api.failure(-4, f"{self.name} gets no memory for its inputs and outputs.")
        tensor_mem = structure("tensor_mem").from_address(pointer)
        buffer = (c.c_uint8 * tensor_mem.size).from_address(
            tensor_mem.virt_addr + tensor_mem.offset
        )
        weakref.finalize(buffer, _end_memory, self.library.function("destroy_mem"), owner, pointer)
        return NpuMemory(
            tensor_mem.virt_addr + tensor_mem.offset,
            tensor_mem.size,
            tensor_mem.fd,
            pointer,
            tensor_mem.offset,
            buffer,
        )

    def use(self, memory: NpuMemory, tensor: NpuTensor, **changed: int) -> None:
        """Bind `memory` to an input or output; `changed` overrides its attributes (type, fmt,
        pass_through).
        """
        raw = structure("tensor_attr").from_buffer_copy(tensor.raw)
        for field, value in changed.items():
            setattr(raw, field, value)
        what = f"The memory of {tensor.name} is not accepted."
        self._call("set_io_mem", what, memory.pointer, c.byref(raw))

    def sync(self, memory: NpuMemory, way: Sync) -> None:
        """Flush or invalidate caches of `memory`. `run` does so itself, unless the context was made
        with NO_INPUT_FLUSH or NO_OUTPUT_FLUSH.
        """
        self._call(
            "mem_sync", "The caches of NPU memory cannot be synchronized.", memory.pointer, int(way)
        )

    # ---- running --------------------------------------------------------------------

    def run(self) -> None:
        """Run the model, and return when the outputs are complete."""
        with self._lock:
            try:
                self._call("run", f"{self.name} did not run on the NPU.", None)
            finally:
                # Says more than the library, which may go on as if nothing had happened.
                if self._custom:
                    self._custom.raise_failure(self.name)
        self._ran = True

    def set_inputs(self, tensors: Sequence[NpuTensor], arrays: Sequence[Array]) -> None:
        """Hand over contiguous inputs, which the library copies and converts.

        4-D arrays are (N, H, W, C), whatever they hold: in any other order the library copies
        nothing and reports no error.
        """
        rows = (structure("input") * len(arrays))()
        for row, tensor, array in zip(rows, tensors, arrays, strict=True):
            row.index, row.buf, row.size = tensor.index, array.ctypes.data, array.nbytes
            row.type = api.TYPES[array.dtype.name]
            row.fmt = Format.NHWC if array.ndim == 4 else Format.UNDEFINED
        what = f"{self.name} does not accept its inputs."
        self._call("inputs_set", what, len(arrays), c.byref(rows))

    def get_outputs(self, arrays: Sequence[Array], *, floats: bool = False) -> None:
        """Copy the outputs into contiguous arrays of their own types, in the graph's order;
        `floats` makes the library convert those to float32 whose array is float32.
        """
        rows = (structure("output") * len(arrays))()
        for index, (row, array) in enumerate(zip(rows, arrays, strict=True)):
            # Whole numbers (int64) stay: in four bytes they would not fit.
            row.is_prealloc, row.index = 1, index
            row.want_float = int(floats and array.dtype == "float32")
            row.buf, row.size = array.ctypes.data, array.nbytes
        what = f"{self.name} does not return its outputs."
        self._call("outputs_get", what, len(arrays), c.byref(rows), None)
        self._call("outputs_release", what, len(arrays), c.byref(rows))


def _format_shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
