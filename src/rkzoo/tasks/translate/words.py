"""Sentence splitting and Moses-style tokenization, as in the training data.

Punctuation marks are separate tokens; &, quotes and brackets are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′`´", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        "–": "-",
        "—": " - ",
        "…": "...",
        "\xa0": " ",
    }
)
# Abbreviations, whose full stop does not end a sentence.
_SHORT = frozenset(
    """
    Mr Mrs Ms Dr Prof St Gen Sen Rep Gov Lt Col Capt Sgt Rev Hon Jr Sr Inc Ltd Co Corp Jan
    Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec No vs etc Fig Vol pp e.g i.e a.m p.m cf
    """.split()  # noqa: SIM905
)
_END = re.compile(r"[.!?。！？]+[\"')\]”’]*(?=\s|$)|[。！？]+[”’]*")
_ESCAPES = {
    "&": "&amp;",
    "|": "&#124;",
    "<": "&lt;",
    ">": "&gt;",
    "'": "&apos;",
    '"': "&quot;",
    "[": "&#91;",
    "]": "&#93;",
}
NO_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "km"})


def sentences(line: str) -> list[str]:
    """Split a line into sentences, stripped of outer white space."""
    parts, start = [], 0
    for end in _END.finditer(line):
        before = line[start : end.start()].split()
        short = end[0] == "." and before and (before[-1] in _SHORT or _is_initials(before[-1]))
        after = line[end.end() :].lstrip()
        if not short and not after[:1].islower():
            parts.append(line[start : end.end()])
            start = end.end()
    parts.append(line[start:])
    return [text.strip() for text in parts if text.strip()]


def _is_initials(word: str) -> bool:
    return all(len(part) == 1 and part.isupper() for part in word.split("."))


def words_of(sentence: str) -> list[str]:
    """Tokenize a sentence into words and punctuation marks."""
    text = " " + " ".join(sentence.translate(_PLAIN).split()) + " "
    text = re.sub(r"\.{2,}", lambda dots: f" DOT{'M' * len(dots[0])}END ", text)
    text = re.sub(r"([^\w\s.'`,-])", r" \1 ", text)
    # A comma or full stop between digits is part of the number.
    text = re.sub(r"(?<!\d),|,(?!\d)", " , ", text)
    text = re.sub(r"(?<=[^\W\d_])'(?=[^\W\d_])", " '", text)
    text = re.sub(r"(?<=\d)'(?=s\b)", " '", text)
    text = re.sub(r"(?<![\w ])'|'(?!\w)|(?<= )'(?!\w)|(?<= )'(?=\w+')", " ' ", text)
    parts = text.split()
    split: list[str] = []
    for index, part in enumerate(parts):
        split += _stopped(part, parts[index + 1 :])
    entries = [re.sub(r"^DOT(M+)END$", lambda dots: "." * len(dots[1]), part) for part in split]
    return ["".join(_ESCAPES.get(character, character) for character in part) for part in entries]


def _stopped(part: str, rest: Sequence[str]) -> list[str]:
    """Split off a full stop at the end of a word, unless it marks an abbreviation."""
    word = part[:-1]
    if not part.endswith(".") or not word:
        return [part]
    inside = "." in word and any(character.isalpha() for character in word)
    if rest and (inside or word in _SHORT or rest[0][:1].islower()):
        return [part]
    return [word, "."]


def text_of(words: Sequence[str], language: str) -> str:
    """Detokenize words and punctuation marks."""
    return spaced([_unescaped(word) for word in words], language)


def spaced(words: Sequence[str], language: str) -> str:
    """Join words, with spaces where the language uses them."""
    text = ""
    for word in words:
        if text and _needs_space(text[-1], word[0], language):
            text += " "
        text += word
    return text


def _unescaped(word: str) -> str:
    for character, written in reversed(_ESCAPES.items()):
        word = word.replace(written, character)
    return word


def _needs_space(before: str, after: str, language: str) -> bool:
    """Whether a space belongs between two words, by the adjacent characters."""
    if language in NO_SPACES:
        return all(c.isascii() and c.isalnum() for c in (before, after))
    return after not in ",.!?;:)]}%'" and before not in "([{"


def together(sentences: Sequence[str], language: str) -> str:
    """Join the sentences of one line."""
    return ("" if language in NO_SPACES else " ").join(sentences)
