"""The page that `import rkzoo` is: every name is walked, every result built, sliced and written."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from tiny_yolo import stock

import rkzoo
import rkzoo.tasks
from rkzoo.accuracy.metric import Metric
from rkzoo.audio.sound import Sound
from rkzoo.checks import Check
from rkzoo.graph.lowering.verify import EquivalenceReport
from rkzoo.graph.onnx.summary import GraphSummary
from rkzoo.json_values import to_json_value
from rkzoo.speed.latency import Latency
from rkzoo.speed.table import CostTable
from rkzoo.speed.timing import Times
from rkzoo.tasks.collection import Collection
from rkzoo.tasks.sound.timeline import LabeledSpan
from rkzoo.tasks.speech.transcript import Segment
from rkzoo.tasks.speech.windows import without_quiet
from rkzoo.tasks.translate.result import Sentence
from rkzoo.tasks.voice.result import SynthesizedSentence
from rkzoo.toolkit.logscan import Finding
from rkzoo.workflow.advice.advise import LayerShare, Proposal
from rkzoo.workflow.comparison.diagnosis import Cause
from rkzoo.workflow.comparison.inspect import OnnxContent
from rkzoo.workflow.comparison.matching import MatchedPair, Matches
from rkzoo.workflow.comparison.result import RuntimeComparison
from rkzoo.workflow.performance.bench import AnsweredModel, Board, MemoryInfo, ModelInfo, Throughput
from rkzoo.workflow.request.quantization import USUAL, TunedRecipe
from rkzoo.workflow.tuning.tune import Setting, TuningTrial

F32 = np.float32
LABELS = ("cat", "dog")
HEIGHT, WIDTH = 48, 64
PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
# Three things; the last one has a class without a name.
XYXY = np.array([[1, 2, 20, 30], [5, 6, 40, 41], [0, 0, 9, 9]], F32)
SCORES, IDS = np.array([0.9, 0.5, 0.25], F32), np.array([0, 1, 7], np.int32)
NAMES = ["cat", "dog", "7"]
QUADS = np.array([[[x, y], [x + 9, y], [x + 9, y + 5], [x, y + 5]] for x, y in XYXY[:, :2]], F32)
# What comes out of a metric or a window is often numpy's.
N64, N32 = np.float64(0.123456), np.float32(0.5)


def detections() -> rkzoo.Detections:
    return rkzoo.Detections(XYXY, SCORES, IDS, LABELS)


def masks() -> rkzoo.Masks:
    sizes = (XYXY[:, 2:] - XYXY[:, :2]).astype(int).tolist()
    crops = tuple(np.ones((h, w), np.uint8) for w, h in sizes)
    return rkzoo.Masks(detections(), XYXY[:, :2].astype(np.int32), crops, (HEIGHT, WIDTH))


def class_map() -> rkzoo.ClassMap:
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    classes[:10] = 1
    return rkzoo.ClassMap(classes, LABELS)


def spoken() -> rkzoo.SynthesizedSpeech:
    sentences = tuple(
        SynthesizedSentence(f"s{i}", np.float64(i), np.float64(i + 0.5)) for i in range(3)
    )
    return rkzoo.SynthesizedSpeech(Sound(np.arange(300, dtype=F32) / 300, 100), sentences)


def stretches() -> tuple[LabeledSpan, ...]:
    return tuple(LabeledSpan(N64 + i, N64 + i + 0.5, "speech", N32) for i in range(3))


SEGMENTS = tuple(Segment(N64 + i, N64 + i + 1, f" <word> {i}") for i in range(3))
FOUND: dict[str, Callable[[], Any]] = {
    "VoiceActivity": lambda: rkzoo.VoiceActivity(stretches(), np.zeros(9, F32), 0.1, 4.0),
    "SimilarityScores": lambda: rkzoo.SimilarityScores(("a", "b", "c"), SCORES),
    "ClassMap": class_map,
    "ClassMasks": lambda: rkzoo.ClassMasks(
        np.stack([np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) < n for n in (10, 40)]), LABELS
    ),
    "Classes": lambda: rkzoo.Classes(IDS, SCORES, LABELS),
    "AnomalyMap": lambda: rkzoo.AnomalyMap(
        np.linspace(0, 1, HEIGHT * WIDTH, dtype=F32).reshape(HEIGHT, WIDTH), 0.7
    ),
    "RestoredPicture": lambda: rkzoo.RestoredPicture(
        np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8), 2
    ),
    "DepthMap": lambda: rkzoo.DepthMap(
        np.linspace(0, 1, HEIGHT * WIDTH, dtype=F32).reshape(HEIGHT, WIDTH)
    ),
    "Detections": detections,
    "Faces": lambda: rkzoo.Faces(detections(), np.ones((3, 5, 2), F32)),
    "RecognizedFaces": lambda: rkzoo.RecognizedFaces(
        detections(), np.ones((3, 5, 2), F32), np.eye(3, dtype=F32), SCORES
    ),
    "AudioClassification": lambda: rkzoo.AudioClassification(
        np.eye(3, 2, dtype=F32), np.arange(6, dtype=np.float64).reshape(3, 2), LABELS
    ),
    "Masks": masks,
    "OrientedBoxes": lambda: rkzoo.OrientedBoxes(
        np.array([[20, 20, 10, 4, 0.3]] * 3, F32), SCORES, IDS, LABELS
    ),
    "Poses": lambda: rkzoo.Poses(detections(), np.ones((3, 17, 3), F32)),
    "SynthesizedSpeech": spoken,
    "Tensors": lambda: rkzoo.Tensors({"<word>": np.ones((1, 2), F32), "b": N64, "c": IDS}),
    "TextBoxes": lambda: rkzoo.TextBoxes(QUADS, SCORES),
    "TextLines": lambda: rkzoo.TextLines(
        QUADS, ("a", "b", "c"), SCORES, SCORES, np.zeros(3, np.int32)
    ),
    "Tracked": lambda: rkzoo.Tracked(detections(), np.array([4, 0, 9])),
    "Transcript": lambda: rkzoo.Transcript(SEGMENTS, "en"),
    "Translation": lambda: rkzoo.Translation(
        tuple(Sentence(f"t{i}", f"u{i}", unknown=("x",)) for i in range(3)), "en", "zh"
    ),
    "Vector": lambda: rkzoo.Vector(SCORES, True, rkzoo.SimilarityScores(("a", "b", "c"), SCORES)),
}

# Of a Result over each: shape and dtype of an array, or the values themselves.
Arrays = dict[str, tuple[tuple[int, ...], str]]
_BOXES: Arrays = {
    "boxes": ((3, 4), "float32"),
    "scores": ((3,), "float32"),
    "class_ids": ((3,), "int32"),
}
_SCORES: Arrays = {"scores": ((3,), "float32")}
ARRAYS: dict[str, Arrays] = {
    "VoiceActivity": _SCORES,
    "SimilarityScores": _SCORES,
    "ClassMap": {"class_ids": ((2,), "int32"), "masks": ((2, HEIGHT, WIDTH), "bool")},
    "ClassMasks": {"class_ids": ((2,), "int32"), "masks": ((2, HEIGHT, WIDTH), "bool")},
    "Vector": _SCORES,
    "Classes": _SCORES | {"class_ids": ((3,), "int32"), "probs": ((3,), "float32")},
    "AnomalyMap": {},
    "DepthMap": {},
    "RestoredPicture": {},
    "Detections": _BOXES,
    "Faces": _BOXES | {"keypoints": ((3, 5, 2), "float32")},
    "RecognizedFaces": _BOXES | {"keypoints": ((3, 5, 2), "float32")},
    "AudioClassification": {
        "scores": ((3, 2), "float32"),
        "class_ids": ((3,), "int32"),
        "probs": ((2,), "float32"),
    },
    "Masks": _BOXES | {"masks": ((3, HEIGHT, WIDTH), "bool")},
    "OrientedBoxes": _BOXES | {"polygons": ((3, 4, 2), "float32")},
    "Poses": _BOXES | {"keypoints": ((3, 17, 3), "float32")},
    "SynthesizedSpeech": {},
    "Tensors": {},
    "TextBoxes": _SCORES | {"boxes": ((3, 4), "float32"), "polygons": ((3, 4, 2), "float32")},
    "TextLines": _SCORES | {"boxes": ((3, 4), "float32"), "polygons": ((3, 4, 2), "float32")},
    "Tracked": _BOXES,
    "Transcript": {},
    "Translation": {},
}
LABELLED = {
    **dict.fromkeys(
        (
            *("Detections", "Faces", "RecognizedFaces", "Masks", "OrientedBoxes", "Poses"),
            *("Tracked", "Classes"),
        ),
        NAMES,
    ),
    "VoiceActivity": ["speech"] * 3,
    "SimilarityScores": ["a", "b", "c"],
    "ClassMap": ["cat", "dog"],
    "ClassMasks": ["dog", "cat"],
    "AudioClassification": ["cat", "dog", "cat"],
}
TEXTS = {
    "TextLines": ("a", "b", "c"),
    "Transcript": ("<word> 0", "<word> 1", "<word> 2"),
    "Translation": ("u0", "u1", "u2"),
    "SynthesizedSpeech": ("s0", "s1", "s2"),
}
READ = (
    *(
        "VoiceActivity",
        "SimilarityScores",
        "AudioClassification",
        "SynthesizedSpeech",
        "Tensors",
        "Transcript",
        "Translation",
        "Vector",
    ),
)  # not drawn


def result(name: str) -> rkzoo.Result:
    return rkzoo.Result(FOUND[name](), PICTURE, Path("a.jpg"), "onnx", N64, warnings=("w",))


TIMES = Times(p50=N32, p90=N64, p99=1.0, mean=1.0, least=1.0, most=1.0)
BOARD = Board(
    model="PC",
    chip=None,
    kernel="6",
    npu_driver="",
    affinity="all",
    cores=(0, 1),
    clocks_locked=False,
    clocks=(),
    npu_users=(),
    celsius=None,
)
METRIC = Metric("mAP", N64, "", True, 0.01, main=True)


def bench_report() -> rkzoo.BenchReport:
    return rkzoo.BenchReport(
        label="l",
        runtime="onnx",
        published="p",
        date="d",
        rkzoo="r",
        frames=1,
        warm_up=0,
        board_info=BOARD,
        model_info=ModelInfo(name="m", inputs=((1, 2),), picture="made", width=1, height=1),
        memory_info=MemoryInfo(peak_mib=N64, growth_kib_per_frame=None),
        time_cost_ms={"total": TIMES},
        throughput_fps=Throughput(
            inference=1,
            sequential=1,
            pipelined=float("inf"),
            workers=1,
            cores_busy=1,
            cores_busy_sequential=1,
        ),
    )


def answer_report() -> rkzoo.AnswerReport:
    return rkzoo.AnswerReport(
        label="l",
        runtime="onnx",
        published="p",
        date="d",
        rkzoo="r",
        answers=1,
        warm_up=0,
        board_info=BOARD,
        model_info=AnsweredModel(name="m", given="g", sound_seconds=N64),
        memory_info=MemoryInfo(peak_mib=None, growth_kib_per_frame=None),
        time_cost_ms={"total": TIMES},
        real_time_factor=N64,
    )


def comparison() -> rkzoo.Comparison:
    pair = MatchedPair("cat", (N32, 1.0, 2.0, 3.0), N32, None)
    ran = RuntimeComparison(
        "int8", "simulator", (1, None), matches=(Matches(lost=(pair,)),), drawn=(b"jpeg",)
    )
    causes = (Cause("k", "m", "t", "f"),)
    shared = {"model": "m", "soc": "rk3588", "toolkit": "2", "pictures": ("a",), "layers": ()}
    return rkzoo.Comparison(
        **shared,  # type: ignore[arg-type]
        threshold=N64,
        ran=(ran,),
        causes=causes,
        skipped=(),
        verdict="v",
        next="n",
        seconds=float("nan"),
    )


def estimate() -> rkzoo.Estimate:
    table = CostTable(
        soc="rk3588", dtype="int8", toolkit="2", size=1, weights=None, internal=2, layers=()
    )
    told = Latency(ms=N64, low=1.0, high=2.0, cycles=N64, bound=None, layers=(), unpriced=0)
    return rkzoo.Estimate("rk3588", "int8", "rk3588", (), table=table, latency=told, traffic=N64)


def advice() -> rkzoo.Advice:
    layer = LayerShare("Conv:c", "Conv", "NPU", "INT8", (1, 8), N64, N64, "waits for memory")
    proposal = Proposal(1, "relu", "w", "needs training", estimate(), N64, N32, "n", ("rkzoo",))
    rows, told = ((layer,), (proposal,)), (("h",), ("l",))
    return rkzoo.Advice("m", "rk3588", estimate(), *rows, *told, METRIC, N64, "d", (Path("a"),))


def tuned() -> rkzoo.TuningResult:
    trial = TuningTrial("start", "c", Setting(USUAL), N64, N64, None, N64, kept=True)
    recipe = TunedRecipe(model="m", sha256="0", toolkit="2", quantise=USUAL, measured={"int8": N64})
    return rkzoo.TuningResult(
        "m", "d", "answers", 1, "rk3588", "2", METRIC, 1.0, (trial,), recipe  # type: ignore[arg-type]
    )  # fmt: skip


WORK: dict[str, Callable[[], Any]] = {
    "Advice": advice,
    "AnswerReport": answer_report,
    "BenchReport": bench_report,
    "Comparison": comparison,
    "ConversionResult": lambda: rkzoo.ConversionResult(
        "rk3588",
        "int8",
        Path("a.rknn"),
        Path("a.rknn.json"),
        1,
        N64,
        (Finding("fallback", "m", "e"),),  # type: ignore[arg-type]
        EquivalenceReport(N64, N64, 1, 2, N64),
    ),
    "Estimate": estimate,
    "Evaluation": lambda: rkzoo.Evaluation(
        "m", "d", 1, "onnx", "float32", "", {"iou": N32}, ("x",), (METRIC,), N64, 0, "1"
    ),
    "Inspection": lambda: rkzoo.Inspection(
        "onnx",
        Path("a.onnx"),
        OnnxContent(1, None, GraphSummary(13, 8, "", (), (), 1, 4, (), (), ()), None, None),
        (Check("ok", "fine"),),
    ),
    "Result": lambda: result("Detections"),
    "RkzooError": lambda: rkzoo.RkzooError("what", "why", "fix", log=Path("log")),
    "StreamSummary": lambda: rkzoo.StreamSummary(
        "onnx", 1, 0, 0, False, {"stages_ms": {"read": {"p50": N64}}}, ("p",), ()
    ),
    "TuningResult": tuned,
}
EXAMPLES = FOUND | WORK


def public(kind: Callable[[Any], bool]) -> list[str]:
    return [name for name in rkzoo.__all__ if kind(getattr(rkzoo, name))]


def is_result(value: Any) -> bool:
    return inspect.isclass(value) and hasattr(value, "to_json")


FUNCTIONS = public(inspect.isfunction)


# ---- the page -----------------------------------------------------------------------


def test_the_page_is_whole() -> None:
    assert set(rkzoo.__all__) <= set(dir(rkzoo))
    assert rkzoo.__all__ == sorted(rkzoo.__all__)
    assert rkzoo.__version__ == version("rkzoo")
    assert set(FUNCTIONS) == {
        *("load", "convert", "evaluate", "compare", "tune", "estimate", "bench", "inspect"),
        *("stream", "advise"),
    }
    with pytest.raises(AttributeError, match="nonsense"):
        rkzoo.nonsense  # noqa: B018


def test_every_public_result_has_an_example_here() -> None:
    assert set(public(is_result)) == set(EXAMPLES)


def test_every_result_of_a_task_is_public() -> None:
    found = set()
    for module in pkgutil.walk_packages(rkzoo.tasks.__path__, "rkzoo.tasks."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if is_result(value) and value.__module__ == module.name:
                found.add(name)
    assert found == set(FOUND) - {"Tracked"}


def test_names_hold_when_every_module_is_loaded() -> None:
    """A folder of the package with the name of a function would hide it once it is imported."""
    folders = {module.name for module in pkgutil.iter_modules(rkzoo.__path__)}
    assert not folders & set(rkzoo.__all__)


def test_importing_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'cv2', 'onnx', 'onnxruntime', 'yaml', 'msgspec', 'importlib.metadata'}"
    code = f"import sys, rkzoo; dir(rkzoo); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_what_they_take_and_give(name: str) -> None:
    function = getattr(rkzoo, name)
    told = inspect.getdoc(function) or ""
    arguments, rest = told.split("\nArgs:\n")[1].split("\nReturns:\n")
    assert "RkzooError: " in rest.split("\nRaises:\n")[1]
    named = [line.split(":")[0].strip() for line in arguments.splitlines() if line[4:5].strip()]
    parameters = inspect.signature(function).parameters
    assert named == list(parameters)
    assert all(one.annotation is not one.empty for one in parameters.values())


@pytest.mark.parametrize("name", public(inspect.isclass))
def test_classes_say_what_they_are(name: str) -> None:
    kind = getattr(rkzoo, name)
    members = {key: value for key, value in vars(kind).items() if not key.startswith("_")}
    assert inspect.cleandoc(kind.__doc__)
    if dataclasses.is_dataclass(kind):
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    for key, value in members.items():
        if isinstance(value, property):
            assert value.__doc__, f"{name}.{key}"
            assert "return" in value.fget.__annotations__, f"{name}.{key}"


def test_options_of_a_model_are_those_of_load() -> None:
    keys = list(rkzoo.ModelOptions.__annotations__)
    assert keys == [field.name for field in dataclasses.fields(rkzoo.Request)]
    told = (inspect.getdoc(rkzoo.Request) or "").split("Attributes:\n")[1]
    assert keys == [x.split(":")[0].strip() for x in told.splitlines() if x[4:5].strip()]


# ---- as JSON ------------------------------------------------------------------------


def draw_prediction(value: Any) -> bool:
    """Whether nothing but JSON's own types is in it: a number of numpy's can pass for a float."""
    if type(value) is dict:
        return all(type(key) is str and draw_prediction(one) for key, one in value.items())
    if type(value) is list:
        return all(map(draw_prediction, value))
    return value is None or type(value) in (str, int, float, bool)


@pytest.mark.parametrize("name", EXAMPLES)
def test_results_become_plain_json(name: str) -> None:
    document = EXAMPLES[name]().to_json()
    assert draw_prediction(document), document
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_what_is_plain() -> None:
    given = {"a": (N32, N64, np.arange(2), Path("p"), float("nan")), 1: METRIC, "t": TIMES}
    told = to_json_value(given)
    assert draw_prediction(told)
    assert told["a"] == [0.5, float(N64), [0, 1], "p", None]
    assert told["1"]["value"] == float(N64)
    assert told["t"]["p50"] == 0.5
    with pytest.raises(TypeError, match="object"):
        to_json_value(object())


def test_times_of_speech_are_python_numbers() -> None:
    loud = np.concatenate((np.zeros(20), np.arange(30) * 0.02))
    assert [type(one) for one in without_quiet(loud, 0.0, 1.0)] == [float, float]


# ---- as collections -----------------------------------------------------------------

COLLECTIONS = [name for name in FOUND if isinstance(FOUND[name](), Collection)]
INDICES: list[tuple[Any, list[int]]] = [
    (0, [0]),
    (-1, [2]),
    (np.int64(1), [1]),
    (slice(1, None), [1, 2]),
    (slice(None, None, -1), [2, 1, 0]),
    ([2, 0], [2, 0]),
    (np.array([0, 0]), [0, 0]),
    (np.array([True, False, True]), [0, 2]),
    ([False, True, False], [1]),
    ([], []),
    (np.zeros(3, np.bool_), []),
]


def test_all_but_maps_and_tensors_are_collections() -> None:
    maps = {
        "ClassMap",
        "ClassMasks",
        "DepthMap",
        "Tensors",
        "Vector",
        "AnomalyMap",
        "RestoredPicture",
    }
    assert set(FOUND) - set(COLLECTIONS) == maps


@pytest.mark.parametrize("wrapped", [False, True], ids=["found", "result"])
@pytest.mark.parametrize("name", COLLECTIONS)
def test_collections_are_indexed_and_iterated(name: str, wrapped: bool) -> None:
    whole = result(name) if wrapped else FOUND[name]()
    assert len(whole) == 3
    identity = _identity(whole)
    assert len(set(identity)) == 3
    for index, expected in INDICES:
        part = whole[index]
        assert type(part) is type(whole)
        assert len(part) == len(expected)
        assert _identity(part) == [identity[i] for i in expected], index
        assert draw_prediction(part.to_json())
        _found(part).lines()
    assert [_identity(one) for one in whole] == [[one] for one in identity]
    assert all(type(one) is type(whole) for one in whole)
    for wrong in (3, -4, [0, 3], [True, False], 1.5):
        with pytest.raises(IndexError):
            whole[wrong]


def _found(value: Any) -> Any:
    return value.prediction if isinstance(value, rkzoo.Result) else value


def _identity(value: Any) -> list[Any]:
    """What tells the three things of each example apart, from the record itself."""
    found = _found(value)
    match type(found).__name__:
        case "VoiceActivity":
            return [one.start for one in found.stretches]
        case "AudioClassification":
            return list(found.times[:, 0].tolist())
        case "SynthesizedSpeech":
            return [one.text for one in found.sentences]
        case "Transcript":
            return [one.text for one in found.segments]
        case "Translation":
            return [one.text for one in found.sentences]
        case "SimilarityScores":
            return list(zip(found.names, found.cosine.tolist(), strict=True))
        case "TextLines":
            return list(zip(found.texts, found.scores.tolist(), strict=True))
        case _:
            return list(found.scores.tolist())


@pytest.mark.parametrize(
    "name", [n for n in COLLECTIONS if n not in ("AudioClassification", "SynthesizedSpeech")]
)
def test_a_thing_has_the_record_that_it_has_among_others(name: str) -> None:
    whole = FOUND[name]()
    assert [one.to_json() for one in whole] == [[record] for record in whole.to_json()]


def test_masks_keep_their_pixels() -> None:
    whole = masks()
    assert np.array_equal(whole[[2, 0]].masks, whole.masks[[2, 0]])
    assert np.array_equal(whole.masks.sum(axis=(1, 2)), whole.areas())


def test_a_chosen_sentence_has_its_own_sound() -> None:
    whole = spoken()
    part = whole[[2, 1]]
    assert np.array_equal(part.sound.samples[:50], whole.sound.samples[200:250])
    assert np.array_equal(part.sound.samples[50:], whole.sound.samples[100:150])
    assert part.times.tolist() == [[0, 0.5], [0.5, 1.0]]


def test_a_map_of_classes_says_that_it_has_no_things() -> None:
    with pytest.raises(rkzoo.RkzooError, match="ClassMap"):
        result("ClassMap")[0]
    assert not isinstance(class_map(), Collection)


# ---- the arrays of a result ---------------------------------------------------------

PROPERTIES = ("boxes", "scores", "class_ids", "masks", "keypoints", "polygons", "probs")


@pytest.mark.parametrize("name", FOUND)
def test_arrays_have_one_name_for_every_task(name: str) -> None:
    one = result(name)
    found: Arrays = {}
    for key in PROPERTIES:
        value = getattr(one, key)
        if isinstance(value, np.ndarray):
            found[key] = (value.shape, str(value.dtype))
        elif value is not None:
            assert (name, key) == ("Masks", "polygons")
    assert found == ARRAYS[name]
    assert one.labels == LABELLED.get(name)
    assert one.texts == TEXTS.get(name)


def test_arrays_are_those_that_were_found() -> None:
    boxes, text, faces = result("Detections"), result("TextLines"), result("Faces")
    assert boxes.boxes is XYXY
    assert boxes.scores is SCORES
    assert boxes.class_ids is IDS
    assert faces.keypoints is faces.prediction.points  # type: ignore[attr-defined]
    assert text.polygons is QUADS
    assert text.boxes is not None
    assert text.boxes[1].tolist() == [5, 6, 14, 11]


def test_upright_boxes_lie_around_oriented_ones() -> None:
    # A square of side 2 that is turned by 45 degrees reaches the root of 2 to each side.
    turned = rkzoo.OrientedBoxes(np.array([[5, 5, 2, 2, np.pi / 4]], F32), SCORES[:1], IDS[:1])
    assert turned.xyxy == pytest.approx(
        np.array([[5, 5, 5, 5]]) + np.sqrt(2) * np.array([-1, -1, 1, 1])
    )
    assert turned.names == ["0"]


def test_outlines_of_masks() -> None:
    polygons = result("Masks").polygons
    assert polygons is not None
    assert len(polygons) == 3
    first = polygons[0][0]
    assert first.shape[1:] == (2,)
    # The outline runs through the outermost pixels, which the box ends one behind.
    assert [*first.min(axis=0), *first.max(axis=0)] == [1, 2, 19, 29]


# ---- in a notebook ------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FOUND if name not in READ])
def test_a_notebook_shows_the_drawn_picture(name: str) -> None:
    one = result(name)
    data = one._repr_png_()
    assert data is not None
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(shown, one.draw())
    assert not np.array_equal(shown, PICTURE)
    assert one._repr_html_() is None


@pytest.mark.parametrize("name", READ)
def test_a_notebook_shows_the_lines_of_what_is_not_drawn(name: str) -> None:
    one = result(name)
    assert one._repr_png_() is None
    text = one._repr_html_()
    assert text is not None
    assert "<word>" not in text
    assert (name == "Transcript") == ("&lt;word&gt; 0" in text)


# ---- the functions ------------------------------------------------------------------

# Public call -> the function of the workflow that is to hear it, and some of what it hears.
CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "evaluate": ("evaluation.evaluate", ("m", "d"), {"confidence": 0.1, "limit": 3}),
    "compare": ("comparison.compare", ("m",), {"soc": "rk3588", "layers": False}),
    "tune": ("tuning.tune", ("m", "d", "rk3588"), {"max_drop": 2.0}),
    "estimate": ("performance.estimate", ("m", "rk3588"), {"dtype": "fp16"}),
    "advise": ("advice.advise", ("m", "rk3588"), {"limit": 3}),
    "bench": ("performance.bench.bench_any", ("m", "x.jpg"), {"count": 2}),
    "inspect": ("comparison.inspect", ("m",), {"anchors": "1,2"}),
    "stream": ("apps.stream", ("m", "film.mp4"), {"track": True, "save": "out.mp4"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_hand_on_what_they_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, arguments, options = CALLS[name]
    module, _, attribute = place.rpartition(".") if place.count(".") > 1 else (place, "", name)
    home = importlib.import_module(f"rkzoo.workflow.{module}")
    signature = inspect.signature(getattr(home, attribute))
    heard: list[inspect.BoundArguments] = []
    monkeypatch.setattr(home, attribute, lambda *a, **k: heard.append(signature.bind(*a, **k)))
    function = getattr(rkzoo, name)
    whole = rkzoo.Request(size=(32, 64), toolkit="2.3.2")
    function(*arguments, whole, **options, size=(64, 32))
    told = heard[0].arguments
    request = told["request"]
    assert (request.size, request.toolkit) == ((64, 32), "2.3.2")
    with pytest.raises(TypeError, match="sise"):
        function(*arguments, sise=(1, 2))
    if name == "evaluate":
        assert (request.confidence, told["limit"]) == (0.1, 3)
    elif name == "stream":
        assert told["options"].track
        assert told["outputs"].save == Path("out.mp4")
    elif name == "estimate":
        assert told["socs"] == ["rk3588"]
        assert request.dtype == "fp16"
    elif name == "inspect":
        assert request.pairs == ((1, 2),)
    else:
        assert options.items() <= told.items()


def test_a_file_is_inspected_timed_and_run(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(stock(names="['a', 'b', 'c']"), path)
    seen = rkzoo.inspect(path)
    assert (seen.kind, seen.ok) == ("onnx", True)
    assert seen.contract is not None
    assert seen.contract.labels == ("a", "b", "c")
    assert seen.next == f"rkzoo convert {path} --soc rk3588 --calib FOLDER"
    assert draw_prediction(seen.to_json())
    report = rkzoo.bench(path, count=2, warm_up=0)
    assert isinstance(report, rkzoo.BenchReport)
    assert report.frames == 2
    assert draw_prediction(report.to_json())
    with rkzoo.load(path, confidence=0.0) as model:
        answer = model(PICTURE)
    assert answer.boxes is not None
    assert answer.labels is not None
    assert len(answer) == len(answer.boxes) == len(answer.labels) > 1
    assert set(answer.labels) <= {"a", "b", "c"}
    best = answer[0]
    assert best.to_json()["results"] == answer.to_json()["results"][:1]


def test_a_name_of_the_zoo_is_no_file() -> None:
    with pytest.raises(rkzoo.RkzooError, match="rkzoo info yolov8n"):
        rkzoo.inspect("yolov8n")
