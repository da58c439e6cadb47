"""Whisper speech recognition with timestamps, for sounds of any length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.mel import HOP, RATE, log_mel
from rkzoo.audio.sound import Sound
from rkzoo.session import Array, Session, run_named
from rkzoo.tasks.speech.cached_decoder import CachedDecoder
from rkzoo.tasks.speech.tokens import WhisperTokens
from rkzoo.tasks.speech.transcript import Decoding, Segment, Transcript
from rkzoo.tasks.speech.whisper_decoding import (
    log_softmax,
    next_log_probs,
    repetitive,
    thin,
    window_segments,
)
from rkzoo.tasks.speech.windows import loud_seconds, window_at, without_quiet

# Upstream's thresholds for the temperature fallback and for no speech.
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_IMPROBABLE = -1.0
_REPETITIVE = 2.4
_SILENT = 0.6

_SHORTEST = 5.0  # seconds: shorter windows are not halved again
_THINNEST = 10.0  # seconds: shorter windows are not halved because of too little text
_NOTHING = 0.1  # seconds: too short to contain speech
_LEAST = 0.5  # seconds by which every window advances at least, so that the loop ends


@dataclass(frozen=True)
class WindowResult:
    """Decoding result of one window.

    Attributes:
        tokens: generated tokens, without the prompt.
        mean_log: mean log probability.
        silence: probability of no speech.
        language: language token.
        ended: whether the end token was generated.
        text: decoded text.
        temperature: 0 for the likeliest tokens.
    """

    tokens: tuple[int, ...]
    mean_log: float
    silence: float
    language: int
    ended: bool
    text: str
    temperature: float = 0.0

    @property
    def is_silence(self) -> bool:
        return self.silence > _SILENT and self.mean_log < _IMPROBABLE

    @property
    def is_repetitive(self) -> bool:
        return repetitive(self.text) > _REPETITIVE

    @property
    def is_good(self) -> bool:
        return self.mean_log >= _IMPROBABLE and not self.is_repetitive

    def decoding(self, seek: int) -> Decoding:
        """What a segment says of it; `seek` as there."""
        ratio = repetitive(self.text)
        return Decoding(seek, self.temperature, self.mean_log, ratio, self.silence)


@dataclass(frozen=True)
class Whisper:
    """Whisper speech recognizer. `language` is a language token, None for detection; `translate`
    translates into English.
    """

    encoder: Session
    embedding: Session
    decoder: Session
    tokens: WhisperTokens
    language: int | None = None
    translate: bool = False

    def __call__(self, sound: Sound) -> Transcript:
        samples = sound.at(RATE)
        _, bins, columns = self.encoder.inputs[0].shape
        whole = columns * HOP
        segments: list[Segment] = []
        language, at, size = self.language, 0, whole
        while len(samples) - at > _NOTHING * RATE:
            window = window_at(samples, at, size, RATE)
            loud = loud_seconds(window, RATE)
            if not loud[-1]:  # the model hallucinates on silence
                at, size = at + len(window), whole
                continue
            seconds = len(window) / RATE
            shortest = seconds <= _SHORTEST
            answer = self._best(self._encode(window, bins, whole), language, shortest)
            if answer.is_silence:
                at, size = at + len(window), whole
                continue
            read = window_segments(answer.tokens, seconds, self.tokens, answer.ended)
            lost = (not answer.ended and read.settled == seconds) or answer.is_repetitive
            lost = lost or (seconds > _THINNEST and thin(read, loud))
            if not shortest and lost:
                # The window holds more speech than one pass can decode or than was transcribed,
                # or the text repeats itself (speaker or decoder loop): retry with half of it.
                size = len(window) // 2
                continue
            if language is None and read.segments:
                language = answer.language
            how = answer.decoding(round(100 * at / RATE))
            segments += [_placed(part, at / RATE, loud, how) for part in read.segments]
            at, size = at + round(max(read.settled, _LEAST) * RATE), whole
        spoken = "" if language is None or not segments else self.tokens.words[language][2:-2]
        return Transcript(tuple(segments), spoken)

    def _encode(self, window: NDArray[np.float32], bins: int, whole: int) -> dict[str, Array]:
        """Run the encoder. The samples are padded, not the spectrogram, where zeros would not mean
        silence.
        """
        padded = np.zeros(whole, np.float32)
        padded[: len(window)] = window
        return run_named(self.encoder, {"mel": log_mel(padded, bins)[None]})

    def _best(self, heard: Mapping[str, Array], language: int | None, last: bool) -> WindowResult:
        """Decode with rising temperature; return the first good result, or a repetitive one unless
        this is the `last` attempt; else the most probable, preferably not repetitive.
        """
        candidates: list[WindowResult] = []
        for temperature in _TEMPERATURES:
            answer = self._answer(heard, language, temperature)
            if answer.is_good or answer.is_silence or (answer.is_repetitive and not last):
                return answer
            candidates.append(answer)
        return max(
            candidates,
            key=lambda candidate: (not candidate.is_repetitive, candidate.mean_log),
        )

    def _answer(
        self, heard: Mapping[str, Array], language: int | None, temperature: float
    ) -> WindowResult:
        tokens, choose = self.tokens, _chooser(temperature)
        decoder = CachedDecoder(self.embedding, self.decoder, heard)
        first = log_softmax(decoder.step(tokens.start))
        if language is None:
            known = list(tokens.languages.values())
            language = known[int(first[known].argmax())]
        decoder.step(language)
        logits = decoder.step(tokens.translate if self.translate else tokens.transcribe)
        ids: list[int] = []
        total, ended = 0.0, False
        for _ in range(decoder.room - 3):
            logs = next_log_probs(logits, ids, tokens)
            token = choose(logs)
            total += float(logs[token])
            if token == tokens.end:
                ended = True
                break
            ids.append(token)
            logits = decoder.step(token)
        return WindowResult(
            tokens=tuple(ids),
            mean_log=total / (len(ids) + 1),
            silence=float(np.exp(first[tokens.silence])),
            language=language,
            ended=ended,
            text=tokens.text(ids),
            temperature=temperature,
        )


def _placed(part: Segment, begin: float, loud: NDArray[np.float64], how: Decoding) -> Segment:
    """Shift a segment from window to sound time, and trim silence at its ends: by upstream's rule
    the first timestamp lies within the first second, however late the speech starts.
    """
    start, end = without_quiet(loud, part.start, part.end)
    return replace(part, start=begin + start, end=begin + end, decoding=how)


_Choose = Callable[[NDArray[np.float64]], int]


def _chooser(temperature: float) -> _Choose:
    """Greedy choice at temperature 0, else sampling with a fixed seed."""
    if not temperature:
        return lambda logs: int(logs.argmax())
    chance = np.random.default_rng(round(temperature * 10))

    def choose(logs: NDArray[np.float64]) -> int:
        shares = np.exp(log_softmax(logs / temperature))
        return int(chance.choice(len(shares), p=shares / shares.sum()))

    return choose
