"""Postprocessing of face detectors, in input pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.faces import CentreFaceHead, FaceHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.session import dequantise

F32 = NDArray[np.float32]
_BOX, _SCORE = 4, 2
# Channels of CenterFace's maps.
_MAPS = (1, 2, 2, 10)
# Clamp of log sizes: no image is larger than exp of this.
_MOST_LOG = 20.0


def anchors(head: FaceHead, size: tuple[int, int]) -> F32:
    """Generate anchors (N, 3): centre x, centre y and side in pixels, in the order of the outputs.

    Args:
        head: strides and anchor sides.
        size: input (height, width).
    """
    parts = []
    for stride, sides in zip(head.strides, head.anchors, strict=True):
        rows, columns = (-(-side // stride) for side in size)
        y, x, side = np.meshgrid(
            (np.arange(rows) + 0.5) * stride,
            (np.arange(columns) + 0.5) * stride,
            np.array(sides),
            indexing="ij",
        )
        parts.append(np.stack([x, y, side], axis=-1).reshape(-1, 3))
    return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Faces before NMS, in input pixels.

    Attributes:
        boxes: (M, 4) x1, y1, x2, y2.
        points: (M, 5, 2) landmarks, or (M, 4, 2) plate corners.
        score: (M,) in 0..1.
    """

    boxes: F32
    points: F32
    score: F32

    def __getitem__(self, index: NDArray[Any]) -> Candidates:
        return Candidates(self.boxes[index], self.points[index], self.score[index])


class FaceDecoder:
    """Decodes the three outputs of RetinaFace. Raises RkzooError when they do not fit the head."""

    def __init__(self, head: FaceHead, size: tuple[int, int], specs: Sequence[TensorSpec]) -> None:
        self.head, self.specs = head, tuple(specs)
        self.anchors = anchors(head, size)
        self._width = 2 * head.points
        widths = [spec.shape[-1] if spec.shape else 0 for spec in specs]
        if sorted(widths) != [_SCORE, _BOX, self._width]:
            shapes = ", ".join("x".join(map(str, spec.shape)) for spec in specs)
            raise RkzooError(
                "The outputs are not those of a RetinaFace.",
                f"They are {shapes}; boxes of 4, scores of 2 and points of {self._width} numbers "
                "are needed.",
                "Look at the model with rkzoo inspect.",
            )
        self._at = {width: widths.index(width) for width in widths}

    def candidates(self, outputs: Sequence[NDArray[Any]], confidence: float) -> Candidates:
        """Faces whose score reaches `confidence`, in anchor order."""
        scores = self._scores(outputs)
        if scores.size != len(self.anchors):
            raise RkzooError(
                f"The model has {scores.size} anchors, its description {len(self.anchors)}.",
                f"The anchors of the description are {self.head.anchors}.",
                "Give those of the training with --anchors.",
            )
        kept = np.flatnonzero(scores >= confidence)
        where = self.anchors[kept]
        box = self._taken(outputs, _BOX, kept)
        points = self._taken(outputs, self._width, kept).reshape(-1, self.head.points, 2)
        middle, side = where[:, :2], where[:, 2:]
        near, grown = self.head.variances
        centre = middle + box[:, :2] * near * side
        half = np.exp(np.minimum(box[:, 2:] * grown, _MOST_LOG)) * side / 2
        return Candidates(
            np.concatenate([centre - half, centre + half], axis=1).astype(np.float32),
            (middle[:, None] + points * near * side[:, None]).astype(np.float32),
            scores[kept],
        )

    def _scores(self, outputs: Sequence[NDArray[Any]]) -> F32:
        """Face probability of each anchor, (N,)."""
        at = self._at[_SCORE]
        both = outputs[at].reshape(-1, _SCORE)
        if self.head.activated:
            return dequantise(both[:, 1], self.specs[at])
        values = dequantise(both, self.specs[at])
        return np.asarray(
            1 / (1 + np.exp(np.clip(values[:, 0] - values[:, 1], -80, 80))), np.float32
        )

    def _taken(self, outputs: Sequence[NDArray[Any]], width: int, rows: NDArray[Any]) -> F32:
        at = self._at[width]
        return dequantise(outputs[at].reshape(-1, width)[rows], self.specs[at])


class CentreFaceDecoder:
    """Decodes the four maps of CenterFace. Raises RkzooError when they do not fit the head."""

    def __init__(
        self, head: CentreFaceHead, size: tuple[int, int], specs: Sequence[TensorSpec]
    ) -> None:
        self.head, self.specs = head, tuple(specs)
        self.shape = tuple(-(-side // head.stride) for side in size)
        if [spec.shape[1:] for spec in specs] != [(n, *self.shape) for n in _MAPS]:
            shapes = ", ".join("x".join(map(str, spec.shape)) for spec in specs)
            raise RkzooError(
                "The outputs are not those of a CenterFace.",
                f"They are {shapes}; maps of 1, 2, 2 and 10 channels and {self.shape[0]} by "
                f"{self.shape[1]} cells are needed.",
                "Look at the model with rkzoo inspect.",
            )

    def candidates(self, outputs: Sequence[NDArray[Any]], confidence: float) -> Candidates:
        """Faces whose score reaches `confidence`, in row-major order."""
        score = dequantise(outputs[0], self.specs[0]).reshape(-1)
        kept = np.flatnonzero(score >= confidence)
        logs, offsets, points = (
            dequantise(array.reshape(channels, -1)[:, kept], spec).T
            for array, spec, channels in zip(outputs[1:], self.specs[1:], _MAPS[1:], strict=True)
        )
        cells = np.stack(np.divmod(kept, self.shape[1]), axis=1)
        # All outputs of the network are ordered y, x.
        middle = ((cells + offsets + 0.5) * self.head.stride)[:, ::-1]
        side = (np.exp(np.minimum(logs, _MOST_LOG)) * self.head.stride)[:, ::-1]
        corner = middle - side / 2
        shares = points.reshape(-1, 5, 2)[:, :, ::-1]
        return Candidates(
            np.concatenate([corner, corner + side], axis=1).astype(np.float32),
            (corner[:, None] + shares * side[:, None]).astype(np.float32),
            score[kept],
        )
