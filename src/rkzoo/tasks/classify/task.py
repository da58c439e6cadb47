"""A picture in, its best classes out."""

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
    """A classification model, ready to run; made once, called for every picture."""

    def __init__(self, contract: Contract, session: Session, top: int = TOP) -> None:
        """`top`: how many classes an answer names."""
        if not isinstance(contract.head, ClassifyHead):
            raise RkzooError(f"{contract.family} is no classification model.", code=1)
        if top < 1:
            raise RkzooError(
                f"{top} classes were asked for.", "An answer names one at least.", "Give 1 or more."
            )
        super().__init__(contract, session)
        self.head = contract.head
        self.top = min(top, contract.head.classes)

    def decode(self, outputs: Sequence[NDArray[Any]], letterbox: Letterbox) -> Classes:
        """The session's raw tensors to the best classes. Raises RkzooError where the model
        gives another number of classes than was promised."""
        scores = probabilities(outputs, self.session.outputs, self.head)
        best = np.argsort(-scores, kind="stable")[: self.top]
        return Classes(best.astype(np.int32), scores[best], self.contract.labels)


def probabilities(
    outputs: Sequence[NDArray[Any]], specs: Sequence[TensorSpec], head: ClassifyHead
) -> NDArray[np.float32]:
    """(C,) float32: the probability of each class, after a softmax where the graph has none.
    Equal integers stay equal, so a tie goes to the lower class."""
    scores = dequantise(outputs[0], specs[0]).reshape(-1)
    if scores.size != head.classes:
        raise RkzooError(
            f"The model gave {scores.size} scores for {head.classes} classes.",
            "Its description names another number of classes.",
            "Look at it with rkzoo inspect.",
        )
    return scores if head.activated else softmax(scores)


def softmax(logits: NDArray[np.float32], axis: int = -1) -> NDArray[np.float32]:
    """Probabilities along an axis, safe for large logits."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True), np.float32)
