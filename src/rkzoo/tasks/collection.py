"""What every result that holds several things has in common: index, slice, iterate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

Index = int | slice | Sequence[int] | Sequence[bool] | NDArray[Any]
"""One thing (negative counts from the end), a slice, indices, or a mask of one bool a thing."""

Rows = slice | NDArray[Any]
"""An index that keeps the first axis of an array."""

T = TypeVar("T")


class Collection:
    """A frozen row of things. Whatever the index, what comes back has the same type, and so has
    each thing in an iteration: a collection of one."""

    __slots__ = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _take(self, rows: Rows) -> Self:
        """The things at these rows."""

    def __getitem__(self, index: Index) -> Self:
        """The things at an int, a slice, indices or a mask, as the same type.

        Raises IndexError outside of the range, and for a mask of another length.
        """
        return self._take(rows_of(index, len(self)))

    def __iter__(self) -> Iterator[Self]:
        """Each thing, as a collection of one."""
        return (self._take(slice(i, i + 1)) for i in range(len(self)))


class Classified(Collection):
    """A collection whose things have a class and a score each: `class_id` (N,) int32 into `labels`
    (names may be missing), `score` (N,) float32 in 0..1."""

    __slots__ = ()

    class_id: NDArray[np.int32]
    score: NDArray[np.float32]
    labels: tuple[str, ...]

    @property
    def scores(self) -> NDArray[np.float32]:
        """`score`, (N,) 0..1."""
        return self.score

    @property
    def class_ids(self) -> NDArray[np.int32]:
        """`class_id`, (N,)."""
        return self.class_id

    @property
    def names(self) -> list[str]:
        """The class name of each; its number where no name is known."""
        return names_of(self.class_id, self.labels)


def rows_of(index: Index, count: int) -> Rows:
    """An index into `count` things as one that keeps the axis. Raises IndexError."""
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
    """The things of a Python sequence at `rows`."""
    return tuple(things[i] for i in np.arange(len(things))[rows].tolist())


def names_of(class_ids: NDArray[Any], labels: Sequence[str]) -> list[str]:
    """The name of each class, or its number where no name is known."""
    return [labels[c] if c < len(labels) else str(c) for c in class_ids.tolist()]


def times_of(things: Sequence[Any]) -> NDArray[np.float64]:
    """(N, 2) start and end in seconds of things that have both."""
    return np.array([(one.start, one.end) for one in things], np.float64).reshape(-1, 2)


def around(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, K, 2) points to the (N, 4) upright boxes x1, y1, x2, y2 around them."""
    return np.concatenate((points.min(axis=1), points.max(axis=1)), axis=1)
