"""Where a server listens, to whom it answers, and how it ends; asked by raw sockets and by Python's
own client."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from npu_standin import build
from rkzoo.errors import RkzooError
from rkzoo.serving import http_limits, run
from rkzoo.serving.app import Answer
from rkzoo.serving.engine import Engine, Limits, Reply
from rkzoo.serving.errors import ServingError
from rkzoo.serving.run import Settings, check
from rkzoo.workflow.inference.board import LIBRARY
from serving.npu_models import classifier, picture
from serving.processes import children
from serving.server import Server, serving

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LIBRARY, str(build.compiled(tmp_path_factory.mktemp("standin"))))
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("models") / "tiny.rknn", ms=100)


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[Server]:
    with serving(str(tiny), "--workers", "1") as server:
        yield server


# ---- who may ask --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "127.9.9.9"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "192.168.1.5"}, 403),
        ({"Host": "localhost.evil.example:80"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:80", "Origin": "http://localhost:81"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost.evil.example"}, 403),
    ],
)
def test_pages_of_other_sites_are_refused(
    server: Server, headers: dict[str, str], status: int
) -> None:
    assert server.ask("/v2", headers=headers)[0] == status


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods(server: Server, method: str) -> None:
    status, headers, body = server.ask("/v2", method=method)
    if method == "HEAD":
        assert (status, body) == (200, b"")
    else:
        assert status == 405
        assert "GET" in headers["allow"]
        assert json.loads(body)["error"]
    assert "access-control-allow-origin" not in headers


def test_a_path_that_is_not_there(server: Server) -> None:
    status, _, body = server.ask("/nothing")
    assert status == 404
    assert json.loads(body)["error"] == "There is nothing at /nothing."


@pytest.fixture(scope="module")
def guarded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a token and TLS."""
    folder = tmp_path_factory.mktemp("tls")
    try:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
            ],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    (folder / "token").write_text(f"{TOKEN}\n")
    words = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    token = ("--token-file", str(folder / "token"))
    with serving(str(tiny), "--workers", "1", *words, *token, loaded=False) as server:
        server.ready["certificate"] = str(folder / "cert.pem")
        yield server


