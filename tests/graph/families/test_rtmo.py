"""RTMO as mmdeploy exports it, NMS inside (scripts/upstream/pose.py): what rkzoo finds is held
against the whole file in ONNX Runtime."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.graph.families.recognition import ImageSource, Recognition, SecondPart
from rkzoo.graph.families.registry import RECOGNISERS, recognise, recognise_arranged
from rkzoo.graph.families.rtmo import split
from rkzoo.graph.lowering.cut_head import cut_head
from rkzoo.graph.onnx.view import prepared
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.pose.one_stage import OneStagePose
from upstream_networks import network

SIDE = 416
# As the file has them.
OPTIONS = DetectOptions(confidence=0.1, iou=0.65, limit=50)


@pytest.fixture(scope="module")
def known() -> tuple[onnx.ModelProto, Recognition]:
    return recognise_arranged(network("rtmo-t"))


def second(found: Recognition) -> SecondPart:
    assert found.second is not None
    return found.second


def picture() -> np.ndarray:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (13, 13, 3), np.uint8)
    return small.repeat(SIDE // 13, axis=0).repeat(SIDE // 13, axis=1)


def test_what_it_promises(known: tuple[onnx.ModelProto, Recognition]) -> None:
    _, found = known
    head = found.contract.head
    assert isinstance(head, DetectHead)
    assert found.family == "rtmo"
    # configs/body_2d_keypoint/rtmo/body7/rtmo-t_8xb32-600e_body7-416x416.py
    assert (head.strides, head.classes, head.coefficients) == ((16, 32), 1, 192)
    assert (head.keypoints, head.keypoint_values) == (17, 1)
    assert second(found).head.points == 17  # type: ignore[union-attr]
    assert (found.contract.input.color, found.contract.input.pad) == ("BGR", 114)


def test_one_recogniser_takes_the_network(known: tuple[onnx.ModelProto, Recognition]) -> None:
    view = prepared(known[0], {"input": (1, 3, SIDE, SIDE)})
    image = ImageSource(ImageInput(size=(SIDE, SIDE)))
    answers = [recogniser(view, image) for _, recogniser in RECOGNISERS]
    assert [a.family for a in answers if isinstance(a, Recognition)] == ["rtmo"]


@pytest.mark.parametrize("cut", [True, False])
def test_people_are_those_of_the_whole_file(
    known: tuple[onnx.ModelProto, Recognition], cut: bool
) -> None:
    graph, found = known
    image = picture()
    whole = onnxruntime.InferenceSession(network("rtmo-t").SerializeToString())
    fed = image.transpose(2, 0, 1)[None].astype(np.float32)
    (people,), (points,) = whole.run(None, {"input": fed})
    rows = np.argsort(-people[:, 4], kind="stable")
    rows = rows[people[rows, 4] >= OPTIONS.confidence]
    assert len(rows) > 10
    model = cut_head(graph, found) if cut else graph
    contract = found.contract if cut else found.uncut
    assert contract is not None
    with OnnxSession(model.SerializeToString(), contract.picture) as session:
        classifier = OnnxSession(second(found).model.SerializeToString())
        poses = OneStagePose(contract, session, classifier, OPTIONS)(image)
    expected = people[rows, :4].clip(0, SIDE)
    np.testing.assert_allclose(poses.xyxy, expected, atol=1e-2)
    np.testing.assert_allclose(poses.boxes.score, people[rows, 4], atol=1e-5)
    np.testing.assert_allclose(poses.keypoints, points[rows], atol=2e-2)


def test_parts_of_different_networks_are_refused(
    known: tuple[onnx.ModelProto, Recognition],
) -> None:
    graph, found = known
    head = msgspec.structs.replace(found.contract.head, coefficients=191)
    contract = msgspec.structs.replace(found.contract, head=head)
    model = cut_head(graph, found).SerializeToString()
    classifier = OnnxSession(second(found).model.SerializeToString())
    with OnnxSession(model, contract.picture) as session, pytest.raises(RkzooError):
        OneStagePose(contract, session, classifier)


def test_cells_that_lie_elsewhere_are_not_taken() -> None:
    """A classifier that reads other places than those of the cells would give wrong points."""
    model = network("rtmo-t")
    (table,) = (
        node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and list(node.attribute[0].t.dims) == [845, 2]
    )
    moved = numpy_helper.to_array(table) + np.float32(8)
    table.CopyFrom(numpy_helper.from_array(moved))
    assert split(model, "input", (1, 3, SIDE, SIDE)) is None
    with pytest.raises(RkzooError, match="non-maximum suppression inside"):
        recognise(model)
