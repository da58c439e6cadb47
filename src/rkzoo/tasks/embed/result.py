"""Similarity ranking result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.tasks.collection import Collection, Rows, pick


class Passage(NamedTuple):
    """What a search finds.

    Attributes:
        text: The words; "" for a picture.
        line: Its line in the text, from 1; None where there are none.
    """

    text: str
    line: int | None = None


@dataclass(frozen=True)
class SimilarityScores(Collection):
    """Names ranked by similarity, best first.

    Attributes:
        names: (N) names.
        cosine: (N,) float32 cosine similarity in -1..1.
    """

    names: tuple[str, ...]
    cosine: NDArray[np.float32]
    suffix: ClassVar[str] = ".txt"

    @classmethod
    def ranked(cls, names: tuple[str, ...], cosine: NDArray[np.float32]) -> SimilarityScores:
        """Sort by descending similarity; ties keep their order."""
        best = np.argsort(-cosine, kind="stable")
        return cls(tuple(names[i] for i in best.tolist()), cosine[best])

    @property
    def scores(self) -> NDArray[np.float32]:
        """Cosine similarities, (N,); same as `cosine`."""
        return self.cosine

    def __len__(self) -> int:
        return len(self.names)

    def _take(self, rows: Rows) -> SimilarityScores:
        return SimilarityScores(pick(self.names, rows), self.cosine[rows])

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "cosine": round(cosine, 4)}
            for name, cosine in zip(self.names, self.cosine.tolist(), strict=True)
        ]

    def lines(self) -> list[str]:
        return [
            f"{cosine:6.3f}  {name}"
            for name, cosine in zip(self.names, self.cosine.tolist(), strict=True)
        ]

    def draw(self, image: Any) -> Any:
        raise RkzooError(
            "There are no boxes to draw.", "The result is a ranking of names.", "Use lines."
        )

    def save(self, path: Path) -> None:
        """Write .txt or .json. Raises RkzooError when the file cannot be written."""
        if path.suffix.lower() == ".json":
            write_text(path, json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n")
        else:
            write_text(path, "".join(f"{line}\n" for line in self.lines()))
