"""What a picture shows as a whole: the best classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import Classified, Rows, pick


@dataclass(frozen=True, slots=True)
class Classes(Classified):
    """The best classes of one picture, the best first.

    `class_id` (K,) int32 into `labels` (names may be missing), `score` (K,) float32: their
    probability, 0..1. `outputs`: for each the output of the network that says so, where several
    answer a question each; the best of each output come together then, in their order.
    """

    class_id: NDArray[np.int32]
    score: NDArray[np.float32]
    labels: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.class_id.ndim != 1 or self.class_id.shape != self.score.shape:
            raise ValueError("class_id and score must be (K,)")
        if self.outputs and len(self.outputs) != len(self.class_id):
            raise ValueError("outputs must be as many as classes")

    def __len__(self) -> int:
        return len(self.class_id)

    def _take(self, rows: Rows) -> Classes:
        outputs = pick(self.outputs, rows) if self.outputs else ()
        return Classes(self.class_id[rows], self.score[rows], self.labels, outputs)

    def best(self) -> Classes:
        """The best class, of each output where there are several."""
        names = self.outputs or ("",) * len(self)
        first = [i for i, name in enumerate(names) if name not in names[:i]]
        return self[np.array(first, np.intp)]

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
        """One record a class: label, class_id, score, and output where there are several."""
        rows = zip(self.class_id.tolist(), self.score.tolist(), strict=True)
        told = [{"label": self.label(c), "class_id": c, "score": round(s, 4)} for c, s in rows]
        names = self.outputs
        return (
            [one | {"output": name} for one, name in zip(told, names, strict=True)]
            if names
            else told
        )

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR picture with the names and probabilities in its corner."""
        from rkzoo.vision.draw_text import listed

        # Of "tench, Tinca tinca" the first name says enough.
        short = [name.split(",")[0] for name in self._said()]
        texts = [f"{s:4.0%}  {name}" for s, name in zip(self.score.tolist(), short, strict=True)]
        return listed(image, texts, self.score)

    def lines(self) -> list[str]:
        """What a terminal shows: one line a class."""
        return [
            f"{s:.3f}  {name}" for s, name in zip(self.score.tolist(), self._said(), strict=True)
        ]

    def _said(self) -> list[str]:
        """The label of each, with the output that it answers where there are several."""
        labels = [self.label(c) for c in self.class_id.tolist()]
        if not self.outputs:
            return labels
        return [f"{name}: {one}" for name, one in zip(self.outputs, labels, strict=True)]
