from __future__ import annotations

import json
from pathlib import Path

import msgspec
import onnx
import pytest

# The builders of small graphs and files live with the tests of the graph room.
from rknn_writer import Sample
from tiny_plain import one_picture
from tiny_yolo import Spec, stock, vendor

from rkzoo.cli.main import main
from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.toolkit.recipe import Calibration, InputPlan, Recipe, Sidecar, Source


def show(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert err == ""
    # The exit code follows the verdict.
    assert code == (1 if "  FAIL  " in out or '"level": "fail"' in out else 0)
    return out


def saved(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "我的 model.onnx"
    onnx.save(model, path)
    return path


def test_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, stock(names="['a', 'b', 'c']"))
    text = show(capsys, path)
    for part in (
        "opset 13",
        "images  float32 1x3x64x96",
        "stock export",
        "3 classes, strides 8 16 32, boxes as distributions (reg_max 16)",
        "box_8 (box), score_8 (score)",
        "a, b, c",
        f"rkzoo convert '{path}' --soc rk3588 --calib FOLDER",
    ):
        assert part in text
    assert "FAIL" not in text


def test_a_detector_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, stock(Spec(dynamic=True, classes=5)))
    document = json.loads(show(capsys, path, "--size", "64x96", "--json"))
    assert document["kind"] == "onnx"
    assert document["bytes"] == path.stat().st_size
    contract = msgspec.convert(document["recognition"]["contract"], Contract)
    assert contract.input.size == (64, 96)
    assert isinstance(contract.head, DetectHead)
    assert contract.head.classes == 5
    levels = [check["level"] for check in document["checks"]]
    assert "fail" not in levels
    assert "warn" in levels
    assert document["next"].endswith("--soc rk3588 --calib FOLDER --size 64x96")


def test_the_vendor_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = show(capsys, saved(tmp_path, vendor()))
    assert "box, score and sum a level" in text
    assert "(score_sum)" in text


def test_an_unknown_model_is_shown_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, stock(Spec(classes=1), extra=51))
    text = show(capsys, path)
    assert "FAIL" not in text
    assert "warn  Its head is not one that rkzoo knows. It takes images 1x3x64x96" in text
    assert "Its outputs stay plain tensors" in text
    assert f"Next: rkzoo convert '{path}' --soc rk3588" in text
    document = json.loads(show(capsys, path, "--json"))
    assert document["recognition"] is None
    assert "it is not a stock export of YOLOv8" in document["unrecognised"]["why"]
    assert document["plain"]["input"]["size"] == [64, 96]
    assert document["next"]


def test_a_graph_that_stays_open_is_refused_with_its_one_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, one_picture(("height", "width")))
    document = json.loads(show(capsys, path, "--json"))
    (failed,) = [check for check in document["checks"] if check["level"] == "fail"]
    assert "The shape of the input picture is open." in failed["text"]
    assert "--shape picture=" in failed["text"]
    assert document["next"] is None
    text = show(capsys, path, "--shape", "picture=1,3,32,48", "--fit", "letterbox")
    assert "FAIL" not in text
    assert "--shape picture=1,3,32,48 --fit letterbox" in text
    text = show(capsys, path, "--size", "32x48", "--raw")
    assert "Its head is not read." in text
    assert "--size 32x48 --raw" in text


