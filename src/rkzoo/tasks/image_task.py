"""Base class of tasks that answer one picture with one network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, canvas_of, fitter_of
from rkzoo.vision.letterbox import Letterbox, fit

R = TypeVar("R")


class ImageTask(ABC, Generic[R]):
    """A network that takes a picture, ready to run; made once, called for every picture.

    The picture is written where the NPU reads it and, where the session has hardware for it
    (RGA), by that: here, so that no task can forget either. A subclass says what the outputs
    mean.
    """

    def __init__(self, contract: Contract, session: Session) -> None:
        self.contract, self.session = contract, session
        self._canvas = canvas_of(session, contract.input.size, contract.input.channels)
        self._fit = fitter_of(session, fit)

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[list[NDArray[Any]], Letterbox]:
        """BGR (H, W, 3) to the session's inputs. The array is reused by the next call."""
        canvas, letterbox = self._fit(image, self.contract.input, self._canvas)
        return [canvas], letterbox

    @abstractmethod
    def decode(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> R:
        """The session's raw tensors to the result, in source-image pixels."""

    def __call__(self, image: NDArray[np.uint8]) -> R:
        arrays, letterbox = self.preprocess(image)
        return self.decode(self.session.run(arrays), letterbox)


def refuse_crop(contract: Contract, why: str) -> None:
    """Raises RkzooError for a model that would see the middle of a picture only, where the answer
    is about every pixel: `why` says so."""
    if contract.input.fit == "crop":
        raise RkzooError(
            f"{contract.family} would see the middle of a picture only.",
            why,
            "Mend the card: fit must be stretch or letterbox.",
        )


class LinePreprocess:
    """Brings pictures of lines into a batch: into the session's own memory, and by its hardware,
    where the batch is one picture of the size that the NPU takes."""

    def __init__(self, contract: Contract, session: Session) -> None:
        self._spec, self._session = contract.input, session
        self._fit = fitter_of(session, fit)

    def __call__(self, lines: Sequence[NDArray[np.uint8]], width: int) -> NDArray[np.uint8]:
        """BGR lines (h, w, 3) to uint8 (N, height, width, C) in the contract's colour order. The
        array may be reused by the next call."""
        size = (self._spec.size[0], width)
        spec = (
            self._spec
            if size == self._spec.size
            else msgspec.structs.replace(self._spec, size=size)
        )
        if len(lines) == 1:
            return self._fit(lines[0], spec, canvas_of(self._session, size, spec.channels))[0]
        batch = np.empty((len(lines), *size, spec.channels), np.uint8)
        for place, line in enumerate(lines):
            fit(line, spec, batch[place : place + 1])
        return batch
