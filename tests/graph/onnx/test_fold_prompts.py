"""A YOLO-World with its words folded in is a YOLOv8, after its comparison became a convolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import tiny_yolo
from tiny_world import World, build, folded
from tiny_yolo import Spec

from rkzoo.contract.detect import DetectHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.cut_head import cut_head, keep_head
from rkzoo.graph.onnx.fold_prompts import texts_to_convolution
from rkzoo.graph.onnx.view import prepared, run
from rkzoo.progress import SILENT
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.workflow.compile.prepare import _proof
from rkzoo.workflow.request.resolve import resolve

SIZES = {"images": (1, 3, 64, 96)}
SPECS = [
    Spec(opset=13),
    Spec(opset=13, classes=1),
    Spec(opset=17, classes=80, strides=(8, 16), bins=8),
    Spec(opset=13, classes=5, strides=(32,)),
]


def products(model: onnx.ModelProto) -> int:
    return sum(node.op_type in ("MatMul", "Einsum") for node in model.graph.node)


@pytest.mark.parametrize("einsum", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_it_is_recognised_and_cut_without_a_comparison(spec: Spec, einsum: bool) -> None:
    model = folded(spec, einsum=einsum)
    found = recognise(model)
    head = found.contract.head
    assert isinstance(head, DetectHead)
    assert (found.family, found.form) == ("yolov8", "stock")
    assert (head.classes, head.reg_max, head.strides) == (spec.classes, spec.bins, spec.strides)
    made = cut_head(model, found)
    assert products(made) == 0
    assert products(keep_head(model, found)) == 0
    assert len(OnnxSession(made.SerializeToString()).outputs) == 2 * len(spec.strides)


@pytest.mark.parametrize("width", [4, 32, 200])
def test_the_numbers_stay(width: int) -> None:
    model = folded(width=width)
    changed = texts_to_convolution(prepared(model, SIZES)).model
    assert (products(changed), products(model)) == (0, 3)
    picture = np.random.default_rng(0).random(SIZES["images"], np.float32)
    (ours,), (theirs,) = run(changed, {"images": picture}), run(model, {"images": picture})
    np.testing.assert_allclose(ours[:, :4], theirs[:, :4], atol=1e-3)
    np.testing.assert_allclose(ours[:, 4:], theirs[:, 4:], rtol=0, atol=1e-5)


def test_the_cut_is_proved_against_the_graph_as_it_was(tmp_path: object) -> None:
    path = f"{tmp_path}/folded.onnx"
    onnx.save(folded(names="{0: 'bus', 1: 'dog', 2: 'cat'}"), path)
    ready = resolve(path)
    assert ready.contract.labels == ("bus", "dog", "cat")
    proof = _proof(ready, ready.graph(), SILENT)
    assert proof is not None
    assert proof.box_px < 1e-3
    assert proof.score < 1e-5


def test_what_is_no_plain_comparison_stays() -> None:
    # The product itself can go; what stands behind it is nobody's head.
    with pytest.raises(RkzooError, match="not one that rkzoo knows"):
        recognise(folded(crooked=True))


@pytest.mark.parametrize(
    "model",
    [
        tiny_yolo.stock(),
        tiny_yolo.stock(replace(Spec(), tail="weighted")),
        build(World()),
        build(World(einsum=True, opset=13)),
    ],
    ids=["stock", "weighted", "prompted", "prompted-einsum"],
)
def test_other_graphs_are_left_alone(model: onnx.ModelProto) -> None:
    sizes = {**SIZES, "texts": (1, 8, 16)} if len(model.graph.input) > 1 else SIZES
    view = prepared(model, sizes)
    before = view.model.SerializeToString()
    assert texts_to_convolution(view) is view
    assert view.model.SerializeToString() == before
