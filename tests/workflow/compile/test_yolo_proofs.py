"""What `convert` does with real weights before the toolkit is asked: recognise, cut, prove."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from rkzoo.contract.detect import DetectHead
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT
from rkzoo.workflow.compile.convert import custom_string
from rkzoo.workflow.compile.prepare import prepare
from rkzoo.workflow.request.quantization import QuantizationConfig
from rkzoo.workflow.request.resolve import resolve


@pytest.mark.parametrize(
    ("name", "family", "outputs"),
    [("yolov8n-seg", "yolov8-seg", 10), ("yolov8n-pose", "yolov8-pose", 9)],
)
def test_segmentation_and_pose_are_cut_and_proven(
    name: str,
    family: str,
    outputs: int,
    assets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path))
    ready = resolve(str(assets / "models" / f"{name}.onnx"))
    proof = prepare(ready, ["rk3588"], "fp16", None, None, SILENT).proof
    head = ready.contract.head
    assert ready.contract.family == family
    assert isinstance(head, DetectHead)
    assert len(head.outputs) == outputs
    assert proof is not None
    assert proof.cells == 8400
    assert proof.box_px <= 1e-3
    assert proof.score <= 1e-5
    assert proof.extra <= 1e-3
    assert proof.best_score > 0.01
    assert len(custom_string(ready.contract).encode()) < 1024


def test_bounded_scores_of_real_weights_pass_the_proof(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path))
    ready = resolve(str(assets / "models" / "yolo11n.onnx")).quantised(
        QuantizationConfig("bounded")
    )
    proof = prepare(ready, ["rk3588"], "fp16", None, None, SILENT).proof
    assert proof is not None
    # Away from the bound nothing changes; a score below it reads 1 / (1 + exp(8)).
    assert 1e-5 < proof.score < 3.5e-4
    assert proof.box_px <= 1e-3


def test_a_misread_head_is_not_converted(assets: Path) -> None:
    """The proof has teeth: key points a little wrong end it."""
    ready = resolve(str(assets / "models" / "yolov8n-pose.onnx"))
    head = msgspec.structs.replace(ready.contract.head, centred_keypoints=True)
    wrong = msgspec.structs.replace(ready.contract, head=head)
    ready = replace(ready, contract=wrong)
    with pytest.raises(RkzooError, match="differ from those of the uncut graph"):
        prepare(ready, ["rk3588"], "fp16", None, None, SILENT)
