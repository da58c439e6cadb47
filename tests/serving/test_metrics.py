"""/metrics, read by the parser of Prometheus' own client library."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from rkzoo.serving.engine import Engine, Event, ServedModel
from rkzoo.serving.metrics import SECONDS, routes
from serving import tiny_models
from serving.server import Server, serving

SIDE = 256
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def scraped(engine: Engine, root: Path, *events: Event) -> Samples:
    """What one scrape gives after some requests, without a server."""
    app = Starlette(routes=routes(engine, root))
    for event in events:
        engine.tell(event)

    async def ask() -> str:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            answer = await client.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return answer.text

    return parsed(asyncio.run(ask()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("metrics")
    models = [
        tiny_models.scaled(folder / "twice.onnx"),
        tiny_models.slow(folder / "slow.onnx", side=SIDE),
    ]
    with serving(*map(str, models), "--workers", "2") as server:
        until(lambda: server.ask("/v2/models/slow/ready")[0] == 200)
        yield server


def until(so: Callable[[], bool]) -> None:
    end = monotonic() + 30
    while not so():
        assert monotonic() < end
        sleep(0.05)


def scrape(server: Server) -> Samples:
    status, headers, body = server.ask("/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return parsed(body.decode())


def infer(server: Server, width: int) -> int:
    numbers = ", ".join(["1"] * width)
    tensor = f'{{"name": "x", "datatype": "FP32", "shape": [1, {width}], "data": [{numbers}]}}'
    body = f'{{"inputs": [{tensor}]}}'.encode()
    return server.ask("/v2/models/twice/infer", body)[0]


def test_requests_are_counted_by_outcome(server: Server) -> None:
    before = scrape(server)
    assert [infer(server, width) for width in (4, 4, 3)] == [200, 200, 400]
    assert server.ask("/v2/models/none/infer", b"{}")[0] == 404
    after = scrape(server)

    def more(name: str, **labels: str) -> float:
        return after[key(name, **labels)] - before.get(key(name, **labels), 0)

    who = {"model": "twice", "call": "infer"}
    assert more("rkzoo_requests_total", **who, outcome="ok") == 2
    assert more("rkzoo_requests_total", **who, outcome="wrong") == 1
    assert more("rkzoo_requests_total", model="", call="http", outcome="wrong") == 1
    assert more("rkzoo_request_bytes_total", **who) > 100
    for name in ("rkzoo_request_waiting_seconds", "rkzoo_request_working_seconds"):
        assert more(f"{name}_count", **who) == 3
        assert 0 <= more(f"{name}_sum", **who) < 10
        counts = [after[key(f"{name}_bucket", **who, le=str(bound))] for bound in SECONDS]
        assert counts == sorted(counts)
        assert counts[-1] <= after[key(f"{name}_bucket", **who, le="+Inf")]
    assert not any(("model", "none") in labels for _, labels in after)


def test_one_that_is_late_counts_once(server: Server) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [SIDE, SIDE]}
    tensor["parameters"] = {"binary_data_size": 4 * SIDE * SIDE}
    header = json.dumps({"inputs": [tensor], "parameters": {"timeout": 1000}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    body = header + bytes(4 * SIDE * SIDE)
    assert server.ask("/v2/models/slow/infer", body, headers)[0] == 504
    until(lambda: not scrape(server)[key("rkzoo_model_working", model="slow")])
    requests = {k[1]: v for k, v in scrape(server).items() if k[0] == "rkzoo_requests_total"}
    who = {("model", "slow"), ("call", "infer")}
    of_slow = {labels: count for labels, count in requests.items() if ("model", "slow") in labels}
    assert of_slow == {frozenset({*who, ("outcome", "late")}): 1}


def test_a_model_and_its_process(server: Server) -> None:
    now = scrape(server)
    assert now[key("rkzoo_model_slots", model="twice")] == 2
    assert now[key("rkzoo_model_waiting", model="twice")] == 0
    assert now[key("rkzoo_model_working", model="twice")] == 0
    states = ("ready", "loading", "unloaded", "failed")
    assert [now[key("rkzoo_model_state", model="twice", state=s)] for s in states] == [1, 0, 0, 0]
    own = resident(server.process.pid)
    assert now[key("process_resident_memory_bytes")] == pytest.approx(own, rel=0.2)
    worker = resident(worker_of(server))
    told = now[key("rkzoo_worker_resident_memory_bytes", model="twice")]
    assert told == pytest.approx(worker, rel=0.2)


def test_a_worker_that_dies_is_counted(server: Server) -> None:
    os.kill(worker_of(server), signal.SIGKILL)
    restarts, ready = key("rkzoo_worker_restarts_total", model="twice"), "/v2/models/twice/ready"
    until(lambda: scrape(server)[restarts] == 1 and server.ask(ready)[0] == 200)
    assert infer(server, 4) == 200


def test_a_board_tells_load_and_heat(tmp_path: Path) -> None:
    files = {
        "sys/kernel/debug/rknpu/load": "NPU load:  Core0: 42%, Core1:  0%, Core2: 429496%,\n",
        "sys/class/thermal/thermal_zone0/temp": "46230\n",
        "sys/class/thermal/thermal_zone0/type": "soc-thermal\n",
        "sys/class/thermal/thermal_zone1/temp": "51000\n",
        "sys/class/thermal/thermal_zone1/type": 'odd "name"\\ of a zone\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    now = scraped(Engine(), tmp_path)
    assert {k: v for k, v in now.items() if k[0].startswith(("rkzoo_npu", "rkzoo_temp"))} == {
        key("rkzoo_npu_load_ratio", core="0"): 0.42,
        key("rkzoo_npu_load_ratio", core="1"): 0.0,
        key("rkzoo_temperature_celsius", zone="soc-thermal"): 46.23,
        key("rkzoo_temperature_celsius", zone='odd "name"\\ of a zone'): 51.0,
    }


def test_sessions_share_one_name_and_outcomes_are_words(tmp_path: Path) -> None:
    engine = Engine([ServedModel("a", "a.onnx")])
    statuses = {200: "ok", 400: "wrong", 499: "wrong", 502: "failed", 503: "refused", 504: "late"}
    events = [Event("a", "predict", status) for status in statuses]
    events += [Event(f"session-{number}", "run", worked=0.002) for number in range(50)]
    now = scraped(engine, tmp_path, *events)
    requests = {k[1]: v for k, v in now.items() if k[0] == "rkzoo_requests_total"}
    assert requests == {
        frozenset({("model", "a"), ("call", "predict"), ("outcome", word)}): 1 + (word == "wrong")
        for word in statuses.values()
    } | {frozenset({("model", "(session)"), ("call", "run"), ("outcome", "ok")}): 50}
    who = {"model": "(session)", "call": "run"}
    bucket = "rkzoo_request_working_seconds_bucket"
    assert now[key(bucket, **who, le="0.0025")] == 50
    assert now[key(bucket, **who, le="0.001")] == 0


def resident(pid: int) -> int:
    """As `ps` has it: another file of the kernel than the server reads."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (size,) = (line.split()[1] for line in lines if line.startswith("VmRSS"))
    return int(size) * 1024


def worker_of(server: Server) -> int:
    """The process that holds the first model: they are started in order."""
    threads = Path(f"/proc/{server.process.pid}/task").iterdir()
    children = {int(c) for thread in threads for c in (thread / "children").read_text().split()}
    return min(
        child
        for child in children
        if b"rkzoo.serving.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
