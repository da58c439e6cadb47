"""Class names of a model: from its card, assumed by their number, checked against the head."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import read_text
from rkzoo.graph.onnx.read import load, metadata
from rkzoo.progress import ProgressReporter
from rkzoo.tasks.registry import spec_of
from rkzoo.workflow.request.options import read_labels
from rkzoo.zoo.catalogue import card as find_card
from rkzoo.zoo.fetch import weights
from rkzoo.zoo.labels import is_label_file, label_set
from rkzoo.zoo.schema import Card, LabelsFrom

if TYPE_CHECKING:
    import onnx


def card_labels(
    card: Card | None, graph: onnx.ModelProto, files: Mapping[str, Path]
) -> tuple[str, ...]:
    if card is None:
        return ()
    if isinstance(card.labels, str) and is_label_file(card.labels):
        return read_labels(Path(card.labels))
    if isinstance(card.labels, str):
        return label_set(card.labels)
    if not isinstance(card.labels, LabelsFrom):
        return card.labels
    where = card.labels
    if where.onnx_metadata:
        text = metadata(graph).get(where.onnx_metadata)
        if text is None:
            raise RkzooError(
                f"The model of {card.name} does not carry its labels.",
                f"Its metadata has no entry {where.onnx_metadata!r}.",
                "Fetch it again with rkzoo fetch, or give --labels FILE.",
            )
    else:
        text = read_text(files[where.file])
        if where.column:
            rows = csv.DictReader(StringIO(text))
            return (*where.before, *(row[where.column] for row in rows), *where.after)
    # Not splitlines(): the characters of a text model include other line separators.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    return (*where.before, *lines, *where.after)


def with_assumed_labels(contract: Contract, name: str, report: ProgressReporter) -> Contract:
    """Nameless classes that are nearly always COCO's: 80 of them, or the one with 17 key
    points; ImageNet's, VOC's, Cityscapes'; the characters of Chinese plates."""
    assumed = spec_of(contract.head).default_labels(contract.head)
    if contract.labels or contract.texts or assumed is None:
        return contract
    known = label_set(assumed.label_set) if assumed.label_set else ()
    if assumed.card:
        known = _labels_with(assumed.card, name, report)
    if assumed.why:
        report.note(f"{name} does not name {assumed.why} assumed. Give --labels FILE for others.")
    return msgspec.structs.replace(contract, labels=(*assumed.names, *known))


def _labels_with(card: str, name: str, report: ProgressReporter) -> tuple[str, ...]:
    """The labels that a card comes with, fetched with its weights; none where that fails."""
    found = find_card(card)
    try:
        files = weights(found, report=report)
        return card_labels(found, load(files["model"]), files)
    except RkzooError as error:
        report.note(f"{name}: the characters of {card} could not be had. {error}")
        return ()


def check_labels(contract: Contract, name: str) -> None:
    if not contract.texts:  # else its classes are the prompts
        spec_of(contract.head).check_labels(contract.head, contract.labels, name)
