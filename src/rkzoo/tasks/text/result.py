"""Text recognition result, stored as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import Collection, Rows, bounding_boxes, pick
from rkzoo.tasks.text.quads import Quads, overlap


@dataclass(frozen=True, slots=True)
class TextLines(Collection):
    """Recognized text lines of one image, in reading order.

    Attributes:
        quads: (N, 4, 2) float32 corners in source-image pixels, clockwise from the top-left one.
        texts: N strings.
        scores: (N,) float32 recognition score in 0..1.
        detection_scores: (N,) float32 detection score in 0..1.
        angles: (N,) int32, 180 for an upside-down line, else 0.
    """

    quads: Quads
    texts: tuple[str, ...]
    scores: NDArray[np.float32]
    detection_scores: NDArray[np.float32]
    angles: NDArray[np.int32]

    def __post_init__(self) -> None:
        n = len(self.texts)
        if self.quads.shape != (n, 4, 2) or any(
            array.shape != (n,) for array in (self.scores, self.detection_scores, self.angles)
        ):
            raise ValueError("quads must be (N, 4, 2), the others (N,)")

    @classmethod
    def none(cls) -> TextLines:
        """The empty result."""
        zero = np.zeros(0, np.float32)
        return cls(np.zeros((0, 4, 2), np.float32), (), zero, zero, np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.texts)

    def _take(self, rows: Rows) -> TextLines:
        return TextLines(
            self.quads[rows],
            pick(self.texts, rows),
            self.scores[rows],
            self.detection_scores[rows],
            self.angles[rows],
        )

    @property
    def boxes(self) -> NDArray[np.float32]:
        """Axis-aligned bounding boxes (N, 4) x1, y1, x2, y2."""
        return bounding_boxes(self.quads)

    @property
    def polygons(self) -> Quads:
        """Corners, (N, 4, 2); same as `quads`."""
        return self.quads

    def to_json(self) -> list[dict[str, Any]]:
        """One record per line: text, score, detection_score, angle, quad in pixels."""
        return [
            {
                "text": text,
                "score": round(float(score), 4),
                "detection_score": round(float(detection), 4),
                "angle": int(angle),
                "quad": [[round(float(value), 2) for value in corner] for corner in quad],
            }
            for text, score, detection, angle, quad in zip(
                self.texts, self.scores, self.detection_scores, self.angles, self.quads, strict=True
            )
        ]

    def draw(
        self, image: NDArray[np.uint8], font: str | PathLike[str] | None = None
    ) -> NDArray[np.uint8]:
        """The BGR image with the quads, and beside it the text at the same positions.

        Args:
            image: BGR uint8 (H, W, 3).
            font: font file with the characters; without one, only ASCII is shown.
        """
        from rkzoo.vision.draw_text import side_by_side

        return side_by_side(image, self.quads, self.texts, self.scores, font)

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per text line."""
        return [f"{score:.3f}  {text}" for score, text in zip(self.scores, self.texts, strict=True)]


@dataclass(frozen=True, slots=True)
class TextAgreement:
    """Agreement of two OCR results. `a` and `b` count their lines, `found` the lines matched by
    position, `same_text` those of them with equal text.
    """

    a: int
    b: int
    matched: int
    same_text: int

    @property
    def places(self) -> float:
        """Share of lines matched by position, 2 * found / (a + b); 1 when both are empty."""
        return _share(self.matched, self.a + self.b)

    @property
    def texts(self) -> float:
        """Share of lines matched by position and with equal text."""
        return _share(self.same_text, self.a + self.b)

    def __add__(self, other: TextAgreement) -> TextAgreement:
        """Sum of the counts of two images."""
        return TextAgreement(
            self.a + other.a,
            self.b + other.b,
            self.matched + other.matched,
            self.same_text + other.same_text,
        )


def _share(matches: int, lines: int) -> float:
    return 2 * matches / lines if lines else 1.0


def agreement(a: TextLines, b: TextLines, iou: float = 0.5) -> TextAgreement:
    """Match the lines of two results one to one by the IoU of their quads.

    Greedy by descending IoU, at least `iou`. Symmetric.
    """
    pairs = match(a.quads, b.quads, iou)
    same = sum(a.texts[i] == b.texts[j] for i, j in pairs)
    return TextAgreement(len(a), len(b), len(pairs), same)


def match(a: NDArray[Any], b: NDArray[Any], iou: float = 0.5) -> list[tuple[int, int]]:
    """Match quads one to one, (index in a, index in b), with an IoU of at least `iou`."""
    shared = overlap(a, b)
    candidates = np.argwhere(shared >= iou)
    best = candidates[np.argsort(-shared[shared >= iou], kind="stable")]
    pairs: list[tuple[int, int]] = []
    used_a: set[int] = set()
    used_b: set[int] = set()
    for i, j in best.tolist():
        if i not in used_a and j not in used_b:
            pairs.append((i, j))
            used_a.add(i)
            used_b.add(j)
    return pairs
