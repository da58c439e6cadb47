"""`convert --dry-run`: everything before the build is settled and said, nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tiny_yolo import stock

from rkzoo.cli.main import main
from rkzoo.files import CACHE_TAG, IN_USE
from rkzoo.toolkit import environment, process


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and calibration pictures, where a build or an environment is a fault."""
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    onnx.save(stock(), tmp_path / "net.onnx")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        picture = np.full((40, 50, 3), 60 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"photos/{number}.png"), picture)

    def never(*args: object, **options: object) -> None:
        raise AssertionError("a dry run builds nothing")

    monkeypatch.setattr(environment, "ensure", never)
    monkeypatch.setattr(process.ToolkitProcess, "__init__", never)
    monkeypatch.setattr(environment, "unavailable", lambda version: None)
    return tmp_path


def _files(place: Path) -> set[Path]:
    """All but the two that mark a cache, and that it is in use."""
    marks = {CACHE_TAG, IN_USE}
    return {path for path in place.rglob("*") if path.is_file() and path.name not in marks}


def test_it_says_what_would_be_built_and_writes_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _files(place)
    words = ["convert", "net.onnx", "--soc", "rk3588", "rk3568", "--calib", "photos"]
    assert main([*words, "-o", "out", "--dry-run", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["would_build"]
    assert one["files"] == {
        "rk3588": "out/net-rk3588-int8.rknn",
        "rk3568": "out/net-rk3568-int8.rknn",
    }
    assert (one["dtype"], one["calibration"], one["toolkit"]) == ("int8", 3, "2.5.0")
    assert (one["installed"], one["proof"]["score"]) == (False, pytest.approx(0, abs=1e-4))
    assert one["head"].startswith("cut, equal to the whole")
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3 samples" in said
    assert "64x96" in said
    assert said.endswith("Nothing was built.\n")
    assert _files(place) == before


def test_sizes_and_batch_are_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", "net.onnx", "--soc", "rk3588", "--dtype", "fp16", "--dry-run"]
    for more, said, kept in (
        (["--sizes", "32x64"], "64x96, 32x64: all in one file", [[[64, 96], [32, 64]], 1]),
        (["--batch", "4"], "4 at once", [[[64, 96]], 4]),
    ):
        assert main([*words, *more]) == 0
        assert said in capsys.readouterr().out
        assert main([*words, *more, "--json"]) == 0
        (one,) = json.loads(capsys.readouterr().out)["would_build"]
        assert [one["sizes"], one["batch"]] == kept


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--soc", "rk3588"], "There are no calibration pictures"),
        (["--soc", "rk3599", "--calib", "photos"], "There is no chip called 'rk3599'"),
        (["--soc", "rk3588", "--calib", "photos", "-o", "a.txt"], "does not end in .rknn"),
        (["--soc", "rk3588", "--calib", "photos", "-o", "net.onnx/b"], "Nothing can be written"),
        (["--soc", "rk3588", "--dtype", "fp16", "--toolkit", "9.9"], "version '9.9'"),
    ],
)
def test_it_refuses_what_convert_would(
    words: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "net.onnx", *words, "--dry-run"]) == 2
    assert said in capsys.readouterr().err
