"""Text line orientation classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.text import TextClsHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise
from rkzoo.tasks.classify.result import Classes
from rkzoo.tasks.image_task import LinePreprocess
from rkzoo.tasks.text.line_batches import BATCH_PIXELS, shrunk
from rkzoo.tasks.text.quads import Image


class AngleClassifier:
    """Text line orientation classifier. Construct once, call with all lines of an image."""

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, TextClsHead):
            raise RkzooError(f"{contract.family} is not a text angle model.", code=1)
        self.contract, self.session, self.head = contract, session, contract.head
        height, width = contract.input.size
        self._preprocess = LinePreprocess(contract, session)
        batch = session.inputs[0].shape[0]
        self._batch = max(1, BATCH_PIXELS // (height * width)) if batch < 0 else batch

    def preprocess(self, lines: Sequence[Image]) -> NDArray[np.uint8]:
        """Resize BGR lines (h, w, 3) to uint8 (N, height, width, 3) in the contract's colour
        order.
        """
        height, width = self.contract.input.size
        return self._preprocess([shrunk(line, height) for line in lines], width)

    def __call__(self, lines: Sequence[Image]) -> NDArray[np.int32]:
        """Return the rotation of each line in degrees, (N,) int32; 0 below the threshold."""
        return degrees(self.scores(lines), self.head)

    def scores(self, lines: Sequence[Image]) -> NDArray[np.float32]:
        """Return the scores of the head's angles for each line, (N, A)."""
        batches = [np.zeros((0, len(self.head.angles)), np.float32)]
        fixed = self.session.inputs[0].shape[0]
        for start in range(0, len(lines), self._batch):
            part = lines[start : start + self._batch]
            # A fixed batch size needs full batches: pad with the last line.
            missing = max(0, fixed - len(part))
            batch = self.preprocess([*part, *[part[-1]] * missing])
            outputs = self.session.run([batch])
            batches.append(checked(outputs, self.session.outputs, self.head)[: len(part)])
        return np.concatenate(batches)


@dataclass(frozen=True)
class SingleAngle:
    """Tells the angle of a picture that is one line of text."""

    classifier: AngleClassifier

    def __call__(self, image: Image) -> Classes:
        """A BGR picture to its angles, the surest first."""
        (scores,) = self.classifier.scores([image])
        best = np.argsort(-scores, kind="stable")
        labels = tuple(f"{angle} degrees" for angle in self.classifier.head.angles)
        return Classes(best.astype(np.int32), scores[best], labels)


def checked(
    outputs: Sequence[NDArray[Any]], specs: Sequence[TensorSpec], head: TextClsHead
) -> NDArray[np.float32]:
    """Return the scores (N, A) of the head's angles.

    Raises:
        RkzooError: the number of scores differs from the number of angles.
    """
    scores = dequantise(outputs[0], specs[0]).reshape(len(outputs[0]), -1)
    if scores.shape[1] != len(head.angles):
        raise RkzooError(
            f"The angle model gave {scores.shape[1]} scores for {len(head.angles)} angles.",
            "The contract does not fit the model.",
            "Give the head as many angles as the model has classes.",
        )
    return scores


def postprocess(
    outputs: Sequence[NDArray[Any]], specs: Sequence[TensorSpec], head: TextClsHead
) -> NDArray[np.int32]:
    """As `degrees`, of a session's raw tensors."""
    return degrees(checked(outputs, specs, head), head)


def degrees(scores: NDArray[np.float32], head: TextClsHead) -> NDArray[np.int32]:
    """Scores (N, A) to degrees (N,): the best angle where its score reaches the threshold, else
    0."""
    best = scores.argmax(axis=1)
    angles = np.array(head.angles, np.int32)[best]
    sure = np.take_along_axis(scores, best[:, None], axis=1)[:, 0] >= head.threshold
    return np.asarray(np.where(sure, angles, 0), np.int32)
