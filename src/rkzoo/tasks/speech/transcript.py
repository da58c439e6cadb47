"""Transcript with timestamps, and its output formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.tasks.collection import Collection, Rows, pick, times_of


@dataclass(frozen=True)
class Decoding:
    """How Whisper decoded the window that a segment is of, by upstream's names.

    Attributes:
        seek: where the window begins, in hundredths of a second.
        temperature: 0 for the likeliest tokens.
        avg_logprob: mean log probability of its tokens.
        compression_ratio: of its text, by zlib.
        no_speech_prob: probability of no speech.
    """

    seek: int
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


@dataclass(frozen=True)
class Segment:
    """A transcript segment: `start` and `end` in seconds, `text` as generated, with the leading
    space where the script uses spaces. Of Whisper's segments `tokens` and `decoding` are known,
    too.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = field(default=(), compare=False, repr=False)
    decoding: Decoding | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Transcript(Collection):
    """Segments in order of time. `language` is a code (en), `emotion` and `event` are what is heard
    in the first window (SenseVoice: HAPPY, Speech, BGM); empty where unknown."""

    segments: tuple[Segment, ...]
    language: str = ""
    emotion: str = ""
    event: str = ""
    suffix: ClassVar[str] = ".txt"

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def texts(self) -> tuple[str, ...]:
        """Text of each segment."""
        return tuple(segment.text.strip() for segment in self.segments)

    @property
    def times(self) -> NDArray[np.float64]:
        """Start and end of each segment in seconds, (N, 2) float64."""
        return times_of(self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    def _take(self, rows: Rows) -> Transcript:
        return replace(self, segments=pick(self.segments, rows))

    def lines(self) -> list[str]:
        told = ", ".join(f"{name} {value}" for name, value in self.heard.items())
        return ([f"language {self.language}, {told}"] if told else []) + [
            f"{_clock(s.start, '.')[3:]} - {_clock(s.end, '.')[3:]}  {s.text.strip()}"
            if s.end < 3600
            else f"{_clock(s.start, '.')} - {_clock(s.end, '.')}  {s.text.strip()}"
            for s in self.segments
        ]

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "start": round(float(segment.start), 2),
                "end": round(float(segment.end), 2),
                "text": segment.text.strip(),
                "language": self.language or None,
                **self.heard,
            }
            for segment in self.segments
        ]

    @property
    def heard(self) -> dict[str, str]:
        """Emotion and event by name, where they are known."""
        heard = {"emotion": self.emotion, "event": self.event}
        return {name: value for name, value in heard.items() if value}

    def draw(self, image: Any) -> Any:
        raise RkzooError(
            "A transcript cannot be drawn.", "It is text.", "Use text, lines() or save()."
        )

    def save(self, path: Path) -> None:
        """Write .txt (one line per segment), .srt, .vtt or .json. Raises RkzooError for another
        suffix, or when the file cannot be written.
        """
        writer = FORMATS.get(path.suffix.lower())
        if writer is None:
            raise RkzooError(
                f"{path} cannot be written.",
                f"A transcript is written as {', '.join(FORMATS)}.",
                "Give another name.",
            )
        write_text(path, writer(self))


def as_txt(transcript: Transcript) -> str:
    return "".join(f"{segment.text.strip()}\n" for segment in transcript.segments)


def as_srt(transcript: Transcript) -> str:
    return _numbered(transcript.segments, ",")


def as_vtt(transcript: Transcript) -> str:
    return "WEBVTT\n\n" + _numbered(transcript.segments, ".")


def as_json(transcript: Transcript) -> str:
    document = {
        "language": transcript.language or None,
        "text": transcript.text,
        **transcript.heard,
        "segments": [
            {
                "start": round(s.start, 3),
                "end": round(s.end, 3),
                "text": s.text.strip(),
                **({} if s.decoding is None else {"tokens": s.tokens, **asdict(s.decoding)}),
            }
            for s in transcript.segments
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {
    ".txt": as_txt,
    ".srt": as_srt,
    ".vtt": as_vtt,
    ".json": as_json,
}


def _numbered(segments: Sequence[Segment], point: str) -> str:
    return "".join(
        f"{number}\n{_clock(s.start, point)} --> {_clock(s.end, point)}\n{s.text.strip()}\n\n"
        for number, s in enumerate(segments, 1)
    )


def _clock(seconds: float, point: str) -> str:
    """Format as 00:00:05.840."""
    whole = round(seconds * 1000)
    minutes, rest = divmod(whole, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
