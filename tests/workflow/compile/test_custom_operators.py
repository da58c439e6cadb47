"""Operators without a kernel: what is refused, and what the real toolkit makes of the others."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_custom import SHAPE, without_kernel

from npu_standin import build
from npu_standin.custom import NUMBERS, hand_over, handed_back
from npu_standin.recording import In, Out, Recording
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.graph.lowering.custom import UNLOWERED, with_custom_operators
from rkzoo.graph.lowering.rewrites.rewriting import rewrite
from rkzoo.progress import SILENT
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.environment import ensure
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan, Recipe, Sidecar
from rkzoo.workflow.comparison.inspect import inspect
from rkzoo.workflow.compile.convert import convert
from rkzoo.workflow.compile.prepare import prepare
from rkzoo.workflow.inference.board import BoardBackend, open_npu
from rkzoo.workflow.request.models import find_model
from rkzoo.workflow.request.request import Request


def file_of(folder: Path, *operators: str) -> Path:
    path = folder / "model.onnx"
    onnx.save(without_kernel(*operators), path)
    return path


def request(dtype: str, samples: Path | None = None, algorithm: str | None = None) -> Request:
    given = str(samples) if samples else None
    return Request(fit="none", raw=True, dtype=dtype, calibration=given, algorithm=algorithm)


def prepared(path: Path, *socs: str, dtype: str = "fp16", report=SILENT):  # type: ignore[no-untyped-def]
    ready = find_model(str(path), request(dtype), SILENT)
    return prepare(ready, socs, dtype, None, None, report, keep=False)


class Told:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __getattr__(self, name: str) -> object:
        return getattr(SILENT, name)


def test_the_recipe_carries_it_and_it_is_said(tmp_path: Path) -> None:
    told = Told()
    recipe = prepared(file_of(tmp_path, "Det"), "rk3588", "rk3568", report=told).recipe
    assert [one.type for one in recipe.custom] == ["cstDet"]
    assert any("Det is carried as the custom operator cstDet" in note for note in told.notes)
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe


def test_a_chip_whose_library_takes_none_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = file_of(tmp_path, "Det", "Sinh")
    ready = find_model(str(path), request("int8"), SILENT)
    with pytest.raises(RkzooError) as error:
        prepare(ready, ["rk3588", "rv1106"], "int8", None, None, SILENT, keep=False)
    assert "Nothing computes the operator Det (Det0_y)" in error.value.why
    assert "the library of rv1106 takes no custom operators" in error.value.why
    assert "`outputs: [Det0_s]`" in error.value.fix


def test_what_cannot_be_carried_is_refused(tmp_path: Path) -> None:
    model = without_kernel("Sign")
    for node in model.graph.node:
        if node.op_type == "Sign":
            node.input[0] = "whole"
            cast = onnx.helper.make_node("Cast", ["Sign0_s"], ["whole"], to=onnx.TensorProto.INT32)
            back = onnx.helper.make_node("Cast", ["Sign0_y"], ["back"], to=onnx.TensorProto.FLOAT)
        if node.op_type == "Add":
            node.input[0] = "back"
    nodes = [*model.graph.node]
    nodes[2:3] = [cast, nodes[2], back]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RkzooError, match="Nothing computes the operator Sign") as error:
        prepared(tmp_path / "model.onnx", "rk3588")
    assert "cannot carry it as a custom operator" in error.value.why


def test_a_rewrite_goes_first(tmp_path: Path) -> None:
    model = rewrite(without_kernel("Selu", "Softsign", "Trilu", "Celu")).model
    assert with_custom_operators(model) == (model, ())


def test_inspect_says_it_of_a_graph(tmp_path: Path) -> None:
    checks = inspect(file_of(tmp_path, "Det"), request=Request(raw=True)).checks
    assert any("carried as the custom operator cstDet" in check.text for check in checks)
    assert not any("Det will run on the CPU" in check.text for check in checks)


ALL = sorted(UNLOWERED)


@pytest.mark.toolkit
def test_the_toolkit_has_no_kernel_for_any_of_them_and_computes_all_as_custom_operators(
    tmp_path: Path,
) -> None:
    model = without_kernel(*ALL)
    carried, custom = with_custom_operators(model)
    assert {one.operator for one in custom} == UNLOWERED
    onnx.save(model, tmp_path / "before.onnx")
    onnx.save(carried, tmp_path / "after.onnx")
    recipe = Recipe(soc="rk3588", dtype="fp16", inputs=(InputPlan(name="x", shape=SHAPE),))
    with ToolkitProcess(ensure()) as process:
        left = process.build(BuildInputs(tmp_path / "before.onnx", recipe), tmp_path / "x.rknn")
        refused = [one.evidence for one in left.findings if one.kind == "no-lowering"]
        assert {re.search(r"type = (\w+)", one)[1] for one in refused} == UNLOWERED  # type: ignore[index]
        recipe = msgspec.structs.replace(recipe, custom=custom)
        inputs = BuildInputs(tmp_path / "after.onnx", recipe)
        report = process.build_for_simulation(inputs)
        assert not [one for one in report.findings if one.kind == "no-lowering"]
        x = np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32)
        answers = process.infer([x])
    expected = onnxruntime.InferenceSession(tmp_path / "before.onnx").run(None, {"x": x})
    for operator, answer, wanted in zip(ALL, answers, expected, strict=True):
        assert answer.shape == wanted.shape, operator
        # Where an operator jumps or is steep, float16 before it shows.
        apart = np.abs(answer - wanted) > 0.01 * np.abs(wanted).max()
        assert apart.mean() < 0.02, operator


@pytest.mark.toolkit
@pytest.mark.parametrize(("dtype", "algorithm"), [("fp16", None), ("int8", None), ("int8", "mse")])
def test_from_onnx_to_rknn_and_the_simulator(
    dtype: str, algorithm: str | None, tmp_path: Path
) -> None:
    from test_rewritten_real import cosine

    from rkzoo.workflow.compile.simulate import open_simulator

    path, samples = file_of(tmp_path, "Det", "ReduceL1"), tmp_path / "samples"
    samples.mkdir()
    random = np.random.default_rng(2)
    drawn = [random.normal(0, 1, SHAPE).astype(np.float32) for _ in range(4)]
    for number, sample in enumerate(drawn):
        np.save(samples / f"{number}.npy", sample)
    how = request(dtype, samples if dtype == "int8" else None, algorithm)
    (done,) = convert(str(path), "rk3588", how, output=tmp_path / "out.rknn")
    sidecar = msgspec.json.decode(done.sidecar.read_bytes(), type=Sidecar)
    assert [one.type for one in sidecar.recipe.custom] == ["cstDet", "cstReduceL1"]
    texts = [check.text for check in inspect(done.rknn).checks]
    assert any("Custom operators: cstDet, cstReduceL1." in text for text in texts)
    ready = find_model(str(path), how, SILENT)
    # In INT8 the second time, from what the conversion kept of its calibration.
    with open_simulator(ready, pictures=how.pictures, dtype=dtype) as simulator:
        codes = simulator.run([drawn[0]])
        specs = simulator.outputs
    expected = onnxruntime.InferenceSession(path).run(None, {"x": drawn[0]})
    for code, spec, wanted in zip(codes, specs, expected, strict=True):
        values = code.astype(np.float32)
        if spec.scale is not None:
            values = (values - spec.zero_point) * spec.scale
        assert cosine(values, wanted) > (0.999 if dtype == "int8" else 0.99999)


@pytest.mark.toolkit
def test_a_board_registers_what_the_file_beside_it_holds(tmp_path: Path) -> None:
    """A real .rknn on the stand-in, which plays its outputs back, and has the operator computed."""
    (done,) = convert(
        str(file_of(tmp_path, "Det")), "rk3588", request("fp16"), output=tmp_path / "out.rknn"
    )
    library = build.compiled(tmp_path)
    recording = Recording([In("images", (1, 16, 24, 3))], [Out("y", (1, 7), "float32")])
    shown = np.zeros((1, 16, 24, 3), np.uint8)
    recording.answer([shown], [np.zeros((1, 7), np.float32)])
    done.rknn.write_bytes(recording.bytes(done.rknn.read_bytes()))
    sidecar = msgspec.json.decode(done.sidecar.read_bytes(), type=Sidecar)
    beside = msgspec.structs.replace(sidecar, rknn=sha256_of(done.rknn))
    done.sidecar.write_bytes(msgspec.json.encode(beside))
    model = BoardBackend(done.rknn, str(library))
    with open_npu(model, layout="plain", picture=True) as session:
        hand_over(library)
        session.run([shown])
        wanted = np.linalg.det(NUMBERS[0])
        np.testing.assert_allclose(handed_back(library), wanted, rtol=1e-6)
        # Another one of the same file, as a worker has.
        with open_npu(model, layout="plain", picture=True) as other:
            other.run([shown])
    old = build.compiled(tmp_path, "-DSTANDIN_OLD", name="librknnrt-old.so")
    with pytest.raises(RkzooError, match="cannot run here") as error:
        open_npu(BoardBackend(done.rknn, str(old)), layout="plain", picture=True)
    assert "takes no custom operators" in error.value.why
    done.sidecar.unlink()
    with pytest.raises(RkzooError, match="cannot run here") as error:
        open_npu(model, layout="plain", picture=True)
    assert "out.rknn.json" in error.value.why
