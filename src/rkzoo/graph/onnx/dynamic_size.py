"""A graph of one input size made to take any, where nothing inside it depends on the size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.view import Array, declared, first_line, run

# Sums of a convolution may be taken in another order where the size is not known beforehand.
_EQUAL = 1e-4


def size_free(model: onnx.ModelProto, stride: int) -> onnx.ModelProto:
    """The graph with the height and width of its first input, 1x3xHxW, left free.

    Proved before it is handed out: at the old size every output is what it was, and at a larger
    one (by `stride` high, twice that wide) every output 1xCxhxw grows in the same proportion.
    `model` is left as it was. Raises RkzooError when a size is fixed inside, as by a Reshape.
    """
    freed = _freed(model)
    picture = declared(model.graph.input[0])
    others = [_some(info) for info in model.graph.input[1:]]
    if picture is None or len(picture) != 4 or not picture[2] or not picture[3]:
        raise _refused("It has no input of a fixed size, 1x3xHxW, that could be freed.")
    height, width = picture[2], picture[3]
    small = _answers(model, _feeds(model, (height, width), others))
    same = _answers(freed, _feeds(model, (height, width), others))
    for info, one, other in zip(model.graph.output, small, same, strict=True):
        if one.shape != other.shape or not np.allclose(one, other, rtol=_EQUAL, atol=_EQUAL):
            raise _refused(f"Its output {info.name} is another one then.")
    taller, wider = height + stride, width + 2 * stride
    large = _answers(freed, _feeds(model, (taller, wider), others))
    for info, one, other in zip(model.graph.output, small, large, strict=True):
        if not _in_proportion(one.shape, other.shape, (height, width), (taller, wider)):
            raise _refused(
                f"Its output {info.name} is {list(other.shape)} at {taller}x{wider} and "
                f"{list(one.shape)} at {height}x{width}."
            )
    return freed


def _freed(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]
    for info in graph.output:
        info.type.tensor_type.ClearField("shape")
    for dimension, name in zip(
        graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=False
    ):
        dimension.dim_param = name
    try:
        return onnx.shape_inference.infer_shapes(copy)
    except Exception as error:  # inference raises RuntimeError, ValueError and its own
        raise _refused(f"Its shapes cannot be worked out then: {first_line(error)}") from error


def _some(info: onnx.ValueInfoProto) -> tuple[str, Array]:
    """Numbers for an input that is no picture."""
    shape = [size or 1 for size in declared(info) or ()]
    kind = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    return info.name, np.random.default_rng(1).uniform(0, 1, shape).astype(kind)


def _feeds(
    model: onnx.ModelProto, size: tuple[int, int], others: Sequence[tuple[str, Array]]
) -> dict[str, Array]:
    # What numbers a network takes does not matter here, so long as they are not all alike.
    channels = (declared(model.graph.input[0]) or ())[1] or 3
    picture = np.random.default_rng(0).uniform(0, 1, (1, channels, *size)).astype(np.float32)
    return {model.graph.input[0].name: picture, **dict(others)}


def _answers(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    try:
        return run(model, feeds)
    except RkzooError as error:
        raise _refused(f"It has its size fixed inside. {error.why}") from error


def _in_proportion(
    one: tuple[int, ...], other: tuple[int, ...], small: tuple[int, int], large: tuple[int, int]
) -> bool:
    return (
        len(one) == len(other) == 4
        and one[:2] == other[:2]
        and all(
            a * big == b * little
            for a, b, little, big in zip(one[2:], other[2:], small, large, strict=True)
        )
    )


def _refused(why: str) -> RkzooError:
    return RkzooError(
        "The graph cannot take pictures of other sizes.",
        why,
        "Everything else can be measured all the same.",
    )
