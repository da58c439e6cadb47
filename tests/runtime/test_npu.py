"""The binding to the NPU's library, against the stand-in for it."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_models import BOX, FLAT, OUTPUTS, PICTURE, numbers, picture, small, written

from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import Cores, Query, Sync
from rkzoo.runtime.npu_context import Context, NpuLibrary, NpuTensor
from rkzoo.session import run_named


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def library(built: Path) -> Iterator[NpuLibrary]:
    """The stand-in; afterwards nothing may be left, and nothing have been misused."""
    gc.collect()
    before = build.state(built)
    assert before.contexts == before.memories == 0
    yield NpuLibrary(built)
    gc.collect()
    after = build.state(built)
    assert (after.contexts, after.memories, after.memory_bytes) == (0, 0, 0)
    assert after.misuse == before.misuse, build.misuse(built)


def logical(array: np.ndarray, out: Out) -> np.ndarray:
    """NC1HWC2 back to NCHW."""
    _, channels, height, width = out.shape
    whole = array.transpose(0, 1, 4, 2, 3).reshape(1, -1, height, width)
    return whole[:, :channels]


def check(outputs: list[np.ndarray], seed: int, *, native: bool = True) -> None:
    for array, out in zip(outputs, OUTPUTS, strict=True):
        if native and len(out.shape) == 4:
            array = logical(array, out)
        np.testing.assert_array_equal(array, numbers(seed, out))


# ---- what a session is --------------------------------------------------------------


def test_a_session_tells_its_tensors(library: NpuLibrary, tmp_path: Path) -> None:
    with NpuSession.open(library, written(tmp_path, small())) as session:
        assert session.label == "board"
        assert session.zero_copy
        (given,) = session.inputs
        assert (given.name, given.shape, given.dtype, given.layout) == (
            "images",
            (1, 16, 24, 3),
            "uint8",
            "NHWC",
        )
        box, score, flat = session.outputs
        assert (box.layout, box.shape, box.dtype) == ("NC1HWC2", (1, 2, 2, 3, 16), "int8")
        assert (box.scale, box.zero_point) == (0.25, -3)
        # Blocks come in pairs; two spare cells behind each are not part of the tensor.
        assert score.shape == (1, 2, 2, 3, 16)
        assert score.scale == pytest.approx(1 / 255)
        assert (flat.layout, flat.scale) == ("plain", None)


def test_each_picture_gets_its_own_outputs(library: NpuLibrary, tmp_path: Path) -> None:
    with NpuSession.open(library, written(tmp_path, small())) as session:
        for seed in (0, 2, 1, 0):
            check(session.run([picture(seed)]), seed)


def test_the_canvas_is_the_npus_memory(
    library: NpuLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_STRICT", "1")
    with NpuSession.open(library, written(tmp_path, small())) as session:
        canvas = session.canvas
        assert canvas is not None
        assert canvas.strides == (16 * 32 * 3, 32 * 3, 3, 1)  # rows of 32 pixels, not 24
        canvas[:] = picture(1)
        check(session.run([canvas]), 1)
        canvas[0, 3, 4, 1] += 1
        with pytest.raises(RkzooError, match="input"):
            session.run([canvas])


def test_the_library_may_copy_and_lay_out(library: NpuLibrary, tmp_path: Path) -> None:
    path = written(tmp_path, small())
    with NpuSession.open(library, path, zero_copy=False) as session:
        assert session.canvas is None
        check(session.run([picture(1)]), 1, native=False)
    with NpuSession.open(library, path, layout="plain") as session:
        assert [spec.layout for spec in session.outputs] == ["NCHW", "NCHW", "plain"]
        check(session.run([picture(2)]), 2, native=False)


def test_floats_are_made_of_everything_where_that_is_asked_for(
    library: NpuLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_STRICT", "1")
    recording = small()
    fed = picture(5).astype(np.float32)
    recording.answer([fed], [numbers(5, out) for out in OUTPUTS])
    path = written(tmp_path, recording)
    with NpuSession(Context.open(library, path), floats=True) as session:
        assert (session.canvas, session.inputs[0].dtype) == (None, "uint8")
        assert {(spec.dtype, spec.scale) for spec in session.outputs} == {("float32", None)}
        for array, out in zip(session.run([picture(5)]), OUTPUTS, strict=True):
            codes = numbers(5, out).astype(np.float32)
            np.testing.assert_allclose(array, (codes - out.zero_point) * (out.scale or 1))
        with pytest.raises(RkzooError, match="input"):
            session.run([picture(0)])  # recorded as integers only


def test_from_memory(library: NpuLibrary) -> None:
    with NpuSession.open(library, small().bytes()) as session:
        check(session.run([picture(1)]), 1)


def test_float16_outputs(library: NpuLibrary, tmp_path: Path) -> None:
    out = Out("half", (1, 9, 2, 3), dtype="float16", depth=8)
    recording = Recording((PICTURE,), (out,))
    recording.answer([picture(0)], [numbers(0, out)])
    with NpuSession.open(library, written(tmp_path, recording)) as session:
        assert session.outputs[0].dtype == "float16"
        assert session.outputs[0].scale is None
        np.testing.assert_array_equal(logical(session.run([picture(0)])[0], out), numbers(0, out))


def test_two_inputs_are_copied(library: NpuLibrary, tmp_path: Path) -> None:
    words = In("texts", (1, 4, 8), "float32", format=3)
    recording = Recording((PICTURE, words), (FLAT,))
    given = [picture(0), np.arange(32, dtype=np.float32).reshape(1, 4, 8)]
    recording.answer(given, [numbers(5, FLAT)])
    with NpuSession.open(library, written(tmp_path, recording)) as session:
        assert not session.zero_copy
        assert session.inputs[1].shape == (1, 4, 8)
        np.testing.assert_array_equal(session.run(given)[0], numbers(5, FLAT))


def test_an_array_with_the_shape_of_a_picture_is_none_where_that_is_said(
    library: NpuLibrary, tmp_path: Path
) -> None:
    frames = In("frames", (1, 8, 6, 1), "float32")
    recording = Recording((frames,), (FLAT,))
    given = np.arange(48, dtype=np.float32).reshape(1, 8, 6, 1)
    recording.answer([given], [numbers(3, FLAT)])
    path = written(tmp_path, recording)
    with NpuSession(Context.open(library, path), picture=False) as session:
        (spec,) = session.inputs
        assert (spec.dtype, spec.shape) == ("float32", (1, 1, 8, 6))
        assert not session.zero_copy
        first = run_named(session, {"frames": given.transpose(0, 3, 1, 2)})
        kept = first[session.outputs[0].name].copy()
        run_named(session, {"frames": given.transpose(0, 3, 1, 2) + 1})
        np.testing.assert_array_equal(first[session.outputs[0].name], kept)


def test_a_tensor_that_is_no_picture_arrives_as_nhwc(
    library: NpuLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its type and number of channels; it is given in the graph's order."""
    monkeypatch.setenv("STANDIN_STRICT", "1")
    random = np.random.default_rng(4)
    values = In("values", (1, 5, 6, 2), "float16")
    tokens = In("tokens", (1, 3, 2, 7), "int64")
    mask = In("mask", (1, 4), "float16", format=3)
    recording = Recording((values, tokens, mask), (FLAT,))
    given = [
        random.standard_normal((1, 2, 5, 6)).astype(np.float32),
        random.integers(0, 1 << 40, (1, 7, 3, 2)),
        random.standard_normal((1, 4)).astype(np.float32),
    ]
    recording.answer([given[0] + 1, *given[1:]], [numbers(1, FLAT)])
    turned = [np.moveaxis(array, 1, -1) for array in given[:2]]
    recording.answer([*turned, given[2]], [numbers(2, FLAT)])
    with NpuSession.open(library, written(tmp_path, recording)) as session:
        assert [spec.shape for spec in session.inputs] == [array.shape for array in given]
        for arrays in (given, [given[0].astype(np.float64), given[1][:, :, :], given[2]]):
            np.testing.assert_array_equal(session.run(arrays)[0], numbers(2, FLAT))
        # The caller's order may already be the library's.
        views = [np.moveaxis(array.copy(), -1, 1) for array in turned]
        np.testing.assert_array_equal(session.run([*views, given[2]])[0], numbers(2, FLAT))


