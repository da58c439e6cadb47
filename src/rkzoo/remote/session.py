"""A model on a board's NPU, run from the PC."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.protocol.board import Layers, ModelMemory, Opened, Timed
from rkzoo.remote.client import Client
from rkzoo.session import Array, Closeable, Label, check_inputs


class RemoteSession(Closeable):
    """A session whose NPU is elsewhere. What `run` returns is read-only, as the NPU gave it: raw
    integers, in the layout that `outputs` say. Several threads may run it; they wait for each other
    on the board.

    Args:
        client: The board's.
        opened: What it answered when the model was opened.
        name: What the model is called in messages.
    """

    label: Label = "board"

    def __init__(self, client: Client, opened: Opened, name: str) -> None:
        self.client, self.opened, self.name = client, opened, name
        self.inputs, self.outputs = opened.inputs, opened.outputs
        self._closed = False
        self._last: Sequence[Array] = ()

    @property
    def stand_in(self) -> bool:
        """Whether the board's library is one for tests, and measures nothing."""
        return self.opened.stand_in

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the model.

        Args:
            arrays: Images as uint8 (N, H, W, C) in the contract's color order, other inputs as
                declared.

        Returns:
            The outputs as `outputs` describes them.

        Raises:
            RkzooError: An input has the wrong shape or type, the NPU fails, or the connection is
                cut.
        """
        self._last = arrays
        answered = self.client.infer(self.opened.session, self._fed(arrays))
        return [self._output(answered, spec) for spec in self.outputs]

    def time(self, arrays: Sequence[Array], runs: int) -> Timed:
        """The board's own times of `runs` runs, without sending. Raises RkzooError."""
        return self.client.time(self.opened.session, self._fed(arrays), runs)

    def time_again(self, runs: int) -> Timed:
        """As `time`, with what was run last. Raises RkzooError."""
        return self.time(self._last, runs)

    def record(self, file: bytes, name: str) -> dict[str, Array]:
        """What is found in a picture or sound that is sent as it is, where the session was opened
        with its contract. Raises RkzooError."""
        return self.client.record(self.opened.session, file, name)

    def layers(self) -> Layers:
        """Times per layer, where it was opened to be profiled. Raises RkzooError."""
        return self.client.layers(self.opened.session)

    def memory(self) -> ModelMemory:
        """Memory of the model on the board. Raises RkzooError."""
        return self.client.memory(self.opened.session)

    def close(self) -> None:
        """Gives the model back; where the connection is gone, the board has done so."""
        if self._closed:
            return
        self._closed = True
        with suppress(RkzooError):
            self.client.close_session(self.opened.session)

    def _fed(self, arrays: Sequence[Array]) -> dict[str, Array]:
        if self._closed:
            raise RkzooError(
                "The model is closed.", "It was run after it was closed.", "Open it again.", code=1
            )
        check_inputs(self.name, arrays, self.inputs)
        return {
            spec.name: np.ascontiguousarray(array, spec.dtype)
            for array, spec in zip(arrays, self.inputs, strict=True)
        }

    def _output(self, answered: dict[str, Array], spec: TensorSpec) -> Array:
        array = answered.get(spec.name)
        if array is None or array.shape != spec.shape or str(array.dtype) != spec.dtype:
            got = "none" if array is None else f"{array.dtype} {list(array.shape)}"
            raise RkzooError(
                f"The answer of {self.client.board} cannot be read.",
                f"The output {spec.name} is {got}, and was announced as {spec.dtype}"
                f" {list(spec.shape)}.",
                "Update rkzoo there.",
                code=1,
            )
        return array
