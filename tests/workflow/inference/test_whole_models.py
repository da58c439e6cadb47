"""Classifiers, plates and faces: the whole way with real weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

import rkzoo
from rkzoo.contract.faces import FaceHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.read import load as load_graph
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.session import Session
from rkzoo.tasks.face.result import Faces
from rkzoo.tasks.plate.task import PlateReader
from rkzoo.toolkit.recipe import Sidecar
from rkzoo.vision.image import read
from rkzoo.workflow.compile.rebuild import _anchors
from rkzoo.workflow.compile.simulate import open_rknn
from rkzoo.workflow.evaluation.evaluate import evaluate
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve

ANCHORS = [(10.0, 20.0), (32.0, 64.0), (128.0, 256.0)]


def figures(model: Path, data: Path, request: Request | None = None) -> dict[str, float]:
    found = evaluate(str(model), str(data), request=request, workers=1, fresh=True)
    return {metric.name: metric.value for metric in found.metrics}


# ---- classifiers --------------------------------------------------------------------


def test_mobilenet_is_right_as_often_as_upstream(assets: Path) -> None:
    found = figures(assets / "models/mobilenetv2.onnx", assets / "data/imagenet20")
    assert found["top-1"] == 75
    assert found["top-5"] == 90


def test_mobilenet_hears_a_bell(assets: Path) -> None:
    with rkzoo.load(assets / "models/mobilenetv2.onnx") as model:
        result = model(assets / "data/images/bell.jpg")
        dog = model(assets / "data/images/dog_224.jpg")
    first = result.to_json()["results"][0]
    assert (first["label"], first["class_id"]) == ("chime, bell, gong", 494)
    assert first["score"] > 0.98
    assert len(result) == 5
    assert dog.to_json()["results"][0]["label"] == "Shih-Tzu"


def test_labels_of_another_model_are_refused(assets: Path) -> None:
    with pytest.raises(RkzooError, match="1000 classes but 3 labels"):
        resolve(str(assets / "models/mobilenetv2.onnx"), Request(labels=("a", "b", "c")))


class AudioClassification:
    """Keeps what a reporter is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_what_is_assumed_is_said_unless_the_user_says_it(assets: Path) -> None:
    path = str(assets / "models/mobilenetv2.onnx")
    heard, told = AudioClassification(), AudioClassification()
    resolve(path, report=heard)  # type: ignore[arg-type]
    assert any("ImageNet's mean and std" in note for note in heard.notes)
    feed = Request(mean=(127, 127, 127), std=(128, 128, 128))
    ready = resolve(path, feed, report=told)  # type: ignore[arg-type]
    assert not any("ImageNet's mean" in note for note in told.notes)
    assert ready.contract.input.mean == (127, 127, 127)


