"""What a comparison says in a sentence, from the figures of each runtime."""

from __future__ import annotations

import pytest

from rkzoo.errors import RkzooError
from rkzoo.workflow.comparison.compare import compare
from rkzoo.workflow.comparison.conclusions import NOTHING_FOUND, verdict_text
from rkzoo.workflow.comparison.result import RuntimeComparison
from rkzoo.workflow.request.request import Request


def ran(*counts: int | None, hurt: bool = False) -> list[RuntimeComparison]:
    return [
        RuntimeComparison("onnx", "onnx", counts),
        RuntimeComparison("fp16", "simulator", counts),
        RuntimeComparison("int8", "simulator", counts, hurt=hurt),
    ]


def test_things_that_all_find_are_worth_a_verdict() -> None:
    assert verdict_text(ran(2, 0), ()).startswith("Nothing is wrong:")


def test_where_nothing_was_found_nothing_is_right() -> None:
    told = verdict_text(ran(0, 0), ())
    assert told == NOTHING_FOUND
    assert "--image" in told


def test_outputs_that_differ_are_told_all_the_same() -> None:
    assert "INT8 does not answer as float does" in verdict_text(ran(0, hurt=True), ())


def test_models_whose_answers_are_not_counted() -> None:
    assert verdict_text(ran(None, None), ()).startswith("Nothing is wrong:")


@pytest.mark.parametrize(("soc", "dtype"), [("rk3588", "w4a16"), ("rv1106", "fp16")])
def test_a_chip_without_the_number_format_is_refused_before_any_work(soc: str, dtype: str) -> None:
    with pytest.raises(RkzooError, match=f"{soc} cannot be built for in {dtype}") as caught:
        compare("gone.onnx", soc=soc, request=Request(dtype=dtype))
    assert caught.value.fix.endswith("or --dtype int8.")
