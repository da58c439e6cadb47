"""The real RKNN-Toolkit2: what it builds, what it refuses, and every way to stop it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.toolkit import builds, environment
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan, Recipe

pytestmark = pytest.mark.toolkit


def for_chip(plan, **fields):
    return replace(plan, recipe=msgspec.structs.replace(plan.recipe, **fields))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def nothing_left_in_scratch() -> bool:
    return [path.name for path in cache_dir("scratch").iterdir()] in ([], [".lock"])


def adb_answers() -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", 5037)) == 0


def header(path: Path) -> dict[str, object]:
    """The JSON at the end of a .rknn (reference/toolkit.md part 4)."""
    data = path.read_bytes()
    assert data[:4] == b"RKNN"
    at = 64 + int.from_bytes(data[16:24], "little")
    return json.loads(data[at + 8 :])


def test_build_and_simulate(toolkit_env, cache, make_net, tmp_path, monkeypatch, capfd):
    work = tmp_path / "the user's folder"
    work.mkdir()
    monkeypatch.chdir(work)
    adb_before = adb_answers()
    plan = replace(make_net(folder="net 中 文"), custom_string='{"for": "tests 中"}')
    out = tmp_path / "with space 中 文" / "model.rknn"
    with ToolkitProcess(toolkit_env) as process:
        folder, pid = process.folder, process.pid
        report = process.build(plan, out)
        picture = np.load(plan.calibration / "calibration-0.npy")[:1]
        (first,) = process.infer([picture])
        (second,) = process.infer([picture])
    assert header(out)["target_platform"] == ["rk3588"]
    assert header(out)["version"] == "2.5.0"
    assert 'for": "tests 中' in out.read_bytes().decode("utf-8", "ignore")
    assert report.size == out.stat().st_size
    assert report.findings == ()
    assert [layer.op for layer in report.layers][1:-1] == ["ConvRelu"]
    assert report.internal > 0
    assert report.weights > 0
    assert first.dtype == np.float32
    assert first.shape == (1, 8, 32, 32)
    assert np.array_equal(first, second)

    import onnxruntime

    floats = (picture.transpose(0, 3, 1, 2) - np.reshape([10, 20, 30], (1, 3, 1, 1))) / np.reshape(
        [50, 60, 70], (1, 3, 1, 1)
    )
    session = onnxruntime.InferenceSession(plan.onnx)
    (wanted,) = session.run(None, {"x": floats.astype(np.float32)})
    cosine = np.dot(first.ravel(), wanted.ravel()) / np.linalg.norm(first) / np.linalg.norm(wanted)
    assert cosine > 0.999

    assert capfd.readouterr().out == ""
    assert os.listdir(work) == []
    assert os.listdir(out.parent) == ["model.rknn"]
    assert not folder.exists()
    assert not alive(pid)
    assert adb_answers() == adb_before
    assert nothing_left_in_scratch()


def test_the_simulator_does_not_depend_on_chip_nor_memory_plan(
    toolkit_env, cache, make_net, tmp_path
):
    plan = make_net()
    picture = np.load(plan.calibration / "calibration-0.npy")[:1]
    outputs = []
    with ToolkitProcess(toolkit_env) as process:
        for soc in ("rk3588", "rv1106"):
            report = process.build(for_chip(plan, soc=soc), tmp_path / "model.rknn")
            assert report.soc == soc
            # Of the second build too, although the toolkit turns its own log down.
            assert [layer.op for layer in report.layers][1:-1] == ["ConvRelu"]
            assert header(report.rknn)["target_platform"] == [soc]
            outputs.append(process.infer([picture])[0])
        other = for_chip(plan, memory_plan="SlowPeakGrowth", compute_order="DepthFirst")
        process.build(other, tmp_path / "model.rknn")
        outputs.append(process.infer([picture])[0])
        report = process.build_for_simulation(for_chip(plan, soc="rv1106"))
        assert header(report.rknn)["target_platform"] == ["rk3588"]
        outputs.append(process.infer([picture])[0])
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])
    assert np.array_equal(outputs[0], outputs[3])


BY_PICTURES = """
import sys, numpy as np
from rknn.api import RKNN
model = RKNN()
model.config(mean_values=[[10., 20., 30.]], std_values=[[50., 60., 70.]], target_platform="rk3588")
model.load_onnx(sys.argv[1])
assert model.build(do_quantization=True, dataset="dataset.txt") == 0
assert model.init_runtime() == 0
outputs = model.inference(inputs=[np.load("picture.npy")], data_format=["nhwc"])
np.save("answer.npy", outputs[0])
"""


def test_calibration_arrays_count_like_pictures(toolkit_env, cache, make_net, tmp_path):
    """The same numbers, to the bit, as the vendor's way: a list of RGB picture files."""
    cv2 = pytest.importorskip("cv2")
    plan = make_net(samples=6)
    pictures = np.load(plan.calibration / "calibration-0.npy")
    # One channel differs much, so that swapped channels would show in the ranges.
    pictures[..., 0] //= 4
    np.save(plan.calibration / "calibration-0.npy", pictures)
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture[..., ::-1])
    (tmp_path / "dataset.txt").write_text("".join(f"{n}.png\n" for n in range(len(pictures))))
    np.save(tmp_path / "picture.npy", pictures[:1])
    subprocess.run(
        [toolkit_env.python, "-c", BY_PICTURES, plan.onnx],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    with ToolkitProcess(toolkit_env) as process:
        process.build(plan, tmp_path / "model.rknn")
        (ours,) = process.infer([pictures[:1]])
    assert np.array_equal(ours, np.load(tmp_path / "answer.npy"))


def test_float16(toolkit_env, cache, make_net, tmp_path):
    plan = make_net(dtype="fp16")
    with ToolkitProcess(toolkit_env) as process:
        report = process.build(plan, tmp_path / "model.rknn")
        (output,) = process.infer([np.full((1, 32, 32, 3), 128, np.uint8)])
    assert {layer.dtype for layer in report.layers} == {"FLOAT16"}
    assert output.max() > 0


def test_four_bit_weights(toolkit_env, cache, tmp_path):
    """A kernel is read back by an input that is 1 at one place: what comes out are the weights as
    they are stored. Of 4 bits and one scale a channel there are 16 values at most, none further
    from the float one than half a step."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    weights = np.random.default_rng(3).standard_normal((16, 16, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1] * 4)],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 16, 64, 64])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "net.onnx")
    inputs = (InputPlan(name="x", shape=(1, 16, 64, 64)),)
    plan = BuildInputs(tmp_path / "net.onnx", Recipe(soc="rv1126b", dtype="w4a16", inputs=inputs))
    # Each input channel has a place of its own, four cells from any other.
    picture = np.zeros((1, 16, 64, 64), np.float32)
    places = [(8 + 12 * (channel // 4), 8 + 12 * (channel % 4)) for channel in range(16)]
    for channel, (row, column) in enumerate(places):
        picture[0, channel, row, column] = 1
    with ToolkitProcess(toolkit_env) as process:
        process.build(plan, tmp_path / "o.rknn")
        report = process.build_for_simulation(plan)
        assert report.soc == "rk3576", "the chip of simulations lacks them"
        (seen,) = process.infer([picture])
    stored = np.empty_like(weights)
    for channel, (row, column) in enumerate(places):
        near = seen[0, :, row - 1 : row + 2, column - 1 : column + 2]
        stored[:, channel] = near[:, ::-1, ::-1]
    for float_kernel, kernel in zip(weights, stored, strict=True):
        values = np.unique(np.round(kernel, 3))
        assert 8 <= len(values) <= 16
        step = np.diff(values).max()
        assert np.abs(float_kernel - kernel).max() <= 0.6 * step


def test_an_input_that_is_no_picture(toolkit_env, cache, tmp_path):
    onnx = pytest.importorskip("onnx")
    from rkzoo.toolkit.builds import BuildInputs
    from rkzoo.toolkit.recipe import InputPlan, Recipe

    random = np.random.default_rng(3)
    info = onnx.helper.make_tensor_value_info
    weights = random.standard_normal((16, 4)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["a", "w"], ["y"])],
        "net",
        [info("a", 1, [1, 16])],
        [info("y", 1, [1, 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 12)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "model.onnx")
    vectors = random.standard_normal((8, 1, 16)).astype(np.float32)
    np.save(tmp_path / "calibration-0.npy", vectors)
    recipe = Recipe(soc="rk3588", dtype="int8", inputs=(InputPlan(name="a", shape=(1, 16)),))
    with ToolkitProcess(toolkit_env) as process:
        process.build(BuildInputs(tmp_path / "model.onnx", recipe, tmp_path), tmp_path / "o.rknn")
        (output,) = process.infer([vectors[0].astype(np.float64)])
    wanted = vectors[0] @ weights
    assert np.abs(output - wanted).max() < 0.05 * np.abs(wanted).max()


def test_an_operator_the_npu_lacks_is_found_after_a_zero_return(
    toolkit_env, cache, make_net, tmp_path
):
    with ToolkitProcess(toolkit_env) as process:
        report = process.build(make_net(tail="Det", dtype="fp16"), tmp_path / "model.rknn")
    assert [finding.kind for finding in report.findings] == ["no-lowering"]
    assert "Det" in report.findings[0].message


def fails(process: ToolkitProcess, plan, out: Path, words: str, **settings) -> RkzooError:
    """The build fails in one error with `words`, with its log, and leaves nothing."""
    folder = process.folder
    with process, pytest.raises(RkzooError) as caught:
        process.build(plan, out, **settings)
    assert words in caught.value.why
    assert caught.value.code == 1
    assert caught.value.log is not None
    assert caught.value.log.stat().st_size > 0
    assert gone(process.pid)
    assert not folder.exists()
    assert not out.exists()
    return caught.value


def test_an_abort_is_one_error(toolkit_env, cache, make_net, tmp_path):
    """INT8 for rk2118, which the pre-flight refuses, crashes the compiler."""
    plan = make_net(soc="rk2118")
    error = fails(ToolkitProcess(toolkit_env), plan, tmp_path / "o.rknn", "crashed (SIGABRT)")
    assert "rk2118" in error.what


def test_a_call_that_returns_minus_one_is_explained_from_the_log(
    toolkit_env, cache, make_net, tmp_path
):
    plan = make_net(soc="rv1106", dtype="fp16")
    words = "not support do_quantization = False"
    fails(ToolkitProcess(toolkit_env), plan, tmp_path / "o.rknn", words)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:100], "DecodeError"),
        (lambda data: b"this is not a model" * 10, "DecodeError"),
        (lambda data: b"", "It says: "),
    ],
)
def test_a_damaged_model_is_one_error(toolkit_env, cache, make_net, tmp_path, damage, words):
    plan = make_net()
    plan.onnx.write_bytes(damage(plan.onnx.read_bytes()))
    error = fails(ToolkitProcess(toolkit_env), plan, tmp_path / "o.rknn", words)
    assert "complete ONNX model" in error.fix


def test_an_unknown_operator_is_one_error(toolkit_env, cache, make_net, tmp_path):
    plan = make_net(tail="Frobnicate")
    error = fails(ToolkitProcess(toolkit_env), plan, tmp_path / "o.rknn", "Frobnicate")
    assert "operator" in error.fix


def slow(make_net):
    """Takes more than half a minute."""
    return make_net(size=320, samples=100, algorithm="mmse")


def test_a_timeout(toolkit_env, cache, make_net, tmp_path):
    process = ToolkitProcess(toolkit_env)
    fails(process, slow(make_net), tmp_path / "o.rknn", "did not finish within 2", timeout=2)


class Watch:
    """Calls back once when a build has come as far as calibration."""

    def __init__(self, callback) -> None:
        self.callback, self.called = callback, False

    def task(self, label, total=None, *, bytes=False):
        from contextlib import nullcontext

        return nullcontext(self)

    def update(self, done, total=None):
        if done > 20 and not self.called:
            self.called = True
            self.callback()

    def note(self, message):
        pass


def test_a_child_that_is_killed_in_the_middle(toolkit_env, cache, make_net, tmp_path):
    watch = Watch(lambda: os.kill(process.pid, signal.SIGKILL))
    process = ToolkitProcess(toolkit_env, report=watch)
    fails(process, slow(make_net), tmp_path / "o.rknn", "killed from outside")
    assert watch.called


BUILD = """
import json, sys
from dataclasses import replace
from pathlib import Path
from contextlib import contextmanager
from rkzoo.toolkit import builds
from rkzoo.toolkit.environment import ToolkitEnv
from rkzoo.toolkit.process import ToolkitProcess
class Tell:
    @contextmanager
    def task(self, *_, **__): yield self
    def update(self, done, total=None): print("at", done, file=sys.stderr, flush=True)
    def note(self, message): pass
python, key, out = sys.argv[1:]
env = ToolkitEnv("2.5.0", Path(python), "", "lean", 0)
with ToolkitProcess(env, report=Tell()) as process:
    print("pid", process.pid, file=sys.stderr, flush=True)
    process.build(builds.find(key), Path(out))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopping_our_process_leaves_no_child(
    toolkit_env, cache, make_net, tmp_path, number, hears_ctrl_c
):
    plan = slow(make_net)
    arrays = [np.load(plan.calibration / "calibration-0.npy")]
    key = builds.store(plan.onnx, arrays, plan.recipe)
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, toolkit_env.python, key, out / "model.rknn"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hears_ctrl_c,
    ) as ours:
        assert ours.stderr is not None
        child = int(ours.stderr.readline().removeprefix("pid "))
        while not ours.stderr.readline().startswith("at 2"):
            assert ours.poll() is None
        assert alive(child)
        ours.send_signal(number)
        stdout, _ = ours.communicate(timeout=20)
    assert ours.returncode != 0
    assert stdout == ""
    assert gone(child)
    assert not out.exists() or os.listdir(out) == []
    if number == signal.SIGKILL:
        with ToolkitProcess(toolkit_env):
            pass  # the next one tidies up after the one that could not
    assert nothing_left_in_scratch()


