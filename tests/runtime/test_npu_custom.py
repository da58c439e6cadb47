"""Custom operators on the board: what the library is given, and what it calls. The stand-in calls
as the published interface says; no library at hand that takes custom operators could be asked."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from npu_models import picture, small, written
from onnx import TensorProto, helper

from npu_standin import build
from npu_standin.custom import NUMBERS, hand_over, handed_back
from rkzoo.contract.custom_operator import CustomOperator
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import Format, NpuError
from rkzoo.runtime.npu_context import Context, NpuLibrary


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def library(built: Path) -> Iterator[NpuLibrary]:
    yield NpuLibrary(built)
    gc.collect()
    assert build.state(built).contexts == 0
    assert build.state(built).misuse == 0, build.misuse(built)


def operator(kind: str = "Det", rank: int = 4) -> CustomOperator:
    """One ONNX operator with an input and an output."""
    sizes = [None] * rank
    graph = helper.make_graph(
        [helper.make_node(kind, ["x"], ["y"])],
        "alone",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return CustomOperator(type=f"cst{kind}", operator=kind, model=model.SerializeToString())


@pytest.mark.parametrize("fmt", [Format.NCHW, Format.NHWC])
def test_the_library_has_the_operator_computed(
    library: NpuLibrary, tmp_path: Path, fmt: Format
) -> None:
    path = written(tmp_path, small())
    session = NpuSession(Context.open(library, path, custom=[operator()]))
    hand_over(Path(library.path), fmt)
    session.run([picture(0)])
    want = np.linalg.det(NUMBERS[0])
    np.testing.assert_allclose(handed_back(Path(library.path)), want, rtol=1e-6)


def test_a_duplicate_computes_too_and_has_callbacks_of_its_own(
    library: NpuLibrary, tmp_path: Path
) -> None:
    first = NpuSession(Context.open(library, written(tmp_path, small()), custom=[operator()]))
    second = first.duplicate()
    first.close()
    del first
    gc.collect()
    hand_over(Path(library.path))
    second.run([picture(1)])
    np.testing.assert_allclose(
        handed_back(Path(library.path)), np.linalg.det(NUMBERS[0]), rtol=1e-6
    )


def test_what_onnx_runtime_says_of_an_operator_is_told(library: NpuLibrary, tmp_path: Path) -> None:
    session = NpuSession(
        Context.open(library, written(tmp_path, small()), custom=[operator(rank=3)])
    )
    hand_over(Path(library.path))
    with pytest.raises(RkzooError, match="custom operator Det of model") as error:
        session.run([picture(0)])
    assert "rank" in error.value.why.lower()


def test_a_tensor_in_blocks_of_channels_is_refused(library: NpuLibrary, tmp_path: Path) -> None:
    session = NpuSession(Context.open(library, written(tmp_path, small()), custom=[operator()]))
    hand_over(Path(library.path), Format.NC1HWC2)
    with pytest.raises(RkzooError, match="could not be computed") as error:
        session.run([picture(0)])
    assert "format 2" in error.value.why
    hand_over(Path(library.path))
    session.run([picture(0)])  # told once


def test_an_operator_that_onnx_runtime_does_not_know(library: NpuLibrary, tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="custom operator cstNothing cannot be loaded"):
        Context.open(library, written(tmp_path, small()), custom=[operator("Nothing")])


def test_the_library_refuses_them(
    library: NpuLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_FAIL", "register_custom_ops:0:-5")
    with pytest.raises(NpuError, match="does not take the custom operators"):
        Context.open(library, written(tmp_path, small()), custom=[operator()])


def test_onnx_runtime_is_missing(
    library: NpuLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(RkzooError, match="cannot be computed here") as error:
        Context.open(library, written(tmp_path, small()), custom=[operator()])
    assert "pip install onnxruntime" in error.value.fix
