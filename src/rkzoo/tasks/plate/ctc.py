"""CTC decoding of license plates, optionally constrained to plate layouts.

Best-path decoding: the most probable class per step, repeats merged and blanks dropped. With
layouts, the most probable path that spells one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.ctc import collapse_repeats

Log = NDArray[np.float64]
Allowed = NDArray[np.bool_]

_ELECTRIC = frozenset("ABCDEFGHJK")
_AVOIDED = frozenset("IO")


def best_path(logs: Log, blank: int, layouts: Sequence[Allowed] = ()) -> NDArray[np.intp]:
    """Return the class of each step (T,).

    Args:
        logs: (C, T) log probabilities.
        blank: index of the blank class.
        layouts: (K, C) each: the classes that a character may have. Without layouts, or when none
            fits into T steps, the unconstrained best path is returned.
    """
    plain = np.asarray(logs.argmax(axis=0), np.intp)
    text = plain[collapse_repeats(plain, blank)]
    # No path is more probable than the unconstrained one, so it wins where it spells a layout.
    if not layouts or any(_spells(text, layout) for layout in layouts):
        return plain
    paths = [path for layout in layouts if (path := _spelling(logs, blank, layout)) is not None]
    return max(paths, key=lambda path: path[0])[1] if paths else plain


def _spells(text: NDArray[np.intp], layout: Allowed) -> bool:
    return len(text) == len(layout) and bool(layout[np.arange(len(text)), text].all())


def _spelling(logs: Log, blank: int, layout: Allowed) -> tuple[float, NDArray[np.intp]] | None:
    """Viterbi search: the most probable path that spells the layout, with its log probability.

    States after a step: `gap` (K + 1,), on a blank after so many characters, and `on` (K, C), on
    the character of that position. Each stores its predecessor.
    """
    count, classes = layout.shape
    steps = logs.shape[1]
    allowed = layout & (np.arange(classes) != blank)
    gap = np.full(count + 1, -np.inf)
    gap[0] = 0.0
    on = np.full((count, classes), -np.inf)
    # Predecessors: a class of the previous position (>= 0), a blank, or the state itself.
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
    """Best way to start each character (K, C): after a blank, or directly after a different
    character of the previous position (an equal one would merge).
    """
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
    """Classes allowed for each character of a layout (see PlateHead), bool (K, C)."""
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
