"""ONNX Runtime session on this machine's CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.ort import BoundedSession
from rkzoo.session import Array, Closeable, Label

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint64)": "uint64",
    "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


_FIX = "Look at it with rkzoo inspect, check the input size, or export it again."


class OnnxSession(Closeable):
    """Runs a float graph on ONNX Runtime's CPU provider.

    `inputs` and `outputs` describe its tensors.

    Args:
        model: The .onnx file, or the serialized graph.
        image: Normalization of the first input, which a .rknn applies itself: so both kinds of
            session take the same uint8 NHWC image. None: no image.
        threads: Number of threads; 0 leaves it to ONNX Runtime.

    Raises:
        RkzooError: The graph cannot be loaded, or there is too little memory for it.
    """

    label: Label = "onnx"

    def __init__(
        self, model: Path | bytes, image: ImageInput | None = None, *, threads: int = 0
    ) -> None:
        self._image = image
        what = "The graph" if isinstance(model, bytes) else str(model)
        try:
            self._session = BoundedSession(model, what=what, fix=_FIX, threads=threads)
        except ImportError as error:
            raise RkzooError(
                "ONNX models cannot be run here.",
                f"The package onnxruntime is not installed ({error}).",
                'Install it with: pip install "rkzoo[pc]"',
            ) from error
        nodes = self._session.session.get_inputs()
        self._names = [node.name for node in nodes]
        self.inputs = tuple(_spec(node) for node in nodes)
        if image is not None:
            _, _, height, width = (*self.inputs[0].shape, -1, -1, -1, -1)[:4]
            batch = self.inputs[0].shape[0]
            nhwc = TensorSpec(
                name=self._names[0],
                shape=(batch, height, width, image.channels),
                dtype="uint8",
                layout="NHWC",
            )
            self.inputs = (nhwc, *self.inputs[1:])
            self._mean = np.array(image.mean, np.float32)
            self._gain = (1 / np.array(image.std, np.float64)).astype(np.float32)
        self.outputs = tuple(_spec(node) for node in self._session.session.get_outputs())

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the graph.

        Args:
            arrays: Images as uint8 (N, H, W, C) in the contract's color order, other inputs as
                declared.

        Returns:
            The outputs in the graph's order.

        Raises:
            RkzooError: ONNX Runtime cannot run it.
        """
        inputs = list(arrays)
        if self._image is not None and inputs and inputs[0].dtype == np.uint8:
            inputs[0] = self._normalised(inputs[0])
        outputs = self._session.run(dict(zip(self._names, inputs, strict=True)))
        return [np.asarray(output) for output in outputs]

    def _normalised(self, picture: Array) -> Array:
        """Normalize uint8 NHWC to float32 NCHW: (x - mean) / std."""
        values = picture.astype(np.float32)
        values -= self._mean
        values *= self._gain
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def close(self) -> None:
        """Does nothing; ONNX Runtime frees the session itself."""
        pass


def _spec(node: object) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) and d > 0 else -1 for d in (node.shape or ()))  # type: ignore[attr-defined]
    return TensorSpec(
        name=node.name,  # type: ignore[attr-defined]
        shape=shape,
        dtype=_DTYPES.get(node.type, str(node.type)),  # type: ignore[attr-defined]
        layout="NCHW" if len(shape) == 4 else "plain",
    )
