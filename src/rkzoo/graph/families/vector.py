"""Networks that answer a picture with numbers: embeddings, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import onnx
from onnx import helper

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract
from rkzoo.contract.vector import VectorHead
from rkzoo.graph.families.classifier import MEAN, STD
from rkzoo.graph.families.flat_output import judged
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.families.tokens import EmbeddingOutput, embedding_output
from rkzoo.graph.onnx.subgraph import part
from rkzoo.graph.onnx.view import GraphView, attributes, graph_view, prepared

_NONE = "it does not end in one row of numbers, 1xN, that are no scores"
_GREY = (127.5, 127.5, 127.5)
_FACE = 160  # pixels: aligned faces are no larger than this
_TALL = 1.5  # height to width: cut-out people


@dataclass(frozen=True)
class _Training:
    """How a family of vision transformers is fed, as published: `short` is the short side of the
    picture to the input's; None: the whole picture is stretched."""

    family: str
    title: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    short: float | None


# https://huggingface.co/facebook/dinov2-small/blob/main/preprocessor_config.json
_DINOV2 = _Training("dinov2", "DINOv2", MEAN, STD, 256 / 224)
# https://huggingface.co/google/siglip-base-patch16-224/blob/main/preprocessor_config.json
_SIGLIP = _Training("siglip-image", "SigLIP", _GREY, _GREY, None)
# https://github.com/openai/CLIP/blob/main/clip/clip.py
_CLIP = _Training(
    "clip-image",
    "CLIP",
    (122.7709383, 116.7460125, 104.09373615),
    (68.5005327, 66.6321375, 70.32316305),
    1.0,
)


