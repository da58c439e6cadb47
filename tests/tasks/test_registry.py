"""What every task must have: a record for its head, and a picture that lies where the NPU reads."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest

from rkzoo.contract.anomaly import AnomalyHead
from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.depth import DepthHead
from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.faces import CentreFaceHead, FaceHead
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract, Head, TaskName
from rkzoo.contract.pose import TopDownPoseHead
from rkzoo.contract.segmentation import PromptableSegmentHead, SemanticHead
from rkzoo.contract.text import PlateHead, TextClsHead, TextDetHead, TextRecHead
from rkzoo.contract.vector import VectorHead
from rkzoo.session import Session
from rkzoo.tasks.registry import OPTIONS, SPECS, _spec, spec_of
from rkzoo.tasks.spec import TaskOptions, TaskParts
from rkzoo.vision.letterbox import fit
from rkzoo.workflow.request.request import Request
from rkzoo.zoo.catalogue import cards

SIZE = (64, 96)


def kind(head: type[Any]) -> str:
    return str(head.__struct_config__.tag)


def test_every_head_has_a_task_and_every_task_a_head() -> None:
    kinds = {kind(head) for head in get_args(Head)}
    assert kinds <= set(SPECS)
    variants = {"segment", "pose", "obb", "face-yolo", "plate-det", "text", "ctc-languages"}
    assert set(SPECS) - kinds == variants
    assert {_spec(name).name for name in SPECS} == set(get_args(TaskName)) - {"asset"}


def test_options_are_fields_of_a_request() -> None:
    for name in SPECS:
        assert _spec(name).options <= set(Request.__dataclass_fields__), name
    assert set(OPTIONS) <= set(Request.__dataclass_fields__)


def test_cards_are_of_the_task_that_reads_their_head() -> None:
    """Save a part of a pipeline, whose card names the pipeline's task, and plate-det, which
    finds with four points what else are faces."""
    for card in cards():
        if card.head is not None and spec_of(card.head).name != "tensors":
            found = spec_of(card.head).name
            assert found == card.task or (found, card.task) == ("face", "plate"), card.name


def test_the_records_import_no_task() -> None:
    code = """
import sys
from rkzoo.tasks.registry import OPTIONS, SPECS, _spec
assert not [name for name in sys.modules if name.endswith(".spec") and name.count(".") == 3]
for name in SPECS:
    _spec(name)
parts = [name.split(".") for name in sys.modules if name.startswith("rkzoo.tasks.")]
deep = {part[3] for part in parts if len(part) > 3}
assert deep == {"spec"}, deep
assert not {"cv2", "PIL", "onnx", "soundfile"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class Stop(Exception):
    """The network was asked; what it would answer does not matter here."""


class OnAnNpu:
    """A session with memory of its own and hardware that writes there, as on a board."""

    def __init__(self, outputs: list[tuple[int, ...]], size: tuple[int, int] = SIZE) -> None:
        self.label = "board"
        self.inputs = (TensorSpec(name="x", shape=(1, *size, 3), dtype="uint8", layout="NHWC"),)
        self.outputs = tuple(
            TensorSpec(name=f"o{i}", shape=shape, dtype="float32", layout="NCHW")
            for i, shape in enumerate(outputs)
        )
        self.canvas = np.zeros((1, *size, 3), np.uint8)
        self.fitted = 0
        self.fed: Any = None

    def fit(self, image: Any, spec: ImageInput, canvas: Any = None) -> Any:
        self.fitted += 1
        return fit(image, spec, canvas)

    def run(self, arrays: Any) -> Any:
        self.fed = arrays[0]
        raise Stop


DETECT = DetectHead(
    outputs=(HeadOutput(name="o0", role="box"), HeadOutput(name="o1", role="score")),
    classes=2,
    strides=(8,),
)
BOXES = [(1, 64, 8, 12), (1, 2, 8, 12)]
POINTS = [(1, 16, 16, 24), (1, 1, 16, 24)]
FACES = FaceHead(anchors=((16.0, 32.0),), strides=(8,))
CELLS = 2 * 8 * 12
CENTRES = [(1, count, 16, 24) for count in (1, 2, 2, 10)]
# One for each task that takes a picture; the heads of `detect` share one class.
PICTURES: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "detect": (DETECT, BOXES),
    "classify": (ClassifyHead(classes=5), [(1, 5)]),
    "semantic": (SemanticHead(classes=3), [(1, 3, 8, 8)]),
    "depth": (DepthHead(), [(1, 8, 8)]),
    "anomaly": (AnomalyHead(map="o0", score="o1"), [(1, 1, 8, 8), (1,)]),
    "vector": (VectorHead(size=4), [(1, 4)]),
    "top-down-pose": (TopDownPoseHead(points=5, coding="heatmap"), [(1, 5, 4, 6)]),
    "face": (FACES, [(1, CELLS, 4), (1, CELLS, 2), (1, CELLS, 10)]),
    "plate-det": (
        FaceHead(anchors=((16.0, 32.0),), strides=(8,), points=4),
        [(1, CELLS, 4), (1, CELLS, 2), (1, CELLS, 8)],
    ),
    "face-centre": (CentreFaceHead(), CENTRES),
    "plate": (PlateHead(blank=2), [(1, 3, 18)]),
    "text-det": (TextDetHead(), [(1, 1, *SIZE)]),
    "text-cls": (TextClsHead(), [(1, 2)]),
    "text-rec": (TextRecHead(), [(1, 12, 3)]),
    "cut-out": (PromptableSegmentHead(), [(1, 8, 4, 4)]),
}
# What follows from the others: variants of `detect`, a page of text-det, faces and people of two
# others, and Clip, whose files another test has; and what never scales a picture, so has no use
# for the hardware that does.
DERIVED = {
    *("segment", "pose", "people-pose", "obb", "face-yolo", "face-recognition", "text", "clip"),
    *("query-detect", "restore", "one-stage-pose"),
}


def test_no_picture_task_is_left_out_below() -> None:
    assert {name for name in SPECS if _spec(name).input_kind == "picture"} == {*PICTURES, *DERIVED}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_written_where_the_npu_reads_it_by_the_boards_hardware(name: str) -> None:
    head, outputs = PICTURES[name]
    contract = Contract(
        family=name, picture=ImageInput(size=SIZE, fit="stretch"), head=head, labels=("a", "b", "c")
    )
    session = OnAnNpu(outputs)
    one: tuple[Contract, Session] = (contract, session)  # type: ignore[assignment]
    parts = {"model": one}
    if name == "cut-out":
        decoder = OnAnNpu([])
        decoder.inputs = (
            TensorSpec(name="image_embeddings", shape=(1, 8, 4, 4), dtype="float32"),
            TensorSpec(name="point_coords", shape=(1, 5, 2), dtype="float32"),
            TensorSpec(name="point_labels", shape=(1, 5), dtype="float32"),
            TensorSpec(name="mask_input", shape=(1, 1, 16, 16), dtype="float32"),
        )
        decoder.outputs = (
            TensorSpec(name="low_res_masks", shape=(1, 1, 16, 16), dtype="float32"),
            TensorSpec(name="iou_predictions", shape=(1, 1), dtype="float32"),
        )
        parts = {"encoder": one, "decoder": (contract, decoder)}  # type: ignore[dict-item]
    options = TaskOptions(points=((1, 1, 1),))
    task = spec_of(head).open(TaskParts(head, parts, {}), options)
    with pytest.raises(Stop):
        task(np.full((40, 50, 3), 90, np.uint8))
    assert np.shares_memory(session.fed, session.canvas)
    assert session.canvas.any()
    assert session.fitted == 1
