"""The library of RV1103 and RV1106 (librknnmrt), of which the stand-in knows what the real 2.3.2
refuses, ignores and takes. No figure and no answer is a board's."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from npu_models import FLAT, OUTPUTS, PICTURE, numbers, picture, written

from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_context import Context, NpuLibrary

SCORE = Out("score", (1, 5, 2, 3), scale=0.1, chip="rv1106")
WIDE = Out("wide", (1, 37, 2, 3), scale=0.1, chip="rv1106", spare=2)
CODES = Out("codes", (1, 70), scale=0.5, zero_point=3, native=3)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("small"), name="librknnmrt.so")


@pytest.fixture
def library(built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NpuLibrary]:
    """Strict: what was not recorded is refused. Afterwards nothing is left or misused."""
    monkeypatch.setenv("STANDIN_STRICT", "1")
    yield NpuLibrary(built)
    gc.collect()
    after = build.state(built)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0), build.misuse(built)


def recorded(outputs: tuple[Out, ...], *inputs: In) -> Recording:
    recording = Recording(inputs or (PICTURE,), outputs, cores=1, chip="rv1106")
    if not inputs:
        for seed in range(2):
            recording.answer([picture(seed)], [numbers(seed, out) for out in outputs])
    return recording


def codes(values: np.ndarray, scale: float, zero: int) -> np.ndarray:
    return np.clip(np.rint(values / np.float32(scale)) + zero, -128, 127).astype(np.int8)


def test_it_is_known_by_any_name(library: NpuLibrary, tmp_path: Path) -> None:
    assert library.small
    renamed = build.compiled(tmp_path, "-DSTANDIN_SMALL")
    assert renamed.name == "librknnrt.so"
    assert NpuLibrary(renamed).small
    (tmp_path / "usual").mkdir()
    assert not NpuLibrary(build.compiled(tmp_path / "usual")).small


def test_outputs_are_nhwc(library: NpuLibrary, tmp_path: Path) -> None:
    path = written(tmp_path, recorded((SCORE, WIDE, FLAT, CODES)))
    with NpuSession.open(library, path) as session:
        assert session.canvas is not None
        assert session.canvas.strides[1] == 32 * 3
        assert [spec.layout for spec in session.outputs] == ["NHWC", "NHWC", "plain", "plain"]
        got = session.run([picture(1)])
        for array, out in zip(got[:2], (SCORE, WIDE), strict=True):
            np.testing.assert_array_equal(array.transpose(0, 3, 1, 2), numbers(1, out))
        np.testing.assert_array_equal(got[2], numbers(1, FLAT))
        # 70 numbers, of which the NPU writes 128: the memory has room for that.
        np.testing.assert_array_equal(got[3], numbers(1, CODES))
        del got, array


@pytest.mark.parametrize("nhwc", [True, False])
def test_outputs_are_turned_where_the_graphs_order_is_wanted(
    library: NpuLibrary, tmp_path: Path, nhwc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From NHWC, or from blocks of channels where the library describes no NHWC."""
    monkeypatch.setenv("STANDIN_NO_NHWC", "0" if nhwc else "1")
    path = written(tmp_path, recorded((SCORE, WIDE)))
    with NpuSession.open(library, path, layout="plain") as session:
        assert {spec.layout for spec in session.outputs} == {"NCHW"}
        for array, out in zip(session.run([picture(0)]), (SCORE, WIDE), strict=True):
            np.testing.assert_array_equal(array, numbers(0, out))
    with NpuSession.open(library, path) as session:
        assert {spec.layout for spec in session.outputs} == {"NHWC" if nhwc else "NC1HWC2"}


