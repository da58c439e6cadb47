"""The real server of a board in a thread, with the stand-in for Rockchip's library, and a client of
another make (httpx)."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn

from graph.rknn_writer import Sample
from npu_standin.recording import In, Out, Recording
from rkzoo.protocol.tensors import HEADER_LENGTH
from rkzoo.serving import oip
from rkzoo.serving.app import Access, application
from rkzoo.serving.board import Board
from rkzoo.serving.board_api import BoardApi
from rkzoo.serving.engine import Engine
from rkzoo.session import Array


@dataclass(frozen=True)
class Model:
    """A .rknn for the stand-in: a picture in, one integer output in the NPU's blocks."""

    data: bytes
    picture: Array
    output: Array

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def small_model(seed: int = 0, delay_us: int = 0) -> Model:
    random = np.random.default_rng(seed)
    picture = random.integers(0, 256, (1, 8, 8, 3), np.uint8)
    output = random.integers(-128, 128, (1, 20, 4, 4)).astype(np.int8)
    recording = Recording(
        (In("images", picture.shape, w_stride=16),),
        [Out("out", output.shape, "int8", 0.5, 3)],
        delay_us=delay_us,
    )
    recording.answer([picture], [output])
    return Model(recording.bytes(Sample().write()), picture, output)


@dataclass
class Served:
    """A server that runs. `client` speaks to it over a Unix socket; `address` is for --on."""

    board: Board
    socket: Path
    client: httpx.Client
    address: str = ""

    def new_client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://localhost", timeout=30)

    @contextmanager
    def lease(self) -> Iterator[dict[str, str]]:
        """A lease, as the header that names it; its connection is cut at the end."""
        with self.new_client() as own, own.stream("POST", "/rkzoo/v1/leases") as lines:
            told = lines.iter_lines()  # kept, since httpx closes what is not read any more
            yield {"Rkzoo-Lease": json.loads(next(told))["lease"]}

    def send(self, model: Model) -> None:
        total = len(model.data)
        answer = self.client.put(
            f"/rkzoo/v1/files/{model.sha256}",
            content=model.data,
            headers={"Content-Range": f"bytes 0-{total - 1}/{total}"},
        )
        assert answer.json()["complete"], answer.text

    def open(self, model: Model, lease: dict[str, str], **asked: Any) -> dict[str, Any]:
        body = {"sha256": model.sha256, "name": "small.rknn", **asked}
        answer = self.client.post("/rkzoo/v1/sessions", json=body, headers=lease)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def infer(
        self, path: str, picture: Array, client: httpx.Client | None = None, **parameters: Any
    ) -> httpx.Response:
        body, headers = request_body(picture, **parameters)
        return (client or self.client).post(path, content=body, headers=headers)


def request_body(picture: Array, **parameters: Any) -> tuple[bytes, dict[str, str]]:
    """A request of the Open Inference Protocol, written by hand."""
    data = picture.tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "images",
                    "shape": list(picture.shape),
                    "datatype": "UINT8",
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "parameters": {"binary_data_output": True, **parameters},
        }
    ).encode()
    return head + data, {HEADER_LENGTH: str(len(head))}


def outputs_of(answer: httpx.Response) -> dict[str, Array]:
    """Tensors of a binary answer, read by hand."""
    assert answer.status_code == 200, answer.text
    size = int(answer.headers[HEADER_LENGTH])
    head, rest = json.loads(answer.content[:size]), answer.content[size:]
    kinds = {"INT8": np.int8, "FP32": np.float32, "INT32": np.int32, "UINT8": np.uint8}
    arrays = {}
    for tensor in head["outputs"]:
        count = tensor["parameters"]["binary_data_size"]
        array = np.frombuffer(rest[:count], kinds[tensor["datatype"]])
        arrays[tensor["name"]] = array.reshape(tensor["shape"])
        rest = rest[count:]
    assert not rest
    return arrays


@contextmanager
def board_server(folder: Path, root: Path = Path("/")) -> Iterator[Served]:
    """A server of this machine, or of a tree below `root`, as a board."""
    board, engine = Board(root), Engine()
    api = BoardApi(board, engine)
    path = folder / "board.sock"
    config = uvicorn.Config(
        application([*api.routes(), *oip.routes(engine)], Access()),
        log_level="error",
        lifespan="off",
    )
    server = uvicorn.Server(config)
    own = socket.socket(socket.AF_UNIX)
    own.bind(str(path))
    tcp = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{tcp.getsockname()[1]}"
    thread = threading.Thread(target=server.run, args=([own, tcp],), daemon=True)
    thread.start()
    until(lambda: server.started)
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
        try:
            yield Served(board, path, client, address)
        finally:
            board.close()
            server.should_exit = True
            server.force_exit = True
            thread.join(10)


def until(true: Any, seconds: float = 10.0) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become so in time"
        time.sleep(0.02)
