"""The parts of the workflow that need no toolkit."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import msgspec
import numpy as np
import pytest

import rkzoo
from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, Failure
from rkzoo.vision import image as pictures
from rkzoo.workflow.compile.convert import custom_string, output_names
from rkzoo.workflow.inference.model import save_names
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.sidecar import read_sidecar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a 照片.jpg"):
        pictures.write(tmp_path / name, np.full((20, 30, 3), 50, np.uint8))
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


def test_folders_globs_and_files_become_pictures(folder: Path) -> None:
    both = [folder / "a 照片.jpg", folder / "b.png"]
    assert pictures.expand([str(folder)]) == both
    assert pictures.expand([str(folder / "*.png"), str(both[0])]) == [both[1], both[0]]
    assert pictures.expand([str(both[0]), str(folder)]) == both
    with pytest.raises(RkzooError, match="holds no picture"):
        pictures.expand([str(folder / "nothing")])


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros((5, 7), np.uint8),
        lambda: np.zeros((5, 7, 4), np.uint8),
        lambda: np.zeros((5, 7, 3), np.uint16),
    ],
    ids=["grey", "transparent", "16 bit"],
)
def test_every_kind_of_png_becomes_bgr(make: object, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), make())  # type: ignore[operator]
    read = pictures.read(path)
    assert read.shape == (5, 7, 3)
    assert read.dtype == np.uint8


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0"])
def test_rubbish_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(RkzooError, match=r"is empty|is cut short|not a picture"):
        pictures.read(path)
    with pytest.raises(RkzooError, match="cannot be read"):
        pictures.read(tmp_path / "missing.png")


def test_calibration_arrays_are_what_run_time_sees(folder: Path) -> None:
    spec = ImageInput(size=(32, 32), pad=9)
    found = calib.find(str(folder))
    stack = calib.arrays(found, spec)
    assert stack.shape == (2, 32, 32, 3)
    assert (stack[:, 0] == 9).all()  # letterboxed, not stretched
    assert abs(int(stack[0, 16, 16, 0]) - 50) <= 2
    listed = folder / "list.txt"
    listed.write_text("b.png\n\na 照片.jpg\n")
    again = calib.arrays(calib.find(str(listed)), spec)
    np.testing.assert_array_equal(again, stack[::-1])


def test_a_list_with_missing_and_broken_pictures_names_them(folder: Path) -> None:
    (folder / "cut.jpg").write_bytes(b"\xff\xd8")
    listed = folder / "list.txt"
    listed.write_text("b.png\ngone.jpg\ncut.jpg\nnotes.md\n")
    told: list[Failure] = []
    report = SimpleNamespace(failed=told.append, note=print, task=SILENT.task)
    chosen = calib.choose(calib.find(str(listed)), _contract(("cat",)), report=report)
    assert [Path(name).name for name in chosen.names] == ["b.png"]
    assert [Path(failure.file).name for failure in told] == ["gone.jpg", "cut.jpg", "notes.md"]


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (None, ["m-rk3588-int8.rknn", "m-rv1106-int8.rknn"]),
        ("out", ["out/m-rk3588-int8.rknn", "out/m-rv1106-int8.rknn"]),
        ("x.rknn", ["x-rk3588.rknn", "x-rv1106.rknn"]),
    ],
)
def test_names_of_the_files(output: str | None, names: list[str]) -> None:
    found = output_names("m", ["rk3588", "rv1106"], "int8", Path(output) if output else None)
    assert [str(path) for path in found] == names


def test_one_chip_gets_the_very_name_and_other_suffixes_are_refused() -> None:
    assert output_names("m", ["rk3588"], "int8", Path("a/x.RKNN")) == [Path("a/x.RKNN")]
    with pytest.raises(RkzooError, match=r"does not end in \.rknn"):
        output_names("m", ["rk3588"], "int8", Path("x.onnx"))


def _contract(labels: tuple[str, ...]) -> Contract:
    head = DetectHead(outputs=(HeadOutput(name="o", role="decoded"),), classes=len(labels))
    return Contract(family="f", picture=ImageInput(size=(8, 8)), head=head, labels=labels)


def test_the_custom_string_fits_and_keeps_few_labels() -> None:
    few = custom_string(_contract(("cat", "狗")))
    assert json.loads(few)["contract"]["labels"] == ["cat", "狗"]
    many = custom_string(_contract(tuple(f"class number {i}" for i in range(500))))
    assert len(many.encode()) < 1024
    assert "labels" not in json.loads(many)["contract"]


def test_the_custom_string_of_the_longest_head_fits_and_reads_back() -> None:
    roles = ("box", "score", "score_sum", "coefficients")
    outputs = [
        HeadOutput(name=f"/model.22/{role}_{level}", role=role, level=level)
        for level in range(3)
        for role in roles
    ]
    head = DetectHead(
        outputs=(*outputs, HeadOutput(name="prototypes", role="prototypes")),
        classes=80,
        coefficients=32,
    )
    contract = Contract(family="yolov8-seg", picture=ImageInput(size=(640, 640)), head=head)
    text = custom_string(contract)
    assert len(text.encode()) < 1024
    assert msgspec.convert(json.loads(text)["contract"], Contract) == contract


def test_a_rknn_without_its_sidecar_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.rknn"
    path.write_bytes(b"RKNN")
    with pytest.raises(RkzooError, match=r"no x\.rknn\.json beside it"):
        rkzoo.load(path)
    (tmp_path / "x.rknn.json").write_text('{"source": 3}')
    with pytest.raises(RkzooError, match="is damaged"):
        read_sidecar(path)
    with pytest.raises(RkzooError, match="cannot be read"):
        read_sidecar(tmp_path / "y.rknn")
    with pytest.raises(RkzooError, match="for the NPU"):
        rkzoo.load(path, runtime="onnx")


def test_unknown_models_and_runtimes_are_named() -> None:
    with pytest.raises(RkzooError, match="ppocr"):
        rkzoo.load("ppocrr")
    with pytest.raises(RkzooError, match="no runtime called 'npu'"):
        rkzoo.load("ppocr", runtime="npu")
    with pytest.raises(RkzooError, match="is no model"):
        rkzoo.load("font-cjk")


def test_two_pictures_of_one_name_get_two_names() -> None:
    names = save_names([Path("a/x.jpg"), Path("b/x.jpg"), Path("b/y.jpg"), None])
    assert names == ["x.jpg", "x-1.jpg", "y.jpg", "text"]


def test_labels_that_do_not_fit_the_classes_are_refused(assets: Path) -> None:
    with pytest.raises(RkzooError, match="80 classes but 2 labels"):
        rkzoo.load(assets / "models/yolov8n.onnx", labels=["cat", "dog"])


def test_python_answers_arrays_and_paths(assets: Path, tmp_path: Path) -> None:
    path = assets / "data/images/bus_640.jpg"
    labels = [f"class {i}" for i in range(80)]
    with rkzoo.load(assets / "models/yolov8n.onnx", labels=labels, confidence=0.5) as model:
        result = model(path)
        again = model(pictures.read(path))
        with pytest.raises(RkzooError, match=r"\(height, width, 3\)"):
            model(np.zeros((4, 4), np.uint8))
    assert [r["label"] for r in result.to_json()["results"]].count("class 0") == 3
    assert again.to_json()["results"] == result.to_json()["results"]
    assert again.path is None
    pytest.importorskip("supervision")
    boxes = result.to_supervision()
    assert boxes.xyxy.shape == (len(result), 4)
    drawn = pictures.read(result.save(tmp_path / "out.png"))
    assert drawn.shape == result.image.shape
    assert (drawn != result.image).any()
