"""A session that takes several pictures at once, seen picture by picture."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.session import Array, Closeable, Label, Session


class BatchedSession(Closeable):
    """The samples of a session's batch, one by one or several at a time; owns the session.

    Args:
        session: All its inputs and outputs have the samples in their first dimension.

    Raises:
        RkzooError: An output has not, so it cannot be told which sample is whose.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.label: Label = session.label
        self.batch = session.inputs[0].shape[0]
        for spec in (*session.inputs, *session.outputs):
            if spec.shape[:1] != (self.batch,):
                raise RkzooError(
                    "The outputs of this model cannot be told apart by sample.",
                    f"{spec.name} is {list(spec.shape)}, and a batch is {self.batch}.",
                    "Convert it without --batch.",
                )
        self.inputs = tuple(map(one_sample, session.inputs))
        self.outputs = tuple(map(one_sample, session.outputs))
        self._fed = [np.zeros(spec.shape, spec.dtype) for spec in session.inputs]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run one sample; it costs as much as a whole batch.

        Args:
            arrays: As `inputs` says, with a first dimension of 1.

        Returns:
            As `outputs` says; views of the session's own.
        """
        return self.run_many([arrays])[0]

    def run_many(self, samples: Sequence[Sequence[Array]]) -> list[list[Array]]:
        """Run `batch` samples at the most, each as in `run`; what is missing is the last again."""
        for place in range(self.batch):
            sample = samples[min(place, len(samples) - 1)]
            for whole, array in zip(self._fed, sample, strict=True):
                whole[place : place + 1] = array
        outputs = self._session.run(self._fed)
        return [[array[n : n + 1] for array in outputs] for n in range(len(samples))]

    def close(self) -> None:
        """Close the session."""
        self._session.close()


def one_sample(spec: TensorSpec) -> TensorSpec:
    """The spec of one sample of a batch."""
    return msgspec.structs.replace(spec, shape=(1, *spec.shape[1:]))
