"""What each pixel of a picture shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import names_of
from rkzoo.tasks.segment.result import Masks, masks_of

_LEAST = 0.0005  # of the picture: smaller shares are not worth a line


@dataclass(frozen=True, slots=True)
class ClassMap:
    """`classes` (H, W) uint8, the class of each pixel of the source picture; `labels` are their
    names, which may be missing. Its length is the number of classes that are there."""

    classes: NDArray[np.uint8]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.classes.ndim != 2 or self.classes.dtype != np.uint8:
            raise ValueError("classes must be uint8 (H, W)")

    def __len__(self) -> int:
        return len(self.areas())

    @property
    def class_ids(self) -> NDArray[np.int32]:
        """(K,) the classes that are there, the largest first."""
        return np.array([c for c, _ in self.areas()], np.int32)

    @property
    def names(self) -> list[str]:
        """The names of those classes."""
        return names_of(self.class_ids, self.labels)

    def dense(self) -> NDArray[np.bool_]:
        """(K, H, W): where each of those classes is."""
        return np.asarray(self.classes[None] == self.class_ids[:, None, None])

    def areas(self) -> list[tuple[int, int]]:
        """(class, its pixels) for each class that is there, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=1)
        order = np.argsort(-counts, kind="stable")
        return [(int(c), int(counts[c])) for c in order if counts[c]]

    def label(self, class_id: int) -> str:
        """The name of a class, or its number where no name is known."""
        return self.labels[class_id] if class_id < len(self.labels) else str(class_id)

    def record(self) -> dict[str, NDArray[Any]]:
        """The arrays by which a data set scores it (accuracy/answers.py): runs of pixels, row by
        row."""
        flat = self.classes.ravel()
        starts = np.flatnonzero(np.diff(flat, prepend=-1))
        runs = np.diff(starts, append=flat.size)
        return {"class_id": flat[starts].astype(np.int32), "run": runs.astype(np.int32)}

    def to_json(self) -> list[dict[str, Any]]:
        """One record a class, the largest first: label, class_id, pixels, share of the picture."""
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
        """A copy of the BGR picture with the classes laid over it, and their names below."""
        from rkzoo.vision.maps import overlay

        return overlay(image, self.classes, [(c, self.label(c)) for c, _ in self._shown()],
                       self.labels)  # fmt: skip

    def save_beside(self, drawn: Path) -> None:
        """The classes as NAME-classes.png beside the drawing NAME: one byte a pixel, with the
        palette, as `eval` reads it. Raises RkzooError when the disk refuses."""
        from rkzoo.vision.maps import write_map

        write_map(drawn.with_name(f"{drawn.stem}-classes.png"), self.classes, self.labels)

    def masks(self) -> Masks:
        """Each class that has a share worth a line as one object, to compare answers by."""
        found = [((self.classes == c).astype(np.uint8), 1.0, c) for c, _ in self._shown()]
        height, width = self.classes.shape
        return masks_of(found, self.labels, (height, width))

    def lines(self) -> list[str]:
        """What a terminal shows: one line a class."""
        return [f"{n / self.classes.size:6.1%}  {self.label(c)}" for c, n in self._shown()]

    def _shown(self) -> list[tuple[int, int]]:
        return [(c, n) for c, n in self.areas() if n >= _LEAST * self.classes.size]
