"""Monocular depth estimation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.depth import DepthHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise
from rkzoo.tasks.depth.result import DepthMap
from rkzoo.tasks.image_task import ImageTask, refuse_crop
from rkzoo.vision.letterbox import Letterbox
from rkzoo.vision.maps import to_source


class DepthEstimator(ImageTask[DepthMap]):
    """Depth estimator. Construct once, call once per image."""

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, DepthHead):
            raise RkzooError(f"{contract.family} is not a depth model.", code=1)
        refuse_crop(contract, "A depth map covers every pixel.")
        super().__init__(contract, session)
        self.head = contract.head

    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> DepthMap:
        """Resize the raw map bilinearly to the source image.

        Raises:
            RkzooError: the output is not a single map of finite values.
        """
        values = to_source(single_map(outputs[0], self.session.outputs[0]), letterbox)
        return DepthMap(values, self.head.inverse, self.head.metric)


def single_map(output: NDArray[Any], spec: TensorSpec) -> NDArray[np.float32]:
    """Dequantize a depth output to (h, w) float32.

    Args:
        output: 1x1xhxw or 1xhxw; 1xhxwx1 where its layout is NHWC.
        spec: describes the output.

    Raises:
        RkzooError: another shape, or values that are not finite.
    """
    channels_last = spec.layout == "NHWC" and output.ndim == 4
    shape = output.shape[1:3] if channels_last else output.shape[-2:]
    if output.ndim not in (3, 4) or output.size != np.prod(shape):
        raise RkzooError(
            f"The model gave an output of {'x'.join(map(str, output.shape))}.",
            "Depth is one map, 1x1xHxW or 1xHxW.",
            "Look at the model with rkzoo inspect, and fix its card.",
        )
    values = dequantise(output, spec).reshape(shape)
    if not np.isfinite(values).all():
        raise RkzooError(
            "The depth map holds numbers that are not finite.",
            "The network overflowed: its numbers are too large for float16, or its weights are "
            "damaged.",
            "Look for the layer with rkzoo compare.",
        )
    return values
