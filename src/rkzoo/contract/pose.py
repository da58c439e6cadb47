"""Heads of networks that find the key points of people."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rkzoo.contract.schema_base import StrictStruct


class TopDownPoseHead(StrictStruct, frozen=True, tag="top-down-pose", tag_field="kind"):
    """Key points of the one person that a picture shows.

    Attributes:
        points: Number of key points K.
        coding: `simcc`: two outputs 1xKxBx and 1xKxBy, a score for each bin of x and of y, where
            B / side is the number of bins a pixel (https://arxiv.org/abs/2107.03332). `heatmap`:
            one output 1xKxhxw, whose cells are side / h pixels wide. `heatmap-udp`: the same, its
            outermost cells lie on the outermost pixels (https://arxiv.org/abs/1911.07524).
        padding: How much of the surroundings is shown: the sides of the box times this.
    """

    points: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    coding: Literal["simcc", "heatmap", "heatmap-udp"]
    padding: Annotated[float, msgspec.Meta(ge=1, le=4)] = 1.25


class PeoplePoseHead(StrictStruct, frozen=True, tag="people-pose", tag_field="kind"):
    """A pipeline: `detector` finds people, `pose` the key points of each.

    Attributes:
        person: Name of the detector's class that is a person; where the detector names no classes,
            it is the first.
    """

    person: str = "person"


class OneStagePoseHead(StrictStruct, frozen=True, tag="one-stage-pose", tag_field="kind"):
    """A pipeline of one network's two parts (RTMO, https://arxiv.org/abs/2312.07526): `network`
    finds people, with a pose vector each, and `classifier` makes key points of a person's box and
    vector.

    Attributes:
        points: Number of key points K.
    """

    points: Annotated[int, msgspec.Meta(ge=1, le=1024)]
