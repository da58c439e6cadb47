"""Builds from what an earlier calibration left, with the real toolkit: the numbers are those of a
plain build, to the last bit."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

import rkzoo
from rkzoo.files import cache_dir
from rkzoo.toolkit import builds, worker
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan, Recipe

pytestmark = pytest.mark.toolkit

SIDE = 32
PICTURE = InputPlan(name="x", shape=(1, 3, SIDE, SIDE), mean=(0.0,) * 3, std=(255.0,) * 3)
VECTOR = InputPlan(name="v", shape=(1, 8))

# The real worker, which refuses to calibrate apart from building.
PLAIN = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("worker", {worker.__file__!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

def refuse(*arguments):
    raise worker.JobRefused("a plain build is wanted")

worker.Jobs._hybrid = refuse
worker.Jobs._resumed = lambda *arguments: None
worker.main()
"""
# The real worker, which cannot calibrate.
RESUMED = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("worker", {worker.__file__!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

def refuse(*arguments):
    raise worker.JobRefused("calibration is not wanted")

worker.Jobs._calibrate = worker.Jobs._load = refuse
worker.main()
"""


def classifier(*, vector: bool):
    """Two convolutions, a mean and a linear layer; with `vector` a second input joins there."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    random = np.random.default_rng(3)

    def weights(name, *shape):
        values = random.standard_normal(shape) * 0.3
        return onnx.numpy_helper.from_array(values.astype(np.float32), name)

    info = helper.make_tensor_value_info
    wide = 24 if vector else 16
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        *([helper.make_node("Concat", ["f", "v"], ["j"], axis=1)] if vector else []),
        helper.make_node("Gemm", ["j" if vector else "f", "w3"], ["y"]),
    ]
    plans = (PICTURE, VECTOR) if vector else (PICTURE,)
    graph = helper.make_graph(
        nodes,
        "net",
        [info(plan.name, 1, plan.shape) for plan in plans],
        [info("y", 1, [1, 10])],
        [weights("w1", 8, 3, 3, 3), weights("w2", 16, 8, 3, 3), weights("w3", wide, 10)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model.SerializeToString(), plans


def stored(vector: bool = False, **recipe: object) -> BuildInputs:
    graph, plans = classifier(vector=vector)
    random = np.random.default_rng(1)
    arrays = [random.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)]
    if vector:
        arrays.append(random.standard_normal((4, 1, 8)).astype(np.float32))
    made = Recipe(soc="rk3588", dtype="int8", inputs=plans, **recipe)  # type: ignore[arg-type]
    inputs = builds.find(builds.store(graph, arrays, made))
    assert inputs is not None
    return inputs


def fed(inputs: BuildInputs) -> list[np.ndarray]:
    random = np.random.default_rng(9)
    return [
        random.integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
        if plan.mean
        else random.standard_normal(plan.shape).astype(np.float32)
        for plan in inputs.recipe.inputs
    ]


def answers(env, inputs: BuildInputs, arrays, script: Path | None = None, soc: str = ""):
    """What the simulator answers; built for a chip where one is named."""
    with ToolkitProcess(env, script=script) as process:
        if soc:
            chosen = msgspec.structs.replace(inputs.recipe, soc=soc)
            out = process.folder / "for_chip.rknn"
            process.build(replace(inputs, recipe=chosen), out, keep=True)
        else:
            process.build_for_simulation(inputs)
        return process.infer(arrays)


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "stand_in.py"
    path.write_text(text)
    return path


def equal(ours, theirs) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("vector", "fields"),
    [
        (False, {}),
        (True, {}),
        (False, {"algorithm": "kl_divergence"}),
        (False, {"method": "layer"}),
        (False, {"optimization_level": 1}),
    ],
)
def test_a_resumed_build_answers_as_a_plain_one_to_the_last_bit(
    toolkit_env, cache, tmp_path, vector, fields
):
    inputs = stored(vector, **fields)
    arrays = fed(inputs)
    plain = answers(toolkit_env, inputs, arrays, script(tmp_path, PLAIN))
    assert builds.find_calibrated(inputs, toolkit_env.version) is None
    assert equal(answers(toolkit_env, inputs, arrays, soc="rk3588"), plain)
    assert builds.find_calibrated(inputs, toolkit_env.version) is not None
    assert equal(answers(toolkit_env, inputs, arrays, script(tmp_path, RESUMED)), plain)
    assert np.ptp(plain[0]) > 0


@pytest.mark.parametrize("soc", ["rk3566", "rk3576", "rv1106", "rv1103b"])
def test_what_was_kept_of_another_chip_serves_the_simulator(toolkit_env, cache, tmp_path, soc):
    inputs = stored()
    arrays = fed(inputs)
    plain = answers(toolkit_env, inputs, arrays, script(tmp_path, PLAIN))
    assert equal(answers(toolkit_env, inputs, arrays, soc=soc), plain)
    assert equal(answers(toolkit_env, inputs, arrays, script(tmp_path, RESUMED)), plain)


def test_what_cannot_be_resumed_is_calibrated_again(toolkit_env, cache, tmp_path):
    """As where another version of the toolkit wrote the files in another way."""
    inputs = stored()
    arrays = fed(inputs)
    first = answers(toolkit_env, inputs, arrays)
    folder = builds.find_calibrated(inputs, toolkit_env.version)
    (folder / "hybrid.data").write_bytes(b"not a pickle")
    os.unlink(folder / "digests.json")
    builds._seal(folder)
    assert builds.find_calibrated(inputs, toolkit_env.version) == folder
    assert equal(answers(toolkit_env, inputs, arrays), first)


def test_damaged_numbers_are_calibrated_again(toolkit_env, cache, tmp_path):
    inputs = stored()
    arrays = fed(inputs)
    first = answers(toolkit_env, inputs, arrays)
    folder = builds.find_calibrated(inputs, toolkit_env.version)
    table = (folder / "chosen.cfg").read_bytes()
    (folder / "chosen.cfg").write_bytes(table.replace(b"0", b"1", 40))
    assert equal(answers(toolkit_env, inputs, arrays), first)
    assert (
        builds.find_calibrated(inputs, toolkit_env.version) / "chosen.cfg"
    ).read_bytes() == table


def test_layers_are_compared_after_a_resumed_build(toolkit_env, cache, tmp_path):
    inputs = stored()
    pictures = [np.load(inputs.calibration / "calibration-0.npy")[:1]]
    with ToolkitProcess(toolkit_env) as process:
        first = process.analyse(inputs, pictures)
    with ToolkitProcess(toolkit_env, script=script(tmp_path, RESUMED)) as process:
        assert process.analyse(inputs, pictures) == first


@pytest.mark.parametrize(
    "fields",
    [{"auto_hybrid": True}, {"algorithm": "mmse"}, {"algorithm": "mmse", "float_layers": ("r1",)}],
)
def test_what_cannot_be_held_equal_is_not_kept(toolkit_env, cache, fields):
    """The toolkit's own search leaves no table, and the weights of `mmse` are in none."""
    inputs = stored(**fields)
    answers(toolkit_env, inputs, fed(inputs))
    assert builds.find_calibrated(inputs, toolkit_env.version) is None
    assert not list(cache_dir("builds").glob(".*.part"))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of builds of its own, with the toolkits of the usual one."""
    usual, mine = cache_dir("toolkits"), tmp_path / "cache"
    mine.mkdir()
    (mine / "toolkits").symlink_to(usual)
    monkeypatch.setenv("RKZOO_CACHE", str(mine))
    return mine


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["yolov8n", "mobilenetv2"])
def test_a_real_model_answers_alike_from_what_another_chip_left(
    toolkit_env, own_cache, assets, tmp_path, name
):
    """With the ranges that calibration found, since a plain build cannot set those of scores."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in sorted((assets / "data/coco128_val/images").glob("*.jpg"))[:2]:
        shutil.copy(file, folder)
    model = assets / f"models/{name}.onnx"
    (made,) = rkzoo.convert(model, "rv1106", calibration=str(folder), output=tmp_path / "x.rknn")
    inputs = builds.find(json.loads(made.sidecar.read_text())["build"])
    assert builds.find_calibrated(inputs, toolkit_env.version) is not None
    recipe = msgspec.structs.replace(inputs.recipe, scores=())
    inputs = replace(inputs, recipe=recipe)
    arrays = [np.load(inputs.calibration / "calibration-0.npy")[:1]]
    plain = answers(toolkit_env, inputs, arrays, script(tmp_path, PLAIN))
    assert equal(answers(toolkit_env, inputs, arrays, soc="rv1106"), plain)
    assert equal(answers(toolkit_env, inputs, arrays, script(tmp_path, RESUMED)), plain)
