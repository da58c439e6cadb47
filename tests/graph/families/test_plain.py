"""How graphs that no recogniser knows are fed, read off their inputs alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tiny_plain import as_the_graph_takes, built, one_picture, sample, signal, tokens, two_pictures
from tiny_plain import video as frames
from tiny_whole import Net

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.plain import as_plain_tensors, plain_notes
from rkzoo.tasks.tensors.feed import arrays_of

PIXELS = ImageInput(size=(64, 64), fit="stretch")


def test_the_first_picture_is_fed_as_pixels_and_others_as_arrays() -> None:
    contract = as_plain_tensors(two_pictures()).contract
    assert contract.head == TensorsHead(picture="template")
    assert contract.picture == ImageInput(size=(32, 32), fit="stretch")
    assert contract.others == (ArrayInput(name="search", shape=(1, 3, 64, 64), image=PIXELS),)


@pytest.mark.parametrize(
    ("graph", "inputs"),
    [
        (
            tokens,
            [("input_ids", (1, 12)), ("attention_mask", (1, 12)), ("token_type_ids", (1, 12))],
        ),
        (frames, [("frames", (1, 7, 3, 16, 24))]),
        (signal, [("signal", (64,))]),
    ],
)
def test_what_is_no_picture_is_fed_as_it_is(graph, inputs) -> None:
    contract = as_plain_tensors(graph()).contract
    assert contract.picture is None
    assert [(one.name, one.shape) for one in contract.others] == inputs
    kind = "int64" if graph is tokens else "float32"
    assert {one.dtype for one in contract.others} == {kind}


def test_without_pictures_every_input_is_an_array() -> None:
    contract = as_plain_tensors(two_pictures(), pictures=False).contract
    assert contract.picture is None
    assert [one.image for one in contract.others] == [None, None]


def test_free_dimensions_are_fixed_by_size_or_shape_and_open_ones_refused() -> None:
    free = one_picture(("height", "width"))
    assert as_plain_tensors(free, size=(48, 96)).contract.input.size == (48, 96)
    assert as_plain_tensors(free, shapes={"picture": (1, 3, 40, 32)}).contract.input.size == (
        40,
        32,
    )
    with pytest.raises(RkzooError, match="open") as raised:
        as_plain_tensors(free)
    assert "--shape picture=" in raised.value.fix
    with pytest.raises(RkzooError, match="no input nothing"):
        as_plain_tensors(free, shapes={"nothing": (1,)})
    with pytest.raises(RkzooError, match="cannot have the shape"):
        as_plain_tensors(one_picture(), shapes={"picture": (1, 3, 40, 32)})


def test_bytes_become_floats_that_are_cast_inside() -> None:
    net = Net()
    y = net.op("Mul", net.op("Cast", "codes", to=TensorProto.FLOAT), net.weight(1))
    model = built(net, {"codes": (1, 9)}, {y: (1, 9)}, "uint8")
    made = as_plain_tensors(model)
    assert made.contract.others == (ArrayInput(name="codes", shape=(1, 9)),)
    codes = np.arange(9, dtype=np.uint8)[None] * 20
    (wanted,) = ort.InferenceSession(model.SerializeToString()).run(None, {"codes": codes})
    session = ort.InferenceSession(made.graph.SerializeToString())
    (found,) = session.run(None, {"codes": codes.astype(np.float32)})
    np.testing.assert_array_equal(found, wanted)


def test_bytes_that_come_out_are_int32() -> None:
    net = Net()
    above = net.op("Greater", net.op("MatMul", "x", net.weight(8, 8)), net.weight(1))
    out = net.op("Cast", above, to=TensorProto.UINT8)
    model = built(net, {"x": (64, 8)}, {out: (64, 8)})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    given = sample(model)
    (wanted,) = ort.InferenceSession(model.SerializeToString()).run(None, given)
    made = as_plain_tensors(model).graph
    (found,) = ort.InferenceSession(made.SerializeToString()).run(None, given)
    assert (wanted.dtype, found.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(found, wanted)
    assert 0 < found.sum() < found.size


def test_texts_are_refused() -> None:
    text = helper.make_tensor_value_info("text", TensorProto.STRING, [1])
    out = helper.make_tensor_value_info("out", TensorProto.STRING, [1])
    node = helper.make_node("Identity", ["text"], ["out"])
    model = helper.make_model(helper.make_graph([node], "g", [text], [out]))
    with pytest.raises(RkzooError, match="takes text"):
        as_plain_tensors(model)


@pytest.mark.parametrize("graph", [tokens, two_pictures, frames, signal, one_picture])
def test_what_is_fed_is_what_the_graph_takes(graph) -> None:
    """Against the original graph in ONNX Runtime, whose inputs were made by hand."""
    model = graph()
    given = sample(model)
    made = as_plain_tensors(model)
    wanted = as_the_graph_takes(given)
    fed = arrays_of(given, made.contract)
    names = [info.name for info in made.graph.graph.input]
    for name, array in zip(names, fed, strict=True):
        if array.dtype == np.uint8:
            array = array.transpose(0, 3, 1, 2) / np.float32(255)
        np.testing.assert_allclose(array, wanted[name], atol=1e-6)


def test_the_notes_say_what_was_seen_and_what_becomes_of_it() -> None:
    made = as_plain_tensors(two_pictures())
    notes = plain_notes(made.graph, made.contract, requested=False)
    assert len(notes) == 3
    assert "template 1x3x32x32, search 1x3x64x64" in notes[0]
    assert "plain tensors" in notes[1]
    assert "--mean" in notes[2]
    assert len(plain_notes(*_graph(tokens()), requested=True)) == 2, "no pictures, nothing on them"


def _graph(model: onnx.ModelProto):
    made = as_plain_tensors(model)
    return made.graph, made.contract
