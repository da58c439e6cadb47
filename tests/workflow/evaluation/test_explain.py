"""The way from the upstream figure to the deployed model: every step measured, none faked."""

from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_yolo import Spec, stock

from rkzoo.cli.main import main
from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.toolkit import environment
from rkzoo.vision import letterbox
from rkzoo.workflow.evaluation import explain as explaining
from rkzoo.workflow.evaluation import rectangular
from rkzoo.workflow.evaluation.evaluate import STANDARD, evaluate, evaluate_plan
from rkzoo.workflow.evaluation.explain import Explanation, Step, explain
from rkzoo.workflow.evaluation.explain_chart import draw
from rkzoo.workflow.evaluation.jobs import EvaluationJob, ImageReadOptions, answering
from rkzoo.workflow.inference.plan import Plan, plan
from rkzoo.workflow.request.models import Models
from rkzoo.workflow.request.request import Request

PICTURES = 6
FLOAT = Request(runtime="onnx")
BRANCHES = ("pad", "pillow", "turbo-exact", "turbo-fast")


@pytest.fixture(scope="module", autouse=True)
def first_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A cache of these tests' own; the value is the one they were started with."""
    before = os.environ.get("RKZOO_CACHE")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield before


Model = Callable[[tuple[int, int]], str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")

    def made(size: tuple[int, int]) -> str:
        path = folder / f"tiny{size[0]}x{size[1]}.onnx"
        if not path.exists():
            # The weights are the same for every size.
            onnx.save(stock(Spec(size=size), names=repr(["cat", "dog", "cow"])), path)
        return str(path)

    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, models: Model) -> str:
    """Pictures whose truth is some of what the model itself finds, moved by a pixel or two, so
    that a figure is well above 0 and every step shows."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(7)
    images, notes = [], []
    options = replace(STANDARD, iou=0.5, limit=8, multi_label=False)
    with answering(EvaluationJob(plan(models((96, 96)), Request()), options)) as answer:
        for number in range(PICTURES):
            path = folder / f"{number:03d}.jpg"
            image = cv2.resize(random.integers(0, 256, (10, 15, 3), np.uint8), (120, 80))
            cv2.imwrite(str(path), image)
            images.append({"id": number, "file_name": path.name, "width": 120, "height": 80})
            found = answer(path.read_bytes(), path)
            boxes = found["xyxy"] + random.uniform(-1.5, 1.5, found["xyxy"].shape)
            for (x1, y1, x2, y2), kind in zip(
                boxes.tolist(), found["class_id"].tolist(), strict=True
            ):
                note = {"id": len(notes) + 1, "image_id": number, "category_id": kind + 1}
                box = [x1, y1, max(x2 - x1, 2.0), max(y2 - y1, 2.0)]
                notes.append(note | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    kinds = [{"id": i + 1, "name": name} for i, name in enumerate(("cat", "dog", "cow"))]
    truth = folder / "truth.json"
    truth.write_text(json.dumps({"images": images, "annotations": notes, "categories": kinds}))
    return str(truth)


@pytest.fixture(scope="module")
def found(models: Model, data: str) -> Explanation:
    return explain(models((96, 96)), data, request=FLOAT, workers=1)


def steps(found: Explanation) -> dict[str, Step]:
    return {step.key: step for step in found.steps}


# ---- rectangular input --------------------------------------------------------------


USUAL = ImageReadOptions()


def records(planned: Plan, image: np.ndarray, reading: ImageReadOptions = USUAL) -> dict:
    data = cv2.imencode(".png", image)[1].tobytes()
    with answering(
        EvaluationJob(planned, replace(STANDARD, confidence=0.05), reading=reading)
    ) as answer:
        return answer(data, Path("a.png"))


RECTANGULAR = ImageReadOptions(rectangular=True)


@pytest.fixture
def no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rectangular, "_MARGIN", 0)


@pytest.mark.usefixtures("no_margin")
@pytest.mark.parametrize("source", [(96, 96), (80, 80)])
def test_a_square_picture_gives_what_the_fixed_graph_gives(
    models: Model, source: tuple[int, int]
) -> None:
    planned = plan(models((96, 96)), Request())
    image = np.random.default_rng(1).integers(0, 256, (*source, 3), np.uint8)
    fixed = records(planned, image)
    free = records(rectangular.with_dynamic_size(planned), image, RECTANGULAR)
    assert len(fixed["score"]) > 3
    for key, value in fixed.items():
        np.testing.assert_allclose(free[key], value, atol=1e-3)


@pytest.mark.usefixtures("no_margin")
def test_a_long_picture_gives_what_a_graph_of_its_shape_gives(models: Model) -> None:
    image = np.random.default_rng(2).integers(0, 256, (80, 120, 3), np.uint8)
    small = records(plan(models((64, 96)), Request()), image)
    free = records(
        rectangular.with_dynamic_size(plan(models((96, 96)), Request())), image, RECTANGULAR
    )
    assert len(small["score"]) > 3
    for key, value in small.items():
        np.testing.assert_allclose(free[key], value, atol=1e-3)


sides = st.integers(1, 3000)


@given(height=sides, width=sides, cells=st.integers(1, 20), stride=st.sampled_from((8, 32, 64)))
def test_a_rectangle_holds_the_picture_at_the_same_scale(
    height: int, width: int, cells: int, stride: int
) -> None:
    spec = ImageInput(size=(cells * stride, cells * stride))
    size = rectangular.rectangle((height, width), spec, stride)
    scaled = letterbox.plan((height, width), spec).scaled
    for side, inner in zip(size, scaled, strict=True):
        assert side % stride == 0
        # Half a cell at least, less what rounding the picture's side took or gave.
        assert inner + stride / 2 - 1 <= side < inner + 1.5 * stride + 1


def test_a_family_that_evaluates_squares_itself_has_no_such_step(models: Model) -> None:
    planned = plan(models((64, 96)), Request())
    for change in ({"place": "top-left"}, {"size": (72, 96)}):
        part = planned.parts["model"]
        fed = msgspec.structs.replace(part.contract.input, **change)
        contract = msgspec.structs.replace(part.contract, picture=fed)
        with pytest.raises(RkzooError, match="no rectangular input"):
            rectangular.with_dynamic_size(
                replace(planned, parts={"model": replace(part, contract=contract)})
            )


# ---- the steps ----------------------------------------------------------------------


def test_the_steps_are_what_an_evaluation_by_itself_gives(
    found: Explanation, models: Model, data: str
) -> None:
    model, by = models((96, 96)), steps(found)
    plain = evaluate(model, data, request=FLOAT, workers=1)
    run = evaluate(model, data, request=FLOAT, options=DetectOptions(), workers=1)
    assert by["square"].value == plain.main.value
    assert by["confidence"].value == run.main.value
    # A picture of 2 to 3 at 96 wide, and half a cell of 32 more on both sides.
    assert rectangular.rectangle((80, 120), ImageInput(size=(96, 96)), 32) == (96, 128)
    assert by["rectangular"].value is not None
    assert found.metric == "mAP50-95"
    assert found.images == PICTURES


def test_the_changes_add_up_along_the_path_and_branches_are_not_counted(
    found: Explanation,
) -> None:
    assert [step.key for step in found.path] == [
        "rectangular",
        "square",
        "nms",
        "label",
        "confidence",
    ]
    first, *rest = found.path
    assert first.change is None
    assert first.value is not None
    total = sum(step.change for step in rest if step.change is not None)
    assert first.value + total == pytest.approx(found.path[-1].value, abs=1e-12)
    by = steps(found)
    for key in BRANCHES:
        if by[key].value is not None:
            assert by[key].branch
            assert by[key].change == by[key].value - by["square"].value
    # What the pictures were made for shows.
    assert by["square"].value > 0.05
    for key in ("square", "pad", "nms"):
        assert by[key].change != 0, key
    assert all(step.means for step in found.steps)


def test_other_settings_of_the_deployed_model(models: Model, data: str) -> None:
    mine = DetectOptions(confidence=0.99, iou=0.65, limit=5)
    found = explain(models((96, 96)), data, request=FLOAT, deployed=mine, workers=1, limit=3)
    by = steps(found)
    assert "at most 5 boxes" in by["limit"].name
    assert "0.99" in by["confidence"].name
    assert by["confidence"].change != 0
    alone = evaluate(models((96, 96)), data, request=FLOAT, options=mine, workers=1, limit=3)
    assert by["confidence"].value == alone.main.value
    assert any("first 3 of 6" in text for text in found.departures)


def test_a_second_time_everything_is_known(
    found: Explanation, models: Model, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reused = []

    def counted(*args: object, **more: object) -> object:
        one = evaluate_plan(*args, **more)  # type: ignore[arg-type]
        reused.append(one.reused)
        return one

    monkeypatch.setattr(explaining, "evaluate_plan", counted)
    again = explain(models((96, 96)), data, request=FLOAT, workers=1)
    assert again.steps == found.steps
    assert set(reused) == {PICTURES}


# ---- what cannot be measured --------------------------------------------------------


def test_a_step_that_cannot_be_measured_says_why_and_the_others_go_on(
    found: Explanation, models: Model, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(planned: Plan) -> Plan:
        raise RkzooError("The graph cannot take other sizes.", "A Reshape fixes it.")

    def no_toolkit(found: Models, runtime: str, request: Request, *rest: object) -> Plan:
        if request.dtype == "fp16":
            raise RkzooError("The toolkit cannot be installed.", "", "Give --runtime onnx.")
        return plan(models((96, 96)), FLOAT)

    monkeypatch.setattr(explaining, "with_dynamic_size", refused)
    monkeypatch.setattr(explaining, "plan_of", no_toolkit)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    other = explain(models((96, 96)), data, workers=1)
    by, before = steps(other), steps(found)
    for key, reason in (
        ("rectangular", "A Reshape fixes it."),
        ("turbo-exact", "pip install simplejpeg"),
        ("fp16", "The toolkit cannot be installed."),
    ):
        assert by[key].value is by[key].change is None
        assert reason in by[key].reason
    assert by["square"].value == before["square"].value
    assert by["square"].change is None  # nothing measured stands before it
    # The step after the missing one is compared with the one before it.
    assert by["int8"].change == by["int8"].value - by["confidence"].value
    assert other.path[0].key == "square"


def test_a_broken_picture_is_an_error_and_no_unmeasured_step(
    models: Model, data: str, tmp_path: Path
) -> None:
    truth = json.loads(Path(data).read_text())
    for image in truth["images"]:
        (tmp_path / image["file_name"]).write_bytes(b"\xff\xd8 no picture")
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(RkzooError, match=r"000\.jpg"):
        explain(models((96, 96)), str(tmp_path / "truth.json"), request=FLOAT, workers=1)


def test_only_boxes_masks_and_key_points(
    models: Model, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RkzooError, match="taken apart") as caught:
        explain("model.rknn", data)
    assert "Give the .onnx" in caught.value.fix
    monkeypatch.setattr(explaining, "task_of", lambda *_: "text")
    with pytest.raises(RkzooError, match="taken apart step by step"):
        explain(models((96, 96)), data, request=FLOAT)


@pytest.mark.toolkit
def test_down_to_int8_on_the_real_simulator(
    models: Model, data: str, first_cache: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the toolkit is installed.
    if first_cache is None:
        monkeypatch.delenv("RKZOO_CACHE")
    else:
        monkeypatch.setenv("RKZOO_CACHE", first_cache)
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))
    report = Notes()
    found = explain(models((96, 96)), data, limit=4, workers=1, fresh=True, report=report)
    by = steps(found)
    assert [step.key for step in found.path][-3:] == ["confidence", "fp16", "int8"]
    assert {step.runtime for step in found.path[-2:]} == {"simulator"}
    assert found.toolkit
    total = found.path[0].value + sum(step.change for step in found.path[1:])
    assert total == pytest.approx(by["int8"].value, abs=1e-12)
    # Half precision moves hardly a box; 8 bits do.
    assert abs(by["fp16"].change) < 0.1
    assert by["int8-standard"].change == by["int8-standard"].value - by["square"].value
    assert found.departures[0] == "calibrated on 2 pictures of the same data, not scored"
    assert len(report.notes) == len(set(report.notes))


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.task, self.failed = SILENT.task, SILENT.failed

    def note(self, message: str) -> None:
        self.notes.append(message)


# ---- what is shown ------------------------------------------------------------------


def test_the_chart(found: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unmeasured = replace(found.steps[0], value=None, change=None, reason="No.")
    for one in (found, replace(found, steps=(unmeasured, *found.steps[1:]))):
        draw(one, tmp_path / "chart.png")
        image = cv2.imread(str(tmp_path / "chart.png"))
        assert image is not None
        assert image.std() > 5
    draw(found, tmp_path / "a.svg")
    first = (tmp_path / "a.svg").read_bytes()
    assert ElementTree.fromstring(first).tag.endswith("svg")
    with pytest.raises(RkzooError, match=r"chart\.bmp"):
        draw(found, tmp_path / "chart.bmp")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(RkzooError, match="No space left"):
        draw(found, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "chart.png"]


def test_the_command_line(
    found: Explanation,
    models: Model,
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["eval", models((96, 96)), "--data", data, "--workers", "1", "--explain"]
    words += ["--runtime", "onnx"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [step["value"] for step in document["steps"]] == [step.value for step in found.steps]
    assert not list(tmp_path.iterdir())
    assert main(words) == 0
    said = capsys.readouterr().out
    for step in found.steps:
        assert step.name in said
    assert f"{found.path[-1].value:.4f}" in said
    assert (tmp_path / "tiny96x96-explain.png").stat().st_size > 10_000
    assert main([*words, "-o", "chart.doc"]) == 2
    assert main([*words[:-3], "--runtime", "onnx", "-o", "chart.png"]) == 2  # no --explain
