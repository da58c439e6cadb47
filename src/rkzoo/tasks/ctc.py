"""Greedy decoding of connectionist temporal classification (CTC)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def collapse_repeats(steps: NDArray[np.intp], blank: int) -> NDArray[np.intp]:
    """Return the steps (K,) at which a character starts: not blank and not a repeat.

    Args:
        steps: (T,) the best class of each step.
        blank: index of the blank class.
    """
    kept = steps != blank
    kept[1:] &= steps[1:] != steps[:-1]
    return np.flatnonzero(kept)
