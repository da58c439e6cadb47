"""Heads of language models: translation, sentence embedding, image and text embedding."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rkzoo.contract.schema_base import StrictStruct


class ClipHead(StrictStruct, frozen=True, tag="clip", tag_field="kind"):
    """CLIP and SigLIP, zero-shot image classification: a pipeline of `image` (image -> embedding
    1xW) and `text` (token ids -> embedding 1xW), with the file `text.vocabulary`.

    `scale` times the cosine of two embeddings, plus `bias`, goes into a softmax over the texts
    (CLIP, https://arxiv.org/abs/2103.00020) or a sigmoid for each of them (SigLIP,
    https://arxiv.org/abs/2303.15343).

    Attributes:
        scale: exp of the trained logit scale.
        bias: The trained logit bias.
        activation: `sigmoid` where the texts do not exclude each other.
        tokenizer: `clip`: the vocabulary is CLIP's merges; `open_clip`: likewise, and texts are
            padded with 0; `siglip`: it is a SentencePiece model.
    """

    scale: float = 100.0
    bias: float = 0.0
    activation: Literal["softmax", "sigmoid"] = "softmax"
    tokenizer: Literal["clip", "open_clip", "siglip"] = "clip"


class SentenceHead(StrictStruct, frozen=True, tag="sentence", tag_field="kind"):
    """Sentence embedding: a pipeline of `embedding` (token ids 1xL, int64 -> 1xLxW) and `encoder`
    (that and a mask, 0 for a token and very negative for padding -> 1xLxW), with the file
    `embedding.vocabulary` (a WordPiece tokenizer.json, or a zip with one). The mean over the tokens
    is the sentence's embedding.

    https://arxiv.org/abs/1908.10084
    """


class TranslateHead(StrictStruct, frozen=True, tag="translate", tag_field="kind"):
    """Autoregressive translation over BPE tokens (fairseq transformers): a pipeline of `encoder`
    and `decoder`, with the files `encoder.merges` (BPE merges as subword-nmt writes them),
    `encoder.dictionary` (one token per line; the first has id 4) and `encoder.embedding` (float32,
    one row of W per id). S and T are the source and target lengths, H heads of size D, V tokens in
    the vocabulary.

    `encoder`: embeddings 1xSxW and attention mask 1xSxS (1 is masked) -> 1xSxW. `decoder`: one
    token's embedding 1x1xW, the encoder's output, its mask 1xS, a mask of the last T tokens 1xT,
    and for each layer the cached keys and values of the last T - 1, 1xHx(T-1)xD -> scores 1x1xV and
    for each layer keys and values 1xHxTxD, the oldest first.

    Attributes:
        source: Source language code.
        target: Target language code.
        beams: Beam width; 1 is greedy search.
    """

    source: str = "en"
    target: str = "zh"
    beams: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4


class MarianHead(StrictStruct, frozen=True, tag="marian", tag_field="kind"):
    """Autoregressive translation over SentencePiece tokens (Marian transformers, opus-mt): a
    pipeline of `encoder` and `decoder` without KV caches, with the files `encoder.vocabulary` (a
    json from token to id), `encoder.source` and `encoder.target` (SentencePiece models). S and T
    are the source and target lengths, V tokens in the vocabulary; ids and masks are int64, a mask
    is 1 for a token.

    `encoder`: `input_ids` and `attention_mask` 1xS -> 1xSxW. `decoder`: `input_ids` 1xT, the
    encoder's output as `encoder_hidden_states`, `encoder_attention_mask` 1xS -> `logits` 1xTxV.

    https://arxiv.org/abs/1804.00344

    Attributes:
        source: Source language code.
        target: Target language code.
        lead: Token in front of each text that selects the target script, where the model was
            trained with one.
        beams: Beam width; 1 is greedy search.
    """

    source: str = "en"
    target: str = "zh"
    lead: str = ""
    beams: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
