"""The page for choosing: its data is that of cards and results, and nothing in it is made up."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.cli import convert
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.soc.chips import supported
from rkzoo.workflow.reporting.results import AccuracyRow, Support, SupportTrial, read_support
from rkzoo.workflow.reporting.zoo import (
    TASKS,
    Figures,
    Independent,
    IndependentSource,
    IndependentSpeed,
    Published,
    Speed,
    ZooEntry,
    command,
    entry,
    gather,
    on_chip,
    page,
    read_figures,
    read_published,
    tier_of,
    zoo_entries,
)
from rkzoo.workflow.request.quantization import QuantizationConfig
from rkzoo.zoo.catalogue import card, cards

ROOT = Path(__file__).parents[3]
BUILT = SupportTrial(
    dtype="int8", converts=True, bytes=10, weights=3, internal=4, ms=20.0, low=16.0, high=25.0
)
PUBLISHED = Published(
    source="a table",
    speeds=(
        Speed(file="yolov8n", shape=(1, 3, 640, 640), dtype="int8", fps={"rk3588": 73.5}),
        Speed(file="Some_Net-12", shape=(1, 3, 224, 224), dtype="fp16", fps={"rk3568": 7}),
    ),
)
TABLE = Figures(
    PUBLISHED,
    Independent(
        sources=(
            IndependentSource(
                by="somebody",
                url="https://example.org/speeds",
                covers="the run",
                figures=(
                    IndependentSpeed(
                        file="yolov8n", shape=(1, 3, 640, 640), dtype="int8", ms={"rk3566": 50.0}
                    ),
                ),
            ),
        )
    ),
)


def measured(**changed: object) -> AccuracyRow:
    values: dict = {
        "model": "yolov8n",
        "sha256": "aa",
        "dataset": "coco",
        "truth": "known",
        "images": 128,
        "protocol": "as run",
        "metric": "mAP50-95",
        "unit": "",
        "original": 0.41,
        "int8": 0.35,
        "int8_drop": 6.0,
        "tuned": 0.405,
        "tuned_drop": 0.5,
        "how": QuantizationConfig("logits"),
        "change": "scores leave as logits",
        "calibration": "20 pictures",
        "runtime": "simulator",
        "toolkit": "2.5.0",
        "rkzoo": "0.1.0",
        "date": "2026-11-22",
    }
    return AccuracyRow(**(values | changed))


def tried(name: str = "yolov8n", *, trial: SupportTrial = BUILT, **said: object) -> Support:
    values: dict = {"task": "detect", "weights": "another export", "sha256": "aa"}
    chips = dict.fromkeys(supported(), trial)
    return Support(model=name, **(values | {"size": (640, 640), "chips": chips} | said))


def model(
    name: str = "yolov8n", support: Support | None = None, row: AccuracyRow | None = None
) -> ZooEntry:
    return ZooEntry(name, card(name), support, row)


def data_in(html: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return json.loads(text)


# ---- the committed page -------------------------------------------------------------


def test_the_page_in_the_repository_is_that_of_the_results() -> None:
    made = page(gather(ROOT / "results"))
    same = (ROOT / "docs/zoo.html").read_text("utf-8") == made
    assert same, "docs/zoo.html is not that of the results; write it again: rkzoo report zoo"


def test_every_card_is_there_on_every_chip() -> None:
    zoo = gather(ROOT / "results")
    names = {one["name"] for one in zoo["models"]}
    parts = {part for one in cards() for part in one.pipeline.values()}
    # A detector is of use by itself, too.
    parts -= {one.name for one in cards() if one.task in ("detect", "face")}
    whole = {one.name for one in cards() if one.task != "asset" and not one.cpu} - parts
    assert names == whole
    folded = {part["name"] for one in zoo["models"] for part in one["parts"]}
    assert {row.model for row in read_support(ROOT / "results/support.yaml")} <= names | folded
    assert {one["task"] for one in zoo["models"]} <= set(TASKS), "each task has its words"
    assert all(list(one["on"]) == list(supported()) for one in zoo["models"])


def test_every_speed_says_whose_it_is_and_is_found_in_the_results() -> None:
    told = {fps for one in read_published(ROOT / "results/published.yaml").speeds
            for fps in one.fps.values()}  # fmt: skip
    rows = {row.model: row for row in read_support(ROOT / "results/support.yaml")}
    sources = set()
    for one in gather(ROOT / "results")["models"]:
        for soc, on in one["on"].items():
            for dtype, speed in (on.get("speeds") or {}).items():
                sources.add(speed["source"])
                if speed["source"] == "published":
                    assert speed["fps"] in told
                    continue
                row = rows[one["name"]]
                trials = [row.chips.get(soc), row.half.get(soc)]
                (trial,) = [trial for trial in trials if trial and trial.dtype == dtype]
                ms = trial.ms or trial.bound
                assert speed["fps"] == pytest.approx(1000 / ms, abs=0.06)
    assert sources == {"published", "estimate", "bound"}


def test_the_page_reaches_for_nothing_outside() -> None:
    html = page({"models": []})
    assert "default-src 'none'" in html
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)
    assert "innerHTML" not in html


# ---- tiers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("support", "row", "tier", "why"),
    [
        (None, None, "untried", ""),
        (tried(chips={}, untried="far away"), None, "untried", "far away"),
        (tried(problem="It is broken."), None, "blocked", "It is broken."),
        (tried(trial=SupportTrial(converts=False, why="No.")), None, "blocked", "No."),
        (tried(), None, "converts", "not measured"),
        (tried(), measured(int8_drop=0.5), "simulator", ""),
        (tried(), measured(int8_drop=0.5, runtime="board"), "board", ""),
        (tried(), measured(int8_drop=1.01), "converts", "1.01 points"),
        (tried(), measured(sha256="bb"), "converts", "another file"),
        (tried(trial=msgspec.structs.replace(BUILT, dtype="fp16")), measured(), "converts", "fp16"),
    ],
)
def test_a_tier_is_no_better_than_what_was_shown(
    support: Support | None, row: AccuracyRow | None, tier: str, why: str
) -> None:
    trial = support.chips.get("rk3588") if support else None
    found, told = tier_of(model(support=support, row=row), "rk3588", trial)
    assert found == tier
    assert why in told
    assert bool(why) == bool(told)


def test_a_model_that_does_not_fit_into_the_chip_is_blocked() -> None:
    big = msgspec.structs.replace(BUILT, weights=60 << 20, internal=20 << 20, fits="no")
    found = on_chip(model(support=tried(trial=big)), "rv1103", Figures())
    assert found["tier"] == "blocked"
    assert found["why"] == "It needs 80 MB of the 64 MB inside."
    assert found["need"] == 80 << 20
    assert "command" not in found


def test_what_a_chip_cannot_compute_is_blocked_untried() -> None:
    found = on_chip(model("ppocr-v4-rec"), "rv1106", Figures())
    assert found["tier"] == "blocked"
    assert "fp16" in found["why"]
    assert on_chip(model("yolo-world-v2-s"), "rv1106", Figures())["tier"] == "blocked"


def test_a_pipeline_is_as_good_as_the_worst_of_its_parts() -> None:
    parts = ("ppocr-v4-det", "ppocr-v4-cls", "ppocr-v4-rec")
    support = {name: tried(name) for name in parts}
    found = {one.name: one for one in zoo_entries(cards(), support, {})}["ppocr"]
    whole = on_chip(found, "rk3588", Figures())
    assert (whole["tier"], whole["bytes"], whole["need"]) == ("converts", 30, 21)
    assert whole["command"] == "rkzoo convert ppocr --soc rk3588"
    support.pop("ppocr-v4-cls")
    found = {one.name: one for one in zoo_entries(cards(), support, {})}["ppocr"]
    whole = on_chip(found, "rk3588", Figures())
    assert (whole["tier"], whole["bytes"]) == ("untried", None)
    assert on_chip(found, "rv1106", Figures())["tier"] == "blocked"


# ---- speeds -------------------------------------------------------------------------


def test_the_vendor_speaks_first_then_the_estimate_then_nobody() -> None:
    one = model(support=tried())
    interval = {"fps": 50.0, "low": 40.0, "high": 62.5}
    published = {"fps": 73.5, "source": "published", "by": "Rockchip"}
    assert on_chip(one, "rk3588", TABLE)["speeds"] == {"int8": published | {"estimate": interval}}
    estimate = {**interval, "source": "estimate", "without": 0}
    assert on_chip(one, "rk3576", TABLE)["speeds"] == {"int8": estimate}
    bare = msgspec.structs.replace(BUILT, ms=None, low=None, high=None)
    assert on_chip(model(support=tried(trial=bare)), "rk3576", TABLE)["speeds"] == {}
    half = msgspec.structs.replace(bare, dtype="fp16", bound=10.0)
    both = tried(half={"rk3576": half})
    assert on_chip(model(support=both), "rk3576", TABLE)["speeds"] == {
        "int8": estimate,
        "fp16": {"fps": 100.0, "source": "bound", "without": 0},
    }


def test_what_others_measured_stands_beside_the_estimate_on_the_chip_and_its_family() -> None:
    row = tried(trial=BUILT)
    row = msgspec.structs.replace(row, chips=row.chips | {"rk3568": BUILT})
    found = on_chip(model(support=row), "rk3568", TABLE)["speeds"]["int8"]
    others = [{"fps": 20.0, "by": "somebody", "url": "https://example.org/speeds"}]
    assert (found["source"], found["fps"], found["others"]) == ("estimate", 50.0, others)
    assert "others" not in on_chip(model(support=row), "rk3576", TABLE)["speeds"]["int8"]


def test_independent_figures_name_their_source_and_models_that_the_vendor_names() -> None:
    known = {one.file for one in read_published(ROOT / "results/published.yaml").speeds}
    tables = read_figures(ROOT / "results").independent
    assert len(tables.sources) >= 4
    for source in tables.sources:
        assert source.url.startswith("https://")
        assert source.covers
        assert {one.file for one in source.figures} <= known
        assert all(set(one.ms) <= set(supported()) for one in source.figures)


def test_what_rockchip_publishes_a_speed_of_is_not_untried() -> None:
    found = on_chip(model(), "rk3588", TABLE)
    assert (found["tier"], found["why"]) == ("vendor", "Rockchip publishes its speed.")
    assert on_chip(model(), "rk3576", TABLE)["tier"] == "untried"


def test_a_published_speed_is_that_of_the_same_name_size_and_dtype() -> None:
    assert PUBLISHED.fps("yolov8n", (640, 640), "int8", "rk3588") == 73.5
    assert PUBLISHED.fps("yolov8n", (416, 416), "int8", "rk3588") is None
    assert PUBLISHED.fps("yolov8n", (640, 640), "fp16", "rk3588") is None
    assert PUBLISHED.fps("yolov8", (640, 640), "int8", "rk3588") is None
    assert PUBLISHED.fps("yolov8n", None, "int8", "rk3588") is None
    assert PUBLISHED.fps("some-net", (224, 224), "fp16", "rk3568") == 7
    assert PUBLISHED.fps("some", (224, 224), "fp16", "rk3568") is None


# ---- commands -----------------------------------------------------------------------


def test_the_command_is_one_that_convert_takes() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    convert.add(parser.add_subparsers())
    zoo = gather(ROOT / "results")
    told = [on["command"] for m in zoo["models"] for on in m["on"].values() if on.get("command")]
    assert len(told) > 100
    for words in map(shlex.split, told):
        args = parser.parse_args(words[1:])
        assert args.model
        assert set(args.soc) <= set(supported())


def test_the_command_says_what_is_not_the_default() -> None:
    assert (
        command(model(), "rk3588", "int8") == "rkzoo convert yolov8n --soc rk3588 --calib photos/"
    )
    assert command(model(), "rk2118", "fp16") == "rkzoo convert yolov8n --soc rk2118 --dtype fp16"
    assert command(model("yolo12n"), "rk3588", "int8").startswith("rkzoo convert yolo12n.onnx ")
    assert command(model("ppocr-v4-det"), "rk3588", "int8").endswith("--soc rk3588")
    assert "--prompt" in command(model("yolo-world-v2-s"), "rk3588", "int8")
    assert command(model("clip-text"), "rk3588", "fp16") == ""
    bare = ZooEntry("net", None, tried("net", weights="no card", file="mine.onnx"), None)
    assert command(bare, "rk3588", "int8").startswith("rkzoo convert mine.onnx ")


# ---- the file -----------------------------------------------------------------------


@given(st.text() | st.sampled_from(["</script>", "<!--", "]]>", "\u2028", "&lt;"]))
def test_no_text_gets_out_of_its_script(text: str) -> None:
    html = page({"name": text})
    assert data_in(html) == {"name": text}
    (told,) = re.findall(r'id="data">(.*)</script>\n<script id="logic">', html, re.S)
    assert not set("<>&") & set(told)


def test_the_data_comes_back_from_the_page() -> None:
    one = entry(model(support=tried(), row=measured()), TABLE)
    zoo = {"models": [one | {"title": "</script><b>"}], "chips": []}
    back = data_in(page(zoo))
    assert back == json.loads(json.dumps(zoo))
    assert back["models"][0]["accuracy"]["value"] == 0.35
    assert back["models"][0]["upstream"]["value"] == 37.3


def test_broken_tables_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "published.yaml").write_text("speeds: [{file: x}]")
    with pytest.raises(RkzooError, match="not a table of speeds"):
        gather(tmp_path)


def test_the_page_is_written_without_any_result(tmp_path: Path) -> None:
    out = tmp_path / "zoo.html"
    assert main(["report", "zoo", "--results", str(tmp_path), "--page", str(out)]) == 0
    zoo = data_in(out.read_text("utf-8"))
    tiers = {on["tier"] for one in zoo["models"] for on in one["on"].values()}
    assert tiers == {"untried", "blocked"}
    assert not any(on.get("speeds") for one in zoo["models"] for on in one["on"].values())


# ---- the accuracy shown is that of the command shown ---------------------------------


def shown(name: str, **changed: object) -> dict:
    row = measured(model=name, **changed)
    found: dict = entry(ZooEntry(name, card(name), tried(name), row), Figures())
    return found


def test_a_card_with_a_recipe_shows_what_it_gives() -> None:
    found = shown("yolo11n")["accuracy"]
    assert (found["value"], found["drop"], found["plain"]) == (0.405, 0.5, 0.35)
    assert found["recipe"].startswith("scores as logits")


def test_a_card_without_a_recipe_shows_what_convert_does() -> None:
    found = shown("yolov8n", int8=0.35, int8_drop=6.0)["accuracy"]
    assert (found["value"], found["drop"], found["recipe"]) == (0.35, 6.0, "")


def test_layers_in_float16_count_for_the_file_they_were_found_with_alone() -> None:
    # The card's own file is another than the one measured: its command leaves the layers out.
    known = shown("yolox-nano", portable=0.39, portable_drop=2.0, cost=1.5)
    assert known["accuracy"]["value"] == 0.39
    assert known["accuracy"]["cost"] is None
    assert "--plain" not in known["on"]["rk3588"]["command"]
    unknown = shown("yolox-nano")
    assert unknown["accuracy"]["value"] == 0.35
    assert unknown["on"]["rk3588"]["command"].endswith(" --plain")
    (own,) = {source.sha256 for source in card("yolox-nano").sources}
    mine = shown("yolox-nano", sha256=own, cost=1.5)
    assert (mine["accuracy"]["value"], mine["accuracy"]["cost"]) == (0.405, 1.5)


def test_info_and_the_page_tell_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    zoo = {one["name"]: one for one in gather(ROOT / "results")["models"]}
    for name in ("yolo11n", "lprnet", "mobilenetv2"):
        assert main(["info", name, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["accuracy"] == zoo[name]["accuracy"]
        assert told["chips"] == json.loads(json.dumps(zoo[name]["on"]))
        assert main(["info", name]) == 0
        text = " ".join(capsys.readouterr().out.split())
        value, unit = zoo[name]["accuracy"]["value"], zoo[name]["accuracy"]["unit"]
        assert f"INT8 {value * (1 if unit else 100):.1f}" in text
        assert "accuracy measured" not in text


# ---- the page's logic, in node ------------------------------------------------------


def logic(script: str) -> object:
    """What a script says that may use the functions of the page's logic."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    html = page({"models": []})
    (text,) = re.findall(r'<script id="logic">(.*?)</script>', html, re.S)
    asked = f"{text}\nconsole.log(JSON.stringify({script}));"
    told = subprocess.run(
        [node], input=asked, capture_output=True, text=True, check=True, timeout=30
    )
    return json.loads(told.stdout)


