"""The page for choosing in a real browser: filters, plot, what is copied, how it stands on a phone.

Needs Playwright's Python package and a Chromium: Debian's `chromium-headless-shell` or
`chromium`, or one that RKZOO_CHROMIUM names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkzoo.workflow.reporting.results import (
    AccuracyRow,
    Support,
    SupportTrial,
    write_rows,
    write_support,
)
from rkzoo.workflow.reporting.zoo import gather, page
from rkzoo.workflow.request.quantization import QuantizationConfig

ROOT = Path(__file__).parents[3]
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
EVIL = "</script><img src=x onerror=document.title='caught'>"


def row(name: str, value: float, drop: float = 0.5) -> AccuracyRow:
    return AccuracyRow(
        model=name, sha256=name, dataset="coco", truth="known", images=128, protocol="as run",
        metric="mAP50-95", unit="", original=value + drop / 100, int8=value, int8_drop=drop,
        tuned=value, tuned_drop=drop, how=QuantizationConfig("logits"), change="none needed",
        calibration="20 pictures", runtime="simulator", toolkit="2.5.0", rkzoo="0.1.0",
        date="2026-11-22",
    )  # fmt: skip


def support(name: str, megabytes: int, ms: float, **chips: SupportTrial) -> Support:
    built = SupportTrial(
        dtype="int8", converts=True, bytes=megabytes << 20, weights=megabytes << 20, internal=0,
        ms=ms, low=ms * 0.8, high=ms * 1.25,
    )  # fmt: skip
    return Support(
        model=name, task="detect", weights="another export", sha256=name, size=(640, 640),
        toolkit="2.5.0", chips={"rk3588": built, "rv1103": built} | chips,
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    wanted = [os.environ.get("RKZOO_CHROMIUM", ""), *NAMES]
    found = next((path for name in wanted if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: install Debian's chromium-headless-shell, or set RKZOO_CHROMIUM")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    refused = SupportTrial(converts=False, why=EVIL)
    rows = [
        support("yolov8n", 8, 20.0, rv1103=refused),
        support("yolox-nano", 4, 10.0),
        support("yolov9t", 30, 40.0),
    ]
    write_support(folder / "support.yaml", rows)
    accuracy = [row("yolov8n", 0.5), row("yolox-nano", 0.33), row("yolov9t", 0.52, drop=2.0)]
    write_rows(folder / "accuracy.yaml", accuracy)
    (folder / "zoo.html").write_text(page(gather(folder)), "utf-8")
    return folder / "zoo.html"


class Open:
    """The page in a tab, and everything that went wrong on it."""

    def __init__(self, browser: Any, path: Path, hash: str = "", **how: Any) -> None:
        self.context = browser.new_context(**how)
        self.tab = self.context.new_page()
        self.wrong: list[str] = []
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("console", lambda told: self.wrong.append(told.text))
        self.tab.on("request", self._asked)
        self.tab.goto(path.as_uri() + hash)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.wrong.append(request.url)

    def __enter__(self) -> Open:
        return self

    def __exit__(self, *rest: Any) -> None:
        self.context.close()
        assert self.wrong == []

    def listed(self) -> list[str]:
        told: list[str] = self.tab.eval_on_selector_all(
            ".list tbody tr", "rows => rows.map(row => row.dataset.model)"
        )
        return told

    def plotted(self) -> dict[str, tuple[float, float]]:
        """Where each point stands: x and y of its mark, in units of the drawing."""
        told = self.tab.eval_on_selector_all(
            "#chart g.point",
            "points => points.map(p => { const box = p.querySelector('.dot').getBBox();"
            " return [p.dataset.model, box.x + box.width / 2, box.y + box.height / 2]; })",
        )
        return {name: (x, y) for name, x, y in told}

    def cell(self, name: str, label: str) -> str:
        found = self.tab.locator(f'.list tr[data-model="{name}"] td[data-label="{label}"]')
        return str(found.inner_text())


def test_the_committed_page_asks_and_answers(browser: Any) -> None:
    zoo = gather(ROOT / "results")
    with Open(browser, ROOT / "docs/zoo.html") as shown:
        assert 3 < len(shown.listed()) < len(zoo["models"])
        shown.tab.select_option("#soc", "rk3566")
        shown.tab.fill("#fps", "30")
        assert shown.listed()[0] == "yolov6n"
        assert "yolov6n" in shown.tab.inner_text("#answer")
        assert "yolov6n" in shown.tab.inner_text(".list tr.chosen")
        shown.tab.select_option("#task", "")
        shown.tab.fill("#fps", "")
        shown.tab.check("#all")
        assert len(shown.listed()) == len(zoo["models"])
        assert len(shown.plotted()) > 15
        cells = shown.tab.locator("#grid tbody button").count()
        assert cells == len(zoo["models"]) * len(zoo["chips"])


def test_what_is_asked_stands_in_the_address(browser: Any, sample: Path) -> None:
    with Open(browser, sample) as shown:
        everything = shown.listed()
        assert everything == ["yolov9t", "yolov8n", "yolox-nano"], "by accuracy"
        shown.tab.fill("#mem", "16")
        shown.tab.fill("#fps", "40")
        assert shown.listed() == ["yolov8n", "yolox-nano"]
        assert "1 slower" in shown.tab.inner_text("#lists > p")
        shown.tab.select_option("#soc", "rv1103")
        assert shown.listed() == ["yolox-nano"], "the other was refused by this chip"
        address = shown.tab.url
        assert {"soc=rv1103", "mem=16", "fps=40"} <= set(address.split("#")[1].split("&"))
        shown.tab.click("text=Reset")
        assert shown.listed() == everything
        assert "#" not in shown.tab.url
        # As a bookmark, and as a link that is followed on the page itself.
        shown.tab.evaluate("hash => { location.hash = hash; }", address.split("#")[1])
        shown.tab.wait_for_function("document.querySelectorAll('.list tbody tr').length === 1")
    with Open(browser, sample, "#" + address.split("#")[1]) as again:
        assert again.listed() == ["yolox-nano"]


def test_text_of_results_stays_text(browser: Any, sample: Path) -> None:
    with Open(browser, sample, "#soc=rv1103&q=yolov8n") as shown:
        assert EVIL in shown.cell("yolov8n", "Model")
        assert shown.tab.title() != "caught"


def test_support_is_told_in_words(browser: Any, sample: Path) -> None:
    with Open(browser, sample) as shown:
        assert "accuracy measured (simulator)" in shown.cell("yolov8n", "Model")
        assert "INT8 costs 2.00 points." in shown.cell("yolov9t", "Model")
        assert "128 pictures" in shown.cell("yolov9t", "Measured here")
        assert "40.0 to 62.5" in shown.cell("yolov8n", "INT8 frames/s")
        assert "37.3" in shown.cell("yolov8n", "By its makers")


def test_columns_sort_by_a_click(browser: Any, sample: Path) -> None:
    with Open(browser, sample) as shown:
        for wanted in (["yolox-nano", "yolov8n", "yolov9t"], ["yolov9t", "yolov8n", "yolox-nano"]):
            shown.tab.click(".list thead >> text=Memory")
            assert shown.listed() == wanted
        assert shown.tab.get_attribute(".list th[aria-sort]", "aria-sort") == "descending"


def test_the_plot_stands_where_the_figures_say(browser: Any, sample: Path) -> None:
    with Open(browser, sample, "#fps=40") as shown:
        points = shown.plotted()
        assert set(points) == {"yolov8n", "yolox-nano", "yolov9t"}, "what is slower, too"
        (v8x, v8y), (xx, xy), (v9x, v9y) = (points[n] for n in ("yolov8n", "yolox-nano", "yolov9t"))
        # 25, 50 and 100 frames a second: equal steps on a logarithmic axis. The makers publish
        # 37.3, 25.8 and 38.3.
        assert v8x - v9x == pytest.approx(xx - v8x, abs=0.5)
        assert (xy - v8y) / (v8y - v9y) == pytest.approx(11.5 / 1.0, rel=0.01)
        assert shown.tab.locator("g.point line.spread").count() == 3, "an estimate has an interval"
        assert shown.tab.locator("g.point.off").count() == 1, "the slower one stands back"
        shown.tab.hover('g.point[data-model="yolov8n"] .dot')
        told = shown.tab.inner_text("#told")
        assert "37.3 mAP50-95, float, as its makers publish it (COCO val2017)" in told
        assert "50.0 frames/s, estimated, 40.0 to 62.5" in told


def test_the_plot_is_reached_by_keyboard_and_by_finger(browser: Any, sample: Path) -> None:
    with Open(browser, sample, has_touch=True) as shown:
        shown.tab.focus('g.point[data-model="yolox-nano"]')
        assert "yolox-nano" in shown.tab.inner_text("#told")
        shown.tab.tap('g.point[data-model="yolov9t"] .dot')
        assert "yolov9t" in shown.tab.inner_text("#told")
        label = shown.tab.get_attribute('g.point[data-model="yolov9t"]', "aria-label")
        assert label == "yolov9t: 38.3 mAP50-95, 25.0 frames a second, estimated"


def test_the_command_is_copied(browser: Any, sample: Path) -> None:
    how = {"permissions": ["clipboard-read", "clipboard-write"]}
    with Open(browser, sample, "#q=yolov8n", **how) as shown:
        button = shown.tab.locator('.list tr[data-model="yolov8n"] .command button')
        button.click()
        shown.tab.wait_for_selector("text=copied")
        copied = shown.tab.evaluate("navigator.clipboard.readText()")
        assert copied == "rkzoo convert yolov8n --soc rk3588 --calib photos/"
        assert copied in shown.cell("yolov8n", "Command")


def test_a_cell_of_the_grid_leads_to_its_model_and_chip(browser: Any, sample: Path) -> None:
    with Open(browser, sample) as shown:
        shown.tab.click("summary")
        shown.tab.click('#grid button[aria-label^="yolov9t: rv1103"]')
        assert shown.listed() == ["yolov9t"]
        assert "soc=rv1103" in shown.tab.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 375, 1280])
def test_no_width_needs_scrolling_sideways(
    browser: Any, sample: Path, scheme: str, width: int
) -> None:
    how: dict[str, Any] = {"viewport": {"width": width, "height": 740}, "color_scheme": scheme}
    for path in (sample, ROOT / "docs/zoo.html"):
        with Open(browser, path, "#task=&all=1", **how) as shown:
            assert shown.tab.evaluate("document.documentElement.scrollWidth") <= width
            ground = shown.tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
            box = shown.tab.locator('.list tr[data-model="yolov8n"]').bounding_box()
            assert box["width"] > 300
            named = "getComputedStyle(document.querySelector('.list td'), '::before').content"
            assert ("Model" in shown.tab.evaluate(named)) == (width < 500)
