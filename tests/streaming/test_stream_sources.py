"""Sources: what is opened, what is said of what cannot be, and a camera that dies."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.streaming import pyav_capture, sources
from rkzoo.streaming.sources import (
    CameraFormat,
    ImageSource,
    PacedSource,
    VideoSource,
    open_source,
    parse_camera_format,
)

CAMERA = Path(__file__).with_name("rtsp_camera.py")


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def task(self, *args: object, **named: object):  # pragma: no cover - not used
        raise NotImplementedError

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """20 frames at 10 a second, each of its own brightness."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(20):
        writer.write(np.full((48, 64, 3), number * 10, np.uint8))
    writer.release()
    return path


@pytest.fixture(params=["PyAV", "OpenCV"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to decode a file or an address."""
    if request.param == "OpenCV":
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        pytest.importorskip("av")
    return str(request.param)


def test_a_video_gives_every_frame_once_in_order(film: Path, decoder: str) -> None:
    source = open_source(str(film))
    assert (source.live, source.fps, source.total) == (False, 10.0, 20)
    frames = list(source.frames(threading.Event()))
    assert [f.number for f in frames] == list(range(20))
    assert [round(f.image.mean() / 10) for f in frames] == list(range(20))
    assert [f.position for f in frames] == [n / 10 for n in range(20)]
    assert frames[0].image.shape == (48, 64, 3)


def test_a_folder_gives_its_pictures_whatever_their_size(tmp_path: Path) -> None:
    for number, size in enumerate(((10, 20), (30, 15))):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((*size, 3), np.uint8))
    source = open_source(str(tmp_path))
    assert isinstance(source, ImageSource)
    frames = list(source.frames(threading.Event()))
    assert [f.image.shape[:2] for f in frames] == [(10, 20), (30, 15)]
    assert [Path(f.name).name for f in frames] == ["0.png", "1.png"]


def test_stopping_ends_a_video(film: Path, decoder: str) -> None:
    stop = threading.Event()
    seen = []
    for frame in open_source(str(film)).frames(stop):
        seen.append(frame)
        if len(seen) == 3:
            stop.set()
    assert len(seen) == 3


def test_a_file_as_if_live_keeps_its_own_speed(film: Path) -> None:
    source = PacedSource(open_source(str(film)))
    began = time.perf_counter()
    assert len(list(source.frames(threading.Event()))) == 20
    assert 1.8 <= time.perf_counter() - began < 4
    assert source.live


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing-there.mp4", "There is no source nothing-there.mp4"),
        ("/dev/video97", "Camera 97 cannot be opened"),
        ("97", "Camera 97 cannot be opened"),
        ("rtsp://me:secret@127.0.0.1:9/x", "rtsp://127.0.0.1:9/x cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_said(
    text: str, said: str, decoder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RkzooError) as caught:
        open_source(text)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert capfd.readouterr().err == ""
    assert caught.value.fix


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\0" * 4096])
def test_a_file_that_is_no_video(tmp_path: Path, content: bytes, decoder: str) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(RkzooError, match="not a video that can be read"):
        open_source(str(path))


def test_a_video_that_is_cut_short_is_told(film: Path, decoder: str) -> None:
    data = film.read_bytes()
    film.write_bytes(data[: len(data) * 2 // 3])
    notes = Notes()
    source = open_source(str(film), report=notes)
    count = len(list(source.frames(threading.Event())))
    assert 5 <= count < 20
    if source.total == 20:  # the header's number, where OpenCV goes by it
        assert "damaged or cut short" in notes.said[0]


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Switch:
    """A camera's process, to be killed and started again."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def on(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(CAMERA), str(self.port)])
        for _ in range(200):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.05)
        raise TimeoutError("the camera does not start")

    def off(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def camera(port: int) -> Iterator[Switch]:
    switch = Switch(port)
    switch.on()
    yield switch
    switch.off()


def test_a_camera_that_dies_is_found_again_within_5_seconds(
    camera: Switch, decoder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    notes = Notes()
    source = open_source(f"rtsp://127.0.0.1:{camera.port}/", report=notes)
    assert isinstance(source, VideoSource)
    assert source.live
    assert source.total is None
    stop = threading.Event()
    arrived: list[tuple[int, float]] = []
    reader = threading.Thread(
        target=lambda: [arrived.append((f.number, f.taken)) for f in source.frames(stop)]
    )
    reader.start()
    try:
        until(lambda: len(arrived) > 10)
        camera.off()
        until(lambda: any("is lost" in said for said in notes.said))
        time.sleep(2.5)  # long enough that the longest wait is reached
        before = len(arrived)
        camera.on()
        back = time.perf_counter()
        until(lambda: len(arrived) > before + 5)
        assert arrived[before][1] - back < 5
        assert source.reconnects == 1
        assert [number for number, _ in arrived] == list(range(len(arrived)))
    finally:
        stop.set()
        reader.join(10)
    assert not reader.is_alive()
    assert capfd.readouterr().err == ""


def test_a_camera_that_stays_away_is_given_up_when_asked(camera: Switch) -> None:
    source = open_source(f"rtsp://127.0.0.1:{camera.port}/", give_up=0.5)
    frames = source.frames(threading.Event())
    next(frames)
    camera.off()
    with pytest.raises(RkzooError, match="did not come back"):
        for _ in frames:
            pass


def until(holds, seconds: float = 15.0) -> None:
    end = time.perf_counter() + seconds
    while not holds():
        assert time.perf_counter() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1280x720@30/MJPG", CameraFormat((1280, 720), 30.0, "MJPG")),
        ("640x480", CameraFormat((640, 480))),
        ("@29.97", CameraFormat(fps=29.97)),
        ("/yuyv", CameraFormat(pixels="YUYV")),
        ("1920x1080/NV12", CameraFormat((1920, 1080), None, "NV12")),
    ],
)
def test_formats_of_cameras(text: str, wanted: CameraFormat) -> None:
    assert parse_camera_format(text) == wanted
    assert parse_camera_format(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "x", "1280", "1280x", "0x5", "640x480@", "640x480@0", "640x480/MJ", "@30@40", "/äöüß"],
)
def test_what_is_no_format_of_a_camera(text: str) -> None:
    with pytest.raises(RkzooError, match="not a format of a camera") as caught:
        parse_camera_format(text)
    assert "1280x720@30/MJPG" in caught.value.fix


