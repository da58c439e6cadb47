"""Postprocessing of semantic segmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.errors import RkzooError
from rkzoo.session import dequantise, plain
from rkzoo.vision.letterbox import Letterbox
from rkzoo.vision.maps import nearest_to_source, to_source

Map = NDArray[np.uint8]


def class_map(
    output: NDArray[Any], spec: TensorSpec, head: SemanticHead, letterbox: Letterbox
) -> Map:
    """Return the class of each source pixel, uint8 (H, W); ties go to the lower class.

    Score maps are resized to the model's input, cropped to the image area, resized to the source
    (bilinear each time), and only then compared.

    Raises:
        RkzooError: the output does not fit the head.
    """
    if head.picked:
        picked = output.reshape(output.shape[-2:])
        _check(int(picked.max(initial=0)) + 1, head, most=True)
        return nearest_to_source(picked.astype(np.uint8), letterbox)
    maps = channels_first(output, spec, head.classes)

    def placed(number: int) -> NDArray[np.float32]:
        return to_source(dequantise(maps[number], spec), letterbox, corners=head.corners)

    if len(maps) == 1 and head.classes == 2:
        return np.asarray(placed(0) > head.limit, np.uint8)
    _check(len(maps), head)
    best = placed(0)
    class_map = np.zeros(letterbox.source, np.uint8)
    # One class at a time: all at once would take C times the memory of the image.
    for number in range(1, len(maps)):
        other = placed(number)
        class_map[other > best] = number
        np.maximum(best, other, out=best)
    return class_map


def class_masks(
    output: NDArray[Any], spec: TensorSpec, head: SemanticHead, letterbox: Letterbox
) -> NDArray[np.bool_]:
    """(C, H, W) at the size of the source picture: where each class of a multi-label head is.
    Scaled as in `class_map`. Raises RkzooError where the output is not what the head promises."""
    maps = channels_first(output, spec, head.classes)
    _check(len(maps), head)
    class_masks = np.empty((len(maps), *letterbox.source), np.bool_)
    for number, scores in enumerate(maps):
        class_masks[number] = (
            to_source(dequantise(scores, spec), letterbox, corners=head.corners) > head.limit
        )
    return class_masks


def channels_first(output: NDArray[Any], spec: TensorSpec, classes: int) -> NDArray[Any]:
    """Return an output of any layout as (C, h, w), without the padding channels of NC1HWC2."""
    native = spec.layout == "NC1HWC2"
    if output.ndim != 4 and not native:
        raise RkzooError(
            f"The model gave an output of {list(output.shape)}.",
            "A segmentation gives a map for each class.",
            "Look at it with rkzoo inspect.",
        )
    planes = plain(output, spec)[0]
    return np.asarray(planes[:classes] if native else planes)


def _check(maps: int, head: SemanticHead, *, most: bool = False) -> None:
    if maps != head.classes and not (most and maps < head.classes):
        raise RkzooError(
            f"The model gave {maps} classes, and {head.classes} were promised.",
            "Its description names another number of classes.",
            "Look at it with rkzoo inspect.",
        )
