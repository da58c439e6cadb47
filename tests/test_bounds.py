"""What a file asks for is bounded, and what is no file is not read: each with its reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_heads import Head, build
from tiny_plain import one_picture

from rkzoo import ort
from rkzoo.audio import sound
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError, is_memory_shortage
from rkzoo.files import NotRegular, open_file, read_bytes
from rkzoo.graph.onnx.read import load
from rkzoo.graph.onnx.view import graph_view, run
from rkzoo.vision import image
from rkzoo.workflow.comparison.inspect import inspect
from rkzoo.workflow.request.importers.structure import check_structure
from rkzoo.workflow.request.options import read_labels
from rkzoo.workflow.request.quantization import read_recipe
from rkzoo.workflow.request.sidecar import read_sidecar
from rkzoo.zoo.loading import read_mapping


def model(
    nodes: list[onnx.NodeProto], weights: list[TensorProto], shape: tuple[int, ...] = (1, 3, 8, 8)
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = onnx.ValueInfoProto(name="y")
    y.type.tensor_type.elem_type = TensorProto.FLOAT
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def saved(path: Path, made: onnx.ModelProto) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


def whole(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


# ---- memory and time ----------------------------------------------------------------


def test_a_tensor_beyond_all_sense_is_refused_by_its_node() -> None:
    pad = helper.make_node("Pad", ["x", "by"], ["y"], name="widened")
    made = model([pad], [whole("by", 0, 0, 0, 0, 0, 0, 1 << 20, 1 << 20)])
    with pytest.raises(ort.OutOfBounds, match=r"The Pad node widened .*2 GB"):
        graph_view(made)


def test_what_data_make_large_is_refused_while_it_runs() -> None:
    """Shape inference cannot see it: the size is an input's number."""
    made = model(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["whole", "one"], ["size"]),
            helper.make_node("ConstantOfShape", ["size"], ["y"], name="lots"),
        ],
        [whole("one", 1)],
    )
    small, large = np.full((1, 3, 8, 8), 9, np.float32), np.full((1, 3, 8, 8), 1e9, np.float32)
    assert run(made, {"x": small})[0].shape == (9,)
    with pytest.raises(ort.OutOfBounds, match=r"The ConstantOfShape node lots .*0\.75 GB"):
        run(made, {"x": large})
    assert run(made, {"x": small})[0].shape == (9,)


def test_what_computes_for_ever_is_ended() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["c2"]),
            helper.make_node("Add", ["v", "v"], ["v2"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
    )
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)
    made = model([loop], [numpy_helper.from_array(np.array(1 << 60, np.int64), "times")])
    with ort.looking(0.5), pytest.raises(ort.OutOfBounds, match="too long"):
        run(made, {"x": np.ones((1, 3, 8, 8), np.float32)})


def test_an_input_that_is_too_large(tmp_path: Path) -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], [], (1, 3, 1 << 17, 1 << 17))
    with pytest.raises(ort.OutOfBounds, match="The input x"):
        load(saved(tmp_path / "m.onnx", made))


@pytest.mark.skipif(sys.platform != "linux", reason="reads its own peak")
def test_pads_of_a_real_network(assets: Path, tmp_path: Path) -> None:
    """13 GB before."""
    made = onnx.load(assets / "models" / "yolov8n.onnx")
    pool = next(node for node in made.graph.node if node.op_type == "MaxPool")
    for attribute in pool.attribute:
        if attribute.name == "pads":
            attribute.ints[2] = 1 << 20
    path = saved(tmp_path / "m.onnx", made)
    code = (
        "import resource, sys; from rkzoo.cli.main import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(path)], capture_output=True, text=True
    )
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert int(done.stdout.split()[-1]) < 2 << 20


