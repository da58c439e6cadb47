"""Preprocessing inside the graph, whatever its spelling: held against ONNX Runtime on the graph
as it was exported, fed as that graph wants it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import tiny_whole
from onnx import TensorProto, numpy_helper
from picture_fronts import FIRST, IMAGENET, MEAN, SHARES, STD, Front, column
from tiny_yolo import Spec, stock

from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.cut_head import cut_head, keep_head
from rkzoo.graph.lowering.legalize import legalized
from rkzoo.graph.onnx.input_preprocessing import input_preprocessing
from rkzoo.graph.onnx.rewrite import picture_as_floats
from rkzoo.graph.onnx.view import declared, run
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.vision.letterbox import fit

Array = np.ndarray
PICTURE = np.random.default_rng(3).integers(0, 256, (64, 96, 3), np.uint8)  # RGB


def answers(graph: onnx.ModelProto, contract: Contract, rgb: Array) -> dict[str, Array]:
    """What a session gives that feeds the picture as `contract` says."""
    spec = msgspec.structs.replace(contract.input, fit="stretch", short=None)
    canvas, _ = fit(np.ascontiguousarray(rgb[..., ::-1]), spec)
    with OnnxSession(graph.SerializeToString(), contract.input) as session:
        names = [output.name for output in session.outputs]
        return dict(zip(names, session.run([canvas]), strict=True))


def oracle(model: onnx.ModelProto, front: Front, rgb: Array) -> list[Array]:
    """The whole graph as it was exported, fed as it takes its pictures."""
    return run(model, {model.graph.input[0].name: front.array(rgb)})


@pytest.mark.parametrize("name", IMAGENET)
def test_a_classifier_is_fed_as_its_graph_wants(name: str) -> None:
    front = IMAGENET[name]
    model = front.before(tiny_whole.classifier(classes=1000))
    before = model.SerializeToString()
    found = recognise(model)
    ready = legalized(model, found.contract)
    assert model.SerializeToString() == before
    (info,) = ready.graph.input
    assert (declared(info), info.type.tensor_type.elem_type) == ((1, 3, 32, 32), TensorProto.FLOAT)
    rgb = PICTURE[:32, :32]
    (expected,) = oracle(model, front, rgb)
    (logits,) = answers(ready, found.contract, rgb).values()
    slack = 2e-2 if name == "half precision" else 1e-4 * float(np.abs(expected).max())
    np.testing.assert_allclose(logits.ravel(), expected.ravel(), atol=slack)


@pytest.mark.parametrize("name", IMAGENET)
def test_every_spelling_means_the_same(name: str) -> None:
    """The network behind them is one, so what it says of one picture is one, too."""
    network = tiny_whole.classifier(classes=1000)
    rgb = PICTURE[:32, :32]
    normal = ((rgb - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    (expected,) = run(network, {"images": normal})
    model = IMAGENET[name].before(network)
    found = recognise(model)
    (logits,) = answers(legalized(model, found.contract), found.contract, rgb).values()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", SHARES)
def test_a_detector_is_fed_as_its_graph_wants(name: str) -> None:
    front = SHARES[name]
    model = front.before(stock(Spec()))
    found = recognise(model)
    assert found.uncut is not None
    assert found.uncut.input == found.contract.input
    height, width = found.contract.input.size
    rgb = PICTURE[:height, :width]
    (expected,) = oracle(model, front, rgb)
    (output,) = found.uncut.head.outputs  # type: ignore[union-attr]
    got = answers(keep_head(model, found), found.uncut, rgb)[output.name]
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert all(
        np.isfinite(a).all() for a in answers(cut_head(model, found), found.contract, rgb).values()
    )


@pytest.mark.parametrize(
    ("name", "color", "mean", "std"),
    [
        ("div by a vector", "RGB", (0, 0, 0), (1, 1, 1)),
        ("a cast from uint8", "RGB", (0, 0, 0), (1, 1, 1)),
        ("channels last", "RGB", (0, 0, 0), (1, 1, 1)),
        ("uint8, channels last, flipped", "BGR", (0, 0, 0), (1, 1, 1)),
        ("only flipped", "BGR", (0, 0, 0), (255, 255, 255)),
    ],
)
def test_what_the_contract_says(
    name: str, color: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    image = recognise(SHARES[name].before(stock(Spec()))).contract.input
    assert (image.color, image.mean, image.std) == (color, mean, std)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sub, div", ["mean 123.675, 116.28, 103.53", "0..255"]),
        ("of 0..1", ["mean 0.485, 0.456, 0.406", "scaled to 0..1"]),
        ("a cast from uint8", ["uint8", "0..255"]),
        ("channels last, then turned", ["channels last (NHWC)"]),
        ("flipped by split and concat", ["swaps red and blue"]),
    ],
)
def test_what_was_seen_is_said(name: str, words: list[str]) -> None:
    found = recognise(IMAGENET[name].before(tiny_whole.classifier(classes=1000)))
    said = " ".join(found.seen)
    assert all(word in said for word in words), said
    assert set(found.seen) <= set(found.evidence)
    assert not any("ImageNet's mean" in sentence for sentence in found.assumed)


def test_a_graph_that_does_nothing_says_nothing() -> None:
    found = recognise(tiny_whole.classifier(classes=1000))
    assert found.seen == ()
    assert found.contract.input.mean == pytest.approx(tuple(MEAN), abs=1e-4)


@pytest.mark.parametrize(
    "front",
    [
        # A normalisation that the network learnt, of pictures that were normalised before.
        Front(
            [("BatchNormalization", "@ g b m v", "network", {})],
            {
                "g": np.float32([1.1, 0.9, 1.0]),
                "b": np.float32([0, 0.1, 0]),
                "m": np.float32([0.02, 0.01, -0.03]),
                "v": np.float32([1.02, 0.98, 1.1]),
            },
        ),
        # torchvision's Inception: from ImageNet's normalisation to -1..1.
        Front(
            [("Mul", "@ g", "a", {}), ("Add", "a b", "network", {})],
            {"g": column(0.458, 0.448, 0.45), "b": column(-0.03, -0.088, -0.188)},
        ),
    ],
    ids=["learnt", "inception"],
)
def test_what_a_network_does_to_normalised_pictures_changes_nothing(front: Front) -> None:
    found = recognise(front.before(tiny_whole.classifier(classes=1000)))
    assert found.contract.input.std == pytest.approx(tuple(STD), abs=1e-4)
    assert found.seen == ()


@pytest.mark.parametrize(
    "front",
    [
        Front(
            [("Conv", "@ w", "network", {})], {"w": np.eye(3, dtype=np.float32)[..., None, None]}
        ),
        Front([("Mul", "@ @", "network", {})]),
        Front(
            [("Sub", "@ m", "network", {})],
            {"m": np.arange(3072, dtype=np.float32).reshape(1, 3, 32, 32)},
        ),
        Front([("Transpose", "@", "network", {"perm": [0, 1, 3, 2]})]),
        Front(
            [("Clip", "@ low high", "network", {})], {"low": np.float32(0), "high": np.float32(1)}
        ),
        Front([("Gather", "@ i", "network", {"axis": 1})], {"i": np.array([1, 0, 2])}),
    ],
    ids=["conv", "square", "mean picture", "sides swapped", "clipped to 0..1", "odd order"],
)
def test_what_is_no_factor_and_shift_a_channel_is_the_networks(front: Front) -> None:
    model = front.before(tiny_whole.classifier(classes=1000))
    found = input_preprocessing(model)
    assert found is not None
    assert not found.scales
    assert not found.moves
    assert picture_as_floats(model) is model


def test_channels_last_that_are_never_turned_at_once() -> None:
    """What comes before the Transpose is no preprocessing: the graph keeps it."""
    front = Front([("Mul", "@ @", "a", {}), ("Transpose", "a", "network", FIRST)], {}, last=True)
    model = front.before(tiny_whole.classifier(classes=1000))
    ready = picture_as_floats(model)
    assert declared(ready.graph.input[0]) == (1, 3, 32, 32)
    rgb = PICTURE[:32, :32] / np.float32(255)
    (expected,) = run(model, {"images": rgb[None]})
    (got,) = run(ready, {"images": np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])})
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_picture_without_a_batch() -> None:
    """uint8 HxWx3, as OpenCV has it."""
    model = tiny_whole.classifier(classes=1000)
    steps = [
        ("Unsqueeze", "@ x", "b", {}),
        ("Transpose", "b", "c", FIRST),
        ("Cast", "c", "f", {"to": TensorProto.FLOAT}),
        ("Div", "f k", "network", {}),
    ]
    front = Front(steps, {"x": np.array([0]), "k": np.float32(255)}, dtype=TensorProto.UINT8)
    flat = front.before(model)
    shape = flat.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for size in (32, 32, 3):
        shape.dim.add().dim_value = size
    found = recognise(flat)
    rgb = PICTURE[:32, :32]
    (expected,) = run(flat, {"images": rgb})
    (got,) = answers(legalized(flat, found.contract), found.contract, rgb).values()
    np.testing.assert_allclose(got, expected, atol=1e-4 * float(np.abs(expected).max()))


def test_a_size_that_is_free_stays_free() -> None:
    model = SHARES["channels last"].before(stock(Spec(dynamic=True)))
    assert declared(picture_as_floats(model).graph.input[0]) in [
        (1, 3, None, None),
        (None, 3, None, None),
    ]
    found = recognise(model, (64, 96))
    assert found.contract.input.size == (64, 96)
    assert found.contract.input.std == (1, 1, 1)


# ---- one channel, and four ------------------------------------------------------------------


def widened(model: onnx.ModelProto, channels: int) -> onnx.ModelProto:
    """The model with other weights in its first convolution, for so many channels."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    first = next(node for node in copy.graph.node if node.op_type == "Conv")
    weight = next(t for t in copy.graph.initializer if t.name == first.input[1])
    value = numpy_helper.to_array(weight)
    value = (
        value.sum(1, keepdims=True) if channels == 1 else np.concatenate((value, value[:, :1]), 1)
    )
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    copy.graph.input[0].type.tensor_type.shape.dim[1].dim_value = channels
    del copy.graph.value_info[:]
    return copy


