"""Which class of the model is which category of the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError

# COCO's category numbers have gaps: 91 were planned, these 80 have pictures.
_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_IDS = tuple(number for number in range(1, 91) if number not in _GAPS)

# Other names for the same things, as in Darknet's list of COCO.
_SAME = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "hairdrier": "hairdryer",
}


def plain(name: str) -> str:
    """A name without case, spaces and signs, and one of several names of a thing."""
    bare = "".join(sign for sign in name.casefold() if sign.isalnum())
    return _SAME.get(bare, bare)


def match(
    names: tuple[str, ...], ids: tuple[int, ...], labels: tuple[str, ...]
) -> NDArray[np.int64]:
    """For each category of the data the model's class, -1 where the model has none.

    By name. Where no name is the same and the numbers are those of COCO, by place in the
    list of 80; a model without labels has the data's categories in the order of their
    numbers. Raises RkzooError when nothing fits.
    """
    place = np.argsort(np.argsort(np.array(ids, np.int64), kind="stable"), kind="stable")
    if not labels:
        return np.asarray(place, np.int64)
    of_label = {plain(label): number for number, label in reversed(list(enumerate(labels)))}
    found = np.array([of_label.get(plain(name), -1) for name in names], np.int64)
    if (found >= 0).any():
        return found
    if len(labels) == len(COCO_IDS) and set(ids) <= set(COCO_IDS):
        return np.array([COCO_IDS.index(number) for number in ids], np.int64)
    if names == tuple(map(str, ids)) and max(ids, default=0) < len(labels):
        # No names at all, as in a folder of YOLO's labels: the numbers are the classes.
        return np.array(ids, np.int64)
    raise RkzooError(
        "The data and the model have no class in common.",
        f"The data is about {_some(names)}; the model knows {_some(labels)}.",
        "Choose data for this model, or give the model's names in the order of its classes.",
    )


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(name[:40] for name in names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


def of_classes(class_of: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """For answers of the model's classes (N,) the categories, -1 where the data has none.
    `class_of` is what `match` gives."""
    found = np.full(int(max(classes.max(initial=-1), class_of.max(initial=-1))) + 1, -1, np.int64)
    known = class_of >= 0
    found[class_of[known]] = np.flatnonzero(known)
    return np.asarray(found[classes], np.int64)
