"""Detection of image preprocessing in the first operators of a graph.

What they do is asked, not read: the operators in front are run alone on numbers of our choice,
and only what turns out to be one factor and one shift a channel counts. So it does not matter
whether an exporter spelled it as Sub and Div, as BatchNormalization, before or after a
Transpose, a Cast or a swap of channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from rkzoo.contract.inputs import ImageInput
from rkzoo.graph.onnx.read import metadata
from rkzoo.graph.onnx.view import (
    Array,
    GraphView,
    Shape,
    captured_by,
    declared,
    is_scale,
    run,
    submodel,
)
from rkzoo.ort import MOST_NUMBERS, CannotRun, looking, too_large

Layout = Literal["NCHW", "NHWC"]
Pixels = Literal["-1..1", "0..1", "0..255"]
# (mean, std) of 0..255 that give each range.
_FEEDS: dict[Pixels, tuple[float, float]] = {
    "-1..1": (127.5, 127.5),
    "0..1": (0.0, 255.0),
    "0..255": (0.0, 1.0),
}
_RANGES: dict[Pixels, str] = {
    "-1..1": "a picture scaled to -1..1",
    "0..1": "a picture scaled to 0..1",
    "0..255": "pixels of 0..255",
}

TOOK_BYTES = "rkzoo.bytes"
"""Metadata key of a model that takes raw pixels, 0..255."""

_CHANNELS = (1, 3, 4)
# No Conv: its weights are the network's own.
_SIMPLE = {
    *("Identity", "Dropout", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze"),
    *("Gather", "Slice", "Split", "Concat", "Expand", "Tile", "ScatterND"),
    *("Add", "Sub", "Mul", "Div", "Neg", "Sum", "Clip", "BatchNormalization"),
    "DequantizeLinear",
}
# What moves pixels and leaves colours as they are; a convolution only where it mixes none.
_GEOMETRY = {"Resize", "Upsample", "Pad", "AveragePool", "Conv"}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
# A colour order that no ImageInput can say is no preprocessing.
_ORDERS = {
    1: ((0,), (0, 0, 0)),
    3: ((0, 1, 2), (2, 1, 0)),
    4: ((0, 1, 2, 3), (2, 1, 0, 3), (0, 1, 2), (2, 1, 0)),
}
_SWAPPED = {"RGB": "BGR", "BGR": "RGB", "RGBA": "BGRA", "BGRA": "RGBA"}
_MOST_NODES = 40
# Where the graph leaves its size free, any does.
_TRIAL = (32, 48)
# Divisors of 0..255 are 10 and more (58, 127.5, 255); those of 0..1 are near 0.25, 0.5 or 1.
_SMALL_GAIN, _LARGE_GAIN = 0.1, 50.0
# Of the range that a graph takes: what is fed may lie off by this.
_AWAY = 0.55
# A mean beyond this is one of 0..255; means between these are of 0..1. A mean near 0 says
# nothing: the network itself may begin with a normalisation that it learnt.
_LARGE_MEAN, _MEANS_OF_1 = 1.5, (0.2, 0.8)
# ImageNet's and Caffe's means, red first: in the other order they tell that blue is first.
_MEANS = ((123.675, 116.28, 103.53), (123.68, 116.779, 103.939), (123.0, 117.0, 104.0))


@dataclass(frozen=True)
class InputPreprocessing:
    """What the operators in front of a network do with a picture.

    `name`, `dtype` (ONNX's number), `layout` and `shape` are of the graph's input. The network
    begins at the tensor `body` (of `body_dtype`, in `body_layout`), whose channel k is
    gain[k] * x[source[k]] + shift[k] of the input's channels x. `bytes_before`: the file took
    bytes before it was made into ONNX.
    """

    name: str
    dtype: int
    layout: Layout
    shape: Shape
    body: str
    body_dtype: int
    body_layout: Layout
    source: tuple[int, ...]
    gain: tuple[float, ...]
    shift: tuple[float, ...]
    bytes_before: bool = False

    @property
    def channels(self) -> int:
        """Of the graph's input."""
        return _channels(self.shape, self.layout)

    @property
    def scales(self) -> bool:
        """Whether the numbers change on the way, not only their places."""
        return any(a != 1 for a in self.gain) or any(b != 0 for b in self.shift)

    @property
    def moves(self) -> bool:
        """Whether channels change their places, or are repeated or left out."""
        return self.source != tuple(range(self.channels))

    @property
    def floats(self) -> bool:
        """Whether the input is of a float type."""
        return self.dtype in _FLOATS

    @property
    def pixels(self) -> Pixels | None:
        """The range that the input takes, where that can be told from what is done with it."""
        if self.dtype not in _FLOATS or self.bytes_before:
            return "0..255"
        gain = float(np.mean(np.abs(self.gain)))
        means = -np.divide(self.shift, self.gain)
        if self._from_both_signs(means):
            return "-1..1"
        if gain < _SMALL_GAIN or means.mean() > _LARGE_MEAN:
            return "0..255"
        low, high = _MEANS_OF_1
        centred = low <= means.min() and means.max() <= high
        return "0..1" if gain >= _LARGE_GAIN or centred else None

    def _from_both_signs(self, means: NDArray[np.float64]) -> bool:
        """Whether the operators first bring -1..1 to 0..1 or 0..255, or do that and ImageNet's
        normalisation at once."""
        gain = np.abs(self.gain)
        if np.allclose(means, -1, atol=0.02) and np.allclose(gain, gain[0], rtol=0.01):
            return bool(abs(gain[0] - 0.5) < 0.01 or abs(gain[0] - 127.5) < 2)
        pixels = means * 127.5 + 127.5
        spread = 127.5 / gain
        usual = len(pixels) == 3 and any(
            np.allclose(sorted(pixels), sorted(m), atol=2) for m in _MEANS
        )
        return usual and bool(np.all((spread > 50) & (spread < 65)))

    def array_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape of one picture of `size` (height, width) as the graph takes it."""
        shape = (self.channels, *size) if self.layout == "NCHW" else (*size, self.channels)
        return shape if len(self.shape) == 3 else (1, *shape)

    def array(self, picture: NDArray[np.float32]) -> Array:
        """A picture (1, C, H, W) as the graph takes it: its layout, its type."""
        laid_out = picture if self.layout == "NCHW" else picture.transpose(0, 2, 3, 1)
        laid_out = laid_out[0] if len(self.shape) == 3 else laid_out
        return np.ascontiguousarray(laid_out, helper.tensor_dtype_to_np_dtype(self.dtype))

    def fed(self, image_input: ImageInput) -> ImageInput:
        """How the graph's input is fed, where a network of this kind expects `image_input` (three
        channels): what the graph does itself is not done before it, and what it takes is
        believed more than what is usual."""
        color = self._color(image_input.color)
        if self.pixels is not None:
            offset, divisor = _FEEDS[self.pixels]
            offset = 128.0 if self.dtype == TensorProto.INT8 else offset
            mean: Sequence[float] = (offset,) * self.channels
            std: Sequence[float] = (divisor,) * self.channels
        else:
            mean = self._before(image_input.mean, 0.0)
            std = self._before(
                image_input.std, image_input.std[0] if len(set(image_input.std)) == 1 else 255.0
            )
        return msgspec.structs.replace(image_input, color=color, mean=tuple(mean), std=tuple(std))

    def twice(self, image_input: ImageInput) -> str:
        """A sentence where a picture that is fed so is normalised before the graph and inside it
        once more; "" where it is not. It seldom fails: everything looks alike to the network."""
        if not self.scales or self.pixels is None:
            return ""
        offset, divisor = _FEEDS[self.pixels]
        pairs = list(zip(image_input.mean, image_input.std, strict=True))
        low, high = (np.mean([(end - mean) / std for mean, std in pairs]) for end in (0, 255))
        ends = ((0 - offset) / divisor, (255 - offset) / divisor)
        away = max(abs(low - ends[0]), abs(high - ends[1]))
        if away <= _AWAY * (ends[1] - ends[0]):
            return ""
        return (
            f"THE PICTURE IS NORMALISED TWICE: the graph itself {_formula(self)} and takes "
            f"{_RANGES[self.pixels]}, but it is fed {low:.3g} to {high:.3g}. Give mean "
            f"{offset:g} and std {divisor:g}, or none."
        )

    def said(self) -> tuple[str, ...]:
        """What was seen, one sentence each; none of a graph that does nothing of the kind."""
        return tuple(_sentences(self))

    def _color(self, usual: str) -> str:
        """The order of the input's channels, where the network behind them has `usual`."""
        if self.channels == 1:
            return "GRAY"
        usual = "BGR" if _is_blue_first(self) else "RGB" if _is_red_first(self) else usual
        before = _SWAPPED[usual] if self.source[0] == 2 else usual
        return f"{before[:3]}A" if self.channels == 4 else before

    def _before(self, values: Sequence[float], alpha: float) -> list[float]:
        """Numbers of the network's three colours for the input's channels."""
        if self.channels == 1:
            return [float(np.mean(values))]
        befores = [alpha] * self.channels
        for value, channel in zip(values, self.source, strict=False):
            befores[channel] = value
        return befores


