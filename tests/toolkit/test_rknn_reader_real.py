"""What rkzoo reads off files that the real toolkit wrote, against what the toolkit computes."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from rkzoo.graph.rknn.reader import read
from rkzoo.toolkit import environment
from rkzoo.toolkit.process import ToolkitProcess

pytestmark = pytest.mark.toolkit


@pytest.mark.parametrize("version", ["2.5.0", "2.3.2"])
@pytest.mark.parametrize(("soc", "container"), [("rk3588", 6), ("rk3568", 6), ("rv1106", 0x1004)])
def test_scales_are_those_of_the_simulator(
    toolkit_env, cache, make_net, tmp_path, version, soc, container
):
    env = toolkit_env if version == "2.5.0" else environment.ensure(version)
    plan = replace(make_net(tail="Sigmoid", soc=soc), custom_string='{"for": "测试"}')
    out = tmp_path / "net.rknn"
    with ToolkitProcess(env) as process:
        report = process.build(plan, out)
        picture = np.load(plan.calibration / "calibration-0.npy")[:1]
        (answer,) = process.infer([picture])
    file = read(out)
    assert (file.container, file.platforms, file.toolkit) == (container, (soc,), version)
    assert file.custom_json == {"for": "测试"}
    (image,), (output,) = file.inputs, file.outputs
    assert (image.name, image.shape, image.dtype) == ("x", (1, 3, 32, 32), "int8")
    assert (output.name, output.shape, output.dtype) == ("y", (1, 8, 32, 32), "int8")
    norm = file.normalisation["x"]
    assert (norm.mean, norm.std) == ((10.0, 20.0, 30.0), (50.0, 60.0, 70.0))
    # Every number the simulator gives lies on the lattice of the scale that we read.
    assert output.scale is not None
    steps = answer / output.scale + output.zero_point
    assert np.abs(steps - np.round(steps)).max() < 1e-3
    assert -128 <= np.round(steps).min() < np.round(steps).max() <= 127
    assert file.cpu_operators == ()
    assert [o.type for o in file.steps] == [
        layer.op for layer in report.layers if not layer.op.endswith("Operator")
    ]
    assert file.weight_bytes is not None
    # The compiler's own table rounds to kilobytes.
    assert abs(file.weight_bytes - report.weights) < 2048


def test_half_precision_has_no_scale(toolkit_env, cache, make_net, tmp_path):
    out = tmp_path / "net.rknn"
    with ToolkitProcess(toolkit_env) as process:
        process.build(make_net(dtype="fp16"), out)
    file = read(out)
    assert not file.quantised
    assert [spec.dtype for spec in (*file.inputs, *file.outputs)] == ["float16", "float16"]


def test_what_is_left_to_the_cpu_is_named(toolkit_env, cache, make_net, tmp_path):
    plan = make_net(tail="Erf")
    out = tmp_path / "net.rknn"
    with ToolkitProcess(toolkit_env) as process:
        report = process.build(plan, out)
    expected = {layer.op for layer in report.layers if layer.target == "CPU"}
    assert any(not op.endswith("Operator") for op in expected)
    found = {operator.type for operator in read(out).cpu_operators}
    assert found == {op for op in expected if not op.endswith("Operator")}
    assert msgspec.to_builtins(read(out))["container"] == 6
