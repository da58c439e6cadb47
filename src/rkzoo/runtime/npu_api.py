"""C API of Rockchip's NPU libraries (librknnrt, librknnmrt) as Python data.

Structures, constants and the meaning of error codes, written from the published interface (version
2.3.2). No device access here.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from functools import cache
from typing import Any

from rkzoo.errors import RkzooError

MAX_DIMS = 16
MAX_NAME = 256
MAX_SHAPES = 512
CUSTOM_BYTES = 1024


class Query(IntEnum):
    """Queries of a context. After MEM_SIZE some versions (1.5.2) crash when the context is
    duplicated, and after memory was set, NATIVE_OUTPUT_ATTR returns other values.
    """

    IN_OUT_NUM = 0
    INPUT_ATTR = 1
    OUTPUT_ATTR = 2
    PERF_DETAIL = 3
    PERF_RUN = 4
    SDK_VERSION = 5
    MEM_SIZE = 6
    CUSTOM_STRING = 7
    NATIVE_INPUT_ATTR = 8
    NATIVE_OUTPUT_ATTR = 9
    NATIVE_NHWC_INPUT_ATTR = 10
    NATIVE_NHWC_OUTPUT_ATTR = 11
    DEVICE_MEM_INFO = 12
    INPUT_DYNAMIC_RANGE = 13
    CURRENT_INPUT_ATTR = 14
    CURRENT_OUTPUT_ATTR = 15
    CURRENT_NATIVE_INPUT_ATTR = 16
    CURRENT_NATIVE_OUTPUT_ATTR = 17


class Type(IntEnum):
    """Data types of tensors; `DTYPES` has those that numpy supports."""

    FLOAT32 = 0
    FLOAT16 = 1
    INT8 = 2
    UINT8 = 3
    INT16 = 4
    UINT16 = 5
    INT32 = 6
    UINT32 = 7
    INT64 = 8
    BOOL = 9
    INT4 = 10
    BFLOAT16 = 11


class Format(IntEnum):
    """Memory layouts of tensors."""

    NCHW = 0
    NHWC = 1
    NC1HWC2 = 2
    UNDEFINED = 3


class Quantised(IntEnum):
    """Quantization schemes of tensors."""

    NONE = 0
    DFP = 1
    AFFINE = 2


class Cores(IntFlag):
    """NPU cores that a context may use. AUTO: the driver chooses for each run."""

    AUTO = 0
    CORE_0 = 1
    CORE_1 = 2
    CORE_2 = 4
    ALL = 0xFFFF


class Sync(IntFlag):
    """Directions of a cache synchronization."""

    TO_DEVICE = 1
    FROM_DEVICE = 2


class Init(IntFlag):
    """Flags of a new context, without those for externally allocated memory."""

    NONE = 0
    PRIORITY_MEDIUM = 1
    PRIORITY_LOW = 2
    ASYNC = 4
    COLLECT_PERF = 8
    SHARE_WEIGHTS = 0x20
    MODEL_INFO_ONLY = 0x100
    ENABLE_SRAM = 0x800
    SHARE_SRAM = 0x1000
    KEEP_PROCESS_PRIORITY = 0x2000
    NO_INPUT_FLUSH = 0x4000
    NO_OUTPUT_FLUSH = 0x8000


DTYPES = {
    Type.FLOAT32: "float32",
    Type.FLOAT16: "float16",
    Type.INT8: "int8",
    Type.UINT8: "uint8",
    Type.INT16: "int16",
    Type.UINT16: "uint16",
    Type.INT32: "int32",
    Type.UINT32: "uint32",
    Type.INT64: "int64",
    Type.BOOL: "bool",
}
TYPES = {name: number for number, name in DTYPES.items()}


# ---- structures ---------------------------------------------------------------------

POINTER = "pointer"
CONTEXT = "context"
"""Types as wide as an address: a context handle has 32 bits on 32-bit Arm, 64 bits elsewhere."""

STRUCTURES: dict[str, tuple[tuple[str, Any], ...]] = {
    "input_output_num": (("n_input", c.c_uint32), ("n_output", c.c_uint32)),
    "tensor_attr": (
        ("index", c.c_uint32),
        ("n_dims", c.c_uint32),
        ("dims", c.c_uint32 * MAX_DIMS),
        ("name", c.c_char * MAX_NAME),
        ("n_elems", c.c_uint32),
        ("size", c.c_uint32),
        ("fmt", c.c_uint32),
        ("type", c.c_uint32),
        ("qnt_type", c.c_uint32),
        ("fl", c.c_int8),
        ("zp", c.c_int32),
        ("scale", c.c_float),
        ("w_stride", c.c_uint32),
        ("size_with_stride", c.c_uint32),
        ("pass_through", c.c_uint8),
        ("h_stride", c.c_uint32),
    ),
    "input_range": (
        ("index", c.c_uint32),
        ("shape_number", c.c_uint32),
        ("fmt", c.c_uint32),
        ("name", c.c_char * MAX_NAME),
        ("dyn_range", c.c_uint32 * MAX_DIMS * MAX_SHAPES),
        ("n_dims", c.c_uint32),
    ),
    "perf_detail": (("perf_data", POINTER), ("data_len", c.c_uint64)),
    "perf_run": (("run_duration", c.c_int64),),
    "sdk_version": (("api_version", c.c_char * 256), ("drv_version", c.c_char * 256)),
    "mem_size": (
        ("total_weight_size", c.c_uint32),
        ("total_internal_size", c.c_uint32),
        ("total_dma_allocated_size", c.c_uint64),
        ("total_sram_size", c.c_uint32),
        ("free_sram_size", c.c_uint32),
        ("reserved", c.c_uint32 * 10),
    ),
    "custom_string": (("string", c.c_char * CUSTOM_BYTES),),
    "tensor_mem": (
        ("virt_addr", POINTER),
        ("phys_addr", c.c_uint64),
        ("fd", c.c_int32),
        ("offset", c.c_int32),
        ("size", c.c_uint32),
        ("flags", c.c_uint32),
        ("priv_data", POINTER),
    ),
    "input": (
        ("index", c.c_uint32),
        ("buf", POINTER),
        ("size", c.c_uint32),
        ("pass_through", c.c_uint8),
        ("type", c.c_uint32),
        ("fmt", c.c_uint32),
    ),
    "output": (
        ("want_float", c.c_uint8),
        ("is_prealloc", c.c_uint8),
        ("index", c.c_uint32),
        ("buf", POINTER),
        ("size", c.c_uint32),
    ),
    "init_extend": (
        ("ctx", CONTEXT),
        ("real_model_offset", c.c_int32),
        ("real_model_size", c.c_uint32),
        ("model_buffer_fd", c.c_int32),
        ("model_buffer_flags", c.c_uint32),
        ("reserved", c.c_uint8 * 112),
    ),
    "run_extend": (
        ("frame_id", c.c_uint64),
        ("non_block", c.c_int32),
        ("timeout_ms", c.c_int32),
        ("fence_fd", c.c_int32),
    ),
    "output_extend": (("frame_id", c.c_uint64),),
    "custom_op_context": (
        ("target", c.c_uint32),
        ("internal_ctx", CONTEXT),
        ("cl_context", POINTER),
        ("cl_command_queue", POINTER),
        ("cl_kernel", POINTER),
        ("priv_data", POINTER),
    ),
    "custom_op_tensor": (("attr", "tensor_attr"), ("mem", "tensor_mem")),
    "custom_op": (
        ("version", c.c_uint32),
        ("target", c.c_uint32),
        ("op_type", c.c_char * MAX_NAME),
        ("cl_kernel_name", c.c_char * MAX_NAME),
        ("cl_kernel_source", POINTER),
        ("cl_source_size", c.c_uint64),
        ("cl_build_options", c.c_char * MAX_NAME),
        ("init", POINTER),
        ("prepare", POINTER),
        ("compute", POINTER),
        ("compute_native", POINTER),
        ("destroy", POINTER),
    ),
}


HERE = 8 * c.sizeof(c.c_void_p)
"""Address size of this process in bits, which need not be the kernel's."""


