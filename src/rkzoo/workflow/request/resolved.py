"""`ResolvedModel`: a float model with its contract, before its head is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import BoxHead, Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import Recognition
from rkzoo.graph.lowering.cut_head import cut_contract, cut_head, keep_head
from rkzoo.graph.lowering.legalize import legalized
from rkzoo.graph.onnx.subgraph import part
from rkzoo.tasks.prompt.prompted import Prompts
from rkzoo.tasks.registry import spec_of
from rkzoo.toolkit.recipe import Algorithm, Dtype, Source
from rkzoo.workflow.request.quantization import USUAL, QuantizationConfig, of_card
from rkzoo.zoo.schema import Card, Int8Recipe

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class ResolvedModel:
    """A float model and what it promises, before any cut.

    `contract` describes what `graph` returns; `recognition` is there when the head was
    recognised from the graph. `quantise` says what becomes of the head, and of INT8. `prompts`
    say what to look for where the contract has texts, once that is settled. `files` are the
    card's further files by role. `tuned` is the card's recipe where INT8 is built by it, and
    `left_out` says what of that does not hold for this file. `cpu` says why it stays on the
    processor, if it does.
    """

    name: str
    original: onnx.ModelProto
    contract: Contract
    source: Source
    dtypes: tuple[Dtype, ...]
    algorithm: Algorithm = "normal"
    card: Card | None = None
    recognition: Recognition | None = None
    quantise: QuantizationConfig = USUAL
    prompts: Prompts | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    tuned: Int8Recipe | None = None
    left_out: str = ""
    cpu: str = ""

    @property
    def is_cut(self) -> bool:
        recognition, head = self.recognition, self.quantise.head
        return (
            recognition is not None
            and head != "uncut"
            and (recognition.form == "stock" or head in _RAW)
        )

    def graph(self) -> onnx.ModelProto:
        """The graph whose outputs the contract names, spelled so that the toolkit takes it. Raises
        RkzooError where the file becomes several."""
        card = self.card
        if self.recognition is not None and self.recognition.parts:
            roles = " and ".join(part.role for part in self.recognition.parts)
            raise RkzooError(
                f"{self.name} is no single model for an NPU.",
                f"Its file is split into {roles}, which rkzoo run and rkzoo convert do.",
                "Convert it with rkzoo convert, which writes a .rknn for each.",
            )
        if card is not None and (card.arrays or card.outputs):
            return part(self.original, inputs_of(self.original, self.contract), card.outputs)
        if isinstance(self.contract.head, TensorsHead):
            return part(self.original, inputs_of(self.original, self.contract))
        if spec_of(self.contract.head).legalize:
            return legalized(self.original, self.contract)
        if self.recognition is None or not isinstance(self.contract.head, BoxHead):
            return self.original  # its size stays free where it is
        head = self.quantise.head
        if head == "uncut" or not self.is_cut:
            return keep_head(self.original, self.recognition)
        return cut_head(self.original, self.recognition, scores=head)

    def second(self) -> ResolvedModel | None:
        """What stands behind this model in its file, as a model of its own."""
        found = self.recognition.second if self.recognition else None
        if found is None:
            return None
        name = f"{self.name}-{found.roles[1]}"
        return ResolvedModel(
            name, found.model, found.contract, self.source, ("fp16",), cpu=found.cpu
        )

    def as_tuned(self, recipe: Int8Recipe, toolkit: str) -> ResolvedModel:
        """The same model, to be built as its card's recipe says. Raises RkzooError."""
        how, left_out = of_card(recipe, self.source.sha256, toolkit)
        return replace(self.quantised(how), tuned=recipe, left_out=left_out)

    def by_toolkit(self) -> QuantizationConfig:
        """How it becomes INT8 without rkzoo's own ranges."""
        how = self.quantise
        own = (how.algorithm or self.algorithm) == "mse"
        return msgspec.structs.replace(how, algorithm="normal") if own else how

    def quantised(self, how: QuantizationConfig) -> ResolvedModel:
        """The same model, its head and its way to INT8 as `how` says. Raises RkzooError when
        it has no such head."""
        if how.head == self.quantise.head:
            return replace(self, quantise=how)
        recognition, mine = self.recognition, self.contract
        if how.head == "sigmoid":
            uncut = recognition.contract if recognition else mine
        elif how.head == "uncut":
            if recognition is None or recognition.uncut is None:
                raise RkzooError(
                    f"{self.name} has no head that rkzoo would cut.",
                    "Its outputs are used as they are.",
                    "Leave --no-cut out.",
                )
            uncut = recognition.uncut
        else:
            if recognition is None or not recognition.head_tensors or not _activated(mine):
                raise RkzooError(
                    f"{self.name} has no scores that could leave it before their sigmoid.",
                    f"Its head was not recognised as one with a sigmoid: it is {mine.family}.",
                    "Use another head form.",
                )
            uncut = cut_contract(recognition, scores=how.head)
        contract = msgspec.structs.replace(uncut, labels=mine.labels, picture=mine.picture)
        return replace(self, contract=contract, quantise=how)


_RAW = ("logits", "bounded")


def inputs_of(graph: onnx.ModelProto, contract: Contract) -> list[ArrayInput]:
    """The inputs of a described model as they lie in its graph, the picture first."""
    others = list(contract.others)
    if contract.picture is None:
        return others
    weights = {tensor.name for tensor in graph.graph.initializer}
    name = next(info.name for info in graph.graph.input if info.name not in weights)
    shape = (1, contract.picture.channels, *contract.picture.size)
    return [ArrayInput(name=name, shape=shape), *others]


def _activated(contract: Contract) -> bool:
    return isinstance(contract.head, DetectHead) and contract.head.activated
