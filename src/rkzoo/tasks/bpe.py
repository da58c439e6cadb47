"""Byte-pair encoding (BPE) merge loop shared by the tokenizers (https://arxiv.org/abs/1508.07909)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf

Pair = tuple[str, str]


def apply_merges(parts: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """Merge the adjacent pair of the lowest rank until no pair has a rank.

    Args:
        parts: the symbols of one word.
        ranks: rank of each merge; lower merges first.
    """
    results = list(parts)
    while len(results) > 1:
        best = min(pairwise(results), key=lambda pair: ranks.get(pair, inf))
        if best not in ranks:
            break
        results = list(_joined(results, best))
    return results


def _joined(parts: Sequence[str], pair: Pair) -> Iterator[str]:
    index = 0
    while index < len(parts):
        if tuple(parts[index : index + 2]) == pair:
            yield parts[index] + parts[index + 1]
            index += 2
        else:
            yield parts[index]
            index += 1
