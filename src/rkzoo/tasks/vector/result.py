"""Numbers that answer a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, os_errors_explained, write_text
from rkzoo.tasks.embed.result import SimilarityScores

_SHOWN = 6  # of an embedding; measured numbers are shown altogether


@dataclass(frozen=True)
class Vector:
    """`values` (N,) float32; `embedding` where they mean something only beside those of another
    picture. `against`: how alike the embeddings of other pictures are, the most alike first; None
    where no others were named."""

    values: NDArray[np.float32]
    embedding: bool = True
    against: SimilarityScores | None = None
    suffix: ClassVar[str] = ".npy"

    def __post_init__(self) -> None:
        if self.values.ndim != 1:
            raise ValueError("values must be (N,)")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def norm(self) -> float:
        """The length of the vector (L2)."""
        return float(np.linalg.norm(self.values.astype(np.float64)))

    @property
    def scores(self) -> NDArray[np.float32] | None:
        """The cosines of `against`, (K,) in -1..1."""
        return None if self.against is None else self.against.cosine

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py)."""
        return {"embedding": self.values.astype(np.float32)}

    def to_json(self) -> list[dict[str, Any]]:
        """One record: values, norm, and against (name, cosine) where others were named."""
        others = {} if self.against is None else {"against": self.against.to_json()}
        return [{"values": self.values.tolist(), "norm": round(self.norm, 6), **others}]

    def lines(self) -> list[str]:
        """What a terminal shows: the first numbers, and a line for each picture that it is
        compared with."""
        if not self.embedding:
            return [" ".join(f"{value:.6g}" for value in self.values.tolist())]
        first = " ".join(f"{value:.4g}" for value in self.values[:_SHOWN].tolist())
        more = " ..." if len(self) > _SHOWN else ""
        lines = [f"{len(self)} numbers of length {self.norm:.4g}: {first}{more}"]
        return lines + (self.against.lines() if self.against is not None else [])

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR picture with its lines in the corner."""
        from rkzoo.vision.draw_text import listed

        texts = self.lines()
        return listed(image, texts, [1.0] * len(texts))

    def save(self, path: Path) -> None:
        """Writes the values as .npy, or all as .json or .txt. Raises RkzooError."""
        kind = path.suffix.lower()
        if kind == ".json":
            write_text(path, json.dumps(self.to_json(), ensure_ascii=False) + "\n")
        elif kind == ".txt":
            write_text(path, "".join(f"{line}\n" for line in self.lines()))
        elif kind == ".npy":
            with (
                atomic_output(path) as part,
                os_errors_explained(f"{path} cannot be written."),
                part.open("wb") as file,
            ):
                np.save(file, self.values)
        else:
            raise RkzooError(
                f"{path} cannot be written.",
                "What this model answers is numbers.",
                "Use .npy, .json or .txt.",
            )
