"""Real speech through the real weights, by the command line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rkzoo.cli.main import main
from rkzoo.contract.audio import TransducerHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.registry import spec_of
from rkzoo.tasks.spec import TaskOptions, TaskParts

SENTENCE = (
    "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his gospel."
)


@pytest.mark.network
def test_whisper_writes_what_was_said(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = str(assets / "data/audio/speech_en.wav")
    assert main(["run", "whisper-base", sound, "-o", str(tmp_path / "a.srt")]) == 0
    text = (tmp_path / "a.srt").read_text()
    assert text.startswith("1\n00:00:0")
    assert text.endswith(f"\n{SENTENCE}\n\n")
    assert SENTENCE in capsys.readouterr().out


def test_several_transcripts_do_not_go_into_one_file(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(assets / "data/audio")
    assert main(["run", "whisper-base", folder, "-o", str(tmp_path / "a.srt")]) == 2
    assert "3 results do not fit" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_transducer_is_opened_by_its_roles(tmp_path: Path) -> None:
    vocabulary = tmp_path / "v.txt"
    vocabulary.write_text("<blk> 0\n▁A 1\n")
    parts = {role: (None, SimpleNamespace(name=role)) for role in ("joiner", "encoder", "decoder")}
    task_parts = TaskParts(TransducerHead(), parts, {"decoder.vocabulary": vocabulary})  # type: ignore[arg-type]
    task = spec_of(task_parts.head).open(task_parts, TaskOptions())
    assert task.encoder.name == "encoder"  # type: ignore[attr-defined]
    assert task.joiner.name == "joiner"  # type: ignore[attr-defined]
    assert task.pieces[1] == "▁A"  # type: ignore[attr-defined]
    vocabulary.write_bytes(b"\xff\xfe")
    with pytest.raises(RkzooError, match="not a vocabulary"):
        spec_of(task_parts.head).open(task_parts, TaskOptions())
