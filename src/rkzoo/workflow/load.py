"""`rkzoo.load`: a name or a file to a model that answers pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rkzoo.contract import Contract, DetectHead, TextDetHead, TextRecHead
from rkzoo.errors import RkzooError
from rkzoo.graph.anchors import parse_anchors
from rkzoo.progress import SILENT, Reporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.session import Label, Session
from rkzoo.tasks.detect.task import DetectOptions, Detector, HeadTask
from rkzoo.tasks.obb.task import OrientedDetector
from rkzoo.tasks.pose.task import PoseEstimator
from rkzoo.tasks.segment.task import Segmenter
from rkzoo.tasks.text.classify_angle import AngleClassifier
from rkzoo.tasks.text.detect_text import TextDetector
from rkzoo.tasks.text.page import PageOptions, PageReader, SingleLine
from rkzoo.tasks.text.read_line import LineReader
from rkzoo.tasks.text.result import TextLines
from rkzoo.workflow import calibration as calib
from rkzoo.workflow.model import Answer, Found, Image, Model, plainly
from rkzoo.workflow.resolve import Anchors, Color, Feed, Resolved, Triple, is_pipeline, resolve
from rkzoo.workflow.text import font
from rkzoo.workflow.watch import watched
from rkzoo.zoo.schema import Card

Open = Callable[[str], tuple[Contract, Session]]


def load(
    model: str | os.PathLike[str],
    *,
    runtime: str | None = None,
    labels: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    confidence: float | None = None,
    iou: float | None = None,
    limit: int | None = None,
    multi_label: bool = False,
    color: Color | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    anchors: str | Anchors | None = None,
    calibration: str | None = None,
    dtype: str | None = None,
    toolkit: str | None = None,
    cut: bool = True,
    report: Reporter = SILENT,
) -> Model:
    """Loads a model of the zoo, an `.onnx` file or a `.rknn` file made by rkzoo.

    `runtime` is `onnx` (the default for cards and .onnx) or `simulator` (the default for
    .rknn: what the NPU will compute, emulated on this PC). `labels` override those of the
    model. `size` (height, width) fixes an input the model leaves free. `confidence` and
    `iou` in 0..1; `limit` is the most boxes of a picture (300); `multi_label` gives one box
    for every class of a cell that reaches the confidence. `color`, `mean` and `std` (in units
    of 0..255) say how the model is fed, where that is not as recognised; `anchors` (numbers,
    a file of them, or pairs) those of a YOLOv5 or v7 whose graph does not hold them.
    `calibration` (folder, glob or list), `dtype` and `toolkit` count for the simulator only,
    where the model is not a .rknn. `cut=False` leaves the detection head on. Raises
    RkzooError.
    """
    from rkzoo.workflow.simulate import open_rknn, open_simulator

    name = os.fspath(model)
    _check_runtime(runtime)
    options = _options(confidence, iou, limit, multi_label)
    feed = Feed(color, mean, std)
    with ExitStack() as stack:
        if Path(name).suffix.lower() == ".rknn":
            if runtime == "onnx":
                raise RkzooError(
                    f"{name} cannot be run by ONNX Runtime.",
                    "A .rknn file is for the NPU.",
                    "Run the .onnx it was made from, or use --runtime simulator.",
                )
            feed.refuse(f"{name} keeps how it is fed, since it was converted.")
            if anchors is not None:
                raise RkzooError(
                    "--anchors does not go with this model.",
                    f"{name} keeps its anchors, since it was converted.",
                    "Leave it out, or convert the model again with them.",
                )
            contract, session = open_rknn(Path(name), report=report)
            task = _task(contract, stack.enter_context(session), options, labels)
            painter = partial(_paint, report) if _reads_text(task) else plainly
            return Model(Path(name).stem, session.label, _answer(task), stack.pop_all(), painter)

        pairs = parse_anchors(anchors) if isinstance(anchors, str) else anchors
        label: Label = "simulator" if runtime == "simulator" else "onnx"
        given = calib.find(calibration) if calibration else None

        def open_(part: str) -> tuple[Contract, Session]:
            ready = resolve(part, size=size, labels=labels, feed=feed, anchors=pairs, report=report)
            ready = ready if cut else ready.uncut()
            if label == "onnx":
                session: Session = open_onnx(ready)
            else:
                # In a pipeline a part that does not have the dtype keeps its own.
                chosen = dtype if pipeline is None or dtype in ready.dtypes else None
                session = open_simulator(
                    ready, pictures=given, dtype=chosen, toolkit=toolkit, report=report
                )
            return ready.contract, stack.enter_context(session)

        pipeline = is_pipeline(name)
        if pipeline is not None:
            feed.refuse(f"{name} consists of several models, each fed in its own way.")
            task = page_reader(pipeline, open_, confidence)
        else:
            task = _task(*open_(name), options, None)
        painter = partial(_paint, report) if _reads_text(task) else plainly
        title = pipeline.name if pipeline else Path(name).stem
        return Model(title, label, _answer(task), stack.pop_all(), painter)


def _options(
    confidence: float | None, iou: float | None, limit: int | None, multi_label: bool
) -> DetectOptions:
    given = {"confidence": confidence, "iou": iou, "limit": limit, "multi_label": multi_label}
    return DetectOptions(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _answer(task: Callable[[Image], Found]) -> Answer:
    return partial(watched, task) if isinstance(task, HeadTask) else lambda image: (task(image), ())


def _reads_text(task: object) -> bool:
    return isinstance(task, PageReader | SingleLine)


def _paint(report: Reporter, found: TextLines, image: Image) -> Image:
    return found.draw(image, font(report))


def open_onnx(ready: Resolved) -> OnnxSession:
    """A resolved model on ONNX Runtime, cut as it would be for the NPU."""
    return OnnxSession(ready.graph().SerializeToString(), ready.contract.input)


def page_reader(card: Card, open_: Open, confidence: float | None) -> PageReader:
    """The three models of a text pipeline as one."""
    det, rec = TextDetector(*open_(card.pipeline["det"])), LineReader(*open_(card.pipeline["rec"]))
    cls = AngleClassifier(*open_(card.pipeline["cls"])) if "cls" in card.pipeline else None
    options = PageOptions() if confidence is None else PageOptions(confidence)
    return PageReader(det, rec, cls, options)


def _check_runtime(runtime: str | None) -> None:
    if runtime not in (None, "onnx", "simulator"):
        raise RkzooError(
            f"There is no runtime called {runtime!r}.",
            "rkzoo runs models on onnx and on the simulator.",
            "Use --runtime onnx or --runtime simulator.",
        )


def _of_head(head: DetectHead) -> type[HeadTask[Any]]:
    if head.rotated:
        return OrientedDetector
    if head.keypoints:
        return PoseEstimator
    return Segmenter if head.coefficients else Detector


def detect_task(
    contract: Contract, session: Session, options: DetectOptions | None = None
) -> HeadTask[Any]:
    """The task of a detection head: boxes, masks, key points or oriented boxes."""
    if not isinstance(contract.head, DetectHead):
        raise RkzooError(f"{contract.family} is no detection model.", code=1)
    return _of_head(contract.head)(contract, session, options)


def _task(
    contract: Contract,
    session: Session,
    options: DetectOptions,
    labels: Sequence[str] | None,
) -> Callable[[Image], Found]:
    import msgspec

    if labels is not None:
        contract = msgspec.structs.replace(contract, labels=tuple(labels))
    if isinstance(contract.head, DetectHead):
        return detect_task(contract, session, options)
    if isinstance(contract.head, TextDetHead):
        return TextDetector(contract, session)
    if isinstance(contract.head, TextRecHead):
        return SingleLine(LineReader(contract, session))
    raise RkzooError(
        f"{contract.family} only tells which way up a line of text is.",
        "It is one part of a pipeline.",
        "Run the pipeline: rkzoo run ppocr PICTURE.",
    )
