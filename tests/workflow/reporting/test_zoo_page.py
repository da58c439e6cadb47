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


def row(name: str, tuned: float, drop: float = 0.5) -> AccuracyRow:
    return AccuracyRow(
        model=name, sha256=name, dataset="coco", truth="known", images=128, protocol="as run",
        metric="mAP50-95", unit="", original=tuned + drop / 100, int8=tuned, int8_drop=drop,
        tuned=tuned, tuned_drop=drop, how=QuantizationConfig("logits"), change="none needed",
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
            "#list tbody tr", "rows => rows.map(row => row.dataset.model)"
        )
        return told

    def plotted(self) -> dict[str, tuple[float, float]]:
        """Where each point stands: x and y of its circle, in units of the drawing."""
        told = self.tab.eval_on_selector_all(
            "#chart g.point",
            "points => points.map(p => { const c = p.querySelector('circle');"
            " return [p.dataset.model, +c.getAttribute('cx'), +c.getAttribute('cy')]; })",
        )
        return {name: (x, y) for name, x, y in told}

    def cell(self, name: str, label: str) -> str:
        found = self.tab.locator(f'#list tr[data-model="{name}"] td[data-label="{label}"]')
        return str(found.inner_text())


def test_the_committed_page_shows_every_model(browser: Any) -> None:
    zoo = gather(ROOT / "results")
    with Open(browser, ROOT / "docs/zoo.html") as shown:
        assert len(shown.listed()) == len(zoo["models"])
        assert shown.tab.locator("#grid tbody button").count() == len(zoo["models"]) * len(
            zoo["chips"]
        )


def test_filters_narrow_the_list_and_stand_in_the_address(browser: Any, sample: Path) -> None:
    with Open(browser, sample) as shown:
        everything = shown.listed()
        shown.tab.select_option("#task", "detect")
        assert 3 < len(shown.listed()) < len(everything)
        shown.tab.select_option("#memory", "16")
        assert shown.listed() == ["yolov8n", "yolox-nano"]
        shown.tab.select_option("#chip", "rv1103")
        assert shown.listed() == ["yolox-nano"], "the other was refused by this chip"
        assert "memory=16" in shown.tab.url
        assert "chip=rv1103" in shown.tab.url
        address = shown.tab.url
        shown.tab.click("text=Reset")
        assert shown.listed() == everything
        assert "#" not in shown.tab.url
        # As a bookmark, and as a link that is followed on the page itself.
        shown.tab.evaluate("hash => { location.hash = hash; }", address.split("#")[1])
        shown.tab.wait_for_function("document.querySelectorAll('#list tbody tr').length === 1")
    with Open(browser, sample, "#" + address.split("#")[1]) as again:
        assert again.listed() == ["yolox-nano"]


def test_tiers_are_told_and_filtered(browser: Any, sample: Path) -> None:
    with Open(browser, sample) as shown:
        shown.tab.select_option("#tier", "simulator")
        assert shown.listed() == ["yolov8n", "yolox-nano"]
        assert shown.cell("yolov8n", "Support") == "validated in simulator"
        shown.tab.select_option("#tier", "converts")
        assert shown.listed() == ["yolov9t"]
        assert "INT8 costs 2.00 points." in shown.cell("yolov9t", "Support")
    with Open(browser, sample, "#chip=rv1103&tier=blocked&q=yolov8n") as shown:
        assert EVIL in shown.cell("yolov8n", "Support"), "text stays text"
        assert shown.tab.title() != "caught"


def test_columns_sort_and_the_unknown_comes_last(browser: Any, sample: Path) -> None:
    with Open(browser, sample, "#task=detect") as shown:
        for first, wanted in ((1, ["yolox-nano", "yolov8n", "yolov9t"]),
                              (2, ["yolov9t", "yolov8n", "yolox-nano"])):  # fmt: skip
            shown.tab.click("#list thead >> text=Memory")
            assert shown.listed()[:3] == wanted, f"click {first}"
        assert shown.tab.get_attribute("#list th[aria-sort]", "aria-sort") == "descending"


def test_the_plot_stands_where_the_figures_say(browser: Any, sample: Path) -> None:
    with Open(browser, sample) as shown:
        points = shown.plotted()
        assert set(points) == {"yolov8n", "yolox-nano", "yolov9t"}
        (v8x, v8y), (xx, xy), (v9x, v9y) = (points[n] for n in ("yolov8n", "yolox-nano", "yolov9t"))
        assert v9x < v8x < xx, "faster is further right"
        assert v9y < v8y < xy, "more accurate is higher"
        # 25, 50 and 100 frames a second: equal steps on a logarithmic axis; and a linear one.
        assert v8x - v9x == pytest.approx(xx - v8x, abs=0.5)
        assert (xy - v8y) / (v8y - v9y) == pytest.approx(0.17 / 0.02, rel=0.01)
        title = shown.tab.locator('g[data-model="yolov8n"] title').text_content()
        assert title == "yolov8n: 0.500, 50.0 frames/s (estimate)"
        assert shown.tab.locator("g.point line.spread").count() == 3, "an estimate has an interval"
        shown.tab.fill("#q", "yolox")
        assert set(shown.plotted()) == {"yolox-nano"}
        shown.tab.fill("#q", "ppocr")
        assert "No chosen model" in shown.tab.inner_text("#chart")


def test_the_command_is_copied(browser: Any, sample: Path) -> None:
    how = {"permissions": ["clipboard-read", "clipboard-write"]}
    with Open(browser, sample, "#q=yolov8n&tier=simulator", **how) as shown:
        shown.tab.click("#list .command button")
        shown.tab.wait_for_selector("text=copied")
        copied = shown.tab.evaluate("navigator.clipboard.readText()")
        assert copied == "rkzoo convert yolov8n --soc rk3588 --calib photos/"
        assert copied in shown.cell("yolov8n", "Command")


def test_a_cell_of_the_grid_leads_to_its_model_and_chip(browser: Any, sample: Path) -> None:
    with Open(browser, sample) as shown:
        shown.tab.click('#grid button[aria-label^="yolov9t: rv1103"]')
        assert shown.listed() == ["yolov9t"]
        assert "chip=rv1103" in shown.tab.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(browser: Any, sample: Path, scheme: str) -> None:
    how: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with Open(browser, sample, "#task=detect", **how) as shown:
        assert shown.tab.evaluate("document.documentElement.scrollWidth") <= 360
        ground = shown.tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        box = shown.tab.locator('#list tr[data-model="yolov8n"]').bounding_box()
        assert box["width"] > 300
        assert "Frames/s" in shown.tab.evaluate(
            "getComputedStyle(document.querySelector('td[data-label=\"Frames/s\"]'), '::before')"
            ".content"
        )
