"""What models promise that do not answer with something seen in a picture: those that hear,
speak, translate or compare, and the parts of pipelines."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.strict import Size, Strict

Rate = Annotated[int, msgspec.Meta(ge=1000, le=768000)]


class TensorsHead(Strict, frozen=True, tag="tensors", tag_field="kind"):
    """One part of a pipeline: plain tensors, which the pipeline's task reads by their names."""


class CutOutHead(Strict, frozen=True, tag="cut-out", tag_field="kind"):
    """Objects cut out where the user points (SAM): a pipeline of `encoder`, picture to an
    embedding 1xExhxw, and `decoder`, which takes that as `image_embeddings`, N points as
    `point_coords` 1xNx2 in input pixels and `point_labels` 1xN (1 the object, 0 not it, 2 and 3
    the corners of a box, -1 none), `mask_input` 1x1x4hx4w and `has_mask_input`, and gives
    `low_res_masks` 1xMx4hx4w, logits, and `iou_predictions` 1xM, how good each will be.

    https://arxiv.org/abs/2304.02643
    """


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


class ClipHead(Strict, frozen=True, tag="clip", tag_field="kind"):
    """How well pictures and words go together: a pipeline of `image` (a picture to an embedding
    1xW) and `text` (token numbers to one), with the file `text.vocabulary` (CLIP's merges).

    `scale` times the cosine of two embeddings goes into a softmax over the words.
    https://arxiv.org/abs/2103.00020
    """

    scale: float = 100.0


class SentenceHead(Strict, frozen=True, tag="sentence", tag_field="kind"):
    """How alike texts are in what they mean: a pipeline of `embedding` (token numbers 1xL, int64,
    to numbers 1xLxW) and `encoder` (those and a mask, 0 for a token and very negative for none,
    to 1xLxW), with the file `embedding.vocabulary` (a tokenizer.json of WordPiece, or a zip with
    one). The mean over a text's tokens is its embedding.

    https://arxiv.org/abs/1908.10084
    """


class TranslateHead(Strict, frozen=True, tag="translate", tag_field="kind"):
    """Text to text by pieces of words, one after another (fairseq's transformers): a pipeline of
    `encoder` and `decoder`, with the files `encoder.merges` (byte-pair merges as subword-nmt
    writes them), `encoder.dictionary` (a piece a line; the first has the number 4) and
    `encoder.embedding` (float32, a row of W for each number). S and T are the pieces that they
    take, H heads of D numbers, V pieces in all.

    `encoder`: pieces 1xSxW and which pairs of them count not, 1 for those, 1xSxS; gives 1xSxW.
    `decoder`: one piece 1x1xW, what the encoder gave, which of it counts not 1xS, which of the
    last T pieces count not 1xT, and for each layer the keys and values of the last T - 1,
    1xHx(T-1)xD; gives scores 1x1xV and for each layer keys and values 1xHxTxD, the oldest first.

    `source` and `target` are the languages' codes. `beams` 1 is the greedy way.
    """

    source: str = "en"
    target: str = "zh"
    beams: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4


class MarianHead(Strict, frozen=True, tag="marian", tag_field="kind"):
    """Text to text by SentencePiece pieces (Marian's transformers, opus-mt): a pipeline of
    `encoder` and `decoder` without caches, with the files `encoder.vocabulary` (a json from piece
    to number), `encoder.source` and `encoder.target` (SentencePiece models). S and T are the
    pieces that they take, V pieces in all; numbers and masks are int64, a mask's 1 is a piece.

    `encoder`: `input_ids` and `attention_mask` 1xS; gives 1xSxW. `decoder`: `input_ids` 1xT, what
    the encoder gave as `encoder_hidden_states`, `encoder_attention_mask` 1xS; gives `logits`
    1xTxV.

    `source` and `target` are the languages' codes. `lead` is the piece in front of each text that
    says the target's script, where the model was trained with one. `beams` 1 is the greedy way.
    https://arxiv.org/abs/1804.00344
    """

    source: str = "en"
    target: str = "zh"
    lead: str = ""
    beams: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
