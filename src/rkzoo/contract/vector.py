"""Head of models that answer a picture with numbers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import StrictStruct


class VectorHead(StrictStruct, frozen=True, tag="vector", tag_field="kind"):
    """`size` numbers, 1xN (or 1xNx1x1), the first output of the graph. `embedding`: they mean
    something only beside those of another picture, by the cosine between them (faces,
    re-identification); else each was measured (an age, an angle, landmarks)."""

    size: Annotated[int, msgspec.Meta(ge=1)]
    embedding: bool = True
