"""English text to plain words: nothing is lost, numbers are said as they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.tasks.voice.english import sentences, split_sentences
from rkzoo.tasks.voice.numbers import cardinal, ordinal, spell_numbers, year

SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen"""
ROUND = "- - twenty thirty forty fifty sixty seventy eighty ninety"
ONES = {word: value for value, word in enumerate(SMALL.split())}
TENS = {word: 10 * value for value, word in enumerate(ROUND.split())}
GROUPS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def heard(text: str) -> int:
    """A number from its words, added up as one hears it."""
    total = group = 0
    for word in text.split():
        if word in GROUPS:
            total, group = total + group * GROUPS[word], 0
        elif word == "hundred":
            group *= 100
        else:
            group += ONES.get(word, TENS.get(word, 0))
    return total + group


@given(st.integers(0, 10**15 - 1))
def test_a_number_is_heard_as_it_was_said(number: int) -> None:
    assert heard(cardinal(number)) == number


def test_numbers_too_large_for_words_are_read_digit_by_digit() -> None:
    assert cardinal(10**15).split() == ["one", *["zero"] * 15]
    for written in ("{}", "{}.5", "${}", "$1.{}"):
        (sentence,) = sentences(written.format("7" * 5000))
        assert sentence.words.count("seven") == 5000


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "first"),
        (12, "twelfth"),
        (20, "twentieth"),
        (23, "twenty third"),
        (100, "one hundredth"),
    ],
)
def test_ordinals(number: int, said: str) -> None:
    assert ordinal(number) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1995, "nineteen ninety five"),
        (1905, "nineteen oh five"),
        (1900, "nineteen hundred"),
        (2024, "twenty twenty four"),
        (2005, "two thousand five"),
    ],
)
def test_years(number: int, said: str) -> None:
    assert year(number) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3.14", "three point one four"),
        ("007", "zero zero seven"),
        ("1,234", "one thousand two hundred thirty four"),
        ("1995", "nineteen ninety five"),
        ("0", "zero"),
    ],
)
def test_numbers_as_they_are_written(text: str, said: str) -> None:
    assert spell_numbers(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Mr. Quilter paid $3.50.", "mister quilter paid three dollars and fifty cents ."),
        ("It cost $5 million!", "it cost five million dollars !"),
        ("He came at 10:30 a.m.", "he came at ten thirty ay M ."),
        ("It is 5:00 in the U.S.A.", "it is five o'clock in the U S ay ."),
        ("Sizes 10-20, in the 1990s", "sizes ten to twenty , in the nineteen nineties"),
        ("It was -5 degrees", "it was minus five degrees"),
        ("“Don’t” – she said", "don't , she said"),
        ("the café & bar: 50%", "the cafe and bar : fifty percent"),
        ("RK3588's NPU", "RK three thousand five hundred eighty eight s NPU"),
        ("THE END IS NEAR", "the end is near"),
        ("see example.com", "see example dot com"),
        ("J. R. Smith", "J R smith"),
        ("Dr. No, vs. no. 7, i.e. him", "doctor no , versus number seven , that is him"),
    ],
)
def test_what_is_written_and_what_is_said(text: str, said: str) -> None:
    (sentence,) = sentences(text)
    assert " ".join(sentence.words) == said
    assert not sentence.unspoken


def test_sentences_end_where_they_end() -> None:
    text = "Mr. A. Smith left. Did he? He did!\n\nNew paragraph without a point\n\nLast."
    assert [" ".join(s.words) for s in sentences(text)] == [
        "mister a smith left .",
        "did he ?",
        "he did !",
        "new paragraph without a point",
        "last .",
    ]


def test_what_cannot_be_said_is_told() -> None:
    first, second = sentences("Hello 你好. Я ☃")
    assert first.words == ("hello", ".")
    assert first.unspoken == "你好"
    assert second.words == ()
    assert second.unspoken == "Я☃"


@given(st.lists(st.sampled_from(["dog", "cat", "bird", "Paris", "don't"]), min_size=1, max_size=60))
def test_no_word_is_lost(words: list[str]) -> None:
    found = [word for s in sentences(" ".join(words)) for word in s.words]
    assert found == [word.lower() for word in words]


@given(st.text(max_size=200))
def test_any_text_is_read_without_a_fault(text: str) -> None:
    for sentence in sentences(text):
        assert sentence.words or sentence.unspoken
        assert all(word[0].isascii() for word in sentence.words)


TRICKY = (
    "Dr. Mr. no. No. 5 3.50 $3.20 e.g. i.e. A.M. U.S. J. R. 1990's 12:30 etc. and. Really? Yes!"
    " ... Hello, world, \n\n Then I www.example.org end. 7. million - 20"
)


@given(
    st.lists(st.sampled_from(TRICKY.split(" ")), max_size=12),
    st.lists(st.integers(1, 9), max_size=60),
)
def test_a_text_that_comes_in_pieces_is_read_as_the_whole_is(
    words: list[str], steps: list[int]
) -> None:
    text = " ".join(words)
    read, waiting, place = [], "", 0
    for step in [*steps, len(text)]:
        waiting += text[place : place + step]
        place += step
        ready, waiting = split_sentences(waiting)
        read += sentences(ready)
    assert read + sentences(waiting) == sentences(text)


def test_a_sentence_is_read_when_a_word_and_more_follow() -> None:
    assert split_sentences("It is no. Six ") == ("", "It is no. Six ")
    assert split_sentences("It is no. Six a") == ("It is no. ", "Six a")
    assert split_sentences("It is no. 6 a") == ("", "It is no. 6 a")
    assert split_sentences("One. Two. Three four") == ("One. Two. ", "Three four")
