"""What the NPU's library calls for the custom operators of a model.

Written from the published interface (rknn_custom_op.h of version 2.3.2). The library hands float32
over in the graph's order, or whole numbers and truth values where the graph has them; ONNX Runtime
computes.
"""

from __future__ import annotations

import ctypes as c
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from rkzoo.contract.custom_operator import CustomOperator
from rkzoo.errors import RkzooError
from rkzoo.ort import BoundedSession
from rkzoo.runtime import npu_api as api
from rkzoo.runtime.npu_api import Format, structure
from rkzoo.session import Array

_CPU, _VERSION = 1, 1
_COMPUTE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_uint32, c.c_void_p, c.c_uint32)
_NUMPY = {"tensor(float)": "float32", "tensor(bool)": "bool", "tensor(int64)": "int64"}


class Callbacks:
    """The custom operators of one context, which must live as long as it does.

    Args:
        operators: All of them.

    Attributes:
        operators: The same.
        rows: The C structures to register.

    Raises:
        RkzooError: ONNX Runtime is missing, or refuses one.
    """

    def __init__(self, operators: Sequence[CustomOperator]) -> None:
        self.operators = tuple(operators)
        self._failure: tuple[str, Exception] | None = None
        self._calls = [
            _COMPUTE(partial(self._compute, one.operator, _opened(one))) for one in operators
        ]
        self.rows = (structure("custom_op") * len(self.operators))()
        for row, one, call in zip(self.rows, operators, self._calls, strict=True):
            row.version, row.target, row.op_type = _VERSION, _CPU, one.type.encode()
            row.compute = c.cast(call, c.c_void_p).value

    def raise_failure(self, name: str) -> None:
        """Raises RkzooError for what went wrong in a run of the model `name`, once."""
        if self._failure is not None:
            (operator, error), self._failure = self._failure, None
            raise RkzooError(
                f"The custom operator {operator} of {name} could not be computed.",
                f"{error}",
                "Convert the model again, and report it if it remains.",
                code=1,
            ) from error

    def _compute(
        self,
        operator: str,
        session: BoundedSession,
        _: Any,
        ins: int,
        n_in: int,
        outs: int,
        n_out: int,
    ) -> int:
        # Nothing can be raised through the library.
        try:
            ends = session.session.get_inputs()
            given = [_array(tensor) for tensor in _tensors(ins, n_in)]
            feeds = {
                end.name: np.ascontiguousarray(array, _NUMPY[end.type])
                for end, array in zip(ends, given, strict=True)
            }
            made = session.run(feeds)
            for tensor, value in zip(_tensors(outs, n_out), made, strict=True):
                place = _array(tensor)
                place[...] = value.reshape(place.shape)
        except Exception as error:
            self._failure = (operator, error)
            return -1
        return 0


def _opened(operator: CustomOperator) -> BoundedSession:
    what = f"The custom operator {operator.type}"
    try:
        return BoundedSession(
            operator.model, what=what, fix="Convert the model again with rkzoo convert.", threads=1
        )
    except ImportError as error:
        raise RkzooError(
            f"{what} cannot be computed here.",
            "ONNX Runtime computes it, which is not installed.",
            "Install it: pip install onnxruntime",
        ) from error


def _tensors(address: int, count: int) -> Any:
    return (structure("custom_op_tensor") * count).from_address(address)


def _array(tensor: Any) -> Array:
    """The library's memory of a tensor, in the graph's order."""
    attr, memory = tensor.attr, tensor.mem
    shape = tuple(attr.dims[: attr.n_dims])
    if (
        attr.type not in api.DTYPES
        or attr.fmt == Format.NC1HWC2
        or attr.n_elems != math.prod(shape)
    ):
        raise ValueError(
            f"The library describes a tensor in a way that is not known: type {attr.type}, format "
            f"{attr.fmt}, {attr.n_elems} numbers, {shape}."
        )
    kind = np.dtype(api.DTYPES[attr.type])
    place = memory.virt_addr + memory.offset
    data = (c.c_uint8 * (attr.n_elems * kind.itemsize)).from_address(place)
    array: Array = np.frombuffer(data, kind).reshape(shape)
    return array.transpose(0, 3, 1, 2) if attr.fmt == Format.NHWC and len(shape) == 4 else array
