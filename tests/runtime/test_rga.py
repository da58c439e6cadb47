"""librga's binding on the stand-in (no figure of which says anything about a board), and the
rules of the hardware, from Rockchip's guide."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rga_standin import build
from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.runtime.rga import RgaLibrary
from rkzoo.runtime.rga_api import ENGINES, Format, Rect, Surface, engines, unsupported_reason
from rkzoo.vision.letterbox import border, fit, plan

GB = 1 << 30
BOTH = (ENGINES["RGA_2_Enhance"], ENGINES["RGA_3"])
TWO, THREE = ((engine,) for engine in BOTH)
SQUARE = Surface(640, 640, 640, Format.RGB)
WHOLE = Rect(0, 140, 640, 360)
HD = Surface(1920, 1080, 1920, Format.BGR)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("rga"))


@pytest.fixture
def library(built: Path) -> Iterator[RgaLibrary]:
    """Afterwards no picture may be known to the driver, and no rule broken."""
    yield RgaLibrary(str(built))
    left = build.state(built)
    assert (left.handles, left.misuse) == (0, 0), build.misuse(built)


# ---- rules --------------------------------------------------------------------------


def test_the_hardware_is_known_by_what_the_library_says_and_by_nothing_else() -> None:
    said = "RGA_api version       : v1.10.4_[0]\nRGA version           : RGA_2_Enhance RGA_3 \n"
    assert engines(said) == BOTH
    assert engines(said.replace("RGA_3", "RGA_9")) == ()
    assert engines("") == ()
    assert "unknown to rkzoo" in unsupported_reason((), HD, SQUARE, WHOLE, GB)


def surface(width: int, height: int, stride: int = 0, form: Format = Format.BGR) -> Surface:
    return Surface(width, height, stride or width, form)


@pytest.mark.parametrize(
    ("able", "source", "place", "memory", "why"),
    [
        (BOTH, HD, WHOLE, 16 * GB, ""),
        (TWO, HD, WHOLE, 4 * GB, ""),
        (TWO, HD, WHOLE, 8 * GB, "4 GB"),
        ((ENGINES["RGA_2_PRO"],), HD, WHOLE, 8 * GB, ""),
        # Rows: RGA2 4 pixels, RGA3 16, and where both are, 16.
        (TWO, surface(1084, 720), Rect(0, 0, 640, 425), GB, ""),
        (BOTH, surface(1084, 720), Rect(0, 0, 640, 425), GB, "multiple of 16"),
        (TWO, surface(1083, 720), Rect(0, 0, 640, 425), GB, "multiple of 4"),
        (TWO, surface(1083, 720, 1084), Rect(0, 0, 640, 425), GB, ""),
        # RGA3 alone makes things 8 times smaller at most; RGA2 beside it does more, but
        # reaches less memory.
        (THREE, surface(5120, 2880), Rect(0, 140, 640, 360), 8 * GB, ""),
        (THREE, surface(5136, 2880), Rect(0, 140, 640, 360), 8 * GB, "does not scale"),
        (BOTH, surface(5136, 2880), Rect(0, 140, 640, 360), 4 * GB, ""),
        (BOTH, surface(5136, 2880), Rect(0, 140, 640, 360), 8 * GB, "4 GB"),
        (BOTH, surface(16, 1080), Rect(0, 0, 257, 640), GB, "does not scale"),
        # RGA3's least is 68x2.
        (THREE, surface(64, 64), Rect(0, 0, 128, 128), GB, "does not scale"),
        (THREE, surface(80, 64), Rect(0, 0, 68, 2 + 62), GB, ""),
        (THREE, surface(80, 64), Rect(0, 0, 67, 64), GB, "does not scale"),
        (TWO, surface(64, 64), Rect(0, 0, 128, 128), GB, ""),
        (THREE, surface(8192, 1024), Rect(0, 0, 1040, 130), GB, "does not scale"),
        # NV12 comes in pairs.
        (BOTH, surface(1920, 1080, form=Format.NV12), WHOLE, GB, ""),
        (BOTH, surface(1919, 1080, 1920, Format.NV12), WHOLE, GB, "odd"),
        (BOTH, surface(1920, 1079, form=Format.NV12), WHOLE, GB, "odd"),
    ],
)
def test_rules(able: tuple, source: Surface, place: Rect, memory: int, why: str) -> None:
    said = unsupported_reason(able, source, SQUARE, place, memory)
    assert why in said
    assert bool(said) == bool(why)


def test_the_rule_for_rows_holds_for_the_model_too() -> None:
    narrow = Surface(250, 640, 250, Format.RGB)
    assert "model's input" in unsupported_reason(TWO, HD, narrow, Rect(0, 0, 250, 140), GB)


# ---- pictures -----------------------------------------------------------------------


def by_rga(library: RgaLibrary, image: np.ndarray, spec: ImageInput) -> np.ndarray:
    """As `fit`, through the library, with the target in this process as well."""
    height, width = spec.size
    canvas = np.zeros((height, width, 3), np.uint8)
    nv12 = image.ndim == 2
    rows = image.shape[0] * 2 // 3 if nv12 else image.shape[0]
    box = plan((rows, image.shape[1]), spec)
    border(canvas, box, spec.pad)
    form = Format.NV12 if nv12 else Format.BGR
    source = Surface(image.shape[1], rows, image.shape[1], form)
    target = Surface(width, height, width, Format[spec.color])
    place = Rect(box.left, box.top, box.scaled[1], box.scaled[0])
    assert unsupported_reason(library.engines, source, target, place, GB) == ""
    with (
        library.borrowed(canvas.ctypes.data, target) as there,
        library.borrowed(image.ctypes.data, source) as here,
    ):
        library.place(here, there, place)
    return canvas


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(5, 20), st.integers(5, 20)),
    height=st.integers(40, 400),
    columns=st.integers(5, 25),
    color=st.sampled_from(["RGB", "BGR"]),
    place=st.sampled_from(["center", "top-left"]),
    nv12=st.booleans(),
)
def test_bits_are_those_of_the_fallback_where_the_arithmetic_is(
    built: Path,
    size: tuple[int, int],
    height: int,
    columns: int,
    color: str,
    place: str,
    nv12: bool,
) -> None:
    """The stand-in computes as OpenCV's bilinear does. Where a picture grows, OpenCV takes
    another way, a level apart."""
    library = RgaLibrary(str(built))
    spec = ImageInput(size=(size[0] * 16, size[1] * 16), color=color, place=place)  # type: ignore[arg-type]
    height -= height % 2
    shape = (height * 3 // 2, columns * 16) if nv12 else (height, columns * 16, 3)
    image = np.random.default_rng(height).integers(0, 256, shape, dtype=np.uint8)
    box = plan((height, columns * 16), spec)
    if min(box.scaled[1], columns * 16) < 68 or box.scaled[0] < 2:
        return
    if not 1 / 8 <= box.scaled[0] / height <= 8:
        return
    canvas, _ = fit(image, spec)
    apart = np.abs(by_rga(library, image, spec).astype(int) - canvas[0])
    grows = box.scaled[0] > height or box.scaled[1] > columns * 16
    assert apart.max() <= int(grows)


def test_every_colour_order_lies_in_memory_as_opencv_has_it(library: RgaLibrary) -> None:
    image = np.zeros((80, 80, 3), np.uint8)
    image[..., 0] = 200  # blue
    for color, channel in (("BGR", 0), ("RGB", 2)):
        made = by_rga(library, image, ImageInput(size=(80, 80), color=color))  # type: ignore[arg-type]
        assert made[40, 40].tolist() == [200 if c == channel else 0 for c in range(3)]


def test_nv12_is_what_it_was_before_it_was_coded(library: RgaLibrary) -> None:
    """Against OpenCV's coder for the planes, not against its decoder alone."""
    spec = ImageInput(size=(128, 128), color="BGR")
    rows, columns = np.mgrid[0:128, 0:128]
    picture = np.stack([rows + 60, columns + 60, 250 - rows], -1).astype(np.uint8)
    planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    light, u, v = planes[:128], planes[128:160].reshape(64, 64), planes[160:].reshape(64, 64)
    nv12 = np.concatenate([light, np.stack([u, v], -1).reshape(64, 128)])
    made = by_rga(library, np.ascontiguousarray(nv12), spec)
    assert np.abs(made.astype(int) - picture).mean() < 3


