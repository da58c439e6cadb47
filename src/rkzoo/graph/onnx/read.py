"""ONNX file loader with readable errors for damaged and foreign files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from rkzoo.errors import RkzooError, printable
from rkzoo.files import os_errors_explained, read_bytes
from rkzoo.graph.onnx.view import captured_by
from rkzoo.ort import MOST_BYTES, too_large

# The largest protobuf message, so a limit of onnx and of the toolkit.
MAX_BYTES = 2**31 - 1
_RKNN_MAGIC = b"RKNN"
_UNPACKED = 10_000_000
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
# Functions are unfolded where they are called, and may call each other.
_MOST_NODES, _DEEPEST = 1_000_000, 100


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
        if size > MAX_BYTES:
            raise _too_large(path, size)
        data = read_bytes(path, MAX_BYTES)
    model = _parse(path, data)
    try:
        for tensor in _tensors(model.graph):
            _check_texts(tensor.name, *(v for e in tensor.external_data for v in (e.key, e.value)))
        _load_weights(path, model)
        _check_graph(model.graph)
    except (ValueError, TypeError) as error:  # a name that is not UTF-8 is a ValueError
        raise _not_onnx(path, "It is damaged: a part of it does not fit the rest.") from error
    _check_functions(path, model)
    _check_order(path, model.graph)
    _check_inputs(model.graph)
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


def _check_tensor(tensor: TensorProto) -> None:
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
    elif 2 * max(len(tensor.raw_data), *(len(getattr(tensor, f)) for f in _TYPED)) < count:
        raise ValueError(f"{tensor.name} does not fill its shape")


def _load_weights(path: Path, model: onnx.ModelProto) -> None:
    external = [t for t in _tensors(model.graph) if t.data_location == TensorProto.EXTERNAL]
    if not external:
        return
    places = [_Place.of(path, tensor) for tensor in external]
    files = sorted({place.file for place in places})
    missing = sorted(file.name for file in files if not file.exists())
    if missing:
        raise RkzooError(
            f"The weights of {path} are missing.",
            f"The model keeps them in {', '.join(missing)}, which is not beside it.",
            "Put that file into the same folder, under that name.",
        )
    total = sum(file.stat().st_size for file in files)
    if total > MAX_BYTES:
        raise _too_large(path, total)
    with os_errors_explained(f"The weights of {path} cannot be read."):
        read = {file: read_bytes(file, MAX_BYTES) for file in files}
    if sum(place.length_in(read[place.file]) for place in places) > MAX_BYTES:
        raise _unread(path, "Several weights together are larger than their file.")
    for tensor, place in zip(external, places, strict=True):
        stop = place.offset + place.length_in(read[place.file])
        if stop > len(read[place.file]):
            raise _unread(path, f"{tensor.name} would lie beyond the end of {place.file.name}.")
        tensor.raw_data = read[place.file][place.offset : stop]
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


@dataclass(frozen=True)
class _Place:
    """Where the data of a tensor lie; `length` None is up to the end of the file."""

    file: Path
    offset: int
    length: int | None

    @classmethod
    def of(cls, path: Path, tensor: TensorProto) -> _Place:
        said = {entry.key: entry.value for entry in tensor.external_data}
        location = said.get("location", "")
        folder = path.parent.resolve()
        file = Path(location)
        if not location or "\0" in location or file.is_absolute() or ".." in file.parts:
            raise _unread(path, f"{tensor.name} names a file outside of the model's folder.")
        inside = (folder / file).resolve()
        # In a cache of links, model and weights are links into one folder.
        if folder not in inside.parents and inside.parent != path.resolve().parent:
            raise _unread(path, f"{location} is a link that leads out of the model's folder.")
        numbers = [said.get("offset", "0"), said.get("length", "-1")]
        if not all(re.fullmatch(r"[0-9]{1,18}", n) for n in (numbers[0], said.get("length", "0"))):
            raise _unread(path, f"{tensor.name} has an offset or length that is no whole number.")
        offset, length = map(int, numbers)
        return cls(path.parent / file, offset, None if length < 0 else length)

    def length_in(self, data: bytes) -> int:
        return max(len(data) - self.offset, 0) if self.length is None else self.length


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every tensor of a graph and of the bodies inside."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _tensors(body)


def _unread(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"The weights of {path} cannot be read.",
        printable(why, "\N{REPLACEMENT CHARACTER}"),
        "Copy the model with its weights again, or export it again.",
    )


# ---- structure ----------------------------------------------------------------------


def _check_order(path: Path, graph: onnx.GraphProto) -> None:
    """Raise RkzooError where a tensor is made twice, or of itself."""
    stored = {tensor.name for tensor in graph.initializer}
    there = set(stored)
    made: list[str] = [info.name for info in graph.input if info.name not in stored]
    made += [name for node in graph.node for name in node.output if name]
    for name in made:
        if name in there:
            raise _not_onnx(path, f"Its tensor {name[:80]} is made twice.")
        there.add(name)
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = [
        {maker[name] for name in (*node.input, *captured_by(node)) if name in maker}
        for node in graph.node
    ]
    if all(before < index for index, befores in enumerate(needs) for before in befores):
        return
    readers: dict[int, list[int]] = {}
    for index, befores in enumerate(needs):
        for before in befores:
            readers.setdefault(before, []).append(index)
    left = [len(befores) for befores in needs]
    ready = [index for index, count in enumerate(left) if not count]
    for index in ready:
        for reader in readers.get(index, ()):
            left[reader] -= 1
            if not left[reader]:
                ready.append(reader)
    if len(ready) < len(left):
        node = graph.node[next(index for index, count in enumerate(left) if count)]
        name = next(iter(node.output), "")
        raise _not_onnx(path, f"Its graph is cyclic: {name[:80]} is made of itself.")


def _check_functions(path: Path, model: onnx.ModelProto) -> None:
    """Raise RkzooError where functions call themselves, or would unfold to too many nodes."""
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], above: frozenset[tuple[str, str]]) -> int:
        if key in above or len(above) > _DEEPEST:
            raise _not_onnx(path, f"Its function {key[1][:80]} calls itself.")
        if key not in sizes:
            sizes[key] = count(bodies[key], above | {key})
        return sizes[key]

    def count(nodes: Iterable[onnx.NodeProto], above: frozenset[tuple[str, str]]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            total += size(key, above) if key in bodies else 1
            for attribute in node.attribute:
                for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    total += count(body.node, above)
        return total

    if model.functions and count(model.graph.node, frozenset()) > _MOST_NODES:
        raise _not_onnx(path, f"Its functions unfold to more than {_MOST_NODES} operators.")


def _check_inputs(graph: onnx.GraphProto) -> None:
    for info in graph.input:
        count = math.prod(d.dim_value for d in info.type.tensor_type.shape.dim if d.dim_value > 0)
        if count * 4 > MOST_BYTES:
            raise too_large(f"The input {info.name[:80]}", MOST_BYTES)


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
