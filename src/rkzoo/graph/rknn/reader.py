"""RKNN file reader, without the toolkit.

A file is `RKNN`, a 64-byte header, a payload and a JSON trailer. In container 6 the payload is a
FlatBuffer. In container 0x1004 (RV1103, RV1106 and mini builds) it starts with weights and
commands, and a FlatBuffer with other field numbers lies at its end; the first word of the payload
is that FlatBuffer's length. The field numbers were determined from files that RKNN-Toolkit2 2.3.2
and 2.5.0 wrote. Files are untrusted: no recursion, every offset is checked, every count is limited.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.files import open_file, os_errors_explained
from rkzoo.graph import literal

Target = Literal["NPU", "CPU", "other"]

SMALL = 0x1004
"""Container of chips whose NPU uses the small runtime library (RV1103, RV1106 and similar)."""

_HEADER = 64
_MAX_JSON = 64 << 20
_MAX_ITEMS = 50_000
_MAX_TEXT = 1 << 20
_MAX_NAME = 1024
_MAX_RANK = 16
_MAX_SHAPES, _MAX_SIDE = 256, 1 << 20


@dataclass(frozen=True)
class Operator:
    """An operator of the built model. `target` is where it runs."""

    type: str
    name: str
    target: Target


@dataclass(frozen=True)
class Normalisation:
    """Normalization that the NPU applies to an input: (x - mean) / std, in 0..255 units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


