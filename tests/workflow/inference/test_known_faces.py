"""A pipeline of faces from cards of one's own: run, streamed and followed, its known faces kept."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_whole
from tiny_undecoded import yunet

import rkzoo
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.workflow.compile import face_calibration
from rkzoo.workflow.compile.text_calibration import pictures_for
from rkzoo.workflow.request.calibration import from_arrays

CARD = "name: {0}\ntask: {1}\ntitle: {0}\nlicence: {{name: MIT}}\n{2}\n"


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pipeline's name; networks of random weights, so what they find is no face."""
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "detector.onnx").write_bytes(yunet().SerializeToString())
    (folder / "recognizer.onnx").write_bytes(tiny_whole.classifier("norm", 32).SerializeToString())
    for name, task in (("detector", "face"), ("recognizer", "vector")):
        (folder / f"my-{name}.yaml").write_text(
            CARD.format(f"my-{name}", task, f"file: {name}.onnx")
        )
    pipeline = (
        "family: faces\npipeline: {detector: my-detector, recognizer: my-recognizer}\n"
        "head: {kind: face-recognition, threshold: 0.9999}"
    )
    (folder / "my-faces.yaml").write_text(CARD.format("my-faces", "face-recognition", pipeline))
    monkeypatch.setenv("RKZOO_CARDS", str(folder))
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    return "my-faces"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(1).integers(0, 256, (128, 192, 3), np.uint8)
    path = tmp_path / "frames/picture.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 3))
    return path


def test_the_very_face_is_known_in_every_verb(
    faces: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = tmp_path / "known/ann"
    known.mkdir(parents=True)
    (known / "1.png").write_bytes(picture.read_bytes())
    options = ["--known", str(known.parent), "--conf", "0.5"]
    assert main(["run", faces, str(picture), *options, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["images"][0]["results"]
    assert (
        f"{known / '1.png'} shows {len(found)} faces: the largest of the sure ones is taken for ann"
        in err
    )
    named = [one for one in found if one["label"] == "ann"]
    area = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one["box"] for one in found)]
    largest = found[int(np.argmax(area))]
    assert largest in named
    assert largest["cosine"] == pytest.approx(1, abs=1e-4)
    assert {one["label"] for one in found} == {"ann", "unknown"}
    kept = list((tmp_path / "cache/embeddings").glob("*/faces-*.npy"))
    assert len(kept) == 1
    assert main(["stream", faces, str(picture.parent), *options, "--jsonl", "-", "--track"]) == 0
    frame = json.loads(capsys.readouterr().out.splitlines()[0])
    assert [one["label"] for one in frame["results"]].count("ann") == len(named)
    assert all(one["track"] for one in frame["results"])
    with rkzoo.load(faces, known=known.parent, confidence=0.5) as model:
        assert model(picture).labels is not None
        assert sorted(set(model(picture).labels or ())) == ["ann", "unknown"]
    assert list((tmp_path / "cache/embeddings").glob("*/faces-*.npy")) == kept


def test_known_faces_go_with_faces_only(faces: str, picture: Path) -> None:
    with pytest.raises(RkzooError, match="--known does not go with this model"):
        rkzoo.load("my-detector", known=picture.parent)


def test_a_recognizer_is_calibrated_with_the_faces_on_the_pictures(
    faces: str, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, crop = cv2.imread(str(picture)), np.zeros((112, 112, 3), np.uint8)
    given = from_arrays([whole], [picture.name])
    found = pictures_for("my-recognizer", given)
    assert found is not None
    assert {image.shape for image in found.load()} == {(112, 112, 3)}
    with rkzoo.load(faces) as model:
        expected = model(picture).prediction.aligned(whole)
    assert np.array_equal(np.stack(list(found.load())), expected)
    aligned = from_arrays([crop], ["aligned.png"])
    assert pictures_for("my-recognizer", aligned) is aligned
    assert pictures_for("my-detector", given) is given
    # Nothing is a face that no detector is as sure of.
    monkeypatch.setattr(face_calibration, "USUAL", DetectOptions(confidence=1.0))
    with pytest.raises(RkzooError, match="show no face"):
        pictures_for("my-recognizer", given)
