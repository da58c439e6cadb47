"""Segmentation heads."""

from __future__ import annotations

from math import log
from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import StrictStruct


class PromptableSegmentHead(StrictStruct, frozen=True, tag="cut-out", tag_field="kind"):
    """Promptable segmentation (SAM and what followed): a pipeline of `encoder`, image -> one
    embedding or several, and `decoder`, which takes these and a prompt and returns masks.

    An output of the encoder goes to the decoder's input of its name; a single one, where none is
    called so, to the input that no role names. Every further input is a role, by the name that it
    has in the file. `points` and `labels` must be there, the others where the decoder has them.

    Attributes:
        points: N places in pixels of the encoder's input, (1, N, 2) or (1, 1, N, 2), x first.
        labels: What each is, (1, N) or (1, 1, N): 1 foreground, 0 background, 2 and 3 the corners
            of a box, -1 none.
        mask: Logits of an earlier mask, 1x1xhxw; zeros are given.
        has_mask: Whether that counts, (1,); 0 is given.
        masks: The output of M masks, 1xMxhxw or 1x1xMxhxw, logits over the encoder's input.
        scores: The output of their estimated quality, 1xM or 1x1xM.

    https://arxiv.org/abs/2304.02643
    """

    points: str = "point_coords"
    labels: str = "point_labels"
    mask: str = "mask_input"
    has_mask: str = "has_mask_input"
    masks: str = "low_res_masks"
    scores: str = "iou_predictions"


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
