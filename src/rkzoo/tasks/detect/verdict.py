"""Plausibility check of raw detections, with the likely cause in plain words.

A model that is decoded or fed wrongly rarely fails: it gives thousands of boxes, or invalid
scores. This examines the outputs of one image before NMS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rkzoo.contract.detect import DetectHead
from rkzoo.tasks.detect.planes import F32, Array
from rkzoo.tasks.detect.postprocess import DetectDecoder

# A crowded street has a few hundred of 8400 cells above any useful threshold.
FLOOD_SHARE = 0.3
# This many boxes with scores this close together: the same answer in every cell.
MANY, ALIKE = 300, 0.02
# In an ordinary image nearly all scores are below this.
USEFUL = 0.25
# sigmoid(0) to sigmoid(1): the range after a second sigmoid.
TWICE = (0.5, 0.7311)
# A rounded quantization scale gives up to 1.004; logits go far beyond.
_SLACK = 0.02


@dataclass(frozen=True)
class OutputStatistics:
    """Statistics of one image's outputs before NMS.

    Attributes:
        cells: number of cells of all levels.
        scores: (N,) scores of the cells that reach the threshold.
        lowest, highest: extremes stored as a score, before any sigmoid of the decoder.
        astray: share of those N boxes without area or with a centre outside the input.
    """

    cells: int
    scores: F32
    lowest: float
    highest: float
    astray: float = 0.0

    @property
    def share(self) -> float:
        """Share of cells that reach the threshold."""
        return len(self.scores) / self.cells if self.cells else 0.0


def output_statistics(
    decoder: DetectDecoder, outputs: Sequence[Array], size: tuple[int, int], confidence: float
) -> OutputStatistics:
    """Collect the statistics of one image.

    Reads every score once, so it is for doubtful images and not for every frame.

    Args:
        decoder: decoder of the model.
        outputs: raw tensors of the session.
        size: input (height, width).
        confidence: threshold in 0..1.
    """
    candidates = decoder.candidates(outputs, confidence)
    lowest, highest = float("inf"), float("-inf")
    for level in decoder.levels:
        for plane in (level.score, level.objectness):
            if plane is None:
                continue
            stored = plane.gather(outputs, np.arange(plane.size(outputs)))
            if stored.size:
                low, high = plane.values(np.array([stored.min(), stored.max()]))
                lowest, highest = min(lowest, float(low)), max(highest, float(high))
    return OutputStatistics(
        cells=sum(level.score.size(outputs) for level in decoder.levels),
        scores=candidates.score,
        lowest=lowest,
        highest=highest,
        astray=_astray(candidates.boxes, size),
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


def diagnose_outputs(
    seen: OutputStatistics, confidence: float, head: DetectHead
) -> tuple[str, ...]:
    """Return the likely causes with a remedy, one entry per cause; empty when plausible."""
    no_sigmoid = _no_sigmoid(seen, head)
    if no_sigmoid:
        return (no_sigmoid,)
    count = len(seen.scores)
    alike = count >= MANY and _spread(seen.scores) < ALIKE
    if seen.share <= FLOOD_SHARE and not alike:
        return ()
    flood = f"{count} of {seen.cells} cells reach the score {confidence:g}, a flood of boxes: "
    return (flood + _cause(seen, confidence, head, alike),)


def _no_sigmoid(seen: OutputStatistics, head: DetectHead) -> str:
    """Scores outside 0..1 although the head declares them activated."""
    if not head.activated or not np.isfinite([seen.lowest, seen.highest]).all():
        return ""
    if seen.lowest >= -_SLACK and seen.highest <= 1 + _SLACK:
        return ""
    return (
        f"The graph gives scores from {seen.lowest:.3g} to {seen.highest:.3g}, but a score lies in "
        "0..1: it has no sigmoid at its end, though its description says so. Run or convert the "
        "original .onnx, where rkzoo sees this and applies the sigmoid itself."
    )


def _cause(seen: OutputStatistics, confidence: float, head: DetectHead, alike: bool) -> str:
    scores = seen.scores
    low, high = TWICE
    # Nearly all cells are background: score 0, which a second sigmoid turns into 0.5.
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
            else "the graph applies it already although its description says no; convert the "
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
    """Difference of the 95th and the 5th percentile."""
    low, high = np.percentile(scores, (5, 95))
    return float(high - low)
