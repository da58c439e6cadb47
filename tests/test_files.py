"""Outputs and folders: a device or a pipe is never replaced, a link stays one, what only looks like
a picture is told where it is read."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, files_in, write_text
from rkzoo.json_values import json_text

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and links of POSIX")


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(RkzooError, match="a device or a pipe"), atomic_output(pipe) as temporary:
        temporary.write_text("lost")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert os.listdir(tmp_path) == ["pipe.json"]


def test_a_link_leads_to_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "real.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_what_looks_like_a_picture_is_listed_and_a_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "nowhere.JPG").symlink_to("gone")
    (tmp_path / "other.txt").write_bytes(b"")
    names = [path.name for path in files_in(tmp_path, {".jpg"})]
    assert names == ["a.jpg", "nowhere.JPG", "pipe.jpg", "self.jpg"]


def test_a_name_that_is_no_text_stays_valid_json() -> None:
    document = {"file": os.fsdecode(b"\xff\xfebad.jpg"), "text": "é"}
    text = json_text(document)
    text.encode()
    assert json.loads(text) == document
    assert json_text({"text": "é"}) == '{"text": "é"}'
