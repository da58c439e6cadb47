"""Object detection."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session
from rkzoo.tasks.detect.classes import class_numbers
from rkzoo.tasks.detect.postprocess import Candidates, DetectDecoder
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.image_task import ImageTask
from rkzoo.vision.letterbox import Letterbox
from rkzoo.vision.nms import Suppression, nms
from rkzoo.vision.rotated import nms_rotated


@dataclass(frozen=True)
class DetectOptions:
    """Postprocessing options of detection.

    Attributes:
        confidence: confidence threshold in 0..1.
        iou: IoU threshold for NMS in 0..1.
        limit: maximum number of boxes per image.
        multi_label: one box per class that reaches the threshold, as upstream evaluation does.
        suppression: overrides the NMS mode of the head.
        classes: only these classes, by name or number; None for all. The others are dropped before
            NMS, so that they neither suppress a box nor count for `limit`.
    """

    confidence: float = 0.25
    iou: float = 0.45
    limit: int = 300
    multi_label: bool = False
    suppression: Suppression | None = None
    classes: tuple[str | int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("confidence", "iou"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise RkzooError(
                    f"{name} is {value}.", "It must lie in 0..1.", f"Give e.g. --{name[:4]} 0.25."
                )
        if self.limit < 1:
            raise RkzooError(
                f"A limit of {self.limit} boxes per picture leaves nothing.",
                "",
                "Give at least 1; the default is 300.",
            )


R = TypeVar("R")
T = TypeVar("T")


class HeadTask(ImageTask[R]):
    """Base class of tasks with a detection head. Construct once, call once per image.

    Subclasses turn the boxes that survive NMS into the result in `answer`.
    """

    def __init__(
        self, contract: Contract, session: Session, options: DetectOptions | None = None
    ) -> None:
        if not isinstance(contract.head, DetectHead):
            raise RkzooError(f"{contract.family} is not a detection model.", code=1)
        super().__init__(contract, session)
        self.head = contract.head
        self.options = options or DetectOptions()
        self.decoder = DetectDecoder(contract.head, contract.input.size, session.outputs)
        wanted = self.options.classes
        self._classes = (
            None
            if wanted is None
            else class_numbers(wanted, contract.labels, contract.head.classes)
        )

    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> R:
        """Convert raw output tensors to the result, in source-image pixels."""
        options = self.options
        candidates = self.decoder.candidates(
            outputs, options.confidence, multi_label=options.multi_label
        )
        return self._suppressed(outputs, candidates, letterbox)

    def postprocess_unsuppressed(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> R:
        """Reference implementation of `decode` (one box per cell) that decodes every cell."""
        candidates = self.decoder.all_candidates(outputs, self.options.confidence)
        return self._suppressed(outputs, candidates, letterbox)

    def _suppressed(
        self, outputs: list[NDArray[Any]], candidates: Candidates, letterbox: Letterbox
    ) -> R:
        options = self.options
        if self._classes is not None:
            candidates = candidates[np.flatnonzero(np.isin(candidates.class_id, self._classes))]
        suppress = nms_rotated if self.head.rotated else nms
        kept = suppress(
            candidates.boxes,
            candidates.score,
            candidates.class_id,
            options.iou,
            options.limit,
            options.suppression or self.head.suppression,
        )
        return self.answer(outputs, candidates[kept], letterbox)

    @abstractmethod
    def answer(self, outputs: list[NDArray[Any]], kept: Candidates, letterbox: Letterbox) -> R:
        """Build the result of the boxes that survived NMS, best first, in model pixels."""

    def boxes(self, kept: Candidates, letterbox: Letterbox) -> Detections:
        """Axis-aligned boxes in source-image pixels."""
        return Detections(
            letterbox.boxes_to_source(kept.boxes), kept.score, kept.class_id, self.contract.labels
        )


class Detector(HeadTask[Detections]):
    """Object detector."""

    def answer(
        self, outputs: list[NDArray[Any]], kept: Candidates, letterbox: Letterbox
    ) -> Detections:
        return self.boxes(kept, letterbox)


def promised(part: T | None, what: str) -> T:
    """Return a required part of the head. Raises RkzooError when it is None."""
    if part is None:
        raise RkzooError(
            f"The model has no {what}.",
            "Its description names another task.",
            "Look at it with rkzoo inspect.",
        )
    return part
