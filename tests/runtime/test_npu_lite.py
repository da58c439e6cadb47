"""The adapter for rknn-toolkit-lite2, with a fake of that package: it has no wheel for a PC."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu_api import Cores
from rkzoo.runtime.npu_lite import LiteSession

INPUTS = (
    TensorSpec(name="images", shape=(1, 3, 4, 6), dtype="int8", layout="NCHW"),
    TensorSpec(name="texts", shape=(2, 5), dtype="float16"),
    TensorSpec(name="values", shape=(1, 2, 3, 5), dtype="int8", layout="NCHW"),
)
OUTPUTS = (
    TensorSpec(name="box", shape=(1, 8, 2, 3), dtype="int8", layout="NCHW", scale=0.5),
    TensorSpec(name="flat", shape=(1, 7), dtype="float16"),
)
VALUES = np.arange(30, dtype=np.float32).reshape(1, 2, 3, 5)
GIVEN = [np.ones((1, 4, 6, 3), np.uint8), np.ones((2, 5), np.float32), VALUES]


class Circle:
    """What the real package leaves behind after each inference."""

    alive = 0

    def __init__(self) -> None:
        self.myself = self
        Circle.alive += 1

    def __del__(self) -> None:
        Circle.alive -= 1


class FakeLite:
    made: ClassVar[list[FakeLite]] = []
    answers: ClassVar[dict[str, Any]] = {}

    def __init__(self, verbose: bool) -> None:
        self.calls: list[Any] = []
        FakeLite.made.append(self)

    def load_rknn(self, path: str) -> int:
        self.calls.append(("load", path))
        return FakeLite.answers.get("load", 0)

    def init_runtime(self, **options: Any) -> int:
        self.calls.append(("init", options))
        return FakeLite.answers.get("init", 0)

    def inference(self, inputs: list[Any], data_format: list[str]) -> Any:
        Circle()
        self.calls.append(([a.shape for a in inputs], [str(a.dtype) for a in inputs], data_format))
        self.last = inputs[-1]
        assert all(a.flags.c_contiguous for a in inputs)
        found = FakeLite.answers.get("inference", "right")
        if isinstance(found, Exception):
            raise found
        if found != "right":
            return found
        return [np.full((1, 8, 2, 3), 1.5, np.float32), np.zeros((7,), np.float32)]

    def release(self) -> None:
        self.calls.append("release")


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    api = ModuleType("rknnlite.api")
    api.RKNNLite = FakeLite  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rknnlite", ModuleType("rknnlite"))
    monkeypatch.setitem(sys.modules, "rknnlite.api", api)
    monkeypatch.setattr(FakeLite, "made", [])
    monkeypatch.setattr(FakeLite, "answers", {})


def opened(**options: Any) -> LiteSession:
    return LiteSession(Path("model.rknn"), INPUTS, OUTPUTS, **options)


def test_pictures_go_in_as_they_are_and_floats_come_out() -> None:
    with opened(cores=Cores.CORE_1) as session:
        assert session.label == "board"
        assert session.inputs[0].shape == (1, 4, 6, 3)
        assert session.inputs[0].dtype == "uint8"
        outputs = session.run(GIVEN)
        assert [array.shape for array in outputs] == [spec.shape for spec in session.outputs]
        assert {str(array.dtype) for array in outputs} == {"float32"}
        assert all(spec.scale is None for spec in session.outputs)
    (lite,) = FakeLite.made
    assert lite.calls == [
        ("load", "model.rknn"),
        ("init", {"core_mask": 2}),
        (
            [(1, 4, 6, 3), (1, 1, 2, 5), (1, 3, 5, 2)],
            ["uint8", "float32", "float32"],
            # Of a tensor in another order the library below would copy nothing.
            ["nhwc", "nhwc", "nhwc"],
        ),
        "release",
    ]
    np.testing.assert_array_equal(lite.last, np.moveaxis(VALUES, 1, -1))


def test_the_circles_of_each_inference_go() -> None:
    gc.disable()  # what the collector does by itself must not help
    try:
        gc.collect()
        with opened() as session:
            for _ in range(50):
                session.run(GIVEN)
                assert Circle.alive <= 1
    finally:
        gc.enable()


@pytest.mark.parametrize("step", ["load", "init"])
def test_a_model_that_does_not_open_is_released(step: str) -> None:
    FakeLite.answers[step] = -1
    with pytest.raises(RkzooError, match="returned -1"):
        opened()
    assert FakeLite.made[0].calls[-1] == "release"


@pytest.mark.parametrize("answer", [None, [], RuntimeError("bad shape")])
def test_a_failed_run(answer: Any) -> None:
    FakeLite.answers["inference"] = answer
    with opened() as session, pytest.raises(RkzooError, match="did not run on the NPU"):
        session.run(GIVEN)


def test_after_its_end() -> None:
    session = opened()
    session.close()
    session.close()
    assert FakeLite.made[0].calls.count("release") == 1
    with pytest.raises(RkzooError, match="closed"):
        session.run(GIVEN)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rknnlite.api", None)
    with pytest.raises(RkzooError, match="cannot be used here"):
        opened()
