"""Frame sources: camera, video file, network stream, GStreamer pipeline, images.

A source is read by one thread. Dropping frames when the model is slower is up to the pool: a live
source is read as fast as it delivers.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import is_device_or_pipe
from rkzoo.progress import SILENT, ProgressReporter, readable
from rkzoo.vision.image import SUFFIXES, expand, read

# Silences OpenCV's FFmpeg on stderr. Read once, at import.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
import cv2

from rkzoo.streaming.pyav_capture import PyavCapture, pyav

Image = NDArray[np.uint8]

# Connect and read timeout, milliseconds.
_SILENCE_MS = 4000
# Delays between reconnection attempts, seconds.
_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0)
_URL = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_CAMERA = re.compile(r"^(?:/dev/video)?(\d+)$")
_FORMAT = re.compile(
    r"(?:(?P<width>\d{1,5})x(?P<height>\d{1,5}))?(?:@(?P<fps>\d{1,4}(?:\.\d+)?))?(?:/(?P<pixels>[A-Za-z0-9]{4}))?"
)
_PIPELINE = "gst:"
# What a pipeline without a sink of its own ends with: the newest picture only, as BGR.
_APPSINK = " ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"


@dataclass(frozen=True)
class CameraFormat:
    """What a camera is asked for; None and "" leave it to the camera.

    Attributes:
        size: (width, height).
        fps: frames per second.
        pixels: four-character code of V4L2, e.g. MJPG, YUYV, NV12.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    pixels: str = ""

    def __str__(self) -> str:
        size = f"{self.size[0]}x{self.size[1]}" if self.size else ""
        rate = f"@{self.fps:g}" if self.fps else ""
        return size + rate + (f"/{self.pixels}" if self.pixels else "")


def parse_camera_format(text: str) -> CameraFormat:
    """Parse WIDTHxHEIGHT@RATE/PIXELS; each part may be missing. Raises RkzooError."""
    found = _FORMAT.fullmatch(text) if text else None
    size = (int(found["width"]), int(found["height"])) if found and found["width"] else None
    fps = float(found["fps"]) if found and found["fps"] else None
    if found is None or fps == 0 or (size is not None and 0 in size):
        raise RkzooError(
            f"{text!r} is not a format of a camera.",
            "It is a size, a rate and a pixel format, of which each may be left out.",
            "Give e.g. --camera 1280x720@30/MJPG, --camera 640x480 or --camera /YUYV.",
        )
    return CameraFormat(size, fps, (found["pixels"] or "").upper())


def is_camera(text: str) -> bool:
    """Whether a source's name means a camera."""
    return _CAMERA.match(text) is not None


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    Attributes:
        image: BGR uint8 (H, W, 3).
        number: index from 0.
        taken: time of capture (perf_counter).
        reading: seconds that reading took.
        name: file name, where each image has its own.
        position: time in the video in seconds, where known.
        source: index of the source, where there are several.
    """

    image: Image
    number: int
    taken: float
    reading: float
    name: str = ""
    position: float | None = None
    source: int = 0


class FrameSource(Protocol):
    """A frame source.

    Attributes:
        name: shown to the user.
        live: frames arrive in real time, whether consumed or not.
        fps, total: frame rate and number of frames, where known beforehand.
        reconnects: how often a lost source was recovered.

    `frames` is called once; it ends with the source or soon after `stop` is set, and its thread
    closes the source.
    """

    name: str
    live: bool
    fps: float | None
    total: int | None
    reconnects: int

    def frames(self, stop: threading.Event) -> Iterator[Frame]: ...

    def close(self) -> None: ...


def open_source(
    text: str,
    *,
    give_up: float | None = None,
    camera: CameraFormat | None = None,
    report: ProgressReporter = SILENT,
) -> FrameSource:
    """Open a source: a number or /dev/videoN (camera), a URL, a video file, gst: and a GStreamer
    pipeline, or an image, folder or glob of images.

    Args:
        text: the source.
        give_up: seconds after which a lost live source is given up; None: never. Retried with
            growing delays up to 2 s.
        camera: what cameras are asked for.
        report: receives notes on lost and recovered sources.

    Raises:
        RkzooError: the source cannot be opened.
    """
    if match := _CAMERA.match(text):
        return VideoSource(
            text, int(match[1]), live=True, give_up=give_up, camera=camera, report=report
        )
    if text.startswith(_PIPELINE):
        return VideoSource(text, _pipeline(text), live=True, give_up=give_up, report=report)
    if match := _URL.match(text):
        if match[1].lower() == "file":
            return open_source(text[len("file://") :], give_up=give_up, report=report)
        return VideoSource(text, text, live=None, give_up=give_up, report=report)
    path = Path(text).expanduser()
    if path.is_dir() or path.suffix.lower() in SUFFIXES or not path.exists():
        return ImageSource(_pictures(text, path), report)
    if is_device_or_pipe(path):
        raise RkzooError(
            f"{text} cannot be read.",
            "It is a device or a pipe, and no camera.",
            "Give a file, a camera's number, or a URL.",
        )
    return VideoSource(text, str(path), live=False, report=report)


def _pictures(text: str, path: Path) -> list[Path]:
    try:
        return expand([str(path)])
    except RkzooError as error:
        raise RkzooError(
            f"There is no source {text}.",
            "It is no camera number, URL, gst:PIPELINE, video, picture or folder of pictures.",
            "Give e.g. 0, /dev/video0, film.mp4, rtsp://camera/stream or a folder of pictures.",
        ) from error


class ImageSource:
    """Image files in sequence; sizes may differ."""

    live = False
    fps: float | None = None
    reconnects = 0

    def __init__(self, files: list[Path], report: ProgressReporter = SILENT) -> None:
        self._files, self._report = files, report
        self.name = str(files[0] if len(files) == 1 else files[0].parent)
        self.total: int | None = len(files)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yield the frames; a file that is no image is left out, which the report is told. Raises
        RkzooError where none is one."""
        start = perf_counter()
        images = readable(self._files, read, lambda file: file, self._report)
        for number, (file, image) in enumerate(images):
            if stop.is_set():
                return
            now = perf_counter()
            yield Frame(image, number, now, now - start, name=str(file))
            start = perf_counter()

    def close(self) -> None:
        pass


