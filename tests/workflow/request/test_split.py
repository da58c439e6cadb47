"""A file that becomes two models: a small Paraformer of FunASR's own export."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.toolkit.recipe import Calibration, Recipe, Sidecar
from rkzoo.workflow.compile.prepare import input_plans
from rkzoo.workflow.compile.rebuild import rebuild
from rkzoo.workflow.request.models import find_models
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve
from rkzoo.workflow.request.split import split_models

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
    """A decoder whose last weights have another sign."""
    first = find_models(str(file), Request(shapes=SHAPES)).first
    broken = resolve(str(file), Request(shapes=SHAPES))
    assert first.recognition is not None
    assert broken.recognition is not None
    assert broken.recognition.difference is not None
    graph = broken.recognition.parts[1].model.graph
    name = next(node for node in reversed(graph.node) if node.op_type == "MatMul").input[1]
    weight = next(tensor for tensor in graph.initializer if tensor.name == name)
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), name))
    alone = broken.recognition
    together = next(
        split_models(replace(broken, recognition=replace(alone, difference=None)))
    ).recognition
    assert alone.difference is not None
    assert together is not None
    assert together.difference is not None
    assert alone.difference() > 0.1
    assert together.difference() > 0.1


def test_a_part_is_made_again_from_the_file(file: Path) -> None:
    """As when the cache has forgotten what a .rknn was built from."""
    for part in dict(find_models(str(file), Request(shapes=SHAPES))).values():
        sidecar = Sidecar(
            source=part.source,
            recipe=Recipe(soc="rk3588", dtype="fp16", inputs=input_plans(part.contract, "")),
            contract=part.contract,
            calibration=Calibration(),
            build="",
            rkzoo="",
        )
        made = rebuild(sidecar, file)
        assert made.recipe.inputs == sidecar.recipe.inputs


def test_a_sound_is_heard_by_the_file_alone(file: Path) -> None:
    random = np.random.default_rng(0)
    sound = file.parent / "sound.wav"
    with wave.open(str(sound), "wb") as wav:
        wav.setparams((1, 2, 16000, 0, "NONE", ""))
        wav.writeframes(random.normal(0, 3000, 16000 * 3).astype(np.int16).tobytes())
    with rkzoo.load(file, shapes=SHAPES) as model:
        heard = model(sound)
    assert heard.texts
    assert len(heard.texts[0]) > 2


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
