"""Decoding by PyAV, where the user has it, through the methods of cv2.VideoCapture that are used.

It decodes on several threads, and on Rockchip's video hardware where its FFmpeg has those decoders
(pip install pyav-rkmpp; not measured on a board). PyAV is no dependency and no extra of rkzoo: its
wheels carry x264 and x265, which are GPL. NV12 pictures of the hardware are converted to BGR here;
they are not handed on to RGA.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import cv2

# Rockchip's media driver.
_MPP = Path("/dev/mpp_service")
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


def pyav() -> Any:
    """The package av, or None where it is not installed."""
    try:
        return import_module("av")
    except ImportError:
        return None


class PyavCapture:
    """A video file or URL. `decoder` names what decodes it.

    Args:
        av: the package.
        address: file or URL.
        silence: seconds to wait for an answer and for data.

    Raises:
        Exception: it cannot be opened or holds no picture; PyAV's errors are of many kinds.
    """

    def __init__(self, av: Any, address: str, silence: float) -> None:
        options = {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
        self._container = av.open(address, options=options, timeout=silence)
        try:
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
            self.decoder = ""
            self._frames = self._first_that_decodes(av)
        except BaseException:
            self._container.close()
            raise
        self._frame: Any = None

    def isOpened(self) -> bool:  # noqa: N802 - as OpenCV calls it
        return True

    def grab(self) -> bool:
        """Decode the next frame; False at the end and after an error."""
        try:
            self._frame = next(self._frames, None)
        except Exception:
            self._frame = None
        return self._frame is not None

    def retrieve(self) -> tuple[bool, Any]:
        """The frame as BGR uint8 (H, W, 3), upright."""
        image = self._frame.to_ndarray(format="bgr24")
        turn = _TURNS.get(round(getattr(self._frame, "rotation", 0)) % 360)
        return True, image if turn is None else cv2.rotate(image, turn)

    def get(self, name: int) -> float:
        """Number of frames, or frames per second; 0 where unknown."""
        if name == cv2.CAP_PROP_FPS:
            return float(self._stream.average_rate or 0)
        count = self._stream.frames
        if not count and self._stream.duration and self._stream.average_rate:
            seconds = self._stream.duration * self._stream.time_base
            count = round(seconds * self._stream.average_rate)
        return float(count)

    def release(self) -> None:
        self._container.close()

    def _first_that_decodes(self, av: Any) -> Iterator[Any]:
        """The frames, by the hardware where it decodes the first one."""
        name = f"{self._stream.codec_context.name}_rkmpp"
        if _MPP.exists() and name in av.codecs_available:
            with suppress(Exception):
                hardware = av.CodecContext.create(name, "r")
                hardware.extradata = self._stream.codec_context.extradata
                frames = self._decoded(hardware)
                first = next(frames)
                self.decoder = name
                return chain([first], frames)
            with suppress(Exception):  # a live stream has no beginning to return to
                self._container.seek(0)
        self.decoder = self._stream.codec_context.name
        return iter(self._container.decode(self._stream))

    def _decoded(self, decoder: Any) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            yield from decoder.decode(packet)
