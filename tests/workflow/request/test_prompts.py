"""Words go in, boxes of those words come out: on ONNX Runtime, converted, and simulated."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_world import World, build

import rkzoo
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.tasks.prompt.words import words
from rkzoo.workflow.request import prompts as module
from rkzoo.workflow.request.prompts import read_embeddings

WORLD = World(slots=8, width=16)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "world.onnx"
    onnx.save(build(WORLD), path)
    return path


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of one table: the mean of its tokens' rows."""
    table = np.random.default_rng(3).normal(size=(509, WORLD.width)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Mod", ["input_ids", "size"], ["row"]),
            helper.make_node("Gather", ["table", "row"], ["rows"]),
            helper.make_node("ReduceMean", ["rows"], ["text_embeds"], axes=[1], keepdims=0),
        ],
        "text",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 20])],
        [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, [1, WORLD.width])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array(509, np.int64), "size"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path_factory.mktemp("text") / "text.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the published one, which would have to be fetched."""
    letters = [chr(c) for c in (*range(0x21, 0x7F), *range(0xAE, 0x100))]
    pairs = list(itertools.product(letters, repeat=2))
    merges = [*pairs, *((a + b, a) for a, b in pairs)][: 49152 - 258]
    text = "title\n" + "".join(f"{a} {b}\n" for a, b in merges)
    path = tmp_path / "vocabulary.txt.gz"
    path.write_bytes(gzip.compress(text.encode(), 1))
    monkeypatch.setattr(module, "fetch", lambda *_: path)


@pytest.fixture
def picture() -> np.ndarray:
    random = np.random.default_rng(5)
    image = random.integers(0, 256, (48, 72, 3), dtype=np.uint8)
    image[10:30, 20:50] = (20, 40, 220)
    return image


def saved(path: Path, count: int, width: int = 16) -> Path:
    np.save(path, np.random.default_rng(9).normal(size=(count, width)).astype(np.float32))
    return path


