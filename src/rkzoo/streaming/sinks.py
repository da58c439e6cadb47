"""Output sinks: video file, JSON Lines, window. (The live page is in `live`.)"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import IO, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, os_errors_explained
from rkzoo.json_values import json_text
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.streaming.encoders import Writer, encoder_for, slow_hint
from rkzoo.streaming.sources import Frame
from rkzoo.vision.letterbox import fit

Image = NDArray[np.uint8]

# A gap in a live source is filled with its last frame up to this length, seconds.
_LONGEST_GAP = 5.0


@dataclass
class RenderedFrame:
    """A processed frame on its way to the sinks. `found` is the task's result; `seconds` stores the
    time of drawing, `source` is the name of where it came from.
    """

    frame: Frame
    prediction: Any
    paint: Callable[[Any, Image], Image]
    source: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def picture(self) -> Image:
        """BGR image (H, W, 3) with the result drawn; drawn once, on first access."""
        start = perf_counter()
        drawn = self.paint(self.prediction, self.frame.image)
        self.seconds["draw"] = perf_counter() - start
        return drawn


class Sink(Protocol):
    """Receives every processed frame in order, from one thread, with `take`.

    `over`: no more frames are wanted, so the stream ends. `place`: where the output goes.
    """

    @property
    def over(self) -> bool: ...

    @property
    def place(self) -> str: ...

    def take(self, shown: RenderedFrame) -> None: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *error: Any) -> None: ...


class _Sink:
    """Base class of file sinks: an exit stack releases everything, on success and failure."""

    over = False
    place = ""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


class JsonLines(_Sink):
    """JSON Lines output, one object per frame: source, number, seconds since the first frame,
    position and file where known, width, height, results.

    `path` None writes to stdout, flushed per line; a file appears when the stream ends, unless it
    ended before its first frame.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._out: IO[str] = sys.stdout
        self._first: float | None = None
        self.place = str(path) if path else "stdout"
        if path is not None:
            temporary = self._stack.enter_context(atomic_output(path))
            self._out = self._stack.enter_context(temporary.open("w", encoding="utf-8"))

    def __exit__(self, *error: Any) -> None:
        if self._first is None and error[0] is None:
            self.place, empty = "", _Empty()
            error = (_Empty, empty, None)
        super().__exit__(*error)

    def take(self, shown: RenderedFrame) -> None:
        """Write a frame. Ends the stream when the reader of stdout has closed it."""
        frame = shown.frame
        self._first = frame.taken if self._first is None else self._first
        record: dict[str, Any] = {
            "source": shown.source,
            "frame": frame.number,
            "seconds": round(frame.taken - self._first, 4),
        }
        if frame.position is not None:
            record["position"] = round(frame.position, 4)
        if frame.name:
            record["file"] = frame.name
        record["width"], record["height"] = frame.image.shape[1], frame.image.shape[0]
        record["results"] = shown.prediction.to_json()
        line = json_text(record, separators=(",", ":"))
        try:
            print(line, file=self._out, flush=self._out is sys.stdout)
        except BrokenPipeError:
            self.over = True


