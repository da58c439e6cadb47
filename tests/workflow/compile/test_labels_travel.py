"""Class names from the file, the user or the card, into results, sidecar and custom string."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

# The builders of small graphs live with the tests of the graph room.
from tiny_yolo import Spec, stock, vendor

import rkzoo
from rkzoo.cli.main import main
from rkzoo.contract.model import Contract
from rkzoo.graph.families.registry import recognise
from rkzoo.workflow.compile.convert import custom_string
from rkzoo.workflow.request.quantization import QuantizationConfig
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve

NAMES = ['it\'s a "cat"', "狗 和 猫", "c: {3}, \\ end"]


def saved(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    return path


def checks(path: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    assert main(["inspect", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    return [(check["level"], check["text"]) for check in document["checks"]]


@pytest.mark.parametrize("names", [repr(dict(enumerate(NAMES))), repr(NAMES), json.dumps(NAMES)])
def test_from_the_file_to_the_results(
    tmp_path: Path, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, stock(names=names))
    assert ("ok", "Each of the 3 classes has its name.") in checks(path, capsys)
    with rkzoo.load(path, confidence=0) as model:
        result = model(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
    assert {record["label"] for record in result.to_json()["results"]} <= set(NAMES)
    assert len(result) > 0
    written = json.loads(json.dumps(result.to_json(), ensure_ascii=False))
    assert all(r["label"] == NAMES[r["class_id"]] for r in written["results"])


def test_into_the_custom_string_and_back(tmp_path: Path) -> None:
    contract = resolve(str(saved(tmp_path, stock(names=repr(NAMES))))).contract
    text = custom_string(contract)
    assert text.isascii(), "the toolkit stores bytes, and readers in C know no encoding"
    back = msgspec.convert(json.loads(text)["contract"], Contract)
    assert back == contract
    assert back.labels == tuple(NAMES)


def test_a_long_list_leaves_the_custom_string_but_not_the_contract(tmp_path: Path) -> None:
    names = [f"class number {n}" for n in range(200)]
    contract = resolve(str(saved(tmp_path, stock(Spec(classes=200), names=repr(names))))).contract
    assert contract.labels == tuple(names)
    back = msgspec.convert(json.loads(custom_string(contract))["contract"], Contract)
    assert back == msgspec.structs.replace(contract, labels=())


@pytest.mark.parametrize("count", [2, 5])
def test_another_number_of_names_in_the_file_is_ignored_and_said(
    tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"n{n}" for n in range(count)]
    path = saved(tmp_path, stock(names=repr(names)))
    assert recognise(onnx.load(path)).contract.labels == ()
    text = f"names {count} classes but its head has 3"
    assert any(level == "warn" and text in line for level, line in checks(path, capsys))
    told: list[str] = []

    class Notes:
        def task(self, *_: object, **__: object):
            raise AssertionError

        def note(self, message: str) -> None:
            told.append(message)

    ready = resolve(str(path), report=Notes())  # type: ignore[arg-type]
    assert ready.contract.labels == ()
    assert any(text in line for line in told)


@pytest.mark.parametrize("names", ["{0: 'a', 2: 'b'}", "{broken", "['a', 1]", "__import__('os')"])
def test_names_that_are_none_are_no_names(
    tmp_path: Path, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, stock(names=names))
    found = checks(path, capsys)
    assert any("names no classes" in line for _, line in found)
    with rkzoo.load(path, confidence=0) as model:
        labels = [r["label"] for r in model(np.zeros((9, 9, 3), np.uint8)).to_json()["results"]]
    assert set(labels) <= {"0", "1", "2"}


def test_the_users_names_go_before_the_files(tmp_path: Path) -> None:
    path = saved(tmp_path, stock(names="['a', 'b', 'c']"))
    mine = ("один", "two", "三")
    assert resolve(str(path), Request(labels=mine)).contract.labels == mine
    assert resolve(str(path)).contract.labels == ("a", "b", "c")
    assert (
        resolve(str(path), Request(labels=mine))
        .quantised(QuantizationConfig(head="uncut"))
        .contract.labels
        == mine
    )


def test_a_wrong_number_from_the_user_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, vendor())
    listed = tmp_path / "names.txt"
    listed.write_text("a\nb\n")
    picture = tmp_path / "p.png"
    import cv2

    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    assert main(["run", str(path), str(picture), "--labels", str(listed)]) != 0
    assert "tiny has 3 classes but 2 labels were given" in capsys.readouterr().err


def test_a_missing_sigmoid_is_said_and_put_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ("ok", "The scores leave the graph without a sigmoid; rkzoo applies it itself.")
    bare, whole = saved(tmp_path, vendor(Spec(sigmoid=""), sums=False)), tmp_path / "whole.onnx"
    onnx.save(vendor(sums=False), whole)
    assert line in checks(bare, capsys)
    assert line not in checks(whole, capsys)
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    # Without suppression: among scores that all round to 1 the order is chance.
    settings = {"confidence": 0.01, "iou": 1.0, "limit": 100_000}
    with rkzoo.load(bare, **settings) as a, rkzoo.load(whole, **settings) as b:
        one, two = a(picture).prediction, b(picture).prediction
    assert len(one) == len(two) > 20
    np.testing.assert_allclose(np.sort(one.score), np.sort(two.score), atol=1e-5)
    np.testing.assert_allclose(np.sort(one.xyxy, axis=0), np.sort(two.xyxy, axis=0), atol=1e-3)


def test_a_missing_sigmoid_of_a_stock_export_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, stock(Spec(sigmoid="")))
    assert any("without a sigmoid" in line for _, line in checks(path, capsys))


@pytest.mark.toolkit
def test_into_the_sidecar_and_the_rknn_and_the_simulators_results(tmp_path: Path) -> None:
    from rkzoo.graph.rknn import reader as rknn

    path = saved(tmp_path, stock(names=repr(NAMES)))
    (made,) = rkzoo.convert(path, "rk3588", dtype="fp16", output=tmp_path / "标签.rknn")
    sidecar = json.loads(made.sidecar.read_text("utf-8"))
    assert sidecar["contract"]["labels"] == NAMES
    custom = json.loads(rknn.read(made.rknn).custom or "")
    assert custom["contract"]["labels"] == NAMES
    with rkzoo.load(made.rknn, confidence=0.0) as model:
        result = model(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
    assert result.runtime == "simulator"
    assert {record["label"] for record in result.to_json()["results"]} <= set(NAMES)
    assert len(result) > 0


def test_a_known_set_of_labels_goes_into_the_custom_string_by_its_name(tmp_path: Path) -> None:
    from rkzoo.zoo.labels import label_set

    contract = msgspec.structs.replace(
        resolve(str(saved(tmp_path, stock()))).contract, labels=label_set("coco80")
    )
    told = json.loads(custom_string(contract))
    assert told["label_set"] == "coco80"
    assert not told["contract"].get("labels")
    assert len(custom_string(contract)) <= 1023
