"""What is made of weights in another form is made once, and anew where the files change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from rkzoo.errors import RkzooError
from rkzoo.progress import ProgressReporter
from rkzoo.workflow.request.importers import registry as makers
from rkzoo.workflow.request.importers.registry import make_model


def test_made_once_and_anew_for_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    calls = []

    def joined(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
        calls.append(target)
        target.write_bytes(b"".join(path.read_bytes() for path in files.values()))

    monkeypatch.setitem(makers.MAKERS, "joined", joined)
    (tmp_path / "a").write_bytes(b"one")
    first = make_model("joined", {"model": tmp_path / "a"})
    assert (make_model("joined", {"model": tmp_path / "a"}), first.read_bytes()) == (first, b"one")
    assert len(calls) == 1
    (tmp_path / "a").write_bytes(b"two")
    assert make_model("joined", {"model": tmp_path / "a"}).read_bytes() == b"two"
    with pytest.raises(RkzooError, match="no maker called 'other'"):
        make_model("other", {})


def test_made_anew_for_other_code_and_other_wishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    code, source = tmp_path / "code.py", tmp_path / "a"
    source.write_bytes(b"one")

    def maker(
        files: Mapping[str, Path], target: Path, report: ProgressReporter, *, size: object
    ) -> None:
        target.write_bytes(code.read_bytes() + repr(size).encode())

    monkeypatch.setitem(makers.MAKERS, "maker", maker)
    monkeypatch.setattr(makers, "package_digest", code.read_text)
    code.write_text("1")
    first = make_model("maker", {"model": source}, size=(1, 2))
    assert first.read_bytes() == b"1(1, 2)"
    assert make_model("maker", {"model": source}, size=(2, 1)).read_bytes() == b"1(2, 1)"
    code.write_text("2")
    assert make_model("maker", {"model": source}, size=(1, 2)).read_bytes() == b"2(1, 2)"
    assert first.read_bytes() == b"1(1, 2)"
