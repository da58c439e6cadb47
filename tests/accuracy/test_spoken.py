"""Speech is scored by words and characters, from a list or from texts beside the sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rkzoo.accuracy.answers import pack
from rkzoo.accuracy.dataset import open_dataset
from rkzoo.accuracy.transcripts import normalize_text
from rkzoo.audio.sound import Sound, write
from rkzoo.errors import RkzooError
from rkzoo.tasks.speech.transcript import Segment, Transcript


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mr. Quilter's gospel, WE'RE glad!", "mr quilter's gospel we're glad"),
        ("It’s ‘quoted’ 'so'", "it's quoted so"),
        ("对我做了介绍,OK吗?", "对 我 做 了 介 绍 ok 吗"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("Straße, café — 3.5%", "strasse café 3 5"),
        (" ... ", ""),
    ],
)
def test_only_words_count(text: str, words: str) -> None:
    assert normalize_text(text) == words


def said(*texts: str) -> Transcript:
    return Transcript(tuple(Segment(i, i + 1, text) for i, text in enumerate(texts)), "en")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.wav", Sound(np.zeros(100, np.float32), 16000))
    (tmp_path / "a.txt").write_text("one two three\nfour")
    (tmp_path / "b.txt").write_text("你好吗")
    return tmp_path


def test_a_folder_of_sounds_with_texts(folder: Path) -> None:
    data = open_dataset(str(folder), "speech", ())
    assert (data.kind, [item.name for item in data.items]) == ("speech", ["a.wav", "b.wav"])
    records = [pack(said(" One two", " tree four."), (0, 0)), pack(said("你", "好。"), (0, 0))]
    found = {metric.name: metric for metric in data.score(records)}
    # Of 7 words one is another and one is missing; of 18 characters one and one are missing.
    assert found["word error rate"].value == pytest.approx(2 / 7)
    assert found["character error rate"].value == pytest.approx(2 / 18)
    assert found["word error rate"].main
    assert not found["word error rate"].higher_is_better


@pytest.mark.parametrize(("name", "divider"), [("list.csv", ","), ("list.tsv", "\t")])
def test_a_list_of_files_and_texts(name: str, divider: str, folder: Path) -> None:
    (folder / name).write_text(f"file{divider}text\nc.wav{divider}Hello there\n")
    data = open_dataset(str(folder / name), "speech", ())
    assert [item.name for item in data.items] == ["c.wav"]
    assert data.score([pack(said("hello, there"), (0, 0))])[0].value == 0


def test_sounds_without_texts_are_no_data(folder: Path) -> None:
    for text in folder.glob("*.txt"):
        text.unlink()
    with pytest.raises(RkzooError, match=r"a folder of sounds with a \.txt"):
        open_dataset(str(folder), "speech", ())
