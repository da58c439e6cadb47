"""Image classification result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import ClassifiedCollection, Rows, pick


@dataclass(frozen=True, slots=True)
class Classes(ClassifiedCollection):
    """The top K classes of one image, best first.

    Attributes:
        class_id: (K,) int32, index into `labels`.
        score: (K,) float32, probability in 0..1.
        labels: class names; may be empty.
        outputs: K names of the model's outputs, where several answer a question each: the classes
            of each output together, in the order of the outputs; empty for one output.
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
        """Probabilities of the top classes, (K,) float32; same as `score`."""
        return self.score

    def label(self, class_id: int) -> str:
        """Name of a class, or its index as text where it has no name."""
        return self.labels[class_id] if class_id < len(self.labels) else str(class_id)

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py)."""
        return {"class_id": self.class_id, "score": self.score}

    def to_json(self) -> list[dict[str, Any]]:
        """One record per class: label, class_id, score, and output where there are several."""
        rows = zip(self.class_id.tolist(), self.score.tolist(), strict=True)
        jsons = [{"label": self.label(c), "class_id": c, "score": round(s, 4)} for c, s in rows]
        if not self.outputs:
            return jsons
        return [entry | {"output": name} for entry, name in zip(jsons, self.outputs, strict=True)]

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR image with class names and probabilities in its corner."""
        from rkzoo.vision.draw_text import listed

        # "tench, Tinca tinca": show the first synonym only.
        short = [name.split(",")[0] for name in self._captions()]
        texts = [f"{s:4.0%}  {name}" for s, name in zip(self.score.tolist(), short, strict=True)]
        return listed(image, texts, self.score)

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per class."""
        return [
            f"{s:.3f}  {name}"
            for s, name in zip(self.score.tolist(), self._captions(), strict=True)
        ]

    def _captions(self) -> list[str]:
        """The label of each, with the output that it answers where there are several."""
        labels = [self.label(c) for c in self.class_id.tolist()]
        if not self.outputs:
            return labels
        return [f"{name}: {text}" for name, text in zip(self.outputs, labels, strict=True)]
