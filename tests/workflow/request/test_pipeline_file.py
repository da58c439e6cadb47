"""A pipeline of .rknn files: on the stand-in for the NPU's library, and on the simulator. What
the files of it name is held to be hostile."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from text_fakes import FakeSession, cls_contract, det_contract, rec_contract

import rkzoo
from graph.rknn_writer import Sample
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.cli.main import main
from rkzoo.contract.audio import VoiceActivityHead, VoiceHead
from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.session import Session
from rkzoo.tasks.text.open import page_reader
from rkzoo.toolkit import builds
from rkzoo.toolkit.recipe import Calibration, InputPlan, Recipe, Sidecar, Source
from rkzoo.workflow.compile import simulate
from rkzoo.workflow.compile.convert import ConversionResult, _joined, custom_string
from rkzoo.workflow.inference import board
from rkzoo.workflow.inference.inputs import TEXT, input_kind_of_model
from rkzoo.workflow.inference.plan import plan
from rkzoo.workflow.request.pipeline_file import read_pipeline, write_pipeline
from rkzoo.workflow.request.request import Request

LETTERS = ("", "a", "b")
CONTRACTS = {"det": det_contract(64, 128), "rec": rec_contract(LETTERS, 640), "cls": cls_contract()}
PAGE = np.full((64, 128, 3), 200, np.uint8)


def answers() -> dict[str, np.ndarray]:
    """Two lines on a page, both the right way up, both saying ab."""
    page = np.zeros((1, 1, 64, 128), np.float32)
    page[..., 10:18, 10:60] = page[..., 40:48, 10:100] = 0.95
    said = np.eye(3, dtype=np.float32)[[1, 1, 0, 2, 0, 0]][None]
    return {"det": page, "rec": said, "cls": np.array([[0.98, 0.02]], np.float32)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def pipeline(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three recorded models, and the file that joins them."""
    monkeypatch.setenv(board.LIBRARY, str(built))
    monkeypatch.setenv("STANDIN_STRICT", "0")
    files = {}
    for role, answer in answers().items():
        contract = CONTRACTS[role]
        fed = In("x", (1, *contract.input.size, 3))
        native = 2 if answer.ndim == 4 else 3
        recording = Recording((fed,), (Out("y", answer.shape, "float32", native=native),))
        recording.answer([np.zeros(fed.shape, np.uint8)], [answer])
        files[role] = tmp_path / f"page-{role}.rknn"
        files[role].write_bytes(recording.bytes(Sample(custom=custom_string(contract)).write()))
    write_pipeline(tmp_path / "page.json", "page", files)
    return tmp_path / "page.json"


