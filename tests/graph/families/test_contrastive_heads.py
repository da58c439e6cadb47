"""Open-vocabulary detectors and segmenters whose words are fixed in the file: a class is what is
like an embedding (YOLO-World, https://arxiv.org/abs/2401.17270; YOLOE,
https://arxiv.org/abs/2503.07465), and the head is otherwise YOLOv8's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_heads import Head, build

from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.cut_head import cut_head, keep_head
from rkzoo.graph.lowering.verify import verify_equivalence
from rkzoo.workflow.compile.prepare import _reader

WIDTH = 16


def contrastive(model: onnx.ModelProto, classes: int, form: str) -> onnx.ModelProto:
    """The graph with each convolution to classes in that form: features of `WIDTH`, batch
    normalisation ("batch") or each cell's length brought to 1 ("unit"), their product with an
    embedding a class ("matmul" or "einsum"), scaled and shifted."""
    norm, product = form.split("-")
    model = onnx.ModelProto.FromString(model.SerializeToString())
    random = np.random.default_rng(6)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    texts = random.normal(size=(classes, WIDTH))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)

    def const(value: object, dtype: type = np.float32) -> str:
        name = f"contrast{len(model.graph.initializer)}"
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(kind: str, *inputs: str, result: str = "", **attributes: object) -> str:
        name = result or f"made{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    for node in model.graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or weight.dims[0] != classes:
            nodes.append(node)
            continue
        inside = weight.dims[1]
        x = op("Conv", node.input[0], const(random.normal(size=(WIDTH, inside, 1, 1))))
        if norm == "batch":
            values = [random.uniform(0.5, 1.5, WIDTH) for _ in range(4)]
            x = op("BatchNormalization", x, *map(const, values))
        else:
            length = op("ReduceL2", x, axes=[1], keepdims=1)
            x = op("Div", x, op("Clip", length, const(1e-6)))
        if product == "einsum":
            x = op("Einsum", x, const(texts), equation="bchw,kc->bkhw")
        else:
            last = op("Transpose", x, perm=[0, 2, 3, 1])
            x = op("Transpose", op("MatMul", last, const(texts.T)), perm=[0, 3, 1, 2])
        op("Add", op("Mul", x, const(3.0)), const(-1.5), result=node.output[0])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("form", ["batch-matmul", "batch-einsum", "unit-matmul", "unit-einsum"])
@pytest.mark.parametrize("task", ["", "seg"])
def test_fixed_words_are_a_head_like_any_other(task: str, form: str) -> None:
    model = contrastive(build(Head(task=task)), 3, form)
    found = recognise(model)
    assert found.family == ("yolov8-seg" if task else "yolov8")
    assert found.contract.head.classes == 3
    cut = cut_head(model, found)
    assert not {"MatMul", "Einsum"} & {node.op_type for node in cut.graph.node}
    assert found.uncut is not None
    whole = keep_head(model, found)
    # It raises where the two differ.
    verify_equivalence(model, cut, found, _reader(found.contract, cut), _reader(found.uncut, whole))
