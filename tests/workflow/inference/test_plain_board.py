"""Models of plain tensors on the stand-in for the NPU's library: several inputs, one to six
dimensions, whole numbers and floats. Nothing here was measured on a board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

import rkzoo
from graph.rknn_writer import Sample
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.contract.inputs import ArrayInput, ImageInput, TensorSpec
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.workflow.comparison.check import check
from rkzoo.workflow.compile.convert import custom_string
from rkzoo.workflow.compile.golden import Golden, GoldenMetadata, golden_path, write_golden
from rkzoo.workflow.inference import board

IMAGE = ImageInput(size=(8, 12), fit="stretch")
CONTRACT = Contract(
    family="plain tensors",
    head=TensorsHead(picture="template"),
    picture=IMAGE,
    others=(
        ArrayInput(name="search", shape=(1, 3, 16, 12), image=ImageInput(size=(16, 12))),
        ArrayInput(name="ids", shape=(1, 7), dtype="int64"),
        ArrayInput(name="count", shape=(5,), dtype="int32"),
        ArrayInput(name="frames", shape=(1, 2, 3, 4, 5)),
        ArrayInput(name="lot", shape=(1, 2, 1, 2, 3, 2)),
    ),
)
INPUTS = (
    In("template", (1, 8, 12, 3), w_stride=16),
    In("search", (1, 16, 12, 3), "float16"),
    In("ids", (1, 7), "int64", format=3),
    In("count", (5,), "int32", format=3),
    In("frames", (1, 2, 3, 4, 5), "float16", format=3),
    In("lot", (1, 2, 1, 2, 3, 2), "float16", format=3),
)
OUTPUTS = (
    Out("flat", (6,), "float16", native=3),
    Out("map", (1, 5, 4, 3), "int8", 0.25, -7),
    Out("best", (1, 4), "int64", native=3),
    Out("deep", (1, 2, 1, 3, 2, 2), "float32", native=3),
)
Arrays = Mapping[str, np.ndarray]


def sample(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {
        "template": random.integers(0, 256, (8, 12, 3), np.uint8),
        "search": random.standard_normal((1, 3, 16, 12)).astype(np.float32),
    }
    for one in CONTRACT.others[1:]:
        whole = one.dtype != "float32"
        values = random.integers(0, 9, one.shape) if whole else random.standard_normal(one.shape)
        made[one.name] = values.astype(one.dtype)
    return made


def answer(seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(100 + seed)
    return [
        random.integers(-128, 128, out.shape).astype(out.dtype)
        if np.dtype(out.dtype).kind == "i"
        else random.standard_normal(out.shape).astype(out.dtype)
        for out in OUTPUTS
    ]


def fed(given: Arrays) -> list[np.ndarray]:
    """What a session is given, by hand: the picture as RGB, the rest as it is."""
    return [given["template"][None, ..., ::-1], *(given[one.name] for one in CONTRACT.others)]


def seen(given: Arrays) -> list[np.ndarray]:
    """The same as the library is to see it: four dimensions as NHWC."""
    first, second, *rest = fed(given)
    return [first, second.transpose(0, 2, 3, 1), *rest]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def model(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(board.LIBRARY, str(built))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    recording = Recording(INPUTS, OUTPUTS)
    for seed in range(2):
        recording.answer(seen(sample(seed)), answer(seed))
    file = tmp_path / "plain.rknn"
    file.write_bytes(recording.bytes(Sample(custom=custom_string(CONTRACT)).write()))
    yield file
    after = build.state(built)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0)


def test_samples_go_in_and_outputs_come_back_by_name(model: Path, tmp_path: Path) -> None:
    with rkzoo.load(model) as opened:
        assert opened.runtime == "board"
        for seed in range(2):
            found = opened(sample(seed)).prediction
            assert isinstance(found, rkzoo.Tensors)
            wanted = answer(seed)
            wanted[1] = (wanted[1].astype(np.float32) + 7) * np.float32(0.25)
            assert list(found.arrays) == [out.name for out in OUTPUTS]
            for array, right in zip(found.arrays.values(), wanted, strict=True):
                assert array.shape == right.shape
                np.testing.assert_array_equal(array, right)
        np.savez(tmp_path / "one.npz", **sample(1))
        again = opened(tmp_path / "one.npz").prediction
        np.testing.assert_array_equal(again["best"], answer(1)[2])


def test_they_are_timed_and_measured(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STANDIN_STRICT")  # one of the ways that are timed feeds other bytes
    np.savez(tmp_path / "one.npz", **sample(0))
    timed = rkzoo.bench(model, tmp_path / "one.npz", count=2, warm_up=0)
    assert isinstance(timed, rkzoo.BenchReport)
    assert timed.runtime == "board"
    assert timed.model_info.inputs[0] == (1, 8, 12, 3)

    def best(found: Arrays, path: str) -> float:
        return float(found["best"][0, 0])

    told = rkzoo.evaluate(model, tmp_path / "one.npz", metric=best, workers=1)
    assert told.main.value == answer(0)[2][0, 0]
    with pytest.raises(RkzooError, match="float model") as raised:
        rkzoo.evaluate(model, tmp_path / "one.npz", workers=1)
    assert "--metric" in raised.value.fix


def golden_of(model: Path, change: float = 0) -> None:
    """What the simulator is to have answered beside the model, `change` added to one output."""
    first = TensorSpec(name="template", shape=(1, 8, 12, 3), dtype="uint8", layout="NHWC")
    ins = [TensorSpec(name=o.name, shape=o.shape, dtype=o.dtype) for o in CONTRACT.others]
    outs = [
        TensorSpec(
            name=out.name,
            shape=out.shape,
            dtype="float32" if out.dtype == "float16" else out.dtype,
            scale=out.scale,
            zero_point=out.zero_point,
        )
        for out in OUTPUTS
    ]
    about = GoldenMetadata(
        model=sha256_of(model),
        name=model.name,
        inputs=(first, *ins),
        outputs=tuple(outs),
        count=2,
        origin="calibration",
        toolkit="2.5.0",
        rkzoo="0.1.0",
    )
    asked = tuple(np.stack(stack) for stack in zip(*(fed(sample(n)) for n in (0, 1)), strict=True))
    told = [np.stack(stack) for stack in zip(*(answer(n) for n in (0, 1)), strict=True)]
    told[3] = told[3] + np.float32(change)
    stacks = tuple(a.astype(spec.dtype) for a, spec in zip(told, outs, strict=True))
    write_golden(golden_path(model), Golden(about, asked, stacks))


def test_a_golden_file_tells_whether_the_board_computes_the_same(model: Path) -> None:
    golden_of(model)
    found = check(model)
    assert found.level == "ok"
    (part,) = found.parts
    assert [one.name for one in part.outputs] == [out.name for out in OUTPUTS]
    assert {one.difference for one in part.outputs} == {0}
    assert part.found == ()
    golden_of(model, change=3.0)
    bad = check(model)
    assert bad.level == "fail"
    assert any("deep" in why for why in bad.parts[0].reasons)
