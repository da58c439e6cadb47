"""Pairs of pictures, of one person or of two: LFW's pairs.txt, https://vis-www.cs.umass.edu/lfw/."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.folders import SUFFIXES, subfolder
from rkzoo.accuracy.metric import Metric
from rkzoo.accuracy.resampling import of_mean
from rkzoo.errors import RkzooError
from rkzoo.files import read_text

F64 = NDArray[np.float64]
_GATE = 0.005
_LARGEST = 10**6  # pairs


@dataclass(frozen=True)
class PairTruth:
    """Which pictures show one person.

    Attributes:
        pairs: (P, 2) indices of pictures.
        same: (P,) whether they show one person.
        fold: (P,) the set that each pair is in: a threshold is judged on pairs that it was not
            chosen with.
    """

    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]

    def check(self, labels: tuple[str, ...]) -> None:
        """Nothing to check: there are no labels."""

    def take(self, kept: Sequence[int]) -> PairTruth:
        """The pairs of which both pictures are kept, in their new numbers."""
        place = {old: new for new, old in enumerate(kept)}
        whole = np.array([a in place and b in place for a, b in self.pairs.tolist()], np.bool_)
        pairs = [(place[a], place[b]) for a, b in self.pairs[whole].tolist()]
        return PairTruth(
            np.array(pairs, np.int64).reshape(-1, 2), self.same[whole], self.fold[whole]
        )

    def digest(self) -> bytes:
        """Digest of the pairs."""
        parts = (self.pairs.tobytes(), self.same.tobytes(), self.fold.tobytes())
        return hashlib.sha256(b"".join(parts)).digest()

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Accuracy, and the cosine from which on two faces are taken for one person's: of each set
        of pairs with the threshold that is best on the others, averaged. A picture on which
        no face was found is like no other. What is resampled are pairs, with the thresholds as
        they are."""
        there = (self.pairs < len(records)).all(axis=1)
        same, fold = self.same[there], self.fold[there]
        if not len(same):
            return ()
        rows = [record["embedding"].astype(np.float64) for record in records]
        cosines = np.array([_cosine(rows[a], rows[b]) for a, b in self.pairs[there].tolist()])
        folds = np.unique(fold)
        shares, thresholds = [], []
        right = np.zeros(len(same), np.bool_)
        for number in folds:
            judged = fold == number
            chosen = ~judged if len(folds) > 1 else judged
            threshold = best_threshold(cosines[chosen], same[chosen])
            thresholds.append(threshold)
            right[judged] = (cosines[judged] >= threshold) == same[judged]
            shares.append(float(right[judged].mean()))
        return (
            Metric("accuracy", float(np.mean(shares)), "", True, _GATE, True, of_mean(right)),
            Metric("threshold", float(np.mean(thresholds)), "", True, 2.0),
        )


def best_threshold(cosines: F64, same: NDArray[np.bool_]) -> float:
    """The threshold with the most pairs right, those of one person at or above it; in the middle
    between two cosines. (P,) each."""
    order = np.argsort(cosines, kind="stable")
    ascending, right = cosines[order], same[order]
    # Of a cut before the i-th: those of two below it, those of one from it on.
    below = np.concatenate(([0], np.cumsum(~right)))
    above = right.sum() - np.concatenate(([0], np.cumsum(right)))
    edges = np.concatenate(([-1.0], (ascending[1:] + ascending[:-1]) / 2, [1.0]))
    # Equal cosines are not told apart.
    apart = np.concatenate(([True], ascending[1:] > ascending[:-1], [True]))
    return float(edges[np.where(apart, below + above, -1).argmax()])


def _cosine(a: F64, b: F64) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b)) if a.size and b.size else 0.0
    return float(a @ b) / lengths if lengths else -1.0


def read(file: Path, images: Path | None) -> tuple[tuple[Path, ...], PairTruth]:
    """Read a pairs.txt: the number of sets, and of pairs of each kind in a set; then a pair a line,
    NAME i j of one person or NAME i NAME j of two. The pictures are NAME/NAME_0001.jpg and so on,
    below `images` or the file's own folder.

    Raises:
        RkzooError: A line is no pair, or names a file elsewhere.
    """
    folder = images or file.parent
    first, *lines = [line.split() for line in read_text(file).splitlines() if line.strip()] or [[]]
    if not first or not all(word.isdecimal() for word in first) or len(lines) > _LARGEST:
        raise _no_pairs(file, " ".join(first))
    in_set = max(2 * int(first[-1]), 1) if len(first) == 2 else len(lines) or 1
    places: dict[Path, int] = {}
    pairs, same = [], []
    for words in lines:
        named = [(words[0], words[1]), (words[-2] if len(words) == 4 else words[0], words[-1])]
        if len(words) not in (3, 4) or not all(number.isdecimal() for _, number in named):
            raise _no_pairs(file, " ".join(words))
        both = (_picture(folder, name, int(number), file) for name, number in named)
        pairs.append([places.setdefault(picture, len(places)) for picture in both])
        same.append(len(words) == 3)
    fold = np.arange(len(pairs)) // in_set
    truth = PairTruth(np.array(pairs, np.int64).reshape(-1, 2), np.array(same, np.bool_), fold)
    return tuple(places), truth


def _picture(folder: Path, name: str, number: int, file: Path) -> Path:
    path = subfolder(folder, f"{name}/{name}_{number:04d}.jpg", file)
    others = (path.with_suffix(suffix) for suffix in sorted(SUFFIXES))
    return path if path.exists() else next((other for other in others if other.exists()), path)


def _no_pairs(file: Path, line: str) -> RkzooError:
    return RkzooError(
        f"{file} holds no pairs of pictures.",
        f"It has the line {line[:80]!r}.",
        "Its first line is the number of sets and of pairs in each (10 300), the others are NAME i "
        "j for two pictures of one person, and NAME i NAME j for two persons.",
    )