def test_what_is_copied_goes_through_the_same_memory_each_time(
    library: NpuLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = In("values", (1, 5, 6, 2), "float32")
    recording = Recording((values,), (FLAT,))
    given = np.ones((1, 2, 5, 6), np.float32)
    recording.answer([np.moveaxis(given, 1, -1)], [numbers(2, FLAT)])
    with NpuSession.open(library, written(tmp_path, recording)) as session:
        seen: list[int] = []
        usual = session.context.set_inputs

        def watched(tensors: list[NpuTensor], arrays: list[np.ndarray]) -> None:
            seen.extend(array.ctypes.data for array in arrays)
            usual(tensors, arrays)

        monkeypatch.setattr(session.context, "set_inputs", watched)
        for _ in range(5):
            session.run([given])
        assert len(seen) == 5
        assert len(set(seen)) == 1


def test_the_first_answer_is_whole(library: NpuLibrary, tmp_path: Path) -> None:
    """What the processor writes to output memory before the first run would come down on it."""
    for layout in ("native", "plain"):
        with NpuSession.open(library, written(tmp_path, small()), layout=layout) as session:
            outputs = session.run([picture(1)])
            check(outputs, 1, native=layout == "native")
            # Later too: so nobody may write there.
            for array, spec in zip(outputs, session.outputs, strict=True):
                if spec.layout != "NC1HWC2" or spec.name == "box":
                    with pytest.raises(ValueError, match="read-only"):
                        array[:] = 0


def test_several_shapes(library: NpuLibrary, tmp_path: Path) -> None:
    wide = In("images", (1, 16, 40, 3))
    box = Out("box", (1, 20, 2, 5), scale=0.25, zero_point=-3)
    random = np.random.default_rng(3).integers(0, 256, wide.shape, dtype=np.uint8)
    recording = Recording((PICTURE,), (BOX,), shapes=[((wide,), (box,))])
    recording.answer([picture(0)], [numbers(0, BOX)])
    recording.answer([random], [numbers(1, box)], shape=1)
    with NpuSession.open(library, written(tmp_path, recording)) as session:
        assert session.context.shapes(0) == [(1, 16, 24, 3), (1, 16, 40, 3)]
        np.testing.assert_array_equal(logical(session.run([picture(0)])[0], BOX), numbers(0, BOX))
        session.set_shapes([(1, 16, 40, 3)])
        assert session.inputs[0].shape == (1, 16, 40, 3)
        assert session.outputs[0].shape == (1, 2, 2, 5, 16)
        np.testing.assert_array_equal(logical(session.run([random])[0], box), numbers(1, box))
        with session.duplicate() as second:
            assert second.inputs == session.inputs
        with pytest.raises(RkzooError, match=r"1x8x8x3.*16x24x3, 1x16x40x3"):
            session.set_shapes([(1, 8, 8, 3)])
        with pytest.raises(RkzooError, match="cannot take"):
            session.set_shapes([(1, 16, 40, 3)] * 2)
    with NpuSession.open(library, written(tmp_path, small())) as session:
        assert session.context.shapes(0) == []
        with pytest.raises(RkzooError, match="fixed"):
            session.set_shapes([(1, 16, 24, 3)])


def test_an_old_library_lacks_what_came_later(tmp_path: Path) -> None:
    path = build.compiled(tmp_path, "-DSTANDIN_OLD", '-DSTANDIN_VERSION="1.5.2"')
    library = NpuLibrary(path)
    assert not library.has("mem_sync")
    with NpuSession.open(library, written(tmp_path, small())) as session:
        check(session.run([picture(1)]), 1)
        assert session.memory is not None
        with pytest.raises(RkzooError, match="no function rknn_mem_sync"):
            session.context.sync(session.memory, Sync.TO_DEVICE)
    gc.collect()
    assert build.state(path).misuse == 0


@given(
    channels=st.integers(1, 40),
    size=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    depth=st.sampled_from([4, 8, 16]),
    spare=st.integers(0, 5),
    width=st.integers(1, 9),
    stride=st.integers(0, 16),
)
@settings(max_examples=60, deadline=None)
def test_any_layout_is_read_right(
    built: Path,
    tmp_path_factory: pytest.TempPathFactory,
    channels: int,
    size: tuple[int, int],
    depth: int,
    spare: int,
    width: int,
    stride: int,
) -> None:
    """Block depths, spare cells and long rows of every kind; strict about the picture."""
    out = Out("y", (1, channels, *size), scale=0.5, zero_point=1, depth=depth, spare=spare)
    taken = In("images", (1, 3, width, 3), w_stride=stride)
    fed = np.random.default_rng(width).integers(0, 256, taken.shape, dtype=np.uint8)
    recording = Recording((taken,), (out,))
    recording.answer([fed ^ 255], [numbers(9, out)])
    recording.answer([fed], [numbers(1, out)])
    with NpuSession.open(NpuLibrary(built), recording.bytes()) as session:
        (got,) = session.run([fed])
        assert session.outputs[0].shape == got.shape
        np.testing.assert_array_equal(logical(got, out), numbers(1, out))
        assert got.flags.c_contiguous


# ---- questions and memory -----------------------------------------------------------


def test_questions(library: NpuLibrary, tmp_path: Path) -> None:
    path = written(tmp_path, small(custom='{"rkzoo": "x"}', delay_us=3000))
    with NpuSession.open(library, path) as session:
        context = session.context
        assert context.counts() == (1, 3)
        assert "stand-in" in context.versions()[0]
        assert context.custom_string() == '{"rkzoo": "x"}'
        assert "no layers" in context.layers()
        with pytest.raises(RkzooError, match="was not run yet"):
            context.run_seconds()
        session.run([picture(0)])
        assert 0.003 <= context.run_seconds() < 1
        assert context.tensor(Query.OUTPUT_ATTR, 0).shape == BOX.shape
        with pytest.raises(RkzooError):
            context.tensor(Query.OUTPUT_ATTR, 7)


def test_memory_of_another_device(library: NpuLibrary, tmp_path: Path) -> None:
    fd = os.memfd_create("picture")
    os.ftruncate(fd, 8192)
    shared = mmap.mmap(fd, 8192)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    context = Context.open(library, written(tmp_path, small()))
    memory = context.memory_of(fd, address, 4096, offset=4096)
    memory.array((4,), "uint8")[:] = [1, 2, 3, 4]
    context.sync(memory, Sync.TO_DEVICE)
    assert shared[4096:4100] == b"\1\2\3\4"
    context.close()
    del memory
    gc.collect()
    os.close(fd)


def test_views_outlive_the_session(library: NpuLibrary, tmp_path: Path) -> None:
    session = NpuSession.open(library, written(tmp_path, small()))
    outputs = session.run([picture(1)])
    session.close()
    session.close()
    assert build.state(Path(library.path)).contexts == 1
    check(outputs, 1)
    del outputs
    assert build.state(Path(library.path)).contexts == 0


def test_a_duplicate_shares_weights_and_nothing_else(library: NpuLibrary, tmp_path: Path) -> None:
    first = NpuSession.open(library, written(tmp_path, small()))
    second = first.duplicate(Cores.CORE_1)
    one = first.run([picture(0)])
    check(second.run([picture(1)]), 1)
    check(one, 0)
    first.close()
    del one
    check(second.run([picture(2)]), 2)
    second.close()


# ---- failures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("init", -13, "another chip"),
        ("init", -6, "another chip, too little memory, and a damaged or newer file alike"),
        ("init", -3, "cannot be reached"),
        ("query", -1, "it failed"),
        ("create_mem", -4, "not enough memory"),
        ("set_io_mem", -5, "does not accept an argument"),
    ],
)
def test_failures_while_opening(
    library: NpuLibrary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.setenv("STANDIN_FAIL", f"{call}:2:{code},{call}:1:{code}")
    with pytest.raises(RkzooError, match=words) as caught:
        NpuSession.open(library, written(tmp_path, small()))
    assert caught.value.fix
    if call == "init":
        assert f'It says: "init was told to fail with {code}".' in caught.value.why


def test_a_run_that_fails_is_not_the_end(
    library: NpuLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_FAIL", "run:2:-2")
    with NpuSession.open(library, written(tmp_path, small())) as session:
        check(session.run([picture(0)]), 0)
        with pytest.raises(RkzooError, match="did not answer in time"):
            session.run([picture(1)])
        check(session.run([picture(2)]), 2)


@pytest.mark.parametrize("content", [b"", b"RKNN", b"x" * 5000, small().bytes()[:-40]])
def test_files_that_are_no_models(library: NpuLibrary, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.rknn"
    path.write_bytes(content)
    with pytest.raises(RkzooError, match="cannot be opened on the NPU"):
        NpuSession.open(library, path)


def test_wrong_use_is_told(library: NpuLibrary, tmp_path: Path) -> None:
    path = written(tmp_path, small())
    session = NpuSession.open(library, path)
    with pytest.raises(RkzooError, match="has 1 inputs, not 2"):
        session.run([picture(0)] * 2)
    with pytest.raises(RkzooError, match=r"\[1, 8, 24, 3\]"):
        session.run([picture(0)[:, :8]])
    with pytest.raises(RkzooError, match="float32"):
        session.run([picture(0).astype(np.float32)])
    with pytest.raises(RkzooError, match="cores"):
        session.context.set_cores(Cores(1 << 5))
    session.context.set_batch_cores(3)
    with pytest.raises(RkzooError, match="4 cores"):
        session.context.set_batch_cores(4)
    session.close()
    for use in (lambda: session.run([picture(0)]), session.duplicate, session.context.versions):
        with pytest.raises(RkzooError, match="closed"):
            use()
    with pytest.raises(RkzooError, match="no file"):
        NpuSession.open(library, tmp_path / "missing.rknn")


def test_libraries_that_are_none(tmp_path: Path) -> None:
    text = tmp_path / "librknnrt.so"
    text.write_text("<!DOCTYPE html>")
    with pytest.raises(RkzooError, match="cannot be loaded"):
        NpuLibrary(text)
    with pytest.raises(RkzooError, match="cannot be loaded"):
        NpuLibrary(tmp_path / "missing.so")
    empty = tmp_path / "empty.c"
    empty.write_text("int nothing;")
    other = tmp_path / "libother.so"
    os.system(f"{build.compiler()} -shared -fPIC {empty} -o {other}")
    with pytest.raises(RkzooError, match="no function rknn_init"):
        NpuLibrary(other)


def test_the_stand_in_sees_misuse(tmp_path: Path) -> None:
    """A watchman must bark: the same calls that the binding never makes."""
    path = build.compiled(tmp_path)
    library = NpuLibrary(path)
    context = Context.open(library, written(tmp_path, small()))
    number = context._owner.number
    library.function("destroy")(number)
    assert library.function("destroy")(number) == -7
    assert build.state(path).misuse == 1
    assert "destroyed" in build.misuse(path)
    del context
    ctypes.CDLL(str(path)).standin_forgive()


# ---- for hours ----------------------------------------------------------------------


def resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * mmap.PAGESIZE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")
def test_20000_frames_leave_nothing_behind(library: NpuLibrary, tmp_path: Path) -> None:
    session = NpuSession.open(library, written(tmp_path, small()))
    canvas = session.canvas
    assert canvas is not None
    canvas[:] = picture(0)
    arrays = [canvas]
    for _ in range(500):
        session.run(arrays)
    gc.collect()
    threads, files, before = threading.active_count(), len(os.listdir("/proc/self/fd")), resident()
    for _ in range(20_000):
        outputs = session.run(arrays)
    assert resident() - before < 512 << 10
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files
    check(outputs, 0)
    session.close()
    del outputs, canvas, arrays
    assert len(os.listdir("/proc/self/fd")) < files


def test_opening_again_and_again_leaves_nothing_behind(library: NpuLibrary, tmp_path: Path) -> None:
    path = written(tmp_path, small())
    files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for seed in range(30):
        with NpuSession.open(library, path) as session:
            check(session.run([picture(seed % 3)]), seed % 3)
    if files:
        assert len(os.listdir("/proc/self/fd")) == files


def test_threads_with_a_session_each(library: NpuLibrary, tmp_path: Path) -> None:
    first = NpuSession.open(library, written(tmp_path, small(delay_us=2000)))
    sessions = [first, *(first.duplicate(Cores(1 << n)) for n in (1, 2))]
    wrong: list[BaseException] = []

    def work(session: NpuSession, number: int) -> None:
        try:
            for turn in range(10):
                seed = (number + turn) % 3
                check(session.run([picture(seed)]), seed)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(s, n)) for n, s in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # Python lets go of its lock inside the library, so several cores were at work at once.
    assert build.state(Path(library.path)).most_running >= 2
    for session in sessions:
        session.close()
