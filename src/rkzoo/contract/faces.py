"""Face detection heads, also for license plate corners."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rkzoo.contract.schema_base import Size, StrictStruct


class FaceHead(StrictStruct, frozen=True, tag="face", tag_field="kind"):
    """RetinaFace: boxes 1xNx4, scores 1xNx2 (background, face) and five landmarks 1xNx10,
    identified by their widths, relative to N anchors: level by level, the finest first, row-major,
    and one per side length in each cell.

    https://arxiv.org/abs/1905.00641

    Attributes:
        anchors: Sides of square anchors in input pixels, for each level.
        strides: Stride of each level in input pixels.
        variances: Scale of the predicted centers and sizes.
        activated: The scores leave the graph after the softmax.
        points: Landmarks per face; 4 for license plates and their corners, clockwise.
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


class CentreFaceHead(StrictStruct, frozen=True, tag="face-centre", tag_field="kind"):
    """CenterFace: four maps of cells of `stride` input pixels, in this order: center heatmap
    (1xhxw, after the sigmoid), log height and log width of the face in cells, offset of the center
    in its cell (y, x), and five landmarks as y and x relative to the box, from its corner.

    https://arxiv.org/abs/1911.03599
    """

    stride: Size = 4


class FaceRecognitionHead(StrictStruct, frozen=True, tag="face-recognition", tag_field="kind"):
    """Faces and whose they are: `detector` finds them with five points, `recognizer` makes an
    embedding of each, aligned by the points to ArcFace's template.

    Attributes:
        threshold: Cosine of two embeddings from which on the faces are one person's.
    """

    threshold: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.363


FACES = FaceHead | CentreFaceHead
