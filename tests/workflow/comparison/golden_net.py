"""A detector of one level with a golden file, and a library that plays back what it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graph.rknn_writer import Sample
from npu_standin.recording import In, Out, Recording
from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.files import sha256_of
from rkzoo.session import Array
from rkzoo.workflow.compile.convert import custom_string
from rkzoo.workflow.compile.golden import Golden, GoldenMetadata, golden_path, write_golden

SIDE, CLASSES = 64, 16
CELLS = SIDE // 8
BOXES = TensorSpec(
    name="box", shape=(1, 64, CELLS, CELLS), dtype="int8", layout="NCHW", scale=0.1, zero_point=-5
)
SCORES = TensorSpec(
    name="score",
    shape=(1, CLASSES, CELLS, CELLS),
    dtype="int8",
    layout="NCHW",
    scale=1 / 255,
    zero_point=-128,
)
FED = TensorSpec(name="images", shape=(1, SIDE, SIDE, 3), dtype="uint8", layout="NHWC")
CONTRACT = Contract(
    family="yolov8",
    picture=ImageInput(size=(SIDE, SIDE)),
    head=DetectHead(
        outputs=(
            HeadOutput(name="box", role="box", level=0),
            HeadOutput(name="score", role="score", level=0),
        ),
        classes=CLASSES,
        strides=(8,),
    ),
)


def answers(seed: int) -> tuple[Array, Array]:
    """Boxes around four cells that are sure, and noise elsewhere."""
    random = np.random.default_rng(seed)
    boxes = random.integers(-40, 40, BOXES.shape, np.int8)
    scores = np.full(SCORES.shape, -128, np.int8)
    scores += random.integers(0, 9, SCORES.shape, np.int8)
    for row, column in ((1, 1), (1, 6), (6, 1), (6, 6)):
        scores[0, random.integers(CLASSES), row, column] = 100
        boxes[0, :, row, column] = -100
        boxes[0, 1::16, row, column] = 120  # one cell to each side
    return boxes, scores


def golden_with(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], runs: list[Any], sha: str
) -> Golden:
    """`runs`: for each input what is fed and what is answered."""
    about = GoldenMetadata(
        model=sha,
        name="net.rknn",
        inputs=inputs,
        outputs=outputs,
        count=len(runs),
        origin="calibration",
        toolkit="2.5.0",
        rkzoo="0.1.0",
    )
    fed, told = zip(*runs, strict=True)
    stacks = [tuple(np.stack(s) for s in zip(*part, strict=True)) for part in (fed, told)]
    return Golden(about, *stacks)


class Net:
    """A detector of two inputs, what the simulator would answer, and a library that plays."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        pictures = random.integers(0, 256, (2, *FED.shape), np.uint8)
        self.runs = [((picture,), answers(seed)) for seed, picture in enumerate(pictures)]
        self.file = folder / "net.rknn"
        self.play([told for _, told in self.runs])

    def play(self, told: list[tuple[Array, ...]], **how: Any) -> None:
        """The .rknn plays this back, and its golden file holds what it should."""
        outs = [
            Out(s.name, s.shape, "int8", how.get(s.name, s.scale), s.zero_point)
            for s in (BOXES, SCORES)
        ]
        recording = Recording((In("images", FED.shape, w_stride=SIDE + 16),), outs)
        for (fed, _), arrays in zip(self.runs, told, strict=True):
            recording.answer(fed, arrays)
        self.file.write_bytes(recording.bytes(Sample(custom=custom_string(CONTRACT)).write()))
        golden = golden_with((FED,), (BOXES, SCORES), self.runs, sha256_of(self.file))
        write_golden(golden_path(self.file), golden)

    def changed(self, change: Any) -> None:
        """Plays outputs that `change` makes of the golden ones."""
        self.play([tuple(change(array.copy()) for array in told) for _, told in self.runs])
