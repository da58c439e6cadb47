"""Box and score in one tensor (Rockchip's pose and rotated boxes), and how YOLO26 writes key
points and angles: against the same head in tensors of their own, and against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.postprocess import DetectDecoder

SIZE = (32, 64)
STRIDES = (8, 16)


def laid_out(values: np.ndarray, name: str, layout: str, scale: float | None):
    """The array and the spec of a float NCHW tensor in a session's layout, int8 with a scale."""
    stored, dtype = values.astype(np.float32), "float32"
    if scale is not None:
        stored, dtype = np.clip(np.round(values / scale), -128, 127).astype(np.int8), "int8"
    if layout == "NHWC":
        stored = stored.transpose(0, 2, 3, 1)
    elif layout == "NC1HWC2":
        _, channels, rows, columns = stored.shape
        blocks = -(-channels // 16)
        padded = np.full((1, blocks * 16, rows, columns), 99, stored.dtype)
        padded[:, :channels] = stored
        stored = padded.reshape(1, blocks, 16, rows, columns).transpose(0, 1, 3, 4, 2)
    stored = np.ascontiguousarray(stored)
    return stored, TensorSpec(
        name=name, shape=stored.shape, dtype=dtype, layout=layout, scale=scale
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(1, 20),
    bins=st.sampled_from([1, 3, 8, 16]),
    layout=st.sampled_from(["NCHW", "NHWC", "NC1HWC2"]),
    quantise=st.booleans(),
)
def test_one_tensor_is_as_good_as_two(seed, classes, bins, layout, quantise) -> None:
    rng = np.random.default_rng(seed)
    scale = 0.05 if quantise else None
    outputs = {"fused": [], "apart": []}
    tensors = {"fused": [], "apart": []}
    for level, stride in enumerate(STRIDES):
        shape = (SIZE[0] // stride, SIZE[1] // stride)
        box = rng.normal(0, 2, (1, 4 * bins, *shape))
        score = rng.normal(-2, 2, (1, classes, *shape))
        for kind, role, values in (
            ("fused", "fused", np.concatenate((box, score), axis=1)),
            ("apart", "box", box),
            ("apart", "score", score),
        ):
            outputs[kind].append(HeadOutput(name=f"{role}_{level}", role=role, level=level))
            tensors[kind].append(laid_out(values, f"{role}_{level}", layout, scale))
    found = {}
    for kind, named in outputs.items():
        head = DetectHead(
            outputs=tuple(named),
            classes=classes,
            reg_max=bins,
            strides=STRIDES,
            activated=False,
            coding="dfl" if bins > 1 else "distance",
        )
        decoder = DetectDecoder(head, SIZE, [spec for _, spec in tensors[kind]])
        arrays = [array for array, _ in tensors[kind]]
        found[kind] = (decoder.candidates(arrays, 0.4), decoder.dense(arrays))
    one, two = found["fused"], found["apart"]
    assert len(one[0]) == len(two[0])
    np.testing.assert_array_equal(one[0].class_id, two[0].class_id)
    np.testing.assert_allclose(one[0].boxes, two[0].boxes, atol=1e-4)
    np.testing.assert_allclose(one[0].score, two[0].score, atol=1e-6)
    for a, b in zip(one[1], two[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_fused_tensor_of_another_width_is_named() -> None:
    outputs = (HeadOutput(name="fused_8", role="fused"),)
    head = DetectHead(outputs=outputs, classes=3, strides=(8,), activated=False)
    spec = TensorSpec(name="fused_8", shape=(1, 66, 4, 8), dtype="float32", layout="NCHW")
    with pytest.raises(RkzooError, match="66 channels where 67"):
        DetectDecoder(head, SIZE, [spec])


def one_cell(head: DetectHead, values: dict[str, np.ndarray], cell: tuple[int, int]):
    """Decodes a level of nothing but one live cell (row, column)."""
    arrays, specs = [], []
    for output in head.outputs:
        numbers = np.asarray(values[output.role], np.float32)
        tensor = np.full((1, len(numbers), 4, 8), -9.0, np.float32)
        tensor[0, :, cell[0], cell[1]] = numbers
        arrays.append(tensor)
        specs.append(
            TensorSpec(name=output.name, shape=tensor.shape, dtype="float32", layout="NCHW")
        )
    decoder = DetectDecoder(head, SIZE, specs)
    found = decoder.candidates(arrays, 0.5)
    assert len(found) == 1
    return found, decoder.extras(arrays, found)


@settings(max_examples=30, deadline=None)
@given(
    x=st.floats(-10, 80),
    y=st.floats(-10, 80),
    seen=st.floats(0.02, 0.98),
    values=st.sampled_from([2, 3]),
    centred=st.booleans(),
    cell=st.tuples(st.integers(0, 3), st.integers(0, 7)),
)
def test_a_planted_key_point_comes_back(x, y, seen, values, centred, cell) -> None:
    roles = ("box", "score", "keypoints")
    head = DetectHead(
        outputs=tuple(HeadOutput(name=role, role=role) for role in roles),
        classes=1,
        reg_max=1,
        coding="distance",
        strides=(8,),
        activated=False,
        keypoints=1,
        keypoint_values=values,
        centred_keypoints=centred,
    )
    row, column = cell
    if centred:
        raw = [x / 8 - column - 0.5, y / 8 - row - 0.5]
    else:
        raw = [(x / 8 - column) / 2, (y / 8 - row) / 2]
    raw += [math.log(seen / (1 - seen))] * (values == 3)
    _, extras = one_cell(head, {"box": [1, 1, 1, 1], "score": [3], "keypoints": raw}, cell)
    assert extras.keypoints is not None
    expected = [x, y, seen][:values]
    np.testing.assert_allclose(extras.keypoints, [[expected]], atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    plain=st.booleans(),
    angle=st.floats(-0.7, 2.3),
    centre=st.tuples(st.floats(0, 64), st.floats(0, 32)),
    size=st.tuples(st.floats(4, 60), st.floats(4, 60)),
    cell=st.tuples(st.integers(0, 3), st.integers(0, 7)),
)
def test_a_planted_rotated_box_comes_back(plain, angle, centre, size, cell) -> None:
    roles = ("box", "score", "angle")
    head = DetectHead(
        outputs=tuple(HeadOutput(name=role, role=role) for role in roles),
        classes=1,
        reg_max=1,
        coding="distance",
        strides=(8,),
        activated=False,
        rotated=True,
        plain_angle=plain,
    )
    row, column = cell
    across, down = centre[0] / 8 - column - 0.5, centre[1] / 8 - row - 0.5
    # The centre's way from the cell, turned back into the box's own axes.
    cos, sin = math.cos(angle), math.sin(angle)
    along, beside = across * cos + down * sin, -across * sin + down * cos
    width, height = size[0] / 8, size[1] / 8
    sides = [width / 2 - along, height / 2 - beside, width / 2 + along, height / 2 + beside]
    share = angle / math.pi + 0.25
    raw = angle if plain else math.log(share / (1 - share))
    found, _ = one_cell(head, {"box": sides, "score": [3], "angle": [raw]}, cell)
    np.testing.assert_allclose(found.boxes, [[*centre, *size, angle]], atol=1e-3)
