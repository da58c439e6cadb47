"""A DETR with masks is named, where its arrays stay plain."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.graph.families.plain import plain_notes


@pytest.mark.parametrize(("maps", "named"), [([1, 100, 78, 78], True), ([1, 32, 78, 78], False)])
def test_masks_of_queries_are_told_from_prototypes(maps: list[int], named: bool) -> None:
    # Names and queries as rfdetr 1.11.2 has them for RFDETRSegNano; prototypes are not one a query.
    outputs = {"dets": [1, 100, 4], "labels": [1, 100, 91], "masks": maps}
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in outputs.items()
    ]
    model = helper.make_model(helper.make_graph([], "g", [], infos))
    notes = plain_notes(model, Contract(family="plain", head=TensorsHead()), requested=False)
    assert any("DETR for segmentation" in sentence for sentence in notes) is named