def test_two_builds_at_once(toolkit_env, cache, make_net, tmp_path):
    plan = make_net()
    reports = {}

    def build(soc: str) -> None:
        with ToolkitProcess(toolkit_env) as process:
            reports[soc] = process.build(for_chip(plan, soc=soc), tmp_path / f"{soc}.rknn")

    threads = [threading.Thread(target=build, args=(soc,)) for soc in ("rk3588", "rk3568")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for soc in ("rk3588", "rk3568"):
        assert header(reports[soc].rknn)["target_platform"] == [soc]
    assert nothing_left_in_scratch()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_the_output_disk_is_full(toolkit_env, cache, make_net, tmp_path, small_disk):
    (small_disk / "filler").write_bytes(bytes(252 * 1024))
    with ToolkitProcess(toolkit_env) as process, pytest.raises(RkzooError) as caught:
        process.build(make_net(), small_disk / "model.rknn")
    assert "No space left" in caught.value.why
    assert "Free some space" in caught.value.fix
    assert os.listdir(small_disk) == ["filler"]


def test_the_cache_disk_is_full(toolkit_env, make_net, tmp_path, small_disk, monkeypatch):
    plan = make_net(size=256)  # its unpacked calibration alone is larger than the disk
    monkeypatch.setenv("RKZOO_CACHE", str(small_disk / "cache"))
    with ToolkitProcess(toolkit_env) as process, pytest.raises(RkzooError) as caught:
        process.build(plan, tmp_path / "model.rknn")
    assert not (tmp_path / "model.rknn").exists()
    assert "No space left" in caught.value.why
    assert "Free some space" in caught.value.fix
    assert nothing_left_in_scratch()
    with pytest.raises(RkzooError) as caught:
        builds.store(bytes(300_000), [], plan.recipe)
    assert "No space left" in caught.value.why
    assert list((small_disk / "cache" / "builds").glob("*.part")) == []


@pytest.mark.network
def test_another_version_works_beside_it(toolkit_env, make_net, tmp_path):
    """In the cache the tests were started with, since it is installed there once."""
    plan = make_net()
    with ToolkitProcess(environment.ensure("2.3.2")) as process:
        report = process.build(plan, tmp_path / "model.rknn")
        (output,) = process.infer([np.load(plan.calibration / "calibration-0.npy")[:1]])
    assert header(report.rknn)["version"] == "2.3.2"
    assert output.shape == (1, 8, 32, 32)
    with ToolkitProcess(toolkit_env) as process:
        report = process.build(plan, tmp_path / "model.rknn")
        (newer,) = process.infer([np.load(plan.calibration / "calibration-0.npy")[:1]])
    assert header(report.rknn)["version"] == "2.5.0"
    assert np.abs(newer - output).max() <= 0.05 * np.abs(newer).max()
