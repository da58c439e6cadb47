"""Contracts of graphs with an unknown head: preprocessing of the inputs, plain output tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import onnx
from onnx import TensorProto, helper

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.input_preprocessing import input_preprocessing
from rkzoo.graph.onnx.rewrite import picture_as_floats
from rkzoo.graph.onnx.summary import tensors
from rkzoo.graph.onnx.view import captured_by, declared

Shapes = Mapping[str, tuple[int, ...]]

_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float32",  # half precision is widened before it is converted
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
}
_CHANNELS = {1: "GRAY", 3: "RGB", 4: "RGBA"}
# With fewer or more pixels a side, four dimensions are no picture.
_LEAST_SIDE, _MOST_SIDE = 8, 16384


@dataclass(frozen=True)
class Plain:
    """A graph with fixed inputs of types that the toolkit takes, the picture first; `seen` is
    what was read from its first operators."""

    graph: onnx.ModelProto
    contract: Contract
    seen: tuple[str, ...] = ()


def as_plain_tensors(
    model: onnx.ModelProto,
    *,
    size: tuple[int, int] | None = None,
    shapes: Shapes | None = None,
    pictures: bool = True,
) -> Plain:
    """How a graph that no recogniser knows is fed.

    Args:
        model: The graph; it is left as it was.
        size: (height, width) of a picture whose size is free.
        shapes: Shapes of inputs by name, where dimensions are free.
        pictures: False feeds every input as an array, whatever its shape.

    Returns:
        The graph with fixed inputs and its contract.

    Raises:
        RkzooError: A shape stays open, does not fit, or an input is of a type that is no number.
    """
    model = _fixed(model, shapes or {}, size)
    front = input_preprocessing(model, size) if pictures else None
    image: ImageInput | None = None
    if front is not None:
        layout_size = front.shape[-2:] if front.layout == "NCHW" else front.shape[-3:-1]
        height, width = (side or 0 for side in layout_size)
        image = front.fed(ImageInput(size=(height, width), fit="stretch"))
        model = picture_as_floats(model, (height, width))
    model = _without_bytes(_numeric(model))
    others: list[ArrayInput] = []
    name = front.name if front is not None else ""
    for info in _graph_inputs(model):
        shape = tuple(side or 1 for side in declared(info) or ())
        picture = _image(shape) if pictures else None
        if image is None and picture is not None and shape[0] == 1:
            image, name = picture, info.name
        if info.name == name and shape[0] == 1:
            continue
        if info.name == name:  # several pictures at a time
            picture, image, name = image, None, ""
        dtype = _DTYPES[info.type.tensor_type.elem_type]
        others.append(ArrayInput(name=info.name, shape=shape, dtype=dtype, image=picture))  # type: ignore[arg-type]
    _picture_first(model, name)
    contract = Contract(
        family="plain tensors",
        head=TensorsHead(picture=name),
        picture=image,
        others=tuple(others),
    )
    return Plain(model, contract, front.said() if front is not None else ())


def _graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in weights]


def _image(shape: tuple[int, ...]) -> ImageInput | None:
    """How an input of this shape is fed as a picture; None for one that is none."""
    if len(shape) != 4 or shape[1] not in _CHANNELS:
        return None
    if not _LEAST_SIDE <= min(shape[2:]) <= max(shape[2:]) <= _MOST_SIDE:
        return None
    count = shape[1]
    return msgspec.convert(
        {
            "size": shape[2:],
            "color": _CHANNELS[count],
            "mean": (0.0,) * count,
            "std": (255.0,) * count,
            "fit": "stretch",
        },
        ImageInput,
    )


def with_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """A copy whose named inputs have these shapes; the others stay as they are. Raises RkzooError
    for an unknown input, and for a dimension that the graph fixes otherwise."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    infos = {info.name: info for info in _graph_inputs(copy)}
    unknown = sorted(set(shapes) - set(infos))
    if unknown:
        raise RkzooError(
            f"The model has no input {unknown[0]}.",
            f"Its inputs are {', '.join(infos)}.",
            "Check --shape.",
        )
    for name, shape in shapes.items():
        _set_shape(infos[name], tuple(shape))
    return copy


def _set_shape(info: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    known = declared(info)
    if known is not None and (
        len(known) != len(shape)
        or any(a not in (None, b) for a, b in zip(known, shape, strict=True))
    ):
        raise RkzooError(
            f"The input {info.name} cannot have the shape {'x'.join(map(str, shape))}.",
            f"The graph fixes it as {'x'.join(str(side or '?') for side in known) or 'scalar'}.",
            "Give only the free dimensions another number.",
        )
    kind = info.type.tensor_type.elem_type
    info.CopyFrom(helper.make_tensor_value_info(info.name, kind, shape))


def _without_unused(model: onnx.ModelProto) -> None:
    """Drops inputs that no operator reads, in place: nothing could be fed to them on an NPU."""
    read = {name for node in model.graph.node for name in (*node.input, *captured_by(node))}
    read |= {info.name for info in model.graph.output}
    kept = [info for info in model.graph.input if info.name in read]
    copies = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in kept]
    del model.graph.input[:]
    model.graph.input.extend(copies)


