"""Float layers, the tensors they are chosen from, and where INT8 loses: on the real toolkit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.graph.lowering.checks import is_quantised, quantization_info
from rkzoo.graph.rknn import reader as rknn
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan, Recipe

pytestmark = pytest.mark.toolkit

SIDE = 32
PLAN = InputPlan(name="x", shape=(1, 3, SIDE, SIDE), mean=(0.0,) * 3, std=(255.0,) * 3)
ODD = "odd: {tensor}/with, a 'name' that is \"long\" enough to fold, " + "o" * 40


def swish_net():
    """Conv, swish, conv with a wide range, and two outputs; one name of a number, one odd."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    random = np.random.default_rng(0)

    def weights(name, *shape):
        values = random.standard_normal(shape) * 0.3
        return onnx.numpy_helper.from_array(values.astype(np.float32), name)

    def conv(source, name, out, side):
        more = {"kernel_shape": [side, side], "pads": [side // 2] * 4}
        return helper.make_node("Conv", [source, name], [out], name=f"n_{name}", **more)

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            conv("x", "w1", "460", 3),
            helper.make_node("Relu", ["460"], ["r1"]),
            conv("r1", "w2", ODD, 3),
            helper.make_node("Sigmoid", [ODD], ["s2"]),
            helper.make_node("Mul", [ODD, "s2"], ["m2"]),
            conv("m2", "w3", "c3", 1),
            helper.make_node("Sigmoid", ["c3"], ["y"]),
            conv("m2", "w4", "z", 1),
        ],
        "net",
        [info("x", 1, PLAN.shape)],
        [info("y", 1, None), info("z", 1, None)],
        [
            weights("w1", 8, 3, 3, 3),
            weights("w2", 8, 8, 3, 3),
            weights("w3", 4, 8, 1, 1),
            weights("w4", 4, 8, 1, 1),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> BuildInputs:
    onnx = pytest.importorskip("onnx")
    place = tmp_path_factory.mktemp("net")
    onnx.save(swish_net(), place / "model.onnx")
    pictures = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(place / "calibration-0.npy", pictures)
    recipe = Recipe(soc="rk3588", dtype="int8", inputs=(PLAN,))
    return BuildInputs(place / "model.onnx", recipe, place)


@pytest.fixture(scope="module")
def process(toolkit_env, tmp_path_factory) -> Iterator[ToolkitProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        with ToolkitProcess(toolkit_env) as one:
            yield one


@pytest.fixture(scope="module")
def pictures(plan) -> np.ndarray:
    return np.load(plan.calibration / "calibration-0.npy")


def with_recipe(plan: BuildInputs, **fields: object) -> BuildInputs:
    return replace(plan, recipe=msgspec.structs.replace(plan.recipe, **fields))


def in_float(plan: BuildInputs, pictures: np.ndarray, onnx: Path | None = None):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Fused integer kernels saturate on processors without VNNI, so that they are further from
    # the quantised graph's meaning than the simulator is.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(onnx or plan.onnx, options)
    fed = pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255
    return session.run(None, {"x": fed})


def test_float_layers_are_built_simulated_and_nearer_to_float(process, plan, pictures, tmp_path):
    picture = pictures[:1]
    wanted = in_float(plan, picture)
    process.build_for_simulation(plan)
    plain = process.infer([picture])

    tensors = {one.name: one for one in process.quantised_tensors(plan)}
    assert {"460", "r1", ODD, "m2"} < set(tensors)
    swish = tensors["m2"]
    assert (swish.op, swish.layer, swish.sources) == ("exSwish", (ODD, "m2"), (ODD,))
    assert tensors[ODD].layer == swish.layer
    assert swish.scale == pytest.approx((swish.high - swish.low) / 255)
    assert -128 <= swish.zero_point <= 127
    assert list(tensors).index("r1") < list(tensors).index("m2")

    chosen = with_recipe(plan, float_layers=swish.layer)
    report = process.build(chosen, tmp_path / "hybrid.rknn")
    dtypes = {layer.name: layer.dtype for layer in report.layers}
    assert dtypes["Conv:n_w2"] == "FLOAT16"
    assert dtypes["Conv:n_w1"] == "INT8"
    assert sum(layer.op == "exDataConvert" for layer in report.layers) == 2
    assert [spec.dtype for spec in rknn.read(report.rknn).outputs] == ["int8", "int8"]
    built = process.infer([picture])

    # The same without calibrating again, and on the simulator.
    again = process.build_for_simulation(chosen)
    assert again.layers == report.layers
    for one, other in zip(built, process.infer([picture]), strict=True):
        assert np.array_equal(one, other)
    assert any(not np.array_equal(one, other) for one, other in zip(plain, built, strict=True))

    # The ranges are those of a plain build: what does not depend on a float layer stays.
    process.build_for_simulation(with_recipe(plan, float_layers=("z",)))
    y, z = process.infer([picture])
    assert np.array_equal(y, plain[0])
    assert not np.array_equal(z, plain[1])

    everything = [name for name, one in tensors.items() if one.op]
    process.build_for_simulation(with_recipe(plan, float_layers=tuple(everything)))
    for one, other, exact in zip(process.infer([picture]), plain, wanted, strict=True):
        assert np.abs(one - exact).max() < 0.1 * np.abs(other - exact).max()


def test_layer_errors_are_those_of_the_outputs(process, plan, pictures):
    rows = process.analyse(plan, [pictures[:1]])
    by_name = {row.tensor: row for row in rows}
    assert [row.tensor for row in rows][:2] == ["x", "x_int8"]
    assert by_name["460"].cosine_entire is None, "it is fused with the next"
    assert by_name["m2"].op == "exSwish"
    assert by_name[ODD].cosine_single is not None
    outputs = process.infer([pictures[:1]])  # the build is still there
    for name, output, exact in zip("yz", outputs, in_float(plan, pictures[:1]), strict=True):
        assert by_name[name].euclid_entire == pytest.approx(np.linalg.norm(output - exact), 0.01)
    assert not any(path.name == "snapshot" for path in process.folder.rglob("*"))

    both = process.analyse(plan, [pictures[:2]])
    assert [row.tensor for row in both] == [row.tensor for row in rows]
    assert by_name["z"].euclid_entire <= max(r.euclid_entire for r in both if r.tensor == "z")
    with pytest.raises(RkzooError, match="as many"):
        process.analyse(plan, [])
    with pytest.raises(RkzooError, match="of the shape"):
        process.analyse(plan, [pictures[:, :8]])


def test_every_method_and_the_automatic_hybrid_build(process, plan, pictures, tmp_path):
    outputs = {}
    for fields in ({}, {"method": "layer"}, {"auto_hybrid": True}):
        process.build(with_recipe(plan, **fields), tmp_path / "model.rknn")
        outputs[tuple(fields)] = process.infer([pictures[:1]])[1]
    assert not np.array_equal(outputs[()], outputs[("method",)])


def test_the_layer_table_of_each_chip(process, plan, tmp_path):
    costs = {}
    for soc in ("rk3588", "rk3576", "rk3562", "rk3566", "rv1106", "rv1103b", "rv1126b"):
        report = process.build(with_recipe(plan, soc=soc), tmp_path / "model.rknn")
        convolutions = [layer for layer in report.layers if layer.name.startswith("Conv:")]
        assert len(convolutions) == 4, soc
        assert all(layer.cycles_npu > 0 and layer.rw_kb > 0 for layer in convolutions), soc
        assert convolutions[0].input_shape[:2] == ((1, 3, SIDE, SIDE), (8, 3, 3, 3)), soc
        assert [layer.id for layer in report.layers] == list(range(len(report.layers))), soc
        assert report.weights, soc
        assert report.internal, soc
        assert {layer.sparse for layer in convolutions} == (
            {0.0} if soc in ("rk3576", "rv1126b") else {None}
        )
        costs[soc] = convolutions[1].cycles_total
    assert costs["rk3576"] > 0
    assert len(set(costs.values())) >= 1


def fails(env, cache, job) -> RkzooError:
    with ToolkitProcess(env) as process:
        with pytest.raises(RkzooError) as caught:
            job(process)
        assert caught.value.fix
    assert [path.name for path in cache_dir("scratch").iterdir()] in ([], [".lock"])
    return caught.value


def test_an_unknown_float_layer_is_one_error(toolkit_env, cache, plan, tmp_path):
    chosen = with_recipe(plan, float_layers=("nope",))
    error = fails(toolkit_env, cache, lambda p: p.build(chosen, tmp_path / "o.rknn"))
    assert "'nope'" in error.why
    assert "Name only tensors" in error.fix
    assert not (tmp_path / "o.rknn").exists()


def test_int8_without_calibration_is_refused_not_built_in_float(process, plan, tmp_path):
    with pytest.raises(RkzooError, match="needs calibration"):
        process.build(replace(plan, calibration=None), tmp_path / "o.rknn")
    with pytest.raises(RkzooError, match="no quantised tensors"):
        process.quantised_tensors(with_recipe(plan, dtype="fp16"))


@pytest.fixture(scope="module")
def quantised(plan, pictures, tmp_path_factory) -> Path:
    """The same net with QDQ nodes, as quantisation-aware training leaves it."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = list(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255)

        def get_next(self):
            return {"x": self._left.pop()[None]} if self._left else None

    out = tmp_path_factory.mktemp("qdq") / "model.onnx"
    quantization.quantize_static(
        plan.onnx,
        out,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )
    return out


def test_a_quantised_graph_is_built_with_its_own_scales(
    process, plan, pictures, quantised, tmp_path
):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(quantised)
    found = quantization_info(model)
    assert found is not None
    assert (found.integer, found.read_inside) == ((), ())
    assert not is_quantised(onnx.load(plan.onnx))

    given = replace(with_recipe(plan, quantised=True), onnx=quantised, calibration=None)
    report = process.build(given, tmp_path / "model.rknn")
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    outputs = {spec.name: spec for spec in rknn.read(report.rknn).outputs}
    for name in "yz":
        assert outputs[name].dtype == "int8"
        assert outputs[name].scale == pytest.approx(float(scales[f"{name}_scale"]), 1e-5)
    for ours, theirs in zip(
        process.infer([pictures[:1]]), in_float(plan, pictures[:1], quantised), strict=True
    ):
        cosine = np.vdot(ours, theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert cosine > 0.999

    with pytest.raises(RkzooError, match="already quantised"):
        process.analyse(given, [pictures[:1]])
    with pytest.raises(RkzooError, match="already quantised"):
        process.quantised_tensors(given)


def test_a_quantised_output_that_is_read_inside_is_known_to_fail(
    toolkit_env, cache, plan, quantised, tmp_path
):
    """The reason that toolkit/checks.py gives before the build is a true one."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(quantised)
    axes = onnx.numpy_helper.from_array(np.int64([1]), "axes")
    model.graph.initializer.append(axes)
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["y", "axes"], ["sum"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("sum", 1, None))
    onnx.save(model, tmp_path / "shared.onnx")
    assert quantization_info(model).read_inside == ("y",)
    given = replace(
        with_recipe(plan, quantised=True), onnx=tmp_path / "shared.onnx", calibration=None
    )
    error = fails(toolkit_env, cache, lambda p: p.build(given, tmp_path / "o.rknn"))
    assert "y_dup" in error.why
    assert "export" in error.fix
