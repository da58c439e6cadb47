"""What lies beside a speech model of FunASR's: the statistics of its features, and its tokens."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from rkzoo.contract.audio import CtcSpeechHead, ParaformerHead, StackedFeatures
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_text
from rkzoo.tasks.registry import spec_of
from rkzoo.workflow.request.options import read_labels

_STATISTICS = "am.mvn"
_TOKENS = ("tokens.txt", "tokens.json")


def with_files_beside(contract: Contract, model: Path) -> Contract:
    """The contract of a speech model with what its folder holds and its file does not.

    Args:
        contract: Of any model.
        model: Its file.

    Raises:
        RkzooError: A file there is damaged.
    """
    head = contract.head
    if not isinstance(head, (CtcSpeechHead, ParaformerHead)) or head.features is None:
        return contract
    labels, beside = contract.labels, model.parent / _STATISTICS
    if not head.features.shift and beside.is_file():
        head = head.with_statistics(*_statistics(beside, head.features))
    if not labels:
        found = next((model.parent / n for n in _TOKENS if (model.parent / n).is_file()), None)
        labels = () if found is None else spec_of(head).name_classes(head, _tokens(found))
    return msgspec.structs.replace(contract, head=head, labels=labels)


def _statistics(path: Path, features: StackedFeatures) -> list[tuple[float, ...]]:
    """FunASR's am.mvn, a network of Kaldi's in text: what is added, then multiplied."""
    with os_errors_explained(f"The statistics {path} cannot be read."):
        text = read_text(path)
    rows: list[tuple[float, ...]] = []
    for layer in ("AddShift", "Rescale"):
        match = re.search(rf"<{layer}>[^\[]*\[([^\]]*)\]", text)
        try:
            rows.append(tuple(float(number) for number in match[1].split()) if match else ())
        except ValueError:
            rows.append(())
    width = features.bins * features.stack
    if any(len(row) != width for row in rows):
        raise RkzooError(
            f"{path} does not hold the statistics of the features.",
            f"After <AddShift> and <Rescale> it must have {width} numbers each, in brackets.",
            "Copy it again from the model's folder.",
        )
    return rows


def _tokens(path: Path) -> tuple[str, ...]:
    if path.suffix != ".json":
        return read_labels(path)
    with os_errors_explained(f"The tokens {path} cannot be read."):
        text = read_text(path)
    try:
        tokens = msgspec.json.decode(text, type=tuple[str, ...])
    except msgspec.MsgspecError as error:
        raise RkzooError(
            f"The tokens {path} cannot be read.", f"{error}.", "Copy it again."
        ) from error
    return tokens
