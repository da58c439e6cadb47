"""The contest between RGA and the processor, on the stand-ins for Rockchip's libraries. Nothing
here was measured on a board; times are made long on purpose."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import cv2
import msgspec
import numpy as np
import pytest

import npu_standin.build
from npu_standin.recording import In, Out, Recording
from rga_standin import build
from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_context import NpuLibrary
from rkzoo.session import preprocess_of
from rkzoo.vision import letterbox
from rkzoo.workflow.inference import rga_preprocess
from rkzoo.workflow.inference.rga_preprocess import (
    RgaPreprocess,
    attach_rga,
    image_difference,
    sample_picture,
    surface_of,
)

SPEC = ImageInput(size=(128, 160))
USUAL = letterbox.fit
SLOW = 0.02  # seconds, that a processor takes here where RGA is to win


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("both")
    return npu_standin.build.compiled(folder), build.compiled(folder)


@pytest.fixture
def session(libraries: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[NpuSession]:
    """A session with RGA beside it; afterwards nothing is left and no rule was broken."""
    npu, rga = libraries
    monkeypatch.setenv(rga_preprocess.LIBRARY, str(rga))
    monkeypatch.setattr(rga_preprocess, "memory_size", lambda: 1 << 30)
    rga_preprocess._load.cache_clear()
    flat = Out("flat", (1, 7), "float32", native=3)
    recording = Recording((In("images", (1, *SPEC.size, 3), w_stride=176),), (flat,))
    recording.answer([np.zeros((1, *SPEC.size, 3), np.uint8)], [np.zeros((1, 7), np.float32)])
    stack = ExitStack()
    made = stack.enter_context(NpuSession.open(NpuLibrary(npu), recording.bytes()))
    attach_rga(made, stack)
    yield made
    stack.close()
    left = build.state(rga)
    assert (left.handles, left.misuse) == (0, 0), build.misuse(rga)


def slow(image: np.ndarray, spec: ImageInput, canvas: np.ndarray | None = None) -> object:
    time.sleep(SLOW)
    return USUAL(image, spec, canvas)


@pytest.fixture
def slow_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letterbox, "fit", slow)


def photo(seed: int, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """Smooth, as a camera's picture is after all."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def stream(session: NpuSession, count: int, size: tuple[int, int] = (240, 320)) -> RgaPreprocess:
    """So many frames, each of which must arrive as the processor would have made it."""
    fit = session.fit
    assert isinstance(fit, RgaPreprocess)
    for seed in range(count):
        image = photo(seed, size)
        canvas, box = fit(image, SPEC, session.canvas)
        wanted, same = USUAL(image, SPEC)
        np.testing.assert_array_equal(canvas, wanted)
        assert box == same
        assert canvas.ctypes.data == session.canvas.ctypes.data  # type: ignore[union-attr]
    return fit


def test_rga_is_chosen_where_it_wins_and_writes_where_the_npu_reads(
    session: NpuSession, libraries: tuple[Path, Path], slow_processor: None
) -> None:
    fit = stream(session, 2)
    assert not fit.chosen
    assert fit.reason == "Not settled yet: 2 pictures of one size were seen."
    stream(session, 7)
    assert fit.chosen
    assert fit.reason == ""
    before = build.state(libraries[1])
    start = time.perf_counter()
    stream(session, 20)
    assert time.perf_counter() - start < 20 * SLOW
    after = build.state(libraries[1])
    # The processor is not asked, the canvas stays known, each frame's memory is let go.
    assert after.pictures - before.pictures == 20
    assert after.imports - before.imports == 20
    assert after.handles == 1


