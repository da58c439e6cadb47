"""The stand-in does what the real libraries do where that is easily got wrong. Each of these was
seen with Rockchip's own librknnrt 1.5.2 or librknnmrt 2.3.2, under qemu with models of toolkit
2.5.0; a stand-in that is kinder would let a fault through."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from npu_models import FLAT, OUTPUTS, PICTURE, numbers, picture, small, written

from npu_standin import build
from npu_standin.recording import BLOCKS, In, Out, Recording
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import Format, Query, Sync, Type, context_type
from rkzoo.runtime.npu_context import Context, NpuLibrary


@pytest.fixture
def library(tmp_path: Path) -> NpuLibrary:
    return NpuLibrary(build.compiled(tmp_path))


@pytest.fixture
def context(library: NpuLibrary, tmp_path: Path) -> Context:
    return Context.open(library, written(tmp_path, small()))


@pytest.fixture
def tiny(tmp_path: Path) -> NpuLibrary:
    return NpuLibrary(build.compiled(tmp_path, name="librknnmrt.so"))


@pytest.mark.parametrize(
    ("chips", "channels", "blocks"),
    [
        (("rk3588", "rk3576", "rv1126b"), (1, 16, 33, 64, 80, 85, 255), (2, 2, 4, 4, 6, 6, 16)),
        (("rk3568",), (1, 16, 33, 64, 80, 85, 255), (2, 2, 6, 8, 10, 12, 32)),
        (("rk3562",), (1, 16, 33, 64, 80, 85, 255), (1, 1, 3, 4, 5, 6, 16)),
    ],
)
def test_blocks_are_those_of_the_compilers_files(
    chips: tuple[str, ...], channels: tuple[int, ...], blocks: tuple[int, ...]
) -> None:
    """int8; half the channels a block and the same grouping for fp16."""
    for chip in chips:
        shapes = [Out("y", (1, count, 2, 3), chip=chip).native_shape for count in channels]
        assert tuple(shape[1] for shape in shapes) == blocks
        assert {shape[4] for shape in shapes} == {BLOCKS[chip][0]}
        half = Out("y", (1, 20, 2, 3), "float16", chip=chip).native_shape
        assert half[4] == BLOCKS[chip][0] // 2
        assert half[1] % BLOCKS[chip][1] == 0


def test_inputs_have_no_blocks_to_spare() -> None:
    """As librknnrt 1.5.2 describes models for rk3588."""
    for channels, dtype, blocks, depth in ((2, "int8", 1, 16), (24, "int8", 2, 16)):
        native = In("x", (1, 10, 10, channels), dtype).native
        assert native == (2, (1, blocks, 10, 10, depth))
    assert In("x", (1, 16, 16, 2), "float16").native == (2, (1, 1, 16, 16, 8))


def test_spare_blocks_hold_the_largest_number() -> None:
    out = Out("y", (1, 5, 2, 3))
    stored = out.stored(numbers(0, out))
    assert stored.shape == (2, 6, 16)
    assert (stored[1] == 127).all()
    assert (stored[0, :, 5:] == 127).all()


def test_nchw_is_not_copied_and_not_refused(
    library: NpuLibrary, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = In("values", (1, 5, 6, 2), "float32")
    recording = Recording((given,), (FLAT,))
    values = np.ones((1, 5, 6, 2), np.float32)
    recording.answer([np.zeros_like(values)], [numbers(0, FLAT)])
    recording.answer([values], [numbers(1, FLAT)])
    context = Context.open(library, written(tmp_path, recording))
    seen = np.empty(FLAT.shape, np.float32)
    for fmt, answer in ((Format.NCHW, 0), (Format.NHWC, 1), (Format.UNDEFINED, 1)):
        row = (library_structure("input") * 1)()
        row[0].buf, row[0].size = values.ctypes.data, values.nbytes
        row[0].fmt, row[0].type = fmt, Type.FLOAT32
        library.call("inputs_set", "", context._number, 1, ctypes.byref(row))
        context.run()
        context.get_outputs([seen])
        np.testing.assert_array_equal(seen, numbers(answer, FLAT))
    assert "Meet unsupported src layout for normalize: 0" in capfd.readouterr().err


def library_structure(name: str) -> type[ctypes.Structure]:
    from rkzoo.runtime.npu_api import structure

    made: type[ctypes.Structure] = structure(name)
    return made


@pytest.mark.parametrize("synced", [False, True])
def test_what_lies_in_the_cache_comes_down_on_the_first_answer(
    context: Context, synced: bool
) -> None:
    picture_memory = context.create_memory(16 * 32 * 3)
    told = context.tensor(Query.NATIVE_INPUT_ATTR, 0)
    flat = context.tensor(Query.OUTPUT_ATTR, 2)
    memory = context.create_memory(flat.bytes)
    context.use(picture_memory, told, type=Type.UINT8, pass_through=0)
    context.use(memory, flat)
    seen = memory.array(FLAT.shape, "float32")
    seen[:] = 0
    if synced:
        context.sync(memory, Sync.TO_DEVICE)
    picture_memory.array(PICTURE.shape, "uint8", row=96)[:] = picture(1)
    context.run()
    assert (seen == numbers(1, FLAT)).all() == synced
    context.run()
    np.testing.assert_array_equal(seen, numbers(1, FLAT))


def test_native_outputs_are_told_before_a_memory_is_set(context: Context) -> None:
    before = context.tensor(Query.NATIVE_OUTPUT_ATTR, 0)
    told = context.tensor(Query.NATIVE_INPUT_ATTR, 0)
    context.use(context.create_memory(told.bytes), told, type=Type.UINT8)
    assert before.format == Format.NC1HWC2
    for one in (context, context.duplicate()):
        after = one.query(Query.NATIVE_OUTPUT_ATTR, "tensor_attr", 0)
        assert tuple(after.dims[: after.n_dims]) != before.shape
        assert one.tensor(Query.NATIVE_OUTPUT_ATTR, 0) == before


def test_after_its_size_was_asked_for_a_context_is_not_duplicated(context: Context) -> None:
    context.query(Query.MEM_SIZE, "mem_size")
    with pytest.raises(RkzooError, match="second time"):
        context.duplicate()
    path = Path(context.library.path)
    assert "memory size" in build.misuse(path)
    ctypes.CDLL(str(path)).standin_forgive()


def test_the_time_of_a_run_that_was_not_is_any_number(context: Context) -> None:
    assert context.query(Query.PERF_RUN, "perf_run").run_duration > 1e12


def test_waiting_needs_a_context_that_runs_by_itself(library: NpuLibrary, tmp_path: Path) -> None:
    path = written(tmp_path, small())
    for flags, code in ((0, -1), (4, 0)):
        with NpuSession.open(library, path, flags=flags) as session:  # type: ignore[arg-type]
            extend = library_structure("run_extend")(non_block=1)
            number = session.context._number
            assert library.function("run")(number, ctypes.byref(extend)) == 0
            assert library.function("wait")(number, None) == code


ENDS = """
import sys, ctypes
from rkzoo.runtime.npu_context import Context, NpuLibrary
from rkzoo.runtime.npu_api import Query, Type, context_type
library = NpuLibrary(sys.argv[1])
if sys.argv[3] == "init":
    library.function("init")(ctypes.byref(context_type()()), sys.argv[2].encode(), 0, 0, None)