# ---- faults -------------------------------------------------------------------------


def test_a_library_that_is_none_or_too_old_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "librga.so"
    other.write_bytes(b"no library")
    with pytest.raises(RkzooError, match="cannot be used"):
        RgaLibrary(str(other))
    old = tmp_path / "old.c"
    old.write_text("int c_RkRgaBlit(void) { return 0; }")
    library = build.build.compiled(tmp_path, name="librga-old.so", source=old)
    with pytest.raises(RkzooError, match=r"1\.8 or later"):
        RgaLibrary(str(library))


def test_a_failure_is_told_and_leaves_nothing_behind(
    library: RgaLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, spec = np.zeros((80, 80, 3), np.uint8), ImageInput(size=(80, 80))
    monkeypatch.setenv("RGA_STANDIN_FAIL", "improcess:0:-4")
    with pytest.raises(RkzooError, match="Illegal parameters"):
        by_rga(library, image, spec)
    monkeypatch.setenv("RGA_STANDIN_FAIL", "importbuffer_virtualaddr:0:0")
    with pytest.raises(RkzooError, match="does not accept"):
        by_rga(library, image, spec)


def test_the_stand_in_sees_a_broken_rule(built: Path) -> None:
    """So that its silence in the other tests means something."""
    library = RgaLibrary(str(built))
    image = np.zeros((80, 84, 3), np.uint8)
    wrong = Surface(84, 80, 84, Format.BGR)
    before = build.state(built).misuse
    with (
        library.borrowed(image.ctypes.data, wrong) as one,
        pytest.raises(RkzooError, match="RGA failed"),
    ):
        library.place(one, one, Rect(0, 0, 84, 80))
    assert build.state(built).misuse == before + 1
    assert build.misuse(built) == "a row has the wrong length"
    build.forgive(built)


def test_what_the_library_prints_stays_out_of_stdout(built: Path) -> None:
    code = (
        "import sys; from rkzoo.runtime.rga import RgaLibrary;"
        f"RgaLibrary({str(built)!r}); print('answer')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "answer\n"
    assert "rga_api version" in done.stderr
