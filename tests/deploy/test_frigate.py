"""The detector for Frigate, held to Frigate's interface: its boxes are those of `rkzoo run`."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import cv2
import frigate_interface as frigate
import numpy as np
import pytest

from rkzoo.cli.main import main
from rkzoo.vision.image import decode, read
from rkzoo.zoo.labels import label_set

FOLDER = Path(__file__).parents[2] / "deploy" / "frigate"
LABELS = FOLDER / "labelmap-coco80.txt"
WIDTH, HEIGHT = 416, 416


@pytest.fixture(scope="module")
def plug_in() -> Iterator[ModuleType]:
    """The file, imported where Frigate would have it."""
    stand_ins = frigate.modules()
    sys.modules.update(stand_ins)
    name = "frigate.detectors.plugins.rkzoo"
    spec = importlib.util.spec_from_file_location(name, FOLDER / "rkzoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in stand_ins:
        del sys.modules[name]


class _Server(ThreadingHTTPServer):
    """A server whose answers a test sets; it keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.status, self.document = 200, {"results": []}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), body))
        answer = json.dumps(self.server.document).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _detector(url: str, given: dict[str, Any] | None = None, **model: Any) -> Any:
    config = {"type": "rkzoo", "url": url, "served_model": "yolox"} | (given or {})
    size = {"width": WIDTH, "height": HEIGHT, "labelmap_path": str(LABELS)}
    return frigate.create_detector(config, size | model)


def _box(number: int, score: float, label: str = "", box: Any = (0, 0, 208, 416)) -> dict[str, Any]:
    label = label or label_set("coco80")[number]
    return {"class_id": number, "score": score, "label": label, "box": list(box)}


BLACK = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)


