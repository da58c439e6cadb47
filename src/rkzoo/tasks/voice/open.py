"""Factory of the text-to-speech task."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec

from rkzoo.contract.audio import VoiceHead
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes
from rkzoo.tasks.spec import TaskOptions, TaskParts
from rkzoo.tasks.voice.grapheme_to_phoneme import GraphemeToPhoneme
from rkzoo.tasks.voice.phonemizer import Phonemizer, read_lexicon
from rkzoo.tasks.voice.styled import StyledSynthesizer, misaki, read_styles, read_symbols
from rkzoo.tasks.voice.synthesize import (
    ChunkedSynthesizer,
    OneShotSynthesizer,
    Speller,
    Synthesizer,
    TextToSpeech,
    lettered,
    phonetic,
)


class _Audio(msgspec.Struct, frozen=True):
    sample_rate: int


class _Described(msgspec.Struct, frozen=True):
    """The needed part of piper's .onnx.json."""

    audio: _Audio
    phoneme_id_map: dict[str, list[int]]


def voice(parts: TaskParts, options: TaskOptions) -> TextToSpeech:
    """A pipeline with a VoiceHead, ready to read texts aloud. Raises RkzooError."""
    head = parts.head
    if not isinstance(head, VoiceHead):
        raise RkzooError("This is no voice.", code=1)
    if options.language not in (None, head.language):
        raise RkzooError(
            f"This voice does not speak the language {options.language}.",
            f"It speaks {head.language}.",
            "Leave --language out, or use another voice.",
        )
    mouth: Synthesizer
    if "network" in parts.parts:
        styles = read_styles(parts.files["network.voices"], head.voice)
        mouth = StyledSynthesizer(head, parts.parts, styles)
    elif "vocoder" in parts.parts:
        mouth = ChunkedSynthesizer(head, parts.parts)
    else:
        mouth = OneShotSynthesizer(head, parts.parts)
    return TextToSpeech(head, mouth, _speller(head, parts), options.speed)


def _speller(head: VoiceHead, parts: TaskParts) -> Speller:
    files = parts.files
    if "network.phonemes" in files:
        ids = read_symbols(files["network.phonemes"])
        return phonetic(ids, misaki(_read_phonemizer(files, "network")))
    if "encoder.phonemes" not in files:
        return lettered(parts.parts["encoder"][0].labels)
    described = _described(files["encoder.phonemes"])
    if described.audio.sample_rate != head.rate:
        raise RkzooError(
            f"The card says that this voice has {head.rate} samples a second.",
            f"{files['encoder.phonemes'].name} says {described.audio.sample_rate}.",
            "Fix the head in the card.",
        )
    return phonetic(described.phoneme_id_map, _read_phonemizer(files, "encoder"))


def _read_phonemizer(files: Mapping[str, Path], role: str) -> Phonemizer:
    words, letters = files[f"{role}.lexicon"], files[f"{role}.letters-to-sounds"]
    with os_errors_explained("The dictionary of the voice cannot be read."):
        stamps = tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in (words, letters))
    return _phonemizer(words, letters, stamps)


@lru_cache(maxsize=2)
def _phonemizer(words: Path, letters: Path, stamps: tuple[tuple[int, int], ...]) -> Phonemizer:
    """One for all voices of a process: the dictionary takes 55 MB and half a second, and a server
    opens a voice for each speed that it is asked for, in each slot. `stamps` are the files'."""
    return Phonemizer(read_lexicon(words), GraphemeToPhoneme(letters))


def _described(path: Path) -> _Described:
    try:
        with os_errors_explained(f"{path} cannot be read."):
            return msgspec.json.decode(read_bytes(path), type=_Described)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RkzooError(
            f"{path} does not describe a voice.",
            f"{error}.",
            "It is the .onnx.json that comes with a piper voice: fetch it again.",
        ) from error