class FakeCamera:
    """What OpenCV is asked, and a camera that gives 640x480 at 30, MJPG or YUYV."""

    asked: list[tuple[int, float]]

    def __init__(self, *how: int) -> None:
        self.how, self.asked = how, []
        self.values = {
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"YUYV"),
            cv2.CAP_PROP_FRAME_WIDTH: 640,
            cv2.CAP_PROP_FRAME_HEIGHT: 480,
            cv2.CAP_PROP_FPS: 30.0,
        }
        FakeCamera.last = self

    def set(self, name: int, value: float) -> bool:
        self.asked.append((name, value))
        if name == cv2.CAP_PROP_FOURCC:
            self.values[name] = value
        return True

    def get(self, name: int) -> float:
        return self.values.get(name, 0)

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def grab(self) -> bool:
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((480, 640, 3), np.uint8)

    def release(self) -> None:
        pass


def test_a_camera_is_asked_for_its_format_and_what_it_gives_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCamera)
    notes = Notes()
    wanted = parse_camera_format("1280x720@30/MJPG")
    source = open_source("2", camera=wanted, report=notes)
    asked = [name for name, _ in FakeCamera.last.asked]
    assert asked[0] == cv2.CAP_PROP_FOURCC  # it decides which sizes and rates there are
    assert set(asked) >= {cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS}
    if sys.platform == "linux":
        assert FakeCamera.last.how == (2, cv2.CAP_V4L2)
    assert notes.said == ["Camera 2 gives 640x480@30/MJPG, not 1280x720@30/MJPG."]
    assert next(source.frames(threading.Event())).image.shape == (480, 640, 3)
    notes.said.clear()
    open_source("2", camera=parse_camera_format("640x480/MJPG"), report=notes)
    assert notes.said == []


def test_cameras_that_are_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("video10", "video2", "video-cec"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sources, "Path", lambda text: tmp_path if text == "/dev" else Path(text))
    assert sources._cameras_here() == "Try one of those that are there: /dev/video2, /dev/video10."
    for name in ("video10", "video2"):
        (tmp_path / name).unlink()
    assert "no /dev/video*" in sources._cameras_here()


def test_a_pipeline_needs_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "getBackends", lambda: [cv2.CAP_FFMPEG])
    with pytest.raises(RkzooError, match="GStreamer pipeline cannot be read here") as caught:
        open_source("gst:videotestsrc")
    assert "python3-opencv" in caught.value.fix


def test_a_pipeline_is_handed_to_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GStreamer:   YES (1.22.0)\n")
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCamera)
    source = open_source("gst: rtspsrc location=rtsp://me:secret@cam/ ! decodebin")
    pipeline, backend = FakeCamera.last.how
    assert pipeline.startswith("rtspsrc location=rtsp://me:secret@cam/ ! decodebin ! ")
    assert pipeline.endswith("appsink drop=true max-buffers=1 sync=false")
    assert backend == cv2.CAP_GSTREAMER
    assert source.live
    assert "secret" not in source.name
    open_source("gst:videotestsrc ! appsink")
    assert FakeCamera.last.how[0] == "videotestsrc ! appsink"


def test_both_decoders_give_the_same_pictures(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    by_pyav = [f.image for f in open_source(str(film)).frames(threading.Event())]
    monkeypatch.setitem(sys.modules, "av", None)
    by_opencv = [f.image for f in open_source(str(film)).frames(threading.Event())]
    assert len(by_pyav) == len(by_opencv)
    for one, other in zip(by_pyav, by_opencv, strict=True):
        assert cv2.absdiff(one, other).max() <= 3


@pytest.mark.parametrize("broken", [False, True])
def test_rockchips_decoder_is_tried_first(
    broken: bool, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on a board: a decoder of PyAV's own plays the hardware's."""
    av = pytest.importorskip("av")

    class Context:
        @staticmethod
        def create(name: str, mode: str):
            assert (name, mode) == ("mjpeg_rkmpp", "r")
            if broken:
                raise ValueError("no hardware")
            return av.CodecContext.create("mjpeg", mode)

    class Av:
        open = staticmethod(av.open)
        codecs_available = frozenset({"mjpeg_rkmpp"})
        CodecContext = Context

    driver = tmp_path / "mpp_service"
    monkeypatch.setattr(pyav_capture, "_MPP", driver)
    driver.touch()
    capture = pyav_capture.PyavCapture(Av, str(film), 4.0)
    assert capture.decoder == ("mjpeg" if broken else "mjpeg_rkmpp")
    levels = []
    while capture.grab():
        levels.append(round(capture.retrieve()[1].mean() / 10))
    assert levels == list(range(20))
    capture.release()
