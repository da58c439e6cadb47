"""Streaming speech recognition with transducers (Zipformer)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rkzoo.audio.fbank import RATE, Floats
from rkzoo.audio.fbank import Stream as Frames
from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import TransducerHead
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_text
from rkzoo.session import Array, Session, run_named
from rkzoo.tasks.speech.transcript import Transcript
from rkzoo.tasks.speech.words import TimedToken, segments_of

_SPACE = "▁"
_NEW = "new_"


@dataclass(frozen=True)
class TransducerRecognizer:
    """Transducer speech recognizer: call it with a sound, or feed a `stream`. `pieces` maps token
    id to text.
    """

    encoder: Session
    decoder: Session
    joiner: Session
    head: TransducerHead
    pieces: dict[int, str]

    def __call__(self, sound: Sound) -> Transcript:
        stream = self.stream()
        stream.accept(sound.at(RATE))
        stream.finish()
        return stream.transcript()

    def stream(self) -> TransducerStream:
        """Start a new stream."""
        return TransducerStream(self)


class TransducerStream:
    """Incremental recognition of one sound: feed 16 kHz samples with `accept`, read `transcript` at
    any time, call `finish` at the end.
    """

    def __init__(self, of: TransducerRecognizer) -> None:
        self._of = of
        self._x = of.encoder.inputs[0]
        _, self._segment, bins = self._x.shape
        self._fbank = Frames(bins)
        self._frames: Floats = np.zeros((0, bins), np.float32)
        self._caches: dict[str, Array] = {
            spec.name: np.zeros(spec.shape, spec.dtype) for spec in of.encoder.inputs[1:]
        }
        head = of.head
        self._tokens = [head.blank] * head.context
        self._decoded = self._decode()
        self._timed_tokens: list[TimedToken] = []
        self._steps = 0  # encoder frames so far
        self._samples = 0
        self._taken = 0  # feature frames consumed so far

    def accept(self, samples: Floats) -> None:
        """Process samples, float32 (N,) in -1..1 at 16 kHz."""
        self._samples += len(samples)
        self._accept(samples)

    def finish(self) -> None:
        """Process the remaining frames, padded with silence."""
        count = (self._samples + 80) // 160
        silence = np.zeros(self._of.head.hop * 160, np.float32)
        while self._taken < count:
            self._accept(silence)

    def transcript(self) -> Transcript:
        """The transcript so far."""
        return Transcript(segments_of(self._timed_tokens))

    def _accept(self, samples: Floats) -> None:
        self._frames = np.concatenate((self._frames, self._fbank.accept(samples)))
        while len(self._frames) >= self._segment:
            self._read(self._frames[: self._segment])
            self._frames = self._frames[self._of.head.hop :]
            self._taken += self._of.head.hop

    def _read(self, segment: Floats) -> None:
        """Process one segment: one encoder run, then at most one token per encoder frame
        (greedy).
        """
        outputs = run_named(self._of.encoder, {self._x.name: segment[None], **self._caches})
        encoded = next(iter(outputs.values()))[0]
        lost = [name for name in self._caches if _NEW + name not in outputs]
        if lost:
            raise RkzooError(
                f"The encoder does not give back {lost[0]}.",
                f"What it remembers must come out of it as {_NEW}{lost[0]}.",
                "Export it as icefall does.",
            )
        self._caches = {
            name: np.asarray(outputs[_NEW + name], old.dtype).reshape(old.shape)
            for name, old in self._caches.items()
        }
        head = self._of.head
        for frame in encoded:
            scores = self._run(self._of.joiner, frame[None], self._decoded)
            token = int(scores.reshape(-1).argmax())
            if token != head.blank and token not in head.skipped:
                start = self._steps * head.step
                text = self._of.pieces.get(token, "").replace(_SPACE, " ")
                self._timed_tokens.append(TimedToken(start, start + head.step, text))
                self._tokens.append(token)
                self._decoded = self._decode()
            self._steps += 1

    def _decode(self) -> Array:
        last = np.array([self._tokens[-self._of.head.context :]], np.int64)
        return self._run(self._of.decoder, last)

    @staticmethod
    def _run(session: Session, *arrays: Array) -> Array:
        names = [spec.name for spec in session.inputs]
        return next(iter(run_named(session, dict(zip(names, arrays, strict=True))).values()))


def read_pieces(path: Path) -> dict[int, str]:
    """Read a vocabulary: lines of token, space, id; the token may be empty.

    Raises:
        RkzooError: the file cannot be read, or has another format.
    """
    pieces: dict[int, str] = {}
    try:
        with os_errors_explained(f"The vocabulary {path} cannot be read."):
            lines = read_text(path).splitlines()
        for line in lines:
            if line.strip():
                piece, _, number = line.rstrip().rpartition(" ")
                pieces[int(number)] = piece.strip()
    except ValueError as error:  # not a number, or not UTF-8
        raise RkzooError(
            f"{path} is not a vocabulary of a transducer.",
            "Each line holds a piece of text and its number.",
            "Fetch the model again with rkzoo fetch.",
        ) from error
    return pieces