def answer(**want: str) -> str:
    zoo = json.dumps(gather(ROOT / "results"))
    found = logic(f"best(chosen({zoo}, {{...USUAL, ...{json.dumps(want)}}}).rows).m.name")
    assert isinstance(found, str)
    return found


def best_by_hand(soc: str, fps: float, memory: float = 0) -> str:
    """The most accurate detector that is fast enough, looked up in cards and results by a loop."""
    found = []
    support = {row.model: row for row in read_support(ROOT / "results/support.yaml")}
    published = read_published(ROOT / "results/published.yaml")
    for one in cards():
        if one.task != "detect" or one.upstream is None or one.input is None:
            continue
        trial = support[one.name].chips.get(soc)
        speed = published.fps(one.name, one.input.size, "int8", soc)
        speed = speed or (1000 / trial.ms if trial and trial.ms else 0)
        need = trial.weights + trial.internal if trial and trial.weights else None
        if speed >= fps and (not memory or (need is not None and need <= memory * 2**20)):
            found.append((one.upstream.value, one.name))
    return max(found)[1]


@pytest.mark.parametrize("soc", ["rk3588", "rk3576", "rk3566", "rk3562"])
@pytest.mark.parametrize("fps", [10, 30, 60])
def test_the_best_detector_at_a_speed_is_found(soc: str, fps: int) -> None:
    assert answer(soc=soc, fps=str(fps)) == best_by_hand(soc, fps)


