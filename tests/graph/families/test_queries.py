"""Heads of DETR's kind: what is recognised, cut and proved, of tiny graphs and true networks."""

from __future__ import annotations

import onnx
import pytest
import tiny_queries
from tiny_queries import Detr

from rkzoo.contract.query_detect import QueryDetectHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import Recognition, recognise
from rkzoo.graph.lowering.cut_head import cut_head, keep_head
from rkzoo.graph.lowering.verify import EquivalenceReport, verify_equivalence
from rkzoo.tasks.detect.query import QueryDecoder
from rkzoo.workflow.compile.prepare import _reader
from upstream_networks import network


def head_of(found: Recognition) -> QueryDetectHead:
    head = found.contract.head
    assert isinstance(head, QueryDetectHead)
    return head


def proved(model: onnx.ModelProto, found: Recognition, cut: onnx.ModelProto) -> EquivalenceReport:
    assert found.uncut is not None
    return verify_equivalence(
        model,
        cut,
        found,
        _reader(found.contract, cut),
        _reader(found.uncut, keep_head(model, found)),
    )


@pytest.mark.parametrize("form", ["joined", "picked", "picked softmax"])
@pytest.mark.parametrize("coding", tiny_queries.FAMILIES)
def test_a_cut_head_is_equal_to_the_whole_graph(coding: str, form: str) -> None:
    model = tiny_queries.detr(Detr(coding, form))  # type: ignore[arg-type]
    found = recognise(model)
    cut = cut_head(model, found)
    assert [output.name for output in cut.graph.output] == ["logits", "boxes"]
    assert [info.name for info in cut.graph.input] == ["images"]
    assert {"TopK", "Softmax"}.isdisjoint(node.op_type for node in cut.graph.node)
    assert head_of(found).classes == (4 if form == "picked softmax" else 5)
    report = proved(model, found, cut)
    assert report.box_px < 1e-4
    assert report.score < 1e-6 < report.best_score


def test_a_batch_that_is_left_open_is_one_picture() -> None:
    """As the exporters of RT-DETR, D-FINE and DEIM leave it."""
    model = tiny_queries.detr(Detr("distance", "picked"))
    for info in model.graph.input:
        info.type.tensor_type.shape.dim[0].dim_param = "N"
    found = recognise(model)
    assert (found.family, found.form) == ("dfine", "stock")
    assert proved(model, found, cut_head(model, found)).box_px < 1e-4


def test_a_cut_at_other_boxes_is_refused() -> None:
    model = tiny_queries.detr(Detr("sigmoid", "picked"))
    found = recognise(model)
    cut = cut_head(model, found)
    (last,) = (node for node in cut.graph.node if "boxes" in node.output)
    last.op_type = "Tanh"
    with pytest.raises(RkzooError, match="differ from those of the uncut"):
        proved(model, found, cut)


@pytest.mark.parametrize(
    ("columns", "form", "labels", "classes", "activation"),
    [
        (5, "two", (), 5, "sigmoid"),
        (91, "two", (), 80, "sigmoid"),
        (91, "two", tuple(map(str, range(91))), 91, "sigmoid"),
        (5, "boxes first", (), 4, "sigmoid"),  # RF-DETR's exporter: the last is the background
        (5, "boxes first", tuple("abcde"), 5, "sigmoid"),
    ],
)
def test_columns_that_are_no_classes(
    columns: int, form: str, labels: tuple[str, ...], classes: int, activation: str
) -> None:
    found = recognise(tiny_queries.detr(Detr("exponent", form, columns)), labels=labels)  # type: ignore[arg-type]
    head = head_of(found)
    assert (head.classes, head.activation) == (classes, activation)
    if classes == 80:
        # The first and the last of COCO, and its gaps: https://cocodataset.org
        assert head.columns[:1] + head.columns[-1:] == (1, 90)
        assert {12, 26, 45, 83}.isdisjoint(head.columns)


def test_a_plain_detr_has_a_column_for_no_object() -> None:
    found = recognise(tiny_queries.detr(Detr("plain", "two", 92)))
    head = head_of(found)
    assert (head.activation, head.classes, len(head.columns)) == ("softmax", 80, 80)
    assert found.contract.input.mean != (0, 0, 0)


def test_boxes_of_another_making_are_not_taken() -> None:
    model = tiny_queries.detr(Detr("plain", "two"))
    (last,) = (node for node in model.graph.node if node.op_type == "Sigmoid")
    last.op_type = "Tanh"
    with pytest.raises(RkzooError, match="not one that rkzoo knows"):
        recognise(model)


NETWORKS = {
    "rtdetr-r18": ("rtdetr", "whole", 80, (640, 640)),
    "rtdetrv2-s-deploy": ("rtdetr", "stock", 80, (640, 640)),
    "dfine-n": ("dfine", "whole", 80, (640, 640)),
    "rfdetr-nano": ("rfdetr", "whole", 80, (384, 384)),
}


@pytest.mark.sweep
@pytest.mark.parametrize("name", NETWORKS)
def test_a_true_network_is_recognised(name: str) -> None:
    found = recognise(network(name))
    family, form, classes, size = NETWORKS[name]
    assert (found.family, found.form, head_of(found).classes) == (family, form, classes)
    assert found.contract.input.size == size
    assert found.contract.input.fit == "stretch"


@pytest.mark.sweep
def test_a_true_network_is_cut_and_proved() -> None:
    model = network("dfine-n-deploy")
    found = recognise(model)
    report = proved(model, found, cut_head(model, found))
    assert report.box_px < 1e-3
    assert report.score < 1e-5
    assert report.best_score > 0.3


def test_a_decoder_refuses_other_outputs() -> None:
    found = recognise(tiny_queries.detr())
    head = head_of(found)
    with pytest.raises(RkzooError, match="not those of the described head"):
        QueryDecoder(head, (32, 32), [])
