"""NPU session through rknn-toolkit-lite2, Rockchip's Python package, where only that is installed.

Slower than `npu`: it copies inputs and outputs and converts all integers to floats.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu_api import Cores
from rkzoo.session import Array, Closeable, Label

_GENERATIONS = 1
"""Every inference leaves objects in a reference cycle (42 kB, users measured:
github.com/airockchip/rknn-toolkit2/issues/42). They are young, so collecting the young generations
after each frame finds them, and costs microseconds.
"""


class LiteSession(Closeable):
    """A .rknn run by rknn-toolkit-lite2.

    Args:
        model: The file.
        inputs: Inputs of the file, NCHW.
        outputs: Outputs of the file.
        cores: NPU cores.
        picture: The first input is an image, where it has the shape of one.

    Raises:
        RkzooError: The package is missing, or cannot open the file.
    """

    label: Label = "board"

    def __init__(
        self,
        model: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        cores: Cores = Cores.AUTO,
        picture: bool = True,
    ) -> None:
        self.inputs = tuple(_input_spec(spec, picture and not i) for i, spec in enumerate(inputs))
        self.outputs = tuple(
            TensorSpec(
                name=spec.name,
                shape=spec.shape,
                dtype="float32",
                layout="NCHW" if len(spec.shape) == 4 else "plain",
            )
            for spec in outputs
        )
        self._name = model.name
        self._lite = _package()(verbose=False)
        try:
            self._check(self._lite.load_rknn(str(model)), "cannot be read")
            options = {} if cores == Cores.AUTO else {"core_mask": int(cores)}
            self._check(self._lite.init_runtime(**options), "cannot be opened on the NPU")
        except BaseException:
            self.close()
            raise

    def _check(self, answer: Any, what: str) -> None:
        if answer != 0:
            raise RkzooError(
                f"{self._name} {what}.",
                f"rknn-toolkit-lite2 returned {answer}.",
                "Run rkzoo doctor: driver, library and model must be compatible.",
            )

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the model.

        Args:
            arrays: Images as uint8 (N, H, W, C) in the contract's color order, other inputs as
                declared.

        Returns:
            float32 outputs, NCHW.

        Raises:
            RkzooError: The session is closed, or the run fails.
        """
        if self._lite is None:
            raise RkzooError(
                f"{self._name} is closed.",
                "It was run after it was closed.",
                "Open it again.",
                code=1,
            )
        inputs = [_four(a, spec) for a, spec in zip(arrays, self.inputs, strict=True)]
        # The NPU's library only takes NHWC; for another order it copies nothing.
        formats = ["nhwc"] * len(inputs)
        try:
            outputs = self._lite.inference(inputs=inputs, data_format=formats)
        except Exception as error:
            raise RkzooError(
                f"{self._name} did not run on the NPU.",
                f"rknn-toolkit-lite2 says: {error}.",
                "Compare its inputs with rkzoo inspect.",
            ) from error
        if outputs is None or len(outputs) != len(self.outputs):
            raise RkzooError(
                f"{self._name} did not run on the NPU.",
                "rknn-toolkit-lite2 returned no outputs.",
                "Compare its inputs with rkzoo inspect, or run rkzoo doctor.",
            )
        floats = [
            np.asarray(output, np.float32).reshape(spec.shape)
            for output, spec in zip(outputs, self.outputs, strict=True)
        ]
        del outputs
        gc.collect(_GENERATIONS)
        return floats

    def close(self) -> None:
        """Release the model. May be called twice."""
        lite, self._lite = self._lite, None
        if lite is not None:
            lite.release()


def _package() -> Any:
    try:
        from rknnlite.api import RKNNLite  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise RkzooError(
            "rknn-toolkit-lite2 cannot be used here.",
            f"Python says: {error}.",
            "Install its wheel for this Python, or librknnrt.so (rkzoo doctor says where).",
        ) from error
    return RKNNLite


def _input_spec(spec: TensorSpec, picture: bool) -> TensorSpec:
    """The input as `run` takes it; a `picture` needs 1, 3 or 4 channels."""
    shape = spec.shape
    if picture and len(shape) == 4 and shape[1] in (1, 3, 4):
        batch, channels, height, width = shape
        shape = (batch, height, width, channels)
        return TensorSpec(name=spec.name, shape=shape, dtype="uint8", layout="NHWC")
    return TensorSpec(name=spec.name, shape=shape, dtype="float32")


def _four(array: Array, spec: TensorSpec) -> Array:
    """The array as the package takes it: 4-D, in the order (N, H, W, C)."""
    if array.ndim == 4 and spec.layout != "NHWC":
        array = array.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array.reshape((1,) * (4 - array.ndim) + array.shape))
