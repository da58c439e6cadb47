"""A detector of one class, calibrated with pictures that do not show it: its INT8 scores must
reach what float gives, and the user is told. On the real toolkit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rkzoo
from class_cut import only
from rkzoo.cli.main import main
from rkzoo.graph.rknn import reader as rknn

pytestmark = pytest.mark.toolkit

PERSON = 1  # of COCO's own numbers
_MOST_LOST = 0.05


@pytest.fixture(scope="module")
def without_persons(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of eight pictures without a person."""
    folder = assets / "data/coco128_val"
    told = json.loads((folder / "instances_bbox.json").read_text())
    shown = {one["image_id"] for one in told["annotations"] if one["category_id"] == PERSON}
    names = [one["file_name"] for one in told["images"] if one["id"] not in shown]
    listed = tmp_path_factory.mktemp("foreign") / "pictures.txt"
    listed.write_text("".join(f"{folder / 'images' / Path(name).name}\n" for name in names[:8]))
    return listed


def test_scores_reach_what_float_gives(
    assets: Path, without_persons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = only(assets / "models/yolov8n.onnx", [0], tmp_path / "person.onnx")
    out = tmp_path / "person.rknn"
    arguments = ["--soc", "rk3588", "--dtype", "int8", "--calib", str(without_persons)]
    assert main(["convert", str(model), *arguments, "-o", str(out)]) == 0
    assert "so they likely do not show what the model looks for" in capsys.readouterr().out

    scores = [one for one in rknn.read(out).outputs if one.name.startswith("score")]
    assert len(scores) == 3
    assert all(one.scale == pytest.approx(1 / 255) for one in scores)
    sidecar = json.loads(out.with_name("person.rknn.json").read_text())
    assert sidecar["recipe"]["scores"] == [one.name for one in scores]

    bus = assets / "data/images/bus_640.jpg"
    with rkzoo.load(model) as exact, rkzoo.load(out, runtime="simulator") as built:
        wanted = sorted(exact(bus).prediction.score.tolist(), reverse=True)
        given = sorted(built(bus).prediction.score.tolist(), reverse=True)
    sure = [score for score in wanted if score > 0.5]
    assert len(sure) == 3
    for float_score, int8_score in zip(sure, given, strict=False):
        assert float_score - int8_score < _MOST_LOST
