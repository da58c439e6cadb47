"""A place that cannot take the .rknn is refused before anything that takes long."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT
from rkzoo.workflow.compile import convert as module
from rkzoo.workflow.compile import room


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


def test_too_little_room_is_refused_and_a_large_need_told(tmp_path, monkeypatch):
    told = []
    report = SimpleNamespace(note=told.append, task=SILENT.task)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 10**9))
    room.check_room(tmp_path / "not" / "there", 10**6, report, "Pictures")
    assert told == []
    room.check_room(tmp_path, 4 * 10**9, report, "Pictures")
    assert told == [f"Pictures take 4.0 GB in {tmp_path}, of 5.0 GB free."]
    with pytest.raises(RkzooError, match="too little room") as caught:
        room.check_room(tmp_path, 6 * 10**9, report)
    assert caught.value.why == "At least 6.0 GB are needed, and 5.0 GB are free."
