"""Detection heads of transformers: scores and a box for each of a fixed number of queries."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rkzoo.contract.schema_base import StrictStruct

Column = Annotated[int, msgspec.Meta(ge=0)]


class QueryOutput(StrictStruct, frozen=True):
    """The meaning of one output, of N queries and C columns of scores.

    - `score` 1xNxC, `box` 1xNx4; or
    - `decoded` 1xNx(4+C), box and scores in one tensor; or, where the graph itself picked the K
      best,
    - `score` 1xK, `label` 1xK (the column) and `box` 1xKx4.
    """

    name: str
    role: Literal["score", "box", "decoded", "label"]


class QueryDetectHead(StrictStruct, frozen=True, tag="query-detect", tag_field="kind"):
    """A detection head of DETR's kind: no cells and no anchors, one object a query, so nothing is
    suppressed. A query may be of several classes: the best of all queries times classes count
    (https://arxiv.org/abs/2304.08069), or of the best class alone where they exclude each other.

    Attributes:
        outputs: The outputs; see `QueryOutput`.
        classes: How many classes it knows.
        activation: What makes scores of the numbers: `sigmoid`; `softmax` over the classes and, in
            the last column, no object (https://arxiv.org/abs/2005.12872); `none` where the graph
            has done it.
        columns: The column of each class; empty where the first columns are the classes. A network
            trained on COCO's own numbers has 91 columns, of which 80 are classes.
        corners: Boxes are x1, y1, x2, y2; else cx, cy, w, h. Both in shares of the input's width
            and height.
    """

    outputs: tuple[QueryOutput, ...]
    classes: Annotated[int, msgspec.Meta(ge=1)]
    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"
    columns: tuple[Column, ...] = ()
    corners: bool = False

    def __post_init__(self) -> None:
        roles = [output.role for output in self.outputs]
        if sorted(roles) not in (["decoded"], ["box", "score"], ["box", "label", "score"]):
            raise ValueError("outputs must be decoded; or score and box; or these and label")
        if self.columns and len(self.columns) != self.classes:
            raise ValueError("columns must name one column a class")

    @property
    def picked(self) -> bool:
        """Whether the graph picked the best itself."""
        return any(output.role == "label" for output in self.outputs)
