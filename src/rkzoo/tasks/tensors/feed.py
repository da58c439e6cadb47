"""From a sample, its inputs by name, to the arrays that a session takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import ArrayInput, Color, ImageInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.vision.letterbox import fit

Array = NDArray[Any]
Sample = Mapping[str, Array] | Array
"""Inputs by name; a single array is that of a model with one input."""


def input_specs(contract: Contract) -> dict[str, ImageInput | ArrayInput]:
    """The inputs of a contract by name, in the order of the session."""
    picture: dict[str, ImageInput | ArrayInput] = {}
    if contract.picture is not None:
        head = contract.head
        name = head.picture if isinstance(head, TensorsHead) else ""
        picture[name or "picture"] = contract.picture
    return picture | {other.name: other for other in contract.others}


def arrays_of(sample: Sample, contract: Contract, canvas: Array | None = None) -> list[Array]:
    """A sample as a session takes it.

    Args:
        sample: By input name: a picture as BGR (or BGRA, or grey) uint8 (H, W, C), or an array
            of the input's own shape; a single array where there is one input.
        contract: The model's.
        canvas: Where the first picture is written, uint8 (1, height, width, C).

    Returns:
        One array an input: uint8 NHWC for the contract's picture, the others as declared.

    Raises:
        RkzooError: An input is missing, unknown, or of another shape or range.
    """
    specs = input_specs(contract)
    by_name = _by_name(sample, tuple(specs))
    return [
        fit(as_pixels(by_name[name], spec), spec, canvas)[0]
        if isinstance(spec, ImageInput)
        else as_array(by_name[name], spec)
        for name, spec in specs.items()
    ]


def as_array(value: Array, spec: ArrayInput) -> Array:
    """An array, or the picture of an input that is fed as an array, in the shape and type of the
    input. Raises RkzooError."""
    if spec.image is not None and value.dtype == np.uint8:
        value = _normalised(value, spec.image, spec.shape[0])
    return _shaped(value, spec)


def _normalised(picture: Array, image: ImageInput, batch: int) -> NDArray[np.float32]:
    """float32 (N, C, H, W), (pixel - mean) / std; one picture fills a batch, (N, H, W, C) is
    one for each place."""
    pictures = picture if picture.ndim == 4 else picture[None]
    stack = np.concatenate([fit(as_pixels(picture, image), image)[0] for picture in pictures])
    mean, std = np.array(image.mean, np.float32), np.array(image.std, np.float32)
    values = np.asarray((stack - mean) / std, np.float32).transpose(0, 3, 1, 2)
    return np.broadcast_to(values, (batch, *values.shape[1:])) if len(values) == 1 else values


def as_pixels(image: Array, spec: ImageInput) -> NDArray[np.uint8]:
    """A picture as `fit` takes it.

    Args:
        image: uint8 (H, W, C), (H, W) of a grey one, or with a batch of one in front; or floats
            as the network itself takes them, (C, H, W) normalised by the input's mean and std.
        spec: The input.

    Returns:
        uint8 (H, W, C), BGR or BGRA.

    Raises:
        RkzooError: It is no picture, or its floats are none of the 256 values of a pixel.
    """
    array = image[0] if image.ndim == 4 and len(image) == 1 else image
    if array.dtype.kind == "f" and array.shape == (spec.channels, *spec.size):
        return _unnormalised(array, spec)
    array = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise RkzooError(
            f"An array of {image.dtype} {list(image.shape)} is no picture.",
            f"The input takes a picture of {spec.channels} channels.",
            "Give a picture, or uint8 of (height, width, channels); a model whose input is no "
            "picture is converted and run with --fit none.",
        )
    return np.asarray(array, np.uint8)


_NEAR_A_PIXEL = 0.02


def as_given(array: Array, spec: ImageInput | ArrayInput) -> Array:
    """An array as a session takes it, back as `arrays_of` takes it: a picture of the model's
    own size, uint8 (H, W, C) in its colour order, as BGR."""
    if not isinstance(spec, ImageInput):
        return array
    return np.ascontiguousarray(array[..., _REVERSED[spec.color]])


def made(contract: Contract, seed: int = 0) -> dict[str, Array]:
    """A sample of random numbers, the same each time for a seed: pixels for pictures, zeros and
    ones for whole numbers (which may count or choose anything), else normal numbers."""
    random = np.random.default_rng(seed)

    def pixels(image: ImageInput) -> Array:
        return random.integers(0, 256, (*image.size, image.channels), np.uint8)

    def one(spec: ImageInput | ArrayInput) -> Array:
        if isinstance(spec, ImageInput):
            return pixels(spec)
        if spec.image is not None:
            return pixels(spec.image)
        if spec.dtype == "float32":
            return random.standard_normal(spec.shape, np.float32)
        return random.integers(0, 2, spec.shape, np.dtype(spec.dtype))

    return {name: one(spec) for name, spec in input_specs(contract).items()}


_REVERSED: dict[Color, list[int]] = {
    "RGB": [2, 1, 0],
    "BGR": [0, 1, 2],
    "GRAY": [0],
    "RGBA": [2, 1, 0, 3],
    "BGRA": [0, 1, 2, 3],
}
"""Where the channels of OpenCV's order lie in each order, and the other way round."""


