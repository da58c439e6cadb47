"""Image classification result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import Classified, Rows


@dataclass(frozen=True, slots=True)
class Classes(Classified):
    """The top K classes of one image, best first.

    Attributes:
        class_id: (K,) int32, index into `labels`.
        score: (K,) float32, probability in 0..1.
        labels: class names; may be empty.
    """

    class_id: NDArray[np.int32]
    score: NDArray[np.float32]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.class_id.ndim != 1 or self.class_id.shape != self.score.shape:
            raise ValueError("class_id and score must be (K,)")

    def __len__(self) -> int:
        return len(self.class_id)

    def _take(self, rows: Rows) -> Classes:
        return Classes(self.class_id[rows], self.score[rows], self.labels)

    @property
    def probs(self) -> NDArray[np.float32]:
        """Probabilities of the top classes, (K,) float32; same as `score`."""
        return self.score

    def label(self, class_id: int) -> str:
        """Name of a class, or its index as text where it has no name."""
        return self.labels[class_id] if class_id < len(self.labels) else str(class_id)

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py)."""
        return {"class_id": self.class_id, "score": self.score}

    def to_json(self) -> list[dict[str, Any]]:
        """One record per class: label, class_id, score."""
        return [
            {"label": self.label(c), "class_id": c, "score": round(s, 4)}
            for c, s in zip(self.class_id.tolist(), self.score.tolist(), strict=True)
        ]

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR image with class names and probabilities in its corner."""
        from rkzoo.vision.draw_text import listed

        # "tench, Tinca tinca": show the first synonym only.
        short = [self.label(c).split(",")[0] for c in self.class_id.tolist()]
        texts = [f"{s:4.0%}  {name}" for s, name in zip(self.score.tolist(), short, strict=True)]
        return listed(image, texts, self.score)

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per class."""
        return [
            f"{s:.3f}  {self.label(c)}"
            for c, s in zip(self.class_id.tolist(), self.score.tolist(), strict=True)
        ]
