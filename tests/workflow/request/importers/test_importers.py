"""What is made of weights in another form is made once, and anew where the files change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from rkzoo.cli.console import ProgressBars
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


@pytest.mark.parametrize("damage", ["bytes", "cut", "folder", "more"])
def test_a_damaged_one_is_told_and_made_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))

    def copied(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
        target.write_bytes(files["model"].read_bytes())

    monkeypatch.setitem(makers.MAKERS, "copied", copied)
    source = tmp_path / "a"
    source.write_bytes(b"weights")
    made = make_model("copied", {"model": source})
    if damage == "folder":
        made.unlink()
        made.mkdir()
    elif damage == "more":
        made.with_name("model.onnx.data").write_bytes(b"x")
    else:
        made.write_bytes(b"w!ights" if damage == "bytes" else b"weigh")
    assert make_model("copied", {"model": source}, ProgressBars()).read_bytes() == b"weights"
    said = capsys.readouterr().err
    assert f"{made.parent} in rkzoo's cache was damaged; it is made again." in said
    assert str(source) not in said
    make_model("copied", {"model": source}, ProgressBars())
    assert capsys.readouterr().err == ""


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
