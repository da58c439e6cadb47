"""A board's calls, over HTTP against the stand-in for Rockchip's library. Nothing here was measured
on a board."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import soc.board_trees as board_trees
from npu_standin import build
from rkzoo.protocol.board import BEAT, VERSION
from rkzoo.serving.board import MOST_WAITING
from serving.board_server import (
    Model,
    Served,
    board_server,
    outputs_of,
    request_body,
    small_model,
    until,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    library = build.compiled(tmp_path_factory.mktemp("standin"))
    folder = tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKZOO_LIBRKNNRT", str(library))
        patch.setenv("STANDIN_STRICT", "1")
        patch.setenv("RKZOO_CACHE", str(folder / "cache"))
        root = folder / "tree"
        board_trees.board(root)
        with board_server(folder, root) as served:
            yield served


@pytest.fixture(scope="module")
def model(server: Served) -> Model:
    made = small_model()
    server.send(made)
    return made


@pytest.fixture(autouse=True)
def nothing_is_left(server: Served) -> Iterator[None]:
    yield
    until(lambda: not len(server.board.leases) and not server.board._sessions)
    assert not server.board._processes
    until(lambda: not server.board._idle)


def test_hello_and_the_machine(server: Served) -> None:
    told = server.client.get("/rkzoo/v1/hello").json()
    assert (told["chip"], told["protocol"], told["npu_cores"]) == ("rk3588", 1, 3)
    assert told["library"] == os.environ["RKZOO_LIBRKNNRT"]
    assert {one["name"] for one in told["libraries"]} == {"librknnrt.so"}
    (version,) = [o["version"] for o in told["libraries"] if o["path"] == told["library"]]
    assert version.startswith("2.3.2")
    machine = server.client.get("/rkzoo/v1/machine").json()
    assert machine["chip"] == "rk3588"
    assert {clock["kind"] for clock in machine["clocks"]} >= {"cpu", "npu"}


def test_a_session_answers_raw_integers_in_both_layouts(server: Served, model: Model) -> None:
    with server.lease() as lease:
        for layout, shape in (("plain", (1, 20, 4, 4)), ("native", (1, 2, 4, 4, 16))):
            opened = server.open(model, lease, layout=layout)
            assert opened["stand_in"] is True
            assert "stand-in" in opened["library_version"]
            (spec,) = opened["outputs"]
            assert (tuple(spec["shape"]), spec["scale"], spec["zero_point"]) == (shape, 0.5, 3)
            answer = server.infer(f"/v2/models/{opened['session']}/infer", model.picture)
            (output,) = outputs_of(answer).values()
            assert output.dtype == np.int8
            if layout == "native":
                blocks = output.transpose(0, 1, 4, 2, 3).reshape(1, 32, 4, 4)[:, :20]
                np.testing.assert_array_equal(blocks, model.output)
            else:
                np.testing.assert_array_equal(output, model.output)
        # One process holds both: they share the weights.
        assert len(server.board._processes) == 1
        told = server.client.get(f"/v2/models/{opened['session']}").json()
        assert told["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 3]}]


def test_time_layers_and_memory(server: Served, model: Model) -> None:
    slow = small_model(7, delay_us=3000)
    server.send(slow)
    with server.lease() as lease:
        session = server.open(slow, lease, profile=True)["session"]
        path = f"/rkzoo/v1/sessions/{session}"
        timed = server.infer(f"{path}/time", slow.picture, runs=5).json()
        assert len(timed["seconds"]) == 5
        assert min(timed["seconds"]) >= 0.003
        assert timed["npu_seconds"]
        assert 0.003 <= min(timed["npu_seconds"]) <= max(timed["seconds"])
        layers = server.client.get(f"{path}/layers").json()
        assert layers == {"text": "stand-in: no layers were computed\n"}
        memory = server.client.get(f"{path}/memory").json()
        assert memory["weights"] == 3_000_000
        # The session is as it was: the stand-in, too, cannot duplicate one that was asked.
        server.open(slow, lease, profile=True)
        assert server.infer(f"/v2/models/{session}/infer", slow.picture).status_code == 200
        for runs in (0, 10_001, "3", True, 1.5):
            assert server.infer(f"{path}/time", slow.picture, runs=runs).status_code == 400
        plain = server.open(model, lease)["session"]
        answer = server.client.get(f"/rkzoo/v1/sessions/{plain}/layers")
        assert answer.status_code == 400
        assert "without collecting them" in answer.json()["why"]


def test_a_library_that_dies_costs_its_sessions_only(server: Served, model: Model) -> None:
    slow, other = small_model(1, delay_us=700_000), small_model(2)
    server.send(slow)
    server.send(other)
    answers: list[httpx.Response] = []
    with server.lease() as lease, server.lease() as second:
        doomed = server.open(slow, lease)["session"]
        beside = server.open(other, lease)["session"]
        elsewhere = server.open(model, second)["session"]

        def ask() -> None:
            with server.new_client() as own:
                answers.append(server.infer(f"/v2/models/{doomed}/infer", slow.picture, own))

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: server.board._sessions[doomed].waiting == 1)
        worker = server.board._sessions[doomed].process.worker
        os.kill(worker.pid, signal.SIGSEGV)
        thread.join(10)
        assert [answer.status_code for answer in answers] == [502]
        problem = answers[0].json()
        assert problem["what"] == "The process that ran small.rknn ended."
        assert "SIGSEGV" in problem["why"]
        for session, whose in ((beside, other), (elsewhere, model)):
            found = outputs_of(server.infer(f"/v2/models/{session}/infer", whose.picture))
            np.testing.assert_array_equal(next(iter(found.values())).shape, (1, 2, 4, 4, 16))
        # The same client opens it again.
        assert server.infer(f"/v2/models/{doomed}/infer", slow.picture).status_code == 502
        again = server.open(slow, lease)["session"]
        assert server.infer(f"/v2/models/{again}/infer", slow.picture).status_code == 200


def test_what_the_library_says_when_it_fails(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small_model(6)
    broken = Model(whole.data + b"\0" * 16, whole.picture, whole.output)
    server.send(broken)
    with server.lease() as lease:
        body = {"sha256": broken.sha256, "name": "broken.rknn"}
        answer = server.client.post("/rkzoo/v1/sessions", json=body, headers=lease)
        assert answer.status_code == 400
        assert answer.json()["what"].startswith("broken.rknn")
        assert "this is no recording" in answer.json()["why"]
        # And in the middle.
        monkeypatch.setenv("STANDIN_FAIL", "run:2:-1")
        good = small_model(3)
        server.send(good)
        session = server.open(good, lease)["session"]
        assert server.infer(f"/v2/models/{session}/infer", good.picture).status_code == 200
        answer = server.infer(f"/v2/models/{session}/infer", good.picture)
        assert answer.status_code == 400
        assert "The driver did not finish the job" in answer.json()["why"]
        assert server.infer(f"/v2/models/{session}/infer", good.picture).status_code == 200


@pytest.mark.parametrize("where", ["init", "run"])
def test_the_last_line_of_a_library_that_ends_its_process(
    server: Served, model: Model, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("STANDIN_FAIL", f"{where}:1:-134")
    with server.lease() as lease:
        if where == "init":
            body = {"sha256": model.sha256, "name": "small.rknn"}
            answer = server.client.post("/rkzoo/v1/sessions", json=body, headers=lease)
        else:
            session = server.open(model, lease)["session"]
            answer = server.infer(f"/v2/models/{session}/infer", model.picture)
        assert answer.status_code == 502
        why = answer.json()["why"]
        assert "SIGABRT" in why
        assert f"{where} was told to fail with -134" in why


def test_calls_of_a_session_take_turns_up_to_a_limit(server: Served) -> None:
    slow = small_model(9, delay_us=150_000)
    server.send(slow)
    statuses: list[int] = []
    with server.lease() as lease:
        path = f"/v2/models/{server.open(slow, lease)['session']}/infer"

        def ask() -> None:
            with server.new_client() as own:
                statuses.append(server.infer(path, slow.picture, own).status_code)

        threads = [threading.Thread(target=ask) for _ in range(MOST_WAITING + 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses.count(200) >= MOST_WAITING
    assert statuses.count(503) == len(threads) - statuses.count(200)
    assert statuses.count(503) > 0


def test_two_clients_at_once(server: Served) -> None:
    """Each with a model of its own, eight requests in flight: no answer is the other's."""
    failed: list[str] = []

    def client(seed: int) -> None:
        own = small_model(seed, delay_us=1000)
        with server.new_client() as http, server.lease() as lease:
            total = len(own.data)
            half = total // 2
            for start, end in ((0, half), (half, total)):
                http.put(
                    f"/rkzoo/v1/files/{own.sha256}",
                    content=own.data[start:end],
                    headers={"Content-Range": f"bytes {start}-{end - 1}/{total}"},
                )
            sessions = [server.open(own, lease, layout="plain")["session"] for _ in range(2)]
            for number in range(20):
                path = f"/v2/models/{sessions[number % 2]}/infer"
                found = outputs_of(server.infer(path, own.picture, http))
                if not np.array_equal(next(iter(found.values())), own.output):
                    failed.append(f"{seed}, {number}")

    threads = [threading.Thread(target=client, args=(seed,)) for seed in (10, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_lease_that_is_cut_gives_everything_back(server: Served, model: Model) -> None:
    with server.lease() as lease:
        session = server.open(model, lease)["session"]
        pid = server.board._sessions[session].process.worker.pid
        folder = server.board._sessions[session].process.file.parent
        assert folder.is_dir()
    until(lambda: not server.board._sessions)
    until(lambda: not Path(f"/proc/{pid}").exists())
    until(lambda: not folder.exists())
    assert server.infer(f"/v2/models/{session}/infer", model.picture).status_code == 404
    answer = server.client.post(
        "/rkzoo/v1/sessions", json={"sha256": model.sha256, "name": "x"}, headers=lease
    )
    assert answer.status_code == 410
    assert "lease has ended" in answer.json()["what"]


def test_a_lease_is_cut_while_its_session_works(server: Served) -> None:
    slow = small_model(4, delay_us=700_000)
    server.send(slow)
    answers: list[httpx.Response] = []
    with server.lease() as lease:
        session = server.open(slow, lease)["session"]

        def ask() -> None:
            with server.new_client() as own:
                answers.append(server.infer(f"/v2/models/{session}/infer", slow.picture, own))

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: server.board._sessions[session].waiting == 1)
    thread.join(15)
    assert [answer.status_code for answer in answers] in ([502], [200])
    until(lambda: not server.board._processes)


def test_a_lease_beats_as_long_as_it_is_read(server: Served) -> None:
    with server.new_client() as own, own.stream("POST", "/rkzoo/v1/leases") as lines:
        told = lines.iter_lines()
        assert set(json.loads(next(told))) == {"lease"}
        assert json.loads(next(told)) == {}
        assert own.timeout.read is not None
        assert own.timeout.read > BEAT


def test_a_session_is_closed_by_its_client(server: Served, model: Model) -> None:
    with server.lease() as lease:
        first, second = (server.open(model, lease)["session"] for _ in range(2))
        assert server.client.delete(f"/rkzoo/v1/sessions/{first}").status_code == 200
        assert server.client.delete(f"/rkzoo/v1/sessions/{first}").status_code == 404
        assert server.infer(f"/v2/models/{second}/infer", model.picture).status_code == 200
        assert server.client.delete(f"/rkzoo/v1/sessions/{second}").status_code == 200
        # Its process waits for another file of this client, and holds nothing meanwhile.
        assert not server.board._processes
        (waiting,) = server.board._idle.values()
        other = small_model(8)
        server.send(other)
        third = server.open(other, lease)["session"]
        assert server.board._sessions[third].process.worker is waiting
        assert server.infer(f"/v2/models/{third}/infer", other.picture).status_code == 200
        assert not server.board._idle


def test_a_file_goes_on_after_a_cut(server: Served) -> None:
    big = small_model(5)
    path, total = f"/rkzoo/v1/files/{big.sha256}", len(big.data)

    def put(start: int, end: int, data: bytes = big.data) -> httpx.Response:
        head = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
        return server.client.put(path, content=data[start:end], headers=head)

    assert server.client.get(path).json() == {
        "sha256": big.sha256,
        "size": 0,
        "complete": False,
    }
    assert put(0, 100).json()["size"] == 100
    answer = put(200, 300)
    assert answer.status_code == 409
    assert "100 bytes are there" in answer.json()["why"]
    assert put(50, 200).json()["size"] == 200
    wrong = big.data[:-1] + bytes([big.data[-1] ^ 1])
    answer = put(200, total, wrong)
    assert answer.status_code == 422
    assert server.client.get(path).json()["size"] == 0
    assert put(0, total).json() == {"sha256": big.sha256, "size": total, "complete": True}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/rkzoo/v1/files/..%2f..%2fetc%2fpasswd", b"", 404),
        ("GET", "/rkzoo/v1/files/abc", b"", 400),
        ("GET", f"/rkzoo/v1/files/{'A' * 64}", b"", 400),
        ("PUT", f"/rkzoo/v1/files/{'a' * 64}", b"x", 400),
        ("POST", "/rkzoo/v1/sessions", b"", 400),
        ("POST", "/rkzoo/v1/sessions", b"[" * 100_000, 400),
        ("POST", "/rkzoo/v1/sessions", b'{"sha256": 3}', 400),
        ("POST", "/rkzoo/v1/sessions", b'{"sha256": "a", "name": "x", "layout": "odd"}', 400),
        ("POST", "/rkzoo/v1/sessions", b'{"sha256": "a", "name": "x"}', 410),
        ("POST", "/rkzoo/v1/clocks", b'{"action": "burn"}', 400),
        ("POST", "/rkzoo/v1/clocks", b'{"action": "hold"}', 410),
        ("DELETE", "/rkzoo/v1/sessions/session-0", b"", 404),
        ("POST", "/rkzoo/v1/sessions/session-0/time", b"{}", 400),
        ("POST", "/v2/models/session-0/infer", b"{}", 404),
        ("GET", "/rkzoo/v1/doctor?file=zz", b"", 400),
        ("GET", f"/rkzoo/v1/doctor?file={'a' * 64}", b"", 400),
        ("DELETE", "/rkzoo/v1/hello", b"", 405),
        ("GET", "/rkzoo/v1/nothing", b"", 404),
    ],
)
def test_rubbish_is_refused_in_a_sentence(
    server: Served, method: str, path: str, body: bytes, status: int
) -> None:
    answer = server.client.request(method, path, content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert "Traceback" not in answer.text


def test_wrong_tensors_and_sessions(server: Served, model: Model) -> None:
    with server.lease() as lease:
        session = server.open(model, lease)["session"]
        path = f"/v2/models/{session}/infer"
        small = server.infer(path, model.picture[:, :4])
        assert (small.status_code, "images" in small.json()["what"]) == (400, True)
        body, head = request_body(model.picture)
        for data, headers in ((body[:-1], head), (body, {}), (b"", {}), (body + b"x", head)):
            assert server.client.post(path, content=data, headers=headers).status_code == 400
        for asked in ({"cores": -1}, {"cores": 1 << 20}, {"floats": "yes"}):
            answer = server.client.post(
                "/rkzoo/v1/sessions",
                json={"sha256": model.sha256, "name": "x", **asked},
                headers=lease,
            )
            assert answer.status_code == 400, asked
        missing = {"sha256": hashlib.sha256(b"").hexdigest(), "name": "x"}
        answer = server.client.post("/rkzoo/v1/sessions", json=missing, headers=lease)
        assert (answer.status_code, answer.json()["fix"]) == (400, "Send it first.")
        assert server.infer(path, model.picture).status_code == 200


def test_names_of_files_stay_in_their_folder(server: Served, model: Model) -> None:
    names = ("../../../x.rknn", "/etc/passwd", "..", ".", "", "a\0b\n.rknn", "x" * 5000)
    for name in names:
        with server.board._named(model.sha256, name) as file:
            assert file.parent.name.startswith("rkzoo-")
            assert [path.name for path in file.parent.iterdir()] == [file.name]
            assert file.read_bytes() == model.data


def test_doctor_and_capture_are_those_of_the_board(
    server: Served, model: Model, tmp_path: Path
) -> None:
    told = server.client.get("/rkzoo/v1/doctor").json()
    assert told["place"] == "board"
    assert told["machine"]["chip"] == "rk3588"
    asked = {"file": model.sha256, "name": "yolo.rknn"}
    told = server.client.get("/rkzoo/v1/doctor", params=asked).json()
    assert any(finding["text"].startswith("yolo.rknn") for finding in told["findings"])
    data = server.client.get("/rkzoo/v1/capture").content
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert "proc/device-tree/compatible" in tar.getnames()


def test_clocks_are_held_until_the_last_lease_ends(server: Served) -> None:
    def governor() -> str:
        place = server.board._root / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
        return str(place.read_text().strip())

    def set_clocks(lease: dict[str, str], **asked: Any) -> dict[str, Any]:
        answer = server.client.post("/rkzoo/v1/clocks", json=asked, headers=lease)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    before = governor()
    assert before != "performance"
    planned = set_clocks({}, action="lock")
    assert planned["writes"]
    assert not planned["applied"]
    assert governor() == before
    with server.lease() as first:
        with server.lease() as second:
            assert set_clocks(first, action="hold")["writes"] == planned["writes"]
            assert set_clocks(second, action="hold")["writes"] == []
            assert governor() == "performance"
        until(lambda: len(server.board.leases) == 1)
        assert governor() == "performance"  # the first still has them
    until(lambda: governor() == before)
    with server.lease() as first:
        set_clocks(first, action="hold")
        set_clocks(first, action="release")
        assert governor() == before


def test_the_servers_end_gives_everything_back(
    server: Served, model: Model, tmp_path: Path
) -> None:
    with board_server(tmp_path, server.board._root) as other, other.lease() as lease:
        other.client.post("/rkzoo/v1/clocks", json={"action": "hold"}, headers=lease)
        session = other.open(model, lease)["session"]
        pid = other.board._sessions[session].process.worker.pid
        other.board.close()
        assert not Path(f"/proc/{pid}").exists()
        assert other.client.post("/rkzoo/v1/leases").status_code == 400
    governor = server.board._root / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    assert governor.read_text().strip() != "performance"


def test_rkzoo_serve_as_a_board_until_its_stdin_closes(
    server: Served, model: Model, tmp_path: Path
) -> None:
    """The command that runs behind ssh: one line when it listens, and nothing left at its end."""
    socket = tmp_path / "own.sock"
    command = [sys.executable, "-m", "rkzoo", "serve", "--board", "--until-stdin-closes"]
    with subprocess.Popen(
        [*command, "--socket", str(socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["addresses"], ready["protocol"]) == ([f"unix:{socket}"], VERSION)
        other = Served(server.board, socket, server.client)
        with other.new_client() as client, other.lease() as lease:
            body = {"sha256": model.sha256, "name": "small.rknn"}
            told = client.post("/rkzoo/v1/sessions", json=body, headers=lease).json()
            path = f"/v2/models/{told['session']}/infer"
            assert outputs_of(server.infer(path, model.picture, client))
            tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
            children = [child for task in tasks for child in task.read_text().split()]
            began = time.monotonic()
            process.stdin.close()  # the cable is cut, while the lease is held
            assert process.wait(15) == 0
            assert time.monotonic() - began < 5
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not socket.exists()