@cache
def structure(name: str, bits: int = HERE) -> Any:
    """The ctypes class of a structure, for 64-bit or 32-bit processes."""
    return laid_out(name, STRUCTURES[name], bits)


def laid_out(name: str, fields: tuple[tuple[str, Any], ...], bits: int) -> Any:
    """A ctypes class of these fields, some of which are as wide as an address, or structures."""
    wide = {64: c.c_uint64, 32: c.c_uint32}[bits]

    def sized(kind: Any) -> Any:
        if kind in (POINTER, CONTEXT):
            return wide
        return structure(kind, bits) if isinstance(kind, str) else kind

    return type(name, (c.Structure,), {"_fields_": [(f, sized(kind)) for f, kind in fields]})


def context_type(bits: int = HERE) -> Any:
    """The ctypes type of a context handle."""
    return c.c_uint64 if bits == 64 else c.c_uint32


_OUT = c.c_void_p
_U32, _I32, _U64 = c.c_uint32, c.c_int32, c.c_uint64

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "init": (_OUT, c.c_void_p, _U32, _U32, _OUT),
    "dup_context": (_OUT, _OUT),
    "destroy": (CONTEXT,),
    "query": (CONTEXT, _U32, _OUT, _U32),
    "inputs_set": (CONTEXT, _U32, _OUT),
    "set_batch_core_num": (CONTEXT, c.c_int),
    "set_core_mask": (CONTEXT, _U32),
    "run": (CONTEXT, _OUT),
    "wait": (CONTEXT, _OUT),
    "outputs_get": (CONTEXT, _U32, _OUT, _OUT),
    "outputs_release": (CONTEXT, _U32, _OUT),
    "create_mem": (CONTEXT, _U32),
    "create_mem_from_fd": (CONTEXT, _I32, c.c_void_p, _U32, _I32),
    "destroy_mem": (CONTEXT, c.c_void_p),
    "set_io_mem": (CONTEXT, c.c_void_p, _OUT),
    "set_input_shapes": (CONTEXT, _U32, _OUT),
    "mem_sync": (CONTEXT, c.c_void_p, _U32),
    "register_custom_ops": (CONTEXT, _OUT, _U32),
}
"""Argument types by name, without the prefix `rknn_`. They return an error code, those in
`MAKE_MEMORY` an address.
"""

