"""Tensors over the wire, held to what Triton's client writes and reads."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from rkzoo.errors import RkzooError
from rkzoo.protocol.tensors import (
    DATATYPES,
    Body,
    InferRequest,
    Tensor,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    from_bytes,
    request_parameters,
    response_version,
)
from rkzoo.session import Array

http = pytest.importorskip("tritonclient.http")

from tritonclient.utils import np_to_triton_dtype  # noqa: E402

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=8)
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn, finite: bool = False, without: str = "") -> dict[str, Array]:
    """Arrays by name, of any datatype."""
    dtypes = st.sampled_from([dtype for dtype in DATATYPES.values() if dtype != without])
    made: dict[str, Array] = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)):
        dtype = np.dtype(draw(dtypes))
        free = dtype.kind == "f" and finite
        values = arrays_of.from_dtype(dtype, allow_nan=not free, allow_infinity=not free)
        made[name] = draw(arrays_of.arrays(dtype, SHAPES, elements=values))
    return made


def same(found: Array, wanted: Array) -> None:
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(found, wanted)


def outcome(read: Callable[[], Any]) -> Any:
    """What is read, or the error in words that it is refused with."""
    try:
        return read()
    except RkzooError as error:
        return error


def theirs(
    inputs: dict[str, Array], binary: bool, outputs: list[Any] | None = None, **more: Any
) -> Body:
    """A request as Triton's client writes it."""
    made = []
    for name, array in inputs.items():
        made.append(http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        made[-1].set_data_from_numpy(array, binary_data=binary)
    body, size = http.InferenceServerClient.generate_request_body(made, outputs=outputs, **more)
    return Body(body, size)


@settings(deadline=None)
@given(inputs=tensors(), id=NAMES)
def test_bytes_that_triton_wrote_are_read(inputs: dict[str, Array], id: str) -> None:
    request = decode_request(theirs(inputs, True, request_id=id, timeout=5))
    assert (request.id, request.parameters["timeout"]) == (id, 5)
    # Without outputs its client asks for bytes.
    assert request.outputs == ()
    assert request.all_binary
    assert list(request.inputs) == list(inputs)
    for name, array in inputs.items():
        same(request.inputs[name], array)
        assert not request.inputs[name].flags.writeable


@settings(deadline=None)
@example(inputs={"x": np.array([2**63, 0], np.uint64)})  # which numpy alone makes floats of
@given(inputs=tensors(finite=True, without="float16"))  # which its client sends as bytes only
def test_json_that_triton_wrote_is_read(inputs: dict[str, Array]) -> None:
    body = theirs(inputs, False)
    request = decode_request(Body(body.data))
    for name, array in inputs.items():
        same(request.inputs[name], array)


@settings(deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True), data=st.data())
def test_outputs_that_triton_asks_for(names: list[str], data: st.DataObject) -> None:
    binary = {name: data.draw(st.booleans()) for name in names}
    wanted = [http.InferRequestedOutput(name, binary_data=binary[name]) for name in names]
    request = decode_request(theirs({"x": np.zeros(1, np.int8)}, True, wanted))
    assert request.outputs == tuple(names)
    assert {name: request.wants_bytes(name) for name in names} == binary


@settings(deadline=None)
@given(outputs=tensors(finite=True), data=st.data(), id=NAMES)
def test_triton_reads_our_answers(outputs: dict[str, Array], data: st.DataObject, id: str) -> None:
    names = data.draw(st.permutations(list(outputs)))
    # Its client reads JSON of floats of 16 bits as such, too.
    binary = frozenset(name for name in names if data.draw(st.booleans()))
    request = InferRequest({}, tuple(names), binary, id=id)
    body = encode_response("m", "2", request, outputs)
    read = http.InferenceServerClient.parse_response_body(body.data, header_length=body.header_size)
    about = read.get_response()
    assert (about["model_name"], about["model_version"], about["id"]) == ("m", "2", id)
    assert [output["name"] for output in about["outputs"]] == names
    for name in names:
        same(read.as_numpy(name), outputs[name])
    assert response_version(body) == "2"
    for name, array in decode_response(body).items():
        same(array, outputs[name])


@settings(deadline=None)
@given(inputs=tensors(), id=NAMES, outputs=st.lists(NAMES, max_size=3, unique=True))
def test_our_requests_are_read_again(inputs: dict[str, Array], id: str, outputs: list[str]) -> None:
    body = encode_request(inputs, outputs=outputs, parameters={"timeout": 7}, id=id)
    request = decode_request(body)
    assert (request.id, list(request.outputs), request.all_binary) == (id, outputs, True)
    assert request_parameters(body)["timeout"] == 7
    for name, array in inputs.items():
        same(request.inputs[name], array)


@settings(deadline=None)
@example(array=np.zeros(0, np.float32), datatype="FP16", shape=[0, 2702, 2702, 2702, 233778032])
@given(array=arrays_of.arrays(np.float32, SHAPES), datatype=st.sampled_from([*DATATYPES, "BF16"]),
       shape=st.lists(st.integers(-(2**40), 2**40), max_size=20))  # fmt: skip
