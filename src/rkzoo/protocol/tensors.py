"""Tensors of the Open Inference Protocol v2, as JSON and as raw bytes behind the JSON.

Source: https://github.com/kserve/open-inference-protocol (inference_rest.md), and its binary
extension: https://github.com/triton-inference-server/server (protocol/extension_binary_data.md).
A body with binary tensors begins with JSON, whose length stands in the HTTP header
`Inference-Header-Content-Length`; the tensors follow in order, little-endian and row-major.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

from rkzoo.errors import RkzooError
from rkzoo.session import Array

HEADER_LENGTH = "Inference-Header-Content-Length"

DATATYPES = {
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "BOOL": "bool",
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}

_MOST_TENSORS = 256
_MOST_DIMENSIONS = 16
_MOST_NUMBERS = 1 << 40  # of a shape
_MOST_JSON = 16 << 20  # bytes of the JSON part; larger tensors come as binary

Shape = tuple[int, ...]
Parameters = dict[str, Any]
Piece = bytes | memoryview
T = TypeVar("T")


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor in JSON. `data` is left out where its bytes follow (`binary_data_size`)."""

    name: str
    shape: Shape
    datatype: str
    parameters: Parameters = {}
    data: msgspec.Raw = msgspec.Raw()


class RequestedOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """An output that the client wants; `binary_data` among its parameters."""

    name: str
    parameters: Parameters = {}


class _Request(msgspec.Struct, frozen=True, omit_defaults=True):
    inputs: tuple[Tensor, ...]
    id: str = ""
    parameters: Parameters = {}
    outputs: tuple[RequestedOutput, ...] = ()


class _Response(msgspec.Struct, frozen=True, omit_defaults=True):
    model_name: str
    outputs: tuple[Tensor, ...]
    model_version: str = ""
    id: str = ""
    parameters: Parameters = {}


@dataclass(frozen=True)
class Body:
    """The body of a request or response. `header_size` is the length of its JSON part, None where
    all of it is JSON."""

    data: bytes
    header_size: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to it."""
        if self.header_size is None:
            return {"content-type": "application/json"}
        return {
            "content-type": "application/octet-stream",
            HEADER_LENGTH.lower(): str(self.header_size),
        }


@dataclass(frozen=True)
class InferRequest:
    """A decoded request.

    Attributes:
        inputs: Input name to array; views of the body, read-only.
        outputs: Names of the outputs that are wanted, in order; empty for all.
        binary: Names of those that are wanted as bytes.
        text: Names of those that are wanted as JSON.
        all_binary: Whether bytes are wanted where nothing is said of an output.
        parameters: Parameters of the request as a whole.
        id: Identifier that the response repeats.
    """

    inputs: dict[str, Array]
    outputs: tuple[str, ...] = ()
    binary: frozenset[str] = frozenset()
    text: frozenset[str] = frozenset()
    all_binary: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def wants_bytes(self, name: str) -> bool:
        """Whether the output `name` is wanted as bytes."""
        return name in self.binary or (self.all_binary and name not in self.text)


def datatype_of(dtype: str) -> str:
    """The protocol's name of a numpy type. Raises RkzooError for one that it does not have."""
    name = _NAMES.get(dtype)
    if name is None:
        raise _wrong(f"the type {dtype} has no name in the protocol")
    return name


def encode_request(
    inputs: Mapping[str, Array],
    *,
    outputs: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    id: str = "",
) -> Body:
    """A request with binary tensors in and out.

    Args:
        inputs: Input name to array.
        outputs: Names of the outputs that are wanted; empty for all.
        parameters: Parameters of the request.
        id: Identifier that the response repeats.
    """
    tensors, buffers = _as_bytes(inputs.items())
    wanted = {**(parameters or {}), "binary_data_output": True}
    named = tuple(map(RequestedOutput, outputs))
    header = msgspec.json.encode(_Request(tensors, id, wanted, named))
    return Body(b"".join([header, *buffers]), len(header))


