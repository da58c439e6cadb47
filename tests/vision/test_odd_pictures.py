"""Files that are called pictures: each is read rightly, or refused in a sentence that says what it
is, and no library prints a line of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rkzoo.errors import RkzooError
from rkzoo.vision.image import read

PIXELS = (np.arange(48 * 64 * 3) % 251).reshape(48, 64, 3).astype(np.uint8)  # RGB
Written = Callable[[Path], object]


def by_pillow(mode: str, **options: object) -> Written:
    return lambda path: Image.fromarray(PIXELS).convert(mode).save(path, **options)


def by_opencv(factor: float, kind: type) -> Written:
    return lambda path: cv2.imwrite(
        str(path), (PIXELS[..., ::-1].astype(float) * factor).astype(kind)
    )


def animated(path: Path) -> None:
    first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    first.save(path, save_all=True, append_images=[second], lossless=True)


@pytest.mark.parametrize(
    ("name", "write", "off"),
    [
        ("16.png", by_opencv(257, np.uint16), 0),
        ("16.tif", by_opencv(257, np.uint16), 0),
        ("cmyk.tif", by_pillow("CMYK"), 1),
        ("deflate.tif", by_pillow("RGB", compression="tiff_deflate"), 0),
        ("animated.webp", animated, 0),
        ("animated.gif", animated, 40),
        ("png.jpg", by_pillow("RGB", format="PNG"), 0),
    ],
)
def test_it_is_read(name: str, write: Written, off: int, tmp_path: Path, capfd) -> None:
    write(tmp_path / name)
    image = read(tmp_path / name)
    assert np.abs(image[..., ::-1].astype(int) - PIXELS).max() <= off
    assert capfd.readouterr().err == ""


def damaged(write: Written, suffix: str, spoil: Callable[[bytearray], bytes]) -> Written:
    def written(path: Path) -> None:
        whole = path.with_name(f"whole{suffix}")
        write(whole)
        path.write_bytes(spoil(bytearray(whole.read_bytes())))

    return written


def cut(data: bytearray) -> bytes:
    return bytes(data[: len(data) * 2 // 3])


def flipped(data: bytearray) -> bytes:
    data[len(data) // 2] ^= 255
    return bytes(data)


def beginning(data: bytes) -> Written:
    return lambda path: path.write_bytes(data + bytes(500))


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("float.tif", by_opencv(1 / 255, np.float32), "32-bit floating point"),
        ("double.tif", by_opencv(1 / 255, np.float64), "64-bit floating point"),
        ("cut.png", damaged(by_pillow("RGB"), ".png", cut), "cut short"),
        ("cut.jpg", damaged(by_pillow("RGB"), ".jpg", cut), "cut short"),
        ("cut.gif", damaged(by_pillow("P"), ".gif", cut), "cut short"),
        ("cut.bmp", damaged(by_pillow("RGB"), ".bmp", cut), "cut short"),
        ("cut.tif", damaged(by_pillow("RGB"), ".tif", cut), "cut short"),
        ("cut.webp", damaged(by_pillow("RGB"), ".webp", cut), "cut short"),
        ("crc.png", damaged(by_pillow("RGB"), ".png", flipped), "damaged"),
        ("phone.jpg", beginning(b"\0\0\0\x18ftypheic\0\0\0\0"), "HEIC"),
        ("new.png", beginning(b"\0\0\0\x18ftypavif\0\0\0\0"), "AVIF"),
        ("film.jpg", beginning(b"\0\0\0\x18ftypisom\0\0\0\0"), "video"),
        ("page.jpg", beginning(b"<!DOCTYPE html><html>"), "web page"),
        ("drawing.png", beginning(b"<svg xmlns="), "SVG"),
        ("scan.png", beginning(b"%PDF-1.7"), "PDF"),
        ("lfs.jpg", beginning(b"version https://git-lfs.github.com/spec/v1"), "Git LFS"),
        ("text.jpg", beginning(b"hello"), "damaged"),
    ],
)
def test_it_is_refused_in_words(
    name: str, write: Written, words: str, tmp_path: Path, capfd, recwarn
) -> None:
    write(tmp_path / name)
    with pytest.raises(RkzooError, match=words) as caught:
        read(tmp_path / name)
    assert name in caught.value.what
    assert caught.value.fix
    assert capfd.readouterr().err == ""
    assert not recwarn.list


def test_cmyk_jpeg_has_the_colours_that_pillow_reads(tmp_path: Path) -> None:
    flat = np.full((32, 32, 3), (200, 60, 30), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB")).astype(int)
    assert np.abs(read(tmp_path / "a.jpg")[..., ::-1].astype(int) - expected).max() <= 4


def test_what_others_write_meanwhile_is_passed_on(tmp_path: Path, capfd, monkeypatch) -> None:
    import os

    decode = cv2.imdecode

    def noisy(*given: object) -> object:
        os.write(2, b"libpng warning: iCCP: known incorrect sRGB profile\nWorking ... 3 of 9\n")
        return decode(*given)

    data = io.BytesIO()
    Image.fromarray(PIXELS).save(data, "PNG")
    (tmp_path / "a.png").write_bytes(data.getvalue())
    monkeypatch.setattr(cv2, "imdecode", noisy)
    read(tmp_path / "a.png")
    assert capfd.readouterr().err == "Working ... 3 of 9\n"
