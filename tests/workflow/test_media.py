"""What people name, where a model is given texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkzoo.errors import RkzooError
from rkzoo.workflow.media import TEXT, Said


def test_texts_are_typed_or_lie_in_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    files = [tmp_path / "notes" / name for name in ("a.md", "b.txt")]
    for file in (*files, tmp_path / "notes" / "c.wav"):
        file.write_text("words")
    whole = [Said(path=file) for file in files]
    assert TEXT.expand([str(tmp_path / "notes")]) == whole
    assert TEXT.expand([str(tmp_path / "*" / "*.txt")]) == whole[1:]
    assert TEXT.expand([str(files[0]), "Is it so?", "x" * 5000]) == [
        whole[0],
        Said("Is it so?"),
        Said("x" * 5000),
    ]
    for name in ("notes/c.wav", "none.txt", "."):
        with pytest.raises(RkzooError, match="text"):
            TEXT.expand([str(tmp_path / name)])
