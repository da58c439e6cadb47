"""Shows that a cut changed nothing: both graphs run on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.recognition import Recognition
from rkzoo.graph.lowering.cut_head import static_input
from rkzoo.graph.onnx.unrounded import unrounded
from rkzoo.graph.onnx.view import prepared, run

Array = NDArray[Any]
# Outputs in the contract's order -> every cell's boxes (N, 4) x1,y1,x2,y2 in input pixels, or
# (N, 5) cx,cy,w,h,angle; scores (N, C), or (N, 2) score and class number of a tensor that is
# `picked`; extras (N, E). The finest level first, row by row.
Decode = Callable[[Sequence[Array]], tuple[Array, Array, Array]]

# For boxes up to 100 px; a box beyond that may differ in proportion, for single precision has
# no more digits and a convolution that is spelled otherwise adds up in another order.
MAX_BOX_PX = 1e-3
_FULL_DIGITS_PX = 100.0
MAX_SCORE = 1e-5
# Mask coefficients and visibility have no unit; key points are pixels.
MAX_EXTRA = 1e-3
# A row of a picked tensor below this score may be any of many.
_PICKED_SCORE = 1e-3


@dataclass(frozen=True)
class Proof:
    """Largest differences seen between the cut and the uncut graph, over `pictures` pictures
    of `cells` cells each: `box_px` in pixels (angles in radians), `score` in 0..1, `extra`
    (mask coefficients and prototypes, key points). `best_score` is the highest score among
    them, to tell a proof on live numbers from one on nothing."""

    box_px: float
    score: float
    pictures: int
    cells: int
    best_score: float
    extra: float = 0.0


def prove(
    original: onnx.ModelProto,
    cut_model: onnx.ModelProto,
    recognition: Recognition,
    decode_cut: Decode,
    decode_whole: Decode,
    seed: int = 0,
    *,
    allowed: float = 0.0,
) -> Proof:
    """Runs both graphs in ONNX Runtime and compares what they mean.

    `allowed` is what the form of the cut itself takes from a score. Raises RkzooError when a box
    differs by more than 1e-3 px, a score by more than 1e-5 beyond that or an extra (a prototype
    of masks among them) by more than 1e-3, when a result is not a number, or when there is no
    uncut form.
    """
    uncut, kept = recognition.uncut, recognition.contract.head
    if uncut is None or not isinstance(uncut.head, DetectHead) or not isinstance(kept, DetectHead):
        raise RkzooError(
            "There is nothing to prove for this model.", "Its head was not cut.", "", code=1
        )
    sizes = static_input(original, recognition)
    # Rounding of a quantised graph would hide a difference, and make some where none is.
    whole, cut_model = prepared(unrounded(original), sizes).model, unrounded(cut_model)
    (name,) = sizes
    order = [output.name for output in whole.graph.output]
    wanted = [order.index(output.name) for output in uncut.head.outputs]
    picked = uncut.head.decoded is not None and uncut.head.decoded.picked
    pictures = _pictures(recognition.contract.input.size, seed)
    divisor = np.float32(recognition.contract.input.std[0])
    worst, best, cells = np.zeros(3), 0.0, 0
    for picture in pictures:
        fed = {name: (picture / divisor).transpose(2, 0, 1)[None].astype(np.float32)}
        answers = run(whole, fed)
        expected_raw, found_raw = [answers[index] for index in wanted], run(cut_model, fed)
        expected, found = decode_whole(expected_raw), decode_cut(found_raw)
        prototypes = (_prototypes(kept, found_raw), _prototypes(uncut.head, expected_raw))
        if recognition.coarsest_first:
            expected = _finest_first(expected, kept.strides, recognition.contract.input.size)
        if picked:
            expected, found = _paired(expected, found)
        pairs = [*zip(found, expected, strict=True), prototypes]
        for one, other in pairs:
            if one.shape != other.shape:
                raise _unequal(f"{one.shape} came out where {other.shape} was due.")
        cells = len(expected[0])
        boxes, scores, *others = (_apart(one, other) for one, other in pairs)
        # np.maximum keeps a NaN of either graph, and a NaN is below no limit.
        worst = np.maximum(worst, [boxes, scores, float(np.max(others))])
        best = max(best, float(expected[1].max(initial=0.0)))
    box_px, score, extra = (float(value) for value in worst)
    if not (box_px <= MAX_BOX_PX and score <= MAX_SCORE + allowed and extra <= MAX_EXTRA):
        raise _unequal(
            f"Boxes differ by up to {box_px:.3g} px, scores by up to {score:.3g}, masks and key "
            f"points by up to {extra:.3g}."
        )
    return Proof(box_px, score, len(pictures), cells, best, extra)


def _finest_first(
    cells: tuple[Array, Array, Array], strides: Sequence[int], size: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """Cells of levels in falling stride, put in rising stride."""
    counts = [-(-size[0] // step) * -(-size[1] // step) for step in reversed(strides)]
    ends = np.cumsum(counts)[:-1]

    def turned(array: Array) -> Array:
        return np.concatenate(np.split(array, ends)[::-1])

    boxes, scores, extras = cells
    return turned(boxes), turned(scores), turned(extras)


def _prototypes(head: DetectHead, outputs: Sequence[Array]) -> Array:
    """The masks' prototypes, one a row; none where there are no masks."""
    for output, array in zip(head.outputs, outputs, strict=True):
        if output.role == "prototypes":
            return array.reshape(array.shape[1], -1)
    return np.empty((0, 0), np.float32)


def _apart(found: Array, expected: Array) -> float:
    """The largest difference, in proportion to the largest number of its row (one box, one
    cell's scores) where that is beyond 100."""
    if not found.size:
        return 0.0
    wanted = expected.astype(np.float64)
    size = np.maximum(1.0, np.abs(wanted).max(axis=1, keepdims=True) / _FULL_DIGITS_PX)
    return float((np.abs(found.astype(np.float64) - wanted) / size).max())


def _paired(
    picked: tuple[Array, Array, Array], cells: tuple[Array, Array, Array]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """For each picked row with a live score, the cell that it was taken from."""
    boxes, pairs, extras = picked
    live = np.flatnonzero(pairs[:, 0] >= _PICKED_SCORE)
    if not len(live):
        # Nothing scored on these pictures: the very best rows still say something.
        live = np.arange(min(8, len(boxes)))
    classes = np.rint(pairs[live, 1]).astype(int)
    found = []
    for row, class_id in zip(live, classes, strict=True):
        apart = np.abs(cells[0] - boxes[row]).max(axis=1)
        apart += 100 * np.abs(cells[1][:, class_id] - pairs[row, 0])
        found.append(int(apart.argmin()))
    expected = (boxes[live], pairs[live, :1], extras[live])
    chosen = (cells[0][found], cells[1][found, classes][:, None], cells[2][found])
    return expected, chosen


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