else:
    from pathlib import Path
    context = Context.open(library, Path(sys.argv[2]))
    told = context.tensor(Query.NATIVE_INPUT_ATTR, 0)
    context.use(context.create_memory(told.bytes), told, type=Type.UINT8)
"""


def ended(library: NpuLibrary, model: Path, call: str) -> int:
    command = [sys.executable, "-c", ENDS, library.path, str(model), call]
    return subprocess.run(command, capture_output=True).returncode


def test_some_mistakes_end_the_process(library: NpuLibrary, tmp_path: Path) -> None:
    empty = tmp_path / "empty.rknn"
    empty.write_bytes(b"")
    assert ended(library, empty, "init") == -signal.SIGBUS
    wide = In("images", (1, 16, 40, 3))
    several = Recording((PICTURE,), OUTPUTS, shapes=[((wide,), OUTPUTS)])
    several.answer([picture(0)], [numbers(0, out) for out in OUTPUTS])
    assert ended(library, written(tmp_path, several), "memory") == -signal.SIGABRT


@pytest.mark.parametrize(("name", "code"), [("librknnrt.so", -6), ("librknnmrt.so", -1)])
def test_a_model_for_another_chip(
    tmp_path: Path, name: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_CHIP", "rk3568")
    library = NpuLibrary(build.compiled(tmp_path, name=name))
    path = str(written(tmp_path, small())).encode()
    assert library.function("init")(ctypes.byref(context_type()()), path, 0, 0, None) == code


def test_the_small_library_refuses_what_the_real_one_does(tiny: NpuLibrary, tmp_path: Path) -> None:
    context = Context.open(tiny, written(tmp_path, small()))
    other = context_type()()
    number = context._number
    assert tiny.function("dup_context")(ctypes.byref(number), ctypes.byref(other)) == -1
    assert tiny.function("wait")(number, None) == -1
    assert not tiny.has("set_core_mask")
    assert not tiny.has("set_batch_core_num")
    for question, kind, index in (
        (Query.PERF_RUN, "perf_run", None),
        (Query.PERF_DETAIL, "perf_detail", None),
        (Query.INPUT_DYNAMIC_RANGE, "input_range", 0),
        (Query.CURRENT_OUTPUT_ATTR, "tensor_attr", 0),
    ):
        with pytest.raises(RkzooError, match="error -1"):
            context.query(question, kind, index)
    two = Recording((PICTURE, In("more", (1, 4), format=3)), (FLAT,))
    two.answer([picture(0), np.zeros((1, 4), np.int8)], [numbers(0, FLAT)])
    context = Context.open(tiny, two.bytes())
    tensors = [context.tensor(Query.INPUT_ATTR, index) for index in range(2)]
    with pytest.raises(RkzooError, match="error -5"):
        context.set_inputs(tensors, [picture(0), np.zeros((1, 4), np.float32)])


@pytest.mark.parametrize(
    ("dtype", "fmt", "arrives"),
    [
        ("int8", Format.UNDEFINED, True),
        ("float32", Format.NHWC, True),
        ("float32", Format.NCHW, True),
        ("float32", Format.UNDEFINED, False),
    ],
)
def test_what_a_vector_may_be_declared_as(
    tiny: NpuLibrary, tmp_path: Path, dtype: str, fmt: Format, arrives: bool
) -> None:
    """All are answered with 0."""
    given = In("vector", (1, 6), scale=0.5, zero_point=2, format=3)
    recording = Recording((given,), (FLAT,))
    codes = np.array([[1, 2, 3, -4, 5, 6]], np.int8)
    recording.answer([np.zeros_like(codes)], [numbers(0, FLAT)])
    recording.answer([codes], [numbers(1, FLAT)])
    context = Context.open(tiny, written(tmp_path, recording))
    told, flat = context.tensor(Query.NATIVE_INPUT_ATTR, 0), context.tensor(Query.OUTPUT_ATTR, 0)
    inside, outside = context.create_memory(4096), context.create_memory(4096)
    context.use(inside, told, type=Type.INT8 if dtype == "int8" else Type.FLOAT32, fmt=fmt)
    context.use(outside, flat)
    values = codes if dtype == "int8" else (codes - np.float32(2)) * np.float32(0.5)
    inside.array((1, 6), dtype)[:] = values
    context.run()
    np.testing.assert_array_equal(outside.array((1, 7), "float32"), numbers(arrives, FLAT))


def test_a_flat_output_is_written_in_whole_blocks(tiny: NpuLibrary, tmp_path: Path) -> None:
    recording = Recording((PICTURE,), (FLAT,))
    recording.answer([picture(0)], [numbers(0, FLAT)])
    context = Context.open(tiny, written(tmp_path, recording))
    assert context.tensor(Query.NATIVE_OUTPUT_ATTR, 0).bytes == 64
    told, flat = context.tensor(Query.NATIVE_INPUT_ATTR, 0), context.tensor(Query.OUTPUT_ATTR, 0)
    assert flat.bytes == 28
    memory = [context.create_memory(told.bytes), context.create_memory(flat.bytes)]
    context.use(memory[0], told, type=Type.UINT8)
    context.use(memory[1], flat)
    context.run()
    path = Path(tiny.path)
    assert "beyond its memory" in build.misuse(path)
    ctypes.CDLL(str(path)).standin_forgive()
