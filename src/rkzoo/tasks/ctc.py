"""The best path of connectionist temporal classification (CTC)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def merged(steps: NDArray[np.intp], blank: int) -> NDArray[np.intp]:
    """(T,) the best class of each step to the steps (K,) at which a character begins: where the
    class is no blank and not that of the step before."""
    kept = steps != blank
    kept[1:] &= steps[1:] != steps[:-1]
    return np.flatnonzero(kept)
