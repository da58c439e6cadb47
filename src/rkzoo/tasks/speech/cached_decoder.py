"""One step a token: a decoder whose keys and values are kept here (Whisper, Moonshine)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rkzoo.session import Array, Session, run_named

HIDDEN = -1e4  # attention mask value: practically minus infinity, and representable in float16


class CachedDecoder:
    """Autoregressive decoder with a key/value cache, which starts empty.

    `embedding` gives the decoder's inputs of a token at its position; `heard` are those that stay
    the same while a window is decoded.
    """

    def __init__(self, embedding: Session, decoder: Session, heard: Mapping[str, Array]) -> None:
        self._embedding, self._decoder = embedding, decoder
        shapes = {spec.name: spec.shape for spec in decoder.inputs}
        self._inputs: dict[str, Array] = {
            name: np.zeros(shape, np.float32)
            for name, shape in shapes.items()
            if name.startswith("past_")
        }
        self._inputs |= heard
        self._inputs["mask"] = np.full(shapes["mask"], HIDDEN, np.float32)
        self._inputs["mask"][..., -1] = 0.0
        self.room = shapes["mask"][-1] - 1
        self._length = 0

    def step(self, token: int) -> NDArray[np.float32]:
        """Feed `token` and return the logits (V,) of the next one."""
        at = self._length
        requested = {"token": np.array([token]), "position": np.array([at])}
        self._inputs |= run_named(self._embedding, requested)
        outputs = run_named(self._decoder, self._inputs)
        if at < self.room:
            for name, array in outputs.items():
                if name.startswith("new_"):
                    self._inputs[name.replace("new_", "past_")][..., at, :] = array[..., 0, :]
            self._inputs["mask"][..., at] = 0.0
        self._length += 1
        return np.asarray(outputs["logits"], np.float32).reshape(-1)