def test_the_label_map_is_the_models() -> None:
    labels = frigate.labels_in(str(LABELS))
    names = label_set("coco80")
    assert [labels[number] for number in range(80)] == list(names)
    assert set(list(labels.values())[80:]) == {"unknown"}


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_server_sees_the_very_pixels(plug_in: ModuleType, server: _Server, order: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    detector = _detector(server.url, input_pixel_format=order)
    assert frigate.detect(detector, detector.labels, picture) == []
    ((target, headers, body),) = server.asked
    seen = decode(body, Path("frame"))  # BGR
    assert np.array_equal(seen if order == "bgr" else seen[..., ::-1], picture[0])
    assert urlsplit(target).path == "/v1/models/yolox:predict"
    assert parse_qs(urlsplit(target).query) == {"confidence": ["0.4"], "max_boxes": ["20"]}
    assert "Authorization" not in headers


def test_rows_are_as_frigate_reads_them(plug_in: ModuleType, server: _Server) -> None:
    server.document = {
        "results": [
            _box(2, 0.5, box=(-2, 104, 208, 312)),
            _box(0, 0.9),
            _box(5, 0.3),  # below Frigate's threshold: it would end the list
            _box(90, 0.8, "unknown"),
            _box(200, 0.8, "bus"),  # which Frigate's table does not have: it would end its process
        ]
    }
    detector = _detector(server.url)
    rows = detector.detect_raw(BLACK)
    assert rows.shape == (20, 6)
    assert rows.dtype == np.float32
    expected = [
        [0, 0.9, 0, 0, 1, 0.5],
        [90, 0.8, 0, 0, 1, 0.5],
        [2, 0.5, 0.25, -2 / 416, 0.75, 0.5],
    ]
    assert rows[:3] == pytest.approx(np.array(expected))
    assert not rows[3:].any()
    server.document = {"results": [_box(0, 0.5 + number / 100) for number in range(30)]}
    assert detector.detect_raw(BLACK)[:, 1].tolist() == pytest.approx(
        [0.79 - number / 100 for number in range(20)]
    )


def test_another_label_map_is_said_once(
    plug_in: ModuleType, server: _Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.document = {"results": [_box(0, 0.9, "cat"), _box(2, 0.9)]}
    detector = _detector(server.url)
    for _ in range(3):
        detector.detect_raw(BLACK)
    (record,) = caplog.records
    assert "Class 0 is 'cat' for the model and 'person' for Frigate" in record.getMessage()


FAULTS = [
    (503, {"error": "yolox is not loaded."}, "503: yolox is not loaded."),
    (500, [], "500 Internal Server Error"),
    (200, {"found": []}, "KeyError"),
    (200, {"results": [{"class_id": "x"}]}, "ValueError"),
    (200, [], "TypeError"),
]


@pytest.mark.parametrize(("status", "document", "said"), FAULTS)
def test_a_server_that_fails_costs_a_frame_and_is_said_once(
    plug_in: ModuleType,
    server: _Server,
    caplog: pytest.LogCaptureFixture,
    status: int,
    document: Any,
    said: str,
) -> None:
    caplog.set_level(logging.INFO)
    detector = _detector(server.url)
    server.status, server.document = status, document
    for _ in range(3):
        assert not detector.detect_raw(BLACK).any()
    (record,) = caplog.records
    assert said in record.getMessage()
    server.status, server.document = 200, {"results": [_box(0, 0.9)]}
    assert detector.detect_raw(BLACK)[0, 1] == pytest.approx(0.9)
    assert [record.getMessage() for record in caplog.records[1:]] == ["rkzoo answers again"]


def test_no_server(plug_in: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    assert not _detector("http://127.0.0.1:1").detect_raw(BLACK).any()
    assert "ConnectionRefused" in caplog.text or "refused" in caplog.text


def test_the_token_comes_from_a_file(plug_in: ModuleType, server: _Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-of-8\n")
    detector = _detector(f"{server.url}/", {"token_file": str(tmp_path / "token")})
    detector.detect_raw(BLACK)
    target, headers, _ = server.asked[0]
    assert headers["Authorization"] == "Bearer secret-of-8"
    assert target.startswith("/v1/")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input_dtype", "float"),  # Frigate divides by 255, and the network would again
        ("input_dtype", "float_denorm"),
        ("input_tensor", "nchw"),
        ("input_pixel_format", "yuv"),
    ],
)
def test_a_prepared_picture_is_refused(plug_in: ModuleType, key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"set {key} of the model to .*, in place of {value}"):
        _detector("http://127.0.0.1:1", **{key: value})


def test_another_scheme_is_refused(plug_in: ModuleType) -> None:
    with pytest.raises(ValueError, match="url"):
        _detector("file:///etc/passwd")


@pytest.fixture(scope="module")
def real_server(assets: Path) -> Iterator[str]:
    """The address of `rkzoo serve` with a detector, once it is loaded."""
    model = str(assets / "models/yolox_nano.onnx")
    command = ["serve", f"yolox={model}", "--runtime", "onnx", "--port", "0", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "rkzoo", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert process.stdout is not None
            (url,) = json.loads(process.stdout.readline())["addresses"]
            until = time.monotonic() + 60
            while not _ready(url):
                assert time.monotonic() < until
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/v2/models/yolox/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except HTTPError:
        return False


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_boxes_are_those_of_run(
    plug_in: ModuleType,
    real_server: str,
    assets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    order: str,
) -> None:
    """A frame of Frigate's, as it crops and scales one."""
    bus = cv2.resize(read(assets / "data/images/bus_640.jpg"), (WIDTH, HEIGHT))
    cv2.imwrite(str(tmp_path / "bus.png"), bus)
    model = str(assets / "models/yolox_nano.onnx")
    command = ["run", model, str(tmp_path / "bus.png"), "--runtime", "onnx", "--json"]
    assert main([*command, "--conf", "0.4"]) == 0
    (picture,) = json.loads(capsys.readouterr().out)["images"]
    expected = [
        (one["label"], pytest.approx(one["score"], abs=1e-4), pytest.approx(one["box"], abs=0.01))
        for one in picture["results"]
    ]
    assert {label for label, _, _ in expected} == {"bus", "person"}
    detector = _detector(real_server, {"timeout": 20}, input_pixel_format=order)
    frame = bus if order == "bgr" else np.ascontiguousarray(bus[..., ::-1])
    found = frigate.detect(detector, detector.labels, frame[None])
    assert expected == [
        (label, score, [left * WIDTH, top * HEIGHT, right * WIDTH, bottom * HEIGHT])
        for label, score, (top, left, bottom, right) in found
    ]
