"""An operator that neither the NPU nor Rockchip's software computes, carried beside the model."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import StrictStruct

MARK = "cst"
"""What the toolkit and the NPU's library know such a type by: its name begins so."""


class CustomOperator(StrictStruct, frozen=True):
    """A type of operator that a .rknn names and does not contain.

    Attributes:
        type: Its name in the model.
        operator: The ONNX operator that it is.
        model: An ONNX model of that one node, with what the node reads of the weights: data, which
            ONNX Runtime computes. Its inputs and outputs are in the node's order.
    """

    type: Annotated[str, msgspec.Meta(pattern=r"^cst[A-Za-z0-9]+$", max_length=64)]
    operator: str
    model: bytes

    def sentence(self) -> str:
        """What is told of it."""
        return (
            f"{self.operator} is carried as the custom operator {self.type}: neither the NPU nor "
            "Rockchip's software computes it, so ONNX Runtime does, on the processor."
        )
