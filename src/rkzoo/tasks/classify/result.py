"""What a picture shows as a whole: the best classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import Classified, Rows


@dataclass(frozen=True, slots=True)
class Classes(Classified):
    """The best classes of one picture, the best first.

    `class_id` (K,) int32 into `labels` (names may be missing), `score` (K,) float32: their
    probability, 0..1.
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
        """`score`, (K,): the probabilities of the best classes, the best first."""
        return self.score

    def label(self, class_id: int) -> str:
        """The name of a class, or its number where no name is known."""
        return self.labels[class_id] if class_id < len(self.labels) else str(class_id)

    def record(self) -> dict[str, NDArray[Any]]:
        """The arrays by which a data set scores it (accuracy/answers.py)."""
        return {"class_id": self.class_id, "score": self.score}

    def to_json(self) -> list[dict[str, Any]]:
        """One record a class: label, class_id, score."""
        return [
            {"label": self.label(c), "class_id": c, "score": round(s, 4)}
            for c, s in zip(self.class_id.tolist(), self.score.tolist(), strict=True)
        ]

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR picture with the names and probabilities in its corner."""
        from rkzoo.vision.draw_text import listed

        # Of "tench, Tinca tinca" the first name says enough.
        short = [self.label(c).split(",")[0] for c in self.class_id.tolist()]
        texts = [f"{s:4.0%}  {name}" for s, name in zip(self.score.tolist(), short, strict=True)]
        return listed(image, texts, self.score)

    def lines(self) -> list[str]:
        """What a terminal shows: one line a class."""
        return [
            f"{s:.3f}  {self.label(c)}"
            for c, s in zip(self.class_id.tolist(), self.score.tolist(), strict=True)
        ]
