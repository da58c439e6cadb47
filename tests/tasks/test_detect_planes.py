"""Levels read as one stack, whatever each of them stores."""

from __future__ import annotations

import numpy as np
import pytest

from rkzoo.contract.inputs import TensorSpec
from rkzoo.tasks.detect.planes import Plane, Stack

KINDS = {
    "one scale": [("int8", 0.1, -3), ("int8", 0.1, -3)],
    "two scales": [("int8", 0.1, -3), ("int8", 0.07, 5)],
    "unsigned": [("uint8", 0.1, 100), ("uint8", 0.2, 9)],
    "two types of one scale": [("int8", 0.1, 0), ("int16", 0.1, 0)],
    "integer and float": [("int8", 0.1, -3), ("float32", None, 0)],
}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NC1HWC2"])
@pytest.mark.parametrize(("first", "count"), [(0, 32), (16, 16), (5, 20), (7, 1)])
def test_a_stack_reads_what_the_levels_mean(kinds, layout, first, count):
    rng = np.random.default_rng(7)
    outputs, planes, meant = [], [], []
    for index, ((dtype, scale, zero), side) in enumerate(zip(kinds, (6, 3), strict=True)):
        table = rng.integers(0, 100, (side * side, 32)).astype(dtype)
        meant.append((table.astype(np.float32) - zero) * (scale or 1))
        cells = table.reshape(1, side, side, 32)
        arrays = {
            "NHWC": cells,
            "NCHW": cells.transpose(0, 3, 1, 2),
            "NC1HWC2": cells.reshape(1, side, side, 2, 16).transpose(0, 3, 1, 2, 4),
        }
        outputs.append(np.ascontiguousarray(arrays[layout]))
        spec = TensorSpec(
            name=f"t{index}", shape=outputs[-1].shape, dtype=dtype, layout=layout, scale=scale,
            zero_point=zero,
        )  # fmt: skip
        planes.append(Plane(index, spec, first, count))
    stack, want = Stack(planes, [0, 36, 45]), np.concatenate(meant)[:, first : first + count]

    limit = float(np.quantile(want.max(axis=1), 0.7)) - 1e-3
    over = stack.cells_over(outputs, limit)
    np.testing.assert_array_equal(over, np.flatnonzero((want >= limit).any(axis=1)))
    assert 0 < len(over) < 45

    for cells in (over, np.arange(36, 45), np.arange(45), np.empty(0, np.intp)):
        gathered = stack.gather(outputs, cells)
        np.testing.assert_allclose(stack.values(gathered, cells), want[cells], rtol=1e-5, atol=1e-5)
