"""The integer decoder against a plain float one written from the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.postprocess import DetectDecoder
from rkzoo.vision.nms import nms


def _head(classes: int, reg_max: int, strides: tuple[int, ...], sums: bool, activated: bool = True):
    roles = ("box", "score", "score_sum") if sums else ("box", "score")
    outputs = tuple(
        HeadOutput(name=f"{role}_{stride}", role=role, level=level)
        for level, stride in enumerate(strides)
        for role in roles
    )
    return DetectHead(
        outputs=outputs, classes=classes, reg_max=reg_max, strides=strides, activated=activated
    )


def _quantised(values: np.ndarray, name: str) -> tuple[np.ndarray, TensorSpec, np.ndarray]:
    """int8 codes, their spec, and the floats that the codes stand for."""
    low, high = min(0.0, float(values.min())), max(1e-3, float(values.max()))
    scale = (high - low) / 255
    zero = round(-128 - low / scale)
    codes = np.clip(np.round(values / scale) + zero, -128, 127).astype(np.int8)
    spec = TensorSpec(
        name=name, shape=values.shape, dtype="int8", layout="NCHW", scale=scale, zero_point=zero
    )
    return codes, spec, (codes.astype(np.float64) - zero) * scale


def _plain(boxes, scores, strides, confidence):
    """Loops over every cell, softmax and all: the oracle."""
    found = []
    for box, score, stride in zip(boxes, scores, strides, strict=True):
        _, _, rows, columns = score.shape
        bins = box.shape[1] // 4
        for y in range(rows):
            for x in range(columns):
                best = int(score[0, :, y, x].argmax())
                value = score[0, best, y, x]
                if value < confidence:
                    continue
                sides = []
                for side in range(4):
                    logits = box[0, side * bins : (side + 1) * bins, y, x].astype(np.float64)
                    weights = np.exp(logits - logits.max())
                    mean = (weights * np.arange(bins)).sum() / weights.sum()
                    # One bin is no distribution: upstream then means the number itself.
                    sides.append(mean if bins > 1 else logits[0])
                left, top, right, bottom = sides
                found.append(
                    (
                        (x + 0.5 - left) * stride,
                        (y + 0.5 - top) * stride,
                        (x + 0.5 + right) * stride,
                        (y + 0.5 + bottom) * stride,
                        value,
                        best,
                    )
                )
    return np.array(found, np.float64).reshape(-1, 6)


def _scene(rng, classes, reg_max, strides, size):
    boxes, scores = [], []
    for stride in strides:
        rows, columns = size[0] // stride, size[1] // stride
        boxes.append(rng.normal(0, 3, (1, 4 * reg_max, rows, columns)).astype(np.float32))
        scores.append((rng.random((1, classes, rows, columns)) ** 6).astype(np.float32))
    return boxes, scores


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(1, 12),
    reg_max=st.integers(1, 24),
    levels=st.integers(1, 4),
    size=st.tuples(st.sampled_from([64, 128]), st.sampled_from([64, 192])),
    sums=st.booleans(),
    quantise=st.booleans(),
    nhwc=st.booleans(),
)
def test_equals_the_plain_decoder(seed, classes, reg_max, levels, size, sums, quantise, nhwc):
    rng = np.random.default_rng(seed)
    strides = (8, 16, 32, 64)[:levels]
    boxes, scores = _scene(rng, classes, reg_max, strides, size)
    head = _head(classes, reg_max, strides, sums)
    tensors, specs, plain_boxes, plain_scores = [], [], [], []
    for level, stride in enumerate(strides):
        total = np.clip(scores[level].sum(axis=1, keepdims=True), 0, 1)
        parts = [("box", boxes[level]), ("score", scores[level]), ("score_sum", total)]
        for role, values in parts[: 3 if sums else 2]:
            name = f"{role}_{stride}"
            if quantise:
                codes, spec, meant = _quantised(values, name)
            else:
                codes, meant = values, values
                spec = TensorSpec(name=name, shape=values.shape, dtype="float32", layout="NCHW")
            if nhwc:
                codes = np.ascontiguousarray(codes.transpose(0, 2, 3, 1))
                spec = TensorSpec(
                    name=name,
                    shape=codes.shape,
                    dtype=spec.dtype,
                    layout="NHWC",
                    scale=spec.scale,
                    zero_point=spec.zero_point,
                )
            tensors.append(codes)
            specs.append(spec)
            if role == "box":
                plain_boxes.append(meant)
            elif role == "score":
                plain_scores.append(meant)
    confidence = 0.3
    got = DetectDecoder(head, size, specs).candidates(tensors, confidence)
    # On the lattice a score can lie exactly on the threshold: give the oracle its slack.
    want = _plain(plain_boxes, plain_scores, strides, confidence - 1e-6)
    assert len(got.boxes) == len(want)
    np.testing.assert_allclose(got.boxes, want[:, :4], atol=2e-3)
    np.testing.assert_allclose(got.score, want[:, 4], atol=1e-6)
    np.testing.assert_array_equal(got.class_id, want[:, 5])


def test_raw_logits_give_the_same_as_activated_scores():
    rng = np.random.default_rng(3)
    boxes, scores = _scene(rng, 5, 8, (8, 16), (64, 96))
    logits = [np.log(s.clip(1e-6, 1 - 1e-6) / (1 - s.clip(1e-6, 1 - 1e-6))) for s in scores]

    def run(values, activated):
        head = _head(5, 8, (8, 16), sums=False, activated=activated)
        tensors = [t for pair in zip(boxes, values, strict=True) for t in pair]
        specs = [
            TensorSpec(name=o.name, shape=t.shape, dtype="float32", layout="NCHW")
            for o, t in zip(head.outputs, tensors, strict=True)
        ]
        return DetectDecoder(head, (64, 96), specs).candidates(tensors, 0.25)

    with_sigmoid, without = run(scores, True), run(logits, False)
    assert len(with_sigmoid.score) > 10
    np.testing.assert_allclose(with_sigmoid.boxes, without.boxes, atol=1e-4)
    np.testing.assert_allclose(with_sigmoid.score, without.score, atol=1e-4)


def test_multi_label_gives_one_box_for_each_class_that_reaches_the_confidence():
    head = _head(3, 4, (8,), sums=False)
    box = np.zeros((1, 16, 1, 1), np.float32)
    score = np.array([0.9, 0.1, 0.6], np.float32).reshape(1, 3, 1, 1)
    specs = [
        TensorSpec(name=o.name, shape=t.shape, dtype="float32", layout="NCHW")
        for o, t in zip(head.outputs, (box, score), strict=True)
    ]
    decoder = DetectDecoder(head, (8, 8), specs)
    assert decoder.candidates([box, score], 0.5).class_id.tolist() == [0]
    both = decoder.candidates([box, score], 0.5, multi_label=True)
    assert sorted(both.class_id.tolist()) == [0, 2]


def test_a_score_above_one_cannot_be_returned():
    head = _head(1, 4, (8,), sums=False)
    box = np.zeros((1, 16, 1, 1), np.float32)
    score = np.full((1, 1, 1, 1), 3.5, np.float32)
    specs = [
        TensorSpec(name=o.name, shape=t.shape, dtype="float32", layout="NCHW")
        for o, t in zip(head.outputs, (box, score), strict=True)
    ]
    got = DetectDecoder(head, (8, 8), specs).candidates([box, score], 0.5)
    assert got.score.tolist() == [1.0]


def test_nothing_above_the_threshold_is_an_empty_result():
    head = _head(2, 4, (8,), sums=True)
    tensors = [np.zeros((1, c, 4, 4), np.float32) for c in (16, 2, 1)]
    specs = [
        TensorSpec(name=o.name, shape=t.shape, dtype="float32", layout="NCHW")
        for o, t in zip(head.outputs, tensors, strict=True)
    ]
    got = DetectDecoder(head, (32, 32), specs).candidates(tensors, 0.25)
    assert got.boxes.shape == (0, 4)
    assert len(nms(got.boxes, got.score, got.class_id, 0.45, 300)) == 0


def test_tensors_that_do_not_fit_the_head_are_named():
    head = _head(2, 4, (8,), sums=False)
    bad = [
        TensorSpec(name="box_8", shape=(1, 64, 4, 4), dtype="float32", layout="NCHW"),
        TensorSpec(name="score_8", shape=(1, 2, 4, 4), dtype="float32", layout="NCHW"),
    ]
    with pytest.raises(RkzooError, match="box_8 has 64 channels where 16"):
        DetectDecoder(head, (32, 32), bad)
    with pytest.raises(RkzooError, match="1 outputs where its contract names 2"):
        DetectDecoder(head, (32, 32), bad[:1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 60), st.floats(0.1, 0.9))
def test_nms_keeps_what_a_plain_greedy_loop_keeps(seed, count, threshold):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 60, (count, 2))
    xyxy = np.concatenate((start, start + rng.uniform(1, 40, (count, 2))), 1).astype(np.float32)
    score = rng.permutation(count).astype(np.float32) / max(count, 1)
    class_id = rng.integers(0, 3, count).astype(np.int32)

    def iou(a, b):
        w = min(a[2], b[2]) - max(a[0], b[0])
        h = min(a[3], b[3]) - max(a[1], b[1])
        inter = max(w, 0) * max(h, 0)
        return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)

    kept: list[int] = []
    wide = xyxy.astype(np.float64)
    for i in np.argsort(-score):
        if all(class_id[i] != class_id[k] or iou(wide[i], wide[k]) <= threshold for k in kept):
            kept.append(int(i))
    assert nms(xyxy, score, class_id, threshold, 1000).tolist() == kept
