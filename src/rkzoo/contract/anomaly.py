"""Heads of anomaly detectors."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import StrictStruct


class AnomalyHead(StrictStruct, frozen=True, tag="anomaly", tag_field="kind"):
    """Anomaly detection: a map of how unlike what was trained on each place of a picture is, as
    anomalib exports it (https://arxiv.org/abs/2202.08341).

    Attributes:
        map: The output 1x1xhxw or 1xhxw of any size, larger is less usual.
        score: The output of the whole picture's score, one number; where it is empty, the score is
            the largest value of the map.
        threshold: What a score, or a place of the map, must exceed to be an anomaly. anomalib's
            exports are scaled so that it is 0.5.
    """

    map: str = "anomaly_map"
    score: str = "pred_score"
    threshold: Annotated[float, msgspec.Meta(ge=0)] = 0.5

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that are read."""
        return (self.map, self.score) if self.score else (self.map,)
