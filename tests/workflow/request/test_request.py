"""One record of what a user asks: checked when it is made, obeyed and refused everywhere alike."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest

import rkzoo
from rkzoo.cli import model_options
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.workflow.inference.backend import BACKENDS, Backend, backend
from rkzoo.workflow.inference.plan import plan
from rkzoo.workflow.request.request import ModelOptions, Request, request_of


def test_fields_are_checked_and_made_plain_when_it_is_made() -> None:
    request = Request(
        anchors="10,13, 16,30", prompts="a red  bus", points=[(1, 2), (3, 4, 0)], mean=(1, 2, 3)
    )
    assert request.pairs == ((10, 13), (16, 30))
    assert request.words.prompts == ("a red bus",)
    assert request.points == ((1, 2, 1), (3, 4, 0))
    assert request.feed.mean == (1.0, 2.0, 3.0)
    assert request.given() == {"anchors", "prompts", "points", "mean"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.size = (1, 1)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"runtime": "tpu"}, "no runtime called 'tpu'"),
        ({"algorithm": "gqd"}, "no algorithm 'gqd'"),
        ({"algorithm": "mmse", "dtype": "fp16"}, "does not go with fp16"),
        ({"algorithm": "mmse", "recipe": "x.yaml"}, "contradict"),
        ({"memory_plan": "Best"}, "no plan of the memory"),
        ({"compute_order": "Depth"}, "no order of the memory"),
        ({"batch": 0}, "batch of 0"),
        ({"batch": 65}, "1 to 64"),
        ({"color": "XYZ"}, "no colour order 'XYZ'"),
        ({"fit": "squash"}, "no way to fit"),
        ({"std": (0, 0, 0)}, "std of 0"),
        ({"confidence": 1.5}, "confidence is 1.5"),
        ({"iou": -1}, "iou is -1"),
        ({"max_boxes": 0}, "limit of 0 boxes"),
        ({"points": [(1,)]}, "--point 1"),
        ({"boxes": [(1, 2, 3, float("nan"))]}, "--box"),
        ({"cut": False, "recipe": "x.yaml"}, "contradict"),
        ({"recipe": "there is none.yaml"}, "there is none.yaml cannot be read"),
        ({"calibration": "there is none"}, "there is none"),
        ({"prompts": ["a", "a"]}, "given twice"),
    ],
)
def test_what_cannot_be_is_refused_at_once(fields: dict[str, object], what: str) -> None:
    with pytest.raises(RkzooError, match=what):
        Request(**fields)  # type: ignore[arg-type]


def test_single_options_take_the_place_of_a_requests() -> None:
    whole = Request(size=(32, 64), toolkit="2.3.2")
    made = request_of(whole, {"size": (64, 64), "limit": 5})
    assert (made.size, made.toolkit, made.max_boxes) == ((64, 64), "2.3.2", 5)
    with pytest.raises(TypeError, match="largeness"):
        request_of(whole, {"largeness": (1, 1)})


def test_the_command_line_can_ask_all_that_python_can() -> None:
    parser = argparse.ArgumentParser()
    model_options.add_runtime(parser)
    model_options.add_model_options(parser)
    model_options.add_task_options(parser)
    model_options.add_thresholds(parser)
    model_options.add_classes(parser)
    said = (
        "--runtime simulator --dtype w4a16 --algorithm gdq --batch 2 --sizes 64,32x64 "
        "--toolkit 2.3.2 --no-cut --size 32x64 --raw --fit pad "
        "--shape x=1,3,32,64 --color BGR --mean 1,2,3 --std 4,5,6 --anchors 1,2 --prompt dog "
        "--text-model m --language de --translate --speed 2 --point 1,2 --box 1,2,3,4 --conf .1 "
        "--iou .2 --calib-count 9 --plain --against a.jpg b.jpg --known faces --classes dog"
    )
    request = model_options.request(parser.parse_args(said.split()))
    unsaid = set(ModelOptions.__annotations__) - request.given()
    # Files, which must be there; and what eval alone takes from the command line.
    # What convert alone has.
    # Where it runs, and for which chip, the verbs that have that add by themselves.
    build = {"memory_plan", "compute_order"}
    files = {"labels", "calibration", "recipe", "embeddings"}
    assert unsaid == files | {"max_boxes", "multi_label", "on", "chip"} | build


@pytest.mark.parametrize(
    ("option", "field"),
    [
        (["--language", "en"], {"language": "en"}),
        (["--point", "1,2"], {"points": [(1, 2)]}),
        (["--conf", "0.5"], {"confidence": 0.5}),
        (["--speed", "2"], {"speed": 2.0}),
    ],
)
def test_what_a_model_does_not_know_is_refused_by_both(
    option: list[str],
    field: dict[str, object],
    assets: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, picture = assets / "models/mobilenetv2.onnx", assets / "data/images/dog_224.jpg"
    with pytest.raises(RkzooError, match=option[0]):
        rkzoo.load(model, **field)  # type: ignore[arg-type]
    assert main(["run", str(model), str(picture), *option]) == 2
    assert f"{option[0]} does not go with this model" in capsys.readouterr().err


def test_what_a_speech_model_is_asked_reaches_its_task(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`language` once reached the task from the command line only."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("RKZOO_OFFLINE", "")
    try:
        planned = plan("whisper-base", Request(language="en", translate=True))
    except RkzooError as error:
        pytest.skip(f"whisper-base cannot be fetched: {error}")
    assert (planned.options.language, planned.options.translate) == ("en", True)


def test_each_runtime_is_a_backend_of_its_name() -> None:
    labels = {name: backend(name).label for name in BACKENDS}
    assert labels == {name: name for name in BACKENDS} | {"remote": "board"}
    assert all(issubclass(backend(name), Backend) for name in BACKENDS)
