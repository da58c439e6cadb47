"""What is registered on a board, and what is refused before the library, which ends the process
over an operator that it does not know (librknnrt 1.5.2 under qemu)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from rkzoo.contract.custom_operator import CustomOperator
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.graph.rknn.checks import rknn_checks
from rkzoo.graph.rknn.reader import Operator, RknnFile
from rkzoo.toolkit.recipe import Calibration, InputPlan, Recipe, Sidecar, Source
from rkzoo.workflow.inference.board_custom import custom_operators

DET = CustomOperator(type="cstDet", operator="Det", model=b"a graph")
FILE = RknnFile(
    container=6,
    platforms=("rk3588",),
    toolkit="2.5.0",
    compiler="",
    framework="ONNX",
    inputs=(),
    outputs=(),
    native_inputs=(),
    native_outputs=(),
    normalisation={},
    operators=(Operator("Conv", "c", "NPU"), Operator("cstDet", "d", "CPU")),
    custom="",
    custom_json=None,
    weight_bytes=None,
    memory_bytes=None,
    file_bytes=1,
)


def with_sidecar(folder: Path, *custom: CustomOperator) -> Path:
    path = folder / "model.rknn"
    path.write_bytes(b"RKNN")
    contract = Contract(
        family="plain tensors", head=TensorsHead(picture="x"), picture=ImageInput(size=(8, 8))
    )
    recipe = Recipe(soc="rk3588", dtype="fp16", inputs=(InputPlan(name="x", shape=(1, 3, 8, 8)),))
    beside = Sidecar(
        source=Source(file="model.onnx", sha256=""),
        recipe=msgspec.structs.replace(recipe, custom=custom),
        contract=contract,
        calibration=Calibration(),
        build="",
        rkzoo="tests",
        rknn=sha256_of(path),
    )
    path.with_name("model.rknn.json").write_bytes(msgspec.json.encode(beside))
    return path


def every(_: str) -> bool:
    return True


def test_what_the_file_beside_it_says(tmp_path: Path) -> None:
    assert custom_operators(with_sidecar(tmp_path, DET), FILE, every) == (DET,)


def test_most_models_have_none(tmp_path: Path) -> None:
    plain = replace(FILE, operators=FILE.operators[:1])
    for file in (plain, None):
        assert custom_operators(tmp_path / "missing.rknn", file, lambda _: False) == ()


def test_a_library_that_takes_none(tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="cannot run here") as error:
        custom_operators(with_sidecar(tmp_path, DET), FILE, lambda _: False)
    assert "cstDet" in error.value.why
    assert "newer than 1.5.2" in error.value.fix


def test_the_file_beside_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="cannot run here") as error:
        custom_operators(tmp_path / "model.rknn", FILE, every)
    assert "model.rknn.json" in error.value.why
    assert "Copy both files" in error.value.fix


def test_the_file_beside_it_does_not_know_it(tmp_path: Path) -> None:
    other = CustomOperator(type="cstSinh", operator="Sinh", model=b"")
    with pytest.raises(RkzooError) as error:
        custom_operators(with_sidecar(tmp_path, other), FILE, every)
    assert "does not say what computes cstDet" in error.value.why


@pytest.mark.parametrize("kind", ["Det", "cst", "cstDet; rm", "cst" + "a" * 70])
def test_a_type_that_is_none_is_refused(kind: str) -> None:
    text = msgspec.json.encode({"type": kind, "operator": "Det", "model": ""})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=CustomOperator)


def test_inspect_says_who_computes_it() -> None:
    (check,) = [one for one in rknn_checks(FILE) if one.text.startswith("Custom operators")]
    assert check.level == "warn"
    assert "cstDet" in check.text
    assert "pip install onnxruntime" in check.text
