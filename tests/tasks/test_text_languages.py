"""Which languages a reader's characters are enough for."""

from __future__ import annotations

import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.errors import RkzooError
from rkzoo.tasks.text.languages import LETTERS, missing, readable

ASCII = set(string.ascii_letters + string.digits)


@pytest.mark.parametrize("code", LETTERS)
def test_letters_are_single_named_and_not_said_twice(code: str) -> None:
    letters = LETTERS[code]
    assert len(set(letters)) == len(letters)
    assert all(unicodedata.name(letter) for letter in letters)
    assert not set(letters) & ASCII
    assert unicodedata.normalize("NFC", letters) == letters


@given(st.sampled_from(sorted(LETTERS)), st.data())
def test_one_letter_less_is_one_language_less(code: str, data: st.DataObject) -> None:
    whole = ASCII | set(LETTERS[code])
    assert code in readable(whole)
    lost = data.draw(st.sampled_from(sorted(whole)))
    assert missing(code, whole - {lost}) == lost
    assert code not in readable(whole - {lost})


def test_an_unknown_language_is_told_with_those_that_are_known() -> None:
    with pytest.raises(RkzooError, match=r"Known are .*de, ") as caught:
        missing("zh-hantt", "")
    assert caught.value.fix == "Did you mean zh-hant?"
    assert not missing("DE", ASCII | set(LETTERS["de"]))
