"""Image classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise
from rkzoo.tasks.classify.result import Classes
from rkzoo.tasks.image_task import ImageTask
from rkzoo.vision.letterbox import Letterbox

TOP = 5


class Classifier(ImageTask[Classes]):
    """Image classifier. Construct once, call once per image."""

    def __init__(self, contract: Contract, session: Session, top: int = TOP) -> None:
        """Args:
            contract: describes the model; its head must be a `ClassifyHead`.
            session: the loaded model.
            top: number of classes to return.

        Raises:
            RkzooError: the head is of another kind, or `top` is below 1.
        """
        if not isinstance(contract.head, ClassifyHead):
            raise RkzooError(f"{contract.family} is not a classification model.", code=1)
        if top < 1:
            raise RkzooError(
                f"{top} classes were asked for.",
                "A result has at least one class.",
                "Give 1 or more.",
            )
        super().__init__(contract, session)
        self.head = contract.head
        self.top = top
        # Labels of several outputs stand one after another; nameless classes count from 0 in each.
        self.labels = contract.labels
        if contract.head.outputs and not self.labels:
            self.labels = tuple(
                str(c) for class_output in contract.head.each for c in range(class_output.classes)
            )

    def postprocess(self, outputs: Sequence[NDArray[Any]], letterbox: Letterbox) -> Classes:
        """The session's raw tensors to the best classes, all where they do not exclude each
        other. Raises RkzooError where the model gives another number of classes than was
        promised."""
        each = probabilities(outputs, self.session.outputs, self.head)
        if self.head.classes == 1 and len(self.labels) == 2:
            each = [np.concatenate((1 - each[0], each[0]))]
        ranked: list[tuple[NDArray[np.int32], NDArray[np.float32], str]] = []
        first = 0
        for scores, class_output in zip(each, self.head.each, strict=True):
            best = np.argsort(-scores, kind="stable")[: self.top]
            ranked.append(
                (best.astype(np.int32) + np.int32(first), scores[best], class_output.name)
            )
            first += class_output.classes
        names = tuple(name for ids, _, name in ranked for _ in ids) if self.head.outputs else ()
        ids, scores = (np.concatenate([entry[i] for entry in ranked]) for i in (0, 1))
        return Classes(ids, scores, self.labels, names)


def probabilities(
    outputs: Sequence[NDArray[Any]], specs: Sequence[TensorSpec], head: ClassifyHead
) -> list[NDArray[np.float32]]:
    """(C,) float32 for each output of the head: the probability of each class, after a softmax (or
    of labels a sigmoid) where the graph has none. Equal integers stay equal, so a tie goes to the
    lower class."""
    probabilities = []
    for output, spec, class_output in zip(outputs, specs, head.each, strict=False):
        scores = dequantise(output, spec).reshape(-1)
        if scores.size != class_output.classes:
            raise RkzooError(
                f"The model gave {scores.size} scores for {class_output.classes} classes.",
                "Its description names another number of classes.",
                "Look at it with rkzoo inspect.",
            )
        if not class_output.activated:
            scores = sigmoid(scores) if class_output.multi_label else softmax(scores)
        probabilities.append(scores)
    if len(probabilities) != len(head.each):
        raise RkzooError(
            f"The model has {len(outputs)} outputs, and {len(head.each)} were promised.",
            "Its description does not fit.",
            "Look at it with rkzoo inspect.",
        )
    return probabilities


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of each label by itself, safe for large logits."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64))), np.float32)


def softmax(logits: NDArray[np.float32], axis: int = -1) -> NDArray[np.float32]:
    """Softmax along `axis` as float32, stable for large logits."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True), np.float32)
