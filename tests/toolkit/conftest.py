"""The real toolkit, and nets small enough for it to build in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rkzoo.toolkit import environment
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.environment import ToolkitEnv
from rkzoo.toolkit.recipe import InputPlan, Recipe

MakeNet = Callable[..., BuildInputs]


@pytest.fixture(scope="session")
def toolkit_env() -> ToolkitEnv:
    """Installed on first use into the cache the tests were started with."""
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))
    return environment.ensure()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own (the toolkit itself stays where it is)."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RKZOO_CACHE", str(folder))
    return folder


@pytest.fixture
def make_net(tmp_path: Path) -> MakeNet:
    """Build inputs around conv -> `tail` (an ONNX operator) with random weights."""

    def make(
        *,
        tail: str = "Relu",
        size: int = 32,
        samples: int = 4,
        soc: str = "rk3588",
        dtype: str = "int8",
        opset: int = 12,
        folder: str = "net",
        **recipe: object,
    ) -> BuildInputs:
        onnx = pytest.importorskip("onnx")
        helper, numpy_helper = onnx.helper, onnx.numpy_helper
        random = np.random.default_rng(7)
        weights = random.standard_normal((8, 3, 3, 3)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
                helper.make_node(tail, ["c"], ["y"]),
            ],
            "net",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, size, size])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        onnx.save(model, place / "model.onnx")
        pictures = random.integers(0, 256, (samples, size, size, 3), dtype=np.uint8)
        np.save(place / "calibration-0.npy", pictures)
        plan = InputPlan(
            name="x", shape=(1, 3, size, size), mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0)
        )
        made = Recipe(soc=soc, dtype=dtype, inputs=(plan,), **recipe)  # type: ignore[arg-type]
        return BuildInputs(place / "model.onnx", made, place if dtype == "int8" else None)

    return make
