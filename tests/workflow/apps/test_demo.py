"""The demo, whole and without the toolkit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.graph.rknn import reader as rknn
from rkzoo.vision.image import read
from rkzoo.workflow.apps import demo as module

pytestmark = pytest.mark.network


@pytest.mark.toolkit
def test_the_whole_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["demo", "-o", str(out)]) == 0
    told = capsys.readouterr()
    assert "从训练好的模型到芯片" in told.out
    assert "INT8 [simulator]" in told.out
    report = json.loads((out / "report.json").read_text("utf-8"))
    comparison = report["comparison"]
    assert report["not_done"] is None
    assert comparison["onnx_lines"] == len(report["page"]["lines"]) >= 14
    assert comparison["found_by_both"] >= 0.95 * comparison["onnx_lines"]
    assert min(comparison["cosine"].values()) > 0.9
    assert comparison["rknn_bytes"] == (out / "ppocr-v4-det-rk3588-int8.rknn").stat().st_size
    assert rknn.read(out / "ppocr-v4-det-rk3588-int8.rknn").platforms == ("rk3588",)
    assert {read(path).shape[2] for path in report["pictures"]} == {3}
    assert len(report["pictures"]) == 3


def test_without_the_toolkit_the_float_half_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = RkzooError("RKNN-Toolkit2 does not run on macOS.", "It is built for Linux.", "")
    monkeypatch.setattr(module, "unavailable", lambda *_: reason)
    assert main(["demo", "-o", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "does not run on macOS" in told.err
    assert "15 lines" in told.out
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["comparison"] is None
    assert "macOS" in report["not_done"]
    assert (tmp_path / "page-onnx.png").exists()
    assert not list(tmp_path.glob("*.rknn"))