def _unnormalised(array: Array, spec: ImageInput) -> NDArray[np.uint8]:
    """The pixels behind a normalised (C, H, W) array in the model's colour order, as BGR."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    values = array.astype(np.float32) * std + mean
    pixels = np.rint(values)
    if not (np.abs(values - pixels) < _NEAR_A_PIXEL).all() or not 0 <= pixels.min() <= 255:
        raise RkzooError(
            "The array holds numbers that no picture becomes.",
            f"The input is a picture of 0..255 with mean {_text(spec.mean)} and std "
            f"{_text(spec.std)}.",
            "Give a picture, or convert and run the model with --fit none, so that its input is "
            "an array.",
        )
    picture = np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return as_given(picture, spec)


def _text(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _shaped(array: Array, spec: ArrayInput) -> Array:
    """An array in the shape and type of its input; dimensions of one may be left out. Raises
    RkzooError for another shape, and for numbers that the type cannot hold."""
    shaped = array
    if array.shape != spec.shape and array.size == np.prod(spec.shape):
        squeezed = [tuple(d for d in shape if d != 1) for shape in (array.shape, spec.shape)]
        shaped = array.reshape(spec.shape) if squeezed[0] == squeezed[1] else array
    if shaped.shape != spec.shape:
        raise RkzooError(
            f"The input {spec.name} was given an array of {'x'.join(map(str, array.shape))}.",
            f"It takes {'x'.join(map(str, spec.shape))} {spec.dtype}.",
            "Give an array of that shape, or another shape with --shape when converting.",
        )
    cast = np.ascontiguousarray(shaped, spec.dtype)
    if shaped.dtype.kind in "iu" and cast.dtype.kind in "iu" and not np.array_equal(cast, shaped):
        raise RkzooError(
            f"The input {spec.name} was given numbers beyond {spec.dtype}.",
            f"They reach from {shaped.min()} to {shaped.max()}.",
            f"Give numbers that {spec.dtype} can hold.",
        )
    if shaped.dtype.kind == "f" and cast.dtype.kind != "f" and not np.array_equal(cast, shaped):
        raise RkzooError(
            f"The input {spec.name} was given fractions.",
            f"It takes whole numbers ({spec.dtype}).",
            "Give whole numbers.",
        )
    return cast


def _by_name(sample: Sample, names: tuple[str, ...]) -> Mapping[str, Array]:
    if not isinstance(sample, Mapping):
        sample = {names[0] if len(names) == 1 else "": sample}
    if set(sample) != set(names):
        missing = [name for name in names if name not in sample]
        extra = [name for name in sample if name not in names]
        what = f"lacks {missing[0]}" if missing else f"names {extra[0]}, which is no input"
        raise RkzooError(
            f"The sample {what}.",
            f"The model takes {', '.join(names)}.",
            f"Give each by its name, for example {names[0]}=FILE, or an .npz with these names.",
        )
    return sample