def reference(path: Path, image: np.ndarray, texts: np.ndarray) -> list[np.ndarray]:
    """The whole graph run by hand on a picture of its own size."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = (image[..., ::-1] / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    return list(session.run(None, {"images": fed, "texts": texts}))


def test_boxes_are_those_of_the_words(world: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*WORLD.size, 3), dtype=np.uint8)
    file = saved(tmp_path / "three.npy", 3)
    with rkzoo.load(
        world, prompts=["cat", "a red bus", "dog"], embeddings=file, confidence=0, iou=1, limit=9999
    ) as model:
        found = model(image).prediction
    values = np.load(file)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    outputs = reference(world, image, values[np.arange(8) % 3][None])
    scores = [o[0, :3].reshape(3, -1) for o in outputs[::2]]
    best = np.concatenate([score.max(axis=0) for score in scores])
    which = np.concatenate([score.argmax(axis=0) for score in scores])
    order = np.argsort(-found.score, kind="stable")  # type: ignore[attr-defined]
    np.testing.assert_allclose(found.score[order], np.sort(best)[::-1], atol=1e-5)  # type: ignore[attr-defined]
    assert (
        np.bincount(found.class_id, minlength=3).tolist()
        == np.bincount(  # type: ignore[attr-defined]
            which, minlength=3
        ).tolist()
    )
    assert {r["label"] for r in found.to_json()} <= {"cat", "a red bus", "dog"}


def test_the_order_of_the_words_changes_nothing_but_numbers(
    world: Path, text_model: Path, vocabulary: None, picture: np.ndarray
) -> None:
    answers = []
    for said in (["dog", "cat", "bus"], ["bus", "dog", "cat"]):
        with rkzoo.load(world, prompts=said, text_model=text_model, confidence=0.05) as model:
            answers.append(model(picture).to_json()["results"])
    one, other = ([record["label"] for record in answer] for answer in answers)
    assert one == other
    assert len(set(one)) > 1
    one, other = ([record["score"] for record in answer] for answer in answers)
    assert one == pytest.approx(other, abs=2e-4)


def test_labels_rename_the_prompts(world: Path, tmp_path: Path, picture: np.ndarray) -> None:
    file = saved(tmp_path / "two.npy", 2)
    with rkzoo.load(world, embeddings=file, labels=["A", "B"], confidence=0) as model:
        assert {r["label"] for r in model(picture).to_json()["results"]} <= {"A", "B"}
    with rkzoo.load(world, embeddings=file, confidence=0) as model:
        assert {r["label"] for r in model(picture).to_json()["results"]} <= {"text 0", "text 1"}


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({}, "has to be told what to look for"),
        ({"prompts": []}, "has to be told what to look for"),
        ({"prompts": ["dog", "  "]}, "A prompt is empty"),
        ({"prompts": ["dog", "dog"]}, "'dog' was given twice"),
        ({"prompts": [f"thing {i}" for i in range(9)]}, "9 prompts were given"),
        ({"prompts": ["dog"], "text_model": "a", "embeddings": "b"}, "do not go together"),
        ({"prompts": ["dog"], "text_model": "yolov8n"}, "yolov8n is no text encoder"),
        ({"prompts": ["dog"], "embeddings": "three.npy"}, "holds 3 embeddings, but 1 prompts"),
        ({"embeddings": "nine.npy"}, "9 prompts were given"),
        ({"embeddings": "narrow.npy"}, "8 numbers each, but the model takes 16"),
        ({"embeddings": "three.npy", "labels": ["one"]}, "3 prompts were given, but 1 labels"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    world: Path,
    tmp_path: Path,
    said: dict[str, object],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "three.npy", 3)
    saved(tmp_path / "nine.npy", 9)
    saved(tmp_path / "narrow.npy", 3, 8)
    with pytest.raises(RkzooError, match=what):
        rkzoo.load(world, **said)  # type: ignore[arg-type]


def test_words_are_refused_by_a_model_with_fixed_classes(assets: Path) -> None:
    with pytest.raises(RkzooError, match="cannot be told in words"):
        rkzoo.load(assets / "models/yolox_nano.onnx", prompts=["dog"])


def test_another_model_is_no_text_encoder(world: Path, vocabulary: None) -> None:
    with pytest.raises(RkzooError, match="not a CLIP text encoder"):
        rkzoo.load(world, prompts=["dog"], text_model=world)


def test_one_prompt_may_be_a_plain_string() -> None:
    assert words("a  red bus ").prompts == ("a red bus",)
    assert not words()


def _objects(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (lambda path: path.write_bytes(b"nothing"), "no .npy file of numbers"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (_objects, "no .npy file of numbers"),
        (lambda path: np.save(path, np.ones((2, 4), np.int64)), "floating-point"),
        (lambda path: np.savez(path.with_suffix(""), np.ones((2, 4))), "cannot be read"),
        (lambda path: np.save(path, np.ones(4, np.float32)), r"shape \[4\]"),
        (lambda path: np.save(path, np.ones((2, 3, 4), np.float32)), r"shape \[2, 3, 4\]"),
        (lambda path: np.save(path, np.ones((0, 4), np.float32)), r"shape \[0, 4\]"),
        (lambda path: np.save(path, np.full((2, 4), np.nan)), "is not an embedding"),
        (lambda path: np.save(path, np.zeros((2, 4))), "is not an embedding"),
    ],
)
def test_embeddings_of_another_kind_are_refused(tmp_path: Path, write: object, what: str) -> None:
    path = tmp_path / "e.npy"
    write(path)  # type: ignore[operator]
    with pytest.raises(RkzooError, match=what):
        read_embeddings(path)


def test_embeddings_come_out_with_length_one(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.array([[[3.0, 4.0], [0.0, 2.0]]], np.float16))
    np.testing.assert_allclose(read_embeddings(tmp_path / "e.npy"), [[0.6, 0.8], [0, 1]], 1e-6)


def test_int8_wants_words_and_fp16_does_not(world: Path, tmp_path: Path) -> None:
    from rkzoo.workflow.compile.prepare import prepare
    from rkzoo.workflow.request.resolve import resolve

    ready = resolve(str(world))
    with pytest.raises(RkzooError, match="needs words to be calibrated with"):
        prepare(ready, ["rk3588"], "int8", None, None, module.SILENT)
    prepared = prepare(ready, ["rk3588"], "fp16", None, None, module.SILENT)
    assert [(plan.name, plan.shape, plan.mean) for plan in prepared.recipe.inputs] == [
        ("images", (1, 3, 64, 96), (0.0, 0.0, 0.0)),
        ("texts", (1, 8, 16), ()),
    ]


def test_the_verb_answers_with_the_prompts(
    world: Path,
    tmp_path: Path,
    picture: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "p.png"), picture)
    file = saved(tmp_path / "two.npy", 2)
    said = ["--prompt", "a red bus", "--prompt", "dog", "--embeddings", str(file)]
    code = main(["run", str(world), str(tmp_path / "p.png"), *said, "--conf", "0.01", "--json"])
    document = json.loads(capsys.readouterr().out)
    labels = {record["label"] for record in document["images"][0]["results"]}
    assert code == 0
    assert labels <= {"a red bus", "dog"}
    assert labels


def _photos(folder: Path, count: int) -> Path:
    import cv2

    folder.mkdir()
    random = np.random.default_rng(2)
    for index in range(count):
        image = cv2.resize(random.integers(0, 256, (6, 9, 3), dtype=np.uint8), (96, 64))
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def _scores(found: Sequence[dict[str, object]]) -> dict[str, float]:
    best: dict[str, float] = {}
    for record in found:
        label, score = str(record["label"]), float(record["score"])  # type: ignore[arg-type]
        best[label] = max(best.get(label, 0.0), score)
    return best


@pytest.mark.toolkit
@pytest.mark.parametrize(("dtype", "slack"), [("fp16", 0.005), ("int8", 0.08)])
def test_a_model_with_texts_is_converted_and_simulated(
    world: Path, tmp_path: Path, dtype: str, slack: float
) -> None:
    import cv2

    photos = _photos(tmp_path / "photos", 4)
    picture = cv2.imread(str(photos / "0.png"))
    file = saved(tmp_path / "three.npy", 3)
    said = {"prompts": ["cat", "a red bus", "dog"], "embeddings": file}
    (made,) = rkzoo.convert(
        world,
        "rk3588",
        dtype=dtype,  # type: ignore[arg-type]
        calibration=str(photos),
        output=tmp_path / "world.rknn",
        **said,  # type: ignore[arg-type]
    )
    sidecar = json.loads(made.sidecar.read_text())
    assert [plan["name"] for plan in sidecar["recipe"]["inputs"]] == ["images", "texts"]
    assert sidecar["contract"]["head"]["classes"] == WORLD.slots
    if dtype == "int8":
        kept = np.load(cache_dir("builds") / sidecar["build"] / "calibration-1.npy")
        assert kept.shape == (4, WORLD.slots, WORLD.width)
    with rkzoo.load(world, confidence=0.02, **said) as model:  # type: ignore[arg-type]
        expected = _scores(model(picture).to_json()["results"])
    with rkzoo.load(made.rknn, confidence=0.02, **said) as model:  # type: ignore[arg-type]
        result = model(picture)
    assert result.runtime == "simulator"
    found = _scores(result.to_json()["results"])
    assert found == pytest.approx(expected, abs=slack)
    with pytest.raises(RkzooError, match="has to be told what to look for"):
        rkzoo.load(made.rknn)
