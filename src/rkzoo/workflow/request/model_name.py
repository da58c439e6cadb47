"""Whether the name of a model is a card's. Needs no ONNX."""

from __future__ import annotations

from rkzoo.workflow.request.importers.registry import is_model_file
from rkzoo.zoo.catalogue import card as find_card
from rkzoo.zoo.schema import Card


def is_pipeline(model: str) -> Card | None:
    """The card of a pipeline of models, or None for anything else."""
    card = card_of(model)
    return card if card and card.pipeline else None


def card_of(model: str) -> Card | None:
    """The card of that name, or None where a file is named. Raises RkzooError."""
    return None if is_model_file(model) else find_card(model)
