"""docs/board.md is what page.py makes of the results."""

from __future__ import annotations

import yaml
from page import PAGE, RESULTS, page


def test_the_page_is_made_of_the_results() -> None:
    results = yaml.safe_load(RESULTS.read_text("utf-8"))
    assert PAGE.read_text("utf-8") == page(results)
    assert len(results["models"]) >= 20
