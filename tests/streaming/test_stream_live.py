"""The live page: who may see it, that nobody slows the stream, that nothing is left."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.streaming import live
from rkzoo.streaming.live import Address, LivePage, parse_address
from rkzoo.streaming.sinks import RenderedFrame
from rkzoo.streaming.sources import Frame

FIGURES = {"fps": {"answered": 12.5}}


@contextmanager
def serving(**named: object) -> Iterator[LivePage]:
    with LivePage(Address("127.0.0.1", 0), lambda: FIGURES, **named) as page:  # type: ignore[arg-type]
        yield page


@contextmanager
def feeding(page: LivePage, size: int = 48) -> Iterator[Callable[[], int]]:
    """Frames at about 200 a second; gives how many have been taken."""
    stop, count = threading.Event(), [0]
    noise = np.random.default_rng(1).integers(0, 255, (size, size, 3)).astype(np.uint8)

    def feed() -> None:
        while not stop.wait(0.005):
            frame = Frame(noise, count[0], time.perf_counter(), 0.0)
            page.take(RenderedFrame(frame, None, lambda found, image: image))
            count[0] += 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield lambda: count[0]
    finally:
        stop.set()
        feeder.join()


def ask(page: LivePage, path: str, **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()
    finally:
        connection.close()


class Viewer:
    """Reads pictures off /stream.mjpg."""

    def __init__(self, page: LivePage) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
        self.connection.request("GET", "/stream.mjpg")
        self.answer = self.connection.getresponse()

    def picture(self) -> bytes:
        assert self.answer.readline().startswith(b"--")
        length = 0
        while line := self.answer.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        data = self.answer.read(length)
        assert self.answer.read(2) == b"\r\n"
        return data

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("8080", "127.0.0.1", 8080, True),
        ("0", "127.0.0.1", 0, True),
        ("0.0.0.0:81", "0.0.0.0", 81, False),
        ("localhost", "localhost", 8080, True),
        ("[::1]:9", "::1", 9, True),
        ("192.168.1.7:80", "192.168.1.7", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    found = parse_address(text)
    assert (found.host, found.port, found.loopback) == (host, port, loopback)


@pytest.mark.parametrize("text", ["", "70000", "a:b", "1:2:3", "::1", "host:", "-1:x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(RkzooError, match="not a valid address for the live page"):
        parse_address(text)


def test_two_viewers_get_pictures_that_were_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    real = cv2.imencode
    monkeypatch.setattr(
        live.cv2,
        "imencode",
        lambda *a: (encoded.append(1), real(*a))[1],  # type: ignore[attr-defined]
    )
    with serving() as page, feeding(page) as fed:
        viewers = [Viewer(page), Viewer(page)]
        before = fed()
        for _ in range(5):
            for viewer in viewers:
                image = cv2.imdecode(np.frombuffer(viewer.picture(), np.uint8), cv2.IMREAD_COLOR)
                assert image.shape == (48, 48, 3)
        assert len(encoded) <= fed() + 1
        assert fed() > before
        for viewer in viewers:
            viewer.close()


def test_it_is_for_this_machine_only_unless_told_otherwise() -> None:
    with serving() as page:
        assert page._server.socket.getsockname()[0] == "127.0.0.1"
        assert page.place == f"http://127.0.0.1:{page.port}/"
        # A page elsewhere whose name was pointed at 127.0.0.1.
        assert ask(page, "/stats.json", Host="evil.example")[0] == 403
        assert ask(page, "/stats.json", Host=f"localhost:{page.port}")[0] == 200


def test_the_page_the_figures_and_one_picture() -> None:
    with serving(title="<b>model") as page, feeding(page):
        status, kind, body = ask(page, "/")
        assert (status, kind.split(";")[0]) == (200, "text/html")
        assert b"/stream.mjpg" in body
        assert b"http://" not in body  # nothing is fetched from elsewhere
        assert b"https://" not in body
        status, kind, body = ask(page, "/stats.json")
        assert json.loads(body) == FIGURES | {"title": "<b>model"}
        status, kind, body = ask(page, "/frame.jpg")
        assert (status, kind, body[:2]) == (200, "image/jpeg", b"\xff\xd8")
        assert ask(page, "/../../etc/passwd")[0] == 404


def test_nothing_is_drawn_while_nobody_looks() -> None:
    def paint(found: object, image: np.ndarray) -> np.ndarray:
        raise AssertionError("drawn for nobody")

    with serving() as page:
        ask(page, "/stats.json")
        page.take(RenderedFrame(Frame(np.zeros((4, 4, 3), np.uint8), 0, 0.0, 0.0), None, paint))


def test_a_slow_viewer_skips_pictures_and_holds_nobody_up() -> None:
    with serving() as page, feeding(page, 400) as fed:
        slow, quick = Viewer(page), Viewer(page)
        slow.picture()
        start, began = fed(), time.perf_counter()
        while time.perf_counter() - began < 1.5:
            quick.picture()
        assert fed() - start > 20
        # What lies in the pipe for the slow one is bounded: it is soon up to date again.
        newest = page.newest().number
        for _ in range(newest):
            slow.picture()
            if page.newest().number - newest > 60:
                break
        slow.close()
        quick.close()


def test_no_more_viewers_than_may() -> None:
    with serving(viewers=2) as page, feeding(page):
        first, second = Viewer(page), Viewer(page)
        first.picture()
        second.picture()
        status, _, body = ask(page, "/stream.mjpg")
        assert status == 503
        assert b"2 viewers" in body
        first.close()
        end = time.perf_counter() + 5
        third = Viewer(page)
        while third.answer.status != 200:
            assert time.perf_counter() < end
            third.close()
            third = Viewer(page)
        third.picture()
        third.close()
        second.close()


def test_a_flood_of_connections_is_turned_away() -> None:
    with serving() as page, feeding(page):
        idle = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(60)]
        time.sleep(0.3)
        assert threading.active_count() < 45
        for connection in idle:
            connection.close()
        end = time.perf_counter() + 5
        while True:
            try:
                assert ask(page, "/stats.json")[0] == 200
                break
            except (OSError, http.client.HTTPException):
                assert time.perf_counter() < end
                time.sleep(0.05)


def test_closing_leaves_no_thread_and_no_descriptor() -> None:
    def state() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    with serving():  # whatever is opened once and kept
        pass
    before = state()
    for _ in range(3):
        with serving() as page, feeding(page):
            viewers = [Viewer(page) for _ in range(3)]
            idle = socket.create_connection(("127.0.0.1", page.port))
            for viewer in viewers:
                viewer.picture()
            began = time.perf_counter()
        assert time.perf_counter() - began < 3
        for viewer in viewers:
            viewer.close()
        idle.close()
    assert state() == before


def test_a_port_that_is_taken_is_said() -> None:
    with serving() as page, pytest.raises(RkzooError, match="cannot be served"):
        LivePage(Address("127.0.0.1", page.port), lambda: FIGURES)


def held(page: LivePage, *said: bytes) -> list[socket.socket]:
    """Connections that say the beginning of a request, and no more."""
    sockets = [socket.create_connection(("127.0.0.1", page.port)) for _ in said]
    for connection, text in zip(sockets, said, strict=True):
        connection.sendall(text)
    return sockets


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nA: "])
def test_slow_connections_do_not_lock_others_out(said: bytes) -> None:
    with serving() as page, feeding(page):
        slow = held(page, *[said] * 60)
        for path in ("/", "/stats.json", "/frame.jpg"):
            began = time.perf_counter()
            assert ask(page, path)[0] == 200
            assert time.perf_counter() - began < 2
        for connection in slow:
            connection.close()


def test_a_request_that_drips_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_ASKING", 0.5)
    with serving() as page:
        (drip,) = held(page, b"GET / HTTP/1.1\r\n")
        began = time.perf_counter()
        with suppress(OSError):  # reset or broken pipe
            while time.perf_counter() - began < 5:
                drip.sendall(b"A")  # each byte well within the time of one read
                time.sleep(0.1)
        assert time.perf_counter() - began < 3
        drip.close()


def test_an_address_has_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_OF_ONE", 5)
    with serving() as page:
        slow = held(page, *[b""] * 20)
        time.sleep(0.3)
        assert len(page._server._open) <= 5
        for connection in slow:
            connection.close()


def test_a_viewer_that_does_not_read_makes_room_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "_SLOW", 0.2)
    with serving(viewers=2) as page, feeding(page, 400):
        stuck = held(page, *[b"GET /stream.mjpg HTTP/1.0\r\n\r\n"] * 2)
        end = time.perf_counter() + 10
        while sum(one.writing is not None for one in list(page._server._open.values())) < 2:
            assert time.perf_counter() < end
            time.sleep(0.05)
        time.sleep(0.5)
        viewer = Viewer(page)
        assert viewer.answer.status == 200
        assert viewer.picture()[:2] == b"\xff\xd8"
        viewer.close()
        for connection in stuck:
            connection.close()


def test_a_write_that_blocks_ends_with_the_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live._Handler, "timeout", 0.5)
    with serving() as page, feeding(page, 400):
        (stuck,) = held(page, b"GET /stream.mjpg HTTP/1.0\r\n\r\n")
        end = time.perf_counter() + 10
        time.sleep(0.3)
        while page._server._open:
            assert time.perf_counter() < end
            time.sleep(0.05)
        stuck.close()


@pytest.mark.parametrize("path", ["/", "/stats.json", "/frame.jpg", "/stream.mjpg"])
def test_head_is_answered_with_headers_alone(path: str) -> None:
    with serving() as page, feeding(page):
        (connection,) = held(page, f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while data := connection.recv(4096):
            answer += data
        connection.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200")
        assert b"Content-Security-Policy" in head
        assert body == b""


def test_a_password_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_WRONG", 0.0)

    def basic(text: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    with serving(password="größer: 7") as page, feeding(page):
        for path in ("/", "/stats.json", "/frame.jpg", "/stream.mjpg", "/nothing"):
            assert ask(page, path)[0] == 401
            assert ask(page, path, **basic("me:wrong"))[0] == 401
        assert ask(page, "/", Authorization="Basic !!")[0] == 401
        assert ask(page, "/", Authorization="Bearer x")[0] == 401
        assert ask(page, "/", **basic("anyone:größer: 7"))[0] == 200
        assert ask(page, "/frame.jpg", **basic(":größer: 7"))[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().getheader("WWW-Authenticate", "").startswith("Basic realm=")
        connection.close()


def test_where_the_password_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(live.PASSWORD, raising=False)
    assert live.read_password(None) is None
    monkeypatch.setenv(live.PASSWORD, "from outside")
    assert live.read_password(None) == "from outside"
    file = tmp_path / "password"
    file.write_text("in a file\nand more\n")
    assert live.read_password(str(file)) == "in a file"
    file.write_text("\n")
    for path in (file, tmp_path / "nothing"):
        with pytest.raises(RkzooError, match="There is no password in"):
            live.read_password(str(path))


def test_the_addresses_that_are_told_can_be_opened() -> None:
    with LivePage(Address("0.0.0.0", 0), lambda: FIGURES) as page:
        assert page.places[-1] == f"http://localhost:{page.port}/"
        assert not any("0.0.0.0" in place for place in page.places)
        for place in page.places:
            host = place[len("http://") :].partition(":")[0]
            connection = http.client.HTTPConnection(host, page.port, timeout=5)
            connection.request("GET", "/stats.json")
            assert connection.getresponse().status == 200
            connection.close()


def test_each_source_has_its_own_pictures() -> None:
    with serving(sources=2) as page:
        stop = threading.Event()

        def feed() -> None:
            while not stop.wait(0.01):
                for number in (0, 1):
                    image = np.full((16, 16, 3), 100 * number + 50, np.uint8)
                    frame = Frame(image, 0, time.perf_counter(), 0.0, source=number)
                    page.take(RenderedFrame(frame, None, lambda found, image: image))

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            for number in (0, 1):
                status, kind, body = ask(page, f"/frame/{number}")
                assert (status, kind) == (200, "image/jpeg")
                seen = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
                assert abs(seen.mean() - (100 * number + 50)) < 5
            assert ask(page, "/frame/2")[0] == 404
            assert ask(page, "/stream/2")[0] == 404
        finally:
            stop.set()
            feeder.join()
