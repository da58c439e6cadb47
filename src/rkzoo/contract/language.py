"""Heads of models that translate, or compare texts and pictures."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import Strict


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
