"""The picture that a network made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RestoredPicture:
    """A picture made of another.

    Attributes:
        picture: BGR uint8 (scale * H, scale * W, 3) of a source of H x W.
        scale: How many times larger it is than its source.
    """

    picture: NDArray[np.uint8]
    scale: int = 1

    def __post_init__(self) -> None:
        if self.picture.ndim != 3 or self.picture.dtype != np.uint8:
            raise ValueError("picture must be uint8 (H, W, 3)")

    def __len__(self) -> int:
        return 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.picture.shape[0], self.picture.shape[1]

    def to_json(self) -> list[dict[str, Any]]:
        """One record: width, height and scale. The picture itself is in `picture`, and written as
        the drawing."""
        height, width = self.size
        return [{"width": width, "height": height, "scale": self.scale}]

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture that was made, BGR; nothing of `image` is in it."""
        return self.picture

    def record(self) -> dict[str, NDArray[Any]]:
        """The picture for evaluation (accuracy/answers.py), row by row."""
        return {"pixels": self.picture.ravel()}

    def lines(self) -> list[str]:
        """Text output for a terminal."""
        height, width = self.size
        larger = f", {self.scale} times larger" if self.scale > 1 else ""
        return [f"a picture of {width}x{height}{larger}"]
