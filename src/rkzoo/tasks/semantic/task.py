"""A picture in, the class of each of its pixels out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session, canvas_of
from rkzoo.tasks.semantic.decode import class_map
from rkzoo.tasks.semantic.result import ClassMap
from rkzoo.vision.letterbox import fit


class SemanticSegmenter:
    """A segmentation into classes, ready to run; made once, called for every picture."""

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, SemanticHead):
            raise RkzooError(f"{contract.family} is no segmentation into classes.", code=1)
        if contract.input.fit == "crop":
            raise RkzooError(
                f"{contract.family} would see the middle of a picture only.",
                "A segmentation tells what every pixel shows.",
                "Mend the card: fit must be stretch or letterbox.",
            )
        self.contract, self.session, self.head = contract, session, contract.head
        self._canvas = canvas_of(session, contract.input.size)

    def __call__(self, image: NDArray[np.uint8]) -> ClassMap:
        """BGR (H, W, 3) to its classes at its own size."""
        canvas, letterbox = fit(image, self.contract.input, self._canvas)
        outputs = self.session.run([canvas])
        classes = class_map(outputs[0], self.session.outputs[0], self.head, letterbox)
        return ClassMap(classes, self.contract.labels)
