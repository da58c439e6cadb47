"""The rewrites, in the order in which they are tried.

A row was seen to fail, to be wrong or to fall to the processor with RKNN-Toolkit2 2.5.0, and
rewritten, to build, to be computed by the NPU and to answer in the toolkit's simulator what ONNX
Runtime answers (tests/workflow/compile/test_rewritten_real.py).
"""

from __future__ import annotations

from rkzoo.graph.lowering.rewrites import (
    activations,
    dense,
    normalization,
    outputs,
    recurrent,
    resizing,
)
from rkzoo.graph.lowering.rewrites.rule import Rewrite, Rule, each


def _of(operators: str, rule: Rule, form: str, why: str, chips: tuple[str, ...] = ()) -> Rewrite:
    """A row for operators (their names in one string) that a rule rewrites node by node."""
    names = tuple(operators.split())
    name = rule.__name__.replace("_", "-")
    return Rewrite(name, names, form, why, each(names, rule), chips)


_CRASH = "the toolkit crashes on it"
_UNKNOWN = "the toolkit does not know it"
_FLAT = "the compiler has the processor flatten the map before it"
_PROCESSOR = "the compiler leaves it to the processor"

REWRITES: tuple[Rewrite, ...] = (
    _of("LSTM GRU RNN", recurrent.complete, "the same with bias and outputs given", _CRASH),
    _of("GRU RNN", recurrent.last_step, "its steps, of which the last is taken", _CRASH),
    _of("Mish", activations.mish, "x tanh(softplus(x))", _UNKNOWN),
    _of("Softsign", activations.softsign, "x / (1 + |x|)", _PROCESSOR),
    _of("Selu", activations.selu, "a scaled Elu", _PROCESSOR),
    _of("Celu", activations.celu, "a scaled Elu", _UNKNOWN),
    _of("Ceil", activations.ceil, "-floor(-x)", _PROCESSOR),
    _of("Gelu", activations.gelu, "its formula", _UNKNOWN),
    _of("Resize", resizing.cubic, "two matrix products", _CRASH),
    _of("GroupNormalization", normalization.group_norm, "InstanceNormalization", _UNKNOWN),
    _of("Gemm", dense.dense, "a convolution of the whole map", _FLAT),
    Rewrite(
        "twins",
        outputs.VIEWS,
        "a copy",
        "the toolkit drops an output that only relabels another one",
        outputs.twins,
    ),
)
