"""Text encoders of CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise

_NAMED = ("text_embeds", "pooler_output")  # as Hugging Face's exporter calls them
_INTEGERS = ("int64", "int32")


class TextTokenizer(Protocol):
    """What cuts texts into the tokens of a text encoder.

    Attributes:
        usual_length: tokens of a row, for graphs with a dynamic number.
        ends: tokens that it adds to each text.
    """

    usual_length: int
    ends: int

    def encode(self, text: str) -> list[int]: ...

    def rows(self, texts: Iterable[str], length: int) -> NDArray[np.int64]: ...

    def attended(self, row: NDArray[np.int64]) -> NDArray[np.bool_]: ...


class TextEncoder:
    """Text encoder of CLIP or SigLIP: token ids 1xL in, one embedding 1xW out, with an attention
    mask where the graph has one.

    Raises:
        RkzooError: the session's model is of another kind.
    """

    def __init__(self, session: Session, tokenizer: TextTokenizer) -> None:
        self._session, self._tokenizer = session, tokenizer
        inputs = session.inputs
        if (
            not inputs
            or len(inputs) > 2
            or not all(_takes_tokens(tensor_spec) for tensor_spec in inputs)
        ):
            raise _another(f"It takes {_listed(inputs)} where token numbers 1xL are due.")
        self._length = inputs[0].shape[1] if inputs[0].shape[1] > 0 else tokenizer.usual_length
        if self._length < 3:
            raise _another(f"It takes texts of {self._length} tokens, and a start and an end.")
        self._masks = [len(inputs) == 2 and "mask" in tensor_spec.name for tensor_spec in inputs]
        if len(inputs) == 2 and sum(self._masks) != 1:
            raise _another(f"It takes {_listed(inputs)}, and none of them is called a mask.")
        flat = [
            index
            for index, tensor_spec in enumerate(session.outputs)
            if len(tensor_spec.shape) == 2
        ]
        named = [index for index in flat if session.outputs[index].name in _NAMED]
        chosen = named or flat
        if len(chosen) != 1:
            raise _another(f"It gives {_listed(session.outputs)}, and not one embedding 1xW.")
        self._output = chosen[0]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: (N, W) float32, L2-normalized rows."""
        rows = [self._embed(row) for row in self._tokenizer.rows(texts, self._length)]
        return np.concatenate(rows)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, start and end included."""
        return len(self._tokenizer.encode(text)) + self._tokenizer.ends

    def _embed(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        alive = self._tokenizer.attended(tokens)
        fed = [
            (alive if mask else tokens)[None].astype(tensor_spec.dtype)
            for tensor_spec, mask in zip(self._session.inputs, self._masks, strict=True)
        ]
        answer = self._session.run(fed)[self._output]
        values = dequantise(answer, self._session.outputs[self._output]).reshape(1, -1)
        return l2_normalize(values, "The text encoder's answer")


def l2_normalize(values: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    """L2-normalize rows.

    Raises:
        RkzooError: a row is zero or not finite; the message begins with `what`.
    """
    length = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(values).all() or not (length > 0).all():
        raise RkzooError(
            f"{what} is not an embedding.",
            "It is all zeros, or holds values that are not finite.",
            "Check the text encoder, or make the embeddings again.",
        )
    return np.asarray(values / length, np.float32)


def _takes_tokens(spec: TensorSpec) -> bool:
    return spec.dtype in _INTEGERS and len(spec.shape) == 2 and spec.shape[0] in (1, -1)


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(
        f"{s.name} {s.dtype} {'x'.join('?' if d < 0 else str(d) for d in s.shape)}" for s in specs
    )


def _another(why: str) -> RkzooError:
    return RkzooError(
        "The text model is not a CLIP text encoder that rkzoo can use.",
        why,
        "Give the encoder that belongs to the model with --text-model, or --embeddings FILE.npy.",
    )