def decode_request(body: Body) -> InferRequest:
    """Decodes a request. Raises RkzooError, in one sentence, for one that breaks the protocol."""
    header, rest = _parts(body, _Request)
    names = tuple(output.name for output in header.outputs)
    if len(names) > _MOST_TENSORS or len(set(names)) != len(names):
        raise _wrong(f"it asks for {len(names)} outputs, of {_MOST_TENSORS} allowed, each once")
    by_name = {
        output.name: bool(output.parameters["binary_data"])
        for output in header.outputs
        if "binary_data" in output.parameters
    }
    return InferRequest(
        inputs=_arrays(header.inputs, rest),
        outputs=names,
        binary=frozenset(name for name, binary in by_name.items() if binary),
        text=frozenset(name for name, binary in by_name.items() if not binary),
        all_binary=bool(header.parameters.get("binary_data_output", False)),
        parameters=header.parameters,
        id=header.id,
    )


def request_parameters(body: Body) -> Parameters:
    """The parameters of a request alone, its tensors left as they are. Raises RkzooError."""
    return _parts(body, _Request)[0].parameters


def encode_response(
    model: str, version: str, request: InferRequest, outputs: Mapping[str, Array]
) -> Body:
    """A response; see `encode_response_pieces`."""
    pieces, header_size = encode_response_pieces(model, version, request, outputs)
    return Body(b"".join(pieces), header_size)


def encode_response_pieces(
    model: str, version: str, request: InferRequest, outputs: Mapping[str, Array]
) -> tuple[list[Piece], int | None]:
    """A response whose tensors are not copied where they need not be.

    Args:
        model: Name of the model.
        version: Its version.
        request: What is answered; says which outputs are wanted, and how.
        outputs: Output name to array, all of them.

    Returns:
        What the body consists of, and the length of its JSON part where it has binary tensors.

    Raises:
        RkzooError: The request names an output that there is not.
    """
    names = request.outputs or tuple(outputs)
    if unknown := [name for name in names if name not in outputs]:
        raise _wrong(f"there is no output {unknown[0]!r}; there are {', '.join(outputs)}")
    tensors: list[Tensor] = []
    buffers: list[Piece] = []
    for name in names:
        array = outputs[name]
        if request.wants_bytes(name):
            (tensor,), data = _as_bytes([(name, array)])
            buffers += data
        else:
            data_json = msgspec.Raw(msgspec.json.encode(array.reshape(-1).tolist()))
            tensor = Tensor(name, array.shape, datatype_of(str(array.dtype)), {}, data_json)
        tensors.append(tensor)
    header = msgspec.json.encode(_Response(model, tuple(tensors), version, request.id))
    binary = any(request.wants_bytes(name) for name in names)
    return [header, *buffers], len(header) if binary else None


def decode_response(body: Body) -> dict[str, Array]:
    """Output name to array, in the response's order; read-only views of the body. Raises
    RkzooError for one that breaks the protocol."""
    header, rest = _parts(body, _Response)
    return _arrays(header.outputs, rest)


def response_version(body: Body) -> str:
    """The version of the model that a response is of. Raises RkzooError."""
    return _parts(body, _Response)[0].model_version


# ---- bodies and arrays ------------------------------------------------------------------


def _as_bytes(arrays: Any) -> tuple[tuple[Tensor, ...], list[Piece]]:
    tensors: list[Tensor] = []
    buffers: list[Piece] = []
    for name, array in arrays:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        parameters = {"binary_data_size": len(data)}
        tensors.append(Tensor(name, array.shape, datatype_of(str(array.dtype)), parameters))
        buffers.append(data)
    return tuple(tensors), buffers


def _parts(body: Body, kind: type[T]) -> tuple[T, memoryview]:
    """The JSON part as a record, and the bytes behind it."""
    data = memoryview(body.data)
    size = len(data) if body.header_size is None else body.header_size
    if not 0 <= size <= len(data):
        raise _wrong(f"{HEADER_LENGTH} is {size}, and the body has {len(data)} bytes")
    if size > _MOST_JSON:
        raise _wrong(f"the JSON part has {size} bytes, of {_MOST_JSON} allowed: send binary data")
    try:
        return msgspec.json.decode(data[:size], type=kind), data[size:]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(str(error)) from error