def test_the_best_detector_that_fits_is_found() -> None:
    assert answer(soc="rk3588", fps="30", mem="10") == best_by_hand("rk3588", 30, 10)


MODELS = """
const model = (name, value, on, more) => ({
  name, title: "", summary: "", task: "detect", parts: [], accuracy: null,
  upstream: value && { value, unit: "%", metric: "mAP50-95" }, on: { a: on }, ...more });
const fps = (n, source) => ({ int8: { fps: n, source: source || "published" } });
const zoo = { tiers: ["board", "simulator", "converts", "vendor", "untried", "blocked"], models: [
  model("slow", 50, { tier: "vendor", speeds: fps(10) }),
  model("fast", 30, { tier: "converts", speeds: fps(90), need: 5 * MB, bytes: 9 }),
  model("good", 40, { tier: "vendor", speeds: fps(40) }),
  model("large", 45, { tier: "converts", speeds: fps(35), need: 50 * MB, bytes: 1 }),
  model("bound", 60, { tier: "converts", speeds: fps(99, "bound") }),
  model("mute", 55, { tier: "simulator", speeds: {} }),
  model("untried", 70, { tier: "untried", speeds: {} }),
  model("blocked", 80, { tier: "blocked" }),
  model("other", 90, { tier: "converts", speeds: fps(50) }, { task: "pose" })] };
const ask = want => { const { rows, left } = chosen(zoo, { ...USUAL, soc: "a", ...want });
  return { names: rows.map(r => r.m.name), left, best: best(rows)?.m.name ?? null }; };
"""


