"""A file that becomes two models: a small Paraformer of FunASR's own export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.workflow.request.models import find_models
from rkzoo.workflow.request.request import Request

ANSWERS = Path(__file__).parents[2] / "tasks/paraformer_answers.npz"
STATISTICS = "<AddShift> 560 560 [ {} ]\n<Rescale> 560 560 [ {} ]\n"
SHAPES = {"speech": (1, 60, 560)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(np.load(ANSWERS, allow_pickle=False)["model"].tobytes())
    (tmp_path / "am.mvn").write_text(STATISTICS.format("-13 " * 560, "0.2 " * 560))
    tokens = ["<blank>", "<s>", "</s>", *(chr(0x4E00 + place) for place in range(36)), "<unk>"]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens), "utf-8")
    return path


def test_a_file_is_found_as_its_parts_and_proved(file: Path) -> None:
    models = find_models(str(file), Request(shapes=SHAPES))
    assert models.roles == ("encoder", "decoder")
    parts = dict(models)
    assert [part.name for part in parts.values()] == ["model-encoder", "model-decoder"]
    assert {part.dtypes for part in parts.values()} == {("fp16",)}
    first = parts["encoder"].recognition
    assert first is not None
    assert first.difference is not None
    assert first.difference() < 1e-4
    shapes = {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim]
        for i in parts["decoder"].graph().graph.input
    }
    assert shapes == {
        "embeddings": [1, 30, 16],
        "token_mask": [1, 30],
        "memory": [1, 60, 16],
        "mask": [1, 60],
    }


def test_parts_that_do_not_compute_what_the_file_does_are_seen(file: Path) -> None:
    """A decoder with one weight of another sign."""
    models = find_models(str(file), Request(shapes=SHAPES))
    recognition = models.first.recognition
    assert recognition is not None
    assert recognition.difference is not None
    model = onnx.load(file)
    name = next(n for n in reversed(model.graph.node) if n.op_type == "MatMul").input[1]
    weight = next(t for t in model.graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(-values, name))
    models.first.recognition.parts  # noqa: B018
    broken = find_models(str(file), Request(shapes=SHAPES))
    assert broken.single is False


def test_a_sound_is_heard_by_the_file_alone(file: Path) -> None:
    random = np.random.default_rng(0)
    samples = random.normal(0, 0.1, 16000 * 3).astype(np.float32)
    with rkzoo.load(file, shapes=SHAPES) as model:
        heard = model((samples, 16000))
    assert len(heard.text) > 5


@pytest.mark.parametrize(("name", "said"), [("am.mvn", "am.mvn"), ("tokens.json", "tokens.json")])
def test_what_is_missing_beside_it_is_told(file: Path, name: str, said: str) -> None:
    (file.parent / name).unlink()
    with pytest.raises(RkzooError, match=said):
        rkzoo.load(file, shapes=SHAPES)


def test_it_is_no_single_model(file: Path, tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="no single model"):
        rkzoo.compare(file)
    with pytest.raises(RkzooError, match="becomes 2 files"):
        rkzoo.convert(file, "rk3588", output=tmp_path / "one.rknn", shapes=SHAPES)
