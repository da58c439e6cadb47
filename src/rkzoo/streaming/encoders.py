"""Video encoders: which one writes a file, so that browsers play it.

H.264 is encoded by what the machine has, in the order of `_H264`: Rockchip's hardware, then a
program ffmpeg on the PATH (a process of its own, so its licence stays its own), then PyAV where
the user installed it, then OpenCV. PyAV is no dependency and no extra of rkzoo: its wheels carry
x264 and x265, which are GPL. OpenCV's wheel carries libvpx (BSD), and writes VP8 and VP9
everywhere; it has no encoder of H.264 but that of V4L2 devices. MPEG-4 part 2, which browsers do
not play, is never written. Hardware encoders were not measured on a board.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.session import Closeable

Image = NDArray[np.uint8]

# Size of the picture that an encoder is tried with; hardware refuses much smaller ones.
_TRIAL = (320, 240)
# How long a trial and the end of a file may take, seconds.
_TRIAL_SECONDS, _END_SECONDS = 20.0, 120.0
# Rate against quality; names as x264 has them. Other encoders use their own defaults.
_X264 = {"preset": "veryfast", "crf": "23"}


class Writer(Protocol):
    """A file being written. `write` takes BGR uint8 pictures of one size; `close` ends the file.
    Both raise RkzooError."""

    def write(self, picture: Image) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Encoder:
    """One way to write a video.

    Attributes:
        codec: name of the format, as it is told.
        program: `ffmpeg`, `PyAV` or `OpenCV`.
        name: of the encoder there (a four-character code for OpenCV).
    """

    codec: str
    program: str
    name: str

    def __str__(self) -> str:
        return f"{self.codec}, written by {self.program} ({self.name})"

    def open(self, path: Path, fps: float, size: tuple[int, int]) -> Writer:
        """Begin a file of (width, height) pixels, both even. Raises RkzooError."""
        return _WRITERS[self.program](path, self.name, fps, size)

    @property
    def works(self) -> bool:
        """Whether it is here and encodes a picture; tried once."""
        return _works(self)


_H264 = (
    Encoder("H.264", "ffmpeg", "h264_rkmpp"),
    Encoder("H.264", "PyAV", "h264_rkmpp"),
    Encoder("H.264", "ffmpeg", "h264_videotoolbox"),
    Encoder("H.264", "ffmpeg", "libx264"),
    Encoder("H.264", "ffmpeg", "libopenh264"),
    Encoder("H.264", "PyAV", "libx264"),
    Encoder("H.264", "PyAV", "libopenh264"),
    Encoder("H.264", "OpenCV", "avc1"),
)
_VP9 = Encoder("VP9", "OpenCV", "VP90")
_ENCODERS = {
    ".mp4": (*_H264, _VP9),
    ".m4v": _H264,
    ".mov": _H264,
    ".mkv": (*_H264, _VP9),
    # VP8, since OpenCV cannot tell its VP9 to hurry.
    ".webm": (Encoder("VP8", "OpenCV", "VP80"), _VP9),
    ".avi": (Encoder("Motion JPEG", "OpenCV", "MJPG"),),
}
SUFFIXES = tuple(_ENCODERS)


def encoder_for(path: Path) -> Encoder:
    """The first encoder for a file's suffix that works here.

    Raises:
        RkzooError: the suffix is unknown, or nothing here writes what plays.
    """
    suffix = path.suffix.lower()
    if suffix not in _ENCODERS:
        raise RkzooError(
            f"{path} is not a video format that can be written.",
            f"The suffix selects the format, and {path.suffix or 'none'} is not supported.",
            f"Use one of {', '.join(SUFFIXES)}.",
        )
    found = next((one for one in _ENCODERS[suffix] if one.works), None)
    if found is None:
        raise RkzooError(
            f"{path} cannot be written so that browsers play it.",
            f"No encoder of {_ENCODERS[suffix][0].codec} works here.",
            f"Write {path.with_suffix('.webm').name}, or install ffmpeg (apt install ffmpeg).",
        )
    return found


def slow_hint(encoder: Encoder) -> str:
    """What to do where only a slow encoder is left; "" for others."""
    if encoder is not _VP9:
        return ""
    return "VP9 is slow to encode: .webm is faster here, and so is .mp4 with ffmpeg installed."


@cache
def _works(encoder: Encoder) -> bool:
    if encoder.program == "ffmpeg" and not shutil.which("ffmpeg"):
        return False
    suffix = ".mp4" if encoder in _H264 else ".avi" if encoder.name == "MJPG" else ".webm"
    picture = np.zeros((_TRIAL[1], _TRIAL[0], 3), np.uint8)
    with tempfile.TemporaryDirectory(prefix="rkzoo-") as folder:
        path = Path(folder) / f"trial{suffix}"
        try:
            writer = encoder.open(path, 25.0, _TRIAL)
            try:
                writer.write(picture)
            finally:
                writer.close()
        except RkzooError:
            return False
        return path.is_file() and path.stat().st_size > 0


class _ByOpenCV(Closeable):
    def __init__(self, path: Path, name: str, fps: float, size: tuple[int, int]) -> None:
        code = cv2.VideoWriter.fourcc(*name)
        with _silence():
            self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, size)
        if not self._writer.isOpened():
            raise _failed(f"OpenCV has no encoder {name} here, or the disk refuses.")

    def write(self, picture: Image) -> None:
        self._writer.write(picture)

    def close(self) -> None:
        self._writer.release()


class _ByFfmpeg(Closeable):
    """A child process that is fed raw pictures. In a session of its own: Ctrl-C is ours to act on,
    and the end of its input ends the file."""

    def __init__(self, path: Path, name: str, fps: float, size: tuple[int, int]) -> None:
        program = shutil.which("ffmpeg")
        if program is None:
            raise _failed("There is no program ffmpeg.")
        options = _X264 if name == "libx264" else {}
        command = [
            program, "-v", "error", "-nostdin", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24",
            "-s", f"{size[0]}x{size[1]}", "-r", str(_rate(fps)), "-i", "pipe:0", "-an",
            "-c:v", name, *(word for key in options for word in (f"-{key}", options[key])),
            "-pix_fmt", "yuv420p", *_quick_start(path), str(path),
        ]  # fmt: skip
        self._stack = ExitStack()
        told = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the stack
        self._told = self._stack.enter_context(told)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._told,
                start_new_session=True,
            )
        except OSError as error:
            self._stack.close()
            raise _failed(f"ffmpeg cannot be started: {error}.") from error

    def write(self, picture: Image) -> None:
        try:
            self._process.stdin.write(np.ascontiguousarray(picture).data)  # type: ignore[union-attr]
        except OSError as error:
            raise self._failure() from error

    def close(self) -> None:
        process = self._process
        with self._stack:
            if process.returncode is not None:
                return
            try:
                if process.stdin is not None:
                    process.stdin.close()
                process.wait(_END_SECONDS)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
                process.wait()
            if process.returncode:
                raise self._failure()

    def _failure(self) -> RkzooError:
        self._told.seek(0)
        lines = self._told.read().decode("utf-8", "replace").strip().splitlines()
        return _failed(f"ffmpeg says: {lines[-1][:200]}" if lines else "ffmpeg ended.")


class _ByPyAV(Closeable):
    def __init__(self, path: Path, name: str, fps: float, size: tuple[int, int]) -> None:
        try:
            self._av: Any = import_module("av")
        except ImportError as error:
            raise _failed("PyAV is not installed.") from error
        options = {"movflags": "faststart"} if _quick_start(path) else {}
        self._stack = ExitStack()
        with _av_errors(self._stack):
            self._container = self._av.open(str(path), "w", options=options)
            self._stack.callback(self._container.close)
            self._stream = self._container.add_stream(name, rate=_rate(fps))
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = _X264 if name == "libx264" else {}
            self._stream.codec_context.open()

    def write(self, picture: Image) -> None:
        with _av_errors():
            frame = self._av.VideoFrame.from_ndarray(picture, format="bgr24")
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        with self._stack, _av_errors():
            if self._container is not None:
                self._container.mux(self._stream.encode())
                self._container = None


_WRITERS: dict[str, Callable[[Path, str, float, tuple[int, int]], Writer]] = {
    "OpenCV": _ByOpenCV,
    "ffmpeg": _ByFfmpeg,
    "PyAV": _ByPyAV,
}


class _av_errors:  # noqa: N801 - a context manager
    """What PyAV raises, as RkzooError; `stack` is closed then."""

    def __init__(self, stack: ExitStack | None = None) -> None:
        self._stack = stack

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # PyAV's errors are OSError, ValueError and others, by FFmpeg's code.
        if isinstance(error, Exception):
            if self._stack is not None:
                self._stack.close()
            text = " ".join(str(error).split())[:200]
            raise _failed(f"PyAV says: {text}") from error


class _silence:  # noqa: N801 - a context manager
    """OpenCV says nothing of what is tried in vain, neither in its log nor, where it writes there
    itself, on descriptor 2."""

    def __enter__(self) -> None:
        self._level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._stderr = os.dup(2)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)

    def __exit__(self, *error: Any) -> None:
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        cv2.utils.logging.setLogLevel(self._level)


def _rate(fps: float) -> Fraction:
    """As a fraction that containers hold exactly (29.97 is 30000/1001)."""
    ntsc = Fraction(round(fps * 1001 / 1000) * 1000, 1001)
    return ntsc if abs(float(ntsc) - fps) < 0.005 else Fraction(fps).limit_denominator(1000)


def _quick_start(path: Path) -> list[str]:
    """The index in front, so that a browser plays before all has arrived."""
    return ["-movflags", "+faststart"] if path.suffix.lower() in (".mp4", ".m4v", ".mov") else []


def _failed(why: str) -> RkzooError:
    return RkzooError(
        "The video cannot be written.", why, "Free some space, or try another suffix, e.g. .webm."
    )
