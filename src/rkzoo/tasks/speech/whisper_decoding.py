"""Whisper's timestamp rules: logit filters, and parsing of the generated tokens.

The rules are those of the published decoder (https://github.com/openai/whisper): output starts
with a timestamp; timestamps come in pairs (end of one segment, start of the next) and never
decrease; a timestamp is forced where their total probability exceeds that of any text token.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.speech.tokens import WhisperTokens
from rkzoo.tasks.speech.transcript import Segment
from rkzoo.tasks.speech.windows import loud_between

TICK = 0.02  # seconds between two timestamp tokens
_LATEST_START = 50  # ticks: the first second of a window
# Speech gives about 20 bytes of text per loud second, in English as in Chinese.
_THIN = 12.0
_LONG = 5.0  # loud seconds: below this the measure is not significant

Logs = NDArray[np.float64]


def log_softmax(values: NDArray[Any]) -> Logs:
    """Log probabilities (C,), float64."""
    wide = values.astype(np.float64)
    wide -= wide.max()
    return np.asarray(wide - np.log(np.exp(wide).sum()))


def next_log_probs(logits: NDArray[Any], said: Sequence[int], tokens: WhisperTokens) -> Logs:
    """Log probabilities (V,) of the next token after `said` (without the prompt); -inf for tokens
    that the rules forbid.
    """
    values = logits.astype(np.float64)
    values[list(tokens.suppressed)] = -np.inf
    values[tokens.end + 1 : tokens.time] = -np.inf
    times = [token for token in said if token >= tokens.time]
    if not said:
        values[: tokens.time] = -np.inf
        values[tokens.time + _LATEST_START + 1 :] = -np.inf
    elif said[-1] < tokens.time:
        # The end timestamp is later than the start.
        values[tokens.time : times[-1] + 1] = -np.inf
    elif len(said) < 2 or said[-2] >= tokens.time:
        # After a complete pair, or the first timestamp: text.
        values[tokens.time :] = -np.inf
    else:
        # After the end of a segment: the start of the next, not earlier, or the end token.
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
    """zlib compression ratio of the text; above 2.4 the text is repetitive."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


@dataclass(frozen=True)
class WindowSegments:
    """Segments of a window, and how many of its seconds are `settled` (need no further
    decoding).
    """

    segments: tuple[Segment, ...]
    settled: float


def window_segments(
    values: Sequence[int], seconds: float, tokens: WhisperTokens, ended: bool
) -> WindowSegments:
    """Parse the tokens of a window into segments, with times relative to its start.

    Everything up to the last pair of timestamps is settled. What follows is decoded again with the
    next window, unless the output ends with a single timestamp, after which there is no speech.
    Output without a pair counts for the whole window.

    Args:
        values: generated tokens, without the prompt.
        seconds: duration of the window.
        tokens: vocabulary.
        ended: whether the end token was generated; if not, nothing after the last pair counts.
    """
    is_time = [token >= tokens.time for token in values]
    pairs = [i for i in range(1, len(values)) if is_time[i] and is_time[i - 1]]
    closed = ended and len(values) > 1 and is_time[-1] and not is_time[-2]
    ends = [*pairs, len(values)] if closed or not pairs else pairs
    segments = []
    begin = 0
    for end in ends:
        part = values[begin:end]
        begin = end
        times = [(token - tokens.time) * TICK for token in part if token >= tokens.time]
        text = tokens.text(part)
        if text.strip():
            # Without an end timestamp the segment lasts to the end of the window.
            last = times[-1] if len(times) > 1 else seconds
            first = min(times[0] if times else 0.0, seconds)
            last = min(max(last, first), seconds)
            segments.append(Segment(first, last, text, tuple(part)))
    if pairs and not closed:
        settled = min((values[pairs[-1] - 1] - tokens.time) * TICK, seconds)
    else:
        settled = seconds
    return WindowSegments(tuple(segments), settled)


def thin(read: WindowSegments, loud: NDArray[np.float64]) -> bool:
    """Whether some stretch, from one segment's start to the next, has too little text for its loud
    seconds (`windows.loud_seconds`): speech may have been skipped.
    """
    if not read.segments:
        return False
    begins = [0.0, *(segment.start for segment in read.segments[1:]), read.settled]
    for segment, start, end in zip(read.segments, begins[:-1], begins[1:], strict=True):
        seconds = loud_between(loud, start, end)
        if seconds > _LONG and len(segment.text.encode()) < _THIN * seconds:
            return True
    return False
