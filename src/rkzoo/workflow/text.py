"""What the text models need beside themselves: a font to draw with, pictures to calibrate
with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, Reporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.text.detect_text import TextDetector
from rkzoo.tasks.text.quads import Image, crop
from rkzoo.vision.synthetic_pages import pages
from rkzoo.workflow import calibration as calib
from rkzoo.workflow.resolve import resolve
from rkzoo.zoo.catalogue import card as find_card
from rkzoo.zoo.fetch import asset
from rkzoo.zoo.schema import Card

MADE = "pages rendered by rkzoo"
PAGES = 20
LINES = 100


def font(report: Reporter = SILENT) -> Path | None:
    """A font with Chinese characters; None, with a note, when it cannot be had."""
    try:
        return asset("font-cjk", report)
    except RkzooError as error:
        report.note(f"Only ASCII can be drawn, for the font is missing. {error}")
        return None


def made_pages(report: Reporter = SILENT) -> calib.Pictures:
    """Pages of text that rkzoo renders itself, for calibration without pictures at hand."""
    report.note(
        f"{PAGES} pages that rkzoo renders itself set the INT8 ranges; pictures from your own "
        "camera, given with --calib, set them better."
    )
    return calib.from_arrays(_pages(asset("font-cjk", report)), [MADE])


@cache
def _pages(font: Path) -> tuple[Image, ...]:
    return tuple(pages(PAGES, seed=0, font=font))


def for_part(
    part: Card, pipeline: Card, given: calib.Pictures | None, report: Reporter = SILENT
) -> calib.Pictures:
    """Calibration pictures for one part of a text pipeline: pages for the detector, and
    for the others the lines that the float detector finds on those pages."""
    whole = given or made_pages(report)
    if part.task == "text-det":
        return whole
    ready = resolve(pipeline.pipeline["det"], report=report)
    lines: list[Image] = []
    with OnnxSession(ready.graph().SerializeToString(), ready.contract.input) as session:
        detector = TextDetector(ready.contract, session)
        with report.task("Finding lines to calibrate with", len(whole)) as bar:
            for index, page in enumerate(whole.load()):
                lines += [crop(page, quad) for quad in detector(page).quads]
                bar.update(index + 1)
    if not lines:
        raise RkzooError(
            "The calibration pictures hold no text.",
            "No line was found on any of them.",
            "Give pictures of pages, signs or labels with --calib.",
        )
    step = max(1, len(lines) // LINES)
    return calib.from_arrays(lines[::step][:LINES], whole.names)


def pipeline_of(part: str) -> Card | None:
    """The text pipeline that a part's card belongs to."""
    from rkzoo.zoo.catalogue import cards

    return next((card for card in cards() if part in card.pipeline.values()), None)


def pictures_for(
    part: str, given: calib.Pictures | None, report: Reporter = SILENT
) -> calib.Pictures | None:
    """Calibration pictures for a card; `given` for one that is no part of a text pipeline."""
    pipeline = pipeline_of(part)
    if pipeline is None:
        return given
    return for_part(find_card(part), pipeline, given, report)