# ---- reading ------------------------------------------------------------------------


@looking()
def input_preprocessing(
    model: onnx.ModelProto, size: tuple[int, int] | None = None
) -> InputPreprocessing | None:
    """What `model` does with its one picture before the network begins; None where it has no one
    picture. `size` (height, width) counts where the graph leaves it free."""
    info = _picture(model)
    shape = declared(info) if info is not None else None
    layout = _layout(shape, info.type.tensor_type.elem_type) if info is not None else None
    if info is None or shape is None or layout is None:
        return None
    view = _bare(model)
    dtype = info.type.tensor_type.elem_type
    count = _channels(shape, layout)
    plain = InputPreprocessing(
        name=info.name,
        dtype=dtype,
        layout=layout,
        shape=shape,
        body=info.name,
        body_dtype=dtype,
        body_layout=layout,
        source=tuple(range(count)),
        gain=(1.0,) * count,
        shift=(0.0,) * count,
        bytes_before=TOOK_BYTES in metadata(model),
    )
    fed, planes = _ramp(plain, size)
    for name, nodes in reversed(list(_ends(view, info.name))):
        input_preprocessing = _channel_affine(view, plain, name, nodes, fed, planes)
        if input_preprocessing is not None and input_preprocessing.scales:
            return input_preprocessing
        if input_preprocessing is not None:
            return _behind_geometry(view, input_preprocessing) or input_preprocessing
    return (_behind_geometry(view, plain) or plain) if len(shape) == 4 else None