def _arrays(tensors: Sequence[Tensor], rest: memoryview) -> dict[str, Array]:
    if len(tensors) > _MOST_TENSORS:
        raise _wrong(f"it has {len(tensors)} tensors, of {_MOST_TENSORS} allowed")
    arrays: dict[str, Array] = {}
    place = 0
    for tensor in tensors:
        if tensor.name in arrays:
            raise _wrong(f"the tensor {tensor.name!r} comes twice")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            arrays[tensor.name] = _from_json(tensor)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise _wrong(f"binary_data_size of {tensor.name!r} is {size!r}")
        if place + size > len(rest):
            raise _wrong(f"{tensor.name!r} has {size} bytes, and {len(rest) - place} follow")
        arrays[tensor.name] = from_bytes(tensor, rest[place : place + size])
        place += size
    if place != len(rest):
        raise _wrong(f"{len(rest) - place} bytes follow that belong to no tensor")
    return arrays


def _dtype(tensor: Tensor) -> np.dtype[Any]:
    name = DATATYPES.get(tensor.datatype)
    if name is None:
        raise _wrong(
            f"{tensor.name!r} is of the datatype {tensor.datatype!r}; known are"
            f" {', '.join(DATATYPES)}"
        )
    return np.dtype(name)


def _count(tensor: Tensor) -> int:
    shape = tensor.shape
    # numpy bounds also what would be there without the zeros.
    most = math.prod(side or 1 for side in shape)
    if len(shape) > _MOST_DIMENSIONS or min(shape, default=0) < 0 or most > _MOST_NUMBERS:
        raise _wrong(f"{tensor.name!r} has the shape {list(tensor.shape)}")
    return math.prod(shape)


def from_bytes(tensor: Tensor, data: bytes | memoryview) -> Array:
    """The array of a tensor whose bytes came apart from it; read-only, and a view of them but for
    BOOL. Raises RkzooError where its shape and datatype do not fit them."""
    dtype, count = _dtype(tensor), _count(tensor)
    if count * dtype.itemsize != len(data):
        raise _wrong(
            f"{tensor.name!r} is {tensor.datatype} {list(tensor.shape)}, which is"
            f" {count * dtype.itemsize} bytes, and has {len(data)}"
        )
    array = np.frombuffer(data, dtype)
    if dtype.kind == "b":  # a byte of 2 is true, and must be as 1 is
        array = array.view(np.uint8) != 0
        array.flags.writeable = False
    return array.reshape(tensor.shape)


def _from_json(tensor: Tensor) -> Array:
    dtype, count = _dtype(tensor), _count(tensor)
    if not bytes(tensor.data):
        raise _wrong(f"{tensor.name!r} has no data")
    try:
        array = np.array(_numbers(tensor, dtype, count), dtype).reshape(tensor.shape)
    except (ValueError, OverflowError, RecursionError) as error:
        raise _wrong(
            f"the data of {tensor.name!r} are no {tensor.datatype} {list(tensor.shape)}: {error}"
        ) from error
    array.flags.writeable = False
    return array


def _numbers(tensor: Tensor, dtype: np.dtype[Any], count: int) -> Any:
    """The numbers of JSON data, flat or nested as the shape is. Nothing else is read at all: lists
    of empty lists, or a long string among short ones, take a hundred times their own size."""
    number = _number(dtype)
    try:
        return msgspec.json.decode(tensor.data, type=_list_of(number, count))
    except msgspec.ValidationError:
        if len(tensor.shape) < 2:
            raise
    for size in reversed(tensor.shape):
        number = _list_of(number, size)
    return msgspec.json.decode(tensor.data, type=number)


def _number(dtype: np.dtype[Any]) -> Any:
    """What a number of JSON has to be for a datatype."""
    if dtype.kind == "f":
        return float
    if dtype.kind == "b":
        return bool | Annotated[int, msgspec.Meta(ge=0, le=1)]
    limits = np.iinfo(dtype)
    # msgspec takes no bound above INT64; numpy refuses what is above UINT64.
    most = None if dtype == np.uint64 else int(limits.max)
    return Annotated[int, msgspec.Meta(ge=int(limits.min), le=most)]


def _list_of(kind: Any, size: int) -> Any:
    return Annotated[list[kind], msgspec.Meta(min_length=size, max_length=size)]


def _wrong(why: str) -> RkzooError:
    return RkzooError(
        "The tensors cannot be read.",
        f"{why[:1].upper()}{why[1:]}.",
        "GET /v2/models/NAME tells the names, shapes and datatypes that the model takes.",
    )
