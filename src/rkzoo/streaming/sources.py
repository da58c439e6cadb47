"""Where frames come from: a camera, a video file, a network stream, pictures.

A source is read by one thread, frame after frame. What outruns the model is not the source's
matter: a live source is simply read as fast as it comes, and the pool lets go of old frames.
"""

from __future__ import annotations

import os
import re
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
from rkzoo.progress import SILENT, Reporter
from rkzoo.vision.image import SUFFIXES, expand, read

# FFmpeg inside OpenCV would write its own remarks on stderr. Read once, when it starts.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
import cv2

Image = NDArray[np.uint8]

# A connection that says nothing for so long is dead, milliseconds.
_SILENCE_MS = 4000
# Waits between attempts to get a lost source back, seconds. The longest one and the time to
# connect stay below 5 s together.
_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0)
_URL = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_CAMERA = re.compile(r"^(?:/dev/video)?(\d+)$")


@dataclass(frozen=True)
class Frame:
    """One picture of a source: BGR uint8 (H, W, 3), its number from 0, when it was there
    (perf_counter) and how long reading it took, seconds. `name` is the file's, where each
    picture has its own; `position` its time in the video, seconds, where that is known."""

    image: Image
    number: int
    taken: float
    reading: float
    name: str = ""
    position: float | None = None


class Source(Protocol):
    """`live`: frames come when they come, whether somebody takes them or not. `fps` and `total`
    (frames) where they are known beforehand. `reconnects` counts how often it was lost and
    found. `frames` ends with the source or soon after `stop` is set; it is called once, and
    the thread that runs it closes the source."""

    name: str
    live: bool
    fps: float | None
    total: int | None
    reconnects: int

    def frames(self, stop: threading.Event) -> Iterator[Frame]: ...

    def close(self) -> None: ...


def open_source(text: str, *, give_up: float | None = None, report: Reporter = SILENT) -> Source:
    """What the user named: a number or /dev/videoN (camera), a URL, a video file, or a picture,
    folder or glob of pictures.

    A live source that is lost is tried again with growing waits of up to 2 s, for `give_up`
    seconds (None: for ever). Raises RkzooError when it cannot be opened at first.
    """
    if found := _CAMERA.match(text):
        return Video(text, int(found[1]), live=True, give_up=give_up, report=report)
    if found := _URL.match(text):
        if found[1].lower() == "file":
            return open_source(text[len("file://") :], give_up=give_up, report=report)
        return Video(text, text, live=None, give_up=give_up, report=report)
    path = Path(text).expanduser()
    if path.is_dir() or path.suffix.lower() in SUFFIXES or not path.exists():
        return Pictures(_pictures(text, path))
    return Video(text, str(path), live=False, report=report)


def _pictures(text: str, path: Path) -> list[Path]:
    try:
        return expand([str(path)])
    except RkzooError as error:
        raise RkzooError(
            f"There is no source {text}.",
            "It is no camera's number, no URL, no video and nothing that holds pictures.",
            "Give e.g. 0, /dev/video0, film.mp4, rtsp://camera/stream or a folder of pictures.",
        ) from error


class Pictures:
    """Picture files, one after another; sizes may differ."""

    live = False
    fps: float | None = None
    reconnects = 0

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self.name = str(files[0] if len(files) == 1 else files[0].parent)
        self.total: int | None = len(files)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Raises RkzooError at a file that is no picture."""
        for number, file in enumerate(self._files):
            if stop.is_set():
                return
            start = perf_counter()
            image = read(file)
            now = perf_counter()
            yield Frame(image, number, now, now - start, name=str(file))

    def close(self) -> None:
        pass


class Video:
    """Anything OpenCV opens as a video. `live` None: live unless it says how long it is."""

    def __init__(
        self,
        name: str,
        what: int | str,
        *,
        live: bool | None,
        give_up: float | None = None,
        report: Reporter = SILENT,
    ) -> None:
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
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.live = live if live is not None else count <= 0
        self.total = count if not self.live and count > 0 else None
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        # 90000 and the like are clocks, not rates.
        self.fps: float | None = fps if 0.1 <= fps <= 1000 else None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Raises RkzooError when a lost live source does not come back in time."""
        number = 0
        self._reading = True
        try:
            while not stop.is_set():
                start = perf_counter()
                there = self._capture.grab()
                if self.live:
                    start = perf_counter()  # what came before was waiting for the camera
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
        """Does nothing while another thread reads: OpenCV would crash. That one closes it."""
        if not self._reading:
            self._capture.release()

    def _opened(self) -> Any:
        """An open capture, or None."""
        with _quiet():
            return self._try_to_open()

    def _try_to_open(self) -> Any:
        if isinstance(self._what, int):
            capture = cv2.VideoCapture(self._what)
            # A driver's queue would hand out old pictures.
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
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

    def _again(self, stop: threading.Event) -> bool:
        """Gets a lost source back; False when `stop` came first."""
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
        """Whether the video ended where it said that it would."""
        if not read:
            raise RkzooError(
                f"{self.name} holds no frame that can be read.",
                "It is damaged, cut short or of a kind that OpenCV does not know.",
                "Play it in a viewer to check, or convert it to H.264 in an .mp4.",
            )
        # Counts are estimates in some containers; a frame or two is no damage.
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
                "Look at what is there with: ls -l /dev/video*",
            )
        if _URL.match(self._what):
            return RkzooError(
                f"{self.name} cannot be opened.",
                "Nothing answers there, it asks for a password, or it sends no video.",
                "Check address, user and password: rtsp://USER:PASSWORD@HOST:554/PATH",
            )
        return RkzooError(
            f"{self.name} is no video that can be read.",
            "It is empty, damaged or of a kind that OpenCV does not know.",
            "Play it in a viewer to check, or convert it to H.264 in an .mp4.",
        )


class Paced:
    """A file played at its own speed, as if it were live."""

    live = True

    def __init__(self, source: Source, fps: float | None = None) -> None:
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


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV warns on stderr of what could not be opened, which we say ourselves."""
    logging = cv2.utils.logging
    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def _coloured(image: Any) -> Image:
    """Grey cameras give one channel."""
    if image.ndim == 2 or image.shape[2] == 1:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.asarray(image, np.uint8)


def _without_password(name: str) -> str:
    """An address as it may be shown and logged."""
    return re.sub(r"^([a-z][a-z0-9+.-]+://)[^/@]*@", r"\1", name, flags=re.IGNORECASE)
