"""Byte-pair encoding (https://arxiv.org/abs/1508.07909): the merging that its tokenizers share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf

Pair = tuple[str, str]


def merged(parts: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """The parts of a word, of all neighbours the pair of the lowest rank joined, until none of
    them has a rank."""
    made = list(parts)
    while len(made) > 1:
        best = min(pairwise(made), key=lambda pair: ranks.get(pair, inf))
        if best not in ranks:
            break
        made = list(_joined(made, best))
    return made


def _joined(parts: Sequence[str], pair: Pair) -> Iterator[str]:
    index = 0
    while index < len(parts):
        if tuple(parts[index : index + 2]) == pair:
            yield parts[index] + parts[index + 1]
            index += 2
        else:
            yield parts[index]
            index += 1
