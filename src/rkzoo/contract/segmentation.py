"""Heads that say of each pixel what it shows."""

from __future__ import annotations

from math import log
from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import Strict


class CutOutHead(Strict, frozen=True, tag="cut-out", tag_field="kind"):
    """Objects cut out where the user points (SAM): a pipeline of `encoder`, picture to an
    embedding 1xExhxw, and `decoder`, which takes that as `image_embeddings`, N points as
    `point_coords` 1xNx2 in input pixels and `point_labels` 1xN (1 the object, 0 not it, 2 and 3
    the corners of a box, -1 none), `mask_input` 1x1x4hx4w and `has_mask_input`, and gives
    `low_res_masks` 1xMx4hx4w, logits, and `iou_predictions` 1xM, how good each will be.

    https://arxiv.org/abs/2304.02643
    """


class SemanticHead(Strict, frozen=True, tag="semantic", tag_field="kind"):
    """What each pixel shows, the first output of the graph: logits (or probabilities) 1xCxhxw of
    any size, or the numbers of the best classes, 1xhxw, where `picked`.

    `corners`: the outermost logits lie on the outermost pixels of the input, which TensorFlow
    calls align_corners; else each covers its share of the input. One map alone of two classes
    says how surely a pixel is of class 1: above `threshold`. `multi_label`: so does each map of
    its own class, and a pixel may be of several or none. What is compared with `threshold` is a
    probability, or a logit whose sigmoid is one where `logits`.
    """

    classes: Annotated[int, msgspec.Meta(ge=1, le=256)]
    picked: bool = False
    corners: bool = False
    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    multi_label: bool = False
    logits: bool = False

    @property
    def limit(self) -> float:
        """What a number of a map must exceed."""
        odds = self.threshold / (1 - self.threshold)
        return log(odds) if self.logits else self.threshold
