"""Text detection with DB (differentiable binarization, https://arxiv.org/abs/1911.08947).

The probability map marks the shrunk core of each line; its contour is boxed and expanded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.text import TextDetHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session
from rkzoo.tasks.collection import Collection, Rows, bounding_boxes
from rkzoo.tasks.image_task import ImageTask
from rkzoo.tasks.text.quads import Image, Quads, corners, sides
from rkzoo.vision.letterbox import Letterbox, fit

# An image larger than the input by this factor is processed in four tiles: otherwise small
# print on an A4 page at 300 dpi is 5 pixels high, and missed.
LARGE = 3
# Overlap of neighbouring tiles in input pixels.
OVERLAP = 192
# Minimum side of a core and of an expanded box in map pixels, as upstream.
LEAST_CORE = 3.0
LEAST_BOX = 5.0
# In source pixels.
LEAST_SOURCE = 3.0


@dataclass(frozen=True, slots=True)
class TextBoxes(Collection):
    """Detected text lines of one image, best first.

    Attributes:
        quads: (N, 4, 2) float32 corners, clockwise from the top-left one, in source-image pixels,
            clipped to the image.
        scores: (N,) float32 in 0..1.
    """

    quads: Quads
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.quads)

    def _take(self, rows: Rows) -> TextBoxes:
        return TextBoxes(self.quads[rows], self.scores[rows])

    @property
    def boxes(self) -> NDArray[np.float32]:
        """Axis-aligned bounding boxes (N, 4) x1, y1, x2, y2."""
        return bounding_boxes(self.quads)

    @property
    def polygons(self) -> Quads:
        """Corners, (N, 4, 2); same as `quads`."""
        return self.quads

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py)."""
        return {"quads": self.quads, "score": self.scores}

    def to_json(self) -> list[dict[str, Any]]:
        """One record per box: score, quad in pixels."""
        return [
            {
                "score": round(float(score), 4),
                "quad": [[round(float(value), 2) for value in corner] for corner in quad],
            }
            for quad, score in zip(self.quads, self.scores, strict=True)
        ]

    def draw(self, image: Image) -> Image:
        """A copy of the BGR image with the quads, coloured by score."""
        from rkzoo.vision.draw_text import confidence_color, outline

        drawn: Image = image.copy()
        outline(drawn, self.quads, [confidence_color(float(score)) for score in self.scores])
        return drawn

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per box."""
        return [
            f"{score:.3f}  " + " ".join(f"({x:.0f}, {y:.0f})" for x, y in quad)
            for quad, score in zip(self.quads, self.scores, strict=True)
        ]


class TextDetector(ImageTask[TextBoxes]):
    """Text detector. Construct once, call once per image."""

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, TextDetHead):
            raise RkzooError(f"{contract.family} is not a text detection model.", code=1)
        super().__init__(contract, session)
        self.head = contract.head

    def postprocess(self, outputs: Sequence[NDArray[Any]], letterbox: Letterbox) -> TextBoxes:
        return postprocess(outputs, self.session.outputs, self.head, letterbox)

    def __call__(self, image: Image) -> TextBoxes:
        size = self.contract.input.size
        if max(image.shape[:2]) > LARGE * max(size) and min(size) > OVERLAP:
            return self._in_four(image)
        return super().__call__(image)

    def _in_four(self, image: Image) -> TextBoxes:
        """Process a large page at nearly twice the input size, in four overlapping tiles whose maps
        are merged before postprocessing, so that no line is cut.
        """
        height, width = self.contract.input.size
        size = (2 * height - OVERLAP, 2 * width - OVERLAP)
        whole, letterbox = fit(image, msgspec.structs.replace(self.contract.input, size=size))
        parts = []
        for top in (0, height - OVERLAP):
            for left in (0, width - OVERLAP):
                np.copyto(self._canvas, whole[:, top : top + height, left : left + width])
                part = self.session.run([self._canvas])[0].reshape(height, width)
                # Each tile keeps its half of the overlap.
                rows = slice(OVERLAP // 2, None) if top else slice(height - OVERLAP // 2)
                columns = slice(OVERLAP // 2, None) if left else slice(width - OVERLAP // 2)
                parts.append(part[rows, columns].copy())
        return self.postprocess([np.block([parts[:2], parts[2:]])], letterbox)


def postprocess(
    outputs: Sequence[NDArray[Any]],
    specs: Sequence[TensorSpec],
    head: TextDetHead,
    letterbox: Letterbox,
) -> TextBoxes:
    """Convert the probability map to boxes in source-image pixels, best first.

    Args:
        outputs: `outputs[0]` holds H x W values (1x1xHxW or 1xHxWx1) of the input size, float or
            quantized; integer maps are thresholded as integers, never dequantized as a whole.
        specs: the output specs.
        head: thresholds.
        letterbox: geometry of the resize.

    Raises:
        RkzooError: the map has another size.
    """
    height, width = letterbox.size
    if not outputs or outputs[0].size != height * width:
        shape = "nothing" if not outputs else "x".join(map(str, outputs[0].shape))
        raise RkzooError(
            f"The text detector gave {shape}, not one value a pixel of {width}x{height}.",
            "Its output is not a probability map, or the model was built for another input size.",
            "Give the contract the size the model was exported with.",
        )
    spec = specs[0]
    whole = outputs[0].reshape(height, width)
    if whole.dtype == np.float16 or whole.dtype.itemsize > 4:
        whole = whole.astype(np.float32)
    # Ignore the padding.
    top, left = letterbox.top, letterbox.left
    part = whole[top : top + letterbox.scaled[0], left : left + letterbox.scaled[1]]
    part = np.ascontiguousarray(part)
    rectangles, scores = _rectangles(part, spec, head)
    if not len(rectangles):
        return TextBoxes(np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32))
    best = np.argsort(-scores, kind="stable")
    rectangles, scores = rectangles[best], scores[best]

    quads = corners(rectangles[:, :2], grown(rectangles[:, 2:4], head), rectangles[:, 4])
    quads += np.array([left, top], np.float32)
    source = letterbox.to_source(quads)
    limit = np.array([letterbox.source[1], letterbox.source[0]], np.float32)
    source = np.clip(source, 0, limit, dtype=np.float32)
    kept = sides(source).min(axis=1) > LEAST_SOURCE
    return TextBoxes(source[kept], scores[kept])


def grown(size: NDArray[Any], head: TextDetHead) -> NDArray[np.float64]:
    """Expand the cores' width and height (N, 2) to those of the whole lines (DB's unclip).

    DB shrinks a line by area * ratio / perimeter on every side. Offsetting a rectangle with round
    joins and boxing the result, as upstream does with a polygon library, equals adding twice that
    distance to both sides.
    """
    size = np.asarray(size, np.float64)
    distance = size.prod(axis=1) * head.unclip_ratio / np.maximum(2 * size.sum(axis=1), 1e-6)
    return np.asarray(size + 2 * distance[:, None])


def at_least(threshold: float, spec: TensorSpec, dtype: np.dtype[Any]) -> float | int:
    """Smallest stored value above `threshold`; the threshold itself for floats.

    May lie outside the integer type's range: then nothing, or everything, is above.
    """
    if dtype.kind == "f":
        return threshold
    scale = 1.0 if spec.scale is None else spec.scale
    return math.floor(threshold / scale + spec.zero_point) + 1


def _mask(part: NDArray[Any], spec: TensorSpec, threshold: float) -> NDArray[np.uint8]:
    limit = at_least(threshold, spec, part.dtype)
    if part.dtype.kind == "f":
        return np.asarray(part > limit).view(np.uint8)
    info = np.iinfo(part.dtype)
    if limit > info.max:
        return np.zeros(part.shape, np.uint8)
    return np.asarray(part >= max(int(limit), info.min)).view(np.uint8)


def _rectangles(
    part: NDArray[Any], spec: TensorSpec, head: TextDetHead
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Cores above the thresholds: (N, 5) centre x, centre y, width, height, degrees in map pixels,
    and their scores (N,).
    """
    contours, tree = cv2.findContours(
        _mask(part, spec, head.threshold), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    rows: list[tuple[float, ...]] = []
    scores: list[float] = []
    # Contours with a parent are holes, not text.
    outer = (
        [c for c, links in zip(contours, tree[0], strict=True) if links[3] < 0] if contours else []
    )
    for contour in outer[: head.max_boxes]:
        (x, y), (width, height), degrees = cv2.minAreaRect(contour)
        # Contours run through pixel centres, so each side lacks one pixel.
        if min(width, height) + 1 < LEAST_CORE:
            continue
        score = _score(part, spec, cv2.boxPoints(((x, y), (width, height), degrees)))
        if score < head.box_threshold:
            continue
        rows.append((x + 0.5, y + 0.5, width + 1, height + 1, degrees))
        scores.append(score)
    rectangles = np.array(rows, np.float64).reshape(-1, 5)
    kept = grown(rectangles[:, 2:4], head).min(axis=1) >= LEAST_BOX
    return rectangles[kept], np.array(scores, np.float32)[kept]


def _score(part: NDArray[Any], spec: TensorSpec, quad: NDArray[Any]) -> float:
    """Mean probability inside a quad (4, 2), computed within its bounding box."""
    height, width = part.shape
    (left, top), (right, bottom) = quad.min(axis=0).tolist(), quad.max(axis=0).tolist()
    x, y = max(0, math.floor(left)), max(0, math.floor(top))
    window = part[y : min(height, math.ceil(bottom) + 1), x : min(width, math.ceil(right) + 1)]
    inside = np.zeros(window.shape, np.uint8)
    cv2.fillConvexPoly(inside, np.rint(quad - (x, y)).astype(np.int32), 1)
    mean = float(cv2.mean(window, inside)[0])
    if spec.scale is not None and part.dtype.kind != "f":
        mean = (mean - spec.zero_point) * spec.scale
    return mean
