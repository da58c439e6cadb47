"""Heads of speech and audio models."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import Size, StrictStruct

Rate = Annotated[int, msgspec.Meta(ge=1000, le=768000)]


class WhisperHead(StrictStruct, frozen=True, tag="whisper", tag_field="kind"):
    """Whisper, autoregressive speech recognition: a pipeline of `encoder`, `embedding` and
    `decoder` (their inputs and outputs: graph/from_weights/whisper.py), with the files
    `decoder.vocabulary` (a json list of tokens) and `decoder.settings` (a json with
    `suppress_ids`).

    https://arxiv.org/abs/2212.04356
    """


class MoonshineHead(StrictStruct, frozen=True, tag="moonshine", tag_field="kind"):
    """Moonshine, autoregressive speech recognition from samples: a pipeline of `encoder`,
    `embedding` and `decoder` (their inputs and outputs: graph/from_weights/moonshine.py), with the
    file `decoder.vocabulary` (tokenizer.json).

    https://arxiv.org/abs/2410.15608

    Attributes:
        start, end: Ids of the token that an answer begins with, and of the one that ends it.
        tokens_per_second: More are not said in a second, as upstream counts.
    """

    start: int = 1
    end: int = 2
    tokens_per_second: Annotated[float, msgspec.Meta(gt=0, le=100)] = 6.5


class StackedFeatures(StrictStruct, frozen=True):
    """FunASR's features: log mel of 25 ms every 10 ms, `stack` frames in a row every `stride`, then
    (x + shift) * scale, each (stack * bins,) as in its am.mvn; both empty where they are not known.
    """

    bins: Size = 80
    stack: Size = 7
    stride: Size = 6
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


class CtcSpeechHead(StrictStruct, frozen=True, tag="ctc-speech", tag_field="kind"):
    """CTC speech recognition -> scores 1xTxC. wav2vec 2.0 takes samples 1xN at 16 kHz; SenseVoice
    `speech` 1xTxF, the `mask` 1x(leading + T) of what is not padding, and as ids the `language` and
    the `form` of the text (1,).

    The contract's labels are the characters, or pieces of words (SentencePiece); those in angle
    brackets are never output. https://arxiv.org/abs/2006.11477, https://arxiv.org/abs/2407.04051

    Attributes:
        blank: Class of the CTC blank.
        hop: Samples per time step.
        divider: The character between words; pieces of words begin with it.
        normalised: The samples are normalized to mean 0 and variance 1.
        features: What is made of the samples; None where the network takes them as they are.
        leading: First time steps, which tell the language, the emotion, the event and the form.
        languages: Ids of the languages by code; "auto" where it is to be found out.
        form: Id of the form of the text that is asked for: with punctuation and numerals.
    """

    blank: int = 0
    hop: Size = 320
    divider: str = "|"
    normalised: bool = True
    features: StackedFeatures | None = None
    leading: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    languages: dict[str, int] = msgspec.field(default_factory=dict)
    form: int = 0

    def with_statistics(self, shift: tuple[float, ...], scale: tuple[float, ...]) -> CtcSpeechHead:
        """The same head with these statistics of its features, where it has some."""
        if self.features is None:
            return self
        features = msgspec.structs.replace(self.features, shift=shift, scale=scale)
        return msgspec.structs.replace(self, features=features)


class ParaformerHead(StrictStruct, frozen=True, tag="paraformer", tag_field="kind"):
    """Paraformer, speech recognition in one pass: a pipeline of `encoder` and `decoder` (their
    inputs and outputs: graph/families/paraformer.py), between which the processor sums up which
    frames are one token. The decoder's labels are the tokens; those in angle brackets are never
    output, and "@@" ends a token that its word goes on after.

    https://arxiv.org/abs/2206.08317

    Attributes:
        features: What is made of the samples.
        tail: Share of a token that is added behind the last frame.
    """

    features: StackedFeatures = StackedFeatures()
    tail: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.45

    def with_statistics(self, shift: tuple[float, ...], scale: tuple[float, ...]) -> ParaformerHead:
        """The same head with these statistics of its features."""
        features = msgspec.structs.replace(self.features, shift=shift, scale=scale)
        return msgspec.structs.replace(self, features=features)


class TransducerHead(StrictStruct, frozen=True, tag="transducer", tag_field="kind"):
    """Streaming transducer speech recognition (Zipformer): a pipeline of `encoder` (fbank frames
    `x` 1xSxB and caches `cached_*` -> frames 1xTxD and updated caches), `decoder` (the last
    `context` tokens -> 1xD) and `joiner` (one frame and that -> scores 1xC), with the file
    `decoder.vocabulary` (lines of token and id).

    https://arxiv.org/abs/2310.11230

    Attributes:
        hop: New frames per segment.
        context: Tokens that the decoder reads.
        blank: Class of the blank.
        skipped: Token ids that are never output.
        step: Seconds per encoder frame.
    """

    hop: Size = 96
    context: Size = 2
    blank: int = 0
    skipped: tuple[int, ...] = (2,)
    step: float = 0.04


class VoiceHead(StrictStruct, frozen=True, tag="voice", tag_field="kind"):
    """VITS speech synthesis, split into parts (https://arxiv.org/abs/2106.06103). Tensors are
    identified by their order. P symbols, T frames, C channels.

    `encoder`: ids (1,P) and their count (1,) or mask (1,P), optionally the duration noise (1,2,P)
    -> log durations (1,1,P), symbol mask (1,1,P), means and log deviations (1,C,P). Then `flow`,
    (1,C,T) and frame mask (1,1,T) -> (1,C,T), and `vocoder`, (1,C,T) -> samples; or one `decoder`:
    alignment (1,1,T,P), frame mask, means and log variances (1,P,C) from the encoder -> samples.
    Or all of StyleTTS 2 in one `network` (Kokoro, https://arxiv.org/abs/2306.07691): ids (1,P),
    style (1,256), speed (1,) -> samples (N,) and frames of each symbol (P,).

    Attributes:
        rate: Sample rate in Hz.
        hop: Samples per frame.
        noise: Scale of the noise around the means, as published with the voice.
        duration_noise: The same for the durations.
        language: Language code.
        voice: Name of the style, where the file `network.voices` holds several.
    """

    rate: Rate
    hop: Size = 256
    noise: float = 0.667
    duration_noise: float = 0.8
    language: str = "en"
    voice: str = ""


class VoiceActivityHead(StrictStruct, frozen=True, tag="activity", tag_field="kind"):
    """Voice activity detection: samples (1, context + step) and a state -> speech probability (1,1)
    and the next state, step by step.

    Attributes:
        rate: Sample rate in Hz.
        step: New samples per step.
        context: Samples repeated from the step before.
        threshold: Speech begins at this probability, and ends where it stays below `threshold -
            0.15`.
        silence: Seconds below it that end speech.
        shortest: Shorter speech is dropped, in seconds.
        pad: Seconds added at both ends.
    """

    rate: Rate = 16000
    step: Size = 512
    context: Size = 64
    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    silence: float = 0.1
    shortest: float = 0.25
    pad: float = 0.03


class SoundHead(StrictStruct, frozen=True, tag="sound", tag_field="kind"):
    """Audio classification: a window of samples, float32 in -1..1 -> class scores in 0..1, (1,C) or
    one row per segment of the window.

    Attributes:
        classes: Number of classes.
        rate: Sample rate in Hz.
        hop: Samples from window to window.
        scores: Index of the output with the scores.
    """

    classes: Annotated[int, msgspec.Meta(ge=2)]
    rate: Rate = 16000
    hop: Size = 7800
    scores: Annotated[int, msgspec.Meta(ge=0)] = 0
