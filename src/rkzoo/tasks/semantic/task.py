"""Semantic segmentation."""

from __future__ import annotations

from typing import Any, TypeVar

from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session
from rkzoo.tasks.image_task import ImageTask, refuse_crop
from rkzoo.tasks.semantic.postprocess import class_map, class_masks
from rkzoo.tasks.semantic.result import ClassMap, ClassMasks
from rkzoo.vision.letterbox import Letterbox

R = TypeVar("R", ClassMap, ClassMasks)


class _Segmenter(ImageTask[R]):
    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, SemanticHead):
            raise RkzooError(f"{contract.family} is not a semantic segmentation model.", code=1)
        refuse_crop(contract, "A segmentation covers every pixel.")
        super().__init__(contract, session)
        self.head = contract.head


class SemanticSegmenter(_Segmenter[ClassMap]):
    """Semantic segmenter. Construct once, call once per image."""

    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> ClassMap:
        """Convert raw score maps to the class of each source pixel."""
        classes = class_map(outputs[0], self.session.outputs[0], self.head, letterbox)
        return ClassMap(classes, self.contract.labels)


class MultiLabelSegmenter(_Segmenter[ClassMasks]):
    """Semantic segmenter whose classes may overlap. Construct once, call once per image."""

    def __init__(self, contract: Contract, session: Session) -> None:
        if not (isinstance(contract.head, SemanticHead) and contract.head.multi_label):
            raise RkzooError(f"{contract.family} is no multi-label segmentation.", code=1)
        super().__init__(contract, session)

    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> ClassMasks:
        """Convert raw maps to the source pixels of each class."""
        masks = class_masks(outputs[0], self.session.outputs[0], self.head, letterbox)
        return ClassMasks(masks, self.contract.labels)
