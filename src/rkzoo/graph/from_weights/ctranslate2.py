"""CTranslate2 weight reader (model.bin, version 6)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.graph.onnx.view import Array

_VERSION = 6
_DTYPES = ("float32", "int8", "int16", "int32", "float16")


def weights(parts: Iterable[Path]) -> dict[str, Array]:
    """Read all variables of a CTranslate2 model.bin.

    Args:
        parts: The pieces of the file, in order.

    Returns:
        Arrays by variable name. An alias maps to the array it refers to; float16 stays float16.

    Raises:
        RkzooError: The file cannot be read, is incomplete, or has another version.
    """
    files = list(parts)
    with os_errors_explained(f"{files[0]} cannot be read."):
        data = b"".join(path.read_bytes() for path in files)
    try:
        return _Reader(data).weights()
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise RkzooError(
            f"{files[0]} holds no weights that can be read.",
            f"It is not a whole model.bin of CTranslate2, version {_VERSION} ({error}).",
            "Fetch it again with rkzoo fetch.",
        ) from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def weights(self) -> dict[str, Array]:
        version = self._number("I")
        if version != _VERSION:
            raise ValueError(f"version {version}")
        self._text()  # name of the architecture
        self._number("I")  # revision of the architecture
        weights = {}
        for _ in range(self._number("I")):
            name = self._text()
            weights[name] = self._array()
        for _ in range(self._number("I")):
            alias = self._text()
            weights[alias] = weights[self._text()]
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes too many")
        return weights

    def _number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f"<{kind}", self._data, self._at)
        self._at += struct.calcsize(kind)
        return int(value)

    def _bytes(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise ValueError("it ends too early")
        self._at += count
        return piece

    def _text(self) -> str:
        return self._bytes(self._number("H")).rstrip(b"\0").decode()

    def _array(self) -> Array:
        shape = [self._number("I") for _ in range(self._number("B"))]
        dtype = _DTYPES[self._number("B")]
        return np.frombuffer(self._bytes(self._number("I")), dtype).reshape(shape)
