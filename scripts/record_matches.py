"""Writes what a model's mAP is made of, detection by detection, for the tests of the interval.

    python scripts/record_matches.py MODEL.onnx DATA OUT.npz

OUT holds no picture and no weight: for float (ONNX Runtime) and plain INT8 (the simulator) the
image of each detection up to the last hit of its category, best first, and the places of the hits.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np

from rkzoo.accuracy.resampling import Resampled
from rkzoo.workflow.evaluation.evaluate import evaluate
from rkzoo.workflow.request.request import Request


def arrays_of(resampled: Resampled, name: str) -> dict[str, Any]:
    """The arrays of one model's mAP, joined over categories and thresholds."""
    assert isinstance(resampled.value, partial)
    (kinds,) = resampled.value.args
    marks = [part for kind in kinds for mark in kind.marks for part in mark]
    joined = {
        "objects": [kind.objects for kind in kinds],
        "answers": [kind.answers for kind in kinds],
        "marks": marks,
    }
    arrays: dict[str, Any] = {f"{name} rows": np.array(resampled.rows)}
    for key, parts in joined.items():
        arrays[f"{name} {key}"] = np.concatenate(parts).astype(np.uint16)
        arrays[f"{name} {key} sizes"] = np.array([len(part) for part in parts], np.uint16)
    return arrays


def main(model: str, data: str, out: str) -> None:
    arrays: dict[str, Any] = {}
    for name, request in (
        ("float", Request()),
        ("int8", Request(runtime="simulator", plain=True)),
    ):
        resampled = evaluate(model, data, request=request).main.resampled
        assert resampled is not None
        arrays |= arrays_of(resampled, name)
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
