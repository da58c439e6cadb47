"""ONNX graphs: reading, analysis, rewriting, writing.

A board runs .rknn files and has no onnx package; importing this package there raises RkzooError.
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
