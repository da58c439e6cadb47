"""A picture in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise
from rkzoo.tasks.embed.result import SimilarityScores
from rkzoo.tasks.image_task import ImageTask
from rkzoo.tasks.vector.result import Vector
from rkzoo.vision.image import expand, read
from rkzoo.vision.letterbox import Letterbox


class Measurer(ImageTask[Vector]):
    """A network that answers a picture with numbers, ready to run; made once, called for every
    picture."""

    def __init__(self, contract: Contract, session: Session, against: Sequence[str] = ()) -> None:
        """`against`: names of pictures whose embeddings each answer is compared with. Raises
        RkzooError where one cannot be read, or the numbers are no embedding."""
        if not isinstance(contract.head, VectorHead):
            raise RkzooError(f"{contract.family} gives no vector.", code=1)
        super().__init__(contract, session)
        self.head = contract.head
        self._others: tuple[tuple[str, ...], NDArray[np.float64]] | None = None
        if against:
            self._others = self._embedded(expand(list(against)))

    def _embedded(self, files: Sequence[Path]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Names, and (K, N) embeddings of length 1."""
        if not self.head.embedding:
            raise RkzooError(
                "These numbers are no embedding.",
                "Each of them was measured, so there is no angle between two pictures.",
                "Leave --against out.",
            )
        return tuple(map(str, files)), np.stack([self.embed([read(file)])[0] for file in files])

    def embed(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(K, N) embeddings of length 1 of BGR pictures (H, W, 3)."""
        rows = [unit(self(image).values) for image in images]
        return np.stack(rows) if rows else np.empty((0, self.head.size))

    def postprocess(self, outputs: Sequence[NDArray[Any]], letterbox: Letterbox) -> Vector:
        """The session's raw tensor to the numbers. Raises RkzooError where there are more or fewer
        than was promised."""
        values = dequantise(outputs[0], self.session.outputs[0]).reshape(-1)
        if values.size != self.head.size:
            raise RkzooError(
                f"The model gave {values.size} numbers, and {self.head.size} were promised.",
                "Its description does not fit.",
                "Look at it with rkzoo inspect.",
            )
        values = values.astype(np.float32)
        against = None
        if self._others is not None:
            names, rows = self._others
            against = SimilarityScores.ranked(names, np.asarray(rows @ unit(values), np.float32))
        return Vector(values, self.head.embedding, against)


def unit(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) as (N,) of length 1; nothing at all stays nothing, and is like no other."""
    wide = values.astype(np.float64)
    length = float(np.linalg.norm(wide))
    return wide / length if length else wide