MAKE_MEMORY = frozenset({"create_mem", "create_mem_from_fd"})


# ---- errors -------------------------------------------------------------------------

_UPDATE = "Run rkzoo doctor: it names the part to update."
_CONVERT = "Convert the model again for this board's chip: rkzoo convert MODEL --soc CHIP."

_ERRORS: dict[int, tuple[str, str]] = {
    -1: (
        "The NPU's library only reports that it failed.",
        "Run rkzoo doctor; `sudo dmesg | grep -i rknpu` shows the driver's messages.",
    ),
    -2: (
        "The NPU did not answer in time.",
        "See with rkzoo doctor what else keeps it busy; if it persists, restart the board.",
    ),
    -3: (
        "The NPU cannot be reached.",
        "Run rkzoo doctor: the driver, its device file or the permission to open it is missing.",
    ),
    -4: (
        "There is not enough memory that the NPU can use.",
        "End other programs that use the NPU, use a smaller model, or run rkzoo doctor.",
    ),
    -5: ("The NPU's library does not accept an argument.", _UPDATE),
    -6: (
        "The NPU's library cannot use the model: it returns this for another chip, too little"
        " memory, and a damaged or newer file alike.",
        "Run rkzoo doctor, which shows the chip, the free memory and the library's version.",
    ),
    -7: ("The model is not open on the NPU any more.", "Open it again."),
    -8: (
        "The NPU's library does not accept the input.",
        "Compare its size and type with rkzoo inspect.",
    ),
    -9: ("The NPU's library does not accept the form of the requested output.", _UPDATE),
    -10: ("The NPU's library and its driver are not compatible.", _UPDATE),
    -11: ("The model was compiled in advance for another NPU driver.", _CONVERT),
    -12: ("The model was optimised for another NPU driver.", _CONVERT),
    -13: ("The model was built for another chip.", _CONVERT),
}
# Once a model is open, device and driver are known to be there.
_ERRORS_OF: dict[tuple[str, int], tuple[str, str]] = {
    ("run", -1): (
        "The driver did not finish the job in time, or rejected it.",
        "Run rkzoo doctor; `sudo dmesg | grep -i rknpu` shows the driver's messages.",
    ),
}
# Bugs of the program, not faults of its user.
_OURS = frozenset({-5, -7, -9})
_MOST_WORDS = 400


class NpuError(RkzooError):
    """An error code of the NPU's library (`number`); `said` is what it printed about it."""

    def __init__(self, what: str, why: str, fix: str, number: int, text: str) -> None:
        code = 1 if number in _OURS else 2
        super().__init__(what, f"{why} (error {number})", fix, code=code)
        self.number, self.log_lines = number, text


def failure(number: int, what: str, values: Sequence[str] = (), *, function: str = "") -> NpuError:
    """Make an error from an error code.

    Args:
        number: The code.
        what: What was being done, as a sentence.
        values: The lines that the library printed.
        function: The function that returned it.
    """
    unknown = ("The NPU's library returned an unknown error code.", _UPDATE)
    why, fix = _ERRORS_OF.get((function, number)) or _ERRORS.get(number, unknown)
    # The last line often says only that the call failed.
    words = "; ".join(dict.fromkeys(line for line in values if line))[:_MOST_WORDS]
    if words:
        why = f'{why} It says: "{words}".'
    return NpuError(what, why, fix, number, words)
