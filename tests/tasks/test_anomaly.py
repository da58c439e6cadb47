"""What is unusual in a picture: the map, its score, and what of the graph goes to the toolkit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_maps

import rkzoo
from rkzoo.cli.main import main
from rkzoo.contract.anomaly import AnomalyHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.legalize import legalized
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.anomaly.result import AnomalyMap
from rkzoo.tasks.anomaly.task import AnomalyDetector
from upstream_networks import network

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("marks", [True, False])
def test_the_map_and_the_score_are_those_of_the_graph(tmp_path: Path, marks: bool) -> None:
    model = tiny_maps.anomaly(marks=marks)
    onnx.save(model, tmp_path / "net.onnx")
    image = picture(60, 90)
    small = cv2.resize(image, (32, 32))[..., ::-1]
    fed = ((small - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)[None]
    answers = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"images": fed})
    score, values = answers[0], answers[2 if marks else 1]
    with rkzoo.load(tmp_path / "net.onnx") as opened:
        found = opened(image).prediction
    assert found.score == pytest.approx(score.item(), rel=1e-4)
    np.testing.assert_allclose(found.values, cv2.resize(values[0, 0], (90, 60)), rtol=1e-3)
    assert found.anomalous == (score.item() > 0.5)


def test_what_the_toolkit_gets_has_no_truth_values() -> None:
    model = tiny_maps.anomaly()
    found = recognise(model)
    cut = legalized(model, found.contract)
    assert [output.name for output in cut.graph.output] == list(found.contract.head.outputs)
    assert "Greater" not in {node.op_type for node in cut.graph.node}
    feed = np.random.default_rng(5).normal(size=(1, 3, 32, 32)).astype(np.float32)
    whole = OnnxSession(model.SerializeToString()).run([feed])
    values, score = OnnxSession(cut.SerializeToString()).run([feed])
    np.testing.assert_array_equal(values, whole[2])
    np.testing.assert_array_equal(score, whole[0])


def test_stfpm_of_anomalib() -> None:
    model = network("stfpm")
    found = recognise(model)
    assert found.contract.head == AnomalyHead(map="anomaly_map", score="pred_score")
    assert found.contract.input.size == (256, 256)
    cut = legalized(model, found.contract)
    assert [output.name for output in cut.graph.output] == ["anomaly_map", "pred_score"]


def test_run_writes_the_heat_map_and_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(tiny_maps.anomaly(), tmp_path / "net.onnx")
    cv2.imwrite(str(tmp_path / "in.png"), picture(60, 90))
    out = tmp_path / "out.png"
    assert main(["run", str(tmp_path / "net.onnx"), str(tmp_path / "in.png"), "-o", str(out)]) == 0
    assert "(threshold 0.5)" in capsys.readouterr().out
    assert cv2.imread(str(out)).shape == (60, 90, 3)
    assert np.load(tmp_path / "out-anomaly.npy").shape == (60, 90)


def test_where_and_how_much_is_unusual() -> None:
    values = np.zeros((10, 20), np.float32)
    values[2:4, 5:9] = 0.8
    found = AnomalyMap(values, 0.8)
    (row,) = found.to_json()
    assert row == {"score": 0.8, "threshold": 0.5, "anomalous": True, "share": 0.04}
    assert found.mask().sum() == 8
    assert not AnomalyMap(values, 0.8, threshold=0.9).anomalous
    drawn = AnomalyMap(np.pad(values, 100), 0.8).draw(np.full((210, 220, 3), 90, np.uint8))
    assert drawn[103, 106].argmax() == 2  # red
    assert drawn[200, 10].argmax() == 0  # blue


def test_a_map_alone_has_its_largest_value_as_score_and_a_missing_output_is_named() -> None:
    model = tiny_maps.anomaly(marks=False)
    score, values = (output.name for output in model.graph.output)
    image = ImageInput(size=(32, 32), fit="stretch")

    def detector(head: AnomalyHead) -> AnomalyDetector:
        contract = Contract(family="x", picture=image, head=head)
        return AnomalyDetector(contract, OnnxSession(model.SerializeToString(), image))

    alone = detector(AnomalyHead(map=values, score=""))(picture(40, 40))
    both = detector(AnomalyHead(map=values, score=score))(picture(40, 40))
    assert alone.score == pytest.approx(both.score)
    with pytest.raises(RkzooError, match="no output anomaly_map"):
        detector(AnomalyHead())
