"""The Open Inference Protocol over gRPC, asked by Triton's client."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.protocol.tensors import decode_request, encode_response
from rkzoo.serving.run import Settings, check
from rkzoo.session import Array
from serving import tiny_models
from serving.server import Server, serving

grpc = pytest.importorskip("grpc")
triton = pytest.importorskip("tritonclient.grpc")
http = pytest.importorskip("tritonclient.http")

from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: E402
from tritonclient.utils import InferenceServerException, np_to_triton_dtype  # noqa: E402

from rkzoo.serving.engine import Engine, ServedModel  # noqa: E402
from rkzoo.serving.grpc_messages import MESSAGES  # noqa: E402
from rkzoo.serving.grpc_server import METHODS, _answer_of, _body_of, serve  # noqa: E402

X = np.array([[1, -2, 3.5, 0]], np.float32)


def address(server: Server) -> str:
    """Where the server listens for gRPC."""
    found: str = next(a for a in server.ready["addresses"] if a.startswith("grpc://"))
    return found.partition("://")[2]


def inputs(module: Any, arrays: Mapping[str, Array]) -> list[Any]:
    """Arrays as a client of Triton's, of HTTP or gRPC, takes them."""
    made = []
    for name, array in arrays.items():
        made.append(module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        made[-1].set_data_from_numpy(array)
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.scaled(folder / "scaled.onnx")
    tiny_models.of_all_types(folder / "types.onnx")
    tiny_models.slow(folder / "slow.onnx")
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    files = [str(models / f"{name}.onnx") for name in ("scaled", "types", "slow")]
    with serving(*files, "--grpc", "0", "--workers", "1", "--queue", "2") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(address(server)) as client:
        yield client


@pytest.fixture(scope="module")
def stub(server: Server) -> Iterator[Any]:
    """Triton's generated stub, for what its client does not send."""
    with grpc.insecure_channel(address(server)) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(**fields: Any) -> Any:
    """A request for `scaled` as the bare message, unless fields say otherwise."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
    raw = {"inputs": [tensor], "raw_input_contents": [X.tobytes()]}
    return service_pb2.ModelInferRequest(**{"model_name": "scaled", **raw, **fields})


# ---- messages -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_those_of_triton(name: str) -> None:
    theirs = service_pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"inference.{name}")

    def fields(message: Any) -> list[tuple[Any, ...]]:
        return sorted(
            (
                field.number,
                field.name,
                field.type,
                field.is_repeated,
                field.message_type and field.message_type.full_name,
                field.message_type and field.message_type.GetOptions().map_entry,
                field.containing_oneof and field.containing_oneof.name,
            )
            for field in message.fields
        )

    assert fields(MESSAGES[name].DESCRIPTOR) == fields(theirs)


def test_a_message_reads_what_triton_wrote() -> None:
    sent = request(id="7", outputs=[{"name": "y"}])
    sent.parameters["timeout"].int64_param = -5
    sent.inputs[0].parameters["deep"].string_param = "é"
    ours = MESSAGES["ModelInferRequest"].FromString(sent.SerializeToString())
    assert ours.parameters["timeout"].WhichOneof("parameter_choice") == "int64_param"
    assert str(ours) == str(sent)
    assert service_pb2.ModelInferRequest.FromString(ours.SerializeToString()) == sent


# ---- what is there ------------------------------------------------------------------------


def test_the_server_tells_what_it_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    about = client.get_server_metadata()
    assert about.name == "rkzoo"
    assert "model_repository" in about.extensions


def test_metadata_equal_those_of_http(client: Any, server: Server) -> None:
    with http.InferenceServerClient(server.url.partition("://")[2]) as other:
        for name in ("scaled", "types"):
            told = client.get_model_metadata(name, "1", as_json=True)
            for tensor in (*told["inputs"], *told["outputs"]):
                tensor["shape"] = [int(side) for side in tensor["shape"]]
            assert told == other.get_model_metadata(name)
    assert client.is_model_ready("scaled")
    assert client.is_model_ready("scaled", "1")


# ---- inference ----------------------------------------------------------------------------


def test_answers_are_those_of_run_and_of_http(client: Any, server: Server, tmp_path: Path) -> None:
    given = tiny_models.all_types_inputs()
    tiny_models.of_all_types(tmp_path / "types.onnx")
    np.savez(tmp_path / "in.npz", **given)
    assert main(["run", str(tmp_path / "types.onnx"), str(tmp_path / "in.npz"),
                 "-o", str(tmp_path / "out.npz")]) == 0  # fmt: skip
    answer = client.infer("types", inputs(triton, given), request_id="a1")
    assert answer.get_response().id == "a1"
    assert answer.get_response().model_version == "1"
    with http.InferenceServerClient(server.url.partition("://")[2]) as other:
        by_http = other.infer("types", inputs(http, given))
    wanted = tiny_models.all_types_outputs(given)
    run = np.load(tmp_path / "out.npz")
    assert set(run) == set(wanted) == {tensor.name for tensor in answer.get_response().outputs}
    for name, values in wanted.items():
        for array in (answer.as_numpy(name), by_http.as_numpy(name)):
            assert array.dtype == run[name].dtype
            np.testing.assert_array_equal(array, run[name])
            np.testing.assert_array_equal(array, values)


def test_a_yolov8n_answers_as_its_session_does(assets: Path) -> None:
    from rkzoo.workflow.inference.plan import open_part, plan
    from rkzoo.workflow.request.request import Request

    model = str(assets / "models" / "yolov8n.onnx")
    picture = np.random.default_rng(5).integers(0, 256, (1, 640, 640, 3), np.uint8)
    with open_part(plan(model, Request()).parts["model"], threads=1) as session:
        named = zip((spec.name for spec in session.outputs), session.run([picture]), strict=True)
        wanted = dict(named)
    with (
        serving(model, "--grpc", "0", "--workers", "2") as server,
        triton.InferenceServerClient(address(server)) as client,
    ):
        (taken,) = client.get_model_metadata("yolov8n").inputs
        assert (taken.datatype, list(taken.shape)) == ("UINT8", [1, 640, 640, 3])
        answer = client.infer("yolov8n", inputs(triton, {taken.name: picture}))
        assert wanted
        for name, values in wanted.items():
            np.testing.assert_array_equal(answer.as_numpy(name), values)


def test_outputs_that_are_chosen_come_alone_and_in_order(client: Any) -> None:
    wanted = [triton.InferRequestedOutput(name) for name in ("total", "y")]
    answer = client.infer("scaled", inputs(triton, {"x": X}), outputs=wanted)
    assert [tensor.name for tensor in answer.get_response().outputs] == ["total", "y"]
    np.testing.assert_array_equal(answer.as_numpy("total"), [[5]])
    answer = client.infer("scaled", inputs(triton, {"x": X}), outputs=wanted[:1])
    assert answer.as_numpy("y") is None


def test_typed_contents_are_read(stub: Any) -> None:
    """By hand, since Triton's client sends raw ones only."""
    given = tiny_models.all_types_inputs()
    fields = {"x": "fp32_contents", "whole": "int_contents", "long": "int64_contents"}
    tensors = [
        {
            "name": name,
            "datatype": np_to_triton_dtype(given[name].dtype),
            "shape": given[name].shape,
            "contents": {field: given[name].reshape(-1).tolist()},
        }
        for name, field in fields.items()
    ]
    answer = stub.ModelInfer(service_pb2.ModelInferRequest(model_name="types", inputs=tensors))
    read = triton.InferResult(answer)
    for name, values in tiny_models.all_types_outputs(given).items():
        np.testing.assert_array_equal(read.as_numpy(name), values)


def test_many_calls_at_once_get_their_own_answers(client: Any) -> None:
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()

    def callback(number: int) -> Callable[[Any, Any], None]:
        return lambda result, error: answers.put((number, result, error))

    done = 0
    for number in range(60):
        given = inputs(triton, {"x": np.full((1, 4), number, np.float32)})
        client.async_infer("scaled", given, callback=callback(number))
    for _ in range(60):
        number, result, error = answers.get(timeout=30)
        if error is None:
            np.testing.assert_array_equal(result.as_numpy("total"), [[number * 8]])
            done += 1
        else:  # the queue has two places
            assert error.status() == "StatusCode.UNAVAILABLE"
    assert done


def test_a_stream_goes_on_after_an_error(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for name in ("scaled", "nothing", "scaled"):
        client.async_stream_infer(name, inputs(triton, {"x": X}), request_id=name)
    told = [answers.get(timeout=30) for _ in range(3)]
    client.stop_stream()
    assert [error is None for _, error in told] == [True, False, True]
    assert "There is no model 'nothing'" in str(told[1][1])
    for result, _ in (told[0], told[2]):
        np.testing.assert_array_equal(result.as_numpy("y"), X * 2)


# ---- errors -------------------------------------------------------------------------------

TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
HALF = {**TENSOR, "datatype": "FP16"}
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "model": ({"model_name": "nothing"}, "NOT_FOUND", "There is no model 'nothing'"),
    "long name": ({"model_name": "n" * 20_000}, "NOT_FOUND", "There is no model 'nnnn"),
    "version": ({"model_version": "9"}, "NOT_FOUND", "has the version 1, not '9'"),
    "output": ({"outputs": [{"name": "z"}]}, "INVALID_ARGUMENT", "There is no output 'z'"),
    "no inputs": (
        {"inputs": [], "raw_input_contents": []},
        "INVALID_ARGUMENT",
        "It takes x, and was given none",
    ),
    "name": ({"inputs": [{**TENSOR, "name": "q"}]}, "INVALID_ARGUMENT", "It takes x"),
    "shape": (
        {"inputs": [{**TENSOR, "shape": [2, 2]}]},
        "INVALID_ARGUMENT",
        "The model takes float32 [1, 4]",
    ),
    "negative shape": ({"inputs": [{**TENSOR, "shape": [-1, 4]}]}, "INVALID_ARGUMENT", "[-1, 4]"),
    "size": ({"raw_input_contents": [b"abc"]}, "INVALID_ARGUMENT", "16 bytes, and has 3"),
    "datatype": ({"inputs": [{**TENSOR, "datatype": "BYTES"}]}, "INVALID_ARGUMENT", "BYTES"),
    "type": ({"inputs": [{**TENSOR, "datatype": "INT32"}]}, "INVALID_ARGUMENT", "is int32"),
    "raw missing": ({"inputs": [TENSOR] * 2}, "INVALID_ARGUMENT", "2 inputs, and raw contents of"),
    "twice": (
        {"inputs": [TENSOR] * 2, "raw_input_contents": [X.tobytes()] * 2},
        "INVALID_ARGUMENT",
        "comes twice",
    ),
    "both": (
        {"inputs": [{**TENSOR, "contents": {"fp32_contents": [1.0] * 4}}]},
        "INVALID_ARGUMENT",
        "has contents, and raw contents",
    ),
    "half typed": ({"inputs": [HALF], "raw_input_contents": []}, "INVALID_ARGUMENT", "FP16"),
    "typed missing": (
        {"inputs": [{**TENSOR, "contents": {"int_contents": [1] * 4}}], "raw_input_contents": []},
        "INVALID_ARGUMENT",
        "16 bytes, and has 0",
    ),
    "too large for the type": (
        {
            "inputs": [{**TENSOR, "datatype": "INT8", "contents": {"int_contents": [300] * 4}}],
            "raw_input_contents": [],
        },
        "INVALID_ARGUMENT",
        "no INT8",
    ),
    "timeout": (
        {"parameters": {"timeout": {"string_param": "soon"}}},
        "INVALID_ARGUMENT",
        "a number of microseconds",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_told_in_a_line(case: str, stub: Any) -> None:
    fields, code, message = WRONG[case]
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(request(**fields))
    error: Any = raised.value
    assert error.code().name == code
    assert message in error.details()
    assert "\n" not in error.details()
    assert stub.ServerLive(service_pb2.ServerLiveRequest()).live


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message_end_their_call_only(method: str, server: Server) -> None:
    with grpc.insecure_channel(address(server)) as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"\xff\x0f\x00rubbish", timeout=10)
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        live = service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive
        assert live(service_pb2.ServerLiveRequest()).live


def test_a_message_above_the_bound_is_refused(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(request(raw_input_contents=[bytes(65 << 20)]))
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_compressed_message_is_not_unpacked(client: Any) -> None:
    with pytest.raises(InferenceServerException) as raised:
        client.infer("scaled", inputs(triton, {"x": X}), compression_algorithm="gzip")
    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("how", "words"),
    [({"client_timeout": 0.02}, ""), ({"timeout": 10_000}, "slow did not answer within 0.01 s")],
    ids=["the client's deadline", "the parameter"],
)
def test_a_deadline_is_kept(how: dict[str, Any], words: str, client: Any) -> None:
    slow = inputs(triton, tiny_models.slow_inputs())
    with pytest.raises(InferenceServerException) as raised:
        client.infer("slow", slow, **how)
    assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert words in raised.value.message()
    assert client.infer("scaled", inputs(triton, {"x": X})).as_numpy("total") == [[5]]


def test_a_full_queue_says_when_to_ask_again(stub: Any) -> None:
    array = tiny_models.slow_inputs()["x"]
    tensor = {"name": "x", "datatype": "FP32", "shape": array.shape}
    message = request(model_name="slow", inputs=[tensor], raw_input_contents=[array.tobytes()])
    calls = [stub.ModelInfer.future(message) for _ in range(8)]
    codes = [call.code().name for call in calls]
    assert set(codes) == {"OK", "UNAVAILABLE"}
    refused = calls[codes.index("UNAVAILABLE")]
    assert "2 requests waiting already" in refused.details()
    assert "Ask again in 1 s." in refused.details()
    assert ("grpc-retry-pushback-ms", "1000") in [
        tuple(pair) for pair in refused.trailing_metadata()
    ]


# ---- repository ---------------------------------------------------------------------------


def test_models_are_unloaded_and_loaded_again(client: Any, stub: Any) -> None:
    def states(**fields: Any) -> dict[str, str]:
        told = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(**fields))
        return {model.name: model.state for model in told.models}

    def refused(ask: Callable[..., Any], *args: Any, **given: Any) -> str:
        with pytest.raises(InferenceServerException) as raised:
            ask(*args, **given)
        return str(raised.value.status()).rpartition(".")[2]

    assert states()["types"] == "READY"
    before = int(client.get_model_metadata("types").versions[0])
    client.unload_model("types")
    assert states()["types"] == "UNAVAILABLE"
    assert states(ready=True) == {"scaled": "READY", "slow": "READY"}
    assert not client.is_model_ready("types")
    given = inputs(triton, tiny_models.all_types_inputs())
    assert refused(client.infer, "types", given) == "UNAVAILABLE"
    assert refused(client.load_model, "types", config="{}") == "INVALID_ARGUMENT"
    client.load_model("types")
    assert states()["types"] == "READY"
    assert client.get_model_metadata("types").versions == [str(before + 1)]
    assert refused(client.load_model, "../etc/passwd") == "NOT_FOUND"
    assert refused(client.unload_model, "nothing") == "NOT_FOUND"


# ---- who may ask --------------------------------------------------------------------------


def test_token_and_tls(models: Path, tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    told = ["--tls-cert", str(cert), "--tls-key", str(key), "--grpc", "0", "--workers", "1"]
    env = {"RKZOO_SERVE_TOKEN": "a-long-token"}
    with serving(str(models / "slow.onnx"), *told, env=env) as server:
        where = f"localhost:{address(server).rpartition(':')[2]}"
        with triton.InferenceServerClient(where, ssl=True, root_certificates=str(cert)) as client:
            assert client.is_server_live()
            for headers in ({}, {"authorization": "Bearer a-wrong-token"}):
                for ask in (client.get_server_metadata, client.get_model_repository_index):
                    with pytest.raises(InferenceServerException) as raised:
                        ask(headers=headers)
                    assert raised.value.status() == "StatusCode.UNAUTHENTICATED"
                    assert "asks for a token" in raised.value.message()
            good = {"authorization": "Bearer a-long-token"}
            while not client.is_server_ready(client_timeout=10):
                pass
            with (
                triton.InferenceServerClient(where) as plain,
                pytest.raises(InferenceServerException),
            ):
                plain.is_server_live(client_timeout=5)
            # What it took it answers, also when it is told to stop.
            answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
            given = inputs(triton, tiny_models.slow_inputs())
            for _ in range(2):
                client.async_infer(
                    "slow", given, lambda result, error: answers.put((result, error)), headers=good
                )
            time.sleep(0.1)  # they are there
            assert server.stop() == 0
            for result, error in (answers.get(timeout=1) for _ in range(2)):
                assert error is None
                assert result.as_numpy("y").shape == (512, 512)


def test_tls_files_are_read_before_anything_listens(tmp_path: Path) -> None:
    file = tmp_path / "bad.pem"
    file.write_text("no key")
    with pytest.raises(RkzooError, match="certificate"):
        check(Settings(certificate=file, key=file))


def test_a_listener_beside_a_socket_needs_a_token_for_other_machines() -> None:
    beside = {"socket": Path("x.sock"), "host": "0.0.0.0"}
    check(Settings(**beside))  # type: ignore[arg-type]
    with pytest.raises(RkzooError, match="reachable from other machines"):
        check(Settings(**beside, listeners={"grpc": 0}))  # type: ignore[arg-type]
    check(Settings(**beside, listeners={"grpc": 0}, token="a-long-token"))  # type: ignore[arg-type]


@pytest.mark.parametrize("port", ["taken", "-1", "65536"])
def test_a_port_that_cannot_be_used_is_told(port: str, server: Server) -> None:
    port = port.replace("taken", address(server).rpartition(":")[2])
    with pytest.raises(RkzooError, match=f"cannot listen at 127.0.0.1:{port}") as raised:
        asyncio.run(serve(Engine(), Settings(), int(port)))
    assert "--grpc" in raised.value.fix


def test_each_call_is_told_of_once() -> None:
    """To logs and metrics, with its status and where it came from."""
    told: list[tuple[str, int, str, str]] = []
    engine = Engine([ServedModel("m", "m.onnx")])
    engine.observers.append(
        lambda event: told.append((event.call, event.status, event.request, event.client))
    )

    async def ask() -> None:
        listener = await serve(engine, Settings(token="a-long-token"), 0)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            token = (("authorization", "Bearer a-long-token"),)
            for name, metadata in (("m", ()), ("nothing", token), ("m", token)):
                message = request(model_name=name, id=name)
                with pytest.raises(grpc.RpcError):
                    await stub.ModelInfer(message, metadata=metadata)
        await listener.close()

    asyncio.run(ask())
    engine.stop()
    (refused, *others) = told
    assert (refused[0], refused[1], refused[3]) == ("grpc", 401, "127.0.0.1")
    assert others == [("grpc", 404, "nothing", "127.0.0.1"), ("grpc", 503, "m", "127.0.0.1")]


# ---- bodies -------------------------------------------------------------------------------


def test_half_floats_are_raw_in_both_directions() -> None:
    """No model behind the server gives them: what a board's session does."""
    half = np.array([[0.5, -65504, np.inf]], np.float16)
    tensor = {"name": "h", "datatype": "FP16", "shape": half.shape}
    made = MESSAGES["ModelInferRequest"](inputs=[tensor], raw_input_contents=[half.tobytes()])
    body = _body_of(made, {})
    request = decode_request(body)
    told = encode_response("m", "3", request, request.inputs)
    fields = _answer_of(told)
    answer = service_pb2.ModelInferResponse(**fields)
    assert answer.model_version == "3"
    np.testing.assert_array_equal(triton.InferResult(answer).as_numpy("h"), half)
