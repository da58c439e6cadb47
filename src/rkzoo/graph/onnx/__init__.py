"""ONNX graphs as data: read, look at, rewrite, write.

A board runs .rknn files and has no onnx. Whoever needs it nevertheless comes through here.
"""

from rkzoo.errors import RkzooError

try:
    import onnx  # noqa: F401
except ImportError as error:
    missing = isinstance(error, ModuleNotFoundError)
    raise RkzooError(
        "ONNX models cannot be handled here.",
        "The package onnx is not installed, since a board runs .rknn files only."
        if missing
        else f"The package onnx cannot be imported: {error}.",
        'Do this on a PC, or install it with: pip install "rkzoo[pc]"',
    ) from error
