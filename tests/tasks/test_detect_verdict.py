"""A model that is read or fed in a wrong way answers with nonsense; the nonsense is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import TensorSpec
from rkzoo.tasks.detect.postprocess import DetectDecoder
from rkzoo.tasks.detect.verdict import OutputStatistics, diagnose_outputs, output_statistics

SIZE = (128, 160)
BINS, CLASSES = 4, 5


def head(activated: bool = True) -> DetectHead:
    return DetectHead(
        outputs=(HeadOutput(name="b", role="box"), HeadOutput(name="s", role="score")),
        classes=CLASSES,
        reg_max=BINS,
        strides=(4,),
        activated=activated,
    )


def outputs(scores: NDArray[Any]) -> list[NDArray[Any]]:
    box = np.zeros((1, 4 * BINS, 32, 40), np.float32)
    return [box, scores.astype(np.float32).reshape(1, CLASSES, 32, 40)]


def judged(
    scores: NDArray[Any], confidence: float = 0.25, activated: bool = True, int8: bool = False
) -> tuple[str, ...]:
    given = outputs(scores)
    specs = [
        TensorSpec(name="b", shape=(1, 4 * BINS, 32, 40), dtype="float32", layout="NCHW"),
        TensorSpec(name="s", shape=(1, CLASSES, 32, 40), dtype="float32", layout="NCHW"),
    ]
    if int8:
        low, high = float(scores.min()), float(scores.max())
        scale = (high - low) / 255
        zero = round(-128 - low / scale)
        specs[1] = TensorSpec(
            name="s", shape=given[1].shape, dtype="int8", layout="NCHW", scale=scale,
            zero_point=zero,
        )  # fmt: skip
        given[1] = np.clip(np.rint(given[1] / scale) + zero, -128, 127).astype(np.int8)
    decoder = DetectDecoder(head(activated), SIZE, specs)
    seen = output_statistics(decoder, given, SIZE, confidence)
    assert seen.cells == 32 * 40
    assert not len(seen.scores) or 0 <= seen.scores.min() <= seen.scores.max() <= 1
    return diagnose_outputs(seen, confidence, head(activated))


def logits(shift: float, spread: float, objects: int = 0) -> NDArray[np.float32]:
    values = np.random.default_rng(1).normal(shift, spread, (CLASSES, 32 * 40))
    values[0, :objects] = 3
    return values.astype(np.float32)


def sigmoid(x: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-x)), np.float32)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("objects", [0, 1, 60, 300])
def test_an_ordinary_picture_and_a_crowd_are_left_alone(objects: int, int8: bool) -> None:
    assert judged(sigmoid(logits(-8, 1, objects) + 0.5 * logits(0, 1)), int8=int8) == ()


def test_an_ordinary_picture_at_the_threshold_of_evaluations() -> None:
    assert judged(sigmoid(logits(-10, 1.5, 20)), confidence=0.001) == ()


@pytest.mark.parametrize("int8", [False, True])
def test_a_missing_sigmoid(int8: bool) -> None:
    (text,) = judged(logits(-8, 1.5, 20), int8=int8)
    assert "no sigmoid" in text
    assert "0..1" in text


def test_a_missing_sigmoid_is_no_fault_where_the_head_says_so() -> None:
    assert judged(logits(-8, 1.5, 20), activated=False) == ()


def test_a_rounded_scale_is_no_missing_sigmoid() -> None:
    scores = sigmoid(logits(-8, 1, 20))
    scores[0, 0] = 1.004
    assert judged(scores) == ()


@pytest.mark.parametrize("int8", [False, True])
def test_two_sigmoids_in_the_graph(int8: bool) -> None:
    (text,) = judged(sigmoid(sigmoid(logits(-8, 1, 20))), int8=int8)
    assert "two sigmoids" in text
    assert "the graph applies it twice" in text
    assert "1280 of 1280 cells" in text


def test_a_second_sigmoid_by_a_wrong_description() -> None:
    (text,) = judged(sigmoid(logits(-8, 1, 20)), activated=False)
    assert "two sigmoids" in text
    assert "the graph applies it already" in text


def test_a_threshold_that_is_too_low() -> None:
    (text,) = judged(sigmoid(logits(-8, 1, 20)), confidence=0.0001)
    assert "the threshold is too low" in text
    assert "--conf 0.25" in text


def test_the_same_answer_everywhere_is_a_wrong_normalisation() -> None:
    (text,) = judged(sigmoid(logits(0.5, 0.001)))
    assert "normalisation" in text
    assert "--mean" in text


def test_any_other_flood_names_the_usual_causes() -> None:
    (text,) = judged(sigmoid(logits(0, 2)))
    assert "normalisation or the colour order" in text
    assert "another family" in text


def test_boxes_far_outside_mean_another_family() -> None:
    scores = np.random.default_rng(0).uniform(0.3, 0.99, 5000).astype(np.float32)
    seen = OutputStatistics(cells=8400, scores=scores, lowest=0.0, highest=0.99, astray=0.8)
    (text,) = diagnose_outputs(seen, 0.25, head())
    assert "80% of the boxes" in text
    assert "another family" in text


def test_boxes_outside_are_counted() -> None:
    scores = np.zeros((CLASSES, 32 * 40))
    scores[0, :40] = 0.9
    given = outputs(scores)
    # The whole distribution in the last bin of one side only: the middle leaves the picture.
    given[0][0, : BINS - 1] = -50
    given[0][0, BINS : 2 * BINS - 1] = -50
    given[0][0, 2 * BINS + 1 :] = -50
    given[0][0, 2 * BINS] = 50
    specs = [
        TensorSpec(name=name, shape=array.shape, dtype="float32", layout="NCHW")
        for name, array in zip("bs", given, strict=True)
    ]
    seen = output_statistics(DetectDecoder(head(), SIZE, specs), given, SIZE, 0.25)
    assert len(seen.scores) == 40
    assert seen.astray == 1.0
