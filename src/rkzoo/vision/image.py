"""Image file reading and writing."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, files_in, os_errors_explained, read_bytes
from rkzoo.native_output import without_library_lines
from rkzoo.vision.letterbox import with_channels

Array = NDArray[Any]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
ARRAY = ".npy"
"""Suffix of a picture kept as an array: uint8 (H, W), (H, W, 1), BGR (H, W, 3), BGRA (H, W, 4)."""

# A phone's largest image has 199.8 megapixels; a file of some kilobytes can claim far more.
MOST_PIXELS = 200_000_000
# Excludes markers without a length, and bytes that are no marker (inside compressed data FF is
# followed by 00 or a restart marker).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_END_OF_JPEG = 0xD9
_NPY = b"\x93NUMPY"
_PNG = b"\x89PNG\r\n\x1a\n"
# The plugins themselves, not Image.open, whose pixel limit is lower and a global variable.
_HEADERS: tuple[tuple[bytes, Callable[[io.BytesIO, str], ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8", JpegImagePlugin.JpegImageFile),
    (_PNG, PngImagePlugin.PngImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"II", TiffImagePlugin.TiffImageFile),
    (b"MM", TiffImagePlugin.TiffImageFile),
    (b"GIF8", GifImagePlugin.GifImageFile),
    (b"P", PpmImagePlugin.PpmImageFile),
)


def read(path: str | os.PathLike[str], *, alpha: bool = False) -> NDArray[np.uint8]:
    """Read an image file.

    Args:
        path: The file. Gray, transparent, CMYK and 16-bit (scaled) ones become the same form, and
            so does an .npy of uint8 (H, W), (H, W, 1), (H, W, 3) in BGR or (H, W, 4) in BGRA.
        alpha: Keep the alpha channel of a file that has one: BGRA (H, W, 4); otherwise it is
            dropped.

    Returns:
        BGR uint8 (H, W, 3), EXIF orientation applied.

    Raises:
        RkzooError: The file is missing, empty, truncated, larger than 200 megapixels, or no image.
    """
    path = Path(path)
    with os_errors_explained(f"The picture {path} cannot be read."):
        # Not cv2.imread: it does not distinguish a missing file from a broken one, and fails on
        # some non-ASCII paths.
        data = read_bytes(path)
    return from_bytes(data, path, alpha=alpha)


def from_bytes(data: bytes, path: Path, *, alpha: bool = False) -> NDArray[np.uint8]:
    """As `read`, for a file's bytes; `path` is its name in an error."""
    if data.startswith(_NPY):
        image = _array(data, path)
        return with_channels(image, 4 if alpha and image.shape[2] == 4 else 3)
    image = decode(data, path)
    opacity = _alpha(data, image) if alpha else None
    return image if opacity is None else np.dstack((image, opacity))


def _array(data: bytes, path: Path) -> NDArray[np.uint8]:
    """An image (H, W, C) from the bytes of an .npy."""
    try:
        image = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise unreadable(path) from error
    image = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise RkzooError(
            f"{path} is no picture.",
            f"It holds {image.dtype} {list(image.shape)}.",
            "A picture in an .npy is uint8 (height, width), or (height, width, channels) with 1, 3 "
            "(BGR) or 4 (BGRA) channels.",
        )
    if not image.size:
        raise unreadable(path)
    return np.ascontiguousarray(image)


def _alpha(data: bytes, image: Array) -> Array | None:
    """The alpha channel (H, W, 1) of the file of `image`; None for a file without one, and for a
    TIFF, whose colors OpenCV has multiplied by it."""
    opener = next((opener for magic, opener in _HEADERS if data.startswith(magic)), None)
    if opener not in (PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on EXIF data
        try:
            file = opener(io.BytesIO(data), "")
            if "A" not in file.getbands() and "transparency" not in file.info:
                return None
            alpha = np.asarray(file.convert("RGBA").getchannel("A"))[..., None]
        # OpenCV read the file; what Pillow raises of it can be nearly anything.
        except Exception:
            return None
    alpha = upright(alpha, orientation(opener, data))
    return alpha if alpha.shape[:2] == image.shape[:2] else None


def decode(data: bytes, path: Path) -> NDArray[np.uint8]:
    """As `from_bytes`, without an alpha channel and arrays."""
    check(data, path)
    how = cv2.IMREAD_COLOR
    if data.startswith(b"RIFF"):
        how |= cv2.IMREAD_IGNORE_ORIENTATION
    image: Array | None
    try:
        with without_library_lines():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        image = None
    if image is None or image.size == 0:
        raise unreadable(path, data)
    if data.startswith(b"RIFF"):
        # OpenCV 4 does not rotate a WebP, and 5 is told not to.
        image = upright(image, orientation(WebPImagePlugin.WebPImageFile, data))
    return np.asarray(image, np.uint8)


def check(data: bytes, path: Path) -> None:
    """Check a file before memory is allocated for its pixels.

    Args:
        data: The file's bytes.
        path: Its name in an error.

    Raises:
        RkzooError: The file is empty, truncated, or too large an image.
    """
    if not data:
        raise RkzooError(
            f"{path} is empty.", "The file has no bytes.", "Copy or download it again."
        )
    _check_size(path, data)
    if _is_cut_short(data):
        # OpenCV 4 would silently return such an image with a gray rest.
        raise RkzooError(
            f"{path} is cut short.",
            "The file ends before the picture does.",
            "Copy or download it again.",
        )


# What people take for a picture, by how it begins, and what helps.
_JPEG_OF_IT = "Convert it to JPEG or PNG."
_OTHER_KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (
        re.compile(rb"....ftyp(heic|heix|hevc|mif1|msf1|heim)", re.DOTALL),
        "It is a HEIC photograph, as phones take them.",
        "Convert it to JPEG, or let the phone take the most compatible format.",
    ),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "It is an AVIF picture.", _JPEG_OF_IT),
    (
        re.compile(rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", re.DOTALL),
        "It is a video.",
        "Give it to rkzoo stream.",
    ),
    (re.compile(rb"%PDF"), "It is a PDF.", "Convert its pages to PNG."),
    (
        re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE),
        "It is a web page, as servers send in place of a file.",
        "Download it again, from the file's own address.",
    ),
    (re.compile(rb"\s*(<\?xml|<svg)"), "It is an SVG or another text.", _JPEG_OF_IT),
    (re.compile(rb"PK\x03\x04|\x1f\x8b"), "It is an archive.", "Unpack it first."),
    (re.compile(rb"version https://git-lfs"), "It is a pointer of Git LFS.", "Run: git lfs pull"),
)


