"""English text normalization for text to speech."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from re import Match

from rkzoo.tasks.voice.numbers import cardinal, cardinal_of, ordinal, spell_numbers, year


@dataclass(frozen=True)
class NormalizedSentence:
    """A normalized sentence.

    Attributes:
        text: the sentence as read out.
        words: lowercase words with apostrophes, uppercase where a word is spelled out, and the
            marks , . ? ! ; : as separate items.
        unspoken: characters that cannot be pronounced.
    """

    text: str
    words: tuple[str, ...]
    unspoken: str = ""


_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′`´", "'"),
        **dict.fromkeys('“”„‟″«»"', " "),
        **dict.fromkeys("–—―", ", "),
        **dict.fromkeys("()[]{}", ", "),
        **dict.fromkeys("*_~|\\<>^", " "),
        "…": ". ",
        "⁄": "/",
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "ß": "ss",
        "ł": "l",
    }
)
_ABBREVIATIONS = {
    "mr": "mister",
    "mrs": "missus",
    "ms": "miss",
    "dr": "doctor",
    "st": "saint",
    "prof": "professor",
    "jr": "junior",
    "sr": "senior",
    "vs": "versus",
    "etc": "et cetera",
    "approx": "approximately",
    "dept": "department",
    "inc": "incorporated",
    "ltd": "limited",
    "fig": "figure",
}
_MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_SIGNS = {"&": "and", "%": "percent", "@": "at", "+": "plus", "=": "equals", "#": "number",
          "°": "degrees", "×": "times", "/": "slash"}  # fmt: skip
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_LETTERS = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?|[,.?!;:]")


def letter_name(letter: str) -> str:
    """Name of a letter as a word: "ay" for a, else the uppercase letter."""
    return "ay" if letter in "aA" else letter.upper()


def _money(match: Match[str]) -> str:
    sign, amount, many = match[1], match[2], match[3]
    unit, part = _MONEY[sign]
    if many:
        return f" {spell_numbers(amount)} {many} {unit}s "
    whole, _, cents = amount.partition(".")
    number = cardinal_of(whole.replace(",", ""))
    money = f" {number} {unit}{'' if number == 'one' else 's'} "
    if len(cents) == 2 and int(cents):
        parts = "pence" if part == "penny" else f"{part}{'' if int(cents) == 1 else 's'}"
        money += f"and {cardinal(int(cents))} {parts} "
    elif cents.strip("0"):
        money = f" {spell_numbers(amount)} {unit}s "
    return money


def _clock(match: Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    if not minute:
        return f" {cardinal(hour)} " + ("o'clock " if 1 <= hour <= 12 else "hundred ")
    return f" {cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)} "


def _decade(match: Match[str]) -> str:
    *words, last = year(int(match[1])).split()
    last = last[:-1] + "ies" if last.endswith("y") else last + "s"
    return " ".join([*words, last])


def _abbreviated(match: Match[str]) -> str:
    return _ABBREVIATIONS[match[1].lower()] + " "


def _initials(match: Match[str]) -> str:
    """Initials with full stops; a stop that may end the sentence is kept."""
    letters = " ".join(map(letter_name, match[0].replace(".", "")))
    return letters + (". " if re.match(r"\s+[A-Z]|\s*$", match.string[match.end() :]) else " ")


_RULES: tuple[tuple[re.Pattern[str], Callable[[Match[str]], str] | str], ...] = (
    (re.compile(r"\be\.g\."), "for example"),
    (re.compile(r"\bi\.e\."), "that is"),
    (re.compile(r"\bno\. ?(?=\d)", re.I), "number "),
    (re.compile(rf"\b({'|'.join(_ABBREVIATIONS)})\. ?(?=[\s,;A-Za-z])", re.I), _abbreviated),
    (re.compile(r"\b(?:[A-Za-z]\.){2,}"), _initials),
    (re.compile(r"\b([A-Z])\. (?=[A-Z])"), r"\1 "),
    (re.compile(rf"([$£€]) ?({_NUMBER})(?: (thousand|million|billion|trillion)\b)?"), _money),
    (re.compile(r"\b(\d{1,2}):(\d{2})\b"), _clock),
    (re.compile(r"\b([12]\d\d0)'?s\b"), _decade),
    (re.compile(r"\b(\d{1,15})(?:st|nd|rd|th)\b"), lambda match: ordinal(int(match[1]))),
    (re.compile(r"(?<=\d)(?:-| - )(?=\d)"), " to "),
    (re.compile(r"(?<![\w)])-(?=\d)"), " minus "),
    (re.compile(_NUMBER), lambda match: f" {spell_numbers(match[0])} "),
    (re.compile(r"(?<=[A-Za-z])\.(?=[A-Za-z])"), " dot "),
    (re.compile(f"[{re.escape(''.join(_SIGNS))}]"), lambda match: f" {_SIGNS[match[0]]} "),
)


def sentences(text: str) -> list[NormalizedSentence]:
    """Split a text into normalized sentences, at . ? ! before white space and at empty lines."""
    normalized_sentences = []
    for paragraph in re.split(r"\n\s*\n", text):
        plain = _folded(" ".join(paragraph.split()))
        for rule, put in _RULES:
            plain = rule.sub(put, plain)
        for piece in re.split(r"(?<=[.?!])\s+", plain):
            sentence = _sentence(" ".join(piece.split()))
            if sentence.words or sentence.unspoken:
                normalized_sentences.append(sentence)
    return normalized_sentences


# A word and more must follow: A.M. ends a sentence before Dreams are, and not before Dr. Who.
_TRIES = 8
_MAY_END = re.compile(r"(?:(?<=[.?!])\s+|\n\s*\n)(?=\S+\s+\S)")


def split_sentences(text: str) -> tuple[str, str]:
    """Split a text that is still being written at the last place where its sentences stay what
    they are, whatever follows.

    Returns:
        What can be read aloud now (empty where no sentence has ended), and the rest.
    """
    places = [match.end() for match in _MAY_END.finditer(text)][-_TRIES:]
    whole = sentences(text) if places else []
    for place in reversed(places):
        # A full stop may belong to an abbreviation or a number, which the next word tells.
        if sentences(text[:place]) + sentences(text[place:]) == whole:
            return text[:place], text[place:]
    return "", text


def _folded(text: str) -> str:
    """Strip accents, and unify punctuation marks with the same meaning."""
    parts = unicodedata.normalize("NFKD", text.translate(_PLAIN)).translate(_PLAIN)
    return "".join(char for char in parts if not unicodedata.combining(char))


def _sentence(text: str) -> NormalizedSentence:
    tokens = _LETTERS.findall(text)
    shouted = text.isupper() and len(tokens) > 2
    rest = _LETTERS.sub("", text)
    words: list[str] = []
    for token in tokens:
        if token in ",.?!;:":
            if words and words[-1] in ",;:":
                words.pop()  # of consecutive marks the last one counts
            if words and words[-1] not in ".?!":
                words.append(token)
            continue
        word = token.strip("'")
        spelled = word.isupper() and not shouted and word not in ("I", "A")
        words.append(word if spelled else word.lower())
    unspoken = "".join(sorted({char for char in rest if not char.isspace() and char not in "-'"}))
    return NormalizedSentence(text, tuple(words), unspoken)
