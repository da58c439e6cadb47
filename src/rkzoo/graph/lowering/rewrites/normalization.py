"""Normalisations in those that the toolkit knows."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import attributes

_DEFAULTS = {"axis": -1, "epsilon": 1e-5}

# Numbers that the toolkit normalises along several axes; with one more it fails in every graph.
_MOST = 8191


def group_norm(node: onnx.NodeProto, new: Writer) -> bool:
    """Groups of channels become the channels of an InstanceNormalization; from opset 21 on, where
    scale and bias are a number a channel."""
    x = node.input[0]
    scale, bias = new.value(node.input[1]), new.value(node.input[2])
    given, shape = attributes(node), new.shape(x)
    if shape is None or scale is None or bias is None or scale.shape[0] != shape[1]:
        return False
    groups, epsilon = given["num_groups"], given.get("epsilon", 1e-5)
    apart = new.reshape(x, [shape[0], groups, -1])
    constant, zeros = new.constant(np.ones(groups)), new.constant(np.zeros(groups))
    level = new.add("InstanceNormalization", apart, constant, zeros, epsilon=epsilon)
    column = (1, shape[1], *([1] * (len(shape) - 2)))
    level = new.reshape(level, shape)
    level = new.add("Mul", level, new.constant(scale.reshape(column)))
    new.add("Add", level, new.constant(bias.reshape(column)), to=node.output[0])
    return True


def given_defaults(node: onnx.NodeProto, new: Writer) -> bool:
    """The defaults of axis and epsilon written out: the compiler has no form of it without."""
    given = attributes(node)
    missing = {name: value for name, value in _DEFAULTS.items() if name not in given}
    if not missing or len(node.output) > 1:
        return False
    copy = new.copy(node)
    copy.attribute.extend(helper.make_attribute(name, value) for name, value in missing.items())
    return True


def over_a_map(node: onnx.NodeProto, new: Writer) -> bool:
    """A LayerNormalization over many rows and columns is an InstanceNormalization of one channel,
    whose scale and bias are a number each."""
    x, given = node.input[0], attributes(node)
    shape, scale = new.shape(x), new.value(node.input[1])
    bias = new.value(node.input[2]) if node.input[2:] and node.input[2] else None
    if shape is None or scale is None or len(node.output) > 1 or not new.is_float(x):
        return False
    axis = given.get("axis", -1) % len(shape)
    count = math.prod(shape[axis:])
    if (
        len(shape) - axis < 2
        or count <= _MOST
        or (node.input[2:] and node.input[2] and bias is None)
    ):
        return False
    apart = new.reshape(x, [math.prod(shape[:axis]), 1, count // shape[-1], shape[-1]])
    one, zero = new.constant(np.ones(1)), new.constant(np.zeros(1))
    epsilon = given.get("epsilon", _DEFAULTS["epsilon"])
    level = new.add("InstanceNormalization", apart, one, zero, epsilon=epsilon)
    level = new.reshape(level, shape)
    level = new.add("Mul", level, new.constant(scale))
    if bias is not None:
        level = new.add("Add", level, new.constant(bias))
    new.call(level, node.output[0])
    return True
