"""Speech recognition with CTC models (wav2vec 2.0, SenseVoice)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.fbank import stacked_fbank
from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import CtcSpeechHead, StackedFeatures
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Array, Session, run_named
from rkzoo.tasks.ctc import collapse_repeats
from rkzoo.tasks.speech.transcript import Transcript
from rkzoo.tasks.speech.words import TimedToken, segments_of

RATE = 16000
_MARGIN = 2.0  # seconds at a window's edge, where the network lacks context on one side

Floats = NDArray[np.float32]
Steps = NDArray[np.intp]


class _Source(Protocol):
    """A sound as a network takes it: `total` time steps, of which a window holds `size`."""

    @property
    def total(self) -> int: ...

    @property
    def size(self) -> int: ...

    def window(self, first: int) -> Mapping[str, Array]:
        """Inputs of the window that begins at step `first`; what is beyond the sound is 0."""
        ...


@dataclass(frozen=True)
class _Samples:
    """Samples as they are, `hop` a step, in windows of `length`."""

    name: str
    samples: Floats
    hop: int
    length: int

    @property
    def total(self) -> int:
        return -(-len(self.samples) // self.hop)

    @property
    def size(self) -> int:
        return self.length // self.hop

    def window(self, first: int) -> Mapping[str, Array]:
        window = np.zeros((1, self.length), np.float32)
        part = self.samples[first * self.hop : first * self.hop + self.length]
        window[0, : len(part)] = part
        return {self.name: window}


@dataclass(frozen=True)
class _Features:
    """Features (N, F), a row a step, and what else SenseVoice takes."""

    rows: Floats
    size: int
    leading: int
    language: int
    form: int

    @property
    def total(self) -> int:
        return len(self.rows)

    def window(self, first: int) -> Mapping[str, Array]:
        part = self.rows[first : first + self.size]
        speech = np.zeros((1, self.size, self.rows.shape[1]), np.float32)
        speech[0, : len(part)] = part
        mask = np.zeros((1, self.leading + self.size), np.float32)
        mask[0, : self.leading + len(part)] = 1
        ids = (np.array([self.language]), np.array([self.form]))
        return {"speech": speech, "mask": mask, "language": ids[0], "form": ids[1]}


class CtcRecognizer:
    """CTC speech recognizer for sounds of any length.

    The contract's labels must match the network's classes, else a call raises RkzooError.
    """

    def __init__(self, contract: Contract, session: Session, language: str | None = None) -> None:
        if not isinstance(contract.head, CtcSpeechHead):
            raise RkzooError(f"{contract.family} is not a CTC speech model.", code=1)
        self.session, self.head, self.labels = session, contract.head, contract.labels
        self._input = session.inputs[0]
        self._language = language_id(contract.head, language)
        if contract.head.features is not None:
            check_statistics(contract.head.features, contract.family)

    def __call__(self, sound: Sound) -> Transcript:
        steps, tags = self.read(sound.at(RATE))
        segments = segments_of(self.pieces(steps))
        said = {name: tags[at] for at, name in enumerate(_TAGS) if at < len(tags)}
        return Transcript(segments, **said)

    def read(self, samples: Floats) -> tuple[Steps, tuple[str, ...]]:
        """Best class of each step of the whole sound, (T,), and what its leading steps tell of the
        first window: language, emotion, event, form of the text.

        Processed in overlapping windows; each step is taken from the window where it is away from
        the edges.
        """
        source = self._source(samples)
        margin = min(round(_MARGIN * RATE / self.head.hop), source.size // 4)
        stride = source.size - 2 * margin
        best_steps: list[Steps] = []
        tags: tuple[str, ...] = ()
        completed = 0
        while completed < source.total:
            first = max(completed - margin, 0)
            all_steps = self._steps(source.window(first))
            steps = all_steps[self.head.leading :]
            if not completed:
                tags = tuple(self.labels[at].strip("<|>") for at in all_steps[: self.head.leading])
            last = first + source.size >= source.total
            end = min(source.total - first, len(steps)) if last else completed - first + stride
            best_steps.append(steps[completed - first : end])
            # The network has no scores for the last steps of a full window.
            completed = source.total if last else first + end
        return np.concatenate(best_steps) if best_steps else np.zeros(0, np.intp), tags

    def _source(self, samples: Floats) -> _Source:
        head = self.head
        if head.features is None:
            samples = normalised(samples) if head.normalised else samples
            return _Samples(self._input.name, samples, head.hop, self._input.shape[-1])
        of = head.features
        rows = stacked_fbank(samples, of.bins, of.stack, of.stride)
        rows = (rows + np.array(of.shift, np.float32)) * np.array(of.scale, np.float32)
        return _Features(rows, self._input.shape[1], head.leading, self._language, head.form)

    def _steps(self, window: Mapping[str, Array]) -> Steps:
        scores = next(iter(run_named(self.session, window).values()))
        if scores.ndim != 3 or scores.shape[2] != len(self.labels):
            shape = "x".join(map(str, scores.shape))
            raise RkzooError(
                f"The network gave {shape} scores for {len(self.labels)} characters.",
                "The list of characters does not belong to this model.",
                "Give those of its training with --labels, the blank included.",
            )
        return np.asarray(scores[0].argmax(axis=1), np.intp)

    def pieces(self, steps: Steps) -> list[TimedToken]:
        """Decode steps (T,) to words, or pieces of words, with start and end times."""
        head = self.head
        second, apart = head.hop / RATE, head.features is not None
        timed_tokens: list[TimedToken] = []
        begins = True
        for at in collapse_repeats(steps, head.blank).tolist():
            letter = self.labels[steps[at]]
            if letter.startswith("<") and letter.endswith(">"):
                continue
            begins |= letter.startswith(head.divider)
            letter = letter.removeprefix(head.divider)
            if not letter:
                continue
            start, end = at * second, (at + 1) * second
            if begins or apart or not timed_tokens:
                timed_tokens.append(TimedToken(start, end, f" {letter}" if begins else letter))
            else:
                timed_tokens[-1] = TimedToken(
                    timed_tokens[-1].start, end, timed_tokens[-1].text + letter
                )
            begins = False
        return timed_tokens


# What the leading steps of a transcript tell, by its fields.
_TAGS = ("language", "emotion", "event")


def language_id(head: CtcSpeechHead, language: str | None) -> int:
    """The id of a language; of "auto" for None. Raises RkzooError for an unknown code."""
    code = (language or "auto").lower()
    if head.languages and code not in head.languages:
        raise RkzooError(
            f"This model does not know the language {language!r}.",
            f"It knows {', '.join(sorted(set(head.languages) - {'auto'}))}.",
            "Give one of these codes, or leave --language out.",
        )
    return head.languages.get(code, 0)


def check_statistics(features: StackedFeatures, family: str) -> None:
    """Raises RkzooError where the statistics of the features are not known."""
    width = features.bins * features.stack
    if {len(features.shift), len(features.scale)} != {width}:
        raise RkzooError(
            f"The mean and deviation of the features of {family} are not known.",
            f"FunASR keeps these {width} numbers in am.mvn, beside the model.",
            "Put am.mvn into the model's folder, as FunASR does.",
        )


def normalised(samples: Floats) -> Floats:
    """Normalize to mean 0 and variance 1 over the whole sound, as upstream's feature extractor."""
    middle = samples - samples.mean(dtype=np.float64)
    return np.asarray(middle / np.sqrt((middle**2).mean() + 1e-7), np.float32)
