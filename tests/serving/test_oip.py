"""The Open Inference Protocol over HTTP, asked by Triton's client and by curl."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_fakes import cls_contract, det_contract, rec_contract

from graph.rknn_writer import Sample
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.protocol.tensors import Body, decode_response, encode_request
from rkzoo.serving.model_slot import floats_of, infer_each
from rkzoo.session import Array
from rkzoo.workflow.compile.convert import custom_string
from rkzoo.workflow.inference import board
from rkzoo.workflow.request.pipeline_file import write_pipeline
from serving import npu_models, tiny_models
from serving.server import Server, serving

http = pytest.importorskip("tritonclient.http")

from tritonclient.utils import InferenceServerException, np_to_triton_dtype  # noqa: E402

X = np.array([[1, -2, 3.5, 0]], np.float32)
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.scaled(folder / "scaled.onnx")
    tiny_models.scaled(folder / "four.onnx", batch=4)
    tiny_models.of_all_types(folder / "types.onnx")
    tiny_models.slow(folder / "slow.onnx")
    tiny_models.scaled(folder / "changes.onnx")
    npu_models.classifier(folder / "tiny.rknn", best=3)
    page(folder)
    return folder


def page(folder: Path) -> dict[str, Array]:
    """A pipeline that reads text, of models that are played back; what each of them gives."""
    contracts = {"det": det_contract(64, 128), "rec": rec_contract(("", "a"), 640)}
    contracts["cls"] = cls_contract()
    answers = {
        "det": np.full((1, 1, 64, 128), 0.25, np.float32),
        "rec": np.eye(2, dtype=np.float32)[[1, 0, 1]][None],
        "cls": np.array([[0.75, 0.25]], np.float32),
    }
    files = {}
    for role, answer in answers.items():
        fed = In("x", (1, *contracts[role].input.size, 3))
        native = 2 if answer.ndim == 4 else 3
        recording = Recording((fed,), (Out("y", answer.shape, "float32", native=native),))
        recording.answer([np.zeros(fed.shape, np.uint8)], [answer])
        files[role] = folder / f"page-{role}.rknn"
        made = Sample(custom=custom_string(contracts[role])).write()
        files[role].write_bytes(recording.bytes(made))
    write_pipeline(folder / "page.json", "page", files)
    return answers


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    library = build.compiled(tmp_path_factory.mktemp("standin"))
    names = [f"{name}.onnx" for name in ("scaled", "four", "types", "slow", "changes")]
    files = [str(models / name) for name in (*names, "tiny.rknn", "page.json")]
    env = {board.LIBRARY: str(library), "STANDIN_STRICT": "0"}
    with serving(*files, "--workers", "1", env=env) as server:
        yield server


def connected(server: Server) -> Any:
    """A client; each thread needs its own."""
    return http.InferenceServerClient(server.url.partition("://")[2])


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with connected(server) as client:
        yield client


def inputs(arrays: dict[str, Array], *, binary: bool = True) -> list[Any]:
    made = []
    for name, array in arrays.items():
        made.append(http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        made[-1].set_data_from_numpy(array, binary_data=binary)
    return made


def refusal(ask: Callable[..., Any], *args: Any, **given: Any) -> tuple[str, str]:
    """Status and words of a refusal."""
    with pytest.raises(InferenceServerException) as raised:
        ask(*args, **given)
    return str(raised.value.status()), str(raised.value.message())


# ---- what is there ------------------------------------------------------------------------


ROUTES: dict[tuple[str, str], tuple[int, set[str]]] = {
    ("GET", "/v2"): (200, {"name", "version", "extensions"}),
    ("GET", "/v2/health/live"): (200, {"live"}),
    ("GET", "/v2/health/ready"): (200, {"ready"}),
    ("GET", "/v2/models/scaled"): (200, {"name", "versions", "platform", "inputs", "outputs"}),
    ("GET", "/v2/models/scaled/ready"): (200, {"name", "ready"}),
    ("GET", "/v2/models/scaled/versions/1"): (
        200,
        {"name", "versions", "platform", "inputs", "outputs"},
    ),
    ("GET", "/v2/models/scaled/versions/1/ready"): (200, {"name", "ready"}),
    ("GET", "/v2/models/scaled/versions/7"): (404, {"error"}),
    ("GET", "/v2/models/scaled/versions/7/ready"): (404, {"error"}),
    ("GET", "/v2/models/nothing"): (404, {"error"}),
    ("GET", "/v2/models/nothing/ready"): (404, {"error"}),
    ("GET", "/v2/models/..%2Fscaled"): (404, {"error"}),
    ("GET", "/v2/models/page.nobody"): (404, {"error"}),
    ("GET", "/v2/nothing"): (404, {"error"}),
    ("GET", "/v2/models/scaled/infer"): (405, {"error"}),
    ("POST", "/v2"): (405, {"error"}),
    ("POST", "/v2/models/nothing/infer"): (404, {"error"}),
    ("POST", "/v2/models/scaled/versions/7/infer"): (404, {"error"}),
    ("POST", "/v2/repository/models/nothing/load"): (404, {"error"}),
    ("POST", "/v2/repository/models/nothing/unload"): (404, {"error"}),
}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_routes(method: str, path: str, server: Server) -> None:
    wanted, keys = ROUTES[method, path]
    body = b"{}" if method == "POST" else None
    status, headers, answer = server.ask(path, body, JSON, method)
    assert (status, headers["content-type"]) == (wanted, "application/json")
    told = json.loads(answer)
    assert keys <= set(told)
    assert "\n" not in told.get("error", "")


def test_tritons_client_sees_the_same(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("four", "1")
    assert not client.is_model_ready("four", "2")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["name"] == "rkzoo"
    assert client.get_model_metadata("four") == {
        "name": "four",
        "versions": ["1"],
        "platform": "rkzoo_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [4, 4]}],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [4, 4]},
            {"name": "total", "datatype": "FP32", "shape": [4, 1]},
        ],
    }


# ---- inference ----------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [True, False], ids=["bytes in", "JSON in"])
@pytest.mark.parametrize("wanted", [True, False], ids=["bytes out", "JSON out"])
def test_all_datatypes_both_ways(sent: bool, wanted: bool, client: Any) -> None:
    given = tiny_models.all_types_inputs()
    expected = tiny_models.all_types_outputs(given)
    declared = {one["name"]: one for one in client.get_model_metadata("types")["outputs"]}
    assert set(declared) == set(expected)
    outputs = [http.InferRequestedOutput(name, binary_data=wanted) for name in expected]
    answer = client.infer("types", inputs(given, binary=sent), outputs=outputs)
    for name, values in expected.items():
        about, array = answer.get_output(name), answer.as_numpy(name)
        assert {key: about[key] for key in ("name", "datatype", "shape")} == declared[name]
        assert ("data" in about) is not wanted
        assert np_to_triton_dtype(array.dtype) == about["datatype"]
        np.testing.assert_array_equal(array, values)


def test_outputs_that_are_chosen_come_alone_and_in_order(client: Any) -> None:
    wanted = [
        http.InferRequestedOutput("total", binary_data=False),
        http.InferRequestedOutput("y", binary_data=True),
    ]
    answer = client.infer("scaled", inputs({"x": X}), outputs=wanted, request_id="é-7")
    told = answer.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("é-7", "scaled", "1")
    assert [output["name"] for output in told["outputs"]] == ["total", "y"]
    assert told["outputs"][0]["data"] == [5.0]
    np.testing.assert_array_equal(answer.as_numpy("y"), X * 2)


def test_curl(server: Server) -> None:
    """As the protocol's own page shows it."""
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    data = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": X.tolist()}]}
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", f"{server.url}/v2/models/scaled/infer",
         "-d", json.dumps(data | {"id": "42"})],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert json.loads(done.stdout) == {
        "model_name": "scaled",
        "model_version": "1",
        "id": "42",
        "outputs": [
            {"name": "y", "shape": [1, 4], "datatype": "FP32", "data": [2.0, -4.0, 7.0, 0.0]},
            {"name": "total", "shape": [1, 1], "datatype": "FP32", "data": [5.0]},
        ],
    }


