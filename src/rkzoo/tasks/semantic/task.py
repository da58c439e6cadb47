"""Semantic segmentation."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session
from rkzoo.tasks.image_task import ImageTask, refuse_crop
from rkzoo.tasks.semantic.postprocess import class_map, class_masks
from rkzoo.tasks.semantic.result import ClassMap, ClassMasks
from rkzoo.vision.letterbox import Letterbox


class SemanticSegmenter(ImageTask[ClassMap]):
    """Semantic segmenter. Construct once, call once per image."""

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, SemanticHead):
            raise RkzooError(f"{contract.family} is not a semantic segmentation model.", code=1)
        refuse_crop(contract, "A segmentation covers every pixel.")
        super().__init__(contract, session)
        self.head = contract.head

    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> ClassMap:
        """Convert raw score maps to the class of each source pixel."""
        classes = class_map(outputs[0], self.session.outputs[0], self.head, letterbox)
        return ClassMap(classes, self.contract.labels)


class MultiLabelSegmenter(ImageTask[ClassMasks]):
    """A segmentation whose classes may overlap, ready to run; made once, called for every
    picture."""

    def __init__(self, contract: Contract, session: Session) -> None:
        if not (isinstance(contract.head, SemanticHead) and contract.head.multi_label):
            raise RkzooError(f"{contract.family} is no multi-label segmentation.", code=1)
        refuse_crop(contract, "A segmentation tells what every pixel shows.")
        super().__init__(contract, session)
        self.head = contract.head

    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> ClassMasks:
        """The session's raw maps to the pixels of each class in the source picture."""
        masks = class_masks(outputs[0], self.session.outputs[0], self.head, letterbox)
        return ClassMasks(masks, self.contract.labels)