def test_functions_that_unfold_without_end(tmp_path: Path) -> None:
    made = model([helper.make_node("f29", ["x"], ["y"], domain="own")], [])
    made.opset_import.append(helper.make_opsetid("own", 1))
    for number in range(30):
        kind, domain = (f"f{number - 1}", "own") if number else ("Relu", "")
        calls = [
            helper.make_node(kind, ["a"], ["b"], domain=domain),
            helper.make_node(kind, ["b"], ["c"], domain=domain),
        ]
        opsets = list(made.opset_import)
        made.functions.append(
            helper.make_function("own", f"f{number}", ["a"], ["c"], calls, opsets)
        )
    with pytest.raises(RkzooError, match="unfold to more than"):
        load(saved(tmp_path / "m.onnx", made))
    made.functions[0].node[0].op_type, made.functions[0].node[0].domain = "f29", "own"
    with pytest.raises(RkzooError, match="calls itself"):
        load(saved(tmp_path / "m.onnx", made))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer"),
    ],
)
def test_a_shortage_is_called_so(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(*given: object) -> int:
        raise error

    assert is_memory_shortage(error)
    monkeypatch.setattr("rkzoo.cli.soc.main", short)
    assert main(["soc"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: This machine has too little memory")
    assert "bug" not in text
    assert "Close other programs" in text


def test_onnx_runtime_short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "_free_bytes", lambda: 1 << 20)
    cos = helper.make_node("ConstantOfShape", ["size"], ["y"], name="lots")
    made = model([helper.make_node("Relu", ["x"], ["z"]), cos], [whole("size", 1 << 22)])
    with pytest.raises(RkzooError, match="too little memory"):
        ort.BoundedSession(made.SerializeToString(), what="It", fix="").run(
            {"x": np.ones((1, 3, 8, 8), np.float32)}
        )


# ---- structure ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"location": "w.bin", "offset": "-5"}, "no whole number"),
        ({"location": "w.bin", "offset": "abc"}, "no whole number"),
        ({"location": "w.bin", "offset": "0", "length": "4096"}, "beyond the end of w.bin"),
        ({"location": "/etc/passwd"}, "outside of the model's folder"),
        ({"location": "../w.bin"}, "outside of the model's folder"),
        ({"location": "leads_out.bin"}, "a link that leads out"),
    ],
)
def test_external_weights(tmp_path: Path, said: dict[str, str], why: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(bytes(12))
    (tmp_path / "w.bin").write_bytes(bytes(12))
    (folder / "leads_out.bin").symlink_to(tmp_path / "w.bin")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in said.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    made = model([helper.make_node("Sum", ["x", "w"], ["y"])], [weight])
    with pytest.raises(RkzooError, match=why):
        load(saved(folder / "m.onnx", made))


def test_external_weights_are_read_as_onnx_does(tmp_path: Path) -> None:
    values = np.arange(300, dtype=np.float32)
    made = model(
        [helper.make_node("Sum", ["x", "w"], ["y"])], [numpy_helper.from_array(values, "w")]
    )
    path = tmp_path / "m.onnx"
    onnx.save(made, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert np.array_equal(numpy_helper.to_array(load(path).graph.initializer[0]), values)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([("Add", ["x", "b"], ["a"]), ("Relu", ["a"], ["b"]), ("Relu", ["b"], ["y"])], "cyclic"),
        ([("Add", ["x", "y"], ["y"])], "cyclic: y is made of itself"),
        ([("Relu", ["x"], ["y"]), ("Neg", ["x"], ["y"])], "y is made twice"),
        ([("Relu", ["x"], ["x"]), ("Neg", ["x"], ["y"])], "x is made twice"),
    ],
)
def test_graphs_that_are_none(
    tmp_path: Path, nodes: list[tuple[str, list[str], list[str]]], why: str
) -> None:
    made = model([helper.make_node(*node) for node in nodes], [])
    with pytest.raises(RkzooError, match=why):
        load(saved(tmp_path / "m.onnx", made))


def test_nodes_in_another_order_are_no_cycle(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"])]
    assert load(saved(tmp_path / "m.onnx", model(nodes, []))).graph.node


@pytest.mark.parametrize("suffix", [".tflite", ".pb", ".torchscript"])
@pytest.mark.parametrize("data", [b"garbage" * 100, b"\x1c\0\0\0TFL3", b"PK\x03\x04" + bytes(99)])
def test_garbage_asks_for_no_framework(
    tmp_path: Path, suffix: str, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(data)
    assert main(["inspect", str(path)]) == 2
    assert "nstall" not in capsys.readouterr().err


def test_real_files_of_tensorflow_pass(assets: Path) -> None:
    found = list((assets / "models").glob("*.tflite"))
    assert found
    for path in found:
        check_structure(path)


def test_a_failed_verdict_is_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = one_picture()
    made.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "free"
    path = str(saved(tmp_path / "m.onnx", made))
    assert main(["inspect", path]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert main(["inspect", path, "--json"]) == 1
    levels = [check["level"] for check in json.loads(capsys.readouterr().out)["checks"]]
    assert "fail" in levels


def test_a_known_head_stays_known(tmp_path: Path) -> None:
    seen = inspect(saved(tmp_path / "m.onnx", build(Head())))
    assert seen.ok
    assert seen.contract is not None
    assert seen.contract.family == "yolov8"


def test_a_side_that_no_picture_has(tmp_path: Path) -> None:
    """Found by the mutated files."""
    made = model([helper.make_node("Sum", ["x", "x"], ["y"])], [], (2, 3, 8, 1 << 15))
    assert inspect(saved(tmp_path / "m.onnx", made)).content


# ---- regular files ------------------------------------------------------------------


def _zero(folder: Path, name: str) -> Path:
    path = folder / name
    path.symlink_to("/dev/zero")
    return path


def _pipe(folder: Path, name: str) -> Path:
    path = folder / name
    os.mkfifo(path)
    return path


READERS = {
    "m.onnx": load,
    "m.rknn": inspect,
    "m.rknn.json": lambda path: read_sidecar(path.with_suffix("")),
    "p.json": inspect,
    "c.yaml": read_mapping,
    "r.yaml": read_recipe,
    "labels.txt": read_labels,
    "p.jpg": image.read,
    "s.wav": sound.read,
    "m.tflite": inspect,
    "m.pt": inspect,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("kind", [_zero, _pipe])
@pytest.mark.parametrize("name", READERS)
def test_only_files_are_read(tmp_path: Path, name: str, kind: object) -> None:
    (tmp_path / "m.rknn").touch()
    if name == "m.rknn":
        (tmp_path / name).unlink()
    path = kind(tmp_path, name)  # type: ignore[operator]
    errors: list[BaseException] = []

    def read() -> None:
        try:
            READERS[name](path)
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(30)
    assert not reader.is_alive(), "it waits"
    assert [type(error) for error in errors] == [RkzooError], errors


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(NotRegular, match="larger than 1 MB"):
        read_bytes(path, 1 << 20)
    with pytest.raises(NotRegular), open_file(tmp_path):
        pass
    path.write_bytes(b"1234")
    assert read_bytes(path, 4) == b"1234"
