"""Evaluation with rectangular inputs, as the upstream projects do.

Upstream batches images of similar shapes; here each image has its own rectangle.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Any

import msgspec
import numpy as np

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Session
from rkzoo.tasks.detect.task import DetectOptions, HeadTask
from rkzoo.vision import letterbox
from rkzoo.workflow.inference.load import detect_task
from rkzoo.workflow.inference.model import Image, Prediction
from rkzoo.workflow.inference.onnx_backend import OnnxBackend
from rkzoo.workflow.inference.plan import ModelPart, Plan, open_part

# Cells of the largest stride added before rounding up, as `pad` (0.5) of the YOLOv5 and
# Ultralytics loaders, so that every image has some padding.
_MARGIN = 0.5


def rectangle(source: tuple[int, int], spec: ImageInput, stride: int) -> tuple[int, int]:
    """Input (height, width) that upstream uses for an image of `source` (height, width): the
    letterbox scale of `spec`, rounded up to multiples of `stride` after half a cell is added.
    """
    # An exact fraction, since a side rounded down would shrink the image.
    (height, width), (tall, wide) = source, spec.size
    up, down = (tall, height) if tall * width <= wide * height else (wide, width)
    scale = Fraction(up, down * stride)
    margin = Fraction(_MARGIN)
    return ceil(height * scale + margin) * stride, ceil(width * scale + margin) * stride


def with_dynamic_size(planned: Plan) -> Plan:
    """Return the plan of a detection model with a graph of dynamic input size.

    Raises:
        RkzooError: the size is fixed inside the graph, or upstream does not evaluate so.
    """
    from rkzoo.graph.onnx.dynamic_size import with_dynamic_size as freed
    from rkzoo.graph.onnx.read import parse

    part = planned.parts["model"]
    _check(part.contract)
    if not isinstance(part.backend, OnnxBackend):
        raise RkzooError("Only an ONNX graph can take any size.", code=1)
    graph = freed(parse(part.backend.graph), _stride(part.contract))
    backend = OnnxBackend(graph.SerializeToString())
    return replace(planned, parts={"model": replace(part, backend=backend)})


def open_rectangular(
    planned: Plan,
    stack: ExitStack,
    options: DetectOptions | None = None,
    *,
    threads: int = 0,
    report: ProgressReporter = SILENT,
) -> Callable[[Image], Prediction]:
    """Open a plan made by `with_dynamic_size` as one callable from a BGR image (H, W, 3) to its
    result."""
    part = planned.parts["model"]
    session = stack.enter_context(open_part(part, threads=threads, report=report))
    return _Rectangular(part, session, options)


class _Rectangular:
    """One task per input size; a dataset has few."""

    def __init__(self, part: ModelPart, session: Session, options: DetectOptions | None) -> None:
        self._contract, self._session, self._options = part.answers, session, options
        self._stride = _stride(part.answers)
        self._tasks: dict[tuple[int, int], HeadTask[Any]] = {}

    def __call__(self, image: Image) -> Prediction:
        source, spec = (image.shape[0], image.shape[1]), self._contract.input
        size, scaled = rectangle(source, spec, self._stride), letterbox.plan(source, spec).scaled
        left, top = (size[1] - scaled[1]) // 2, (size[0] - scaled[0]) // 2
        box = letterbox.Letterbox(source, size, scaled, left, top)
        canvas = np.full((1, *size, spec.channels), spec.pad, np.uint8)
        inner = msgspec.structs.replace(spec, size=scaled, fit="stretch")
        canvas[:, top : top + scaled[0], left : left + scaled[1]] = letterbox.fit(image, inner)[0]
        prediction: Prediction = self._task(size).postprocess(self._session.run([canvas]), box)
        return prediction

    def _task(self, size: tuple[int, int]) -> HeadTask[Any]:
        if size not in self._tasks:
            fed = msgspec.structs.replace(self._contract.input, size=size)
            contract = msgspec.structs.replace(self._contract, picture=fed)
            self._tasks[size] = detect_task(contract, self._session, self._options)
        return self._tasks[size]


def _check(contract: Contract) -> None:
    image, stride = contract.input, _stride(contract)
    if image.fit != "letterbox" or image.place != "center":
        raise RkzooError(
            "There is no rectangular input to compare with.",
            f"The project behind {contract.family} evaluates with the one fixed size too.",
        )
    if any(side % stride for side in image.size):
        raise RkzooError(
            "There is no rectangular input to compare with.",
            f"{image.size[0]}x{image.size[1]} is not a multiple of {stride}, as a rectangle is.",
        )


def _stride(contract: Contract) -> int:
    if not isinstance(contract.head, DetectHead):
        raise RkzooError(f"{contract.family} is not a detection model.", code=1)
    return max(contract.head.strides)
