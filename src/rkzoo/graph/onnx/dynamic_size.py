"""Dynamic input size for a graph exported with a fixed one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.view import Array, declared, first_line, run_whole
from rkzoo.ort import CannotRun

# A convolution may accumulate in another order where the size is dynamic.
_EQUAL = 1e-4


def with_dynamic_size(model: onnx.ModelProto, stride: int) -> onnx.ModelProto:
    """Make height and width of the first input, 1x3xHxW, dynamic.

    Verified before it is returned: at the old size all outputs are unchanged, and at a larger one
    (`stride` taller, twice that wider) every output 1xCxhxw grows in proportion.

    Args:
        model: The model; not modified.
        stride: Largest stride of the network, in pixels.

    Returns:
        A copy with a dynamic input size.

    Raises:
        RkzooError: A size is fixed inside the graph, as by a Reshape.
    """
    freed = _freed(model)
    picture = declared(model.graph.input[0])
    others = [_random_input(info) for info in model.graph.input[1:]]
    if picture is None or len(picture) != 4 or not picture[2] or not picture[3]:
        raise _refused("It has no input of a fixed size, 1x3xHxW, that could be made dynamic.")
    height, width = picture[2], picture[3]
    small = _answers(model, _feeds(model, (height, width), others))
    same = _answers(freed, _feeds(model, (height, width), others))
    for info, array, other in zip(model.graph.output, small, same, strict=True):
        if array.shape != other.shape or not np.allclose(array, other, rtol=_EQUAL, atol=_EQUAL):
            raise _refused(f"Its output {info.name} differs with a dynamic size.")
    taller, wider = height + stride, width + 2 * stride
    large = _answers(freed, _feeds(model, (taller, wider), others))
    for info, array, other in zip(model.graph.output, small, large, strict=True):
        if not _in_proportion(array.shape, other.shape, (height, width), (taller, wider)):
            raise _refused(
                f"Its output {info.name} is {list(other.shape)} at {taller}x{wider} and "
                f"{list(array.shape)} at {height}x{width}."
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
        raise _refused(
            f"Its shapes cannot be inferred with a dynamic size: {first_line(error)}"
        ) from error


def _random_input(info: onnx.ValueInfoProto) -> tuple[str, Array]:
    """Random values for an input other than the image."""
    shape = [size or 1 for size in declared(info) or ()]
    kind = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    return info.name, np.random.default_rng(1).uniform(0, 1, shape).astype(kind)


def _feeds(
    model: onnx.ModelProto, size: tuple[int, int], others: Sequence[tuple[str, Array]]
) -> dict[str, Array]:
    # The values do not matter here, as long as they differ.
    channels = (declared(model.graph.input[0]) or ())[1] or 3
    picture = np.random.default_rng(0).uniform(0, 1, (1, channels, *size)).astype(np.float32)
    return {model.graph.input[0].name: picture, **dict(others)}


def _answers(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    try:
        return run_whole(model, feeds)
    except CannotRun as error:
        raise _refused(f"It has its size fixed inside. {error.why}") from error


def _in_proportion(
    values: tuple[int, ...], other: tuple[int, ...], small: tuple[int, int], large: tuple[int, int]
) -> bool:
    return (
        len(values) == len(other) == 4
        and values[:2] == other[:2]
        and all(
            a * big == b * little
            for a, b, little, big in zip(values[2:], other[2:], small, large, strict=True)
        )
    )


def _refused(why: str) -> RkzooError:
    return RkzooError(
        "The graph cannot take pictures of other sizes.",
        why,
        "Everything else can be measured all the same.",
    )
