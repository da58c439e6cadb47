"""A board's server in the standard library alone, which speaks the protocol by code of its own:
what the PC's side is tested against. The NPU behind it is the stand-in of tests/npu_standin.

Run as `python fake_board.py serve --board --socket PATH --until-stdin-closes`. FAKE_BOARD names, as
JSON, what it does wrong; FAKE_BOARD_LOG a file that each call adds a line to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import numpy as np

from rkzoo.errors import RkzooError
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import Cores
from rkzoo.runtime.npu_context import Context, NpuLibrary

FAULTS: dict[str, Any] = json.loads(os.environ.get("FAKE_BOARD", "{}"))
LIBRARY = os.environ.get("RKZOO_LIBRKNNRT", "")
HELLO = {
    "rkzoo": "9.9",
    "protocol": 1,
    "python": "3.11.2",
    "machine": "aarch64",
    "kernel": "6.1",
    "board": "A board of tests",
    "chip": "rk3588",
    "npu_cores": 3,
    "driver": "0.9.8",
    "library": LIBRARY,
    "libraries": [{"path": LIBRARY, "name": "librknnrt.so", "version": "2.3.2", "fault": ""}],
    "memory_free": 4 << 30,
    "memory_total": 8 << 30,
}
DTYPES = {"INT8": "i1", "UINT8": "u1", "FP16": "f2", "FP32": "f4", "INT32": "i4", "INT64": "i8"}
NAMES = {"int8": "INT8", "uint8": "UINT8", "float16": "FP16", "float32": "FP32", "int64": "INT64"}


class Wrong(Exception):
    def __init__(self, status: int, **problem: Any) -> None:
        self.status, self.problem = status, {"error": "wrong", **problem}


class Board:
    """What was sent and is open."""

    def __init__(self) -> None:
        self.folder = Path(os.environ.get("FAKE_BOARD_FILES") or mkdtemp(prefix="fake-board-"))
        self.sessions: dict[str, tuple[str, NpuSession]] = {}
        self.leases: set[str] = set()
        self.lock = threading.Lock()
        self.count = 0

    def next(self) -> str:
        self.count += 1
        return str(self.count)

    def stored(self, sha256: str) -> dict[str, Any]:
        part, whole = self.folder / f"{sha256}.part", self.folder / sha256
        file = whole if whole.exists() else part
        size = file.stat().st_size if file.exists() else 0
        return {"sha256": sha256, "size": size, "complete": whole.exists()}

    def put(self, sha256: str, where: str, data: bytes) -> dict[str, Any]:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", where)
        assert match, where
        start, end, size = map(int, match.groups())
        assert end - start + 1 == len(data) <= 4 << 20
        part = self.folder / f"{sha256}.part"
        with part.open("ab") as file:
            assert file.tell() == start, "a piece that does not follow"
            file.write(data)
        if end + 1 == size:
            assert hashlib.sha256(part.read_bytes()).hexdigest() == sha256
            part.rename(self.folder / sha256)
        return self.stored(sha256)

    def open(self, lease: str, asked: dict[str, Any]) -> dict[str, Any]:
        if lease not in self.leases:
            raise Wrong(409, what="The lease has ended.")
        file = self.folder / asked["sha256"]
        library = NpuLibrary(LIBRARY)
        context = Context.open(library, file)
        if asked["cores"]:
            context.set_cores(Cores(asked["cores"]))
        session = NpuSession(
            context, layout=asked["layout"], floats=asked["floats"], picture=asked["picture"]
        )
        name = f"session-{self.next()}"
        self.sessions[name] = (lease, session)
        return {
            "session": name,
            "inputs": msgspec.to_builtins(session.inputs),
            "outputs": msgspec.to_builtins(session.outputs),
            "library": LIBRARY,
            "library_version": "2.3.2",
            "driver": "0.9.8",
            "stand_in": True,
            "notes": FAULTS.get("notes", []),
        }

    def give_back(self, lease: str) -> None:
        with self.lock:
            self.leases.discard(lease)
            for name in [name for name, (owner, _) in self.sessions.items() if owner == lease]:
                self.sessions.pop(name)[1].close()

    def session(self, name: str) -> NpuSession:
        if name not in self.sessions:
            raise Wrong(404, what="There is no such session.")
        return self.sessions[name][1]


BOARD = Board()


def split(body: bytes, header: str | None) -> tuple[dict[str, Any], list[np.ndarray]]:
    """An infer request taken apart, by the text of the specification."""
    size = int(header or len(body))
    request = json.loads(body[:size])
    arrays, place = [], size
    for tensor in request["inputs"]:
        length = tensor["parameters"]["binary_data_size"]
        data = np.frombuffer(body[place : place + length], "<" + DTYPES[tensor["datatype"]])
        arrays.append(data.reshape(tensor["shape"]))
        place += length
    assert place == len(body)
    assert request["parameters"]["binary_data_output"] is True
    return request, arrays


def joined(model: str, named: list[tuple[str, np.ndarray]]) -> tuple[bytes, int]:
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": NAMES[str(array.dtype)],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in named
    ]
    head = json.dumps({"model_name": model, "outputs": tensors}).encode()
    return head + b"".join(array.tobytes() for _, array in named), len(head)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        if place := os.environ.get("FAKE_BOARD_LOG"):
            with open(place, "a") as file:
                file.write(f"{self.command} {self.path} {self.headers.get('Content-Range', '')}\n")

    def address_string(self) -> str:
        return "local"

    def answer(self, data: bytes, status: int = 200, header: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if header is not None:
            self.send_header("Inference-Header-Content-Length", str(header))
        self.end_headers()
        self.wfile.write(data)

    def json(self, document: Any, status: int = 200) -> None:
        self.answer(json.dumps(document).encode(), status)

    def handle_call(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if (token := FAULTS.get("token")) and self.headers["Authorization"] != f"Bearer {token}":
            return self.json({"error": "no token", "what": "The token is missing."}, 401)
        path = self.path.removeprefix("/rkzoo/v1").split("?")[0]
        for fault in ("cut", "die"):
            if (at := FAULTS.get(fault)) and f"{self.command} {path}".startswith(at):
                FAULTS.pop(fault)
                if fault == "die":
                    said = FAULTS.get("says", "the fake board dies here")
                    print(said, FAULTS.get("then", ""), sep="\n", file=sys.stderr, flush=True)
                    os._exit(3)
                self.close_connection = True
                self.connection.close()
                return None
        try:
            self.route(path, body)
        except Wrong as wrong:
            self.json(wrong.problem, wrong.status)
        except RkzooError as error:
            self.json({"error": str(error), **error.to_json(), "log": "RKNN: the last line"}, 500)
        return None

    do_GET = do_POST = do_PUT = do_DELETE = handle_call  # noqa: N815

    def route(self, path: str, body: bytes) -> None:
        lease = self.headers.get("Rkzoo-Lease", "")
        word = path.split("/")
        if path == "/hello":
            self.json(HELLO | FAULTS.get("hello", {}))
        elif path == "/leases":
            self.lease()
        elif word[1] == "files" and self.command == "GET":
            self.json(BOARD.stored(word[2]))
        elif word[1] == "files" and (full := FAULTS.get("full")):
            raise Wrong(507, what="There is no room.", why="1 MB is free.", fix=full)
        elif word[1] == "files":
            self.json(BOARD.put(word[2], self.headers["Content-Range"], body))
        elif path == "/sessions":
            with BOARD.lock:
                self.json(BOARD.open(lease, json.loads(body)))
        elif word[1] == "sessions" and self.command == "DELETE":
            with BOARD.lock:
                BOARD.session(word[2])
                BOARD.sessions.pop(word[2])[1].close()
            self.json({})
        elif word[1] == "sessions" and word[3] == "time":
            self.time(word[2], body)
        elif self.path.startswith("/v2/models/"):
            self.infer(self.path.split("/")[3], body)
        else:
            raise Wrong(404)

    def lease(self) -> None:
        name = f"lease-{BOARD.next()}"
        BOARD.leases.add(name)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        line = json.dumps({"lease": name})
        try:
            while True:
                data = f"{line}\n".encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
                line = "{}"
                time.sleep(0.05)
        except OSError:
            pass
        finally:
            self.close_connection = True
            BOARD.give_back(name)

    def infer(self, name: str, body: bytes) -> None:
        _, arrays = split(body, self.headers["Inference-Header-Content-Length"])
        with BOARD.lock:
            session = BOARD.session(name)
            named: list[tuple[str, np.ndarray]] = [
                (spec.name, array.copy())
                for spec, array in zip(session.outputs, session.run(arrays), strict=True)
            ]
        data, head = joined(name, named)
        self.answer(data, header=head)

    def time(self, name: str, body: bytes) -> None:
        request, arrays = split(body, self.headers["Inference-Header-Content-Length"])
        seconds = []
        with BOARD.lock:
            for _ in range(request["parameters"]["runs"]):
                start = time.perf_counter()
                BOARD.session(name).run(arrays)
                seconds.append(time.perf_counter() - start)
        self.json({"seconds": seconds, "npu_seconds": []})


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main(arguments: list[str], tell: Callable[[str], None] = print) -> int:
    assert arguments[:3] == ["serve", "--board", "--socket"], arguments
    assert arguments[4:] == ["--until-stdin-closes"]
    socket = arguments[3]
    assert os.stat(os.path.dirname(socket)).st_mode & 0o777 == 0o700
    with Server(socket, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if FAULTS.get("noise"):
            tell("Welcome to a shell that talks\n{}")
        ready = {"addresses": [f"unix:{socket}"], "pid": os.getpid(), "rkzoo": "9.9", "protocol": 1}
        if not FAULTS.get("mute"):
            tell(json.dumps(ready | FAULTS.get("ready", {})))
        sys.stdout.flush()
        while sys.stdin.read(1):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
