"""What models promise that do not answer with something seen in a picture: those that hear,
speak, translate or compare, and the parts of pipelines."""

from __future__ import annotations

from rkzoo.strict import Size, Strict


class TensorsHead(Strict, frozen=True, tag="tensors", tag_field="kind"):
    """One part of a pipeline: plain tensors, which the pipeline's task reads by their names."""


class WhisperHead(Strict, frozen=True, tag="whisper", tag_field="kind"):
    """Speech to text by tokens, one after another: a pipeline of `encoder`, `embedding` and
    `decoder` (graph/whisper.py says what goes in and out), with the files `decoder.vocabulary`
    (a json list of tokens) and `decoder.settings` (a json with `suppress_ids`).

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
