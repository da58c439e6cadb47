"""Conclusions of a comparison: affected parts, verdict, next command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.session import Array
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.workflow.comparison.diagnosis import (
    LARGEST_HALF,
    ZERO_HALF,
    Cause,
    Extreme,
    like_float,
)
from rkzoo.workflow.comparison.result import RuntimeComparison

NOTHING_FOUND = (
    "Nothing was found in the pictures, by float neither, so this says little: give pictures of "
    "what the model looks for with --image."
)
_TITLES = {
    "fp16": "float16",
    "int8": "INT8",
    "w4a16": "W4A16",
    "board_fp16": "float16 on the board",
    "board_int8": "INT8 on the board",
    "board_w4a16": "W4A16 on the board",
}


def suspect_parts(variant: RuntimeComparison) -> set[str]:
    """Parts of a pipeline whose outputs deviate from float; where none does although the result
    suffers, the one with the lowest cosine.
    """
    rows = sorted(variant.outputs, key=lambda row: -1.0 if row.cosine is None else row.cosine)
    return {row.part for row in rows if not like_float([row])} or {row.part for row in rows[:1]}


def calibrated(build: BuildInputs) -> int | None:
    """Number of calibration images; None without calibration. Raises RkzooError when they cannot be
    read."""
    if build.calibration is None:
        return None
    with os_errors_explained("The calibration pictures cannot be read from the cache."):
        return len(np.load(build.calibration / "calibration-0.npy", mmap_mode="r"))


def beyond_float16(
    model: Any, contract: Contract, arrays: Sequence[Array]
) -> tuple[Extreme | None, Extreme | None]:
    """What of the float graph, run on these inputs, float16 cannot hold; None for what is not
    there, and where the graph cannot be run.

    Returns:
        The tensor with the largest absolute value above float16's, and that value, of numbers that
        depend on the input: a mask of constants is meant to be beyond all numbers. And the one that
        is divided by, or whose logarithm is taken, with the smallest value that float16 makes 0.
    """
    from rkzoo.graph.onnx.subgraph import all_outputs

    divisors = {
        node.input[place]
        for node in model.graph.node
        if (place := _DIVISORS.get(node.op_type)) is not None
    }
    large: dict[str, Array] = {}
    small: list[Extreme] = []
    try:
        with OnnxSession(all_outputs(model).SerializeToString(), contract.picture) as session:
            names = [spec.name for spec in session.outputs]
            for name, values in zip(names, session.run(arrays), strict=True):
                if not values.size or values.dtype.kind != "f":
                    continue
                size = np.abs(values)
                if size.max() > LARGEST_HALF:
                    large[name] = values
                if name in divisors and (lost := size[(size > 0) & (size <= ZERO_HALF)]).size:
                    small.append((name, float(lost.min())))
            if large:
                others = dict(zip(names, session.run([_another(a) for a in arrays]), strict=True))
                large = {name: v[v != others[name]] for name, v in large.items()}
    except RkzooError:
        return None, None  # only this diagnosis is lost
    maxima = [(name, float(np.abs(values).max())) for name, values in large.items() if values.size]
    maxima = [(name, value) for name, value in maxima if value > LARGEST_HALF]
    smallest = min(small, key=lambda pair: pair[1], default=None)
    return max(maxima, key=lambda pair: pair[1], default=None), smallest


# Operators that answer no number for 0, and which of their inputs it is.
_DIVISORS = {"Div": 1, "Reciprocal": 0, "Log": 0}


def _another(array: Array) -> Array:
    """An input of other numbers that the model takes, too."""
    return 255 - array if array.dtype == np.uint8 else np.flip(array)


def verdict_text(ran: Sequence[RuntimeComparison], causes: Sequence[Cause]) -> str:
    """Verdict in a few words, with counts where available."""
    bad = [_TITLES[variant.runtime] for variant in ran if variant.hurt]
    good = [
        _TITLES[variant.runtime]
        for variant in ran
        if not variant.hurt and variant.runtime != "onnx"
    ]
    sentences = []
    if good:
        sentences.append(f"{' and '.join(good)} answer{'s' * (len(good) == 1)} as float does.")
    if bad:
        several = len(bad) > 1
        sentences.append(
            f"{' and '.join(bad)} do{'' if several else 'es'} not answer as float does."
        )
    silent = _found_nothing(ran)
    if silent and not bad:
        sentences = [NOTHING_FOUND]
    elif not bad and not causes:
        sentences.insert(0, "Nothing is wrong:")
    if causes and not bad:
        sentences.append("Yet something is likely wrong with the model or how it is fed.")
    for variant in ran:
        agreed = variant.agreement
        if agreed is not None and (agreed.lost or agreed.new):
            few = agreed.lost + agreed.new - sum(len(m.serious) for m in variant.matches)
            sentences.append(
                f"{_TITLES[variant.runtime]} finds {agreed.found} of the "
                f"{agreed.found + agreed.lost} things of float and {agreed.new} others"
                + (f" ({few} differ by a hair at the threshold)." if few else ".")
            )
    return " ".join(sentences)


def _found_nothing(ran: Sequence[RuntimeComparison]) -> bool:
    """Whether no runtime, float among them, found a thing in any picture."""
    counts = [count for variant in ran for count in variant.counts if count is not None]
    return bool(counts) and not any(counts)


def next_command(
    ran: Sequence[RuntimeComparison], causes: Sequence[Cause], commands: Mapping[str, str]
) -> str:
    """The command to run next."""
    first = next((cause.fix for cause in causes if cause.fix.startswith("rkzoo ")), "")
    if first:
        return first.split("   (")[0]
    return commands["tune"] if any(variant.hurt for variant in ran) else commands["eval"]
