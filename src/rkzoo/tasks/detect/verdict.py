"""Do these detections make sense? If not, what is likely wrong, in plain words.

A model that is read or fed in a wrong way rarely fails: it answers with thousands of boxes,
or with scores that are none. This looks at one picture's outputs before suppression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rkzoo.contract.detect import DetectHead
from rkzoo.tasks.detect.decode import DetectDecoder
from rkzoo.tasks.detect.planes import F32, Array

# A crowded street has some hundred cells above any useful threshold, of 8400.
FLOOD_SHARE = 0.3
# So many boxes with scores this close together are one answer given everywhere.
MANY, ALIKE = 300, 0.02
# Scores of an ordinary picture fall below this nearly everywhere.
USEFUL = 0.25
# sigmoid(0) to sigmoid(1), which is what a second sigmoid makes of 0..1.
TWICE = (0.5, 0.7311)
# A scale that was rounded up gives 1.004; logits go far beyond.
_SLACK = 0.02


@dataclass(frozen=True)
class Seen:
    """One picture's outputs before suppression.

    `cells` of all levels; `scores` (N,) of the cells that reach the threshold; `lowest` and
    `highest` number stored as a score, before any sigmoid that the decoder applies; `astray`
    the share of those N boxes that have no area or whose middle lies outside the input.
    """

    cells: int
    scores: F32
    lowest: float
    highest: float
    astray: float = 0.0

    @property
    def share(self) -> float:
        return len(self.scores) / self.cells if self.cells else 0.0


def look(
    decoder: DetectDecoder, outputs: Sequence[Array], size: tuple[int, int], confidence: float
) -> Seen:
    """Measures the outputs of one picture. `size` is the input's (height, width).

    It reads every score once, so it is for doubtful pictures and not for every frame.
    """
    found = decoder.candidates(outputs, confidence)
    lowest, highest = float("inf"), float("-inf")
    for level in decoder.levels:
        for plane in (level.score, level.objectness):
            if plane is None:
                continue
            stored = plane.gather(outputs, np.arange(plane.size(outputs)))
            if stored.size:
                low, high = plane.values(np.array([stored.min(), stored.max()]))
                lowest, highest = min(lowest, float(low)), max(highest, float(high))
    return Seen(
        cells=sum(level.score.size(outputs) for level in decoder.levels),
        scores=found.score,
        lowest=lowest,
        highest=highest,
        astray=_astray(found.boxes, size),
    )


def _astray(boxes: F32, size: tuple[int, int]) -> float:
    if not len(boxes):
        return 0.0
    turned = boxes.shape[1] == 5
    first, second = boxes[:, :2], boxes[:, 2:4]
    middle, sides = (first, second) if turned else ((first + second) / 2, second - first)
    limit = np.array(size[::-1], np.float32)
    inside = (sides > 0).all(axis=1) & (middle >= 0).all(axis=1) & (middle <= limit).all(axis=1)
    return float(1 - inside.mean())


def verdict(seen: Seen, confidence: float, head: DetectHead) -> tuple[str, ...]:
    """What is likely wrong and what to do, one entry a cause; empty when nothing is."""
    no_sigmoid = _no_sigmoid(seen, head)
    if no_sigmoid:
        return (no_sigmoid,)
    count = len(seen.scores)
    alike = count >= MANY and _spread(seen.scores) < ALIKE
    if seen.share <= FLOOD_SHARE and not alike:
        return ()
    flood = f"{count} of {seen.cells} cells reach the score {confidence:g}, a flood of boxes: "
    return (flood + _cause(seen, confidence, head, alike),)


def _no_sigmoid(seen: Seen, head: DetectHead) -> str:
    """Numbers that are no probabilities, though the head says that they are."""
    if not head.activated or not np.isfinite([seen.lowest, seen.highest]).all():
        return ""
    if seen.lowest >= -_SLACK and seen.highest <= 1 + _SLACK:
        return ""
    return (
        f"The graph gives scores from {seen.lowest:.3g} to {seen.highest:.3g}, but a score lies in "
        "0..1: it has no sigmoid at its end, though its description says so. Run or convert the "
        "original .onnx, where rkzoo sees this and applies the sigmoid itself."
    )


def _cause(seen: Seen, confidence: float, head: DetectHead, alike: bool) -> str:
    scores = seen.scores
    low, high = TWICE
    # Nearly all cells see nothing, and a second sigmoid makes 0.5 of that 0.
    if (
        seen.share > 0.95
        and np.median(scores) < low + 0.03
        and scores.min() >= low - 0.005
        and scores.max() <= high + 0.005
        and seen.highest <= 1 + _SLACK
    ):
        where = (
            "the graph applies it twice; export the model again without the extra sigmoid"
            if head.activated
            else "the graph applies it already and rkzoo was told that it does not; convert the "
            "original .onnx again"
        )
        return f"all scores lie in 0.5..0.73, as after two sigmoids: {where}."
    if confidence < USEFUL and float((scores >= USEFUL).sum()) < 0.05 * seen.cells:
        return f"the threshold is too low; {USEFUL:g} is usual (--conf {USEFUL:g})."
    if seen.astray > 0.5:
        return (
            f"{seen.astray:.0%} of the boxes lie outside the picture or have no area, so the model "
            "is likely of another family than the one it is read as; see rkzoo inspect."
        )
    if alike:
        return (
            "their scores are all nearly the same, so the picture hardly reaches the network: the "
            "normalisation is likely wrong. See rkzoo inspect MODEL --image PICTURE, and set "
            "--mean and --std."
        )
    return (
        "likely the normalisation or the colour order is not the one of training, or the model is "
        "of another family. See rkzoo inspect MODEL --image PICTURE."
    )


def _spread(scores: F32) -> float:
    """Between the 5th and the 95th percentile."""
    low, high = np.percentile(scores, (5, 95))
    return float(high - low)