def test_bytes_that_do_not_fit_are_refused(array: Array, datatype: str, shape: list[int]) -> None:
    tensor = Tensor("x", tuple(shape), datatype)
    made = outcome(lambda: from_bytes(tensor, array.tobytes()))
    if isinstance(made, RkzooError):
        assert "'x'" in str(made)
    else:
        assert (made.nbytes, made.shape) == (array.nbytes, tuple(shape))


VALID = encode_request({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, id="1")
JSON = theirs({"x": np.arange(6, dtype=np.int32).reshape(2, 3)}, False)
JSON_TEXT = JSON.data if isinstance(JSON.data, bytes) else JSON.data.encode()


@settings(deadline=None)
@given(data=st.binary(max_size=60), size=st.none() | st.integers(-5, 80))
@example(data=b"[" * 60, size=None)
@example(data=b'{"inputs":[]}', size=None)
def test_rubbish_is_refused_in_words(data: bytes, size: int | None) -> None:
    for read in (decode_request, decode_response, request_parameters):
        made = outcome(lambda read=read: read(Body(data, size)))  # type: ignore[misc]
        assert not isinstance(made, RkzooError) or made.code == 2


@settings(max_examples=300, deadline=None)
@given(
    valid=st.sampled_from([VALID, Body(JSON_TEXT)]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), min_size=1, max_size=4),
    size=st.integers(-2, 2),
)
def test_bodies_with_damage_are_refused_in_words(
    valid: Body, changes: list[tuple[int, bytes]], size: int
) -> None:
    data = bytearray(valid.data)
    for place, piece in changes:
        data[place : place + len(piece)] = piece
    header = None if valid.header_size is None else valid.header_size + size
    made = outcome(lambda: decode_request(Body(bytes(data), header)))
    if isinstance(made, InferRequest):
        assert all(array.size <= 400 for array in made.inputs.values())
    else:
        assert made.code == 2


def test_deep_json_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    head = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":'
    with pytest.raises(RkzooError):
        decode_request(Body(head + deep + b"}]}"))


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("UINT8", "[256]"), ("INT8", "[-129]"), ("INT32", "[1.5]"), ("FP32", '["1"]'),
     ("BOOL", "[2]"), ("FP32", "[null]"), ("INT64", "[9223372036854775808]"), ("FP32", "[[1],[2]]"),
     ("UINT64", "[-1]"), ("UINT64", "[18446744073709551616]"), ("UINT64", "[1.5]"),
     ("UINT64", "[9223372036854775808, null]"), ("FP32", "{}")],
)  # fmt: skip
def test_values_that_are_none_of_the_datatype(datatype: str, data: str) -> None:
    text = f'{{"inputs":[{{"name":"x","shape":[1],"datatype":"{datatype}","data":{data}}}]}}'
    with pytest.raises(RkzooError, match="'x'"):
        decode_request(Body(text.encode()))


@pytest.mark.parametrize("data", ["[1, 2, 3, 4]", "[[1, 2], [3, 4]]", "[[1], [2], [3, 4]]"])
def test_nested_and_flat_data(data: str) -> None:
    text = f'{{"inputs":[{{"name":"x","shape":[2,2],"datatype":"INT64","data":{data}}}]}}'
    made = outcome(lambda: decode_request(Body(text.encode())))
    if data.startswith("[[1],"):
        assert isinstance(made, RkzooError)
    else:
        same(made.inputs["x"], np.array([[1, 2], [3, 4]]))


def test_every_byte_but_zero_is_true() -> None:
    made = from_bytes(Tensor("x", (4,), "BOOL"), bytes([0, 1, 2, 255]))
    assert made.view(np.uint8).tolist() == [0, 1, 1, 1]
    assert not made.flags.writeable


@pytest.mark.parametrize("outputs", [["y", "y"], [f"y{number}" for number in range(257)]])
def test_an_output_is_given_once_and_not_all_too_many(outputs: list[str]) -> None:
    with pytest.raises(RkzooError, match="outputs"):
        decode_request(encode_request({"x": np.zeros(1)}, outputs=outputs))


@pytest.mark.parametrize("piece", ["[],", '"",', "{},", "[[0]],", "null,"])
def test_json_that_is_no_numbers_takes_no_memory(piece: str) -> None:
    """All of these took ten to a thousand times their own size, or minutes."""
    many = piece * 60_000 + '"' + "w" * 10_000 + '"'
    for shape in ("[1]", "[60001,1]", "[60001,1,1]"):
        text = f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","data":[{many}]}}]}}'
        tracemalloc.start()
        try:
            with pytest.raises(RkzooError, match="'x'"):
                decode_request(Body(text.encode()))
            assert tracemalloc.get_traced_memory()[1] < 100 * len(text)
        finally:
            tracemalloc.stop()
