"""Progress where stderr is no terminal: something is said at least every few seconds."""

from __future__ import annotations

import re
import time

import pytest

from rkzoo.cli import console


def test_a_long_task_says_where_it_is(monkeypatch, capsys):
    monkeypatch.setattr(console, "STILL_SECONDS", 0.05)
    with console.ProgressBars().task("Building for rk3588", 100) as task:
        time.sleep(0.2)
        task.update(43, 100)
        time.sleep(0.3)
    first, *between, last = capsys.readouterr().err.splitlines()
    assert first == "Building for rk3588 …"
    assert between[0] == "Building for rk3588: 0 s so far"
    assert re.fullmatch(r"Building for rk3588: 43%, \d+ s so far", between[-1])
    assert "done in" in last
    time.sleep(0.2)
    assert capsys.readouterr().err == "", "nothing is said after its end"


def test_a_short_task_says_nothing_between(capsys):
    with console.ProgressBars().task("Reading"):
        pass
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_task_that_fails_says_nothing_more(monkeypatch, capsys):
    monkeypatch.setattr(console, "STILL_SECONDS", 0.05)
    with pytest.raises(ValueError, match="x"), console.ProgressBars().task("Reading"):
        raise ValueError("x")
    time.sleep(0.2)
    assert len(capsys.readouterr().err.splitlines()) == 1
