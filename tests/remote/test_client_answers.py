"""What a board answers is not trusted: each rubbish answer is one error in a sentence."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.protocol.board import Opened
from rkzoo.remote import client as client_room
from rkzoo.remote.client import Client, ConnectionLost
from rkzoo.remote.connection import Endpoint
from rkzoo.remote.session import RemoteSession


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def saying(place: Path, *answers: bytes) -> Iterator[Client]:
    """A client of a server that answers each connection with the next of these, and closes."""
    path = str(place / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            with suppress(OSError):  # nobody came for the rest
                for data in answers:
                    near, _ = server.accept()
                    with near:
                        near.recv(1 << 16)
                        near.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        client = Client(Endpoint("the board", socket=path))
        yield client
        client.close()
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def infer_answer(outputs: list[dict[str, Any]], data: bytes = b"", header: str = "") -> bytes:
    head = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    length = header or str(len(head))
    return answer(head + data, "200 OK", f"Inference-Header-Content-Length: {length}")


TENSOR = {
    "name": "y",
    "shape": [1, 3],
    "datatype": "INT8",
    "parameters": {"binary_data_size": 3},
}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (infer_answer([TENSOR], b"abc", header="-1"), "cannot be read"),
        (infer_answer([TENSOR], b"abc", header="99999"), "cannot be read"),
        (infer_answer([TENSOR], b"ab"), "3 bytes, and 2 follow"),
        (infer_answer([TENSOR], b"abcd"), "belong to no tensor"),
        (infer_answer([TENSOR | {"shape": [3]}], b"abc"), "was announced as int8"),
        (infer_answer([TENSOR | {"datatype": "UINT8"}], b"abc"), "was announced as int8"),
        (infer_answer([TENSOR | {"name": "z"}], b"abc"), "is none, and was announced"),
        (infer_answer([TENSOR | {"datatype": "BYTES"}], b"abc"), "BYTES"),
        (answer(b"\xff{"), "cannot be read"),
        (answer(b"[]", "500 No"), "does not do that. It answers 500 No"),
        (answer(b'{"error": "\\u001b[31mred", "log": "a\\nlast\\n"}', "400 x"), "red"),
        (answer(b'{"error": "bad", "log": "a\\nlast\\n"}', "400 x"), "The last line there: last"),
        (answer(b"{}", "302 Found", "Location: http://elsewhere/"), "cannot be read"),
    ],
)
def test_rubbish_is_an_error(tmp_path: Path, data: bytes, words: str) -> None:
    spec = TensorSpec(name="x", shape=(1, 2), dtype="float32")
    out = TensorSpec(name="y", shape=(1, 3), dtype="int8")
    opened = Opened("s", (spec,), (out,), "", "", "", False)
    with saying(tmp_path, data, b"", b"") as client:
        session = RemoteSession(client, opened, "m")
        with pytest.raises(RkzooError) as caught:
            session.run([np.zeros((1, 2), np.float32)])
        session._closed = True
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_answer_that_is_right(tmp_path: Path) -> None:
    """So that the ones above fail for what they say."""
    out = TensorSpec(name="y", shape=(1, 3), dtype="int8")
    with saying(tmp_path, infer_answer([TENSOR], b"\x01\x02\xff")) as client:
        session = RemoteSession(client, Opened("s", (), (out,), "", "", "", False), "m")
        assert session.run([])[0].tolist() == [[1, 2, -1]]
        session._closed = True


def test_an_answer_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_room, "_MOST_BYTES", 100)
    with (
        saying(tmp_path, answer(b" " * 101)) as client,
        pytest.raises(RkzooError, match="more than 100 bytes"),
    ):
        client.capture()


@pytest.mark.parametrize("data", [b"", answer(b"{}    ")[:-4], b"rubbish\r\n"])
def test_what_ends_early_is_a_cut(tmp_path: Path, data: bytes) -> None:
    """After three tries, as nothing changes by asking twice."""
    with saying(tmp_path, data, data, data) as client, pytest.raises(ConnectionLost):
        client.hello()


def test_a_silent_board_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_room, "_LONG_SECONDS", 0.3)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        client = Client(Endpoint("the board", socket=path))
        with pytest.raises(ConnectionLost, match="does not answer"):
            client.capture()
