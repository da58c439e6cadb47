"""Open-vocabulary detection with fixed prompts.

With fixed prompts the model is an ordinary detector: the contract has one class per prompt, and
the session feeds the text embeddings with every image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ArrayInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Array, Closeable, Session


@dataclass(frozen=True)
class Prompts:
    """Text prompts and their embeddings.

    Attributes:
        words: one prompt per class.
        embeddings: float32 (N, width), L2-normalized rows.
    """

    words: tuple[str, ...]
    embeddings: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.words) != len(self.embeddings):
            raise ValueError("embeddings must be (number of words, width)")

    def __len__(self) -> int:
        return len(self.words)


def fill_slots(prompts: Prompts, texts: ArrayInput) -> NDArray[np.float32]:
    """Repeat the prompts until every text slot is used.

    The network takes the maximum over all texts, so repeating one changes nothing, while zeros
    would.

    Returns:
        float32 (1, slots, width).

    Raises:
        RkzooError: too many prompts, none, or embeddings of another width.
    """
    _, slots, width = texts.shape
    count, length = prompts.embeddings.shape
    if not 1 <= count <= slots:
        raise RkzooError(
            f"{count} prompts were given, but the model takes {slots} at the most."
            if count
            else "No prompt was given.",
            "It was exported with so many slots for texts.",
            "Leave some out, or run it once for each part of them."
            if count
            else 'Say what to look for, for example --prompt "a red bus".',
        )
    if length != width:
        raise RkzooError(
            f"The embeddings have {length} numbers each, but the model takes {width}.",
            "They come from another text encoder than the one it was trained with.",
            "Give the encoder that belongs to the model with --text-model.",
        )
    return np.ascontiguousarray(prompts.embeddings[np.arange(slots) % count][None], np.float32)


def prompted_contract(contract: Contract, prompts: Prompts) -> Contract:
    """Return the contract with one class per prompt. Existing labels are kept if the count
    matches.
    """
    if not isinstance(contract.head, DetectHead):
        raise RkzooError(f"{contract.family} has no detection head.", code=1)
    if contract.labels and len(contract.labels) != len(prompts):
        raise RkzooError(
            f"{len(prompts)} prompts were given, but {len(contract.labels)} labels.",
            "Each prompt is a class, and its words are its label.",
            "Leave --labels out, or give one for each prompt.",
        )
    return msgspec.structs.replace(
        contract,
        head=msgspec.structs.replace(contract.head, classes=len(prompts)),
        labels=contract.labels or prompts.words,
        others=(),
    )


class PromptedSession(Closeable):
    """Wraps the session of an open-vocabulary model as one that takes images only. Owns `session`.

    Score outputs are narrowed to the number of prompts. `inner` is the wrapped session.
    """

    def __init__(self, session: Session, contract: Contract, prompts: Prompts) -> None:
        texts = contract.texts
        if texts is None or not isinstance(contract.head, DetectHead):
            raise RkzooError(f"{contract.family} takes no texts.", code=1)
        self.inner, self._count = session, len(prompts)
        self._texts = fill_slots(prompts, texts)
        self.label = session.label
        self.inputs = session.inputs[:1]
        self._scores = _scores(contract.head, session.outputs)
        self.outputs = tuple(
            _narrowed(spec, self._count) if index in self._scores else spec
            for index, spec in enumerate(session.outputs)
        )

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run on one image, as `session` takes it."""
        outputs = self.inner.run([*arrays, self._texts])
        return [
            _first(array, self.outputs[index], self._count) if index in self._scores else array
            for index, array in enumerate(outputs)
        ]

    def close(self) -> None:
        self.inner.close()


def _scores(head: DetectHead, outputs: Sequence[TensorSpec]) -> frozenset[int]:
    """Indices of the score outputs, by name, or by position where names were lost."""
    by_name = {spec.name: index for index, spec in enumerate(outputs)}
    named = all(output.name in by_name for output in head.outputs)
    return frozenset(
        by_name[output.name] if named else position
        for position, output in enumerate(head.outputs)
        if output.role == "score"
    )


def _axis(spec: TensorSpec) -> int:
    return len(spec.shape) - 1 if spec.layout == "NHWC" else 1


def _kept(spec: TensorSpec, count: int) -> int:
    """Extent of the axis that holds the first `count` channels; NC1HWC2 stores blocks."""
    return -(-count // spec.shape[-1]) if spec.layout == "NC1HWC2" else count


def _narrowed(spec: TensorSpec, count: int) -> TensorSpec:
    shape = list(spec.shape)
    shape[_axis(spec)] = _kept(spec, count)
    return msgspec.structs.replace(spec, shape=tuple(shape))


def _first(array: Array, spec: TensorSpec, count: int) -> Array:
    index: list[slice] = [slice(None)] * array.ndim
    index[_axis(spec)] = slice(_kept(spec, count))
    return np.ascontiguousarray(array[tuple(index)])
