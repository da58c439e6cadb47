"""Every JPEG decoder gives the same picture, upright and BGR, or one sentence."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rkzoo.errors import RkzooError
from rkzoo.vision.decoders import DECODERS, decoder

NAME = Path("picture.jpg")
OTHERS = [name for name in DECODERS if name != "opencv"]


def scene() -> np.ndarray:
    """Smooth colours with sharp edges, 45 high and 70 wide, BGR."""
    y, x = np.mgrid[0:45, 0:70]
    image = np.stack((3 * x, 5 * y, 255 - 2 * x - y), axis=-1).astype(np.uint8)
    image[10:20, 30:40] = (0, 0, 255)
    return image


def jpeg(mode: str = "RGB", held: int = 1, subsampling: int = 2) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = held
    buffer = io.BytesIO()
    image = Image.fromarray(scene()[..., ::-1]).convert(mode)
    image.save(buffer, "JPEG", quality=90, subsampling=subsampling, exif=exif)
    return buffer.getvalue()


@pytest.fixture(params=OTHERS)
def name(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("turbo"):
        pytest.importorskip("simplejpeg", reason="the package simplejpeg is not installed")
    return request.param


@pytest.mark.parametrize("held", range(1, 9))
def test_as_opencv_within_some_grey_levels_and_upright(name: str, held: int) -> None:
    data = jpeg(held=held)
    expected, found = decoder("opencv")(data, NAME), decoder(name)(data, NAME)
    assert found.shape == expected.shape == ((45, 70, 3) if held < 5 else (70, 45, 3))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - expected).mean() < 8


def test_fast_is_not_exact() -> None:
    pytest.importorskip("simplejpeg", reason="the package simplejpeg is not installed")
    data = jpeg()
    exact, fast = decoder("turbo-exact")(data, NAME), decoder("turbo-fast")(data, NAME)
    near = decoder("opencv")(data, NAME).astype(int)
    assert 0 < np.abs(fast - near).mean() > np.abs(exact - near).mean()


def test_grey_and_cmyk(name: str) -> None:
    for mode, most in (("L", 2), ("CMYK", 0)):
        data = jpeg(mode)
        expected, found = decoder("opencv")(data, NAME), decoder(name)(data, NAME)
        assert np.abs(found.astype(int) - expected).mean() <= most, mode


def test_another_format_is_left_to_opencv(name: str) -> None:
    data = cv2.imencode(".png", scene())[1].tobytes()
    np.testing.assert_array_equal(decoder(name)(data, Path("a.png")), scene())


@pytest.mark.parametrize("data", [b"", b"no picture", jpeg()[:-200], b"\xff\xd8\xff\xd9"])
def test_what_is_no_picture_is_one_sentence(name: str, data: bytes) -> None:
    with pytest.raises(RkzooError, match=r"picture\.jpg") as caught:
        decoder(name)(data, NAME)
    assert caught.value.fix


@settings(max_examples=40, deadline=None)
@given(
    place=st.integers(2, len(jpeg()) - 1), byte=st.integers(0, 255), which=st.sampled_from(OTHERS)
)
def test_a_damaged_byte_gives_a_picture_or_an_error(place: int, byte: int, which: str) -> None:
    data = bytearray(jpeg())
    data[place] = byte
    try:
        image = decoder(which)(bytes(data), NAME)
    except RkzooError:
        return
    assert image.ndim == 3
    assert image.shape[2] == 3


def test_an_unknown_name_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RkzooError, match="turbo-exact"):
        decoder("gdi")
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(RkzooError, match="pip install simplejpeg"):
        decoder("turbo-fast")
