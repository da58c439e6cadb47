"""Segmentation heads."""

from __future__ import annotations

from math import log
from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import StrictStruct


class PromptableSegmentHead(StrictStruct, frozen=True, tag="cut-out", tag_field="kind"):
    """Promptable segmentation (SAM): a pipeline of `encoder`, image -> embedding 1xExhxw, and
    `decoder`, which takes that as `image_embeddings`, N points as `point_coords` 1xNx2 in input
    pixels and `point_labels` 1xN (1 foreground, 0 background, 2 and 3 box corners, -1 none),
    `mask_input` 1x1x4hx4w and `has_mask_input`, and returns `low_res_masks` 1xMx4hx4w, logits, and
    `iou_predictions` 1xM, their estimated quality.

    https://arxiv.org/abs/2304.02643
    """


class SemanticHead(StrictStruct, frozen=True, tag="semantic", tag_field="kind"):
    """Semantic segmentation, the first output of the graph: logits (or probabilities) 1xCxhxw of
    any size, or class ids 1xhxw.

    Attributes:
        classes: Number of classes; 2 for a single map.
        picked: The output holds class ids, after an ArgMax in the graph.
        corners: align_corners: the outermost logits lie on the outermost pixels of the input;
            otherwise each covers its share of the input.
        threshold: For a single map, the probability above which a pixel is of class 1; for
            `multi_label`, that above which it is of a map's class.
        multi_label: Each map has a sigmoid of its own, so a pixel may be of several classes or
            none.
        logits: What is compared with `threshold` is a logit, whose sigmoid is the probability.
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
