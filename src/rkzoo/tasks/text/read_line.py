"""Text line recognition (CTC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.text import TextRecHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise
from rkzoo.tasks.ctc import collapse_repeats
from rkzoo.tasks.image_task import LinePreprocess
from rkzoo.tasks.text.line_batches import (
    BATCH_PIXELS,
    WIDEST,
    LineChunk,
    bucket,
    split_lines,
    width_at,
)
from rkzoo.tasks.text.quads import Image


@dataclass(frozen=True, slots=True)
class RecognizedText:
    """Recognized text of one line. `score` in 0..1 is the mean over its `count` characters, 0 for
    an empty line.
    """

    text: str
    score: float
    count: int


class LineReader:
    """Text line recognizer. Construct once, call with all lines of an image."""

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, TextRecHead):
            raise RkzooError(f"{contract.family} is not a text recognition model.", code=1)
        self.contract, self.session, self.head = contract, session, contract.head
        self.height, self.width = contract.input.size
        self._preprocess = LinePreprocess(contract, session)
        self._batch, _, free, _ = session.inputs[0].shape
        self._free = free < 0
        self._widest = WIDEST if self._free else free

    def preprocess(self, part: Sequence[Image], width: int) -> NDArray[np.uint8]:
        """Resize BGR lines (h, w, 3) to uint8 (N, height, width, 3) in the contract's colour
        order.
        """
        return self._preprocess(part, width)

    def __call__(self, lines: Sequence[Image]) -> list[RecognizedText]:
        """Recognize BGR lines (h, w, 3) of any size; results are in the order given."""
        parts = split_lines(lines, self.height, self._widest)
        read: list[RecognizedText | None] = [None] * len(parts)
        for width, members in self._buckets(parts).items():
            limit = self._limit(width)
            for start in range(0, len(members), limit):
                some = members[start : start + limit]
                recognized_texts = self._read([parts[i].image for i in some], width)
                for i, reading in zip(some, recognized_texts, strict=True):
                    read[i] = reading
        return joined(len(lines), parts, [reading for reading in read if reading is not None])

    def _buckets(self, parts: Sequence[LineChunk]) -> dict[int, list[int]]:
        if not self._free:
            return {self._widest: list(range(len(parts)))} if parts else {}
        buckets: dict[int, list[int]] = {}
        for i, part in enumerate(parts):
            width = bucket(width_at(part.image, self.height), self.width, self._widest)
            buckets.setdefault(width, []).append(i)
        return buckets

    def _limit(self, width: int) -> int:
        return self._batch if self._batch > 0 else max(1, BATCH_PIXELS // (self.height * width))

    def _read(self, lines: Sequence[Image], width: int) -> list[RecognizedText]:
        # A fixed batch size needs full batches: pad with the last line.
        missing = max(0, self._batch - len(lines))
        batch = self.preprocess([*lines, *[lines[-1]] * missing], width)
        outputs = self.session.run([batch])
        recognized_texts = postprocess(
            outputs, self.session.outputs, self.head, self.contract.labels
        )
        return recognized_texts[: len(lines)]


def postprocess(
    outputs: Sequence[NDArray[Any]],
    specs: Sequence[TensorSpec],
    head: TextRecHead,
    labels: Sequence[str],
) -> list[RecognizedText]:
    """Greedy CTC decoding of scores (N, T, C), float or quantized, to N readings.

    Args:
        outputs, specs: raw tensors and their specs.
        head: blank class.
        labels: text of each class.

    Raises:
        RkzooError: the number of labels is not C.
    """
    scores = outputs[0]
    if scores.ndim != 3 or scores.shape[2] != len(labels):
        shape = "x".join(map(str, scores.shape))
        raise RkzooError(
            f"The text recogniser gave {shape} scores for {len(labels)} characters.",
            "The list of characters does not belong to this model.",
            "Use the dictionary the model was trained with, with the blank and the space.",
        )
    best = scores.argmax(axis=2)
    top = dequantise(np.take_along_axis(scores, best[:, :, None], axis=2)[:, :, 0], specs[0])
    recognized_texts = []
    for classes, confidence in zip(best, top, strict=True):
        chosen = collapse_repeats(classes, head.blank)
        text = "".join(labels[i] for i in classes[chosen])
        count = len(chosen)
        recognized_texts.append(
            RecognizedText(text, float(confidence[chosen].mean()) if count else 0.0, count)
        )
    return recognized_texts


def joined(
    lines: int, parts: Sequence[LineChunk], read: Sequence[RecognizedText]
) -> list[RecognizedText]:
    """Join the readings of pieces to those of `lines` whole lines."""
    recognized_texts = [RecognizedText("", 0.0, 0)] * lines
    for part, reading in zip(parts, read, strict=True):
        recognized_texts[part.line] = _append(recognized_texts[part.line], reading, part.gap)
    return recognized_texts


def _append(before: RecognizedText, after: RecognizedText, gap: bool) -> RecognizedText:
    count = before.count + after.count
    if not before.count or not after.count:
        return after if not before.count else before
    # Restore the space that the recognizer drops at the edge of a piece, for ASCII text only.
    spaced = gap and (before.text[-1:] + after.text[:1]).isascii()
    text = before.text + (" " if spaced and before.text[-1] != " " else "") + after.text
    score = (before.score * before.count + after.score * after.count) / count
    return RecognizedText(text, score, count)
