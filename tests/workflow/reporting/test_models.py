"""Small models of many kinds, taken the whole way; what they answer is ONNX Runtime's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import rkzoo
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.tasks.registry import spec_of
from rkzoo.workflow.reporting.models import ModelRow, page, read_models, try_models, write_models
from rkzoo.workflow.request.options import read_labels
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve

# What each is, by the people who reported it; the rest stay plain tensors.
TASKS = {
    **dict.fromkeys(("classifier_bgr_0_255_stretched", "classifier_norm_inside"), "classify"),
    **dict.fromkeys(("grey_classifier", "four_channels"), "classify"),
    **dict.fromkeys(("face_embedding_512_bias", "face_embedding_no_bias"), "vector"),
    **dict.fromkeys(("reid_norm_and_l2_inside", "embedding_512_pooled"), "vector"),
    **dict.fromkeys(("unet_binary_logit", "unet_binary_sigmoid", "nhwc_grey_mask"), "semantic"),
    **dict.fromkeys(("unet_dynamic_one_mask", "unet_four_logits"), "semantic"),
    **dict.fromkeys(("mobilenet_batchnorm_inside", "mobilenet_imagenet_norm_inside"), "classify"),
    "mobilenet_div255_then_norm_inside": "classify",
    **dict.fromkeys(("yolov8n_boxes_0_1", "yolov8n_div255_vector_inside"), "detect"),
    **dict.fromkeys(("yolov8n_grey", "yolov8n_nhwc_255", "yolov8n_uint8_cast_inside"), "detect"),
    "nanodet_plus": "detect",
    "rtmpose_simcc": "pose",
    **dict.fromkeys(("superres_rgb", "superres_y"), "restore"),
    "yolov8_face_three_outputs": "face",
    "lprnet_37_chars": "plate",
}
SIZE = (256, 256)
ASSETS = Path(os.environ.get("RKZOO_TEST_ASSETS", "/nowhere"))
SMALL = sorted((ASSETS / "cases/models").glob("*.onnx"))
# The whole way takes some seconds each: a few of different kinds, or all where that is asked for.
SAMPLED = (
    *("gru_batch40", "nhwc_grey_mask", "plate_reader_uint8_nhwc", "reid_norm_and_l2_inside"),
    *("text_embedding_three_int64", "two_pictures", "unet_dynamic_one_mask", "video_cnn_lstm_5d"),
)
WHOLE = [f for f in SMALL if os.environ.get("RKZOO_ALL_CASES") or f.stem in SAMPLED]


def name(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
def large(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real weights, their graphs changed as exporters and users do."""
    script = assets / "cases/make_cases.py"
    if not script.exists():
        pytest.skip("the cases are not here")
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    return sorted(folder.glob("*.onnx"))


def request_for(file: Path) -> Request:
    labels = file.with_name(f"{file.stem}.labels.txt")
    size = SIZE if "dynamic" in file.stem else None
    return Request(size=size, labels=read_labels(labels) if labels.exists() else None)


@pytest.mark.parametrize("file", SMALL, ids=name)
def test_each_is_what_it_is(file: Path) -> None:
    contract = resolve(str(file), request_for(file)).contract
    assert spec_of(contract.head).name == TASKS.get(file.stem, "tensors")


def test_real_weights_are_recognised_however_their_graphs_were_changed(large: list[Path]) -> None:
    tasks = {f.stem: spec_of(resolve(str(f)).contract.head).name for f in large}
    assert len(tasks) >= 9
    assert tasks == {stem: TASKS[stem] for stem in tasks}


@pytest.mark.parametrize("file", SMALL, ids=name)
def test_plain_tensors_are_those_of_onnx_runtime(file: Path) -> None:
    """Fed as arrays: nothing lies between the file's own numbers and rkzoo's."""
    session = ort.InferenceSession(file.read_bytes())
    random = np.random.default_rng(3)
    fed = {}
    for info in session.get_inputs():
        shape = [
            side if isinstance(side, int) else (1, 3, *SIZE)[place]
            for place, side in enumerate(info.shape)
        ]
        whole = "int" in info.type
        values = random.integers(0, 2, shape) if whole else random.random(shape)
        kind = onnx.helper.tensor_dtype_to_np_dtype(
            next(
                i for i in onnx.load(file).graph.input if i.name == info.name
            ).type.tensor_type.elem_type
        )
        fed[info.name] = np.asarray(values, kind)
    expected = session.run(None, fed)
    shapes = {key: value.shape for key, value in fed.items()}
    with rkzoo.load(file, raw=True, fit="none", shapes=shapes) as model:
        outputs = model(fed).prediction.arrays
    assert list(outputs) == [info.name for info in session.get_outputs()]
    for found, wanted in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.toolkit
@pytest.mark.parametrize("file", WHOLE, ids=name)
def test_each_goes_the_whole_way(file: Path, assets: Path) -> None:
    (row,) = try_models([file], assets / "data/images", size=SIZE)
    assert row.problem == ""
    assert row.float16 is not None
    assert row.float16 > 0.999
    assert row.int8 is not None
    # Tokens that are zeros and ones say little of INT8 there.
    assert row.int8 > (0.8 if "text" in file.stem else 0.95)


def test_what_goes_no_further_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08")
    (row,) = try_models([tmp_path / "broken.onnx"], tmp_path)
    assert "broken.onnx" in row.problem
    assert (row.float16, row.int8) == (None, None)


def test_the_page_is_made_of_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[3]
    rows = read_models(root / "results/models.yaml")
    assert page(rows) == (root / "docs/models.md").read_text("utf-8")
    copy = tmp_path / "models.yaml"
    write_models(copy, rows)
    assert read_models(copy) == rows
    assert ModelRow("x").model == "x"
    with pytest.raises(RkzooError, match="not a table of models"):
        read_models(tmp_path / "none.yaml")
    (tmp_path / "empty").mkdir()
    made = [str(tmp_path / "a.yaml"), str(tmp_path / "a.md")]
    words = ["report", "models", str(tmp_path / "empty"), "--pictures", str(tmp_path)]
    assert main([*words, "--results", made[0], "--page", made[1]]) == 0
    assert "0 of 0 models" in capsys.readouterr().out