def _behind_geometry(view: GraphView, plain: InputPreprocessing) -> InputPreprocessing | None:
    """The factor and shift of each channel where a resize, crop, padding or pooling lies before or
    between, or a 1x1 convolution that mixes no channels makes them. Asked with pictures of one
    colour, which all of these leave as they are. Nothing is taken out of such a graph: it is only
    fed what it takes. None where nothing is scaled."""
    usual = plain.floats and plain.layout == "NCHW" and len(plain.shape) == 4 and not plain.moves
    if not usual or None in plain.shape[1:]:
        return None
    for name, nodes in reversed(list(_ends(view, plain.name, _SIMPLE | _GEOMETRY))):
        affine = _uniform_affine(view, plain, name, nodes)
        if affine is not None:
            found = replace(plain, gain=affine[0], shift=affine[1])
            return found if found.scales and found.pixels is not None else None
    return None


def _uniform_affine(
    view: GraphView, plain: InputPreprocessing, name: str, nodes: Sequence[onnx.NodeProto]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(factors, shifts) by which a uniform colour becomes the middle of the tensor `name`."""
    count = plain.channels
    needed = _needed(nodes, name)
    if name == plain.name or not all(_keeps_colours(view, node) for node in needed):
        return None
    colours = np.array([[0.0] * count, *(np.eye(count) * 100), [200.0] * count])
    answers = []
    for colour in colours:
        sides = [side or 1 for side in plain.shape[2:]]
        picture = np.broadcast_to(colour.reshape(1, -1, 1, 1), (1, count, *sides))
        feeds = {plain.name: plain.array(picture.astype(np.float32))}
        try:
            (answer,) = run(submodel(view, needed, feeds, [name]), feeds)
        except (CannotRun, TypeError):
            return None
        if answer.ndim != 4 or answer.shape[:2] != (1, count):
            return None
        height, width = answer.shape[2:]
        # The middle, which padding does not reach.
        middle = answer[0, :, height // 4 : height - height // 4, width // 4 : width - width // 4]
        middle = middle.reshape(count, -1).astype(np.float64)
        if not middle.size or np.ptp(middle, axis=1).max() > 1e-3 * max(1.0, np.abs(middle).max()):
            return None
        answers.append(middle[:, 0])
    shift, *columns, twice = answers
    factors = (np.array(columns) - shift) / 100
    gain = np.diag(factors)
    slack = 1e-4 * np.abs(gain).max()
    mixes = np.abs(factors - np.diag(gain)).max() > slack
    if mixes or not gain.all() or np.abs(gain * 200 + shift - twice).max() > slack * 200 + 1e-4:
        return None
    rounded = [_rounded(float(a), float(b)) for a, b in zip(gain, shift, strict=True)]
    return tuple(a for a, _ in rounded), tuple(b for _, b in rounded)


def _keeps_colours(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a node is no layer of the network: of convolutions only one of 1x1."""
    if node.op_type != "Conv":
        return True
    weight = view.constant(node.input[1])
    return weight is not None and weight.ndim == 4 and weight.shape[2:] == (1, 1)


def _picture(model: onnx.ModelProto) -> onnx.ValueInfoProto | None:
    """The input that takes a picture, where there is just one such."""
    weights = {tensor.name for tensor in model.graph.initializer}
    fed = [info for info in model.graph.input if info.name not in weights and not is_scale(info)]
    pictures = [info for info in fed if len(declared(info) or ()) == 4]
    candidates = pictures or (fed if len(fed) == 1 else [])
    return candidates[0] if len(candidates) == 1 else None


def _layout(shape: Shape | None, dtype: int) -> Layout | None:
    """Where the channels are, 1, 3 or 4 of them; None where there are none. Three dimensions are
    a picture only where that is beyond doubt: most such inputs are sounds or texts."""
    if shape is None or len(shape) not in (3, 4):
        return None
    first, last = shape[-3], shape[-1]
    if len(shape) == 3:
        allowed: tuple[int | None, ...] = (3, 4) if dtype in _FLOATS else _CHANNELS
        return "NCHW" if first in allowed else "NHWC" if last in allowed else None
    if first in _CHANNELS:
        return "NCHW"
    if last in _CHANNELS:
        return "NHWC"
    return "NCHW" if first is None else None


def _channels(shape: Shape, layout: Layout) -> int:
    return (shape[-3] if layout == "NCHW" else shape[-1]) or 3


def _bare(model: onnx.ModelProto) -> GraphView:
    """The graph without its shapes, which cost much and are not needed here."""
    return GraphView(
        model=model,
        shapes={},
        dtypes={},
        producers={name: node for node in model.graph.node for name in node.output},
        initializers={tensor.name: tensor for tensor in model.graph.initializer},
    )


def _ends(
    view: GraphView, start: str, passed: Set[str] = _SIMPLE
) -> Iterator[tuple[str, list[onnx.NodeProto]]]:
    """Tensors that everything which is made of the picture goes through, the nearest first, with
    the nodes before them, those that make their constants included."""
    graph = view.model.graph
    fixed = set(view.initializers)
    inputs = {output.name for output in graph.output}
    constant: list[onnx.NodeProto] = []
    inside: list[onnx.NodeProto] = []
    left = {start: len(_readers(view, start))}
    if not _goes_on(view, left, passed, set()):
        return
    for node in graph.node:
        plain = not node.domain and not captured_by(node)
        data = {name for name in node.input if name and name not in fixed}
        if plain and not data and (node.op_type == "Constant" or node.input):
            constant.append(node)
            fixed.update(node.output)
            continue
        if not data or not data <= left.keys() or not plain or node.op_type not in passed:
            continue
        inside.append(node)
        for name in data:
            left[name] -= 1
        for name in node.output:
            left[name] = len(_readers(view, name)) + (name in inputs)
        ends = [name for name, count in left.items() if count > 0]
        if len(ends) == 1:
            yield ends[0], [*constant, *inside]
        done = {name for behind in inside for name in behind.output}
        if len(inside) >= _MOST_NODES or not _goes_on(view, left, passed, done):
            return


def _goes_on(view: GraphView, left: Mapping[str, int], passed: Set[str], done: Set[str]) -> bool:
    """Whether a node that may be passed through, and is not `done`, reads an open tensor: looking
    at all nodes of a large graph takes long."""
    return any(
        node.op_type in passed and done.isdisjoint(node.output)
        for name, count in left.items()
        if count > 0
        for node in _readers(view, name)
    )


def _readers(view: GraphView, name: str) -> list[onnx.NodeProto]:
    """The nodes that read the numbers of a tensor, not its shape only."""
    nodes = {id(node): node for node in view.consumers.get(name, []) if node.op_type != "Shape"}
    return list(nodes.values())


def _ramp(plain: InputPreprocessing, size: tuple[int, int] | None) -> tuple[Array, Array]:
    """A picture that tells its pixels and channels apart, as the graph takes it, and its planes
    (C, H, W)."""
    rows, columns = plain.shape[-2:] if plain.layout == "NCHW" else plain.shape[-3:-1]
    inputs = size or _TRIAL
    sides = (rows or inputs[0], columns or inputs[1])
    if plain.channels * sides[0] * sides[1] > MOST_NUMBERS:
        raise too_large(f"The input {plain.name}", MOST_NUMBERS * 4)
    most = 127 if plain.dtype == TensorProto.INT8 else 255
    random = np.random.default_rng(0)
    planes = random.integers(0, most + 1, (plain.channels, *sides)).astype(np.float32)
    planes[:, 0, 0], planes[:, -1, -1] = 0, most
    return plain.array(planes[None]), planes


def _channel_affine(
    view: GraphView,
    plain: InputPreprocessing,
    name: str,
    nodes: Sequence[onnx.NodeProto],
    fed: Array,
    planes: Array,
) -> InputPreprocessing | None:
    """What lies between the picture and the tensor `name`, where that is one factor and one
    shift a channel."""
    if name == plain.name:
        return None
    feeds = {plain.name: fed}
    try:
        (answer,) = run(submodel(view, _needed(nodes, name), feeds, [name]), feeds)
    except (CannotRun, TypeError):  # a type that numpy has not
        return None
    half = np.float16 in (answer.dtype, fed.dtype)
    for layout, turned in _planes(answer, planes.shape[1:]):
        fits = [_fit(plane, planes, half) for plane in turned]
        known = [fit for fit in fits if fit is not None]
        source = tuple(channel for channel, _, _ in known)
        if len(known) == len(fits) and source in _ORDERS[plain.channels]:
            return replace(
                plain,
                body=name,
                body_dtype=helper.np_dtype_to_tensor_dtype(answer.dtype),
                body_layout=layout,
                source=source,
                gain=tuple(gain for _, gain, _ in known),
                shift=tuple(shift for _, _, shift in known),
            )
    return None


def _needed(nodes: Sequence[onnx.NodeProto], name: str) -> list[onnx.NodeProto]:
    """Those of `nodes`, which are in order, that `name` is made of."""
    requested, kept = {name}, []
    for node in reversed(nodes):
        if not requested.isdisjoint(node.output):
            kept.append(node)
            requested.update(node.input)
    return kept[::-1]


def _planes(answer: Array, size: tuple[int, ...]) -> Iterator[tuple[Layout, Array]]:
    """The answer as (C, H, W), in each layout that it can be read in."""
    if answer.ndim != 4 or answer.shape[0] != 1:
        return
    if answer.shape[2:] == size and answer.shape[1] in _CHANNELS:
        yield "NCHW", answer[0].astype(np.float64)
    if answer.shape[1:3] == size and answer.shape[3] in _CHANNELS:
        yield "NHWC", answer[0].transpose(2, 0, 1).astype(np.float64)


def _fit(plane: Array, planes: Array, half: bool) -> tuple[int, float, float] | None:
    """(channel, factor, shift) that make `plane` of one of `planes`."""
    most = float(planes.max())
    shift = float(plane[0, 0])
    gain = (float(plane[-1, -1]) - shift) / most
    slack = (2e-3 if half else 3e-6) * (abs(gain) * most + abs(shift))
    if gain == 0 or not np.isfinite(gain):
        return None
    for channel, own in enumerate(planes):
        if np.allclose(plane, gain * own + shift, rtol=0, atol=slack):
            return channel, *_rounded(gain, shift)
    return None


def _rounded(gain: float, shift: float) -> tuple[float, float]:
    """Without what single precision left of a 1 and a 0."""
    if abs(gain - 1) < 1e-6:
        gain = 1.0
    return gain, 0.0 if abs(shift) < 1e-6 * 255 * abs(gain) else shift


# ---- in words -----------------------------------------------------------------------


def _sentences(input_preprocessing: InputPreprocessing) -> Iterator[str]:
    if input_preprocessing.channels == 1:
        yield "It takes a grey picture of one channel."
    if input_preprocessing.channels == 4:
        yield "It takes a picture of four channels: red, green, blue and alpha are taken."
    kind = helper.tensor_dtype_to_np_dtype(input_preprocessing.dtype)
    odd = [str(kind)] if input_preprocessing.dtype not in _FLOATS else []
    odd += ["channels last (NHWC)"] if input_preprocessing.layout == "NHWC" else []
    if odd:
        yield f"It takes {', '.join(odd)}; that becomes float32, channels first (NCHW), on the way."
    if input_preprocessing.scales and input_preprocessing.pixels is not None:
        how = _RANGES[input_preprocessing.pixels]
        yield f"The graph itself {_formula(input_preprocessing)}: it takes {how}."
    elif input_preprocessing.bytes_before or input_preprocessing.pixels is not None:
        yield "The model was made to take bytes: it takes pixels of 0..255."
    if input_preprocessing.moves and input_preprocessing.source[0] == 2:
        yield "The graph itself swaps red and blue."


def _formula(input_preprocessing: InputPreprocessing) -> str:
    mean = [
        -shift / gain
        for shift, gain in zip(input_preprocessing.shift, input_preprocessing.gain, strict=True)
    ]
    std = [1 / gain for gain in input_preprocessing.gain]
    if not any(input_preprocessing.shift):
        return f"divides the picture by {_numbers(std)}"
    return f"normalises the picture (mean {_numbers(mean)}, std {_numbers(std)})"


def _numbers(values: Sequence[float]) -> str:
    shown = [f"{value:.6g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)


def _is_red_first(input_preprocessing: InputPreprocessing) -> bool:
    return any(_near(input_preprocessing, means) for means in _MEANS)


def _is_blue_first(input_preprocessing: InputPreprocessing) -> bool:
    return any(_near(input_preprocessing, means[::-1]) for means in _MEANS)


def _near(input_preprocessing: InputPreprocessing, means: Sequence[float]) -> bool:
    """Whether the network's own mean is this one, in units of 0..255."""
    if len(input_preprocessing.gain) != 3 or input_preprocessing.pixels is None:
        return False
    unit = 255.0 if input_preprocessing.pixels == "0..1" else 1.0
    own = -unit * np.divide(input_preprocessing.shift, input_preprocessing.gain)
    return bool(np.abs(own - means).max() < 1.0)