def test_foreign_operators_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = vendor()
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    name = model.graph.output[0].name
    model.graph.node.append(onnx.helper.make_node("Magic", [name], ["m"], domain="com.example"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("m", 1, None))
    text = show(capsys, saved(tmp_path, model))
    assert "operators of com.example" in text


def test_a_newer_opset_warns_or_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lowered to 19" in show(capsys, saved(tmp_path, stock(Spec(opset=20))))
    text = show(capsys, saved(tmp_path, vendor(Spec(opset=20))))
    assert "FAIL  Opset 20" in text


def test_names_from_the_file_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = stock(names="['\\x1b[31mred', 'b', 'c']")
    model.producer_name = "evil\x1b]0;title\x07"
    text = show(capsys, saved(tmp_path, model))
    assert "red" in text
    assert "\x1b" not in text
    assert "\x07" not in text


@pytest.mark.parametrize("container", [6, 0x1004])
def test_a_built_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], container: int) -> None:
    path = tmp_path / "m.rknn"
    path.write_bytes(Sample(container).write())
    text = show(capsys, path)
    for part in (
        "rk3588",
        "2.5.0(compiler version",
        "images  int8 1x3x32x48  scale 0.00390625 zero point -128  mean 0 0 0 std 255 255 255",
        "box_8  int8 1x64x4x4  scale 0.0625 zero point -7",
        "1 on NPU, 1 on CPU",
        "Softmax:b",
        '{"rkzoo": 1, "name": "猫"}',
    ):
        assert part in text
    document = json.loads(show(capsys, path, "--json"))
    assert document["kind"] == "rknn"
    assert document["outputs"][0]["zero_point"] == -7
    assert document["custom_json"]["name"] == "猫"
    assert document["sidecar"] is None


def test_a_built_file_under_another_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(Sample().write())
    assert "container 6" in show(capsys, path)


def test_a_sidecar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = (HeadOutput(name="box_8", role="box"), HeadOutput(name="score_8", role="score"))
    head = DetectHead(outputs=outputs, classes=2, strides=(8,))
    sidecar = Sidecar(
        source=Source(file="/data/猫.onnx", sha256="ab" * 32),
        recipe=Recipe(
            soc="rk3568", dtype="int8", inputs=(InputPlan(name="x", shape=(1, 3, 64, 64)),)
        ),
        contract=Contract(
            family="yolov8", picture=ImageInput(size=(64, 64)), head=head, labels=("cat", "dog")
        ),
        calibration=Calibration(files=("a.jpg", "b.jpg")),
        build="key",
        rkzoo="0.1.0",
        warnings=("one thing",),
    )
    path = tmp_path / "m.rknn.json"
    path.write_bytes(msgspec.json.encode(sidecar))
    text = show(capsys, path)
    for part in ("/data/猫.onnx", "rk3568, int8", "2 files", "2 classes", "cat, dog", "one thing"):
        assert part in text
    assert json.loads(show(capsys, path, "--json"))["recipe"]["soc"] == "rk3568"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.onnx", b""),
        ("a.onnx", b"nonsense"),
        ("a.onnx", stock().SerializeToString()[:-500]),
        ("a.rknn", b""),
        ("a.rknn", b"nonsense, but long enough to be a header of sixty-four bytes or more"),
        ("a.rknn", Sample().write()[:-10]),
        ("a.rknn.json", b"{}"),
        ("a.rknn.json", b"\xff\xfe"),
        ("a.rknn.json", b"[" * 100_000),
    ],
)
def test_broken_files_get_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert main(["inspect", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert name in err
    assert "bug in it" not in err
    assert main(["inspect", str(path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["what"]


def test_a_pipeline_is_looked_into_part_by_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "ppocr"]) == 2
    assert "rkzoo info ppocr-v4-det" in capsys.readouterr().err
    lines, page = tmp_path / "lines.yaml", tmp_path / "page.yaml"
    lines.write_text("task: text\nfile: lines.onnx\n")
    page.write_text("task: text\npipeline: {det: lines, rec: ppocr-v4-rec}\n")
    assert main(["inspect", str(page)]) == 2
    assert f"rkzoo inspect {lines}" in " ".join(capsys.readouterr().err.split())


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.onnx", "a.rknn", "a.rknn.json", "a"):
        assert main(["inspect", str(tmp_path / name)]) == 2
    assert main(["inspect", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_real_detector(assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = show(capsys, assets / "models" / "yolov8n.onnx")
    assert "80 classes, strides 8 16 32" in text


def test_a_head_without_classes_is_not_asked_for_their_names(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["inspect", str(assets / "models/retinaface_mobile0.25_320.onnx")])
    said = capsys.readouterr().out
    assert "--labels" not in said
    assert "--calib FOLDER" in said.splitlines()[-1]
    main(["inspect", str(assets / "models/mobilenetv2.onnx")])
    assert "The file names no classes" in capsys.readouterr().out
