"""Heads of every kind, their tensors as the NPU lays them out, and all that a decoder reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.runtime.npu import _visible
from rkzoo.runtime.npu_api import Format, Type
from rkzoo.runtime.npu_context import NpuTensor
from rkzoo.tasks.detect.planes import Plane
from rkzoo.tasks.detect.postprocess import Candidates, DetectDecoder, Extras
from rkzoo.tasks.detect.verdict import output_statistics
from rkzoo.vision.letterbox import plan
from rkzoo.vision.masks import mask_crops

Array = NDArray[Any]
STRIDES = (8, 16)
SIZE = (32, 64)
CELLS = sum(SIZE[0] // stride * (SIZE[1] // stride) for stride in STRIDES)
POINTS, COEFFICIENTS = 5, 6


@dataclass(frozen=True)
class Padding:
    """How a library lays a tensor out: `width` channels a block, `blocks` that hold nothing
    behind those that are needed, and `cells` behind the last of each block."""

    width: int
    blocks: int
    cells: int


paddings = st.builds(
    Padding, width=st.sampled_from([4, 8, 16]), blocks=st.integers(0, 5), cells=st.integers(0, 7)
)


def native(values: Array, padding: Padding, garbage: float) -> Array:
    """NCHW as the library gives it, channel by channel; all else holds `garbage`."""
    _, channels, rows, columns = values.shape
    blocks = -(-channels // padding.width) + padding.blocks
    shape = (blocks, rows * columns + padding.cells, padding.width)
    memory = np.full(shape, garbage, values.dtype)
    for channel in range(channels):
        block, place = divmod(channel, padding.width)
        memory[block, : rows * columns, place] = values[0, channel].ravel()
    return memory


class Held:
    """Memory that the NPU wrote."""

    def __init__(self, memory: Array) -> None:
        self.memory = memory

    def array(self, shape: tuple[int, ...], dtype: str) -> Array:
        return self.memory.reshape(shape)


def seen(values: Array, padding: Padding, garbage: float) -> Array:
    """The same through the eyes of a session, which hands out contiguous arrays."""
    memory = native(values, padding, garbage)
    blocks, cells, width = memory.shape
    told = (1, blocks, 1, cells, width) if padding.cells else (1, blocks, *values.shape[2:], width)
    kind = Type.INT8 if values.dtype == np.int8 else Type.FLOAT16
    tensor = NpuTensor(0, "", told, Format.NC1HWC2, kind, None, 0, 0, memory.nbytes, raw=None)
    shape = (1, blocks, *values.shape[2:], width)
    return np.ascontiguousarray(_visible(Held(memory), tensor, shape))  # type: ignore[arg-type]


def outputs_of(*roles: str, whole: tuple[str, ...] = ()) -> tuple[HeadOutput, ...]:
    each = [
        HeadOutput(name=f"{role}_{stride}", role=role, level=level)  # type: ignore[arg-type]
        for level, stride in enumerate(STRIDES)
        for role in roles
    ]
    return (*each, *(HeadOutput(name=role, role=role) for role in whole))  # type: ignore[arg-type]


DISTANCE: dict[str, Any] = {"reg_max": 1, "coding": "distance"}
ANCHORS: dict[str, Any] = {
    "coding": "anchor",
    "objectness": "product",
    "anchors": tuple(((4.0, 6.0), (9.0, 7.0), (12.0, 20.0)) for _ in STRIDES),
}
MASKS = {"coefficients": COEFFICIENTS}
POSE = {"keypoints": POINTS, "keypoint_values": 3}
# What a head has beside its classes, and its tensors.
HEADS: dict[str, tuple[dict[str, Any], tuple[HeadOutput, ...]]] = {
    "box and score": ({}, outputs_of("box", "score")),
    "with a sum": ({}, outputs_of("box", "score", "score_sum")),
    "with objectness": (
        DISTANCE | {"objectness": "product"},
        outputs_of("box", "score", "objectness"),
    ),
    "fused": ({"activated": False}, outputs_of("fused")),
    "one box a cell": (
        {"coding": "exponent", "objectness": "product"},
        outputs_of("anchors"),
    ),
    "anchors": (ANCHORS, outputs_of("anchors")),
    "anchors with masks": (ANCHORS | MASKS, outputs_of("anchors", whole=("prototypes",))),
    "anchors, masks apart": (
        ANCHORS | MASKS,
        outputs_of("anchors", "coefficients", whole=("prototypes",)),
    ),
    "masks": (MASKS, outputs_of("box", "score", "coefficients", whole=("prototypes",))),
    "pose": (POSE, outputs_of("box", "score", "keypoints")),
    "pose of all levels": (POSE, outputs_of("fused", whole=("points",))),
    "rotated": ({"rotated": True}, outputs_of("box", "score", "angle")),
}


def shape_of(head: DetectHead, output: HeadOutput) -> tuple[int, ...]:
    """NCHW, as the head's contract has it."""
    anchors = len(head.anchors[0]) if head.anchors else 1
    apart = any(other.role == "coefficients" for other in head.outputs)
    each = 5 + head.classes + (0 if apart else head.coefficients)
    values = head.keypoints * head.keypoint_values
    bins = head.reg_max if head.coding == "dfl" else 1
    channels = {
        "box": 4 * bins,
        "score": head.classes,
        "score_sum": 1,
        "objectness": 1,
        "fused": 4 * bins + head.classes,
        "anchors": anchors * each,
        "coefficients": anchors * head.coefficients,
        "keypoints": values,
        "angle": 1,
    }
    if output.role == "prototypes":
        return (1, head.coefficients, SIZE[0] // 4, SIZE[1] // 4)
    if output.role == "points":
        return (1, head.keypoints, head.keypoint_values, CELLS)
    stride = STRIDES[output.level]
    return (1, channels[output.role], SIZE[0] // stride, SIZE[1] // stride)


# Roles whose numbers lie in 0..1, more or less.
SHARES = ("score", "objectness", "anchors", "score_sum")


@dataclass(frozen=True)
class Read:
    """All that a decoder tells of a picture's outputs."""

    one: Candidates
    many: Candidates
    every: Candidates
    extras: Extras
    masks: tuple[Array, ...]
    sight: Any
    marked: tuple[Array, ...]


def read(head: DetectHead, specs: list[TensorSpec], arrays: list[Array]) -> Read:
    decoder = DetectDecoder(head, SIZE, specs)
    one = decoder.candidates(arrays, 0.3)
    extras = decoder.extras(arrays, one)
    masks: tuple[Array, ...] = ()
    if decoder.prototypes is not None:
        boxes = np.tile(np.array([[3, 2, 50, 30]], np.float32), (len(one), 1))
        spec, maps = decoder.prototypes.spec, decoder.prototypes.maps(arrays)
        assert maps.shape[0] == -(-COEFFICIENTS // maps.shape[3])  # no spare block is looked at
        _, masks = mask_crops(
            maps,
            np.ascontiguousarray(extras.coefficients),
            boxes,
            plan(SIZE, ImageInput(size=SIZE)),
            spec.scale,
            spec.zero_point,
        )
    return Read(
        one,
        decoder.candidates(arrays, 0.3, multi_label=True),
        decoder.all_candidates(arrays, 0.3),
        extras,
        masks,
        output_statistics(decoder, arrays, SIZE, 0.3),
        tuple(marked(level.score, arrays) for level in decoder.levels),
    )


def marked(plane: Plane, arrays: list[Array]) -> Array:
    over = np.empty(plane.size(arrays), bool)
    plane.mark(arrays, plane.stored(0.7), over)
    return over


def same(one: Any, other: Any) -> None:
    if one is None or isinstance(one, (int, float)):
        assert one == pytest.approx(other, nan_ok=True)
    elif isinstance(one, np.ndarray):
        # Products of floats are summed in another order where the layout is another.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    elif isinstance(one, tuple):
        for first, second in zip(one, other, strict=True):
            same(first, second)
    else:
        for name in one.__dataclass_fields__:
            same(getattr(one, name), getattr(other, name))


# What spare room may hold, in integers and in floats.
GARBAGE: dict[bool, tuple[float, ...]] = {
    True: (127, -128, 77),
    False: (np.inf, -np.inf, np.nan),
}
Tensors = tuple[list[TensorSpec], list[Array]]


def tensors(
    head: DetectHead,
    seed: int,
    *,
    integers: bool,
    garbage: float,
    padding: Callable[[int], Padding],
) -> tuple[Tensors, Tensors]:
    """Numbers for all outputs, NCHW and as the NPU has them, where so many channels have that
    `padding`."""
    rng = np.random.default_rng(seed)
    plain: Tensors = ([], [])
    blocks: Tensors = ([], [])
    for output in head.outputs:
        shape = shape_of(head, output)
        values: Array = rng.integers(-128, 60, shape).astype(np.int8)
        values[:, :, shape[2] // 2, shape[3] // 2 :] += 60
        scale = 1 / 200 if output.role in SHARES else 1 / 32
        coded: dict[str, Any] = {"dtype": "int8", "scale": scale, "zero_point": -100}
        if not integers:
            values = ((values.astype(np.float32) + 100) * scale).astype(np.float16)
            coded = {"dtype": "float16"}
        there = seen(values, padding(shape[1]), garbage)
        for (specs, arrays), layout, array in (
            (plain, "NCHW", values),
            (blocks, "NC1HWC2", there),
        ):
            specs.append(TensorSpec(name=output.name, shape=array.shape, layout=layout, **coded))
            arrays.append(array)
    return plain, blocks


def head_of(kind: str, classes: int) -> DetectHead:
    fields, outputs = HEADS[kind]
    return DetectHead(outputs=outputs, classes=classes, strides=STRIDES, **fields)
