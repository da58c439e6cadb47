"""A place that cannot take the .rknn is refused before anything that takes long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.workflow.compile import convert as module


@pytest.fixture
def nothing_done(monkeypatch):
    """Fails where the model is looked for."""

    def looked_for(*args, **options):
        raise AssertionError("the model is looked for before the place is checked")

    monkeypatch.setattr(module, "find_models", looked_for)


@pytest.mark.parametrize("tail", ["", "/x.rknn", "/folder/x.rknn"])
def test_a_device_or_a_file_as_a_folder(nothing_done, tmp_path, tail):
    (tmp_path / "file").write_text("")
    for place in ("/dev/full", str(tmp_path / "file")):
        with pytest.raises(RkzooError, match="Nothing can be written") as caught:
            rkzoo.convert("m.onnx", "rk3588", output=place + tail)
        assert f"{place} is no folder" in caught.value.why


def test_a_folder_that_may_not_be_written(nothing_done, tmp_path, monkeypatch):
    # Root may write anywhere, so the system's answer is played.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    for output in (tmp_path / "x.rknn", tmp_path / "new" / "x.rknn", tmp_path / "new"):
        with pytest.raises(RkzooError, match="Nothing can be written") as caught:
            rkzoo.convert("m.onnx", "rk3588", output=output)
        assert f"{tmp_path} is not writable" in caught.value.why
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RkzooError, match="Nothing can be written"):
        rkzoo.convert("m.onnx", "rk3588")