@pytest.mark.parametrize(("channels", "color"), [(1, "GRAY"), (4, "RGBA")])
@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_pictures_of_one_and_four_channels(channels: int, color: str, kind: str) -> None:
    plain = stock(Spec()) if kind == "detector" else tiny_whole.classifier(classes=1000)
    model = widened(plain, channels)
    found = recognise(model)
    image = found.contract.input
    assert (image.color, image.channels) == (color, channels)
    assert (image.mean, image.std) == ((0.0,) * channels, (255.0,) * channels)
    rgb = PICTURE[: image.size[0], : image.size[1]]
    grey = np.rint(rgb @ np.array([0.299, 0.587, 0.114]))[..., None]
    opaque = np.full((*image.size, 1), 255)
    fed = grey if channels == 1 else np.concatenate((rgb, opaque), 2)
    x = (fed / 255).transpose(2, 0, 1)[None].astype(np.float32)
    (expected,) = run(model, {model.graph.input[0].name: x})
    ready = keep_head(model, found) if kind == "detector" else legalized(model, found.contract)
    got = next(iter(answers(ready, found.contract, rgb).values()))
    # Grey is rounded to whole numbers, by OpenCV in fixed point.
    slack = 2e-2 * float(np.abs(expected).max()) if channels == 1 else 1e-3
    np.testing.assert_allclose(got, expected, atol=slack)


