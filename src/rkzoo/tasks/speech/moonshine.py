"""Moonshine speech recognition, for sounds of any length."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import msgspec
import numpy as np

from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import MoonshineHead
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_text
from rkzoo.session import Array, Session, run_named
from rkzoo.tasks.speech.cached_decoder import HIDDEN, CachedDecoder
from rkzoo.tasks.speech.transcript import Segment, Transcript
from rkzoo.tasks.speech.whisper_decoding import repetitive
from rkzoo.tasks.speech.windows import Floats, loud_seconds, window_at, without_quiet

RATE = 16000
_COLUMN = 64
_SHORTEST = 5.0  # seconds: shorter windows are not halved again
_NOTHING = 0.1  # seconds: too short to contain speech
# Above this ratio of compression, by zlib, a text repeats itself (Whisper's threshold).
_REPETITIVE = 2.4
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Moonshine:
    """Moonshine speech recognizer. `pieces` maps token id to its piece of text."""

    encoder: Session
    embedding: Session
    decoder: Session
    head: MoonshineHead
    pieces: Mapping[int, str]

    def __call__(self, sound: Sound) -> Transcript:
        samples = sound.at(RATE)
        whole = self.encoder.inputs[0].shape[2] * _COLUMN
        segments: list[Segment] = []
        at, size = 0, whole
        while len(samples) - at > _NOTHING * RATE:
            window = window_at(samples, at, size, RATE)
            loud = loud_seconds(window, RATE)
            seconds = len(window) / RATE
            ids: list[int] = []
            if loud[-1]:
                ids, ended = self.answer(window)
                lost = not ended or repetitive(text_of(ids, self.pieces)) > _REPETITIVE
                if lost and seconds > _SHORTEST:
                    size = len(window) // 2
                    continue
            if text := text_of(ids, self.pieces):
                start, end = without_quiet(loud, 0.0, seconds)
                begin = at / RATE
                segments.append(Segment(begin + start, begin + end, f" {text}", tuple(ids)))
            at, size = at + len(window), whole
        return Transcript(tuple(segments))

    def answer(self, window: Floats) -> tuple[list[int], bool]:
        """Likeliest tokens of a window, and whether the last was followed by the end token. As many
        as upstream allows for so many seconds, since a network that loops does not end."""
        decoder = CachedDecoder(self.embedding, self.decoder, self._encode(window))
        most = min(decoder.room, ceil(self.head.tokens_per_second * len(window) / RATE))
        ids: list[int] = []
        token = self.head.start
        for _ in range(most):
            token = int(decoder.step(token).argmax())
            if token == self.head.end:
                return ids, True
            ids.append(token)
        return ids, False

    def _encode(self, window: Floats) -> dict[str, Array]:
        """What the decoder hears: keys and values, and which of them are of the sound itself."""
        shapes = {spec.name: spec.shape for spec in self.encoder.inputs}
        _, column, rows = shapes["samples"]
        padded = np.zeros(column * rows, np.float32)
        padded[: len(window)] = window
        first, last = frames(len(window))
        share = np.zeros(shapes["share"], np.float32)
        share[:, :first] = 1 / max(first, 1)
        hidden = np.where(np.arange(shapes["mask"][-1]) < last, 0, HIDDEN).astype(np.float32)
        outputs = run_named(
            self.encoder,
            {
                "samples": padded.reshape(rows, column).T[None],
                "share": share,
                "mask": hidden[None, None, None],
            },
        )
        return outputs | {"cross_mask": hidden[None, None, None]}


def frames(samples: int) -> tuple[int, int]:
    """Frames of the first convolution (127 wide, steps of 64), and of the encoder's last (7 by 3, 3
    by 2), that lie within so many samples."""
    first = max((samples - 127) // 64 + 1, 0)
    second = max((first - 7) // 3 + 1, 0)
    return first, max((second - 3) // 2 + 1, 0)


def text_of(ids: Sequence[int], pieces: Mapping[int, str]) -> str:
    """Text of tokens: pieces of SentencePiece, bytes as <0x41>; other <...> are dropped."""
    data = b""
    for token in ids:
        piece = pieces.get(token, "")
        byte = _BYTE.fullmatch(piece)
        if byte:
            data += bytes([int(byte[1], 16)])
        elif not (piece.startswith("<") and piece.endswith(">") and len(piece) > 2):
            data += piece.replace("▁", " ").encode()
    return data.decode("utf-8", "replace").strip()


class _Vocabulary(msgspec.Struct):
    vocab: dict[str, int]


class _Tokenizer(msgspec.Struct):
    model: _Vocabulary


def read_pieces(path: Path) -> dict[int, str]:
    """Pieces by id of a tokenizer.json. Raises RkzooError when it is damaged."""
    with os_errors_explained(f"The vocabulary {path} cannot be read."):
        text = read_text(path)
    try:
        found = msgspec.json.decode(text, type=_Tokenizer)
    except msgspec.MsgspecError as error:
        raise RkzooError(
            f"{path} is not a vocabulary of Moonshine.",
            f"It must be a tokenizer.json with model.vocab ({error}).",
            "Fetch the model again with rkzoo fetch.",
        ) from error
    return {number: piece for piece, number in found.model.vocab.items()}