def test_a_second_context_is_opened_anew(library: NpuLibrary, tmp_path: Path) -> None:
    path = written(tmp_path, recorded((SCORE,)))
    for model in (path, path.read_bytes()):
        first = NpuSession.open(library, model)
        second = first.duplicate()
        third = second.duplicate()
        one = first.run([picture(0)])[0]
        for session in (second, third):
            two = session.run([picture(1)])[0]
            np.testing.assert_array_equal(two.transpose(0, 3, 1, 2), numbers(1, SCORE))
        np.testing.assert_array_equal(one.transpose(0, 3, 1, 2), numbers(0, SCORE))
        first.close()
        with pytest.raises(RkzooError, match="closed"):
            first.duplicate()
        second.close()
        third.close()
        del one, two


@pytest.mark.parametrize("channels", [2, 16, 37])
def test_a_tensor_that_is_no_picture_goes_in_blocks_of_codes(
    library: NpuLibrary, tmp_path: Path, channels: int
) -> None:
    shape = (1, 5, 6, channels)
    given = In("values", shape, scale=0.05, zero_point=7, chip="rv1106")
    recording = recorded((CODES,), given)
    values = np.random.default_rng(channels).uniform(-9, 9, (1, channels, 5, 6))
    fed = codes(values.astype(np.float32), 0.05, 7)
    assert {-128, 127} <= set(fed.ravel())  # some go beyond what the codes hold
    recording.answer([np.moveaxis(fed, 1, -1)], [numbers(1, CODES)])
    with NpuSession.open(library, written(tmp_path, recording)) as session:
        (spec,) = session.inputs
        assert (spec.shape, spec.dtype, session.canvas) == ((1, channels, 5, 6), "float32", None)
        for array in (values, values.astype(np.float32)):
            np.testing.assert_array_equal(session.run([array])[0], numbers(1, CODES))
        with pytest.raises(RkzooError, match="input"):
            session.run([values + 1])


def test_a_picture_beside_vectors(library: NpuLibrary, tmp_path: Path) -> None:
    vector = In("vector", (1, 70), scale=0.1, zero_point=-4, format=3)
    words = In("words", (1, 3, 4), scale=0.2, format=3)
    recording = recorded((CODES,), PICTURE, vector, words)
    random = np.random.default_rng(8)
    values = [random.uniform(-5, 5, one.shape).astype(np.float32) for one in (vector, words)]
    fed = [codes(values[0], 0.1, -4), codes(values[1], 0.2, 0)]
    recording.answer([picture(0), *fed], [numbers(3, CODES)])
    with NpuSession.open(library, written(tmp_path, recording)) as session:
        assert session.zero_copy
        canvas = session.canvas
        assert canvas is not None
        canvas[:] = picture(0)
        np.testing.assert_array_equal(session.run([canvas, *values])[0], numbers(3, CODES))
        del canvas


def test_an_array_with_the_shape_of_a_picture_is_quantised(
    library: NpuLibrary, tmp_path: Path
) -> None:
    frames = In("frames", (1, 8, 6, 1), scale=0.1, zero_point=5, w_stride=16)
    recording = recorded((CODES,), frames)
    values = np.random.default_rng(2).uniform(-9, 9, (1, 1, 8, 6)).astype(np.float32)
    recording.answer([codes(values, 0.1, 5)], [numbers(2, CODES)])
    path = written(tmp_path, recording)
    with NpuSession(Context.open(library, path), picture=False) as session:
        np.testing.assert_array_equal(session.run([values])[0], numbers(2, CODES))


def test_it_makes_no_floats(library: NpuLibrary, tmp_path: Path) -> None:
    path = written(tmp_path, recorded(OUTPUTS))
    with pytest.raises(RkzooError, match="does not convert to float"):
        NpuSession(Context.open(library, path), floats=True)


def test_what_it_lacks_is_said(library: NpuLibrary, tmp_path: Path) -> None:
    with NpuSession.open(library, written(tmp_path, recorded(OUTPUTS))) as session:
        session.run([picture(0)])
        for ask in (
            session.context.run_seconds,
            session.context.layers,
            lambda: session.context.set_batch_cores(1),
        ):
            with pytest.raises(RkzooError, match=r"error -1|no function"):
                ask()
