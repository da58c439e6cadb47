"""Mapping between model classes and dataset categories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError

# COCO category ids have gaps: 80 of the planned 91 categories have images.
_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_IDS = tuple(number for number in range(1, 91) if number not in _GAPS)

# Synonyms, as in Darknet's list of COCO.
_SAME = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "hairdrier": "hairdryer",
}


def normalize_name(name: str) -> str:
    """Normalize a name: case-folded, alphanumeric only, synonyms unified."""
    bare = "".join(sign for sign in name.casefold() if sign.isalnum())
    return _SAME.get(bare, bare)


def rows_of(
    picture: NDArray[np.int64], kept: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of objects by the index of their image: the rows that belong to the images `kept`, which
    ascend, and the new index of the image of each."""
    place = np.full(int(max([*picture.tolist(), *kept], default=0)) + 1, -1, np.int64)
    place[list(kept)] = np.arange(len(kept))
    rows = np.flatnonzero(place[picture] >= 0)
    return rows, place[picture[rows]]


def match(
    names: tuple[str, ...], ids: tuple[int, ...], labels: tuple[str, ...]
) -> NDArray[np.int64]:
    """Return the model class of each dataset category, -1 where the model has none.

    Matched by name. Where no name matches and the ids are those of COCO, by position in the list of
    80; for a model without labels, by ascending id.

    Args:
        names, ids: the dataset's category names and ids.
        labels: the model's class names.

    Raises:
        RkzooError: nothing matches.
    """
    place = np.argsort(np.argsort(np.array(ids, np.int64), kind="stable"), kind="stable")
    if not labels:
        return np.asarray(place, np.int64)
    of_label = {
        normalize_name(label): number for number, label in reversed(list(enumerate(labels)))
    }
    class_of = np.array([of_label.get(normalize_name(name), -1) for name in names], np.int64)
    if (class_of >= 0).any():
        return class_of
    if len(labels) == len(COCO_IDS) and set(ids) <= set(COCO_IDS):
        return np.array([COCO_IDS.index(number) for number in ids], np.int64)
    if names == tuple(map(str, ids)) and max(ids, default=0) < len(labels):
        # No names, as in a YOLO labels folder: ids are class indices.
        return np.array(ids, np.int64)
    raise RkzooError(
        "The data and the model have no class in common.",
        f"The data is about {_sample_names(names)}; the model knows {_sample_names(labels)}.",
        "Choose data for this model, or give the model's names in the order of its classes.",
    )


def _sample_names(names: tuple[str, ...]) -> str:
    shown = ", ".join(name[:40] for name in names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


def of_classes(class_of: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Map model classes (N,) to dataset categories, -1 where the dataset has none. `class_of` is
    the result of `match`.
    """
    category_of = np.full(
        int(max(classes.max(initial=-1), class_of.max(initial=-1))) + 1, -1, np.int64
    )
    known = class_of >= 0
    category_of[class_of[known]] = np.flatnonzero(known)
    return np.asarray(category_of[classes], np.int64)
