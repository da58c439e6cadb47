"""Loads an ONNX file, and turns everything that can be wrong with one into one sentence."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model

from rkzoo.errors import RkzooError
from rkzoo.files import explained

# protobuf cannot hold more in one message, so neither the toolkit nor onnx can.
MAX_BYTES = 2**31 - 1
_RKNN_MAGIC = b"RKNN"


def load(path: Path) -> onnx.ModelProto:
    """The model in `path`, weights stored beside it included.

    Raises RkzooError when the file is missing, empty, cut short, no ONNX, larger than
    2 GB, or when a file with its weights is missing.
    """
    path = Path(path)
    with explained(f"{path} cannot be read."):
        size = path.stat().st_size
        if path.is_dir():
            raise IsADirectoryError(None, "It is a folder", str(path))
        if size > MAX_BYTES:
            raise _too_large(path, size)
        data = path.read_bytes()
    model = _parse(path, data)
    _load_weights(path, model)
    return model


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """What the exporter wrote beside the graph: metadata_props, key to text."""
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
    # Foreign bytes can pass as a protobuf message that has none of ONNX's fields.
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise _not_onnx(path, "No graph was found in it.")
    if not model.graph.output:
        raise _not_onnx(path, "Its graph has no outputs.")
    return model


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
            "Copy both files again, or export the model anew.",
        ) from error


def _not_onnx(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{path} is not an ONNX model that can be read.",
        why,
        "Copy the file again, or export the model to ONNX anew.",
    )


def _too_large(path: Path, size: int) -> RkzooError:
    return RkzooError(
        f"{path} is too large.",
        f"It has {size / 2**30:.1f} GB; the toolkit takes ONNX models up to 2 GB.",
        "Use a smaller variant of the model.",
    )
