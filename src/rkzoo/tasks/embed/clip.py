"""CLIP (https://arxiv.org/abs/2103.00020) and SigLIP (https://arxiv.org/abs/2303.15343): image and
text embeddings, and zero-shot classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.language import ClipHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, canvas_of, dequantise, preprocess_of
from rkzoo.tasks.classify.result import Classes
from rkzoo.tasks.classify.task import sigmoid, softmax
from rkzoo.tasks.embed.result import Passage
from rkzoo.tasks.prompt.encode import TextEncoder, TextTokenizer, l2_normalize
from rkzoo.vision.letterbox import fit

Embeddings = NDArray[np.float32]


_UNLIKELY = -6.9  # logit of a probability of 0.1 %: SigLIP gives little even to what is right


class ClipEmbedder:
    """Zero-shot classifier over `words`; also embeds images and words for search."""

    near = 0.05
    """Below it a picture has nothing to do with the words. Near zero only: how high unrelated
    pictures come was not measured, as the weights cannot be had here."""

    def __init__(
        self,
        head: ClipHead,
        parts: Mapping[str, tuple[Contract, Session]],
        tokenizer: TextTokenizer,
        words: Sequence[str] = (),
    ) -> None:
        self._head, self._words = head, tuple(words)
        self._contract, self._session = parts["image"]
        self._encode = TextEncoder(parts["text"][1], tokenizer)
        self._fit = preprocess_of(self._session, fit)
        self._canvas = canvas_of(self._session, self._contract.input.size)
        flat = [
            index
            for index, tensor_spec in enumerate(self._session.outputs)
            if len(tensor_spec.shape) == 2
        ]
        if len(flat) != 1:
            raise RkzooError(
                "The picture's model gives no embedding.",
                f"An embedding is one row of numbers, and it gives {len(flat)} of these.",
                "Fix the card: `outputs` names the one to use.",
            )
        self._output = flat[0]
        self._least = 1 if head.activation == "sigmoid" else 2
        self._meant = self.embed_text(self._words) if len(self._words) >= self._least else None
        if head.activation == "sigmoid":
            self.near = (_UNLIKELY - head.bias) / head.scale

    def __call__(self, image: NDArray[np.uint8]) -> Classes:
        """Classify a BGR image (H, W, 3) among the words, most probable first.

        Raises:
            RkzooError: fewer than two words were given, or of a SigLIP none.
        """
        if self._meant is None:
            raise RkzooError(
                "There is nothing to choose from.",
                f"Classification needs at least {('one prompt', 'two prompts')[self._least - 1]}.",
                'Give for example --prompt "a photo of a dog" --prompt "a photo of a cat"; or '
                'search pictures with --search "a dog".',
            )
        logits = self._head.scale * (self._meant @ self.embed(image)[0]) + self._head.bias
        scores = sigmoid(logits) if self._head.activation == "sigmoid" else softmax(logits)
        best = np.argsort(-scores, kind="stable")
        return Classes(best.astype(np.int32), scores[best], self._words)

    def embed(self, image: NDArray[np.uint8]) -> Embeddings:
        """Embed a BGR image: (1, W) float32, L2-normalized."""
        fed, _ = self._fit(image, self._contract.input, self._canvas)
        answer = self._session.run([fed])[self._output]
        values = dequantise(answer, self._session.outputs[self._output]).reshape(1, -1)
        return l2_normalize(values, "What the model says of the picture")

    def embed_text(self, words: Sequence[str]) -> Embeddings:
        """Embed words: (N, W) float32, L2-normalized rows. Raises RkzooError for a text that is too
        long."""
        return self._encode(words)

    def count_tokens(self, text: str) -> int:
        """How many tokens the model reads for a text, start and end included."""
        return self._encode.count_tokens(text)

    def passages(self, image: NDArray[np.uint8]) -> tuple[Passage, ...]:
        """Searchable units of an image: the whole image."""
        return (Passage(""),)
