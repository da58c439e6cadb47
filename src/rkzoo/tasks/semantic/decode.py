"""From the maps of a segmentation to the class of each pixel of the source picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract import SemanticHead, TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.session import dequantise
from rkzoo.vision.letterbox import Letterbox

Map = NDArray[np.uint8]
F32 = NDArray[np.float32]


def class_map(
    output: NDArray[Any], spec: TensorSpec, head: SemanticHead, letterbox: Letterbox
) -> Map:
    """(H, W) uint8 at the size of the source picture: the best class of each pixel; of equal
    ones the lower. Raises RkzooError where the output is not what the head promises.

    Maps of numbers are brought to the size of the model's input, the part with the picture is
    taken, that is brought to the picture's size (bilinear each time), and only then compared.
    """
    if head.picked:
        picked = output.reshape(output.shape[-2:])
        _check(int(picked.max(initial=0)) + 1, head, most=True)
        return _resized(_part(_nearest(picked.astype(np.uint8), letterbox.size), letterbox),
                        letterbox.source, cv2.INTER_NEAREST_EXACT)  # fmt: skip
    maps = channels_first(output, spec, 1 if output.shape[1:] == (1,) else head.classes)
    if len(maps) == 1 and head.classes == 2:
        return np.asarray(_at_source(dequantise(maps[0], spec), head, letterbox) > head.threshold,
                          np.uint8)  # fmt: skip
    _check(len(maps), head)
    best = _at_source(dequantise(maps[0], spec), head, letterbox)
    found = np.zeros(letterbox.source, np.uint8)
    # One class after another: all at once would take C times the picture's memory.
    for number in range(1, len(maps)):
        other = _at_source(dequantise(maps[number], spec), head, letterbox)
        found[other > best] = number
        np.maximum(best, other, out=best)
    return found


def channels_first(output: NDArray[Any], spec: TensorSpec, classes: int) -> NDArray[Any]:
    """(C, h, w) of an output in any layout; NC1HWC2 is filled up to whole blocks, which go."""
    if spec.layout == "NC1HWC2":
        _, blocks, height, width, block = output.shape
        planes = output[0].transpose(0, 3, 1, 2).reshape(blocks * block, height, width)
        return np.asarray(planes[:classes])
    if output.ndim != 4:
        raise RkzooError(
            f"The model gave an output of {list(output.shape)}.",
            "A segmentation gives a map for each class.",
            "Look at it with rkzoo inspect.",
        )
    return np.asarray(output[0].transpose(2, 0, 1) if spec.layout == "NHWC" else output[0])


def aligned(values: F32, size: tuple[int, int]) -> F32:
    """(h, w) bilinear to `size` (height, width), its corners on the corners."""
    rows, columns = (_weights(n, m) for n, m in zip(values.shape, size, strict=True))
    return np.asarray(rows @ values @ columns.T, np.float32)


def _weights(count: int, wanted: int) -> F32:
    """(wanted, count): what each old sample gives to each new one."""
    place = np.linspace(0, count - 1, wanted)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(count)))
    return np.asarray(weights, np.float32)


def _at_source(values: F32, head: SemanticHead, letterbox: Letterbox) -> F32:
    if head.corners:
        whole = aligned(values, letterbox.size)
    else:
        whole = np.asarray(_resized(values, letterbox.size, cv2.INTER_LINEAR), np.float32)
    return np.asarray(
        _resized(_part(whole, letterbox), letterbox.source, cv2.INTER_LINEAR), np.float32
    )


def _nearest(values: Map, size: tuple[int, int]) -> Map:
    return np.asarray(_resized(values, size, cv2.INTER_NEAREST_EXACT), np.uint8)


def _resized(values: NDArray[Any], size: tuple[int, int], way: int) -> NDArray[Any]:
    if values.shape == size:
        return values
    return cv2.resize(np.ascontiguousarray(values), size[::-1], interpolation=way)


def _part(values: NDArray[Any], box: Letterbox) -> NDArray[Any]:
    """Where the picture lies in the input."""
    height, width = box.scaled
    return values[box.top : box.top + height, box.left : box.left + width]


def _check(maps: int, head: SemanticHead, *, most: bool = False) -> None:
    if maps != head.classes and not (most and maps < head.classes):
        raise RkzooError(
            f"The model gave {maps} classes, and {head.classes} were promised.",
            "Its description names another number of classes.",
            "Look at it with rkzoo inspect.",
        )
