"""Templates escape what they are given, miss nothing, and need jinja2 only when a page is made."""

from __future__ import annotations

import subprocess
import sys

import jinja2
import pytest

from rkzoo.errors import RkzooError
from rkzoo.html_template import render


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="found"):
        render("comparison.html")


def test_data_keeps_its_order_and_cannot_end_its_script() -> None:
    page = render("zoo.html", zoo={"b": "</script><b>&", "a": "ä"})
    assert r'{"b":"\u003c/script\u003e\u003cb\u003e\u0026","a":"ä"}' in page


def test_without_jinja2_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(RkzooError, match="jinja2 is not installed") as caught:
        render("zoo.html", zoo={})
    assert 'pip install "rkzoo[pc]"' in caught.value.fix


def test_jinja2_is_imported_when_a_page_is_made_and_not_before() -> None:
    code = """
import sys
import rkzoo.workflow.comparison.html_report, rkzoo.workflow.reporting.zoo
print("jinja2" in sys.modules)
rkzoo.workflow.reporting.zoo.page({})
print("jinja2" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
