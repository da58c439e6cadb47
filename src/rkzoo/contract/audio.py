"""Heads of models that hear or speak."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import Size, Strict

Rate = Annotated[int, msgspec.Meta(ge=1000, le=768000)]


class WhisperHead(Strict, frozen=True, tag="whisper", tag_field="kind"):
    """Speech to text by tokens, one after another: a pipeline of `encoder`, `embedding` and
    `decoder` (graph/from_weights/whisper.py says what goes in and out), with the files
    `decoder.vocabulary` (a json list of tokens) and `decoder.settings` (a json with
    `suppress_ids`).

    https://arxiv.org/abs/2212.04356
    """


class CtcSpeechHead(Strict, frozen=True, tag="ctc-speech", tag_field="kind"):
    """Speech to text by CTC (wav2vec 2.0): sound 1xN, 16000 samples a second, to scores 1xTxC of
    steps of `hop` samples; class `blank` is the CTC blank, `divider` what stands between words.
    The contract's labels are the characters; those in angle brackets are never written.
    `normalised`: the sound is fed with mean 0 and variance 1.

    https://arxiv.org/abs/2006.11477
    """

    blank: int = 0
    hop: Size = 320
    divider: str = "|"
    normalised: bool = True


class TransducerHead(Strict, frozen=True, tag="transducer", tag_field="kind"):
    """Speech to text as it is spoken, by a streaming transducer (Zipformer): a pipeline of
    `encoder` (the fbank frames `x` 1xSxB and caches `cached_*`, to frames 1xTxD and the caches
    anew), `decoder` (the last `context` tokens to 1xD) and `joiner` (one frame and that, to
    scores 1xC), with the file `decoder.vocabulary` (lines of piece and number).

    `hop` frames are new in each segment; a frame of the encoder stands for `step` seconds;
    `skipped` tokens are never written.

    https://arxiv.org/abs/2310.11230
    """

    hop: Size = 96
    context: Size = 2
    blank: int = 0
    skipped: tuple[int, ...] = (2,)
    step: float = 0.04


class VoiceHead(Strict, frozen=True, tag="voice", tag_field="kind"):
    """A VITS voice in parts (https://arxiv.org/abs/2106.06103), whose tensors are known by their
    order. P symbols, T frames, C channels.

    `encoder`: ids (1,P) and how many there are (1,) or which (1,P), and where it takes one the
    noise of the durations (1,2,P); gives log durations (1,1,P), which are symbols (1,1,P), means
    and log deviations (1,C,P). Then `flow`, (1,C,T) and which are frames (1,1,T) to (1,C,T), and
    `vocoder`, (1,C,T) to samples; or one `decoder`: which symbol sounds in a frame (1,1,T,P),
    which are frames, means and log variances (1,P,C) as the encoder gave them, to samples.
    `rate` in samples a second, `hop` samples a frame; `noise` and `duration_noise` are the
    spread around the means that the voice was published with.
    """

    rate: Rate
    hop: Size = 256
    noise: float = 0.667
    duration_noise: float = 0.8
    language: str = "en"


class ActivityHead(Strict, frozen=True, tag="activity", tag_field="kind"):
    """Where in a sound somebody speaks: samples (1, context + step) and a state in, the
    probability (1,1) and the next state out, one step after another.

    `rate` in samples a second. Speech begins at `threshold` and ends where it stays below
    `threshold - 0.15` for `silence` seconds; shorter speech than `shortest` is none; `pad`
    seconds are added at both sides.
    """

    rate: Rate = 16000
    step: Size = 512
    context: Size = 64
    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    silence: float = 0.1
    shortest: float = 0.25
    pad: float = 0.03


class SoundHead(Strict, frozen=True, tag="sound", tag_field="kind"):
    """What is heard: a window of samples in, as float32 in -1..1, scores of the classes in 0..1
    out, (1,C) or one row for each of several pieces of the window, in output number `scores`.

    `rate` in samples a second, `hop` samples from window to window.
    """

    classes: Annotated[int, msgspec.Meta(ge=2)]
    rate: Rate = 16000
    hop: Size = 7800
    scores: Annotated[int, msgspec.Meta(ge=0)] = 0
