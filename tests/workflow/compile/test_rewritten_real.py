"""The real toolkit builds what it used to crash on, and its simulator agrees with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_operators import REWRITTEN

from rkzoo.progress import SILENT
from rkzoo.runtime.simulator import SimulatorSession
from rkzoo.workflow.compile.simulate import open_simulator
from rkzoo.workflow.request.models import find_model
from rkzoo.workflow.request.request import Request

pytestmark = pytest.mark.toolkit

CASES = (
    ("LSTM without bias", "int8"),
    ("GRU's last state, both ways", "int8"),
    ("LSTM's last state", "int8"),
    ("cubic, twice as large", "int8"),
    ("GroupNormalization", "int8"),
    ("Mish", "int8"),
    ("dense over a map", "int8"),
    ("dense over a map, not turned", "fp16"),
    ("Gelu", "fp16"),
    ("two outputs, one Identity", "int8"),
    ("two outputs, one Reshape", "fp16"),
)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def opened(path: Path, dtype: str, samples: Path) -> SimulatorSession:
    request = Request(fit="none", raw=True, dtype=dtype, calibration=str(samples))
    return open_simulator(
        find_model(str(path), request, SILENT), pictures=request.pictures, dtype=dtype
    )


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_the_simulator_agrees(name: str, dtype: str, tmp_path: Path) -> None:
    path, samples = tmp_path / "model.onnx", tmp_path / "samples"
    onnx.save(REWRITTEN[name](), path)
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    random = np.random.default_rng(5)
    drawn = [random.standard_normal(given.shape).astype(np.float32) for _ in range(4)]
    samples.mkdir()
    for number, sample in enumerate(drawn):
        np.save(samples / f"{number}.npy", sample)
    expected = session.run(None, {given.name: drawn[0]})
    with opened(path, dtype, samples) as simulator:
        answer = simulator.run([drawn[0]])
        specs = simulator.outputs
    assert len(answer) == len(expected)
    for codes, spec, other in zip(answer, specs, expected, strict=True):
        values = codes.astype(np.float32)
        if spec.scale is not None:
            values = (values - spec.zero_point) * spec.scale
        assert values.shape == other.shape
        assert cosine(values, other) > (0.995 if dtype == "int8" else 0.9999)
