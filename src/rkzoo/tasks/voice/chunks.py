"""Chunking of long inputs: texts at words, arrays in overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class PhoneticWord:
    """A word's symbol ids; `pause`: followed by punctuation at which a split is natural."""

    symbols: tuple[int, ...]
    pause: bool = False


def fitting(words: Sequence[PhoneticWord], room: int) -> list[tuple[PhoneticWord, ...]]:
    """Group words into runs of at most `room` symbols, cut at the last pause where one lies in the
    second half of the room; a word is split only where it exceeds the room by itself.
    """
    short: list[PhoneticWord] = []
    for word in words:
        parts = [word.symbols[at : at + room] for at in range(0, len(word.symbols), room)]
        short += (
            [PhoneticWord(part) for part in parts[:-1]] + [PhoneticWord(parts[-1], word.pause)]
            if parts
            else []
        )
    runs: list[tuple[PhoneticWord, ...]] = []
    start = 0
    while start < len(short):
        end, used, pause = start, 0, start
        while end < len(short) and used + len(short[end].symbols) <= room:
            used += len(short[end].symbols)
            end += 1
            if short[end - 1].pause and 2 * used >= room:
                pause = end
        stop = pause if pause > start and end < len(short) else end
        runs.append(tuple(short[start:stop]))
        start = stop
    return runs


def halves(
    words: Sequence[PhoneticWord],
) -> tuple[tuple[PhoneticWord, ...], tuple[PhoneticWord, ...]]:
    """Split a run in two at the word nearest the middle; a single word at its middle."""
    if len(words) == 1:
        symbols = words[0].symbols
        middle = len(symbols) // 2
        return (PhoneticWord(symbols[:middle]),), (PhoneticWord(symbols[middle:], words[0].pause),)
    ends = np.cumsum([len(word.symbols) for word in words])[:-1]
    middle = int(np.abs(ends - ends[-1] / 2 - len(words[-1].symbols) / 2).argmin()) + 1
    return tuple(words[:middle]), tuple(words[middle:])


def windows(length: int, size: int, margin: int) -> list[tuple[int, int, int]]:
    """Overlapping windows of `size` over `length` items: (start, first, last).

    Of the window at `start`, the output for first..last is kept. Together these cover everything
    once; `margin` items are discarded at each inner window edge.
    """
    spans = []
    start = first = 0
    while start + size < length:
        last = start + size - margin
        spans.append((start, first, last))
        start, first = min(last - margin, length - size), last
    return [*spans, (start, first, length)]


def in_windows(
    run: Callable[[Array], Array], inputs: Array, size: int, margin: int, hop: int = 1
) -> Array:
    """Apply `run` to (1, C, T) in windows of `size` frames, zero-padded.

    Args:
        run: maps (1, C, size) to (..., size * hop).
        inputs: (1, C, T) float32.
        size, margin: see `windows`.
        hop: output values per frame.

    Returns:
        (rows, T * hop).
    """
    length = inputs.shape[-1]
    kept = []
    for start, first, last in windows(length, size, margin):
        piece = inputs[..., start : start + size]
        fed = np.zeros((*inputs.shape[:-1], size), np.float32)
        fed[..., : piece.shape[-1]] = piece
        answer = run(fed).reshape(-1, size * hop)
        kept.append(answer[:, (first - start) * hop : (last - start) * hop])
    return np.concatenate(kept, axis=1)
