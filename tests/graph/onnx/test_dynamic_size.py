"""A graph whose size is freed answers as before, or is refused with the reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_yolo import Builder, Spec, stock

from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.cut_head import cut_head
from rkzoo.graph.onnx.dynamic_size import with_dynamic_size
from rkzoo.graph.onnx.view import run


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 1, (1, 3, height, width)).astype(np.float32)


def cut_of(size: tuple[int, int]) -> onnx.ModelProto:
    model = stock(Spec(size=size))
    return cut_head(model, recognise(model))


def test_as_the_graph_that_was_made_for_the_size() -> None:
    fixed = cut_of((96, 96))
    before = fixed.SerializeToString()
    freed = with_dynamic_size(fixed, 32)
    assert fixed.SerializeToString() == before
    # Same weights: only the size of the input differs between the two exports.
    for size in ((96, 96), (64, 96), (128, 32)):
        feeds = {"images": picture(*size)}
        for one, other in zip(run(freed, feeds), run(cut_of(size), feeds), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def made(end: str) -> onnx.ModelProto:
    b = Builder()
    x = b.conv("images", 3, 8, kernel=8, stride=8)
    if end == "reshape":
        flat = b.op("Reshape", [x, b.ints(1, 8, 64)])
        x = b.op("Reshape", [b.op("Relu", [flat]), b.ints(1, 8, 8, 8)])
    elif end == "resize":
        x = b.op("Resize", [x, "", "", b.ints(1, 8, 8, 8)])
    elif end == "grid":
        x = b.op("Add", [x, b.const(np.arange(64).reshape(1, 1, 8, 8))])
    elif end == "flat":
        x = b.op("Reshape", [x, b.ints(1, 8, -1)])
    return b.model([("images", [1, 3, 64, 64])], [(b.op("Relu", [x]), TensorProto.FLOAT)])


def test_a_plain_one_is_freed() -> None:
    (answer,) = run(with_dynamic_size(made("plain"), 32), {"images": picture(32, 160)})
    assert answer.shape == (1, 8, 4, 20)


@pytest.mark.parametrize("end", ["reshape", "resize", "grid", "flat"])
def test_a_size_fixed_inside_is_refused(end: str) -> None:
    with pytest.raises(RkzooError, match="cannot take pictures of other sizes") as caught:
        with_dynamic_size(made(end), 32)
    assert caught.value.why


def test_an_input_that_is_free_already_or_no_picture_is_refused() -> None:
    b = Builder()
    free = b.model([("images", [1, 3, "h", "w"])], [(b.op("Relu", ["images"]), 1)])
    b = Builder()
    row = b.model([("images", [1, 300])], [(b.op("Relu", ["images"]), 1)])
    for model in (free, row):
        with pytest.raises(RkzooError, match="no input of a fixed size"):
            with_dynamic_size(model, 32)
