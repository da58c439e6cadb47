"""What the text models need beside themselves: a font to draw with, pictures to calibrate
with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, cache_dir, locked, package_digest, sha256_of
from rkzoo.kept import intact, seal
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.text.detect_text import TextDetector
from rkzoo.tasks.text.quads import Image, crop
from rkzoo.vision.image import read, write
from rkzoo.vision.letterbox import with_channels
from rkzoo.vision.synthetic_pages import pages
from rkzoo.workflow.compile import face_calibration
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.resolve import resolve
from rkzoo.zoo.catalogue import card as find_card
from rkzoo.zoo.fetch import asset
from rkzoo.zoo.schema import Card

MADE = "pages rendered by rkzoo"
PAGES = 20
LINES = 100
_LINE = 2.5  # width over height above which a picture is taken for one line of text


def make_pages(report: ProgressReporter = SILENT) -> calib.CalibrationImages:
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
    part: Card,
    pipeline: Card,
    calibration_images: calib.CalibrationImages | None,
    report: ProgressReporter = SILENT,
) -> calib.CalibrationImages:
    """Calibration pictures for one part of a text pipeline: pages for the detector, and
    for the others the lines that the float detector finds on those pages."""
    whole = calibration_images or make_pages(report)
    if part.task == "text-det":
        return whole
    opaque = (with_channels(page, 3) for page in whole.load())
    lines = _lines_on(opaque, len(whole), pipeline, report)
    if not lines:
        raise RkzooError(
            "The calibration pictures hold no text.",
            "No line was found on any of them.",
            "Give pictures of pages, signs or labels with --calib.",
        )
    step = max(1, len(lines) // LINES)
    return calib.from_arrays(lines[::step][:LINES], whole.names)


def _lines_on(
    whole: Iterable[Image], count: int, pipeline: Card, report: ProgressReporter
) -> list[Image]:
    """All lines that the float detector finds on pages."""
    ready = resolve(pipeline.pipeline["det"], report=report)
    lines: list[Image] = []
    with OnnxSession(ready.graph().SerializeToString(), ready.contract.input) as session:
        detector = TextDetector(ready.contract, session)
        with report.task("Finding lines of text", count, unit="pictures") as bar:
            for index, page in enumerate(whole):
                lines += [crop(page, quad) for quad in detector(page).quads]
                bar.update(index + 1)
    return lines


def line_pictures(
    part: str, files: Sequence[Path], report: ProgressReporter = SILENT
) -> list[Path]:
    """Pictures of single lines for the reader `part`, cut from pages where the files are such.

    Files that are wider than high by far are taken for lines already. Cut lines are kept in
    the cache. Raises RkzooError when a file cannot be read.
    """
    pipeline = pipeline_of(part)
    images = [read(file) for file in files]
    if pipeline is None or np.median([i.shape[1] / i.shape[0] for i in images]) > _LINE:
        return list(files)
    key = " ".join([package_digest(), part, *(sha256_of(file) for file in files)])
    digest = hashlib.sha256(key.encode()).hexdigest()
    folder = cache_dir("lines") / digest[:16]
    with locked(cache_dir("locks") / f"lines-{folder.name}"):
        if not intact(folder, report):
            with atomic_output(folder) as making:
                making.mkdir()
                for index, line in enumerate(_lines_on(images, len(images), pipeline, report)):
                    write(making / f"{index:05d}.png", line)
                seal(making)
    return sorted(folder.glob("*.png"))


def pipeline_of(part: str) -> Card | None:
    """The text pipeline that a part's card belongs to."""
    from rkzoo.zoo.catalogue import cards

    mine = (card for card in cards() if card.task == "text" and part in card.pipeline.values())
    return next(mine, None)


def pictures_for(
    part: str, calibration_images: calib.CalibrationImages | None, report: ProgressReporter = SILENT
) -> calib.CalibrationImages | None:
    """Calibration pictures for a card; those given for one that is no part of a text pipeline, and
    the faces on them for one that recognises faces."""
    pipeline = pipeline_of(part)
    if pipeline is None:
        faces = None if calibration_images is None else face_calibration.pipeline_of(part)
        if faces is None or calibration_images is None:
            return calibration_images
        return face_calibration.for_recognizer(faces, calibration_images, report)
    return for_part(find_card(part), pipeline, calibration_images, report)