def _pipeline(text: str) -> str:
    """The pipeline behind `gst:`, with a sink. Raises RkzooError where OpenCV has no GStreamer."""
    # Its registry lists GStreamer also where it was built without.
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise RkzooError(
            "A GStreamer pipeline cannot be read here.",
            "The OpenCV that is installed was built without GStreamer, as the wheels of PyPI are.",
            "Use an OpenCV that has it: Debian's python3-opencv, or one built with "
            "-D WITH_GSTREAMER=ON.",
        )
    pipeline = text[len(_PIPELINE) :].strip()
    return pipeline if "appsink" in pipeline else pipeline + _APPSINK


class VideoSource:
    """A camera, a video, a URL or a pipeline. `live` None: live unless the number of frames is
    known. Files and URLs are decoded by PyAV where it is installed, else by OpenCV."""

    def __init__(
        self,
        name: str,
        what: int | str,
        *,
        live: bool | None,
        give_up: float | None = None,
        camera: CameraFormat | None = None,
        report: ProgressReporter = SILENT,
    ) -> None:
        self._format = camera or CameraFormat()
        self.name, self._what, self._give_up, self._report = (
            _without_password(name),
            what,
            give_up,
            report,
        )
        self.reconnects = 0
        self._reading = False
        capture = self._opened()
        if capture is None:
            raise self._not_there()
        self._capture: Any = capture
        if camera is not None:
            self._tell_given(capture)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.live = live if live is not None else count <= 0
        self.total = count if not self.live and count > 0 else None
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        # Values such as 90000 are time bases, not frame rates.
        self.fps: float | None = fps if 0.1 <= fps <= 1000 else None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yield the frames. Raises RkzooError when a lost live source does not come back in
        time.
        """
        number = 0
        self._reading = True
        try:
            while not stop.is_set():
                start = perf_counter()
                there = self._capture.grab()
                if self.live:
                    start = perf_counter()  # exclude the wait for the camera
                image = self._capture.retrieve()[1] if there else None
                now = perf_counter()
                if image is not None:
                    position = None if self.live or not self.fps else number / self.fps
                    yield Frame(_coloured(image), number, now, now - start, position=position)
                    number += 1
                elif not self.live:
                    self._check_end(number)
                    return
                elif not self._again(stop):
                    return
        finally:
            self._reading = False
            self.close()

    def close(self) -> None:
        """Release the capture, unless another thread reads (OpenCV would crash), which then
        releases it."""
        if not self._reading:
            self._capture.release()

    def _opened(self) -> Any:
        """An open capture, or None."""
        with _quiet():
            return self._try_to_open()

    def _try_to_open(self) -> Any:
        if isinstance(self._what, int):
            capture = self._camera(self._what)
        elif self.name.startswith(_PIPELINE):
            capture = cv2.VideoCapture(self._what, cv2.CAP_GSTREAMER)
        elif (av := pyav()) is not None:
            try:
                return PyavCapture(av, self._what, _SILENCE_MS / 1000)
            except Exception:  # PyAV raises many kinds of errors at what is no video
                return None
        else:
            silence = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _SILENCE_MS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC, _SILENCE_MS,
            ]  # fmt: skip
            capture = cv2.VideoCapture(self._what, cv2.CAP_FFMPEG, silence)
        if capture.isOpened():
            return capture
        capture.release()
        return None

    def _camera(self, number: int) -> Any:
        """An opened camera, asked for its format: pixels first, since they decide which sizes and
        rates there are."""
        way = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        capture = cv2.VideoCapture(number, way)
        wanted = self._format
        if wanted.pixels:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*wanted.pixels))
        if wanted.size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, wanted.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, wanted.size[1])
        if wanted.fps:
            capture.set(cv2.CAP_PROP_FPS, wanted.fps)
        # The driver's queue would deliver old frames.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture

    def _tell_given(self, capture: Any) -> None:
        """Say what the camera gives where it is not what was asked for."""
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        given = CameraFormat(
            (
                int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
                int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            ),
            round(float(capture.get(cv2.CAP_PROP_FPS)), 2),
            bytes((code >> shift) & 0xFF for shift in (0, 8, 16, 24)).decode("ascii", "replace"),
        )
        asked = self._format
        met = (
            asked.size in (None, given.size)
            and (not asked.fps or abs(asked.fps - (given.fps or 0)) < 0.5)
            and asked.pixels in ("", given.pixels.upper())
        )
        if not met:
            self._report.note(f"Camera {self.name} gives {given}, not {asked}.")

    def _again(self, stop: threading.Event) -> bool:
        """Reconnect; False when `stop` was set first."""
        self._capture.release()
        self._report.note(f"{self.name} is lost; trying again.")
        lost = perf_counter()
        attempt = 0
        while not stop.wait(_WAITS[min(attempt, len(_WAITS) - 1)]):
            attempt += 1
            capture = self._opened()
            if capture is not None:
                self._capture = capture
                self.reconnects += 1
                self._report.note(f"{self.name} is back after {perf_counter() - lost:.1f} s.")
                return True
            if self._give_up is not None and perf_counter() - lost > self._give_up:
                raise RkzooError(
                    f"{self.name} was lost and did not come back.",
                    f"It was tried {attempt} times in {perf_counter() - lost:.0f} s.",
                    "Check that the camera has power and network, or give it more time with "
                    "--give-up.",
                )
        return False

    def _check_end(self, read: int) -> None:
        """Check whether the video ended where it should."""
        if not read:
            raise RkzooError(
                f"{self.name} holds no frame that can be read.",
                "It is damaged, cut short or of a kind that cannot be decoded here.",
                "Play it in a viewer to check, or convert it to H.264 in an .mp4.",
            )
        # Frame counts are estimates in some containers; tolerate a few.
        if self.total and read < self.total - max(2, self.total // 50):
            self._report.note(
                f"{self.name} says that it has {self.total} frames, but {read} could be read: "
                "it is damaged or cut short."
            )

    def _not_there(self) -> RkzooError:
        if isinstance(self._what, int):
            return RkzooError(
                f"Camera {self._what} cannot be opened.",
                f"There is no /dev/video{self._what}, it is no camera, another program holds it, "
                "or you may not read it.",
                _cameras_here(),
            )
        if self.name.startswith(_PIPELINE):
            return RkzooError(
                "The GStreamer pipeline does not start.",
                f"It is: {_without_password(self._what)}",
                "Try it with gst-launch-1.0, with autovideosink in place of appsink.",
            )
        if _URL.match(self._what):
            return RkzooError(
                f"{self.name} cannot be opened.",
                "Nothing answers there, it asks for a password, or it sends no video.",
                "Check address, user and password: rtsp://USER:PASSWORD@HOST:554/PATH",
            )
        return RkzooError(
            f"{self.name} is not a video that can be read.",
            "It is empty, damaged or of a kind that cannot be decoded here.",
            "Play it in a viewer to check, or convert it to H.264 in an .mp4.",
        )


class PacedSource:
    """A file played at its own frame rate, as if it were live."""

    live = True

    def __init__(self, source: FrameSource, fps: float | None = None) -> None:
        self._source = source
        self.name, self.total, self.reconnects = source.name, source.total, 0
        self.fps: float | None = fps or source.fps or 25.0

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        start: float | None = None
        for frame in self._source.frames(stop):
            now = perf_counter()
            start = now if start is None else start
            due = start + frame.number / (self.fps or 25.0)
            if due > now and stop.wait(due - now):
                return
            yield replace(frame, taken=perf_counter())

    def close(self) -> None:
        self._source.close()


def _cameras_here() -> str:
    """What to do about a camera that is not there, with those that are."""
    numbers = sorted(int(p.name[5:]) for p in Path("/dev").glob("video*") if p.name[5:].isdigit())
    if not numbers:
        return "Plug a camera in: there is no /dev/video* on this machine."
    return f"Try one of those that are there: {', '.join(f'/dev/video{n}' for n in numbers)}."


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence OpenCV's warnings about sources that cannot be opened, which rkzoo reports itself."""
    logging = cv2.utils.logging
    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def _coloured(image: Any) -> Image:
    """Convert grey frames to BGR."""
    if image.ndim == 2 or image.shape[2] == 1:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.asarray(image, np.uint8)


def _without_password(name: str) -> str:
    """A URL without credentials, for display and logs."""
    return re.sub(r"([a-z][a-z0-9+.-]+://)[^/@\s]*@", r"\1", name, flags=re.IGNORECASE)
