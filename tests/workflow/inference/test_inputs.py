"""What people name, where a model is given texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkzoo.contract.audio import VoiceHead
from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.segmentation import PromptableSegmentHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.registry import validate_options
from rkzoo.workflow.inference.inputs import TEXT, TextSource
from rkzoo.workflow.request.request import Request


def test_texts_are_typed_or_lie_in_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    files = [tmp_path / "notes" / name for name in ("a.md", "b.txt")]
    for file in (*files, tmp_path / "notes" / "c.wav"):
        file.write_text("words")
    whole = [TextSource(path=file) for file in files]
    assert TEXT.expand([str(tmp_path / "notes")]) == whole
    assert TEXT.expand([str(tmp_path / "*" / "*.txt")]) == whole[1:]
    assert TEXT.expand([str(files[0]), "Is it so?", "x" * 5000]) == [
        whole[0],
        TextSource("Is it so?"),
        TextSource("x" * 5000),
    ]
    for name in ("notes/c.wav", "none.txt", "."):
        with pytest.raises(RkzooError, match="text"):
            TEXT.expand([str(tmp_path / name)])


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--translate", "translate"),
        ("--speed", "speed"),
        ("--point", "points"),
        ("--box", "boxes"),
    ],
)
def test_what_a_model_would_not_hear_is_refused(option: str, name: str) -> None:
    for head in (None, ClassifyHead(classes=2)):
        validate_options(head, set())
        with pytest.raises(RkzooError, match=option):
            validate_options(head, {name})
    validate_options(VoiceHead(rate=16000), Request(speed=2.0).given())
    validate_options(PromptableSegmentHead(), Request(points=[(1, 2)]).given())
    with pytest.raises(RkzooError, match="--iou"):
        validate_options(ClassifyHead(classes=2), Request(iou=0.5).given())
