"""Model files as data.

A board only runs .rknn files and has no onnx, yet it loads the rooms that know of both. So
where the package is missing, its name stands for something that says so when it is used.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from rkzoo.errors import RkzooError


class _Missing(ModuleType):
    """`onnx`, or a part of it, on a machine without it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self.__name__}.{name}")

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RkzooError(
            "ONNX models cannot be handled here.",
            "The package onnx is not installed, since a board runs .rknn files only.",
            'Do this on a PC, or install it with: pip install "rkzoo[pc]"',
        )


def _installed() -> bool:
    try:
        return "onnx" in sys.modules or find_spec("onnx") is not None
    except ImportError:
        return False


if not _installed():
    for name in ("onnx", "onnx.external_data_helper"):
        sys.modules[name] = _Missing(name)
