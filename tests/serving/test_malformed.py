"""Five hundred requests that are wrong, by a seed: each gets an error, or a closed connection where
HTTP itself is broken, and the server goes on as if nothing had been."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import pytest

from npu_standin import build
from rkzoo.protocol.tensors import HEADER_LENGTH
from rkzoo.serving.http_limits import HEAD_SECONDS, IDLE_SECONDS, MOST_BODY
from rkzoo.workflow.inference.board import LIBRARY
from serving.npu_models import SIZE, classifier, picture
from serving.processes import children, mebibytes
from serving.server import Server, serving

COUNT, SEED = 500, 16
GROWTH = 48  # MiB that both processes may differ by afterwards
SHOT = picture()
INFER = "/v2/models/tiny/infer"
PREDICT = "/v1/models/tiny:predict"
PIXELS = SIZE * SIZE * 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    library = str(build.compiled(folder))
    model = classifier(folder / "tiny.rknn")
    with serving(str(model), "--workers", "1", env={LIBRARY: library}) as server:
        yield server


# ---- asking -------------------------------------------------------------------------------


def connected(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), 30)


def exchange(server: Server, raw: bytes, patience: float = 30) -> bytes:
    """What comes back until the server closes. After `patience` seconds without a word the client
    says that nothing more comes, as one that ends."""
    answer = b""
    with connected(server) as one, suppress(ConnectionError):
        one.sendall(raw)
        one.settimeout(patience)
        while True:
            try:
                piece = one.recv(1 << 16)
            except TimeoutError:
                one.shutdown(socket.SHUT_WR)
                one.settimeout(30)
                continue
            if not piece:
                break
            answer += piece
    return answer


def status_of(answer: bytes) -> int:
    """0 where the connection was closed without an answer."""
    return int(answer.split(None, 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def posted(path: str, body: bytes, **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def got(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")


# ---- what is wrong ------------------------------------------------------------------------

Chance = random.Random


def broken_http(chance: Chance) -> bytes:
    good = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n"
    return chance.choice(
        [
            chance.randbytes(chance.randrange(1, 3000)),
            b"GET\r\n\r\n",
            b"GET /v2 HTTP/9.9\r\nHost: localhost\r\n\r\n",
            b"GE\0T /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00" + chance.randbytes(200),  # TLS
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            good + b"no colon here\r\n\r\n",
            good + b"X: a\0b\r\n\r\n",
            good + b"X y: 1\r\n\r\n",
            good + b": no name\r\n\r\n",
            good[: chance.randrange(1, len(good))],
            good + b"X: " + b"a" * chance.randrange(20_000, 400_000) + b"\r\n\r\n",
            good
            + b"".join(b"X-%d: 1\r\n" % n for n in range(chance.randrange(65, 3000)))
            + b"\r\n",
            b"GET /" + b"a" * chance.randrange(20_000, 400_000) + b" HTTP/1.1\r\n\r\n",
            b"GET " + chance.randbytes(40).replace(b"\n", b"") + b" HTTP/1.1\r\n\r\n",
        ]
    )


def broken_length(chance: Chance) -> bytes:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\n".encode()
    lengths = [b"-1", b"0x10", b"1e3", b"99999999999999999999", b"5, 5", b"", b"+5", b"five"]
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    return chance.choice(
        [
            head + b"Content-Length: " + chance.choice(lengths) + b"\r\n\r\nhello",
            head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            head + b"Content-Length: %d\r\n\r\n" % (MOST_BODY + 1),
            head + b"Content-Length: 5000\r\n\r\nshort",
            head + b"Transfer-Encoding: gzip\r\n\r\nhello",
            chunked + b"zz\r\nhello\r\n0\r\n\r\n",
            chunked + b"-5\r\nhello\r\n0\r\n\r\n",
            chunked + b"5\r\nhello!!!\r\n0\r\n\r\n",
            chunked + b"ffffffffffffffffff\r\nhello",
            chunked + b"5\r\nhello\r\n",
            chunked + b"5;" + b"x" * 70_000 + b"\r\nhello\r\n0\r\n\r\n",
            posted(PREDICT, b""),
        ]
    )


def tensor(**changed: Any) -> dict[str, Any]:
    size = {"binary_data_size": PIXELS}
    good = {"name": "images", "datatype": "UINT8", "shape": [1, SIZE, SIZE, 3], "parameters": size}
    return {name: value for name, value in (good | changed).items() if value is not ...}


def lying_tensor(chance: Chance) -> bytes:
    huge = chance.choice([1 << 31, 1 << 62, 1 << 64, 10**30])
    inputs = chance.choice(
        [
            [],
            [tensor(), tensor()],
            [tensor(name="other")],
            [tensor(name="\0" * 100)],
            [tensor(datatype=chance.choice(["FP32", "BYTES", "uint8", "", "OBJECT", "INT8"]))],
            [tensor(datatype=None)],
            [tensor(shape=chance.choice([[-1, SIZE, SIZE, 3], [0], [1], [], [1] * 33, [huge]]))],
            [tensor(shape=[1, SIZE, SIZE, chance.choice([-3, 4, 3.5, "3", None, True, huge])])],
            [tensor(shape=[SIZE, 1, SIZE, 3])],
            [
                tensor(
                    parameters={"binary_data_size": chance.choice([0, 1, -1, huge, "5", 1.5, []])}
                )
            ],
            [tensor(parameters=...)],
            [tensor(parameters=..., data=chance.choice([[], [1], [[1, 2], [3]], ["a"], {}, "x"]))],
            [tensor(parameters=..., data=[chance.choice([256, -1, 1.5, None, huge])] * PIXELS)],
            [tensor(parameters={"shared_memory_region": "/etc/passwd"})],
            [tensor() for _ in range(300)],
            {"name": "images"},
            "images",
            [7],
        ]
    )
    header = json.dumps({"inputs": inputs}).encode()
    return posted(INFER, header + bytes(PIXELS), **{HEADER_LENGTH: str(len(header))})


def lying_header(chance: Chance) -> bytes:
    header = json.dumps({"inputs": [tensor()]}).encode()
    told = chance.choice(
        ["-1", "x", "", "1e2", str(len(header) - 1), str(1 << 70), "99999999", "٣"]
    )
    told = told.encode().decode("latin-1")
    return posted(INFER, header + bytes(PIXELS), **{HEADER_LENGTH: told})


def wrong_request(chance: Chance) -> bytes:
    """Sound tensors, and something else that is wrong."""
    changed = chance.choice(
        [
            {"outputs": [{"name": "none"}]},
            {"outputs": 5},
            {"parameters": {"timeout": chance.choice([-1, "soon", True, [], 1.5])}},
            {"parameters": "x"},
            {"id": 5},
            {"id": {}},
        ]
    )
    header = json.dumps({"inputs": [tensor()]} | changed).encode()
    return posted(INFER, header + bytes(PIXELS), **{HEADER_LENGTH: str(len(header))})


def bomb(chance: Chance) -> bytes:
    depth = chance.randrange(10_000, 200_000)
    texts = [
        b"[" * depth,
        b'{"inputs":' + b"[" * depth + b"]" * depth + b"}",
        b'{"a":' * depth,
        b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1],"data":' + b"[" * depth,
        b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1],"data":'
        + b"[" * depth
        + b"]" * depth
        + b"}]}",
        b'{"inputs":[{"name":"images","datatype":"FP32","shape":[1],"data":[1e999]}]}',
        b'{"inputs":[{"name":"images","datatype":"INT64","shape":[1],"data":['
        + b"9" * depth
        + b"]}]}",
        b'{"inputs":[{"name":"images","datatype":"UINT8","shape":['
        + b"9" * depth
        + b'],"data":[]}]}',
        b'{"inputs":[{"name":"' + b"\\u0000" * depth + b'"}]}',
        b'"\xff\xfe"',
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"{} {}",
        b"",
        chance.randbytes(1000),
    ]
    path = chance.choice([INFER, PREDICT, "/v1/embeddings", "/v1/audio/speech"])
    return posted(path, chance.choice(texts), Content_Type="application/json")


def wrong_path(chance: Chance) -> bytes:
    up = chance.choice(
        ["../", "..%2f", "%2e%2e/", "..\\", "%252e%252e/", "..;/", "....//", "%c0%ae/"]
    )
    name = chance.choice(
        [
            up * 5 + "etc/passwd",
            "tiny%00",
            "tiny/versions/" + chance.choice(["2", "0", "-1", "%00", "9" * 5000, "..", "1/../1"]),
            "a" * 8000,
            "%",
            "%zz",
            "tiny.none",
            "tiny%2f..%2ftiny.rknn",
            "*",
            "TINY",
            "~root",
        ]
    )
    return chance.choice(
        [
            got(f"/v2/models/{name}"),
            posted(f"/v2/models/{name}/infer", b"{}"),
            posted(f"/v1/models/{name}:predict", SHOT),
            posted(f"/v2/repository/models/{name}/load", b"{}"),
            got(f"/{up * 6}etc/passwd"),
            got(f"/rkzoo/v1/files/{up * 6}etc/passwd"),
            posted("/rkzoo/v1/sessions", b"{}"),
        ]
    )


def multipart(chance: Chance) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    bodies = [
        b"",
        b"--b--\r\n",
        b"--b\r\n\r\n\r\n--b--\r\n",
        part,
        part + b"no picture\r\n--b--\r\n",
        part * 3 + b"x\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nno file\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\nx\r\n--b--\r\n'
        % (b"a" * 100_000),
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 300 + b"--b--\r\n",
        b"--b\r\n" + b"X: 1\r\n" * 5000 + b"\r\nx\r\n--b--\r\n",
        chance.randbytes(3000),
    ]
    kinds = [
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "multipart/form-data; boundary=",
    ]
    kinds += [f"multipart/form-data; boundary={'b' * 5000}"]
    path = chance.choice([PREDICT, "/v1/audio/transcriptions"])
    return posted(path, chance.choice(bodies), Content_Type=chance.choice(kinds))


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


ZEROS = zlib.compress(bytes(30_000_000), 9)


def no_picture(chance: Chance) -> bytes:
    cut = chance.randrange(1, len(SHOT) - 20)
    bodies = [
        png(60_000, 60_000, ZEROS),
        png(1 << 30, 1 << 30, ZEROS),
        png(0, 0, b""),
        png(100, 100, b"no zlib"),
        SHOT[:cut],
        chance.randbytes(2000),
        b"\xff\xd8\xff\xe0" + chance.randbytes(500),
        b"GIF89a\xff\xff\xff\xff" + chance.randbytes(100),
        b"RIFF\xff\xff\xff\xffWEBPVP8L" + chance.randbytes(100),
        b"II*\0\x08\0\0\0" + chance.randbytes(200),
        b"BM" + struct.pack("<IIIIiiHHI", 100, 0, 54, 40, 1 << 30, 1 << 30, 1, 24, 0) + bytes(50),
        b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (9,)}" + b" " * 60,
        b"\x93NUMPY\x01\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': (1<<60, 3, 3)}",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    ]
    return posted(PREDICT, chance.choice(bodies))


def wrong_option(chance: Chance) -> bytes:
    options = [
        "confidence=nan",
        "confidence=x",
        "confidence=2",
        "confidence=-1",
        "iou=inf",
        "none=1",
    ]
    options += ["max_boxes=-1", "max_boxes=1.5", "max_boxes=", "format=exe"]
    options += ["format=../../x.png", "format=.srt", "translate=maybe", "points=1;2;x", "boxes=,"]
    options += [
        "speed=0",
        "speed=-1",
        "speed=x",
        "points=nan,1",
        "%00=1",
        "confidence=" + "9" * 5000,
    ]
    return posted(f"{PREDICT}?{chance.choice(options)}", SHOT)


KINDS: tuple[Callable[[Chance], bytes], ...] = (
    broken_http,
    broken_length,
    lying_tensor,
    lying_header,
    wrong_request,
    bomb,
    wrong_path,
    multipart,
    no_picture,
    wrong_option,
)
CLOSED = {broken_http, broken_length}
"""Where HTTP itself is broken no answer is owed."""


# ---- slow ones, which take as long as they are let -----------------------------------------


@dataclass(frozen=True)
class Slow:
    """Something that is sent byte by byte. `most`: seconds until the server has had enough."""

    start: bytes
    drip: bytes
    most: float


SLOW = {
    "a head": Slow(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n", b"X: 1\r\n", HEAD_SECONDS),
    "a header": Slow(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: ", b"a", HEAD_SECONDS),
    "nothing": Slow(b"", b"", HEAD_SECONDS),
    "a body that stops": Slow(
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc",
        b"",
        IDLE_SECONDS,
    ),
    "chunks that stop": Slow(
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"",
        IDLE_SECONDS,
    ),
}


def let_go(server: Server, slow: Slow) -> float:
    """Seconds until the server answers or closes."""
    began = monotonic()
    with connected(server) as one, suppress(ConnectionError):
        one.sendall(slow.start)
        one.settimeout(0.5)
        while monotonic() - began < slow.most + 15:
            try:
                answer = one.recv(1000)
                assert b" 200 " not in answer
                return monotonic() - began
            except TimeoutError:
                one.sendall(slow.drip)
    return monotonic() - began


# ---- the tests ----------------------------------------------------------------------------


def memory(server: Server) -> dict[int, float]:
    """MiB of the server and its worker, by their numbers."""
    pid = server.process.pid
    return {one: mebibytes(one) for one in (pid, *children(pid))}


def is_well(server: Server) -> bool:
    return status_of(exchange(server, got("/v2/health/ready"))) == 200


def fault(kind: Callable[[Chance], bytes], answer: bytes) -> str:
    """What is wrong with an answer to a request that is wrong."""
    status = status_of(answer)
    if kind in CLOSED and status in (0, *range(400, 500)):
        return ""
    if not 400 <= status < 500:
        return f"status {status}"
    told = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return "" if told else "no message"


def test_each_gets_an_error_and_the_server_goes_on(server: Server) -> None:
    chance = random.Random(SEED)
    assert status_of(exchange(server, posted(PREDICT, SHOT))) == 200
    requests = [(kind, kind(chance)) for kind in KINDS * (COUNT // len(KINDS))]
    for kind, raw in requests[: 2 * len(KINDS)]:  # what is imported and allocated late
        exchange(server, raw, 0.05 if kind in CLOSED else 30)
    before = memory(server)
    slow_ones = ThreadPoolExecutor(len(SLOW))
    waiting = {name: slow_ones.submit(let_go, server, slow) for name, slow in SLOW.items()}
    seen: Counter[tuple[str, int]] = Counter()
    faults = []
    for kind, raw in requests:
        answer = exchange(server, raw, 0.05 if kind in CLOSED else 30)
        seen[kind.__name__, status_of(answer)] += 1
        if why := fault(kind, answer):
            faults.append((why, kind.__name__, raw[:400], answer[:400]))
        assert is_well(server), raw[:300]
    assert not faults, f"{len(faults)}: {faults[:12]}"
    for name, future in waiting.items():
        took = future.result()
        assert took < SLOW[name].most + 5, f"{name} was let be for {took:.0f} s"
    answer = exchange(server, posted(PREDICT, SHOT))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["results"][0]["class_id"] == 3
    after = memory(server)
    assert after.keys() == before.keys(), "a process was replaced"
    assert all(after[pid] - before[pid] < GROWTH for pid in before), (before, after)
    assert not [line for line in server.lines if "Traceback" in line], server.lines[-30:]
    assert sum(seen.values()) == COUNT


def test_a_body_without_end_is_cut_off(server: Server) -> None:
    """Chunks for ever: refused when they are more than a body may be, and not kept."""
    before = memory(server)
    piece = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    sent = 0
    answer = b""
    with connected(server) as one, suppress(ConnectionError):
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\n"
        one.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())

        def read() -> None:
            nonlocal answer
            with suppress(OSError):
                answer = one.recv(1000)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while sent < 3 * MOST_BODY and not answer:
            one.sendall(piece)
            sent += 1 << 16
        reader.join(5)
    assert status_of(answer) == 413
    assert sent < 2 * MOST_BODY
    sleep(0.2)
    assert is_well(server)
    assert all(memory(server)[pid] - before[pid] < GROWTH + MOST_BODY / 2**20 for pid in before)


def test_an_answer_that_is_not_read_holds_nobody_up(server: Server) -> None:
    """A client that asks again and again on one connection and never reads."""
    with connected(server) as one:
        one.settimeout(1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        call = posted(PREDICT, SHOT).replace(b"Connection: close\r\n", b"")
        with suppress(TimeoutError):
            for _ in range(3000):
                one.sendall(call)
        assert is_well(server)
        assert status_of(exchange(server, posted(PREDICT, SHOT))) == 200
    assert is_well(server)


@pytest.mark.parametrize("cut", [3, 20, 40, 60, 95])
def test_a_head_may_come_in_two_pieces(server: Server, cut: int) -> None:
    """The second with a body that is larger than a head may be."""
    raw = posted(PREDICT, bytes(300_000))
    with connected(server) as one:
        one.sendall(raw[:cut])
        sleep(0.05)
        one.sendall(raw[cut:])
        assert status_of(one.recv(1000)) == 400  # it is no picture