def vector(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognises embeddings and measured numbers: one output 1xN that is no classifier's, alone or
    beside a vision transformer's tokens; or these tokens alone."""
    found = embedding_output(view)
    if found is None:
        return _NONE if len(view.model.graph.output) == 1 else ""
    training = _training(found)
    doubt: tuple[str, ...] = ()
    if found.flat is None:
        count, embedding, text = _of_tokens(found)
    else:
        judgement = judged(found.flat, len(picture.labels))
        if judgement.meaning not in ("embedding", "numbers"):
            return _NONE
        count, embedding = found.flat.count, judgement.meaning == "embedding"
        length = ", brought to length 1" if found.flat.unit else ""
        text = (
            f"One output of {count} numbers{length}: {'an embedding' if embedding else 'measured'}."
        )
        doubt = (judgement.doubt,) if judgement.doubt and training is None else ()
    image, assumed = _preprocessing(picture, training)
    family = training.family if training else "embedding" if embedding else "regression"
    return Recognition(
        family=family,
        form="whole",
        contract=Contract(
            family=family, picture=image, head=VectorHead(size=count, embedding=embedding)
        ),
        head_tensors=(),
        evidence=(text, *assumed, *doubt),
        assumed=(*assumed, *doubt),
    )


def _of_tokens(found: EmbeddingOutput) -> tuple[int, bool, str]:
    tokens = found.tokens
    if tokens is None:
        raise ValueError("rows of tokens without tokens")
    taken = "that of the class token" if found.pooled == "first" else "the mean of all"
    patches = tokens.count - tokens.extra
    text = (
        f"One output of {tokens.count} rows of {tokens.width} numbers, {patches} patches of "
        f"{tokens.patch}x{tokens.patch} pixels and {tokens.extra} more: the embedding is {taken}."
    )
    return tokens.width, True, text


def _training(found: EmbeddingOutput) -> _Training | None:
    """Which vision transformer it is, where its structure tells: CLIP projects its class token by
    a matrix without bias; DINOv2 gives it as it is and has patches of 14 pixels; SigLIP has none
    and pools by attention."""
    tokens, flat = found.tokens, found.flat
    if tokens is None:
        return None
    projected = flat is not None and flat.weighted and not flat.biased and not flat.end
    if tokens.extra:
        return _CLIP if projected else _DINOV2 if tokens.patch == 14 else None
    if flat is None or flat.weighted or flat.end:
        return None
    return _SIGLIP


def up_to_embedding(model: onnx.ModelProto, image: ImageInput) -> onnx.ModelProto:
    """Cut a graph at the embedding of its picture, 1xN, with the image input fixed to 1xCxHxW.

    Of a row for each token the class token's is taken before the last normalisation, so that this
    is computed of one row. Returns the model unchanged where it gives nothing else.
    """
    names = {tensor.name for tensor in model.graph.initializer}
    picture = next(info.name for info in model.graph.input if info.name not in names)
    shape = (1, image.channels, *image.size)
    view = prepared(model, {picture: shape})
    found = embedding_output(view)
    if found is None or (not found.pooled and len(model.graph.output) == 1):
        return model
    cut = part(view.model, [ArrayInput(name=picture, shape=shape)], [found.name])
    return _pooled(cut, found) if found.pooled else cut


def _pooled(model: onnx.ModelProto, found: EmbeddingOutput) -> onnx.ModelProto:
    view = graph_view(model)
    graph, rows = model.graph, found.name
    norm = view.producers[rows]
    before = norm.op_type == "LayerNormalization" and attributes(norm).get("axis", -1) in (-1, 2)
    first = found.pooled == "first"
    row, flat = f"{rows}/row", f"{rows}/embedding"
    if first and before and len(norm.output) == 1:
        source, last = norm.input[0], norm.output[0]
        norm.input[0] = row
        at = list(graph.node).index(norm)
    else:
        source, last, at = rows, row, len(graph.node)
    for name, values in (("starts", [0]), ("ends", [1]), ("axes", [1])):
        graph.initializer.append(
            helper.make_tensor(f"{rows}/{name}", onnx.TensorProto.INT64, [1], values)
        )
    taken = (
        helper.make_node("Slice", [source, *(f"{rows}/{n}" for n in ("starts", "ends", "axes"))],
                         [row])
        if first
        else helper.make_node("ReduceMean", [source], [row], axes=[1], keepdims=1)
    )  # fmt: skip
    graph.node.insert(at, taken)
    width = found.tokens.width if found.tokens else 0
    graph.initializer.append(
        helper.make_tensor(f"{rows}/shape", onnx.TensorProto.INT64, [2], [1, width])
    )
    graph.node.append(helper.make_node("Reshape", [last, f"{rows}/shape"], [flat]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(flat, onnx.TensorProto.FLOAT, [1, width]))
    del graph.value_info[:]
    return model


def _preprocessing(
    picture: ImageSource, training: _Training | None
) -> tuple[ImageInput, tuple[str, ...]]:
    """Preprocessing of the image, by its family or size, and sentences on what of it is assumed."""
    image = picture.image
    height, width = image.size
    if training is not None and picture.channels == 3:
        return _as_trained(picture, training)
    fitted = msgspec.structs.replace(image, fit="stretch")
    if picture.pixels_known:
        return fitted, ()
    if picture.channels != 3:
        usual = "How it was trained is not in the file: pixels of 0..1 are taken."
        return fitted, (f"{usual} Give others with --mean and --std.",)
    face = max(image.size) <= _FACE and height < _TALL * width
    mean, std = (_GREY, _GREY) if face else (MEAN, STD)
    usual = "pixels of -1..1, as for faces" if face else "ImageNet's mean and std"
    text = (
        f"How it was trained is not in the file: RGB, {usual}, the whole picture stretched to "
        f"{height}x{width}. Give others with --color, --mean and --std."
    )
    return msgspec.structs.replace(fitted, mean=mean, std=std), (text,)


def _as_trained(picture: ImageSource, training: _Training) -> tuple[ImageInput, tuple[str, ...]]:
    image = msgspec.structs.replace(picture.image, smooth=True, fit="stretch")
    fit = "the whole picture stretched to the input"
    if training.short is not None:
        short = round(max(image.size) * training.short)
        image = msgspec.structs.replace(image, fit="crop", short=short)
        fit = f"its short side scaled to {short} pixels and the center cropped"
    if picture.pixels_known:
        return image, ()
    mean, std = (",".join(f"{v:.6g}" for v in row) for row in (training.mean, training.std))
    text = (
        f"Its tokens tell it as {training.title}; as published it is fed RGB pixels with mean "
        f"{mean} and std {std}, {fit}: that is assumed, for the file does not say. Say otherwise "
        "with --color, --mean, --std and --fit."
    )
    return msgspec.structs.replace(image, mean=training.mean, std=training.std), (text,)
