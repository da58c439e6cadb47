"""Base classes of results that hold several items: index, slice, iterate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

Index = int | slice | Sequence[int] | Sequence[bool] | NDArray[Any]
"""An item (negative counts from the end), a slice, indices, or a boolean mask (N,)."""

Rows = slice | NDArray[Any]
"""An index that preserves the first axis of an array."""

T = TypeVar("T")


class Collection:
    """Immutable sequence of items. Indexing returns the same type, and iteration yields
    collections of length one.
    """

    __slots__ = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _take(self, rows: Rows) -> Self:
        """Select rows."""

    def __getitem__(self, index: Index) -> Self:
        """Select by int, slice, indices or boolean mask; returns the same type.

        Raises:
            IndexError: out of range, or a mask of the wrong length.
        """
        return self._take(rows_of(index, len(self)))

    def __iter__(self) -> Iterator[Self]:
        """Yield each item as a collection of length one."""
        return (self._take(slice(i, i + 1)) for i in range(len(self)))


class ClassifiedCollection(Collection):
    """Collection with a class and a score per item.

    Attributes:
        class_id: (N,) int32, index into `labels`.
        score: (N,) float32 in 0..1.
        labels: class names; may be empty.
    """

    __slots__ = ()

    class_id: NDArray[np.int32]
    score: NDArray[np.float32]
    labels: tuple[str, ...]

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores, (N,) float32 in 0..1; same as `score`."""
        return self.score

    @property
    def class_ids(self) -> NDArray[np.int32]:
        """Class indices, (N,) int32; same as `class_id`."""
        return self.class_id

    @property
    def names(self) -> list[str]:
        """The class name of each item, or the class index as text where it has no name."""
        return names_of(self.class_id, self.labels)


def rows_of(index: Index, count: int) -> Rows:
    """Normalize an index into `count` items to one that preserves the first axis.

    Raises:
        IndexError: out of range, a mask of the wrong length, or a dtype that cannot index.
    """
    if isinstance(index, slice):
        return index
    chosen = np.asarray(index)
    if chosen.dtype == np.bool_ and chosen.shape != (count,):
        raise IndexError(f"a mask for {count} has the shape {chosen.shape}")
    if not chosen.size:
        return np.zeros(0, np.intp)
    if chosen.dtype != np.bool_ and not np.issubdtype(chosen.dtype, np.integer):
        raise IndexError(f"an index is whole numbers or bools, not {chosen.dtype}")
    rows: NDArray[np.intp] = np.arange(count)[np.atleast_1d(chosen)]
    return rows


def pick(things: Sequence[T], rows: Rows) -> tuple[T, ...]:
    """Select items of a Python sequence by `rows`."""
    return tuple(things[i] for i in np.arange(len(things))[rows].tolist())


def names_of(class_ids: NDArray[Any], labels: Sequence[str]) -> list[str]:
    """Return the name of each class, or its index as text where it has no name."""
    return [labels[c] if c < len(labels) else str(c) for c in class_ids.tolist()]


def times_of(things: Sequence[Any]) -> NDArray[np.float64]:
    """Return start and end times in seconds, (N, 2) float64, of items with `start` and `end`."""
    return np.array([(thing.start, thing.end) for thing in things], np.float64).reshape(-1, 2)


def bounding_boxes(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Axis-aligned bounding boxes x1, y1, x2, y2 (N, 4) of points (N, K, 2)."""
    return np.concatenate((points.min(axis=1), points.max(axis=1)), axis=1)
