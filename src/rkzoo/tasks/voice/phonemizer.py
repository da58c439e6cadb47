"""English pronunciation in the International Phonetic Alphabet (IPA), in espeak's notation, on
which the voices were trained. Built on a dictionary and a table, without espeak's code or data.
"""

from __future__ import annotations

from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes
from rkzoo.tasks.voice.english import letter_name
from rkzoo.tasks.voice.grapheme_to_phoneme import GraphemeToPhoneme


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


_IPA = _pairs(
    "AA:ɑː AE:æ AH:ʌ AO:ɔː AW:aʊ AY:aɪ B:b CH:tʃ D:d DH:ð EH:ɛ ER:ɜː EY:eɪ F:f G:ɡ HH:h IH:ɪ"
    " IY:iː JH:dʒ K:k L:l M:m N:n NG:ŋ OW:oʊ OY:ɔɪ P:p R:ɹ S:s SH:ʃ T:t TH:θ UH:ʊ UW:uː V:v"
    " W:w Y:j Z:z ZH:ʒ"
)
_WEAK = {"AH": "ə", "ER": "ɚ", "IY": "i"}
_STRESS = {"1": "ˈ", "2": "ˌ"}

# Unstressed function words.
_LIGHT = _pairs(
    "the:ðə a:ɐ an:ɐn and:ænd of:ʌv to:tə is:ɪz are:ɑːɹ was:wʌz were:wɜː be:biː been:bɪn"
    " we:wiː he:hiː she:ʃiː it:ɪt you:juː they:ðeɪ me:miː us:ʌs him:hɪm her:hɜː them:ðɛm"
    " his:hɪz its:ɪts my:maɪ your:jʊɹ our:aʊɚ their:ðɛɹ in:ɪn on:ɔn at:æt by:baɪ for:fɔːɹ"
    " from:fɹʌm with:wɪð as:æz or:ɔːɹ but:bʌt that:ðæt than:ðɐn if:ɪf has:hɐz have:hæv"
    " had:hæd do:duː does:dʌz will:wɪl would:wʊd can:kæn could:kʊd should:ʃʊd"
)
_VOWELS = "aeiouæɑɐɔəɛɜɚɪʊʌ"
_HISSING = ("S", "Z", "SH", "ZH", "CH", "JH")
_VOICELESS = ("P", "T", "K", "F", "TH")


def ipa(sounds: list[str]) -> str:
    """Convert ARPAbet to IPA; a stress mark precedes its vowel."""
    text = ""
    for sound in sounds:
        name, stress = (sound[:-1], sound[-1]) if sound[-1].isdigit() else (sound, "")
        letter = _WEAK.get(name, _IPA[name]) if stress == "0" else _IPA[name]
        text += _STRESS.get(stress, "") + letter
    return text


def read_lexicon(path: Path) -> dict[str, list[str]]:
    """Read CMUdict: a word, two blanks, its phonemes, with a dash between syllables; the first of
    several pronunciations is kept. Raises RkzooError for another file.
    """
    with os_errors_explained(f"The dictionary {path} cannot be read."):
        lines = read_bytes(path).decode("latin-1").split("\n")
    words: dict[str, list[str]] = {}
    for line in lines:
        word, gap, sounds = line.rstrip().partition("  ")
        if gap and not word.startswith("##"):
            words.setdefault(word.lower(), [sound for sound in sounds.split() if sound != "-"])
    known = {sound.rstrip("012") for sounds in words.values() for sound in sounds} <= set(_IPA)
    if not words or not known:
        raise RkzooError(
            f"{path} is not a pronouncing dictionary.",
            "Its lines are not a word, two blanks and sounds in ARPAbet.",
            "Fetch the voice again with rkzoo fetch.",
        )
    return words


class Phonemizer:
    """Converts words to IPA: by the lexicon, else by suffix, else spelled out (uppercase) or by
    G2P."""

    def __init__(self, lexicon: dict[str, list[str]], guess: GraphemeToPhoneme) -> None:
        self._lexicon, self._guess = lexicon, guess

    def __call__(self, words: tuple[str, ...]) -> list[str]:
        """IPA of each word of a sentence; punctuation (. , ? ! ; :) is attached to the word before
        it."""
        phonemes: list[str] = []
        for word in words:
            if not word[0].isalpha():
                phonemes[-1:] = [(phonemes[-1] if phonemes else "") + word]
                continue
            text = _LIGHT.get(word) or ipa(self.sounds(word))
            if phonemes and phonemes[-1] == "ðə" and text.lstrip("ˈˌ")[:1] in _VOWELS:
                phonemes[-1] = "ðɪ"
            phonemes.append(text)
        return phonemes

    def sounds(self, word: str) -> list[str]:
        """ARPAbet phonemes of one word."""
        low = word.lower()
        if low in self._lexicon:
            return self._lexicon[low]
        stem, mark, ending = low.rpartition("'")
        if mark and ending in ("s", "") and stem:
            sounds = self.sounds(word[: len(stem)])
            return [*sounds, *_plural(sounds[-1])] if ending and sounds else sounds
        if word.isupper() and len(word) <= 5:
            return [
                s for letter in word for s in self._lexicon.get(letter_name(letter).lower(), [])
            ]
        return self._guess("".join(char for char in low if char.isalpha()))


def _plural(last: str) -> list[str]:
    if last in _HISSING:
        return ["IH0", "Z"]
    return ["S"] if last in _VOICELESS else ["Z"]
