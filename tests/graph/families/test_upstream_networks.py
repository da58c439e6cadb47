"""Networks of other projects, exported by their own code: one recogniser takes each."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.pose import TopDownPoseHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.families.registry import RECOGNISERS, recognise
from rkzoo.graph.onnx.view import prepared
from upstream_networks import network

FAMILIES = {
    "rtmpose-s": "simcc-pose",
    "hrnet-w32": "heatmap-pose",
    "vitpose-s": "heatmap-pose",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_one_recogniser_takes_it(name: str) -> None:
    model = network(name)
    (info,) = model.graph.input
    shape = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
    view = prepared(model, {info.name: shape})
    picture = ImageSource(ImageInput(size=shape[2:]))  # type: ignore[arg-type]
    answers = [known(view, picture) for _, known in RECOGNISERS]
    found = [answer.family for answer in answers if isinstance(answer, Recognition)]
    assert found == [FAMILIES[name]]


POSES = {
    "rtmpose-s": TopDownPoseHead(points=17, coding="simcc"),
    "hrnet-w32": TopDownPoseHead(points=17, coding="heatmap"),
    "vitpose-s": TopDownPoseHead(points=17, coding="heatmap-udp"),
}


@pytest.mark.parametrize("name", POSES)
def test_how_a_pose_is_read_is_seen(name: str) -> None:
    assert recognise(network(name)).contract.head == POSES[name]


def maps(count: int, size: tuple[int, int]) -> onnx.ModelProto:
    """A convolution to maps a quarter as large as the picture."""
    weights = np.random.default_rng(0).normal(size=(count, 3, 4, 4)).astype(np.float32)
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], strides=[4, 4])],
        "g",
        [helper.make_tensor_value_info("x", floats, [1, 3, *size])],
        [helper.make_tensor_value_info("y", floats, [1, count, size[0] // 4, size[1] // 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("count", "size"), [(19, (256, 192)), (17, (256, 256)), (21, (192, 256))])
def test_maps_that_may_be_anything_are_left_to_a_card(count: int, size: tuple[int, int]) -> None:
    with pytest.raises(RkzooError, match="not one that rkzoo knows"):
        recognise(maps(count, size))
