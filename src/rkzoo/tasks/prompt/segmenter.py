"""Promptable segmentation by points and boxes: MobileSAM, SAM 2 and similar models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import PromptableSegmentHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session, canvas_of, preprocess_of, run_named
from rkzoo.tasks.segment.result import Masks, masks_of
from rkzoo.tasks.spec import check_box
from rkzoo.vision.letterbox import Letterbox, fit
from rkzoo.vision.maps import to_source

Image = NDArray[np.uint8]
F32 = NDArray[np.float32]
Point = tuple[float, float, int]
Box = tuple[float, float, float, float]
_LABELS = ("object",)
_FIRST, _SECOND, _NONE = 2, 3, -1  # labels of SAM: box corners, and padding
_LOGIT = 0.0  # mask threshold


@dataclass(frozen=True)
class ImageEmbedding:
    """Outputs of the encoder by the decoder's inputs that they go to, with the geometry of the
    resize. Reusable for any number of prompts.
    """

    values: Mapping[str, F32]
    letterbox: Letterbox


class PromptableSegmenter:
    """Encoder and decoder of a promptable segmenter. Construct once, call once per image."""

    def __init__(
        self,
        encoder: tuple[Contract, Session],
        decoder: tuple[Contract, Session],
        points: Sequence[Point] = (),
        boxes: Sequence[Box] = (),
        head: PromptableSegmentHead | None = None,
    ) -> None:
        """Args:
            encoder, decoder: contract and session of each.
            points: (x, y, label) in source-image pixels, all of one object; label 1 foreground, 0
                background.
            boxes: (x1, y1, x2, y2) in source-image pixels, one further object each.
            head: how the decoder's inputs and outputs are called; None for SAM's own names.

        Raises:
            RkzooError: no prompt, or more points than the decoder takes, or the two graphs do not
                go together.
        """
        self.contract, self._encoder = encoder
        self._decoder = decoder[1]
        self._canvas = canvas_of(self._encoder, self.contract.input.size)
        self._fit = preprocess_of(self._encoder, fit)
        self.head = head or PromptableSegmentHead()
        self._wired = wired(self.head, self._encoder, self._decoder)
        self._shapes = {spec.name: spec.shape for spec in self._decoder.inputs}
        self._slots = self._shapes[self.head.labels][-1]
        # A mask made before, which is never given.
        self._unused = {
            name: np.zeros(self._shapes[name], np.float32)
            for name in (self.head.mask, self.head.has_mask)
            if name in self._shapes
        }
        self._prompts = [*([tuple(points)] if points else []), *map(_corners, boxes)]
        if not self._prompts:
            raise RkzooError(
                "There is no point or box.",
                f"{self.contract.family} segments what a point or box shows.",
                "Give a point on it with --point X,Y, or a box around it with --box X1,Y1,X2,Y2.",
            )
        if len(points) > self._slots:
            raise RkzooError(
                f"{len(points)} points were given.",
                f"This decoder takes {self._slots} for one object.",
                "Give the best ones, or a --box around the object.",
            )

    def embed(self, image: Image) -> ImageEmbedding:
        """Run the encoder, which is most of the work, on a BGR image (H, W, 3)."""
        canvas, letterbox = self._fit(image, self.contract.input, self._canvas)
        answer = run_named(self._encoder, {self._encoder.inputs[0].name: canvas})
        return ImageEmbedding({self._wired[name]: answer[name] for name in answer}, letterbox)

    def segment(self, embedding: ImageEmbedding, prompt: Sequence[Point]) -> tuple[Image, float]:
        """Decode one prompt.

        Returns:
            The mask, uint8 (H, W) of 0 and 1 at source resolution, of the highest predicted IoU;
            and that IoU.

        Raises:
            RkzooError: a point lies outside the image.
        """
        places, labels = self._point_arrays(prompt, embedding.letterbox)
        head, shapes = self.head, self._shapes
        answer = run_named(
            self._decoder,
            {
                **embedding.values,
                head.points: places.reshape(shapes[head.points]),
                head.labels: labels.reshape(shapes[head.labels]),
                **self._unused,
            },
        )
        scores = answer[head.scores].reshape(-1)
        best = int(scores.argmax())
        masks = answer[head.masks]
        logits = masks.reshape(-1, *masks.shape[-2:])[best].astype(np.float32)
        mask = to_source(logits, embedding.letterbox) > _LOGIT
        return mask.astype(np.uint8), float(scores[best])

    def __call__(self, image: Image) -> Masks:
        """Segment a BGR image (H, W, 3): one mask per prompt, in order, without empty ones."""
        embedding = self.embed(image)
        candidates = [self.segment(embedding, prompt) for prompt in self._prompts]
        there = [(mask, score, 0) for mask, score in candidates if mask.any()]
        return masks_of(there, _LABELS, embedding.letterbox.source)

    def _point_arrays(self, prompt: Sequence[Point], letterbox: Letterbox) -> tuple[F32, F32]:
        """Point coordinates (1, N, 2) in input pixels, and labels (1, N)."""
        height, width = letterbox.source
        for x, y, _ in prompt:
            if not (isfinite(x) and isfinite(y) and 0 <= x <= width and 0 <= y <= height):
                raise RkzooError(
                    f"The point {x:g},{y:g} lies outside the picture.",
                    f"The picture is {width} wide and {height} high.",
                    "Points and boxes are given in its pixels, from the top left corner.",
                )
        places = np.zeros((1, self._slots, 2), np.float32)
        labels = np.full((1, self._slots), _NONE, np.float32)
        inputs = np.array(prompt, np.float32)
        scale = np.array(letterbox.scale, np.float32)
        places[0, : len(inputs)] = inputs[:, :2] / scale + (letterbox.left, letterbox.top)
        labels[0, : len(inputs)] = inputs[:, 2]
        return places, labels


def wired(head: PromptableSegmentHead, encoder: Session, decoder: Session) -> dict[str, str]:
    """Each output of the encoder, by name, and the decoder's input that takes it.

    Raises:
        RkzooError: An input has nothing to come from, or an output nowhere to go, or a role of the
            head is missing.
    """
    given = [spec.name for spec in encoder.outputs]
    roles = {head.points, head.labels, head.mask, head.has_mask}
    free = [spec.name for spec in decoder.inputs if spec.name not in roles]
    there = {spec.name for spec in (*decoder.inputs, *decoder.outputs)}
    missing = {head.points, head.labels, head.masks, head.scores} - there
    if not missing and set(given) == set(free):
        return {name: name for name in given}
    if not missing and len(given) == len(free) == 1:
        return {given[0]: free[0]}
    raise RkzooError(
        "The encoder and the decoder do not go together.",
        f"The decoder has no {', '.join(sorted(missing))}."
        if missing
        else f"The encoder gives {', '.join(given)}, and the decoder takes {', '.join(free)}.",
        "Take both from one export, or name the inputs and outputs in the card's head: {kind: "
        "cut-out, points: ..., labels: ..., masks: ..., scores: ...}.",
    )


def _corners(box: Box) -> tuple[Point, ...]:
    """A box as two labelled points. Raises RkzooError for an empty box."""
    check_box(box)
    left, top, right, bottom = box
    return (left, top, _FIRST), (right, bottom, _SECOND)
