"""Semantic segmentation result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import names_of
from rkzoo.tasks.segment.result import Masks, masks_of

_LEAST = 0.0005  # share of the image below which a class is not listed


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Class of each pixel. Its length is the number of classes present.

    Attributes:
        classes: (H, W) uint8 at source resolution, index into `labels`.
        labels: class names; may be empty.
    """

    classes: NDArray[np.uint8]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.classes.ndim != 2 or self.classes.dtype != np.uint8:
            raise ValueError("classes must be uint8 (H, W)")

    def __len__(self) -> int:
        return len(self.areas())

    @property
    def class_ids(self) -> NDArray[np.int32]:
        """Classes present, (K,) int32, by descending area."""
        return np.array([c for c, _ in self.areas()], np.int32)

    @property
    def names(self) -> list[str]:
        """Names of the classes present."""
        return names_of(self.class_ids, self.labels)

    def dense(self) -> NDArray[np.bool_]:
        """One mask per class present, bool (K, H, W)."""
        return np.asarray(self.classes[None] == self.class_ids[:, None, None])

    def areas(self) -> list[tuple[int, int]]:
        """(class, pixels) of each class present, by descending area."""
        counts = np.bincount(self.classes.ravel(), minlength=1)
        order = np.argsort(-counts, kind="stable")
        return [(int(c), int(counts[c])) for c in order if counts[c]]

    def label(self, class_id: int) -> str:
        """Name of a class, or its index as text where it has no name."""
        return self.labels[class_id] if class_id < len(self.labels) else str(class_id)

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py): run-length encoded, row by row."""
        flat = self.classes.ravel()
        starts = np.flatnonzero(np.diff(flat, prepend=-1))
        runs = np.diff(starts, append=flat.size)
        return {"class_id": flat[starts].astype(np.int32), "run": runs.astype(np.int32)}

    def to_json(self) -> list[dict[str, Any]]:
        """One record per class, by descending area: label, class_id, pixels, share of the image."""
        return [
            {
                "label": self.label(c),
                "class_id": c,
                "pixels": n,
                "share": round(n / self.classes.size, 4),
            }
            for c, n in self.areas()
        ]

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR image with the classes overlaid, and a legend below."""
        from rkzoo.vision.maps import overlay

        return overlay(image, self.classes, [(c, self.label(c)) for c, _ in self._shown()],
                       self.labels)  # fmt: skip

    def save_beside(self, drawn: Path) -> None:
        """Write NAME-classes.png beside the drawing NAME: 8-bit palette image of class indices, as
        `eval` reads it.

        Raises:
            RkzooError: the file cannot be written.
        """
        from rkzoo.vision.maps import write_map

        write_map(drawn.with_name(f"{drawn.stem}-classes.png"), self.classes, self.labels)

    def masks(self) -> Masks:
        """The listed classes as one object each, for comparing results."""
        found = [((self.classes == c).astype(np.uint8), 1.0, c) for c, _ in self._shown()]
        height, width = self.classes.shape
        return masks_of(found, self.labels, (height, width))

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per class."""
        return [f"{n / self.classes.size:6.1%}  {self.label(c)}" for c, n in self._shown()]

    def _shown(self) -> list[tuple[int, int]]:
        return [(c, n) for c, n in self.areas() if n >= _LEAST * self.classes.size]
