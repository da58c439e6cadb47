"""Voices of one network with a style, StyleTTS 2 (Kokoro)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from rkzoo.contract.audio import VoiceHead
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes
from rkzoo.spelling import unknown
from rkzoo.tasks.voice.synthesize import Parts, Pronounce, Samples, run

_EDGE = 0  # symbol before and after a text, and padding
# IPA in espeak's notation as misaki spells American English for Kokoro, longest first
# (https://github.com/hexgrad/misaki, EN_PHONES.md).
_MISAKI = (
    ("dʒ", "ʤ"),
    ("tʃ", "ʧ"),
    ("eɪ", "A"),
    ("aɪ", "I"),
    ("oʊ", "O"),
    ("aʊ", "W"),
    ("ɔɪ", "Y"),
    ("ɜː", "ɜɹ"),
    ("ɚ", "əɹ"),
    ("ː", ""),
)


class StyledSynthesizer:
    """Synthesizer with one `network`; `styles` (R, 256) holds a style for each number of symbols.

    The symbols are padded; what the network says for the padding is left out.
    """

    def __init__(self, head: VoiceHead, parts: Parts, styles: Samples) -> None:
        self._head, self._styles = head, styles
        self._network = parts["network"][1]
        self._symbols = self._network.inputs[0].shape[-1]
        self.max_symbols = min(self._symbols - 2, len(styles))

    def __call__(self, symbols: Sequence[int], speed: float) -> Samples | None:
        ids = np.full((1, self._symbols), _EDGE, np.int64)
        ids[0, 1 : len(symbols) + 1] = symbols
        style = self._styles[len(symbols) - 1][None]
        samples, frames = run(self._network, ids, style, np.array([speed], np.float32))
        said = int(frames.reshape(-1)[: len(symbols) + 2].sum())
        return samples.reshape(-1)[: said * self._head.hop]


def misaki(pronounce: Pronounce) -> Pronounce:
    """A pronunciation spelled as misaki spells it."""

    def spelled(words: tuple[str, ...]) -> list[str]:
        texts = pronounce(words)
        for old, new in _MISAKI:
            texts = [text.replace(old, new) for text in texts]
        return texts

    return spelled


class _Vocabulary(msgspec.Struct, frozen=True):
    vocab: dict[str, int]


def read_symbols(path: Path) -> dict[str, tuple[int, ...]]:
    """Ids by character of a json `{"vocab": {...}}`. Raises RkzooError when it is damaged."""
    try:
        with os_errors_explained(f"{path} cannot be read."):
            found = msgspec.json.decode(read_bytes(path), type=_Vocabulary)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RkzooError(
            f"{path} does not hold the symbols of a voice.",
            f"{error}.",
            "Fetch the voice again with rkzoo fetch.",
        ) from error
    return {char: (number,) for char, number in found.vocab.items()}


def read_styles(path: Path, voice: str) -> Samples:
    """Styles (R, 256) of a voice in an .npz, one for each number of symbols. Raises RkzooError."""
    try:
        with os_errors_explained(f"{path} cannot be read."), np.load(path) as held:
            names = tuple(held.files)
            styles = held[voice] if voice in names else None
    except (ValueError, EOFError, KeyError) as error:
        raise RkzooError(
            f"{path} holds no voices.", f"{error}.", "Fetch the voice again with rkzoo fetch."
        ) from error
    if styles is None:
        raise unknown(
            f"There is no voice called {voice!r}.",
            f"The file has {', '.join(names)}.",
            voice,
            names,
            "Name one of them in the card: head.voice.",
        )
    return np.asarray(styles, np.float32).reshape(len(styles), -1)
