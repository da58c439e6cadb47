"""What FunASR leaves beside a speech model."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from rkzoo.contract.audio import CtcSpeechHead, StackedFeatures
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.speech.ctc import CtcRecognizer, language_id
from rkzoo.workflow.request.speech_files import with_files_beside

HEAD = CtcSpeechHead(
    divider="▁", features=StackedFeatures(bins=2, stack=2), languages={"auto": 0, "en": 4}
)
CONTRACT = Contract(family="sensevoice", head=HEAD)
STATISTICS = """<Nnet>
<Splice> 4 4
[ 0 ]
<AddShift> 4 4
<LearnRateCoef> 0 [ -8.5 -8 -1e1 2 ]
<Rescale> 4 4
<LearnRateCoef> 0 [ 0.1 0.2 0.3 .4 ]
</Nnet>
"""


def test_statistics_and_tokens_are_read(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    assert with_files_beside(CONTRACT, model) == CONTRACT
    (tmp_path / "am.mvn").write_text(STATISTICS)
    (tmp_path / "tokens.json").write_text(json.dumps(["<blank>", "▁a", "好"]), "utf-8")
    found = with_files_beside(CONTRACT, model)
    assert isinstance(found.head, CtcSpeechHead)
    assert found.head.features is not None
    assert found.head.features.shift == (-8.5, -8.0, -10.0, 2.0)
    assert found.head.features.scale == (0.1, 0.2, 0.3, 0.4)
    assert found.labels == ("<blank>", "▁a", "好")
    # sherpa-onnx's form comes first; what the user gives before both.
    (tmp_path / "tokens.txt").write_text("<blank> 0\n▁ 1\nx 2\n", "utf-8")
    assert with_files_beside(CONTRACT, model).labels == ("<blank>", "▁", "x")
    given = msgspec.structs.replace(CONTRACT, labels=("a", "b"))
    assert with_files_beside(given, model).labels == ("a", "b")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("am.mvn", STATISTICS.replace("0.3", ""), "4 numbers each"),
        ("am.mvn", STATISTICS.replace("0.3", "x"), "4 numbers each"),
        ("am.mvn", "", "4 numbers each"),
        ("tokens.json", "{}", "cannot be read"),
        ("tokens.txt", "", "empty"),
    ],
)
def test_what_is_damaged_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RkzooError, match=said):
        with_files_beside(CONTRACT, tmp_path / "model.onnx")


def test_what_is_missing_is_told_before_anything_is_heard(tiny_session: OnnxSession) -> None:
    with pytest.raises(RkzooError, match=r"Put am\.mvn into the model's folder"):
        CtcRecognizer(CONTRACT, tiny_session)
    with pytest.raises(RkzooError, match="It knows en"):
        language_id(HEAD, "fr")
    assert (language_id(HEAD, "EN"), language_id(HEAD, None)) == (4, 0)


@pytest.fixture
def tiny_session() -> OnnxSession:
    from onnx import TensorProto, helper

    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 4)) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "tiny", info[:1], info[1:])
    opset = [helper.make_opsetid("", 13)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return OnnxSession(made.SerializeToString())