def _fixed(model: onnx.ModelProto, shapes: Shapes, size: tuple[int, int] | None) -> onnx.ModelProto:
    """A copy whose inputs have no free dimension. Raises RkzooError."""
    copy = with_shapes(model, shapes)
    _without_unused(copy)
    for info in _graph_inputs(copy):
        shape = declared(info)
        if shape is None:
            raise _open(info)
        # The toolkit has no scalars.
        closed = _closed(shape, size) if shape else (1,)
        if closed is None:
            raise _open(info)
        kind = info.type.tensor_type.elem_type
        info.CopyFrom(helper.make_tensor_value_info(info.name, kind, closed))
    return copy


def _closed(shape: tuple[int | None, ...], size: tuple[int, int] | None) -> tuple[int, ...] | None:
    """The shape with a batch of one, and `size` where a picture's sides are free; None where
    something stays open."""
    sides = list(shape)
    if sides and sides[0] is None:
        sides[0] = 1
    if len(sides) == 4 and size is not None:
        first = 1 if sides[3] in _CHANNELS and sides[1] not in _CHANNELS else 2
        for place, side in zip((first, first + 1), size, strict=True):
            sides[place] = sides[place] or side
    closed = tuple(side for side in sides if side is not None)
    return closed if len(closed) == len(sides) else None


def _open(info: onnx.ValueInfoProto) -> RkzooError:
    (tensor,) = tensors([info])
    example = ",".join(str(side) if isinstance(side, int) else "1" for side in tensor.shape) or "1"
    return RkzooError(
        f"The shape of the input {info.name} is open.",
        f"The graph leaves it free ({'x'.join(map(str, tensor.shape))}), but the NPU needs one "
        "that is fixed.",
        f"Give it with --shape {info.name}=N,N,..., for example --shape {info.name}={example}"
        "; --size HxW does for a picture.",
    )


def _numeric(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with inputs of float and whole types only: one of another type takes float32,
    which is cast inside. Raises RkzooError for texts."""
    casts = []
    for info in _graph_inputs(model):
        kind = info.type.tensor_type.elem_type
        if kind in _DTYPES:
            continue
        if kind == TensorProto.STRING:
            raise RkzooError(
                f"The input {info.name} takes text.",
                "An NPU computes with numbers.",
                "Export the model behind its tokenizer.",
            )
        readers = [node for node in model.graph.node if info.name in node.input]
        if all(node.op_type == "Cast" for node in readers):
            # The toolkit knows no bytes: what is cast anyway is cast from floats.
            info.type.tensor_type.elem_type = TensorProto.FLOAT
            continue
        inner = f"{info.name}_as_declared"
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                if name == info.name:
                    node.input[place] = inner
        casts.append(helper.make_node("Cast", [info.name], [inner], to=kind))
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    kept = list(model.graph.node)
    if casts:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*casts, *kept)]
        del model.graph.node[:]
        model.graph.node.extend(copies)
    return model


_SMALL = (TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16)


def _without_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with int32 where its last cast makes smaller whole numbers of an output, of which
    the toolkit knows none."""
    read = {name for node in model.graph.node for name in node.input}
    small = {
        info.name: info
        for info in model.graph.output
        if info.type.tensor_type.elem_type in _SMALL and info.name not in read
    }
    for node in model.graph.node:
        if node.op_type == "Cast" and node.output[0] in small:
            next(attr for attr in node.attribute if attr.name == "to").i = TensorProto.INT32
            small[node.output[0]].type.tensor_type.elem_type = TensorProto.INT32
    return model


def _picture_first(model: onnx.ModelProto, name: str) -> None:
    infos = sorted(model.graph.input, key=lambda info: info.name != name)
    copies = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in infos]
    del model.graph.input[:]
    model.graph.input.extend(copies)


def plain_notes(graph: onnx.ModelProto, contract: Contract, *, requested: bool) -> tuple[str, ...]:
    """What was seen, what becomes of it, and how pictures are fed: a sentence each, for people.
    `requested`: the user wants the outputs so."""
    inputs, outputs = (
        ", ".join(f"{t.name} {'x'.join(map(str, t.shape)) or 'scalar'}" for t in tensors(infos))
        for infos in (_graph_inputs(graph), graph.graph.output)
    )
    head = "its head is not read" if requested else "its head is not one that rkzoo knows"
    sentences = [
        f"{head}. It takes {inputs} and gives {outputs}.",
        "Its outputs stay plain tensors: run writes them as .npz and compare compares them, but "
        "nothing is read out of them.",
    ]
    if not requested and _has_masks(graph):
        sentences.append(
            "Boxes, scores and a mask for each query are those of a DETR for segmentation, such as "
            "RF-DETR-Seg, whose masks rkzoo does not read: take the model for detection instead, "
            "or these arrays."
        )
    image = contract.picture
    if image is not None:
        mean, std = (",".join(f"{v:g}" for v in values) for values in (image.mean, image.std))
        sentences.append(
            f"Pictures are fed as {image.color}, by {image.fit}, (pixel - {mean}) / {std}: "
            "give --color, --mean, --std and --fit of your training where they differ."
        )
    return tuple(sentences)


def _has_masks(graph: onnx.ModelProto) -> bool:
    """Whether 1xQx4, 1xQxC and 1xQxhxw leave the graph."""
    shapes = [declared(info) or () for info in graph.graph.output]
    rows, maps = ([shape for shape in shapes if len(shape) == count] for count in (3, 4))
    if (len(rows), len(maps), len(shapes)) != (2, 1, 3):
        return False
    queries = {shape[1] for shape in shapes}
    return len(queries) == 1 and None not in queries and 4 in {shape[2] for shape in rows}
