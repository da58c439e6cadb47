"""Super-resolution and restoration, tile by tile."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.restore import RestoreHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session, canvas_of, dequantise, plain
from rkzoo.tasks.restore.result import RestoredPicture
from rkzoo.vision.letterbox import fit, with_channels

U8 = NDArray[np.uint8]
_MOST_PIXELS = 2**28  # of a picture that is made


class Span(NamedTuple):
    """Along one side: a tile begins at `start`, and its pixels from `first` to before `stop` of the
    picture are used."""

    start: int
    first: int
    stop: int


def spans(length: int, size: int, margin: int) -> list[Span]:
    """Tiles of `size` that cover `length` (at least `size`), spread evenly, each with `margin`
    pixels beyond what is used of it, where the picture goes on."""
    step = max(1, size - 2 * min(margin, (size - 1) // 2))
    count = 1 + max(0, -(-(length - size) // step))
    starts = [round(i * (length - size) / max(1, count - 1)) for i in range(count)]
    # Where two tiles overlap, each is used up to the middle.
    bounds = [0, *((a + size + b) // 2 for a, b in pairwise(starts)), length]
    return [Span(start, bounds[i], bounds[i + 1]) for i, start in enumerate(starts)]


class Restorer:
    """A network that makes a picture of a picture. Construct once, call once per picture.

    A picture is never scaled: one that is larger than the input is cut into tiles that overlap, a
    smaller one goes on as its own mirror image.
    """

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, RestoreHead):
            raise RkzooError(f"{contract.family} makes no pictures.", code=1)
        self.contract, self.session, self.head = contract, session, contract.head
        self._spec = msgspec.structs.replace(contract.input, fit="stretch", short=None)
        self._canvas = canvas_of(session, self._spec.size, self._spec.channels)

    def __call__(self, image: U8) -> RestoredPicture:
        """Make the picture of a BGR picture (H, W, 3).

        Raises:
            RkzooError: The network gives another size than its head says, or numbers that are not
                finite, or the picture would be too large.
        """
        image = with_channels(image, 3)
        height, width = image.shape[:2]
        scale = self.head.scale
        if height * width * scale**2 > _MOST_PIXELS:
            raise RkzooError(
                f"The picture would get {width * scale}x{height * scale} pixels.",
                f"The network makes it {scale} times larger, and {_MOST_PIXELS:,} are the most.",
                "Give a smaller picture, or a part of it.",
            )
        source = _at_least(image, self._spec.size)
        channels = self._spec.channels
        made = np.empty((source.shape[0] * scale, source.shape[1] * scale, channels), np.uint8)
        across = spans(source.shape[1], self._spec.size[1], self.head.margin)
        for down in spans(source.shape[0], self._spec.size[0], self.head.margin):
            for along in across:
                self._tile(source, down, along, made)
        made = made[: height * scale, : width * scale]
        return RestoredPicture(self._in_colour(made, image), scale)

    def _tile(self, source: U8, down: Span, along: Span, made: U8) -> None:
        """Run one tile of `source` and write what is used of it into `made`."""
        height, width = self._spec.size
        tile = source[down.start : down.start + height, along.start : along.start + width]
        fit(tile, self._spec, self._canvas)
        (output, *_) = self.session.run([self._canvas])
        pixels = self._pixels(output, self.session.outputs[0])
        n = self.head.scale
        rows = slice((down.first - down.start) * n, (down.stop - down.start) * n)
        columns = slice((along.first - along.start) * n, (along.stop - along.start) * n)
        target = made[down.first * n : down.stop * n, along.first * n : along.stop * n]
        target[:] = pixels[rows, columns]

    def _pixels(self, output: NDArray[Any], spec: TensorSpec) -> U8:
        """An output as uint8 (h, w, C), BGR where it has three channels."""
        planes = plain(output, spec)
        size = tuple(side * self.head.scale for side in self._spec.size)
        if planes.shape != (1, self._spec.channels, *size):
            raise RkzooError(
                f"The model gave an output of {'x'.join(map(str, output.shape))}.",
                f"A picture {self.head.scale} times its input is "
                f"1x{self._spec.channels}x{size[0]}x{size[1]}.",
                "Look at the model with rkzoo inspect, and fix its card.",
            )
        values = dequantise(planes[0], spec) * np.float32(self.head.std)
        values += np.float32(self.head.mean)
        if not np.isfinite(values).all():
            raise RkzooError(
                "The picture holds numbers that are not finite.",
                "The network overflowed: its numbers are too large for float16, or its weights are "
                "damaged.",
                "Look for the layer with rkzoo compare.",
            )
        np.clip(np.rint(values, out=values), 0, 255, out=values)
        pixels = values.astype(np.uint8).transpose(1, 2, 0)
        return np.asarray(pixels[..., ::-1] if self._spec.color == "RGB" else pixels)

    def _in_colour(self, made: U8, image: U8) -> U8:
        """A picture of one channel with the colours of its source, scaled up bicubic."""
        if made.shape[2] == 3:
            return np.ascontiguousarray(made)
        height, width = made.shape[:2]
        chroma = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
        larger = cv2.resize(chroma, (width, height), interpolation=cv2.INTER_CUBIC)
        larger[..., 0] = made[..., 0]
        return np.asarray(cv2.cvtColor(larger, cv2.COLOR_YCrCb2BGR), np.uint8)


def _at_least(image: U8, size: tuple[int, int]) -> U8:
    """The picture, mirrored beyond its right and lower side until it has (height, width)."""
    down, right = (max(0, side - n) for side, n in zip(size, image.shape, strict=False))
    if not (down or right):
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REFLECT), np.uint8)
