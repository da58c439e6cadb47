"""Base class of tasks that run one network on one image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, canvas_of, preprocess_of
from rkzoo.vision.letterbox import Letterbox, fit

R = TypeVar("R")


class ImageTask(ABC, Generic[R]):
    """A network that takes an image. Construct once, call once per image.

    Owns the input buffer and hardware resizing (RGA) for all tasks. Subclasses implement the
    postprocessing, `decode`.
    """

    def __init__(self, contract: Contract, session: Session) -> None:
        self.contract, self.session = contract, session
        self._canvas = canvas_of(session, contract.input.size, contract.input.channels)
        self._fit = preprocess_of(session, fit)

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[list[NDArray[Any]], Letterbox]:
        """Resize, pad and convert a BGR image (H, W, 3) to the model's inputs.

        Returns:
            The input arrays, uint8 NHWC (reused by the next call), and the geometry of the resize.
        """
        canvas, letterbox = self._fit(image, self.contract.input, self._canvas)
        return [canvas], letterbox

    @abstractmethod
    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> R:
        """Convert raw output tensors to the result, in source-image pixels."""

    def many(self, images: Sequence[NDArray[np.uint8]]) -> list[R]:
        """As for each of them; run at once by a session of a batch (`run_many`)."""
        places: list[Letterbox] = []
        outputs = self.outputs_of(images, places)
        pairs = zip(outputs, places, strict=True)
        return [self.postprocess(arrays, letterbox) for arrays, letterbox in pairs]

    def outputs_of(
        self, images: Sequence[NDArray[np.uint8]], places: list[Letterbox]
    ) -> list[list[NDArray[Any]]]:
        """The raw outputs of each image by one run, and appended to `places` how it lay in the
        input. Only for a session of a batch that holds them all."""
        samples = []
        for image in images:
            arrays, letterbox = self.preprocess(image)
            samples.append([array.copy() for array in arrays])
            places.append(letterbox)
        session: Any = self.session
        outputs: list[list[NDArray[Any]]] = session.run_many(samples)
        return outputs

    def __call__(self, image: NDArray[np.uint8]) -> R:
        arrays, letterbox = self.preprocess(image)
        return self.postprocess(self.session.run(arrays), letterbox)


def refuse_crop(contract: Contract, why: str) -> None:
    """Raise RkzooError, with the reason `why`, when the model preprocesses with a centre crop, for
    tasks whose result covers every pixel.
    """
    if contract.input.fit == "crop":
        raise RkzooError(
            f"{contract.family} would see the centre of a picture only.",
            why,
            "Fix the card: fit must be stretch or letterbox.",
        )


class LinePreprocess:
    """Batches text line images. A batch of one with the input size of the NPU goes to the session's
    own memory, resized by its hardware.
    """

    def __init__(self, contract: Contract, session: Session) -> None:
        self._spec, self._session = contract.input, session
        self._fit = preprocess_of(session, fit)

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