def ask_guarded(server: Server, path: str, **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers, over TLS with the certificate checked."""
    context = ssl.create_default_context(cafile=server.ready["certificate"])
    parts = urlsplit(server.url)
    assert parts.hostname
    client = http.client.HTTPSConnection(parts.hostname, parts.port, context=context, timeout=20)
    try:
        client.request("GET", path, headers=headers)
        answer = client.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        client.close()


def test_a_token_is_asked_for(guarded: Server) -> None:
    assert guarded.url.startswith("https://")
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert ask_guarded(guarded, "/v2", **right)[0] == 200
    assert ask_guarded(guarded, "/v2/health/live")[0] == 200
    wrong = [f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", f"bearer{TOKEN}", TOKEN]
    wrong += [f"Basic {TOKEN}", "Bearer \xff\xfe", f"Bearer {TOKEN} {TOKEN}"]
    for value in wrong:
        status, headers = ask_guarded(guarded, "/v2", Authorization=value)
        assert (status, headers["www-authenticate"]) == (401, "Bearer"), value
    for path in ("/v2", "/v2/models/tiny", "/metrics", "/v2/health/live/..", "/v2/health/live/"):
        assert ask_guarded(guarded, path)[0] == 401, path
    # The token is in nothing that the server says.
    assert not [line for line in guarded.lines if TOKEN in line]


def test_plain_http_at_a_tls_port_costs_nothing(guarded: Server) -> None:
    parts = urlsplit(guarded.url)
    with socket.create_connection((parts.hostname, parts.port), 10) as plain:
        plain.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with suppress(ConnectionResetError):
            assert b"200" not in plain.recv(100)
    assert ask_guarded(guarded, "/v2/health/live")[0] == 200


# ---- what is held for slow readers --------------------------------------------------------


def test_an_answer_counts_until_it_is_taken() -> None:
    engine = Engine((), Limits(memory=4 << 20))

    async def body() -> None:
        taking, sizes = asyncio.Event(), []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await taking.wait()
                sizes.append(len(message["body"]))

        answer = Answer(engine, Reply(bytes(4_000_000), "application/x"))
        sending = asyncio.create_task(answer({"type": "http"}, send, send))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        with pytest.raises(ServingError), engine.admit(500_000):
            pass
        taking.set()
        await sending
        assert sum(sizes) == 4_000_000
        assert max(sizes) <= 1 << 20
        assert sizes[-1] == 0  # sent when the others were taken
        with engine.admit(500_000):
            pass

    asyncio.run(body())


def test_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "SEND_SECONDS", 0.1)

    class Transport:
        aborted = False

        def abort(self) -> None:
            self.aborted = True

    async def body() -> None:
        protocol: Any = http_limits.BoundedHttp.__new__(http_limits.BoundedHttp)
        protocol.loop, protocol.transport = asyncio.get_running_loop(), Transport()
        protocol.flow = FlowControl(protocol.transport)
        protocol.pause_writing()
        protocol.resume_writing()  # in time
        await asyncio.sleep(0.3)
        assert not protocol.transport.aborted
        protocol.pause_writing()
        await asyncio.sleep(0.3)
        assert protocol.transport.aborted

    asyncio.run(body())


# ---- where it listens ---------------------------------------------------------------------


def test_a_port_that_is_taken(server: Server, tiny: Path) -> None:
    port = str(urlsplit(server.url).port)
    done = subprocess.run(
        [sys.executable, "-m", "rkzoo", "serve", str(tiny), "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert f"cannot listen at 127.0.0.1:{port}" in done.stderr
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_for_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(RkzooError) as error, run._listening(Settings(port=80)):
        pass
    assert "127.0.0.1:80" in error.value.what
    assert "Permission denied" in error.value.why


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(RkzooError), run._listening(Settings(port=port)):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_addresses_take_a_token(host: str) -> None:
    with pytest.raises(RkzooError, match="has no token"):
        check(Settings(host=host))
    check(Settings(host=host, token=TOKEN))


def test_tls_takes_both_files(tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="certificate and its key"):
        check(Settings(certificate=tmp_path / "cert.pem"))
    with pytest.raises(RkzooError, match="TLS is not possible"):
        check(Settings(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem"))


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("text")
    with pytest.raises(RkzooError), run._listening(Settings(socket=file)):
        pass
    assert file.read_text() == "text"


def test_a_socket_of_a_dead_server_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
        with pytest.raises(RkzooError), run._listening(Settings(socket=path)):
            pass  # somebody listens
    assert path.exists()
    with run._listening(Settings(socket=path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


# ---- how it ends --------------------------------------------------------------------------


def test_it_answers_what_it_took_and_ends(tiny: Path) -> None:
    """SIGTERM with twenty requests in flight."""
    with serving(str(tiny), "--workers", "2") as server, ThreadPoolExecutor(20) as threads:
        (worker,) = children(server.process.pid)
        shot = picture()
        asked = [threads.submit(server.ask, "/v1/models/tiny:predict", shot) for _ in range(20)]
        while not any(future.done() for future in asked):
            sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        parts = urlsplit(server.url)
        refused = False
        while not refused and server.process.poll() is None:
            try:
                socket.create_connection((parts.hostname, parts.port), 1).close()
            except OSError:
                refused = True
        assert refused
        assert [future.result()[0] for future in asked] == [200] * 20
        assert server.process.wait(30) == 0
        assert not Path(f"/proc/{worker}").exists()
        assert not [line for line in server.lines if "Traceback" in line]


def test_it_ends_with_its_stdin(tiny: Path, tmp_path: Path) -> None:
    """As behind ssh: over a socket that nobody else may use, which is gone afterwards."""
    path = tmp_path / "server.sock"
    words = ("--workers", "1", "--socket", str(path), "--until-stdin-closes")
    with serving(str(tiny), *words) as server:
        assert server.ready["addresses"] == [f"unix:{path}"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert _over_socket(path, "/v2/health/live") == 200
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(30) == 0
        assert not path.exists()


def test_a_second_signal_ends_it_at_once(tiny: Path) -> None:
    with serving(str(tiny), "--workers", "1", loaded=False) as server:
        parts = urlsplit(server.url)
        # A request whose body does not come would be waited for.
        with socket.create_connection((parts.hostname, parts.port), 10) as slow:
            slow.sendall(b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: localhost\r\n")
            slow.sendall(b"Content-Length: 10\r\n\r\n")
            sleep(0.3)
            began = monotonic()
            server.process.terminate()
            sleep(0.3)
            assert server.process.poll() is None
            server.process.terminate()
            server.process.wait(15)
            assert monotonic() - began < 8


def _over_socket(path: Path, url: str) -> int:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(20)
        one.connect(str(path))
        one.sendall(f"GET {url} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        return int(one.recv(1000).split()[1])
