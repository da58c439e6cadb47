"""Outputs and folders: a device or a pipe is never replaced, a link stays one, what only looks like
a picture is told where it is read."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rkzoo import files
from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, files_in, temporary_folder, write_text
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


# ---- temporary folders --------------------------------------------------------------

HOLD = """
import sys
from rkzoo.files import temporary_folder
with temporary_folder() as folder:
    (folder / "s").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    """A process that has a temporary folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_folders_of_killed_processes_go_with_the_next_and_no_others(temporary: Path) -> None:
    gone, left = holder()
    alive, used = holder()
    gone.kill()
    gone.communicate()
    outside = temporary / "outside"
    outside.mkdir()
    link = temporary / f"{left.name[:-12]}{'0' * 12}"
    link.symlink_to(outside)
    not_ours = temporary / "rkzoo-0123456789ab"
    not_ours.mkdir()
    assert (left / "s").exists()
    with temporary_folder() as mine:
        assert mine.stat().st_mode & 0o777 == 0o700
        kept = {mine, used, outside, link, not_ours}
        assert set(temporary.iterdir()) == kept
        with temporary_folder():  # one's own is in use, too
            assert mine.exists()
    assert set(temporary.iterdir()) == kept - {mine}
    alive.communicate("")
    assert set(temporary.iterdir()) == kept - {mine, used}


def test_a_folder_of_another_user_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, left = holder()
    gone.kill()
    gone.communicate()
    monkeypatch.setattr(files.os, "geteuid", lambda: left.stat().st_uid + 1)
    with temporary_folder():
        assert left.exists()


def test_a_disk_that_locks_no_folders_is_not_swept(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    gone, left = holder()
    gone.kill()
    gone.communicate()

    def refuse(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with temporary_folder() as mine:
        assert mine.exists()
        assert left.exists()
    assert not mine.exists()
