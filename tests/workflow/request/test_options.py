"""What a user says about a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.errors import RkzooError
from rkzoo.graph.families.anchors import YOLOV5
from rkzoo.workflow.request.options import parse_anchors


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.lists(st.floats(0.5, 2000).map(lambda x: round(x, 3)), min_size=2, max_size=24),
    between=st.sampled_from(["\n", ",", ", ", " ", "\r\n", ";", "\n\n"]),
)
def test_anchors_are_read_however_they_are_written(numbers: list[float], between: str) -> None:
    numbers = numbers[: len(numbers) // 2 * 2]
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    assert list(parse_anchors(between.join(map(str, numbers)))) == pairs
    assert list(parse_anchors(str([list(pair) for pair in pairs]))) == pairs


def test_a_file_of_anchors(tmp_path: Path) -> None:
    file = tmp_path / "anchors 锚.txt"
    file.write_text("".join(f"{n}\n" for level in YOLOV5 for pair in level for n in pair))
    assert parse_anchors(str(file)) == tuple(pair for level in YOLOV5 for pair in level)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "10,x", "nowhere.txt", "0,5", "-3,4", "nan,3", "1e9,2", "\0", "inf,1"]
)
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(RkzooError):
        parse_anchors(text)