def unreadable(path: Path, data: bytes = b"") -> RkzooError:
    """The error for a file that no decoder can read."""
    for start, why, fix in _OTHER_KINDS:
        if start.match(data):
            return RkzooError(f"{path} is not a picture that can be read.", why, fix)
    if data.startswith((b"II", b"MM")) and (depth := _tiff_depth(data)):
        return RkzooError(
            f"{path} is not a picture that can be read.",
            f"It is a TIFF of {depth}.",
            "Save it with 8 or 16 bits a channel, whole numbers.",
        )
    return RkzooError(
        f"{path} is not a picture that can be read.",
        "The file is damaged, cut short or of an unknown format.",
        "Open it in a viewer to check, or convert it to JPEG or PNG.",
    )


def _tiff_depth(data: bytes) -> str:
    """What a TIFF's channels are, where they are no whole numbers of 8 or 16 bits."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on a damaged directory
        try:
            file.seek(tags.next)
            tags.load(file)
            bits, kind = max(tags.get(258, (8,))), max(tags.get(339, (1,)))
        except Exception:  # Pillow raises nearly anything of a damaged one
            return ""
    if kind == 3:
        return f"{bits}-bit floating point numbers, of which nothing says what is white"
    return f"{bits} bits a channel" if bits > 16 else ""


def orientation(opener: Callable[[io.BytesIO, str], ImageFile.ImageFile], data: bytes) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none."""
    try:
        return int(opener(io.BytesIO(data), "").getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data: the image itself was read
        return 1


def upright(image: Array, held: int) -> Array:
    """Apply an EXIF orientation (1 to 8) to an image (H, W, 3)."""
    if held in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if held in (3, 4, 7, 8):
        image = image[::-1]
    if held in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _check_size(path: Path, data: bytes) -> None:
    """Reads the header only, before memory is allocated for the pixels."""
    size = _declared_size(data)
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise RkzooError(
            f"{path} is too large a picture.",
            f"It says that it is {size[0]} wide and {size[1]} high; rkzoo reads up to "
            f"{MOST_PIXELS // 1_000_000} megapixels.",
            "Scale it down, or cut it into parts.",
        )


def _declared_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the header; None for a header that cannot be read."""
    opener = next((opener for magic, opener in _HEADERS if data.startswith(magic)), None)
    if opener is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about EXIF data
        try:
            width, height = opener(io.BytesIO(data), "").size
        # A damaged header makes Pillow raise many kinds of errors; OpenCV decides then.
        except Exception:
            return None
    return width, height


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; bytes after the end are ignored."""
    if data.startswith(b"\xff\xd8"):
        return not _jpeg_ends(data)
    if data.startswith(_PNG):
        return not _png_ends(data)
    return False


def _jpeg_ends(data: bytes) -> bool:
    """Follows the segments, so that the end of a thumbnail is not taken for the end."""
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        at = marker.start()
        if data[at + 1] == _END_OF_JPEG:
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _png_ends(data: bytes) -> bool:
    at = len(_PNG)
    while at + 8 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def write(path: Path, image: NDArray[np.uint8]) -> None:
    """Write BGR uint8 (H, W, 3) in the format of the suffix; JPEG when there is none.

    Raises:
        RkzooError: The format is unknown, or the file cannot be written.
    """
    path = Path(path)
    ok, data = cv2.imencode(path.suffix or ".jpg", image)
    if not ok:
        raise RkzooError(
            f"{path} cannot be written.", "The format is unknown.", "Use .jpg or .png."
        )
    with atomic_output(path) as temporary:
        data.tofile(temporary)


def as_png(image: NDArray[np.uint8]) -> bytes:
    """Encode BGR uint8 (H, W, 3) as PNG bytes."""
    return cv2.imencode(".png", image)[1].tobytes()


def expand(inputs: list[str]) -> list[Path]:
    """Resolve files, folders and globs to image files.

    Args:
        inputs: Paths or glob patterns.

    Returns:
        The files, sorted within each entry, without duplicates.

    Raises:
        RkzooError: An entry matches nothing.
    """
    paths: dict[Path, None] = {}
    for entry in inputs:
        matches = _matches(entry)
        if not matches:
            raise RkzooError(
                f"{entry} holds no picture.",
                "Nothing there, or no file with a picture's suffix.",
                f"Give a file, a folder or a glob; known suffixes: {', '.join(sorted(SUFFIXES))}.",
            )
        paths.update(dict.fromkeys(matches))
    return list(paths)


def _matches(entry: str) -> list[Path]:
    import glob

    path = Path(entry)
    if path.is_dir():
        return files_in(path, SUFFIXES) or files_in(path, {ARRAY})
    if path.exists():
        return [path]
    return sorted(Path(p) for p in glob.glob(entry, recursive=True) if Path(p).is_file())