def test_a_card_feeds_channels_last_as_it_feeds_the_plain_graph(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file as TensorFlow's exporters write it, with a softmax, under a card."""
    graph = load_graph(assets / "models/mobilenetv2.onnx")
    info = graph.graph.input[0]
    name, inner = info.name, "channels_first"
    for node in graph.graph.node:
        for index, read_name in enumerate(node.input):
            if read_name == name:
                node.input[index] = inner
    graph.graph.node.insert(
        0, onnx.helper.make_node("Transpose", [name], [inner], perm=[0, 3, 1, 2])
    )
    sizes = (1, 224, 224, 3)
    for dim, size in zip(info.type.tensor_type.shape.dim, sizes, strict=True):
        dim.dim_value = size
    out = graph.graph.output[0].name
    graph.graph.node.append(onnx.helper.make_node("Softmax", [out], ["probabilities"], axis=1))
    graph.graph.output[0].name = "probabilities"
    onnx.save(graph, tmp_path / "nhwc.onnx")
    text = (
        "name: mine\nbase: imagenet\ntitle: Mine\norigin: https://example.org\n"
        "sources: [{url: 'file:nhwc.onnx', sha256: null, unverified: my own}]\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setenv("RKZOO_CARDS", str(tmp_path))
    ready = resolve("mine")
    assert "Softmax" not in [node.op_type for node in ready.graph().graph.node]
    picture = assets / "data/images/bell.jpg"
    with rkzoo.load("mine") as mine, rkzoo.load(assets / "models/mobilenetv2.onnx") as plain:
        a, b = mine(picture).prediction, plain(picture).prediction
    assert a.class_id.tolist() == b.class_id.tolist()  # type: ignore[attr-defined]
    np.testing.assert_allclose(a.score, b.score, atol=1e-5)  # type: ignore[attr-defined]


# ---- plates -------------------------------------------------------------------------


def test_plates_are_scored(assets: Path) -> None:
    found = evaluate(
        str(assets / "models/lprnet.onnx"), str(assets / "data/lprnet_test"), limit=32, workers=1
    )
    assert found.main.name == "exact"
    assert found.main.value > 85


def test_layouts_read_more_plates_right(assets: Path) -> None:
    ready = resolve(str(assets / "models/lprnet.onnx"))
    plain = msgspec.structs.replace(ready.contract.head, layouts=())  # type: ignore[type-var]
    right = [0, 0]
    with OnnxSession(ready.graph().SerializeToString(), ready.contract.picture) as session:
        contracts = ready.contract, msgspec.structs.replace(ready.contract, head=plain)
        readers = [PlateReader(contract, session) for contract in contracts]
        for path in sorted((assets / "data/lprnet_test").glob("*.jpg")):
            arrays, letterbox = readers[0].preprocess(read(path))
            outputs = session.run(arrays)
            for index, reader in enumerate(readers):
                right[index] += reader.postprocess(outputs, letterbox).texts == (path.stem,)
    assert right == [184, 171]


def test_the_plate_of_the_original(assets: Path) -> None:
    with rkzoo.load(assets / "models/lprnet.onnx") as model:
        result = model(assets / "data/images/plate.jpg")
    assert result.prediction.lines()[0].endswith("湘F6CL03")


def test_characters_of_ones_own_have_no_layout(assets: Path, tmp_path: Path) -> None:
    path = str(assets / "models/lprnet.onnx")
    mine = (*(f"{n:02}" for n in range(67)), "-")
    assert resolve(path, Request(labels=mine)).contract.head.layouts == ()  # type: ignore[union-attr]
    with pytest.raises(RkzooError, match="at least 68 characters but 2 labels"):
        resolve(path, Request(labels=("a", "b")))


def test_a_reader_whose_characters_nobody_knows_asks_for_them(tmp_path: Path) -> None:
    import tiny_whole

    path = tmp_path / "dutch.onnx"
    onnx.save(tiny_whole.lprnet(37), path)
    with pytest.raises(RkzooError, match="what its characters are is not known") as caught:
        resolve(str(path))
    assert "--labels" in caught.value.fix


# ---- faces --------------------------------------------------------------------------


def one_face(found: Faces) -> None:
    """The face of face.jpg, as it lies in the picture."""
    x1, y1, x2, y2 = found.boxes.xyxy[0].tolist()
    left, top, right, bottom = 302, 76, 476, 300  # Rockchip's, with other weights
    inside = max(0, min(x2, right) - max(x1, left)) * max(0, min(y2, bottom) - max(y1, top))
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - inside
    assert inside / union > 0.65
    eyes, nose, mouth = found.points[0, :2], found.points[0, 2], found.points[0, 3:]
    assert eyes[0, 0] < nose[0] < eyes[1, 0]
    assert eyes[:, 1].max() < nose[1] < mouth[:, 1].min()


def test_the_face_is_found(assets: Path) -> None:
    path = assets / "models/retinaface_mobile0.25_320.onnx"
    with rkzoo.load(path, anchors=ANCHORS, confidence=0.9) as model:
        result = model(assets / "data/images/face.jpg")
    assert isinstance(result.prediction, Faces)
    assert len(result) == 1
    assert result.prediction.boxes.score[0] > 0.99
    one_face(result.prediction)
    assert result.prediction.aligned(result.image).shape == (1, 112, 112, 3)


def test_anchors_that_are_assumed_are_said(assets: Path) -> None:
    heard = AudioClassification()
    path = str(assets / "models/retinaface_mobile0.25_320.onnx")
    ready = resolve(path, report=heard)  # type: ignore[arg-type]
    assert isinstance(ready.contract.head, FaceHead)
    assert ready.contract.labels == ("face",)
    assert any("does not hold its anchors" in note for note in heard.notes)


def test_anchors_are_kept_for_the_next_build() -> None:
    head = FaceHead(anchors=((10, 20), (32, 64), (128, 256)))
    contract = Contract(family="retinaface", picture=ImageInput(size=(320, 320)), head=head)
    assert _anchors(contract, from_card=False) == ANCHORS
    # A card describes its head itself.
    assert _anchors(contract, from_card=True) is None


# ---- the simulator ------------------------------------------------------------------


@pytest.fixture(scope="module")
def plates(
    assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Contract, Session]]:
    """LPRNet with PyTorch's pooling over the channels, converted, on the simulator."""
    from test_whole_graphs import with_deep_pools

    folder = tmp_path_factory.mktemp("plates")
    onnx.save(with_deep_pools(load_graph(assets / "models/lprnet.onnx")), folder / "deep.onnx")
    (made,) = rkzoo.convert(
        folder / "deep.onnx",
        "rk3588",
        calibration=str(assets / "data/lprnet_test/皖AA*.jpg"),
        output=folder / "deep.rknn",
    )
    sidecar = msgspec.json.decode(made.sidecar.read_bytes(), type=Sidecar)
    assert sidecar.contract.family == "lprnet"
    contract, session = open_rknn(made.rknn)
    with session:
        yield contract, session


@pytest.mark.toolkit
def test_pooling_over_channels_converts_and_reads(
    plates: tuple[Contract, Session], assets: Path
) -> None:
    reader = PlateReader(*plates)
    some = sorted((assets / "data/lprnet_test").glob("*.jpg"))[::8]
    right = sum(reader(read(path)).texts == (path.stem,) for path in some)
    with rkzoo.load(assets / "models/lprnet.onnx") as model:
        in_float = sum(model(path).prediction.texts == (path.stem,) for path in some)  # type: ignore[attr-defined]
    assert abs(right - in_float) <= 1
    assert right >= 0.85 * len(some)


@pytest.mark.toolkit
def test_mobilenet_in_int8_differs_by_one_picture_at_most(assets: Path) -> None:
    asked = Request(runtime="simulator")
    found = figures(assets / "models/mobilenetv2.onnx", assets / "data/imagenet20", asked)
    assert abs(found["top-1"] - 75) <= 5
    assert abs(found["top-5"] - 90) <= 5


@pytest.mark.toolkit
def test_the_face_is_found_in_int8(assets: Path) -> None:
    path = assets / "models/retinaface_mobile0.25_320.onnx"
    with rkzoo.load(
        path,
        runtime="simulator",
        anchors=ANCHORS,
        confidence=0.9,
        calibration=str(assets / "data/images/*.jpg"),
    ) as model:
        found = model(assets / "data/images/face.jpg").prediction
    assert isinstance(found, Faces)
    one_face(found)
