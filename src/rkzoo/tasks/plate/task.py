"""License plate recognition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.text import PlateHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise
from rkzoo.tasks.ctc import collapse_repeats
from rkzoo.tasks.image_task import ImageTask
from rkzoo.tasks.plate.ctc import Allowed, allowed, best_path
from rkzoo.tasks.text.result import TextLines
from rkzoo.vision.letterbox import Letterbox


class PlateReader(ImageTask[TextLines]):
    """License plate recognizer for an image of one plate. Construct once, call once per image.

    The result is one text line over the whole image, or none where only blanks are found.
    """

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, PlateHead):
            raise RkzooError(f"{contract.family} is not a license plate reader.", code=1)
        super().__init__(contract, session)
        self.head = contract.head
        labels, blank = contract.labels, contract.head.blank
        self._layouts = [allowed(layout, labels, blank) for layout in contract.head.layouts]

    def read(self, image: NDArray[np.uint8]) -> tuple[str, float]:
        """Recognize one plate.

        Args:
            image: BGR (H, W, 3).

        Returns:
            The text, and its score: the mean probability of its characters in 0..1, 0 for no text.
        """
        arrays, _ = self.preprocess(image)
        return self._text(self.session.run(arrays))

    def _text(self, outputs: Sequence[NDArray[Any]]) -> tuple[str, float]:
        return postprocess(
            outputs, self.session.outputs, self.head.blank, self.contract.labels, self._layouts
        )

    def postprocess(self, outputs: Sequence[NDArray[Any]], letterbox: Letterbox) -> TextLines:
        """Convert raw output tensors to one text line over the whole image."""
        text, score = self._text(outputs)
        if not text:
            return TextLines.none()
        height, width = letterbox.source
        corners = [[0, 0], [width, 0], [width, height], [0, height]]
        return TextLines(
            np.array([corners], np.float32),
            (text,),
            np.array([score], np.float32),
            np.ones(1, np.float32),
            np.zeros(1, np.int32),
        )


def postprocess(
    outputs: Sequence[NDArray[Any]],
    specs: Sequence[TensorSpec],
    blank: int,
    labels: Sequence[str],
    layouts: Sequence[Allowed] = (),
) -> tuple[str, float]:
    """Decode logits 1xCxT to the text and its score.

    Args:
        outputs, specs: raw tensors, float or quantized, and their specs.
        blank: index of the blank class.
        labels: character of each class.
        layouts: allowed plate layouts (see `allowed`).

    Raises:
        RkzooError: C differs from the number of labels.
    """
    logits = dequantise(outputs[0], specs[0]).astype(np.float64)
    if logits.ndim != 3 or logits.shape[:2] != (1, len(labels)) or blank >= len(labels):
        shape = "x".join(map(str, logits.shape))
        raise RkzooError(
            f"The plate reader gave {shape} scores for {len(labels)} characters.",
            "The list of characters does not belong to this model.",
            "Give the characters of its training with --labels, the blank included.",
        )
    shifted = logits[0] - logits[0].max(axis=0)
    logs = shifted - np.log(np.exp(shifted).sum(axis=0))
    path = best_path(logs, blank, layouts)
    starts = collapse_repeats(path, blank)
    if not len(starts):
        return "", 0.0
    text = "".join(labels[index] for index in path[starts])
    return text, float(np.exp(logs[path[starts], starts]).mean())
