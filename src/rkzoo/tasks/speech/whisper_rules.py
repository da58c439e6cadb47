"""Which token Whisper may say next, and what an answer with times means.

The rules are those of the published decoder (https://github.com/openai/whisper): an answer
begins with a time; times stand in pairs, the end of one segment and the beginning of the next,
and never go back; where a time is likelier than any word it is a time.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.speech.tokens import Tokens
from rkzoo.tasks.speech.transcript import Segment
from rkzoo.tasks.speech.windows import loud_between

TICK = 0.02  # seconds between two times
_LATEST_START = 50  # ticks: the first second of a window
# Ordinary speech is about 20 bytes of text for each loud second, in English as in Chinese.
_THIN = 12.0
_LONG = 5.0  # loud seconds, below which the measure says nothing

Logs = NDArray[np.float64]


def log_softmax(values: NDArray[Any]) -> Logs:
    """Logarithms of probabilities (C,)."""
    wide = values.astype(np.float64)
    wide -= wide.max()
    return np.asarray(wide - np.log(np.exp(wide).sum()))


def next_logs(logits: NDArray[Any], said: Sequence[int], tokens: Tokens) -> Logs:
    """(V,) logarithms of the probabilities of the next token after `said` (without the prompt);
    -inf for those that must not follow."""
    values = logits.astype(np.float64)
    values[list(tokens.suppressed)] = -np.inf
    values[tokens.end + 1 : tokens.time] = -np.inf
    times = [token for token in said if token >= tokens.time]
    if not said:
        values[: tokens.time] = -np.inf
        values[tokens.time + _LATEST_START + 1 :] = -np.inf
    elif said[-1] < tokens.time:
        # A segment ends after it began.
        values[tokens.time : times[-1] + 1] = -np.inf
    elif len(said) < 2 or said[-2] >= tokens.time:
        # The pair is complete, or it is the first time: text.
        values[tokens.time :] = -np.inf
    else:
        # The end of a segment: the next begins, not earlier, or all is said.
        values[: tokens.end] = -np.inf
        values[tokens.time : times[-1]] = -np.inf
    logs = log_softmax(values)
    timed = logs[tokens.time :].max(initial=-np.inf)
    if timed > -np.inf:
        together = timed + np.log(np.exp(logs[tokens.time :] - timed).sum())
        if together > logs[: tokens.time].max():
            logs[: tokens.time] = -np.inf
            logs = log_softmax(logs)
    return logs


def repetitive(text: str) -> float:
    """How many times smaller zlib makes the text: above 2.4 it says the same over and over."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


@dataclass(frozen=True)
class Understood:
    """The segments of a window, and how many seconds of it they settle."""

    segments: tuple[Segment, ...]
    settled: float


def understood(said: Sequence[int], seconds: float, tokens: Tokens, ended: bool) -> Understood:
    """Reads an answer to a window of `seconds`; times count from its beginning.

    Up to the last pair of times everything is settled. What follows it is heard again with the
    next window, unless it ends with a single time, after which nothing more was said. An answer
    without a pair counts as it is, for the whole window. `ended`: the answer came to its end, and
    was not cut off; where it was, nothing behind the last pair counts.
    """
    is_time = [token >= tokens.time for token in said]
    pairs = [i for i in range(1, len(said)) if is_time[i] and is_time[i - 1]]
    closed = ended and len(said) > 1 and is_time[-1] and not is_time[-2]
    ends = [*pairs, len(said)] if closed or not pairs else pairs
    segments = []
    begin = 0
    for end in ends:
        part = said[begin:end]
        begin = end
        times = [(token - tokens.time) * TICK for token in part if token >= tokens.time]
        text = tokens.text(part)
        if text.strip():
            # Without an end of its own it lasts as long as the window.
            last = times[-1] if len(times) > 1 else seconds
            first = min(times[0] if times else 0.0, seconds)
            segments.append(Segment(first, min(max(last, first), seconds), text))
    if pairs and not closed:
        settled = min((said[pairs[-1] - 1] - tokens.time) * TICK, seconds)
    else:
        settled = seconds
    return Understood(tuple(segments), settled)


def thin(read: Understood, loud: NDArray[np.float64]) -> bool:
    """Whether too little was understood of some stretch, from where one segment begins to where
    the next does, for the seconds in it that are as loud as speech (`windows.loud_seconds`):
    something said may have been left out."""
    if not read.segments:
        return False
    begins = [0.0, *(segment.start for segment in read.segments[1:]), read.settled]
    for segment, start, end in zip(read.segments, begins[:-1], begins[1:], strict=True):
        seconds = loud_between(loud, start, end)
        if seconds > _LONG and len(segment.text.encode()) < _THIN * seconds:
            return True
    return False
