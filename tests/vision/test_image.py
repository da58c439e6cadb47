"""Pictures as people have them: a right picture, or one sentence."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.vision.image import read, write
from rkzoo.vision.letterbox import fit


def smooth(height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """RGB without sharp edges, so that JPEG changes little; no symmetry."""
    small = np.random.default_rng(3).integers(0, 255, (4, 5, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def refused(path: Path) -> RkzooError:
    with pytest.raises(RkzooError) as caught:
        read(path)
    error = caught.value
    assert str(path) in error.what
    assert error.fix
    assert "\n" not in error.what + error.why + error.fix
    return error


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".ppm"])
def test_formats_without_loss(tmp_path: Path, suffix: str) -> None:
    rgb = smooth()
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path / f"a b 中文{suffix}", Image.fromarray(rgb), **options)
    np.testing.assert_array_equal(read(path), rgb[:, :, ::-1])


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_every_png_becomes_three_channels(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(smooth()).convert(mode)
    got = read(saved(tmp_path / "p.png", picture))
    want = np.asarray(picture.convert("RGB"))[:, :, ::-1]
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - want).max() <= 1


def test_alpha_is_dropped_and_not_blended(tmp_path: Path) -> None:
    rgba = np.dstack([smooth(), np.zeros((60, 80), np.uint8)])
    np.testing.assert_array_equal(
        read(saved(tmp_path / "p.png", Image.fromarray(rgba, "RGBA"))), rgba[:, :, 2::-1]
    )


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_and_not_cut_off(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    wide = np.linspace(0, 65535, 50 * 70 * channels).astype(np.uint16).reshape(50, 70, channels)
    path = tmp_path / f"p{suffix}"
    cv2.imencode(suffix, wide)[1].tofile(path)
    got = read(path).astype(np.float64)
    assert got.shape == (50, 70, 3)
    assert np.abs(got - wide / 257).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_the_picture_stands_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    rgb = smooth()
    # What each value asks for: https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf, 4.6.4 A
    want = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: np.rot90(rgb, 2).transpose(1, 0, 2),
        8: np.rot90(rgb),
    }[orientation][:, :, ::-1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 95}, ".webp": {"lossless": True}}.get(suffix, {})
    path = saved(tmp_path / f"p{suffix}", Image.fromarray(rgb), exif=exif, **options)
    got = read(path)
    assert got.shape == want.shape == ((60, 80, 3) if orientation < 5 else (80, 60, 3))
    assert np.abs(got.astype(int) - want).mean() < 2


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_has_the_right_colours(tmp_path: Path, adobe: bool) -> None:
    rgb = smooth()
    path = saved(tmp_path / "p.jpg", Image.fromarray(rgb).convert("CMYK"), quality=95)
    if not adobe:
        # Pillow writes Adobe's segment, which says that the inks are stored inverted.
        data = path.read_bytes()
        at = data.index(b"\xff\xee")
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        path.write_bytes(data[:at] + data[at + length :])
    with Image.open(path) as opened:
        assert opened.mode == "CMYK"
        want = np.asarray(opened.convert("RGB"))[:, :, ::-1]
    if adobe:
        assert np.abs(want[:, :, ::-1].astype(int) - rgb).mean() < 5
    assert np.abs(read(path).astype(int) - want).max() <= 3


# ---- broken files -------------------------------------------------------------------


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").touch()
    assert "is empty" in refused(tmp_path / "p.jpg").what


def test_no_picture_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_text("<html>not found</html>")
    assert "not a picture" in refused(tmp_path / "p.jpg").what
    refused(tmp_path / "nothing here.png")
    refused(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", {}),
        (".jpg", {"progressive": True}),
        (".jpg", {"restart_marker_rows": 1}),
        (".png", {}),
        (".webp", {}),
        (".bmp", {}),
        (".tif", {}),
        (".tif", {"compression": "tiff_lzw"}),
    ],
)
def test_a_file_cut_short_is_never_half_a_picture(
    tmp_path: Path, suffix: str, options: dict[str, object], share: float
) -> None:
    path = saved(tmp_path / f"p{suffix}", Image.fromarray(smooth(200, 300)), **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    error = refused(path)
    if suffix in (".jpg", ".png"):
        assert "cut short" in error.what


def test_the_end_of_a_thumbnail_is_not_the_end(tmp_path: Path) -> None:
    small = io.BytesIO()
    Image.fromarray(smooth(16, 16)).save(small, "jpeg")
    path = saved(tmp_path / "p.jpg", Image.fromarray(smooth(200, 300)))
    whole = path.read_bytes()
    body = b"Exif\0\0" + small.getvalue()
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    path.write_bytes(whole[:2] + segment + whole[2:])
    assert read(path).shape == (200, 300, 3)
    path.write_bytes((whole[:2] + segment + whole[2:])[: -len(whole) // 2])
    assert "cut short" in refused(path).what


def test_the_preallocated_rest_of_a_download(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.jpg", Image.fromarray(smooth(200, 300)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
    assert "cut short" in refused(path).what


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xff\xd8 a second picture", b"\n"])
def test_bytes_behind_the_end_do_no_harm(tmp_path: Path, suffix: str, tail: bytes) -> None:
    path = saved(tmp_path / f"p{suffix}", Image.fromarray(smooth()))
    before = read(path)
    path.write_bytes(path.read_bytes() + tail)
    np.testing.assert_array_equal(read(path), before)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path = tmp_path / "p.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    error = refused(path)
    assert "60000 wide and 60000 high" in error.why
    assert "200 megapixels" in error.why


def test_a_bomb_of_the_other_formats(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.jpg", Image.fromarray(smooth()))
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    path.write_bytes(data)
    assert "too large" in refused(path).what
    path = tmp_path / "p.pgm"
    path.write_bytes(b"P5 50000 50000 255\n\0")
    assert "too large" in refused(path).what


# ---- odd shapes ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (100, 8000), (8000, 100), (1, 5000), (3, 2)])
def test_odd_shapes_fit(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "p.png"
    write(path, np.full((*shape, 3), 200, np.uint8))
    canvas, box = fit(read(path), ImageInput(size=(640, 640)))
    assert canvas.shape == (1, 640, 640, 3)
    inside = canvas[0, box.top : box.top + box.scaled[0], box.left : box.left + box.scaled[1]]
    assert (inside == 200).all()
    assert (canvas == 114).sum() == canvas.size - inside.size
    corners = np.array(
        [[box.left, box.top, box.left + box.scaled[1], box.top + box.scaled[0]]], np.float32
    )
    height, width = shape
    np.testing.assert_allclose(box.boxes_to_source(corners), [[0, 0, width, height]], rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (100, 8000), (8000, 100)])
def test_detection_on_odd_shapes(assets: Path, shape: tuple[int, int]) -> None:
    import rkzoo

    with rkzoo.load(assets / "models/yolov8n.onnx", confidence=0.001) as model:
        found = model(np.full((*shape, 3), 90, np.uint8)).prediction
    assert isinstance(found, rkzoo.Detections)
    assert np.isfinite(found.xyxy).all()
    assert (found.xyxy[:, 0::2] <= shape[1]).all()
    assert (found.xyxy[:, 1::2] <= shape[0]).all()


def test_a_bus_in_every_dress(assets: Path, tmp_path: Path) -> None:
    """The same objects in grey, transparent, 16-bit and CMYK forms of one picture."""
    import rkzoo

    with Image.open(assets / "data/images/bus_640.jpg") as opened:
        plain = opened.convert("RGB")
    wide = tmp_path / "sixteen.png"
    cv2.imencode(".png", np.asarray(plain)[:, :, ::-1].astype(np.uint16) * 257)[1].tofile(wide)
    files = [
        wide,
        saved(tmp_path / "grey.png", plain.convert("L")),
        saved(tmp_path / "clear 透明.png", plain.convert("RGBA")),
        saved(tmp_path / "ink.jpg", plain.convert("CMYK"), quality=95),
    ]
    with rkzoo.load(assets / "models/yolov8n.onnx") as model:
        for file in files:
            names = sorted(r["label"] for r in model(file).to_json()["results"])
            assert names.count("bus") == 1, (file, names)
            assert names.count("person") >= 3, (file, names)
