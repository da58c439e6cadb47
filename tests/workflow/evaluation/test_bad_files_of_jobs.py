"""One file that cannot be used does not end a job; a fault of rkzoo's or the toolkit's does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.progress import Failure, readable
from rkzoo.workflow.evaluation.jobs import answered


def test_a_bad_file_is_told_in_its_place(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "gone", "bad", "b")]
    for path in paths:
        if path.name != "gone":
            path.write_bytes(path.name.encode())

    def answer(data: bytes, path: Path) -> dict[str, np.ndarray]:
        if data == b"bad":
            raise RkzooError(f"{path} is cut short.", "It ends early.", "Copy it again.")
        return {"x": np.frombuffer(data, np.uint8)}

    ((index, records),) = answered(answer, [(7, paths)])
    assert index == 7
    assert [isinstance(record, Failure) for record in records] == [False, True, True, False]
    assert records[2] == Failure(str(paths[2]), f"{paths[2]} is cut short. It ends early.")


def test_a_fault_of_the_toolkits_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")

    def answer(data: bytes, path: Path) -> dict[str, np.ndarray]:
        raise RkzooError("The toolkit died.", code=1)

    with pytest.raises(RkzooError, match="toolkit died"):
        list(answered(answer, [(0, [tmp_path / "a"])]))


class Told:
    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.failed = self.failures.append


def number(text: str) -> int:
    if not text.isdigit():
        raise RkzooError(f"{text} is no number.", "", "Give a number.")
    return int(text)


def test_what_can_be_read_comes_in_order() -> None:
    told = Told()
    assert list(readable(["1", "x", "2"], number, str, told)) == [("1", 1), ("2", 2)]
    assert told.failures == [Failure("x", "x is no number.")]


@pytest.mark.parametrize(("given", "words"), [(["x"], "x is no"), (["x", "y"], "None of the 2")])
def test_none_at_all_is_an_error(given: list[str], words: str) -> None:
    with pytest.raises(RkzooError, match=words):
        list(readable(given, number, str, Told()))
