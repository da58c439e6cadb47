"""Attention as the compiler's fusion expects it."""

from __future__ import annotations

import onnx

from rkzoo.graph.lowering.rewrites.rule import Writer


def scale_after_product(node: onnx.NodeProto, new: Writer) -> bool:
    """(q * s)^T k as (q^T k) * s in front of a softmax, s being one number.

    Ultralytics 8.4 exports the attention of YOLO11 and YOLO12 in the first form, where
    RKNN-Toolkit2 2.5.0 fails with an IndexError in its attention fusion; 2.3.2 accepts both.
    """
    product = node.output[0]
    if [reader.op_type for reader in new.view.consumers.get(product, [])] != ["Softmax"]:
        return False
    for place, name in enumerate(node.input):
        turn = _alone(new, name, "Transpose")
        maker = _alone(new, turn.input[0] if turn is not None else name, "Mul")
        if maker is None:
            continue
        for factor, scale in (tuple(maker.input), tuple(maker.input)[::-1]):
            number = new.value(scale)
            if number is None or number.size != 1:
                continue
            if turn is not None:
                turned = new.copy(turn)
                turned.input[0] = factor
                factor = turned.output[0] = f"{name}_unscaled"
            inputs = [factor if at == place else other for at, other in enumerate(node.input)]
            raw = new.add("MatMul", *inputs, to=f"{product}_unscaled")
            new.add("Mul", raw, scale, to=product)
            return True
    return False


def _alone(new: Writer, name: str, operator: str) -> onnx.NodeProto | None:
    """The node that makes a tensor for one reader alone, where it is such an operator."""
    maker = new.view.producers.get(name)
    alone = len(new.view.consumers.get(name, [])) == 1
    return maker if maker is not None and maker.op_type == operator and alone else None
