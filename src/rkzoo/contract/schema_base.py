"""Ground floor: the base of every checked record, and the numbers many of them hold."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Immutable, and an unknown key is an error."""


Size = Annotated[int, msgspec.Meta(ge=1, le=16384)]
Length = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
