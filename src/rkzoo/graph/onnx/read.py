"""ONNX file loader with readable errors for damaged and foreign files."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained

# The largest protobuf message, so a limit of onnx and of the toolkit.
MAX_BYTES = 2**31 - 1
_RKNN_MAGIC = b"RKNN"
_UNPACKED = 10_000_000


def load(path: Path) -> onnx.ModelProto:
    """Load an ONNX model with its external weights.

    Args:
        path: The .onnx file.

    Returns:
        The model, weights in memory.

    Raises:
        RkzooError: The file is missing, empty, truncated, not ONNX, or larger than 2 GB, or a file
            with its weights is missing.
    """
    path = Path(path)
    with os_errors_explained(f"{path} cannot be read."):
        size = path.stat().st_size
        if path.is_dir():
            raise IsADirectoryError(None, "It is a folder", str(path))
        if size > MAX_BYTES:
            raise _too_large(path, size)
        data = path.read_bytes()
    model = _parse(path, data)
    _load_weights(path, model)
    try:
        _check_graph(model.graph)
    except (ValueError, TypeError) as error:  # a name that is not UTF-8 is a ValueError
        raise _not_onnx(path, "It is damaged: a part of it does not fit the rest.") from error
    return model


def parse(graph: bytes) -> onnx.ModelProto:
    """Parse a model that rkzoo itself serialized."""
    model = onnx.ModelProto()
    model.ParseFromString(graph)
    return model


def load_structure(path: Path) -> onnx.ModelProto:
    """Load a model that rkzoo itself wrote, without its external weights."""
    return onnx.load(path, load_external_data=False)


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """The metadata_props of the exporter, key to text."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    if not data:
        raise _not_onnx(path, "The file is empty.")
    if data.startswith(_RKNN_MAGIC):
        raise RkzooError(
            f"{path} is a converted .rknn file, not an ONNX model.",
            "A .rknn cannot be converted again.",
            "Give the .onnx it was made from.",
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, by whichever implementation
        raise _not_onnx(path, "It is cut short, or of another format.") from error
    # Foreign bytes can parse as a protobuf message without any of ONNX's fields.
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise _not_onnx(path, "No graph was found in it.")
    if not model.graph.output:
        raise _not_onnx(path, "Its graph has no outputs.")
    return model


def _check_graph(graph: onnx.GraphProto) -> None:
    """Check what later code relies on: tensor data fill their shapes, nodes have outputs, names are
    text.

    Looser than onnx.checker, which rejects graphs that run. Raises ValueError.
    """
    for info in (*graph.input, *graph.output):
        _check_texts(info.name, *(d.dim_param for d in info.type.tensor_type.shape.dim))
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        _check_texts(node.name, node.op_type, node.domain, *node.input, *node.output)
        _check_texts(*(attribute.name for attribute in node.attribute))
        if not any(node.output) or not node.op_type:
            raise ValueError("a node without a type or an output")
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _check_tensor(attribute.t)
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _check_graph(body)


def _check_texts(*texts: object) -> None:
    # For text that is not UTF-8 one protobuf implementation raises ValueError, another returns
    # bytes.
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name that is no text")


def _check_tensor(tensor: onnx.TensorProto) -> None:
    _check_texts(tensor.name)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError as error:
        raise ValueError(f"{tensor.name} is of an unknown type") from error
    count = 1
    for size in tensor.dims:
        if size < 0:
            raise ValueError(f"{tensor.name} has a negative size")
        count *= size
    # Sub-byte types are packed, and typed fields are rare: onnx unpacks both.
    if tensor.HasField("raw_data") and dtype.kind in "fiub":
        if dtype.itemsize * count != len(tensor.raw_data):
            raise ValueError(f"{tensor.name} does not fill its shape")
    elif count <= _UNPACKED:
        onnx.numpy_helper.to_array(tensor)


def _load_weights(path: Path, model: onnx.ModelProto) -> None:
    external = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if not external:
        return
    files = sorted({ExternalDataInfo(tensor).location for tensor in external})
    missing = [name for name in files if not (path.parent / name).is_file()]
    if missing:
        raise RkzooError(
            f"The weights of {path} are missing.",
            f"The model keeps them in {', '.join(missing)}, which is not beside it.",
            "Put that file into the same folder, under that name.",
        )
    total = sum((path.parent / name).stat().st_size for name in files)
    if total > MAX_BYTES:
        raise _too_large(path, total)
    try:
        load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx raises its own, ValueError and OSError here
        raise RkzooError(
            f"The weights of {path} cannot be read.",
            f"{', '.join(files)} does not hold what the model expects of it.",
            "Copy both files again, or export the model again.",
        ) from error


def _not_onnx(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{path} is not an ONNX model that can be read.",
        why,
        "Copy the file again, or export the model to ONNX again.",
    )


def _too_large(path: Path, size: int) -> RkzooError:
    return RkzooError(
        f"{path} is too large.",
        f"It has {size / 2**30:.1f} GB; the toolkit takes ONNX models up to 2 GB.",
        "Use a smaller variant of the model.",
    )