Shapes = dict[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class RknnFile:
    """The contents of a .rknn file.

    Attributes:
        container: Container format, 6 or 0x1004.
        platforms: Target chips.
        toolkit: Version of the toolkit that wrote the file.
        compiler: Its full compiler version string.
        framework: Framework of the original model.
        inputs: Inputs in the graph's layout, NCHW where `layout` says so.
        outputs: Outputs likewise. Quantized tensors have scale and zero point.
        native_inputs: Inputs in the NPU's layout: NHWC for an image, or the graph's own where the
            NPU has no layout of its own; empty where the file does not say.
        native_outputs: Outputs in the NPU's layout: NC1HWC2 with its padding.
        normalisation: Normalization by input name.
        operators: All operators, in order.
        custom: The custom string.
        custom_json: Its value where it is JSON.
        weight_bytes: Size of the weights as the NPU reads them, in bytes.
        memory_bytes: Working memory in bytes; only in container 0x1004.
        file_bytes: File size in bytes.
        shapes: Shapes by the name of an input or output, of a file that was built for several, in
            one order; empty for one. All other shapes are the first of them.
        batch: Samples that the library takes at once; all shapes are those of one.
    """

    container: int
    platforms: tuple[str, ...]
    toolkit: str
    compiler: str
    framework: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    native_inputs: tuple[TensorSpec, ...]
    native_outputs: tuple[TensorSpec, ...]
    normalisation: dict[str, Normalisation]
    operators: tuple[Operator, ...]
    custom: str
    custom_json: Any
    weight_bytes: int | None
    memory_bytes: int | None
    file_bytes: int
    batch: int = 1
    shapes: Shapes = field(default_factory=dict)

    @property
    def quantised(self) -> bool:
        """Whether any output is quantized."""
        return any(spec.scale is not None for spec in self.outputs)

    @property
    def steps(self) -> tuple[Operator, ...]:
        """The operators without the input and output nodes, which only copy data."""
        return tuple(o for o in self.operators if o.type not in _ENDS)

    @property
    def cpu_operators(self) -> tuple[Operator, ...]:
        """The steps that run on the CPU."""
        return tuple(o for o in self.steps if o.target == "CPU")


_ENDS = frozenset({"InputOperator", "OutputOperator"})


def read(path: Path) -> RknnFile:
    """Read a .rknn file.

    Raises:
        RkzooError: The file is missing, empty, truncated, damaged, encrypted, written by a toolkit
            before 1.5.2, or made for the first NPU generation.
    """
    path = Path(path)
    with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
        size = path.stat().st_size
        if size < _HEADER:
            raise _foreign(path, "It is empty." if not size else "It is far too short.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, _Buffer(data, 0, len(data)))


def _read(path: Path, file: _Buffer) -> RknnFile:
    magic = file.data[:4]
    if magic == b"RKCE":
        raise RkzooError(
            f"{path} is encrypted.",
            "Only the NPU's own library can open it, with the key.",
            "Look at the file it was made from instead.",
        )
    if magic != b"RKNN":
        raise _foreign(path, "It does not begin with the bytes RKNN.")
    container, length = file.number("Q", 8), file.number("Q", 16)
    if container in _OLD:
        raise RkzooError(
            f"{path} has file format {container}, of RKNN-Toolkit2 {_OLD[container]}.",
            f"It was made for librknnrt {_OLD[container]}, and rkzoo reads format 6, which"
            " toolkits from 1.5.2 on write.",
            "Convert the original model again, as in rkzoo convert MODEL.onnx --soc rk3588.",
        )
    if container not in _FIELDS:
        raise RkzooError(
            f"{path} is a .rknn of a kind that rkzoo cannot read (number {container}).",
            "It is damaged, encrypted, or made for the first NPU generation.",
            "Convert the original model again, as in rkzoo convert MODEL.onnx --soc rk3588.",
        )
    try:
        trailer = _trailer(file, _HEADER + length)
        payload = _Buffer(file.data, _HEADER, _HEADER + length)
        return _assemble(container, payload, trailer, file.end)
    except _Broken as error:
        raise RkzooError(
            f"{path} is cut short or damaged.",
            f"{error} does not lie where the file says it does.",
            "Copy the file again, or convert the model again.",
        ) from error


def _foreign(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{path} is not a .rknn file.", why, "Give a file that rkzoo convert or RKNN-Toolkit2 made."
    )


# ---- the JSON trailer ---------------------------------------------------------------


class _TensorDtype(msgspec.Struct, frozen=True):
    qnt_type: str = ""


class _NormTensor(msgspec.Struct):
    url: str
    tensor_id: int
    size: list[int] = []
    dtype: _TensorDtype = _TensorDtype()


class _Link(msgspec.Struct):
    left: str = ""
    right: str = ""
    right_tensor_id: int = -1


class _Trailer(msgspec.Struct):
    norm_tensor: list[_NormTensor] = []
    graph: list[_Link] = []
    target_platform: list[str] = []
    version: str = ""
    ori_network_platform: str = ""

    def named(self, side: str) -> list[_NormTensor]:
        by_id = {tensor.tensor_id: tensor for tensor in self.norm_tensor}
        ids = [
            link.right_tensor_id
            for link in self.graph
            if link.left == side and link.right == "norm_tensor"
        ]
        return [by_id[number] for number in ids if number in by_id]


def _trailer(file: _Buffer, at: int) -> _Trailer:
    length = file.number("Q", at)
    if length > min(_MAX_JSON, file.end - at - 8):
        raise _Broken("The description at its end")
    try:
        return msgspec.json.decode(file.data[at + 8 : at + 8 + length], type=_Trailer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Broken("The description at its end") from error


# ---- the FlatBuffer -----------------------------------------------------------------


class _Broken(Exception):
    """An offset points outside the file. The message names the missing part."""


class _Buffer:
    """Bounds-checked access to bytes start..end of a file. Positions are absolute in the file."""

    def __init__(self, data: mmap.mmap, start: int, end: int) -> None:
        if not 0 <= start <= end <= len(data):
            raise _Broken("Its main part")
        self.data, self.start, self.end = data, start, end

    def number(self, code: str, at: int) -> int:
        """A little-endian integer of struct type `code`."""
        return int(self._unpack(code, at, 1)[0])

    def _unpack(self, code: str, at: int, count: int) -> tuple[Any, ...]:
        layout = f"<{count}{code}"
        if at < self.start or at + struct.calcsize(layout) > self.end:
            raise _Broken("A part of it")
        return struct.unpack_from(layout, self.data, at)

    def follow(self, at: int) -> int:
        return at + self.number("I", at)

    def table(self, at: int) -> dict[int, int]:
        """Field number -> position, for the fields that are present."""
        fields = at - self.number("i", at)
        size = self.number("H", fields)
        offsets = self._unpack("H", fields + 4, min(max(size - 4, 0) // 2, 256))
        return {index: at + offset for index, offset in enumerate(offsets) if offset}

    def tables(self, fields: dict[int, int], number: int) -> list[int]:
        """Positions of the tables in a vector of tables; empty when the field is missing."""
        return [at + offset for at, offset in self._vector(fields, number, "I", _MAX_ITEMS)]

    def numbers(self, fields: dict[int, int], number: int, code: str, limit: int) -> list[Any]:
        return [value for _, value in self._vector(fields, number, code, limit)]

    def _vector(
        self, fields: dict[int, int], number: int, code: str, limit: int
    ) -> list[tuple[int, Any]]:
        if number not in fields:
            return []
        at = self.follow(fields[number])
        count = self.number("I", at)
        if count > limit:
            raise _Broken("A list in it")
        values = self._unpack(code, at + 4, count)
        return [(at + 4 + 4 * index, value) for index, value in enumerate(values)]

    def text(self, fields: dict[int, int], number: int | None, limit: int = _MAX_NAME) -> str:
        if number not in fields:
            return ""
        at = self.follow(fields[number])
        length = self.number("I", at)
        if length > limit or at + 4 + length > self.end:
            raise _Broken("A text in it")
        return bytes(self.data[at + 4 : at + 4 + length]).decode("utf-8", "replace")

    def scalar(self, fields: dict[int, int], number: int, code: str) -> int:
        return self.number(code, fields[number]) if number in fields else 0


@dataclass(frozen=True)
class _Fields:
    """Field numbers of one container, in the root table and in a tensor table."""

    version: int
    platform: int
    framework: int
    custom: int
    scale: int
    zero_point: int
    bytes: int
    batch: int | None = None  # the small library has none


# Field numbers common to both containers. Root: 2 graphs, 3 text with mean and std. Graph: 0
# tensors, 1 nodes, 2 inputs, 3 outputs. Tensor: 0 type, 1 layout, 2 kind, 3 native shape, 4 shape,
# 5 name. Node: 1 type, 2 name, 3 target.
_FIELDS = {
    6: _Fields(
        version=7, platform=8, framework=9, custom=11, scale=10, zero_point=11, bytes=12, batch=14
    ),
    SMALL: _Fields(version=5, platform=6, framework=7, custom=8, scale=6, zero_point=7, bytes=8),
}
# Older container formats that are not supported, and the toolkit that wrote them.
_OLD = {2: "1.4", 4: "1.5.0"}
_IDENTIFIER = b"RKNN"
_INPUT_KIND, _WEIGHT_KIND = 1, 4
_PIXELS = (1, 3, 4)  # an input with this many channels is taken as an image
_BLOCKS = 64  # layout code of NC1HWC2
_TARGETS: dict[int, Target] = {0: "CPU", 2: "NPU"}
# ONNX dtype codes.
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    16: "bfloat16",
}


def _assemble(container: int, payload: _Buffer, trailer: _Trailer, size: int) -> RknnFile:
    fields = _FIELDS[container]
    memory = None
    if container == SMALL:
        length, memory = payload.number("I", payload.start), payload.number("I", payload.start + 16)
        payload = _Buffer(payload.data, payload.end - length, payload.end)
    if payload.data[payload.start + 4 : payload.start + 8] != _IDENTIFIER:
        raise _Broken("Its table of contents")
    root = payload.table(payload.follow(payload.start))
    graphs = payload.tables(root, 2)
    if not graphs:
        raise _Broken("Its graph")
    graph = payload.table(graphs[0])
    tensors = [payload.table(at) for at in payload.tables(graph, 0)]
    compiler = payload.text(root, fields.version)
    described = _described(payload.text(root, 3, _MAX_TEXT))
    custom = payload.text(root, fields.custom, _MAX_TEXT)
    weights = (t for t in tensors if payload.scalar(t, 2, "B") == _WEIGHT_KIND)
    platform = payload.text(root, fields.platform)
    inputs, native_inputs = _ends(payload, fields, tensors, graph, 2)
    outputs, native_outputs = _ends(payload, fields, tensors, graph, 3)
    inputs = inputs or _from_json(trailer.named("input"))
    outputs = outputs or _from_json(trailer.named("output"))
    return RknnFile(
        container=container,
        platforms=tuple(trailer.target_platform) or ((platform,) if platform else ()),
        toolkit=trailer.version or compiler.partition("(")[0],
        compiler=compiler,
        framework=payload.text(root, fields.framework) or trailer.ori_network_platform,
        inputs=inputs,
        outputs=outputs,
        native_inputs=native_inputs,
        native_outputs=native_outputs,
        normalisation=_normalisations(described, inputs),
        operators=tuple(_operator(payload, at) for at in payload.tables(graph, 1)),
        custom=custom,
        custom_json=_json(custom),
        weight_bytes=sum(payload.scalar(t, fields.bytes, "I") for t in weights),
        memory_bytes=memory,
        file_bytes=size,
        batch=_batch(payload.text(root, fields.batch)),
        shapes=_shapes(described, (*inputs, *outputs)),
    )


def _batch(text: str) -> int:
    """A number as text, "0" for none."""
    return min(max(int(text), 1), _MAX_ITEMS) if text.isascii() and text.isdigit() else 1


def _ends(
    payload: _Buffer,
    fields: _Fields,
    tensors: list[dict[int, int]],
    graph: dict[int, int],
    side: int,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The model's inputs or outputs, in the graph's layout and in the NPU's."""
    indices = payload.numbers(graph, side, "I", _MAX_NAME)
    if any(index >= len(tensors) for index in indices):
        raise _Broken("One of its inputs or outputs")
    end_tensors = [tensors[index] for index in indices]
    specs = tuple(_spec(payload, fields, tensor) for tensor in end_tensors)
    return specs, tuple(map(partial(_native, payload), end_tensors, specs))


def _native(payload: _Buffer, tensor: dict[int, int], spec: TensorSpec) -> TensorSpec:
    shape = tuple(payload.numbers(tensor, 3, "I", _MAX_RANK))
    if payload.scalar(tensor, 1, "B") != _BLOCKS or len(shape) != 5:
        return spec
    batch, blocks, height, width, depth = shape
    if payload.scalar(tensor, 2, "B") == _INPUT_KIND and blocks == 1 and depth in _PIXELS:
        shape = (batch, height, width, depth)
        return msgspec.structs.replace(spec, shape=shape, layout="NHWC")
    channels = spec.shape[1] if len(spec.shape) == 4 else 0
    return msgspec.structs.replace(spec, shape=shape, layout="NC1HWC2", channels=channels)


def _spec(payload: _Buffer, fields: _Fields, tensor: dict[int, int]) -> TensorSpec:
    shape = tuple(payload.numbers(tensor, 4, "I", _MAX_RANK))
    scales = payload.numbers(tensor, fields.scale, "f", _MAX_ITEMS)
    zeros = payload.numbers(tensor, fields.zero_point, "i", _MAX_ITEMS)
    # An input or output has one scale; several belong to a weight, one per channel.
    scale = scales[0] if len(scales) == 1 and math.isfinite(scales[0]) else None
    return TensorSpec(
        name=payload.text(tensor, 5),
        shape=shape,
        dtype=_DTYPES.get(payload.scalar(tensor, 0, "B"), "unknown"),
        layout="NCHW" if len(shape) == 4 else "plain",
        scale=scale,
        zero_point=zeros[0] if scale is not None and len(zeros) == 1 else 0,
    )


def _from_json(tensors: list[_NormTensor]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=tensor.url,
            shape=tuple(tensor.size),
            dtype=tensor.dtype.qnt_type or "float16",
            layout="NCHW" if len(tensor.size) == 4 else "plain",
        )
        for tensor in tensors
    )


def _operator(payload: _Buffer, at: int) -> Operator:
    node = payload.table(at)
    target = _TARGETS.get(payload.scalar(node, 3, "B"), "other")
    return Operator(payload.text(node, 1), payload.text(node, 2), target)


# ---- embedded text ------------------------------------------------------------------


def _described(text: str) -> dict[str, Any]:
    """The dict that the toolkit writes as Python text; empty when it cannot be parsed, since only
    the display of mean and std, and the choice of a shape, depend on it.
    """
    value = literal.parse(text, limit=_MAX_TEXT)
    return value if isinstance(value, dict) else {}


def _shapes(
    described: dict[str, Any], ends: tuple[TensorSpec, ...]
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """`dynamic_shapes`, where each input and output has as many, of the rank that it has."""
    value = described.get("dynamic_shapes")
    if not isinstance(value, dict) or not ends:
        return {}
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
    for end in ends:
        listed = value.get(end.name)
        if not isinstance(listed, list) or not 1 < len(listed) <= _MAX_SHAPES:
            return {}
        rows = [tuple(row) for row in listed if isinstance(row, list)]
        good = (len(row) == len(end.shape) and all(map(_is_side, row)) for row in rows)
        if len(rows) != len(listed) or not all(good):
            return {}
        shapes[end.name] = tuple(rows)
    return shapes if len({len(rows) for rows in shapes.values()}) == 1 else {}


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_SIDE


def _normalisations(
    described: dict[str, Any], inputs: tuple[TensorSpec, ...]
) -> dict[str, Normalisation]:
    attributes = described.get("attrs")
    if not isinstance(attributes, dict):
        return {}
    normalisations = {}
    for spec in inputs:
        normalisation = attributes.get(spec.name)
        if not isinstance(normalisation, dict):
            continue
        mean, std = _floats(normalisation.get("mean")), _floats(normalisation.get("std"))
        if mean and std:
            # The toolkit writes [0] for a mean of zeros.
            channels = max(len(mean), len(std))
            normalisations[spec.name] = Normalisation(
                mean * channels if len(mean) == 1 else mean,
                std * channels if len(std) == 1 else std,
            )
    return normalisations


def _floats(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(isinstance(v, (int, float)) for v in value):
        return ()
    try:
        numbers = tuple(float(v) for v in value)
    except OverflowError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        return None