class VideoFile(_Sink):
    """Video file of the drawn frames, in the size of the first one; others are letterboxed.

    Args:
        path: the suffix selects container and codec (see `encoders`).
        fps: frame rate; 25 where None.
        live: repeat frames where some were dropped, so that the video plays in real time.
        report: is told what was written.

    Raises:
        RkzooError: unsupported suffix, or nothing here writes it so that it plays.
    """

    def __init__(
        self,
        path: Path,
        fps: float | None,
        *,
        live: bool,
        report: ProgressReporter = SILENT,
    ) -> None:
        super().__init__()
        self._path, self._fps, self._live = path, min(fps or 25.0, 120.0), live
        self.place = str(path)
        self._report = report
        self._encoder = encoder_for(path)
        if hint := slow_hint(self._encoder):
            report.note(hint)
        self._temporary = self._stack.enter_context(atomic_output(path))
        self._writer: Writer | None = None
        self._spec = ImageInput(size=(2, 2))
        self._start = 0.0
        self._written = 0
        self._last: Image | None = None

    def take(self, shown: RenderedFrame) -> None:
        picture = shown.picture
        if self._writer is None:
            self._begin(picture, shown.frame.taken)
        if picture.shape[:2] != self._spec.size:
            picture = fit(picture, self._spec)[0][0]
        # May be the frame itself, which is not modified any more.
        self._last, before = picture, self._last
        for _ in range(self._missing(shown.frame.taken) if self._live else 0):
            self._write(before if before is not None else picture)
        if not self._live or self._written <= self._due(shown.frame.taken):
            self._write(picture)

    def _write(self, picture: Image) -> None:
        if self._writer is not None:
            self._writer.write(picture)
            self._written += 1

    def _due(self, taken: float) -> int:
        """Frame index in the video at that time."""
        return round((taken - self._start) * self._fps)

    def _missing(self, taken: float) -> int:
        """Number of frames to fill with the last image before this one."""
        missing = self._due(taken) - self._written
        if missing > _LONGEST_GAP * self._fps:
            self._start += missing / self._fps
            return 0
        return max(0, missing)

    def _begin(self, picture: Image, taken: float) -> None:
        height, width = picture.shape[:2]
        # Encoders require even sizes.
        height, width = max(2, height - height % 2), max(2, width - width % 2)
        with os_errors_explained(f"{self._path} cannot be written."):
            self._temporary.touch()
        self._writer = self._encoder.open(self._temporary, self._fps, (width, height))
        # After an error the file is dropped, whatever its end says.
        self._stack.callback(_end_anyway, self._writer)
        self._start = taken
        self._spec = ImageInput(size=(height, width), color="BGR", pad=0)

    def __exit__(self, *error: Any) -> None:
        failure = self._finish() if error[0] is None else None
        if failure is None:
            super().__exit__(*error)
            return
        super().__exit__(type(failure), failure, None)
        if isinstance(failure, RkzooError):
            raise failure

    def _finish(self) -> Exception | None:
        """Error that prevents the video from being moved into place: no frame, or not readable."""
        if self._writer is None:
            self.place = ""
            return _Empty()
        try:
            self._writer.close()
        except RkzooError as error:
            return RkzooError(f"{self._path} cannot be written.", error.why, error.fix)
        # OpenCV does not report a full disk.
        written = cv2.VideoCapture(str(self._temporary))
        complete = written.isOpened() and written.grab()
        written.release()
        if complete:
            self._report.note(f"{self._path} is {self._encoder}.")
            return None
        return RkzooError(
            f"{self._path} cannot be written.",
            "What was written is not a readable video; the disk may be full.",
            "Free some space, or write to another disk.",
        )


def _end_anyway(writer: Writer) -> None:
    with suppress(RkzooError):
        writer.close()


class _Empty(Exception):
    """The stream ended before its first frame."""


class Window(_Sink):
    """Window that shows the drawn frames; q or Esc ends the stream."""

    place = "a window"

    def __init__(self, title: str) -> None:
        super().__init__()
        check_window()
        self._title = title
        self._stack.callback(self._close)
        with _gui():
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def take(self, shown: RenderedFrame) -> None:
        with _gui():
            cv2.imshow(self._title, shown.picture)
            key = cv2.waitKey(1) & 0xFF
            closed = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        self.over = key in (ord("q"), 27) or closed

    def _close(self) -> None:
        try:
            cv2.destroyWindow(self._title)
        except cv2.error:
            return  # the user closed it


def check_window() -> None:
    """Raise RkzooError where no window can be shown."""
    instead = "Look at it in a browser instead: --http"
    gui = next(
        (x for x in cv2.getBuildInformation().splitlines() if x.strip().startswith("GUI:")), ""
    )
    if gui.split()[-1:] == ["NONE"]:
        raise RkzooError(
            "No window can be shown.",
            "The OpenCV that is installed here is the headless one, which has none.",
            instead,
        )
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise RkzooError("No window can be shown.", "There is no screen here.", instead)


class _gui:  # noqa: N801 - a context manager
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, cv2.error):
            text = " ".join(str(error).split())[:200]
            raise RkzooError(
                "No window can be shown.", f"OpenCV says: {text}", "Use --http."
            ) from error
