"""JPEG decoders of common programs, to measure how the choice affects accuracy.

They differ by a few gray levels: in the exactness of the transform, and in the upsampling of the
chroma of a 4:2:0 file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from rkzoo.errors import RkzooError
from rkzoo.vision.image import Array, check, decode, orientation, unreadable, upright

Image = NDArray[np.uint8]
Decoder = Callable[[bytes, Path], Image]

_OPENCV = "opencv"


def decoder(name: str) -> Decoder:
    """A JPEG decoder by name.

    Args:
        name: One of DECODERS. All but `opencv` decode gray and color JPEG themselves and leave
            other files to OpenCV.

    Returns:
        A function of a file's bytes and name -> BGR uint8 (H, W, 3), EXIF orientation applied,
        which raises as `image.decode` does.

    Raises:
        RkzooError: The name is unknown, or a package is missing.
    """
    if name not in DECODERS:
        raise RkzooError(
            f"There is no image decoder {name!r}.", "", f"Known ones: {', '.join(DECODERS)}."
        )
    return DECODERS[name]()


def _opencv() -> Decoder:
    return decode


def _pillow() -> Decoder:
    return partial(_jpeg, _by_pillow)


def _turbo(fast: bool) -> Decoder:
    """libjpeg-turbo with the exact DCT and smooth chroma upsampling, or the fast ones."""
    try:
        library = import_module("simplejpeg")
    except ImportError as error:
        raise RkzooError(
            "libjpeg-turbo is not available here.",
            f"The package simplejpeg is not installed ({error}).",
            "Install it with: pip install simplejpeg",
        ) from error
    return partial(_jpeg, partial(_by_turbo, library, fast))


DECODERS: Mapping[str, Callable[[], Decoder]] = {
    _OPENCV: _opencv,
    "pillow": _pillow,
    "turbo-exact": partial(_turbo, False),
    "turbo-fast": partial(_turbo, True),
}


def _jpeg(read: Callable[[bytes], Array], data: bytes, path: Path) -> Image:
    check(data, path)
    if not _is_plain(data):
        return decode(data, path)
    try:
        image = read(data)
    except Exception as error:  # Pillow raises many kinds of errors at a damaged header
        raise unreadable(path) from error
    held = orientation(JpegImagePlugin.JpegImageFile, data)
    return np.asarray(upright(image, held), np.uint8)


def _is_plain(data: bytes) -> bool:
    """Whether it is a JPEG, and not CMYK."""
    if not data.startswith(b"\xff\xd8"):
        return False
    try:
        return _opened(data).mode in ("RGB", "L")
    except Exception:
        return True  # let the decoder decide


def _opened(data: bytes) -> JpegImagePlugin.JpegImageFile:
    return JpegImagePlugin.JpegImageFile(io.BytesIO(data), "")


def _by_pillow(data: bytes) -> Array:
    return np.asarray(_opened(data).convert("RGB"))[..., ::-1]


def _by_turbo(library: Any, fast: bool, data: bytes) -> Array:
    image: Array = library.decode_jpeg(data, "BGR", fastdct=fast, fastupsample=fast)
    return image
