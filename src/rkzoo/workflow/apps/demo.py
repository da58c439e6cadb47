"""Demo of the whole workflow on one page: OCR in float, conversion to .rknn, OCR in INT8."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from rkzoo.files import write_text
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.session import Array, Session, dequantise
from rkzoo.tasks.text.detect_text import TextDetector
from rkzoo.tasks.text.open import page_reader
from rkzoo.tasks.text.page import PageReader
from rkzoo.tasks.text.result import TextLines, agreement
from rkzoo.toolkit.environment import unavailable
from rkzoo.vision.draw import side_by_side
from rkzoo.vision.draw_text import confidence_color, outline
from rkzoo.vision.image import read, write
from rkzoo.workflow.compile.convert import ConversionResult, convert_resolved
from rkzoo.workflow.compile.simulate import open_rknn
from rkzoo.workflow.inference.font import font
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.zoo.catalogue import card as find_card


@dataclass(frozen=True)
class DemoComparison:
    """Float and INT8 results on the same page. Times are those of this PC, not of an NPU."""

    onnx_lines: int
    simulator_lines: int
    found_by_both: int
    read_alike: int
    cosine: dict[str, float]
    onnx_seconds: float
    simulator_seconds: float
    onnx_bytes: int
    rknn_bytes: int


@dataclass(frozen=True)
class DemoReport:
    """Result of the demo. `comparison` is None where the toolkit cannot run; `without` then gives
    the reason.
    """

    page: TextLines
    pictures: tuple[Path, ...]
    seconds: float
    converted: ConversionResult | None = None
    comparison: DemoComparison | None = None
    without: str = ""

    def to_json(self) -> dict[str, Any]:
        """Report as JSON types."""
        return {
            "page": {"runtime": "onnx", "lines": self.page.to_json()},
            "rknn": self.converted.to_json() if self.converted else None,
            "comparison": asdict(self.comparison) if self.comparison else None,
            "comparison_runtimes": ["onnx", "simulator"] if self.comparison else None,
            "not_done": self.without or None,
            "pictures": [str(path) for path in self.pictures],
            "seconds": round(self.seconds, 1),
        }


def demo(
    out: Path,
    *,
    soc: str = "rk3588",
    toolkit: str | None = None,
    report: ProgressReporter = SILENT,
    show: Callable[[TextLines], None] = lambda lines: None,
) -> DemoReport:
    """Run the demo, and write images, .rknn and report.json into `out`.

    Args:
        out: output folder.
        soc: target chip.
        toolkit: version of RKNN-Toolkit2; None for the default.
        report: receives progress.
        show: called with the recognized lines as soon as they are known.

    Raises:
        RkzooError: a file cannot be fetched or written, or the conversion fails.
    """
    start = perf_counter()
    with ExitStack() as stack:
        pipeline = find_card("ppocr")
        letters = font(report)
        parts = {role: resolve(name, report=report) for role, name in pipeline.pipeline.items()}
        opened = {
            role: (
                ready.contract,
                stack.enter_context(
                    OnnxSession(ready.graph().SerializeToString(), ready.contract.input)
                ),
            )
            for role, ready in parts.items()
        }
        reader = page_reader(opened)
        with resources.as_file(resources.files("rkzoo.assets") / "page.jpg") as path:
            page = read(path)
        with report.task("Reading the page on ONNX Runtime"):
            reader.detector(page)  # warm-up: the first run allocates memory
            began = perf_counter()
            boxes = reader.detector(page)
            onnx_seconds = perf_counter() - began
            lines = reader.read(page, boxes)
        show(lines)
        pictures = [out / "page-onnx.png"]
        write(pictures[0], lines.draw(page, letters))

        reason = unavailable(toolkit) if toolkit else unavailable()
        if reason is not None:
            demo_report = DemoReport(
                lines, tuple(pictures), perf_counter() - start, without=str(reason)
            )
            return _written(demo_report, out)

        det = parts["det"]
        converted = convert_resolved(
            det,
            [soc],
            Request(dtype="int8", toolkit=toolkit),
            output=out,
            report=report,
        )[0]
        _, session = open_rknn(converted.rknn, report=report)
        stack.enter_context(session)
        comparison, simulated = _compare(
            det, reader, opened["det"][1], session, page, lines, onnx_seconds, converted, report
        )
        pictures += [out / "page-simulator.png", out / "float-and-int8.png"]
        write(pictures[1], simulated.draw(page, letters))
        write(pictures[2], _both(page, lines, simulated))
        demo_report = DemoReport(
            lines, tuple(pictures), perf_counter() - start, converted, comparison
        )
        return _written(demo_report, out)


def _compare(
    det: ResolvedModel,
    reader: PageReader,
    floating: Session,
    session: Session,
    page: Array,
    lines: TextLines,
    onnx_seconds: float,
    converted: ConversionResult,
    report: ProgressReporter,
) -> tuple[DemoComparison, TextLines]:
    """Run the same page through the INT8 detector and the same recognizer."""
    detector = TextDetector(det.contract, session)
    with report.task("Reading the page with the INT8 detector on the simulator"):
        arrays, letterbox = detector.preprocess(page)
        detector.session.run(arrays)
        began = perf_counter()
        outputs = detector.session.run(arrays)
        seconds = perf_counter() - began
        simulated = reader.read(page, detector.postprocess(outputs, letterbox))
        expected = floating.run(arrays)
    agreed = agreement(lines, simulated)
    return (
        DemoComparison(
            onnx_lines=len(lines),
            simulator_lines=len(simulated),
            found_by_both=agreed.matched,
            read_alike=agreed.same_text,
            cosine={
                spec.name: cosine(dequantise(got, spec), want)
                for got, spec, want in zip(outputs, session.outputs, expected, strict=True)
            },
            onnx_seconds=round(onnx_seconds, 4),
            simulator_seconds=round(seconds, 4),
            onnx_bytes=Path(det.source.file).stat().st_size,
            rknn_bytes=converted.size,
        ),
        simulated,
    )


def _both(page: Array, lines: TextLines, simulated: TextLines) -> Array:
    """Detections of both models, side by side."""
    drawn = []
    for text_lines in (lines, simulated):
        drawn.append(page.copy())
        outline(
            drawn[-1], text_lines.quads, [confidence_color(s) for s in text_lines.detection_scores]
        )
    captions = (
        f"float [onnx]: {len(lines)} lines",
        f"INT8 [simulator]: {len(simulated)} lines",
    )
    return side_by_side(drawn, captions)


def cosine(a: Array, b: Array) -> float:
    """Cosine similarity of two tensors."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    return round(float(x @ y) / length, 6) if length else 0.0


def _written(demo_report: DemoReport, out: Path) -> DemoReport:
    write_text(
        out / "report.json", json.dumps(demo_report.to_json(), ensure_ascii=False, indent=2) + "\n"
    )
    return demo_report
