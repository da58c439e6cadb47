"""The whole comparison on the real simulator, with nets that build in a second."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_yolo import stock

from rkzoo.cli.main import main
from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.toolkit import environment
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.recipe import InputPlan, Recipe
from rkzoo.workflow.comparison import compare as module
from rkzoo.workflow.comparison import planning
from rkzoo.workflow.comparison.compare import compare
from rkzoo.workflow.comparison.conclusions import beyond_float16, suspect_parts
from rkzoo.workflow.comparison.matching import Agreement
from rkzoo.workflow.comparison.result import Comparison, RuntimeComparison
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures
from rkzoo.workflow.compile.convert import convert
from rkzoo.workflow.inference.plan import ModelPart, Plan
from rkzoo.workflow.inference.simulator_backend import SimulatorBackend
from rkzoo.workflow.request.calibration import find
from rkzoo.workflow.request.request import Request


@pytest.fixture(scope="module", autouse=True)
def toolkit() -> None:
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(3)
    for number in range(4):
        small = random.integers(0, 256, (8, 12, 3), np.uint8)
        image = cv2.resize(small, (96, 64), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(stock(names=repr(["cat", "<b>dog", "cow"])), path)
    return str(path)


@pytest.mark.toolkit
def test_a_small_yolo_from_end_to_end(
    model: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    typed = ["compare", model, "--soc", "rv1106", "--calib", str(pictures), "-o", str(out)]
    assert main([*typed, "--conf", "0.3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["soc"] == "rv1106"
    assert document["pictures"] == ["0.png", "1.png", "2.png"], "three of the calibration set"
    assert document["board"] is None
    float32, half, int8 = document["ran"]
    assert [one["runtime"] for one in document["ran"]] == ["onnx", "fp16", "int8"]
    assert not float32["outputs"]
    names = [row["name"] for row in int8["outputs"]]
    assert names == [row["name"] for row in half["outputs"]]
    assert {row["role"] for row in int8["outputs"]} == {"box", "score"}
    assert all(row["cosine"] > 0.9999 for row in half["outputs"])
    assert all(row["scale"] and 0.9 < row["cosine"] < 1 for row in int8["outputs"])
    # In noise, a box more or less in float16 can decide which of two suppresses the other.
    assert half["agreement"]["found"] >= 0.9 * half["agreement"]["things"] > 0
    assert half["agreement"]["iou"] > 0.99
    (layers,) = document["layers"]
    compared = [row for row in layers["rows"] if row["cosine_single"] is not None]
    assert len(compared) > 5
    assert layers["worst"][0]["cosine_single"] == min(
        row["cosine_single"] for row in compared if row["op"] != "exDataConvert"
    )
    page = (out / "report.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 9
    assert "<b>dog" not in page
    assert "do not depend on the chip" in document["note"]
    assert not [p for p in out.iterdir() if p.name != "report.html"]


@pytest.mark.toolkit
def test_a_rknn_is_compared_with_what_it_was_made_from(
    model: str, pictures: Path, tmp_path: Path
) -> None:
    (made,) = convert(model, "rk3568", calibration=str(pictures), output=tmp_path / "a.rknn")
    found = compare(str(made.rknn), layers=False)
    assert found.soc == "rk3568"
    assert [one.runtime for one in found.ran] == ["onnx", "fp16", "int8"]
    assert found.pictures == ("0.png", "1.png", "2.png")
    (half,) = convert(model, "rk3568", dtype="fp16", output=tmp_path / "b.rknn")
    found = compare(str(half.rknn), images=sorted(pictures.iterdir())[:1])
    assert [one.runtime for one in found.ran] == ["onnx", "fp16"]
    assert "INT8: b.rknn was built in float16." in found.skipped


@pytest.mark.toolkit
def test_a_head_left_on_is_named_as_the_cause(
    model: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["compare", model, "--calib", str(pictures), "-o", str(tmp_path / "out"), "--no-layers"]
    assert main([*typed, "--no-cut", "--dtype", "int8"]) == 0
    said = capsys.readouterr().out
    assert "The scale of the output" in said
    assert "collapsed" in said
    assert "without --no-cut" in said
    assert "INT8 does not answer as float does" in said
    assert "left out: float16: only INT8 was asked for." in said


@pytest.mark.toolkit
def test_float16_alone_needs_pictures_and_no_calibration(model: str, pictures: Path) -> None:
    request = Request(dtype="fp16")
    with pytest.raises(RkzooError, match="no picture to compare on"):
        compare(model, request=request, layers=False)
    found = compare(model, request=request, images=sorted(pictures.iterdir())[:1], layers=False)
    assert [one.runtime for one in found.ran] == ["onnx", "fp16"]
    assert "INT8: only fp16 was asked for." in found.skipped
    assert not any(one.hurt for one in found.ran)


HEAD = DetectHead(
    outputs=(HeadOutput(name="box", role="box"), HeadOutput(name="score", role="score")),
    classes=2,
    reg_max=1,
    strides=(8,),
    coding="distance",
)
CONTRACT = Contract(family="small", picture=ImageInput(size=(32, 32)), head=HEAD)


def small(gain: float) -> onnx.ModelProto:
    """A head whose middle is `gain` times as large as what comes out of it."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int, factor: float = 1.0) -> TensorProto:
        return numpy_helper.from_array((random.random(shape) * factor).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Relu", ["c"], ["wide"]),
        helper.make_node("Conv", ["wide", "v"], ["box"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["wide", "u"], ["s"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["s"], ["score"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [info(name, TensorProto.FLOAT, None) for name in ("box", "score")],
        [
            weight("w", 4, 3, 8, 8, factor=gain),
            weight("v", 4, 4, 1, 1, factor=0.01 / gain),
            weight("u", 2, 4, 1, 1, factor=0.01 / gain),
        ],
    )
    opsets = [helper.make_opsetid("", 12)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def planned(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    graph: onnx.ModelProto,
    calibration: np.ndarray | None = None,
) -> Comparison:
    """The comparison of a graph whose head is not recognised but given, in INT8 too where it is
    calibrated."""
    onnx.save(graph, folder / "model.onnx")
    inputs = (InputPlan(name="x", shape=(1, 3, 32, 32), mean=(0.0,) * 3, std=(255.0,) * 3),)
    recipe = Recipe(soc="rk3588", dtype="fp16" if calibration is None else "int8", inputs=inputs)
    if calibration is not None:
        np.save(folder / "calibration-0.npy", calibration)
    place = None if calibration is None else folder
    made = ModelPart(CONTRACT, SimulatorBackend(BuildInputs(folder / "model.onnx", recipe, place)))
    whole = Plan("small", "simulator", {"model": made})
    monkeypatch.setattr(planning, "_base", lambda *given: whole)
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    cv2.imwrite(str(folder / "one.png"), image)
    return compare("small.onnx", images=[folder / "one.png"], layers=False)


@pytest.mark.toolkit
def test_numbers_too_large_for_float16_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = planned(monkeypatch, tmp_path, small(1e5))
    half = found.ran[1]
    assert half.hurt, half.outputs
    overflow = next(cause for cause in found.causes if cause.kind == "overflow")
    assert "65504" in overflow.text


@pytest.mark.toolkit
def test_the_same_graph_with_small_numbers_is_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = planned(monkeypatch, tmp_path, small(1.0))
    assert not found.ran[1].hurt
    assert [cause.kind for cause in found.causes if cause.kind == "overflow"] == []


@pytest.mark.toolkit
def test_calibration_in_the_dark_saturates_in_daylight(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dark = np.random.default_rng(2).integers(0, 25, (12, 32, 32, 3), np.uint8)
    found = planned(monkeypatch, tmp_path, small(1.0), dark)
    half, int8 = found.ran[1:]
    assert int8.hurt
    assert not half.hurt
    box = next(row for row in int8.outputs if row.name == "box")
    assert box.clipped > 0.5
    assert box.at_high >= 0.5, "some channels saturate in the layer before already"
    assert box.high < box.float_high / 2
    assert "saturated" in [cause.kind for cause in found.causes]


def test_the_largest_number_on_the_way() -> None:
    picture = np.full((1, 32, 32, 3), 255, np.uint8)
    largest, smallest = beyond_float16(small(1e5), CONTRACT, [picture])
    assert largest is not None
    assert smallest is None
    name, value = largest
    assert name in ("c", "wide")
    # 192 products of 1 and a number between 0 and 1e5.
    assert 50 * 1e5 < value < 192 * 1e5


def test_a_constant_is_no_overflow_and_what_is_divided_by_may_underflow() -> None:
    """As RT-DETR adds the largest float to the boxes of anchors that do not count."""
    graph = small(1.0)
    mask = np.zeros((1, 1, 32, 32), np.float32)
    mask[..., :4] = np.finfo(np.float32).max
    for name, value in (("mask", mask), ("tiny", np.float32(1e-9))):
        graph.graph.initializer.append(numpy_helper.from_array(value, name))
    graph.graph.node.extend(
        [
            helper.make_node("Add", ["x", "mask"], ["masked"]),
            helper.make_node("Mul", ["x", "tiny"], ["under"]),
            helper.make_node("Div", ["x", "under"], ["over"]),
        ]
    )
    picture = np.random.default_rng(0).integers(100, 256, (1, 32, 32, 3), np.uint8)
    largest, smallest = beyond_float16(graph, CONTRACT, [picture])
    assert largest is None or largest[0] == "over"
    assert smallest is not None
    assert smallest[0] == "under"
    assert np.float16(smallest[1]) == 0


def test_normalised_twice_in_a_real_graph(tmp_path: Path) -> None:
    from rkzoo.workflow.comparison.diagnosis import Facts, causes, input_scale

    graph = small(1.0)
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(255.0), "k"))
    graph.graph.node.insert(0, helper.make_node("Div", ["x", "k"], ["scaled"]))
    graph.graph.node[1].input[0] = "scaled"
    facts = Facts("m", CONTRACT, {}, frozenset(), gain=input_scale(graph))
    assert [cause.kind for cause in causes(facts)] == ["normalised-twice"]
    undivided = replace(facts, gain=input_scale(small(1.0)))
    assert causes(undivided) == ()


def agreed(things: int, **more: float) -> Agreement:
    usual = {"found": things, "lost": 0, "new": 0, "share": 1.0, "iou": 0.95, "change": 0.01}
    return Agreement(things, largest_change=0.02, **(usual | more))  # type: ignore[arg-type]


def test_when_a_runtime_counts_as_hurt() -> None:
    bad = OutputFigures("y", "box", "model", 0.7, 1.0, 0, 1, 0, 1)
    broken = OutputFigures("y", "box", "model", None, 1.0, 0, 1, 0, 1)
    assert not module._degraded(agreed(3), [bad]), "what is found says more than a tensor"
    assert module._degraded(agreed(0), [bad])
    assert module._degraded(None, [bad])
    assert module._degraded(agreed(3), [broken])
    for one in (
        {"share": 0.8},
        {"iou": 0.7},
        {"change": 0.2},
        {"mask_iou": 0.5},
        {"same_text": 2},
    ):
        assert module._degraded(agreed(3, **one), []), one


def test_the_part_of_a_pipeline_that_is_to_blame() -> None:
    def ran(det: float, rec: float) -> RuntimeComparison:
        rows = [OutputFigures("y", "", part, c, 1.0, 0, 1, 0, 1) for part, c in
                (("det", det), ("rec", rec))]  # fmt: skip
        return RuntimeComparison("int8", "simulator", (1,), tuple(rows), hurt=True)

    assert suspect_parts(ran(0.9, 0.9999)) == {"det"}
    assert suspect_parts(ran(0.9, 0.8)) == {"det", "rec"}
    assert suspect_parts(ran(0.985, 0.9999)) == {"det"}, "the furthest where none is bad"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--soc", "rk9999"], "no chip called"),
        (["--conf", "1.5"], "confidence is 1.5"),
        (["--image", "nowhere"], "holds no picture"),
        (["-o", "FILE"], "Nothing can be written"),
        ([], "alibration"),
    ],
)
def test_what_cannot_work_is_said_at_once(
    model: str,
    more: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    monkeypatch.setattr(module, "ToolkitProcess", None)
    assert main(["compare", model, *more]) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_a_broken_picture_is_named(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    assert main(["compare", model, "--image", str(tmp_path / "broken.png")]) == 2
    assert "broken.png" in capsys.readouterr().err


@pytest.mark.toolkit
def test_layers_that_cannot_be_compared_cost_only_themselves(
    model: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> None:
        raise RkzooError("The disk is full.", code=1)

    monkeypatch.setattr(module.ToolkitProcess, "analyse", fails)
    found = compare(model, request=Request(dtype="int8", calibration=find(str(pictures))))
    assert found.layers == ()
    assert "The layers of model: The disk is full." in found.skipped
    assert len(found.ran) == 2
