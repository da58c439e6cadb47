"""Equivalence check of a cut graph: both graphs run on the same images in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import BoxHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.recognition import Recognition
from rkzoo.graph.lowering.cut_head import static_input
from rkzoo.graph.onnx.input_preprocessing import InputPreprocessing, input_preprocessing
from rkzoo.graph.onnx.unrounded import unrounded
from rkzoo.graph.onnx.view import prepared, run_whole

Array = NDArray[Any]
# Outputs in the contract's order -> boxes of every cell (N, 4) x1,y1,x2,y2 in input pixels, or (N,
# 5) cx,cy,w,h,angle; scores (N, C), or (N, 2) score and class id of a tensor that is `picked`;
# extras (N, E). The finest level first, in row-major order.
Decode = Callable[[Sequence[Array]], tuple[Array, Array, Array]]

# In pixels, for boxes up to 100 px; beyond that the tolerance grows in proportion, because float32
# has no more digits and a rewritten convolution accumulates in another order.
MAX_BOX_PX = 1e-3
_FULL_DIGITS_PX = 100.0
MAX_SCORE = 1e-5
# Mask coefficients and visibility have no unit; keypoints are in pixels.
MAX_EXTRA = 1e-3
# Rows of a picked (top-k) tensor below this score are not matched: they may be any of many cells.
_PICKED_SCORE = 1e-3


@dataclass(frozen=True)
class EquivalenceReport:
    """The largest differences between the cut and the uncut graph.

    Attributes:
        box_px: Largest box difference in pixels (angles in radians).
        score: Largest score difference, in 0..1.
        pictures: Number of images compared.
        cells: Cells per image.
        best_score: Highest score among them; near zero, the comparison says little.
        extra: Largest difference of mask coefficients, prototypes and keypoints.
    """

    box_px: float
    score: float
    pictures: int
    cells: int
    best_score: float
    extra: float = 0.0

    @property
    def words(self) -> str:
        """How equal they are, in words."""
        if not self.cells:
            return f"numbers to {self.score:.1e}"
        return f"boxes to {self.box_px:.1e} px, scores to {self.score:.1e}"


def verify_equivalence(
    original: onnx.ModelProto,
    cut_model: onnx.ModelProto,
    recognition: Recognition,
    decode_cut: Decode,
    decode_whole: Decode,
    seed: int = 0,
    *,
    allowed: float = 0.0,
) -> EquivalenceReport:
    """Run both graphs in ONNX Runtime and compare their decoded outputs.

    Args:
        original: The uncut model.
        cut_model: The cut model.
        recognition: What is known of the head.
        decode_cut: Decoder of the cut model's outputs.
        decode_whole: Decoder of the uncut model's outputs.
        seed: Seed of the test images.
        allowed: Score error that the form of the cut itself causes.

    Returns:
        The largest differences.

    Raises:
        RkzooError: A box differs by more than 1e-3 px, a score by more than 1e-5 + `allowed`, or an
            extra (mask prototypes included) by more than 1e-3; a result is NaN; or the head was not
            cut.
    """
    uncut, kept = recognition.uncut, recognition.contract.head
    if uncut is None or not isinstance(uncut.head, BoxHead) or not isinstance(kept, BoxHead):
        raise RkzooError(
            "There is nothing to verify for this model.", "Its head was not cut.", "", code=1
        )
    image = recognition.contract.input
    front = input_preprocessing(original, image.size)
    sizes = static_input(original, recognition)
    # Rounding of a quantised graph would hide a difference, and make some where none is.
    cut_model = unrounded(cut_model)
    (name,) = sizes
    if front is not None:
        sizes[name] = front.array_shape(image.size)
    whole = prepared(unrounded(original), sizes).model
    order = [output.name for output in whole.graph.output]
    indexes = [order.index(output.name) for output in uncut.head.outputs]
    picked = is_picked(uncut.head)
    pictures = drawn_pictures(image.size, seed)
    worst, best, cells = np.zeros(3), 0.0, 0
    for picture in pictures:
        fed = input_tensor(picture, image, front)
        answers = run_whole(whole, {name: fed if front is None else front.array(fed)})
        expected_raw, found_raw = (
            [answers[index] for index in indexes],
            run_whole(cut_model, {name: fed}),
        )
        expected, actual = decode_whole(expected_raw), decode_cut(found_raw)
        prototypes = (_prototypes(kept, found_raw), _prototypes(uncut.head, expected_raw))
        if recognition.coarsest_first and isinstance(kept, DetectHead):
            expected = _finest_first(expected, kept.strides, image.size)
        if picked:
            expected, actual = _paired(expected, actual)
        pairs = [*zip(actual, expected, strict=True), prototypes]
        for array, other in pairs:
            if array.shape != other.shape:
                raise _unequal(f"{array.shape} came out where {other.shape} was expected.")
        cells = len(expected[0])
        boxes, scores, *others = (_max_difference(array, other) for array, other in pairs)
        # np.maximum propagates a NaN of either graph, and NaN passes no limit.
        worst = np.maximum(worst, [boxes, scores, float(np.max(others))])
        best = max(best, float(expected[1].max(initial=0.0)))
    box_px, score, extra = (float(value) for value in worst)
    if not (box_px <= MAX_BOX_PX and score <= MAX_SCORE + allowed and extra <= MAX_EXTRA):
        raise _unequal(
            f"Boxes differ by up to {box_px:.3g} px, scores by up to {score:.3g}, masks and key "
            f"points by up to {extra:.3g}."
        )
    return EquivalenceReport(box_px, score, len(pictures), cells, best, extra)


def input_tensor(
    picture: NDArray[np.float32], image: ImageInput, front: InputPreprocessing | None = None
) -> NDArray[np.float32]:
    """A picture (H, W, 3) as float32 1xCxHxW, normalised: whole numbers where the graph, as it
    was exported, takes no others."""
    channels = image.channels
    planes = picture[..., [0, 1, 2, 0][:channels]].transpose(2, 0, 1)[None]
    mean, std = (np.reshape(values, (1, -1, 1, 1)) for values in (image.mean, image.std))
    values = (planes - mean) / std
    whole = front is not None and not front.floats
    return np.asarray(np.rint(values) if whole else values, np.float32)


def _finest_first(
    cells: tuple[Array, Array, Array], strides: Sequence[int], size: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """Reorder cells from falling to rising stride."""
    counts = [-(-size[0] // step) * -(-size[1] // step) for step in reversed(strides)]
    ends = np.cumsum(counts)[:-1]

    def turned(array: Array) -> Array:
        return np.concatenate(np.split(array, ends)[::-1])

    boxes, scores, extras = cells
    return turned(boxes), turned(scores), turned(extras)


def is_picked(head: BoxHead) -> bool:
    """Whether the graph picks the best itself, so that its rows are some of those before."""
    if isinstance(head, DetectHead):
        return head.decoded is not None and head.decoded.picked
    return head.picked


def _prototypes(head: BoxHead, outputs: Sequence[Array]) -> Array:
    """The mask prototypes, one per row; empty for a head without masks."""
    if isinstance(head, DetectHead):
        for output, array in zip(head.outputs, outputs, strict=True):
            if output.role == "prototypes":
                return array.reshape(array.shape[1], -1)
    return np.empty((0, 0), np.float32)


def _max_difference(actual: Array, expected: Array) -> float:
    """The largest absolute difference, relative to the largest value of its row (one box, or one
    cell's scores) where that exceeds 100.
    """
    if not actual.size:
        return 0.0
    required = expected.astype(np.float64)
    size = np.maximum(1.0, np.abs(required).max(axis=1, keepdims=True) / _FULL_DIGITS_PX)
    return float((np.abs(actual.astype(np.float64) - required) / size).max())


def _paired(
    picked: tuple[Array, Array, Array], cells: tuple[Array, Array, Array]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """For each picked row with a significant score, the cell that it came from."""
    boxes, pairs, extras = picked
    live = np.flatnonzero(pairs[:, 0] >= _PICKED_SCORE)
    if not len(live):
        # No significant score on these images: compare the best few rows.
        live = np.arange(min(8, len(boxes)))
    classes = np.rint(pairs[live, 1]).astype(int)
    nearest = []
    for row, class_id in zip(live, classes, strict=True):
        apart = np.abs(cells[0] - boxes[row]).max(axis=1)
        apart += 100 * np.abs(cells[1][:, class_id] - pairs[row, 0])
        nearest.append(int(apart.argmin()))
    expected = (boxes[live], pairs[live, :1], extras[live])
    chosen = (cells[0][nearest], cells[1][nearest, classes][:, None], cells[2][nearest])
    return expected, chosen


def _unequal(why: str) -> RkzooError:
    return RkzooError(
        "The outputs of the cut graph differ from those of the uncut graph.",
        why,
        "Convert it with --no-cut, and please report this model: rkzoo misread its head.",
        code=1,
    )


def drawn_pictures(size: tuple[int, int], seed: int) -> list[NDArray[np.float32]]:
    """Two images (H, W, 3), 0..255, that activate a detector: shapes on a gradient, and the same
    with noise. Noise alone leaves most branches near zero.
    """
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
