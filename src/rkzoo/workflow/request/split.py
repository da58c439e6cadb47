"""One file that becomes several models: its parts as models of their own, proved together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from rkzoo.contract.audio import ParaformerHead
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.paraformer import file_scores
from rkzoo.graph.families.recognition import SplitPart
from rkzoo.graph.families.speech import softmax
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.session import Array
from rkzoo.tasks.speech.paraformer import Paraformer
from rkzoo.workflow.request.resolved import ResolvedModel

if TYPE_CHECKING:
    import onnx


def split_models(whole: ResolvedModel) -> Iterator[ResolvedModel]:
    """The models that a file is split into, in order; none where it is one.

    Each keeps the labels of the whole. The first is proved, with all others behind it.
    """
    recognition = whole.recognition
    if recognition is None:
        return

    def difference() -> float:
        return _difference(whole, {part.role: part for part in recognition.parts})

    for place, part in enumerate(recognition.parts):
        contract = Contract(
            family=whole.contract.family,
            head=TensorsHead(),
            labels=whole.contract.labels,
            others=part.inputs,
        )
        yield replace(
            whole,
            name=f"{whole.name}-{part.role}",
            original=part.model,
            contract=contract,
            source=msgspec.structs.replace(whole.source, part=part.role),
            recognition=replace(
                recognition,
                contract=contract,
                parts=(),
                difference=None if place else difference,
            ),
        )


def _difference(whole: ResolvedModel, parts: Mapping[str, SplitPart]) -> float:
    """The largest difference between probabilities of the file's graph and of its parts, on noise
    of the whole length and of half of it, which the file's graph is given unpadded; 1 where they
    hear different numbers of tokens. The recogniser holds each part against the file by itself,
    since noise may say nothing, and the file fails then."""
    head, recognition = whole.contract.head, whole.recognition
    if not isinstance(head, ParaformerHead):
        raise RkzooError(f"{whole.contract.family} is not split.", code=1)
    encoder, decoder = (
        OnnxSession(parts[role].model.SerializeToString()) for role in ("encoder", "decoder")
    )
    with encoder, decoder:
        mine = Paraformer(encoder, decoder, head, ())
        _, rows, width = encoder.inputs[0].shape
        random = np.random.default_rng(0)
        together = max(
            _apart(whole.original, mine, random.normal(size=(count, width)).astype(np.float32))
            for count in (rows, rows // 2)
        )
    alone = recognition.difference() if recognition and recognition.difference else 0.0
    return max(together, alone)


def _apart(file: onnx.ModelProto, mine: Paraformer, rows: Array) -> float:
    heard = mine.scores(rows)
    if heard is None or not len(heard[1]):
        return 0.0  # no token, or more than there is room for
    scores, wanted = heard[0], file_scores(file, rows)
    if scores.shape != wanted.shape:
        return 1.0
    return float(np.abs(softmax(scores) - softmax(wanted)).max())
