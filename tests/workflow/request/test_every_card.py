"""Every card of the zoo: complete, opened by something, and built for the chips that it claims."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import TensorsHead
from rkzoo.contract.text import PlateHead, TextDetHead, TextRecHead
from rkzoo.errors import RkzooError
from rkzoo.soc.chips import chips, supported
from rkzoo.tasks.registry import spec_of
from rkzoo.toolkit import checks
from rkzoo.toolkit.recipe import Recipe
from rkzoo.workflow.compile.convert import check_chips, convert
from rkzoo.workflow.request import resolve
from rkzoo.workflow.request.importers.registry import MAKERS
from rkzoo.zoo import catalogue
from rkzoo.zoo.labels import label_set
from rkzoo.zoo.schema import Card

CARDS = {card.name: card for card in catalogue.cards() if card.task != "asset"}
# Tasks whose heads are read from the graph (graph/families/registry.py).
RECOGNISED = ("detect", "segment", "pose", "obb", "face", "vector", "anomaly", "speech")
NOTHING = ()


def able(card: Card) -> dict[str, tuple[str, ...]]:
    return {soc: catalogue.dtypes_on(card, soc, chips()[soc].dtypes) for soc in supported()}


def names_of(card: Card) -> tuple[str, ...]:
    if isinstance(card.labels, str):
        return label_set(card.labels)
    return card.labels if isinstance(card.labels, tuple) else NOTHING


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if not card.pipeline])
def test_its_contract_is_complete(name: str) -> None:
    card, head = CARDS[name], CARDS[name].head
    assert card.family
    assert card.input or card.arrays
    assert not card.make or card.make in MAKERS
    assert head or card.task in RECOGNISED
    names = names_of(card)
    if isinstance(head, ClassifyHead | DetectHead) and names:
        assert len(names) == head.classes
    if isinstance(head, PlateHead):
        assert len(names) == head.blank + 1


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.pipeline])
def test_its_parts_are_there_and_play_together(name: str) -> None:
    parts = catalogue.members(CARDS[name])
    if CARDS[name].head is not None:
        assert not spec_of(CARDS[name].head).part
        return
    assert isinstance(parts["det"].head, TextDetHead | FaceHead)
    assert isinstance(parts["rec"].head, TextRecHead | PlateHead)
    assert set(parts) <= {"det", "rec", "cls"}


def test_every_part_is_played() -> None:
    """Tensors alone answer nothing: something must make sense of them."""
    played = {part for card in CARDS.values() for part in card.pipeline.values()}
    alone = {name for name, card in CARDS.items() if isinstance(card.head, TensorsHead)} - played
    assert not alone


def on_the_processor(card: Card) -> bool:
    parts = catalogue.members(card).values()
    return bool(card.cpu) or (bool(card.pipeline) and all(part.cpu for part in parts))


@pytest.mark.parametrize("name", [n for n, card in CARDS.items() if not on_the_processor(card)])
def test_it_is_built_for_its_chips_and_refused_for_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: Any, **__: Any) -> None:
        pytest.fail("something was to be fetched before the chip was looked at")

    monkeypatch.setattr(resolve, "weights", fetched)
    card = CARDS[name]
    found = able(card)
    assert any(found.values())
    for soc, dtypes in found.items():
        # Of a pipeline each part has a format of its own.
        for dtype in () if card.pipeline else dtypes:
            recipe = Recipe(soc=soc, dtype=dtype, inputs=())  # type: ignore[arg-type]
            wrong = checks.check(recipe=recipe, opset=13, shapes={}, samples=20)
            assert not [problem for problem in wrong if problem.severity == "error"]
        if dtypes:
            check_chips(card, [soc])
            continue
        with pytest.raises(RkzooError, match=f"{name} cannot be built for {soc}") as caught:
            convert(name, soc)
        error = caught.value
        assert "\n" not in error.what + error.why + error.fix
        assert set(re.findall(r"r[kv]\d+\w*", error.fix)) == {one for one in found if found[one]}


def test_what_stays_on_the_processor_is_not_built() -> None:
    assert on_the_processor(CARDS["kokoro"])
    with pytest.raises(RkzooError, match="Nothing of kokoro is built"):
        convert("kokoro", "rk3588")
