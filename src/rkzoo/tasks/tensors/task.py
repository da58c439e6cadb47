"""Any model as it is: inputs by name in, raw outputs by name out."""

from __future__ import annotations

from typing import Any

import numpy as np

from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.session import Session, canvas_of, dequantise
from rkzoo.tasks.tensors.feed import Array, Sample, arrays_of
from rkzoo.tasks.tensors.result import Tensors


class TensorTask:
    """A model whose outputs stay plain tensors; made once, called for every sample."""

    def __init__(self, contract: Contract, session: Session) -> None:
        self.contract, self.session = contract, session
        picture = contract.picture
        self._canvas = canvas_of(session, picture.size, picture.channels) if picture else None

    def __call__(self, sample: Sample) -> Tensors:
        """Runs one sample.

        Args:
            sample: As for `arrays_of`.

        Returns:
            The outputs by name.

        Raises:
            RkzooError: An input is missing, unknown or of another shape.
        """
        return self.postprocess(self.session.run(self.preprocess(sample)))

    def preprocess(self, sample: Sample) -> list[Array]:
        """The sample as the session takes it, one array an input. Raises RkzooError."""
        return arrays_of(sample, self.contract, self._canvas)

    def postprocess(self, outputs: list[Array], *place: Any) -> Tensors:
        """The session's outputs by name."""
        named = zip(outputs, self.session.outputs, strict=True)
        return Tensors({spec.name: _plain(array, spec) for array, spec in named})


def _plain(array: Array, spec: TensorSpec) -> Array:
    """The values of an output, copied: the session's memory may be its own."""
    if array.dtype.kind == "f" or spec.scale is not None:
        return np.array(dequantise(array, spec))
    return np.array(array)