def test_a_loser_is_not_asked_again(
    session: NpuSession, libraries: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RGA_STANDIN_DELAY_US", "20000")
    fit = stream(session, 9)
    assert not fit.chosen
    assert fit.reason.startswith("RGA took 2")
    before = build.state(libraries[1]).pictures
    stream(session, 5)
    assert build.state(libraries[1]).pictures == before


@pytest.mark.parametrize("lie", ["colours", "place"])
def test_what_is_wrong_never_wins(
    session: NpuSession, monkeypatch: pytest.MonkeyPatch, slow_processor: None, lie: str
) -> None:
    """Not even by one pixel, nor on grey frames, which look right in any colour order."""
    monkeypatch.setenv("RGA_STANDIN_WRONG", lie)
    fit = session.fit
    grey = np.full((240, 320, 3), 128, np.uint8)
    for _ in range(12):
        canvas, _ = fit(grey, SPEC, session.canvas)
        np.testing.assert_array_equal(canvas, USUAL(grey, SPEC)[0])
    assert not fit.chosen
    assert "differs" in fit.reason


def test_a_new_size_begins_again(session: NpuSession, slow_processor: None) -> None:
    fit = stream(session, 12)
    assert fit.chosen
    stream(session, 1, (120, 320))
    assert not fit.chosen
    stream(session, 12, (120, 320))  # the border is another one
    assert fit.chosen


def test_pictures_of_many_sizes_cost_nothing(
    session: NpuSession, libraries: tuple[Path, Path]
) -> None:
    before = build.state(libraries[1])
    for height in range(100, 130, 2):
        stream(session, 2, (height, 320))
    assert build.state(libraries[1]) == before


@pytest.mark.parametrize(
    ("shape", "way", "why"),
    [
        ((240, 324, 3), "letterbox", "multiple of 16"),
        ((2320, 320, 3), "letterbox", "does not scale"),
        ((240, 320, 3), "crop", "averaged by the processor"),
    ],
)
def test_a_broken_rule_leaves_it_to_the_processor(
    session: NpuSession, libraries: tuple[Path, Path], shape: tuple[int, ...], way: str, why: str
) -> None:
    before = build.state(libraries[1])
    fit = session.fit
    image, spec = np.zeros(shape, np.uint8), msgspec.structs.replace(SPEC, fit=way)
    for _ in range(4):
        fit(image, spec, session.canvas)
    assert re.search(why, fit.reason)
    assert build.state(libraries[1]) == before


def test_a_picture_that_lies_in_pieces_is_left_to_the_processor(
    session: NpuSession, libraries: tuple[Path, Path]
) -> None:
    before = build.state(libraries[1])
    image = np.zeros((240, 640, 3), np.uint8)[:, ::2]
    for _ in range(4):
        session.fit(image, SPEC, session.canvas)
    assert "in one piece" in session.fit.reason
    assert build.state(libraries[1]) == before


def test_memory_above_4_gb_is_not_for_an_old_rga(
    session: NpuSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RGA_STANDIN_HARDWARE", "RGA_2_Enhance")
    monkeypatch.setattr(rga_preprocess, "memory_size", lambda: 8 << 30)
    rga_preprocess._load.cache_clear()
    with ExitStack() as stack:
        attach_rga(session, stack)
        assert "4 GB" in stream(session, 5).reason


@pytest.mark.parametrize("fault", ["improcess:0:-4", "importbuffer_fd:0:0"])
def test_an_rga_that_fails_from_the_first_is_left(
    session: NpuSession, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("RGA_STANDIN_FAIL", fault)
    fit = stream(session, 6)
    assert not fit.chosen
    assert "RGA" in fit.reason


def test_a_chosen_one_that_fails_is_left_after_three_frames_which_all_arrive(
    session: NpuSession,
    libraries: tuple[Path, Path],
    slow_processor: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert stream(session, 12).chosen
    monkeypatch.setenv("RGA_STANDIN_FAIL", "importbuffer_virtualaddr:0:0")
    before = build.state(libraries[1]).imports
    fit = stream(session, 10)
    assert not fit.chosen
    assert build.state(libraries[1]).imports == before + 3
    # For pictures of another size too.
    monkeypatch.delenv("RGA_STANDIN_FAIL")
    assert not stream(session, 12, (120, 320)).chosen


def test_what_is_chosen_is_said_once(
    session: NpuSession, slow_processor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rga_preprocess, "_NOTED", set())
    said: list[str] = []
    report = SimpleNamespace(note=said.append)
    with ExitStack() as stack:
        for _ in range(2):
            attach_rga(session, stack, report)  # type: ignore[arg-type]
            stream(session, 12)
        monkeypatch.setenv("RGA_STANDIN_FAIL", "improcess:0:-4")
        stream(session, 5)
    assert [text.split()[1] for text in said] == ["2D", "processor"]
    assert "Illegal parameters" in said[1]


def test_nv12_goes_the_same_way(session: NpuSession, slow_processor: None) -> None:
    fit = session.fit
    image = np.random.default_rng(0).integers(60, 180, (360, 320), dtype=np.uint8)
    image = np.asarray(cv2.blur(image, (15, 15)), np.uint8)
    for _ in range(12):
        canvas, box = fit(image, SPEC, session.canvas)
        np.testing.assert_array_equal(canvas, USUAL(image, SPEC)[0])
    assert fit.chosen
    assert box.source == (240, 320)


def test_after_the_end_the_processor_does_it(session: NpuSession, slow_processor: None) -> None:
    fit = stream(session, 12)
    fit.close()
    stream(session, 2)
    assert fit.reason == "The session is closed."


def test_another_canvas_is_left_to_the_processor(
    session: NpuSession, libraries: tuple[Path, Path]
) -> None:
    before = build.state(libraries[1])
    for seed in range(12):
        session.fit(photo(seed), SPEC)
    assert build.state(libraries[1]) == before


def test_rga_can_be_turned_off_and_a_wrong_path_is_told(
    session: NpuSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session.fit = None
    with ExitStack() as stack:
        monkeypatch.setenv(rga_preprocess.LIBRARY, "off")
        attach_rga(session, stack)
        assert preprocess_of(session, USUAL) is USUAL
        monkeypatch.setenv(rga_preprocess.LIBRARY, str(tmp_path / "none.so"))
        with pytest.raises(RkzooError, match="is no file"):
            attach_rga(session, stack)
        # What the machine has and cannot be used is passed over.
        (tmp_path / "librga.so").write_bytes(b"")
        monkeypatch.delenv(rga_preprocess.LIBRARY)
        monkeypatch.setattr(
            rga_preprocess, "fitting_library", lambda *_: str(tmp_path / "librga.so")
        )
        attach_rga(session, stack)
        assert session.fit is None


# ---- how pictures are compared ------------------------------------------------------


def moved(image: np.ndarray) -> np.ndarray:
    return np.roll(image, 1, 1)


def turned(image: np.ndarray) -> np.ndarray:
    return image[..., ::-1].copy()


@pytest.mark.parametrize("shape", [(480, 640, 3), (720, 640), (1080, 1920, 3), (1620, 1920)])
@pytest.mark.parametrize("harm", [moved, turned])
def test_the_sample_shows_one_pixel_and_a_colour_order(
    shape: tuple[int, ...], harm: Callable[[np.ndarray], np.ndarray]
) -> None:
    spec = ImageInput(size=(640, 640))
    sample = sample_picture(shape)
    surface_of(sample)
    made = USUAL(sample, spec)[0][0]
    assert image_difference(made, made) == (0, 0)
    limits = np.array(rga_preprocess.SAMPLE)
    assert (image_difference(made, harm(made)) > 1.5 * limits).any()


def test_a_photograph_scaled_by_another_filter_is_no_wrong_one(assets: Path) -> None:
    spec = ImageInput(size=(320, 320))
    for name in ("bus_640.jpg", "zidane.jpg"):
        image = cv2.imread(str(assets / "data/images" / name))
        made, box = USUAL(image, spec)
        other = made[0].copy()
        inside = other[box.top : box.top + box.scaled[0], box.left : box.left + box.scaled[1]]
        scaled = cv2.resize(image, box.scaled[::-1], interpolation=cv2.INTER_AREA)
        inside[:] = scaled[..., ::-1]
        mean, most = image_difference(made[0], other)
        assert mean < rga_preprocess.PICTURE[0]
        assert most < rga_preprocess.PICTURE[1]
