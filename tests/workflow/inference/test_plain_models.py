"""Models that no recogniser knows, through every verb: ONNX Runtime on the original graph says
what is right, and the real toolkit builds and simulates them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tiny_plain
from tiny_plain import as_the_graph_takes, sample

import rkzoo
from rkzoo.accuracy.metric import cosine
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.tasks.tensors.feed import made as as_declared
from rkzoo.toolkit import builds
from rkzoo.workflow.comparison.check import check
from rkzoo.workflow.compile.golden import read_golden
from rkzoo.workflow.request.sidecar import read_sidecar

GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    "tokens": tiny_plain.tokens,
    "two_pictures": tiny_plain.two_pictures,
    "video": tiny_plain.video,
    "signal": tiny_plain.signal,
    "sequence_batch": tiny_plain.sequence_batch,
    "best": tiny_plain.best,
    "one_picture": tiny_plain.one_picture,
}
SAMPLES = 4


@dataclass(frozen=True)
class Case:
    """A graph's file, its samples in a folder, and what ONNX Runtime gives for each."""

    file: Path
    folder: Path
    samples: list[dict[str, np.ndarray]]
    wanted: list[dict[str, np.ndarray]]


@pytest.fixture(scope="module", params=GRAPHS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(request.param, tmp_path_factory.mktemp(request.param))


def made(name: str, place: Path) -> Case:
    model = GRAPHS[name]()
    place.mkdir(exist_ok=True)
    file, folder = place / f"{name}.onnx", place / "samples"
    onnx.save(model, file)
    folder.mkdir()
    given = [sample(model, seed) for seed in range(SAMPLES)]
    for number, one in enumerate(given):
        np.savez(folder / f"{number}.npz", **one)
    session = ort.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    wanted = [
        dict(zip(names, session.run(None, as_the_graph_takes(one)), strict=True)) for one in given
    ]
    return Case(file, folder, given, wanted)


def test_arrays_in_and_arrays_out(case: Case) -> None:
    with rkzoo.load(case.file) as model:
        for given, wanted in zip(case.samples, case.wanted, strict=True):
            result = model(given)
            assert isinstance(result.prediction, rkzoo.Tensors)
            assert list(result.prediction.arrays) == list(wanted)
            for name, array in wanted.items():
                np.testing.assert_allclose(result.prediction[name], array, atol=1e-5)
        assert model(case.folder / "0.npz").path == case.folder / "0.npz"


@pytest.mark.toolkit
@pytest.mark.parametrize(("dtype", "least"), [("int8", 0.98), ("fp16", 0.9999)])
def test_what_is_converted_answers_nearly_as_the_graph(
    case: Case, dtype: str, least: float, tmp_path: Path
) -> None:
    out = tmp_path / "model.rknn"
    how = {"calibration": str(case.folder), "dtype": dtype, "output": out, "golden": 2}
    (built,) = rkzoo.convert(case.file, "rk3588", **how)  # type: ignore[arg-type]
    assert built.golden is not None
    about = read_golden(built.golden).about
    assert (about.origin, about.count) == ("calibration", 2)
    assert check(out, runtime="simulator").level == "ok"
    with rkzoo.load(out, runtime="simulator") as model:
        for given, wanted in zip(case.samples, case.wanted, strict=True):
            found = model(given).prediction
            for array, (name, right) in zip(found.arrays.values(), wanted.items(), strict=True):
                assert array.shape == right.shape, name
                assert array.dtype == right.dtype, name
                assert (cosine(array, right) or 0) > least, name


@pytest.mark.toolkit
def test_formats_are_compared_and_measured(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rkzoo.compare(
        case.file, calibration=str(case.folder), layers=case.file.stem == "tokens"
    )
    assert [one.runtime for one in found.ran] == ["onnx", "fp16", "int8"]
    assert found.pictures == ("sample 1", "sample 2", "sample 3")
    for one in found.ran[1:]:
        assert [row.name for row in one.outputs] == list(case.wanted[0])
        assert all((row.cosine or 0) > 0.98 for row in one.outputs)
        assert all(0 <= row.mean_difference <= row.difference for row in one.outputs)
    assert all(layer.rows for layer in found.layers)
    measured = rkzoo.evaluate(
        case.file, case.folder, runtime="simulator", calibration=str(case.folder), workers=1
    )
    assert measured.main.name == "mean cosine with float"
    assert 0.98 < measured.main.value <= 1
    assert (measured.images, measured.items) == (SAMPLES, "samples")


def test_every_verb_that_needs_no_toolkit_takes_them(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.yml"
    assert main(["bench", str(case.file), "--frames", "2", "-o", str(report)]) == 0
    sources = [str(case.folder / "1.npz")]
    timed = rkzoo.bench(case.file, sources, count=2, warm_up=0)
    assert isinstance(timed, rkzoo.BenchReport)
    assert timed.model_info.picture == sources[0]
    assert {"preprocess", "inference", "postprocess"} <= timed.time_cost_ms.keys()
    capsys.readouterr()
    main(["inspect", str(case.file), "--json"])
    seen = json.loads(capsys.readouterr().out)
    assert seen["checks"][0]["level"] == "warn"
    assert "plain tensors" in seen["checks"][0]["text"]
    assert seen["next"].startswith("rkzoo convert")
    assert seen["plain"]["head"]["kind"] == "tensors"
    measured = rkzoo.evaluate(case.file, case.folder, workers=1)
    assert measured.main.value == pytest.approx(1)


@pytest.mark.toolkit
def test_files_are_named_by_their_inputs(
    tmp_path: Path, assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = made("two_pictures", tmp_path)
    np.save(tmp_path / "search.npy", case.samples[1]["search"])
    files = [f"template={assets}/data/images/bus_640.jpg", f"search={tmp_path}/search.npy"]
    out = tmp_path / "report"
    how = ["--calib", str(case.folder), "--no-layers", "-o", str(out), "--json"]
    assert main(["compare", str(case.file), "--image", *files, *how]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == ["bus_640.jpg"]
    assert told["verdict"].startswith("Nothing is wrong")
    page = (out / "report.html").read_text()
    assert "mean difference" in page
    assert all(name in page for name in case.wanted[0])
    assert main(["bench", str(case.file), "--input", *files, "--frames", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model_info"]["picture"] == " ".join(files)
    assert main(["compare", str(case.file), "--image", "template=x.png", *how]) == 2
    assert "x.png" in capsys.readouterr().err


@pytest.mark.toolkit
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("one_picture", {"fit": "letterbox", "mean": (1, 2, 3)}),
        ("open", {"shapes": {"picture": (1, 3, 32, 32)}, "fit": "pad"}),
        ("two_pictures", {"fit": "none"}),
        ("tokens", {}),
    ],
)
def test_what_the_cache_forgot_is_built_again(name: str, how: Any, tmp_path: Path) -> None:
    model = tiny_plain.one_picture(("h", "w")) if name == "open" else GRAPHS[name]()
    file, out = tmp_path / "m.onnx", tmp_path / "m.rknn"
    onnx.save(model, file)
    rkzoo.convert(file, "rk3588", dtype="fp16", output=out, **how)
    place = builds.find(read_sidecar(out).build)
    assert place is not None
    contract = read_sidecar(out).contract
    with rkzoo.load(out, runtime="simulator") as opened:
        first = opened(fed := as_declared(contract)).prediction
    shutil.rmtree(place.onnx.parent)
    with rkzoo.load(out, runtime="simulator") as opened:
        again = opened(fed).prediction
    for key, array in first.arrays.items():
        np.testing.assert_array_equal(array, again[key])


# ---- the user's own metric --------------------------------------------------------------------


def test_a_metric_of_ones_own_gets_outputs_and_names(tmp_path: Path) -> None:
    case = made("tokens", tmp_path)
    wanted = {f"{n}.npz": out for n, out in enumerate(case.wanted)}

    def equal(found, path):
        (name,) = found
        return float(np.abs(found[name] - wanted[Path(path).name][name]).max() < 1e-5)

    measured = rkzoo.evaluate(case.file, case.folder, metric=equal, workers=1)
    assert (measured.main.name, measured.main.value) == ("equal", 1.0)
    script = tmp_path / "score.py"
    script.write_text("def half(found, path):\n    return 0.5\n\nNUMBER = 3\n")
    told = rkzoo.evaluate(case.file, case.folder, metric=f"{script}:half", workers=1)
    assert [one.value for one in told.metrics] == [0.5, 0.5, 0.5]
    for metric, words in (
        (f"{script}:NUMBER", "no function NUMBER"),
        (f"{tmp_path / 'none.py'}:half", "no file"),
        ("score", "cannot be read"),
    ):
        with pytest.raises(RkzooError, match=words):
            rkzoo.evaluate(case.file, case.folder, metric=metric)


def test_a_metric_does_not_go_with_a_known_task(assets: Path, tmp_path: Path) -> None:
    model, data = assets / "models/yolov8n.onnx", assets / "data/coco128_val/images"
    with pytest.raises(RkzooError, match="does not go") as raised:
        rkzoo.evaluate(model, data, metric=lambda found, path: 1.0)
    assert "--raw" in raised.value.fix
    told = rkzoo.evaluate(model, data, raw=True, limit=2, metric=_anchors, workers=1)
    assert told.main.value == 8400


def _anchors(found, path):
    (output,) = found.values()
    return output.shape[-1]


# ---- tuning, video ----------------------------------------------------------------------------


@pytest.mark.toolkit
def test_tuning_measures_agreement_with_float(tmp_path: Path) -> None:
    case = made("sequence_batch", tmp_path)
    tuned = rkzoo.tune(
        case.file, case.folder, "rk3588", max_drop=-1.0, stages=["algorithm", "pictures"]
    )
    assert tuned.metric.name == "mean cosine with float"
    assert tuned.truth == "float model"
    assert tuned.metric.value == pytest.approx(1)
    assert len(tuned.trials) >= 2
    assert all(0.9 < trial.value <= 1 for trial in tuned.trials)
    recipe = tuned.save(tmp_path / "recipe.yaml")
    (done,) = rkzoo.convert(case.file, "rk3588", recipe=recipe, output=tmp_path / "m.rknn")
    assert done.rknn.is_file()


def test_one_picture_goes_on_video_and_several_do_not(tmp_path: Path, assets: Path) -> None:
    case = made("one_picture", tmp_path)
    lines = tmp_path / "out.jsonl"
    photos = assets / "data/coco128_val/images"
    summary = rkzoo.stream(case.file, photos, frames=3, jsonl=lines, save=tmp_path / "o.mp4")
    assert summary.frames == 3
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["results"][0]["shape"] for row in rows] == [[1, 5, 64, 64]] * 3
    assert all(one["min"] <= one["mean"] <= one["max"] for row in rows for one in row["results"])
    with pytest.raises(RkzooError, match="cannot be run on video"):
        rkzoo.stream(made("two_pictures", tmp_path / "b").file, photos, frames=1)
