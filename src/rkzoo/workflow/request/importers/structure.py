"""Whether a file is of the format that its suffix says, before a framework is asked for."""

from __future__ import annotations

from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import open_file, os_errors_explained

_HEAD = 4096
# Fields of a GraphDef: nodes, versions, library, version (a number), where nodes come from.
_NODES, _VERSIONS, _LIBRARY, _VERSION, _DEBUG = 0x0A, 0x22, 0x12, 0x18, 0x2A


def check_structure(path: Path) -> None:
    """Raise RkzooError for a .tflite or .pb that cannot be one."""
    check = {".tflite": _tflite, ".pb": _graph_def}.get(path.suffix.lower())
    if check is None:
        return
    with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
        head = file.read(_HEAD)
        size = file.seek(0, 2)
    why = check(head, size)
    if why:
        raise RkzooError(
            f"{path} is not a model that can be read.",
            why,
            "Copy the file again, or export the model to ONNX.",
        )


def _tflite(head: bytes, size: int) -> str:
    """Why this is no flatbuffer of TensorFlow Lite; "" if it may be one."""
    if head[4:8] != b"TFL3":
        return "It lacks the mark of TensorFlow Lite, TFL3."
    root = int.from_bytes(head[:4], "little")
    if root < 8 or root + 4 > size:
        return "It is cut short, or damaged: its root lies beyond its end."
    if root + 4 <= len(head):
        # The table says how far before it (or behind it) its list of fields begins.
        table = root - int.from_bytes(head[root : root + 4], "little", signed=True)
        if not 0 < table <= size - 4:
            return "It is damaged: its list of fields lies outside of it."
    return ""


def _graph_def(head: bytes, size: int) -> str:
    """Why this is no frozen graph; "" if it may be one."""
    at = 0
    while at < len(head):
        tag, at = head[at], at + 1
        if tag not in (_NODES, _VERSIONS, _LIBRARY, _VERSION, _DEBUG):
            return "It is no frozen graph of TensorFlow."
        value, at = _varint(head, at)
        if at >= len(head) and at < size:
            return ""  # as far as was read
        if tag == _VERSION:
            continue
        if value < 0 or at + value > size:
            return "It is cut short, or no frozen graph of TensorFlow."
        if tag == _NODES and value and head[at : at + 1] not in (b"", b"\n"):
            return "It is no frozen graph of TensorFlow: an operator has no name."
        at += value
    return ""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of protobuf, and where it ends; -1 for none."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            return -1, at
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    return -1, at
