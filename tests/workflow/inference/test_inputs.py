"""What people name, where a model is given texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkzoo.contract.audio import VoiceHead
from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.segmentation import CutOutHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.registry import refuse_unheard
from rkzoo.tasks.spec import NOTHING, Wishes
from rkzoo.workflow.inference.inputs import TEXT, Said


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


@pytest.mark.parametrize(
    ("option", "wishes"),
    [
        ("--translate", Wishes(translate=True)),
        ("--speed", Wishes(speed=float("nan"))),
        ("--point", Wishes(points=((1, 2, 1),))),
        ("--box", Wishes(boxes=((1, 2, 3, 4),))),
    ],
)
def test_what_a_model_would_not_hear_is_refused(option: str, wishes: Wishes) -> None:
    for head in (None, ClassifyHead(classes=2)):
        refuse_unheard(head, NOTHING)
        with pytest.raises(RkzooError, match=option):
            refuse_unheard(head, wishes)
    refuse_unheard(VoiceHead(rate=16000), Wishes(speed=2.0))
    refuse_unheard(CutOutHead(), Wishes(points=((1, 2, 1),)))
