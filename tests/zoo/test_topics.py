"""What rkzoo does not do is said with addresses, for chips that it knows."""

from __future__ import annotations

import json

import pytest

from rkzoo.cli.main import main
from rkzoo.soc.chips import chips
from rkzoo.zoo.topics import topic, topics


@pytest.mark.parametrize("name", topics())
def test_a_topic_names_known_chips_and_addresses(name: str) -> None:
    found = topic(name)
    named = {chip for way in found.ways for chip in way.chips}
    assert named | {row.chip for row in found.figures.rows} <= set(chips())
    assert all(way.get.startswith("https://") for way in found.ways if way.software != "none")


def test_info_tells_where_language_models_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "llm"]) == 0
    told = capsys.readouterr().out
    assert "does not convert or run language models" in told
    assert main(["info", "llm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["rows"][0]["chip"] == "rk3588"


def test_a_topic_is_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "llm", "hello"]) == 2
    assert "rkzoo info llm" in capsys.readouterr().err
