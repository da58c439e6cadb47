"""PP-OCR on real weights: what is written is read, in float and with the INT8 detector."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import rkzoo
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.text.detect_text import TextDetector
from rkzoo.tasks.text.result import TextLines, match
from rkzoo.vision.image import read
from rkzoo.workflow.compile.simulate import open_simulator
from rkzoo.workflow.compile.text_calibration import make_pages
from rkzoo.workflow.inference.model import Model
from rkzoo.workflow.request.resolve import resolve

pytestmark = pytest.mark.network

TRUTH = (resources.files("rkzoo.assets") / "page.txt").read_text("utf-8").splitlines()


def edits(a: str, b: str) -> int:
    """Levenshtein distance."""
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        before, row = row, row.copy()
        row[0] = i
        for j, y in enumerate(b, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
    return int(row[-1])


@pytest.fixture(scope="module", params=["ppocr", "ppocr-v5"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with rkzoo.load(request.param) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def page(model: Model) -> TextLines:
    with resources.as_file(resources.files("rkzoo.assets") / "page.jpg") as path:
        found = model(path).prediction
    assert isinstance(found, TextLines)
    return found


def test_the_bundled_page_is_small_and_has_its_truth() -> None:
    assert (resources.files("rkzoo.assets") / "page.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert len((resources.files("rkzoo.assets") / "page.jpg").read_bytes()) < 250_000
    assert 12 <= len(TRUTH) <= 16


def test_every_line_of_the_bundled_page_is_read_in_order(page: TextLines) -> None:
    assert len(page) == len(TRUTH)
    wrong = [edits(said, truth) for said, truth in zip(page.texts, TRUTH, strict=True)]
    letters = sum(map(len, TRUTH))
    assert 1 - sum(wrong) / letters >= 0.95
    # No line is misplaced or lost in the mean.
    assert all(n <= 0.2 * len(truth) for n, truth in zip(wrong, TRUTH, strict=True))


def test_the_line_on_its_head_is_known_as_such(page: TextLines) -> None:
    upside_down = [t for t, angle in zip(page.texts, page.angles, strict=True) if angle == 180]
    assert upside_down == ["This line stands on its head."]


@pytest.mark.parametrize("quarters", [1, 2])
def test_a_turned_page_is_read_the_same_way(quarters: int) -> None:
    with resources.as_file(resources.files("rkzoo.assets") / "page.jpg") as path:
        picture = np.ascontiguousarray(np.rot90(read(path), quarters))
    with rkzoo.load("ppocr") as model:
        found = model(picture).prediction
    assert isinstance(found, TextLines)
    wrong = [edits(said, truth) for said, truth in zip(found.texts, TRUTH, strict=True)]
    assert 1 - sum(wrong) / sum(map(len, TRUTH)) >= 0.95


@pytest.mark.parametrize("name", ["ppocr-v4-rec", "ppocr-v5-rec"])
def test_one_line(name: str, assets: Path) -> None:
    with rkzoo.load(name) as reader:
        found = reader(assets / "data" / "images" / "ocr_line.png").prediction
    assert isinstance(found, TextLines)
    assert found.texts == ("JOINT",)
    assert found.scores[0] > 0.95


def test_first_lines_of_the_vendors_page(model: Model, assets: Path) -> None:
    wanted = [
        "纯臻营养护发素",
        "产品信息/参数",
        "（45元/每公斤，100公斤起订）",
        "每瓶22元，1000瓶起订）",
        "【品牌】：代加工方式/OEMODM",
        "【品名】：纯臻营养护发素",
    ]
    found = model(assets / "data" / "images" / "ocr_page.jpg").prediction
    assert isinstance(found, TextLines)
    assert len(found) == 16
    if model.name == "ppocr":
        assert list(found.texts[:6]) == wanted
    else:
        # The weights of 2025 leave out a character here and there in wide lines of print.
        wrong = sum(edits(said, truth) for said, truth in zip(found.texts, wanted, strict=False))
        assert wrong <= 0.1 * sum(map(len, wanted))


@pytest.mark.sweep
@pytest.mark.toolkit
@pytest.mark.parametrize(("name", "least"), [("ppocr-v4-det", 0.95), ("ppocr-v5-det", 0.94)])
def test_int8_detector_finds_the_lines_that_float_finds(
    name: str, least: float, assets: Path
) -> None:
    """The INT8 detector on the simulator against float on ONNX, boxes before any is read.

    Measured 0.975 and 0.953; of lines that can be read 0.982 and 0.965.
    """
    ready = resolve(name)
    both = float_only = int8_only = 0
    with (
        OnnxSession(ready.graph().SerializeToString(), ready.contract.picture) as onnx,
        open_simulator(ready, pictures=make_pages(), dtype="int8") as simulator,
    ):
        wanted = TextDetector(ready.contract, onnx)
        quantised = TextDetector(ready.contract, simulator)
        for path in sorted((assets / "data" / "ocr").glob("*.jpg")):
            picture = read(path)
            a, b = wanted(picture), quantised(picture)
            found = len(match(a.quads, b.quads))
            both, float_only, int8_only = (
                both + found,
                float_only + len(a) - found,
                int8_only + len(b) - found,
            )
    assert both > 400
    assert 2 * both / (2 * both + float_only + int8_only) >= least