WRONG: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "empty": (b"", {}, 400, "cannot be read"),
    "no JSON": (b"hello", {}, 400, "JSON"),
    "a header length above the body": (
        b"{}",
        {"inference-header-content-length": "9"},
        400,
        "the body has 2 bytes",
    ),
    "a header length of words": (b"{}", {"inference-header-content-length": "x"}, 400, "no number"),
    "bytes that are too few": (
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32",'
        b'"parameters":{"binary_data_size":16}}]}abc',
        {"inference-header-content-length": "94"},
        400,
        "'x' has 16 bytes, and 3 follow",
    ),
    "another shape": (
        b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}]}',
        {},
        400,
        "The model takes float32 [1, 4]",
    ),
    "another datatype": (
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"INT8","data":[1,2,3,4]}]}',
        {},
        400,
        "The input x is int8",
    ),
    "an input too many": (
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]},'
        b'{"name":"z","shape":[1],"datatype":"INT8","data":[1]}]}',
        {},
        400,
        "It takes x, and was given x, z",
    ),
    "an output that is none": (
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],'
        b'"outputs":[{"name":"z"}]}',
        {},
        400,
        "There is no output 'z'",
    ),
    "a timeout of words": (
        b'{"inputs":[],"parameters":{"timeout":"soon"}}',
        {},
        400,
        "number of microseconds",
    ),
    "a body that is packed": (b"\x1f\x8b", {"content-encoding": "gzip"}, 415, "gzip"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_told_in_a_line(case: str, server: Server) -> None:
    body, headers, status, words = WRONG[case]
    found, _, answer = server.ask("/v2/models/scaled/infer", body, JSON | headers, "POST")
    assert found == status, answer
    assert words in json.loads(answer)["error"]


def test_the_parameter_timeout_is_kept(client: Any) -> None:
    slow = inputs(tiny_models.slow_inputs())
    assert refusal(client.infer, "slow", slow, timeout=10_000) == (
        "504",
        "slow did not answer within 0.01 s.",
    )


# ---- batches ------------------------------------------------------------------------------


def test_four_clients_with_a_sample_each_get_their_own_answers(server: Server) -> None:
    def ask(first: int) -> list[float]:
        totals = []
        with connected(server) as client:
            for number in range(first, first + 10):
                given = np.full((1, 4), number, np.float32)
                answer = client.infer("four", inputs({"x": given}))
                assert answer.as_numpy("y").shape == (1, 4)
                totals.append(answer.as_numpy("total").item())
        return totals

    with ThreadPoolExecutor(4) as threads:
        totals = list(threads.map(ask, range(0, 40, 10)))
    np.testing.assert_array_equal(np.concatenate(totals), np.arange(40) * 8)


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_fewer_samples_than_the_batch(rows: int, client: Any) -> None:
    given = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    answer = client.infer("four", inputs({"x": given}))
    np.testing.assert_array_equal(answer.as_numpy("y"), given * 2)
    np.testing.assert_array_equal(answer.as_numpy("total"), (given * 2).sum(1, keepdims=True))


@pytest.mark.parametrize("rows", [0, 5])
def test_no_samples_and_too_many_are_refused(rows: int, client: Any) -> None:
    status, words = refusal(client.infer, "four", inputs({"x": np.zeros((rows, 4), np.float32)}))
    assert status == "400"
    assert f"float32 [{rows}, 4]" in words


def test_requests_that_wait_together_take_one_run(tmp_path: Path) -> None:
    """What the answers do not show."""
    from rkzoo.runtime.onnx import OnnxSession

    runs: list[Array] = []

    class Counting(OnnxSession):
        def run(self, arrays: Any) -> list[Array]:
            runs.append(arrays[0])
            return super().run(arrays)

    def body(*numbers: float, width: int = 4) -> Body:
        return encode_request({"x": np.repeat(np.float32(numbers)[:, None], width, 1)})

    wrong = body(1, width=3)
    bodies = [body(1), wrong, body(2, 3), body(4), body(5, 6, 7), body(8, 9)]
    with Counting(tiny_models.scaled(tmp_path / "four.onnx", batch=4)) as session:
        replies = infer_each(session, bodies, "four", "1", outputs=floats_of)
    assert [reply.error is None for reply, _ in replies] == [True, False, True, True, True, True]
    assert [run[:, 0].tolist() for run in runs] == [[1, 2, 3, 4], [5, 6, 7, 7], [8, 9, 9, 9]]
    totals = [
        decode_response(Body(b"".join(data), reply.header_size))["total"][:, 0].tolist()
        for reply, data in replies
        if reply.error is None
    ]
    assert totals == [[8], [16, 24], [32], [40, 48, 56], [64, 72]]


# ---- pipelines ----------------------------------------------------------------------------


def test_parts_of_a_pipeline(client: Any, tmp_path: Path) -> None:
    told = client.get_model_metadata("page")
    parts = ["page.det", "page.rec", "page.cls"]
    assert sorted(told["parameters"]["parts"]) == sorted(parts)
    status, words = refusal(client.infer, "page", inputs({"x": X}))
    assert status == "404"
    assert all(part in words for part in parts)
    for role, answer in page(tmp_path).items():
        name = f"page.{role}"
        assert client.is_model_ready(name, "1")
        about = client.get_model_metadata(name)
        (fed,), (given,) = about["inputs"], about["outputs"]
        assert (fed["datatype"], given["shape"]) == ("UINT8", list(answer.shape))
        picture = np.zeros(fed["shape"], np.uint8)
        found = client.infer(name, inputs({fed["name"]: picture})).as_numpy(given["name"])
        np.testing.assert_allclose(found, answer, atol=1e-3)


# ---- repository ---------------------------------------------------------------------------


def test_models_are_unloaded_and_loaded_again(client: Any, server: Server) -> None:
    def row() -> dict[str, str]:
        found: list[dict[str, str]] = client.get_model_repository_index()
        return next(one for one in found if one["name"] == "types")

    def ready_names() -> set[str]:
        status, _, body = server.ask("/v2/repository/index", b'{"ready": true}', JSON)
        assert status == 200
        return {one["name"] for one in json.loads(body)}

    before = int(row()["version"])
    assert row()["state"] == "READY"
    client.unload_model("types")
    assert (row()["state"], row()["reason"]) == ("UNAVAILABLE", "unloaded")
    assert ready_names() == {"scaled", "four", "slow", "changes", "tiny", "page"}
    assert not client.is_model_ready("types")
    status, words = refusal(client.infer, "types", inputs(tiny_models.all_types_inputs()))
    assert status == "503"
    assert "/v2/repository/models/types/load" in words
    _, headers, _ = server.ask("/v2/models/types/infer", b'{"inputs":[]}', JSON)
    assert int(headers["retry-after"]) >= 1
    assert client.is_server_ready()  # it was asked for
    assert refusal(client.load_model, "types", config="{}")[0] == "400"
    client.load_model("types")
    assert row() == {"name": "types", "version": str(before + 1), "state": "READY", "reason": ""}
    assert client.infer("types", inputs(tiny_models.all_types_inputs())).as_numpy("BOOL").any()


def test_a_replaced_file_is_loaded_and_no_request_is_lost(server: Server, models: Path) -> None:
    done, wrong = threading.Event(), []
    found: list[tuple[str, float]] = []

    def ask() -> None:
        with connected(server) as client:
            while not done.is_set():
                try:
                    answer = client.infer("changes", inputs({"x": X}))
                    version = answer.get_response()["model_version"]
                    found.append((version, answer.as_numpy("total").item()))
                except Exception as error:
                    wrong.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        tiny_models.scaled(models / "changes.onnx", factor=4)
        until(lambda: found and found[-1][1] == 10)
        (models / "damaged").write_bytes(b"no model")
        (models / "damaged").replace(models / "changes.onnx")
        until(lambda: any("cannot be loaded" in line for line in server.lines))
    finally:
        done.set()
        asking.join()
    assert not wrong
    # The former model answers on where the new one cannot be opened.
    assert set(found) == {("1", 5.0), ("2", 10.0)}
    assert [version for version, _ in found] == sorted(version for version, _ in found)


def test_a_replaced_rknn_is_loaded(client: Any, models: Path) -> None:
    def best() -> int:
        (fed,) = client.get_model_metadata("tiny")["inputs"]
        picture = np.zeros(fed["shape"], np.uint8)
        answer = client.infer("tiny", inputs({fed["name"]: picture}))
        (name,) = (output["name"] for output in answer.get_response()["outputs"])
        return int(answer.as_numpy(name).argmax())

    assert best() == 3
    npu_models.classifier(models / "tiny.rknn", best=7)
    until(lambda: best() == 7)


def test_a_signal_to_the_whole_group_ends_no_worker(client: Any, server: Server) -> None:
    """Who stops a service may signal each of its processes; the server ends them in good order."""
    tasks = Path(f"/proc/{server.process.pid}/task")
    if not tasks.is_dir():
        pytest.skip("this system has no /proc")
    workers = [int(pid) for file in tasks.glob("*/children") for pid in file.read_text().split()]
    assert len(workers) >= 7
    before = client.get_model_metadata("scaled")["versions"]
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    np.testing.assert_array_equal(client.infer("scaled", inputs({"x": X})).as_numpy("y"), X * 2)
    assert client.get_model_metadata("scaled")["versions"] == before


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
