"""PP-OCR's networks given as files, by graphs with the same ends as the real ones."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from tiny_whole import Net, features

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.contract.text import TextClsHead, TextDetHead, TextRecHead, characters
from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import recognise

FREE: list[int | str] = ["n", 3, "h", "w"]


def detector(*, wide: int = 4, server: bool = False) -> onnx.ModelProto:
    """1x3xHxW to 1x1xHxW by the head of differentiable binarisation; `wide`: how many times the
    channels before its first convolution."""
    net = Net()
    x = net.op("Relu", net.conv("images", 3, 4 * wide, strides=[4, 4]))
    x = net.op("Identity", net.op("Relu", net.conv(x, 4 * wide, 4)))
    x = net.op("ConvTranspose", x, net.weight(4, 4, 2, 2), strides=[2, 2])
    x = fine = net.op("Relu", net.op("Add", x, net.weight(1, 4, 1, 1)))
    x = net.op("ConvTranspose", x, net.weight(4, 1, 2, 2), strides=[2, 2])
    x = net.op("Sigmoid", net.op("Add", x, net.weight(1, 1, 1, 1)))
    if server:
        finer = net.op("ConvTranspose", fine, net.weight(4, 1, 2, 2), strides=[2, 2])
        x = net.op("Mul", net.op("Add", x, net.op("Sigmoid", finer)), net.weight(1))
    return net.model(FREE, x)


def line(
    classes: int, *, strides: tuple[int, int] = (2, 1), softmax: bool = True, notes: str = ""
) -> onnx.ModelProto:
    """1x3x48xW to 1xTxC: columns of the last map, a dense layer, a softmax."""
    net = Net()
    x = net.op("Relu", net.conv("images", 3, 8, strides=list(strides)))
    x = net.op("ReduceMean", x, axes=[2], keepdims=1)
    x = net.op("Transpose", net.op("Squeeze", x, net.ints(2)), perm=[0, 2, 1])
    x = net.op("Add", net.op("MatMul", x, net.weight(8, classes)), net.weight(classes))
    model = net.model(["n", 3, 48, "w"], net.op("Softmax", x, axis=2) if softmax else x)
    if notes:
        helper.set_model_props(model, {"character": notes})
    return model


def angle(strides: tuple[int, int] = (2, 1), size: tuple[int, int] | None = None):
    net = Net()
    x = net.op("Relu", net.conv("images", 3, 8, strides=list(strides)))
    x = net.op("Reshape", net.op("GlobalAveragePool", x), net.ints(-1, 8))
    x = net.op("Add", net.op("MatMul", x, net.weight(8, 2)), net.weight(2))
    shape: list[int | str] = [1, 3, *size] if size else FREE
    return net.model(shape, net.op("Softmax", x, axis=1))


@pytest.mark.parametrize("server", [False, True])
def test_a_detector_is_fed_as_upstream_feeds_it(server: bool) -> None:
    found = recognise(detector(server=server))
    image = found.contract.input
    assert found.contract.head == TextDetHead()
    assert (image.size, image.color, image.fit, image.place) == (
        (640, 640), "BGR", "letterbox", "top-left",
    )  # fmt: skip
    assert recognise(detector(), (320, 480)).contract.input.size == (320, 480)


def test_another_decoder_of_transposed_convolutions_is_a_mask() -> None:
    with pytest.raises(RkzooError, match="size of the model's input is open"):
        recognise(detector(wide=2))
    found = recognise(detector(wide=2), (64, 64))
    assert isinstance(found.contract.head, SemanticHead)


@pytest.mark.parametrize("added", [0, 1, 2])
def test_a_recognizer_takes_its_characters_from_the_file(added: int) -> None:
    signs = [chr(0x4E00 + i) for i in range(20)]
    contract = recognise(line(20 + added, notes="\n".join(signs) + "\n")).contract
    assert contract.head == TextRecHead(classes=20 + added)
    assert contract.input.size == (48, 320)
    assert contract.labels == (tuple(signs), ("", *signs), ("", *signs, " "))[added]


@pytest.mark.parametrize("other", [{"strides": (2, 2)}, {"softmax": False}])
def test_other_tables_of_scores_are_no_text(other) -> None:
    with pytest.raises(RkzooError):
        recognise(line(20, **other), (48, 320))


@given(st.integers(11, 40), st.integers(0, 4))
def test_a_dictionary_is_filled_up_by_blank_and_space_only(classes: int, missing: int) -> None:
    names = tuple(str(i) for i in range(classes - missing))
    found = characters(names, TextRecHead(classes=classes))
    if missing in (1, 2):
        assert (len(found), found[0], found[1:][: len(names)]) == (classes, "", names)
        assert found[len(names) + 1 :] == (" ",) * (missing - 1)
    else:
        assert found == names


@pytest.mark.parametrize(
    ("size", "used", "color"),
    [(None, (48, 192), "BGR"), ((48, 192), (48, 192), "BGR"), ((80, 160), (80, 160), "RGB")],
)
def test_angles_are_told_from_other_pairs_of_classes(size, used, color) -> None:
    contract = recognise(angle(size=size)).contract
    assert contract.head == TextClsHead()
    assert (contract.input.size, contract.input.color) == (used, color)
    assert recognise(angle((2, 2), (80, 160))).contract.head == ClassifyHead(classes=2)


def test_a_free_classifier_still_needs_a_size() -> None:
    net = Net()
    x = net.op("GlobalAveragePool", features(net))
    x = net.op("Gemm", net.op("Flatten", x), net.weight(8, 12), net.weight(12))
    with pytest.raises(RkzooError, match="size of the model's input is open"):
        recognise(net.model(FREE, x))
