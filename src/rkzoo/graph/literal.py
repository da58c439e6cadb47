"""Parser of Python literals from untrusted files."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<open>[\[({])|(?P<close>[\])}])|(?P<mark>[,:])|"
    r"(?P<value>-?(?:0x[0-9a-fA-F]+|\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?|\.\d+)L?"
    r"|True|False|None|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"))"
)
_MAX_DEPTH = 30


def parse(text: str, limit: int = 4_000_000) -> Any:
    """Parse a literal of dicts, lists, tuples, strings, numbers, booleans and None.

    The tokens are checked first: ast.literal_eval can be made to exhaust the stack of the process
    by operators and brackets.

    Args:
        text: The literal.
        limit: Longest accepted text, in characters.

    Returns:
        Its value; None when it is longer than `limit`, nested deeper than 30, or no such literal.
    """
    if len(text) > limit or not _harmless(text.strip()):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in the untrusted strings
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _harmless(text: str) -> bool:
    depth = at = 0
    after_value = False
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return False
        at = token.end()
        depth += (token["open"] is not None) - (token["close"] is not None)
        begins = token["value"] is not None or token["open"] is not None
        # Two values in a row would be an expression (1 -1 -1, ()()()), not a literal.
        if not 0 <= depth <= _MAX_DEPTH or (after_value and begins):
            return False
        after_value = token["value"] is not None or token["close"] is not None
    return depth == 0
