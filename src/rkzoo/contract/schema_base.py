"""Base class of the schema-checked records, and value ranges they share."""

from __future__ import annotations

from typing import Annotated

import msgspec


class StrictStruct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An immutable record; an unknown key is an error."""


Size = Annotated[int, msgspec.Meta(ge=1, le=16384)]
Length = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