def ask(want: str) -> dict:
    found = logic(f"(() => {{ {MODELS} return ask({want}); }})()")
    assert isinstance(found, dict)
    return found


def test_the_most_accurate_that_is_fast_enough_comes_first() -> None:
    found = ask('{fps: "30"}')
    assert found["names"] == ["large", "good", "fast"]
    assert found["best"] == "large"
    assert found["left"] == {"slower": 1, "speed unknown": 2, "untried": 1, "blocked": 1}
    found = ask('{fps: "30", mem: "10"}')
    assert found["names"] == ["fast"]
    assert found["left"]["larger"] == 1
    assert found["left"]["memory unknown"] == 1


def test_what_was_not_tried_is_shown_when_asked_for() -> None:
    assert "untried" not in ask("{}")["names"]
    assert ask("{all: '1'}")["names"][-2:] == ["untried", "blocked"], "after those that run"
    assert ask("{q: 'untried'}")["names"] == ["untried"], "named, it is shown"
    assert "other" in ask("{task: ''}")["names"]


def test_columns_sort_and_the_unknown_comes_last_in_either_direction() -> None:
    assert ask("{sort: 'memory'}")["names"][:2] == ["fast", "large"]
    assert ask("{sort: '-memory'}")["names"][:2] == ["large", "fast"]
    assert ask("{sort: '-int8'}")["names"][:2] == ["bound", "fast"]
    assert ask("{sort: '-int8'}")["names"][-1] == "mute"
    assert ask("{sort: 'name'}")["names"] == sorted(ask("{}")["names"])


def test_a_bound_and_an_unknown_speed_are_no_points_of_the_chart() -> None:
    script = "pointsOf(chosen(zoo, { ...USUAL, soc: 'a' }).rows, 'mAP50-95')"
    found = logic(
        f"(() => {{ {MODELS} const points = {script};"
        " return [points.map(p => p.m.name).sort(), front(points).map(p => p.m.name)]; })()"
    )
    assert found == [["fast", "good", "large", "slow"], ["slow", "large", "good", "fast"]]


def test_the_address_says_what_is_asked_and_nonsense_is_left_out() -> None:
    assert logic("readState('#soc=rk3566&fps=30&mem=x&nonsense=1')") == {
        "soc": "rk3566", "task": "detect", "fps": "30", "mem": "", "all": "", "q": "",
        "metric": "", "sort": "use",
    }  # fmt: skip
    assert logic("writeState({...USUAL, fps: '30', q: 'a&b'})") == "#fps=30&q=a%26b"
    assert logic("writeState(USUAL)") == ""
