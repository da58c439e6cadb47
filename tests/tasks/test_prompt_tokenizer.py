"""CLIP's byte-pair encoding, against recorded token numbers and its own inverse."""

from __future__ import annotations

import gzip
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.errors import RkzooError
from rkzoo.tasks.prompt.tokenizer import _MERGES, END, START, ClipTokenizer, _letters

SMALL = ClipTokenizer([("a", "b</w>"), ("a", "b"), ("ab", "c</w>"), ("t", "h"), ("th", "e</w>")])
LETTERS = list(_letters().values())


def spelled(tokenizer: ClipTokenizer, tokens: list[int]) -> list[str]:
    names = {number: token for token, number in tokenizer._numbers.items()}
    return [names[token] for token in tokens]


def written(tokenizer: ClipTokenizer, tokens: list[int]) -> str:
    """The text of the tokens, without its blanks."""
    joined = "".join(spelled(tokenizer, tokens)).replace("</w>", "")
    bytes_ = {letter: byte for byte, letter in _letters().items()}
    return bytes(bytes_[letter] for letter in joined).decode("utf-8")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ab", ["ab</w>"]),
        ("abc", ["ab", "c</w>"]),  # "ab" merges before "abc" can, for it is more frequent
        ("the ab", ["the</w>", "ab</w>"]),
        ("THE", ["the</w>"]),
        ("abab", ["ab", "ab</w>"]),
        ("  the \t\n the ", ["the</w>", "the</w>"]),
        ("the's", ["the</w>", "'", "s</w>"]),
        ("12", ["1</w>", "2</w>"]),
        ("!?a", ["!", "?</w>", "a</w>"]),
        ("''s", ["'", "'</w>", "s</w>"]),
        ("", []),
    ],
)
def test_merges_and_words(text: str, parts: list[str]) -> None:
    known = ClipTokenizer([("a", "b</w>"), ("a", "b"), ("t", "h"), ("th", "e</w>")])
    assert spelled(known, known.encode(text)) == parts


def test_the_more_frequent_pair_merges_first() -> None:
    assert spelled(SMALL, SMALL.encode("abc")) == ["abc</w>"]
    other = ClipTokenizer([("b", "c</w>"), ("a", "b")])
    assert spelled(other, other.encode("abc")) == ["a", "bc</w>"]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_nothing_is_lost_but_case_and_blanks(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(c.lower() for c in composed if not c.isspace() or c in "\x1c\x1d\x1e\x1f")
    assert written(SMALL, SMALL.encode(text)) == kept


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abthe '1", max_size=40), min_size=1, max_size=5), st.integers(3, 24))
def test_rows_hold_all_of_a_text(texts: list[str], length: int) -> None:
    if any(len(SMALL.encode(text)) > length - 2 for text in texts):
        with pytest.raises(RkzooError, match="are too long"):
            SMALL.rows(texts, length)
        return
    rows = SMALL.rows(texts, length)
    assert rows.shape == (len(texts), length)
    for row, text in zip(rows.tolist(), texts, strict=True):
        tokens = SMALL.encode(text)
        assert row == [START, *tokens] + [END] * (length - 1 - len(tokens))
        assert END in row


def test_open_clip_pads_with_0() -> None:
    """As `open_clip.tokenizer.SimpleTokenizer` does; compared with it on its own vocabulary."""
    known = ClipTokenizer([("t", "h"), ("th", "e</w>")], pad=0)
    tokens = known.encode("the")
    assert known.rows(["the"], 6).tolist() == [[START, *tokens, END, 0, 0, 0]]


def test_the_vocabulary_has_the_numbers_of_clip() -> None:
    assert len(LETTERS) == len(set(LETTERS)) == 256
    assert START == 512 + _MERGES


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"\xff\xfe", mtime=0), "cannot be read"),
        (gzip.compress(b"title\na b\n" * 20, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(b"title\n" + b"a b\n" * 100, mtime=0), "not the vocabulary of CLIP"),
        (gzip.compress(b"title\n" + b"a b c\n" * _MERGES, mtime=0), "not the vocabulary of CLIP"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "vocabulary.txt.gz"
    path.write_bytes(content)
    with pytest.raises(RkzooError, match=what):
        ClipTokenizer.from_file(path)
    with pytest.raises(RkzooError, match="cannot be read"):
        ClipTokenizer.from_file(tmp_path / "missing")


# Recorded from Hugging Face tokenizers 0.23.3 with the rules of openai/clip-vit-base-patch32.
RECORDED = [
    ("a photo of a dog", [320, 1125, 539, 320, 1929]),
    ("a red bus", [320, 736, 2840]),
    ("fire hydrant", [1769, 8031, 773]),
    ("it's John's   dog, we'll've", [585, 568, 1742, 568, 1929, 267, 649, 1342, 1200]),
    ("''s !'s 'scan", [8445, 338, 13222, 338, 568, 753]),
    ("\xc0\xc9\xce na\xefve caf\xe9", [36149, 3459, 127, 362, 1097, 35689, 563, 15304]),
    ("cafe\u0301", [15304]),
    (
        "\u7ea2\u8272\u7684\u516c\u4ea4\u8f66",
        [163, 118, 95, 164, 231, 110, 163, 248, 226, 34314, 105, 21078, 97, 164, 121, 355],
    ),
    ("\u03a3\u039f\u03a6\u039f\u03a3", [139, 225, 138, 123, 139, 228, 138, 123, 139, 481]),
    ("x\xb2 \u2167 \xbd 12345", [343, 41175, 158, 227, 371, 33613, 272, 273, 274, 275, 276]),
    ("\U0001f68c\U0001f68c bus", [2730, 234, 46891, 2840]),
    (
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
        [29446, 26721, 26090, 19389, 29552, 25751, 26774, 48612, 30833],
    ),
    ("\xa0nbsp\u3000ideographic\u200bzero", [6459, 4393, 1909, 78, 4245, 9844, 5848]),
]


@pytest.mark.network
def test_the_numbers_are_those_of_the_published_tokenizer() -> None:
    from rkzoo.zoo.catalogue import card
    from rkzoo.zoo.fetch import fetch

    tokenizer = ClipTokenizer.from_file(fetch(card("clip-text").files["vocabulary"]))
    for text, numbers in RECORDED:
        assert tokenizer.encode(text) == numbers, text
    assert tokenizer.rows(["a red bus"], 6).tolist() == [[START, 320, 736, 2840, END, END]]
