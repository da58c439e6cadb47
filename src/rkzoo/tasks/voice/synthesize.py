"""VITS text to speech, split into several networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import VoiceHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, run_named
from rkzoo.tasks.voice.chunks import PhoneticWord, fitting, halves, in_windows
from rkzoo.tasks.voice.english import sentences
from rkzoo.tasks.voice.result import SynthesizedSentence, SynthesizedSpeech
from rkzoo.tasks.voice.timing import alignment, durations, symbols_of_frames

BETWEEN = 0.2
"""Seconds of silence between two sentences."""

Samples = NDArray[np.float32]
Parts = Mapping[str, tuple[Contract, Session]]

# Frames discarded at each window edge. The flow's receptive field is 32 frames to each side
# (four couplings of four layers with kernel 5); the vocoder's is 10, and 8 leave -60 dB of error.
_FLOW_MARGIN, _VOCODER_MARGIN = 32, 8
_SPEEDS = (0.25, 4.0)


class Synthesizer(Protocol):
    """Synthesizer of a run of symbols. `room` is the maximum number of symbols; the result is None
    where the audio would be longer than the network supports.
    """

    max_symbols: int

    def __call__(self, symbols: Sequence[int], speed: float) -> Samples | None: ...


Pronounce = Callable[[tuple[str, ...]], list[str]]
"""IPA of each word of a sentence, punctuation after the word before it (`Phonemizer`)."""
Speller = Callable[[tuple[str, ...]], tuple[list[PhoneticWord], str]]
"""Maps the words of a sentence to symbols, and returns the characters without one."""


class ChunkedSynthesizer:
    """Synthesizer with `encoder`, `flow` and `vocoder`; the last two run in windows over the
    frames. The noise is seeded, so the same text always sounds the same.
    """

    # Symbol ids of piper: start and end of a text, and padding between symbols.
    START, END, PAD = 1, 2, 0

    def __init__(self, head: VoiceHead, parts: Parts) -> None:
        self._head = head
        self._encoder, self._flow, self._vocoder = (
            parts[role][1] for role in ("encoder", "flow", "vocoder")
        )
        self._symbols = self._encoder.inputs[0].shape[-1]
        self.max_symbols = (self._symbols - 3) // 2

    def __call__(self, symbols: Sequence[int], speed: float) -> Samples | None:
        head = self._head
        ids = [
            self.START,
            *(i for symbol in symbols for i in (self.PAD, symbol)),
            self.PAD,
            self.END,
        ]
        fed = np.zeros((1, self._symbols), np.int64)
        fed[0, : len(ids)] = ids
        noise = np.random.Generator(np.random.PCG64(0))
        drawn = noise.standard_normal((1, 2, self._symbols)) * head.duration_noise
        wide: Samples = drawn.astype(np.float32)
        logs, mask, means, spread = run(self._encoder, fed, np.array([len(ids)]), wide)
        which = symbols_of_frames(durations(logs, mask, speed))
        frames = means[..., which]
        frames += (
            noise.standard_normal(frames.shape, np.float32)
            * np.exp(spread[..., which])
            * np.float32(head.noise)
        )
        size = self._flow.inputs[0].shape[-1]
        hidden = in_windows(self._flowed, frames, size, _FLOW_MARGIN)[None]
        size = self._vocoder.inputs[0].shape[-1]
        rows = in_windows(self._sounding, hidden, size, _VOCODER_MARGIN, head.hop)
        return np.asarray(rows[0], np.float32)

    def _flowed(self, frames: Samples) -> Samples:
        # All-zero frames are padding.
        there: Samples = np.any(frames, axis=1, keepdims=True).astype(np.float32)
        return run(self._flow, frames, there)[0]

    def _sounding(self, hidden: Samples) -> Samples:
        return run(self._vocoder, hidden)[0]


class OneShotSynthesizer:
    """Synthesizer with `encoder` and `decoder`; the decoder takes all frames at once and contains
    its noise.
    """

    BLANK = 0  # between symbols, and at both ends

    def __init__(self, head: VoiceHead, parts: Parts) -> None:
        self._head = head
        self._encoder, self._decoder = parts["encoder"][1], parts["decoder"][1]
        self._symbols = self._encoder.inputs[0].shape[-1]
        self._frames = self._decoder.inputs[0].shape[-2]
        self.max_symbols = (self._symbols - 1) // 2

    def __call__(self, symbols: Sequence[int], speed: float) -> Samples | None:
        ids = [self.BLANK, *(i for symbol in symbols for i in (symbol, self.BLANK))]
        fed = np.full((2, 1, self._symbols), self.BLANK, np.int64)
        fed[0, 0, : len(ids)] = ids
        fed[1] = np.arange(self._symbols) < len(ids)
        logs, mask, means, spread = run(self._encoder, *fed)
        which = symbols_of_frames(durations(logs, mask, speed))
        if len(which) > self._frames:
            return None
        aligned = alignment(which, self._frames, self._symbols)
        there = (np.arange(self._frames) < len(which)).astype(np.float32)[None, None]
        samples = run(self._decoder, aligned, there, means, spread)[0].reshape(-1)
        return samples[: len(which) * self._head.hop]


class TextToSpeech:
    """Text-to-speech task.

    Raises:
        RkzooError: speed outside 0.25..4; when called, a text without anything to pronounce.
    """

    def __init__(
        self, head: VoiceHead, mouth: Synthesizer, spell: Speller, speed: float = 1.0
    ) -> None:
        if not _SPEEDS[0] <= speed <= _SPEEDS[1]:
            raise RkzooError(
                f"A speed of {speed:g} cannot be spoken.",
                f"It lies between {_SPEEDS[0]:g} and {_SPEEDS[1]:g}; 1 is as the voice speaks.",
                "Give for example --speed 1.2.",
            )
        self._head, self._mouth, self._spell, self._speed = head, mouth, spell, speed

    def __call__(self, text: str) -> SynthesizedSpeech:
        chunks: list[Samples] = []
        where: list[SynthesizedSentence] = []
        rate = self._head.rate
        silence = np.zeros(round(BETWEEN * rate), np.float32)
        length = 0
        for sentence in sentences(text):
            words, lost = self._spell(sentence.words)
            lost = "".join(sorted({*lost, *sentence.unspoken}))
            sound = [
                part
                for run in fitting(words, self._mouth.max_symbols)
                for part in self._synthesize(run)
            ]
            start = length
            length += sum(map(len, sound))
            where.append(SynthesizedSentence(sentence.text, start / rate, length / rate, lost))
            if sound:
                chunks += [*sound, silence]
                length += len(silence)
        if not chunks:
            raise RkzooError(
                "There is nothing in this text that the voice can say.",
                f"It speaks the language {self._head.language} only.",
                "Give it words in that language.",
            )
        return SynthesizedSpeech(Sound(np.concatenate(chunks[:-1]), rate), tuple(where))

    def _synthesize(self, words: Sequence[PhoneticWord]) -> list[Samples]:
        """Synthesize a run of words, split in two where it is too long for the network."""
        symbols = _joined(words)
        sound = self._mouth(symbols, self._speed)
        if sound is not None:
            return [sound]
        if len(symbols) < 2:
            raise RkzooError(
                "The voice cannot say this.",
                "One of its sounds lasts longer than the network can say at once.",
                "Use a higher --speed.",
            )
        return [part for half in halves(words) for part in self._synthesize(half)]


def _joined(words: Sequence[PhoneticWord]) -> list[int]:
    """Concatenated symbols of the words; a word includes its preceding space."""
    return [symbol for word in words for symbol in word.symbols]


def phonetic(ids: Mapping[str, Sequence[int]], pronounce: Pronounce) -> Speller:
    """Phoneme speller: each IPA character has an id."""

    def spell(words: tuple[str, ...]) -> tuple[list[PhoneticWord], str]:
        phonetic_words: list[PhoneticWord] = []
        lost: set[str] = set()
        for text in pronounce(words):
            spaced = f" {text}" if phonetic_words else text
            lost.update(char for char in spaced if char not in ids)
            symbols = tuple(ids[char][0] for char in spaced if char in ids)
            if symbols:
                phonetic_words.append(PhoneticWord(symbols, not text[-1].isalpha()))
        return phonetic_words, "".join(lost)

    return spell


def lettered(letters: Sequence[str]) -> Speller:
    """Character speller: symbol i is `letters[i]`; punctuation has no symbols."""
    ids = {letter: index for index, letter in enumerate(letters) if len(letter) == 1}

    def spell(words: tuple[str, ...]) -> tuple[list[PhoneticWord], str]:
        phonetic_words: list[PhoneticWord] = []
        lost: set[str] = set()
        for word in words:
            if not word[0].isalpha():
                phonetic_words[-1:] = [
                    PhoneticWord(phonetic_word.symbols, True)
                    for phonetic_word in phonetic_words[-1:]
                ]
                continue
            spaced = f" {word.lower()}" if phonetic_words else word.lower()
            lost.update(char for char in spaced if char not in ids)
            symbols = tuple(ids[char] for char in spaced if char in ids)
            if symbols:
                phonetic_words.append(PhoneticWord(symbols))
        return phonetic_words, "".join(lost)

    return spell


def run(session: Session, *arrays: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Run a part with tensors in order. Raises RkzooError where the number of inputs differs."""
    names = [spec.name for spec in session.inputs]
    if len(names) != len(arrays):
        raise RkzooError(
            f"A part of the voice takes {len(names)} inputs, and not {len(arrays)}.", code=1
        )
    outputs = run_named(session, dict(zip(names, arrays, strict=True)))
    return [outputs[spec.name] for spec in session.outputs]
