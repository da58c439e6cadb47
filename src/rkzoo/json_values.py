"""Conversion of Python values to JSON types."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

import msgspec


def to_json_value(value: Any) -> Any:
    """Convert a value to what `json.dumps` accepts.

    Structs and dataclasses become dicts; tuples, sets and arrays lists; numpy scalars Python
    scalars; paths strings; NaN and infinities null.

    Raises:
        TypeError: the type has no JSON form.
    """
    if value is None or isinstance(value, bool | int) or type(value) is str:
        return value
    if isinstance(value, msgspec.Struct):
        return to_json_value(msgspec.to_builtins(value, enc_hook=to_json_value))
    if hasattr(value, "tolist"):  # an array or a numpy scalar
        return to_json_value(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json_value(entry) for entry in value]
    if is_dataclass(value):
        return {field.name: to_json_value(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def json_text(document: Any, **options: Any) -> str:
    """A document as JSON, with characters as they are. File names need not be text: with such a
    one in it all is escaped.
    """
    text = json.dumps(document, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, **options)
    return text
