"""TensorFlow's files: made into ONNX in the environment that has TensorFlow, which is also the
oracle. Skipped where that environment is not installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.toolkit import environment
from rkzoo.workflow.inference.load import load
from rkzoo.workflow.request.importers import registry as makers

# A graph with the ends of DeepLab's: pictures of any size in bytes, and inside it `sub_7`.
_ORACLE = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf

folder, lite = Path(sys.argv[1]), sys.argv[2]
v1 = tf.compat.v1
v1.disable_eager_execution()
rng = np.random.default_rng(0)
with v1.Graph().as_default() as graph:
    x = v1.placeholder(tf.uint8, [1, None, None, 3], name="ImageTensor")
    f = v1.image.resize_bilinear(tf.cast(x, tf.float32), [513, 513])
    f = tf.subtract(tf.multiply(f, 1 / 127.5), 1.0, name="sub_7")
    k = tf.constant(rng.normal(0, .2, (3, 3, 3, 8)).astype("f"))
    h = tf.nn.relu6(tf.nn.conv2d(f, k, [1, 8, 8, 1], "SAME"))
    k = tf.constant(rng.normal(0, .5, (1, 1, 8, 21)).astype("f"))
    b = tf.constant(rng.normal(0, .1, 21).astype("f"))
    y = v1.nn.bias_add(tf.nn.conv2d(h, k, 1, "SAME"), b, name="logits/semantic/BiasAdd")
    r = v1.image.resize_bilinear(y, [513, 513], align_corners=True)
    tf.argmax(r, 3, name="SemanticPredictions")
    (folder / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with v1.Session(graph=graph) as session:
        picture = rng.integers(0, 256, (1, 513, 513, 3)).astype("u1")
        scaled, logits = session.run(["sub_7:0", y], {x: picture})
np.savez(folder / "frozen.npz", scaled=scaled, logits=logits)
net = tf.lite.Interpreter(lite)
net.allocate_tensors()
net.set_tensor(net.get_input_details()[0]["index"], np.load(folder / "picture.npy")[None])
net.invoke()
np.save(folder / "lite.npy", net.get_tensor(net.get_output_details()[0]["index"])[0])
"""


@pytest.fixture(scope="module")
def oracle(assets: Path, tmp_path_factory) -> Path:
    """A folder with what TensorFlow itself says."""
    env = environment.newest_installed("tensorflow")
    if env is None:
        pytest.skip("rkzoo toolkit install --with tensorflow was not run here")
    folder = tmp_path_factory.mktemp("tensorflow")
    picture = cv2.imread(str(assets / "data/images/bicycle.jpg"))
    assert picture.shape == (513, 513, 3)
    np.save(folder / "picture.npy", picture[:, :, ::-1])
    lite = assets / "models/deeplabv3_mnv2_pascal_quant.tflite"
    asked = [str(env.python), "-I", "-c", _ORACLE, str(folder), str(lite)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.toolkit
def test_a_quantised_tflite_answers_as_tensorflow_does(oracle: Path, assets: Path) -> None:
    with load(assets / "models/deeplabv3_mnv2_pascal_quant.tflite") as model:
        found = model(assets / "data/images/bicycle.jpg").prediction
    theirs = np.load(oracle / "lite.npy")
    assert (found.classes == theirs).mean() > 0.995
    names = [record["label"] for record in found.to_json()]
    assert names[:3] == ["background", "bicycle", "person"]
    for number in (2, 15):  # bicycle, person
        ours = found.classes == number
        both, either = (ours & (theirs == number)).sum(), (ours | (theirs == number)).sum()
        assert both / either > 0.97


@pytest.mark.toolkit
def test_a_frozen_graph_is_cut_as_the_card_of_deeplab_wants_it(oracle: Path) -> None:
    made = makers.make_model("deeplab", {"model": oracle / "frozen.pb"})
    truth = np.load(oracle / "frozen.npz")
    session = OnnxSession(made)
    assert session.inputs[0].shape == (1, 3, 513, 513)
    (logits,) = session.run([np.ascontiguousarray(truth["scaled"].transpose(0, 3, 1, 2))])
    np.testing.assert_allclose(logits, truth["logits"], atol=1e-4)


def test_without_tensorflow_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    # A list of no fields, then the root table that refers to it.
    data = b"\x0c\0\0\0TFL3" + b"\x04\0\x04\0" + b"\x04\0\0\0"
    (tmp_path / "net.tflite").write_bytes(data)
    for words in (["inspect"], ["convert", "--soc", "rk3588"], ["run"]):
        verb, *more = words
        given = ["p.jpg"] if verb == "run" else []
        if given:
            cv2.imwrite(str(tmp_path / "p.jpg"), np.zeros((4, 4, 3), np.uint8))
            given = [str(tmp_path / "p.jpg")]
        assert main([verb, str(tmp_path / "net.tflite"), *given, *more]) == 2
        assert "rkzoo toolkit install --with tensorflow" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "none.pb")]) == 2


def test_a_file_that_cannot_be_made_into_onnx_is_told_and_nothing_is_kept(
    tmp_path: Path, monkeypatch
) -> None:
    from rkzoo.toolkit import process

    class Broken:
        def __init__(self, *_, **__) -> None: ...
        def __enter__(self):
            return self

        def __exit__(self, *_) -> None: ...
        def translate(self, *_, **__) -> None:
            raise RkzooError("x", "It says: unsupported.", code=1)

    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    env = environment.ToolkitEnv("0", tmp_path, "3", "tensorflow", 0)
    monkeypatch.setattr(environment, "newest_installed", lambda kind: env)
    monkeypatch.setattr(process, "ToolkitProcess", Broken)
    # One operator, called x.
    (tmp_path / "net.pb").write_bytes(b"\x0a\x03\x0a\x01x")
    with pytest.raises(RkzooError, match=r"net\.pb cannot be made into ONNX"):
        makers.as_onnx(tmp_path / "net.pb")
    assert not list((tmp_path / "cache" / "made").glob("*.onnx"))
    path = tmp_path / "n.onnx"
    assert makers.as_onnx(path) == path
