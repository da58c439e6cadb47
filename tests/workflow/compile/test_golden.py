"""Golden files: what is kept, and what is refused of a file that comes from a stranger."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rkzoo.cli.main import main
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.toolkit.recipe import InputPlan
from rkzoo.workflow.compile import golden as room
from rkzoo.workflow.compile.golden import (
    Golden,
    GoldenMetadata,
    golden_of,
    golden_path,
    read_golden,
    write_golden,
)


def made(sha256: str = "0" * 64) -> Golden:
    random = np.random.default_rng(3)
    about = GoldenMetadata(
        model=sha256,
        name="net.rknn",
        inputs=(TensorSpec(name="x", shape=(1, 4, 6, 3), dtype="uint8", layout="NHWC"),),
        outputs=(
            TensorSpec(name="y", shape=(1, 5), dtype="int8", scale=0.5, zero_point=-3),
            TensorSpec(name="z", shape=(1, 2, 4), dtype="float32"),
        ),
        count=2,
        origin="calibration",
        toolkit="2.5.0",
        rkzoo="0.1.0",
    )
    return Golden(
        about,
        (random.integers(0, 256, (2, 1, 4, 6, 3), np.uint8),),
        (
            random.integers(-128, 128, (2, 1, 5), np.int8),
            random.standard_normal((2, 1, 2, 4)).astype(np.float32),
        ),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    wanted, path = made(), tmp_path / "net.rknn.golden.npz"
    write_golden(path, wanted)
    found = read_golden(path)
    assert found.about == wanted.about
    for one, other in zip(
        (*found.fed, *found.answers), (*wanted.fed, *wanted.answers), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    # A plain .npz, which numpy alone can read.
    with np.load(path, allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["output0"], wanted.answers[0])
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_it_belongs_to_one_build(tmp_path: Path) -> None:
    model = tmp_path / "net.rknn"
    model.write_bytes(b"RKNN one")
    with pytest.raises(RkzooError, match=r"has no net\.rknn\.golden\.npz") as caught:
        golden_of(model)
    assert "--golden" in caught.value.fix
    write_golden(golden_path(model), made(sha256_of(model)))
    assert golden_of(model).about.count == 2
    model.write_bytes(b"RKNN two")
    with pytest.raises(RkzooError, match="another build"):
        golden_of(model)
    with pytest.raises(RkzooError, match="cannot be read"):
        golden_of(tmp_path / "gone.rknn")


def npy(array: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **how)
    return stream.getvalue()


def header(shape: str, kind: str = "'|i1'", turned: bool = False) -> bytes:
    """An .npy that says more than it has."""
    text = f"{{'descr': {kind}, 'fortran_order': {turned}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def about_of(**changed: Any) -> bytes:
    text = msgspec.json.encode(msgspec.to_builtins(made().about) | changed)
    return npy(np.frombuffer(text, np.uint8))


HUGE = [{"name": "x", "shape": [1, 1 << 20, 1 << 20, 3], "dtype": "uint8"}]
ODD = [{"name": "x", "shape": [1, 0], "dtype": "uint8"}]
BAD: dict[str, dict[str, bytes | None]] = {
    "no about": {"about": None},
    "no output": {"output1": None},
    "about is no JSON": {"about": npy(np.frombuffer(b"{nonsense", np.uint8))},
    "about of the future": {"about": about_of(format=2)},
    "unknown key": {"about": about_of(more=1)},
    "about is floats": {"about": npy(np.zeros(4))},
    "about is endless": {"about": header(f"({1 << 40},)", "'|u1'")},
    "larger than memory": {"about": about_of(inputs=HUGE)},
    "no numbers": {"about": about_of(inputs=ODD)},
    "no inputs": {"about": about_of(inputs=[])},
    "a type of objects": {
        "about": about_of(outputs=[{"name": "y", "shape": [1, 5], "dtype": "O"}])
    },
    "too many": {"about": about_of(count=10**9)},
    "path for a sha": {"about": about_of(model="../../etc/passwd")},
    "pickle": {"output0": npy(np.array([[{}] * 5] * 2, object)[:, None], allow_pickle=True)},
    "another shape": {"output0": npy(np.zeros((2, 5, 1), np.int8))},
    "another type": {"output0": npy(np.zeros((2, 1, 5), np.uint8))},
    "another order": {"output1": npy(np.asfortranarray(np.zeros((2, 1, 2, 4), np.float32)))},
    "fewer than it says": {"output0": header("(2, 1, 5)") + bytes(4)},
    "more than it says": {"output0": header("(2, 1, 5)") + bytes(11)},
    "says too much": {"output0": header(f"(2, {1 << 40}, 5)")},
    "a header that is code": {"output0": header("__import__('os').getpid()")},
    "a deep header": {"output0": header("(" * 3000 + ")" * 3000)},
    "no header": {"output0": b"plain"},
}


def rewritten(
    path: Path, changed: dict[str, bytes | None], how: int = zipfile.ZIP_DEFLATED
) -> None:
    """The good file with some of its entries changed."""
    write_golden(path, made())
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name, data in changed.items():
        entries.pop(f"{name}.npy")
        if data is not None:
            entries[f"{name}.npy"] = data
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("changed", BAD.values(), ids=BAD)
def test_a_strangers_file_is_refused_in_a_sentence(
    tmp_path: Path, changed: dict[str, bytes | None]
) -> None:
    path = tmp_path / "bad.npz"
    rewritten(path, changed)
    with pytest.raises(RkzooError, match="no golden file, or a damaged one"):
        read_golden(path)


def test_unchanged_entries_are_read(tmp_path: Path) -> None:
    """What `rewritten` writes is refused for what was changed, and for nothing else."""
    rewritten(tmp_path / "good.npz", {"output0": npy(np.zeros((2, 1, 5), np.int8))})
    assert not read_golden(tmp_path / "good.npz").answers[0].any()


def test_packings_without_a_bound_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    rewritten(path, {}, zipfile.ZIP_BZIP2)
    with pytest.raises(RkzooError, match="packed"):
        read_golden(path)


def test_damage_is_seen(tmp_path: Path) -> None:
    """Each byte of the file turned, or the file cut there: refused, or of no importance."""
    path, bad = tmp_path / "net.npz", tmp_path / "bad.npz"
    write_golden(path, made())
    data, wanted = path.read_bytes(), made()
    refused = 0
    for at in range(len(data)):
        for changed in (data[:at], data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]):
            bad.write_bytes(changed)
            try:
                found = read_golden(bad)
            except RkzooError:
                refused += 1
                continue
            assert found.about == wanted.about
            for one, other in zip(found.answers, wanted.answers, strict=True):
                np.testing.assert_array_equal(one, other)
    assert refused > len(data)


def test_what_is_too_large_to_keep_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LARGEST", 100)
    with pytest.raises(RkzooError, match="too much for one file"):
        write_golden(tmp_path / "x.npz", made())
    assert list(tmp_path.iterdir()) == []


def test_shapes_are_held_to_what_is_said(tmp_path: Path) -> None:
    golden = made()
    with pytest.raises(RkzooError):
        write_golden(tmp_path / "x.npz", replace(golden, fed=golden.answers[:1]))


@pytest.mark.parametrize(
    "plan",
    [
        InputPlan(name="x", shape=(1, 3, 40, 70), mean=(0, 0, 0), std=(1, 1, 1)),
        InputPlan(name="x", shape=(2, 1, 40, 70), mean=(0,), std=(1,)),
        InputPlan(name="x", shape=(1, 8, 4)),
        InputPlan(name="x", shape=(1, 6), dtype="int64"),
    ],
)
def test_made_inputs_are_the_same_each_time(plan: InputPlan) -> None:
    made_: Callable[..., Any] = room._synthetic_inputs
    one, again, other = made_(plan, 2, 0), made_(plan, 2, 0), made_(plan, 2, 1)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (one[0] != one[1]).any()
    shape = plan.shape if not plan.mean else (plan.shape[0], 40, 70, plan.shape[1])
    assert (one.shape, one.dtype) == ((2, *shape), np.dtype("uint8" if plan.mean else plan.dtype))


@pytest.mark.parametrize("count", ["-1", "101"])
def test_how_many_is_checked_before_anything_is_fetched(
    count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "yolov8n", "--soc", "rk3588", "--golden", count]) == 2
    assert "--golden 3" in capsys.readouterr().err
