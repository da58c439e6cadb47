"""From the scores of each step to the characters of a plate (CTC).

The best path is read: of all ways to give each step one class, the likeliest, in which
repeats are merged and blanks dropped. Where a plate must have one of certain layouts, it is
the likeliest path that spells one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.ctc import merged

Log = NDArray[np.float64]
Allowed = NDArray[np.bool_]

_ELECTRIC = frozenset("ABCDEFGHJK")
_AVOIDED = frozenset("IO")


def best_path(logs: Log, blank: int, layouts: Sequence[Allowed] = ()) -> NDArray[np.intp]:
    """(T,) the class of each step. `logs` (C, T): logarithms of probabilities; `layouts`
    (K, C) each: which classes a character may have. Without layouts, or when none of them
    fits into T steps, the plain best path."""
    plain = np.asarray(logs.argmax(axis=0), np.intp)
    text = plain[merged(plain, blank)]
    # Nothing is likelier than the plain path, so it is the answer where it spells a layout.
    if not layouts or any(_spells(text, layout) for layout in layouts):
        return plain
    found = [path for layout in layouts if (path := _spelling(logs, blank, layout)) is not None]
    return max(found, key=lambda path: path[0])[1] if found else plain


def _spells(text: NDArray[np.intp], layout: Allowed) -> bool:
    return len(text) == len(layout) and bool(layout[np.arange(len(text)), text].all())


def _spelling(logs: Log, blank: int, layout: Allowed) -> tuple[float, NDArray[np.intp]] | None:
    """The likeliest path that spells the layout, with the logarithm of its probability.

    States after a step: `gap` (K + 1,), on a blank with so many characters behind it, and `on`
    (K, C), on the character of that place. Each remembers the state that it came from.
    """
    count, classes = layout.shape
    steps = logs.shape[1]
    allowed = layout & (np.arange(classes) != blank)
    gap = np.full(count + 1, -np.inf)
    gap[0] = 0.0
    on = np.full((count, classes), -np.inf)
    # Where a state came from: a class of the place before, a blank, or itself.
    from_gap, stay = -1, -2
    gaps = np.empty((steps, count + 1), np.intp)
    ons = np.empty((steps, count, classes), np.intp)
    for step in range(steps):
        entry, origin = _entries(gap, on, from_gap)
        entry[~allowed] = -np.inf
        stays = on >= entry
        ons[step] = np.where(stays, stay, origin)
        closing = np.concatenate(([-np.inf], on.max(axis=1)))
        closed = closing > gap
        gaps[step] = np.where(closed, np.concatenate(([0], on.argmax(axis=1))), from_gap)
        gap = np.where(closed, closing, gap) + logs[blank, step]
        on = np.where(stays, on, entry) + logs[:, step]
    last = int(on[-1].argmax())
    total = max(float(gap[-1]), float(on[-1, last]))
    if total == -np.inf:
        return None
    place, now = (count, blank) if gap[-1] >= on[-1, last] else (count - 1, last)
    path = np.empty(steps, np.intp)
    for step in range(steps - 1, -1, -1):
        path[step] = now
        came = int(gaps[step, place] if now == blank else ons[step, place, now])
        if now == blank or came != stay:
            place, now = (place, blank) if came == from_gap else (place - 1, came)
    return total, path


def _entries(gap: Log, on: Log, from_gap: int) -> tuple[Log, NDArray[np.intp]]:
    """The best way to begin each character (K, C): after a blank, or after another character of
    the place before, which must differ, else the two would be one."""
    count, classes = on.shape
    entry = np.repeat(gap[:-1, None], classes, axis=1)
    origin = np.full((count, classes), from_gap, np.intp)
    before = on[:-1].copy()
    rows = np.arange(count - 1)
    best = before.argmax(axis=1)
    value = before[rows, best]
    before[rows, best] = -np.inf
    second = before.argmax(axis=1)
    other = before[rows, second]
    same = np.arange(classes) == best[:, None]
    direct = np.where(same, other[:, None], value[:, None])
    source = np.where(same, second[:, None], best[:, None])
    better = direct > entry[1:]
    entry[1:] = np.where(better, direct, entry[1:])
    origin[1:] = np.where(better, source, origin[1:])
    return entry, origin


def allowed(layout: str, labels: Sequence[str], blank: int) -> Allowed:
    """(K, C): which classes the characters of a layout may have (see PlateHead)."""
    return np.array(
        [
            [index != blank and _fits(kind, label) for index, label in enumerate(labels)]
            for kind in layout
        ]
    )


def _fits(kind: str, label: str) -> bool:
    if not label.isascii():
        return kind == "P"
    digit = label.isdigit()
    letter = len(label) == 1 and label.isalpha() and label not in _AVOIDED
    return {"D": digit, "L": letter, "A": digit or letter, "E": label in _ELECTRIC}.get(kind, False)
