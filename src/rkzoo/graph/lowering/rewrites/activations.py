"""Activations by their formulas, which the toolkit has no form of, or crashes on."""

from __future__ import annotations

from math import sqrt

import numpy as np
import onnx

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import attributes


def mish(node: onnx.NodeProto, new: Writer) -> bool:
    """x tanh(log(1 + e^x))"""
    (x,) = node.input
    new.add("Mul", x, new.add("Tanh", new.add("Softplus", x)), to=node.output[0])
    return True


def softsign(node: onnx.NodeProto, new: Writer) -> bool:
    """x / (1 + |x|)"""
    (x,) = node.input
    below = new.add("Add", new.add("Abs", x), new.constant(1.0))
    new.add("Div", x, below, to=node.output[0])
    return True


def selu(node: onnx.NodeProto, new: Writer) -> bool:
    """gamma elu(x, alpha)"""
    given = attributes(node)
    alpha, gamma = given.get("alpha", 1.67326319217681884765625), given.get("gamma", 1.0507010221)
    bent = new.add("Elu", node.input[0], alpha=alpha)
    new.add("Mul", bent, new.constant(gamma), to=node.output[0])
    return True


def celu(node: onnx.NodeProto, new: Writer) -> bool:
    """alpha elu(x / alpha)"""
    alpha = new.constant(attributes(node).get("alpha", 1.0))
    bent = new.add("Elu", new.add("Div", node.input[0], alpha))
    new.add("Mul", bent, alpha, to=node.output[0])
    return True


def gelu(node: onnx.NodeProto, new: Writer) -> bool:
    """As opsets before 20 spell it, which is what the toolkit reads."""
    (x,) = node.input
    if attributes(node).get("approximate", b"none") == b"tanh":
        cube = new.add("Mul", new.add("Mul", x, x), x)
        inner = new.add("Add", x, new.add("Mul", cube, new.constant(0.044715)))
        bent = new.add("Tanh", new.add("Mul", inner, new.constant(sqrt(2 / np.pi))))
    else:
        bent = new.add("Erf", new.add("Div", x, new.constant(sqrt(2))))
    product = new.add("Mul", x, new.add("Add", bent, new.constant(1.0)))
    new.add("Mul", product, new.constant(0.5), to=node.output[0])
    return True


def log_sigmoid(node: onnx.NodeProto, new: Writer) -> bool:
    """log(sigmoid(x)) = -softplus(-x)"""
    maker = new.view.producers.get(node.input[0])
    if maker is None or maker.op_type != "Sigmoid":
        return False
    bent = new.add("Softplus", new.add("Neg", maker.input[0]))
    new.add("Neg", bent, to=node.output[0])
    return True
