"""The page for choosing: its data is that of cards and results, and nothing in it is made up."""

from __future__ import annotations

import argparse
import json
import re
import shlex
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
    Published,
    Speed,
    ZooEntry,
    command,
    entry,
    gather,
    on_chip,
    page,
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
TABLE = Published(
    source="a table",
    speeds=(
        Speed(file="yolov8n", shape=(1, 3, 640, 640), dtype="int8", fps={"rk3588": 73.5}),
        Speed(file="Some_Net-12", shape=(1, 3, 224, 224), dtype="fp16", fps={"rk3568": 7}),
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
    assert {one.name for one in cards() if one.task != "asset" and not one.cpu} <= names
    assert {row.model for row in read_support(ROOT / "results/support.yaml")} <= names
    assert all(list(one["on"]) == list(supported()) for one in zoo["models"])


def test_every_speed_says_whose_it_is_and_is_found_in_the_results() -> None:
    told = {fps for one in read_published(ROOT / "results/published.yaml").speeds
            for fps in one.fps.values()}  # fmt: skip
    rows = {row.model: row for row in read_support(ROOT / "results/support.yaml")}
    sources = set()
    for one in gather(ROOT / "results")["models"]:
        for soc, on in one["on"].items():
            speed = on.get("speed")
            if not speed:
                continue
            sources.add(speed["source"])
            if speed["source"] == "published":
                assert speed["fps"] in told
            else:
                ms = rows[one["name"]].chips[soc].ms
                assert speed["fps"] == pytest.approx(1000 / ms, abs=0.06)
    assert sources == {"published", "estimate"}


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
        (tried(), measured(), "simulator", ""),
        (tried(), measured(runtime="board"), "board", ""),
        (tried(), measured(tuned_drop=1.01), "converts", "1.01 points"),
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
    found = on_chip(model(support=tried(trial=big)), "rv1103", Published())
    assert found["tier"] == "blocked"
    assert found["why"] == "It needs 80 MB of the 64 MB inside."
    assert found["need"] == 80 << 20
    assert "command" not in found


def test_what_a_chip_cannot_compute_is_blocked_untried() -> None:
    found = on_chip(model("ppocr-v4-rec"), "rv1106", Published())
    assert found["tier"] == "blocked"
    assert "fp16" in found["why"]
    assert on_chip(model("yolo-world-v2-s"), "rv1106", Published())["tier"] == "blocked"


def test_a_pipeline_is_as_good_as_the_worst_of_its_parts() -> None:
    parts = ("ppocr-v4-det", "ppocr-v4-cls", "ppocr-v4-rec")
    support = {name: tried(name) for name in parts}
    found = {one.name: one for one in zoo_entries(cards(), support, {})}["ppocr"]
    whole = on_chip(found, "rk3588", Published())
    assert (whole["tier"], whole["bytes"], whole["need"]) == ("converts", 30, 21)
    assert whole["command"] == "rkzoo convert ppocr --soc rk3588"
    support.pop("ppocr-v4-cls")
    found = {one.name: one for one in zoo_entries(cards(), support, {})}["ppocr"]
    whole = on_chip(found, "rk3588", Published())
    assert (whole["tier"], whole["bytes"]) == ("untried", None)
    assert on_chip(found, "rv1106", Published())["tier"] == "blocked"


# ---- speeds -------------------------------------------------------------------------


def test_the_vendor_speaks_first_then_the_estimate_then_nobody() -> None:
    one = model(support=tried())
    assert on_chip(one, "rk3588", TABLE)["speed"] == {"fps": 73.5, "source": "published"}
    interval = {"fps": 50.0, "low": 40.0, "high": 62.5}
    estimate = {**interval, "source": "estimate", "without": 0}
    assert on_chip(one, "rk3576", TABLE)["speed"] == estimate
    bare = msgspec.structs.replace(BUILT, ms=None, low=None, high=None)
    assert on_chip(model(support=tried(trial=bare)), "rk3576", TABLE)["speed"] is None


def test_a_published_speed_is_that_of_the_same_name_size_and_dtype() -> None:
    assert TABLE.fps("yolov8n", (640, 640), "int8", "rk3588") == 73.5
    assert TABLE.fps("yolov8n", (416, 416), "int8", "rk3588") is None
    assert TABLE.fps("yolov8n", (640, 640), "fp16", "rk3588") is None
    assert TABLE.fps("yolov8", (640, 640), "int8", "rk3588") is None
    assert TABLE.fps("yolov8n", None, "int8", "rk3588") is None
    assert TABLE.fps("some-net", (224, 224), "fp16", "rk3568") == 7
    assert TABLE.fps("some", (224, 224), "fp16", "rk3568") is None


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
    (told,) = re.findall(r'id="data">(.*)</script>\n<script>', html, re.S)
    assert not set("<>&") & set(told)


def test_the_data_comes_back_from_the_page() -> None:
    one = entry(model(support=tried(), row=measured()), TABLE)
    zoo = {"models": [one | {"title": "</script><b>"}], "chips": []}
    back = data_in(page(zoo))
    assert back == json.loads(json.dumps(zoo))
    assert back["models"][0]["accuracy"]["value"] == 0.405


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
    assert not any(on.get("speed") for one in zoo["models"] for on in one["on"].values())


def test_layers_in_float_do_not_lend_their_accuracy_to_a_speed_they_do_not_have() -> None:
    slow = measured(how=QuantizationConfig(float_layers=("a",)), tuned=0.41, tuned_drop=0.1)
    found = entry(model(support=tried(), row=slow), Published())
    assert found["accuracy"]["value"] == slow.int8
    assert found["accuracy"]["hybrid"] == 0.41
    assert found["on"]["rk3588"]["tier"] == ("simulator" if slow.int8_drop <= 1 else "converts")
