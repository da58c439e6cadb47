"""The report is one file, shows everything, and lets no stranger's name out of its cell."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.files import check_folder
from rkzoo.toolkit.analysis import LayerError
from rkzoo.workflow.comparison.compare import layers_of
from rkzoo.workflow.comparison.diagnosis import Cause
from rkzoo.workflow.comparison.html_report import curve, jpeg, page, write_report
from rkzoo.workflow.comparison.matching import MatchedPair, Matches, summed
from rkzoo.workflow.comparison.result import Comparison, RuntimeComparison
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures

NASTY = "<script>alert('x')</script>&\"--><img src=http://evil>$x$"
PICTURE = jpeg(np.full((40, 900, 3), 128, np.uint8))


def layer(index: int, cosine: float | None) -> LayerError:
    return LayerError("Conv", f"{NASTY}{index}", cosine, 0.1, cosine, 0.1)


@pytest.fixture(scope="module")
def found() -> Comparison:
    output = OutputFigures(
        NASTY, "score", "model", 0.9, 1.5, 0, 1, 0, 2, 0.1, -128, 0.0, 0.2, 0.3, 0.1, 7, None, 10
    )
    broken = OutputFigures("n", "box", "model", None, float("inf"), 0, 1, 0, 2)
    matches = Matches(
        (MatchedPair(NASTY, (0, 0, 1, 1), 0.9, 0.8, 0.95, text=NASTY + "!"),),
        (MatchedPair("cat", (0, 0, 1, 1), 0.9, None),),
    )
    ran = (
        RuntimeComparison("onnx", "onnx", (2,), drawn=(PICTURE,)),
        RuntimeComparison(
            "int8",
            "simulator",
            (1,),
            (output, broken),
            (matches,),
            summed([matches]),
            True,
            1.0,
            (PICTURE,),
        ),
    )
    rows = [layer(0, 0.9999), layer(1, None), layer(2, 0.5), layer(3, 1.0)]
    return Comparison(
        model=NASTY,
        soc="rk3588",
        toolkit="2.5.0",
        threshold=0.25,
        pictures=(NASTY,),
        ran=ran,
        layers=(layers_of("model", NASTY, rows),),
        causes=(Cause("one-layer", NASTY, NASTY, "rkzoo tune"),),
        skipped=(NASTY,),
        verdict="INT8 does not answer as float does.",
        next="rkzoo tune",
        seconds=1.0,
    )


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_nothing_of_a_name_becomes_markup(found: Comparison) -> None:
    text = page(found)
    tags = Tags()
    tags.feed(text)
    assert not tags.open, "every tag is closed"
    assert not [tag for tag, _ in tags.seen if tag in ("script", "iframe", "object", "link")]
    assert "<script" not in text
    sources = [a["src"] for tag, a in tags.seen if tag == "img"]
    assert len(sources) == 2
    assert all(str(one).startswith("data:image/jpeg;base64,") for one in sources)
    assert "default-src 'none'" in text
    assert not re.search(r"evil>", re.sub(r"&gt;", "", text))


def test_the_report_has_all_parts(found: Comparison) -> None:
    text = page(found)
    for part in (
        "no board here",
        "do not depend on the chip",
        "float [onnx]: 2 found",
        "INT8 [simulator]: 1 found",
        "lost",
        "10.00%",
        "not finite",
        "<svg",
        "First below 0.99",
    ):
        assert part in text, part


def test_the_curve_draws_numbers_only() -> None:
    drawn = curve([layer(i, 0.99) for i in range(5)])
    assert drawn.startswith("<svg")
    assert "alert" not in drawn
    assert drawn == curve([layer(i, 0.99) for i in range(5)]), "the same twice"
    assert "<svg" in curve([layer(0, None)])


def test_the_worst_and_the_first_layer() -> None:
    rows = [layer(0, 1.0), layer(1, None), layer(2, 0.98), layer(3, 0.5)]
    found = layers_of("model", "a.jpg", rows)
    assert found.first_bad == rows[2].tensor
    assert [row.tensor for row in found.worst] == [rows[i].tensor for i in (3, 2, 0)]
    assert layers_of("model", "a.jpg", rows[:2]).first_bad is None


def test_json_holds_no_number_that_json_does_not_know(found: Comparison) -> None:
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["ran"][1]["outputs"][1]["difference"] is None
    assert document["board"] is None
    assert "drawn" not in document["ran"][0]
    assert document["layers"][0]["rows"][2]["cosine_entire"] == 0.5


def test_a_report_is_written_whole_or_not_at_all(found: Comparison, tmp_path: Path) -> None:
    path = write_report(found, tmp_path / "out")
    assert path.read_text("utf-8").endswith("</html>\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(RkzooError, match="cannot be written"):
        write_report(found, tmp_path / "file")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RkzooError, match="Nothing can be written") as caught:
        check_folder(tmp_path / "file" / "deep")
    assert "no folder" in caught.value.why
