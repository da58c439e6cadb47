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
        self.top = min(top, contract.head.classes)

    def decode(self, outputs: Sequence[NDArray[Any]], letterbox: Letterbox) -> Classes:
        """Convert raw output tensors to the top classes.

        Raises:
            RkzooError: the number of outputs differs from `head.classes`.
        """
        scores = probabilities(outputs, self.session.outputs, self.head)
        best = np.argsort(-scores, kind="stable")[: self.top]
        return Classes(best.astype(np.int32), scores[best], self.contract.labels)


def probabilities(
    outputs: Sequence[NDArray[Any]], specs: Sequence[TensorSpec], head: ClassifyHead
) -> NDArray[np.float32]:
    """Return class probabilities, (C,) float32.

    A softmax is applied unless `head.activated`. Equal quantized scores stay equal, so ties go
    to the lower class index.

    Raises:
        RkzooError: the number of scores differs from `head.classes`.
    """
    scores = dequantise(outputs[0], specs[0]).reshape(-1)
    if scores.size != head.classes:
        raise RkzooError(
            f"The model gave {scores.size} scores for {head.classes} classes.",
            "Its description names another number of classes.",
            "Look at it with rkzoo inspect.",
        )
    return scores if head.activated else softmax(scores)


def softmax(logits: NDArray[np.float32], axis: int = -1) -> NDArray[np.float32]:
    """Softmax along `axis` as float32, stable for large logits."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True), np.float32)