def test_a_grey_picture_that_the_graph_repeats() -> None:
    front = Front(
        [("Concat", "@ @ @", "c", {"axis": 1}), ("Div", "c k", "network", {})],
        {"k": np.float32(255)},
    )
    model = front.before(stock(Spec()))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    found = recognise(model)
    image = found.contract.input
    assert (image.color, image.std) == ("GRAY", (1.0,))
    grey = np.repeat(PICTURE[: image.size[0], : image.size[1], :1], 3, axis=2)
    (expected,) = run(
        model, {model.graph.input[0].name: grey[None, ..., 0].astype(np.float32)[None]}
    )
    (got,) = answers(keep_head(model, found), found.uncut or found.contract, grey).values()
    np.testing.assert_allclose(got, expected, atol=1e-3)


# ---- real weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*IMAGENET])
def test_mobilenet_in_every_spelling(name: str, assets: Path) -> None:
    network = onnx.load(assets / "models/mobilenetv2.onnx")
    model = IMAGENET[name].before(network)
    found = recognise(model)
    rgb = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    normal = ((rgb - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    (expected,) = run(network, {network.graph.input[0].name: normal})
    (logits,) = answers(legalized(model, found.contract), found.contract, rgb).values()
    np.testing.assert_allclose(logits, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("mean", "std", "twice"),
    [
        ((0.0,) * 3, (1.0,) * 3, False),
        ((4.0,) * 3, (1.1,) * 3, False),
        ((127.5,) * 3, (127.5,) * 3, True),
        ((0.0,) * 3, (255.0,) * 3, True),
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), True),
    ],
)
def test_a_picture_that_is_normalised_twice_is_told(
    mean: tuple[float, ...], std: tuple[float, ...], twice: bool
) -> None:
    """The graph takes 127.5 away and divides by 128, as SFace's does: pixels of 0..255."""
    model = tiny_whole.classifier(classes=1000)
    first = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["normalised" if name == first else name for name in node.input]
    numbers = [numpy_helper.from_array(np.float32(v), n) for v, n in ((127.5, "m"), (128, "s"))]
    model.graph.initializer.extend(numbers)
    model.graph.node.insert(0, onnx.helper.make_node("Sub", [first, "m"], ["moved"]))
    model.graph.node.insert(1, onnx.helper.make_node("Div", ["moved", "s"], ["normalised"]))
    front = input_preprocessing(model)
    assert front is not None
    said = front.twice(ImageInput(size=(32, 32), mean=mean, std=std))
    assert bool(said) is twice
    if twice:
        assert "NORMALISED TWICE" in said
        assert "mean 127.5, std 128" in said
    assert not front.twice(recognise(model).contract.input)
