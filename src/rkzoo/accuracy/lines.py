"""Text line and license plate recognition ground truth and metrics."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from rkzoo.accuracy.answers import Record, texts_of
from rkzoo.accuracy.folders import best_folder, first_row, pictures
from rkzoo.accuracy.metric import Metric, edit_distance, similarity
from rkzoo.accuracy.resampling import of_mean
from rkzoo.accuracy.tables import rows_of

Lines = TypeVar("Lines", bound="LineTruth")


@dataclass(frozen=True)
class LineTruth:
    """Ground truth of recognition. `texts`: text of each item; surrounding white space is
    ignored.
    """

    texts: tuple[str, ...]

    def check(self, labels: tuple[str, ...]) -> None:
        """Nothing to check: a character that the model lacks is an error."""

    def take(self: Lines, kept: Sequence[int]) -> Lines:
        """The ground truth of some of the items, in their order."""
        return replace(self, texts=tuple(self.texts[i] for i in kept))

    def digest(self) -> bytes:
        """Digest of the texts."""
        return hashlib.sha256(repr(self.texts).encode("utf-8", "replace")).digest()

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Exact matches in %, mean similarity (1 - edits / longer length) in %, and mean number of
        character errors per line.
        """
        if not records:
            return ()
        pairs = [
            (truth.strip(), "".join(texts_of(record)).strip())
            for truth, record in zip(self.texts, records, strict=False)
        ]
        right = [truth == text for truth, text in pairs]
        exact = np.mean(right)
        alike = np.mean([similarity(truth, text) for truth, text in pairs])
        wrong = np.mean([edit_distance(truth, text) for truth, text in pairs])
        return (
            Metric("exact", 100 * float(exact), "%", True, 1.0, True, of_mean(right, 100)),
            Metric("similarity", 100 * float(alike), "%", True, 0.5),
            Metric("edit distance", float(wrong), "characters", False, 0.1),
        )


def read(
    path: Path, images: Path | None, divider: str = "\t"
) -> tuple[tuple[Path, ...], LineTruth]:
    """Read a list: file, divider, text."""
    rows = rows_of(path, divider)
    names = [name for name, _ in rows]
    _, paths = best_folder([images or path.absolute().parent], names, path)
    start = first_row(paths)
    texts = tuple(text for _, text in rows)
    return tuple(paths[start:]), LineTruth(texts[start:])


def named_by_text(folder: Path) -> tuple[tuple[Path, ...], LineTruth]:
    """Read a folder of images whose names are the text, up to a space, - or _."""
    items = tuple(path for path in pictures(folder) if path.parent == folder)
    return items, LineTruth(tuple(re.split(r"[-_ ]", path.stem, maxsplit=1)[0] for path in items))
