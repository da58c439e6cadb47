"""The NPU's own layout: blocks of channels, more of them than the channels need, and cells behind
the last. Whatever lies there, a head answers as it does in NCHW."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_heads import (
    CELLS,
    GARBAGE,
    HEADS,
    POINTS,
    SIZE,
    Padding,
    head_of,
    paddings,
    read,
    same,
    shape_of,
    tensors,
)

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.postprocess import DetectDecoder


@pytest.mark.parametrize("kind", HEADS)
@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(1, 300),
    padding=paddings,
    integers=st.booleans(),
    worst=st.integers(0, 2),
    seed=st.integers(0, 2**31),
)
def test_what_lies_in_the_padding_changes_nothing(
    kind: str, classes: int, padding: Padding, integers: bool, worst: int, seed: int
) -> None:
    head = head_of(kind, classes)
    plain, blocks = tensors(
        head, seed, integers=integers, garbage=GARBAGE[integers][worst], padding=lambda _: padding
    )
    wanted = read(head, *plain)
    assert len(wanted.one)
    same(read(head, *blocks), wanted)


@settings(max_examples=100, deadline=None)
@given(padding=paddings, channels=st.integers(1, 300), less=st.integers(1, 300))
def test_too_few_channels_are_refused(padding: Padding, channels: int, less: int) -> None:
    """What is announced must hold what is promised; that alone can be known."""
    blocks = -(-channels // padding.width) + padding.blocks
    room = blocks * padding.width
    spec = TensorSpec(
        name="score_8", shape=(1, blocks, 4, 8, padding.width), dtype="int8", layout="NC1HWC2"
    )
    box = TensorSpec(name="box_8", shape=(1, 64, 4, 8), dtype="int8", layout="NCHW")
    outputs = (HeadOutput(name="box_8", role="box"), HeadOutput(name="score_8", role="score"))

    def bind(classes: int) -> None:
        head = DetectHead(outputs=outputs, classes=classes, strides=(8,))
        DetectDecoder(head, SIZE, [box, spec])

    bind(channels)
    with pytest.raises(RkzooError, match=f"{room} channels where {room + less} are promised"):
        bind(room + less)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_key_points_of_all_levels_in_other_layouts(layout: str) -> None:
    """1xKxVxN as any session may hand it out: point k, value v of cell n is 100 k + 10 v + n."""
    k, v, n = np.ogrid[:POINTS, :3, :CELLS]
    points = (100 * k + 10 * v + n)[None].astype(np.float32)
    arrays, specs = [], []
    head = head_of("pose of all levels", 1)
    for output in head.outputs:
        shape = shape_of(head, output)
        array = points if output.role == "points" else np.ones(shape, np.float32)
        array = array.transpose(0, 2, 3, 1) if layout == "NHWC" else array
        arrays.append(np.ascontiguousarray(array))
        specs.append(
            TensorSpec(name=output.name, shape=array.shape, dtype="float32", layout=layout)
        )
    decoder = DetectDecoder(head, SIZE, specs)
    found = decoder.candidates(arrays, 0.5)
    assert len(found) == CELLS
    extras = decoder.extras(arrays, found[np.array([37, 2])])
    for row, cell in enumerate((37, 2)):
        want = [[100 * p + 10 * i + cell for i in range(3)] for p in range(POINTS)]
        assert extras.keypoints is not None
        assert extras.keypoints[row].tolist() == want