def test_a_pipeline_reads_a_page_on_the_npu(
    built: Path, pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = {role: (1, *one.input.size, 3) for role, one in CONTRACTS.items()}
    fakes: dict[str, tuple[Contract, Session]] = {
        role: (CONTRACTS[role], FakeSession(shapes[role], lambda _, a=answer: a))  # type: ignore[misc]
        for role, answer in answers().items()
    }
    wanted = page_reader(fakes)(PAGE)
    assert wanted.texts == ("ab", "ab")
    with rkzoo.load(pipeline) as model:
        assert (model.name, model.runtime) == ("page", "board")
        found = model(PAGE).prediction
    del model  # its picture lies in the NPU's memory
    assert found.texts == wanted.texts
    np.testing.assert_array_equal(found.quads, wanted.quads)
    picture = pipeline.with_name("page.png")
    cv2.imwrite(str(picture), PAGE)
    assert main(["run", str(pipeline), str(picture), "--json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert [line["text"] for line in image["results"]] == ["ab", "ab"]
    left = build.state(built)
    assert (left.contexts, left.memories, left.misuse) == (0, 0, 0)


def test_inspect_tells_the_parts(pipeline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(pipeline), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["name"]) == ("pipeline", "page")
    assert told["parts"]["rec"] == str(pipeline.with_name("page-rec.rknn"))
    assert main(["inspect", str(pipeline)]) == 0
    assert "page-det.rknn" in capsys.readouterr().out


def test_convert_joins_the_parts_for_each_chip(tmp_path: Path) -> None:
    def one(role: str, soc: str) -> ConversionResult:
        rknn = tmp_path / f"{role}-{soc}.rknn"
        return ConversionResult(soc, "int8", rknn, rknn, 1, 1.0)

    socs = ("rk3588", "rk3566")
    made = _joined("page", "page", {r: [one(r, soc) for soc in socs] for r in ("det", "rec")})
    assert [part.pipeline for part in made["rec"]] == [tmp_path / f"page-{s}.json" for s in socs]
    found = read_pipeline(tmp_path / "page-rk3566.json")
    assert found.name == "page"
    assert found.parts == {r: tmp_path / f"{r}-rk3566.rknn" for r in ("det", "rec")}


def test_what_stays_on_the_processor_and_further_files_travel_along(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a b c")
    part = Contract(family="f", head=TensorsHead(), others=(ArrayInput(name="x", shape=(1,)),))
    write_pipeline(
        tmp_path / "out" / "voice.json",
        "voice",
        {"back": tmp_path / "out" / "back.rknn"},
        cpu={"front": (b"graph", part)},
        files={"front.words": words},
        head=VoiceHead(rate=22050),
    )
    words.unlink()
    found = read_pipeline(tmp_path / "out" / "voice.json")
    graph, contract = found.cpu["front"]
    assert (graph.read_bytes(), contract) == (b"graph", part)
    assert found.files["front.words"].read_text() == "a b c"
    assert found.head == VoiceHead(rate=22050)
    assert input_kind_of_model(str(tmp_path / "out" / "voice.json")).name == TEXT.name


def test_a_single_rknn_keeps_how_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Contract(family="f", head=VoiceActivityHead(rate=16000, step=512, context=64))
    monkeypatch.setattr(simulate, "rknn_inputs", lambda *_args, **_more: (heard, None))
    planned = plan(tmp_path / "a.rknn", Request(runtime="simulator"))
    assert (planned.head, planned.label) == (heard.head, "simulator")


@pytest.mark.parametrize(
    "name", ["../page-det.rknn", "/etc/x.rknn", "..", "a/b.rknn", ".x.rknn", "x.so", "a\\b.rknn"]
)
def test_no_part_lies_in_another_folder(pipeline: Path, name: str) -> None:
    document = json.loads(pipeline.read_text())
    document["parts"]["det"] = name
    pipeline.write_text(json.dumps(document))
    with pytest.raises(RkzooError, match="is no pipeline"):
        rkzoo.load(pipeline)


def test_no_link_leads_out_of_the_folder(pipeline: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for file in tmp_path.glob("page*"):
        file.rename(inner / file.name)
    (inner / "page-det.rknn").rename(tmp_path / "elsewhere.rknn")
    (inner / "page-det.rknn").symlink_to(tmp_path / "elsewhere.rknn")
    with pytest.raises(RkzooError, match="another folder"):
        rkzoo.load(inner / pipeline.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parts": {"det": "page-det.rknn"}}, "no model for rec"),
        ({"parts": {"det": "page-rec.rknn", "rec": "page-rec.rknn"}}, "cannot be the det"),
        ({"parts": {"det": "gone.rknn", "rec": "page-rec.rknn"}}, "gone.rknn cannot be read"),
        ({"format": 2}, "format"),
        ({"name": "x" * 70_000}, "no pipeline"),
        ({"run": "rm -rf"}, "unknown field"),
    ],
)
def test_a_file_that_is_not_right_is_told(pipeline: Path, change: dict, words: str) -> None:
    pipeline.write_text(json.dumps(json.loads(pipeline.read_text()) | change))
    with pytest.raises(RkzooError, match=words):
        rkzoo.load(pipeline)


def test_what_lies_beside_a_model_is_no_pipeline(pipeline: Path) -> None:
    beside = pipeline.with_name("page-det.rknn.json")
    beside.write_text("{}")
    with pytest.raises(RkzooError, match=r"It describes page-det\.rknn"):
        rkzoo.load(beside)
    with pytest.raises(RkzooError, match="takes no labels"):
        rkzoo.load(pipeline, labels=["a"])
    with pytest.raises(RkzooError, match="cannot be read"):
        rkzoo.load(pipeline.with_name("gone.json"))


def drawn(role: str) -> bytes:
    """A graph that takes what is bright for text, or reads "a" on every line."""
    height, width = CONTRACTS[role].input.size
    if role == "det":
        weights, bias = np.full((1, 3, 1, 1), 10.0), [-15.0]
        nodes = [
            helper.make_node("Conv", ["x", "w", "b"], ["c"]),
            helper.make_node("Sigmoid", ["c"], ["y"]),
        ]
        shape = [1, 1, height, width]
    else:
        weights, bias = np.full((3, 3, height, 8), 1e-5), [0.0, 5.0, 0.0]
        nodes = [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[height, 8]),
            helper.make_node("Reshape", ["c", "s"], ["r"]),
            helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
            helper.make_node("Softmax", ["t"], ["y"], axis=2),
        ]
        shape = [1, width // 8, 3]
    held = {
        "w": weights.astype(np.float32),
        "b": np.array(bias, np.float32),
        "s": np.array([1, 3, width // 8]),
    }
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        role,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in held.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.toolkit
def test_a_pipeline_reads_a_page_on_the_simulator(tmp_path: Path) -> None:
    page = np.zeros_like(PAGE)
    page[10:20, 10:60] = page[40:50, 10:100] = 255
    files, float_parts = {}, {}
    for role in ("det", "rec"):
        contract, graph = CONTRACTS[role], drawn(role)
        spec = contract.input
        given = InputPlan(name="x", shape=(1, 3, *spec.size), mean=spec.mean, std=spec.std)
        recipe = Recipe(soc="rk3588", dtype="fp16", inputs=(given,))
        files[role] = tmp_path / f"{role}.rknn"
        files[role].write_bytes(b"the simulator builds it again")
        beside = Sidecar(
            source=Source(file=f"{role}.onnx", sha256="0" * 64),
            recipe=recipe,
            contract=contract,
            calibration=Calibration(),
            build=builds.store(graph, [], recipe),
            rkzoo="0",
        )
        files[role].with_name(f"{role}.rknn.json").write_bytes(msgspec.json.encode(beside))
        float_parts[role] = (contract, OnnxSession(graph, spec))
    write_pipeline(tmp_path / "page.json", "page", files)
    wanted = page_reader(float_parts)(page)
    assert wanted.texts == ("a", "a")
    with rkzoo.load(tmp_path / "page.json", runtime="simulator") as model:
        assert model.runtime == "simulator"
        found = model(page).prediction
    assert found.texts == wanted.texts
    np.testing.assert_allclose(found.quads, wanted.quads, atol=1)
