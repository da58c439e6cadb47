"""What each pixel of a picture shows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.tasks.collection import names_of
from rkzoo.tasks.segment.result import Masks, masks_of

_LEAST = 0.0005  # of the picture: smaller shares are not worth a line


class _PixelClasses:
    """Classes of pixels, by their areas. Its length is the number of classes that are there."""

    __slots__ = ()

    labels: tuple[str, ...]

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(height, width) of the source picture."""

    @abstractmethod
    def areas(self) -> list[tuple[int, int]]:
        """(class, its pixels) for each class that is there, the largest first."""

    @abstractmethod
    def mask(self, class_id: int) -> NDArray[np.bool_]:
        """(H, W): where a class is."""

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
        masks = [self.mask(c) for c in self.class_ids.tolist()]
        return np.array(masks, np.bool_).reshape(-1, *self.size)

    def label(self, class_id: int) -> str:
        """The name of a class, or its number where no name is known."""
        return self.labels[class_id] if class_id < len(self.labels) else str(class_id)

    def _records(self) -> list[dict[str, Any]]:
        return [
            {"label": self.label(c), "class_id": c, "pixels": n, "share": round(n / self._all, 4)}
            for c, n in self.areas()
        ]

    def masks(self) -> Masks:
        """Each class that has a share worth a line as one object, to compare answers by."""
        shown = [(self.mask(c).astype(np.uint8), 1.0, c) for c, _ in self._shown()]
        return masks_of(shown, self.labels, self.size)

    def lines(self) -> list[str]:
        """What a terminal shows: one line a class."""
        return [f"{n / self._all:6.1%}  {self.label(c)}" for c, n in self._shown()]

    @property
    def _all(self) -> int:
        return self.size[0] * self.size[1]

    def _shown(self) -> list[tuple[int, int]]:
        return [(c, n) for c, n in self.areas() if n >= _LEAST * self._all]


@dataclass(frozen=True, slots=True)
class ClassMap(_PixelClasses):
    """`classes` (H, W) uint8, the class of each pixel of the source picture; `labels` are their
    names, which may be missing."""

    classes: NDArray[np.uint8]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.classes.ndim != 2 or self.classes.dtype != np.uint8:
            raise ValueError("classes must be uint8 (H, W)")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the source picture."""
        height, width = self.classes.shape
        return height, width

    def mask(self, class_id: int) -> NDArray[np.bool_]:
        """(H, W): where a class is."""
        return np.asarray(self.classes == class_id)

    def to_json(self) -> list[dict[str, Any]]:
        """One record a class, the largest first: label, class_id, pixels, share of the picture."""
        return self._records()

    def areas(self) -> list[tuple[int, int]]:
        """(class, its pixels) for each class that is there, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=1)
        order = np.argsort(-counts, kind="stable")
        return [(int(c), int(counts[c])) for c in order if counts[c]]

    def record(self) -> dict[str, NDArray[Any]]:
        """The arrays by which a data set scores it (accuracy/answers.py): runs of pixels, row by
        row."""
        flat = self.classes.ravel()
        starts = np.flatnonzero(np.diff(flat, prepend=-1))
        runs = np.diff(starts, append=flat.size)
        return {"class_id": flat[starts].astype(np.int32), "run": runs.astype(np.int32)}

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR picture with the classes laid over it, and their names below."""
        from rkzoo.vision.maps import overlay

        return overlay(image, self.classes, [(c, self.label(c)) for c, _ in self._shown()],
                       self.labels)  # fmt: skip

    def save_sidecar(self, drawn: Path) -> None:
        """The classes as NAME-classes.png beside the drawing NAME: one byte a pixel, with the
        palette, as `eval` reads it. Raises RkzooError when the disk refuses."""
        from rkzoo.vision.maps import write_map

        write_map(drawn.with_name(f"{drawn.stem}-classes.png"), self.classes, self.labels)


@dataclass(frozen=True, slots=True)
class ClassMasks(_PixelClasses):
    """`classes` (C, H, W) bool: where each class is in the source picture; a pixel may be of
    several classes, or of none. `labels` are their names, which may be missing."""

    classes: NDArray[np.bool_]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.classes.ndim != 3 or self.classes.dtype != np.bool_:
            raise ValueError("classes must be bool (C, H, W)")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the source picture."""
        height, width = self.classes.shape[1:]
        return height, width

    def mask(self, class_id: int) -> NDArray[np.bool_]:
        """(H, W): where a class is."""
        return np.asarray(self.classes[class_id])

    def to_json(self) -> list[dict[str, Any]]:
        """One record a class, the largest first: label, class_id, pixels, share of the picture."""
        return self._records()

    def areas(self) -> list[tuple[int, int]]:
        """(class, its pixels) for each class that is there, the largest first."""
        counts = np.count_nonzero(self.classes, axis=(1, 2))
        order = np.argsort(-counts, kind="stable")
        return [(int(c), int(counts[c])) for c in order if counts[c]]

    def record(self) -> dict[str, NDArray[Any]]:
        """Raises RkzooError: a data set of label maps has one class a pixel."""
        raise RkzooError(
            "A segmentation whose classes overlap is not scored.",
            "The data sets that are read here have one class a pixel.",
            "Compare it with another build of the same model: rkzoo compare.",
        )

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR picture with the classes laid over it, the smallest on top, and their
        names below."""
        from rkzoo.vision.maps import overlay

        top = np.zeros(self.size, np.uint8)  # 0 leaves the picture as it is
        for c, _ in self.areas():
            top[self.classes[c]] = c % 255 + 1
        return overlay(image, top, [(c % 255 + 1, self.label(c)) for c, _ in self._shown()])

    def save_sidecar(self, drawn: Path) -> None:
        """Each class that is there as NAME-mask-CLASS.png beside the drawing NAME, 255 where it
        is. Raises RkzooError when the disk refuses."""
        from rkzoo.vision.image import write

        for c, _ in self.areas():
            mask = self.classes[c].astype(np.uint8) * 255
            write(drawn.with_name(f"{drawn.stem}-mask-{c}.png"), mask)
