"""Shows that a cut changed nothing: both graphs run on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rkzoo.contract import DetectHead
from rkzoo.errors import RkzooError
from rkzoo.graph.cut import static_input
from rkzoo.graph.recognition import Recognition
from rkzoo.graph.view import prepared, run

Array = NDArray[Any]
# The cut graph's outputs in the contract's order -> every cell's boxes (N, 4) as cx, cy, w, h
# in input pixels, and scores (N, C), the finest level first, row by row.
Decode = Callable[[Sequence[Array]], tuple[Array, Array]]

MAX_BOX_PX = 1e-3
MAX_SCORE = 1e-5


@dataclass(frozen=True)
class Proof:
    """Largest differences seen between decode(cut) and the uncut graph, over `pictures`
    pictures of `cells` cells each: `box_px` in pixels, `score` in 0..1. `best_score` is the
    highest score among them, to tell a proof on live numbers from one on nothing."""

    box_px: float
    score: float
    pictures: int
    cells: int
    best_score: float


def prove(
    original: onnx.ModelProto,
    cut_model: onnx.ModelProto,
    recognition: Recognition,
    decode: Decode,
    seed: int = 0,
) -> Proof:
    """Runs both graphs in ONNX Runtime and compares.

    Raises RkzooError when a box differs by more than 1e-3 px or a score by more than 1e-5,
    when a result is not a number, or when the graph has no uncut form.
    """
    uncut = recognition.uncut
    if uncut is None or not isinstance(uncut.head, DetectHead):
        raise RkzooError(
            "There is nothing to prove for this model.", "Its head was not cut.", "", code=1
        )
    sizes = static_input(original, recognition)
    whole = prepared(original, sizes).model
    (name,) = sizes
    box_px = score = best = 0.0
    cells = 0
    pictures = _pictures(recognition.contract.input.size, seed)
    divisor = np.float32(recognition.contract.input.std[0])
    for picture in pictures:
        fed = {name: (picture / divisor).transpose(2, 0, 1)[None].astype(np.float32)}
        expected = np.asarray(run(whole, fed)[0][0], np.float64)
        boxes, scores = decode(run(cut_model, fed))
        found = np.concatenate((boxes, scores), axis=1).T.astype(np.float64)
        if not uncut.head.activated:
            expected[4:] = 1 / (1 + np.exp(-expected[4:]))
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise _unequal(f"{found.shape} came out where {expected.shape} was due.")
        cells = expected.shape[1]
        apart = np.abs(found - expected)
        # np.max keeps a NaN of the uncut graph, and a NaN is below no limit.
        box_px = float(np.max((box_px, apart[:4].max())))
        score = float(np.max((score, apart[4:].max())))
        best = max(best, float(expected[4:].max()))
    if not (box_px <= MAX_BOX_PX and score <= MAX_SCORE):
        raise _unequal(f"Boxes differ by up to {box_px:.3g} px and scores by up to {score:.3g}.")
    return Proof(box_px, score, len(pictures), cells, best)


def _unequal(why: str) -> RkzooError:
    return RkzooError(
        "The cut graph does not give what the uncut graph gives.",
        why,
        "Convert it with --no-cut, and please report this model: rkzoo misread its head.",
        code=1,
    )


def _pictures(size: tuple[int, int], seed: int) -> list[NDArray[np.float32]]:
    """Two pictures (H, W, 3) in 0..255 that wake a detector: shapes on a slope, and the same
    under noise. Noise alone leaves most of its branches near zero."""
    height, width = size
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = np.stack((x / width, y / height, 1 - x / width), axis=2) * 255
    for _ in range(12):
        top, left = random.integers(0, height), random.integers(0, width)
        tall, wide = random.integers(8, height // 2 + 9), random.integers(8, width // 2 + 9)
        colour = random.integers(0, 256, 3)
        if random.random() < 0.5:
            slope[top : top + tall, left : left + wide] = colour
        else:
            inside = ((y - top) / tall) ** 2 + ((x - left) / wide) ** 2 < 1
            slope[inside] = colour
    noisy = np.clip(slope + random.normal(0, 25, slope.shape), 0, 255)
    return [slope.astype(np.float32), noisy.astype(np.float32)]
