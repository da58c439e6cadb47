"""--anchors from the command line to the boxes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

# The builders of small graphs live with the tests of the graph room.
from tiny_anchor_heads import Net, anchor_heads, anchored

import rkzoo
from rkzoo.cli.main import main
from rkzoo.contract.detect import DetectHead
from rkzoo.errors import RkzooError
from rkzoo.workflow.request.options import parse_anchors
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve

OWN = "12,14 20,30 31,25 40,60 62,44 60,90 90,70 80,100 140,120"


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """A YOLOv5 in Rockchip's form: its anchors are not in the graph."""
    path = tmp_path / "lost.onnx"
    onnx.save(anchor_heads(Net(), apart=False, sigmoid=True), path)
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.onnx"
    onnx.save(anchored(Net()), path)
    return path


def test_assumed_anchors_are_said_and_given_ones_are_taken(
    lost: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(lost)]) == 0
    assert "does not hold its anchors" in capsys.readouterr().out
    listed = tmp_path / "my anchors.txt"
    listed.write_text(OWN.replace(",", "\n").replace(" ", "\n"))
    assert main(["inspect", str(lost), "--anchors", str(listed), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert parse_anchors(document["next"].partition("--anchors ")[2]) == parse_anchors(OWN)
    assert not any("--anchors" in check["text"] for check in document["checks"])
    head = document["recognition"]["contract"]["head"]
    assert head["anchors"][0] == [[12, 14], [20, 30], [31, 25]]
    contract = resolve(str(lost), Request(anchors=OWN)).contract
    assert isinstance(contract.head, DetectHead)
    assert contract.head.anchors[2][2] == (140, 120)


def test_other_anchors_make_other_boxes(lost: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    double = [(2 * w, 2 * h) for w, h in parse_anchors(OWN)]
    settings = {"confidence": 0.0, "iou": 1.0, "limit": 100_000}
    with (
        rkzoo.load(lost, anchors=OWN, **settings) as once,
        rkzoo.load(lost, anchors=double, **settings) as twice,
    ):
        task_one, task_two = once.answer.args[0], twice.answer.args[0]  # type: ignore[attr-defined]
        outputs = task_one.session.run(task_one.preprocess(picture)[0])
        a = task_one.decoder.candidates(outputs, 0.0).boxes
        b = task_two.decoder.candidates(outputs, 0.0).boxes
    assert len(a) == len(b) > 100
    np.testing.assert_allclose(b[:, 2:] - b[:, :2], 2 * (a[:, 2:] - a[:, :2]), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(b[:, 2:] + b[:, :2], a[:, 2:] + a[:, :2], atol=1e-2)


def test_a_mismatch_with_the_graphs_own_is_refused_with_both_lists(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(whole), "--anchors", OWN]) != 0
    err = capsys.readouterr().err
    assert "not those of the model" in err
    assert "10,13" in err
    assert "12,14" in err
    with pytest.raises(RkzooError, match="not those of the model"):
        rkzoo.load(whole, anchors=OWN)


def test_anchors_where_there_are_none(tmp_path: Path) -> None:
    from tiny_yolo import stock

    path = tmp_path / "free.onnx"
    onnx.save(stock(), path)
    with pytest.raises(RkzooError, match="has no anchors"):
        rkzoo.load(path, anchors=OWN)
    with pytest.raises(RkzooError, match="cannot be read"):
        rkzoo.load(path, anchors="ten,twelve")
