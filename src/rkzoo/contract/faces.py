"""Heads that find faces, and plates by their corners."""

from __future__ import annotations

from typing import Literal

from rkzoo.contract.schema_base import Size, Strict


class FaceHead(Strict, frozen=True, tag="face", tag_field="kind"):
    """RetinaFace: boxes 1xNx4, scores 1xNx2 (background, face) and five points 1xNx10, told
    apart by their widths, relative to N anchors: level by level, the finest first, row by row,
    and in a cell one for each of its sides. With four `points` it is number plates and their
    corners, clockwise.

    https://arxiv.org/abs/1905.00641. `anchors` are the sides of square anchors in input pixels
    for each level; `variances` scale what the network says of centres and of sizes;
    `activated`: the scores leave the graph after their softmax.
    """

    anchors: tuple[tuple[float, ...], ...] = ((16, 32), (64, 128), (256, 512))
    strides: tuple[Size, ...] = (8, 16, 32)
    variances: tuple[float, float] = (0.1, 0.2)
    activated: bool = True
    points: Literal[4, 5] = 5

    def __post_init__(self) -> None:
        if len(self.anchors) != len(self.strides) or not all(self.anchors):
            raise ValueError("anchors must be given for each level")
        if any(side <= 0 for level in self.anchors for side in level):
            raise ValueError("anchors must be positive")


class CentreFaceHead(Strict, frozen=True, tag="face-centre", tag_field="kind"):
    """CenterFace: four maps of cells of `stride` input pixels, in this order: how surely the
    middle of a face lies in a cell (1xhxw, after its sigmoid), the logarithms of the face's
    height and width in cells, where in the cell its middle is (y, x), and of each of five points
    y and x in shares of the box, from its corner. https://arxiv.org/abs/1911.03599
    """

    stride: Size = 4


FACES = FaceHead | CentreFaceHead
