"""Image classification ground truth and metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.categories import normalize_name
from rkzoo.accuracy.folders import best_folder, first_row, pictures
from rkzoo.accuracy.metric import Metric
from rkzoo.accuracy.resampling import of_mean
from rkzoo.accuracy.tables import rows_of
from rkzoo.errors import RkzooError


@dataclass(frozen=True)
class ClassTruth:
    """Ground truth of classification. `names`: class name or index of each image; `classes` all
    names of the data, where these are some of it.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...] = ()

    def check(self, labels: tuple[str, ...]) -> None:
        """Raise RkzooError when a model with these labels cannot be evaluated."""
        self.numbers(labels)

    def numbers(self, labels: tuple[str, ...]) -> NDArray[np.int64]:
        """Return the class index of each image, (P,).

        A name is matched to the labels (or their synonyms, "tench, Tinca tinca"), else taken as an
        index from 0. Names that are neither are numbered alphabetically, when there are as many as
        labels, or the model has no labels.

        Raises:
            RkzooError: a name or index does not exist in the model.
        """
        known: dict[str, int] = {}
        for number, label in reversed(list(enumerate(labels))):
            known |= {normalize_name(part): number for part in (*label.split(","), label)}
        distinct = sorted(set(self.classes or self.names))
        if all(normalize_name(name) in known for name in distinct):
            table = {name: known[normalize_name(name)] for name in distinct}
        elif all(name.isascii() and name.isdigit() and len(name) < 8 for name in distinct):
            table = {name: int(name) for name in distinct}
        elif len(labels) in (0, len(distinct)) and not any(
            normalize_name(n) in known for n in distinct
        ):
            table = {name: number for number, name in enumerate(distinct)}
        else:
            strange = next(name for name in distinct if normalize_name(name) not in known)
            raise RkzooError(
                f"The model has no class {strange[:60]!r}.",
                f"{len(distinct)} classes are in the data, {len(labels)} in the model.",
                "Name the classes as the model does, or by their numbers from 0.",
            )
        if labels and max(table.values()) >= len(labels):
            raise RkzooError(
                f"The data has the class {max(table.values())}.",
                f"The model's classes are 0 to {len(labels) - 1}.",
                "Count the classes from 0.",
            )
        return np.array([table[name] for name in self.names], np.int64)

    def take(self, kept: Sequence[int]) -> ClassTruth:
        """The ground truth of some of the items, in their order."""
        names = tuple(self.names[i] for i in kept)
        return replace(self, names=names, classes=self.classes or tuple(sorted(set(self.names))))

    def digest(self) -> bytes:
        return hashlib.sha256(repr(self.names).encode("utf-8", "replace")).digest()

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Top-1 and top-5 accuracy in %; top-5 only where five classes were kept."""
        if not records:
            return ()
        truth = self.numbers(labels)[: len(records)]
        first = [right in r["class_id"][:1] for right, r in zip(truth, records, strict=True)]
        five = [right in r["class_id"][:5] for right, r in zip(truth, records, strict=True)]
        top = float(np.mean(first))
        metrics = [Metric("top-1", 100 * top, "%", True, 1.0, True, of_mean(first, 100))]
        if all(len(record["class_id"]) >= 5 for record in records):
            metrics.append(Metric("top-5", 100 * float(np.mean(five)), "%", True, 1.0))
        return tuple(metrics)


def read_csv(path: Path, images: Path | None) -> tuple[tuple[Path, ...], ClassTruth]:
    """Read a list: file, class. A header row is skipped."""
    rows = rows_of(path, ",")
    names = [name for name, _ in rows]
    _, paths = best_folder([images or path.absolute().parent], names, path)
    start = first_row(paths)
    classes = tuple(name.strip() for _, name in rows)
    return tuple(paths[start:]), ClassTruth(classes[start:])


def is_class_folders(folder: Path) -> bool:
    """Whether `folder` has subfolders with images."""
    return folder.is_dir() and any(path.parent.parent == folder for path in pictures(folder))


def read_folders(folder: Path) -> tuple[tuple[Path, ...], ClassTruth]:
    """Read a folder with one subfolder per class."""
    items = tuple(path for path in pictures(folder) if path.parent != folder)
    return items, ClassTruth(tuple(path.relative_to(folder).parts[0] for path in items))
