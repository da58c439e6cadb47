"""YOLO-World's two inputs are recognised by what the graph computes, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import tiny_yolo
from onnx import TensorProto, helper
from tiny_world import WORLDS, World, build

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ArrayInput
from rkzoo.errors import RkzooError
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.families.registry import RECOGNISERS, recognise
from rkzoo.graph.families.yolo_world import rockchip
from rkzoo.graph.lowering.cut_head import keep_head
from rkzoo.graph.onnx.view import prepared, run


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_every_spelling_is_recognised(world: World) -> None:
    found = recognise(build(world))
    head = found.contract.head
    assert isinstance(head, DetectHead)
    assert (found.family, found.form, found.uncut) == ("yolo-world", "vendor-6", None)
    assert found.contract.texts == ArrayInput(
        name="texts", shape=(1, world.slots, world.width), role="texts"
    )
    assert found.contract.input.size == world.size
    assert (head.classes, head.strides, head.coding) == (world.slots, world.strides, "distance")
    assert head.activated is world.sigmoid
    roles = [(output.role, output.level) for output in head.outputs]
    assert roles == [
        (role, level) for level in range(len(world.strides)) for role in world.order.split("-")
    ]


def test_the_outputs_keep_the_order_of_the_graph() -> None:
    model = build()
    names = [output.name for output in model.graph.output][::-1]
    outputs = {output.name: output for output in model.graph.output}
    ordered = [onnx.ValueInfoProto.FromString(outputs[n].SerializeToString()) for n in names]
    del model.graph.output[:]
    model.graph.output.extend(ordered)
    head = recognise(model).contract.head
    assert isinstance(head, DetectHead)
    assert [output.name for output in head.outputs] == names
    assert [output.level for output in head.outputs] == [2, 2, 1, 1, 0, 0]


def test_the_picture_comes_first_in_what_is_built() -> None:
    model = build(World(texts_first=True))
    found = recognise(model)
    ready = keep_head(model, found)
    assert [info.name for info in ready.graph.input] == ["images", "texts"]
    random = np.random.default_rng(0)
    feeds = {
        "images": random.random((1, 3, 64, 96), np.float32),
        "texts": random.random((1, 8, 16), np.float32),
    }
    for ours, theirs in zip(run(ready, feeds), run(model, feeds), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("no texts", "is not compared with the texts"),
        ("slots", "its scores have 7 channels but there are 8 texts"),
        ("tanh", "neither four distances nor scores"),
        ("box", "is not compared with the texts|neither four distances nor scores"),
    ],
)
def test_what_only_looks_alike_is_refused(spoil: str, reason: str) -> None:
    with pytest.raises(RkzooError, match=reason):
        recognise(build(World(spoil=spoil)))


def test_another_family_does_not_claim_it_and_it_claims_no_other() -> None:
    model = build()
    view = prepared(model, {"images": (1, 3, 64, 96), "texts": (1, 8, 16)})
    picture = ImageSource(image=recognise(model).contract.input)
    for title, recogniser in RECOGNISERS:
        assert not isinstance(recogniser(view, picture), Recognition), title
    other = tiny_yolo.stock()
    texts = ArrayInput(name="texts", shape=(1, 8, 16), role="texts")
    view = prepared(other, {"images": (1, 3, 64, 96)})
    assert isinstance(rockchip(view, replace(picture, others=(texts,))), str)


def _with_input(kind: int, shape: list[int | str]) -> onnx.ModelProto:
    model = build()
    info = helper.make_tensor_value_info("texts", kind, shape)
    model.graph.input[1].CopyFrom(info)
    return model


@pytest.mark.parametrize(
    ("kind", "shape", "what"),
    [
        (TensorProto.INT64, [1, 8, 16], "neither a picture nor embeddings of texts"),
        (TensorProto.FLOAT, [2, 8, 16], "neither a picture nor embeddings of texts"),
        (TensorProto.FLOAT, [1, "slots", 16], "dynamic number of texts"),
    ],
)
def test_a_second_input_that_is_no_texts_is_refused(
    kind: int, shape: list[int | str], what: str
) -> None:
    with pytest.raises(RkzooError, match=what):
        recognise(_with_input(kind, shape))


def test_a_text_given_twice_changes_nothing_where_zeros_do() -> None:
    """Why the slots that are left hold the prompts over again."""
    random = np.random.default_rng(4)
    # Unlike every feature, which a ReLU made positive: zeros would be more alike.
    texts = -np.abs(random.normal(size=(3, 16))).astype(np.float32)
    picture = random.random((1, 3, 64, 96), np.float32)

    def ask(slots: np.ndarray) -> list[np.ndarray]:
        return run(build(World(slots=len(slots))), {"images": picture, "texts": slots[None]})

    three = ask(texts)
    repeated = ask(texts[np.arange(8) % 3])
    padded = ask(np.concatenate((texts, np.zeros((5, 16), np.float32))))
    for few, many in zip(three, repeated, strict=True):
        np.testing.assert_allclose(few[:, :3], many[:, : few.shape[1]][:, :3], atol=1e-5)
    apart = [np.abs(a[:, :3] - b[:, :3]).max() for a, b in zip(three, padded, strict=True)]
    assert max(apart) > 0.01
