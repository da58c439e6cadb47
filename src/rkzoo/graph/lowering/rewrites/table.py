"""The rewrites, in the order in which they are tried.

A row was seen to fail, to be wrong or to fall to the processor with RKNN-Toolkit2 2.5.0, and
rewritten, to build, to be computed by the NPU and to answer in the toolkit's simulator what ONNX
Runtime answers (tests/workflow/compile/test_rewritten_real.py).
"""

from __future__ import annotations

from dataclasses import replace

from rkzoo.graph.lowering.rewrites import (
    activations,
    attention,
    dense,
    dimensions,
    indexing,
    log_odds,
    normalization,
    outputs,
    pooling,
    recurrent,
    reductions,
    resizing,
    stems,
)
from rkzoo.graph.lowering.rewrites.rule import Rewrite, Rule, each


def _of(operators: str, rule: Rule, form: str, why: str, chips: tuple[str, ...] = ()) -> Rewrite:
    """A row for operators (their names in one string) that a rule rewrites node by node."""
    names = tuple(operators.split())
    name = rule.__name__.replace("_", "-")
    return Rewrite(name, names, form, why, each(names, rule), chips)


_CRASH = "the toolkit crashes on it"
_ACTIVATIONS = (
    "Relu LeakyRelu Elu Sigmoid HardSigmoid HardSwish Tanh Softplus Erf Exp Sqrt Abs Neg Clip"
)
_LOST = "the toolkit loses its last cell"
_ENDLESS = "the toolkit does not come to an end with it beside a transpose"
_FUSION = "the toolkit's fusion of attention crashes on some of them"
_UNKNOWN = "the toolkit does not know it"
_FLAT = "the compiler has the processor flatten the map before it"
_PROCESSOR = "the compiler leaves it to the processor"
_WASTE = "the compiler computes it at a smaller step and throws most away"

# Chips whose NPU has no maximum over channels; rk3576 and rv1126b have one.
_NO_REDUCE = (
    *("rk3588", "rk3568", "rk3566", "rk3562", "rv1106", "rv1103", "rv1106b", "rv1103b", "rk2118"),
)
# Chips that flatten on the processor; for rk3576 the convolution's weights would be twice as large.
_FLATTENS = ("rk3588", "rk3568", "rk3566")
# Chips that transpose on the NPU, which a product of rows needs, and have no such resize.
_TURNS = ("rk3588", "rk3576", "rv1126b", "rv1106", "rv1103", "rv1106b", "rv1103b", "rk2118")

REWRITES: tuple[Rewrite, ...] = (
    _of("MatMul", attention.scale_after_product, "the product, then scaled", _FUSION),
    _of("Conv", stems.focus, "one that reads the picture itself", _PROCESSOR),
    _of("Conv", stems.patches, "two in steps of at most 7 pixels", _WASTE),
    _of("LSTM", recurrent.steps, "its steps", _CRASH),
    _of("LSTM", recurrent.cell_beside_state, "one whose last state is read, too", _LOST),
    _of("LSTM GRU RNN", recurrent.complete, "the same with bias and outputs given", _CRASH),
    _of("GRU RNN", recurrent.last_step, "its steps, of which the last is taken", _CRASH),
    _of("Mish", activations.mish, "x tanh(softplus(x))", _UNKNOWN),
    _of("Softsign", activations.softsign, "x / (1 + |x|)", _PROCESSOR),
    _of("Selu", activations.selu, "a scaled Elu", _PROCESSOR),
    _of("Celu", activations.celu, "a scaled Elu", _UNKNOWN),
    _of("Gelu", activations.gelu, "its formula", _UNKNOWN),
    _of("Resize", resizing.in_space, "one in planes, then one of the depth", _CRASH),
    _of("Resize", resizing.cubic, "two matrix products", _CRASH),
    _of("GroupNormalization", normalization.group_norm, "InstanceNormalization", _UNKNOWN),
    _of(
        "LayerNormalization",
        normalization.given_defaults,
        "the same with axis and epsilon given",
        _PROCESSOR,
    ),
    _of("LayerNormalization", normalization.over_a_map, "InstanceNormalization", _CRASH),
    _of("Min", reductions.minimum, "-max(-a, -b)", _PROCESSOR),
    _of("Mean", reductions.mean, "a sum and a product", _PROCESSOR),
    _of("ReduceMax ReduceMin", reductions.extreme, "poolings and maxima of halves", _PROCESSOR),
    _of("ReduceMax", reductions.largest_channel, "maxima of halves", _PROCESSOR, _NO_REDUCE),
    _of("MaxPool AveragePool", pooling.pool_in_space, "poolings in planes", _CRASH),
    _of("AveragePool", pooling.mean_of_what_is_there, "one with zeros beyond the edge", _PROCESSOR),
    _of("Slice", pooling.every_other, "Gather or a pooling of single numbers", _PROCESSOR),
    _of("Tile", indexing.tile, "Concat", _PROCESSOR),
    _of("Trilu", indexing.triangle, "a product with ones and zeros", _PROCESSOR),
    _of("SpaceToDepth", indexing.space_to_depth, "a convolution", _PROCESSOR),
    _of("GatherND", indexing.gather_by_places, "Gather", _PROCESSOR),
    _of("GatherElements", indexing.gather_rows, "Gather of whole rows", _PROCESSOR),
    _of("ScatterND", indexing.scatter_as_concat, "Slice and Concat", _PROCESSOR),
    # 1 - sigmoid(z) has three digits where the bounds are.
    replace(
        _of("Log", log_odds.log_odds, "what its sigmoid was made of, within bounds", _PROCESSOR),
        slack=1e-3,
    ),
    _of("Log", activations.log_sigmoid, "-softplus(-x)", _PROCESSOR),
    _of("Resize", resizing.linear, "two matrix products", _PROCESSOR, _TURNS),
    _of("GridSample", indexing.fixed_grid, "a matrix product", _PROCESSOR),
    _of("Add Sub Mul Div", dimensions.fewer_dimensions, "one of four dimensions", _PROCESSOR),
    _of(
        "Softmax ReduceSum",
        dimensions.along_one_axis,
        "one of four dimensions",
        _CRASH,
    ),
    _of("Transpose", dimensions.windows, "one of four dimensions", "its numbers come out wrong"),
    _of(_ACTIVATIONS, dimensions.each_number, "one of four dimensions", _ENDLESS),
    _of("Gemm", dense.dense, "a convolution of the whole map", _FLAT, _FLATTENS),
    Rewrite(
        "twins",
        outputs.VIEWS,
        "a copy",
        "the toolkit drops an output that only relabels another one",
        outputs.twins,
    ),
)
