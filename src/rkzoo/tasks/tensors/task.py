"""Any model as it is: inputs by name in, raw outputs by name out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import ArrayInput, ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, canvas_of, dequantise, fitter_of
from rkzoo.tasks.tensors.result import Tensors
from rkzoo.vision.letterbox import fit

Array = NDArray[Any]
Sample = Mapping[str, Array] | Array
"""Inputs by name; a single array is that of a model with one input."""


class TensorTask:
    """A model whose outputs stay plain tensors; made once, called for every sample."""

    def __init__(self, contract: Contract, session: Session) -> None:
        self.contract, self.session = contract, session
        self.names = tuple(spec.name for spec in session.inputs)
        picture = contract.picture
        self._canvas = canvas_of(session, picture.size, picture.channels) if picture else None
        self._fit = fitter_of(session, fit)

    def __call__(self, sample: Sample) -> Tensors:
        """Runs one sample.

        Args:
            sample: By input name: a picture as BGR (or BGRA) uint8 (H, W, C), or what the input
                takes as an array of its shape; the one array where there is one input.

        Returns:
            The outputs by name.

        Raises:
            RkzooError: An input is missing, unknown or of another shape.
        """
        arrays = self.session.run(self.preprocess(sample))
        return Tensors(
            {
                spec.name: _plain(array, spec)
                for array, spec in zip(arrays, self.session.outputs, strict=True)
            }
        )

    def preprocess(self, sample: Sample) -> list[Array]:
        """A sample to the session's inputs. The picture's array is reused by the next call."""
        given = _by_name(sample, self.names)
        specs: list[ImageInput | ArrayInput] = list(self.contract.others)
        if self.contract.picture is not None:
            specs.insert(0, self.contract.picture)
        arrays = zip(self.names, specs, strict=True)
        return [
            self._picture(given[n], spec) if isinstance(spec, ImageInput) else fed(given[n], spec)
            for n, spec in arrays
        ]

    def _picture(self, image: Array, spec: ImageInput) -> Array:
        pixels = as_pixels(image, spec)
        return self._fit(pixels, spec, self._canvas)[0]


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


def _unnormalised(array: Array, spec: ImageInput) -> NDArray[np.uint8]:
    """The pixels behind a normalised (C, H, W) array in the model's colour order, as BGR."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    values = array.astype(np.float32) * std + mean
    pixels = np.rint(values)
    if not (np.abs(values - pixels) < _NEAR_A_PIXEL).all() or pixels.min() < 0 or pixels.max() > 255:
        raise RkzooError(
            "The array holds numbers that no picture becomes.",
            f"The input is a picture of 0..255 with mean {spec.mean} and std {spec.std}.",
            "Give a picture, or convert and run the model with --fit none, so that its input is "
            "an array.",
        )
    picture = pixels.astype(np.uint8).transpose(1, 2, 0)
    order = {"RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3]}.get(spec.color)
    return np.ascontiguousarray(picture if order is None else picture[..., order])


_NEAR_A_PIXEL = 0.02


def fed(array: Array, spec: ArrayInput) -> Array:
    """An array in the shape and type of its input; a batch of one may be left out, and a last
    or first dimension of one. Raises RkzooError for another shape, and for numbers that the type
    cannot hold."""
    shaped = array
    if array.shape != spec.shape and array.size == np.prod(spec.shape):
        squeezed = [tuple(d for d in shape if d != 1) for shape in (array.shape, spec.shape)]
        shaped = array.reshape(spec.shape) if squeezed[0] == squeezed[1] else array
    if shaped.shape != spec.shape:
        raise RkzooError(
            f"The input {spec.name} was given an array of {'x'.join(map(str, array.shape))}.",
            f"It takes {'x'.join(map(str, spec.shape))} {spec.dtype}.",
            "Give an array of that shape, or another size with --shape when converting.",
        )
    cast = np.ascontiguousarray(shaped, spec.dtype)
    if shaped.dtype.kind == "f" and cast.dtype.kind != "f" and not np.array_equal(cast, shaped):
        raise RkzooError(
            f"The input {spec.name} was given fractions.",
            f"It takes whole numbers ({spec.dtype}).",
            "Give whole numbers.",
        )
    return cast


def _by_name(sample: Sample, names: tuple[str, ...]) -> Mapping[str, Array]:
    if not isinstance(sample, Mapping):
        sample = {names[0]: sample} if len(names) == 1 else {"the one array": sample}
    if set(sample) != set(names):
        missing = [name for name in names if name not in sample]
        extra = [name for name in sample if name not in names]
        what = f"has no {missing[0]}" if missing else f"names {extra[0]}"
        raise RkzooError(
            f"The sample {what}.",
            f"The model's inputs are {', '.join(names)}.",
            f"Give each by its name, for example {names[0]}=FILE.",
        )
    return sample


def _plain(array: Array, spec: TensorSpec) -> Array:
    """The session's memory may be its own, so the values are copied."""
    if array.dtype.kind == "f" or spec.scale is not None:
        return np.array(dequantise(array, spec))
    return np.array(array)
